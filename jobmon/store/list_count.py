"""Counts the jobs of a list by its index, up to a limit."""

from jobmon.domain import CappedCount
from jobmon.single_flight import SingleFlightCache
from jobmon.store.filter import JobFilter
from jobmon.store.list_plan import ListPlanner, get_plan

COUNT_EXACTLY_UP_TO = 10_000
# Counting takes a query, and 0.7 µs a job. Beyond this number of jobs a total may be a little old.
SHARE_FROM = 100
SHARE_S = 2
KEEP_TOTALS = 1_000


class ListCounter:
    """Counts the jobs that match a filter; raises PyMongoError."""

    def __init__(self, planner: ListPlanner) -> None:
        self._jobs = planner.connection.jobs
        self._planner = planner
        self._totals: SingleFlightCache[int] = SingleFlightCache(KEEP_TOTALS)

    def count(self, job_filter: JobFilter) -> CappedCount:
        """How many jobs match, up to 10,000; beyond 100 as of up to two seconds ago.

        Raises what `ListPlanner.prepare` does.
        """
        prepared = self._planner.prepare(job_filter)
        counted = self._totals.get(
            prepared, lambda: self._count(prepared), SHARE_S, keep=lambda count: count > SHARE_FROM
        )
        is_exact = counted <= COUNT_EXACTLY_UP_TO
        return CappedCount(min(counted, COUNT_EXACTLY_UP_TO), is_exact)

    def _count(self, job_filter: JobFilter) -> int:
        index = get_plan(job_filter).index
        return self._jobs.count(job_filter.match(), index=index, limit=COUNT_EXACTLY_UP_TO + 1)
