"""Finds the values that a printed text means: as a job's id, an owner, a status or a type.

A jobId or createdBy may be a string, an ObjectId, a number or a UUID. A text means the values that
are printed as exactly this text. Values of any other type are no identity: no text means them.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from bson import Decimal128, ObjectId

from jobmon.store.bson_json import encode_key, is_uuid, to_text
from jobmon.store.labels import label
from jobmon.store.text_values import list_typed_values

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
    others = (value for value in list_typed_values(printed) if is_identity(value, printed))
    return (printed, *others)


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
    ends = (prefix + _UUID[len(prefix) :].replace("0", digit) for digit in "0f")
    uuids = ([value for value in _parse_identity(end) if is_uuid(value)] for end in ends)
    ranges += [{"$gte": first, "$lte": last} for first, last in zip(*uuids, strict=True)]
    numbers = _list_number_ranges(prefix)
    if not numbers:  # `0`, a point or an exponent: only the number with this whole text is found
        numbers = [{"$eq": value} for value in _parse_identity(prefix) if _is_number(value)]
    return ranges + numbers


@lru_cache(maxsize=1_000)
def label_values(printed: str) -> tuple[Any, ...]:
    """The values of a status or a type whose `label` is this text; None stands for a missing one.

    Documents, whose label is `{…}`, and values of rare types such as a timestamp are not included.
    """
    values: list[Any] = [printed, *_parse_json(printed), *list_typed_values(printed)]
    if len(printed) > 1 and printed[0] == printed[-1] == '"':
        values.append(printed[1:-1])
    return tuple(value for value in values if label(value) == printed)


def match_any(values: Sequence[Any]) -> Any:
    """The condition that a field has one of these values."""
    return values[0] if len(values) == 1 else {"$in": list(values)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal128) and not isinstance(value, bool)


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
    """The null or the array that a text is in JSON; an empty list for other texts."""
    with suppress(ValueError, OverflowError):
        value = json.loads(printed)
        if value is None or isinstance(value, list):
            encode_key(value)  # raises OverflowError for a number that BSON cannot hold
            return [value]
    return []
