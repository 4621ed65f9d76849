"""Reads the facts that the overview shows: the present evidence, and a range of the past."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from flask import request

from jobmon.api.evidence import gather_evidence, read_history
from jobmon.diagnosis.evidence import START_A_COLLECTOR, Evidence, Missing
from jobmon.rollup.buckets import HOUR, MINUTE, QueueSample
from jobmon.rollup.marks import Marks
from jobmon.rollup.series import (
    History,
    NoCollectorError,
    SeriesReader,
)
from jobmon.rollup.windows import Window, WindowError
from jobmon.web.errors import invalid
from jobmon.web.queues import WatchedQueue

RANGES = {
    "1h": (HOUR, MINUTE),
    "24h": (24 * HOUR, 10 * MINUTE),
    "7d": (timedelta(days=7), HOUR),
    "30d": (timedelta(days=30), 6 * HOUR),
}
RANGE_WORDS = {"1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}


@dataclass(frozen=True, kw_only=True)
class Previous:
    """The time before a range, of the same length: its activity by step, and its samples."""

    past: History[datetime]
    samples: Mapping[datetime, QueueSample]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The present evidence, and a range of the past: by step, by type, its samples and marks.

    `marks` is None where they may not be read, `previous` where no comparison is wanted.
    """

    evidence: Evidence
    range: str
    past: History[datetime] | Missing
    types: History[str] | Missing
    samples: Mapping[datetime, QueueSample]
    marks: Marks | None
    previous: Previous | Missing | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Jobs by status; empty where they could not be counted."""
        return self.evidence.stats.status_counts() or {}


def read_range(default: str) -> str:
    """The range of this request's address; ApiError 422."""
    name = request.args.get("range", default)
    if name not in RANGES:
        raise invalid("range", f"One of {', '.join(RANGES)}.")
    return name


def range_window(series: SeriesReader, name: str, now: datetime) -> Window:
    """The window of a range until `now`; ApiError 422 if the history is retained for less."""
    length, step = RANGES[name]
    try:
        return series.window(now - length, now, step)
    except WindowError:
        raise invalid("range", "Longer than the retained history.") from None


def gather(queue: WatchedQueue, name: str, now: datetime, *, compares: bool = False) -> Facts:
    """Read everything that an overview of a range needs; raises ApiError 422 and PyMongoError.

    With `compares` also the same time before the range.
    """
    series = queue.series
    window = range_window(series, name, now)
    evidence = gather_evidence(queue, now)
    return Facts(
        evidence=evidence,
        range=name,
        past=read_history(lambda: series.history_by_step(window, ()), evidence, partly=True),
        types=read_history(lambda: series.history_by_type(window), evidence, partly=True),
        samples=series.samples(window),
        marks=queue.marks.find(window.start, window.end),
        previous=read_previous(queue, name, window) if compares else None,
    )


def read_previous(queue: WatchedQueue, name: str, window: Window) -> Previous | Missing:
    """The time before the window of a range, step by step; PyMongoError.

    It is read only from the collector's history: to count it live would double the cost of a page.
    """
    series, (length, step) = queue.series, RANGES[name]
    no_history = Missing(reason="no collector keeps a history", remedy=START_A_COLLECTOR)
    if series.rollup.progress() is None:
        return no_history
    try:
        previous = series.window(window.start - length, window.end - length, step)
        past = series.history_by_step(previous, ())
    except WindowError:
        setting = "MINUTE" if step < HOUR else "HOUR"
        days = (2 * length).days + 1
        return Missing(
            reason="that is before the retained history",
            remedy=f"Set JOBMON_{setting}_RETENTION_DAYS to {days} or more.",
        )
    except NoCollectorError:  # it stopped a moment ago
        return no_history
    return Previous(past=past, samples=series.samples(previous))
