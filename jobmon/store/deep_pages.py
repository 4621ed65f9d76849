"""Reads pages by their number, and skips few index keys if the list has milestones."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from jobmon.single_flight import SingleFlightCache
from jobmon.store.filter import JobFilter
from jobmon.store.list_plan import get_plan
from jobmon.store.mapping import Document, Keys
from jobmon.store.milestones import IdRange, Milestone, MilestoneChanges, Milestones
from jobmon.store.read_collection import ReadCollection

# Skipping this many index keys takes about two milliseconds.
MAX_CHEAP_SKIP = 5_000
# Skipping FAR_SKIP keys or more is slow: a process reads at most MAX_FAR_PAGES at a time.
FAR_SKIP, MAX_FAR_PAGES = 100_000, 2

_BY_ID: Keys = [("_id", 1)]


@dataclass(frozen=True, kw_only=True)
class PageGuide:
    """The `total` of a list and its milestones, from the newest stats.

    `changes`: the changes since the milestones; None without milestones. `is_current`: whether the
    total is from a running collector, so at most seconds old.
    """

    total: int
    is_current: bool
    milestones: Milestones | None = None
    changes: MilestoneChanges | None = None


class PageStart(NamedTuple):
    """Where a read starts: at `date`, or at the end of the list if that is None, after `skip` jobs.

    `ascending`: the direction of the read; if the list has the other direction, the jobs have to be
    reversed. `limit`: the number of jobs to read. `max_shift`: by how many places the page may
    begin too early or too late; None if that is unknown.
    """

    date: datetime | None
    skip: int
    ascending: bool
    limit: int
    max_shift: int | None

    def query(self) -> Document:
        """The query for the jobs from the date on, in the direction of the read."""
        if self.date is None:
            return {}
        # Without `$expr`, MongoDB checks the condition in the index: skipping reads no documents.
        return {"createdAt": {"$gte" if self.ascending else "$lt": self.date}}


class BusyPagesError(Exception):
    """This process already reads the allowed number of pages that are far from the first."""


class DeepPages:
    """Reads pages of lists by their number; raises PyMongoError and BusyPagesError.

    `read(job_filter, start, limit, ascending=…, skip=…)` reads up to `limit` jobs after `skip`,
    counted from a `PageStart`, or from the beginning if `start` is None.
    """

    def __init__(self, jobs: ReadCollection, read: Callable[..., list[Document]]) -> None:
        self._jobs = jobs
        self._read = read
        self._far_pages: SingleFlightCache[list[Document]] = SingleFlightCache(MAX_FAR_PAGES)
        self._far_slots = threading.BoundedSemaphore(MAX_FAR_PAGES)

    def read(
        self,
        job_filter: JobFilter,
        guide: PageGuide | None,
        skip: int,
        limit: int,
        *,
        ascending: bool,
    ) -> tuple[list[Document], int | None]:
        """Up to `limit` jobs after the first `skip` of a list, and `max_shift` as in `PageStart`.

        A `guide` is possible only for a list by status and type in the order of createdAt, whose
        jobs beyond a date can be queried.
        """
        start = None
        if guide is not None:
            start = self._find_start(job_filter, guide, skip, limit, ascending=ascending)
        if start is not None:
            jobs = self._read(
                job_filter, start, start.limit, ascending=start.ascending, skip=start.skip
            )
            if len(jobs) == start.limit:  # else jobs are missing, for example without a date
                in_list_order = jobs if start.ascending == ascending else jobs[::-1]
                return in_list_order, start.max_shift
        return self._skip(job_filter, skip, limit, ascending=ascending), 0

    def _skip(
        self, job_filter: JobFilter, skip: int, limit: int, *, ascending: bool
    ) -> list[Document]:
        """The jobs after the first `skip`; callers of the same far page share one query."""

        def read() -> list[Document]:
            return self._read(job_filter, None, limit, ascending=ascending, skip=skip)

        def read_far() -> list[Document]:
            if not self._far_slots.acquire(blocking=False):
                raise BusyPagesError
            try:
                return read()
            finally:
                self._far_slots.release()

        if skip < FAR_SKIP or get_plan(job_filter).is_sorted_in_memory:
            return read()
        key = job_filter, skip, limit, ascending
        return self._far_pages.get(key, read_far, keep=lambda _: False)

    def _find_start(
        self, job_filter: JobFilter, guide: PageGuide, skip: int, limit: int, *, ascending: bool
    ) -> PageStart | None:
        """The start of the read; None to skip all earlier jobs from the beginning of the list."""
        remaining = guide.total - skip
        if skip <= MAX_CHEAP_SKIP or remaining <= 0:
            return None
        limit = min(limit, remaining)
        if remaining <= MAX_CHEAP_SKIP:
            shift = 0 if guide.is_current else None
            return PageStart(None, remaining - limit, not ascending, limit, shift)
        if guide.milestones is None or guide.changes is None:
            return None
        older_than_start = skip if ascending else remaining  # jobs older than the page's start
        nearest = guide.milestones.find(
            older_than_start, job_filter.statuses, job_filter.types, after=not ascending
        )
        if nearest is None:
            return None
        milestone, older = nearest
        older += sum(self._count_older(job_filter, milestone, ids) for ids in milestone.ranges)
        distance = older_than_start - older if ascending else older - older_than_start
        if distance < 0:  # jobs have changed since the total was counted
            return None
        shift = _find_shift(milestone, guide.changes)
        return PageStart(milestone.moment, distance, ascending, limit, shift)

    def _count_older(self, job_filter: JobFilter, milestone: Milestone, ids: IdRange) -> int:
        """The number of jobs in a range of _ids that are older than a milestone. Index: _id."""
        bounds = {"$gte": ids.low, "$lt": ids.high}
        id_range: dict[str, Any] = {name: end for name, end in bounds.items() if end is not None}
        is_older = {"$expr": {"$lt": ["$createdAt", {"$literal": milestone.moment}]}}
        query: Document = {"$and": [job_filter.match(), {"_id": id_range}, is_older]}
        return self._jobs.count(query, index=_BY_ID)


def _find_shift(milestone: Milestone, changes: MilestoneChanges) -> int:
    """By how many places at most a page that was found from this milestone may be shifted."""
    return 0 if milestone.at_ms <= changes.oldest_ms else changes.jobs
