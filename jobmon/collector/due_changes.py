"""Finds jobs whose status changes without a write, because a date in them has passed."""

from datetime import datetime, timedelta

from jobmon.collector.segments import SegmentMap
from jobmon.profiles.stored_values import encode_date
from jobmon.store.connection import Connection
from jobmon.store.read_collection import SIMPLE_COLLATION, request_comment

_OVERLAP = timedelta(seconds=1)


class DueChanges:
    """Marks the jobs in which a date has passed since the last call.

    The profile names the dates: those that a rule of a status compares with `$now`.
    """

    def __init__(self, connection: Connection) -> None:
        self._fields = connection.profile.due_fields
        self._jobs = connection.jobs
        self._since: datetime | None = None

    @property
    def is_needed(self) -> bool:
        """Whether the status of a job depends on the present moment."""
        return bool(self._fields)

    def restart(self, now: datetime) -> None:
        """Start at `now`, by the database's clock: all jobs were just counted."""
        self._since = now

    def mark(self, segments: SegmentMap, now: datetime) -> None:
        """Mark the jobs whose date has passed until `now` (database clock). Index: on the date."""
        since = now if self._since is None else self._since
        self._since = now
        for path, reading in self._fields:
            between = {
                "$gt": encode_date(since - _OVERLAP, reading),
                "$lte": encode_date(now, reading),
            }
            found = self._jobs.collection.find(
                {path: between},
                {"_id": True},
                max_time_ms=self._jobs.max_time_ms,
                collation=SIMPLE_COLLATION,
                **request_comment(),
            )
            for job in found:
                segments.mark(job["_id"])
