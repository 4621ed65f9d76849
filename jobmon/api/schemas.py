"""What callers may ask and what they get: the shapes of the contract, section 3.

Watched documents may hold anything in any field, so a field here never fails: what is missing
is null, what is of another type is shown as text. `json_schema` is what a field's answers always
are, for the documentation, where its marshmallow type does not say it.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from bson import DBRef
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
from webargs.multidictproxy import MultiDictProxy

from jobmon.domain import JobCondition
from jobmon.redaction import Redactor
from jobmon.store.bson_json import to_iso, to_json, to_text, to_utc
from jobmon.store.labels import MAX_LABEL_LENGTH


def _doc(description: str, **more: Any) -> dict[str, Any]:
    """What the documentation says of a field."""
    return {"metadata": {"description": description, **more}}


class _Text(fields.String):
    """A string or null."""

    json_schema: ClassVar[dict[str, Any]] = {"type": ["string", "null"]}

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        return _told(value)


class _FreeText(_Text):
    """A string or null that is no name to find a job by, so that secrets in it are replaced."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        return None if value is None else to_text(_redact(value))


class _Instant(fields.String):
    """A date as ISO 8601 in UTC, or null; what is no date is shown as it stands."""

    # No `format`: a document may hold text, or a year of five digits, where a date belongs.
    json_schema: ClassVar[dict[str, Any]] = {"type": ["string", "null"]}

    def _serialize(self, value: Any, *_: Any, **__: Any) -> str | None:
        if isinstance(value, datetime | DatetimeMS):
            return to_iso(value)
        return None if value is None else to_text(_redact(value))


class _Moment(_Instant):
    """A date of our own making: always there and always one."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "string", "format": "date-time"}


class _Number(fields.Raw):
    """A number or null."""

    json_schema: ClassVar[dict[str, Any]] = {"type": ["number", "null"]}

    def _serialize(self, value: Any, *_: Any, **__: Any) -> int | float | str | None:
        value = to_json(value)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


class _Redacted(fields.Raw):
    """Any JSON, with the values of secret keys replaced."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return _redact(value)


class _Count(_Number):
    """A number of attempts, which the store makes sure of."""

    json_schema: ClassVar[dict[str, Any]] = {"type": "integer"}


class _Error(fields.Raw):
    """`{code, message, stack}` or null; the stack only where asked for."""

    def __init__(self, *, stack: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._parts = ("code", "message", "stack") if stack else ("code", "message")
        shape = AttemptError if stack else JobError
        reference = {"$ref": f"#/components/schemas/{shape.__name__}"}
        self.json_schema = {"anyOf": [reference, {"type": "null"}]}

    def _serialize(self, value: Any, *_: Any, **__: Any) -> dict[str, str | None] | None:
        if value is None:
            return None
        error = _redact(value)
        if not isinstance(error, dict):
            error = {"message": error}
        return {
            part: None if error.get(part) is None else to_text(error[part]) for part in self._parts
        }


def _told(value: Any) -> str | None:
    """`value` as text, without the secrets of a document that stands where a word belongs."""
    if value is None or type(value) is str:  # what nearly every field holds
        return value
    return to_text(_redact(value) if isinstance(value, dict | list | DBRef) else value)


def _redact(value: Any) -> Any:
    redactor: Redactor = current_app.extensions["jobmon_redactor"]
    return redactor.redact(to_json(value))


class Answer(Schema):
    """Something that is answered: it has all of its fields, whatever they hold.

    But for those whose metadata say `optional`. Other fields may join them one day.
    """

    class Meta:
        unknown = EXCLUDE

    def on_bind_field(self, _: str, field_obj: fields.Field[Any]) -> None:
        field_obj.required = not field_obj.metadata.get("optional", False)


class JobError(Answer):
    """What went wrong, without the stack."""

    code = _Text(**_doc("What kind of error, in a word."))
    message = _Text(**_doc("What went wrong, in words."))


class AttemptError(JobError):
    """What went wrong, with the stack."""

    stack = _Text(**_doc("Where it went wrong."))


class JobSummary(Answer):
    """A job in a list: no payload, no stack."""

    jobId = _Text(dump_default=None, **_doc("Public id of the job."))
    type = _Text(dump_default=None, **_doc("What kind of work."))
    status = _Text(
        dump_default=None,
        **_doc(
            "queued, leased, succeeded, failed (a retry is due at nextRunAt), dlq (given up), "
            "cancelled; or whatever else the document says."
        ),
    )
    priority = _Number(dump_default=None, **_doc("Higher first."))
    createdBy = _Text(dump_default=None, **_doc("Owner: the `sub` of whoever enqueued it."))
    createdAt = _Instant(
        dump_default=None,
        **_doc(
            "When it was enqueued. ISO 8601 in UTC if it is a date, else what stands there as text."
        ),
    )
    updatedAt = _Instant(dump_default=None, **_doc("When it changed last."))
    nextRunAt = _Instant(dump_default=None, **_doc("Not to be leased before this."))
    maxAttempts = _Number(dump_default=None, **_doc("How many attempts are allowed."))
    attemptCount = _Count(dump_default=0, **_doc("How many attempts were started."))
    leasedBy = _FreeText(dump_default=None, **_doc("The worker that holds it."))
    leaseExpiresAt = _Instant(dump_default=None, **_doc("Until when it is held."))
    finishedAt = _Instant(dump_default=None, **_doc("When it became succeeded, dlq or cancelled."))
    lastError = _Error(
        stack=False,
        dump_default=None,
        **_doc("Error of the newest failed attempt, without its stack."),
    )


class Attempt(Answer):
    """One attempt at a job; `durationMs` is null while it runs.

    `waitMs` is from when it was due, where the writer keeps that as `eligibleAt`, to its start.
    """

    attemptNumber = _Number(dump_default=None, **_doc("1, 2, …"))
    status = _Text(
        dump_default=None,
        **_doc("How it ended: succeeded, failed, expired (its lease ran out); or running."),
    )
    workerId = _FreeText(dump_default=None, **_doc("Who worked at it."))
    eligibleAt = _Instant(
        dump_default=None,
        **_doc("When it became due, where the writer keeps that."),
    )
    startedAt = _Instant(dump_default=None, **_doc("When it began."))
    finishedAt = _Instant(dump_default=None, **_doc("When it ended; null while it runs."))
    waitMs = _Number(dump_default=None, **_doc("Milliseconds from eligibleAt to startedAt."))
    durationMs = _Number(dump_default=None, **_doc("Milliseconds from startedAt to finishedAt."))
    error = _Error(stack=True, dump_default=None, **_doc("What went wrong."))

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
        return round((to_utc(end) - to_utc(start)).total_seconds() * 1_000)
    return None


class JobDetail(JobSummary):
    """A job with all that is known of it."""

    payload = _Redacted(
        dump_default=None,
        **_doc("The input, of any shape; values of keys that look secret are `[redacted]`."),
    )
    lastError = _Error(
        stack=True,
        dump_default=None,
        **_doc("Error of the newest failed attempt."),
    )
    attempts = fields.List(
        fields.Nested(Attempt),
        **_doc("Its attempts in order of attemptNumber, the newest 1,000 at most."),
    )


class _Query(Schema):
    """Parameters of an address. What is not known is ignored; only a list may be repeated."""

    class Meta:
        unknown = EXCLUDE

    @validates_schema(pass_original=True)
    def _is_said_once(self, _: dict[str, Any], given: Mapping[str, Any], **__: Any) -> None:
        if not isinstance(given, MultiDictProxy):
            return
        names = (
            field.data_key or name
            for name, field in self.fields.items()
            if not isinstance(field, fields.List)
        )
        wrong = [name for name in names if len(given.getlist(name)) > 1]
        if wrong:
            raise ValidationError({name: ["Given more than once."] for name in wrong})


class _Whole(fields.Integer):
    """A whole number in plain digits: not all that Python reads as one, like `1_0`."""

    def _validated(self, value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch("-?[0-9]+", value):
            raise self.make_error("invalid", input=value)
        return super()._validated(value)


class Since(fields.AwareDateTime):
    """ISO 8601, UTC if unsaid; empty means none."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", default_timezone=UTC, load_default=_none, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if value == "":
            return None
        try:
            return super()._deserialize(value, *args, **kwargs).astimezone(UTC)
        except OverflowError:
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE) from None


def _none() -> None:
    """What is not asked for. A default that is called is none that documentation would show."""


def _text_or_none(description: str, *, longest: int | None = None) -> fields.String:
    return fields.String(
        load_default=_none,
        validate=validate.Length(max=longest) if longest else None,
        **_doc(description),
    )


def _any_of(what: str, most: int) -> fields.List[Any]:
    return fields.List(
        fields.String(validate=validate.Length(max=MAX_LABEL_LENGTH)),
        load_default=list,
        validate=validate.Length(max=most),
        **_doc(
            f"{what}; may be repeated: any of them. As it is counted: `null` means missing or "
            'null, the text null is `"null"` and the empty one `""`, in quotes.'
        ),
    )


class JobQuery(_Query):
    """Which job, by its id in full."""

    id = fields.String(
        required=True,
        **_doc("The job's id as lists print it."),
    )


MIN_ID_PREFIX = 4


class _AnyListQuery(_Query):
    """How to ask for a list of jobs. A filter that is given but empty is no filter."""

    # 10 x 20 is as many combinations as MongoDB merges from an index without sorting.
    status = _any_of("Jobs with this status", 10)
    type = _any_of("Jobs of this type", 20)
    created_from = Since(**_doc("Created then or later. ISO 8601, UTC if unsaid."))
    created_to = Since(**_doc("Created before then; after `created_from`. ISO 8601."))
    job_id = _text_or_none(
        f"How the id begins: {MIN_ID_PREFIX} characters or more; 1,000 jobs at most may match."
    )
    sort = fields.String(
        load_default="-createdAt",
        validate=validate.OneOf(["-createdAt", "createdAt", ""]),
        **_doc("Newest first (`-createdAt`, or empty), or oldest first."),
    )
    page = _Whole(
        load_default=1,
        validate=validate.Range(min=1),
        **_doc("Which page; far pages cost more than `cursor` does."),
    )
    per_page = _Whole(
        load_default=20,
        validate=validate.Range(1, 100),
        **_doc("How many jobs a page has."),
    )
    cursor = fields.String(
        load_default="",
        validate=validate.Length(max=4_096),
        **_doc("A list's `next_cursor` or `prev_cursor`, under the same `sort`; overrides `page`."),
    )
    format = fields.String(
        load_default="json",
        validate=validate.OneOf(["json", "csv", "ndjson", ""]),
        **_doc(
            "A page as JSON, or all that matches as a file; the latter without "
            "`page`, `per_page` and `cursor`."
        ),
    )

    @validates_schema(pass_original=True)
    def _goes_together(self, query: dict[str, Any], given: Mapping[str, Any], **_: Any) -> None:
        wrong = {}
        start, end = query["created_from"], query["created_to"]
        if start is not None and end is not None and end <= start:
            wrong["created_to"] = ["Not after created_from."]
        if query["job_id"] and len(query["job_id"]) < MIN_ID_PREFIX:
            wrong["job_id"] = [f"At least {MIN_ID_PREFIX} characters of the id are needed."]
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
            | {
                name: query.get(name) or None
                for name in ("owner", "error_code", "job_id", "condition")
            }
            | {"sort": query["sort"] or "-createdAt", "format": query["format"] or "json"}
        )


class ListQuery(_AnyListQuery):
    """How to ask for a list of anybody's jobs."""

    owner = _text_or_none("Whose jobs: createdBy is printed as exactly that.", longest=1_000)
    error_code = _text_or_none(
        "The code of lastError is exactly that; not together with `owner`.", longest=1_000
    )
    condition = fields.String(
        load_default=_none,
        allow_none=True,
        validate=validate.OneOf([*JobCondition, ""]),
        **_doc(
            "`due` jobs wait and may be leased now, `expired` ones are leased beyond the end "
            "of their lease. Ordered by nextRunAt, leaseExpiresAt."
        ),
    )
    finished_from = Since(
        **_doc("Finished then or later. Ordered by finishedAt. ISO 8601, UTC if unsaid.")
    )

    @validates_schema
    def _has_an_index(self, query: dict[str, Any], **_: Any) -> None:
        if query["error_code"] and query["owner"]:
            raise ValidationError({"error_code": ["Cannot be combined with owner."]})
        by_date = [name for name in ("condition", "finished_from") if query[name]]
        others = [name for name in ("owner", "error_code", "job_id") if query[name]]
        if by_date and (others or len(by_date) > 1):
            other = (others or by_date[1:])[0]
            raise ValidationError({by_date[0]: [f"Cannot be combined with {other}."]})


class OwnListQuery(_AnyListQuery):
    """How to ask for a list of one's own jobs."""

    @validates_schema(pass_original=True)
    def _is_for_owners(self, _: dict[str, Any], given: Mapping[str, Any], **__: Any) -> None:
        admins = ("owner", "error_code", "condition", "finished_from")
        wrong = [name for name in admins if given.get(name)]
        if wrong:
            raise ValidationError(
                {name: ["Only the admins' list can be so filtered."] for name in wrong}
            )


class ListMeta(Answer):
    """Where a page stands in its list; unless `total_is_exact`, `total` is at least so many."""

    page = fields.Integer(**_doc("Which page this is, counted from 1."))
    per_page = fields.Integer(**_doc("How many jobs a page has at most."))
    total = fields.Integer(**_doc("How many jobs match; at least so many, unless total_is_exact."))
    total_is_exact = fields.Boolean(**_doc("Whether total is exact."))
    total_pages = fields.Integer(**_doc("How many pages total makes."))
    next_cursor = fields.String(
        allow_none=True,
        **_doc("Passed as `cursor`, gives the next page; null on the last."),
    )
    prev_cursor = fields.String(
        allow_none=True,
        **_doc("Passed as `cursor`, gives the page before; null on the first."),
    )


class JobList(Answer):
    """A page of jobs."""

    meta = fields.Nested(ListMeta, **_doc("Where the page stands in the list."))
    data = fields.List(fields.Nested(JobSummary), **_doc("The jobs, in the order of `sort`."))


def _numbers(*, allow_none: bool = False, **kwargs: Any) -> fields.Dict:
    """Numbers by the name of a status or a type."""
    values = fields.Integer()
    return fields.Dict(keys=fields.String(), values=values, allow_none=allow_none, **kwargs)


class JobStats(Answer):
    """The figures of the queue, true at `asOf`.

    `source` is `rollup` (the collector's figures), `live` (counted now) or `estimate`: counting
    took too long, `totalJobs` is the metadata's count, and what would have been counted is null.
    """

    totalJobs = fields.Integer(**_doc("All jobs; the sum of statusCounts where these are known."))
    statusCounts = _numbers(
        allow_none=True,
        **_doc(
            "By status: the six known ones always, every other that occurs; beyond 100 the rest "
            "are `(other)`. Null in an estimate."
        ),
    )
    typeCounts = fields.Dict(
        keys=fields.String(),
        values=_numbers(),
        allow_none=True,
        **_doc(
            "Jobs by type, then by status; beyond 500 types the rest are `(other)`. Null in an "
            "estimate."
        ),
    )
    oldestQueuedJobAgeMs = fields.Integer(
        allow_none=True,
        **_doc("Age of the oldest queued job in ms; 0 when none is, null where it is unknown."),
    )
    oldestQueuedJobAgeMsByType = _numbers(**_doc("The same for each type where it is known."))
    expiredLeases = fields.Integer(
        allow_none=True,
        **_doc("Leased jobs whose lease has run out; no more than 500,000 are counted."),
    )
    eligibleJobs = fields.Integer(
        allow_none=True,
        **_doc(
            "Waiting jobs that are due. Null in an estimate, where none tells when it is, and "
            "where 500,000 and more are due and as many are to come."
        ),
    )
    scheduledJobs = fields.Integer(
        allow_none=True,
        **_doc(
            "Waiting jobs whose nextRunAt is to come. Null where no date says so, and where these "
            "are 500,000 and more and as many are due."
        ),
    )
    estimatedTotalJobs = fields.Integer(**_doc("What the collection's metadata says."))
    reasons = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        **_doc(
            "Why a figure above is null, by its name; a number whose name is here is a lower bound."
        ),
    )
    asOf = _Moment(**_doc("The moment that the figures are true of."))
    source = fields.String(
        **_doc(
            "Kept by the collector, counted now, or the total from metadata.",
            enum=["rollup", "live", "estimate"],
        )
    )


class WindowQuery(_Query):
    """Which time: from `from` to before `to`, the last hour by default; ISO 8601, UTC if unsaid."""

    start = fields.AwareDateTime(
        data_key="from",
        format="iso",
        default_timezone=UTC,
        **_doc("From then on. ISO 8601, UTC if unsaid; an hour before `to`."),
    )
    end = fields.AwareDateTime(
        data_key="to",
        format="iso",
        default_timezone=UTC,
        **_doc("Until before then; now by default. ISO 8601, UTC if unsaid."),
    )


class TimeSeriesQuery(WindowQuery):
    """Which time, in steps of how many seconds, and of which types of jobs: all by default."""

    step = _Whole(
        validate=validate.Range(60, 7 * 86_400),
        **_doc(
            "Seconds, a multiple of 60; by default the smallest that gives at most 168 steps and "
            "is kept at `from`. Older times are kept in larger steps only."
        ),
    )
    type = _any_of("Jobs of this type", 20)


class Percentiles(Answer):
    """Durations in ms, within 4 %; null where there was none."""

    p50 = fields.Integer(allow_none=True, **_doc("Half took at most so many ms."))
    p95 = fields.Integer(allow_none=True, **_doc("95 % took at most so many ms."))
    p99 = fields.Integer(allow_none=True, **_doc("99 % took at most so many ms."))


class Activity(Answer):
    """What happened in some time. `failed` attempts include those whose lease expired."""

    enqueued = fields.Integer(
        allow_none=True,
        **_doc("Jobs that were enqueued; null where documents do not tell when that was."),
    )
    succeeded = fields.Integer(
        allow_none=True,
        **_doc("Attempts that succeeded; null where no document holds when attempts end."),
    )
    failed = fields.Integer(
        allow_none=True,
        **_doc("Attempts that failed, or whose lease ran out; null as for `succeeded`."),
    )
    dlq = fields.Integer(
        allow_none=True, **_doc("Jobs that were given up; null as for `succeeded`.")
    )
    failureRate = fields.Float(
        allow_none=True,
        **_doc("failed / (succeeded + failed), 0 to 1; null where no attempt ended."),
    )
    waitMs = fields.Nested(Percentiles, **_doc("How long jobs waited."))
    runMs = fields.Nested(Percentiles, **_doc("How long attempts ran."))


class TimeSeriesStep(Activity):
    """What happened from `at` on, for a step, and how the whole queue stood at its end.

    The latter is null where no collector looked, and where only some types are asked for.
    """

    at = _Moment(**_doc("Start of the step."))
    statusCounts = _numbers(allow_none=True, **_doc("Jobs by status at its end."))
    oldestQueuedJobAgeMs = fields.Integer(
        allow_none=True, **_doc("Age of the oldest queued job at its end, in ms.")
    )


class TypeStats(Activity):
    """A type of job: what happened to it, and its jobs by status now (null if not known)."""

    type = fields.String(**_doc("The type; jobs without one are under `null`."))
    statusCounts = _numbers(allow_none=True, **_doc("Its jobs by status now."))
    finishedPerMinute = fields.Float(
        allow_none=True, **_doc("Attempts that ended, a minute; null as for `succeeded`.")
    )


class WindowMeta(Answer):
    """Which time an answer is about, how far it is known, and how it was come by."""

    start = _Moment(data_key="from", **_doc("Inclusive; widened to whole steps."))
    end = _Moment(data_key="to", **_doc("Exclusive; widened to whole steps."))
    step = fields.Integer(**_doc("Seconds."))
    asOf = _Moment(**_doc("As far as this, the time is counted."))
    source = fields.String(
        **_doc("Kept by the collector, or counted now.", enum=["rollup", "live"])
    )
    complete = fields.Boolean(
        **_doc(
            "False while a collector is still counting the window: steps that it has not reached "
            "are null, and sums over the window are of what it has counted."
        )
    )


class TimeSeries(Answer):
    """What happened, step by step."""

    meta = fields.Nested(WindowMeta, **_doc("Which time this is about."))
    data = fields.List(fields.Nested(TimeSeriesStep), **_doc("Every step of the window, in order."))


class TypeList(Answer):
    """What happened, type by type."""

    meta = fields.Nested(WindowMeta, **_doc("Which time this is about."))
    data = fields.List(
        fields.Nested(TypeStats),
        **_doc("Every type that has jobs or had some, by name."),
    )


class Liveness(Answer):
    """The process answers."""

    status = fields.String(**_doc("`ok`.", enum=["ok"]))


class DatabaseCheck(Answer):
    """The database answered."""

    ping_ms = fields.Float(**_doc("How long a ping took, in ms."))
    readable = fields.Boolean(
        allow_none=True, **_doc("Whether the watched collections can be read; null if not known.")
    )
    reason = fields.String(**_doc("Why it is not known, where that is so.", optional=True))


class BuildProgress(Answer):
    """How far the collector's first count is."""

    counted = fields.Integer(**_doc("So many jobs are counted."))
    estimated = fields.Integer(**_doc("Of about so many."))


class RollupCheck(Answer):
    """Whether figures come from the collector; else they are counted live."""

    fresh = fields.Boolean(**_doc("Whether the collector's figures are fresh."))
    build = fields.Nested(
        BuildProgress,
        allow_none=True,
        **_doc("Only where not fresh; null without a count.", optional=True),
    )
    reason = fields.String(
        **_doc("Why it is not known whether there is a collector, where that is so.", optional=True)
    )
    failure = fields.String(
        **_doc(
            "The exception that a web service's collector ended with in the last five minutes, "
            "where one did; it is started again.",
            optional=True,
        )
    )


class Checks(Answer):
    """What was checked."""

    database = fields.Nested(DatabaseCheck)
    rollup = fields.Nested(RollupCheck)


class Readiness(Answer):
    """The watched collections can be read."""

    status = fields.String(**_doc("`ready`.", enum=["ready"]))
    checks = fields.Nested(Checks)


class Failure(Answer):
    """What a request failed of."""

    code = fields.String(**_doc("For programs: one of the documented codes."))
    message = fields.String(**_doc("For people."))
    details = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        **_doc("What is wrong with each bad parameter, or part of the service.", optional=True),
    )


class Error(Answer):
    """Every failure."""

    error = fields.Nested(Failure)
