"""Lists the groups of errors of a window: their counts, status, types and workers."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from jobmon.diagnosis.error_kinds import GroupStatus, group_status
from jobmon.rollup.error_group_document import ErrorGroup
from jobmon.rollup.run_details import ErrorPair
from jobmon.rollup.run_history import ErrorSteps, RunHistory


@dataclass(frozen=True, kw_only=True)
class ErrorFilter:
    """Selects the errors of a worker if it is set, else of these types (of all if it is empty)."""

    types: tuple[str, ...] = ()
    worker: str | None = None

    def count(self, history: RunHistory) -> Counter[ErrorPair]:
        """The number of matching errors by group and type; by group and worker for a worker."""
        if self.worker is not None:
            return _select_subjects(history.details.by_worker, (self.worker,))
        return _select_subjects(history.details.by_type, self.types)

    def trend(self, group_id: str, steps: ErrorSteps) -> list[int] | None:
        """The number of matching errors of a group in each step; None for a worker: unknown."""
        if self.worker is not None:
            return None
        by_step = (groups.get(group_id, Counter()) for groups in steps.values())
        if not self.types:
            return [by_type.total() for by_type in by_step]
        return [sum(by_type[job_type] for job_type in self.types) for by_type in by_step]


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """A group of errors in a window.

    `group` and `status` are None for `(other)`, and if the group was deleted from the registry.
    `previous_count` is of the previous window of the same length; None if it is not known.
    `types` and `workers` count the errors by type and by worker; None if unknown for this filter.
    """

    id: str
    group: ErrorGroup | None
    status: GroupStatus | None
    count: int
    previous_count: int | None
    types: Counter[str] | None
    workers: Counter[str] | None

    @property
    def growth(self) -> int | None:
        """How many more errors than in the previous window; None if that is unknown."""
        return None if self.previous_count is None else self.count - self.previous_count


def summarize_errors(
    history: RunHistory,
    previous: RunHistory | None,
    error_filter: ErrorFilter,
) -> list[ErrorSummary]:
    """The groups with errors in the window, the most frequent first; one can be `(other)`.

    `previous` is the history of the window before; None if it is unknown.
    """
    counts = _split_groups(error_filter.count(history))
    workers = _split_groups(history.details.by_worker)
    earlier = None if previous is None else _split_groups(error_filter.count(previous))
    has_worker, no_errors = error_filter.worker is not None, Counter[str]()
    summaries = [
        ErrorSummary(
            id=group_id,
            group=(group := history.groups.get(group_id)),
            status=find_status(group, history),
            count=errors.total(),
            previous_count=None if earlier is None else earlier.get(group_id, no_errors).total(),
            types=None if has_worker else errors,
            workers=None if error_filter.types else workers.get(group_id, no_errors),
        )
        for group_id, errors in counts.items()
    ]
    return sort_errors(summaries, "-count")


def find_status(group: ErrorGroup | None, history: RunHistory) -> GroupStatus | None:
    """Whether a group is new, ongoing or quiet; None for a missing group."""
    if group is None:
        return None
    return group_status(group.first_seen, group.last_seen, history.as_of, history.counting_since)


def count_statuses(history: RunHistory) -> dict[GroupStatus, int]:
    statuses = Counter(find_status(group, history) for group in history.groups.values())
    return {status: statuses[status] for status in GroupStatus}


# The values by which a list of groups can be sorted; an unknown value is None.
SORTS: Mapping[str, Callable[[ErrorSummary], float | None]] = {
    "count": lambda error: error.count,
    "lastSeen": lambda error: error.group and error.group.last_seen.timestamp(),
    "firstSeen": lambda error: error.group and error.group.first_seen.timestamp(),
    "growth": lambda error: error.growth,
}
SortKey = tuple[bool, float, str]


def sort_key(error: ErrorSummary, sort: str) -> SortKey:
    """The place of a group in the order `sort`: a key of `SORTS`, with `-` the largest first.

    Groups whose value is unknown come last.
    """
    value = SORTS[sort.removeprefix("-")](error)
    if value is None:
        return True, 0.0, error.id
    return False, -value if sort.startswith("-") else value, error.id


def sort_errors(errors: Iterable[ErrorSummary], sort: str) -> list[ErrorSummary]:
    """The groups in an order of `sort_key`."""
    return sorted(errors, key=lambda error: sort_key(error, sort))


def _select_subjects(counts: Counter[ErrorPair], names: tuple[str, ...]) -> Counter[ErrorPair]:
    """The counts of the types or workers in `names`; of all if `names` is empty."""
    if not names:
        return counts
    return Counter({pair: count for pair, count in counts.items() if pair.subject in names})


def _split_groups(counts: Counter[ErrorPair]) -> dict[str, Counter[str]]:
    """The counts of each group, by type or worker."""
    groups: dict[str, Counter[str]] = {}
    for (group, subject), count in counts.items():
        groups.setdefault(group, Counter())[subject] += count
    return groups
