"""The page of one type of jobs: its statistics, charts, errors, workers and slowest attempts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flask import Response, render_template, request

from jobmon.api.fields import clean_free_text
from jobmon.api.job_lists import ListResponder
from jobmon.api.parameters import read_parameter
from jobmon.api.slowest import explain_slowest
from jobmon.api.workers import WorkerQuery, WorkerReader
from jobmon.dashboard import session
from jobmon.dashboard.action_buttons import ActionButtons, list_type_buttons
from jobmon.dashboard.error_rows import describe_missing, read_top_errors
from jobmon.dashboard.overview import GAPS
from jobmon.dashboard.page_window import PageWindow
from jobmon.dashboard.parts import conditional_response, is_part_request
from jobmon.dashboard.type_facts import TypeFacts, gather_type, make_type_tiles
from jobmon.dashboard.worker_rows import make_row
from jobmon.diagnosis.error_groups import ErrorFilter
from jobmon.diagnosis.evidence import Missing
from jobmon.diagnosis.evidence_reader import find_pauses
from jobmon.diagnosis.slow_runs import LEFT_OUT, may_lack_types, select_slowest_runs
from jobmon.rollup.series import History, NoCollectorError
from jobmon.rollup.windows import Window
from jobmon.single_flight import SingleFlightCache
from jobmon.store.labels import OTHER, can_filter_by
from jobmon.web.queues import WatchedQueue, current_queue

CACHE_TTL_S = 1  # how long viewers of the same type share one answer
CACHE_SIZE = 100
WORKERS_SHOWN = 10
# The fields whose reasons explain why workers may be missing; the page shows the first reason.
_WORKER_REASONS = ("data", "attempts", "runningJobs")


class TypePage:
    """The routes of the page of a type, by its label, which may be any text."""

    def __init__(self, lists: ListResponder, workers: WorkerReader) -> None:
        self._lists = lists
        self._workers = workers
        self._answers: SingleFlightCache[str] = SingleFlightCache(CACHE_SIZE)

    def page_by_query(self) -> Response | str:
        """The type in the parameter `name`, for names that a path cannot have: `type_address`."""
        return self.page(read_parameter("name"))

    def page(self, name: str) -> Response | str:
        """One type in a time window."""
        session.require_admin()
        window = PageWindow.from_request("1h")
        key = request.script_root, name, window
        part = self._answers.get(key, lambda: self._render(name, window), CACHE_TTL_S)
        if is_part_request():
            return conditional_response(part)
        return render_template(
            "dashboard/type.html",
            part=part,
            name=name,
            window=window,
            shown_window=window.resolve(current_queue().series, datetime.now(UTC)),
            can_filter_by=can_filter_by(name),
            **_describe_pause(name),
        )

    def actions(self) -> Response:
        """Whether the type in the parameter `name` is paused, and the buttons for its actions."""
        session.require_admin()
        name = read_parameter("name")
        part = render_template("dashboard/_type_actions.html", name=name, **_describe_pause(name))
        return conditional_response(part)

    def _render(self, name: str, page_window: PageWindow) -> str:
        """The part, the same for all viewers: it must contain nothing about a caller."""
        queue, now = current_queue(), datetime.now(UTC)
        type_facts = gather_type(queue, self._lists, name, page_window, now)
        history, window = type_facts.facts.history_by_step, type_facts.facts.window
        missing = history if isinstance(history, Missing) else None
        gaps = history.gaps if isinstance(history, History) else ()
        return render_template(
            "dashboard/_type.html",
            type_facts=type_facts,
            tiles=make_type_tiles(type_facts),
            window=page_window,
            can_filter_by=can_filter_by(name),
            missing=missing,
            gaps=[(gap, GAPS[gap.reason]) for gap in gaps],
            top_errors=read_top_errors(queue, page_window, window, ErrorFilter(types=(name,))),
            **self._list_workers(queue, type_facts),
            **_list_slowest(queue, window, name),
        )

    def _list_workers(self, queue: WatchedQueue, type_facts: TypeFacts) -> Mapping[str, Any]:
        """The workers that run a job of the type now, or ended an attempt of it in the window."""
        query = WorkerQuery(types=(type_facts.name,))
        found_workers = self._workers.find(queue, type_facts.facts.window, query)
        workers = found_workers.workers or []
        return {
            "workers": [
                make_row(worker, found_workers, type_facts.facts.page_window)
                for worker in workers[:WORKERS_SHOWN]
            ],
            "worker_count": len(workers),
            "missing_workers_reason": next(
                filter(None, map(found_workers.reasons.get, _WORKER_REASONS)), ""
            ),
        }


def _describe_pause(name: str) -> Mapping[str, Any]:
    if name == OTHER or not can_filter_by(name):
        return {"is_paused": None, "pause": None, "actions": ActionButtons()}
    pauses = find_pauses(current_queue())
    is_paused = None if pauses is None else name in pauses
    return {
        "is_paused": is_paused,
        "pause": (pauses or {}).get(name),
        "actions": list_type_buttons(is_paused=is_paused),
    }


def _list_slowest(queue: WatchedQueue, window: Window, name: str) -> Mapping[str, Any]:
    """The slowest attempts of the type in the window, and why some may be missing."""
    try:
        history = queue.runs.read(window)
    except NoCollectorError as error:
        return {"slowest": [], "missing_slowest_reason": describe_missing(queue, error).reason}
    runs = [slow.run for slow in select_slowest_runs(history.details, (name,))]
    reason = explain_slowest(queue, history) or history.incomplete_reason
    if not reason and may_lack_types(history.details):
        reason = LEFT_OUT
    return {
        "slowest": [run._replace(worker=clean_free_text(run.worker)) for run in runs],
        "missing_slowest_reason": reason,
    }
