"""The facts that the overview shows: the evidence of now, and a range of the past."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobmon.diagnosis.evidence import Evidence, Missing, history
from jobmon.rollup.buckets import HOUR, MINUTE, QueueSample
from jobmon.rollup.series import History, SeriesReader, Window
from jobmon.rollup.stats import StatsReader
from jobmon.store.known_fields import KnownFields

RANGES = {
    "1h": (HOUR, MINUTE),
    "24h": (24 * HOUR, 10 * MINUTE),
    "7d": (timedelta(days=7), HOUR),
    "30d": (timedelta(days=30), 6 * HOUR),
}
RANGE_WORDS = {"1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The evidence of now, and a range of the past: by step, by type, and its samples."""

    evidence: Evidence
    range: str
    past: History[datetime] | Missing
    types: History[str] | Missing
    samples: Mapping[datetime, QueueSample]

    @property
    def counts(self) -> Mapping[str, int]:
        """Jobs by status; empty where they could not be counted."""
        return self.evidence.figures.status_counts() or {}


def window_of(series: SeriesReader, wanted: str, now: datetime) -> Window:
    """The range `wanted` until `now`; WindowError if the history is retained for less."""
    length, step = RANGES[wanted]
    return series.window(now - length, now, step)


def gather(
    stats: StatsReader,
    series: SeriesReader,
    known_fields: KnownFields,
    wanted: str,
    now: datetime,
) -> Facts:
    """Read everything that an overview of the range `wanted` needs; WindowError."""
    window = window_of(series, wanted, now)
    evidence = Evidence.gather(stats, series, known_fields, now)
    return Facts(
        evidence=evidence,
        range=wanted,
        past=history(lambda: series.history_by_step(window, ()), evidence, partly=True),
        types=history(lambda: series.history_by_type(window), evidence, partly=True),
        samples=series.samples(window),
    )
