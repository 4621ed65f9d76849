"""Checks the bodies and parameters of requests about actions, and makes typed objects of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from jobmon.actions.catalog import ACTIONS, RequestError
from jobmon.actions.records import RequestCursor, Result
from jobmon.actions.request import ID_FORM, MAX_JOBS, MAX_PRIORITY, MAX_REASON_LENGTH
from jobmon.actions.requests import RequestConflictError
from jobmon.actions.target import MAX_ID_LENGTH, MAX_IDS, MAX_TYPES, Target
from jobmon.api.body import Body
from jobmon.api.fields import EncodedCursor, IsoDate, default_none, describe
from jobmon.api.parameters import Parameters, optional_text, page_size_field
from jobmon.api.queries import (
    LIST_PARAMETERS,
    NON_FILTERS,
    REPEATABLE,
    ListFormat,
    find_page_mistakes,
    format_field,
    load_list_query,
)
from jobmon.api.search import is_search
from jobmon.domain import JobAction
from jobmon.store.bson_json import to_iso
from jobmon.store.filter import RefusedFilterError
from jobmon.web.errors import ApiError, invalid

# `undo` has a route of its own.
_REQUESTABLE = tuple(name for name in ACTIONS if name != JobAction.UNDO)
# The public names of fields that `jobmon.actions` names differently.
_FIELD_NAMES = {
    "run_at": "runAt",
    "reset_attempts": "isReset",
    "type": "types",
    "after": "cursor",
    "idempotency_key": "Idempotency-Key",
}


@dataclass(frozen=True, kw_only=True)
class ActionOrder:
    """An action that a caller requests; `expected`: the confirmed number of jobs, None if unset."""

    action: str
    target: Target
    expected: int | None = None
    reason: str = ""
    run_at: datetime | None = None
    priority: int | None = None
    reset_attempts: bool = False
    dry_run: bool = False

    @property
    def value(self) -> datetime | int | None:
        """The new time or priority; None for other actions."""
        return self.priority if self.run_at is None else self.run_at


class _Flag(fields.Boolean):
    """JSON's true or false; a text or a number is refused."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class _WholeNumber(fields.Integer):
    """A JSON number without a fraction; `5.0` is 5. A text is refused."""

    def _validated(self, value: Any) -> Any:
        is_whole = type(value) is int or (type(value) is float and value.is_integer())
        if not is_whole:
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class _ListFilter(fields.Field[dict[str, Any]]):
    """The filters of `GET /admin/jobs/queue` by name."""

    json_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "additionalProperties": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
        },
    }

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError("Must be an object.")
        return {name: _read_values(name, content) for name, content in value.items()}


def _read_values(name: str, content: Any) -> Any:
    """The value of a filter: a list of texts if it may have several values, otherwise a text.

    Raises ValidationError for an unknown filter, a value that is not a text, no value or an empty
    one, and several values of a filter that needs one.
    """
    # Nothing must be ignored: the action would change more jobs than the caller meant.
    if name in NON_FILTERS or (name not in LIST_PARAMETERS and not is_search(name)):
        raise ValidationError(f"There is no filter {name[:100]}.")
    values = content if isinstance(content, list) else [content]
    if any(not isinstance(text, str) for text in values):
        raise ValidationError(f"The values of {name[:100]} must be texts.")
    if not all(values or [""]):
        raise ValidationError(f"{name[:100]} has no value: leave it out for jobs with any value.")
    if name in REPEATABLE or is_search(name):
        return values
    if len(values) != 1:
        raise ValidationError(f"{name} must have exactly one value.")
    return values[0]


def _reason_field(when_required: str = "") -> fields.String:
    """The field `reason` of a body; `when_required`: a sentence, empty if it is optional."""
    description = f"Why, for the records; secrets are replaced. {when_required}"
    return fields.String(
        load_default="",
        validate=validate.Length(max=MAX_REASON_LENGTH),
        **describe(description.strip()),
    )


class ActionBody(Body):
    """An action, and the jobs or types to change: exactly one of `ids`, `filter` and `types`."""

    action = fields.String(
        required=True,
        validate=validate.OneOf(_REQUESTABLE),
        **describe("The action."),
    )
    ids = fields.List(
        fields.String(validate=validate.Length(1, MAX_ID_LENGTH)),
        validate=validate.Length(1, MAX_IDS),
        **describe("Ids of jobs, as lists print them."),
    )
    filter = _ListFilter(
        **describe(
            "The filters of `GET /admin/jobs/queue` by name. Of the jobs that match, those with a "
            "suitable status are changed. Parameters for pages and order, and empty values, are "
            "refused."
        )
    )
    types = fields.List(
        fields.String(validate=validate.Length(1, MAX_ID_LENGTH)),
        validate=validate.Length(1, MAX_TYPES),
        **describe("Types of jobs, for `pause_type` and `resume_type`."),
    )
    expected = _WholeNumber(
        load_default=default_none,
        validate=validate.Range(0, MAX_JOBS),
        **describe(
            "Required with a filter: the `count` of the preview that was confirmed. The request "
            "changes at most 10 % or 10 jobs more than this, whichever is more. If still more jobs "
            "match, it is paused."
        ),
    )
    reason = _reason_field("Required unless it is a dry run, or for a single id or type.")
    run_at = IsoDate(
        data_key="runAt",
        load_default=default_none,
        **describe("For `reschedule`: the new time."),
    )
    priority = _WholeNumber(
        load_default=default_none,
        validate=validate.Range(-MAX_PRIORITY, MAX_PRIORITY),
        **describe("For `prioritize`: the new priority."),
    )
    reset_attempts = _Flag(
        data_key="isReset",
        load_default=False,
        **describe(
            "For `retry`: each job gets its original number of attempts, not only its remaining "
            "attempts."
        ),
    )
    dry_run = _Flag(
        data_key="isDryRun",
        load_default=False,
        **describe("Record what would be done, and change nothing."),
    )

    @post_load
    def _make_order(self, values: dict[str, Any], **_: Any) -> ActionOrder:
        ids, types = values.pop("ids", ()), values.pop("types", ())
        job_filter = values.pop("filter", None)
        if job_filter is not None:
            try:
                job_filter = load_list_query(job_filter, None).job_filter
            except ValidationError as error:
                raise ValidationError(
                    {f"filter.{name}": messages for name, messages in error.messages_dict.items()}
                ) from None
        with explain_request_errors():
            target = Target(job_ids=tuple(ids), job_filter=job_filter, types=tuple(types))
        return ActionOrder(target=target, **values)


class OwnActionBody(Body):
    """An action on one job; the job's id is a query parameter."""

    action = fields.String(
        required=True, validate=validate.OneOf(_REQUESTABLE), **describe("The action.")
    )
    reason = _reason_field()
    reset_attempts = _Flag(
        data_key="isReset",
        load_default=False,
        **describe("For `retry`: as `isReset` of `POST /admin/actions`."),
    )


class UndoBody(Body):
    """Why an earlier request is to be undone."""

    reason = _reason_field("Required, except in a dry run.")
    dry_run = _Flag(
        data_key="isDryRun",
        load_default=False,
        **describe("Record what would be done, and change nothing."),
    )


class DecisionBody(Body):
    """The reason of a decision."""

    is_required = False

    reason = _reason_field()


def describe_record_id(name: str, description: str, example: object) -> dict[str, Any]:
    """The OpenAPI parameter for the id of a record in a path."""
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string", "minLength": 20, "maxLength": 20},
        "example": example,
    }


class _CursorField(EncodedCursor):
    """A cursor that has the time and the id of the last request of a page."""

    max_length = 60
    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "maxLength": max_length}

    def decode(self, encoded: str) -> RequestCursor:
        time, _, request_id = encoded.partition("_")
        moment = datetime.fromisoformat(time)
        if moment.tzinfo is None or not ID_FORM.fullmatch(request_id):
            raise ValueError
        return RequestCursor(moment.astimezone(UTC), request_id)


def encode_cursor(cursor: RequestCursor) -> str:
    """The cursor of the page that begins after a request."""
    return f"{to_iso(cursor.at)}_{cursor.request_id}"


class _PageParameters(Parameters):
    """The parameters that choose a page of a list, or a file of the whole list."""

    @validates_schema(pass_original=True)
    def _check_page(self, query: dict[str, Any], sent: Mapping[str, Any], **_: Any) -> None:
        if mistakes := find_page_mistakes(query, sent):
            raise ValidationError(dict(mistakes))


@dataclass(frozen=True, kw_only=True)
class RequestListQuery:
    """A page of requests, the newest first, after the request `before`; or a file of all."""

    before: RequestCursor | None = None
    per_page: int = 20
    format: ListFormat = ListFormat.JSON


class RequestListParameters(_PageParameters):
    """The parameters that choose a page of the requests, or a file of all."""

    per_page = page_size_field("Requests")
    cursor = _CursorField(load_default=default_none, **describe("The `next_cursor` of a page."))
    format = format_field("requests", "`per_page` and `cursor`")

    @post_load
    def _make_query(self, query: dict[str, Any], **_: Any) -> RequestListQuery:
        return RequestListQuery(
            before=query["cursor"],
            per_page=query["per_page"],
            format=ListFormat(query["format"] or ListFormat.JSON),
        )


@dataclass(frozen=True, kw_only=True)
class OutcomeQuery:
    """A page of outcomes (the first ones, or those after a cursor), or a file of all."""

    after: str | None = None
    result: Result | None = None
    per_page: int = 100
    format: ListFormat = ListFormat.JSON


class OutcomeParameters(_PageParameters):
    """The parameters that choose outcomes of a request."""

    result = fields.String(
        load_default=default_none,
        validate=validate.OneOf([*Result, ""]),
        **describe("Only outcomes with this result; `possible` occurs only in a dry run."),
    )
    per_page = page_size_field("Outcomes", default=100, largest=1_000)
    cursor = optional_text("The `next_cursor` of a page.", max_length=4_096)
    format = format_field("outcomes", "`per_page` and `cursor`")

    @post_load
    def _make_query(self, query: dict[str, Any], **_: Any) -> OutcomeQuery:
        return OutcomeQuery(
            after=query["cursor"] or None,
            result=Result(query["result"]) if query["result"] else None,
            per_page=query["per_page"],
            format=ListFormat(query["format"] or ListFormat.JSON),
        )


@contextmanager
def explain_request_errors() -> Iterator[None]:
    """Turn the errors of a request into ApiErrors: 422 with the field, 409 for a conflict."""
    try:
        yield
    except RequestError as error:
        raise invalid(_FIELD_NAMES.get(error.field, error.field), str(error)) from None
    except RefusedFilterError as error:
        raise invalid(f"filter.{error.parameter}", str(error)) from None
    except RequestConflictError as error:
        raise ApiError(HTTPStatus.CONFLICT, "conflict", str(error)) from None
