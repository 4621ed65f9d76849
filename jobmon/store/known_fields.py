"""Which fields of a job the watched documents hold, and which ones can be queried."""

from collections.abc import Callable, Iterable

from pymongo.errors import OperationFailure

from jobmon.domain import STATUSES_AFTER_ATTEMPT, JobStatus
from jobmon.single_flight import SingleFlight
from jobmon.store import indexes
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document
from jobmon.store.read_collection import is_bad_hint

KEEP_MS = 10_000


class KnownFields:
    """The fields of a job that a queue's profile and documents have; methods raise PyMongoError.

    `counts_changes`: whether the ends of attempts are known from the changes of jobs.
    """

    def __init__(
        self, connection: Connection, counts_changes: Callable[[], bool] = lambda: False
    ) -> None:
        self._connection = connection
        self._counts_changes = counts_changes
        self._ends_are_known = SingleFlight(self._look_for_ends, KEEP_MS)

    @property
    def unknown(self) -> frozenset[str]:
        """The fields of a job that the watched documents do not hold.

        `finishedAt` is one of them where attempts have ended and no document has the time, or no
        succeeded job, or no dead one: without these, counts would show a queue without failures.
        """
        fields = self._connection.jobs.mapping.unknown
        return fields if self._ends_are_known.get() else fields | {"finishedAt"}

    def can_query(self, field: str) -> bool:
        """Whether jobs can be queried by this field."""
        return self._connection.jobs.mapping.can_query(field)

    def _look_for_ends(self) -> bool:
        """Whether recorded attempts, or the jobs, have the time when attempts ended."""
        if self._connection.profile.log is not None:  # an empty one may not be in use
            return self._connection.has_recorded_attempts()
        if self._connection.profile.outcome is not None:
            return True
        if self._connection.has_recorded_attempts() or self._counts_changes():
            return True
        jobs = self._connection.jobs

        def is_any(statuses: Iterable[str], *, has_end: bool = False) -> bool:
            query: Document = {"status": {"$in": list(statuses)}}
            if has_end:
                query = {
                    "status": {"$in": list(jobs.mapping.select_statuses("finishedAt", statuses))},
                    "finishedAt": {"$type": "date"},
                }
            return bool(
                jobs.find(query, ("_id",), index=indexes.BY_FINISH, limit=1, require_index=True)
            )

        # A failed job that waits for a retry may have no end: its retry will have one.
        ends = (STATUSES_AFTER_ATTEMPT, (JobStatus.SUCCEEDED.value,), (JobStatus.DLQ.value,))
        try:
            return all(is_any(group, has_end=True) or not is_any(group) for group in ends)
        except OperationFailure as error:
            if not is_bad_hint(error):
                raise
            return True  # nothing is counted without that index
