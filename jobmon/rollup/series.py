"""Figures over time, from the buckets that the collector keeps or, without it, counted now."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from jobmon.rollup.reader import RollupReader
from jobmon.rollup.throughput import DAY, HOUR, MINUTE, Tallies, floor, merge, tally
from jobmon.store.connection import Connection

MAX_STEPS = 1_500
# Counted live, a window costs what happened in it.
MAX_LIVE_WINDOW = timedelta(hours=6)


@dataclass(frozen=True, kw_only=True)
class Window:
    """From `start` to before `end` (UTC) in steps; all are whole multiples of `span`."""

    start: datetime
    end: datetime
    step: timedelta

    @property
    def span(self) -> timedelta:
        """The largest buckets that the steps are made of."""
        return next(span for span in (DAY, HOUR, MINUTE) if self.step % span == timedelta(0))

    @classmethod
    def of(
        cls,
        start: datetime,
        end: datetime,
        step: timedelta | None,
        kept: Mapping[timedelta, timedelta],
    ) -> Self:
        """The window, widened to whole steps; without `step` one that gives up to 120 points.

        ValueError says in words what cannot be told.
        """
        now = datetime.now(UTC)
        if start >= end:
            raise ValueError("from must be before to.")
        if step is None:
            step = next((good for good in _STEPS if (end - start) / good <= 120), _STEPS[-1])
        if step < MINUTE or step % MINUTE:
            raise ValueError("step must be a multiple of 60 seconds.")
        window = cls(start=floor(start, step), end=_ceil(end, step), step=step)
        if (window.end - window.start) / step > MAX_STEPS:
            raise ValueError(f"More than {MAX_STEPS} steps: make step larger.")
        if window.start < floor(now - kept[window.span], DAY):
            days, larger = kept[window.span].days, _LARGER[window.span]
            raise ValueError(f"What is older than {days} days is not told by {larger}.")
        return window

    def steps(self) -> Iterator[datetime]:
        """The start of each step."""
        at = self.start
        while at < self.end:
            yield at
            at += self.step


_LARGER = {
    MINUTE: "the minute: step must be a multiple of 3600",
    HOUR: "the hour: step must be a multiple of 86400",
    DAY: "the day, nor at all: from is too early",
}
_STEPS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY)


def _ceil(moment: datetime, step: timedelta) -> datetime:
    down = floor(moment, step)
    return down if down == moment else down + step


class NoCollectorError(Exception):
    """Nobody keeps these figures, and counting them now would cost too much."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What happened in a window, by step and type, as far as is known at `as_of` (UTC)."""

    as_of: datetime
    source: str
    steps: dict[datetime, Tallies]


class SeriesReader:
    """What the web service asks about the past."""

    def __init__(self, connection: Connection, rollup: RollupReader) -> None:
        self._connection = connection
        self._rollup = rollup
        self._live = threading.Lock()

    def window(self, start: datetime, end: datetime, step: timedelta | None) -> Window:
        """`Window.of`, as far back as is kept."""
        return Window.of(start, end, step, self._connection.kept)

    def past(self, window: Window) -> Past:
        """What the collector kept; without one counted now, for a short window.

        Raises NoCollectorError for a longer one.
        """
        steps: dict[datetime, Tallies] = {at: {} for at in window.steps()}
        as_of = self._rollup.counted_at()
        if as_of is not None:
            buckets = self._rollup.buckets(window.span, window.start, window.end)
            for at, tallies in buckets.items():
                step = floor(at, window.step)
                steps[step] = merge(iter([steps[step], tallies]))
            return Past(as_of=as_of, source="rollup", steps=steps)
        if window.end - window.start > MAX_LIVE_WINDOW:
            raise NoCollectorError(MAX_LIVE_WINDOW)
        with self._live:  # one at a time in this process
            now = datetime.now(UTC)
            for at in steps:
                steps[at] = tally(self._connection, at, at + window.step) if at <= now else {}
        return Past(as_of=now, source="live", steps=steps)
