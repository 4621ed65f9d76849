"""The filter of a list of jobs: which jobs match, and the condition on each field."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple, Self

from jobmon.domain import FINAL_STATUSES, WAITING_STATUSES, JobCondition, JobStatus
from jobmon.store.identity import identity_values, label_values, match_prefix
from jobmon.store.mapping import IS_ARRAY, NOT_DATES, Document, Keys
from jobmon.store.repetition import INTERVAL, IS_SCHEDULE, TIME_OF_DAY
from jobmon.store.search import SearchTerm, is_prefix, prefix_pattern

# The most types in a request for a list. 10 statuses x 20 types: MongoDB merges at most 200
# combinations in the order of an index.
MAX_TYPES = 20
# By date that orders a list, except createdAt: the statuses with which a job has this date.
STATUSES_BY_DATE: dict[str, tuple[str, ...]] = {
    "nextRunAt": WAITING_STATUSES,
    "leaseExpiresAt": (JobStatus.LEASED.value,),
    "finishedAt": FINAL_STATUSES,
}


class RefusedFilterError(ValueError):
    """The filter `parameter` cannot be served; the message is the reason."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class UnknownFieldError(RefusedFilterError):
    """The watched documents have no field for the filter `parameter`."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter, "The watched documents have no field for this filter.")


class WorkerJobs(NamedTuple):
    """The ids of the jobs that a worker runs or ran.

    `ids` is None if only the jobs that name the worker now can be found. `reason`: why jobs may be
    missing; empty if the ids are complete.
    """

    ids: tuple[Any, ...] | None
    reason: str = ""


class GroupJobs(NamedTuple):
    """The `_id`s of jobs whose error belongs to a group, the latest by `order_field` first.

    `reason` as in `WorkerJobs`.
    """

    ids: tuple[Any, ...]
    reason: str = ""
    order_field: str = ""


@dataclass(frozen=True)
class ListPlan:
    """How a list is read: by an index that has the jobs in list order.

    If `is_sorted_in_memory`, the index has another order: at most 1,000 jobs are read and sorted.
    """

    index: Keys
    is_sorted_in_memory: bool = False


class FilterPart(NamedTuple):
    """A condition of a filter on one field.

    `parameter`: the parameter that sets it. `is_point`: the condition is a list of values. For each
    of these values, an index has the jobs in the order of its next keys. `is_small`: the condition
    matches at most 1,000 jobs.
    """

    parameter: str
    field: str
    query: Document
    is_point: bool = False
    is_small: bool = False


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """The filter of a list of jobs; a job has to match every field that is set.

    `statuses`, `types`: any of these labels, `null` for a missing one; empty for all. A type that
    ends in `*` means all texts with the same beginning.
    `owner`: the printed createdBy. A createdBy that is an array belongs to nobody, but MongoDB
    finds it by each element; `may_have_arrays` excludes such jobs, at the cost of reading each job.
    `is_own`: the caller is the owner; then a refusal must not depend on jobs of other owners.
    `created_from`, `finished_from`, `due_from` (inclusive) and `…_to` (exclusive): aware dates. A
    value that is no date is in no range. `due_…` limits the nextRunAt of waiting jobs.
    `error_code`: the code of the newest error. `error_group`: the id of an error group, whose jobs
    are in `group_jobs`. `worker`: the text in leasedBy; with `worker_jobs`, only these jobs.
    `job_id`: a prefix of the printed id. `condition` is checked at the time of the query.
    `min_attempts`: the least attemptCount. `priority`: exactly this priority.
    `order_by`: the date that orders the list, `createdAt` or one of `STATUSES_BY_DATE`. None means
    `date_field`, or else createdAt.
    `repeats_by`: only the recurring jobs whose schedule is at the path with this name; the list is
    in the order of nextRunAt.
    `search`: values of different fields of the payload; a job has to match each term.
    """

    statuses: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    owner: str | None = None
    is_own: bool = False
    created_from: datetime | None = None
    created_to: datetime | None = None
    error_code: str | None = None
    error_group: str | None = None
    worker: str | None = None
    job_id: str | None = None
    may_have_arrays: bool = True
    condition: JobCondition | None = None
    finished_from: datetime | None = None
    finished_to: datetime | None = None
    due_from: datetime | None = None
    due_to: datetime | None = None
    min_attempts: int | None = None
    priority: int | None = None
    order_by: str | None = None
    repeats_by: str | None = None
    search: tuple[SearchTerm, ...] = ()
    # What `ListPlanner` adds to a prepared filter.
    plan: ListPlan | None = field(default=None, compare=False)
    # The statuses with which jobs have the filter's date in this queue; None for all.
    dated_statuses: tuple[str, ...] | None = field(default=None, compare=False)
    # The statuses with which the jobs name a worker; None for all.
    worker_statuses: tuple[str, ...] | None = field(default=None, compare=False)
    worker_jobs: WorkerJobs | None = field(default=None, compare=False)
    group_jobs: GroupJobs | None = field(default=None, compare=False)
    # The values that occur, in place of types with `*` and of `min_attempts`; None for the range.
    type_values: tuple[str, ...] | None = field(default=None, compare=False)
    attempt_values: tuple[int | float, ...] | None = field(default=None, compare=False)

    @property
    def date_field(self) -> str | None:
        """The date, other than createdAt, by which the jobs are filtered; None if there is none."""
        if self.condition is JobCondition.EXPIRED:
            return "leaseExpiresAt"
        if self.condition is not None or self.due_from is not None or self.due_to is not None:
            return "nextRunAt"
        has_range = self.finished_from is not None or self.finished_to is not None
        return "finishedAt" if has_range else None

    @property
    def has_due_start(self) -> bool:
        """Whether the filter has an earliest nextRunAt: then all jobs that match have the date."""
        return self.condition is JobCondition.SCHEDULED or self.due_from is not None

    @property
    def order_field(self) -> str:
        if self.repeats_by is not None:
            return "nextRunAt"
        return self.order_by or self.date_field or "createdAt"

    @property
    def reason(self) -> str:
        """The reason why the list of a prepared filter may lack jobs; empty if it is complete."""
        limited = (self.worker_jobs, self.group_jobs)
        return "; ".join(jobs.reason for jobs in limited if jobs is not None and jobs.reason)

    def select_latest(self, count: int) -> Self | None:
        """The same filter with only the latest `count` jobs of its group.

        None if it has no group, if the group has no more jobs, or if the list has another order.
        """
        group = self.group_jobs
        if group is None or len(group.ids) <= count or group.order_field != self.order_field:
            return None
        return replace(self, group_jobs=group._replace(ids=group.ids[:count]))

    @cached_property
    def is_by_status_and_type(self) -> bool:
        """Whether it filters only by status and whole type: the stats may have its count then."""
        reduced = JobFilter(statuses=self.statuses, types=self.types, order_by=self.order_by)
        return self == reduced and not any(map(is_prefix, self.types))

    def match(self) -> Document:
        """The filter as a query, with BSON values for its texts."""
        queries = [part.query for part in self.parts()]
        if self.owner is not None and self.may_have_arrays:
            queries.append({"$nor": [{"createdBy": IS_ARRAY}]})
        merged: Document = {}
        for query in queries:
            merged |= query
        return merged if len(merged) == sum(map(len, queries)) else {"$and": queries}

    def parts(self) -> Iterator[FilterPart]:
        """The conditions of the filter, each on one field."""
        statuses = self._select_statuses()
        if statuses is not None:
            yield FilterPart("status", "status", {"status": {"$in": list(statuses)}}, is_point=True)
        if self.types:
            yield self._make_type_part()
        yield from self._list_id_parts()
        if self.error_code is not None:
            codes = {"lastError.code": {"$in": list_code_values(self.error_code)}}
            yield FilterPart("error_code", "lastError.code", codes, is_point=True)
        if self.priority is not None:
            yield FilterPart("priority", "priority", {"priority": self.priority}, is_point=True)
        if self.min_attempts is not None:
            yield self._make_attempts_part(self.min_attempts)
        yield from self._list_date_parts()
        for term in self.search:
            query = {term.field: term.condition()}
            yield FilterPart(term.field, term.field, query, is_point=not term.has_prefix)
        if self.repeats_by is not None:
            has_schedule: Document = {self.repeats_by: IS_SCHEDULE}
            if self.repeats_by == TIME_OF_DAY:  # a time has an effect only without an interval
                has_schedule[INTERVAL] = {"$not": IS_SCHEDULE}
            yield FilterPart("sort", self.repeats_by, has_schedule)

    def _list_id_parts(self) -> Iterator[FilterPart]:
        """The conditions on the owner, the worker, the error group and the job id."""
        if self.owner is not None:
            is_owner = {"createdBy": {"$in": identity_values(self.owner)}}
            yield FilterPart("owner", "createdBy", is_owner, is_point=True)
        if self.worker is not None:
            yield self._make_worker_part(self.worker)
        if self.group_jobs is not None:
            ids = {"_id": {"$in": list(self.group_jobs.ids)}}
            yield FilterPart("error_group", "_id", ids, is_small=True)
        if self.job_id is not None:
            yield FilterPart("job_id", "jobId", match_prefix("jobId", self.job_id))

    def _select_statuses(self) -> tuple[str, ...] | None:
        """The statuses that a job may have; None for all. A date or a worker may limit them."""
        limits = [self.statuses] if self.statuses else []
        if self.repeats_by is None:
            dates = {self.date_field, self.order_by}
            limits += [STATUSES_BY_DATE[date] for date in dates if date in STATUSES_BY_DATE]
        if self.dated_statuses is not None:
            limits.append(self.dated_statuses)
        has_ids = self.worker_jobs is not None and self.worker_jobs.ids is not None
        if self.worker is not None and not has_ids and self.worker_statuses:
            limits.append(self.worker_statuses)
        if not limits:
            return None
        first, *further = limits
        return tuple(status for status in first if all(status in limit for limit in further))

    def _make_type_part(self) -> FilterPart:
        exact = [label for label in self.types if not is_prefix(label)]
        values: list[Any] = [value for label in exact for value in label_values(label)]
        prefixes = [label for label in self.types if is_prefix(label)]
        if self.type_values is not None:
            values, prefixes = [*values, *self.type_values], []
        values += map(prefix_pattern, prefixes)
        return FilterPart("type", "type", {"type": {"$in": values}}, is_point=not prefixes)

    def _make_worker_part(self, worker: str) -> FilterPart:
        ids = None if self.worker_jobs is None else self.worker_jobs.ids
        if ids is None:
            return FilterPart("worker", "leasedBy", {"leasedBy": worker}, is_point=True)
        return FilterPart("worker", "jobId", {"jobId": {"$in": list(ids)}}, is_small=True)

    def _make_attempts_part(self, least: int) -> FilterPart:
        name = "attemptCount"
        if self.attempt_values is None:
            return FilterPart("min_attempts", name, {name: {"$gte": least}})
        values = {name: {"$in": list(self.attempt_values)}}
        return FilterPart("min_attempts", name, values, is_point=True)

    def _make_condition_part(self, condition: JobCondition) -> FilterPart:
        now = datetime.now(UTC)
        match condition:
            case JobCondition.DUE if self.due_from is not None or self.due_to is not None:
                return FilterPart("condition", "nextRunAt", {"nextRunAt": {"$lte": now}})
            case JobCondition.DUE:  # a job without nextRunAt is due at once
                later = [{"nextRunAt": {"$gt": now}}, {"nextRunAt": {"$type": NOT_DATES}}]
                return FilterPart("condition", "nextRunAt", {"$nor": later})
            case JobCondition.SCHEDULED:
                return FilterPart("condition", "nextRunAt", {"nextRunAt": {"$gt": now}})
            case JobCondition.EXPIRED:
                return FilterPart("condition", "leaseExpiresAt", {"leaseExpiresAt": {"$lte": now}})

    def _list_date_parts(self) -> Iterator[FilterPart]:
        if self.condition is not None:
            yield self._make_condition_part(self.condition)
        for field_name, prefix, start, end in (
            ("createdAt", "created", self.created_from, self.created_to),
            ("nextRunAt", "due", self.due_from, self.due_to),
            ("finishedAt", "finished", self.finished_from, self.finished_to),
        ):
            bounds = {"$gte": start, "$lt": end}
            limits: Document = {name: date for name, date in bounds.items() if date is not None}
            if limits and field_name == "finishedAt":  # as in the partial index
                limits["$type"] = "date"
            if limits:
                parameter = f"{prefix}_{'to' if start is None else 'from'}"
                yield FilterPart(parameter, field_name, {field_name: limits})


def list_code_values(code: str) -> list[Any]:
    """The values that a printed code means: the text, and also the number if it is whole."""
    digits = code.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= 18 and str(int(code)) == code:
        return [code, int(code)]
    return [code]
