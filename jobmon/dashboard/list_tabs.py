"""The tabs of a list of jobs (all, scheduled, and each status), each with its number of jobs."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobmon.api.owner_counts import TOTAL, OwnerCounts
from jobmon.dashboard.formatting import capitalize_first, status_word
from jobmon.dashboard.list_form import LONGEST_FIRST, ListForm
from jobmon.domain import FINAL_STATUSES, WAITING_STATUSES, CappedCount, JobCondition, JobStatus
from jobmon.page_addresses import instant
from jobmon.store.labels import OTHER, can_filter_by
from jobmon.store.live_stats import UNCOUNTED
from jobmon.store.search import is_prefix, matches_filter
from jobmon.store.stats import QueueStats

MAX_OTHER_STATUSES = 20
# Each tab as (status, condition), one of them empty; both are empty for the tab of all jobs.
_SCHEDULED = ("", JobCondition.SCHEDULED.value)
_USUAL_TABS = (
    ("", ""),
    (JobStatus.QUEUED.value, ""),
    _SCHEDULED,
    (JobStatus.LEASED.value, ""),
    (JobStatus.FAILED.value, ""),
    (JobStatus.DLQ.value, ""),
    (JobStatus.SUCCEEDED.value, ""),
    (JobStatus.CANCELLED.value, ""),
)
_PERIODS = {"hour": timedelta(hours=1), "24 hours": timedelta(days=1), "7 days": timedelta(days=7)}
_HAS_OTHER_FILTERS = "Counted only for a status and a type: remove the other filters"
_IS_BY_TYPE = "Scheduled jobs are not counted by type"
_MANY_LABELS = "There are too many statuses or types to count each"
# The filters and orders for waiting jobs only, and for finished jobs only.
_FOR_WAITING = {"due_from", "due_to", "nextRunAt", "-nextRunAt"}
_FOR_FINISHED = {"finished_from", "finished_to", "finishedAt", "-finishedAt", LONGEST_FIRST}


@dataclass(frozen=True, kw_only=True)
class Tab:
    """A tab: the address of its list, and the `count` of its jobs, or the `reason` without one.

    A `count` that is a lower bound (not `is_exact`) may also have a `reason`. A tab without both
    shows only its label. `status` is empty for all jobs and for scheduled jobs.
    """

    label: str
    status: str
    address: str
    count: int | None
    is_exact: bool
    reason: str
    is_current: bool


class StatusTabs:
    """The tabs for the list with the filters of `form`.

    `stats` are the statistics of the queue, or the counts of an owner. `total` is the number of
    jobs of the current tab; without `stats`, only the current tab has a number.
    """

    def __init__(
        self, form: ListForm, stats: QueueStats | OwnerCounts | None, total: CappedCount | None
    ) -> None:
        self._form = form
        self._stats = stats
        self._total = total
        chosen, condition = form.parameters["status"], form.parameters.get("condition", "")
        self._current = [("", condition)]
        if not condition:
            self._current = [(status, "") for status in chosen or [""]]

    def list(self, *, has_schedule: bool) -> list[Tab]:
        """The tabs: all, scheduled, each known status, and other statuses in use or in the filters.

        Without `has_schedule`, there is no tab of scheduled jobs.
        """
        stats = self._stats
        counts = stats.status_counts() if isinstance(stats, QueueStats) else None
        others = sorted(filter(can_filter_by, {*(counts or ())} - {*JobStatus}))
        del others[MAX_OTHER_STATUSES:]
        chosen = self._form.parameters["status"]
        tabs = dict.fromkeys([*_USUAL_TABS, *((status, "") for status in (*others, *chosen))])
        if not has_schedule:
            tabs.pop(_SCHEDULED)
        return [self._make_tab(status, condition) for status, condition in tabs]

    def link_due_jobs(self, now: datetime) -> dict[str, str]:
        """For a list of scheduled jobs: by period (`hour`), a link to the jobs due within it."""
        if self._current != [_SCHEDULED]:
            return {}
        start = now.replace(second=0, microsecond=0)
        return {
            name: self._form.address(due_to=instant(start + length), sort="nextRunAt")
            for name, length in _PERIODS.items()
        }

    def _make_tab(self, status: str, condition: str) -> Tab:
        count, reason = self._count(status, condition)
        return Tab(
            label=capitalize_first(status_word(status) if status else condition or "all"),
            status=status,
            address=self._make_address(status, condition),
            count=None if count is None else count.value,
            is_exact=count is None or count.is_exact,
            reason=reason,
            is_current=(status, condition) in self._current,
        )

    def _count(self, status: str, condition: str) -> tuple[CappedCount | None, str]:
        """How many jobs the tab lists; the text is why that is unknown or a lower bound."""
        if self._current == [(status, condition)] and self._total is not None:
            return self._total, ""
        if self._stats is None:
            return None, ""
        if not self._form.is_by_status_and_type:
            return None, _HAS_OTHER_FILTERS
        if isinstance(self._stats, OwnerCounts):
            own_count = self._stats.by_status.get(status) if status else self._stats.total
            return own_count, capitalize_first(self._stats.reasons.get(status or TOTAL, ""))
        if condition:
            has_types = bool(self._form.parameters["type"])
            return (None, _IS_BY_TYPE) if has_types else _count_scheduled(self._stats)
        count = _count_jobs(self._stats, status, self._form.parameters["type"])
        if count is None:
            return None, capitalize_first(UNCOUNTED) if self._stats.counts is None else _MANY_LABELS
        return CappedCount(count, True), ""

    def _make_address(self, status: str, condition: str) -> str:
        """The address of the tab's list, without filters and orders that do not suit its jobs."""
        dropped = set()
        if status and status not in WAITING_STATUSES:
            dropped |= _FOR_WAITING
        if condition or (status and status not in FINAL_STATUSES):
            dropped |= _FOR_FINISHED
        order = self._form.parameters.get("sort", "")
        if not status and not condition:
            dropped |= {"nextRunAt", "-nextRunAt", "finishedAt", "-finishedAt"}
        if condition and order not in _FOR_WAITING:
            order = "nextRunAt"
        changes = {name: "" for name in dropped if name in self._form.parameters}
        return self._form.address(
            **changes,
            status=[status] if status else [],
            condition=condition,
            sort="" if order in dropped else order,
        )


def _count_jobs(stats: QueueStats, status: str, types: Collection[str]) -> int | None:
    """How many jobs have the status and any of the types, which may end in `*`; None if unknown."""
    labels = {job_type for _, job_type in stats.counts or ()}
    matching = [label for pattern in types for label in _list_types(pattern, labels)]
    if OTHER in labels and any(map(is_prefix, types)):
        return None
    if types and not matching and stats.counts is not None:
        return 0
    return stats.count_matching([status] if status else [], matching)


def _list_types(pattern: str, labels: Collection[str]) -> list[str]:
    if not is_prefix(pattern):
        return [pattern]
    return [label for label in labels if matches_filter(label, pattern)]


def _count_scheduled(stats: QueueStats) -> tuple[CappedCount | None, str]:
    """The scheduled jobs; a count with a reason is a lower bound."""
    count, reason = stats.health.scheduled, stats.health.unknown.get("scheduled", "")
    if count is None:
        return None, capitalize_first(reason or UNCOUNTED)
    return CappedCount(count, not reason), capitalize_first(reason)
