"""Finds jobs whose status changes without a write, because a date in them has passed."""

from datetime import datetime, timedelta

from jobmon.collector.segments import SegmentMap
from jobmon.profiles.stored_values import encode_date
from jobmon.store.connection import Connection
from jobmon.store.read_collection import SIMPLE_COLLATION, request_comment

_OVERLAP = timedelta(seconds=1)  # a search begins this long before the end of the last one


class DueChanges:
    """Marks the jobs in which a date has passed since the last call of `mark_due_jobs`.

    The profile's rules for statuses compare these dates with `$now`: the clock of the watched
    server. So this clock is read here, too.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._fields = connection.profile.due_fields
        self._jobs = connection.jobs
        self._since: datetime | None = None

    @property
    def is_needed(self) -> bool:
        """Whether the status of any job depends on the present moment."""
        return bool(self._fields)

    def restart(self) -> None:
        """Forget earlier calls, because all jobs will be counted."""
        self._since = self._connection.server_time() if self.is_needed else None

    def mark_due_jobs(self, segments: SegmentMap) -> None:
        """Mark the jobs with a date between the last call and now. Index: the date."""
        if not self.is_needed:
            return
        now = self._connection.server_time()
        since = now if self._since is None else self._since
        self._since = now
        for path, date_form in self._fields:
            between = {
                "$gt": encode_date(since - _OVERLAP, date_form),
                "$lte": encode_date(now, date_form),
            }
            due_jobs = self._jobs.collection.find(
                {path: between},
                {"_id": True},
                max_time_ms=self._jobs.max_time_ms,
                collation=SIMPLE_COLLATION,
                **request_comment(),
            )
            for job in due_jobs:
                segments.mark_job(job["_id"])
