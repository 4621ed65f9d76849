"""Lists the slowest attempts in a window, from the bounded lists that the collector keeps."""

from http import HTTPStatus
from typing import Any

from jobmon.api import run_examples
from jobmon.api.openapi import Routes
from jobmon.api.window_queries import TypeWindowParameters, WindowQuery
from jobmon.api.windows import (
    NO_COLLECTOR,
    explain_history_errors,
    format_window,
    resolve_window,
)
from jobmon.api.worker_answers import SlowAttemptList
from jobmon.diagnosis.evidence import NO_END_TIMES, NOT_COUNTED
from jobmon.diagnosis.slow_runs import LEFT_OUT, may_lack_types, select_slowest_runs
from jobmon.rollup.run_history import RunHistory
from jobmon.rollup.windows import Window
from jobmon.web.queues import WatchedQueue, current_queue

NO_STARTS = "no attempt of the window has a known start"


def add_routes(routes: Routes) -> None:
    """Add `/slowest` to the routes of operators."""

    @routes.get("/slowest")
    @routes.doc(operationId="listSlowestAttempts")
    @routes.arguments(TypeWindowParameters, location="query")
    @routes.response(HTTPStatus.OK, SlowAttemptList, example=run_examples.SLOWEST_LIST)
    def slowest(query: WindowQuery) -> dict[str, Any]:
        """List the slowest attempts that ended in a window.

        They come from the lists that the collector keeps by type. Without a collector the answer is
        503.
        """
        queue = current_queue()
        window = resolve_window(queue.series, query)
        with explain_history_errors(NO_COLLECTOR):
            history = queue.runs.read(window)
        return _format_slowest(queue, window, history, query.types)


def explain_slowest(queue: WatchedQueue, history: RunHistory) -> str:
    """Why the slowest attempts are unknown; empty if they are known."""
    if "finishedAt" in queue.known_fields.unknown:
        return NO_END_TIMES.reason
    if history.is_ahead:
        return NOT_COUNTED.reason
    details = history.details
    return NO_STARTS if details.runs and not details.slowest else ""


def _format_slowest(
    queue: WatchedQueue, window: Window, history: RunHistory, types: tuple[str, ...]
) -> dict[str, Any]:
    unknown_reason, details = explain_slowest(queue, history), history.details
    reason = unknown_reason or history.incomplete_reason
    reason = reason or (LEFT_OUT if may_lack_types(details) else "")
    meta = format_window(window, history) | {"reasons": {"data": reason} if reason else {}}
    if unknown_reason:
        return {"meta": meta, "data": None}
    data = [
        {"type": slow.type, **slow.run._asdict()} for slow in select_slowest_runs(details, types)
    ]
    return {"meta": meta, "data": data}
