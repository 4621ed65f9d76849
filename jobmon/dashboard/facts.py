"""Reads the facts that the overview shows: the present evidence, and a range of the past."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobmon.api.evidence import gather_evidence, read_history
from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.rollup.buckets import HOUR, MINUTE, QueueSample
from jobmon.rollup.marks import Marks
from jobmon.rollup.series import History, SeriesReader, Window
from jobmon.web.queues import WatchedQueue

RANGES = {
    "1h": (HOUR, MINUTE),
    "24h": (24 * HOUR, 10 * MINUTE),
    "7d": (timedelta(days=7), HOUR),
    "30d": (timedelta(days=30), 6 * HOUR),
}
RANGE_WORDS = {"1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The present evidence, and a range of the past: by step, by type, its samples and marks.

    `marks` is None where they may not be read.
    """

    evidence: Evidence
    range: str
    past: History[datetime] | Missing
    types: History[str] | Missing
    samples: Mapping[datetime, QueueSample]
    marks: Marks | None

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
        past=read_history(lambda: series.history_by_step(window, ()), evidence, partly=True),
        types=read_history(lambda: series.history_by_type(window), evidence, partly=True),
        samples=series.samples(window),
        marks=queue.marks.find(window.start, window.end),
    )
