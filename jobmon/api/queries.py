"""Query parameters of lists of jobs: each schema checks them and makes one typed object."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from marshmallow import (
    ValidationError,
    fields,
    post_load,
    validate,
    validates_schema,
)

from jobmon.api.fields import (
    CursorText,
    OptionalDate,
    OptionalInteger,
    default_none,
    describe,
)
from jobmon.api.parameters import (
    ISO,
    Parameters,
    check_range,
    optional_text,
    page_field,
    page_size_field,
    range_field,
    repeatable_field,
)
from jobmon.api.search import check_search, read_search
from jobmon.domain import JobCondition
from jobmon.rollup.buckets import MINUTE, floor
from jobmon.store.cursor import Cursor
from jobmon.store.filter import MAX_TYPES, JobFilter
from jobmon.store.search import SearchTerm, explain_unsearchable

MIN_ID_PREFIX = 4  # characters
_MAX_INT32 = 2**31 - 1
_BY_CREATION = ("-createdAt", "createdAt")
_BY_OTHER_DATES = tuple(
    sign + name for name in ("nextRunAt", "finishedAt", "leaseExpiresAt") for sign in ("-", "")
)
_BY_DURATION = "-duration"
# The parameters that a list in the order of `-duration` may have.
_DURATION_PARAMETERS = frozenset(
    ("sort", "status", "type", "finished_from", "finished_to", "page", "per_page", "format", "id")
)
# The filters by a range of dates, with `_from` and `_to`.
_DATE_RANGES = ("created", "finished", "due")
# The filters that only a list of all jobs has.
_ADMIN_FILTERS = ("owner", "error_code", "error_group", "worker", "condition")


class ListFormat(StrEnum):
    """How a list is answered: a page as JSON, or all matching entries as a file."""

    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"


def format_field(items: str, excluded: str) -> fields.String:
    """The parameter `format` of a list of `items`; a file allows no parameter in `excluded`."""
    return fields.String(
        load_default=ListFormat.JSON.value,
        validate=validate.OneOf([*ListFormat, ""]),
        **describe(
            f"`json` for a page; `csv` or `ndjson` for a file of all matching {items}, without "
            f"{excluded}."
        ),
    )


def find_page_mistakes(query: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, list[str]]:
    """By parameter: messages about parameters of a page in a request for a file."""
    if query["format"] not in (ListFormat.CSV, ListFormat.NDJSON):
        return {}
    message = f"Cannot be combined with format={query['format']}."
    return {name: [message] for name in ("page", "per_page", "cursor") if sent.get(name)}


@dataclass(frozen=True, kw_only=True)
class ListQuery:
    """A request for a list of jobs: which jobs, in which order, and which page, or a file.

    A `cursor` chooses the page after or before it; then `page` is ignored. `by_duration`: the jobs
    with the longest runs; only filters by status, type and finishedAt are possible.
    """

    job_filter: JobFilter
    oldest_first: bool = False
    by_duration: bool = False
    cursor: Cursor | None = None
    page: int = 1
    per_page: int = 20
    format: ListFormat = ListFormat.JSON

    def confine_to(self, owner: str) -> Self:
        """The same request, limited to the jobs of `owner`."""
        return replace(self, job_filter=replace(self.job_filter, owner=owner, is_own=True))


class JobParameters(Parameters):
    """One job, by its full id."""

    id = fields.String(required=True, **describe("The job's id, as lists print it."))

    @post_load
    def _get_id(self, query: dict[str, Any], **_: Any) -> str:
        return str(query["id"])


class FilterParameters(Parameters):
    """The filters and the order that all lists of jobs have. Empty filters are ignored."""

    is_cached = True

    status = repeatable_field("Jobs with this status", 10)
    type = repeatable_field(
        "Jobs of this type; `text*` matches all types that begin with `text`", MAX_TYPES
    )
    created_from = OptionalDate(**describe(f"Jobs created at this time or later. {ISO}"))
    created_to = OptionalDate(
        **describe(f"Jobs created before this time. Must be later than `created_from`. {ISO}")
    )
    start = OptionalDate(data_key="from", **describe(f"As `created_from`. {ISO}"))
    end = OptionalDate(data_key="to", **describe(f"As `created_to`. {ISO}"))
    range = range_field("Jobs created at most this long ago.")
    finished_from = OptionalDate(
        **describe(f"Jobs finished at this time or later, in order of finishedAt. {ISO}")
    )
    finished_to = OptionalDate(
        **describe(
            "Jobs finished before this time, in order of finishedAt. Must be later than "
            f"`finished_from`. {ISO}"
        )
    )
    due_from = OptionalDate(
        **describe(
            f"Waiting jobs with a nextRunAt at this time or later, in order of nextRunAt. {ISO}"
        )
    )
    due_to = OptionalDate(
        **describe(
            "Waiting jobs with a nextRunAt before this time, in order of nextRunAt. Must be later "
            f"than `due_from`. {ISO}"
        )
    )
    min_attempts = OptionalInteger(
        validate=validate.Range(1, _MAX_INT32),
        **describe("Jobs with at least this attemptCount."),
    )
    priority = OptionalInteger(
        validate=validate.Range(-_MAX_INT32, _MAX_INT32),
        **describe("Jobs with exactly this priority."),
    )
    job_id = optional_text(
        f"Jobs whose id starts with this text of at least {MIN_ID_PREFIX} characters. The answer "
        "can be 422 if the ids of more than 1,000 jobs start with it."
    )
    sort = fields.String(
        load_default=default_none,
        validate=validate.OneOf([*_BY_CREATION, ""]),
        **describe(
            "`-createdAt` for the newest first, `createdAt` for the oldest first. By default the "
            "latest first, by the date in the filters, or else by createdAt."
        ),
    )

    @validates_schema(pass_original=True)
    def _check_combinations(self, query: dict[str, Any], sent: Mapping[str, Any], **_: Any) -> None:
        mistakes = _check_dates(query)
        if query["job_id"] and len(query["job_id"]) < MIN_ID_PREFIX:
            mistakes["job_id"] = [f"Must have at least {MIN_ID_PREFIX} characters."]
        if messages := [text for name in query["type"] if (text := explain_unsearchable(name))]:
            mistakes["type"] = messages
        mistakes |= check_search(read_search(sent))
        if mistakes:
            raise ValidationError(mistakes)

    @validates_schema
    def _check_window(self, query: dict[str, Any], **_: Any) -> None:
        """Refuse two windows of the creation time, and a window that is empty."""
        check_range(query)
        names = {"start": "from", "end": "to", "range": "range"}
        bounds = [name for key, name in names.items() if query[key]]
        if bounds and (query["created_from"] or query["created_to"]):
            message = "Cannot be combined with created_from and created_to."
            raise ValidationError({bounds[0]: [message]})
        if query["start"] and query["end"] and query["end"] <= query["start"]:
            raise ValidationError({"to": ["Must be later than `from`."]})

    @post_load(pass_original=True)
    def _make_query(self, query: dict[str, Any], sent: Mapping[str, Any], **_: Any) -> ListQuery:
        condition = query.get("condition")
        job_filter = JobFilter(
            statuses=tuple(filter(None, query["status"])),
            types=tuple(filter(None, query["type"])),
            owner=query.get("owner") or None,
            created_from=_find_start(query),
            created_to=query["created_to"] or query["end"],
            error_code=query.get("error_code") or None,
            error_group=query.get("error_group") or None,
            worker=query.get("worker") or None,
            job_id=query["job_id"] or None,
            condition=JobCondition(condition) if condition else None,
            finished_from=query["finished_from"],
            finished_to=query["finished_to"],
            due_from=query["due_from"],
            due_to=query["due_to"],
            min_attempts=query["min_attempts"],
            priority=query["priority"],
            search=tuple(
                SearchTerm(field=name, texts=tuple(texts))
                for name, texts in read_search(sent).items()
            ),
        )
        field, oldest_first = _read_sort(query)
        by_duration = query["sort"] == _BY_DURATION
        if not by_duration and field not in (None, job_filter.order_field):
            job_filter = replace(job_filter, order_by=field)
        return ListQuery(
            job_filter=job_filter,
            oldest_first=oldest_first,
            by_duration=by_duration,
            cursor=query.get("cursor"),
            page=query.get("page", 1),
            per_page=query.get("per_page", 20),
            format=ListFormat(query.get("format") or ListFormat.JSON),
        )


class _PageParameters(FilterParameters):
    """The parameters that choose a page of a list, or a file of the whole list."""

    page = page_field("For pages far from 1 `cursor` may be faster.")
    per_page = page_size_field("Jobs")
    cursor = CursorText(
        load_default=default_none,
        **describe(
            "The `next_cursor` or `prev_cursor` of a list with the same `sort`. Overrides `page`."
        ),
    )
    format = format_field("jobs", "`page`, `per_page` and `cursor`")

    @validates_schema(pass_original=True)
    def _check_page(self, query: dict[str, Any], sent: Mapping[str, Any], **_: Any) -> None:
        mistakes = {}
        if (cursor := query["cursor"]) is not None:
            field, oldest_first = _read_sort(query)
            if cursor.oldest_first != oldest_first or field not in (None, cursor.order_by):
                mistakes["cursor"] = ["Made by a list with another sort."]
        mistakes |= find_page_mistakes(query, sent)
        if mistakes:
            raise ValidationError(mistakes)


def _find_start(query: dict[str, Any]) -> datetime | None:
    """The earliest creation time of the jobs; None if that is not limited."""
    start: datetime | None = query["created_from"] or query["start"]
    if query["range"]:
        return floor(datetime.now(UTC) - query["range"], MINUTE)
    return start


def _read_sort(query: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The field to sort by (None: the list's default), and whether the earliest comes first."""
    sort = query["sort"] or ""
    return sort.removeprefix("-") or None, bool(sort) and not sort.startswith("-")


def _check_dates(query: Mapping[str, Any]) -> dict[str, list[str]]:
    """By parameter: messages about date filters that are empty or cannot be combined."""
    mistakes = {}
    for name in _DATE_RANGES:
        start, end = query[f"{name}_from"], query[f"{name}_to"]
        if start is not None and end is not None and end <= start:
            mistakes[f"{name}_to"] = [f"Must be later than {name}_from."]
    condition = query.get("condition")
    date_filters = ["condition"] if condition else []
    for name in ("due", "finished"):
        if name == "due" and condition in (JobCondition.DUE, JobCondition.SCHEDULED):
            continue
        bounds = (f"{name}_from", f"{name}_to")
        date_filters += [bound for bound in bounds if query[bound] is not None][:1]
    if len(date_filters) > 1:
        mistakes[date_filters[0]] = [f"Cannot be combined with {date_filters[1]}."]
    return mistakes


class AdminFilters(FilterParameters):
    """The parameters that filter and order a list of all jobs."""

    owner = optional_text(
        "Jobs whose createdBy is exactly this text, as lists print it.", max_length=1_000
    )
    error_code = optional_text(
        "Jobs whose lastError has exactly this code.",
        max_length=1_000,
    )
    error_group = optional_text(
        "Jobs whose lastError belongs to the group with this id, from `GET /admin/jobs/errors`. Of "
        "the jobs that match the other filters, only the newest 500 with the group's code and the "
        "newest 500 failed or dead-lettered jobs are searched; `meta.reasons.data` is set if there "
        "are more.",
        max_length=100,
    )
    worker = optional_text(
        "Jobs that the worker with exactly this name runs or ran: the jobs of its newest 200 "
        "attempts, and up to 200 jobs with its name in leasedBy. If the attempts record no worker: "
        "all jobs with its name in leasedBy.",
        max_length=1_000,
    )
    condition = fields.String(
        load_default=default_none,
        validate=validate.OneOf([*JobCondition, ""]),
        **describe(
            "`due`: waiting jobs that can be leased now. `scheduled`: waiting jobs whose nextRunAt "
            "is in the future. Both in order of nextRunAt. `expired`: leased jobs whose lease has "
            "expired, in order of leaseExpiresAt.",
            nullable=True,
        ),
    )
    sort = fields.String(
        load_default=default_none,
        validate=validate.OneOf([*_BY_CREATION, *_BY_OTHER_DATES, _BY_DURATION, ""]),
        **describe(
            "The date to sort by; with a leading `-` the latest is first. `nextRunAt` only for "
            "waiting jobs: with `condition=scheduled`, `condition=due`, `due_from`, `due_to` or "
            "the `status` queued or failed. `finishedAt` only for finished jobs: with "
            "`finished_from`, `finished_to` or the `status` succeeded, dlq or cancelled. "
            "`leaseExpiresAt` only for leased jobs. By default the latest first, by the date in "
            "the filters, or else by createdAt. `-duration`: the jobs with the longest runs "
            "that ended from `finished_from` to `finished_to` (by default in the last 24 hours), "
            "among the five longest of each type that the collector keeps. It can be combined only "
            "with these dates, `type` and `status`, not with `cursor`. Without a collector: 503."
        ),
    )

    @validates_schema(pass_original=True)
    def _check_by_duration(self, query: dict[str, Any], sent: Mapping[str, Any], **_: Any) -> None:
        if query["sort"] != _BY_DURATION:
            return
        excluded = ({*self.fields, "from", "to"} - _DURATION_PARAMETERS) | read_search(sent).keys()
        if refused := sorted(name for name in excluded if sent.get(name)):
            message = (
                f"-duration cannot be combined with {refused[0]}: only with status, type, "
                "finished_from and finished_to."
            )
            raise ValidationError({"sort": [message]})


class OwnFilters(FilterParameters):
    """The parameters that filter and order a list of the caller's own jobs."""

    @validates_schema(pass_original=True)
    def _refuse_admin_filters(self, _: dict[str, Any], sent: Mapping[str, Any], **__: Any) -> None:
        refused = [name for name in _ADMIN_FILTERS if sent.get(name)]
        if refused:
            raise ValidationError({name: ["Only for the list of all jobs."] for name in refused})


class ListParameters(AdminFilters, _PageParameters):
    """The parameters of a list of all jobs."""


class OwnListParameters(OwnFilters, _PageParameters):
    """The parameters of a list of the caller's own jobs."""


_ALL_JOBS, _OWN_JOBS = ListParameters(), OwnListParameters()
LIST_PARAMETERS = tuple(field.data_key or name for name, field in _ALL_JOBS.fields.items())
# The parameters of a list that are no filters: they do not limit its jobs.
NON_FILTERS = ("page", "per_page", "cursor", "format", "sort")
# The parameters that may have several values, each a label.
REPEATABLE = tuple(
    name for name, field in _ALL_JOBS.fields.items() if isinstance(field, fields.List)
)


def load_list_query(parameters: Mapping[str, Any], owner: str | None) -> ListQuery:
    """The query for a list of all jobs, or of an owner's jobs; raises ValidationError."""
    query: ListQuery = (_ALL_JOBS if owner is None else _OWN_JOBS).load(parameters)
    return query if owner is None else query.confine_to(owner)
