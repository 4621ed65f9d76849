"""Groups of errors as the pages show them, and the block with the most frequent groups."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from jobmon.api.error_groups import FoundErrors, fold_names, format_group, read_errors
from jobmon.dashboard.page_window import PageWindow
from jobmon.diagnosis.error_groups import ErrorFilter, ErrorSummary
from jobmon.diagnosis.error_kinds import GroupStatus
from jobmon.diagnosis.evidence import Missing
from jobmon.page_addresses import error_address, query
from jobmon.rollup.series import NoCollectorError
from jobmon.rollup.windows import Window
from jobmon.store.labels import OTHER
from jobmon.web.queues import WatchedQueue

TOP_ERRORS = 5
_NAMES_IN_ROW = 2


def make_row(
    found_errors: FoundErrors,
    summary: ErrorSummary,
    page_window: PageWindow,
    max_names: int = _NAMES_IN_ROW,
) -> dict[str, Any]:
    """The fields of an `ErrorGroupAnswer`, and what only the pages show.

    `since` is when the group was first seen if it is new, else None. `types` and `workers` are
    pairs of a name and its number of errors, the most errors first: `max_names`, the others are
    summed as `(other)`. `trend` has a count for each completed step.
    """
    group = summary.group
    step, as_of = found_errors.window.step, found_errors.history.as_of
    are_steps_over = [start + step <= as_of for start in found_errors.steps]
    trend = zip(found_errors.trend(summary.id) or [], are_steps_over, strict=False)
    # The page of a worker shows only errors of this worker.
    workers = None if found_errors.error_filter.worker else summary.workers
    return format_group(found_errors, summary) | {
        "link": error_address(summary.id, page_window.parameters),
        "is_other": summary.id == OTHER,
        "since": group.first_seen if group and summary.status is GroupStatus.NEW else None,
        "types": _list_names(summary.types, max_names),
        "workers": _list_names(workers, max_names),
        "trend": [float(count) for count, is_step_over in trend if is_step_over],
    }


def find_columns(rows: list[dict[str, Any]]) -> set[str]:
    """The optional columns of a table: those that have a value in at least one of the rows."""
    return {name for name in ("trend", "types", "workers") if any(row[name] for row in rows)}


def _list_names(counts: Counter[str] | None, max_names: int) -> list[tuple[str, int]]:
    return list(fold_names(counts or Counter(), max_names).items())


@dataclass(frozen=True, kw_only=True)
class TopErrors:
    """The most frequent groups of errors of a window, for a block of a page.

    `group_count` is the number of all groups of the window, `filters` the query string for the page
    that lists them. `incomplete_reason`: why there may be more errors, or why none are known; empty
    if all are known.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    group_count: int = 0
    filters: str = ""
    incomplete_reason: str = ""

    @property
    def columns(self) -> set[str]:
        """See `find_columns`."""
        return find_columns(self.rows)


def read_top_errors(
    queue: WatchedQueue,
    page_window: PageWindow,
    window: Window,
    error_filter: ErrorFilter | None = None,
) -> TopErrors:
    """The most frequent groups of a window, or why they are unknown; raises PyMongoError.

    `window` has the steps of `page_window`. `error_filter` selects the errors of a type or worker
    for its page.
    """
    selected = error_filter or ErrorFilter()
    filters = query(**page_window.parameters, type=selected.types, worker=selected.worker)
    try:
        found_errors = read_errors(queue, window, selected)
    except NoCollectorError as error:
        missing = describe_missing(queue, error)
        return TopErrors(filters=filters, incomplete_reason=missing.reason)
    return TopErrors(
        rows=[
            make_row(found_errors, summary, page_window)
            for summary in found_errors.summaries[:TOP_ERRORS]
        ],
        group_count=len(found_errors.summaries),
        filters=filters,
        incomplete_reason=found_errors.reason or found_errors.history.incomplete_reason,
    )


def describe_missing(queue: WatchedQueue, error: NoCollectorError) -> Missing:
    """Why the collector's history cannot be read, and what to do."""
    return Missing.from_error(error, has_collector=queue.rollup.leader() is not None)
