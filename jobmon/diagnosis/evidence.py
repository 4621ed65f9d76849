"""The facts that the checks of a queue need: its stats and history, and why a part is missing."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from jobmon.domain import CappedCount, JobStatus
from jobmon.rollup.buckets import QueueSample
from jobmon.rollup.series import History, MissingIndexError, NoCollectorError
from jobmon.settings.rules import DEFAULT_RULES, Rules, Thresholds
from jobmon.store.filter import MAX_TYPES, JobFilter
from jobmon.store.labels import can_filter_by
from jobmon.store.paused_types import Pauses
from jobmon.store.stats import QueueStats

# Remedies for missing evidence, the same on the pages and in `jobmon check`.
START_A_COLLECTOR = "Start `jobmon collector`, or set JOBMON_COLLECTOR=true for the web service."
CREATE_INDEXES = "Create them with `jobmon init`, as a user who may create indexes."
READ_THE_LOG = "The collector's log has the reason."


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Why a history is not available, and what to do. `lacks_indexes`: indexes are missing."""

    reason: str
    remedy: str = ""
    lacks_indexes: bool = False

    @classmethod
    def from_error(cls, error: NoCollectorError, *, has_collector: bool) -> "Missing":
        """The reason why reading the history failed."""
        if isinstance(error, MissingIndexError):
            reason = "indexes are missing"
            return cls(reason=reason, remedy=CREATE_INDEXES, lacks_indexes=True)
        if has_collector:
            reason = "the collector runs, but has no history yet"
            return cls(reason=reason, remedy=READ_THE_LOG)
        return cls(reason="no collector is running", remedy=START_A_COLLECTOR)


NO_END_TIMES = Missing(reason="succeeded or dead jobs do not record when they finished")
STILL_COUNTING = Missing(reason="the collector is still counting the history")
NOT_COUNTED = Missing(reason="the window is in the future or not counted yet")
COUNTED_TOGETHER = Missing(reason="its activity is counted together with other types")
NO_CURRENT_STATS = Missing(
    reason="no collector keeps the statistics up to date", remedy=START_A_COLLECTOR
)
NO_CURRENT_HISTORY = Missing(
    reason="the collector has not counted the history for a minute", remedy=READ_THE_LOG
)
RUNS_MAY_BE_MISSING = "runs may be missing from the history"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The stats of a queue, and its history up to now.

    `hour_by_type` and `hour_by_minute` are of the last hour, `day_by_step` is of the last 24 hours
    in steps of ten minutes. `recent`: for each `stalled_after` of the `rules`, the activity by type
    in the last time of this length. `blocks` are three periods of ten minutes from `blocks_start`,
    by type. `samples` are from the last hour. `new_dead` counts the jobs of `find_dead_filter`.
    `first_expiry` is when the first of the expired leases ended, if known. `leader` is the
    collector that works now, `first_build` the progress of its first count. `unknown`: as in
    `KnownFields`. `assumed_lease` is how long a lease lasts by the profile, if the documents do not
    have its end. `pauses` are the paused types.
    """

    stats: QueueStats
    hour_start: datetime
    hour_by_type: History[str] | Missing = NO_END_TIMES
    recent: Mapping[timedelta, History[str] | Missing] = field(default_factory=dict)
    hour_by_minute: History[datetime] | Missing = NO_END_TIMES
    day_by_step: History[datetime] | Missing = NO_END_TIMES
    blocks: tuple[History[str], ...] | Missing = NO_END_TIMES
    blocks_start: datetime
    samples: Mapping[datetime, QueueSample]
    first_build: Mapping[str, int] | None = None
    leader: str | None = None
    new_dead: CappedCount | None = None
    first_expiry: datetime | None = None
    unknown: frozenset[str] = field(default_factory=frozenset)
    assumed_lease: timedelta | None = None
    pauses: Pauses = field(default_factory=dict)
    rules: Rules = DEFAULT_RULES

    @property
    def has_collector(self) -> bool:
        """Whether a collector works, even if its stats are old."""
        return self.stats.source == "rollup" or self.leader is not None

    def find_recent(self, thresholds: Thresholds) -> History[str] | Missing:
        """The history by type over the last `stalled_after` of these thresholds."""
        return self.recent.get(thresholds.stalled_after, NO_END_TIMES)

    def count_dead(self) -> dict[str, int]:
        """By type with `dead_per_hour` or more deaths in the last hour: how many jobs died."""
        if isinstance(self.hour_by_type, Missing):
            return {}
        return {
            job_type: activity.dlq
            for job_type, activity in self.hour_by_type.activity.items()
            if activity.dlq >= self.rules.for_type(job_type).dead_per_hour
        }

    def find_dead_filter(self) -> JobFilter | None:
        """A filter for the `count_dead` jobs that are still dead; None if no filter can be made."""
        types = self.count_dead()
        if not types or isinstance(self.hour_by_type, Missing):
            return None
        dead, by_type = died_since(self.hour_start), self.hour_by_type.activity
        if all(name in types for name, activity in by_type.items() if activity.dlq):
            return dead
        if len(types) > MAX_TYPES or not all(map(can_filter_by, types)):
            return None
        return replace(dead, types=tuple(sorted(types)))


def died_since(moment: datetime) -> JobFilter:
    """A filter for the dead jobs that died at `moment` or later."""
    return JobFilter(statuses=(JobStatus.DLQ.value,), finished_from=moment)
