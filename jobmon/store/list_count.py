"""Counts the jobs of a list by its index, up to a limit."""

from jobmon.domain import CappedCount
from jobmon.single_flight import SingleFlightCache
from jobmon.store.filter import JobFilter
from jobmon.store.list_plan import ListPlanner, get_plan

COUNT_EXACTLY_UP_TO = 10_000
# Counting takes 0.7 µs a job. Callers share a count above SHARE_FROM for SHARE_S seconds.
SHARE_FROM = 100
SHARE_S = 2
MAX_CACHED_TOTALS = 1_000


class ListCounter:
    """Counts the jobs that match a filter; raises PyMongoError."""

    def __init__(self, planner: ListPlanner) -> None:
        self._jobs = planner.connection.jobs
        self._planner = planner
        self._totals: SingleFlightCache[int] = SingleFlightCache(MAX_CACHED_TOTALS)

    def count(self, job_filter: JobFilter, limit: int | None = None) -> CappedCount:
        """The number of jobs that match, counted up to `limit`, by default 10,000.

        A count above 100 may be two seconds old. Raises the errors of `ListPlanner.prepare`.
        """
        limit = COUNT_EXACTLY_UP_TO if limit is None else limit
        prepared = self._planner.prepare(job_filter)
        counted = self._totals.get(
            (prepared, limit),
            lambda: self._count(prepared, limit),
            SHARE_S,
            keep=lambda count: count > SHARE_FROM,
        )
        return CappedCount(min(counted, limit), counted <= limit)

    def _count(self, job_filter: JobFilter, limit: int) -> int:
        index = get_plan(job_filter).index
        return self._jobs.count(job_filter.match(), index=index, limit=limit + 1)
