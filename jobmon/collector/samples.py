"""Stores samples of the queue: one for each minute, ten minutes, hour, six hours and day.

Counts of jobs by status rise and fall, so samples cannot be summed like activity.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from jobmon.rollup.buckets import (
    DAY,
    HOUR,
    MINUTE,
    SPANS,
    QueueSample,
    bucket_name,
    dump_sample,
    floor,
    seconds,
)
from jobmon.rollup.documents import SAMPLES, OwnDatabase


class QueueSamples:
    """Writes samples to jobmon's own database, and deletes them after their `retention`."""

    def __init__(self, own: OwnDatabase, retention: Mapping[timedelta, timedelta]) -> None:
        self._own = own
        self._samples = own[SAMPLES]
        self._retention = retention
        self._deleted_at: datetime | None = None  # the hour of the last deletion
        self._minute: datetime | None = None  # of the last sample

    def write(self, now: datetime, sample: QueueSample) -> None:
        """Store this sample as the newest of the minute that contains `now` (UTC).

        The first sample of a minute is also stored as the newest of each larger span.
        """
        samples, minute = [], floor(now, MINUTE)
        spans = SPANS if minute != self._minute else SPANS[:1]
        for span in spans:
            at = floor(now, span)
            fields = {"span": seconds(span), "at": at, **dump_sample(sample)}
            samples.append(self._own.new(bucket_name(span, at), fields))
        if floor(now, HOUR) != self._deleted_at:
            self._delete_expired(now)
            self._deleted_at = floor(now, HOUR)
        self._own.replace(SAMPLES, samples)
        self._minute = minute

    def _delete_expired(self, now: datetime) -> None:
        """Delete expired samples; create the index each time, in case the database was dropped."""
        self._samples.create_index(self._own.index("span", "at"))
        for span, retention in self._retention.items():
            expired = {"span": seconds(span), "at": {"$lt": floor(now - retention, DAY)}}
            self._samples.delete_many({**self._own.scope, **expired})
