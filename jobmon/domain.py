"""The vocabulary of a job queue: the statuses and fields of jobs and attempts.

Plain Python: nothing here knows Flask, MongoDB or any other library.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple


class JobStatus(StrEnum):
    """The status of a job. Watched jobs may have other statuses, which are shown unchanged."""

    QUEUED = "queued"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # an attempt failed, a retry is due at nextRunAt
    DLQ = "dlq"  # dead-lettered: it is not retried
    CANCELLED = "cancelled"


# The words for statuses on pages and in the terminal.
JOB_STATUS_WORDS = {
    JobStatus.QUEUED.value: "queued",
    JobStatus.LEASED.value: "running",
    JobStatus.SUCCEEDED.value: "succeeded",
    JobStatus.FAILED.value: "retrying",
    JobStatus.DLQ.value: "dead",
    JobStatus.CANCELLED.value: "cancelled",
}


class JobCondition(StrEnum):
    """A condition of a job that depends on the time."""

    DUE = "due"  # waiting, and its nextRunAt has passed or is missing
    SCHEDULED = "scheduled"  # waiting, with a nextRunAt in the future
    EXPIRED = "expired"  # leased, but the lease is past its end


class JobAction(StrEnum):
    """A change of a job that a person can request; each queue's library supports some of them."""

    RETRY = "retry"  # a job that failed, is dead or was cancelled: run it again, now
    RUN_NOW = "run_now"  # a job that waits for its time: make it due
    RESCHEDULE = "reschedule"  # a waiting job: another time
    PRIORITIZE = "prioritize"  # a waiting job: another priority
    CANCEL = "cancel"  # a waiting or a running job
    RELEASE = "release"  # a job whose lease has expired
    DISABLE = "disable"  # a recurring job: skip its runs
    ENABLE = "enable"
    DELETE = "delete"  # a finished job
    UNDO = "undo"  # a job that nobody has changed since an action: restore its earlier values


class TypeAction(StrEnum):
    """A change of a job type that a person can request."""

    PAUSE = "pause_type"  # workers lease no job of this type
    RESUME = "resume_type"


class AttemptStatus(StrEnum):
    """The status of one attempt at a job."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"  # its lease ended before the worker reported


# A waiting job can be leased from its nextRunAt on, a job with a final status only after a retry.
WAITING_STATUSES = (JobStatus.QUEUED.value, JobStatus.FAILED.value)
FINAL_STATUSES = (JobStatus.SUCCEEDED.value, JobStatus.DLQ.value, JobStatus.CANCELLED.value)
FINAL_ATTEMPT_STATUSES = tuple(
    status.value for status in AttemptStatus if status is not AttemptStatus.RUNNING
)
# The statuses in which a job of `jobmon.queue` allows each action. It has no recurring jobs.
ACTION_STATUSES: dict[JobAction, tuple[str, ...]] = {
    JobAction.RETRY: (JobStatus.FAILED.value, JobStatus.DLQ.value, JobStatus.CANCELLED.value),
    JobAction.RUN_NOW: WAITING_STATUSES,
    JobAction.RESCHEDULE: WAITING_STATUSES,
    JobAction.PRIORITIZE: WAITING_STATUSES,
    JobAction.CANCEL: (*WAITING_STATUSES, JobStatus.LEASED.value),
    JobAction.RELEASE: (JobStatus.LEASED.value,),
    JobAction.DELETE: FINAL_STATUSES,
    JobAction.UNDO: (*WAITING_STATUSES, JobStatus.CANCELLED.value),
}
# The condition that the job must also meet. Lists filter by it; `explain_refusal` checks a job that
# was read.
ACTION_CONDITIONS = {
    JobAction.RUN_NOW: JobCondition.SCHEDULED,
    JobAction.RELEASE: JobCondition.EXPIRED,
}


def explain_refusal(action: str, job: Mapping[str, Any], now: datetime) -> str | None:
    """The reason why the dates of a job do not allow an action; None if they do.

    It does not check the job's status. Pages, previews, the actor and `jobmon.queue` use this rule.
    """
    if action == JobAction.RUN_NOW:
        due_at = _read_date(job, "nextRunAt")
        return None if due_at and due_at > now else "it is due already"
    if action == JobAction.RELEASE:
        expires_at = _read_date(job, "leaseExpiresAt")
        return None if expires_at and expires_at <= now else "its lease has not expired"
    return None


def _read_date(job: Mapping[str, Any], name: str) -> datetime | None:
    """A date of a job, with a time zone: UTC if it is naive. None if the value is not a date."""
    value = job.get(name)
    return value.replace(tzinfo=value.tzinfo or UTC) if isinstance(value, datetime) else None


# The collection of the controls of `jobmon.queue`, and the _id of its list of paused types.
CONTROLS, PAUSED = "job_controls", "paused"


class CappedCount(NamedTuple):
    """A number of jobs: exactly `value` if `is_exact`, else at least `value`."""

    value: int
    is_exact: bool


def failure_rate(failed: int, finished: int) -> float | None:
    """The share of finished attempts that failed; None if none finished."""
    return failed / finished if finished else None


# The fields of a job.
JOB_FIELDS = (
    "jobId",
    "type",
    "status",
    "payload",
    "priority",
    "createdBy",
    "createdAt",
    "updatedAt",
    "nextRunAt",
    "maxAttempts",
    "attemptCount",
    "attempts",
    "leasedBy",
    "leaseExpiresAt",
    "finishedAt",
    "lastError",
)
# `startedAt` of a job is when its last attempt started; it is shown with that attempt.
MAPPED_JOB_FIELDS = (*JOB_FIELDS, "startedAt")
# The status of a job's last attempt, by the job's status; used for queues that record no attempts.
LAST_OUTCOMES = {
    JobStatus.LEASED.value: AttemptStatus.RUNNING.value,
    JobStatus.SUCCEEDED.value: AttemptStatus.SUCCEEDED.value,
    JobStatus.FAILED.value: AttemptStatus.FAILED.value,
    JobStatus.DLQ.value: AttemptStatus.FAILED.value,
}
# The statuses of a job whose last attempt has ended.
STATUSES_AFTER_ATTEMPT = tuple(
    status for status, outcome in LAST_OUTCOMES.items() if outcome != AttemptStatus.RUNNING
)
# `eligibleAt` is when the attempt was due.
ATTEMPT_FIELDS = (
    "jobId",
    "attemptNumber",
    "status",
    "workerId",
    "eligibleAt",
    "startedAt",
    "finishedAt",
    "error",
)
