"""The pages about groups of errors: the list, and the page of a group, its chart and actions."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Response, render_template, request

from jobmon.actions.catalog import RequestError
from jobmon.actions.target import Target
from jobmon.api.error_groups import FoundErrors, find_group, read_errors, select_page
from jobmon.api.fields import clean_free_text
from jobmon.api.window_queries import ErrorListParameters, ErrorQuery
from jobmon.api.windows import NO_COLLECTOR, explain_history_errors
from jobmon.dashboard import session
from jobmon.dashboard.action_buttons import list_group_buttons, write_filter
from jobmon.dashboard.charts import list_marks, make_time_columns
from jobmon.dashboard.error_rows import describe_missing, find_columns, make_row
from jobmon.dashboard.page_window import PageWindow
from jobmon.dashboard.parts import conditional_response, is_part_request, render_page
from jobmon.diagnosis.error_groups import ErrorFilter
from jobmon.diagnosis.error_kinds import GroupStatus
from jobmon.diagnosis.evidence import Missing
from jobmon.domain import JobStatus
from jobmon.page_addresses import error_address
from jobmon.rollup.error_group_document import ErrorGroup
from jobmon.rollup.run_history import is_over
from jobmon.rollup.series import NoCollectorError
from jobmon.single_flight import TTL_FACTOR, SingleFlightCache
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.web.json_text import dump_json
from jobmon.web.queues import WatchedQueue, current_queue

PER_PAGE = 50
MAX_NAMES = 20  # of types, and of workers, on the page of a group
COUNT_TTL_S = 10  # how long the number of a group's dead jobs is cached, at least
COUNT_CACHE_SIZE = 100
_SCHEMA = ErrorListParameters()


def _read_errors(queue: WatchedQueue, window: PageWindow) -> FoundErrors:
    with explain_history_errors(NO_COLLECTOR):
        return read_errors(queue, window.resolve(queue.series, datetime.now(UTC)), ErrorFilter())


class ErrorPages:
    """The routes of the pages about errors."""

    def __init__(self) -> None:
        self._dead_counts: SingleFlightCache[int | None] = SingleFlightCache(COUNT_CACHE_SIZE)

    def all_groups(self) -> Response | str:
        """The list of the groups of a window."""
        session.require_admin()
        query: ErrorQuery = replace(_SCHEMA.read(request), per_page=PER_PAGE)
        page_window, queue = PageWindow.from_request("24h"), current_queue()
        window = page_window.resolve(queue.series, datetime.now(UTC))
        context: dict[str, Any] = {
            "window": page_window,
            "shown_window": window,
            "parameters": {
                **page_window.parameters,
                "type": query.types,
                "worker": query.worker,
                "status": sorted(query.statuses),
                "sort": query.sort,
            },
            "statuses": list(GroupStatus),
            "is_filtered": bool(query.types or query.worker or query.statuses),
        }
        try:
            error_filter = ErrorFilter(types=query.types, worker=query.worker)
            found_errors = read_errors(queue, window, error_filter)
        except NoCollectorError as error:
            context["missing"] = describe_missing(queue, error)
        else:
            context |= _describe_list(found_errors, query, page_window)
        return render_page("errors", **context)

    def group(self, group_id: str) -> Response | str:
        """One group, with a stack, its chart and the jobs that failed most recently."""
        session.require_admin()
        queue, window = current_queue(), PageWindow.from_request("24h")
        found_errors = _read_errors(queue, window)
        summary, sample = find_group(queue, found_errors, group_id)
        context = {
            "row": make_row(found_errors, summary, window, MAX_NAMES),
            "message": clean_free_text(sample and sample.message),
            "stack": clean_free_text(sample and sample.stack),
            "jobs": [
                job._replace(worker=clean_free_text(job.worker))
                for job in (sample.jobs if sample else ())
            ],
            "code_filter": _find_code_filter(queue, sample),
            "incomplete_reason": found_errors.history.incomplete_reason,
            "unknown_reason": found_errors.reason,
            "actions": list_group_buttons(),
            "group_filter": _write_group_filter(queue, group_id, sample),
            "dead_count": None,
            "then": "",
            "window": window,
            "shown_window": found_errors.window,
            "is_over": is_over(found_errors.window, found_errors.history),
        }
        if is_part_request():
            return conditional_response(render_template("dashboard/_error.html", **context))
        return render_template("dashboard/error_group.html", **context)

    def actions(self, group_id: str) -> Response:
        """The buttons for the dead jobs of a group, with the number of jobs if it is known."""
        session.require_admin()
        queue, window = current_queue(), PageWindow.from_request("24h")
        _, sample = find_group(queue, _read_errors(queue, window), group_id)
        buttons, code = list_group_buttons(), _find_code_filter(queue, sample) or None
        dead_count = None
        if buttons.kinds:
            job_filter = JobFilter(
                statuses=(JobStatus.DLQ.value,), error_group=group_id, error_code=code
            )
            count = partial(_count_dead, queue, buttons.kinds[0].name, job_filter)
            key = request.script_root, job_filter
            dead_count = self._dead_counts.get(key, count, COUNT_TTL_S, ttl_factor=TTL_FACTOR)
        part = render_template(
            "dashboard/_group_actions.html",
            actions=buttons,
            group_filter=_write_group_filter(queue, group_id, sample),
            dead_count=dead_count,
            then=error_address(group_id, window.parameters),
        )
        return conditional_response(part)

    def chart(self, group_id: str) -> Response:
        """The errors of a group in each step of a window, in the format of `make_chart_columns`."""
        session.require_admin()
        queue = current_queue()
        found_errors = _read_errors(queue, PageWindow.from_request("24h"))
        summary, _ = find_group(queue, found_errors, group_id)
        window = found_errors.window
        counts: list[int | None] = [*(found_errors.trend(summary.id) or [])]
        starts = list(window.steps())
        columns = make_time_columns(starts, window.step, found_errors.history) | {
            "errors": counts + [None] * (len(starts) - len(counts)),
            "marks": list_marks(queue.marks.find(window.start, window.end)),
            "previous": None,
        }
        return conditional_response(dump_json(columns), "application/json")


def _count_dead(queue: WatchedQueue, action: str, job_filter: JobFilter) -> int | None:
    """How many jobs an action would change; None if that is too many, or cannot be counted."""
    if queue.actions is None:
        return None
    try:
        return queue.actions.previewer.preview(action, Target(job_filter=job_filter)).count
    except (RefusedFilterError, RequestError):
        return None


def _describe_list(
    found_errors: FoundErrors, query: ErrorQuery, page_window: PageWindow
) -> dict[str, Any]:
    page, matching, next_cursor = select_page(found_errors, query)
    if query.after is not None and not page:  # no groups follow the cursor any more
        page, matching, next_cursor = select_page(found_errors, replace(query, after=None))
    rows = [make_row(found_errors, summary, page_window) for summary in page]
    return {
        "missing": Missing(reason=found_errors.reason) if found_errors.reason else None,
        "rows": rows,
        "is_over": is_over(found_errors.window, found_errors.history),
        "columns": find_columns(rows),
        "group_count": len(matching),
        "error_count": sum(summary.count for summary in matching),
        "incomplete_reason": found_errors.history.incomplete_reason,
        "next_cursor": next_cursor,
        "has_workers": any(summary.workers for summary in matching) or bool(query.worker),
    }


def _write_group_filter(queue: WatchedQueue, group_id: str, sample: ErrorGroup | None) -> str:
    """The filter for the dead jobs of a group; its code limits the jobs that have to be read."""
    code = _find_code_filter(queue, sample)
    statuses = [JobStatus.DLQ.value]
    return write_filter({"status": statuses, "error_group": group_id, "error_code": code})


def _find_code_filter(queue: WatchedQueue, sample: ErrorGroup | None) -> str:
    """The code by which lists can find the jobs of a group; empty if no field of the jobs has it.

    The code of some groups is only the beginning of a message or of a stack.
    """
    if sample is None or sample.code is None:
        return ""
    is_from_text = any(
        (text or "").startswith(sample.code) for text in (sample.message, sample.stack)
    )
    can_query_codes = queue.known_fields.can_query("lastError.code")
    return sample.code if can_query_codes and not is_from_text else ""
