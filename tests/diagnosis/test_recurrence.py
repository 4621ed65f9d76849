"""What is concluded from the runs of recurring jobs: catches a missed run that is not reported, and
a run that is reported as missed although it may have taken place."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.diagnosis.recurrence import (
    MAX_RUNS,
    MISSED,
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


def run(minutes: float, status: str = "succeeded", repetition: Repetition | None = None) -> Run:
    started = NOW + minutes * MINUTE
    ended = started + timedelta(seconds=1)
    return Run(status=status, started_at=started, ended_at=ended, repetition=repetition)


def concluded(
    *minutes: float | Run, repetition: Repetition = EVERY_5, now: float = 0, **given: Any
) -> Recurrence:
    """The conclusion at `now` minutes; by default the next run is due five minutes later."""
    runs = [at if isinstance(at, Run) else run(at) for at in minutes]
    gaps = given.pop("gaps", ())
    no_history = given.pop("no_history", "")
    state = {"status": "queued", "next_run_at": NOW + (now + 5) * MINUTE} | given
    job = JobState(repetition=repetition, **state)
    return summarize_recurrence(job, runs, gaps, NOW + now * MINUTE, no_history=no_history)


def missed(found: Recurrence) -> list[tuple[float, float, int]]:
    """The missed runs in minutes: the first, the last, and how many."""

    def minutes(moment: datetime | None) -> float:
        assert moment is not None
        return (moment - NOW) / MINUTE

    return [
        (minutes(each.due), minutes(each.last_due), each.count)
        for each in found.runs
        if each.status == MISSED
    ]


@pytest.mark.parametrize("repetition", [EVERY_5, CRON_5])
def test_missed_runs_are_between_the_others(repetition: Repetition) -> None:
    found = concluded(0.01, 5.01, 15.01, 40.01, repetition=repetition, now=42)
    first = {EVERY_5: 10.01, CRON_5: 10}[repetition]
    assert missed(found) == [
        (pytest.approx(first), pytest.approx(first), 1),
        (pytest.approx(first + 10), pytest.approx(first + 25), 4),
    ]
    assert found.missed == 5
    statuses = ["succeeded", "succeeded", MISSED, "succeeded", MISSED, "succeeded"]
    assert [each.status for each in found.runs] == statuses
    assert found.last_run == run(40.01)


@given(st.lists(st.booleans(), min_size=1, max_size=18), st.floats(0, 4))
def test_runs_and_missed_runs_add_up_to_all_due_times(ran: list[bool], late: float) -> None:
    """The job runs up to four minutes late, and for its first and last due time in any case."""
    due = [True, *ran, True]
    minutes = [5 * number + late for number, is_run in enumerate(due) if is_run]
    found = concluded(*minutes, repetition=CRON_5, now=200)
    assert found.missed == due.count(False)


def test_late_run_is_not_missed() -> None:
    assert concluded(0, 5, 14.9, now=15).missed == 0
    assert concluded(0, 5, 14, repetition=CRON_5, now=15).missed == 0
    # Its worker's clock is behind: it started before it was due.
    assert concluded(0, 4.9, 10, 14.9, repetition=CRON_5, now=15).missed == 0


def test_waiting_job_past_its_time_is_overdue_and_then_missed() -> None:
    due = NOW + 5 * MINUTE
    assert concluded(0, now=5.5, next_run_at=due).overdue_since is None
    found = concluded(0, now=7, next_run_at=due)
    assert (found.overdue_since, found.missed) == (due, 0)
    found = concluded(0, now=17, next_run_at=due)
    assert (found.overdue_since, missed(found)) == (due, [(5, 10, 2)])


@pytest.mark.parametrize("status", ["leased", "disabled", "succeeded", None])
def test_job_that_does_not_wait_is_not_overdue(status: str | None) -> None:
    found = concluded(0, now=60, next_run_at=NOW + 5 * MINUTE, status=status)
    assert (found.overdue_since, found.missed) == (None, 0)


def test_no_run_is_missed_in_a_time_in_which_runs_may_be_unknown() -> None:
    def gap(start: float | None, end: float | None) -> Gap:
        moments = (None if at is None else NOW + at * MINUTE for at in (start, end))
        return Gap(start=next(moments), end=next(moments), reason=GapReason.STREAM_LOST)

    assert concluded(0, 20, 40, now=41).missed == 6
    assert concluded(0, 20, 40, now=41, gaps=[gap(5, 6)]).missed == 3
    assert concluded(0, 20, 40, now=41, gaps=[gap(None, 1)]).missed == 3
    assert concluded(0, 20, 40, now=41, gaps=[gap(1, None)]).missed == 0


def test_runs_that_are_not_stored_yet_are_not_missed() -> None:
    later = replace(run(60), follows_unknown=True)
    assert concluded(0, 5, 15, later, now=61).missed == 1
    assert concluded(0, 5, 15, run(60), now=61).missed == 1 + 8


def test_no_run_is_missed_between_two_runs_with_different_intervals() -> None:
    hourly = Repetition(interval="1 hour")
    runs = [run(minute, repetition=hourly) for minute in (-120, -60, 0)]
    runs += [run(minute, repetition=EVERY_5) for minute in (60, 65, 75)]
    found = concluded(*runs, now=76)
    assert missed(found) == [(70, 70, 1)]


def test_without_history_or_due_times_missed_runs_are_unknown_with_a_reason() -> None:
    found = concluded(0, 60, now=61, no_history="no collector")
    assert (found.missed, found.missed_reason) == (None, "no collector")
    found = concluded(0, 60, now=61, repetition=Repetition(interval="every full moon"))
    assert found.missed is None
    assert found.missed_reason
    found = concluded(now=1)
    assert (found.missed, found.last_run, found.runs) == (0, None, ())


def test_newest_runs_are_kept_and_many_missed_runs_are_one_entry() -> None:
    found = concluded(*range(0, 500, 5), now=500)
    assert len(found.runs) == MAX_RUNS
    assert found.runs[-1].started_at == NOW + 495 * MINUTE
    found = concluded(0, 100_000, repetition=CRON_5, now=100_001)
    assert [each.status for each in found.runs] == ["succeeded", MISSED, "succeeded"]
    assert found.missed == 1_000
