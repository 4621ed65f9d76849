"""Groups of errors as the pages show them, and the most frequent ones for a block of a page."""

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

    `since` is when it was first seen, if it is new. `types` and `workers` are pairs of a name and
    its number of errors, most errors first. `trend` has a count for each completed step.
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
    found: FoundErrors,
    summary: ErrorSummary,
    page_window: PageWindow,
    max_names: int = _NAMES_IN_ROW,
) -> ErrorRow:
    """A group as a row; types and workers beyond `max_names` are summed."""
    group = summary.group
    is_completed = [at + found.window.step <= found.history.as_of for at in found.steps]
    trend = zip(found.trend(summary.id) or [], is_completed, strict=False)
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
        count=None if found.reason else summary.count,
        growth=summary.growth,
        types=_show_names(summary.types, max_names),
        # The page of one worker shows no other worker.
        workers=[] if found.error_filter.worker else _show_names(summary.workers, max_names),
        trend=[float(count) for count, is_known in trend if is_known],
    )


def find_columns(rows: list[ErrorRow]) -> set[str]:
    """The optional columns of a table that have a value in any of these rows."""
    has_value = {
        "trend": any(row.trend for row in rows),
        "types": any(row.types for row in rows),
        "workers": any(row.workers for row in rows),
    }
    return {name for name, is_shown in has_value.items() if is_shown}


def _show_names(names: Counter[str] | None, shown: int) -> list[tuple[str, int]]:
    return list(fold_names(names or Counter(), shown).items())


@dataclass(frozen=True, kw_only=True)
class TopErrors:
    """The most frequent groups of errors of a window, for a block of a page.

    `incomplete_reason` is why there may be more errors, or why none are known; empty if these are
    all. `filters` is the query of the page with all groups.
    """

    rows: list[ErrorRow] = field(default_factory=list)
    groups: int = 0
    errors: int = 0
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
    errors: ErrorFilter | None = None,
) -> TopErrors:
    """The most frequent groups of a window, or why they are unknown; raises PyMongoError.

    `window` has the steps of `page_window`. For a page of a type or a worker, `errors` selects its
    errors.
    """
    errors = errors or ErrorFilter()
    filters = query(**page_window.parameters, type=errors.types, worker=errors.worker)
    try:
        found = read_errors(queue, window, errors)
    except NoCollectorError as error:
        missing = describe_missing(queue, error)
        return TopErrors(filters=filters, incomplete_reason=missing.reason)
    return TopErrors(
        rows=[make_row(found, group, page_window) for group in found.groups[:TOP_ERRORS]],
        groups=len(found.groups),
        errors=sum(group.count for group in found.groups),
        filters=filters,
        incomplete_reason=found.reason or found.history.incomplete_reason,
    )


def describe_missing(queue: WatchedQueue, error: NoCollectorError) -> Missing:
    """Why there is no history of errors, and what to do."""
    return Missing.from_error(error, has_collector=queue.rollup.leader() is not None)
