"""Checks whether the documents of a queue have the fields that a filter needs."""

from jobmon.store.filter import (
    STATUSES_BY_DATE,
    JobFilter,
    RefusedFilterError,
    UnknownFieldError,
)
from jobmon.store.mapping import FieldMapping
from jobmon.store.search import is_prefix

# A filter by one of these fields is refused if the documents lack the field. A filter by another
# missing field matches no job, or all jobs if it matches a missing value.
_REFUSED_IF_MISSING = (
    "nextRunAt",
    "leaseExpiresAt",
    "finishedAt",
    "lastError.code",
    "leasedBy",
    "attemptCount",
    "priority",
)
# What to add to the filter of a list in the order of a date.
_REMEDIES = {
    "nextRunAt": "This order is for waiting jobs only: add `condition=scheduled`, `condition=due`, "
    "due_from, due_to, or `status` with queued or failed.",
    "finishedAt": "This order is for finished jobs only: add finished_from, finished_to, or "
    "`status` with succeeded, dlq or cancelled.",
    "leaseExpiresAt": "This order is for leased jobs only: add `condition=expired`, or `status` "
    "with leased.",
}


def check_filter(job_filter: JobFilter, mapping: FieldMapping) -> None:
    """Raise RefusedFilterError if the documents allow no list with this filter and this order."""
    for part in job_filter.parts():
        if part.field in _REFUSED_IF_MISSING and not mapping.can_query(part.field):
            raise UnknownFieldError(part.parameter)
    is_computed = "type" in mapping.expressions and not mapping.can_query("type")
    if is_computed and any(map(is_prefix, job_filter.types)):
        message = "The types of this queue are computed, so a filter needs whole types."
        raise RefusedFilterError("type", message)
    order, date = job_filter.order_by, job_filter.date_field
    if order is None or order == "createdAt":
        return
    if not mapping.can_query(order):
        raise UnknownFieldError("sort")
    if date is not None and date != order:
        raise RefusedFilterError("sort", f"A list filtered by {date} cannot be sorted by {order}.")
    has_order = mapping.has_status or mapping.date_decides_waiting or job_filter.has_due_start
    if order == "nextRunAt" and not has_order:
        raise RefusedFilterError("sort", "Needs `condition=scheduled` or `due_from` in this queue.")
    statuses = job_filter.statuses
    if date is None and not (statuses and set(statuses) <= set(STATUSES_BY_DATE[order])):
        raise RefusedFilterError("sort", _REMEDIES[order])


def select_dated_statuses(job_filter: JobFilter, mapping: FieldMapping) -> tuple[str, ...] | None:
    """The statuses of jobs that have the filter's date; None if the date excludes none."""
    date = job_filter.date_field
    if date is None:
        return None
    if date == "nextRunAt" and not job_filter.has_due_start and job_filter.due_to is None:
        return None  # without a nextRunAt a job is due
    return mapping.select_statuses(date, STATUSES_BY_DATE[date])
