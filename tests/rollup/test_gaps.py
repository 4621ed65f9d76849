"""Gaps in the history: catches a gap that is not shown or shown for too long, and a list of gaps
that grows without limit."""

from datetime import timedelta

import pytest

from jobmon.rollup import gaps as gaps_module
from jobmon.rollup.gaps import EventHistory, Gap, GapReason

from ..conftest import NOW

HOUR = timedelta(hours=1)
LOST, RUNNING = GapReason.STREAM_LOST, GapReason.TOO_MANY_RUNNING


def make_gap(start: int | None, end: int | None, reason: GapReason = LOST) -> Gap:
    """A gap from `start` to `end`, in hours after NOW; None for a gap without this limit."""
    start_at, end_at = (None if hours is None else NOW + hours * HOUR for hours in (start, end))
    return Gap(start=start_at, end=end_at, reason=reason)


def test_gaps_are_clipped_to_the_window() -> None:
    gaps = (make_gap(None, 1), make_gap(2, 3), make_gap(3, 5), make_gap(6, None), make_gap(9, 10))
    clipped = [gap.clip(NOW + 4 * HOUR, NOW + 7 * HOUR) for gap in gaps]
    assert clipped == [None, None, make_gap(4, 5), make_gap(6, 7), None]
    assert gaps[0].clip(NOW, NOW + HOUR) == make_gap(0, 1)


def test_gap_is_extended_only_by_a_gap_that_touches_it_and_has_the_same_reason() -> None:
    history = (
        EventHistory().add(make_gap(0, 1, RUNNING)).add(make_gap(1, 2, RUNNING)).add(make_gap(2, 3))
    )
    assert history.gaps == (make_gap(0, 2, RUNNING), make_gap(2, 3))
    assert history.add(make_gap(8, 9)).gaps[-2:] == (make_gap(2, 3), make_gap(8, 9))


def test_close_ends_a_gap_without_an_end() -> None:
    history = EventHistory().add(make_gap(None, None, GapReason.NO_CHANGE_STREAM))
    assert history.close(NOW).gaps == (make_gap(None, 0, GapReason.NO_CHANGE_STREAM),)


def test_two_oldest_gaps_are_merged_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps_module, "MAX_GAPS", 2)
    history = EventHistory()
    for start in (0, 10, 20):
        history = history.add(make_gap(start, start + 1))
    assert history.gaps == (make_gap(0, 11), make_gap(20, 21))
