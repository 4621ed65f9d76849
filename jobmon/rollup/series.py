"""Reads the queue's history in a window of time: from the collector's buckets or counted live."""

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Self, TypeVar

from jobmon.domain import AttemptStatus, failure_rate
from jobmon.rollup.activity import count_activity
from jobmon.rollup.buckets import (
    HOUR,
    HistoryProgress,
    QueueSample,
    Tallies,
    Tally,
    floor,
    fold_rare_types,
    merge,
    retention,
)
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.rollup.histogram import Histogram, percentiles
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.step_cache import StepCache
from jobmon.rollup.windows import Window
from jobmon.single_flight import TTL_FACTOR, SingleFlightCache
from jobmon.store.connection import Connection
from jobmon.store.labels import OTHER
from jobmon.store.read_collection import NoIndexError

# The cost of counting a window live grows with its activity.
MAX_LIVE_WINDOW = timedelta(hours=6)
LIVE_TTL_S = 2.0  # callers share a live count for this time, or longer if it took long
# For all queues of a process; an answer takes about 20 KiB, a step about 500 bytes.
MAX_CACHED_ANSWERS = 200
MAX_CACHED_STEPS = 20_000

Types = tuple[str, ...]


class NoCollectorError(Exception):
    """No collector keeps this history, and counting it live would cost too much."""


class MissingIndexError(NoCollectorError):
    """Counting this history needs an index that does not exist."""


class TooManyTypesError(Exception):
    """Buckets of the window folded types into `(other)`: the activity of one type is unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Durations:
    """Percentiles in ms of `count` durations; None if `count` is 0."""

    p50: int | None
    p95: int | None
    p99: int | None
    count: int

    @classmethod
    def from_histogram(cls, histogram: Histogram) -> Self:
        p50, p95, p99 = percentiles(histogram, (0.5, 0.95, 0.99))
        return cls(p50=p50, p95=p95, p99=p99, count=histogram.total())


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """The activity in some time: a tally, with percentiles instead of histograms."""

    enqueued: int
    succeeded: int
    failed: int
    dlq: int
    wait: Durations
    run: Durations

    @property
    def finished(self) -> int:
        return self.succeeded + self.failed

    @property
    def failure_rate(self) -> float | None:
        """The share of finished attempts that failed; None if none finished."""
        return failure_rate(self.failed, self.finished)

    def known_counts(self, unknown: frozenset[str]) -> dict[str, int | None]:
        """The counts by name; None if a count needs a date in `unknown`, which no document has."""
        ends_unknown = "finishedAt" in unknown
        return {
            "enqueued": None if "createdAt" in unknown else self.enqueued,
            "succeeded": None if ends_unknown else self.succeeded,
            "failed": None if ends_unknown else self.failed,
            "dlq": None if ends_unknown else self.dlq,
        }

    @classmethod
    def from_tallies(cls, tallies: Iterable[Tally]) -> Self:
        total = Tally()
        for tally in tallies:
            total.add(tally)
        succeeded = total.outcomes[AttemptStatus.SUCCEEDED]
        return cls(
            enqueued=total.enqueued,
            succeeded=succeeded,
            failed=total.outcomes.total() - succeeded,
            dlq=total.dlq,
            wait=Durations.from_histogram(total.wait),
            run=Durations.from_histogram(total.run),
        )


K = TypeVar("K")


@dataclass(frozen=True)
class History(Generic[K]):
    """The activity in a window as known at `as_of` (UTC), by step or by type.

    `source` is "rollup" or "live". Readers get the same object for a window until the collector has
    counted again. Unless `is_complete`, a collector is still counting the window. The steps in
    `uncounted`, and a window that `is_ahead`, are not counted yet. In `gaps` runs may be missing,
    because no attempts are recorded.
    """

    as_of: datetime
    source: str
    activity: dict[K, Activity]
    is_complete: bool = True
    uncounted: frozenset[K] = frozenset()
    gaps: tuple[Gap, ...] = ()
    is_ahead: bool = False


class SeriesCache:
    """Caches the histories of all queues of a process; keys contain the reader of a queue."""

    def __init__(self) -> None:
        self.by_step: SingleFlightCache[History[datetime]] = SingleFlightCache(MAX_CACHED_ANSWERS)
        self.by_type: SingleFlightCache[History[str]] = SingleFlightCache(MAX_CACHED_ANSWERS)
        self.final_steps = StepCache[Activity](MAX_CACHED_STEPS)


class SeriesReader:
    """Reads the history; its methods raise PyMongoError.

        window = series.window(start, end, None)
        series.history_by_step(window, ("email.send",)).activity[window.start].succeeded

    An answer is computed once for each count of the collector and shared by all viewers. Final
    steps are cached without their histograms. So any number of viewers costs at most about one
    small read a second for each window. Readers of several queues may share a `cache`.
    """

    def __init__(
        self, connection: Connection, rollup: RollupReader, cache: SeriesCache | None = None
    ) -> None:
        self._connection = connection
        self.rollup = rollup
        self._cache = cache or SeriesCache()
        self._live = threading.Lock()

    def window(self, start: datetime, end: datetime, step: timedelta | None) -> Window:
        """`Window.from_range` within the retention of the settings; raises WindowError."""
        return Window.from_range(start, end, step, retention(self._connection.settings))

    def history_by_step(self, window: Window, types: Types) -> History[datetime]:
        """The activity of jobs of these types (of all jobs if `types` is empty), step by step.

        It is read from the collector's buckets. Without a collector, up to six hours are counted
        live; a longer window raises NoCollectorError, and a missing index MissingIndexError. Raises
        TooManyTypesError if `types` is not empty, and a bucket of the window has folded types.
        """
        progress = self.rollup.progress()

        def compute() -> History[datetime]:
            if progress is not None:
                steps = self._read_steps(window, types, progress)
                uncounted = {at for at in steps if not progress.covers(at, at + window.step)}
                as_of, source = progress.counted_at, "rollup"
            else:
                as_of, tallies = self._count_live(window)
                steps = {at: _sum_types(tallies.get(at, {}), types) for at in window.steps()}
                uncounted, source = set(), "live"
            return History(
                as_of,
                source,
                steps,
                is_complete=not uncounted,
                uncounted=frozenset(uncounted | {at for at in steps if at >= as_of}),
                gaps=self.find_gaps(window, as_of, is_live=progress is None),
                is_ahead=window.is_ahead(as_of),
            )

        counted_at, max_age_s = _find_validity(progress)
        key = (self, window, types, counted_at)
        return self._cache.by_step.get(key, compute, max_age_s, ttl_factor=TTL_FACTOR)

    def history_by_type(self, window: Window) -> History[str]:
        """The activity of each type in the whole window; read or counted as by `history_by_step`.

        Rare types are folded by `fold_rare_types`.
        """
        progress = self.rollup.progress()

        def compute() -> History[str]:
            is_complete = True
            if progress is not None:
                as_of, source = progress.counted_at, "rollup"
                is_complete = progress.covers(window.start, window.end)
                spans = window.cover(progress.counted_at)
                tallies = merge(self.rollup.buckets(spans).values())
            else:
                as_of, by_step = self._count_live(window)
                source, tallies = "live", merge(by_step.values())
            activity = {
                job_type: Activity.from_tallies([tally])
                for job_type, tally in fold_rare_types(tallies).items()
            }
            gaps = self.find_gaps(window, as_of, is_live=progress is None)
            return History(
                as_of, source, activity, is_complete, gaps=gaps, is_ahead=window.is_ahead(as_of)
            )

        counted_at, max_age_s = _find_validity(progress)
        return self._cache.by_type.get(
            (self, window, counted_at), compute, max_age_s, ttl_factor=TTL_FACTOR
        )

    def samples(self, window: Window) -> dict[datetime, QueueSample]:
        """The newest sample of each step, by the step's start; a step without samples is absent."""
        samples = self.rollup.samples(window.span, window.start, window.end)
        return {floor(at, window.step): sample for at, sample in sorted(samples.items())}

    def find_gaps(
        self, window: Window, as_of: datetime, *, is_live: bool = False
    ) -> tuple[Gap, ...]:
        """The parts of a window, up to `as_of`, in which runs may be missing."""
        history, connection = self.rollup.event_history(), self._connection
        gaps = () if history is None else history.gaps
        if is_live and (history is not None or connection.attempts is None):
            gaps = (Gap(start=None, end=None, reason=GapReason.NO_COLLECTOR),)
        end = min(window.end, as_of)
        clipped = [part for gap in gaps if (part := gap.clip(window.start, end)) is not None]
        return () if clipped and connection.has_recorded_attempts() else tuple(clipped)

    def _read_steps(
        self, window: Window, types: Types, progress: HistoryProgress
    ) -> dict[datetime, Activity]:
        if progress.final_until is None:  # the rollup database may have been dropped
            self._cache.final_steps.clear(self)
        keys = {at: (types, window.step, at) for at in window.steps()}
        cached = self._cache.final_steps.find(self, keys.values())
        parts = window.parts(at for at, key in keys.items() if key not in cached)
        tallies: dict[datetime, list[Tallies]] = {}
        for bucket, counts in self.rollup.buckets(parts).items():
            if types and OTHER in counts:
                raise TooManyTypesError
            tallies.setdefault(parts[bucket], []).append(counts)
        steps = {
            at: cached.get(key) or _sum_types(merge(tallies.get(at, [])), types)
            for at, key in keys.items()
        }
        if (final_until := progress.final_until) is not None:
            final = [at for at in parts.values() if at + window.step <= final_until]
            self._cache.final_steps.add(self, {keys[at]: steps[at] for at in final})
        return steps

    def _count_live(self, window: Window) -> tuple[datetime, dict[datetime, Tallies]]:
        # A requested window is widened to whole steps.
        if window.length > MAX_LIVE_WINDOW + min(window.step, HOUR):
            raise NoCollectorError(MAX_LIVE_WINDOW)
        with self._live:  # one live count at a time in this process
            as_of = self._connection.data_time()
            try:
                by_step = count_activity(self._connection, window.start, window.end, window.step)
            except NoIndexError:
                raise MissingIndexError from None
            return min(as_of, self._connection.data_time()), by_step


def _find_validity(progress: HistoryProgress | None) -> tuple[datetime | None, float]:
    """The time of the collector's last count, and how long an answer is valid, in seconds."""
    return (None, LIVE_TTL_S) if progress is None else (progress.counted_at, math.inf)


def _sum_types(tallies: Tallies, types: Types) -> Activity:
    return Activity.from_tallies(
        tally for job_type, tally in tallies.items() if not types or job_type in types
    )
