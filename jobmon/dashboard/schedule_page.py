"""The pages about coming runs: the jobs that are due in a window, and the recurring jobs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response, render_template, request

from jobmon.api.job_lists import ListPage, ListResponder
from jobmon.api.parameters import read_parameter
from jobmon.api.queries import ListQuery
from jobmon.api.recurring import list_recurring
from jobmon.api.schedule import explain_schedule
from jobmon.dashboard import session
from jobmon.dashboard.job_view import JobView
from jobmon.dashboard.parts import conditional_response, is_part_request, render_page
from jobmon.domain import JobCondition
from jobmon.humanize import grouped
from jobmon.single_flight import SingleFlightCache
from jobmon.store.filter import JobFilter
from jobmon.store.schedule import ScheduledStep, ScheduledWindow
from jobmon.web.errors import ApiError, invalid
from jobmon.web.queues import current_queue

WINDOWS = {"hour": "hour", "day": "24 hours", "week": "7 days"}
NEXT_JOBS = 25
PER_PAGE = 50  # of recurring jobs
CACHE_TTL_S = 2  # how long viewers of the same page of recurring jobs share one answer
CACHE_SIZE = 100
MAX_LABELS = 6  # so many steps of the chart, or fewer, show their time
TYPES_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A step of the chart. `height` is in percent of the highest bar, None if it is unknown.

    `count` and `note` are texts: the number of jobs, and the number with the jobs' types.
    """

    start: datetime
    count: str
    height: float | None
    note: str
    has_label: bool


class SchedulePage:
    """The routes of the pages."""

    def __init__(self, responder: ListResponder) -> None:
        self._responder = responder
        self._recurring: SingleFlightCache[str] = SingleFlightCache(CACHE_SIZE)

    def recurring(self) -> Response | str:
        """The recurring jobs, each with its interval, its next run and its newest runs."""
        session.require_admin()
        cursor = read_parameter("cursor")
        key = request.script_root, cursor
        part = self._recurring.get(key, lambda: _render_recurring(cursor), CACHE_TTL_S)
        if is_part_request():
            return conditional_response(part)
        return render_template("dashboard/recurring.html", part=part)

    def page(self) -> Response | str:
        """The jobs that are due in a window, counted by step and type, and the next jobs."""
        session.require_admin()
        name = read_parameter("window", "day")
        if name not in WINDOWS:
            raise invalid("window", f"One of {', '.join(WINDOWS)}.")
        queue = current_queue()
        schedule = queue.schedule.schedule()
        windows = {window.name: window for window in schedule.windows}
        chosen = windows.get(name)
        jobs = None if schedule.reason else self._list_next()
        context: dict[str, Any] = {
            "window_counts": {key: _format_count(windows.get(key)) for key in WINDOWS},
            "window_words": WINDOWS,
            "chosen_name": name,
            "chosen_window": chosen,
            "bars": [] if chosen is None else list(_make_bars(chosen)),
            "types": [] if chosen is None else list(chosen.types.items())[:TYPES_SHOWN],
            "reasons": explain_schedule(queue, schedule),
            "jobs": [] if jobs is None else list(map(JobView.from_document, jobs.jobs)),
            "meta": None if jobs is None else jobs.meta,
        }
        return render_page("schedule", **context)

    def _list_next(self) -> ListPage | None:
        """The jobs that are due next; None if the list is refused, for example without an index."""
        job_filter = JobFilter(condition=JobCondition.SCHEDULED)
        query = ListQuery(job_filter=job_filter, oldest_first=True, per_page=NEXT_JOBS)
        try:
            return self._responder.page(query)
        except ApiError as error:
            if error.code != "validation_error":
                raise
            return None


def _render_recurring(cursor: str) -> str:
    """The part with a page of recurring jobs, the same for all viewers."""
    page = list_recurring(current_queue(), cursor, PER_PAGE)
    rows = [(JobView.from_document(job), job["repetition"].to_answer()) for job in page.jobs or ()]
    return render_template(
        "dashboard/_recurring.html",
        page=page,
        rows=rows,
        notes=_count_unknown(repetition for _, repetition in rows),
        is_first_page=not cursor,
    )


def _count_unknown(repetitions: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """The number of jobs by what is unknown of their runs, and why."""
    notes = Counter[tuple[str, str]]()
    for repetition in repetitions:
        reasons = repetition["reasons"]
        if "runs" in reasons:
            notes["Runs before the last one", reasons["runs"]] += 1
        elif "missedRuns" in reasons:
            unknown = "Other missed runs" if repetition["missedRuns"] else "Missed runs"
            notes[unknown, reasons["missedRuns"]] += 1
    return notes


def _format_count(window: ScheduledWindow | ScheduledStep | None) -> str:
    if window is None or window.jobs is None:
        return grouped(None)
    return grouped(window.jobs) + ("" if window.is_exact else "+")


def _make_bars(window: ScheduledWindow) -> Iterator[Bar]:
    highest = max((step.jobs or 0 for step in window.steps), default=0) or 1
    label_distance = -(-len(window.steps) // MAX_LABELS)
    for index, step in enumerate(window.steps):
        yield Bar(
            start=step.start,
            count=_format_count(step),
            height=None if step.jobs is None else 100 * step.jobs / highest,
            note=_describe_step(step),
            # The first step may be too short for a label.
            has_label=index % label_distance == 1 % label_distance,
        )


def _describe_step(step: ScheduledStep) -> str:
    """The number of jobs in a step in words, with the number for each type."""
    if step.jobs is None:
        return "not counted"
    jobs = f"{_format_count(step)} {'job' if step.jobs == 1 and step.is_exact else 'jobs'}"
    counts = list(step.types.items())
    types = ", ".join(f"{grouped(count)} {name}" for name, count in counts[:TYPES_SHOWN])
    more = ", …" if len(counts) > TYPES_SHOWN else ""
    return f"{jobs}: {types}{more}" if types else jobs
