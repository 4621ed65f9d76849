"""The answers of the JSON API: the shapes of the contract, with their OpenAPI descriptions."""

from datetime import datetime
from typing import Any

from marshmallow import EXCLUDE, Schema, fields, pre_dump

from jobmon.api.fields import (
    Count,
    Date,
    DateOrText,
    ErrorOrNull,
    FreeText,
    Number,
    RedactedJson,
    Text,
    describe,
)
from jobmon.store.bson_json import to_utc


class Answer(Schema):
    """An answer has all of its fields, except those whose metadata has `optional`.

    Later versions may add fields.
    """

    class Meta:
        unknown = EXCLUDE

    def on_bind_field(self, _: str, field_obj: fields.Field[Any]) -> None:
        field_obj.required = not field_obj.metadata.get("optional", False)


class JobError(Answer):
    """The error of a job or an attempt, without its stack."""

    code = Text(**describe("Code of the error, for programs."))
    message = Text(**describe("Message of the error, for people."))


class AttemptError(JobError):
    """The error of a job or an attempt, with its stack."""

    stack = Text(**describe("Stack trace."))


class JobSummary(Answer):
    """A job in a list: without its payload and error stacks."""

    jobId = Text(dump_default=None, **describe("Public id of the job."))
    type = Text(dump_default=None, **describe("Type of the job."))
    status = Text(
        dump_default=None,
        **describe(
            "queued, leased, succeeded, failed (a retry is due at nextRunAt), dlq (dead-lettered) "
            "or cancelled; or any other value that the document has."
        ),
    )
    priority = Number(dump_default=None, **describe("Priority; higher first."))
    createdBy = Text(dump_default=None, **describe("Owner: the `sub` of the caller who enqueued."))
    createdAt = DateOrText(
        dump_default=None,
        **describe(
            "When the job was enqueued. Like every date of a watched document: ISO 8601 in UTC; "
            "a value that is no date is shown as text."
        ),
    )
    updatedAt = DateOrText(dump_default=None, **describe("When the job last changed."))
    nextRunAt = DateOrText(dump_default=None, **describe("The job is not leased before this time."))
    maxAttempts = Number(dump_default=None, **describe("Maximum number of attempts."))
    attemptCount = Count(dump_default=0, **describe("Number of attempts started."))
    leasedBy = FreeText(dump_default=None, **describe("Worker that holds the lease."))
    leaseExpiresAt = DateOrText(dump_default=None, **describe("When the lease expires."))
    finishedAt = DateOrText(
        dump_default=None, **describe("When the job became succeeded, dlq or cancelled.")
    )
    lastError = ErrorOrNull(
        stack=False,
        dump_default=None,
        **describe("Error of the latest failed attempt, without its stack."),
    )


class Attempt(Answer):
    """One attempt at a job; `durationMs` is null while it runs."""

    attemptNumber = Number(dump_default=None, **describe("Number of the attempt, from 1."))
    status = Text(
        dump_default=None,
        **describe("running, succeeded, failed, or expired (its lease expired)."),
    )
    workerId = FreeText(dump_default=None, **describe("Worker that ran the attempt."))
    eligibleAt = DateOrText(
        dump_default=None,
        **describe("When the attempt became due; null if the writer does not record it."),
    )
    startedAt = DateOrText(dump_default=None, **describe("When the attempt started."))
    finishedAt = DateOrText(
        dump_default=None, **describe("When the attempt ended; null while it runs.")
    )
    waitMs = Number(dump_default=None, **describe("Milliseconds from eligibleAt to startedAt."))
    durationMs = Number(dump_default=None, **describe("Milliseconds from startedAt to finishedAt."))
    error = ErrorOrNull(stack=True, dump_default=None, **describe("Error of the attempt."))

    @pre_dump
    def _measure(self, attempt: dict[str, Any], **_: Any) -> dict[str, Any]:
        return measure_attempt(attempt)


def measure_attempt(attempt: dict[str, Any]) -> dict[str, Any]:
    """The attempt with `waitMs` and `durationMs`: milliseconds, None where a date is missing."""
    started = attempt.get("startedAt")
    wait_ms = _measure_ms(attempt.get("eligibleAt"), started)
    return {
        **attempt,
        "waitMs": None if wait_ms is None else max(0, wait_ms),
        "durationMs": _measure_ms(started, attempt.get("finishedAt")),
    }


def _measure_ms(start: Any, end: Any) -> int | None:
    if isinstance(start, datetime) and isinstance(end, datetime):
        return round((to_utc(end) - to_utc(start)).total_seconds() * 1_000)
    return None


class JobDetail(JobSummary):
    """A job with its payload and its attempts."""

    payload = RedactedJson(
        dump_default=None,
        **describe("Input of the job: any JSON. Values of secret-looking keys are `[redacted]`."),
    )
    lastError = ErrorOrNull(
        stack=True, dump_default=None, **describe("Error of the latest failed attempt.")
    )
    attempts = fields.List(
        fields.Nested(Attempt),
        **describe("Attempts in order of attemptNumber; of more than 1,000 the latest 1,000."),
    )


class ListMeta(Answer):
    """Position of a page in its list."""

    page = fields.Integer(**describe("Number of the page, from 1."))
    per_page = fields.Integer(**describe("Maximum number of jobs per page."))
    total = fields.Integer(
        **describe("Number of matching jobs; a lower bound unless total_is_exact.")
    )
    total_is_exact = fields.Boolean(**describe("Whether `total` is exact."))
    total_pages = fields.Integer(**describe("Number of pages that `total` makes."))
    next_cursor = fields.String(
        allow_none=True, **describe("`cursor` of the next page; null on the last page.")
    )
    prev_cursor = fields.String(
        allow_none=True, **describe("`cursor` of the previous page; null on the first page.")
    )


class JobList(Answer):
    """A page of jobs."""

    meta = fields.Nested(ListMeta, **describe("Position of the page in the list."))
    data = fields.List(fields.Nested(JobSummary), **describe("The jobs, in the order of `sort`."))


def _counts(*, allow_none: bool = False, **kwargs: Any) -> fields.Dict:
    """Whole numbers, keyed by status or type."""
    return fields.Dict(
        keys=fields.String(), values=fields.Integer(), allow_none=allow_none, **kwargs
    )


class JobStats(Answer):
    """Statistics of the queue at the time `asOf`."""

    totalJobs = fields.Integer(
        **describe("Number of jobs. The sum of statusCounts unless these are null.")
    )
    statusCounts = _counts(
        allow_none=True,
        **describe(
            "Jobs by status: the six known statuses always, and any other that occurs. Beyond 100 "
            "statuses the others are counted as `(other)`. Null in an estimate."
        ),
    )
    typeCounts = fields.Dict(
        keys=fields.String(),
        values=_counts(),
        allow_none=True,
        **describe(
            "Jobs by type, then by status. Beyond 5,000 types the others are counted as `(other)`. "
            "Null in an estimate."
        ),
    )
    oldestQueuedJobAgeMs = fields.Integer(
        allow_none=True,
        **describe(
            "Age of the oldest queued job in milliseconds; 0 if none is queued, null if unknown."
        ),
    )
    oldestQueuedJobAgeMsByType = _counts(
        **describe("Age of the oldest queued job of each type, in milliseconds, where known.")
    )
    expiredLeases = fields.Integer(
        allow_none=True,
        **describe("Leased jobs whose lease has expired; counted up to 500,000. Null if unknown."),
    )
    eligibleJobs = fields.Integer(
        allow_none=True,
        **describe(
            "Waiting jobs that are due. Null if unknown: in an estimate, without a nextRunAt, or "
            "with 500,000 or more due jobs and as many scheduled ones."
        ),
    )
    scheduledJobs = fields.Integer(
        allow_none=True,
        **describe("Waiting jobs whose nextRunAt is in the future. Null as for eligibleJobs."),
    )
    estimatedTotalJobs = fields.Integer(
        **describe("Number of jobs according to the collection's metadata.")
    )
    reasons = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        **describe(
            "By field name: why the field is null. A number that has a reason is a lower bound."
        ),
    )
    asOf = Date(**describe("The time that the statistics describe."))
    source = fields.String(
        **describe(
            "`rollup`: kept by the collector. `live`: counted for this answer. `estimate`: "
            "counting took too long, so totalJobs comes from the collection's metadata.",
            enum=["rollup", "live", "estimate"],
        )
    )


class Percentiles(Answer):
    """Percentiles of durations in milliseconds, within 4 %; null without any duration."""

    p50 = fields.Integer(allow_none=True, **describe("Median, in milliseconds."))
    p95 = fields.Integer(allow_none=True, **describe("95th percentile, in milliseconds."))
    p99 = fields.Integer(allow_none=True, **describe("99th percentile, in milliseconds."))


class Activity(Answer):
    """Activity of the queue in a span of time."""

    enqueued = fields.Integer(
        allow_none=True,
        **describe("Jobs enqueued; null if documents have no creation time."),
    )
    succeeded = fields.Integer(
        allow_none=True,
        **describe("Attempts that succeeded; null if documents have no finish time."),
    )
    failed = fields.Integer(
        allow_none=True,
        **describe("Attempts that failed or whose lease expired; null as for `succeeded`."),
    )
    dlq = fields.Integer(
        allow_none=True, **describe("Jobs dead-lettered; null as for `succeeded`.")
    )
    failureRate = fields.Float(
        allow_none=True,
        **describe("failed / (succeeded + failed), from 0 to 1; null if no attempt ended."),
    )
    waitMs = fields.Nested(Percentiles, **describe("Time that attempts waited after being due."))
    runMs = fields.Nested(Percentiles, **describe("Time that attempts ran."))


class TimeSeriesStep(Activity):
    """Activity during a step that starts `at`, and the state of the whole queue at its end.

    That state is null if no collector recorded it, or if the series is limited to some types.
    """

    at = Date(**describe("Start of the step."))
    statusCounts = _counts(allow_none=True, **describe("Jobs by status at the end of the step."))
    oldestQueuedJobAgeMs = fields.Integer(
        allow_none=True,
        **describe("Age of the oldest queued job at the end of the step, in milliseconds."),
    )


class TypeStats(Activity):
    """Activity of one type of job in the window, and its jobs by status now."""

    type = fields.String(**describe("The type; `null` for jobs without one."))
    statusCounts = _counts(
        allow_none=True, **describe("Jobs of this type by status now; null if unknown.")
    )
    finishedPerMinute = fields.Float(
        allow_none=True, **describe("Attempts that ended, per minute; null as for `succeeded`.")
    )


class WindowMeta(Answer):
    """The window of an answer, and its counted part."""

    start = Date(data_key="from", **describe("Start of the window, widened to a whole step."))
    end = Date(data_key="to", **describe("End of the window, exclusive, widened to a whole step."))
    step = fields.Integer(**describe("Length of a step in seconds."))
    asOf = Date(**describe("Activity is counted up to this time."))
    source = fields.String(
        **describe(
            "`rollup`: kept by the collector. `live`: counted for this answer.",
            enum=["rollup", "live"],
        )
    )
    complete = fields.Boolean(
        **describe(
            "False while a collector is still counting the window: uncounted steps are null, and "
            "sums over the window cover the counted part."
        )
    )


class TimeSeries(Answer):
    """Activity by step."""

    meta = fields.Nested(WindowMeta, **describe("The window of this answer."))
    data = fields.List(
        fields.Nested(TimeSeriesStep), **describe("Every step of the window, in order.")
    )


class TypeList(Answer):
    """Activity by type."""

    meta = fields.Nested(WindowMeta, **describe("The window of this answer."))
    data = fields.List(
        fields.Nested(TypeStats),
        **describe("Every type with jobs now or activity in the window, by name."),
    )


class ErrorBody(Answer):
    """The error of a failed request."""

    code = fields.String(**describe("Code of the error, for programs."))
    message = fields.String(**describe("Message, for people."))
    details = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        **describe("Messages by bad parameter, or by failed part of the service.", optional=True),
    )


class Error(Answer):
    """The answer to every failed request."""

    error = fields.Nested(ErrorBody)
