"""Missed and overdue runs of recurring jobs: catches a missed run that is not reported, and a run
that is reported as missed although the job may have run."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.diagnosis.recurrence import (
    MAX_RUNS,
    MISSED,
    RUNS_NOT_STORED,
    JobState,
    Recurrence,
    Run,
    summarize_recurrence,
)
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.store.repetition import Repetition

from ..conftest import NOW

MINUTE = timedelta(minutes=1)
EVERY_5 = Repetition(interval="5 minutes")
CRON_5 = Repetition(interval="*/5 * * * *")


def run(start_min: float, status: str = "succeeded", repetition: Repetition | None = None) -> Run:
    started = NOW + start_min * MINUTE
    ended = started + timedelta(seconds=1)
    return Run(status=status, started_at=started, ended_at=ended, repetition=repetition)


def summarize(
    *runs: float | Run, repetition: Repetition = EVERY_5, now: float = 0, **changes: Any
) -> Recurrence:
    """The summary at minute `now`; `runs` are runs, or the minutes at which runs started."""
    all_runs = [value if isinstance(value, Run) else run(value) for value in runs]
    gaps = changes.pop("gaps", ())
    no_history = changes.pop("no_history", "")
    state = {"status": "queued", "next_run_at": NOW + (now + 5) * MINUTE} | changes
    job = JobState(repetition=repetition, **state)
    return summarize_recurrence(job, all_runs, gaps, NOW + now * MINUTE, no_history=no_history)


def list_missed(summary: Recurrence) -> list[tuple[float, float, int]]:
    """The missed runs: the first and the last due time in minutes, and the number of runs."""

    def to_minutes(moment: datetime | None) -> float:
        assert moment is not None
        return (moment - NOW) / MINUTE

    return [
        (to_minutes(entry.due), to_minutes(entry.last_due), entry.count)
        for entry in summary.runs
        if entry.status == MISSED
    ]


@pytest.mark.parametrize("repetition", [EVERY_5, CRON_5])
def test_missed_runs_are_listed_between_the_other_runs(repetition: Repetition) -> None:
    summary = summarize(0.01, 5.01, 15.01, 40.01, repetition=repetition, now=42)
    first = {EVERY_5: 10.01, CRON_5: 10}[repetition]
    assert list_missed(summary) == [
        (pytest.approx(first), pytest.approx(first), 1),
        (pytest.approx(first + 10), pytest.approx(first + 25), 4),
    ]
    assert summary.missed == 5
    statuses = ["succeeded", "succeeded", MISSED, "succeeded", MISSED, "succeeded"]
    assert [entry.status for entry in summary.runs] == statuses
    assert summary.last_run == run(40.01)


@given(st.lists(st.booleans(), min_size=1, max_size=18), st.floats(0, 4))
def test_every_due_time_without_a_run_is_a_missed_run(has_run: list[bool], late: float) -> None:
    """The job runs `late` minutes late; it always runs at its first and its last due time."""
    has_run = [True, *has_run, True]
    minutes = [5 * index + late for index, is_run in enumerate(has_run) if is_run]
    summary = summarize(*minutes, repetition=CRON_5, now=200)
    assert summary.missed == has_run.count(False)


def test_late_run_is_not_missed() -> None:
    assert summarize(0, 5, 14.9, now=15).missed == 0
    assert summarize(0, 5, 14, repetition=CRON_5, now=15).missed == 0
    # The worker's clock is behind: by this clock two runs started before they were due.
    assert summarize(0, 4.9, 10, 14.9, repetition=CRON_5, now=15).missed == 0


def test_waiting_job_past_its_time_is_overdue_and_then_missed() -> None:
    due = NOW + 5 * MINUTE
    assert summarize(0, now=5.5, next_run_at=due).overdue_since is None
    summary = summarize(0, now=7, next_run_at=due)
    assert (summary.overdue_since, summary.missed) == (due, 0)
    summary = summarize(0, now=17, next_run_at=due)
    assert (summary.overdue_since, list_missed(summary)) == (due, [(5, 10, 2)])
    # Shortly before minute 20, the run of minute 15 is overdue, but not missed yet.
    summary = summarize(0, now=19.9, next_run_at=due, repetition=CRON_5)
    assert list_missed(summary) == [(5, 10, 2)]


@pytest.mark.parametrize("status", ["leased", "disabled", "succeeded", None])
def test_job_that_does_not_wait_is_not_overdue(status: str | None) -> None:
    summary = summarize(0, now=60, next_run_at=NOW + 5 * MINUTE, status=status)
    assert (summary.overdue_since, summary.missed) == (None, 0)


def test_no_run_is_missed_during_a_gap() -> None:
    def gap(start: float | None, end: float | None) -> Gap:
        moments = (None if value is None else NOW + value * MINUTE for value in (start, end))
        return Gap(start=next(moments), end=next(moments), reason=GapReason.STREAM_LOST)

    assert summarize(0, 20, 40, now=41).missed == 6
    assert summarize(0, 20, 40, now=41, gaps=[gap(5, 6)]).missed == 3
    assert summarize(0, 20, 40, now=41, gaps=[gap(None, 1)]).missed == 3
    assert summarize(0, 20, 40, now=41, gaps=[gap(1, None)]).missed == 0


def test_no_run_is_missed_before_a_run_that_follows_unknown_runs() -> None:
    later = replace(run(60), follows_unknown=True)
    summary = summarize(0, 5, 15, later, now=61)
    assert (summary.missed, summary.missed_reason) == (1, RUNS_NOT_STORED)  # at least one
    assert summarize(0, 5, 15, run(60), now=61).missed == 1 + 8


def test_missed_runs_are_unknown_if_due_runs_are_not_stored_yet() -> None:
    """Catches a 0 while the collector does not count: nothing shows whether the runs took place."""
    summary = summarize(0, 5, replace(run(60), follows_unknown=True), now=61)
    assert (summary.missed, summary.missed_reason) == (None, RUNS_NOT_STORED)
    assert summarize(0, 5, replace(run(10), follows_unknown=True), now=11).missed == 0
    often = Repetition(interval="1 second")
    newest = replace(run(0.5), follows_unknown=True)
    assert summarize(0, newest, now=1, repetition=often).missed == 0


def test_no_run_is_missed_between_two_runs_with_different_intervals() -> None:
    hourly = Repetition(interval="1 hour")
    runs = [run(minute, repetition=hourly) for minute in (-120, -60, 0)]
    runs += [run(minute, repetition=EVERY_5) for minute in (60, 65, 75)]
    summary = summarize(*runs, now=76)
    assert list_missed(summary) == [(70, 70, 1)]


def test_without_history_or_due_times_missed_runs_are_unknown_with_a_reason() -> None:
    summary = summarize(0, 60, now=61, no_history="no collector")
    assert (summary.missed, summary.missed_reason) == (None, "no collector")
    summary = summarize(0, 60, now=61, repetition=Repetition(interval="every full moon"))
    assert summary.missed is None
    assert summary.missed_reason
    summary = summarize(now=1)
    assert (summary.missed, summary.last_run, summary.runs) == (0, None, ())


def test_newest_runs_are_kept_and_many_missed_runs_are_one_entry() -> None:
    summary = summarize(*range(0, 500, 5), now=500)
    assert len(summary.runs) == MAX_RUNS
    assert summary.runs[-1].started_at == NOW + 495 * MINUTE
    summary = summarize(0, 100_000, repetition=CRON_5, now=100_001)
    assert [entry.status for entry in summary.runs] == ["succeeded", MISSED, "succeeded"]
    assert summary.missed == 1_000
