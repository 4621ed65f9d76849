"""Windows of time in whole steps: by default the finest steps that are still retained."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from jobmon.rollup.buckets import DAY, HOUR, MINUTE, SPANS, floor, seconds

MAX_STEPS = 1_500
# By default an hour has steps of a minute, a day of ten minutes, a week of an hour, and so on.
_STEPS = (*SPANS, 7 * DAY)
_MAX_POINTS = 168  # the most steps without a requested step, if steps of such a length are retained


class WindowError(ValueError):
    """A window that cannot be answered; `parameter` is the wrong field: `from`, `to` or `step`.

    The template of the message has `{start}` and `{end}` for the names of the fields.
    """

    def __init__(self, parameter: str, template: str) -> None:
        super().__init__(template)
        self.parameter = parameter

    def explain(self, prefix: str = "") -> str:
        """The message for fields whose names have this prefix."""
        return str(self).format(start=f"`{prefix}from`", end=f"`{prefix}to`")


@dataclass(frozen=True, kw_only=True)
class Window:
    """From `start` to before `end` (UTC), in whole steps.

    `no_data_before` is the beginning of the retained history, if an earlier time was requested.
    """

    start: datetime
    end: datetime
    step: timedelta
    no_data_before: datetime | None = None

    @property
    def span(self) -> timedelta:
        """The length of the largest buckets that each step consists of."""
        return next(span for span in reversed(SPANS) if self.step % span == timedelta(0))

    @property
    def length(self) -> timedelta:
        return self.end - self.start

    @property
    def finest_step(self) -> timedelta:
        """The default step of this window if all spans were retained."""
        return _choose_step(self.start, self.end, lambda _: True)

    @classmethod
    def from_range(
        cls,
        start: datetime,
        end: datetime,
        step: timedelta | None,
        retention: Mapping[timedelta, timedelta],
    ) -> Self:
        """The window, widened to whole steps; raises WindowError.

        Raises OverflowError or ValueError if a step is not within the years that Python has.
        Without `step` it has the finest step with at most 168 points that is retained at its start,
        or else the coarsest retained step. An earlier start than that of the retained history is
        replaced: see `no_data_before`.
        """
        now = datetime.now(UTC)
        if start >= end:
            raise WindowError("from", "Must be before {end}.")
        oldest = floor(now - retention[DAY], DAY)
        if end <= oldest:
            days = retention[DAY].days
            raise WindowError("to", f"{{end}} is before the retained history ({days} days).")
        no_data_before = oldest if start < oldest else None
        start = max(start, oldest)
        chosen = step
        if chosen is None:
            chosen = _choose_step(start, end, lambda window: window.is_retained(retention, now))
        if chosen < MINUTE or chosen % MINUTE:
            raise WindowError("step", "Must be a multiple of 60.")
        window = cls.from_steps(start, end, chosen)
        if window.span < DAY and not window.is_retained(retention, now):
            coarser_s = seconds(HOUR if window.span < HOUR else DAY)
            days = retention[window.span].days
            message = (
                f"Must be a multiple of {coarser_s} for a {{start}} more than {days} days ago."
            )
            raise WindowError("step", message)
        if window.length / chosen > MAX_STEPS:
            message = f"Makes more than {MAX_STEPS} steps."
            raise WindowError("to" if step is None else "step", message)
        return replace(window, no_data_before=no_data_before)

    @classmethod
    def from_steps(cls, start: datetime, end: datetime, step: timedelta) -> Self:
        """The window of the whole steps that contain the time from `start` to `end`."""
        return cls(start=floor(start, step), end=_ceil(end, step), step=step)

    def is_ahead(self, as_of: datetime) -> bool:
        """Whether it begins at `as_of` or later: nothing in it is counted yet."""
        return self.start >= as_of

    def is_retained(self, retention: Mapping[timedelta, timedelta], now: datetime) -> bool:
        """Whether the first step still has its buckets; retention counts whole days."""
        return self.start >= floor(now - retention[self.span], DAY)

    def steps(self) -> Iterator[datetime]:
        at = self.start
        while at < self.end:
            yield at
            at += self.step

    def parts(self, steps: Iterable[datetime]) -> dict[tuple[timedelta, datetime], datetime]:
        """The spans (length, start) that these steps consist of, each with its step's start."""
        return {
            (self.span, part): at
            for at in steps
            for part in Window(start=at, end=at + self.step, step=self.span).steps()
        }

    def cover(self, until: datetime) -> Iterator[tuple[timedelta, datetime]]:
        """The fewest spans (length, start) that together cover the window up to `until`."""
        at = self.start
        while at < min(self.end, until + MINUTE):
            span = next(
                span for span in reversed(SPANS) if floor(at, span) == at and at + span <= self.end
            )
            yield span, at
            at += span


def _choose_step(
    start: datetime, end: datetime, is_retained: Callable[[Window], bool]
) -> timedelta:
    """The finest step with at most `_MAX_POINTS`, or else the coarsest step, that is retained."""
    with_few_points = [step for step in _STEPS if (end - start) / step <= _MAX_POINTS]
    others = [step for step in reversed(_STEPS) if step not in with_few_points]
    windows = (Window.from_steps(start, end, step) for step in (*with_few_points, *others))
    return next((window.step for window in windows if is_retained(window)), DAY)


def _ceil(moment: datetime, step: timedelta) -> datetime:
    start = floor(moment, step)
    return start if start == moment else start + step
