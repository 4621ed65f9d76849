"""What is known of a queue at one moment: its stats, its last day, and a reason for each gap."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from jobmon.diagnosis import remedies
from jobmon.domain import CappedCount, JobStatus
from jobmon.rollup.buckets import MINUTE, QueueSample
from jobmon.rollup.series import History, MissingIndexError, NoCollectorError
from jobmon.store.filter import JobFilter
from jobmon.store.stats import QueueStats

STALLED_AFTER = 10 * MINUTE


@dataclass(frozen=True, kw_only=True)
class Missing:
    """History that is not available: the reason, and what to do about it."""

    reason: str
    remedy: str

    @classmethod
    def from_error(cls, error: NoCollectorError, *, has_collector: bool) -> "Missing":
        """The reason why reading the history failed."""
        if isinstance(error, MissingIndexError):
            return cls(reason="indexes are missing", remedy=remedies.CREATE_INDEXES)
        if has_collector:
            reason = "the collector runs, but has no history yet"
            return cls(reason=reason, remedy=remedies.READ_THE_LOG)
        return cls(reason="no collector is running", remedy=remedies.START_A_COLLECTOR)

    @property
    def lacks_indexes(self) -> bool:
        """Whether indexes are missing."""
        return self.remedy == remedies.CREATE_INDEXES


NO_ENDS = Missing(reason="no job records when it finished", remedy="")
STILL_COUNTING = Missing(reason="the collector is still counting it", remedy="")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The stats of a queue, and its history up to now.

    `hour` and `ten_minutes` are by type, `minutes` is the last hour by the minute, `day` the last
    24 hours by ten minutes; `samples` are of the last hour. `new_dead` counts the dead jobs that
    died since `hour_start`. `leader` is the collector that works now, `first_build` the progress of
    its first count. `unknown` are the fields of a job that no document has.
    """

    stats: QueueStats
    hour_start: datetime
    hour: History[str] | Missing = NO_ENDS
    ten_minutes: History[str] | Missing = NO_ENDS
    minutes: History[datetime] | Missing = NO_ENDS
    day: History[datetime] | Missing = NO_ENDS
    samples: Mapping[datetime, QueueSample]
    first_build: Mapping[str, int] | None = None
    leader: str | None = None
    new_dead: CappedCount | None = None
    unknown: frozenset[str] = field(default_factory=frozenset)

    @property
    def has_collector(self) -> bool:
        """Whether a collector works, even if its stats are old."""
        return self.stats.source == "rollup" or self.leader is not None


def died_since(moment: datetime) -> JobFilter:
    """A filter for the dead jobs that died at `moment` or later."""
    return JobFilter(statuses=(JobStatus.DLQ.value,), finished_from=moment)
