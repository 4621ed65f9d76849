"""The answers about workers and about slow attempts."""

from marshmallow import fields

from jobmon.api.answers import Answer, array, boolean, integer, mapping, nested, number, string
from jobmon.api.fields import Date, DateOrText, FreeText, Text
from jobmon.api.queue_answers import Gap, Percentiles, WindowBounds
from jobmon.diagnosis.slow_runs import MAX_LISTED
from jobmon.diagnosis.workers import WorkerState
from jobmon.domain import FINAL_ATTEMPT_STATUSES
from jobmon.rollup.run_details import SLOWEST

JOBS_SHOWN = 5  # running jobs of a worker in an answer, at most


class RunningJobAnswer(Answer):
    """A job that a worker runs now."""

    jobId = string("Id of the job; null if it has none.", nullable=True, attribute="job_id")
    type = string("Type of the job.")
    attemptNumber = integer(
        "Number of the attempt; null if unknown.", nullable=True, attribute="attempt"
    )
    startedAt = DateOrText("When the attempt started; null if unknown.", attribute="started_at")
    leaseExpiresAt = DateOrText("When the lease expires; null if unknown.", attribute="expires_at")
    leaseLeftMs = integer(
        "Milliseconds until the lease expires; negative if it has expired.", nullable=True
    )


class TopErrorAnswer(Answer):
    """The most frequent group of errors of a worker in the window."""

    id = string("Id of the group, for `GET /admin/jobs/errors/{group_id}`.")
    code = Text("Code of the errors.")
    pattern = Text("Message of the errors, with its variable parts replaced.")
    failures = integer("Failed attempts of the worker with such an error.")


class WorkerAnswer(Answer):
    """A worker: what it runs now, and its attempts in the window.

    `(other)` is the sum of the workers that were not counted by name. A field is null if it is
    unknown: `meta.reasons` explains it. With `type`, only attempts of these types count.
    """

    name = FreeText("Name of the worker, as in `leasedBy` of its jobs; cut after 200 characters.")
    state = string(
        "`expired`: it has an expired lease. `stopped`: it runs no job, although a job of one of "
        "its types has been due for a minute. It has ended no attempt for ten minutes to a day; at "
        "its earlier rate it would have ended at least three in this time. `running`: it runs a "
        "job. `idle`: none of these. A worker that is `expired` or `stopped` is silent. Null if "
        "unknown.",
        enum=[*(state.value for state in WorkerState), None],
        nullable=True,
    )
    since = DateOrText(
        "When `state` began: the first of its leases expired, its last attempt ended, or the first "
        "of its running jobs started. Null if unknown, and for `idle`."
    )
    note = string("Why it is silent; null if it is not silent.", nullable=True)
    runningJobs = integer("Jobs that it runs now.", nullable=True)
    jobs = array(
        RunningJobAnswer, f"At most {JOBS_SHOWN} of these jobs, in the order of `leaseExpiresAt`."
    )
    lastSeen = DateOrText("When it last started or ended an attempt, as far as known.")
    attempts = integer("Attempts that ended in the window.", nullable=True)
    failures = integer(
        "How many of these attempts failed, or had a lease that expired.", nullable=True
    )
    failureRate = number("failures / attempts, from 0 to 1; null without attempts.", nullable=True)
    runMs = nested(Percentiles, "How long these attempts ran.")
    topError = nested(
        TopErrorAnswer,
        "Its most frequent error in the window; null without an error, and with `type`.",
        nullable=True,
    )


class WorkerListMeta(WindowBounds):
    """The window of a list of workers, and its totals."""

    as_of = DateOrText("Attempts are counted up to this time; null if they are unknown.")
    running_as_of = Date("The time at which the `jobs` of the workers were running.")
    is_complete = boolean(
        "False while a collector is still counting the window; null if attempts are unknown.",
        nullable=True,
    )
    gaps = array(Gap, "Parts of the window in which attempts may be missing, in order.")
    page = integer("Number of the page, from 1.")
    per_page = integer("Maximum number of workers per page.")
    total = integer("Matching workers, with `(other)`; null if unknown.", nullable=True)
    total_is_exact = boolean("False if workers may be missing or were not counted by name.")
    total_pages = integer("Number of pages; null if `total` is unknown.", nullable=True)
    silent_workers = integer("Matching workers that are silent; null if unknown.", nullable=True)
    reasons = mapping(
        fields.String(), "By field name: why it is null, or why numbers are lower bounds."
    )


class WorkerList(Answer):
    """A page of workers."""

    meta = nested(WorkerListMeta, "The window of this answer, and its totals.")
    data = array(
        WorkerAnswer, "The workers, in the order of `sort`; null if unknown.", nullable=True
    )


class SlowAttempt(Answer):
    """An attempt that ended in the window."""

    type = string("Type of its job.")
    jobId = string("Id of its job, which may have been deleted.", attribute="job_id")
    attemptNumber = integer(
        "Number of the attempt; null if the queue does not number them.",
        nullable=True,
        attribute="attempt",
    )
    workerId = FreeText("Worker that ran it; null if unknown.", attribute="worker")
    status = string("How it ended.", enum=list(FINAL_ATTEMPT_STATUSES), attribute="outcome")
    finishedAt = Date("When it ended.", attribute="finished_at")
    durationMs = integer("How long it ran, in milliseconds.", attribute="duration_ms")


class SlowAttemptListMeta(WindowBounds):
    """The window of an answer about slow attempts."""

    as_of = Date("Attempts are counted up to this time.")
    is_complete = boolean("False while a collector is still counting the window.")
    gaps = array(Gap, "Parts of the window in which attempts may be missing, in order.")
    reasons = mapping(fields.String(), "`data`: why it is null, or why attempts may be missing.")


class SlowAttemptList(Answer):
    """The slowest attempts of a window."""

    meta = nested(SlowAttemptListMeta, "The window of this answer.")
    data = array(
        SlowAttempt,
        f"The attempts, the slowest first: at most {MAX_LISTED}, and {SLOWEST} of a type. Null "
        "if unknown.",
        nullable=True,
    )
