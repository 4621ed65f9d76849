"""Groups of errors as the pages show them, and the block with the most frequent groups."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from jobmon.api.error_groups import FoundErrors, fold_names, read_errors
from jobmon.api.fields import redact
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


@dataclass(frozen=True, kw_only=True)
class ErrorRow:
    """A group of errors in a window.

    `since` is when the group was first seen if it is new, else None. `types` and `workers` are
    pairs of a name and its number of errors, the most errors first. `trend` has a count for each
    completed step. `growth` is the change of `count` from the period before. Unknown values are
    None, empty texts or empty lists.
    """

    id: str
    link: str
    code: str | None
    pattern: str | None
    frame: str | None
    status: str
    since: datetime | None
    first_seen: datetime | None
    last_seen: datetime | None
    count: int | None
    growth: int | None
    types: list[tuple[str, int]]
    workers: list[tuple[str, int]]
    trend: list[float | None]

    @property
    def is_other(self) -> bool:
        """Whether these are the errors that could not be grouped."""
        return self.id == OTHER


def make_row(
    found_errors: FoundErrors,
    summary: ErrorSummary,
    page_window: PageWindow,
    max_names: int = _NAMES_IN_ROW,
) -> ErrorRow:
    """A group as a row, with `max_names` types and workers; the others are summed as `(other)`."""
    group = summary.group
    step, as_of = found_errors.window.step, found_errors.history.as_of
    are_steps_over = [start + step <= as_of for start in found_errors.steps]
    trend = zip(found_errors.trend(summary.id) or [], are_steps_over, strict=False)
    return ErrorRow(
        id=summary.id,
        link=error_address(summary.id, page_window.parameters),
        code=group and redact(group.code),
        pattern=group and redact(group.pattern),
        frame=group and redact(group.frame),
        status=summary.status or "",
        since=group.first_seen if group and summary.status is GroupStatus.NEW else None,
        first_seen=group and group.first_seen,
        last_seen=group and group.last_seen,
        count=None if found_errors.reason else summary.count,
        growth=summary.growth,
        types=_list_names(summary.types, max_names),
        # The page of a worker shows only errors of this worker.
        workers=[] if found_errors.error_filter.worker else _list_names(summary.workers, max_names),
        trend=[float(count) for count, is_step_over in trend if is_step_over],
    )


def find_columns(rows: list[ErrorRow]) -> set[str]:
    """The optional columns of a table: those that have a value in at least one of the rows."""
    has_value = {
        "trend": any(row.trend for row in rows),
        "types": any(row.types for row in rows),
        "workers": any(row.workers for row in rows),
    }
    return {name for name, is_shown in has_value.items() if is_shown}


def _list_names(counts: Counter[str] | None, max_names: int) -> list[tuple[str, int]]:
    return list(fold_names(counts or Counter(), max_names).items())


@dataclass(frozen=True, kw_only=True)
class TopErrors:
    """The most frequent groups of errors of a window, for a block of a page.

    `group_count` is the number of all groups of the window, `filters` the query string for the page
    that lists them. `incomplete_reason`: why there may be more errors, or why none are known; empty
    if all are known.
    """

    rows: list[ErrorRow] = field(default_factory=list)
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
            for summary in found_errors.groups[:TOP_ERRORS]
        ],
        group_count=len(found_errors.groups),
        filters=filters,
        incomplete_reason=found_errors.reason or found_errors.history.incomplete_reason,
    )


def describe_missing(queue: WatchedQueue, error: NoCollectorError) -> Missing:
    """Why the collector's history cannot be read, and what to do."""
    return Missing.from_error(error, has_collector=queue.rollup.leader() is not None)
