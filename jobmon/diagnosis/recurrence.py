"""Summarizes the runs of a recurring job: how they ended, missed runs, and an overdue run.

Pure functions of the runs and the job's state. A run was missed if it was due by the job's interval
and did not start before the next run started or became overdue. No run counts as missed in a time
in which runs may be unknown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

from jobmon.diagnosis.attention import MIN_OVERDUE
from jobmon.diagnosis.repetition import Timetable, describe_repetition, parse_timetable
from jobmon.domain import WAITING_STATUSES
from jobmon.rollup.gaps import Gap
from jobmon.store.repetition import Repetition

MISSED = "missed"
MAX_RUNS = 20  # the newest runs that are read, and the entries of `Recurrence.runs`
RUNS_NOT_STORED = "the collector has not stored the runs before the last one"
MAX_COUNTED = 1_000  # at most so many missed runs are counted between two runs


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of a recurring job, or `count` missed runs that were due from `due` to `last_due`.

    `status` is the status of an attempt, or `missed`; dates are UTC, None where unknown.
    `repetition` is how often the job was to run then; None if that was not recorded.
    `follows_unknown`: other runs may have taken place between the previous run and this run.
    """

    status: str | None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    code: str | None = None
    message: str | None = None
    repetition: Repetition | None = None
    due: datetime | None = None
    last_due: datetime | None = None
    count: int = 1
    follows_unknown: bool = False


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """How often a job runs, and its newest runs in order, with missed runs between them.

    `missed` counts the missed runs after the oldest of the newest 20 runs, even those that are not
    in `runs`. With a `missed_reason` it is a lower bound, or None if missed runs are unknown.
    `overdue_since`: since when a waiting job has been due.
    """

    interval_text: str
    runs: tuple[Run, ...]
    last_run: Run | None
    missed: int | None
    missed_reason: str = ""
    overdue_since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class JobState:
    """The present state of a recurring job, with its aware nextRunAt."""

    repetition: Repetition
    status: str | None
    next_run_at: datetime | None


def summarize_recurrence(
    job: JobState, runs: Iterable[Run], gaps: Sequence[Gap], now: datetime, *, no_history: str = ""
) -> Recurrence:
    """The recurrence of a job at `now`, by its newest runs.

    `runs`: the oldest first. `gaps`: times in which runs may be unknown. `no_history`: why only the
    last run is known; empty if earlier runs are known.
    """
    newest_runs = list(runs)[-MAX_RUNS:]
    overdue = _find_overdue(job, now)
    recurrence = Recurrence(
        interval_text=describe_repetition(job.repetition),
        runs=tuple(newest_runs),
        last_run=newest_runs[-1] if newest_runs else None,
        missed=None,
        overdue_since=overdue,
    )
    timetable = parse_timetable(job.repetition)
    if reason := no_history or _explain_unknown_missed(job.repetition, timetable):
        return replace(recurrence, missed_reason=reason)
    all_runs: list[Run] = []
    for run, next_run in pairwise([*newest_runs, None]):
        if run is not None:
            all_runs.append(run)
            all_runs += _find_missed(run, next_run, job, gaps, now if overdue else None)
    recurrence = replace(recurrence, runs=tuple(all_runs[-MAX_RUNS:]))
    missed = sum(run.count for run in all_runs if run.status == MISSED)
    if any(_may_lack_runs(*pair, job, gaps) for pair in pairwise(newest_runs)):
        return replace(recurrence, missed=missed or None, missed_reason=RUNS_NOT_STORED)
    return replace(recurrence, missed=missed)


def _explain_unknown_missed(repetition: Repetition, timetable: Timetable | None) -> str:
    """Why missed runs cannot be counted; empty if they can."""
    if repetition.has_exceptions:
        return "the job has days to skip, or a first or last date"
    if timetable is None:
        return "it is unknown when the job was due: its interval cannot be computed"
    return ""


def _may_lack_runs(run: Run, next_run: Run, job: JobState, gaps: Sequence[Gap]) -> bool:
    """Whether runs were due in a minute or more before a run that may follow unknown runs."""
    start, end = run.started_at, next_run.started_at
    if not next_run.follows_unknown or start is None or end is None or end - start < MIN_OVERDUE:
        return False
    return bool(_find_missed(run, replace(next_run, follows_unknown=False), job, gaps, None))


def _find_overdue(job: JobState, now: datetime) -> datetime | None:
    due = job.next_run_at
    if due is None or job.status not in WAITING_STATUSES or now - due < MIN_OVERDUE:
        return None
    return due


def _find_missed(
    run: Run, next_run: Run | None, job: JobState, gaps: Sequence[Gap], now: datetime | None
) -> list[Run]:
    """The missed runs between two runs, or after the last run: empty, or one `Run` with a `count`.

    `now` is None unless the job is overdue.
    """
    repetition = run.repetition or job.repetition
    start = run.started_at
    end = now if next_run is None else next_run.started_at
    next_repetition = (next_run.repetition if next_run else None) or job.repetition
    timetable = parse_timetable(repetition)
    if start is None or end is None or timetable is None or start >= end:
        return []
    if next_repetition != repetition or (next_run is not None and next_run.follows_unknown):
        return []
    if any(gap.clip(start, end) for gap in gaps):
        return []
    start += timetable.slack
    if next_run is not None:
        end += timetable.slack
    # The last due time belongs to the next run or to the overdue run, which is not missed.
    count = timetable.count_due(start, end, MAX_COUNTED + 1) - 1
    if count < 1:
        return []
    due_times = timetable.list_due(start, end, count)
    return [Run(status=MISSED, due=due_times[0], last_due=due_times[-1], count=count)]
