"""What is known of a queue at a moment: its figures, its last hour, and the reason for each gap."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self, TypeVar

from jobmon.diagnosis import remedies
from jobmon.domain import CappedCount, JobStatus
from jobmon.rollup.buckets import DAY, HOUR, MINUTE, QueueSample
from jobmon.rollup.series import History, MissingIndexError, NoCollectorError, SeriesReader
from jobmon.rollup.stats import StatsReader
from jobmon.store.filter import DateNotKeptError, JobFilter
from jobmon.store.known_fields import KnownFields
from jobmon.store.stats import QueueStats

K = TypeVar("K")

STALLED_AFTER = 10 * MINUTE


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Figures that nobody has: why, and what to do about it."""

    reason: str
    remedy: str

    @property
    def lacks_indexes(self) -> bool:
        """Whether counting them needs indexes that do not exist."""
        return self.remedy == remedies.CREATE_INDEXES


NO_ENDS = Missing(reason="no job records when it finished", remedy="")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The figures of a queue and of its last hour.

    `hour` and `lately` are the last hour and the last ten minutes by type, `minutes` is the last
    hour by the minute, `day` the last 24 hours by ten minutes. `new_dead` is how many jobs that
    died since `hour_start` are dead, and whether that is exact. `leader` is the collector that
    works now. `unknown` are the fields of a job that no document has.
    """

    figures: QueueStats
    hour_start: datetime
    hour: History[str] | Missing = NO_ENDS
    lately: History[str] | Missing = NO_ENDS
    minutes: History[datetime] | Missing = NO_ENDS
    day: History[datetime] | Missing = NO_ENDS
    samples: Mapping[datetime, QueueSample]
    first_build: Mapping[str, int] | None = None
    leader: str | None = None
    new_dead: CappedCount | None = None
    unknown: frozenset[str] = field(default_factory=frozenset)

    @property
    def has_collector(self) -> bool:
        """Whether a collector works, fresh figures or not."""
        return self.figures.source == "rollup" or self.leader is not None

    @classmethod
    def gather(
        cls, stats: StatsReader, series: SeriesReader, known_fields: KnownFields, now: datetime
    ) -> Self:
        """Read everything; PyMongoError where the database cannot be read."""
        minutes = series.window(now - HOUR, now, MINUTE)
        lately = series.window(now - STALLED_AFTER, now, MINUTE)
        day = series.window(now - DAY, now, timedelta(minutes=10))
        known = cls(
            figures=stats.stats(),
            hour_start=minutes.start,
            samples=series.samples(minutes),
            first_build=series.rollup.first_build(),
            leader=series.rollup.leader(),
            unknown=known_fields.unknown,
        )
        if "finishedAt" in known.unknown:
            return known
        hour = history(lambda: series.history_by_type(minutes), known)
        new_dead = None
        if isinstance(hour, History) and any(step.dlq for step in hour.activity.values()):
            new_dead = _count(stats, died_since(minutes.start))
        return replace(
            known,
            hour=hour,
            lately=history(lambda: series.history_by_type(lately), known),
            minutes=history(lambda: series.history_by_step(minutes, ()), known),
            day=history(lambda: series.history_by_step(day, ()), known, partly=True),
            new_dead=new_dead,
        )


def history(
    read: Callable[[], History[K]], known: Evidence, *, partly: bool = False
) -> History[K] | Missing:
    """What `read` returns, or why there is no such history, or `partly`: not all of it yet."""
    try:
        past = read()
    except MissingIndexError:
        return Missing(reason="indexes are missing", remedy=remedies.CREATE_INDEXES)
    except NoCollectorError:
        if known.has_collector:
            reason = "the collector runs, but has no history yet"
            return Missing(reason=reason, remedy=remedies.READ_THE_LOG)
        return Missing(reason="no collector is running", remedy=remedies.START_A_COLLECTOR)
    if not past.is_complete and not partly:
        return Missing(reason="the collector is still counting it", remedy="")
    return past


def died_since(moment: datetime) -> JobFilter:
    """The dead jobs that died at `moment` or later."""
    return JobFilter(statuses=(JobStatus.DLQ.value,), finished_from=moment)


def _count(stats: StatsReader, job_filter: JobFilter) -> CappedCount | None:
    try:
        return stats.count(job_filter)
    except DateNotKeptError:
        return None
