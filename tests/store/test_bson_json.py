"""BSON as JSON: would catch a value that no answer can be made of, and a date that JavaScript
would print otherwise."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from jobmon.store.bson_json import (
    UNNAMED,
    CharacterBudget,
    LabelBudget,
    is_filter,
    iso,
    label,
    plain,
    text,
)

NAIVE = datetime(2026, 1, 2)  # noqa: DTZ001 - as a client that is not aware of zones reads it
OID = ObjectId("65f0c0ffee0123456789abcd")


@pytest.mark.parametrize(
    ("moment", "printed"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 678_999, UTC), "2026-01-02T03:04:05.678Z"),
        (NAIVE, "2026-01-02T00:00:00.000Z"),
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
def test_dates_are_printed_as_javascript_prints_them(moment: Any, printed: str) -> None:
    assert iso(moment) == printed  # each as `new Date(…).toISOString()` in Node.js


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
        (
            {"a": [OID, {"b": NAIVE}]},
            {"a": [str(OID), {"b": "2026-01-02T00:00:00.000Z"}]},
        ),
    ],
)
def test_every_bson_type_becomes_json(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == expected


@pytest.mark.parametrize(
    ("value", "word"),
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
def test_anything_can_be_told_in_a_word(value: Any, word: str) -> None:
    assert text(value) == word


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("queued", "queued"),
        (None, "null"),
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (Decimal128("1.00"), "1"),
        (0.5, "0.5"),
        ("(other)", "(other)…"),
        (Decimal128("0.50"), "0.5"),
        (float("nan"), "nan"),
        (Decimal128("sNaN"), "nan"),
        (Decimal128("-Infinity"), "-inf"),
        (Decimal128("9E+6144"), "9e+6144"),
        ({"password": "p"}, "{…}"),
        (["a", {"password": "p"}, DBRef("a", 1, token="t")], '["a", "{…}", "{…}"]'),
        ("é" * 200, "é" * 200),
        ("é" * 201, "é" * 200 + "…"),
        (["x" * 300], '["' + "x" * 198 + "…"),
    ],
)
def test_a_name_is_short_one_for_equal_values_and_tells_no_document(value: Any, told: str) -> None:
    assert label(value) == told


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("mail", True),
        ("(other) mail", True),
        ("(other)", False),
        ("é" * 200, True),
        ("é" * 201, False),
    ],
)
def test_a_label_is_a_filter_where_it_is_all_of_the_value(value: str, *, is_one: bool) -> None:
    assert is_filter(label(value)) == is_one
    assert not is_filter(UNNAMED)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("x" * 10, "x" * 10),
        ("x" * 11, "x" * 10 + "…"),
        (b"x" * 11, "eHh4eHh4eHh4eA==…"),
        ({"a": "x" * 20, "b": 1}, {"a": "x" * 9 + "…", "…": "…"}),
        ([1] * 10, [1, 1, "…"]),
        (Regex("x" * 11), "x" * 10 + "…"),
        ([[["x" * 11]]], [[["x" * 10 + "…"]]]),
        (NAIVE, NAIVE),
        (DBRef("a", 1), {"$ref": "a", "$id": 1}),
    ],
)
def test_what_there_is_no_room_for_is_cut(value: Any, kept: Any) -> None:
    assert CharacterBudget(10).cut(value) == kept


def test_each_value_finds_the_room_that_the_ones_before_have_left() -> None:
    room = CharacterBudget(10)
    assert [room.cut("x" * 6), room.cut("y" * 6)] == ["x" * 6, "y" * 4 + "…"]
    assert room.cut("z" * 6, at_least=3) == "zzz…"


def test_the_first_words_have_names_and_a_later_one_never_gets_one() -> None:
    """Would catch a type that is counted by its name in one place and as the rest in another."""
    words = LabelBudget(3, ["queued"])
    assert [words.word(value) for value in ("a", 7, "b", "a", "queued")] == [
        "a",
        "7",
        UNNAMED,
        "a",
        "queued",
    ]
    words.forget(all_but=["a", UNNAMED])  # the rest may have any of them
    assert words.word("c") == UNNAMED
    words.forget(all_but=["a"])
    assert [words.word(value) for value in ("c", "queued", "d")] == ["c", "queued", UNNAMED]
    again = LabelBudget(3)  # after a restart, and "a" and 7 are gone meanwhile
    again.learn(["queued", UNNAMED])
    assert [again.word(value) for value in ("queued", "b", "c")] == ["queued", UNNAMED, UNNAMED]
