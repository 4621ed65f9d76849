"""Groups of errors: what fails, since when, in which types and on which workers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from flask import Response

from jobmon.api import run_examples
from jobmon.api.error_answers import MAX_NAMES, ErrorGroupInWindow, ErrorGroupList
from jobmon.api.fields import SortCursor, redact
from jobmon.api.openapi import Routes
from jobmon.api.shared_response import SharedResponse
from jobmon.api.window_queries import ErrorGroupParameters, ErrorListParameters, ErrorQuery
from jobmon.api.windows import (
    NO_COLLECTOR,
    explain_history_errors,
    format_window,
    resolve_window,
)
from jobmon.diagnosis.error_groups import (
    ErrorFilter,
    ErrorSummary,
    find_status,
    sort_errors,
    sort_key,
    summarize_errors,
)
from jobmon.diagnosis.evidence import NO_END_TIMES, NOT_COUNTED
from jobmon.rollup.error_group_document import ErrorGroup
from jobmon.rollup.run_history import ErrorSteps, RunHistory
from jobmon.rollup.series import MAX_CACHED_ANSWERS
from jobmon.rollup.windows import Window, WindowError
from jobmon.store.labels import OTHER
from jobmon.web.errors import ApiError
from jobmon.web.queues import WatchedQueue, current_queue

NO_WORKERS = "no failed run of this group has a known worker"


@dataclass(frozen=True, kw_only=True)
class FoundErrors:
    """The groups of errors of a queue in a window, and the counted `steps` of the window.

    `reason`: why the groups are unknown. `no_previous_reason`: why the errors before the window
    are unknown.
    """

    window: Window
    history: RunHistory
    error_filter: ErrorFilter
    summaries: list[ErrorSummary] = field(default_factory=list)
    steps: ErrorSteps = field(default_factory=dict)
    no_previous_reason: str = ""
    reason: str = ""

    @property
    def fold_reason(self) -> str:
        """Why the counts of a type or worker are lower bounds; empty if they are not."""
        counts, requested = self.history.details, self.error_filter
        pairs = counts.by_worker if requested.worker else counts.by_type if requested.types else ()
        is_folded = any(pair.subject == OTHER for pair in pairs)
        return "errors of rare types or workers are counted together" if is_folded else ""

    def trend(self, group_id: str) -> list[int] | None:
        """The errors of a group by step, as far as counted; None if that is not known."""
        return self.error_filter.trend(group_id, self.steps)


def read_errors(queue: WatchedQueue, window: Window, error_filter: ErrorFilter) -> FoundErrors:
    """The groups with matching errors in the window; raises NoCollectorError and PyMongoError.

    It reads the collector's buckets and its registry of groups, but no jobs.
    """
    history = queue.runs.read(window)
    is_unknown = "finishedAt" in queue.known_fields.unknown
    if is_unknown or history.is_ahead:
        reason = (NO_END_TIMES if is_unknown else NOT_COUNTED).reason
        return FoundErrors(window=window, history=history, error_filter=error_filter, reason=reason)
    steps = queue.runs.errors_by_step(window)
    counted_steps = {start: groups for start, groups in steps.items() if start <= history.as_of}
    previous, no_previous_reason = _read_previous(queue, window)
    return FoundErrors(
        window=window,
        history=history,
        error_filter=error_filter,
        summaries=summarize_errors(history, previous, error_filter),
        steps=counted_steps,
        no_previous_reason=no_previous_reason,
    )


def _read_previous(queue: WatchedQueue, window: Window) -> tuple[RunHistory | None, str]:
    """The history of an equal length of time before the window; or None, and why it is unknown."""
    try:
        earlier_window = queue.series.window(
            window.start - window.length, window.start, window.step
        )
    except (WindowError, OverflowError, ValueError):
        earlier_window = None
    if earlier_window is None or earlier_window.no_data_before is not None:
        return None, "the time before the window is not retained"
    previous = queue.runs.read(earlier_window)
    reason = previous.incomplete_reason
    return (None, f"in the time before the window: {reason}") if reason else (previous, "")


_GROUP_ID = {
    "name": "group_id",
    "in": "path",
    "required": True,
    "description": "Id of the group, from the list of groups.",
    "schema": {"type": "string"},
    "example": run_examples.ERROR_DETAIL["data"]["id"],
}


def add_routes(routes: Routes) -> None:
    """Add `/errors` and `/errors/{group_id}` to the routes of operators."""
    response = SharedResponse(ErrorGroupList.shared(), MAX_CACHED_ANSWERS)

    @routes.get("/errors")
    @routes.doc(operationId="listErrorGroups")
    @routes.arguments(ErrorListParameters, location="query")
    @routes.response(HTTPStatus.OK, ErrorGroupList, example=run_examples.ERROR_LIST)
    def errors(query: ErrorQuery) -> Response:
        """List the groups of errors: what fails, how often, since when, in which types.

        Errors of failed attempts or, where no attempts are recorded, of failed jobs are grouped by
        code, message without its variable parts, and frame. The groups come from the collector's
        history: without a collector the answer is 503.
        """
        queue = current_queue()
        window = resolve_window(queue.series, query)
        error_filter = ErrorFilter(types=query.types, worker=query.worker)

        def make_answer() -> dict[str, Any]:
            return format_errors(read_errors(queue, window, error_filter), query)

        with explain_history_errors(NO_COLLECTOR):
            # Until the collector counts again, `read` returns the same object.
            return response.respond(queue.runs.read(window), make_answer, query)

    @routes.get("/errors/<group_id>", parameters=[_GROUP_ID])
    @routes.doc(operationId="getErrorGroup")
    @routes.arguments(ErrorGroupParameters, location="query")
    @routes.document_error(
        HTTPStatus.NOT_FOUND,
        "not_found",
        "There is no such group, or it was seen too long ago.",
    )
    @routes.response(HTTPStatus.OK, ErrorGroupInWindow, example=run_examples.ERROR_DETAIL)
    def error_group(query: ErrorQuery, group_id: str) -> dict[str, Any]:
        """Get a group of errors, with the message and the stack of one error."""
        queue = current_queue()
        window = resolve_window(queue.series, query)
        with explain_history_errors(NO_COLLECTOR):
            found_errors = read_errors(queue, window, ErrorFilter(types=query.types))
        summary, sample = find_group(queue, found_errors, group_id)
        detail = format_group(found_errors, summary)
        if sample is not None:
            detail |= {"message": sample.message, "stack": sample.stack}
        meta = format_window(window, found_errors.history)
        return {"meta": meta, "data": detail}


def find_group(
    queue: WatchedQueue, found_errors: FoundErrors, group_id: str
) -> tuple[ErrorSummary, ErrorGroup | None]:
    """A group, and its sample if it has one; raises ApiError 404 if no group has this id."""
    sample = None if group_id == OTHER else queue.rollup.error_group(group_id)
    summary = next((each for each in found_errors.summaries if each.id == group_id), None)
    if summary is not None:
        return summary, sample
    if sample is None and group_id != OTHER:
        message = "There is no such group of errors, or it was seen too long ago."
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", message)
    return ErrorSummary(
        id=group_id,
        group=sample,
        status=find_status(sample, found_errors.history),
        count=0,
        previous_count=None,
        types=Counter(),
        workers=Counter(),
    ), sample


def select_page(
    found_errors: FoundErrors, query: ErrorQuery
) -> tuple[list[ErrorSummary], list[ErrorSummary], str | None]:
    """The groups of a page, all groups that match, and the cursor of the next page, if any."""
    matching = [
        summary
        for summary in found_errors.summaries
        if not query.statuses or summary.status in query.statuses
    ]
    after = query.after
    remaining = [
        summary
        for summary in sort_errors(matching, query.sort)
        if after is None or sort_key(summary, query.sort) > after
    ]
    page, has_more = remaining[: query.per_page], len(remaining) > query.per_page
    return page, matching, SortCursor.encode(sort_key(page[-1], query.sort)) if has_more else None


def format_errors(found_errors: FoundErrors, query: ErrorQuery) -> dict[str, Any]:
    """The fields of an `ErrorGroupList`."""
    page, matching, next_cursor = select_page(found_errors, query)
    is_known = not found_errors.reason
    summaries = found_errors.summaries
    ungrouped = sum(summary.count for summary in summaries if summary.id == OTHER)
    reasons = {
        "data": found_errors.reason,
        "total_errors": found_errors.history.incomplete_reason or found_errors.fold_reason,
    }
    meta = {
        **format_window(found_errors.window, found_errors.history),
        "total": len(matching) if is_known else None,
        "total_errors": sum(summary.count for summary in summaries) if is_known else None,
        "ungrouped_errors": ungrouped if is_known else None,
        "next_cursor": next_cursor,
        "reasons": {name: reason for name, reason in reasons.items() if reason},
    }
    data = [format_group(found_errors, summary) for summary in page] if is_known else None
    return {"meta": meta, "data": data}


# The fields of a group that are null when the errors of the window are unknown.
_COUNT_FIELDS = ("count", "previousCount", "growth", "typeCounts", "workerCounts", "trend")


def format_group(found_errors: FoundErrors, summary: ErrorSummary) -> dict[str, Any]:
    """The fields of an `ErrorGroupAnswer`."""
    group, reasons = summary.group, {}
    unknown = _COUNT_FIELDS if found_errors.reason else ()
    if summary.previous_count is None:
        reason = found_errors.no_previous_reason or "no error of the group is in the window"
        reasons = dict.fromkeys(("previousCount", "growth"), reason)
    workers = summary.workers
    if summary.count and workers is not None and not workers:
        reasons["workerCounts"], workers = NO_WORKERS, None
    if group is None:
        is_other = summary.id == OTHER
        reason = "these errors could not be grouped" if is_other else "its record was deleted"
        reasons |= dict.fromkeys(("code", "pattern", "status", "firstSeen", "lastSeen"), reason)
    return {
        "id": summary.id,
        "code": group and redact(group.code),
        "pattern": group and redact(group.pattern),
        "frame": group and redact(group.frame),
        "status": summary.status,
        "firstSeen": group and group.first_seen,
        "lastSeen": group and group.last_seen,
        "count": summary.count,
        "previousCount": summary.previous_count,
        "growth": summary.growth,
        "typeCounts": None if summary.types is None else fold_names(summary.types),
        "workerCounts": None if workers is None else fold_names(workers),
        "trend": found_errors.trend(summary.id),
        "jobs": group.jobs if group else (),
        **dict.fromkeys(unknown),
        "reasons": reasons | dict.fromkeys(unknown, found_errors.reason),
    }


def fold_names(names: Counter[str], max_names: int = MAX_NAMES) -> dict[str, int]:
    """The `max_names` names with the most errors, the most first; all others as `(other)`."""
    ranked: Iterable[tuple[str, int]] = sorted(
        names.items(), key=lambda pair: (pair[0] == OTHER, -pair[1], pair[0])
    )
    folded: Counter[str] = Counter()
    for rank, (name, count) in enumerate(ranked):
        folded[redact(name) if rank < max_names else OTHER] += count
    return dict(folded)
