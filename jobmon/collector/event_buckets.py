"""Adds activity to the minutes of the history, each change exactly once.

A stored minute has the position of the last change that was counted when it was written. After a
crash, or by another collector, changes are read again: up to that position they are not added.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pymongo.errors import DuplicateKeyError

from jobmon.collector.leader import LeaseLostError
from jobmon.rollup.buckets import (
    FINAL_AFTER,
    MINUTE,
    Tallies,
    Tally,
    bucket_name,
    count_failed,
    dump_bucket,
    fold_rare_types,
    load_bucket_details,
    load_bucket_tallies,
)
from jobmon.rollup.documents import BUCKETS, OwnDatabase
from jobmon.rollup.run_details import RunDetails, fold_details

_KEEP_FOR = 2 * FINAL_AFTER  # the age at which a stored minute is dropped from memory


@dataclass
class _Bucket:
    tallies: Tallies
    details: RunDetails
    position: str | None  # as stored; None for a new minute, or if it was counted from documents
    is_stored: bool
    is_changed: bool = False


class EventBuckets:
    """The minutes of a queue that may still change; its methods raise PyMongoError."""

    def __init__(self, own: OwnDatabase) -> None:
        self._own = own
        self._open: dict[datetime, _Bucket] = {}
        self._lock = threading.Lock()
        self._written: set[datetime] = set()

    def add(
        self,
        at: datetime,
        job_type: str,
        tally: Tally,
        position: str,
        add_details: Callable[[RunDetails], None] | None = None,
    ) -> None:
        """Add a tally of this type to the minute `at`, unless it includes the change at `position`.

        `add_details` adds the details of a run to the details of the minute.
        """
        bucket = self._find_bucket(at)
        if bucket.position is None or position > bucket.position:
            bucket.tallies.setdefault(job_type, Tally()).add(tally)
            if add_details is not None:
                add_details(bucket.details)
            bucket.is_changed = True

    def begin(self, counted: dict[datetime, Tallies], details: dict[datetime, RunDetails]) -> None:
        """Open these minutes with their counts from documents and their stored counts.

        Either may lack runs, so each count is the larger of the two.
        """
        self._open.clear()
        for at, tallies in counted.items():
            bucket = self._find_bucket(at)
            for job_type, tally in tallies.items():
                stored = bucket.tallies.get(job_type, Tally())
                bucket.tallies[job_type] = stored.maximum(tally)
                bucket.is_changed = bucket.is_changed or bucket.tallies[job_type] != stored
            stored_details = bucket.details
            bucket.details = stored_details.maximum(details.get(at, RunDetails()))
            bucket.details.add_unknown_errors(count_failed(bucket.tallies))
            bucket.is_changed = bucket.is_changed or bucket.details != stored_details

    def write(self, position: str) -> None:
        """Store the changed minutes; `position` is that of the last change that was added.

        Raises LeaseLostError if another collector has written one of the minutes meanwhile.
        """
        oldest = datetime.now(UTC) - _KEEP_FOR
        for at, bucket in list(self._open.items()):
            if bucket.is_changed:
                self._write_bucket(at, bucket, position)
                with self._lock:
                    self._written.add(at)
            elif at < oldest:
                del self._open[at]

    def take_written(self) -> set[datetime]:
        """The minutes that were written since the last call; may be called from any thread."""
        with self._lock:
            written, self._written = self._written, set()
        return written

    def _find_bucket(self, at: datetime) -> _Bucket:
        if at not in self._open:
            stored = self._own[BUCKETS].find_one({"_id": self._own.id(bucket_name(MINUTE, at))})
            self._open[at] = _Bucket(
                tallies=next(self._own.read(BUCKETS, [stored], load_bucket_tallies), {}),
                details=next(self._own.read(BUCKETS, [stored], load_bucket_details), RunDetails()),
                position=None if stored is None else stored.get("position"),
                is_stored=stored is not None,
            )
        return self._open[at]

    def _write_bucket(self, at: datetime, bucket: _Bucket, position: str) -> None:
        bucket.tallies = fold_rare_types(bucket.tallies)
        bucket.details = fold_details(bucket.details)
        fields = dump_bucket(MINUTE, at, bucket.tallies, bucket.details) | {"position": position}
        document = self._own.new(bucket_name(MINUTE, at), fields)
        buckets = self._own[BUCKETS]

        def write() -> None:
            if not bucket.is_stored:
                buckets.insert_one(document)
                return
            unchanged = {"_id": document["_id"], "position": bucket.position}
            if not buckets.replace_one(unchanged, document).matched_count:
                raise LeaseLostError

        try:
            is_written = self._own.write(BUCKETS, write)
        except DuplicateKeyError:
            raise LeaseLostError from None
        bucket.is_changed = False
        if is_written:
            bucket.position, bucket.is_stored = position, True
