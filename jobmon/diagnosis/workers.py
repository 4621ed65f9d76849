"""Lists the workers of a queue: the runs and the running jobs of each, and which are silent.

Pure functions of the runs in a window of time and of the jobs that run now.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from jobmon.diagnosis.attention import MIN_EXPECTED_JOBS, MIN_OVERDUE
from jobmon.diagnosis.pauses import find_overdue
from jobmon.rollup.buckets import DAY, MINUTE
from jobmon.rollup.run_details import ErrorPair, WorkerTally
from jobmon.rollup.run_history import RunHistory
from jobmon.rollup.windows import Window
from jobmon.store.labels import OTHER
from jobmon.store.running_jobs import RunningJob, RunningJobs
from jobmon.store.stats import QueueStats

# A worker that has ended no run for longer than this is not shown as stopped: probably it was
# removed. With an expired lease it is still shown as `expired`.
FORGOTTEN_AFTER = DAY
# A worker that has ended no run for so long may have stopped.
STOPPED_AFTER = 10 * MINUTE


class WorkerState(StrEnum):
    """What a worker does; the first two are silent."""

    EXPIRED = "expired"  # it holds an expired lease
    STOPPED = "stopped"  # it was busy, and has ended no run for a while although jobs are overdue
    RUNNING = "running"
    IDLE = "idle"


SILENT = (WorkerState.EXPIRED, WorkerState.STOPPED)
_URGENCY: dict[WorkerState | None, int] = {
    state: rank for rank, state in enumerate([*WorkerState, None])
}


class TopError(NamedTuple):
    """The group of errors that a worker had most often, and how often."""

    group: str
    failures: int


class Worker(NamedTuple):
    """A worker; dates are UTC.

    `state` is None where it is unknown. `since` is when the state began: the earliest end of an
    expired lease, the end of the last run if it has stopped, or the earliest start of its running
    jobs; None for an idle worker or if unknown. `jobs`: the jobs that it runs, in the order of the
    ends of their leases. `tally`: its runs in the window; None if it had none or they are unknown.
    `last_seen`: when it last started or ended a run, as far as known.
    """

    name: str
    state: WorkerState | None = None
    since: datetime | None = None
    jobs: tuple[RunningJob, ...] = ()
    tally: WorkerTally | None = None
    last_seen: datetime | None = None
    top_error: TopError | None = None

    @property
    def attempts(self) -> int:
        """How many runs ended in the window."""
        return 0 if self.tally is None else self.tally.runs

    @property
    def failures(self) -> int:
        """How many failed runs ended in the window."""
        return 0 if self.tally is None else self.tally.failed

    @property
    def note(self) -> str:
        """Why it counts as silent, without a full stop; empty if it is not."""
        match self.state:
            case WorkerState.EXPIRED:
                return "its lease has expired"
            case WorkerState.STOPPED:
                return "it has ended no run since, although jobs are overdue"
        return ""


def find_workers(
    window: Window,
    history: RunHistory | None,
    running: RunningJobs,
    stats: QueueStats,
    pauses: Collection[str] = (),
) -> list[Worker]:
    """The workers that run one of the `running` jobs or ended a run in the window, in no order.

    `history` is None if no collector keeps one. `(other)` stands for the workers that were not
    counted by name. `pauses` are the paused types: their due jobs are no work for a worker.
    """
    by_worker: dict[str, list[RunningJob]] = {}
    for job in running.jobs:
        if job.worker is not None:
            by_worker.setdefault(job.worker, []).append(job)
    tallies = {} if history is None else history.details.tally_workers()
    top_errors = {} if history is None else find_top_errors(history.details.by_worker)
    is_complete = running.is_complete and not running.reason
    stopped: set[str] = set()
    if history is not None and not explain_unchecked(window, history, stats):
        stopped = {
            name
            for name in _find_workers_with_work(history, stats, pauses)
            if _has_stopped(tallies[name], window, history.as_of)
        }
    workers = []
    for name in tallies.keys() | by_worker.keys():
        tally, jobs = tallies.get(name), tuple(by_worker.get(name, ()))
        starts = [job.started_at for job in jobs if job.started_at is not None]
        last_ended = None if tally is None else tally.last_at
        state, since = None, None
        if jobs:
            state, since = _find_lease_state(jobs, running.as_of)
        elif is_complete and name != OTHER:
            state = WorkerState.IDLE
            if name in stopped:
                state, since = WorkerState.STOPPED, last_ended
        last_seen = max([*starts, *([] if last_ended is None else [last_ended])], default=None)
        workers.append(Worker(name, state, since, jobs, tally, last_seen, top_errors.get(name)))
    return workers


def select_types(
    workers: Iterable[Worker], history: RunHistory | None, types: Collection[str]
) -> list[Worker]:
    """The workers that run a job of these types now, or ended a run of them in the window.

    Each `tally` has only runs of these types. `top_error` is None: errors are not counted by worker
    and type.
    """
    tallies = {} if history is None else history.details.tally_workers(types)
    return [
        worker._replace(tally=tallies.get(worker.name), top_error=None)
        for worker in workers
        if worker.name in tallies or any(job.type in types for job in worker.jobs)
    ]


def explain_unchecked(window: Window, history: RunHistory, stats: QueueStats) -> str:
    """Why it is not checked whether workers have stopped; empty if it is checked."""
    if window.end <= history.as_of:
        return "the window ends in the past"
    if history.incomplete_reason:
        return history.incomplete_reason
    health = stats.health
    if health.due is None and not health.overdue_by_type:
        return health.unknown.get("due", "it is unknown when jobs are due")
    return ""


def find_top_errors(by_worker: Mapping[ErrorPair, int]) -> dict[str, TopError]:
    """The most frequent group of errors of each worker; `(other)` only if no group is named."""
    top_errors: dict[str, TopError] = {}
    for (group, worker), count in by_worker.items():
        best = top_errors.get(worker)
        if best is None or (group != OTHER, count) > (best.group != OTHER, best.failures):
            top_errors[worker] = TopError(group, count)
    return top_errors


def _find_lease_state(
    jobs: Sequence[RunningJob], now: datetime
) -> tuple[WorkerState, datetime | None]:
    """The state of a worker that holds leases of these jobs, and since when."""
    expiries = [end for job in jobs if job.is_expired(now) and (end := job.expires_at)]
    if expiries:
        return WorkerState.EXPIRED, min(expiries)
    starts = [job.started_at for job in jobs if job.started_at is not None]
    return WorkerState.RUNNING, min(starts, default=None)


def _find_workers_with_work(
    history: RunHistory, stats: QueueStats, pauses: Collection[str]
) -> Collection[str]:
    """The workers that ended runs of a type with an overdue job, or of an unknown type.

    All workers if a job is overdue, but `overdue_by_type` is incomplete: any type may be overdue.
    """
    overdue = {
        job_type
        for job_type, due_since in find_overdue(stats, pauses).items()
        if stats.as_of - due_since >= MIN_OVERDUE
    }
    if not overdue:
        return ()
    is_partial = "overdue_by_type" in stats.health.unknown
    return {
        worker
        for worker, job_type in history.details.worker_types
        if is_partial or job_type in overdue or job_type == OTHER
    }


def _has_stopped(tally: WorkerTally, window: Window, as_of: datetime) -> bool:
    """Whether a worker without a job was busy, and has ended no run for too long.

    Too long is ten minutes to a day, if the worker usually ends at least three runs in this time.
    By chance, no run ends in such a time in at most 5% of the cases.
    """
    if tally.last_at is None:
        return False
    silence = as_of - tally.last_at
    if not STOPPED_AFTER <= silence <= FORGOTTEN_AFTER:
        return False
    busy_time = max(tally.last_at - window.start, MINUTE)
    return tally.runs * (silence / busy_time) >= MIN_EXPECTED_JOBS


_NEVER = datetime.min.replace(tzinfo=UTC)
# Workers with equal keys: the one that was last seen comes first, then the order of names decides.
SORTS: dict[str, Callable[[Worker], Any]] = {
    "state": lambda worker: _URGENCY[worker.state],
    "name": lambda worker: worker.name,
    "-attempts": lambda worker: -worker.attempts,
    "-failures": lambda worker: -worker.failures,
    "-lastSeen": lambda _: 0,
}


def sort_workers(workers: Iterable[Worker], sort: str) -> list[Worker]:
    """The workers in the order `sort`, a key of `SORTS`; `(other)` is always last."""
    ordered = sorted(workers, key=lambda worker: worker.name)
    ordered.sort(key=lambda worker: worker.last_seen or _NEVER, reverse=True)
    ordered.sort(key=SORTS[sort])
    return [worker for worker in ordered if worker.name != OTHER] + [
        worker for worker in ordered if worker.name == OTHER
    ]
