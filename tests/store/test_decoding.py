"""Documents that the driver cannot decode: catches one document that makes the whole reply
unreadable, and another value of that document that is decoded wrongly."""

import struct

import pytest
from bson import Binary, Code, ObjectId, Regex, encode
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database

from jobmon.store.decoding import decode

from ..conftest import Api
from ..fuzz.documents import Value, array, binary, code_with_scope, document, encode_pairs, text

MALFORMED = binary(b"abc", 2)  # lacks the length with which a value of subtype 2 begins
WELL_FORMED = binary(struct.pack("<i", 3) + b"abc", 2)
OTHER_FIELDS: list[tuple[bytes, Value]] = [
    (b"oid", Value(0x07, b"\0" * 12)),
    (b"regex", Value(0x0B, b"a\0i\0")),
    (b"code", text("f()", 0x0D)),
    (b"pointer", Value(0x0C, text("users").data + b"\0" * 12)),
    (b"undefined", Value(0x06, b"")),
    (b"well_formed", WELL_FORMED),
    (b"decimal", Value(0x13, b"\0" * 16)),
]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: value,
        lambda value: document((b"a", array(value, value))),
        lambda value: code_with_scope("f()", document((b"a", value))),
    ],
    ids=["alone", "nested", "scope"],
)
@pytest.mark.parametrize("data", [b"", b"abc", struct.pack("<i", 9) + b"abc"])
def test_a_binary_value_with_two_different_lengths_gets_subtype_128(
    wrap: object, data: bytes
) -> None:
    assert callable(wrap)
    encoded = encode_pairs(
        [*OTHER_FIELDS, (b"malformed", wrap(binary(data, 2))), (b"last", text("z"))]
    )
    decoded = decode(encoded)
    value = decoded["malformed"]
    assert f"Binary({data!r}, 128)" in repr(value.scope if isinstance(value, Code) else value)
    assert decoded["well_formed"] == Binary(b"abc", 2)
    assert decoded["regex"] == Regex("a", "i")
    assert decoded["oid"] == ObjectId(b"\0" * 12)
    assert (decoded["undefined"], decoded["last"]) == (None, "z")


def test_bytes_that_are_no_document_are_refused() -> None:
    with pytest.raises((InvalidBSON, struct.error, ValueError, IndexError)):
        decode(encode({"a": 1})[:-3])


def test_a_job_that_the_driver_cannot_decode_is_in_its_list_on_its_page_and_in_the_stats(
    real_api: Api, database: Database
) -> None:
    database.jobs.insert_many({"jobId": f"job-{number}", "status": "dlq"} for number in range(3))
    fields = [(b"type", MALFORMED), (b"payload", document((b"a", MALFORMED)))]
    encoded = encode_pairs([(b"_id", text("odd")), (b"jobId", text("odd")), *fields])
    database.jobs.insert_one(RawBSONDocument(encoded))
    assert len(real_api.get_as_admin("/admin/jobs/queue").json["data"]) == 4
    assert real_api.get_as_admin("/jobs/odd").json["payload"] == {"a": "YWJj"}
    assert real_api.get_as_admin("/admin/jobs/stats").json["typeCounts"]["YWJj"] == {"null": 1}
