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
    """What has changed since the milestones with this `version` were counted.

    `jobs`: at most how many jobs. `oldest_ms`: none of them was created before this time, in ms
    since 1970; infinite if none has changed.
    """

    version: str
    jobs: int
    oldest_ms: float


@dataclass(frozen=True)
class Milestone:
    """A date `at_ms` in ms since 1970, and how many jobs are older, by label as in `Milestones`.

    Those in `ranges` are not counted, because only some of them are older: `uncounted` jobs.
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

    `labels`: status and type of the jobs that are counted together; the type is None for all types.
    """

    labels: tuple[tuple[str, str | None], ...]
    found: tuple[Milestone, ...]

    def find(
        self, position: int, statuses: Collection[str], types: Collection[str], *, after: bool
    ) -> tuple[Milestone, int] | None:
        """The milestone nearest to a place of a list, and how many jobs of the list are older.

        `position`: how many jobs of the list are older than that place. With `after` the milestone
        is at the place or newer, else at the place or older, however its uncounted jobs are
        divided. None without such a milestone, or if the types are not counted.
        """
        if types and any(job_type is None for _, job_type in self.labels):
            return None
        columns = [
            number
            for number, (status, job_type) in enumerate(self.labels)
            if (not statuses or status in statuses) and (not types or job_type in types)
        ]

        def count(milestone: Milestone) -> int:
            return sum(milestone.older[column] for column in columns)

        if after:
            number = bisect_left(self.found, position, key=count)
        else:
            number = bisect_right(self.found, position, key=count) - 1
            while number >= 0 and (
                count(self.found[number]) + self.found[number].uncounted > position
            ):
                number -= 1
        if not 0 <= number < len(self.found):
            return None
        return self.found[number], count(self.found[number])
