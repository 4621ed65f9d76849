"""The answers of the JSON API: the shapes of the contract, with their OpenAPI descriptions."""

from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from marshmallow import EXCLUDE, Schema, fields, pre_dump

from jobmon.api.fields import (
    Count,
    Date,
    DateOrText,
    ErrorWithoutStack,
    ErrorWithStack,
    FreeText,
    Number,
    RedactedJson,
    Text,
    describe,
)
from jobmon.diagnosis.attention import ALL_CLEAR, UNKNOWN, Level
from jobmon.rollup.gaps import GapReason
from jobmon.store.bson_json import to_utc
from jobmon.store.labels import MAX_STATUSES, MAX_TYPES

F = TypeVar("F", bound=fields.Field[Any])


class Answer(Schema):
    """An answer has all of its fields, except those whose metadata has `optional`.

    Later versions may add fields.
    """

    class Meta:
        unknown = EXCLUDE

    def on_bind_field(self, _: str, field_obj: fields.Field[Any]) -> None:
        field_obj.required = not field_obj.metadata.get("optional", False)


def make_field(kind: type[F], description: str, **options: Any) -> F:
    """A field of a marshmallow type; the options are those of `describe`."""
    return kind(**describe(description, **options))


integer, number = partial(make_field, fields.Integer), partial(make_field, fields.Float)
string, boolean = partial(make_field, fields.String), partial(make_field, fields.Boolean)


def nested(shape: type[Answer], description: str, **options: Any) -> fields.Nested:
    """Another answer."""
    return fields.Nested(shape, **describe(description, **options))


def array(shape: type[Answer], description: str) -> fields.List[Any]:
    """An array of answers."""
    return fields.List(fields.Nested(shape), **describe(description))


def mapping(values: fields.Field[Any], description: str, **options: Any) -> fields.Dict:
    """An object with any keys."""
    return fields.Dict(keys=fields.String(), values=values, **describe(description, **options))


def counts(description: str, **options: Any) -> fields.Dict:
    """Whole numbers, keyed by status or type."""
    return mapping(fields.Integer(), description, **options)


class JobError(Answer):
    """The error of a job or an attempt, without its stack."""

    code = Text("Code of the error, for programs.")
    message = Text("Message of the error, for people.")


class AttemptError(JobError):
    """The error of a job or an attempt, with its stack."""

    stack = Text("Stack trace.")


class JobSummary(Answer):
    """A job in a list: without its payload and error stacks."""

    jobId = Text("Public id of the job.")
    type = Text("Type of the job.")
    status = Text(
        "queued, leased, succeeded, failed (a retry is due at nextRunAt), dlq (dead-lettered) "
        "or cancelled; or any other value that the document has."
    )
    priority = Number("Priority; higher first.")
    createdBy = Text("Owner: the `sub` of the caller who enqueued.")
    createdAt = DateOrText(
        "When the job was enqueued. Like every date of a watched document: ISO 8601 in UTC; "
        "a value that is no date is shown as text."
    )
    updatedAt = DateOrText("When the job last changed.")
    nextRunAt = DateOrText("The job is not leased before this time.")
    maxAttempts = Number("Maximum number of attempts.")
    attemptCount = Count("Number of attempts started.", missing=0)
    leasedBy = FreeText("Worker that holds the lease.")
    leaseExpiresAt = DateOrText("When the lease expires.")
    finishedAt = DateOrText("When the job became succeeded, dlq or cancelled.")
    lastError = ErrorWithoutStack("Error of the latest failed attempt, without its stack.")


class Attempt(Answer):
    """One attempt at a job; `durationMs` is null while it runs."""

    attemptNumber = Number("Number of the attempt, from 1.")
    status = Text("running, succeeded, failed, or expired (its lease expired).")
    workerId = FreeText("Worker that ran the attempt.")
    eligibleAt = DateOrText("When the attempt became due; null if the writer does not record it.")
    startedAt = DateOrText("When the attempt started.")
    finishedAt = DateOrText("When the attempt ended; null while it runs.")
    waitMs = Number("Milliseconds from eligibleAt to startedAt.")
    durationMs = Number("Milliseconds from startedAt to finishedAt.")
    error = ErrorWithStack("Error of the attempt.")

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
        "Input of the job: any JSON. Values of secret-looking keys are `[redacted]`."
    )
    lastError = ErrorWithStack("Error of the latest failed attempt.")
    attempts = array(
        Attempt, "Attempts in order of attemptNumber; of more than 1,000 the latest 1,000."
    )
    reasons = mapping(fields.String(), "By field name: why the field lacks something.")


class ListMeta(Answer):
    """Position of a page in its list."""

    page = integer("Number of the page, from 1.")
    per_page = integer("Maximum number of jobs per page.")
    total = integer("Number of matching jobs; a lower bound unless total_is_exact.")
    total_is_exact = boolean("Whether `total` is exact.")
    total_pages = integer("Number of pages that `total` makes.")
    next_cursor = string("`cursor` of the next page; null on the last page.", nullable=True)
    prev_cursor = string("`cursor` of the previous page; null on the first page.", nullable=True)


class JobList(Answer):
    """A page of jobs."""

    meta = nested(ListMeta, "Position of the page in the list.")
    data = array(JobSummary, "The jobs, in the order of `sort`.")


class JobStats(Answer):
    """Statistics of the queue at the time `asOf`."""

    totalJobs = integer("Number of jobs. The sum of statusCounts unless these are null.")
    statusCounts = counts(
        "Jobs by status: the six known statuses always, and any other that occurs. Beyond "
        f"{MAX_STATUSES} statuses the others are counted as `(other)`. Null in an estimate.",
        nullable=True,
    )
    typeCounts = mapping(
        fields.Dict(keys=fields.String(), values=fields.Integer()),
        f"Jobs by type, then by status. Beyond {MAX_TYPES:,} types the others are counted as "
        "`(other)`. Null in an estimate.",
        nullable=True,
    )
    oldestQueuedJobAgeMs = integer(
        "Age of the oldest queued job in milliseconds; 0 if none is queued, null if unknown.",
        nullable=True,
    )
    oldestQueuedJobAgeMsByType = counts(
        "Age of the oldest queued job of each type, in milliseconds, where known."
    )
    expiredLeases = integer(
        "Leased jobs whose lease has expired; counted up to 500,000. Null if unknown.",
        nullable=True,
    )
    eligibleJobs = integer(
        "Waiting jobs that are due. Null if unknown: in an estimate, without a nextRunAt, or "
        "with 500,000 or more due jobs and as many scheduled ones.",
        nullable=True,
    )
    scheduledJobs = integer(
        "Waiting jobs whose nextRunAt is in the future. Null as for eligibleJobs.", nullable=True
    )
    estimatedTotalJobs = integer("Number of jobs according to the collection's metadata.")
    reasons = mapping(
        fields.String(),
        "By field name: why the field is null. A number that has a reason is a lower bound.",
    )
    asOf = Date("The time that the statistics describe.")
    source = string(
        "`rollup`: kept by the collector. `live`: counted for this answer. `estimate`: "
        "counting took too long, so totalJobs comes from the collection's metadata.",
        enum=["rollup", "live", "estimate"],
    )


class QueueNotice(Answer):
    """Something in a queue that needs attention."""

    level = string("How urgent it is.", enum=[level.value for level in Level])
    text = string("A sentence for people.")


class QueueAnswer(Answer):
    """A watched queue. A figure is null where it is unknown: `reasons` explains it."""

    name = string("Its name: its routes and pages are below `/queues/{name}`.")
    environment = string("Its environment, null where none is set.", nullable=True)
    isDefault = boolean("Whether paths without `/queues/{name}` are about this queue.")
    level = string(
        "`bad` or `watch`: the level of the worst notice. `ok`: every check was made and found "
        "nothing. `unknown`: there is no notice, but some checks could not be made.",
        enum=[*(level.value for level in Level), ALL_CLEAR, UNKNOWN],
    )
    notices = array(QueueNotice, "What needs attention, the worst first.")
    reasons = fields.List(
        fields.String(), **describe("Why checks could not be made and figures are unknown.")
    )
    statusCounts = counts("Jobs by status.", nullable=True)
    oldestQueuedJobAgeMs = integer("As in `GET /admin/jobs/stats`.", nullable=True)
    finishedPerMinute = number("Finished attempts a minute in the last hour.", nullable=True)
    failureRate = number("The share of them that failed; null if none finished.", nullable=True)
    asOf = DateOrText("The time that the figures describe; null if they are unknown.")
    source = string("As in `GET /admin/jobs/stats`.", nullable=True)


class QueueList(Answer):
    """The watched queues."""

    data = array(QueueAnswer, "In the order of the file of queues.")


class Percentiles(Answer):
    """Percentiles of durations in milliseconds, within 4 %; null without any duration."""

    p50 = integer("Median, in milliseconds.", nullable=True)
    p95 = integer("95th percentile, in milliseconds.", nullable=True)
    p99 = integer("99th percentile, in milliseconds.", nullable=True)


class Activity(Answer):
    """Activity of the queue in a span of time."""

    enqueued = integer("Jobs enqueued; null if documents have no creation time.", nullable=True)
    succeeded = integer(
        "Attempts that succeeded; null if documents have no finish time.", nullable=True
    )
    failed = integer(
        "Attempts that failed or whose lease expired; null as for `succeeded`.", nullable=True
    )
    dlq = integer("Jobs dead-lettered; null as for `succeeded`.", nullable=True)
    failureRate = number(
        "failed / (succeeded + failed), from 0 to 1; null if no attempt ended.", nullable=True
    )
    waitMs = nested(Percentiles, "Time that attempts waited after being due.")
    runMs = nested(Percentiles, "Time that attempts ran.")


class TimeSeriesStep(Activity):
    """Activity during a step that starts `at`, and the state of the whole queue at its end.

    That state is null if no collector recorded it, or if the series is limited to some types.
    """

    at = Date("Start of the step.")
    statusCounts = counts("Jobs by status at the end of the step.", nullable=True)
    oldestQueuedJobAgeMs = integer(
        "Age of the oldest queued job at the end of the step, in milliseconds.", nullable=True
    )


class TypeStats(Activity):
    """Activity of one type of job in the window, and its jobs by status now."""

    type = string("The type; `null` for jobs without one.")
    statusCounts = counts("Jobs of this type by status now; null if unknown.", nullable=True)
    finishedPerMinute = number(
        "Attempts that ended, per minute; null as for `succeeded`.", nullable=True
    )


class Gap(Answer):
    """A part of the window in which runs may be missing.

    Only for queues that record no attempts: their runs are counted from changes of the jobs or,
    where these are not known, from the jobs, which hold only their last run.
    """

    start = Date("Start of the gap.", data_key="from")
    end = Date("End of the gap, exclusive.", data_key="to")
    reason = string(
        "`before_collector`: it was before a collector first followed the changes. `stream_lost`: "
        "the server no longer had the changes since the collector's last checkpoint. "
        "`no_change_stream`: the server has none, because it is standalone. `no_collector`: "
        "counted for this answer. `too_many_running`: more jobs ran than a collector remembers.",
        enum=[reason.value for reason in GapReason],
    )


class WindowMeta(Answer):
    """The window of an answer, and its counted part."""

    start = Date("Start of the window, widened to a whole step.", data_key="from")
    end = Date("End of the window, exclusive, widened to a whole step.", data_key="to")
    step = integer("Length of a step in seconds.")
    asOf = Date("Activity is counted up to this time.")
    source = string(
        "`rollup`: kept by the collector. `live`: counted for this answer.", enum=["rollup", "live"]
    )
    complete = boolean(
        "False while a collector is still counting the window: uncounted steps are null, and "
        "sums over the window cover the counted part."
    )
    gaps = array(Gap, "Parts of the window in which runs may be missing, in order.")


class TimeSeries(Answer):
    """Activity by step."""

    meta = nested(WindowMeta, "The window of this answer.")
    data = array(TimeSeriesStep, "Every step of the window, in order.")


class TypeList(Answer):
    """Activity by type."""

    meta = nested(WindowMeta, "The window of this answer.")
    data = array(TypeStats, "Every type with jobs now or activity in the window, by name.")


class ErrorBody(Answer):
    """The error of a failed request."""

    code = string("Code of the error, for programs.")
    message = string("Message, for people.")
    details = mapping(
        fields.List(fields.String()),
        "Messages by bad parameter, or by failed part of the service.",
        optional=True,
    )


class Error(Answer):
    """The answer to every failed request."""

    error = nested(ErrorBody, "The error.")
