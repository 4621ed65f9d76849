"""Finds the jobs of a request, batch by batch; a batch begins where the previous one ended."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobmon.actions.group_jobs import GroupJobReader
from jobmon.actions.preview import narrow_to_action
from jobmon.actions.records import ActionRecords
from jobmon.actions.request import ActionRequest
from jobmon.actions.support import ActionSupport
from jobmon.redaction.redactor import Redactor
from jobmon.store.bson_json import to_text
from jobmon.store.connection import Connection
from jobmon.store.cursor import Cursor
from jobmon.store.filter import STATUSES_BY_DATE, JobFilter, RefusedFilterError
from jobmon.store.identity import identity_values, is_identity
from jobmon.store.indexes import JOB_ID
from jobmon.store.list_plan import MAX_MATCHES, ListPlanner, get_plan
from jobmon.store.lists import JobLists
from jobmon.store.mapping import Document

NO_PLACE = "The list of this filter cannot be read in parts: select single jobs."


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The next jobs of a request. `keys`: their `_id`s. `missing`: selected ids without a job.

    `position`: where the next batch begins; None if this is the last batch.
    """

    keys: list[Any]
    missing: list[str]
    position: Document | None


class TargetReader:
    """Reads the jobs of requests to one queue; methods raise PyMongoError."""

    def __init__(
        self,
        connection: Connection,
        records: ActionRecords,
        support: ActionSupport,
        redactor: Redactor,
    ) -> None:
        self._records = records
        self._connection = connection
        self._support = support
        planner, dates = ListPlanner(connection), ("createdAt", *STATUSES_BY_DATE)
        self._lists = JobLists(planner, redactor, fields=("_id", *dates), transform=lambda job: job)
        self._groups = GroupJobReader(planner, redactor)

    def read(self, request: ActionRequest, position: Document, size: int) -> Batch:
        """The next `size` jobs from a position on; `{}` is the beginning.

        A filter that is sorted in memory returns all jobs at once, even more than `size`. Raises
        RefusedFilterError for a filter whose jobs cannot be listed.
        """
        if request.target.request_id is not None:
            return self._read_changed(request.target.request_id, position.get("after"), size)
        job_filter = request.target.job_filter
        if job_filter is None:
            return self._read_selected(request, position.get("index", 0), size)
        narrowed = narrow_to_action(request.action, job_filter, self._support, request.at)
        if narrowed is None:
            return Batch(keys=[], missing=[], position=None)
        cursor = position.get("cursor")
        if job_filter.error_group is None:
            jobs, next_position = _read_matching(self._lists, narrowed, cursor, size)
        else:
            jobs, next_position = _read_matching(self._groups.lists, narrowed, cursor, size)
            jobs = self._groups.select(jobs, job_filter.error_group)
        if narrowed.condition is not None and self._support.has_creation_time:
            jobs = [job for job in jobs if _is_created_before(job, request.at)]
        return Batch(keys=[job["_id"] for job in jobs], missing=[], position=next_position)

    def _read_changed(self, request_id: str, after: Any, size: int) -> Batch:
        """Jobs that an earlier request changed, after the job with the `_id` in `after`."""
        outcomes = self._records.list_done(request_id, after, size)
        keys = [outcome["key"] for outcome in outcomes]
        position = {"after": keys[-1]} if len(keys) == size else None
        return Batch(keys=keys, missing=[], position=position)

    def _read_selected(self, request: ActionRequest, start: int, size: int) -> Batch:
        """Selected jobs, even several with one id. For one owner, jobs of others are missing."""
        job_ids, owner = request.target.job_ids, request.owner
        batch_ids = job_ids[start : start + size]
        values = [value for job_id in batch_ids for value in identity_values(job_id)]
        jobs = self._connection.jobs.find(
            {"jobId": {"$in": values}}, ("_id", "jobId", "createdBy"), index=JOB_ID
        )
        keys_by_id = defaultdict[str, list[Any]](list)
        for job in jobs:
            if owner is None or is_identity(job.get("createdBy"), owner):
                keys_by_id[to_text(job.get("jobId"))].append(job["_id"])
        end = start + size
        return Batch(
            keys=[key for job_id in batch_ids for key in keys_by_id.get(job_id, ())],
            missing=[job_id for job_id in batch_ids if job_id not in keys_by_id],
            position={"index": end} if end < len(job_ids) else None,
        )


def _read_matching(
    lists: JobLists, job_filter: JobFilter, encoded_cursor: str | None, size: int
) -> tuple[list[Document], Document | None]:
    """The next jobs of a list, and the position after them (None at the end of the list)."""
    cursor = None if encoded_cursor is None else Cursor.decode(encoded_cursor)
    prepared = lists.prepare(job_filter)
    if get_plan(prepared).is_sorted_in_memory:  # all matches are read at once, without cursors
        size = MAX_MATCHES
    page = lists.page(prepared, per_page=size, oldest_first=True, cursor=cursor)
    if page.next_cursor is not None and page.next_cursor.by_page:
        raise RefusedFilterError("sort", NO_PLACE)
    next_position = None if page.next_cursor is None else {"cursor": page.next_cursor.encode()}
    return page.jobs, next_position


def _is_created_before(job: Document, moment: datetime) -> bool:
    created_at = job.get("createdAt")
    return isinstance(created_at, datetime) and created_at < moment


def is_changed_since(job: Document, moment: datetime) -> bool:
    """Whether the updatedAt of a job is after a moment; False without this date."""
    changed_at = job.get("updatedAt")
    return isinstance(changed_at, datetime) and changed_at > moment
