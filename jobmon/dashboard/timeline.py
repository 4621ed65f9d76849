"""A job's life, step by step, as the detail page tells it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobmon.domain import AttemptStatus, JobStatus
from jobmon.humanize import duration

FINISHED = (JobStatus.SUCCEEDED, JobStatus.DLQ, JobStatus.CANCELLED)
# Each may come with a stack of pages; who wants them all asks for the JSON.
MAX_ATTEMPTS = 50


@dataclass(frozen=True, kw_only=True)
class TimelineStep:
    """Something that happened to a job, or will: `at` is ISO 8601 in UTC, or None if unknown.

    `status` colours it; `wait_ms` went by before it and `run_ms` while it lasted. `aside`: the note
    stands in brackets behind the time.
    """

    name: str
    at: str | None
    status: str
    note: str = ""
    wait_ms: float | None = None
    run_ms: float | None = None
    error: dict[str, Any] | None = None
    to_come: bool = False
    alarming: bool = False
    aside: bool = False


def timeline(job: dict[str, Any], now: datetime) -> list[TimelineStep]:
    """The life of a job, given as `JobDetail` serialises it, at `now` (UTC)."""
    return [*_past(job), *_what_comes(job, now)]


def has_expired_lease(job: dict[str, Any], now: datetime) -> bool:
    """Whether a worker holds the job beyond the end of its lease."""
    expires = _moment(job["leaseExpiresAt"])
    return job["status"] == JobStatus.LEASED and expires is not None and expires < now


def is_finished(job: dict[str, Any]) -> bool:
    """Whether nothing more will happen to the job by itself."""
    return job["status"] in FINISHED


def _past(job: dict[str, Any]) -> Iterator[TimelineStep]:
    owner = f"by {job['createdBy']}" if job["createdBy"] else ""
    yield TimelineStep(name="Enqueued", at=job["createdAt"], status="queued", note=owner)
    before = job["createdAt"]
    if job["attempts"] and job["attempts"][0]["attemptNumber"] != 1:
        before = None  # there may have been others, of which nothing is told
    left_out = job["attempts"][:-MAX_ATTEMPTS]
    if left_out:
        before = left_out[-1]["finishedAt"]
        note = "not shown: see GET /jobs/{jobId}"
        yield TimelineStep(name=f"{len(left_out):,} attempts", at=None, status="", note=note)
    for attempt in job["attempts"][-MAX_ATTEMPTS:]:
        status = attempt["status"] or ""
        pause_ms = _between(before, attempt.get("eligibleAt"))
        if pause_ms:  # enqueued for later, or a retry after its backoff
            again = attempt is not job["attempts"][0]
            note = f"after {duration(pause_ms)}"
            yield TimelineStep(
                name="Due again" if again else "Due",
                at=attempt["eligibleAt"],
                status="queued",
                note=note,
            )
        yield TimelineStep(
            name=_name(attempt, is_last=attempt is job["attempts"][-1]),
            at=attempt["startedAt"],
            status=_colour(status),
            note=f"{status or 'unknown'} on {attempt['workerId'] or 'an unnamed worker'}",
            wait_ms=_wait_ms(attempt, before),
            run_ms=_not_negative(attempt["durationMs"]),
            error=attempt["error"],
        )
        before = attempt["finishedAt"]
    if job["finishedAt"]:
        names = {
            JobStatus.SUCCEEDED: "Succeeded",
            JobStatus.DLQ: "Dead",
            JobStatus.CANCELLED: "Cancelled",
        }
        name = next((word for known, word in names.items() if known == job["status"]), "Finished")
        total_ms = _between(job["createdAt"], job["finishedAt"])
        yield TimelineStep(
            name=name, at=job["finishedAt"], status=job["status"] or "", wait_ms=total_ms
        )


def _what_comes(job: dict[str, Any], now: datetime) -> Iterator[TimelineStep]:
    status, due = job["status"], job["nextRunAt"]
    if status == JobStatus.LEASED and (job["leaseExpiresAt"] or not job["attempts"]):
        expired = has_expired_lease(job, now)
        yield TimelineStep(
            name="Lease expired" if expired else "Lease expires",
            at=job["leaseExpiresAt"],
            status="dlq" if expired else "leased",
            note=job["leasedBy"] or "",
            aside=bool(job["leasedBy"]),
            to_come=not expired,
            alarming=expired,
        )
    elif status in (JobStatus.QUEUED, JobStatus.FAILED) and due:
        name = "Next retry" if status == JobStatus.FAILED else "Due"
        count, most = job["attemptCount"], job["maxAttempts"]
        number = None if count is None else count + 1
        note = f"attempt {_number(number)} of {_number(most)}" if most else ""
        yield TimelineStep(name=name, at=due, status=status, note=note, to_come=True)


def _name(attempt: dict[str, Any], *, is_last: bool) -> str:
    number = attempt["attemptNumber"]
    return "Last attempt" if number is None and is_last else f"Attempt {_number(number)}"


def _wait_ms(attempt: dict[str, Any], before: str | None) -> float | None:
    """How long it waited from when it was due, or else from what came before it."""
    told: float | None = attempt["waitMs"]
    return _between(before, attempt["startedAt"]) if told is None else told


def _not_negative(ms: float | None) -> float | None:
    """Clocks differ: what seems to end before it began took no time."""
    return None if ms is None else max(0, ms)


def _colour(status: str) -> str:
    return {AttemptStatus.RUNNING.value: "leased", AttemptStatus.EXPIRED.value: "failed"}.get(
        status, status
    )


def _number(value: Any) -> str:
    return "?" if value is None else f"{value:,}"


def _between(start: str | None, end: str | None) -> float | None:
    first, last = _moment(start), _moment(end)
    if first is None or last is None:
        return None
    return max(0.0, (last - first).total_seconds() * 1_000)


def _moment(text: str | None) -> datetime | None:
    """The instant that the JSON tells; None for what a document holds instead of a date."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
