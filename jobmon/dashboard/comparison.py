"""Compares the window of an overview with the period before it: the changes that its tiles show.

A tile has a change only if its value is completely known in both periods.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jobmon.dashboard.facts import Facts, Previous
from jobmon.diagnosis.evidence import NO_END_TIMES, STILL_COUNTING, Missing
from jobmon.domain import failure_rate
from jobmon.humanize import grouped, percent
from jobmon.rollup.buckets import QueueSample, floor
from jobmon.rollup.series import Activity

_NOT_REQUESTED = Missing(reason="no comparison was requested")
_NO_SAMPLE = Missing(reason="no collector recorded the state of the queue then")
_AS_OF_NOW = Missing(reason="they are as of now")
_HAS_GAPS = Missing(reason="runs may be missing from a part of the time")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A difference to the previous period: `text` is short, as `▲ 12%`."""

    text: str
    sentence: str
    is_increase: bool = False


@dataclass(frozen=True, kw_only=True)
class _Periods:
    """The completed steps of the window, and the corresponding steps of the period before."""

    now: list[Activity]
    before: list[Activity]


def compare_samples(
    facts: Facts, now: int | None, measure: Callable[[QueueSample], int]
) -> Change | None:
    """The change of a number of jobs since the window began; None if either number is unknown."""
    sample = _find_sample(facts)
    if now is None or isinstance(sample, Missing):
        return None
    difference = now - measure(sample)
    return _make_change(
        difference, grouped(abs(difference)), "more", "fewer", facts.page_window.beginning
    )


def compare_attempts(facts: Facts) -> Change | None:
    """The change of the number of finished attempts; in percent, if there were any before."""
    periods = _find_periods(facts)
    if isinstance(periods, Missing):
        return None
    before = sum(step.finished for step in periods.before)
    difference = sum(step.finished for step in periods.now) - before
    shown = percent(abs(difference) / before) if before else grouped(abs(difference))
    period = f"in {facts.page_window.previous}"
    return _make_change(difference, shown, "more attempts", "fewer attempts", period)


def compare_failure_rates(facts: Facts) -> Change | None:
    """The change of the failure rate, in points; None if nothing finished in one of the periods."""
    periods = _find_periods(facts)
    if isinstance(periods, Missing):
        return None
    now, before = _sum_failure_rate(periods.now), _sum_failure_rate(periods.before)
    if now is None or before is None:
        return None
    points = round((now - before) * 100, 1)
    shown = f"{abs(points):.1f}".removesuffix(".0") + " points"
    period = f"in {facts.page_window.previous}"
    return _make_change(points, shown, "more", "fewer", period)


def describe_uncompared(facts: Facts) -> list[str]:
    """Why values of the tiles are not compared; empty without a reason or a comparison."""
    if facts.previous is None:
        return []
    reasons = {"Attempts": _find_periods(facts), "Jobs by status": _find_sample(facts)}
    missing = {values: reason for values, reason in reasons.items() if isinstance(reason, Missing)}
    if len({reason.reason for reason in missing.values()}) == 1 and len(missing) > 1:
        missing = {"Values": next(iter(missing.values()))}
    period = facts.page_window.previous
    return [
        f"{values} are not compared with {period}: {missed.reason}. {missed.remedy}".rstrip()
        for values, missed in missing.items()
    ]


def _find_periods(facts: Facts) -> _Periods | Missing:
    """The steps to compare, or why the attempts of both periods are not known completely."""
    if "finishedAt" in facts.evidence.unknown:
        return NO_END_TIMES
    if not isinstance(facts.previous, Previous):
        return facts.previous or _NOT_REQUESTED
    past, previous = facts.past, facts.previous.past
    if isinstance(past, Missing):
        return past
    if not (past.is_complete and previous.is_complete):
        return STILL_COUNTING
    if past.gaps or previous.gaps:
        return _HAS_GAPS
    distance = facts.previous.distance
    completed = [at for at in past.activity if at + facts.window.step <= past.as_of]
    return _Periods(
        now=[past.activity[at] for at in completed],
        before=[previous.activity[at - distance] for at in completed],
    )


def _find_sample(facts: Facts) -> QueueSample | Missing:
    """The state of the queue when the window began, to compare the present state with."""
    if not isinstance(facts.previous, Previous):
        return facts.previous or _NOT_REQUESTED
    if facts.is_over:
        return _AS_OF_NOW
    at = floor(facts.evidence.stats.as_of, facts.window.step) - facts.previous.distance
    return facts.previous.samples.get(at, _NO_SAMPLE)


def _sum_failure_rate(steps: list[Activity]) -> float | None:
    return failure_rate(sum(step.failed for step in steps), sum(step.finished for step in steps))


def _make_change(difference: float, shown: str, more: str, less: str, period: str) -> Change:
    if not difference:
        return Change(text="± 0", sentence=f"the same as {period}")
    arrow, word = ("▲", more) if difference > 0 else ("▼", less)
    sentence = f"{shown} {word} than {period}"
    return Change(text=f"{arrow} {shown}", sentence=sentence, is_increase=difference > 0)
