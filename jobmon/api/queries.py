"""Query parameters of the JSON API: each schema checks them once and makes one typed object."""

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
    PlainInteger,
    default_none,
    describe,
)
from jobmon.api.parameters import (
    ISO,
    Parameters,
    check_range,
    optional_text,
    range_field,
    repeatable_field,
)
from jobmon.api.search import check_search, read_search
from jobmon.domain import JobCondition
from jobmon.rollup.buckets import MINUTE, floor
from jobmon.store.cursor import Cursor
from jobmon.store.filter import JobFilter
from jobmon.store.search import SearchTerm

MIN_ID_PREFIX = 4
OLDEST_FIRST = "createdAt"
SOONEST_FIRST = "nextRunAt"
_NEWEST_FIRST = "-createdAt"


class ListFormat(StrEnum):
    """How a list is answered: a page as JSON, or all matching jobs as a file."""

    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"


@dataclass(frozen=True, kw_only=True)
class ListQuery:
    """A request for a list of jobs: which ones, in which order, and which page or file of them.

    With a `cursor` the page is the one after (or before) it, whatever `page` is.
    """

    job_filter: JobFilter
    oldest_first: bool = False
    cursor: Cursor | None = None
    page: int = 1
    per_page: int = 20
    format: ListFormat = ListFormat.JSON

    def confine_to(self, owner: str) -> Self:
        """The same request, limited to the jobs of `owner`."""
        return replace(self, job_filter=replace(self.job_filter, owner=owner))


class JobParameters(Parameters):
    """One job, by its full id."""

    id = fields.String(required=True, **describe("The job's id, as lists print it."))

    @post_load
    def _make_id(self, given: dict[str, Any], **_: Any) -> str:
        return str(given["id"])


class _ListParameters(Parameters):
    """The parameters that all lists of jobs have. An empty filter is no filter."""

    # 10 x 20 is the number of combinations that MongoDB merges from an index without sorting.
    status = repeatable_field("Jobs with this status", 10)
    type = repeatable_field("Jobs of this type", 20)
    created_from = OptionalDate(**describe(f"Jobs created at this time or later. {ISO}"))
    created_to = OptionalDate(
        **describe(f"Jobs created before this time, which is after `created_from`. {ISO}")
    )
    start = OptionalDate(data_key="from", **describe(f"As `created_from`. {ISO}"))
    end = OptionalDate(data_key="to", **describe(f"As `created_to`. {ISO}"))
    range = range_field("Jobs created in the time of this length that ends now.")
    job_id = optional_text(
        f"Jobs whose id starts with this text: at least {MIN_ID_PREFIX} characters, and no more "
        "than 1,000 matching jobs."
    )
    sort = fields.String(
        load_default=_NEWEST_FIRST,
        validate=validate.OneOf([_NEWEST_FIRST, OLDEST_FIRST, SOONEST_FIRST, ""]),
        **describe(
            "Newest first (`-createdAt`, or empty), oldest first (`createdAt`), or the soonest "
            "first (`nextRunAt`): only for all jobs, and with `condition=scheduled`, "
            "`condition=due` or a `status` of waiting jobs (queued, failed)."
        ),
    )
    page = PlainInteger(
        load_default=1,
        validate=validate.Range(min=1),
        **describe("Number of the page, from 1. For deep pages `cursor` is cheaper."),
    )
    per_page = PlainInteger(
        load_default=20, validate=validate.Range(1, 100), **describe("Jobs per page.")
    )
    cursor = CursorText(
        load_default=default_none,
        **describe(
            "The `next_cursor` or `prev_cursor` of a list with the same `sort`. Overrides `page`."
        ),
    )
    format = fields.String(
        load_default=ListFormat.JSON.value,
        validate=validate.OneOf([*ListFormat, ""]),
        **describe(
            "`json` for a page; `csv` or `ndjson` for all matching jobs as a file, without "
            "`page`, `per_page` and `cursor`."
        ),
    )

    @validates_schema(pass_original=True)
    def _check_combinations(
        self, query: dict[str, Any], given: Mapping[str, Any], **_: Any
    ) -> None:
        wrong = {}
        start, end = query["created_from"], query["created_to"]
        if start is not None and end is not None and end <= start:
            wrong["created_to"] = ["Must be later than created_from."]
        if query["job_id"] and len(query["job_id"]) < MIN_ID_PREFIX:
            wrong["job_id"] = [f"Must have at least {MIN_ID_PREFIX} characters."]
        if (cursor := query["cursor"]) is not None:
            made_by = cursor.oldest_first, cursor.by_next_run
            if made_by != (_is_oldest_first(query), query["sort"] == SOONEST_FIRST):
                wrong["cursor"] = ["Made by a list with another sort."]
        if query["format"] in (ListFormat.CSV, ListFormat.NDJSON):
            for name in ("page", "per_page", "cursor"):
                if given.get(name):
                    wrong[name] = [f"Cannot be combined with format={query['format']}."]
        wrong |= check_search(read_search(given))
        if wrong:
            raise ValidationError(wrong)

    @validates_schema
    def _check_window(self, query: dict[str, Any], **_: Any) -> None:
        """Refuse two windows of creation, and one that ends before it begins."""
        check_range(query)
        names = {"start": "from", "end": "to", "range": "range"}
        given = [name for key, name in names.items() if query[key]]
        if given and (query["created_from"] or query["created_to"]):
            message = "Cannot be combined with created_from and created_to."
            raise ValidationError({given[0]: [message]})
        if query["start"] and query["end"] and query["end"] <= query["start"]:
            raise ValidationError({"to": ["Must be later than `from`."]})
        if given and query["sort"] == SOONEST_FIRST:
            raise ValidationError({"sort": [f"nextRunAt cannot be combined with {given[0]}."]})

    @post_load(pass_original=True)
    def _make_query(self, query: dict[str, Any], given: Mapping[str, Any], **_: Any) -> ListQuery:
        condition = query.get("condition")
        return ListQuery(
            job_filter=JobFilter(
                statuses=tuple(filter(None, query["status"])),
                types=tuple(filter(None, query["type"])),
                owner=query.get("owner") or None,
                created_from=_find_start(query),
                created_to=query["created_to"] or query["end"],
                error_code=query.get("error_code") or None,
                worker=query.get("worker") or None,
                job_id=query["job_id"] or None,
                condition=JobCondition(condition) if condition else None,
                finished_from=query.get("finished_from"),
                finished_to=query.get("finished_to"),
                by_next_run=query["sort"] == SOONEST_FIRST,
                search=tuple(
                    SearchTerm(field=name, texts=tuple(texts))
                    for name, texts in read_search(given).items()
                ),
            ),
            oldest_first=_is_oldest_first(query),
            cursor=query["cursor"],
            page=query["page"],
            per_page=query["per_page"],
            format=ListFormat(query["format"] or ListFormat.JSON),
        )


def _find_start(query: dict[str, Any]) -> datetime | None:
    """The earliest creation time of the jobs."""
    start: datetime | None = query["created_from"] or query["start"]
    if query["range"]:
        return floor(datetime.now(UTC) - query["range"], MINUTE)
    return start


def _is_oldest_first(query: dict[str, Any]) -> bool:
    return query["sort"] in (OLDEST_FIRST, SOONEST_FIRST)


class ListParameters(_ListParameters):
    """The parameters of a list of all jobs."""

    owner = optional_text(
        "Jobs whose createdBy is exactly this text, as lists print it.", max_length=1_000
    )
    error_code = optional_text(
        "Jobs whose lastError has exactly this code. Cannot be combined with `owner`.",
        max_length=1_000,
    )
    worker = optional_text(
        "Jobs that the worker with exactly this name runs or ran, as far as the queue records it: "
        "those of its newest 200 attempts, and those whose leasedBy it is. Cannot be combined "
        "with `owner` and `error_code`.",
        max_length=1_000,
    )
    condition = fields.String(
        load_default=default_none,
        validate=validate.OneOf([*JobCondition, ""]),
        **describe(
            "`due`: waiting jobs that may be leased now, `scheduled`: waiting jobs that may not be "
            "leased before a time in the future, both in order of nextRunAt. `expired`: leased "
            "jobs whose lease has expired, in order of leaseExpiresAt.",
            nullable=True,
        ),
    )
    finished_from = OptionalDate(
        **describe(f"Jobs finished at this time or later, in order of finishedAt. {ISO}")
    )
    finished_to = OptionalDate(
        **describe(
            "Jobs finished before this time, which is after `finished_from`, in order of "
            f"finishedAt. {ISO}"
        )
    )

    @validates_schema
    def _require_index(self, query: dict[str, Any], **_: Any) -> None:
        """Refuse combinations of filters that no index serves."""
        by_value = [name for name in ("owner", "error_code", "worker") if query[name]]
        if len(by_value) > 1:
            raise ValidationError({by_value[1]: [f"Cannot be combined with {by_value[0]}."]})
        start, end = query["finished_from"], query["finished_to"]
        if start is not None and end is not None and end <= start:
            raise ValidationError({"finished_to": ["Must be later than finished_from."]})
        by_finish = [name for name in ("finished_from", "finished_to") if query[name]]
        by_date = [*(["condition"] if query["condition"] else []), *by_finish[:1]]
        others = [name for name in ("owner", "error_code", "worker", "job_id") if query[name]]
        if by_date and (others or len(by_date) > 1):
            other = (others or by_date[1:])[0]
            raise ValidationError({by_date[0]: [f"Cannot be combined with {other}."]})
        if query["sort"] == SOONEST_FIRST:
            unserved = (
                "owner",
                "error_code",
                "worker",
                "job_id",
                "finished_from",
                "finished_to",
                "created_from",
                "created_to",
            )
            if query["condition"] == JobCondition.EXPIRED:
                raise ValidationError({"sort": ["Expired leases have no order by nextRunAt."]})
            if others := [name for name in unserved if query[name]]:
                raise ValidationError({"sort": [f"nextRunAt cannot be combined with {others[0]}."]})


class OwnListParameters(_ListParameters):
    """The parameters of a list of the caller's own jobs."""

    @validates_schema(pass_original=True)
    def _refuse_admin_filters(self, _: dict[str, Any], given: Mapping[str, Any], **__: Any) -> None:
        admin_filters = (
            "owner",
            "error_code",
            "worker",
            "condition",
            "finished_from",
            "finished_to",
        )
        wrong = [name for name in admin_filters if given.get(name)]
        if given.get("sort") == SOONEST_FIRST:
            wrong.append("sort")
        if wrong:
            raise ValidationError({name: ["Only for the list of all jobs."] for name in wrong})
