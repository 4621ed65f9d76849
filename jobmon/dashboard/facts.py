"""Reads the facts that the overview shows: the present evidence, and a range of the past."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from jobmon.diagnosis.evidence import (
    STALLED_AFTER,
    STILL_COUNTING,
    Evidence,
    Missing,
    died_since,
)
from jobmon.rollup.buckets import DAY, HOUR, MINUTE, QueueSample
from jobmon.rollup.series import History, NoCollectorError, SeriesReader, Window
from jobmon.store.filter import UnknownFieldError
from jobmon.web.queues import WatchedQueue

K = TypeVar("K")

RANGES = {
    "1h": (HOUR, MINUTE),
    "24h": (24 * HOUR, 10 * MINUTE),
    "7d": (timedelta(days=7), HOUR),
    "30d": (timedelta(days=30), 6 * HOUR),
}
RANGE_WORDS = {"1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The present evidence, and a range of the past: by step, by type, and its samples."""

    evidence: Evidence
    range: str
    past: History[datetime] | Missing
    types: History[str] | Missing
    samples: Mapping[datetime, QueueSample]

    @property
    def counts(self) -> Mapping[str, int]:
        """Jobs by status; empty where they could not be counted."""
        return self.evidence.stats.status_counts() or {}


def range_window(series: SeriesReader, name: str, now: datetime) -> Window:
    """The window of a range until `now`; WindowError if the history is retained for less."""
    length, step = RANGES[name]
    return series.window(now - length, now, step)


def gather(queue: WatchedQueue, name: str, now: datetime) -> Facts:
    """Read everything that an overview of a range needs; raises WindowError and PyMongoError."""
    series = queue.series
    window = range_window(series, name, now)
    evidence = gather_evidence(queue, now)
    return Facts(
        evidence=evidence,
        range=name,
        past=_read_history(lambda: series.history_by_step(window, ()), evidence, partly=True),
        types=_read_history(lambda: series.history_by_type(window), evidence, partly=True),
        samples=series.samples(window),
    )


def gather_evidence(queue: WatchedQueue, now: datetime) -> Evidence:
    """Read everything that the checks of the queue need; raises PyMongoError."""
    series = queue.series
    hour = series.window(now - HOUR, now, MINUTE)
    ten_minutes = series.window(now - STALLED_AFTER, now, MINUTE)
    day = series.window(now - DAY, now, 10 * MINUTE)
    evidence = Evidence(
        stats=queue.stats.stats(),
        hour_start=hour.start,
        samples=series.samples(hour),
        first_build=series.rollup.first_build(),
        leader=series.rollup.leader(),
        unknown=queue.known_fields.unknown,
    )
    if "finishedAt" in evidence.unknown:
        return evidence
    by_type = _read_history(lambda: series.history_by_type(hour), evidence)
    new_dead = None
    if isinstance(by_type, History) and any(step.dlq for step in by_type.activity.values()):
        with suppress(UnknownFieldError):
            new_dead = queue.stats.count(died_since(hour.start))
    return replace(
        evidence,
        hour=by_type,
        ten_minutes=_read_history(lambda: series.history_by_type(ten_minutes), evidence),
        minutes=_read_history(lambda: series.history_by_step(hour, ()), evidence),
        day=_read_history(lambda: series.history_by_step(day, ()), evidence, partly=True),
        new_dead=new_dead,
    )


def _read_history(
    read: Callable[[], History[K]], evidence: Evidence, *, partly: bool = False
) -> History[K] | Missing:
    """The history, or why it is missing; with `partly` also one that is still being counted."""
    try:
        past = read()
    except NoCollectorError as error:
        return Missing.from_error(error, has_collector=evidence.has_collector)
    return past if past.is_complete or partly else STILL_COUNTING
