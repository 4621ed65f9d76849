"""Reads and writes values in documents at a path, and dates in the forms that profiles name."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.datetime_ms import DatetimeMS

from jobmon.profiles.schema import TomlMistakeError
from jobmon.profiles.toml_lines import KeyPath

# The units of dates that are stored as numbers, and how many of each are in a second.
PER_SECOND = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INDEX = re.compile("-?[0-9]{1,9}")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "min": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|h|d)")


def get_value(document: Any, path: str) -> Any:
    """The value at a path, or None. A number is the index of an element: `log.-1` is the last."""
    value = document
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and _INDEX.fullmatch(part):
            index = int(part)
            value = value[index] if -len(value) <= index < len(value) else None
        else:
            return None
    return value


def set_value(document: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path; does nothing if a parent in the path is no document."""
    *parents, last = path.split(".")
    for part in parents:
        inner = document.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        document = inner
    document[last] = value


def parse_date(value: Any, reading: str | None) -> Any:
    """The date in a stored value; a value that has another form is returned unchanged."""
    with suppress(ValueError, OverflowError, TypeError):
        if reading == "iso" and isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if reading in PER_SECOND and is_number:
            seconds, remainder = divmod(value, PER_SECOND[reading])
            microseconds = remainder * (1_000_000 / PER_SECOND[reading])
            return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=microseconds)
    return value


def encode_date(moment: datetime, reading: str | None) -> Any:
    """A date in its stored form: `reading` is date, iso, seconds, …; None means date."""
    if reading in (None, "date"):
        return moment
    if reading == "iso":
        text = moment.isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z")
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    unit_microseconds = 1_000_000 // PER_SECOND[str(reading)]
    units, remainder = divmod(microseconds, unit_microseconds)
    return units if remainder == 0 else microseconds / unit_microseconds


def shift_date(value: Any, amount: timedelta) -> Any:
    """A date plus `amount`, after the year 9999 as DatetimeMS; any other value is unchanged."""
    if not isinstance(value, datetime):
        return value
    try:
        return value + amount
    except OverflowError:
        return DatetimeMS(int(DatetimeMS(value)) + amount // timedelta(milliseconds=1))


def to_date_expression(reference: Any, reading: str | None) -> Any:
    """`parse_date` as an aggregation expression, but null for a value that is not in this form."""
    if reading is None:
        return reference
    if reading == "iso":
        return {"$convert": {"input": reference, "to": "date", "onError": None, "onNull": None}}
    milliseconds = {"$multiply": [reference, 1_000 / PER_SECOND[reading]]}
    whole_ms = {"$convert": {"input": milliseconds, "to": "long", "onError": None, "onNull": None}}
    date = {"$convert": {"input": whole_ms, "to": "date", "onError": None, "onNull": None}}
    return {"$cond": [{"$isNumber": reference}, date, None]}


def parse_duration(text: str, key_path: KeyPath) -> timedelta:
    """The duration in a text such as `10 min`; raises TomlMistakeError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        units = ", ".join(_UNIT_SECONDS)
        raise TomlMistakeError(
            key_path, f"{text!r} is not a duration such as 10 min (units: {units})"
        )
    return timedelta(seconds=float(match[1]) * _UNIT_SECONDS[match[2]])
