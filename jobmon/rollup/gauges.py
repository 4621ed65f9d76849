"""How the queue stood, then: samples of its counts by status, the last one of each span.

Counts go up and down, so they cannot be added up like what happened: of every minute, ten
minutes, hour, six hours and day the newest sample is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import ReplaceOne
from pymongo.database import Database

from jobmon.rollup.throughput import DAY, HOUR, SPANS, bucket_id, floor
from jobmon.store.names import Document

GAUGES = "gauges"


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """Jobs by status at some moment, and how long the oldest queued one had waited then, in ms.

    The latter is None where that was unknown.
    """

    status_counts: Mapping[str, int]
    oldest_queued_ms: int | None


class Gauges:
    """Writes the samples to jobmon's own database."""

    def __init__(self, rollups: Database[Document], kept: Mapping[timedelta, timedelta]) -> None:
        self._gauges = rollups[GAUGES]
        self._kept = kept
        self._tidied: datetime | None = None

    def sample(self, now: datetime, gauge: Gauge) -> None:
        """Keep this sample as the newest of the spans that `now` (UTC) lies in."""
        sample = {
            "counts": [list(pair) for pair in gauge.status_counts.items()],
            "oldestQueuedMs": gauge.oldest_queued_ms,
        }
        writes = []
        for span in SPANS:
            seconds, at = round(span.total_seconds()), floor(now, span)
            key = {"_id": bucket_id(span, at)}
            writes.append(ReplaceOne(key, {"span": seconds, "at": at, **sample}, upsert=True))
        if floor(now, HOUR) != self._tidied:
            self._tidy(now)
            self._tidied = floor(now, HOUR)
        self._gauges.bulk_write(writes, ordered=False)

    def _tidy(self, now: datetime) -> None:
        """Have the index, which goes with the database, and drop what is older than it is kept."""
        self._gauges.create_index([("span", 1), ("at", 1)])
        for span, kept in self._kept.items():
            old = {"span": round(span.total_seconds()), "at": {"$lt": floor(now - kept, DAY)}}
            self._gauges.delete_many(old)


def load(document: Document) -> Gauge:
    """A sample as it was kept."""
    return Gauge(
        status_counts=dict(document["counts"]),
        oldest_queued_ms=document["oldestQueuedMs"],
    )
