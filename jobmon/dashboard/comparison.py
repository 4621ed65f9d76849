"""Compares the overview's time window with the period before it; the tiles show the changes.

A tile shows a change only if its value is completely known for both periods.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jobmon.dashboard.facts import Facts, PreviousPeriod
from jobmon.diagnosis.evidence import NO_END_TIMES, STILL_COUNTING, Missing
from jobmon.domain import failure_rate
from jobmon.humanize import grouped, percent
from jobmon.rollup.buckets import QueueSample, floor
from jobmon.rollup.series import Activity

_NOT_REQUESTED = Missing(reason="no comparison was requested")
_NO_SAMPLE = Missing(reason="no collector recorded the state of the queue then")
_AS_OF_NOW = Missing(reason="they are as of now")
_ONLY_IN_PROGRESS = Missing(reason="attempts finished only in the step in progress")
_HAS_GAPS = Missing(reason="runs may be missing from a part of the time")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A difference from the period before: `text` is short (`▲ 12%`), `sentence` is in words."""

    text: str
    sentence: str
    is_increase: bool = False


# The completed steps of the window, and the corresponding steps of the period before.
_Periods = tuple[list[Activity], list[Activity]]


def compare_samples(
    facts: Facts, count: int | None, measure: Callable[[QueueSample], int]
) -> Change | None:
    """The change of a number of jobs since the window began, now `count`; None if it is unknown.

    `measure` returns the number in a sample.
    """
    sample = _find_sample(facts)
    if count is None or isinstance(sample, Missing):
        return None
    difference = count - measure(sample)
    return _make_change(
        difference, grouped(abs(difference)), "more", "fewer", facts.page_window.beginning
    )


def compare_attempts(facts: Facts) -> Change | None:
    """The change of the number of finished attempts, in percent if any finished before.

    None if a period is not completely known.
    """
    periods = _find_periods(facts)
    if isinstance(periods, Missing):
        return None
    window_steps, previous_steps = periods
    previous = sum(step.finished for step in previous_steps)
    difference = sum(step.finished for step in window_steps) - previous
    amount = percent(abs(difference) / previous) if previous else grouped(abs(difference))
    period = f"in {facts.page_window.previous}"
    return _make_change(difference, amount, "more attempts", "fewer attempts", period)


def compare_failure_rates(facts: Facts) -> Change | None:
    """The change of the failure rate, in percentage points.

    None if a period is not completely known, or if no attempt finished in it.
    """
    periods = _find_periods(facts)
    if isinstance(periods, Missing):
        return None
    rate, previous_rate = map(_find_failure_rate, periods)
    if rate is None or previous_rate is None:
        return None
    points = round((rate - previous_rate) * 100, 1)
    amount = f"{abs(points):.1f}".removesuffix(".0") + " points"
    period = f"in {facts.page_window.previous}"
    return _make_change(points, amount, "more", "fewer", period)


def describe_uncompared(facts: Facts) -> list[str]:
    """Why values are not compared; empty if all are compared, or if no comparison is requested."""
    if facts.previous is None:
        return []
    results = {"Attempts": _find_periods(facts), "Jobs by status": _find_sample(facts)}
    unknown = {label: result for label, result in results.items() if isinstance(result, Missing)}
    if len({missing.reason for missing in unknown.values()}) == 1 and len(unknown) > 1:
        unknown = {"Values": next(iter(unknown.values()))}
    period = facts.page_window.previous
    return [
        f"{label} are not compared with {period}: {missing.reason}. {missing.remedy}".rstrip()
        for label, missing in unknown.items()
    ]


def _find_periods(facts: Facts) -> _Periods | Missing:
    """The steps to compare, or why the attempts of a period are not completely known."""
    if "finishedAt" in facts.evidence.unknown:
        return NO_END_TIMES
    if not isinstance(facts.previous, PreviousPeriod):
        return facts.previous or _NOT_REQUESTED
    history, previous = facts.history_by_step, facts.previous.history_by_step
    if isinstance(history, Missing):
        return history
    if not (history.is_complete and previous.is_complete):
        return STILL_COUNTING
    if history.gaps or previous.gaps:
        return _HAS_GAPS
    distance = facts.previous.distance
    completed = [start for start in history.activity if start + facts.window.step <= history.as_of]
    window_steps = [history.activity[start] for start in completed]
    previous_steps = [previous.activity[start - distance] for start in completed]
    has_compared = any(step.finished for step in (*window_steps, *previous_steps))
    if not has_compared and any(step.finished for step in history.activity.values()):
        return _ONLY_IN_PROGRESS
    return window_steps, previous_steps


def _find_sample(facts: Facts) -> QueueSample | Missing:
    """The newest sample of the queue when the window began, or why it is unknown."""
    if not isinstance(facts.previous, PreviousPeriod):
        return facts.previous or _NOT_REQUESTED
    if facts.is_over:
        return _AS_OF_NOW
    last_step = facts.window.end - facts.window.step
    if facts.page_window.range:  # such a window ends now
        last_step = floor(facts.evidence.stats.as_of, facts.window.step)
    return facts.previous.samples.get(last_step - facts.previous.distance, _NO_SAMPLE)


def _find_failure_rate(steps: list[Activity]) -> float | None:
    return failure_rate(sum(step.failed for step in steps), sum(step.finished for step in steps))


def _make_change(difference: float, amount: str, more: str, fewer: str, period: str) -> Change:
    if not difference:
        return Change(text="± 0", sentence=f"the same as {period}")
    arrow, words = ("▲", more) if difference > 0 else ("▼", fewer)
    sentence = f"{amount} {words} than {period}"
    return Change(text=f"{arrow} {amount}", sentence=sentence, is_increase=difference > 0)
