"""Counts runs of jobs from single changes: pure functions, for queues that record no attempts."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from jobmon.collector.job_changes import JobChange
from jobmon.domain import FINAL_ATTEMPT_STATUSES, LAST_OUTCOMES, AttemptStatus, JobStatus
from jobmon.rollup.buckets import FINAL_AFTER, MINUTE, Tally
from jobmon.rollup.histogram import bucket
from jobmon.store.bson_json import read_date, to_text
from jobmon.store.labels import label, worker_label
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.repetition import Repetition, read_repetition
from jobmon.store.run_rules import RunRules

# A job's date may be this much before or after the time of its change. If it differs more, a clock
# is wrong, or an old job was imported. Minutes stay open for longer than the delay.
_MAX_DELAY = FINAL_AFTER - MINUTE
_MAX_AHEAD = MINUTE


class FinishedRun(NamedTuple):
    """A run that ended; dates are UTC. `error` is the value in the document, whole or shortened.

    `repetition`: how often its job runs; None if the job is not known to recur.
    """

    type: str
    outcome: str
    job_id: str
    finished_at: datetime
    worker: str | None = None
    attempt: int | None = None
    started_at: datetime | None = None
    error: Any = None
    repetition: Repetition | None = None


class HistoryEntry(NamedTuple):
    """What a change adds to the history at a time (UTC): a tally, and the run if one ended."""

    at: datetime
    type: str
    tally: Tally
    run: FinishedRun | None = None


@dataclass(frozen=True, kw_only=True)
class JobVersion:
    """A job as its document shows it at one moment; dates are UTC; None means unknown."""

    type: str
    status: str | None
    is_running: bool
    outcome: str | None
    started_at: datetime | None
    finished_at: datetime | None
    created_at: datetime | None
    due_at: datetime | None
    attempt: int | None
    job_id: str = ""
    worker: str | None = None
    error: Any = None
    repetition: Repetition | None = None


def read_version(evaluated: Document, mapping: FieldMapping, rules: RunRules) -> JobVersion | None:
    """The version of a job that the database `evaluated` by `rules.facts`; None if it is no job."""
    if not evaluated.get("isJob"):
        return None
    status = to_text(mapping.to_contract_status(evaluated.get("status")))
    is_running = evaluated.get("isRunning", status == JobStatus.LEASED)
    outcome = evaluated.get("outcome")
    if not rules.has_outcome:
        outcome = LAST_OUTCOMES.get(str(status))
    attempt = evaluated.get("attemptCount")
    return JobVersion(
        type=label(evaluated.get("type")),
        status=status,
        is_running=bool(is_running),
        outcome=outcome if status in rules.end_statuses or rules.has_outcome else None,
        started_at=read_date(evaluated.get("startedAt")),
        finished_at=read_date(evaluated.get("finishedAt")),
        created_at=read_date(evaluated.get("createdAt")),
        due_at=read_date(evaluated.get("nextRunAt")),
        attempt=attempt if isinstance(attempt, int) and not isinstance(attempt, bool) else None,
        job_id=label(evaluated.get("jobId")),
        worker=worker_label(evaluated.get("leasedBy")),
        error=evaluated.get("error"),
        repetition=_read_repetition(evaluated.get("repetition")),
    )


def _read_repetition(value: Any) -> Repetition | None:
    repetition = read_repetition(value) if isinstance(value, dict) else Repetition()
    return repetition if repetition.interval or repetition.time_of_day else None


def lacks_error(run: FinishedRun) -> bool:
    """Whether a run failed, and no message of its error is known."""
    error = run.error.get("message") if isinstance(run.error, dict) else run.error
    return run.outcome == AttemptStatus.FAILED and error is None


def count_change(
    change: JobChange, before: JobVersion | None, after: JobVersion | None, rules: RunRules
) -> Iterator[HistoryEntry]:
    """The entries for the activity that a change shows.

    `before` is None if the job is new, was not remembered, or its document was no job. `after` is
    None if the job was deleted, or its document is no job any more.
    """
    if change.operation == "delete":
        if before is not None and before.is_running and rules.deleted is not None:
            yield _make_run_entry(before, rules.deleted, change.at)
        return
    if after is None:
        return
    created_at = after.created_at if rules.has_creation_time else None
    if change.operation == "insert" and created_at and _is_near(created_at, change.at):
        yield HistoryEntry(created_at, after.type, Tally(enqueued=1))
    if before is not None and _is_leased_again(change, before, rules):
        expired = AttemptStatus.EXPIRED.value
        tally = Tally(outcomes=Counter([expired]))
        yield _make_run_entry(before, expired, change.at)._replace(tally=tally)
    has_ended = _has_ended(change, before, after, rules)
    ended_at = _find_end(change, after)
    if has_ended and after.outcome in FINAL_ATTEMPT_STATUSES:
        yield _make_end_entry(before or after, after, ended_at, rules)
    was_dlq = before is not None and before.status == JobStatus.DLQ
    if after.status == JobStatus.DLQ and not was_dlq and (before is not None or has_ended):
        yield HistoryEntry(ended_at, after.type, Tally(dlq=1))


def _has_ended(
    change: JobChange, before: JobVersion | None, after: JobVersion, rules: RunRules
) -> bool:
    """Whether the change ended a run, or wrote the end of a run whose start was not seen."""
    if after.is_running:
        return False
    if before is not None and before.is_running and not rules.has_own_end:
        return True
    if not any(map(change.has_written, rules.end_fields)):
        return False
    if before is not None and _lacks_end_date(before) and not rules.has_own_end:
        return False  # the end was counted with the status; this change only writes its date
    if after.finished_at is None or change.operation == "update":
        return rules.has_own_end or after.finished_at is not None
    if not _is_near(after.finished_at, change.at):
        return False  # an old job that was imported or written again
    return rules.has_own_end or before is None or before.finished_at != after.finished_at


def _lacks_end_date(before: JobVersion) -> bool:
    """Whether the last run had ended, and the job had no date of its end."""
    return not before.is_running and before.outcome is not None and before.finished_at is None


def _is_leased_again(change: JobChange, before: JobVersion, rules: RunRules) -> bool:
    return (
        before.is_running
        and rules.lease_field is not None
        and change.operation == "update"
        and change.has_written(rules.lease_field)
    )


def _find_end(change: JobChange, after: JobVersion) -> datetime:
    """When the run ended: the job's date or, without a date of this run, the change's time."""
    ended_at, started_at = after.finished_at, after.started_at
    if ended_at is None or not _is_near(ended_at, change.at):
        return change.at
    return change.at if started_at is not None and ended_at < started_at else ended_at


def _is_near(date: datetime, changed_at: datetime) -> bool:
    return changed_at - _MAX_DELAY <= date <= changed_at + _MAX_AHEAD


def _make_run_entry(job: JobVersion, outcome: str, ended_at: datetime) -> HistoryEntry:
    """The entry of the last run of a job."""
    run = FinishedRun(
        type=job.type,
        outcome=outcome,
        job_id=job.job_id,
        finished_at=ended_at,
        worker=job.worker,
        attempt=job.attempt,
        started_at=job.started_at,
        error=None if outcome == AttemptStatus.SUCCEEDED else job.error,
        repetition=job.repetition,
    )
    durations = [] if job.started_at is None else _find_bucket(job.started_at, ended_at)
    tally = Tally(outcomes=Counter([outcome]), run=Counter(durations))
    return HistoryEntry(ended_at, job.type, tally, run)


def _make_end_entry(
    before: JobVersion, after: JobVersion, ended_at: datetime, rules: RunRules
) -> HistoryEntry:
    """The entry of a run that has ended; the change may have removed its worker and its start."""
    ended = replace(
        after,
        worker=after.worker or before.worker,
        started_at=after.started_at or before.started_at,
    )
    entry = _make_run_entry(ended, str(after.outcome), ended_at)
    due_dates = [date for date in (after.created_at, before.due_at) if date is not None]
    if rules.has_wait and after.attempt == 1 and due_dates and ended.started_at is not None:
        entry.tally.wait.update(_find_bucket(max(due_dates), ended.started_at))
    return entry


def find_lost_run(
    before: JobVersion | None, after: JobVersion | None, rules: RunRules
) -> FinishedRun | None:
    """The run of a recurring job that never ended, if `after` shows that the next run has started.

    Its worker died and its lease expired; no change reports that. With a lease field, the run is
    among the entries of `count_change`.
    """
    if rules.lease_field is not None:
        return None
    if before is None or after is None or not (before.is_running and after.is_running):
        return None
    lost_start, next_start = before.started_at, after.started_at
    if before.repetition is None or lost_start is None or next_start is None:
        return None
    if next_start <= lost_start:
        return None
    return _make_run_entry(before, AttemptStatus.EXPIRED.value, next_start).run


def _find_bucket(start: datetime, end: datetime) -> list[int]:
    """The histogram bucket of the time from start to end, as a list; empty for a negative time."""
    return [bucket((end - start) / timedelta(milliseconds=1))] if start <= end else []
