"""Finds the values that a printed text means: as a job's id, an owner, a status or a type.

A jobId or createdBy may be a string, an ObjectId, a number or a UUID. A text means the values that
are printed as exactly this text. Values of any other type are no identity: no text means them.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import InvalidOperation
from functools import lru_cache
from typing import Any
from uuid import UUID

from bson import Binary, Decimal128, ObjectId

from jobmon.store.bson_json import UUID_SUBTYPES, is_uuid, to_text
from jobmon.store.labels import label

_LONGEST_NUMBER = 45  # a Decimal128 with its sign and exponent
_LEAST_INT64, _GREATEST_INT64 = -(2**63), 2**63 - 1
OBJECT_ID_DIGITS = 24
_HEX = frozenset("0123456789abcdef")
_UUID = "00000000-0000-0000-0000-000000000000"
LAST_CHARACTER = "\U0010ffff"  # sorts after all characters that ids and types contain


def identity_values(printed: str) -> list[Any]:
    """The values, of all possible types, that a text means as an id or an owner."""
    return list(_parse_identity(printed))


@lru_cache(maxsize=1_000)
def _parse_identity(printed: str) -> tuple[Any, ...]:
    # Cached, because a request needs the values of an id for the job and for its attempts.
    return (printed, *_parse_object_ids(printed), *_parse_numbers(printed), *_parse_uuids(printed))


def is_identity(value: Any, printed: str) -> bool:
    """Whether a value is one of `identity_values`, compared by its bytes or as a number."""
    # Not isinstance: BSON code is a subclass of str.
    is_text = type(value) is str
    can_be_id = is_text or isinstance(value, ObjectId) or _is_number(value) or is_uuid(value)
    return can_be_id and to_text(value) == printed


def match_prefix(field: str, prefix: str) -> dict[str, Any]:
    """A query for the documents whose identity in `field` is printed with this prefix."""
    ranges = [{field: condition} for condition in identity_ranges(prefix)]
    return {"$or": ranges} if len(ranges) > 1 else ranges[0]


def identity_ranges(prefix: str) -> list[dict[str, Any]]:
    """Conditions on a field that together match the identities printed with this prefix."""
    ranges: list[dict[str, Any]] = [{"$gte": prefix, "$lt": f"{prefix}{LAST_CHARACTER}"}]
    if len(prefix) <= OBJECT_ID_DIGITS and _HEX.issuperset(prefix):
        first, last = (ObjectId(prefix.ljust(OBJECT_ID_DIGITS, digit)) for digit in "0f")
        ranges.append({"$gte": first, "$lte": last})
    for first_uuid, last_uuid in zip(
        _parse_uuids(prefix + _UUID[len(prefix) :]),
        _parse_uuids(prefix + _UUID[len(prefix) :].replace("0", "f")),
        strict=True,
    ):
        ranges.append({"$gte": first_uuid, "$lte": last_uuid})
    numbers = _list_number_ranges(prefix)
    if not numbers:  # `0`, a point or an exponent: only the number with this whole text is found
        numbers = [{"$eq": number} for number in _parse_numbers(prefix)]
    return ranges + numbers


@lru_cache(maxsize=1_000)
def label_values(printed: str) -> tuple[Any, ...]:
    """The values of a status or a type whose `label` is this text; None stands for a missing one.

    Documents, whose label is `{…}`, and values of rare types such as a timestamp are not included.
    """
    values: list[Any] = [printed, *_parse_json(printed), *_parse_dates(printed)]
    if len(printed) > 1 and printed[0] == printed[-1] == '"':
        values.append(printed[1:-1])
    values += [*_parse_object_ids(printed), *_parse_numbers(printed), *_parse_uuids(printed)]
    return tuple(value for value in values if label(value) == printed)


def match_any(values: Sequence[Any]) -> Any:
    """The condition that a field has one of these values."""
    return values[0] if len(values) == 1 else {"$in": list(values)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal128) and not isinstance(value, bool)


def _parse_object_ids(printed: str) -> list[ObjectId]:
    if ObjectId.is_valid(printed) and str(ObjectId(printed)) == printed:
        return [ObjectId(printed)]
    return []


def _parse_uuids(printed: str) -> list[Binary]:
    with suppress(ValueError):
        if str(UUID(printed)) == printed:
            return [Binary(UUID(printed).bytes, subtype) for subtype in UUID_SUBTYPES]
    return []


def _parse_numbers(printed: str) -> list[Any]:
    """The numbers that a text means: one int, which also matches equal numbers of other types.

    For a number that is not whole, or beyond 64 bits: a double, a decimal, or both.
    """
    if len(printed) > _LONGEST_NUMBER:
        return []
    with suppress(ValueError):
        whole = int(printed)
        if _LEAST_INT64 <= whole <= _GREATEST_INT64 and str(whole) == printed:
            return [whole]
    numbers: list[Any] = []
    for number_type in (float, Decimal128):
        with suppress(ValueError, InvalidOperation):
            numbers.append(number_type(printed))
    return [number for number in numbers if to_text(number) == printed]


def _list_number_ranges(prefix: str) -> list[dict[str, Any]]:
    """Ranges of the whole numbers with these first digits: 12, 120 to 129, 1200 to 1299, …"""
    if not re.fullmatch("-?[1-9][0-9]{0,18}", prefix):
        return []
    sign, digits = (-1 if prefix[0] == "-" else 1), abs(int(prefix))
    greatest = _GREATEST_INT64 if sign > 0 else -_LEAST_INT64
    ranges = []
    while digits <= greatest:
        size = 10 ** (len(str(digits)) - len(prefix.lstrip("-")))
        if digits + size > greatest:  # BSON has no whole number for the end of the range
            first, last = sorted((sign * digits, sign * greatest))
            ranges.append({"$gte": first, "$lte": last})
        elif sign > 0:
            ranges.append({"$gte": digits, "$lt": digits + size})
        else:
            ranges.append({"$gt": -digits - size, "$lte": -digits})
        digits *= 10
    return ranges


def _parse_json(printed: str) -> list[Any]:
    """The null, the boolean or the array that a text is in JSON; an empty list for other texts."""
    with suppress(ValueError):
        value = json.loads(printed, parse_int=_parse_int64)
        if value is None or isinstance(value, bool | list):
            return [value]
    return []


def _parse_int64(digits: str) -> int:
    number = int(digits)
    if not _LEAST_INT64 <= number <= _GREATEST_INT64:
        raise ValueError("BSON has no such number")
    return number


def _parse_dates(printed: str) -> list[datetime]:
    with suppress(ValueError, OverflowError):
        return [datetime.fromisoformat(printed).astimezone(UTC)]
    return []
