"""Decides how an action changes a job of `jobmon.queue`, from its document, without a database."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobmon.domain import ACTION_STATUSES, AttemptStatus, JobAction, JobStatus, explain_refusal

Document = dict[str, Any]

DEFAULT_MAX_ATTEMPTS = 5
CANCELLED = {"code": "cancelled", "message": "The job was cancelled.", "stack": None}
LEASE_EXPIRED = {"code": "lease_expired", "message": "The worker stopped.", "stack": None}
# The status and the error of a running attempt that an action ends.
ATTEMPT_ENDS: dict[JobAction, tuple[AttemptStatus, Document]] = {
    JobAction.CANCEL: (AttemptStatus.FAILED, CANCELLED),
    JobAction.RELEASE: (AttemptStatus.EXPIRED, LEASE_EXPIRED),
}


class RefusedActionError(ValueError):
    """The job does not allow the action; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class JobChange:
    """A change of a job that `JobQueue.apply` makes, if the job still has the `expected` values.

    `job`: the job as `decide` got it. `fields`: the fields to set; None to delete the job.
    """

    action: JobAction
    job: Document
    expected: Document
    fields: Document | None


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The delay before the next attempt: it doubles with each attempt, up to a cap, with jitter."""

    base_ms: int = 1_000
    cap_ms: int = 3_600_000

    def delay_ms(self, attempt_number: int, jitter: float) -> int:
        """The delay after attempt number n (1, 2, …) failed; `jitter` is in [0, 1).

        The full delay is `base_ms` * 2^(n-1), but at most `cap_ms`. A `jitter` of 0 halves it, a
        higher one shortens it less: jobs that failed together are retried at different times.
        """
        full_ms = min(self.base_ms << min(attempt_number - 1, 40), self.cap_ms)
        return round(full_ms / 2 + jitter * full_ms / 2)


def decide_change(
    action: JobAction,
    job: Document,
    value: Any,
    *,
    now: datetime,
    retry: RetryPolicy,
    jitter: float,
    reset_attempts: bool,
) -> JobChange:
    """The change that an action makes to a job; for arguments and errors see `JobQueue.decide`."""
    if job.get("status") not in ACTION_STATUSES.get(action, ()):
        raise RefusedActionError(f"it is {job.get('status')}")
    expected = _list_expected(action, job)
    if action is JobAction.DELETE:
        return JobChange(action=action, job=job, expected=expected, fields=None)
    if action is JobAction.UNDO:
        return JobChange(
            action=action, job=job, expected=expected, fields=dict(value) | {"updatedAt": now}
        )
    if reason := explain_refusal(action, job, now):
        raise RefusedActionError(reason)
    if action is JobAction.RELEASE:
        _, fields = schedule_retry(job, now, retry, jitter)
        fields["lastError"] = LEASE_EXPIRED
    else:
        fields = _decide_fields(action, job, value, now, reset_attempts=reset_attempts)
    fields["updatedAt"] = now
    return JobChange(action=action, job=job, expected=expected, fields=fields)


def schedule_retry(
    job: Document, now: datetime, retry: RetryPolicy, jitter: float, *, may_retry: bool = True
) -> tuple[JobStatus, Document]:
    """The new status, and the fields to set, of a leased job whose attempt failed or expired."""
    attempts = attempt_number(job)
    if not may_retry or attempts >= attempt_limit(job):
        return JobStatus.DLQ, make_final_fields(JobStatus.DLQ, now)
    attempts_since_reset = max(1, attempts - int(job.get("attemptsBefore") or 0))
    return JobStatus.FAILED, {
        "status": JobStatus.FAILED.value,
        "nextRunAt": now + timedelta(milliseconds=retry.delay_ms(attempts_since_reset, jitter)),
        "leasedBy": None,
        "leaseExpiresAt": None,
    }


def make_final_fields(status: JobStatus, now: datetime) -> Document:
    """The fields to set when a job gets a final status."""
    return {"status": status.value, "finishedAt": now, "leasedBy": None, "leaseExpiresAt": None}


def _list_expected(action: JobAction, job: Document) -> Document:
    """The values that the job must still have in `apply`.

    A cancel of a leased job leaves out the fields that a heartbeat changes.
    """
    names = ["_id", "status", "leasedBy", "attemptCount"]
    if action is not JobAction.CANCEL or job["status"] != JobStatus.LEASED.value:
        names += ["leaseExpiresAt", "updatedAt", "nextRunAt", "priority"]
    return {name: job.get(name) for name in names}


def _decide_fields(
    action: JobAction, job: Document, value: Any, now: datetime, *, reset_attempts: bool
) -> Document:
    """The fields to set; RefusedActionError if a new priority or nextRunAt is the present one."""
    match action:
        case JobAction.CANCEL:
            return make_final_fields(JobStatus.CANCELLED, now)
        case JobAction.RETRY:
            return _make_retry_fields(job, now, reset_attempts=reset_attempts)
        case JobAction.PRIORITIZE:
            changed: Document = {"priority": value}
        case JobAction.RUN_NOW:
            changed = {"nextRunAt": now}
        case _:
            changed = {"nextRunAt": value}
    if all(job.get(name) == new for name, new in changed.items()):
        raise RefusedActionError("it has this value already")
    return changed


def _make_retry_fields(job: Document, now: datetime, *, reset_attempts: bool) -> Document:
    """The fields to set when a job is queued again. Its attempts keep their numbers.

    The original number of attempts is always maxAttempts - attemptsBefore.
    """
    fields: Document = {
        "status": JobStatus.QUEUED.value,
        "nextRunAt": now,
        "finishedAt": None,
        "leasedBy": None,
        "leaseExpiresAt": None,
    }
    count, before = int(job.get("attemptCount") or 0), job.get("attemptsBefore") or 0
    limit = attempt_limit(job)
    if reset_attempts:
        fields |= {"maxAttempts": count + max(1, limit - before), "attemptsBefore": count}
    elif count >= limit:
        fields |= {"maxAttempts": count + 1, "attemptsBefore": before + count + 1 - limit}
    return fields


def attempt_limit(job: Document) -> int:
    """The number of attempts that a job may have: its maxAttempts, or the default."""
    limit = job.get("maxAttempts")
    return DEFAULT_MAX_ATTEMPTS if limit is None else int(limit)


def attempt_number(job: Document) -> int:
    """The number of a job's newest attempt: its attemptCount, or 1 if that is 0 or missing."""
    return int(job.get("attemptCount") or 1)


def describe_attempt_end(job: Document | None, now: datetime) -> Document:
    """The fields that record the end of an attempt, from its job, which is not leased.

    Without a job the attempt is `expired`.
    """
    if job is None:
        return {"status": AttemptStatus.EXPIRED.value, "finishedAt": now, "error": LEASE_EXPIRED}
    error = job.get("lastError")
    if job["status"] == JobStatus.SUCCEEDED.value:
        status, error = AttemptStatus.SUCCEEDED, None
    elif job["status"] == JobStatus.CANCELLED.value:  # its `lastError` is of an earlier attempt
        status, error = ATTEMPT_ENDS[JobAction.CANCEL]
    elif error == LEASE_EXPIRED:
        status = AttemptStatus.EXPIRED
    else:
        status = AttemptStatus.FAILED
    return {"status": status.value, "finishedAt": job.get("updatedAt"), "error": error}
