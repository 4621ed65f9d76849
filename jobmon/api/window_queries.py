"""Query parameters of routes about a window of time; each schema makes one typed object."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from jobmon.api.fields import (
    OptionalDate,
    PlainInteger,
    SortCursor,
    default_none,
    describe,
)
from jobmon.api.parameters import (
    ISO,
    Parameters,
    check_range,
    optional_text,
    page_size_field,
    range_field,
    repeatable_field,
)
from jobmon.diagnosis.error_groups import SORTS, SortKey
from jobmon.diagnosis.error_kinds import GroupStatus
from jobmon.rollup.buckets import HOUR
from jobmon.store.labels import MAX_LABEL_LENGTH


@dataclass(frozen=True, kw_only=True)
class WindowQuery:
    """A request for a time window (aware datetimes), in steps of `step` seconds and for `types`.

    Without `end` the window ends now, without `start` it has this `length`, without `step` it gets
    a suitable step, and without types it is for all types.
    """

    start: datetime | None = None
    end: datetime | None = None
    length: timedelta = HOUR
    step: int | None = None
    types: tuple[str, ...] = ()


class WindowParameters(Parameters):
    """A time window: `from` <= time < `to`, or a `range` until now; by default an hour."""

    start = OptionalDate(
        data_key="from",
        **describe(
            "Start of the window; by default one hour before `to`. It cannot begin before the "
            f"retained history: see `meta.no_data_before`. {ISO}"
        ),
    )
    end = OptionalDate(
        data_key="to",
        **describe(f"End of the window, exclusive; by default now. {ISO}"),
    )
    range = range_field("Length of a window that ends now.")

    @validates_schema
    def _check_range(self, query: dict[str, Any], **_: Any) -> None:
        check_range(query)

    @post_load
    def _make_query(self, query: dict[str, Any], **_: Any) -> WindowQuery:
        return WindowQuery(
            start=query["start"],
            end=query["end"],
            length=query["range"] or HOUR,
            step=query.get("step"),
            types=tuple(sorted({*query.get("type", ())} - {""})),
        )


class TypeWindowParameters(WindowParameters):
    """A time window, for some types of jobs; by default for all."""

    type = repeatable_field("Jobs of this type", 20)


class TimeSeriesParameters(TypeWindowParameters):
    """A time window in steps, for some types of jobs; by default for all."""

    step = PlainInteger(
        validate=validate.Range(60, 7 * 86_400),
        **describe(
            "Length of a step in seconds, a multiple of 60. The default is the shortest of some "
            "fixed lengths that gives at most 168 steps and is still stored at `from`: older "
            "history has only longer steps."
        ),
    )


@dataclass(frozen=True, kw_only=True)
class ErrorQuery(WindowQuery):
    """A request for the groups of errors in a window; `after` is the decoded cursor."""

    worker: str | None = None
    statuses: frozenset[GroupStatus] = frozenset()
    sort: str = "-count"
    after: SortKey | None = None
    per_page: int = 20


class ErrorGroupParameters(WindowParameters):
    """A group of errors in a window; by default in the last hour."""

    type = repeatable_field("Errors of jobs of this type", 20)

    @post_load
    def _make_query(self, query: dict[str, Any], **_: Any) -> ErrorQuery:
        window = super()._make_query(query)
        return ErrorQuery(
            **vars(window),
            worker=query.get("worker") or None,
            statuses=frozenset(map(GroupStatus, filter(None, query.get("status", ())))),
            sort=query.get("sort") or "-count",
            after=query.get("cursor"),
            per_page=query.get("per_page", 20),
        )


class ErrorListParameters(ErrorGroupParameters):
    """The groups of errors in a window; by default in the last hour."""

    worker = optional_text(
        "Errors of runs of the worker with exactly this name. Cannot be combined with `type`.",
        max_length=MAX_LABEL_LENGTH + 1,  # the label of a longer name ends in `…`
    )
    status = fields.List(
        fields.String(validate=validate.OneOf([*GroupStatus, ""])),
        load_default=list,
        **describe("Groups with this status. Repeat it to match any of several statuses."),
    )
    sort = fields.String(
        load_default="-count",
        validate=validate.OneOf([*(sign + name for name in SORTS for sign in ("-", "")), ""]),
        **describe("The field to sort by, with a leading `-` in descending order."),
    )
    per_page = page_size_field("Groups")
    cursor = SortCursor(
        load_default=default_none,
        **describe(
            "The `next_cursor` of a list. Send it with the same parameters as for that list, and "
            "with the `from` and `to` of its `meta`."
        ),
    )

    @validates_schema
    def _check_combinations(self, query: dict[str, Any], **_: Any) -> None:
        if query.get("worker") and any(query["type"]):
            raise ValidationError({"worker": ["Cannot be combined with type."]})
