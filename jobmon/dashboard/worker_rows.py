"""Workers as the pages show them."""

from dataclasses import dataclass
from datetime import datetime

from jobmon.api.fields import clean_free_text, redact
from jobmon.api.worker_answers import JOBS_SHOWN
from jobmon.api.workers import FoundWorkers, run_durations
from jobmon.dashboard.page_window import PageWindow
from jobmon.diagnosis.workers import SILENT, Worker
from jobmon.domain import failure_rate
from jobmon.page_addresses import error_address
from jobmon.store.labels import OTHER
from jobmon.store.running_jobs import RunningJob
from jobmon.web.queues import current_queue

STATE_WORDS = {
    "expired": "lease expired",
    "stopped": "stopped",
    "running": "running",
    "idle": "idle",
}


@dataclass(frozen=True, kw_only=True)
class WorkerError:
    """The most frequent error of a worker, and the address of its page."""

    text: str
    link: str
    failures: int


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """A worker; unknown values are None, or an empty `state`.

    `note` explains the state, which the worker has had since `since`; `is_silent`: the state is in
    `SILENT`. `running` is the number of jobs that it runs, `jobs` are the first of them.
    `is_failing`: its failure rate has reached the queue's threshold. `run_p95` is in ms.
    """

    name: str
    state: str
    state_text: str
    note: str
    is_silent: bool
    since: datetime | None
    last_seen: datetime | None
    running: int | None
    jobs: list[RunningJob]
    attempts: int | None
    failures: int | None
    failure_rate: float | None
    is_failing: bool
    run_p95: int | None
    top_error: WorkerError | None


def make_row(worker: Worker, found_workers: FoundWorkers, page_window: PageWindow) -> WorkerRow:
    """A worker as a row."""
    has_history = found_workers.history is not None
    has_jobs = not found_workers.running.reason and worker.name != OTHER
    rate = failure_rate(worker.failures, worker.attempts)
    state = worker.state or ""
    return WorkerRow(
        name=clean_free_text(worker.name) or "",
        state=state,
        state_text=STATE_WORDS.get(state, ""),
        note=worker.note,
        is_silent=worker.state in SILENT,
        since=worker.since,
        last_seen=worker.last_seen,
        running=len(worker.jobs) if has_jobs else None,
        jobs=list(worker.jobs[:JOBS_SHOWN]),
        attempts=worker.attempts if has_history else None,
        failures=worker.failures if has_history else None,
        failure_rate=rate if has_history else None,
        is_failing=has_history
        and rate is not None
        and current_queue().settings.rules.thresholds.is_failing(worker.attempts, rate),
        run_p95=run_durations(worker).p95,
        top_error=_find_top_error(worker, found_workers, page_window),
    )


def _find_top_error(
    worker: Worker, found_workers: FoundWorkers, page_window: PageWindow
) -> WorkerError | None:
    error = worker.top_error
    if error is None:
        return None
    group, text = found_workers.groups.get(error.group), "errors that could not be grouped"
    if group is not None:
        text = redact(group.code or group.pattern) or "error without a message"
    return WorkerError(
        text=text,
        link=error_address(error.group, page_window.parameters),
        failures=error.failures,
    )
