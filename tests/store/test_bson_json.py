"""BSON to JSON: catches a value that JSON cannot hold, and a date that JavaScript would print
differently."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from jobmon.store.bson_json import to_iso, to_json, to_text

NAIVE_DATE = datetime(2026, 1, 2)  # noqa: DTZ001 - read by a client with tz_aware=False
OID = ObjectId("65f0c0ffee0123456789abcd")


@pytest.mark.parametrize(
    ("moment", "iso_text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 678_999, UTC), "2026-01-02T03:04:05.678Z"),
        (NAIVE_DATE, "2026-01-02T00:00:00.000Z"),
        (datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))), "2026-01-02T00:00:00.000Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC), "1969-12-31T23:59:59.999Z"),
        (datetime(33, 1, 1, tzinfo=UTC), "0033-01-01T00:00:00.000Z"),
        (DatetimeMS(0), "1970-01-01T00:00:00.000Z"),
        (DatetimeMS(-1), "1969-12-31T23:59:59.999Z"),
        (DatetimeMS(253_402_300_800_000), "+010000-01-01T00:00:00.000Z"),
        (DatetimeMS(8_640_000_000_000_000), "+275760-09-13T00:00:00.000Z"),
        (DatetimeMS(-62_135_596_800_001), "0000-12-31T23:59:59.999Z"),
        (DatetimeMS(-62_198_755_200_000), "-000001-01-01T00:00:00.000Z"),
    ],
)
def test_dates_are_printed_as_javascript_prints_them(moment: Any, iso_text: str) -> None:
    assert to_iso(moment) == iso_text  # each as `new Date(…).toISOString()` in Node.js


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (Int64(2**53), 2**53),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ("text", "text"),
        (OID, str(OID)),
        (Decimal128("1.10"), "1.10"),
        (b"raw", "cmF3"),
        (Binary(b"x" * 16, 4), "78787878-7878-7878-7878-787878787878"),
        (Binary(b"x", 5), "eA=="),
        (Regex("a.b", "i"), "a.b"),
        (Timestamp(1, 5), "1970-01-01T00:00:01.000Z"),
        (Code("f()", {"x": 1}), "f()"),
        (DBRef("users", OID), {"$ref": "users", "$id": str(OID)}),
        (MinKey(), "MinKey"),
        (MaxKey(), "MaxKey"),
        ({"a": [OID, {"b": NAIVE_DATE}]}, {"a": [str(OID), {"b": "2026-01-02T00:00:00.000Z"}]}),
    ],
)
def test_a_value_of_any_bson_type_becomes_json(value: Any, expected: Any) -> None:
    assert to_json(value) == expected
    assert json.loads(json.dumps(to_json(value), allow_nan=False)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("queued", "queued"),
        (None, "null"),
        (True, "true"),
        (5, "5"),
        (OID, str(OID)),
        (["a", 1], '["a", 1]'),
        ({"a": None}, '{"a": null}'),
    ],
)
def test_a_value_of_any_type_becomes_a_text(value: Any, expected: str) -> None:
    assert to_text(value) == expected
