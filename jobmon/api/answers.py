"""The answers about jobs, and what all answers need: their base class and their kinds of fields."""

from datetime import datetime
from functools import cache, cached_property, partial
from typing import Any, Self, TypeVar

from marshmallow import EXCLUDE, Schema, fields

from jobmon.actions.catalog import ACTIONS
from jobmon.api.fields import (
    Count,
    DateOrText,
    ErrorWithoutStack,
    ErrorWithStack,
    FreeText,
    Number,
    RedactedJson,
    Text,
    describe,
)
from jobmon.api.serializing import Serialize, compile_schema
from jobmon.diagnosis.explanation import ExplanationCode
from jobmon.rollup.recurring_runs import MAX_RUNS
from jobmon.store.bson_json import make_aware
from jobmon.store.lease_order import MAX_AHEAD

F = TypeVar("F", bound=fields.Field[Any])


class Answer(Schema):
    """A JSON object. Only fields with `optional` in their metadata may be absent.

    Later versions may add fields.
    """

    class Meta:
        unknown = EXCLUDE

    def on_bind_field(self, _: str, field_obj: fields.Field[Any]) -> None:
        field_obj.required = not field_obj.metadata.get("optional", False)

    @classmethod
    @cache
    def shared(cls) -> Self:
        """The instance that all routes share: creating one for each would slow the start."""
        return cls()

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """The schema itself: each decorator of a route copies its documentation and schemas."""
        return self

    def prepare(self, obj: Any) -> Any:
        """The value to serialize in place of `obj`: a mapping, or an object with attributes."""
        return obj

    def dump(self, obj: Any, *, many: bool | None = None) -> Any:
        """The same result as marshmallow's `dump`, but faster: see `api.serializing`."""
        if self.many if many is None else many:
            serialize, prepare = self._compiled, self.prepare
            return [serialize(prepare(item)) for item in obj]
        return self._compiled(self.prepare(obj))

    @cached_property
    def _compiled(self) -> Serialize:
        return compile_schema(self)


def make_field(field_type: type[F], description: str, **options: Any) -> F:
    """A field of a marshmallow type; the options are passed to `describe`."""
    return field_type(**describe(description, **options))


integer, number = partial(make_field, fields.Integer), partial(make_field, fields.Float)
string, boolean = partial(make_field, fields.String), partial(make_field, fields.Boolean)


def nested(answer: type[Answer], description: str, **options: Any) -> fields.Nested:
    """A field that holds another answer."""
    return fields.Nested(answer, **describe(description, **options))


def array(
    items: type[Answer] | fields.Field[Any], description: str, **options: Any
) -> fields.List[Any]:
    """A field that holds an array of answers, or of values of a field."""
    item_field = items if isinstance(items, fields.Field) else fields.Nested(items)
    return fields.List(item_field, **describe(description, **options))


def mapping(values: fields.Field[Any], description: str, **options: Any) -> fields.Dict:
    """A field that holds an object with any keys; `values` is the field of each value."""
    return fields.Dict(keys=fields.String(), values=values, **describe(description, **options))


def counts(description: str, **options: Any) -> fields.Dict:
    """A field that holds whole numbers by status or type."""
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
    priority = Number("Priority; in jobmon's own queues, a higher number comes first.")
    createdBy = Text("Owner: the `sub` of the caller who enqueued the job.")
    createdAt = DateOrText(
        "When the job was enqueued. Like every date of a watched document: ISO 8601 in UTC; "
        "a value that is no date is shown as text."
    )
    updatedAt = DateOrText("When the job last changed.")
    nextRunAt = DateOrText("When the job is due: workers do not lease it earlier.")
    maxAttempts = Number("Maximum number of attempts.")
    attemptCount = Count("Number of attempts started.", missing=0)
    leasedBy = FreeText("Worker that holds the lease.")
    leaseExpiresAt = DateOrText("When the lease expires.")
    finishedAt = DateOrText("When the job became succeeded, dlq or cancelled.")
    lastError = ErrorWithoutStack("Error of the latest failed attempt, without its stack.")


class ListedJob(JobSummary):
    """A job in a page of a list."""

    durationMs = integer(
        "Only with `sort=-duration`: length in ms of the job's longest run in the window.",
        optional=True,
    )


class Attempt(Answer):
    """One attempt at a job."""

    attemptNumber = Number("Number of the attempt, from 1.")
    status = Text(
        "running, succeeded, failed, or expired (its lease expired); or any other value that the "
        "document has."
    )
    workerId = FreeText("Worker that ran the attempt.")
    eligibleAt = DateOrText("When the attempt became due; null if the queue does not record it.")
    startedAt = DateOrText("When the attempt started.")
    finishedAt = DateOrText("When the attempt ended; null while it runs.")
    waitMs = Number("Milliseconds from eligibleAt to startedAt, at least 0; null if unknown.")
    durationMs = Number("Milliseconds from startedAt to finishedAt; null if unknown.")
    error = ErrorWithStack("Error of the attempt.")
    errorGroup = string(
        "Group of the error, for `GET /admin/jobs/errors/{group_id}`. Null for owners, without an "
        "error, for attempts before the latest 50, and if no collector has grouped the error.",
        nullable=True,
    )

    def prepare(self, obj: dict[str, Any]) -> dict[str, Any]:
        """The attempt with `waitMs` and `durationMs`."""
        return measure_attempt(obj)


def measure_attempt(attempt: dict[str, Any]) -> dict[str, Any]:
    """The attempt with `waitMs` and `durationMs`; they are None without two valid dates."""
    started = attempt.get("startedAt")
    wait_ms = _measure_ms(attempt.get("eligibleAt"), started)
    return {
        **attempt,
        "waitMs": None if wait_ms is None else max(0, wait_ms),
        "durationMs": _measure_ms(started, attempt.get("finishedAt")),
    }


def _measure_ms(start: Any, end: Any) -> int | None:
    if isinstance(start, datetime) and isinstance(end, datetime):
        return round((make_aware(end) - make_aware(start)).total_seconds() * 1_000)
    return None


class ExplanationAnswer(Answer):
    """Why a job does not run, and when it will. A field that is unknown or not relevant is null."""

    code = string(
        "`not_due`, `retry_scheduled`: before nextRunAt. `waiting`: due, as far as is known. "
        "`type_paused`: due, and its type is paused. `type_stalled`: due, and no job of its type "
        "runs or has ended lately. `running_long`: for longer than 99 % of the runs of its type. "
        "`attempts_used_up`, `dead`: dead-lettered. `other_status`: a status that jobmon does "
        "not know. Later versions may add codes.",
        enum=[code.value for code in ExplanationCode],
    )
    text = string("A few sentences for people, as of this answer.")
    since = DateOrText("When the job became due, started or ended, or when its lease expired.")
    until = DateOrText("Before the job is due: its nextRunAt. While it runs: its leaseExpiresAt.")
    ahead = integer(
        "Number of due jobs that workers take before this one, counted up to "
        f"{MAX_AHEAD:,}. Null if that is unknown, or the job is not due.",
        nullable=True,
    )
    aheadIsExact = boolean("Whether `ahead` is exact; if not, see `reasons.ahead`.")
    expectedStart = DateOrText("Approximate start of the job, at the present rate of its type.")
    reasons = mapping(
        fields.String(), "By field name: why the field is unknown, or why `ahead` is not exact."
    )


class RecurringRun(Answer):
    """A run of a recurring job, or successive runs that were missed."""

    status = string(
        "running, succeeded, failed or expired; or `missed`: due by the job's interval, and no run "
        "began before the next run was due.",
        nullable=True,
    )
    at = DateOrText(
        "When the run started, or ended if its start is unknown; or when the first of the missed "
        "runs was due."
    )
    until = DateOrText("When the last of the missed runs was due; null for other runs.")
    count = integer("1, or the number of missed runs, counted up to 1,000.")
    finishedAt = DateOrText("When the run ended; null while it runs, and for missed runs.")
    durationMs = integer("Milliseconds from its start to its end.", nullable=True)
    error = nested(JobError, "Error of the run.", nullable=True)


class RepetitionAnswer(Answer):
    """How often a job runs, and its newest runs."""

    interval = string("How often the job runs, as the document holds it.", nullable=True)
    timeOfDay = string("When in the day it runs, as the document holds it.", nullable=True)
    timezone = string(
        "Time zone of `interval` and `timeOfDay`; null for UTC, or if unknown.", nullable=True
    )
    intervalText = string(
        "How often it runs, in words: `every 5 minutes`; or as the document holds it."
    )
    overdueSince = DateOrText("When the waiting job became due, if that was at least a minute ago.")
    lastRun = nested(RecurringRun, "The newest run; null if none is known.", nullable=True)
    missedRuns = integer(
        "How many runs were missed between the newest runs, and after the last one if the job is "
        "overdue; a lower bound if `reasons` has it; null if unknown.",
        nullable=True,
    )
    runs = array(
        RecurringRun,
        f"At most {MAX_RUNS}, in order of time: the newest runs, recorded or else seen by the "
        "collector, and the missed runs.",
    )
    reasons = mapping(fields.String(), "By field name: why it is null or not complete.")

    def prepare(self, obj: Any) -> dict[str, Any]:
        """The fields of a `JobRepetition`."""
        repetition: dict[str, Any] = obj.to_answer()
        return repetition


class LinkAnswer(Answer):
    """A link from a job to another system, such as its logs."""

    name = string("Name of the link.")
    url = string("URL; null if it cannot be made from the job.", nullable=True)
    reason = string("Why `url` is null; otherwise null.", nullable=True)


class DoneAction(Answer):
    """What a request did with a job."""

    requestId = string("Id of the request.")
    action = string("The action.", enum=list(ACTIONS))
    result = string("`done` or `skipped`.", enum=["done", "skipped"])
    skipReason = string("Why the job was skipped; otherwise empty.")
    at = DateOrText("When the job was changed or skipped.")
    by = string("Who filed the request; owners of the job see only their own name.", nullable=True)
    reason = string("Why the request was filed; null if `by` is null.", nullable=True)


class JobActions(Answer):
    """The actions that are possible on a job, and what earlier requests did."""

    possible = array(fields.String(), "The actions that the caller may request for the job now.")
    done = array(
        DoneAction, "What requests did with the job, the newest first: at most 50.", nullable=True
    )
    reasons = mapping(fields.String(), "By field name: why it is null.")


class JobDetail(JobSummary):
    """A job with its payload and its attempts."""

    payload = RedactedJson(
        "Input of the job: any JSON. Values of secret-looking keys are `[redacted]`."
    )
    lastError = ErrorWithStack("Error of the latest failed attempt.")
    errorGroup = string(
        "Group of lastError, for `GET /admin/jobs/errors/{group_id}`. Null for owners, without an "
        "error, and if no collector has grouped the error.",
        nullable=True,
    )
    isRecurring = boolean(
        "Whether the job is run again after a success. Null if unknown.", nullable=True
    )
    repetition = nested(
        RepetitionAnswer, "How often it recurs; null if it does not, or if unknown.", nullable=True
    )
    attempts = array(Attempt, "Attempts in order of attemptNumber: at most the latest 1,000.")
    explanation = nested(ExplanationAnswer, "Why the job does not run, and when it will.")
    links = array(LinkAnswer, "Links to other systems, as JOBMON_LINKS defines them.")
    actions = nested(
        JobActions,
        "Which actions are possible, and what earlier requests did; only with JOBMON_ACTIONS.",
        optional=True,
    )
    reasons = mapping(fields.String(), "By field name: why the field is not complete.")


class JobListMeta(Answer):
    """Position of a page in its list."""

    page = integer("Number of the page, from 1.")
    per_page = integer("Maximum number of jobs per page.")
    total = integer("Number of matching jobs; a lower bound unless `total_is_exact`.")
    total_is_exact = boolean("Whether `total` is exact.")
    total_pages = integer("Number of pages for `total` jobs.")
    next_cursor = string("`cursor` of the next page; null if there is none.", nullable=True)
    prev_cursor = string(
        "`cursor` of the previous page; null if there is none, and on an empty page.", nullable=True
    )
    page_is_exact = boolean(
        "Whether the page begins exactly at its place in the list; if not, see `reasons.page`."
    )
    reasons = mapping(
        fields.String(),
        "`data`: why jobs may be missing in the list. `page`: why the page may begin elsewhere. "
        "`next_cursor`, `prev_cursor`: why that page may lack or repeat jobs.",
    )


class JobList(Answer):
    """A page of jobs."""

    meta = nested(JobListMeta, "Position of the page in the list.")
    data = array(ListedJob, "The jobs, in the order of `sort`.")


class ErrorBody(Answer):
    """The error of a failed request."""

    code = string("Code of the error, for programs.")
    message = string("Message, for people.")
    details = mapping(
        fields.List(fields.String()),
        "Messages by bad parameter or field, or by the part of the service that failed.",
        optional=True,
    )


class Error(Answer):
    """The answer to every failed request."""

    error = nested(ErrorBody, "The error.")
