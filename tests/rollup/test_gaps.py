"""Gaps in the history: catches a gap that is not shown or shown for too long, and a list of gaps
that grows without end."""

from datetime import timedelta

import pytest

from jobmon.rollup import gaps as gaps_module
from jobmon.rollup.gaps import EventHistory, Gap, GapReason, clip_gaps

from ..conftest import NOW

HOUR = timedelta(hours=1)
LOST, RUNNING = GapReason.STREAM_LOST, GapReason.TOO_MANY_RUNNING


def gap(start: int | None, end: int | None, reason: GapReason = LOST) -> Gap:
    """A gap between these hours after NOW."""
    at = [None if hours is None else NOW + hours * HOUR for hours in (start, end)]
    return Gap(start=at[0], end=at[1], reason=reason)


def test_gaps_are_shown_only_within_the_window() -> None:
    gaps = (gap(None, 1), gap(2, 3), gap(3, 5), gap(6, None), gap(9, 10))
    assert clip_gaps(gaps, NOW + 4 * HOUR, NOW + 7 * HOUR) == (gap(4, 5), gap(6, 7))
    assert clip_gaps(gaps, NOW, NOW + HOUR) == (gap(0, 1),)


def test_gap_is_extended_while_its_reason_lasts() -> None:
    history = EventHistory().add(gap(0, 1, RUNNING)).add(gap(1, 2, RUNNING)).add(gap(2, 3))
    assert history.gaps == (gap(0, 2, RUNNING), gap(2, 3))
    assert history.add(gap(8, 9)).gaps[-1] == gap(8, 9)


def test_open_gap_ends_with_the_first_change() -> None:
    history = EventHistory().add(gap(None, None, GapReason.NO_CHANGE_STREAM))
    assert history.close(NOW).gaps == (gap(None, 0, GapReason.NO_CHANGE_STREAM),)


def test_oldest_gaps_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps_module, "MAX_GAPS", 2)
    history = EventHistory()
    for number in (0, 10, 20):
        history = history.add(gap(number, number + 1))
    assert history.gaps == (gap(0, 11), gap(20, 21))
