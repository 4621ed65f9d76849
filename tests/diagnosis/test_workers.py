"""The states of workers: catches a silent worker without an alarm, an alarm about a worker that
runs jobs or is only idle, and a state that is derived from unknown values."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jobmon.diagnosis.workers import (
    TopError,
    Worker,
    WorkerState,
    explain_unchecked,
    find_top_errors,
    find_workers,
    select_types,
    sort_workers,
)
from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.run_details import (
    MAX_WORKER_TYPES,
    ErrorPair,
    RunDetails,
    WorkerTally,
    WorkerType,
    fold_details,
)
from jobmon.rollup.run_history import RunHistory
from jobmon.rollup.windows import Window
from jobmon.store.labels import OTHER
from jobmon.store.running_jobs import RunningJob, RunningJobs
from jobmon.store.stats import QueueHealth, QueueStats

from ..conftest import NOW

WINDOW = Window(start=NOW - HOUR, end=NOW + MINUTE, step=MINUTE)


def make_tally(runs: int, ago: timedelta, failed: int = 0) -> WorkerTally:
    """The counts of a worker whose last run ended this long ago."""
    outcomes = Counter(succeeded=runs - failed, failed=failed)
    return WorkerTally(outcomes=outcomes, run=Counter({10: runs}), last_at=NOW - ago)


def make_history(
    workers: dict[str, WorkerTally], by_worker: Counter[ErrorPair] | None = None
) -> RunHistory:
    details = RunDetails(
        worker_types={WorkerType(name, "mail"): tally for name, tally in workers.items()},
        by_worker=by_worker or Counter(),
    )
    return RunHistory(as_of=NOW, is_complete=True, details=details, groups={})


def make_stats(overdue: timedelta | None = HOUR) -> QueueStats:
    health = QueueHealth(
        estimated_total=9,
        expired_leases=0,
        due=9 if overdue else 0,
        scheduled=0,
        oldest_queued=None,
        oldest_queued_by_type={},
        overdue_by_type={} if overdue is None else {"mail": NOW - overdue},
    )
    return QueueStats(as_of=NOW, source="rollup", counts={}, total=9, health=health)


def make_job(worker: str | None, ends_in: timedelta | None = MINUTE, **changes: Any) -> RunningJob:
    """A running job that a worker has leased; `ends_in` is negative if the lease has expired."""
    return RunningJob(
        job_id="1",
        type="mail",
        worker=worker,
        expires_at=None if ends_in is None else NOW + ends_in,
        **changes,
    )


def map_workers(
    tallies: dict[str, WorkerTally] | None = None,
    jobs: Iterable[RunningJob] = (),
    *,
    overdue: timedelta | None = HOUR,
    window: Window = WINDOW,
    pauses: Collection[str] = (),
    **running: Any,
) -> dict[str, Worker]:
    """The workers of a queue by name; by default a job has been due for an hour."""
    workers = find_workers(
        window,
        None if tallies is None else make_history(tallies),
        RunningJobs(as_of=NOW, jobs=tuple(jobs), **running),
        make_stats(overdue),
        pauses,
    )
    return {worker.name: worker for worker in workers}


def test_worker_with_expired_leases_is_silent_since_the_first_lease_expired() -> None:
    jobs = [make_job("w1", -3 * MINUTE), make_job("w1", -MINUTE), make_job("w1"), make_job("w2")]
    workers = map_workers({"w1": make_tally(9, MINUTE)}, jobs)
    assert workers["w1"].state is WorkerState.EXPIRED
    assert workers["w1"].since == NOW - 3 * MINUTE
    assert workers["w1"].note == "its lease has expired"
    assert workers["w2"].state is WorkerState.RUNNING
    assert workers["w2"].note == ""


def test_busy_worker_that_stopped_while_jobs_are_overdue_is_silent() -> None:
    # A silence of under ten minutes is too short.
    workers = map_workers({"w1": make_tally(50, 10 * MINUTE), "w2": make_tally(50, 9 * MINUTE)})
    assert workers["w1"].state is WorkerState.STOPPED
    assert workers["w1"].since == workers["w1"].last_seen == NOW - 10 * MINUTE
    assert workers["w2"].state is WorkerState.IDLE


@pytest.mark.parametrize(
    "changes",
    [
        {"overdue": None},
        {"overdue": timedelta(seconds=59)},
        {"pauses": ["mail"]},
        {"jobs": [make_job("w1")]},  # it runs a long job
        {"jobs": [make_job("w1", None)]},
        # The window has ended: later runs are not counted.
        {"window": Window(start=NOW - HOUR, end=NOW, step=MINUTE)},
    ],
    ids=str,
)
def test_worker_whose_stop_has_another_reason_is_not_silent(changes: dict[str, Any]) -> None:
    assert map_workers({"w1": make_tally(50, 20 * MINUTE)}, **changes)["w1"].note == ""


@pytest.mark.parametrize(
    ("types", "unknown", "state"),
    [
        (["sms"], {}, WorkerState.IDLE),
        (["sms", "mail"], {}, WorkerState.STOPPED),
        (["sms", OTHER], {}, WorkerState.STOPPED),  # `(other)` may contain the overdue type
        (["sms"], {"overdue_by_type": "only the first are read"}, WorkerState.STOPPED),
    ],
)
def test_worker_is_stopped_only_if_jobs_of_its_types_may_be_overdue(
    types: list[str], unknown: dict[str, str], state: WorkerState
) -> None:
    """Catches an alarm about the workers of a type that has no due jobs."""
    history, stats = make_history({}), make_stats()
    for job_type in types:
        history.details.worker_types[WorkerType("w1", job_type)] = make_tally(50, 20 * MINUTE)
    stats = replace(stats, health=replace(stats.health, unknown=unknown))
    (worker,) = find_workers(WINDOW, history, RunningJobs(as_of=NOW), stats)
    assert worker.state is state


def test_worker_whose_last_runs_may_be_missing_is_not_silent() -> None:
    history = make_history({"w1": make_tally(50, 20 * MINUTE)})
    gap = Gap(start=NOW - 20 * MINUTE, end=NOW, reason=GapReason.STREAM_LOST)
    running = RunningJobs(as_of=NOW)
    (worker,) = find_workers(WINDOW, history, running, make_stats())
    assert worker.state is WorkerState.STOPPED
    (worker,) = find_workers(WINDOW, replace(history, gaps=(gap,)), running, make_stats())
    assert worker.state is WorkerState.IDLE


@pytest.mark.parametrize(
    ("runs", "minutes", "state"),
    [
        (1, 20, WorkerState.IDLE),  # with one run an hour, twenty minutes without a run are usual
        (6, 20, WorkerState.STOPPED),
        (5, 20, WorkerState.IDLE),
        (15, 10, WorkerState.STOPPED),
        (14, 10, WorkerState.IDLE),
    ],
)
def test_worker_is_silent_only_if_three_usual_runs_are_missing(
    runs: int, minutes: int, state: WorkerState
) -> None:
    assert map_workers({"w1": make_tally(runs, minutes * MINUTE)})["w1"].state is state


def test_workers_that_are_not_checked_have_a_reason() -> None:
    history, stats = make_history({}), make_stats(None)
    assert explain_unchecked(WINDOW, history, stats) == ""
    health = replace(stats.health, due=None, unknown={"due": "no dates"})
    assert explain_unchecked(WINDOW, history, replace(stats, health=health)) == "no dates"
    incomplete = replace(history, is_complete=False)
    assert explain_unchecked(WINDOW, incomplete, stats) == "the collector is still counting"
    past = Window(start=NOW - HOUR, end=NOW, step=MINUTE)
    assert explain_unchecked(past, history, stats) == "the window ends in the past"


def test_worker_that_stopped_more_than_a_day_ago_is_idle() -> None:
    window = Window(start=NOW - 72 * HOUR, end=NOW + HOUR, step=HOUR)
    workers = map_workers(
        {"old": make_tally(900, 25 * HOUR), "new": make_tally(900, 23 * HOUR)}, window=window
    )
    assert workers["old"].state is WorkerState.IDLE
    assert workers["new"].state is WorkerState.STOPPED


@pytest.mark.parametrize("running", [{"is_complete": False}, {"reason": "no index"}], ids=str)
def test_worker_without_a_job_has_no_state_if_not_all_jobs_are_read(
    running: dict[str, Any],
) -> None:
    workers = map_workers({"w1": make_tally(50, 20 * MINUTE)}, [make_job("w2")], **running)
    assert workers["w1"].state is None
    assert workers["w2"].state is WorkerState.RUNNING


def test_workers_are_known_by_their_leases_without_a_history() -> None:
    started = NOW - 2 * MINUTE
    workers = map_workers(
        None, [make_job("w1", started_at=started), make_job("w1"), make_job(None)]
    )
    assert list(workers) == ["w1"]
    worker = workers["w1"]
    assert (worker.state, worker.since, worker.last_seen) == (WorkerState.RUNNING, started, started)
    assert (len(worker.jobs), worker.tally) == (2, None)


def test_last_seen_is_the_newest_start_or_end() -> None:
    tallies = {"w1": make_tally(1, MINUTE), "w2": make_tally(1, 3 * MINUTE)}
    jobs = [make_job(name, started_at=NOW - 2 * MINUTE) for name in tallies]
    workers = map_workers(tallies, jobs)
    ago = {name: NOW - worker.last_seen for name, worker in workers.items() if worker.last_seen}
    assert ago == {"w1": MINUTE, "w2": 2 * MINUTE}


def test_top_error_is_the_most_frequent_group() -> None:
    by_worker = Counter(
        {
            ErrorPair("a", "w1"): 3,
            ErrorPair("b", "w1"): 5,
            ErrorPair(OTHER, "w1"): 9,
            ErrorPair(OTHER, "w2"): 1,
        }
    )
    expected = {"w1": TopError("b", 5), "w2": TopError(OTHER, 1)}
    assert find_top_errors(by_worker) == expected
    history = make_history({"w1": make_tally(17, MINUTE, 17)}, by_worker=by_worker)
    (w1,) = find_workers(WINDOW, history, RunningJobs(as_of=NOW), make_stats())
    assert (w1.top_error, w1.attempts, w1.failures) == (expected["w1"], 17, 17)


def test_workers_of_a_type_have_only_the_runs_of_this_type() -> None:
    history = make_history({"w1": make_tally(7, MINUTE, 2)}, by_worker=Counter({("g", "w1"): 2}))
    history.details.worker_types |= {
        WorkerType("w1", "pay"): make_tally(5, 20 * MINUTE, 1),
        WorkerType("w2", "pay"): make_tally(3, MINUTE),
    }
    running = RunningJobs(as_of=NOW, jobs=(make_job("w3"), make_job("w2")))
    workers = find_workers(WINDOW, history, running, make_stats())
    runs = {worker.name: (worker.attempts, worker.failures) for worker in workers}
    assert runs == {"w1": (12, 3), "w2": (3, 0), "w3": (0, 0)}

    def select(*types: str) -> dict[str, tuple[int, int]]:
        selected = select_types(workers, history, types)
        assert all(worker.top_error is None for worker in selected)
        return {worker.name: (worker.attempts, worker.failures) for worker in selected}

    assert select("pay") == {"w1": (5, 1), "w2": (3, 0)}
    assert select("mail") == {"w1": (7, 2), "w2": (0, 0), "w3": (0, 0)}
    assert select("mail", "pay") == runs
    assert select("none") == {}
    (w1,) = (worker for worker in select_types(workers, history, ["pay"]) if worker.name == "w1")
    assert w1.last_seen == NOW - MINUTE  # the end of a run of another type
    assert {worker.name for worker in select_types(workers, None, ["mail"])} == {"w2", "w3"}


def sort_names(sort: str) -> list[str]:
    tallies = {
        "idle": make_tally(7, 2 * MINUTE, 1),
        "stopped": make_tally(50, 20 * MINUTE, 2),
        OTHER: make_tally(999, MINUTE, 99),
        "running": make_tally(6, 3 * MINUTE, 6),
        "earlier": make_tally(5, 4 * MINUTE),
    }
    jobs = [make_job("running"), make_job("expired", -MINUTE)]
    return [worker.name for worker in sort_workers(map_workers(tallies, jobs).values(), sort)]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("state", ["expired", "stopped", "running", "idle", "earlier", OTHER]),
        ("name", ["earlier", "expired", "idle", "running", "stopped", OTHER]),
        ("-attempts", ["stopped", "idle", "running", "earlier", "expired", OTHER]),
        ("-failures", ["running", "stopped", "idle", "earlier", "expired", OTHER]),
        ("-lastSeen", ["idle", "running", "earlier", "stopped", "expired", OTHER]),
    ],
)
def test_workers_are_sorted(sort: str, expected: list[str]) -> None:
    assert sort_names(sort) == expected


def test_thousands_of_workers_are_folded_and_every_run_is_counted() -> None:
    """Catches a list without limit (a pod has a new name at each start), and a false alarm."""
    tallies = {f"pod-{index}": make_tally(1 + index % 3, 20 * MINUTE, 1) for index in range(20_000)}
    total = sum(worker_tally.runs for worker_tally in tallies.values())
    folded = fold_details(make_history(tallies).details)
    workers = map_workers(folded.tally_workers())
    assert len(workers) == MAX_WORKER_TYPES
    assert {job_type for name, job_type in folded.worker_types if name != OTHER} == {"mail"}
    assert sum(worker.attempts for worker in workers.values()) == total
    assert sum(worker.failures for worker in workers.values()) == 20_000
    assert workers[OTHER].state is None
    assert {worker.state for name, worker in workers.items() if name != OTHER} == {WorkerState.IDLE}
