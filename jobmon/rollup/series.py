"""Figures over time, from the buckets that the collector keeps or, without it, counted now."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, Self, TypeVar

from pymongo.errors import OperationFailure

from jobmon.domain import AttemptStatus
from jobmon.rollup.histogram import Histogram, percentiles
from jobmon.rollup.reader import Counted, RollupReader
from jobmon.rollup.samples import QueueSample
from jobmon.rollup.throughput import (
    DAY,
    HOUR,
    MINUTE,
    SPANS,
    Tallies,
    Tally,
    busiest,
    floor,
    merge,
    retention,
    tally,
)
from jobmon.single_flight import SingleFlightCache
from jobmon.store.connection import Connection
from jobmon.store.labels import OTHER
from jobmon.store.read_collection import is_bad_hint

MAX_STEPS = 1_500
# Counted live, a window costs what happened in it; the answer is shared for so long.
MAX_LIVE_WINDOW = timedelta(hours=6)
KEEP_LIVE_S = 2.0
# At most, in each process: answers of some 20 KiB, steps of some 500 bytes.
KEEP_ANSWERS = 50
KEEP_STEPS = 20_000

Types = tuple[str, ...]


class WindowError(ValueError):
    """A window that the history cannot answer: `parameter` (`from` or `step`) is wrong."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True, kw_only=True)
class Window:
    """From `start` to before `end` (UTC) in steps; all are whole multiples of `span`."""

    start: datetime
    end: datetime
    step: timedelta

    @property
    def span(self) -> timedelta:
        """The largest buckets that the steps are made of."""
        return next(span for span in reversed(SPANS) if self.step % span == timedelta(0))

    @classmethod
    def of(
        cls,
        start: datetime,
        end: datetime,
        step: timedelta | None,
        kept: Mapping[timedelta, timedelta],
    ) -> Self:
        """The window, widened to whole steps; without `step` the finest that gives at most 168
        points and is still kept at its start, or else the coarsest that is.

        WindowError if such a window cannot be answered.
        """
        now = datetime.now(UTC)
        if start >= end:
            raise WindowError("from", "Must be before `to`.")
        if step is None:
            few = [good for good in _STEPS if (end - start) / good <= _MAX_POINTS]
            many = [good for good in reversed(_STEPS) if good not in few]
            windows = (cls.widened(start, end, good) for good in (*few, *many))
            step = next((window.step for window in windows if window.is_kept(kept, now)), DAY)
        if step < MINUTE or step % MINUTE:
            raise WindowError("step", "Must be a multiple of 60.")
        window = cls.widened(start, end, step)
        if not window.is_kept(kept, now):
            days, coarser = kept[window.span].days, _COARSER_STEP_S.get(window.span)
            if coarser is None:
                message = f"`from` is before the retained history ({days} days)."
                raise WindowError("from", message)
            message = f"Must be a multiple of {coarser} for a `from` more than {days} days ago."
            raise WindowError("step", message)
        if (window.end - window.start) / step > MAX_STEPS:
            raise WindowError("step", f"Makes more than {MAX_STEPS} steps.")
        return window

    @classmethod
    def widened(cls, start: datetime, end: datetime, step: timedelta) -> Self:
        """The window of whole steps that `start` and `end` lie in."""
        return cls(start=floor(start, step), end=_ceil(end, step), step=step)

    def is_kept(self, kept: Mapping[timedelta, timedelta], now: datetime) -> bool:
        """Whether buckets of the span are still there for the first step; by whole days."""
        return self.start >= floor(now - kept[self.span], DAY)

    def steps(self) -> Iterator[datetime]:
        """The start of each step."""
        at = self.start
        while at < self.end:
            yield at
            at += self.step

    def cover(self, until: datetime) -> Iterator[tuple[timedelta, datetime]]:
        """The fewest spans that make up the window as far as `until`, each with its start."""
        at = self.start
        while at < min(self.end, until + MINUTE):
            span = next(
                span for span in reversed(SPANS) if floor(at, span) == at and at + span <= self.end
            )
            yield span, at
            at += span


# In seconds: the steps that are still stored where those of a span are not.
_COARSER_STEP_S = {MINUTE: 3_600, 10 * MINUTE: 3_600, HOUR: 86_400, 6 * HOUR: 86_400}
# An hour is told by the minute, a day by ten minutes, a week by the hour, a month by six hours.
_STEPS = (*SPANS, 7 * DAY)
_MAX_POINTS = 168


def _ceil(moment: datetime, step: timedelta) -> datetime:
    down = floor(moment, step)
    return down if down == moment else down + step


class NoCollectorError(Exception):
    """Nobody keeps these figures, and counting them now would cost too much."""


class MissingIndexError(NoCollectorError):
    """Counting these figures needs an index that does not exist."""


class TooManyTypesError(Exception):
    """There were more types than are kept by name, so one by itself cannot be told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Durations:
    """Percentiles in ms; None where there was nothing to measure."""

    p50: int | None
    p95: int | None
    p99: int | None

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        """Those of a histogram."""
        p50, p95, p99 = percentiles(histogram, (0.5, 0.95, 0.99))
        return cls(p50=p50, p95=p95, p99=p99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """What is told of some time: a tally, with percentiles for its histograms."""

    enqueued: int
    succeeded: int
    failed: int
    dlq: int
    wait: Durations
    run: Durations

    @property
    def finished(self) -> int:
        """Attempts, however they ended."""
        return self.succeeded + self.failed

    @classmethod
    def of(cls, tallies: Iterable[Tally]) -> Self:
        """The sum of these."""
        total = Tally()
        for counted in tallies:
            total.add(counted)
        succeeded = total.outcomes[AttemptStatus.SUCCEEDED]
        return cls(
            enqueued=total.enqueued,
            succeeded=succeeded,
            failed=total.outcomes.total() - succeeded,
            dlq=total.dlq,
            wait=Durations.of(total.wait),
            run=Durations.of(total.run),
        )


K = TypeVar("K")


@dataclass(frozen=True)
class History(Generic[K]):
    """What happened in a window as far as is known at `as_of` (UTC): by step, or by type.

    As long as the collector has not counted again, whoever asks for the same window gets the same
    object. Unless `is_complete`, a collector is still counting the window; of the steps in
    `uncounted` nothing is known yet.
    """

    as_of: datetime
    source: str
    happened: dict[K, Activity]
    is_complete: bool = True
    uncounted: frozenset[K] = frozenset()


class SeriesReader:
    """What the web service asks about the past.

    An answer is made once for each time that the collector counted, and shared by all who ask.
    Steps that are counted for good are remembered as they are told: a few numbers each, without
    their histograms. So any number of viewers costs one small read a second and window.
    """

    def __init__(self, connection: Connection, rollup: RollupReader) -> None:
        self._connection = connection
        self._rollup = rollup
        self._by_step: SingleFlightCache[History[datetime]] = SingleFlightCache(KEEP_ANSWERS)
        self._by_type: SingleFlightCache[History[str]] = SingleFlightCache(KEEP_ANSWERS)
        self._settled: dict[tuple[Types, timedelta, datetime], Activity] = {}
        self._lock = threading.Lock()
        self._live = threading.Lock()

    def window(self, start: datetime, end: datetime, step: timedelta | None) -> Window:
        """`Window.of`, as far back as is kept."""
        return Window.of(start, end, step, retention(self._connection.settings))

    def by_step(self, window: Window, types: Types) -> History[datetime]:
        """What happened to jobs of these types (all, if none is named), step by step.

        From what the collector kept; without one counted now, for a short window. Raises
        NoCollectorError for a longer one, and where an index that counting needs is missing;
        TooManyTypesError where some types are named and there were more than are kept by name.
        """
        counted = self._rollup.counted()

        def compute() -> History[datetime]:
            if counted is not None:
                steps = self._kept_steps(window, types, counted)
                uncounted = frozenset(
                    at for at in steps if not counted.covers(at, at + window.step)
                )
                return History(counted.young, "rollup", steps, not uncounted, uncounted)
            now, tallies = self._count_now(window)
            told = {at: tallies.get(at, {}) for at in window.steps()}
            return History(now, "live", {at: _sum(many, types) for at, many in told.items()})

        return self._by_step.get((window, types, _moment(counted)), compute)

    def by_type(self, window: Window) -> History[str]:
        """What happened to each type of job in the whole window; sources as for `by_step`.

        Beyond 500 types the rest are `(other)`, as `throughput.busiest` says.
        """
        counted = self._rollup.counted()

        def compute() -> History[str]:
            is_complete = True
            if counted is not None:
                as_of, source = counted.young, "rollup"
                is_complete = counted.covers(window.start, window.end)
                spans = window.cover(counted.young)
                tallies = merge(self._rollup.buckets(spans).values())
            else:
                as_of, by_step = self._count_now(window)
                source, tallies = "live", merge(by_step.values())
            named = busiest(tallies)
            happened = {kind: Activity.of([tally]) for kind, tally in named.items()}
            return History(as_of, source, happened, is_complete)

        return self._by_type.get((window, _moment(counted)), compute)

    def first_build(self) -> Mapping[str, int] | None:
        """How far a collector's first count is, `counted` of about `estimated`; None if none is."""
        return self._rollup.build()

    def leader(self) -> str | None:
        """Which collector works now; None if none does."""
        return self._rollup.leader()

    def stood(self, window: Window) -> dict[datetime, QueueSample]:
        """How the queue stood at the end of each step, where a collector looked."""
        samples = self._rollup.gauges(window.span, window.start, window.end)
        return {floor(at, window.step): gauge for at, gauge in sorted(samples.items())}

    def _kept_steps(
        self, window: Window, types: Types, counted: Counted
    ) -> dict[datetime, Activity]:
        with self._lock:
            if counted.settled is None:  # the rollup was dropped, maybe
                self._settled.clear()
            known = {at: self._settled.get((types, window.step, at)) for at in window.steps()}
        parts = {
            (window.span, part): at
            for at, happened in known.items()
            if happened is None
            for part in Window(start=at, end=at + window.step, step=window.span).steps()
        }
        tallies: dict[datetime, list[Tallies]] = {}
        for bucket, counts in self._rollup.buckets(parts).items():
            if types and OTHER in counts:
                raise TooManyTypesError
            tallies.setdefault(parts[bucket], []).append(counts)
        told = {
            at: happened or _sum(merge(tallies.get(at, [])), types)
            for at, happened in known.items()
        }
        with self._lock:
            for at, happened in told.items():
                if counted.settled is not None and at + window.step <= counted.settled:
                    self._settled[types, window.step, at] = happened
            while len(self._settled) > KEEP_STEPS:
                del self._settled[next(iter(self._settled))]
        return told

    def _count_now(self, window: Window) -> tuple[datetime, dict[datetime, Tallies]]:
        if window.end - window.start > MAX_LIVE_WINDOW:
            raise NoCollectorError(MAX_LIVE_WINDOW)
        with self._live:  # one at a time in this process
            now = datetime.now(UTC)
            try:
                return now, tally(self._connection, window.start, window.end, window.step)
            except OperationFailure as error:
                if not is_bad_hint(error):
                    raise
                raise MissingIndexError from None


def _moment(counted: Counted | None) -> datetime | int:
    """The part of a question that says when its answer is no longer good."""
    return counted.young if counted is not None else int(time.monotonic() // KEEP_LIVE_S)


def _sum(tallies: Tallies, types: Types) -> Activity:
    return Activity.of(tally for kind, tally in tallies.items() if not types or kind in types)
