"""The stats of a queue: its jobs by status and type, and its health (due jobs, leases, ages)."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from jobmon.domain import JobStatus
from jobmon.store.labels import MAX_STATUSES, MAX_TYPES, OTHER, LabelBudget
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.milestones import MilestoneChanges


@dataclass(frozen=True, kw_only=True)
class QueueHealth:
    """The health of a queue, in addition to its counts; dates are UTC.

    `estimated_total`: jobs by the collection's metadata, or by the counts if some documents are no
    jobs. `due`: waiting jobs whose nextRunAt has passed or is missing. `scheduled`: waiting jobs
    with a later nextRunAt. If 500,000 or more jobs are due, and 500,000 or more are scheduled, both
    are None and `too_many_due` is true. `expired_leases` are counted up to 500,000.
    `oldest_queued`: the createdAt of the oldest queued job; `oldest_queued_by_type` the same by
    type, for at most 100 types. `overdue_by_type`: the earliest nextRunAt of each type, among the
    50,000 jobs that have been due the longest.

    `unknown` has a reason, by field name, for each value that is None because it cannot be
    determined, and for each value that is incomplete or a lower bound. A count is None instead of
    0 if some dates cannot be read.
    """

    estimated_total: int
    expired_leases: int | None
    due: int | None
    scheduled: int | None
    oldest_queued: datetime | None
    oldest_queued_by_type: Mapping[str, datetime]
    overdue_by_type: Mapping[str, datetime] = field(default_factory=dict)
    too_many_due: bool = False
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QueueStats:
    """The counts and the health of the whole queue at `as_of` (UTC).

    `counts` has the number of jobs by (status label, type label); beyond 100 statuses or 5,000
    types the others are counted as `(other)`. `source` is `rollup` (by the collector), `live`
    (counted now) or `estimate`. In an estimate `counts` is None, because counting reached its time
    limit, and `total` is from the collection's metadata. `milestones`: the version of the newest
    milestones of the lists, and the changes since then; None without milestones.
    """

    as_of: datetime
    source: str
    counts: Mapping[tuple[str, str], int] | None
    total: int
    health: QueueHealth
    milestones: MilestoneChanges | None = None

    def status_counts(self) -> dict[str, int] | None:
        """Jobs by status: of the contract, and others that occur; None in an estimate."""
        if self.counts is None:
            return None
        by_status = {status.value: 0 for status in JobStatus}
        for (status, _), count in self.counts.items():
            by_status[status] = by_status.get(status, 0) + count
        return by_status

    def type_counts(self) -> dict[str, dict[str, int]] | None:
        """Jobs by type, and in each type by the statuses that occur; None in an estimate."""
        if self.counts is None:
            return None
        by_type: dict[str, dict[str, int]] = {}
        for (status, job_type), count in self.counts.items():
            by_type.setdefault(job_type, {})[status] = count
        return by_type

    def type_counts_for(self, types: Collection[str]) -> dict[str, Mapping[str, int] | None] | None:
        """Jobs by type and status: each of `types` has a row.

        If `(other)` is one of `types`, its row counts all types that are not in `types`. Otherwise
        each type that occurs has a row, too. A row is None if its jobs may be counted in `(other)`.
        The result is None in an estimate.
        """
        if self.counts is None:
            return None
        by_type: dict[str, Counter[str]] = {}
        for (status, job_type), count in self.counts.items():
            name = OTHER if OTHER in types and job_type not in types else job_type
            by_type.setdefault(name, Counter())[status] += count
        default = None if OTHER in self._types else Counter[str]()
        return {job_type: by_type.get(job_type, default) for job_type in {*types, *by_type}}

    def age_ms(self, moment: datetime | None) -> int:
        """Milliseconds from `moment` to `as_of`; 0 for None and for a moment after `as_of`."""
        if moment is None:
            return 0
        return max(0, round((self.as_of - moment).total_seconds() * 1_000))

    def oldest_queued_age_ms(self) -> int | None:
        """The age of the oldest queued job; 0 if none is queued, None if it is unknown."""
        if "oldest_queued" in self.health.unknown:
            return None
        return self.age_ms(self.health.oldest_queued)

    @cached_property
    def _statuses(self) -> frozenset[str]:
        return frozenset(status for status, _ in self.counts or ())

    @cached_property
    def _types(self) -> frozenset[str]:
        return frozenset(job_type for _, job_type in self.counts or ())

    def count_matching(self, statuses: Collection[str], types: Collection[str]) -> int | None:
        """The number of jobs with any of `statuses` and any of `types`; empty means all.

        None in an estimate, and if jobs with one of these labels may be counted in `(other)`.
        """
        if self.counts is None:
            return None
        if not statuses and not types:
            return self.total
        for requested, counted in ((statuses, self._statuses), (types, self._types)):
            if OTHER in counted and not (counted - {OTHER}).issuperset(requested):
                return None
        return sum(
            self.counts.get((status, job_type), 0)
            for status in frozenset(statuses) or self._statuses
            for job_type in frozenset(types) or self._types
        )


# A stage that counts jobs; `CountsByName` adds up its results.
COUNT_BY_STATUS_AND_TYPE: Document = {
    "$group": {"_id": {"status": "$status", "type": "$type"}, "count": {"$sum": 1}}
}


class CountsByName:
    """Adds up groups of jobs by (status label, type label), each within its `LabelBudget`."""

    def __init__(self, mapping: FieldMapping) -> None:
        self._mapping = mapping
        self._statuses, self._types = LabelBudget(MAX_STATUSES, JobStatus), LabelBudget(MAX_TYPES)
        # Counts share their keys: the counts of 100,000 segments have millions of entries.
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}

    def add_up(self, groups: Iterable[Document]) -> Counter[tuple[str, str]]:
        """The sum of results of `COUNT_BY_STATUS_AND_TYPE`; earlier groups get labels first."""
        counts: Counter[tuple[str, str]] = Counter()
        for group in groups:
            status = self._mapping.to_contract_status(group["_id"].get("status"))
            key = self._statuses.label(status), self._types.label(group["_id"].get("type"))
            counts[self._keys.setdefault(key, key)] += int(group["count"])
        return counts

    def learn(self, counts: Mapping[tuple[str, str], int]) -> Counter[tuple[str, str]]:
        """Use the labels that these counts already have; returns the counts with shared keys."""
        self._statuses.learn(status for status, _ in counts)
        self._types.learn(job_type for _, job_type in counts)
        return Counter({self._keys.setdefault(key, key): count for key, count in counts.items()})

    def forget(self, *, all_but: Collection[tuple[str, str]]) -> None:
        """Free the labels that are no longer counted, so that other values can have them."""
        self._statuses.forget(all_but=(status for status, _ in all_but))
        self._types.forget(all_but=(job_type for _, job_type in all_but))
        if len(self._keys) > 2 * len(all_but):
            self._keys = {key: self._keys.get(key, key) for key in all_but}
