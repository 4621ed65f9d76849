"""How often a recurring job runs: in words, and when it was due.

Pure functions of the texts that a document holds. A text that cannot be parsed is shown unchanged,
and has no due times.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from jobmon.humanize import duration, grouped
from jobmon.store.repetition import Repetition

_MILLISECOND = timedelta(milliseconds=1)
_UNITS = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_FIRST_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_NUMBERS = {word: number for number, word in enumerate(_FIRST_NUMBERS)} | {
    "a": 1,
    "an": 1,
    "ten": 10,
    "twelve": 12,
    "fifteen": 15,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
}
_PART = re.compile(r"(?:(\d+(?:\.\d+)?|[a-z]+) *)?(second|minute|hour|day|week)s?", re.ASCII)
_BETWEEN = re.compile(r"[\s,]*(?:and)?[\s,]*")
# Cron expressions for every n minutes or hours: pattern, unit, how many make the next larger unit.
_SIMPLE_CRONS = (
    (re.compile(r"\*(?:/(\d+))?(?: +\*){4}", re.ASCII), timedelta(minutes=1), 60),
    (re.compile(r"0 +\*(?:/(\d+))?(?: +\*){3}", re.ASCII), timedelta(hours=1), 24),
)
_LONGEST = timedelta(days=3_650)  # a longer interval is not understood
_MAX_CACHED = 1_000  # results of each cached function
_MAX_SLACK = timedelta(seconds=30)
_SLACK_DIVISOR = 4  # the slack is at most a quarter of the time between two due times


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """The due times of a recurring job: every `length` after a start, or by a cron expression.

    Exactly one of `length` and `cron` is set.
    """

    length: timedelta | None = None
    cron: str | None = None
    zone: tzinfo = UTC

    def list_due(self, start: datetime, end: datetime, limit: int) -> list[datetime]:
        """The first `limit` due times after `start`, up to and including `end` (aware)."""
        due_times = takewhile(lambda due_at: due_at <= end, self._iterate(start))
        return [due_at for _, due_at in zip(range(limit), due_times, strict=False)]

    def count_due(self, start: datetime, end: datetime, limit: int) -> int:
        """The number of due times that `list_due` finds."""
        if self.length is not None:
            return min(limit, max(0, (end - start) // self.length))
        return len(self.list_due(start, end, limit))

    @property
    def slack(self) -> timedelta:
        """How long before its due time a run may seem to start, because clocks differ.

        Zero if the timetable has a `length`: start and due time are then by the same clock.
        """
        return _measure_slack(self)

    def _iterate(self, start: datetime) -> Iterator[datetime]:
        """The due times after `start`, without end."""
        if self.cron is not None:
            try:
                for due_at in CronSim(self.cron, start.astimezone(self.zone)):
                    yield due_at.astimezone(UTC)
            except (CronSimError, OverflowError):
                return
        due_at = start
        while self.length is not None:
            due_at += self.length
            yield due_at


@lru_cache(_MAX_CACHED)
def parse_timetable(repetition: Repetition) -> Timetable | None:
    """When a job is due; None if its interval cannot be computed or has exceptions.

    A job with only a time of day has no timetable, because its time zone is unknown.
    """
    text = repetition.interval
    if text is None or repetition.has_exceptions:
        return None
    if (length := _parse_length(text)) is not None:
        return Timetable(length=length) if length >= _MILLISECOND else None
    zone: tzinfo = UTC
    if repetition.timezone is not None:
        try:
            zone = ZoneInfo(repetition.timezone)
        except (KeyError, ValueError, OSError):
            return None
    return Timetable(cron=text, zone=zone) if _parse_cron(text) is not None else None


@lru_cache(_MAX_CACHED)
def describe_repetition(repetition: Repetition) -> str:
    """How often a job runs: `every 5 minutes`, `at 03:00 every day`; its own text, or `unknown`."""
    text = repetition.interval
    if text is None:
        return f"every day at {repetition.time_of_day}" if repetition.time_of_day else "unknown"
    if (length := _parse_length(text)) is not None:
        return f"every {_describe_length(length)}"
    if (cron := _parse_cron(text)) is not None:
        if (simple := _describe_simple_cron(text)) is not None:
            return f"every {simple}"
        sentence = cron.explain()
        return sentence[:1].lower() + sentence[1:]
    return text


@lru_cache(_MAX_CACHED)
def _measure_slack(timetable: Timetable) -> timedelta:
    if timetable.length is not None:
        return timedelta(0)
    start = datetime.fromtimestamp(0, UTC)
    due = timetable.list_due(start, start + _LONGEST, 2)
    step = due[1] - due[0] if len(due) == 2 else _MAX_SLACK
    return min(_MAX_SLACK, step / _SLACK_DIVISOR)


def _describe_simple_cron(text: str) -> str | None:
    """`5 minutes` for `*/5 * * * *`, `hour` for `0 * * * *`; None for other cron expressions."""
    for pattern, unit, units_in_larger in _SIMPLE_CRONS:
        if (match := pattern.fullmatch(text.strip())) is not None:
            number = int(match[1] or 1)
            if number and units_in_larger % number == 0:
                return _describe_length(number * unit)
    return None


def _describe_length(length: timedelta) -> str:
    """`minute`, `90 minutes`, `1.5 s`."""
    for name, unit in reversed(_UNITS.items()):
        if length and length % unit == timedelta(0):
            number = length // unit
            return name if number == 1 else f"{grouped(number)} {name}s"
    return duration(length / _MILLISECOND)


def _parse_length(text: str) -> timedelta | None:
    """The length that a text has in milliseconds or in words, such as `3 minutes and 5 seconds`.

    None for another text.
    """
    text = text.strip().lower()
    length: timedelta | None
    try:
        length = timedelta(milliseconds=float(text))
    except (ValueError, OverflowError):
        length = _parse_words(text)
    return length if length is not None and timedelta(0) <= length <= _LONGEST else None


def _parse_words(text: str) -> timedelta | None:
    length, position = timedelta(0), 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            return None
        number = _parse_number(part[1])
        if number is None:
            return None
        try:
            length += number * _UNITS[part[2]]
        except OverflowError:
            return None
        between = _BETWEEN.match(text, part.end())
        position = part.end() if between is None else between.end()
    return length if text else None


def _parse_number(text: str | None) -> float | None:
    """The number in digits or in words; 1 without a text, None if the text is no number."""
    if text is None:
        return 1
    return float(text) if text[0].isdigit() else _NUMBERS.get(text)


def _parse_cron(text: str) -> CronSim | None:
    """A cron expression with five fields, or six with the seconds first; None for another text."""
    try:
        return CronSim(text, datetime.now(UTC))
    except CronSimError:
        return None
