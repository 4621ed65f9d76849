"""Decides how a list of jobs is read: by which index, or why not.

A filter has parts, each a condition on one field (`JobFilter.parts`). There are two plans:

1. By an index in list order whose keys show which jobs match. Only the jobs of the page are read,
   unless the filter also has a part that no index can serve (`_needs_no_index`).
2. By an index in which at most 1,000 jobs match some parts: these jobs are compared with the other
   parts one by one, and sorted in memory if the index is not in list order.

Otherwise the list is refused, and the message names what to change. A new filter needs a part, and
an index in `store.indexes`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from jobmon.single_flight import SingleFlightCache
from jobmon.store import indexes
from jobmon.store.connection import Connection
from jobmon.store.cursor import list_order
from jobmon.store.filter import FilterPart, JobFilter, ListPlan, RefusedFilterError
from jobmon.store.filter_checks import check_filter, select_dated_statuses
from jobmon.store.identity import LAST_CHARACTER
from jobmon.store.indexes import ListIndex
from jobmon.store.mapping import Document, FieldMapping, Keys
from jobmon.store.read_collection import NoIndexError
from jobmon.store.search import is_prefix

# The largest number of jobs that are compared one by one, or sorted in memory.
MAX_MATCHES = 1_000
# In a queue with at most this many jobs, a filter works although its index is missing.
MAX_SCANNED = 10_000
# The most values that replace a range. For 20 values and ten statuses, MongoDB still merges the
# jobs in list order.
MAX_VALUES = 20
# Results (plans, whether few jobs match, which values occur) are kept for this many seconds.
TTL_S = 2.0
MAX_CACHED = 1_000  # results of each kind

_NARROWER = (
    f"a filter that at most {MAX_MATCHES:,} jobs match, such as created_from with created_to."
)
_NO_INDEX = "Its index is missing, and there are many jobs: run `jobmon init`."
# A refusal names the first of these fields that the filter has.
_REFUSAL_ORDER = (
    "jobId",
    "payload",
    "attemptCount",
    "priority",
    "leasedBy",
    "lastError.code",
    "finishedAt",
    "nextRunAt",
    "leaseExpiresAt",
    "type",
    "createdAt",
    "createdBy",
    "status",
)


def get_plan(job_filter: JobFilter) -> ListPlan:
    """The plan of a prepared filter; raises ValueError for a filter that is not prepared."""
    if job_filter.plan is None:
        raise ValueError("the filter is not prepared")
    return job_filter.plan


@dataclass(frozen=True)
class _IndexUse:
    """How an index serves a filter.

    `used`: the parts that decide which keys of the index are read. `unused`: the other parts that
    need an index; each job, or its key, has to be compared with them. `is_covered`: the keys are
    enough for this comparison. `is_ordered`: the keys are in list order.
    """

    index: ListIndex
    used: list[FilterPart]
    unused: list[FilterPart]
    is_covered: bool
    is_ordered: bool

    @property
    def serves(self) -> bool:
        """Whether its keys show, in list order, which jobs match the parts that need an index."""
        return self.is_ordered and (not self.unused or (bool(self.used) and self.is_covered))


class ListPlanner:
    """Prepares filters for the lists of a queue; methods raise PyMongoError.

    It keeps results for two seconds: all lists of a queue share one planner to use them.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._jobs = connection.jobs
        self._indexes = indexes.make_list_indexes(connection.profile, connection.settings.filters)
        self._prepared: SingleFlightCache[JobFilter] = SingleFlightCache(MAX_CACHED)
        self._matches_few_cache: SingleFlightCache[bool] = SingleFlightCache(MAX_CACHED)
        self._values: SingleFlightCache[tuple[Any, ...] | None] = SingleFlightCache(MAX_CACHED)

    def prepare(self, job_filter: JobFilter) -> JobFilter:
        """The filter with its plan, and with other values that it needs from the queue.

        A prepared filter is returned unchanged. Raises RefusedFilterError if no index serves it.
        """
        if job_filter.plan is not None:
            return job_filter
        if job_filter.is_by_status_and_type:
            return self._prepared.get(job_filter, lambda: self._prepare(job_filter), TTL_S)
        return self._prepare(job_filter)

    def _prepare(self, job_filter: JobFilter) -> JobFilter:
        mapping = self._jobs.mapping
        check_filter(job_filter, mapping)
        for term in job_filter.search:
            self._require_searchable(term.field)
        prepared = replace(
            job_filter,
            dated_statuses=select_dated_statuses(job_filter, mapping),
            worker_statuses=mapping.only_in.get("leasedBy"),
        )
        planned = self._plan(prepared)
        if planned.owner is None or planned.job_id is not None:
            return planned
        has_none = self._jobs.has_no_arrays("createdBy", indexes.BY_OWNER)
        return replace(planned, may_have_arrays=not has_none)

    def _plan(self, job_filter: JobFilter) -> JobFilter:
        if job_filter.repeats_by is not None:
            index = indexes.recurring_indexes(self._jobs.mapping)[job_filter.repeats_by]
            return replace(job_filter, plan=ListPlan(index))
        has_id = len(list_order(job_filter.order_field, self._jobs.mapping)) > 1
        for candidate in self._list_forms(job_filter):  # the last form is used below, too
            uses = self._list_uses(candidate)
            if serving := [use for use in uses if use.serves]:
                best = max(serving, key=lambda use: (not use.unused, len(use.used)))
                # Without _id in the order, only a list that is sorted in memory has cursors.
                is_short = not has_id and self._matches_few(candidate, best)
                return replace(candidate, plan=ListPlan(best.index.keys, is_short))
        for use in sorted(uses, key=_rank_by_match_count):
            if self._matches_few(candidate, use):
                return replace(candidate, plan=ListPlan(use.index.keys, not use.is_ordered))
        raise self._make_refusal(candidate)

    def _list_uses(self, job_filter: JobFilter) -> list[_IndexUse]:
        """The uses of indexes that serve a part of the filter, or have the order of the list."""
        mapping, parts = self._jobs.mapping, list(job_filter.parts())
        order, fields = list_order(job_filter.order_field, mapping), {part.field for part in parts}
        needing_index = [part for part in parts if not _needs_no_index(part, job_filter, mapping)]
        uses: list[_IndexUse] = []
        for index in self._indexes:
            if index.keys[0][0] not in (*fields, order[0][0]):
                continue
            if _may_use(index, fields, job_filter, mapping) and self._is_usable(index):
                use = _make_use(index, parts, needing_index, order)
                if use.used or use.is_ordered:
                    uses.append(use)
        return uses

    def _is_usable(self, index: ListIndex) -> bool:
        """Whether an index of JOBMON_FILTERS is chosen, and exists or the queue is small.

        True for other indexes, which are not checked.
        """
        if not index.setting:
            return True
        return index.is_chosen and self._has_index_or_is_small(index.keys, index.partial or {})

    def _has_index_or_is_small(self, keys: Keys, query: Document) -> bool:
        return self._jobs.has_index(keys, query) or self._jobs.estimated_count() <= MAX_SCANNED

    def _matches_few(self, job_filter: JobFilter, use: _IndexUse) -> bool:
        """Whether at most 1,000 jobs match the parts that the index serves."""
        if not use.used or self._jobs.mapping.translate_keys(use.index.keys) is None:
            return False
        if any(part.is_small for part in use.used):
            return True
        query: Document = {"$and": [part.query for part in use.used]}

        def count_matches() -> bool:
            matches = self._jobs.count(query, index=use.index.keys, limit=MAX_MATCHES + 1)
            return matches <= MAX_MATCHES

        return self._matches_few_cache.get(
            (tuple(use.index.keys), job_filter), count_matches, TTL_S
        )

    def _list_forms(self, job_filter: JobFilter) -> Iterator[JobFilter]:
        """The filter, and then the filter with each range replaced by the values that occur in it.

        An index has the jobs with one value in list order, but not the jobs of a range.
        """
        yield job_filter
        if job_filter.is_own:  # the result must not depend on the types of other owners' jobs
            return
        types = attempts = None
        prefixes = [label[:-1] for label in job_filter.types if is_prefix(label)]
        if prefixes and self._jobs.mapping.can_query("type"):
            ranges = [{"$gte": prefix, "$lt": prefix + LAST_CHARACTER} for prefix in prefixes]
            limit = MAX_VALUES - (len(job_filter.types) - len(prefixes))
            types = self._find_values("type", indexes.BY_TYPE, ranges, limit)
        if job_filter.min_attempts is not None:
            at_least: list[Document] = [{"$gte": job_filter.min_attempts}]
            for index in self._indexes:
                if index.setting == "attempts" and job_filter.min_attempts >= indexes.RETRIED:
                    attempts = self._find_values("attemptCount", index.keys, at_least, MAX_VALUES)
        if types is not None or attempts is not None:
            yield replace(job_filter, type_values=types, attempt_values=attempts)

    def _find_values(
        self, field: str, index: Keys, ranges: list[Document], limit: int
    ) -> tuple[Any, ...] | None:
        """The values of a field in these ranges; None if they are unknown, or more than `limit`."""
        key = (field, str(ranges), limit)
        return self._values.get(key, lambda: self._read_values(field, index, ranges, limit), TTL_S)

    def _read_values(
        self, field: str, index: Keys, ranges: list[Document], limit: int
    ) -> tuple[Any, ...] | None:
        values: list[Any] = []
        for bounds in ranges:
            jobs = self._read_first(field, index, bounds)
            while jobs:
                value = jobs[0].get(field)
                # An array cannot be a bound: a query would match it by its elements.
                if not isinstance(value, str | int | float) or len(values) >= limit:
                    return None
                values.append(value)
                beyond = {name: end for name, end in bounds.items() if name != "$gte"}
                jobs = self._read_first(field, index, beyond | {"$gt": value})
            if jobs is None:
                return None
        return tuple(values)

    def _read_first(self, field: str, index: Keys, bounds: Document) -> list[Document] | None:
        """The job with the least value in a range, or no job; None without the index."""
        try:
            return self._jobs.find(
                {field: bounds},
                (field,),
                index=index,
                order=[(field, 1)],
                limit=1,
                require_index=True,
            )
        except NoIndexError:
            return None

    def _require_searchable(self, name: str) -> None:
        """Raise RefusedFilterError for a field that is not declared, or a missing index."""
        fields = self._jobs.mapping.search_paths
        if name not in fields:
            declared = ", ".join(fields) or "none"
            message = f"Not a field that can be searched. JOBMON_SEARCH_FIELDS has {declared}."
            raise RefusedFilterError(name, message)
        if not self._has_index_or_is_small(indexes.search_index(name), {name: {"$exists": True}}):
            raise RefusedFilterError(name, _NO_INDEX)

    def _make_refusal(self, job_filter: JobFilter) -> RefusedFilterError:
        """The error with the reason why no index serves the filter, and what to change."""
        parts = list(job_filter.parts())
        fields = {part.field: part.parameter for part in reversed(parts)}
        refused = min(parts, key=_rank_for_refusal, default=None)
        parameter = "sort" if refused is None else refused.parameter
        if job_filter.order_by is not None and any(
            use.serves for use in self._list_uses(replace(job_filter, order_by=None))
        ):
            message = f"No index has these jobs in the order of {job_filter.order_by}."
            return RefusedFilterError("sort", f"{message} Remove `sort`, or add {_NARROWER}")
        for index in self._indexes:
            mapping = self._jobs.mapping
            if not index.setting or not _may_use(index, set(fields), job_filter, mapping):
                continue
            if not index.needs <= {*fields, job_filter.order_field}:
                continue
            if not index.is_chosen:
                message = (
                    f"Its index is not chosen: add `{index.setting}` to JOBMON_FILTERS and run "
                    f"`jobmon init`, or add {_NARROWER}"
                )
                return RefusedFilterError(fields.get(index.keys[0][0], parameter), message)
            if not self._is_usable(index):
                return RefusedFilterError(fields.get(index.keys[0][0], parameter), _NO_INDEX)
        return RefusedFilterError(parameter, _explain_many(job_filter, parameter, len(parts)))


def _make_use(
    index: ListIndex, parts: list[FilterPart], needing_index: list[FilterPart], order: Keys
) -> _IndexUse:
    """The use of an index for a filter with these `parts`; `needing_index`: those that need one."""
    used: list[FilterPart] = []
    position = 0
    for name, _ in index.keys:
        on_key = [part for part in parts if part.field == name]
        used += on_key
        if not any(part.is_point for part in on_key):
            break
        position += 1
    remaining_keys = index.keys[position:]
    names = {name for name, _ in index.keys}
    unused = [part for part in needing_index if part not in used]
    return _IndexUse(
        index=index,
        used=used,
        unused=unused,
        is_covered=all(part.field in names for part in unused),
        is_ordered=_is_in_order(remaining_keys, order),
    )


def _is_in_order(keys: Keys, order: Keys) -> bool:
    """Whether the keys begin with this order, or with its reverse."""
    first_keys = keys[: len(order)]
    reverse = [(name, -direction) for name, direction in order]
    return first_keys in (order, reverse)


def _may_use(
    index: ListIndex, fields: set[str], job_filter: JobFilter, mapping: FieldMapping
) -> bool:
    """Whether an index contains all jobs that match, and whether an owner may use it.

    `fields`: the fields of the filter.
    """
    first = index.keys[0][0]
    if index.keys in (indexes.BY_NEXT_RUN, indexes.BY_WAITING, indexes.BY_DUE_TIME):
        return index.keys == _choose_due_index(job_filter, mapping)
    if index.partial is not None and not fields.issuperset(index.partial or [first]):
        return False
    if index.setting == "attempts" and (job_filter.min_attempts or 0) < indexes.RETRIED:
        return False
    # An owner must not learn how many jobs of other owners match, except by the start of an id or
    # by a searched field: see docs/security.md.
    return not job_filter.is_own or first in ("createdBy", "jobId") or first.startswith("payload.")


def _choose_due_index(job_filter: JobFilter, mapping: FieldMapping) -> Keys:
    """The index that has waiting jobs by nextRunAt."""
    if mapping.has_status or job_filter.has_due_start:
        return indexes.schedule_index(mapping)
    # BY_NEXT_RUN needs the status: without that field it is no hint, and the server chooses.
    return indexes.BY_WAITING if mapping.date_decides_waiting else indexes.BY_NEXT_RUN


def _needs_no_index(part: FilterPart, job_filter: JobFilter, mapping: FieldMapping) -> bool:
    """Whether a part may be compared with any number of jobs, because no index can serve it."""
    match part.field:
        case "status":  # it follows from the date that orders the list
            return not mapping.has_status and job_filter.order_field != "createdAt"
        case "leasedBy":  # only running jobs have a worker: they are found by their status
            return indexes.worker_index(mapping) is None
        case "type":  # a constant or missing type matches all jobs or none
            return part.field in mapping.constants or part.field in mapping.missing_fields
        case _:
            return False


def _rank_by_match_count(use: _IndexUse) -> tuple[bool, int, int]:
    """The sort key of indexes: those with which usually few jobs match come first.

    The owner comes before the payload, so an owner with few jobs learns nothing about other jobs.
    """
    first = use.index.keys[0][0].partition(".")[0]
    best_first = ("_id", "jobId", "createdBy", "payload")
    rank = best_first.index(first) if first in best_first else len(best_first)
    return not any(part.is_small for part in use.used), rank, -len(use.used)


def _rank_for_refusal(part: FilterPart) -> int:
    field = "payload" if part.field.startswith("payload.") else part.field
    return _REFUSAL_ORDER.index(field) if field in _REFUSAL_ORDER else len(_REFUSAL_ORDER)


def _explain_many(job_filter: JobFilter, parameter: str, part_count: int) -> str:
    """Why `parameter` is refused, and what to change; the filter has `part_count` parts."""
    if parameter == "job_id":
        return f"Matches more than {MAX_MATCHES:,} jobs: give more of the id."
    term = next((term for term in job_filter.search if term.field == parameter), None)
    if term is not None:
        remedy = ", too many to combine with other filters. Add created_from and created_to"
        if term.has_prefix:
            remedy = ". Give more of the value, or add created_from and created_to"
        cause = f"More than {MAX_MATCHES:,} jobs match{remedy}"
        return f"{cause}, another search field, or a filter that fewer jobs match."
    if parameter == "type" and any(map(is_prefix, job_filter.types)):
        limit = f"only if they have at most {MAX_MATCHES:,} jobs"
        return f"More than {MAX_VALUES} types are listed {limit}: give more of the type."
    if parameter == "min_attempts" and (job_filter.min_attempts or 0) < indexes.RETRIED:
        advice = f"give {indexes.RETRIED} or more, or add {_NARROWER}"
        return f"No index has the jobs with one attempt: {advice}"
    filters = "this filter" if part_count == 1 else "these filters together"
    return f"No index serves {filters}. Add {_NARROWER}"
