"""Jobs and attempts as the pages show them: typed values, without secrets."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from jobmon.api.answers import measure_attempt
from jobmon.api.fields import (
    clean_date,
    clean_error,
    clean_free_text,
    clean_number,
    clean_text,
    redact,
)
from jobmon.domain import JobStatus
from jobmon.store.mapping import Document

Date = datetime | str | None  # a text if the value in the document is not a date
Error = dict[str, str | None] | None
Number = int | float | None


def _show_error(document: Document, field: str, *, with_stack: bool = True) -> Error:
    """The error in a field as `{code, message}`, `with_stack` also `stack` and `group`; or None."""
    error = clean_error(document.get(field), stack=with_stack)
    return {**error, "group": document.get("errorGroup")} if error and with_stack else error


@dataclass(frozen=True, kw_only=True)
class AttemptView:
    """An attempt; unknown values are None."""

    number: Number = None
    status: str | None = None
    worker: str | None = None
    eligible_at: Date = None
    started_at: Date = None
    finished_at: Date = None
    wait_ms: Number = None
    run_ms: Number = None
    error: Error = None

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """The attempt in a document of the store."""
        attempt = measure_attempt(document)
        return cls(
            number=clean_number(attempt.get("attemptNumber")),
            status=clean_text(attempt.get("status")),
            worker=clean_free_text(attempt.get("workerId")),
            eligible_at=clean_date(attempt.get("eligibleAt")),
            started_at=clean_date(attempt.get("startedAt")),
            finished_at=clean_date(attempt.get("finishedAt")),
            wait_ms=attempt["waitMs"],
            run_ms=attempt["durationMs"],
            error=_show_error(attempt, "error"),
        )


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job; only for the job's own page, the fields from `payload` on and the stack are set."""

    id: str | None = None
    type: str | None = None
    status: str | None = None
    priority: Number = None
    owner: str | None = None
    created_at: Date = None
    updated_at: Date = None
    next_run_at: Date = None
    max_attempts: Number = None
    attempt_count: Number = 0
    leased_by: str | None = None
    lease_expires_at: Date = None
    finished_at: Date = None
    longest_run_ms: Number = None  # only in a list in the order of the longest runs
    last_error: Error = None
    payload: Any = None
    attempts: list[AttemptView] = field(default_factory=list)
    recurring: bool | None = None  # None if the queue has no recurring jobs, or it is unknown
    repetition: dict[str, Any] | None = None  # as the API returns it
    missing_attempts: str | None = None  # why attempts are missing; None if all are known
    cut_payload: str | None = None  # why a part of the payload is missing; None if it is complete

    @property
    def attempts_limit(self) -> Number:
        """`max_attempts`; None if more attempts were started, for instance by a requested retry."""
        limit, started = self.max_attempts, self.attempt_count
        return None if limit is not None and started is not None and started > limit else limit

    def has_expired_lease(self, now: datetime) -> bool:
        """Whether the job is leased and the lease has expired."""
        end = self.lease_expires_at
        return self.status == JobStatus.LEASED and isinstance(end, datetime) and end <= now

    @classmethod
    def from_document(cls, job: Document, *, detail: bool = False) -> Self:
        """The job in a document of the store; `detail` adds what only the job's page shows."""
        repetition = job.get("repetition") if detail else None
        return cls(
            id=clean_text(job.get("jobId")),
            type=clean_text(job.get("type")),
            status=clean_text(job.get("status")),
            priority=clean_number(job.get("priority")),
            owner=clean_text(job.get("createdBy")),
            created_at=clean_date(job.get("createdAt")),
            updated_at=clean_date(job.get("updatedAt")),
            next_run_at=clean_date(job.get("nextRunAt")),
            max_attempts=clean_number(job.get("maxAttempts")),
            attempt_count=clean_number(job.get("attemptCount", 0)),
            leased_by=clean_free_text(job.get("leasedBy")),
            lease_expires_at=clean_date(job.get("leaseExpiresAt")),
            finished_at=clean_date(job.get("finishedAt")),
            longest_run_ms=clean_number(job.get("durationMs")),
            last_error=_show_error(job, "lastError", with_stack=detail),
            payload=redact(job.get("payload")) if detail else None,
            attempts=list(map(AttemptView.from_document, job["attempts"])) if detail else [],
            recurring=job.get("isRecurring") if detail else None,
            repetition=None if repetition is None else repetition.to_answer(),
            missing_attempts=job.get("reasons", {}).get("attempts") if detail else None,
            cut_payload=job.get("reasons", {}).get("payload") if detail else None,
        )
