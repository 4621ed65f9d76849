"""Lists of jobs, page by page or all of them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from bson import ObjectId

from jobmon.domain import CappedCount
from jobmon.redaction.redactor import Redactor
from jobmon.store import indexes
from jobmon.store.bson_json import encode_key, to_json, to_text
from jobmon.store.cursor import NEWEST_FIRST, Cursor, find_beyond, list_order, stored_date
from jobmon.store.deep_pages import DeepPages, PageGuide, PageStart
from jobmon.store.filter import STATUSES_BY_DATE, JobFilter, RefusedFilterError
from jobmon.store.identity import identity_values, is_identity
from jobmon.store.list_plan import ListPlanner, get_plan
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import Transform
from jobmon.store.summaries import SUMMARY_FIELDS, summarize
from jobmon.store.worker_jobs import WorkerJobFinder

BATCH = 500
# Types of values that contain no text for redaction to hide.
_TYPES_WITHOUT_TEXT = {datetime, ObjectId}
# No page begins here or later in a list: skipping so many jobs exceeds every time limit.
_MAX_SKIP = 2**31


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """One page of a list; `next_cursor` is None on the last page, `prev_cursor` on the first.

    `max_shift`: by how many places the page may begin too early or too late; None if unknown.
    """

    jobs: list[Document]
    page: int
    next_cursor: Cursor | None
    prev_cursor: Cursor | None
    max_shift: int | None = 0

    @property
    def is_whole_list(self) -> bool:
        return self.page == 1 and self.next_cursor is None and self.prev_cursor is None


class _PageSlice(NamedTuple):
    """The jobs of a page, and whether it is the first or last one; `max_shift` as in `JobPage`."""

    jobs: list[Document]
    page: int
    oldest_first: bool
    is_first: bool
    is_last: bool
    max_shift: int | None = 0


class JobLists:
    """Reads lists of the watched jobs; raises PyMongoError if they cannot be read.

    Each job has these `fields`, and is the result of `transform`. By default it has the fields of a
    list, and its dates may be naive. With `require_index`, a missing index raises NoIndexError.
    """

    def __init__(
        self,
        planner: ListPlanner,
        redactor: Redactor,
        *,
        fields: tuple[str, ...] = SUMMARY_FIELDS,
        transform: Transform | None = None,
        require_index: bool = False,
    ) -> None:
        self._redactor = redactor  # for the values in a cursor
        self._fields, self._transform = fields, transform or summarize
        self._require_index = require_index
        self._jobs = planner.connection.jobs
        self._planner = planner
        self._worker_jobs = WorkerJobFinder(planner)
        self._by_id = self._jobs.mapping.orders_by_id
        self._pages = DeepPages(self._jobs, self._read)

    def prepare(self, job_filter: JobFilter) -> JobFilter:
        """The filter for several reads: what it needs from the queue is then read only once.

        Raises the errors of `ListPlanner.prepare`.
        """
        return self._planner.prepare(self._resolve(job_filter))

    def page(
        self,
        job_filter: JobFilter,
        *,
        page: int = 1,
        per_page: int = 20,
        oldest_first: bool = False,
        cursor: Cursor | None = None,
        total: CappedCount | None = None,
        guide: PageGuide | None = None,
    ) -> JobPage:
        """A page of the jobs that match, by the filter's date, the latest first by default.

        With `cursor`, the page after it, or before it for a `prev_cursor`, in the order of the list
        that the cursor is from. A cursor costs the same at any depth; a page number skips index
        keys. With the exact `total` of this filter, a page past the end needs no query; with its
        `guide`, few keys are skipped at any depth. Raises the errors of `prepare`, and
        BusyPagesError.

            page = lists.page(JobFilter(statuses=("dlq",)), per_page=50)
            if page.next_cursor is not None:
                page = lists.page(JobFilter(statuses=("dlq",)), cursor=page.next_cursor)
        """
        job_filter = self.prepare(job_filter)
        has_keyset = self._has_keyset(job_filter)
        if cursor is not None:
            page_slice = self._read_beyond(cursor, job_filter, per_page, has_keyset)
        else:
            end = total.value if total is not None and total.is_exact else _MAX_SKIP
            guide = guide if has_keyset and job_filter.order_field == "createdAt" else None
            page_slice = self._read_page(
                job_filter, page, per_page, oldest_first, end=end, guide=guide
            )
        jobs, next_cursor, prev_cursor = page_slice.jobs, None, None
        arguments = job_filter, has_keyset, page_slice.page, page_slice.oldest_first
        if jobs and not page_slice.is_last:
            next_cursor = self._make_cursor(jobs[-1], *arguments, neighbor=jobs[-2:-1])
        if jobs and not page_slice.is_first:
            first_cursor = self._make_cursor(jobs[0], *arguments, neighbor=jobs[1:2])
            prev_cursor = replace(first_cursor, backwards=True)
        return JobPage(
            jobs=jobs,
            page=page_slice.page,
            next_cursor=next_cursor,
            prev_cursor=prev_cursor,
            max_shift=page_slice.max_shift,
        )

    def batches(
        self,
        job_filter: JobFilter,
        *,
        oldest_first: bool = False,
        on_skip: Callable[[], object] = lambda: None,
    ) -> Iterator[list[Document]]:
        """The jobs that match, in list order, 500 at a time; a batch is read when it is needed.

        Dates are in UTC and may have no time zone: decoding such dates takes a third of the time.
        `on_skip` is called before each batch that is found by its number: jobs are missing or
        repeated there if others before them join or leave the list meanwhile. Raises the errors of
        `prepare` before the first batch.
        """
        job_filter = self.prepare(job_filter)
        cursor, page, skip = None, 0, 0
        while jobs := self._read(job_filter, cursor, BATCH, ascending=oldest_first, skip=skip):
            yield jobs
            if len(jobs) < BATCH:
                return
            page += 1
            has_keyset = self._has_keyset(job_filter)
            last_cursor = self._make_cursor(
                jobs[-1], job_filter, has_keyset, page, oldest_first, neighbor=jobs[-2:-1]
            )
            cursor, skip = last_cursor, 0
            if last_cursor.by_page:
                cursor, skip = None, page * BATCH
                on_skip()

    def find_neighbors(
        self, job: Document, job_filter: JobFilter, *, oldest_first: bool = False
    ) -> tuple[Document | None, Document | None] | None:
        """The jobs before and after a job in a list, even if the job itself no longer matches.

        None stands for no job, at an end of the list. The result is None if `job` has no date or if
        the jobs beyond it cannot be queried: see `store.cursor`. At most four queries read jobs.
        Raises the errors of `prepare`.
        """
        job_filter = self.prepare(job_filter)
        cursor = self._make_cursor(job, job_filter, self._has_keyset(job_filter), 1, oldest_first)
        is_sorted_in_memory = get_plan(job_filter).is_sorted_in_memory
        if is_sorted_in_memory or cursor.by_page or cursor.date is None:
            return None
        before, after = (
            self._read(job_filter, side, 1, ascending=side.ascending)
            for side in (replace(cursor, backwards=True), cursor)
        )
        return next(iter(before), None), next(iter(after), None)

    def look_up(
        self, ids: Collection[str], job_filter: JobFilter, owner: str | None = None
    ) -> list[tuple[Document, bool]]:
        """The jobs that have these ids, each with whether `job_filter` matches it now.

        With `owner`, only jobs of that owner. Index: (jobId).
        """
        if not ids:
            return []
        by_owner, index, requested = JobFilter(owner=owner), indexes.JOB_ID, frozenset(ids)
        values = [value for job_id in requested for value in identity_values(job_id)]
        has_id = by_owner.match() | {"jobId": {"$in": values}}
        jobs = [
            job
            for job in self._jobs.find(has_id, SUMMARY_FIELDS, index=index, transform=summarize)
            if (printed := to_text(job.get("jobId"))) in requested
            and is_identity(job.get("jobId"), printed)
        ]
        is_match = {"$and": [self._resolve(job_filter).match(), has_id]}
        matching = self._jobs.find(is_match, ("_id",), index=index)
        keys = {encode_key(job["_id"]) for job in matching}
        return [(job, encode_key(job["_id"]) in keys) for job in _select_owned(jobs, by_owner)]

    def _resolve(self, job_filter: JobFilter) -> JobFilter:
        """The filter with the jobs of its worker, and with a search that finds no secrets.

        Raises RefusedFilterError if the jobs of the worker cannot be found, or if redaction hides
        all texts of a search.
        """
        if job_filter.plan is not None:
            return job_filter
        if job_filter.worker is not None:
            jobs = self._worker_jobs.find(job_filter.worker)
            job_filter = replace(job_filter, worker_jobs=jobs)
        return self._drop_secrets(job_filter) if job_filter.search else job_filter

    def _drop_secrets(self, job_filter: JobFilter) -> JobFilter:
        """The filter with a search without secrets; RefusedFilterError for an empty term."""
        terms = [
            term.hide(lambda text: self._redactor.redact(text) != text)
            for term in job_filter.search
        ]
        for term in terms:
            if term.is_empty:
                message = "Redaction hides such a value, so it cannot be searched."
                raise RefusedFilterError(term.field, message)
        return replace(job_filter, search=tuple(terms))

    def _read_page(
        self,
        job_filter: JobFilter,
        page: int,
        per_page: int,
        oldest_first: bool,
        *,
        end: int = _MAX_SKIP,
        guide: PageGuide | None = None,
    ) -> _PageSlice:
        """The jobs of a page by its number; no jobs if the page begins at place `end` or later."""
        skip, limit = (page - 1) * per_page, per_page + 1
        if skip >= end:
            return _PageSlice([], page, oldest_first, page == 1, is_last=True)
        jobs, shift = self._pages.read(job_filter, guide, skip, limit, ascending=oldest_first)
        is_last = len(jobs) <= per_page
        return _PageSlice(jobs[:per_page], page, oldest_first, page == 1, is_last, shift)

    def _read_beyond(
        self, cursor: Cursor, job_filter: JobFilter, per_page: int, has_keyset: bool
    ) -> _PageSlice:
        page = max(1, cursor.page - 1) if cursor.backwards else cursor.page + 1
        has_other_order = cursor.order_by != job_filter.order_field
        if cursor.by_page or has_other_order or not has_keyset:
            return self._read_page(job_filter, page, per_page, cursor.oldest_first)
        jobs = self._read(job_filter, cursor, per_page + 1, ascending=cursor.ascending)
        is_end = len(jobs) <= per_page
        if not cursor.backwards:
            return _PageSlice(jobs[:per_page], page, cursor.oldest_first, False, is_end)
        if len(jobs) < per_page:
            # Less than a page is left before the cursor: show the first page in full.
            return self._read_page(job_filter, 1, per_page, cursor.oldest_first)
        return _PageSlice(jobs[:per_page][::-1], page, cursor.oldest_first, is_end, False)

    def _read(
        self,
        job_filter: JobFilter,
        start: Cursor | PageStart | None,
        limit: int,
        *,
        ascending: bool,
        skip: int = 0,
    ) -> list[Document]:
        """Up to `limit` jobs after `skip` jobs, counted from `start` or the beginning."""
        direction, plan = 1 if ascending else -1, get_plan(job_filter)
        ascending_order = list_order(job_filter.order_field, self._jobs.mapping)
        order = [(name, direction) for name, _ in ascending_order]
        by_id = self._by_id and job_filter.order_field == "createdAt"
        if plan.is_sorted_in_memory:
            beyond = start.query_beyond(by_id=by_id) if isinstance(start, Cursor) else {}
            return self._sort(job_filter, beyond, order, limit, skip)

        def find(query: Document, order: Keys, limit: int) -> list[Document]:
            return self._jobs.find(
                {"$and": [job_filter.match(), query]},
                self._fields,
                index=plan.index,
                order=order,
                skip=skip,
                limit=limit,
                require_index=self._require_index,
                naive_dates=self._transform is summarize,
                transform=self._transform,
            )

        if isinstance(start, Cursor):
            jobs = find_beyond(start, find, order, limit, by_id=by_id)
        else:
            jobs = find({} if start is None else start.query(), order, limit)
        return _select_owned(jobs, job_filter)

    def _sort(
        self, job_filter: JobFilter, beyond: Document, order: Keys, limit: int, skip: int
    ) -> list[Document]:
        """The jobs of a filter whose index has at most 1,000 jobs, sorted in memory.

        `beyond`: the query for jobs beyond a cursor; empty for all jobs.
        """
        if order[0][1] < 0 and (latest := job_filter.select_latest(2 * (skip + limit))) is not None:
            jobs = self._sort(latest, beyond, order, limit, skip)
            if len(jobs) == limit:  # else too few of the latest jobs of the group still match
                return jobs
        mapping = self._jobs.mapping
        if order[-1][0] != "_id":  # equal dates need an order, too
            order = [*order, ("_id", order[0][1])]
        pipeline: list[Document] = [
            {"$match": {"$and": [job_filter.match(), beyond]}},
            {"$project": dict.fromkeys([*self._fields, *(name for name, _ in order)], True)},
            {"$sort": dict(mapping.translate_order(order))},
            {"$skip": skip},
            {"$limit": limit},
        ]
        jobs = self._jobs.aggregate(
            pipeline,
            index=get_plan(job_filter).index,
            batch_size=limit + 1,
            transform=lambda document: self._transform(mapping.to_contract(document)),
        )
        return _select_owned(jobs, job_filter)

    def _has_keyset(self, job_filter: JobFilter) -> bool:
        """Whether the jobs beyond a job can be queried: see `store.cursor`."""
        plan, field = get_plan(job_filter), job_filter.order_field
        if field == "createdAt":
            return self._by_id or self._jobs.has_no_arrays(field, NEWEST_FIRST, may_scan=True)
        mapping, dated = self._jobs.mapping, STATUSES_BY_DATE[field]
        is_stored = field not in mapping.offsets and mapping.select_statuses(field, dated) == dated
        has_id, index = len(list_order(field, mapping)) > 1, plan.index
        if plan.is_sorted_in_memory:  # by date and _id; another index has the dates
            has_id, index = True, indexes.date_index(field, mapping)
        return is_stored and has_id and self._jobs.has_no_arrays(field, index)

    def _make_cursor(
        self,
        job: Document,
        job_filter: JobFilter,
        has_keyset: bool,
        page: int,
        oldest_first: bool,
        *,
        neighbor: Sequence[Document] = (),
    ) -> Cursor:
        """The cursor at a job; by page if the list has no keyset, or the values are not suitable.

        `neighbor`: the job next to `job` in its page, if there is one.
        """
        field = job_filter.order_field
        values = stored_date(job, field), job["_id"]
        cursor = Cursor(
            page=page,
            date=values[0],
            id=values[1],
            oldest_first=oldest_first,
            order_by=field,
            neighbor_differs=any(stored_date(near, field) != values[0] for near in neighbor),
        )
        has_values = (
            cursor.is_exact
            and has_keyset
            # A cursor is encoded, not encrypted.
            and all(type(value) in _TYPES_WITHOUT_TEXT or self._is_shown(value) for value in values)
        )
        return cursor if has_values else cursor.drop_values()

    def _is_shown(self, value: Any) -> bool:
        """Whether redaction would leave a value unchanged."""
        json_value = to_json(value)
        return bool(self._redactor.redact(json_value) == json_value)


def _select_owned(jobs: list[Document], job_filter: JobFilter) -> list[Document]:
    """The jobs of the filter's owner, compared by bytes; all jobs if the filter has no owner."""
    if (owner := job_filter.owner) is None:
        return jobs
    return [job for job in jobs if is_identity(job.get("createdBy"), owner)]
