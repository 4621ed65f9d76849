"""Finds which fields of a job the watched documents hold, and which fields can be queried."""

from collections.abc import Callable, Iterable

from jobmon.domain import STATUSES_AFTER_ATTEMPT, JobStatus
from jobmon.single_flight import SingleFlight
from jobmon.store import indexes
from jobmon.store.connection import Connection
from jobmon.store.conversions import FIRST_DATE
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import NoIndexError, ReadCollection

CACHE_TTL_MS = 10_000
_BY_ID: Keys = [("_id", 1)]
_SAMPLE_SIZE = 200  # of the newest documents, and again of the oldest


class KnownFields:
    """Which fields of a job the documents of a queue hold. Methods raise PyMongoError.

    `counts_changes` returns whether a collector counts attempts from changes of the jobs.
    """

    def __init__(
        self, connection: Connection, counts_changes: Callable[[], bool] = lambda: False
    ) -> None:
        self._connection = connection
        self._counts_changes = counts_changes
        self._finish_time_cache = SingleFlight(self._can_count_by_finish_time, CACHE_TTL_MS)

    @property
    def unknown(self) -> frozenset[str]:
        """The fields of a job that the watched documents do not hold.

        `finishedAt` is also unknown if counts by it would be too low (`_can_count_by_finish_time`).
        It is known if a collector sees in the changes that jobs stop being leased.
        """
        mapping = self._connection.jobs.mapping
        derived = () if mapping.derived is None else mapping.derived.needs
        if JobStatus.LEASED in {*mapping.statuses.values(), *derived} and self._counts_changes():
            return mapping.missing_fields - {"finishedAt"}
        known = self._finish_time_cache.get()
        return mapping.missing_fields if known else mapping.missing_fields | {"finishedAt"}

    def can_query(self, field: str) -> bool:
        return self._connection.jobs.mapping.can_query(field)

    @property
    def can_filter_by_worker(self) -> bool:
        by_attempt = indexes.worker_attempt_index(self._connection.profile)
        return by_attempt is not None or self.can_query("leasedBy")

    @property
    def has_worker_names(self) -> bool:
        """Whether jobs or recorded attempts have a field for the name of their worker."""
        jobs, attempts = self._connection.jobs, self._connection.attempts
        if "leasedBy" not in jobs.mapping.missing_fields:
            return True
        return attempts is not None and attempts.mapping.holds("workerId")

    def _can_count_by_finish_time(self) -> bool:
        """Whether attempts can be counted by the time when they ended.

        True if attempts are recorded, computed or counted from changes, or if each group of jobs in
        `groups` is empty or has a job with finishedAt. With a log, true only if it has events.
        """
        if self._connection.profile.log is not None:
            return self._connection.has_recorded_attempts()
        if self._connection.profile.outcome is not None:
            return True
        if self._connection.has_recorded_attempts() or self._counts_changes():
            return True
        jobs = self._connection.jobs

        def has_any(query: Document, index: Keys = indexes.BY_FINISH) -> bool:
            is_required = index == indexes.BY_FINISH
            return bool(jobs.find(query, ("_id",), index=index, limit=1, require_index=is_required))

        def match_ended(statuses: Iterable[str]) -> Document:
            return {"status": {"$in": list(statuses)}}

        def match_finish_times(statuses: Iterable[str]) -> Document:
            with_times = jobs.mapping.select_statuses("finishedAt", statuses)
            return match_ended(with_times) | {"finishedAt": {"$gte": FIRST_DATE}}

        # There is no group of failed jobs: a job that waits for its retry may lack finishedAt.
        groups = (STATUSES_AFTER_ATTEMPT, (JobStatus.SUCCEEDED.value,), (JobStatus.DLQ.value,))
        try:
            return all(
                has_any(match_finish_times(group)) or not has_any(match_ended(group))
                for group in groups
            )
        except NoIndexError:  # `jobmon init` creates BY_FINISH only if a document has finishedAt
            ended = match_ended(STATUSES_AFTER_ATTEMPT)
            return has_finish_times(jobs) or not has_any(ended, indexes.BY_STATUS)


def has_finish_times(collection: ReadCollection) -> bool:
    """Whether one of the 200 newest or the 200 oldest documents has a finishedAt."""
    for direction in (-1, 1):
        sample = collection.find(
            {}, ("finishedAt",), index=_BY_ID, order=[("_id", direction)], limit=_SAMPLE_SIZE
        )
        if any(document.get("finishedAt") is not None for document in sample):
            return True
    return False
