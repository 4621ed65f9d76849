"""The timeline of a job: its past and its next step, for its page."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobmon.dashboard.job_view import AttemptView, Date, Error, JobView
from jobmon.domain import FINAL_STATUSES, WAITING_STATUSES, AttemptStatus, JobStatus
from jobmon.humanize import duration

# An attempt may have pages of stack trace; the JSON API has all attempts.
MAX_ATTEMPTS = 50


@dataclass(frozen=True, kw_only=True)
class TimelineStep:
    """A past or future step of a job; `at` is None if its time is unknown.

    `status` sets the colour. Durations are in milliseconds: `wait_ms` before an attempt, `run_ms`
    of it, and `total_ms` from creation to the end. With `note_last` the note follows the time.
    """

    name: str
    at: Date
    status: str
    note: str = ""
    wait_ms: float | None = None
    run_ms: float | None = None
    total_ms: float | None = None
    error: Error = None
    to_come: bool = False
    alarming: bool = False
    note_last: bool = False


def timeline(job: JobView, now: datetime) -> list[TimelineStep]:
    """The steps of a job at the aware time `now`."""
    return [*_list_past(job), *_list_next(job, now)]


def has_expired_lease(job: JobView, now: datetime) -> bool:
    """Whether a worker holds the job although its lease has expired."""
    expires = job.lease_expires_at
    return job.status == JobStatus.LEASED and isinstance(expires, datetime) and expires < now


def is_finished(job: JobView) -> bool:
    """Whether the job has a final status."""
    return job.status in FINAL_STATUSES


def _list_past(job: JobView) -> Iterator[TimelineStep]:
    owner = f"by {job.owner}" if job.owner else ""
    yield TimelineStep(name="Enqueued", at=job.created_at, status="queued", note=owner)
    before = job.created_at
    if job.attempts and job.attempts[0].number != 1:
        before = None  # earlier attempts are not recorded
    if job.missing_attempts:
        missing = int(job.attempt_count or 0) - len(job.attempts)
        name = f"{missing:,} attempt{'s' if missing > 1 else ''}" if missing > 0 else "Earlier runs"
        yield TimelineStep(name=name, at=None, status="", note=job.missing_attempts)
    omitted = job.attempts[:-MAX_ATTEMPTS]
    if omitted:
        before = omitted[-1].finished_at
        note = "not shown: see GET /jobs/{jobId}"
        yield TimelineStep(name=f"{len(omitted):,} attempts", at=None, status="", note=note)
    for attempt in job.attempts[-MAX_ATTEMPTS:]:
        status = attempt.status or ""
        pause_ms = _measure_ms(before, attempt.eligible_at)
        if pause_ms:  # enqueued for later, or a retry after its backoff
            yield TimelineStep(
                name="Due" if attempt is job.attempts[0] else "Due again",
                at=attempt.eligible_at,
                status="queued",
                note=f"after {duration(pause_ms)}",
            )
        wait_ms = attempt.wait_ms
        # A program with recurring jobs overwrites the time when a run was due.
        if wait_ms is None and job.recurring is None:
            wait_ms = _measure_ms(before, attempt.started_at)
        yield TimelineStep(
            name=_name_attempt(attempt, is_last=attempt is job.attempts[-1]),
            at=attempt.started_at,
            status=_COLOURS.get(status, status),
            note=f"{status or 'unknown'} on {attempt.worker or 'an unnamed worker'}",
            wait_ms=wait_ms,
            # The clocks of writers differ, but a duration is never negative.
            run_ms=None if attempt.run_ms is None else max(0, attempt.run_ms),
            error=attempt.error,
        )
        before = attempt.finished_at
    if job.finished_at:
        yield TimelineStep(
            name=_FINAL_NAMES.get(job.status or "", "Finished"),
            at=job.finished_at,
            status=job.status or "",
            total_ms=_measure_ms(job.created_at, job.finished_at),
        )


def _list_next(job: JobView, now: datetime) -> Iterator[TimelineStep]:
    if job.status == JobStatus.LEASED and (job.lease_expires_at or not job.attempts):
        expired = has_expired_lease(job, now)
        yield TimelineStep(
            name="Lease expired" if expired else "Lease expires",
            at=job.lease_expires_at,
            status="dlq" if expired else "leased",
            note=job.leased_by or "",
            note_last=bool(job.leased_by),
            to_come=not expired,
            alarming=expired,
        )
    elif job.status in WAITING_STATUSES and job.next_run_at:
        count = job.attempt_count
        number = None if count is None else count + 1
        most = job.max_attempts
        yield TimelineStep(
            name="Next retry" if job.status == JobStatus.FAILED else "Due",
            at=job.next_run_at,
            status=job.status,
            note=f"attempt {_format_number(number)} of {_format_number(most)}" if most else "",
            to_come=True,
        )


_FINAL_NAMES: dict[str, str] = {
    JobStatus.SUCCEEDED.value: "Succeeded",
    JobStatus.DLQ.value: "Dead",
    JobStatus.CANCELLED.value: "Cancelled",
}
# Status of an attempt -> status of a job with the same colour.
_COLOURS: dict[str, str] = {
    AttemptStatus.RUNNING.value: "leased",
    AttemptStatus.EXPIRED.value: "failed",
}


def _name_attempt(attempt: AttemptView, *, is_last: bool) -> str:
    if attempt.number is None and is_last:
        return "Last attempt"
    return f"Attempt {_format_number(attempt.number)}"


def _format_number(value: Any) -> str:
    return "?" if value is None else f"{value:,}"


def _measure_ms(start: Date, end: Date) -> float | None:
    if isinstance(start, datetime) and isinstance(end, datetime):
        return max(0.0, (end - start).total_seconds() * 1_000)
    return None
