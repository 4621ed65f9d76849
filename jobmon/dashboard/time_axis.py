"""The time axis of a job, to scale: the times in which it waited and ran are parts of a bar."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from jobmon.dashboard.job_view import AttemptView, JobView
from jobmon.dashboard.timeline import COLOURS, MAX_ATTEMPTS, is_finished
from jobmon.domain import AttemptStatus, JobStatus
from jobmon.humanize import duration

_MILLISECOND, _SECOND = timedelta(milliseconds=1), timedelta(seconds=1)
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# The distances of marks on the axis: a few of them fit on a phone.
_STEPS = (
    *(number * _MILLISECOND for number in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(number * unit for unit in (_SECOND, _MINUTE) for number in (1, 2, 5, 10, 15, 30)),
    *(number * _HOUR for number in (1, 2, 3, 6, 12)),
    *(number * _DAY for number in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)),
)
_MAX_MARKS = 5
_LAST_MARK = 92  # percent: the text of a later mark would exceed the axis
# An axis that ends now grows by a thirtieth of a step at a time: so few updates change it.
_PARTS_OF_STEP = 30
_LATEST = datetime.max.replace(tzinfo=UTC)
_NAMES = {"delayed": "not due", JobStatus.LEASED.value: "running"}


@dataclass(frozen=True, kw_only=True)
class AxisPart:
    """A part of the bar, in percent of its length.

    `kind` is `delayed` (not due yet), `waiting`, or for an attempt the status whose colour it has.
    """

    kind: str
    start: float
    width: float
    text: str


@dataclass(frozen=True, kw_only=True)
class TimeAxis:
    """The bar from `start` to `end` (about now if `is_open`); marks are (percent, text)."""

    start: datetime
    end: datetime
    is_open: bool
    parts: tuple[AxisPart, ...]
    marks: tuple[tuple[float, str], ...]

    @property
    def legend(self) -> dict[str, str]:
        """The names of the parts, by kind."""
        return {part.kind: _NAMES.get(part.kind, part.kind) for part in self.parts}


@dataclass(frozen=True)
class _Span:
    kind: str
    start: datetime
    end: datetime
    text: str
    goes_on: bool = False


def time_axis(job: JobView, now: datetime) -> TimeAxis | None:
    """The axis of a job at the aware time `now`; None if no wait and no run is known.

    It begins with the job's creation or, if it has more than 50 attempts, with the newest 50.
    Unrecorded attempts, and the time between two runs of a recurring job, have no part.
    """
    spans = [span for span in _list_spans(job, now) if span.end >= span.start]
    if not spans:
        return None
    is_open = not is_finished(job)
    start = min(span.start for span in spans)
    end = max(now if is_open else start, *(span.end for span in spans))
    step = next((step for step in _STEPS if (end - start) / step <= _MAX_MARKS), _STEPS[-1])
    if is_open:
        quantum = step / _PARTS_OF_STEP
        end = start + min(math.ceil((end - start) / quantum) * quantum, _LATEST - start)
        spans = [replace(span, end=end) if span.goes_on else span for span in spans]
    length = end - start
    if not length:
        return None

    def measure(moment: datetime) -> float:
        return round(100 * ((moment - start) / length), 2)

    return TimeAxis(
        start=start,
        end=end,
        is_open=is_open,
        parts=tuple(
            AxisPart(
                kind=span.kind,
                start=measure(span.start),
                width=round(measure(span.end) - measure(span.start), 2),
                text=span.text,
            )
            for span in spans
        ),
        marks=tuple(
            (measure(start + number * step), f"+{duration(number * step / _MILLISECOND)}")
            for number in range(1, math.floor(length / step * _LAST_MARK / 100) + 1)
        ),
    )


def _list_spans(job: JobView, now: datetime) -> Iterator[_Span]:
    """The times in which the job waited or ran, in order."""
    omitted, shown = job.attempts[:-MAX_ATTEMPTS], job.attempts[-MAX_ATTEMPTS:]
    waits_since = _find_date(job.created_at)
    if omitted:
        waits_since = _find_date(omitted[-1].finished_at)
    elif (shown and shown[0].number != 1) or (job.attempt_count and not shown):
        waits_since = None  # earlier attempts are not recorded
    for attempt in shown:
        started = _find_date(attempt.started_at)
        if started is None:
            waits_since = _find_date(attempt.finished_at)
            continue
        if waits_since is not None and job.recurring is None:
            yield from _split_wait(waits_since, _find_date(attempt.eligible_at), started)
        waits_since = _find_date(attempt.finished_at)
        if waits_since is not None:
            yield _describe_run(attempt, started, waits_since)
        elif attempt is shown[-1] and job.status == JobStatus.LEASED:
            yield replace(_describe_run(attempt, started, now), goes_on=True)
    is_waiting = job.status in (JobStatus.QUEUED, JobStatus.FAILED)
    if is_waiting and waits_since is not None and not (job.recurring and shown):
        yield from _split_wait(waits_since, _find_date(job.next_run_at), now, goes_on=True)
    elif not shown and waits_since is not None and (ended := _find_date(job.finished_at)):
        yield from _split_wait(waits_since, None, ended)


def _split_wait(
    start: datetime, due: datetime | None, end: datetime, *, goes_on: bool = False
) -> Iterator[_Span]:
    """The time from `start` to `end` as two spans: until the job was due, then until it ran."""
    due = start if due is None else min(max(start, due), end)
    if due > start:
        is_last = goes_on and due == end
        text = "not due" if is_last else f"not due for {_format(due - start)}"
        yield _Span("delayed", start, due, text, is_last)
    if end > due:
        text = "waiting" if goes_on else f"waited {_format(end - due)}"
        yield _Span("waiting", due, end, text, goes_on)


def _describe_run(attempt: AttemptView, started: datetime, ended: datetime) -> _Span:
    status = attempt.status or "unknown"
    number = "" if attempt.number is None else f" {attempt.number:,}"
    text = f"attempt{number}: {status}"
    if status != AttemptStatus.RUNNING:
        text += f" after {_format(ended - started)}"
    return _Span(COLOURS.get(status, status), started, ended, text)


def _format(length: timedelta) -> str:
    return duration(max(timedelta(), length) / _MILLISECOND)


def _find_date(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None
