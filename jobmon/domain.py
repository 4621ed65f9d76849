"""The words of the trade: what a job and an attempt can be.

Plain Python: nothing here knows Flask, MongoDB or any other library.
"""

from enum import StrEnum
from typing import NamedTuple


class JobStatus(StrEnum):
    """Where a job stands. Watched documents may hold others; they are shown as they are."""

    QUEUED = "queued"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # an attempt failed, a retry is due at nextRunAt
    DLQ = "dlq"  # given up: the dead-letter queue
    CANCELLED = "cancelled"


class JobCondition(StrEnum):
    """What a job is in at some moment, by its status and a date."""

    DUE = "due"  # waits, and may be leased now
    EXPIRED = "expired"  # leased, beyond the end of its lease


class AttemptStatus(StrEnum):
    """How one attempt at a job ended, or that it has not yet."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"  # its lease ran out before it reported


WAITING_STATUSES = (
    JobStatus.QUEUED.value,
    JobStatus.FAILED.value,
)  # to be leased from nextRunAt on
FINAL_STATUSES = (JobStatus.SUCCEEDED.value, JobStatus.DLQ.value, JobStatus.CANCELLED.value)
FINAL_ATTEMPT_STATUSES = tuple(
    status.value for status in AttemptStatus if status is not AttemptStatus.RUNNING
)


class CappedCount(NamedTuple):
    """How many there are; unless `is_exact`, at least `value`: counting stopped there."""

    value: int
    is_exact: bool


def failure_rate(failed: int, finished: int) -> float | None:
    """The share of finished attempts that failed; None if none finished."""
    return failed / finished if finished else None


# The fields of a job and of an attempt at it (contract, section 1); `eligibleAt`: when it was due.
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
# What a document may hold of a job; when its last attempt began is answered as that attempt's.
MAPPED_JOB_FIELDS = (*JOB_FIELDS, "startedAt")
# How the last attempt at a job ended, where the job itself is all that is known of it.
LAST_OUTCOMES = {
    JobStatus.LEASED.value: AttemptStatus.RUNNING.value,
    JobStatus.SUCCEEDED.value: AttemptStatus.SUCCEEDED.value,
    JobStatus.FAILED.value: AttemptStatus.FAILED.value,
    JobStatus.DLQ.value: AttemptStatus.FAILED.value,
}
# The statuses of a job whose last attempt has ended with an outcome.
STATUSES_AFTER_ATTEMPT = tuple(
    status for status, outcome in LAST_OUTCOMES.items() if outcome != AttemptStatus.RUNNING
)
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
