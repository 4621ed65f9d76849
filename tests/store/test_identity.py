"""Identities: catches an id that a list shows but that opens no job, and an id or an owner that
matches another printed value."""

from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId

from jobmon.store.bson_json import to_text
from jobmon.store.identity import identity_ranges, identity_values, is_identity, label_values
from jobmon.store.labels import label

ID = ObjectId("6b0569950000000000000001")
UUID_TEXT = "0f8fad5b-d9cb-469f-a165-70867728950e"
UUID_BYTES = UUID(UUID_TEXT).bytes

IDENTITIES = [
    "ada",
    "",
    "null",
    str(ID),
    ID,
    7,
    -7,
    0,
    Int64(2**40),
    2**63 - 1,
    -(2**63),
    1_234_567_890_000.0,  # what Node.js writes for Date.now()
    1.5,
    0.1,
    1e22,
    Decimal128("42.00"),
    Decimal128("0.10"),
    Decimal128("1.234567890123456789012345678901234"),
    Decimal128("123456789012345678901234567890"),
    Binary(UUID_BYTES, 4),
    Binary(UUID_BYTES, 3),
]


@pytest.mark.parametrize("value", IDENTITIES, ids=repr)
def test_identity_values_of_a_printed_value_contain_it(value: Any) -> None:
    printed = to_text(value)
    assert is_identity(value, printed)
    # A query by an int also finds an equal number of another type.
    types = [type(candidate) for candidate in identity_values(printed)]
    assert type(value) in types or (isinstance(value, Int64 | float | Decimal128) and int in types)
    assert all(is_identity(candidate, printed) for candidate in identity_values(printed))


@pytest.mark.parametrize(
    ("printed", "values"),
    [
        ("ada", ["ada"]),
        (str(ID), [str(ID), ID]),
        (str(ID).upper(), [str(ID).upper()]),
        ("1234", ["1234", 1234]),
        ("01234", ["01234"]),
        ("1234.0", ["1234.0"]),
        ("1_234", ["1_234"]),
        ("٣", ["٣"]),
        (" 7", [" 7"]),
        (str(2**63), [str(2**63), Decimal128(str(2**63))]),
        ("9" * 5_000, ["9" * 5_000]),
        (UUID_TEXT, [UUID_TEXT, Binary(UUID_BYTES, 4), Binary(UUID_BYTES, 3)]),
        (UUID_TEXT.upper(), [UUID_TEXT.upper()]),
        (UUID_TEXT.replace("-", ""), [UUID_TEXT.replace("-", "")]),
    ],
)
def test_identity_values_are_only_values_that_are_printed_as_this_text(
    printed: str, values: list[Any]
) -> None:
    assert identity_values(printed) == values


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        ["ada"],
        {"a": 1},
        datetime(1999, 1, 1, tzinfo=UTC),
        Code("ada"),
        b"raw",
        Binary(b"x" * 16, 5),
        Binary(b"x" * 15, 128),
    ],
    ids=repr,
)
def test_a_value_of_another_type_is_no_identity(value: Any) -> None:
    assert not is_identity(value, to_text(value))


def test_an_identity_does_not_match_another_spelling() -> None:
    assert not is_identity("u-A", "u-a")
    assert not is_identity(1, "1.0")


def matches_condition(value: Any, condition: dict[str, Any]) -> bool:
    """Whether MongoDB finds a number by a condition; bounds of other types match no number."""
    compare = {"$eq": eq, "$gte": ge, "$gt": gt, "$lte": le, "$lt": lt}
    try:
        return all(
            type(value) in (type(bound), float) and compare[operator](value, bound)
            for operator, bound in condition.items()
        )
    except TypeError:
        return False


@pytest.mark.parametrize("number", [1234, 12_345, 12_349_999, -1234, -123_400, 1234.5, 12_345.25])
def test_identity_ranges_match_the_numbers_that_begin_with_the_digits(number: float) -> None:
    sign = "-" if number < 0 else ""
    for digits, expected in (("1234", True), ("1235", False), ("123", True)):
        ranges = identity_ranges(sign + digits)
        assert any(matches_condition(number, condition) for condition in ranges) == expected
    assert not any(
        matches_condition(-number, condition) for condition in identity_ranges(f"{sign}1234")
    )


@pytest.mark.parametrize(
    "number",
    [0, 1_152_921_504_606_846_976, float(2**60), -(2**62), 2**63 - 1, 1e300, 1.5e-7, 12.25],
)
def test_identity_ranges_of_all_digits_match_the_number(number: float) -> None:
    """Catches a filter that misses the id 0, ids of 19 digits, or numbers with an exponent."""
    assert any(
        matches_condition(number, condition) for condition in identity_ranges(to_text(number))
    )
    # Integers of more than 64 bits cannot be encoded.
    assert all(bson.encode(condition) for condition in identity_ranges(to_text(number)))


def test_identity_ranges_cover_texts_objectids_and_uuids() -> None:
    text_range, id_range, uuid_range, old_uuid_range = identity_ranges("0f8f")
    assert text_range == {"$gte": "0f8f", "$lt": "0f8f\U0010ffff"}
    assert id_range["$gte"] < ObjectId("0f8f12340000000000000000") < id_range["$lte"]
    assert uuid_range["$gte"] < Binary(UUID_BYTES, 4) < uuid_range["$lte"]
    assert old_uuid_range["$gte"].subtype == 3
    assert len(identity_ranges(UUID_TEXT[:20])) == 3  # no ObjectId has a hyphen
    assert len(identity_ranges("job-1")) == 1
    assert len(identity_ranges("0f8f-")) == 1


@pytest.mark.parametrize(
    "value",
    [
        "queued",
        "null",
        "",
        "true",
        None,
        True,
        False,
        1,
        1.0,
        0.5,
        Decimal128("2.50"),
        ID,
        Binary(UUID_BYTES, 4),
        datetime(1999, 1, 2, 3, 4, 5, 678_000, UTC),
        ["a", 1, None],
        [],
    ],
    ids=repr,
)
def test_label_values_of_the_label_of_a_value_contain_the_value(value: Any) -> None:
    candidates = label_values(label(value))
    types = [type(candidate) for candidate in candidates]
    assert type(value) in types or (value == 1.0 and int in types)
    assert {label(candidate) for candidate in candidates} == {label(value)}


def test_label_values_have_the_types_that_share_the_label() -> None:
    assert label_values("null") == (None,)
    assert label_values('"null"') == ('"null"', "null")
    assert label_values("true") == ("true", True)
    assert label_values("1") == ("1", 1)
    assert label_values('{"a": 1}') == ('{"a": 1}',)


def test_an_array_with_a_number_that_bson_cannot_hold_means_only_its_text() -> None:
    """Catches a filter by such a type that fails, because no query can have the number."""
    assert label_values(f"[{2**63 - 1}]") == (f"[{2**63 - 1}]", [2**63 - 1])
    assert label_values(f"[{2**63}]") == (f"[{2**63}]",)
