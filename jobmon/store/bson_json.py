"""Turns any BSON value of a document into a JSON value, a text, or a key of a dictionary."""

import base64
import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

import orjson
from bson import Binary, Code, Decimal128, MaxKey, MinKey, Timestamp, decode, encode
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.errors import BSONError
from bson.regex import Regex
from bson.tz_util import utc

MAX_LEVELS = 100  # of a value that another document contains; MongoDB stores 180
UUID_SUBTYPES = (4, 3)  # 3 was written by old drivers, some with the bytes in another order
_DECIMAL128 = Context(prec=34)  # the digits of a Decimal128
_EXACT_DATES: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_IN_UTC = (utc, UTC)  # the driver's zone and Python's
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_IN_400_YEARS = 146_097 * 86_400_000  # the Gregorian calendar repeats after that


def to_json(value: Any) -> Any:
    """`value` with every BSON type converted to a JSON type, at any depth."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return str(value)  # BSON code is a str, too: this drops its scope
        case float():
            return value if math.isfinite(value) else str(value)
        case dict():
            return {str(key): to_json(inner) for key, inner in value.items()}
        case list():
            return [to_json(inner) for inner in value]
        case DBRef():
            return to_json(dict(value.as_doc()))
        case _:
            return _scalar_to_text(value)


def read_date(value: Any) -> datetime | None:
    """A date with its time zone, UTC if it had none; None for any other value."""
    return make_aware(value) if isinstance(value, datetime) else None


def encode_key(value: Any) -> bytes:
    """`value` as bytes, to use as a key; values of different BSON types have different keys."""
    return encode({"": value})


def encode_token(document: dict[str, Any]) -> str:
    """A document as an opaque text that is safe in a URL."""
    return base64.urlsafe_b64encode(encode(document)).decode().rstrip("=")


def decode_token(text: str) -> dict[str, Any]:
    """The document in a text of `encode_token`; raises ValueError for a malformed text."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
        return decode(raw, _EXACT_DATES)
    except BSONError as error:
        raise ValueError("not a document") from error


def can_contain(value: Any, max_bytes: int) -> bool:
    """Whether another document can contain a value, some levels deeper than its own document."""
    try:
        return len(encode_key(value)) <= max_bytes and _count_levels(value) <= MAX_LEVELS
    except (OverflowError, UnicodeError, BSONError):  # for example an integer beyond 64 bits
        return False


def _count_levels(value: Any) -> int:
    """How many levels of documents and arrays a value has; 0 for a text or a number."""
    match value:
        case DBRef():
            return _count_levels(value.as_doc())
        case Code():
            return _count_levels(value.scope)
        case dict():
            return 1 + max(map(_count_levels, value.values()), default=0)
        case list():
            return 1 + max(map(_count_levels, value), default=0)
        case _:
            return 0


def to_text(value: Any) -> str:
    """Any value as a text; `null` for None.

    Equal whole numbers of up to 64 bits have one text, in every type: `1` for 1, 1.0 and 1.00.
    """
    if isinstance(value, float | Decimal128):
        return str(number_to_json(value))
    value = to_json(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def number_to_json(value: float | Decimal128) -> int | str:
    """A whole number of up to 64 bits as an int, any other number as a text: see `to_text`."""
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    try:
        whole = int(number)
    except ValueError:
        return "nan"
    except OverflowError:
        return "inf" if number > 0 else "-inf"
    if number == whole and -(2**63) <= whole < 2**63:
        return whole
    return str(number.normalize(_DECIMAL128) if isinstance(number, Decimal) else number).lower()


def is_uuid(value: Any) -> bool:
    """Whether a value is a UUID, with the present binary subtype or the old one."""
    return isinstance(value, Binary) and value.subtype in UUID_SUBTYPES and len(value) == 16


def to_iso(moment: datetime | DatetimeMS) -> str:
    """ISO 8601 in UTC with milliseconds and Z, as JavaScript's `toISOString` prints it."""
    if isinstance(moment, DatetimeMS):  # outside of the years 1 to 9999
        cycles, ms = divmod(int(moment), _MS_IN_400_YEARS)
        in_first_cycle = _EPOCH + timedelta(milliseconds=ms)
        year = in_first_cycle.year + 400 * cycles
        year_text = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+07d}"
        return f"{year_text}{in_first_cycle.isoformat(timespec='milliseconds')[4:-6]}Z"
    if moment.tzinfo is None:
        # orjson takes half the time of `isoformat`, and nearly every date of a list is naive.
        text = orjson.dumps(moment)
        has_fraction = text[20:21] == b"."
        return f"{text[1:24].decode()}Z" if has_fraction else f"{text[1:20].decode()}.000Z"
    if moment.tzinfo not in _IN_UTC:
        moment = moment.astimezone(UTC)
    # This format takes half the time of `isoformat`, which also formats the zone.
    return "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ" % (  # noqa: UP031
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.microsecond // 1_000,
    )


def make_aware(moment: datetime) -> datetime:
    """`moment` with its time zone, or with UTC if it has none: MongoDB's dates are in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _scalar_to_text(value: Any) -> str:
    match value:
        case datetime() | DatetimeMS():
            return to_iso(value)
        case Timestamp():
            return to_iso(value.as_datetime())
        case Binary() if is_uuid(value):
            return str(UUID(bytes=bytes(value)))
        case bytes():
            return base64.b64encode(value).decode()
        case Regex():
            return str(value.pattern)
        case MinKey() | MaxKey():
            return type(value).__name__
        case _:
            return str(value)
