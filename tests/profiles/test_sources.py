"""Fields of profiles: catches a field whose value in lists differs from its value in statistics."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from pymongo.database import Database

from jobmon.profiles.sources import SourceContext, parse_source
from jobmon.profiles.stored_values import encode_date, parse_date

DATE = datetime.now(UTC).replace(microsecond=123_000)
LAST_DATE = datetime.max.replace(microsecond=999_000, tzinfo=UTC)
CONTEXT = SourceContext(
    constants={"$const.n": 3, "$const.long": "1 h", "$collection": "mail"},
    readings={
        "iso": "iso",
        "s": "seconds",
        "ms": "milliseconds",
        "us": "microseconds",
        "log.at": "iso",
        "dated.at": "iso",
    },
)
DOCUMENT: dict[str, Any] = {
    "a": None,
    "b": {"c": 7},
    "date": DATE,
    "late": LAST_DATE,
    "log": [
        {"state": "ok", "n": 1},
        {"state": "bad", "n": 2, "at": encode_date(DATE, "iso")},
        {"state": "ok", "n": 3},
    ],
    "none": [],
    "dated": f'{{"at": "{encode_date(DATE, "iso")}"}}',
    "text": '{"error": {"names": ["x", "y"]}}',
    "half": r'{"text": "a\ud800", "pair": "\ud83d\ude00"}',
    "iso": encode_date(DATE, "iso"),
    "s": encode_date(DATE.replace(microsecond=0), "seconds"),
    "ms": encode_date(DATE, "milliseconds"),
    "us": encode_date(DATE, "microseconds"),
}
OBJECT_VALUE = {"message": 7, "code": None}
# Pairs: a field as a profile defines it, and its value in `DOCUMENT`.
CASES: list[tuple[Any, Any]] = [
    ("b.c", 7),
    ("b.d", None),
    ("log.n", None),
    ("date", DATE),
    ("iso", DATE),
    ("s", DATE.replace(microsecond=0)),
    ("ms", DATE),
    ("us", DATE),
    ({"path": "date", "plus": "10 min"}, DATE + timedelta(minutes=10)),
    ({"path": "ms", "plus": "$const.long"}, DATE + timedelta(hours=1)),
    ({"path": "late", "plus": "1 s"}, DatetimeMS(int(DatetimeMS(LAST_DATE)) + 1_000)),
    ({"path": "b.c", "plus": 1}, 8),
    ({"path": "b", "plus": 1}, {"c": 7}),
    ({"first_of": ["a", "x", "b.c"]}, 7),
    ({"first_of": ["a", "x"]}, None),
    ({"first_of": ["a", {"constant": "$const.n"}]}, 3),
    ({"first": "log", "path": "n"}, 1),
    ({"last": "log", "path": "n"}, 3),
    ({"last": "log", "match": {"state": "bad"}, "path": "n"}, 2),
    ({"last": "log", "match": {"state": "bad"}, "path": "at"}, DATE),
    ({"last": "log", "match": {"state": "gone"}, "path": "n"}, None),
    ({"last": "none", "path": "n"}, None),
    ({"last": "b", "path": "n"}, None),
    ({"length": "log"}, 3),
    ({"length": "b"}, None),
    ({"json": "text", "path": "error.names.-1"}, "y"),
    ({"json": "text", "path": "error.names.7"}, None),
    ({"json": "text", "path": "error.names", "join": ", "}, "x, y"),
    ({"json": "b", "path": "c"}, 7),
    ({"json": "half"}, {"text": "a?", "pair": "\U0001f600"}),
    ({"object": {"message": "b.c", "stack": "x"}}, {"message": 7, "stack": None}),
    ({"object": {"message": "x"}}, None),
    ({"constant": "$collection"}, "mail"),
    ({"expression": {"$add": ["$b.c", "$const.n"]}}, 10),
    ({"path": "b.c", "when": {"a": "$null"}}, 7),
    ({"path": "b.c", "when": {"a": {"$ne": "$null"}}}, None),
    ({"last": "log", "path": "n", "when": {"b.c": 7}}, 3),
    ({"first_of": [{"path": "b.c", "when": {"a": 1}}, {"length": "log"}]}, 3),
    ({"first_of": [{"path": "b.c", "when": {"a": "$null"}}, {"length": "log"}]}, 7),
    ({"first_of": [{"expression": {"$add": ["$b.c", 1]}}, "x"], "when": {"a": "$null"}}, 8),
    ({"object": {"message": {"path": "b.c", "when": {"a": "$null"}}, "code": "a"}}, OBJECT_VALUE),
    ({"object": {"message": {"path": "b.c", "when": {"a": 1}}}}, None),
    ({"json": "dated", "path": "at"}, DATE),
]
# Fields whose expressions are not compared: they compute nothing, or another value.
NOT_COMPARED = (
    {"path": "b", "plus": 1},
    "log.n",
    {"object": {"message": "x"}},
    {"object": {"message": {"path": "b.c", "when": {"a": 1}}}},
)


@pytest.mark.parametrize(("spec", "value"), CASES, ids=[str(spec) for spec, _ in CASES])
def test_a_source_reads_what_its_expression_computes(
    database: Database[dict[str, Any]], spec: Any, value: Any
) -> None:
    source = parse_source(spec, CONTEXT, ())
    database.c.insert_one(DOCUMENT.copy())

    def compute(expression: Any) -> Any:
        (result,) = database.c.aggregate([{"$project": {"v": expression}}])
        computed = result.get("v")
        return computed.replace(tzinfo=UTC) if isinstance(computed, datetime) else computed

    document = DOCUMENT if source.computed is None else compute(source.computed)
    assert (None if document is None else source.read(document)) == value
    if source.expression is not None and spec not in NOT_COMPARED:
        computed = compute(source.expression)
        if isinstance(value, dict):  # the database omits members without a value
            assert computed in (value, {key: part for key, part in value.items() if part})
        else:
            assert computed == value


@pytest.mark.parametrize("reading", ["seconds", "milliseconds", "microseconds"])
def test_a_boolean_is_not_read_as_a_date(reading: str) -> None:
    """Catches a job that began in 1970, because Python's True is also the number 1."""
    assert parse_date(True, reading) is True
