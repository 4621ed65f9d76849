"""Finds which fields of a job the watched documents hold, and which fields can be queried."""

from collections.abc import Callable, Iterable

from pymongo.errors import OperationFailure

from jobmon.domain import STATUSES_AFTER_ATTEMPT, JobStatus
from jobmon.single_flight import SingleFlight
from jobmon.store import indexes
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import ReadCollection, is_bad_hint

KEEP_MS = 10_000
_BY_ID: Keys = [("_id", 1)]
_SAMPLE_SIZE = 200  # documents at either end of a collection without an index on finishedAt


class KnownFields:
    """The fields of a job that a queue's profile and documents have; methods raise PyMongoError.

    `counts_changes`: returns whether a collector counts attempts by the changes of jobs.
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

        `finishedAt` is unknown, too, if no job whose attempt ended has it, or no succeeded job, or
        no dead job: counts by this date would be too low.
        """
        fields = self._connection.jobs.mapping.unknown
        return fields if self._ends_are_known.get() else fields | {"finishedAt"}

    def can_query(self, field: str) -> bool:
        return self._connection.jobs.mapping.can_query(field)

    @property
    def finds_worker_jobs(self) -> bool:
        """Whether a list can be filtered by worker."""
        by_attempt = indexes.worker_attempt_index(self._connection.profile)
        return by_attempt is not None or self.can_query("leasedBy")

    @property
    def names_workers(self) -> bool:
        """Whether jobs or recorded attempts have a field for the worker that runs them."""
        jobs, attempts = self._connection.jobs, self._connection.attempts
        if "leasedBy" not in jobs.mapping.unknown:
            return True
        return attempts is not None and attempts.mapping.holds("workerId")

    def _look_for_ends(self) -> bool:
        """Whether recorded attempts, or the jobs, have the time when attempts ended."""
        if self._connection.profile.log is not None:  # an empty log may not be in use
            return self._connection.has_recorded_attempts()
        if self._connection.profile.outcome is not None:
            return True
        if self._connection.has_recorded_attempts() or self._counts_changes():
            return True
        jobs = self._connection.jobs

        def has_any(query: Document, index: Keys = indexes.BY_FINISH) -> bool:
            is_needed = index == indexes.BY_FINISH
            return bool(jobs.find(query, ("_id",), index=index, limit=1, require_index=is_needed))

        def match_ended(statuses: Iterable[str]) -> Document:
            return {"status": {"$in": list(statuses)}}

        def match_dated(statuses: Iterable[str]) -> Document:
            dated = jobs.mapping.select_statuses("finishedAt", statuses)
            return match_ended(dated) | {"finishedAt": {"$type": "date"}}

        # A failed job that waits for a retry may have no end: its retry will have one.
        groups = (STATUSES_AFTER_ATTEMPT, (JobStatus.SUCCEEDED.value,), (JobStatus.DLQ.value,))
        try:
            return all(
                has_any(match_dated(group)) or not has_any(match_ended(group)) for group in groups
            )
        except OperationFailure as error:
            if not is_bad_hint(error):
                raise
            # `jobmon init` does not create this index if no job has an end.
            ended = match_ended(STATUSES_AFTER_ATTEMPT)
            return has_finished(jobs) or not has_any(ended, indexes.BY_STATUS)


def has_finished(watched: ReadCollection) -> bool:
    """Whether one of the newest or of the oldest documents has a finishedAt."""
    for direction in (-1, 1):
        found = watched.find(
            {}, ("finishedAt",), index=_BY_ID, order=[("_id", direction)], limit=_SAMPLE_SIZE
        )
        if any(document.get("finishedAt") is not None for document in found):
            return True
    return False
