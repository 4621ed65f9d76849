"""How the queue stood, then: samples of its counts by status, the last one of each span.

Counts go up and down, so they cannot be added up like what happened: of every minute, ten
minutes, hour, six hours and day the newest sample is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import ReplaceOne

from jobmon.rollup.documents import OwnDatabase, typed
from jobmon.rollup.throughput import DAY, HOUR, SPANS, bucket_name, floor
from jobmon.store.mapping import Document

GAUGES = "gauges"


@dataclass(frozen=True, kw_only=True)
class QueueSample:
    """Jobs by status at some moment, and how long the oldest queued one had waited then, in ms.

    The latter is None where that was unknown.
    """

    status_counts: Mapping[str, int]
    oldest_queued_ms: int | None


class QueueSamples:
    """Writes the samples to jobmon's own database."""

    def __init__(self, own: OwnDatabase, kept: Mapping[timedelta, timedelta]) -> None:
        self._own = own
        self._gauges = own[GAUGES]
        self._kept = kept
        self._tidied: datetime | None = None

    def sample(self, now: datetime, gauge: QueueSample) -> None:
        """Keep this sample as the newest of the spans that `now` (UTC) lies in."""
        sample = {
            "counts": [list(pair) for pair in gauge.status_counts.items()],
            "oldestQueuedMs": gauge.oldest_queued_ms,
        }
        writes = []
        for span in SPANS:
            seconds, at = round(span.total_seconds()), floor(now, span)
            fields = {"span": seconds, "at": at, **sample}
            document = self._own.new(bucket_name(span, at), fields)
            writes.append(ReplaceOne({"_id": document["_id"]}, document, upsert=True))
        if floor(now, HOUR) != self._tidied:
            self._tidy(now)
            self._tidied = floor(now, HOUR)
        self._own.write(GAUGES, lambda: self._gauges.bulk_write(writes, ordered=False))

    def _tidy(self, now: datetime) -> None:
        """Have the index, which goes with the database, and drop what is older than it is kept."""
        self._gauges.create_index(self._own.index("span", "at"))
        for span, kept in self._kept.items():
            old = {"span": round(span.total_seconds()), "at": {"$lt": floor(now - kept, DAY)}}
            self._gauges.delete_many({**self._own.scope, **old})


def load(document: Document) -> tuple[datetime, QueueSample]:
    """A sample and the start of its span; MalformedError or KeyError of another document."""
    counts = {typed(status, str): typed(count, int) for status, count in document["counts"]}
    oldest_ms = document["oldestQueuedMs"]
    return typed(document["at"], datetime), QueueSample(
        status_counts=counts,
        oldest_queued_ms=None if oldest_ms is None else typed(oldest_ms, int),
    )
