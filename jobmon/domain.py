"""The words of the trade: what a job and an attempt can be.

Plain Python: nothing here knows Flask, MongoDB or any other library.
"""

from enum import StrEnum


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
