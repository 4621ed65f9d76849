"""Lists the values of other BSON types that a text means: of an id, a label or a search."""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from typing import Any
from uuid import UUID

from bson import Binary, Decimal128, ObjectId

from jobmon.store.bson_json import UUID_SUBTYPES

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_OBJECT_ID = re.compile("[0-9a-fA-F]{24}")
_MAX_NUMBER_LENGTH = 45  # characters of a Decimal128 with its sign and exponent
_END_OF_INT64 = 2**63


def list_typed_values(text: str) -> Iterator[Any]:
    """The booleans, ObjectIds, numbers, UUIDs and dates that a text means, in any spelling."""
    if text in ("true", "false"):
        yield text == "true"
    if _OBJECT_ID.fullmatch(text):
        yield ObjectId(text)
    yield from _list_numbers(text)
    try:
        uuid = UUID(text).bytes
    except ValueError:
        pass
    else:
        yield from (Binary(uuid, subtype) for subtype in UUID_SUBTYPES)
    if (moment := _read_date(text)) is not None:
        yield moment


def _list_numbers(text: str) -> Iterator[Any]:
    """The numbers that a text means: one int, which also finds equal numbers of other types.

    For a number that is not whole, or beyond 64 bits: a double, a decimal, or both.
    """
    if len(text) > _MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(text):
        return
    number = Decimal(text)
    if -_END_OF_INT64 <= number < _END_OF_INT64 and number == int(number):
        yield int(number)
        return
    double = float(number)
    if math.isfinite(double) and number in (Decimal(repr(double)), Decimal(double)):
        yield double
    try:
        yield Decimal128(number)
    except DecimalException:  # more digits than a Decimal128 has
        return


def _read_date(text: str) -> datetime | None:
    """The date that is written in ISO 8601, in UTC if it has no offset; None for another text."""
    if "-" not in text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None if moment.microsecond % 1_000 else moment  # BSON dates have milliseconds
