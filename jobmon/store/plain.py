"""BSON values as JSON holds them: whatever a document has in it, an answer can be made of it."""

import base64
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import Binary, MaxKey, MinKey, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.regex import Regex

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_IN_400_YEARS = 146_097 * 86_400_000  # the Gregorian calendar repeats itself after as many


def plain(value: Any) -> Any:
    """`value` with every BSON type turned into what JSON knows, at any depth."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return str(value)  # of BSON code, which is a str, without its scope
        case float():
            return value if math.isfinite(value) else str(value)
        case dict():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
        case DBRef():
            return plain(dict(value.as_doc()))
        case _:
            return _scalar(value)


def text(value: Any) -> str:
    """`value` in a word, as the name of a status, a type or an id; `null` for None."""
    value = plain(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def iso(moment: datetime | DatetimeMS) -> str:
    """ISO 8601 in UTC with milliseconds and Z, as JavaScript's `toISOString` prints it."""
    if isinstance(moment, DatetimeMS):
        cycles, ms = divmod(int(moment), _MS_IN_400_YEARS)
        within = _EPOCH + timedelta(milliseconds=ms)
        year = within.year + 400 * cycles
        sign = "" if 0 <= year <= 9999 else "-" if year < 0 else "+"
        shown = f"{sign}{abs(year):0{6 if sign else 4}d}"
        return f"{shown}{within.strftime('-%m-%dT%H:%M:%S')}.{within.microsecond // 1000:03d}Z"
    return aware(moment).astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def aware(moment: datetime) -> datetime:
    """MongoDB's dates are UTC, also those that come without saying so."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _scalar(value: Any) -> str:
    match value:
        case datetime() | DatetimeMS():
            return iso(value)
        case Timestamp():
            return iso(value.as_datetime())
        case Binary() if value.subtype == 4 and len(value) == 16:
            return str(value.as_uuid())
        case bytes():
            return base64.b64encode(value).decode()
        case Regex():
            return str(value.pattern)
        case MinKey() | MaxKey():
            return type(value).__name__
        case _:
            return str(value)
