"""Chooses the source of the stats: the collector if its stats are fresh, else a live count."""

from jobmon.domain import CappedCount
from jobmon.rollup.reader import RollupReader
from jobmon.single_flight import TTL_FACTOR, SingleFlight
from jobmon.store import list_count
from jobmon.store.deep_pages import PageGuide
from jobmon.store.filter import JobFilter
from jobmon.store.list_count import ListCounter
from jobmon.store.list_plan import ListPlanner
from jobmon.store.live_stats import LiveStats
from jobmon.store.stats import QueueStats


class StatsReader:
    """The stats of a queue and the totals of its lists; every method raises PyMongoError.

    >>> stats = StatsReader(ListPlanner(connection), RollupReader(connection))
    >>> stats.stats().status_counts()
    {'queued': 3, …}
    >>> stats.count(JobFilter(statuses=("dlq",)))
    CappedCount(value=7, is_exact=True)
    """

    def __init__(self, planner: ListPlanner, rollup: RollupReader) -> None:
        connection = planner.connection
        self._rollup, self._jobs = rollup, connection.jobs
        self._live_stats = SingleFlight(
            LiveStats(connection).count, connection.settings.stats_ttl_ms, TTL_FACTOR
        )
        self._lists = ListCounter(planner)

    def stats(self) -> QueueStats:
        """The collector's stats, or else a live count.

        A process counts live by one query at a time. It keeps the result for JOBMON_STATS_TTL_MS
        or, if that is longer, for nine times as long as the count took (30 s at most).
        """
        return self._rollup.stats() or self._live_stats.get()

    def cached_stats(self) -> QueueStats | None:
        """The collector's stats or a kept live count; None if there is neither."""
        return self._rollup.stats() or self._live_stats.kept()

    def estimated_total(self) -> int:
        """The number of jobs by the collection's metadata."""
        return self._jobs.estimated_count()

    def find_page_guide(self, job_filter: JobFilter) -> PageGuide | None:
        """The count and milestones of a list, for pages by number.

        None for a short list, and for a list that the present stats do not count.
        """
        stats = self.cached_stats() if job_filter.is_by_status_and_type else None
        if stats is None:
            return None
        total = stats.count_matching(job_filter.statuses, job_filter.types)
        if total is None or total <= list_count.COUNT_EXACTLY_UP_TO:
            return None
        changes = stats.milestones
        milestones = None if changes is None else self._rollup.milestones(changes.version)
        return PageGuide(
            total=total,
            is_current=stats.source == "rollup",
            milestones=milestones,
            changes=changes,
        )

    def count_up_to(self, job_filter: JobFilter, limit: int) -> CappedCount:
        """How many jobs match, up to `limit`, by the list's own index; raises as `count` does."""
        return self._lists.count(job_filter, limit)

    def count(self, job_filter: JobFilter) -> CappedCount:
        """How many jobs match; raises what `ListPlanner.prepare` raises.

        Up to 10,000 jobs are counted in the list's own index. A larger number comes from the stats
        if they contain it; stats are not counted for it if that needs a scan of the documents.
        """
        if not job_filter.is_by_status_and_type:
            return self._lists.count(job_filter)
        stats, is_all = self.cached_stats(), job_filter == JobFilter()
        if stats is None:
            counted = self._lists.count(job_filter)
            if counted.is_exact:
                return counted
            if not self._jobs.mapping.has_status:  # counting by status would read all documents
                return CappedCount(self.estimated_total(), False) if is_all else counted
            stats = self.stats()
        stats_count = stats.count_matching(job_filter.statuses, job_filter.types)
        if stats_count is None and is_all:
            return CappedCount(stats.total, False)
        if stats_count is not None and stats_count > list_count.COUNT_EXACTLY_UP_TO:
            return CappedCount(stats_count, True)
        return self._lists.count(job_filter)
