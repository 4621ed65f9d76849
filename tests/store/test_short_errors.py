"""Short errors on the real server: catches a text that Python and the server cut differently."""

from typing import Any

import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId, Regex
from pymongo.database import Database

from jobmon.store.short_errors import (
    GAP,
    HEAD,
    MAX_LINE_LENGTH,
    TAIL,
    make_short_error_expression,
    shorten_error,
)

from ..conftest import NOW

LIMIT = HEAD + len(GAP) + TAIL
LINES = "Traceback:\n" + "".join(f"  {number} é \U0001f600\r\n" for number in range(2_000))
VALUES = (
    *(LINES[:length] for length in (LIMIT - 1, LIMIT, LIMIT + 1, None)),
    *(("😀é" * 600)[: MAX_LINE_LENGTH + difference] for difference in (-1, 0, 1)),
    *("", "\n", "a\0b", 7, 1.5, True, None, Int64(2**40), Decimal128("1.5"), ObjectId()),
    *(["a"], {"a": "b"}, Code("f()"), Regex("a"), Binary(b"a"), NOW),
)


def test_server_and_python_shorten_an_error_to_the_same_texts(
    database: Database[dict[str, Any]],
) -> None:
    errors = [
        *VALUES,
        *({"code": value, "message": value, "stack": value, "input": value} for value in VALUES),
        {},
        {"stack": LINES},
    ]
    database.errors.insert_many(
        {"_id": number, "error": error} for number, error in enumerate(errors)
    )
    stages: list[dict[str, Any]] = [
        {"$sort": {"_id": 1}},
        {"$project": {"error": True, "short": make_short_error_expression("$error")}},
    ]
    documents = list(database.errors.aggregate(stages))
    assert len(documents) == len(errors)
    for document in documents:
        by_python, by_server = shorten_error(document["error"]), document["short"]
        if isinstance(by_python, dict):  # the server omits the field of a missing value
            assert set(by_server) <= set(by_python)
            by_python = {name: by_python[name] for name in by_server}
        assert by_server == by_python


@pytest.mark.parametrize("length", [LIMIT + 1, len(LINES)])
def test_long_text_keeps_its_beginning_and_its_end(length: int) -> None:
    text = LINES[:length]
    short = shorten_error(text)
    assert short == text[:HEAD] + GAP + text[-TAIL:]
    assert shorten_error(short) == short
