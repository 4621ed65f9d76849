"""The timeline of a job for its page: its next step, then its past steps, the newest first."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from jobmon.actions.catalog import ACTIONS
from jobmon.actions.records import Result
from jobmon.dashboard.formatting import capitalize_first
from jobmon.dashboard.job_view import AttemptView, Date, Error, JobView
from jobmon.diagnosis.message_pattern import mask_message
from jobmon.domain import FINAL_STATUSES, WAITING_STATUSES, AttemptStatus, JobStatus

# The page shows only the newest attempts, because each can have a long stack. The API has all.
MAX_ATTEMPTS = 50
COMPARED_CHARACTERS = 1_000  # of the error messages of successive attempts


@dataclass(frozen=True, kw_only=True)
class TimelineStep:
    """A past or future step of a job; `at` is None if its time is unknown.

    `status` sets the colour, `key` stays the same while the page is updated. Durations are in
    milliseconds: an attempt was due after `delay_ms`, then waited `wait_ms` and ran `run_ms`;
    `total_ms` is from creation to the end. `outcome` is the status of an attempt, `worker` the
    worker that runs or ran it. A step can stand for several attempts (`folded`) that have the same
    outcome and, apart from variable parts of the message, the same error. Its `error` is then that
    of the newest attempt.
    """

    key: str
    name: str
    at: Date
    status: str
    outcome: str = ""
    note: str = ""
    delay_ms: float | None = None
    wait_ms: float | None = None
    run_ms: float | None = None
    total_ms: float | None = None
    error: Error = None
    is_future: bool = False
    is_alarming: bool = False
    worker: str | None = None
    folded: tuple["TimelineStep", ...] = ()


def make_timeline(job: JobView, now: datetime) -> list[TimelineStep]:
    """The steps of a job at the aware time `now`, the newest first.

    Successive attempts with the same outcome and error are one step; the newest attempt is always a
    step of its own.
    """
    attempts = list(_list_attempts(job))[::-1]
    shown = [*attempts[:1], *_fold(attempts[1:])]
    return [*_list_next(job, now), *_list_end(job), *shown, *_list_start(job)]


def add_actions(steps: list[TimelineStep], done: Iterable[Mapping[str, Any]]) -> list[TimelineStep]:
    """The steps, with a step at the right place for each action whose result is `done`.

    `done`: the fields of each `DoneAction`. For an action that ended the job, the step of the end
    gets a note instead.
    """
    merged = list(steps)
    for action in done:
        if action["result"] != Result.DONE:
            continue
        author = f"by {action['by']}" if action["by"] else ""
        step = TimelineStep(
            key=f"action-{action['requestId']}",
            name=capitalize_first(ACTIONS[action["action"]].done),
            at=action["at"],
            status="other",
            note=": ".join(filter(None, (author, action["reason"]))),
        )
        index = _find_index(merged, action["at"])
        if _is_end(step, merged[index : index + 1]):
            merged[index] = replace(merged[index], note=step.note)
        else:
            merged.insert(index, step)
    return merged


def _is_end(action: TimelineStep, older: list[TimelineStep]) -> bool:
    """Whether the next older step, if any, is the end that this action (a cancellation) caused."""
    return any(step.key == "end" and step.name == action.name and not step.note for step in older)


def _find_index(steps: list[TimelineStep], at: datetime) -> int:
    """The index of the newest past step that is not later than `at`, or else after all steps."""
    for index, step in enumerate(steps):
        if not step.is_future and isinstance(step.at, datetime) and step.at <= at:
            return index
    return len(steps)


def is_finished(job: JobView) -> bool:
    """Whether the job has a final status."""
    return job.status in FINAL_STATUSES


def _list_attempts(job: JobView) -> Iterator[TimelineStep]:
    """The newest attempts, the oldest of them first."""
    waiting_since = job.created_at
    if job.attempts and job.attempts[0].number != 1:
        waiting_since = None  # earlier attempts are not recorded
    if omitted := job.attempts[:-MAX_ATTEMPTS]:
        waiting_since = omitted[-1].finished_at
    shown = job.attempts[-MAX_ATTEMPTS:]
    for position, attempt in enumerate(shown, start=len(omitted) + 1):
        status = attempt.status or ""
        wait_ms = attempt.wait_ms
        # In a queue with recurring jobs, each run overwrites the time when the last run was due.
        if wait_ms is None and job.recurring is None:
            wait_ms = _measure_ms(waiting_since, attempt.started_at)
        yield TimelineStep(
            key=f"attempt-{position}",
            name=_name_attempt(attempt, is_last=attempt is shown[-1]),
            at=attempt.started_at,
            status=COLOURS.get(status, status),
            outcome=status or "unknown",
            note=f"{status or 'unknown'} on{'' if attempt.worker else ' an unnamed worker'}",
            worker=attempt.worker,
            # A job that was enqueued for later, or a retry after a backoff.
            delay_ms=_measure_ms(waiting_since, attempt.eligible_at) or None,
            wait_ms=wait_ms,
            # The clocks of the machines differ, but no duration is negative.
            run_ms=None if attempt.run_ms is None else max(0, attempt.run_ms),
            error=attempt.error,
        )
        waiting_since = attempt.finished_at


def _fold(attempts: list[TimelineStep]) -> Iterator[TimelineStep]:
    """The attempts, newest first; successive attempts with the same outcome and error are one."""
    for (outcome, error), group in groupby(attempts, key=_identify_outcome):
        newest, *older = steps = list(group)
        if not older:
            yield newest
            continue
        first, last = (step.name.removeprefix("Attempt ") for step in (older[-1], newest))
        has_numbers = "?" not in (first, last)
        yield replace(
            newest,
            key=f"{older[-1].key}-and-after",
            name=f"Attempts {first} to {last}" if has_numbers else f"{len(steps)} attempts",
            note="the same error" if error else f"all {outcome}",
            worker=None,
            delay_ms=None,
            wait_ms=None,
            run_ms=None,
            folded=tuple(steps),
        )


def _identify_outcome(step: TimelineStep) -> tuple[str, tuple[str | None, str] | None]:
    """The outcome, and the code and message of the error, without the message's variable parts."""
    error = step.error
    if error is None:
        return step.outcome, None
    message = (error["message"] or "")[:COMPARED_CHARACTERS]
    return step.outcome, (error["code"], mask_message(message))


def _list_start(job: JobView) -> Iterator[TimelineStep]:
    if omitted := job.attempts[:-MAX_ATTEMPTS]:
        note = "not shown: see GET /jobs/{jobId}"
        name = f"{len(omitted):,} attempts"
        yield TimelineStep(key="omitted", name=name, at=None, status="", note=note)
    if job.missing_attempts:
        missing = int(job.attempt_count or 0) - len(job.attempts)
        name = f"{missing:,} attempt{'s' if missing > 1 else ''}" if missing > 0 else "Earlier runs"
        note = job.missing_attempts
        yield TimelineStep(key="missing", name=name, at=None, status="", note=note)
    owner = f"by {job.owner}" if job.owner else ""
    yield TimelineStep(key="start", name="Enqueued", at=job.created_at, status="queued", note=owner)


def _list_end(job: JobView) -> Iterator[TimelineStep]:
    if job.finished_at:
        yield TimelineStep(
            key="end",
            name=_FINAL_NAMES.get(job.status or "", "Finished"),
            at=job.finished_at,
            status=job.status or "",
            total_ms=_measure_ms(job.created_at, job.finished_at),
        )


def _list_next(job: JobView, now: datetime) -> Iterator[TimelineStep]:
    if job.status == JobStatus.LEASED and (job.lease_expires_at or not job.attempts):
        is_expired = job.has_expired_lease(now)
        yield TimelineStep(
            key="next",
            name="Lease expired" if is_expired else "Lease expires",
            at=job.lease_expires_at,
            status="dlq" if is_expired else "leased",
            worker=job.leased_by,
            is_future=not is_expired,
            is_alarming=is_expired,
        )
    elif job.status in WAITING_STATUSES and job.next_run_at:
        count, limit = job.attempt_count, job.max_attempts
        next_number = None if count is None else count + 1
        is_within_limit = next_number is None or (limit or 0) >= next_number
        of_limit = f" of {_format_number(limit)}" if is_within_limit else ""
        yield TimelineStep(
            key="next",
            name="Next retry" if job.status == JobStatus.FAILED else "Due",
            at=job.next_run_at,
            status=job.status,
            note=f"attempt {_format_number(next_number)}{of_limit}" if limit else "",
            is_future=True,
        )


_FINAL_NAMES: dict[str, str] = {
    JobStatus.SUCCEEDED.value: "Succeeded",
    JobStatus.DLQ.value: "Dead",
    JobStatus.CANCELLED.value: "Cancelled",
}
# By the status of an attempt, the job status that has the same colour; other statuses keep theirs.
COLOURS: dict[str, str] = {
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
