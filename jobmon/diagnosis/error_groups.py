"""Lists the groups of errors of a window: their counts, status, types and workers."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from jobmon.diagnosis.error_kinds import GroupStatus, group_status
from jobmon.rollup.error_registry import ErrorGroup
from jobmon.rollup.run_details import ErrorPair
from jobmon.rollup.run_history import ErrorSteps, RunHistory


@dataclass(frozen=True, kw_only=True)
class ErrorFilter:
    """Errors of jobs of any of these types (all, if there are none), or of one worker."""

    types: tuple[str, ...] = ()
    worker: str | None = None

    def count(self, history: RunHistory) -> Counter[ErrorPair]:
        """The matching errors by group and type, or by group and worker if this names a worker."""
        if self.worker is not None:
            return _select(history.details.by_worker, (self.worker,))
        return _select(history.details.by_type, self.types)

    def trend(self, group_id: str, steps: ErrorSteps) -> list[int] | None:
        """The matching errors of a group in each step; None for one worker: that is not known."""
        if self.worker is not None:
            return None
        found = (step.get(group_id, Counter()) for step in steps.values())
        if not self.types:
            return [counts.total() for counts in found]
        return [sum(counts[kind] for kind in self.types) for counts in found]


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """A group of errors in a window.

    `group` and `status` are None for `(other)`, and if the group was deleted from the registry.
    `previous` is the count of the previous window of the same length, None if it is not known.
    `types` and `workers` count the errors; None if that is not known for this filter.
    """

    id: str
    group: ErrorGroup | None
    status: GroupStatus | None
    count: int
    previous: int | None
    types: Counter[str] | None
    workers: Counter[str] | None

    @property
    def growth(self) -> int | None:
        """How many more errors than in the window before."""
        return None if self.previous is None else self.count - self.previous


def summarize_errors(
    history: RunHistory,
    previous: RunHistory | None,
    error_filter: ErrorFilter,
) -> list[ErrorSummary]:
    """The groups with errors in the window, the most frequent first; `(other)` may be one of them.

    `previous` is the window before.
    """
    counts = _split_groups(error_filter.count(history))
    workers = _split_groups(history.details.by_worker)
    before = None if previous is None else _split_groups(error_filter.count(previous))
    has_worker, no_counts = error_filter.worker is not None, Counter[str]()
    found = [
        ErrorSummary(
            id=group_id,
            group=(group := history.groups.get(group_id)),
            status=find_status(group, history),
            count=count.total(),
            previous=None if before is None else before.get(group_id, no_counts).total(),
            types=None if has_worker else count,
            workers=None if error_filter.types else workers.get(group_id, no_counts),
        )
        for group_id, count in counts.items()
    ]
    return sort_errors(found, "-count")


def find_status(group: ErrorGroup | None, history: RunHistory) -> GroupStatus | None:
    """Whether a group is new, ongoing or quiet; None if that is not known."""
    if group is None:
        return None
    return group_status(group.first_seen, group.last_seen, history.as_of, history.counting_since)


def count_statuses(history: RunHistory) -> dict[GroupStatus, int]:
    """How many groups have each status."""
    statuses = Counter(find_status(group, history) for group in history.groups.values())
    return {status: statuses[status] for status in GroupStatus}


# What a list of groups may be sorted by; None is an unknown value.
SORTS: Mapping[str, Callable[[ErrorSummary], float | None]] = {
    "count": lambda error: error.count,
    "lastSeen": lambda error: error.group and error.group.last_seen.timestamp(),
    "firstSeen": lambda error: error.group and error.group.first_seen.timestamp(),
    "growth": lambda error: error.growth,
}
SortKey = tuple[bool, float, str]


def sort_key(error: ErrorSummary, sort: str) -> SortKey:
    """The place of a group in the order `sort`, a key of `SORTS`; with `-` the largest come first.

    Groups whose value is unknown come last.
    """
    value = SORTS[sort.removeprefix("-")](error)
    if value is None:
        return True, 0.0, error.id
    return False, -value if sort.startswith("-") else value, error.id


def sort_errors(errors: Iterable[ErrorSummary], sort: str) -> list[ErrorSummary]:
    """The groups in this order."""
    return sorted(errors, key=lambda error: sort_key(error, sort))


def _select(counts: Counter[ErrorPair], names: tuple[str, ...]) -> Counter[ErrorPair]:
    """The counts of these types or workers; all, if `names` is empty."""
    if not names:
        return counts
    return Counter({pair: count for pair, count in counts.items() if pair.subject in names})


def _split_groups(counts: Counter[ErrorPair]) -> dict[str, Counter[str]]:
    """The counts of each group, by type or worker."""
    groups: dict[str, Counter[str]] = {}
    for (group, subject), count in counts.items():
        groups.setdefault(group, Counter())[subject] += count
    return groups
