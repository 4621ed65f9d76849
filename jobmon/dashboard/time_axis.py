"""The time axis of a job: a bar, to scale, with the times in which the job waited and ran."""

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
# The possible distances of marks on the axis: the smallest with at most `_MAX_MARKS` is used.
_STEPS = (
    *(count * _MILLISECOND for count in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(count * unit for unit in (_SECOND, _MINUTE) for count in (1, 2, 5, 10, 15, 30)),
    *(count * _HOUR for count in (1, 2, 3, 6, 12)),
    *(count * _DAY for count in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)),
)
_MAX_MARKS = 5  # more do not fit on a phone
_LAST_MARK = 92  # percent: the text of a later mark would exceed the axis
# An axis that ends now grows by a thirtieth of a step at a time: most page updates do not move it.
_GROWTHS_PER_STEP = 30
_LATEST = datetime.max.replace(tzinfo=UTC)
_NAMES = {"delayed": "not due", JobStatus.LEASED.value: "running"}


@dataclass(frozen=True, kw_only=True)
class AxisPart:
    """A part of the bar; `start` and `width` are in percent of the bar.

    `kind` is `delayed` (not due yet), `waiting`, or for an attempt the status that sets its colour.
    """

    kind: str
    start: float
    width: float
    text: str


@dataclass(frozen=True, kw_only=True)
class TimeAxis:
    """The bar from `start` to `end`; `is_open`: the job is not finished, so it ends about now.

    `marks` are pairs of a position in percent and a text.
    """

    start: datetime
    end: datetime
    is_open: bool
    parts: tuple[AxisPart, ...]
    marks: tuple[tuple[float, str], ...]

    @property
    def legend(self) -> dict[str, str]:
        """The name of each kind that the parts have."""
        return {part.kind: _NAMES.get(part.kind, part.kind) for part in self.parts}


@dataclass(frozen=True)
class _Span:
    """A time in which the job waited or ran; if it `is_ongoing`, it ends where the axis ends."""

    kind: str
    start: datetime
    end: datetime
    text: str
    is_ongoing: bool = False


def make_time_axis(job: JobView, now: datetime) -> TimeAxis | None:
    """The axis of a job at the aware time `now`; None if no wait or run with a length is known.

    It begins with the first known wait or run; of more than 50 attempts, only the newest 50 count.
    Unrecorded attempts have no part, and in a queue with recurring jobs neither do waits before
    runs.
    """
    spans = [span for span in _list_spans(job, now) if span.end >= span.start]
    if not spans:
        return None
    is_open = not is_finished(job)
    start = min(span.start for span in spans)
    end = max(now if is_open else start, *(span.end for span in spans))
    step = next((step for step in _STEPS if (end - start) / step <= _MAX_MARKS), _STEPS[-1])
    if is_open:
        growth = step / _GROWTHS_PER_STEP
        end = start + min(math.ceil((end - start) / growth) * growth, _LATEST - start)
        spans = [replace(span, end=end) if span.is_ongoing else span for span in spans]
    length = end - start
    if not length:
        return None

    def to_percent(moment: datetime) -> float:
        return round(100 * ((moment - start) / length), 2)

    return TimeAxis(
        start=start,
        end=end,
        is_open=is_open,
        parts=tuple(
            AxisPart(
                kind=span.kind,
                start=to_percent(span.start),
                width=round(to_percent(span.end) - to_percent(span.start), 2),
                text=span.text,
            )
            for span in spans
        ),
        marks=tuple(
            (to_percent(start + index * step), f"+{duration(index * step / _MILLISECOND)}")
            for index in range(1, math.floor(length / step * _LAST_MARK / 100) + 1)
        ),
    )


def _list_spans(job: JobView, now: datetime) -> Iterator[_Span]:
    """The times in which the job waited or ran, in order."""
    omitted, shown = job.attempts[:-MAX_ATTEMPTS], job.attempts[-MAX_ATTEMPTS:]
    waiting_since = _find_date(job.created_at)
    if omitted:
        waiting_since = _find_date(omitted[-1].finished_at)
    elif (shown and shown[0].number != 1) or (job.attempt_count and not shown):
        waiting_since = None  # earlier attempts are not recorded
    for attempt in shown:
        started = _find_date(attempt.started_at)
        if started is None:
            waiting_since = _find_date(attempt.finished_at)
            continue
        if waiting_since is not None and job.recurring is None:
            yield from _split_wait(waiting_since, _find_date(attempt.eligible_at), started)
        waiting_since = _find_date(attempt.finished_at)
        if waiting_since is not None:
            yield _make_run_span(attempt, started, waiting_since)
        elif attempt is shown[-1] and job.status == JobStatus.LEASED:
            yield replace(_make_run_span(attempt, started, now), is_ongoing=True)
    is_waiting = job.status in (JobStatus.QUEUED, JobStatus.FAILED)
    if is_waiting and waiting_since is not None and not (job.recurring and shown):
        yield from _split_wait(waiting_since, _find_date(job.next_run_at), now, is_ongoing=True)
    elif not shown and waiting_since is not None and (ended := _find_date(job.finished_at)):
        yield from _split_wait(waiting_since, None, ended)


def _split_wait(
    start: datetime, due: datetime | None, end: datetime, *, is_ongoing: bool = False
) -> Iterator[_Span]:
    """The time from `start` to `end` as up to two spans: until the job was due, and after that."""
    due = start if due is None else min(max(start, due), end)
    if due > start:
        is_last = is_ongoing and due == end
        text = "not due" if is_last else f"not due for {_format_length(due - start)}"
        yield _Span("delayed", start, due, text, is_last)
    if end > due:
        text = "waiting" if is_ongoing else f"waited {_format_length(end - due)}"
        yield _Span("waiting", due, end, text, is_ongoing)


def _make_run_span(attempt: AttemptView, started: datetime, ended: datetime) -> _Span:
    status = attempt.status or "unknown"
    name = "attempt" if attempt.number is None else f"attempt {attempt.number:,}"
    text = f"{name}: {status}"
    if status != AttemptStatus.RUNNING:
        text += f" after {_format_length(ended - started)}"
    return _Span(COLOURS.get(status, status), started, ended, text)


def _format_length(length: timedelta) -> str:
    return duration(max(timedelta(), length) / _MILLISECOND)


def _find_date(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None
