"""Milestones: dates in the list of jobs, each with the number of jobs that are older.

A page far from the first is found from the nearest milestone, so that few index keys are skipped.
A collector counts milestones for all lists by status and type: see docs/architecture.md, "Lists".
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class IdRange(NamedTuple):
    """The jobs with an _id from `low` to before `high`; None for no bound."""

    low: Any
    high: Any


class MilestoneChanges(NamedTuple):
    """The changes since the milestones with this `version` were counted.

    `jobs`: at most this many jobs have changed. `oldest_ms`: the changed jobs were created at this
    time or later, in ms since 1970; infinite if no job has changed.
    """

    version: str
    jobs: int
    oldest_ms: float


@dataclass(frozen=True)
class Milestone:
    """A date `at_ms` in ms since 1970, and how many jobs are `older`, for each of the `labels`.

    `older` does not include the `uncounted` jobs in `ranges`, because only some of them are older.
    """

    at_ms: int
    older: tuple[int, ...]
    uncounted: int = 0
    ranges: tuple[IdRange, ...] = ()

    @property
    def moment(self) -> datetime:
        """The date, in UTC."""
        return _EPOCH + timedelta(milliseconds=self.at_ms)


@dataclass(frozen=True)
class Milestones:
    """The milestones of a queue, the oldest first.

    `labels`: status and type of the jobs that are counted together; a type of None means all types.
    """

    labels: tuple[tuple[str, str | None], ...]
    entries: tuple[Milestone, ...]

    def find(
        self, position: int, statuses: Collection[str], types: Collection[str], *, after: bool
    ) -> tuple[Milestone, int] | None:
        """The milestone nearest to a place in a list, and how many jobs of the list are older.

        `position`: how many jobs of the list are older than that place. With `after` the milestone
        is at the place or newer, else at the place or older, even if all its uncounted jobs are
        older. None without such a milestone, or if the types are not counted.
        """
        if types and any(job_type is None for _, job_type in self.labels):
            return None
        columns = [
            index
            for index, (status, job_type) in enumerate(self.labels)
            if (not statuses or status in statuses) and (not types or job_type in types)
        ]

        def count(milestone: Milestone) -> int:
            return sum(milestone.older[column] for column in columns)

        if after:
            index = bisect_left(self.entries, position, key=count)
        else:
            index = bisect_right(self.entries, position, key=count) - 1
            while index >= 0 and (
                count(self.entries[index]) + self.entries[index].uncounted > position
            ):
                index -= 1
        if not 0 <= index < len(self.entries):
            return None
        return self.entries[index], count(self.entries[index])
