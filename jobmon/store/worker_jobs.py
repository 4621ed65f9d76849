"""Finds the jobs that a worker runs or ran, by its newest attempts and by the worker in jobs."""

from collections.abc import Iterable, Iterator
from typing import Any

from bson import ObjectId

from jobmon.single_flight import SingleFlightCache
from jobmon.store import indexes
from jobmon.store.bson_json import to_text
from jobmon.store.filter import JobFilter, RefusedFilterError, WorkerJobs
from jobmon.store.identity import OBJECT_ID_DIGITS, is_identity
from jobmon.store.list_plan import MAX_CACHED, TTL_S, ListPlanner, get_plan
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import NoIndexError, ReadCollection

MAX_READ = 200  # attempts of the worker; also the limit for jobs that name it
SAMPLE_SIZE = 200  # attempts
NAMED_ONLY = (
    "only jobs that name the worker now are found, because the queue does not record the workers "
    "of earlier attempts"
)
NEWEST_ONLY = f"only the worker's newest {MAX_READ} attempts and {MAX_READ} of its jobs are read"


class WorkerJobFinder:
    """Finds jobs by the worker of their attempts; raises PyMongoError."""

    def __init__(self, planner: ListPlanner) -> None:
        self._planner, connection = planner, planner.connection
        self._jobs = connection.jobs
        self._attempts = connection.attempts
        self._index = indexes.worker_attempt_index(connection.profile)
        self._cache: SingleFlightCache[WorkerJobs] = SingleFlightCache(MAX_CACHED)

    def find(self, worker: str) -> WorkerJobs:
        """The jobs of the worker's newest attempts, and the jobs that name it; kept for 2 s.

        Index: (workerId, startedAt). Raises RefusedFilterError if attempts have workers, but the
        index is missing.
        """
        return self._cache.get(worker, lambda: self._find(worker), TTL_S)

    def _find(self, worker: str) -> WorkerJobs:
        attempts = self._attempts
        if attempts is None or self._index is None:
            return WorkerJobs(None, NAMED_ONLY)
        newest = self._read_attempts(attempts, self._index, worker)
        if not newest and not _have_workers(attempts):
            return WorkerJobs(None, NAMED_ONLY)
        named = self._read_named(worker) if self._jobs.mapping.can_query("leasedBy") else []
        is_complete = max(len(newest), len(named)) <= MAX_READ
        ids = tuple(_list_ids(newest[:MAX_READ] + named[:MAX_READ]))
        return WorkerJobs(ids, "" if is_complete else NEWEST_ONLY)

    def _read_attempts(self, attempts: ReadCollection, index: Keys, worker: str) -> list[Document]:
        """The newest attempts of the worker; an empty list if attempts have no workers.

        Raises RefusedFilterError if attempts have workers, but the index is missing.
        """
        try:
            return attempts.find(
                {"workerId": worker},
                ("jobId",),
                index=index,
                order=[(index[1][0], -1)],
                limit=MAX_READ + 1,
                require_index=True,
            )
        except NoIndexError:
            if not _have_workers(attempts):
                return []
        keys = attempts.mapping.translate_keys(index) or []
        required = indexes.Index(attempts.collection, keys)
        raise RefusedFilterError("worker", f"Needs the index {required}: `jobmon init` creates it.")

    def _read_named(self, worker: str) -> list[Document]:
        """The jobs that name the worker: such a job may have no recorded attempt."""
        by_name = self._planner.prepare(JobFilter(worker=worker))
        return self._jobs.find(
            by_name.match(),
            ("jobId",),
            index=get_plan(by_name).index,
            limit=MAX_READ + 1,
        )


def _have_workers(attempts: ReadCollection) -> bool:
    """Whether one of the newest attempts has a worker. Index: _id."""
    newest = attempts.find(
        {}, ("workerId",), index=[("_id", 1)], order=[("_id", -1)], limit=SAMPLE_SIZE
    )
    return any(attempt.get("workerId") is not None for attempt in newest)


def _list_ids(documents: Iterable[Document]) -> Iterator[Any]:
    """Each job id once, in the forms that a job may hold: an attempt may hold an ObjectId as text.

    `identity_values` has more forms, but takes too long for hundreds of ids.
    """
    listed = set()
    for document in documents:
        value = document.get("jobId")
        printed = value if type(value) is str else to_text(value)
        if value is None or printed in listed:
            continue
        listed.add(printed)
        if type(value) is str:
            yield value
            if len(value) == OBJECT_ID_DIGITS and ObjectId.is_valid(value):
                yield ObjectId(value)
        elif is_identity(value, printed):
            yield value
            yield printed
