"""Reads from a job's document how often the job runs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jobmon.profiles.parser import ParsedRepetition
from jobmon.store.bson_json import to_text
from jobmon.store.mapping import Document

_MAX_LENGTH = 200  # of a text, in characters
# The names of the paths in the mapping of a job.
INTERVAL, TIME_OF_DAY, TIMEZONE = "_interval", "_timeOfDay", "_timezone"
_EXCEPTION = "_exception"
# The condition that a value is a schedule: a job without a schedule has null or no field.
IS_SCHEDULE: Document = {"$type": ["string", "number"]}


class Repetition(NamedTuple):
    """The repetition of a job: texts of its document, None where a text is missing.

    `has_exceptions`: other values of the document suspend this schedule at times.
    """

    interval: str | None = None
    time_of_day: str | None = None
    timezone: str | None = None
    has_exceptions: bool = False


def list_repetition_paths(parsed: ParsedRepetition | None) -> dict[str, str]:
    """The paths that hold how often a job runs, by the names that jobmon uses for them."""
    if parsed is None:
        return {}
    paths = {
        INTERVAL: parsed.interval,
        TIME_OF_DAY: parsed.time_of_day,
        TIMEZONE: parsed.timezone,
    } | {f"{_EXCEPTION}{number}": path for number, path in enumerate(parsed.exceptions)}
    return {name: path for name, path in paths.items() if path is not None}


def read_repetition(job: Mapping[str, Any]) -> Repetition:
    """The repetition of a job, from its values with the names of `list_repetition_paths`."""
    return Repetition(
        interval=_read_text(job.get(INTERVAL)),
        time_of_day=_read_text(job.get(TIME_OF_DAY)),
        timezone=_read_text(job.get(TIMEZONE)),
        has_exceptions=any(
            value not in (None, []) for name, value in job.items() if name.startswith(_EXCEPTION)
        ),
    )


def make_repetition_expression(paths: Mapping[str, str]) -> Document:
    """An aggregation expression for the object that `read_repetition` reads."""
    return {
        name: f"${path}"
        for name, path in paths.items()
        if name in (INTERVAL, TIME_OF_DAY, TIMEZONE) or name.startswith(_EXCEPTION)
    }


def _read_text(value: Any) -> str | None:
    """A text or a number as a text; None for any other value."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    return (to_text(value) or "")[:_MAX_LENGTH] or None
