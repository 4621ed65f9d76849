"""What callers may ask and what they get: the shapes of the contract, section 3.

Watched documents may hold anything in any field, so a field here never fails: what is missing
is null, what is of another type is shown as text.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bson.datetime_ms import DatetimeMS
from flask import current_app
from marshmallow import (
    EXCLUDE,
    Schema,
    ValidationError,
    fields,
    post_load,
    pre_dump,
    validate,
    validates_schema,
)

from jobmon.domain import Redactor
from jobmon.store.plain import aware, iso, plain, text


class _Text(fields.String):
    """A string or null."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        return None if value is None else text(value)


class _Instant(fields.String):
    """A date as ISO 8601 in UTC, or null; what is no date is shown as it stands."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        if isinstance(value, datetime | DatetimeMS):
            return iso(value)
        return None if value is None else text(value)


class _Number(fields.Raw):
    """A number or null."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> int | float | str | None:
        value = plain(value)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


class _Redacted(fields.Raw):
    """Any JSON, with the values of secret keys replaced."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return _redact(value)


class _Error(fields.Raw):
    """`{code, message, stack}` or null; the stack only where asked for."""

    def __init__(self, *, stack: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._parts = ("code", "message", "stack") if stack else ("code", "message")

    def _serialize(self, value: Any, *_: Any, **__: Any) -> dict[str, str | None] | None:
        if value is None:
            return None
        error = _redact(value)
        if not isinstance(error, dict):
            error = {"message": error}
        return {
            part: None if error.get(part) is None else text(error[part]) for part in self._parts
        }


def _redact(value: Any) -> Any:
    redactor: Redactor = current_app.extensions["jobmon_redactor"]
    return redactor.redact(plain(value))


class JobSummary(Schema):
    """A job in a list: no payload, no stack."""

    jobId = _Text(dump_default=None)
    type = _Text(dump_default=None)
    status = _Text(dump_default=None)
    priority = _Number(dump_default=None)
    createdBy = _Text(dump_default=None)
    createdAt = _Instant(dump_default=None)
    updatedAt = _Instant(dump_default=None)
    nextRunAt = _Instant(dump_default=None)
    maxAttempts = _Number(dump_default=None)
    attemptCount = _Number(dump_default=0)
    leasedBy = _Text(dump_default=None)
    leaseExpiresAt = _Instant(dump_default=None)
    finishedAt = _Instant(dump_default=None)
    lastError = _Error(stack=False, dump_default=None)


class Attempt(Schema):
    """One attempt at a job; `durationMs` is null while it runs.

    `waitMs` is from when it was due, where the writer keeps that as `eligibleAt`, to its start.
    """

    attemptNumber = _Number(dump_default=None)
    status = _Text(dump_default=None)
    workerId = _Text(dump_default=None)
    eligibleAt = _Instant(dump_default=None)
    startedAt = _Instant(dump_default=None)
    finishedAt = _Instant(dump_default=None)
    waitMs = _Number(dump_default=None)
    durationMs = _Number(dump_default=None)
    error = _Error(stack=True, dump_default=None)

    @pre_dump
    def _measure(self, attempt: dict[str, Any], **_: Any) -> dict[str, Any]:
        eligible, started = attempt.get("eligibleAt"), attempt.get("startedAt")
        wait = _between_ms(eligible, started)
        return {
            **attempt,
            "waitMs": None if wait is None else max(0, wait),
            "durationMs": _between_ms(started, attempt.get("finishedAt")),
        }


def _between_ms(start: Any, end: Any) -> int | None:
    if isinstance(start, datetime) and isinstance(end, datetime):
        return round((aware(end) - aware(start)).total_seconds() * 1_000)
    return None


class JobDetail(JobSummary):
    """A job with all that is known of it."""

    payload = _Redacted(dump_default=None)
    lastError = _Error(stack=True, dump_default=None)
    attempts = fields.List(fields.Nested(Attempt))


class _Moment(fields.AwareDateTime):
    """ISO 8601, UTC if unsaid; empty means none."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", default_timezone=UTC, load_default=None, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if value == "":
            return None
        try:
            return super()._deserialize(value, *args, **kwargs).astimezone(UTC)
        except OverflowError:
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE) from None


def _text_or_none(*, longest: int | None = None) -> fields.String:
    return fields.String(load_default=None, validate=validate.Length(max=longest))


MIN_ID_PREFIX = 4


class ListQuery(Schema):
    """How to ask for a list of jobs. A filter that is given but empty is no filter."""

    class Meta:
        unknown = EXCLUDE

    # 10 x 20 is as many combinations as MongoDB merges from an index without sorting.
    status = fields.List(
        fields.String(validate=validate.Length(max=200)),
        load_default=list,
        validate=validate.Length(max=10),
    )
    type = fields.List(
        fields.String(validate=validate.Length(max=200)),
        load_default=list,
        validate=validate.Length(max=20),
    )
    owner = _text_or_none(longest=1_000)
    created_from = _Moment()
    created_to = _Moment()
    error_code = _text_or_none(longest=1_000)
    job_id = _text_or_none()
    sort = fields.String(
        load_default="-createdAt", validate=validate.OneOf(["-createdAt", "createdAt", ""])
    )
    page = fields.Integer(load_default=1, validate=validate.Range(min=1))
    per_page = fields.Integer(load_default=20, validate=validate.Range(1, 100))
    cursor = fields.String(load_default="", validate=validate.Length(max=4_096))
    format = fields.String(
        load_default="json", validate=validate.OneOf(["json", "csv", "ndjson", ""])
    )

    @validates_schema(pass_original=True)
    def _goes_together(self, query: dict[str, Any], given: Mapping[str, Any], **_: Any) -> None:
        wrong = {}
        start, end = query["created_from"], query["created_to"]
        if start is not None and end is not None and end <= start:
            wrong["created_to"] = ["Not after created_from."]
        if query["job_id"] and len(query["job_id"]) < MIN_ID_PREFIX:
            wrong["job_id"] = [f"At least {MIN_ID_PREFIX} characters of the id are needed."]
        if query["error_code"] and query["owner"]:
            wrong["error_code"] = ["Cannot be combined with owner."]
        if query["format"] in ("csv", "ndjson"):
            for name in ("page", "per_page", "cursor"):
                if given.get(name):
                    wrong[name] = [f"An export has no pages: not with format={query['format']}."]
        if wrong:
            raise ValidationError(wrong)

    @post_load
    def _without_blanks(self, query: dict[str, Any], **_: Any) -> dict[str, Any]:
        """A form sends an empty choice as an empty string: no filter."""
        return (
            query
            | {name: tuple(filter(None, query[name])) for name in ("status", "type")}
            | {name: query[name] or None for name in ("owner", "error_code", "job_id")}
            | {"sort": query["sort"] or "-createdAt", "format": query["format"] or "json"}
        )


class OwnListQuery(ListQuery):
    """How to ask for a list of one's own jobs."""

    @validates_schema
    def _is_for_owners(self, query: dict[str, Any], **_: Any) -> None:
        wrong = [name for name in ("owner", "error_code") if query[name]]
        if wrong:
            raise ValidationError(
                {name: ["Only the admins' list can be so filtered."] for name in wrong}
            )


class ListMeta(Schema):
    """Where a page stands in its list; unless `total_is_exact`, `total` is at least so many."""

    page = fields.Integer()
    per_page = fields.Integer()
    total = fields.Integer()
    total_is_exact = fields.Boolean()
    total_pages = fields.Integer()
    next_cursor = fields.String(allow_none=True)
    prev_cursor = fields.String(allow_none=True)


class JobList(Schema):
    """A page of jobs."""

    meta = fields.Nested(ListMeta)
    data = fields.List(fields.Nested(JobSummary))


def _numbers(*, allow_none: bool = False) -> fields.Dict:
    """Numbers by the name of a status or a type."""
    return fields.Dict(keys=fields.String(), values=fields.Integer(), allow_none=allow_none)


class JobStats(Schema):
    """The figures of the queue, true at `asOf`.

    `source` is `rollup` (the collector's figures), `live` (counted now) or `estimate`: counting
    took too long, `totalJobs` is the metadata's count, and what would have been counted is null.
    """

    totalJobs = fields.Integer()
    statusCounts = _numbers(allow_none=True)
    typeCounts = fields.Dict(keys=fields.String(), values=_numbers(), allow_none=True)
    oldestQueuedJobAgeMs = fields.Integer()
    oldestQueuedJobAgeMsByType = _numbers()
    expiredLeases = fields.Integer()
    eligibleJobs = fields.Integer(allow_none=True)
    scheduledJobs = fields.Integer()
    estimatedTotalJobs = fields.Integer()
    asOf = _Instant()
    source = fields.String()


class WindowQuery(Schema):
    """Which time: from `from` to before `to`, the last hour by default; ISO 8601, UTC if unsaid."""

    class Meta:
        unknown = EXCLUDE

    start = fields.AwareDateTime(data_key="from", format="iso", default_timezone=UTC)
    end = fields.AwareDateTime(data_key="to", format="iso", default_timezone=UTC)


class SeriesQuery(WindowQuery):
    """Which time, in steps of how many seconds, and of which types of jobs: all by default."""

    step = fields.Integer(validate=validate.Range(60, 7 * 86_400))
    type = fields.List(
        fields.String(validate=validate.Length(max=200)),
        load_default=list,
        validate=validate.Length(max=20),
    )


class Percentiles(Schema):
    """Durations in ms, within 4 %; null where there was none."""

    p50 = fields.Integer(allow_none=True)
    p95 = fields.Integer(allow_none=True)
    p99 = fields.Integer(allow_none=True)


class Happened(Schema):
    """What happened in some time. `failed` attempts include those whose lease expired."""

    enqueued = fields.Integer()
    succeeded = fields.Integer()
    failed = fields.Integer()
    dlq = fields.Integer()
    failureRate = fields.Float(allow_none=True)
    waitMs = fields.Nested(Percentiles)
    runMs = fields.Nested(Percentiles)


class Step(Happened):
    """What happened from `at` on, for a step, and how the whole queue stood at its end.

    The latter is null where no collector looked, and where only some types are asked for.
    """

    at = _Instant()
    statusCounts = _numbers(allow_none=True)
    oldestQueuedJobAgeMs = fields.Integer(allow_none=True)


class TypeFigures(Happened):
    """A type of job: what happened to it, and its jobs by status now (null if not known)."""

    type = fields.String()
    statusCounts = _numbers(allow_none=True)
    finishedPerMinute = fields.Float()


class WindowMeta(Schema):
    """Which time an answer is about, how far it is known, and how it was come by."""

    start = _Instant(data_key="from")
    end = _Instant(data_key="to")
    step = fields.Integer()
    asOf = _Instant()
    source = fields.String()


class Series(Schema):
    """What happened, step by step."""

    meta = fields.Nested(WindowMeta)
    data = fields.List(fields.Nested(Step))


class TypeList(Schema):
    """What happened, type by type."""

    meta = fields.Nested(WindowMeta)
    data = fields.List(fields.Nested(TypeFigures))


class Health(Schema):
    """Alive, or ready with what was checked."""

    status = fields.String()
    checks = fields.Dict(keys=fields.String())
