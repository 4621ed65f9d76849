"""Finds the jobs whose newest error belongs to a group, among a bounded number of jobs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from jobmon.api.error_links import find_error_groups
from jobmon.domain import JobStatus
from jobmon.single_flight import SingleFlightCache
from jobmon.store.filter import GroupJobs, JobFilter, RefusedFilterError
from jobmon.store.mapping import Document
from jobmon.web.admission import has_large_document
from jobmon.web.queues import WatchedQueue

MAX_SEARCHED = 500  # jobs of one search whose errors are compared with the group
NEWEST_ONLY = f"only the newest {MAX_SEARCHED:,} failed jobs that match are searched for the group"
NEWEST_WITHOUT_CODE = (
    f"errors without the group's lastError.code are searched only in the newest {MAX_SEARCHED:,} "
    "failed jobs that match"
)
FAILED_WITHOUT_CODE = (
    "of the jobs whose error has no code, only failed and dead ones are searched for the group"
)
# The result is cached, because comparing 500 errors takes 50 ms.
CACHE_TTL_S = 5
MAX_CACHED = 50  # results
_FAILED = (JobStatus.FAILED.value, JobStatus.DLQ.value)


class GroupJobFinder:
    """Finds the jobs of a filter's error group; raises PyMongoError."""

    def __init__(self) -> None:
        self._results: SingleFlightCache[GroupJobs] = SingleFlightCache(MAX_CACHED)

    def resolve(self, queue: WatchedQueue, job_filter: JobFilter) -> JobFilter:
        """The filter with the `group_jobs` of its `error_group`, up to 5 s old.

        A filter without `error_group` is returned unchanged.

        Raises RefusedFilterError if there is no such group, or if the other filters are refused.
        """
        if job_filter.error_group is None or job_filter.group_jobs is not None:
            return job_filter
        group_id = job_filter.error_group
        if has_large_document():
            return replace(job_filter, group_jobs=_search(queue, job_filter, group_id))
        key = queue.name, job_filter
        jobs = self._results.get(key, lambda: _search(queue, job_filter, group_id), CACHE_TTL_S)
        return replace(job_filter, group_jobs=jobs)


def _search(queue: WatchedQueue, job_filter: JobFilter, group_id: str) -> GroupJobs:
    group = queue.rollup.error_group(group_id)
    if group is None:
        message = "There is no such group of errors, or it was seen too long ago."
        raise RefusedFilterError("error_group", message)
    ids: list[Any] = []
    order_field = reason = ""
    for search_filter, limit_reason in _list_searches(queue, job_filter, group.code):
        jobs = queue.failed_jobs.page(search_filter, per_page=MAX_SEARCHED + 1).jobs
        selected_ids = _select_ids(queue, jobs[:MAX_SEARCHED], group_id)
        if new_ids := [key for key in selected_ids if key not in ids]:
            # Two searches have no common order.
            order_field = "" if ids else search_filter.order_field
            ids += new_ids
        if len(jobs) > MAX_SEARCHED:
            reason = reason or limit_reason
    has_other_statuses = not job_filter.statuses or not set(job_filter.statuses) <= set(_FAILED)
    if has_other_statuses and not _is_by_code(queue, job_filter, group.code):
        reason = reason or FAILED_WITHOUT_CODE
    return GroupJobs(tuple(ids), reason, order_field)


def _select_ids(queue: WatchedQueue, jobs: list[Document], group_id: str) -> list[Any]:
    """The `_id`s of the jobs whose error belongs to the group."""
    groups = find_error_groups(queue, [job.get("lastError") for job in jobs])
    return [job["_id"] for job, group in zip(jobs, groups, strict=True) if group == group_id]


def _list_searches(
    queue: WatchedQueue, job_filter: JobFilter, code: str | None
) -> Iterator[tuple[JobFilter, str]]:
    """The filters of up to two searches, each with the reason to give if too many jobs match.

    One is by the group's code. The other, by status, finds jobs whose error has no code: then the
    group's code is from the message.
    """
    other_filters = replace(job_filter, error_group=None, order_by=None)
    limit_reason = NEWEST_ONLY
    by_code = replace(other_filters, error_code=other_filters.error_code or code)
    if _is_by_code(queue, by_code, code):
        yield by_code, limit_reason
        if by_code == other_filters:
            return
        limit_reason = NEWEST_WITHOUT_CODE
    requested = other_filters.statuses or _FAILED
    if statuses := tuple(status for status in _FAILED if status in requested):
        yield replace(other_filters, statuses=statuses), limit_reason


def _is_by_code(queue: WatchedQueue, job_filter: JobFilter, code: str | None) -> bool:
    """Whether a search by this filter needs no statuses: it finds jobs by the group's code."""
    has_code = code is not None and job_filter.error_code == code
    return has_code and queue.known_fields.can_query("lastError.code")
