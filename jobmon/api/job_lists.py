"""Answers requests for lists of jobs: a page, or all matching jobs as a file."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, NamedTuple

from flask import Response, request

from jobmon.api.answers import JobList, JobSummary
from jobmon.api.export import FileRows, export
from jobmon.api.group_jobs import GroupJobFinder
from jobmon.api.longest_runs import LongestRunReader, drop_dates
from jobmon.api.queries import ListFormat, ListQuery
from jobmon.domain import CappedCount
from jobmon.single_flight import FreshFlight
from jobmon.store.bson_json import encode_key
from jobmon.store.deep_pages import BusyPagesError
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.store.mapping import Document
from jobmon.web.errors import RETRY_SLOW_AFTER_S, invalid, too_many_requests
from jobmon.web.json_text import encode_line
from jobmon.web.queues import WatchedQueue, current_queue

NOT_IN_LIST = "the job is not in the list of the longest runs"
SKIPPING = (
    "jobs are found by their number in the list: if jobs before them join or leave the list "
    "meanwhile, some jobs are missing or listed twice"
)
NO_ORDER = "no index has the jobs before and after this one in the order of the list"

_COLUMNS = [name for name in JobSummary().fields if name != "lastError"]
_pick_columns = itemgetter(*_COLUMNS)


def _pick_cells(job: dict[str, Any]) -> tuple[Any, ...]:
    error = job["lastError"] or {}
    return (*_pick_columns(job), error.get("code"), error.get("message"))


JOB_ROWS = FileRows(
    name="jobs",
    answer=JobSummary(),
    columns=(*_COLUMNS, "lastErrorCode", "lastErrorMessage"),
    pick_cells=_pick_cells,
)


class ListPage(NamedTuple):
    """The documents of a page, the fields of its `JobListMeta`, and the filter that they match.

    The filter is prepared, except in a list of the longest runs.
    """

    jobs: list[Document]
    meta: dict[str, Any]
    job_filter: JobFilter


class Neighbors(NamedTuple):
    """The jobs before and after a job in a list; None for a job that does not exist or is unknown.

    `reason`: why both are unknown; empty if they are known.
    """

    previous: Document | None
    next: Document | None
    reason: str = ""


class ListResponder:
    """Answers a `ListQuery` about the request's queue, for the JSON routes and for the pages.

    Raises ApiError 422 for a filter that is refused (it may match too many jobs, or need a field
    that the documents lack), 429 for too many exports or pages far from 1 at once, and 503 for the
    longest runs without a collector.
    """

    def __init__(self) -> None:
        self._groups = GroupJobFinder()
        self._longest = LongestRunReader()
        self._schema, self._texts = JobList.shared(), FreshFlight[bytes]()

    def respond(self, query: ListQuery) -> Response:
        """A `JobList` as JSON, or a file.

        Callers who request the same page at the same time share one read of it.
        """
        if query.format is not ListFormat.JSON:
            return self.export(query)

        def read() -> bytes:
            page = self.page(query)
            return encode_line(self._schema.dump({"meta": page.meta, "data": page.jobs}))

        job_filter = query.job_filter
        key = current_queue().name, job_filter.is_own, job_filter.owner, request.query_string
        return Response(self._texts.get(key, read), mimetype="application/json")

    def page(self, query: ListQuery) -> ListPage:
        """The requested page."""
        queue = current_queue()
        if query.by_duration:
            return self._page_longest(queue, query)
        with _explain_filter_errors():
            job_filter = queue.lists.prepare(self._groups.resolve(queue, query.job_filter))
            total = guide = None
            if query.cursor is None and query.page > 1:  # perhaps beyond the end, or far from 1
                guide = queue.stats.find_page_guide(job_filter)
                guide_total = None if guide is None else CappedCount(guide.total, True)
                total = guide_total or queue.stats.count(job_filter)
            page = queue.lists.page(
                job_filter,
                page=query.page,
                per_page=query.per_page,
                oldest_first=query.oldest_first,
                cursor=query.cursor,
                total=total,
                guide=guide,
            )
            if page.is_whole_list:
                total = CappedCount(len(page.jobs), True)
            elif total is None:
                total = queue.stats.count(job_filter)
        cursors = {
            "next_cursor": page.next_cursor.encode() if page.next_cursor else None,
            "prev_cursor": page.prev_cursor.encode() if page.prev_cursor else None,
        }
        meta = _format_meta(page.page, query.per_page, total, job_filter.reason) | cursors
        for name, end in (("next_cursor", page.next_cursor), ("prev_cursor", page.prev_cursor)):
            if end is not None and end.by_page:
                meta["reasons"][name] = SKIPPING
        if page.max_shift != 0:
            meta |= _explain_shift(meta["reasons"], page.max_shift)
        return ListPage(jobs=page.jobs, meta=meta, job_filter=job_filter)

    def find_neighbors(self, query: ListQuery, job: Document) -> Neighbors:
        """The jobs before and after a job (a document of the store) in the whole list.

        At most four queries read jobs. A list of the longest runs is searched in memory.
        """
        queue = current_queue()
        if query.by_duration:
            jobs, _ = self._longest.list(queue, query.job_filter)
            keys = [encode_key(listed["_id"]) for listed in jobs]
            if (key := encode_key(job["_id"])) not in keys:
                return Neighbors(None, None, NOT_IN_LIST)
            index, padded_jobs = keys.index(key), [None, *jobs, None]
            return Neighbors(padded_jobs[index], padded_jobs[index + 2])
        with _explain_filter_errors():
            job_filter = queue.lists.prepare(self._groups.resolve(queue, query.job_filter))
            pair = queue.lists.find_neighbors(job, job_filter, oldest_first=query.oldest_first)
        return Neighbors(None, None, NO_ORDER) if pair is None else Neighbors(*pair)

    def export(self, query: ListQuery) -> Response:
        """All matching jobs as a file of `query.format`."""
        queue = current_queue()
        if query.by_duration:
            jobs, reason = self._longest.list(queue, query.job_filter)
            return export(JOB_ROWS, iter([jobs]), query.format, [reason] if reason else ())
        with _explain_filter_errors():
            job_filter = queue.lists.prepare(self._groups.resolve(queue, query.job_filter))
            reasons = [job_filter.reason] if job_filter.reason else []

            def note_skip() -> None:
                if SKIPPING not in reasons:
                    reasons.append(SKIPPING)

            batches = queue.lists.batches(
                job_filter, oldest_first=query.oldest_first, on_skip=note_skip
            )
            return export(JOB_ROWS, batches, query.format, reasons)

    def _page_longest(self, queue: WatchedQueue, query: ListQuery) -> ListPage:
        """A page of the longest runs, by its number: such a list has no cursor."""
        jobs, reason = self._longest.list(queue, query.job_filter)
        start = (query.page - 1) * query.per_page
        meta = _format_meta(query.page, query.per_page, CappedCount(len(jobs), True), reason)
        page_jobs = jobs[start : start + query.per_page]
        return ListPage(jobs=page_jobs, meta=meta, job_filter=drop_dates(query.job_filter))


def _format_meta(page: int, per_page: int, total: CappedCount, reason: str) -> dict[str, Any]:
    """The fields of a `JobListMeta` without cursors; `reason`: why the list may lack jobs."""
    return {
        "page": page,
        "per_page": per_page,
        "total": total.value,
        "total_is_exact": total.is_exact and not reason,
        "total_pages": math.ceil(total.value / per_page),
        "next_cursor": None,
        "prev_cursor": None,
        "page_is_exact": True,
        "reasons": {"data": reason} if reason else {},
    }


def _explain_shift(reasons: dict[str, str], max_shift: int | None) -> dict[str, Any]:
    """The fields of `JobListMeta` for a page that may begin some places earlier or later."""
    reason = "no collector is running, and jobs may have changed since they were last counted"
    if max_shift is not None:
        reason = (
            f"found by counts that are some seconds old; {max_shift:,} jobs may have changed "
            "since, and the page may begin up to that many places earlier or later"
        )
    return {"page_is_exact": False, "reasons": reasons | {"page": reason}}


@contextmanager
def _explain_filter_errors() -> Iterator[None]:
    try:
        yield
    except RefusedFilterError as error:
        raise invalid(error.parameter, str(error)) from None
    except BusyPagesError:
        message = "Other pages far from 1 are being read. Follow `next_cursor`, or try again."
        raise too_many_requests(message, RETRY_SLOW_AFTER_S) from None
