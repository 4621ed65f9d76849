"""The filter of a list of jobs: its query, the index that serves it, and its limits."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from jobmon.domain import FINAL_STATUSES, WAITING_STATUSES, JobCondition, JobStatus
from jobmon.store import indexes
from jobmon.store.cursor import NEWEST_FIRST
from jobmon.store.identity import identity_ranges, identity_values, label_values
from jobmon.store.mapping import IS_ARRAY, NOT_DATES, Document, FieldMapping, Keys
from jobmon.store.read_collection import ReadCollection
from jobmon.store.repetition import INTERVAL, IS_SCHEDULE, TIME_OF_DAY
from jobmon.store.search import SearchTerm

# Of jobs that no index has in list order, or that are compared one by one.
MAX_MATCHES = 1_000
# Of jobs that may be searched without the index of a field.
MAX_SCANNED = 10_000


class UnknownFieldError(ValueError):
    """The watched documents have no field for the filter `parameter`."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


class RefusedFilterError(ValueError):
    """The filter `parameter` cannot be served; the message has why, and what to do."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class WorkerJobs(NamedTuple):
    """The ids of the jobs that a worker runs or ran; None if only the jobs that name it are known.

    `reason`: why there may be others; empty if these are all.
    """

    ids: tuple[Any, ...] | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs to list; a job has to match every field that is given.

    `statuses`, `types`: any of these labels, `null` for a missing one; empty for all.
    `owner`: the printed createdBy. A createdBy that is an array belongs to nobody, but MongoDB
    finds it by each element; `may_have_arrays` excludes such jobs, at the cost of reading each job.
    `created_from` (inclusive), `created_to` (exclusive): aware dates; a job whose createdAt is no
    date is in no range.
    `error_code`: the code of the newest error. `worker`: the leasedBy, a text; or with
    `worker_jobs`, these jobs. ValueError for more than one of these and `owner`: no index has both.
    `job_id`: a prefix of the printed id.
    `condition`: at the time of the query. `finished_from` (inclusive), `finished_to` (exclusive):
    aware dates. A list by one of these is in the order of its date: nextRunAt, leaseExpiresAt or
    finishedAt.
    `by_next_run`: the list is in the order of (nextRunAt, _id); only for waiting jobs.
    `repeats_by`: recurring jobs whose schedule is at the path of this name, in the same order.
    `search`: values of different fields of the payload; a job has to match each.
    """

    statuses: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    owner: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    error_code: str | None = None
    worker: str | None = None
    job_id: str | None = None
    may_have_arrays: bool = True
    condition: JobCondition | None = None
    finished_from: datetime | None = None
    finished_to: datetime | None = None
    by_next_run: bool = False
    repeats_by: str | None = None
    search: tuple[SearchTerm, ...] = ()
    is_prepared: bool = field(default=False, compare=False)
    # The statuses with which the jobs have the date, as far as the documents' mapping is known.
    dated_statuses: tuple[str, ...] | None = field(default=None, compare=False)
    # The statuses with which the jobs name a worker; None for all.
    worker_statuses: tuple[str, ...] | None = field(default=None, compare=False)
    worker_jobs: WorkerJobs | None = field(default=None, compare=False)
    # The index that finds the jobs of a search: not always that of a searched field.
    search_index: Keys | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        given = [value for value in (self.owner, self.error_code, self.worker) if value is not None]
        if len(given) > 1:
            raise ValueError("a list is by owner, by error code or by worker")

    def match(self) -> Document:
        """The filter as a query of typed values."""
        query: Document = {}
        if self.statuses:
            query["status"] = {"$in": list(self.statuses)}
        if self.types:
            values = [value for label in self.types for value in label_values(label)]
            query["type"] = {"$in": values}
        if self.owner is not None:
            query["createdBy"] = {"$in": identity_values(self.owner)}
            if self.may_have_arrays:
                query["$and"] = [{"$nor": [{"createdBy": IS_ARRAY}]}]
        if self.error_code is not None:
            query["lastError.code"] = {"$in": _list_code_values(self.error_code)}
        if self.worker is not None:
            query |= self._match_worker()
        if bounds := _match_range(self.created_from, self.created_to):
            query["createdAt"] = bounds
        if self.job_id is not None:
            query |= self._match_id()
        query |= {term.field: term.condition() for term in self.search}
        if self.repeats_by is not None:
            return query | self._match_schedule()
        if self.date_field is not None:
            statuses = self.dated_statuses
            if statuses is None:
                statuses = _STATUSES_BY_DATE[self.date_field]
            if self.statuses:
                statuses = tuple(status for status in statuses if status in self.statuses)
            query |= {"status": {"$in": list(statuses)}} | self._match_date()
        return query

    def _match_worker(self) -> Document:
        """The jobs with these ids, or those that name the worker, as the partial index has them."""
        if self._worker_ids is not None:
            return {"$and": [{"jobId": {"$in": list(self._worker_ids)}}]}
        if self.worker_statuses is None:
            return {"leasedBy": self.worker}
        statuses = [each for each in self.worker_statuses if each in (self.statuses or (each,))]
        return {"leasedBy": self.worker, "status": {"$in": statuses}}

    @property
    def _worker_ids(self) -> tuple[Any, ...] | None:
        return None if self.worker_jobs is None else self.worker_jobs.ids

    @property
    def _is_by_id(self) -> bool:
        """Whether the index of ids finds the jobs."""
        return self.job_id is not None or self._worker_ids is not None

    def _match_schedule(self) -> Document:
        """The jobs that have this schedule; a time of day counts only without an interval."""
        found: Document = {self.repeats_by or "": IS_SCHEDULE}
        if self.repeats_by == TIME_OF_DAY:
            found[INTERVAL] = {"$not": IS_SCHEDULE}
        return found

    def _match_date(self) -> Document:
        now = datetime.now(UTC)
        match self.condition:
            case JobCondition.DUE:  # a job without nextRunAt is due at once
                return {"$nor": [{"nextRunAt": {"$gt": now}}, {"nextRunAt": {"$type": NOT_DATES}}]}
            case JobCondition.SCHEDULED:
                return {"nextRunAt": {"$gt": now}}
            case JobCondition.EXPIRED:
                return {"leaseExpiresAt": {"$lt": now}}
        if self.by_next_run:
            return {}
        return {"finishedAt": _match_range(self.finished_from, self.finished_to)}

    @property
    def date_field(self) -> str | None:
        """The date that orders the list, unless it is createdAt."""
        if self.by_next_run:
            return "nextRunAt"
        if self.condition is not None:
            is_expired = self.condition is JobCondition.EXPIRED
            return "leaseExpiresAt" if is_expired else "nextRunAt"
        has_range = self.finished_from is not None or self.finished_to is not None
        return "finishedAt" if has_range else None

    def _match_id(self) -> Document:
        """The jobs whose id has the prefix, as ranges of the index, one for each type of id."""
        ranges = [{"jobId": condition} for condition in identity_ranges(self.job_id or "")]
        return {"$or": ranges} if len(ranges) > 1 else ranges[0]

    @property
    def is_by_status_and_type(self) -> bool:
        """Whether it filters by status and type only: then the stats may have its count."""
        shown = JobFilter(statuses=self.statuses, types=self.types, by_next_run=self.by_next_run)
        return self == shown

    def choose_index(self, mapping: FieldMapping) -> Keys:
        """The index that finds these jobs, in list order unless `is_sorted_in_memory`."""
        if self._is_by_id:
            return indexes.JOB_ID
        if self.search_index is not None:
            return self.search_index
        if self.repeats_by is not None:
            return indexes.recurring_indexes(mapping)[self.repeats_by]
        if self.date_field is not None:
            if self.condition is JobCondition.SCHEDULED:
                return indexes.schedule_index(mapping)
            if self.date_field == "nextRunAt" and mapping.waits_by_date:
                return indexes.BY_WAITING
            return _INDEX_BY_DATE[self.date_field]
        if self.owner is not None:
            return indexes.BY_OWNER_AND_STATUS if self.statuses else indexes.BY_OWNER
        if self.error_code is not None:
            return indexes.BY_ERROR_CODE
        if self.worker is not None:
            return indexes.worker_index(mapping) or indexes.BY_STATUS
        if self.statuses:
            return indexes.BY_STATUS_AND_TYPE if self.types else indexes.BY_STATUS
        return indexes.BY_TYPE if self.types else NEWEST_FIRST

    def prepare(self, jobs: ReadCollection) -> "JobFilter":
        """The filter to run on `jobs`: without the condition on arrays where there are none.

        A prepared filter is returned unchanged. UnknownFieldError or RefusedFilterError if
        the jobs cannot be listed.
        """
        if self.is_prepared:
            return self
        if self.date_field is not None and not jobs.mapping.can_query(self.date_field):
            if self.by_next_run:
                raise UnknownFieldError("sort")
            if self.condition is not None:
                raise UnknownFieldError("condition")
            raise UnknownFieldError(
                "finished_to" if self.finished_from is None else "finished_from"
            )
        if self.by_next_run:
            self._check_order(jobs.mapping)
        if self.error_code is not None and not jobs.mapping.can_query("lastError.code"):
            raise UnknownFieldError("error_code")
        is_by_name = self.worker is not None and self._worker_ids is None
        if is_by_name and not jobs.mapping.can_query("leasedBy"):
            raise UnknownFieldError("worker")
        if self.job_id is not None and not _has_few(jobs, indexes.JOB_ID, self._match_id()):
            message = f"Matches more than {MAX_MATCHES:,} jobs: give more of the id."
            raise RefusedFilterError("job_id", message)
        by_search = self._choose_search_index(jobs) if self.search else None
        prepared = replace(self, is_prepared=True, search_index=by_search)
        is_due = self.date_field == "nextRunAt" and self.condition is not JobCondition.SCHEDULED
        if self.date_field is not None and not is_due:  # without a nextRunAt a job is due
            statuses = _STATUSES_BY_DATE[self.date_field]
            dated = jobs.mapping.select_statuses(self.date_field, statuses)
            prepared = replace(prepared, dated_statuses=dated)
        prepared = replace(prepared, worker_statuses=jobs.mapping.only_in.get("leasedBy"))
        if self.owner is None or self.job_id is not None:
            return prepared
        has_none = jobs.has_no_arrays("createdBy", indexes.BY_OWNER)
        return replace(prepared, may_have_arrays=not has_none)

    @property
    def is_sorted_in_memory(self) -> bool:
        """Whether the index of a prepared filter has the jobs in another order than the list."""
        if self._is_by_id:
            return True
        if not self.search:
            return False
        if self.date_field is not None:
            return True
        by_prefix = [indexes.search_index(term.field) for term in self.search if term.has_prefix]
        return self.search_index in by_prefix

    def _choose_search_index(self, jobs: ReadCollection) -> Keys:
        """The index that finds the jobs of a search.

        It has exactly these jobs in list order, or finds at most 1,000 that may match.
        """
        for term in self.search:
            _require_searchable(jobs, term.field)
        if self._is_by_id:
            return indexes.JOB_ID
        first = self.search[0]
        alone = JobFilter(
            search=(first,), created_from=self.created_from, created_to=self.created_to
        )
        if self == alone and not first.has_prefix:
            return indexes.search_index(first.field)
        for index, query in self._list_bounding_indexes(jobs.mapping):
            if jobs.mapping.translate_keys(index) is not None and _has_few(jobs, index, query):
                return index
        remedy = ", too many to combine with other filters. Add created_from and created_to"
        if first.has_prefix:
            remedy = ". Give more of the value, or add created_from and created_to"
        raise RefusedFilterError(
            first.field,
            f"More than {MAX_MATCHES:,} jobs match{remedy}, another search field, or a filter that "
            "fewer jobs match.",
        )

    def _list_bounding_indexes(self, mapping: FieldMapping) -> Iterator[tuple[Keys, Document]]:
        """Indexes, each with a part of the filter that is a range of its keys.

        The owner comes first: an owner with few jobs then learns nothing about those of others.
        """
        created = _match_range(self.created_from, self.created_to)
        within: Document = {"createdAt": created} if created else {}
        if self.owner is not None:
            yield indexes.BY_OWNER, {"createdBy": {"$in": identity_values(self.owner)}} | within
        for term in self.search:
            # The keys of a prefix are not in the order of createdAt: the dates bound nothing.
            dates = {} if term.has_prefix else within
            yield indexes.search_index(term.field), {term.field: term.condition()} | dates
        if self.date_field is not None:
            return
        plain = JobFilter(statuses=self.statuses, types=self.types)
        can_match = not self.statuses or mapping.has_status
        can_match &= not self.types or mapping.can_query("type")
        if (self.statuses or self.types) and can_match:
            yield plain.choose_index(mapping), plain.match() | within
        if self.error_code is not None:
            codes = {"lastError.code": {"$in": _list_code_values(self.error_code)}}
            yield indexes.BY_ERROR_CODE, codes | within
        if self.worker is not None and (by_worker := indexes.worker_index(mapping)) is not None:
            yield by_worker, {"leasedBy": self.worker} | within
        if within:
            yield NEWEST_FIRST, within

    def _check_order(self, mapping: FieldMapping) -> None:
        """Raise RefusedFilterError unless an index has the jobs in the order of nextRunAt."""
        if self.condition is JobCondition.SCHEDULED or self.repeats_by is not None:
            return
        if not (mapping.has_status or mapping.waits_by_date):
            raise RefusedFilterError("sort", "Needs `condition=scheduled` in this queue.")
        if self.condition is None and not (
            self.statuses and set(self.statuses) <= set(WAITING_STATUSES)
        ):
            raise RefusedFilterError(
                "sort",
                "Only waiting jobs are in this order: add `condition=scheduled`, `condition=due`, "
                "or `status` with queued or failed.",
            )


_STATUSES_BY_DATE = {
    "nextRunAt": WAITING_STATUSES,
    "leaseExpiresAt": (JobStatus.LEASED.value,),
    "finishedAt": FINAL_STATUSES,
}
_INDEX_BY_DATE = {
    "nextRunAt": indexes.BY_NEXT_RUN,
    "leaseExpiresAt": indexes.BY_LEASE,
    "finishedAt": indexes.BY_FINISH,
}


def _require_searchable(jobs: ReadCollection, name: str) -> None:
    """RefusedFilterError for a field that is not declared, or whose index is missing."""
    if name not in jobs.mapping.search_paths:
        declared = ", ".join(jobs.mapping.search_paths) or "none"
        message = f"Not a field that can be searched. JOBMON_SEARCH_FIELDS has {declared}."
        raise RefusedFilterError(name, message)
    if not jobs.has_index(indexes.search_index(name), {name: {"$exists": True}}) and (
        jobs.estimated_count() > MAX_SCANNED
    ):
        message = "Its index is missing, and there are many jobs: run `jobmon init`."
        raise RefusedFilterError(name, message)


def _has_few(jobs: ReadCollection, index: Keys, query: Document) -> bool:
    """Whether at most 1,000 jobs match a query that is a range of the index."""
    return jobs.count(query, index=index, limit=MAX_MATCHES + 1) <= MAX_MATCHES


def _match_range(start: datetime | None, end: datetime | None) -> Document:
    """From `start` to before `end`; no condition where both are None."""
    bounds = {"$gte": start, "$lt": end}
    return {operator: at for operator, at in bounds.items() if at is not None}


def _list_code_values(code: str) -> list[Any]:
    """The values that a printed code means: the text, or the whole number, 11000 for example."""
    digits = code.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= 18 and str(int(code)) == code:
        return [code, int(code)]
    return [code]
