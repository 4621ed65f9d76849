"""Workers as the pages show them."""

from typing import Any

from jobmon.api.fields import clean_free_text, redact
from jobmon.api.workers import FoundWorkers, format_worker
from jobmon.dashboard.page_window import PageWindow
from jobmon.diagnosis.workers import SILENT, Worker
from jobmon.domain import failure_rate
from jobmon.page_addresses import error_address
from jobmon.web.queues import current_queue

STATE_WORDS = {
    "expired": "lease expired",
    "stopped": "stopped",
    "running": "running",
    "idle": "idle",
}


def make_row(
    worker: Worker, found_workers: FoundWorkers, page_window: PageWindow
) -> dict[str, Any]:
    """The fields of a `WorkerAnswer`, and what only the pages show.

    `is_silent`: the state is in `SILENT`. `is_failing`: the failure rate of the attempts has
    reached the queue's threshold. `top_error` has a `text`, a `link` and the number of `failures`.
    """
    rate = failure_rate(worker.failures, worker.attempts)
    return format_worker(worker, found_workers) | {
        "name": clean_free_text(worker.name) or "",
        "state_text": STATE_WORDS.get(worker.state or "", ""),
        "is_silent": worker.state in SILENT,
        "is_failing": found_workers.history is not None
        and rate is not None
        and current_queue().settings.rules.thresholds.is_failing(worker.attempts, rate),
        "top_error": _find_top_error(worker, found_workers, page_window),
    }


def _find_top_error(
    worker: Worker, found_workers: FoundWorkers, page_window: PageWindow
) -> dict[str, Any] | None:
    error = worker.top_error
    if error is None:
        return None
    group, text = found_workers.groups.get(error.group), "errors that could not be grouped"
    if group is not None:
        text = redact(group.code or group.pattern) or "error without a message"
    link = error_address(error.group, page_window.parameters)
    return {"text": text, "link": link, "failures": error.failures}
