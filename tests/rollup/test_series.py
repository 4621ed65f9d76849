"""Windows of the history: catches a step that is counted twice or from an old bucket, and a
database read for each viewer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.rollup import buckets as buckets_module
from jobmon.rollup import windows
from jobmon.rollup.buckets import DAY, HOUR, MINUTE, SPANS, Tallies, Tally, floor, fold_rare_types
from jobmon.rollup.gaps import EventHistory
from jobmon.rollup.reader import HistoryProgress, RollupReader
from jobmon.rollup.series import History, SeriesCache, SeriesReader, TooManyTypesError
from jobmon.rollup.step_cache import StepCache
from jobmon.rollup.windows import Window, WindowError
from jobmon.store.labels import OTHER

from .. import conftest

TALLIES = {"a": Tally(1), "most": Tally(5), "b": Tally(3)}
NOW = conftest.NOW.replace(minute=7, second=11)
LONG_RETENTION = dict.fromkeys(SPANS, 400 * DAY)
LAST_HOUR = Window.from_range(NOW - HOUR, NOW, MINUTE, LONG_RETENTION)


@pytest.mark.parametrize(
    ("length", "step", "step_count"),
    [
        (HOUR, MINUTE, 61),
        (DAY, 10 * MINUTE, 145),
        (7 * DAY, HOUR, 169),
        (30 * DAY, 6 * HOUR, 121),
        (90 * DAY, DAY, 91),
    ],
)
def test_default_step_of_a_recent_window_is_a_stored_span(
    length: timedelta, step: timedelta, step_count: int
) -> None:
    window = Window.from_range(NOW - length, NOW, None, LONG_RETENTION)
    assert (window.step, window.span, len(list(window.steps()))) == (step, step, step_count)


RETENTION = {
    MINUTE: 2 * DAY,
    10 * MINUTE: 2 * DAY,
    HOUR: 35 * DAY,
    6 * HOUR: 35 * DAY,
    DAY: 400 * DAY,
}


@pytest.mark.parametrize(
    ("age", "length", "step"),
    [
        (2 * DAY, HOUR, MINUTE),
        (3 * DAY, HOUR, HOUR),
        (34 * DAY, DAY, HOUR),
        (34 * DAY, 34 * DAY, 6 * HOUR),
        (37 * DAY, HOUR, DAY),
        (37 * DAY, 36 * DAY, DAY),
        (390 * DAY, 300 * DAY, 7 * DAY),
    ],
)
def test_default_step_of_an_older_window_consists_of_retained_spans(
    age: timedelta, length: timedelta, step: timedelta
) -> None:
    """Catches a 422 for a request without a step."""
    start = datetime.now(UTC) - age
    assert Window.from_range(start, start + length, None, RETENTION).step == step


@given(age_min=st.integers(1, 400 * 1_440), length_min=st.integers(1, 400 * 1_440))
def test_every_retained_window_has_a_default_step(age_min: int, length_min: int) -> None:
    start = datetime.now(UTC) - age_min * MINUTE
    end = start + length_min * MINUTE
    window = Window.from_range(start, end, None, RETENTION)
    assert window.start <= start < end <= window.end
    assert len(list(window.steps())) <= windows.MAX_STEPS


def test_window_before_the_retention_is_refused() -> None:
    start = datetime.now(UTC) - 402 * DAY
    with pytest.raises(WindowError, match="before the retained history") as refusal:
        Window.from_range(start, start + HOUR, None, RETENTION)
    assert refusal.value.parameter == "to"


@pytest.mark.parametrize("step", [None, DAY, 7 * DAY])
def test_window_with_an_earlier_start_begins_with_the_retained_history(
    step: timedelta | None,
) -> None:
    """Catches an answer that grows with the requested window, and a zero for an unknown day."""
    now = datetime.now(UTC)
    window = Window.from_range(now - 3_000 * DAY, now, step, RETENTION)
    oldest = floor(now - 400 * DAY, DAY)
    assert window.no_data_before == oldest
    assert oldest - (step or DAY) < window.start <= oldest
    retained = Window.from_range(now - 400 * DAY, now, step, RETENTION)
    assert retained.no_data_before is None


@pytest.mark.parametrize(
    ("age", "length", "is_coarse"),
    [(HOUR, HOUR, False), (3 * DAY, HOUR, True), (30 * DAY, 30 * DAY, False)],
)
def test_step_is_longer_than_the_finest_step_if_shorter_spans_are_no_longer_retained(
    age: timedelta, length: timedelta, *, is_coarse: bool
) -> None:
    start = datetime.now(UTC) - age
    window = Window.from_range(start, start + length, None, RETENTION)
    assert (window.step > window.finest_step) is is_coarse


def test_error_about_too_many_steps_names_the_parameter_that_causes_it() -> None:
    now = datetime.now(UTC)
    for end, step, parameter in ((now, MINUTE, "step"), (now + 99 * 365 * DAY, None, "to")):
        with pytest.raises(WindowError, match="more than 1500 steps") as refusal:
            Window.from_range(now - 40 * HOUR, end, step, RETENTION)
        assert refusal.value.parameter == parameter


@given(
    length_min=st.integers(1, 40 * 1_440),
    end_min=st.integers(0, 20 * 1_440),
    step=st.sampled_from([*SPANS, 5 * MINUTE, 7 * DAY]),
)
def test_few_spans_cover_a_window_once(length_min: int, end_min: int, step: timedelta) -> None:
    """The time `end_min` minutes before NOW is in the last step of the window."""
    end = floor(NOW - end_min * MINUTE, step) + step
    window = Window(start=floor(end - length_min * MINUTE, step), end=end, step=step)
    covered_until, spans = window.start, list(window.cover(NOW + 90 * DAY))
    for span, start in spans:
        assert (start, floor(start, span)) == (covered_until, start)
        covered_until = start + span
    assert covered_until == window.end
    # One for each whole day, and at each end of the window at most 3 spans of 6 h, 5 of 1 h, 5 of
    # 10 min and 9 of 1 min.
    assert len(spans) <= window.length / DAY + 2 * (3 + 5 + 5 + 9)


class FakeRollup(RollupReader):
    """A rollup with a bucket for each span: `enqueued` jobs of type t, and as many of type u.

    `reads` has the number of buckets of each read. Steps are final up to 15 minutes before NOW.
    """

    def __init__(self) -> None:
        self.present_progress = HistoryProgress(
            counted_at=NOW, final_until=floor(NOW, MINUTE) - 15 * MINUTE
        )
        self.reads: list[int] = []
        self.enqueued = 1

    def progress(self) -> HistoryProgress | None:
        return self.present_progress

    def event_history(self) -> EventHistory | None:
        return None

    def buckets(self, spans: Any) -> dict[tuple[timedelta, datetime], Tallies]:
        keys = list(spans)
        self.reads.append(len(keys))
        return {key: {"t": Tally(self.enqueued), "u": Tally(self.enqueued)} for key in keys}


def find_enqueued_counts(history: History[datetime]) -> set[int]:
    """The different numbers of jobs that were enqueued in a step."""
    return {step.enqueued for step in history.activity.values()}


def test_history_is_shared_until_the_collector_counts_again() -> None:
    rollup = FakeRollup()
    series, window = SeriesReader(Any, rollup), LAST_HOUR
    first = series.history_by_step(window, ())
    assert series.history_by_step(window, ()) is first
    assert rollup.reads == [61]
    assert find_enqueued_counts(first) == {2}
    assert find_enqueued_counts(series.history_by_step(window, ("t",))) == {1}
    assert series.history_by_type(window) is series.history_by_type(window)
    assert rollup.reads[1:] == [61, 16]  # 16 spans cover the window


def test_steps_are_read_again_unless_they_are_final() -> None:
    rollup = FakeRollup()
    series, window = SeriesReader(Any, rollup), LAST_HOUR
    series.history_by_step(window, ())
    rollup.enqueued = 5
    final_until = floor(NOW, MINUTE) - 15 * MINUTE
    rollup.present_progress = HistoryProgress(counted_at=NOW + MINUTE, final_until=final_until)
    activity = series.history_by_step(window, ()).activity
    assert rollup.reads == [61, 16]
    final_steps = [at for at in activity if at + MINUTE <= final_until]
    assert len(final_steps) == 45
    assert {activity[at].enqueued for at in final_steps} == {2}
    assert {activity[at].enqueued for at in activity if at not in final_steps} == {10}


def test_queues_share_one_limit_of_cached_steps() -> None:
    """Catches a process that keeps a full cache for each of a hundred queues."""
    rollup, cache = FakeRollup(), SeriesCache()
    cache.final_steps = StepCache(50)
    first, second = (SeriesReader(Any, rollup, cache) for _ in range(2))
    first.history_by_step(LAST_HOUR, ())
    rollup.enqueued = 5
    assert find_enqueued_counts(second.history_by_step(LAST_HOUR, ())) == {10}
    assert len(cache.final_steps._values) == 50
    # The cache still has the 45 final steps of the second reader, and five of the first reader.
    rollup.present_progress = replace(rollup.present_progress, counted_at=NOW + MINUTE)
    second.history_by_step(LAST_HOUR, ())
    first.history_by_step(LAST_HOUR, ())
    assert rollup.reads == [61, 61, 16, 56]


def test_series_of_a_type_raises_if_types_were_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a type's series without the runs that were folded into `(other)`."""
    monkeypatch.setattr(buckets_module, "MAX_BUCKET_TYPES", 1)
    rollup = FakeRollup()
    monkeypatch.setattr(
        rollup, "buckets", lambda spans: {key: fold_rare_types(TALLIES) for key in list(spans)}
    )
    series, window = SeriesReader(Any, rollup), LAST_HOUR
    with pytest.raises(TooManyTypesError):
        series.history_by_step(window, ("most",))
    assert find_enqueued_counts(series.history_by_step(window, ())) == {9}
    by_type = series.history_by_type(window).activity
    enqueued = {job_type: activity.enqueued for job_type, activity in by_type.items()}
    assert enqueued == {"most": 16 * 5, OTHER: 16 * 4}  # 16 spans cover the window


def test_cached_steps_are_dropped_with_the_rollup() -> None:
    rollup = FakeRollup()
    series, window = SeriesReader(Any, rollup), LAST_HOUR
    series.history_by_step(window, ())
    rollup.enqueued = 5
    rollup.present_progress = HistoryProgress(counted_at=NOW + MINUTE, final_until=None)
    assert find_enqueued_counts(series.history_by_step(window, ())) == {10}


@pytest.mark.parametrize(
    ("start_h", "end_h", "is_covered"),
    [(0, 1, True), (3, 4, True), (1, 4, False), (2, 3, False), (4, 5, True), (0, 2, False)],
)
def test_progress_does_not_cover_hours_that_are_not_counted_yet(
    start_h: int, end_h: int, is_covered: bool
) -> None:
    """A collector that starts again counts the newest spans first: hours 1 and 2 are missing."""
    hours = [NOW + hour * HOUR for hour in range(6)]
    progress = HistoryProgress(counted_at=hours[5], final_until=hours[1], counted_from=hours[3])
    assert progress.covers(hours[start_h], hours[end_h]) is is_covered
    assert HistoryProgress(counted_at=NOW, final_until=None).covers(hours[0], hours[5])


def test_history_names_the_steps_that_are_not_counted_yet() -> None:
    rollup = FakeRollup()
    series, window = SeriesReader(Any, rollup), LAST_HOUR
    counted_from = floor(NOW, MINUTE) - 15 * MINUTE
    rollup.present_progress = HistoryProgress(
        counted_at=NOW, final_until=None, counted_from=counted_from
    )
    history = series.history_by_step(window, ())
    assert (len(history.uncounted), max(history.uncounted)) == (45, counted_from - MINUTE)
    assert not history.is_complete
    assert not series.history_by_type(window).is_complete
    rollup.present_progress = HistoryProgress(counted_at=NOW + MINUTE, final_until=counted_from)
    assert series.history_by_step(window, ()).uncounted == frozenset()
    assert series.history_by_type(window).is_complete


def test_steps_after_the_last_count_are_unknown() -> None:
    """Catches a sum of 0 for a window in the future, and for the steps after the last count."""
    series = SeriesReader(Any, FakeRollup())
    window = Window.from_range(NOW - 2 * MINUTE, NOW + 2 * MINUTE, MINUTE, LONG_RETENTION)
    minute = floor(NOW, MINUTE)
    history = series.history_by_step(window, ())
    assert history.uncounted == {minute + MINUTE, minute + 2 * MINUTE}
    assert (history.is_complete, history.is_ahead) == (True, False)
    future = Window.from_range(minute + MINUTE, minute + HOUR, MINUTE, LONG_RETENTION)
    assert series.history_by_step(future, ()).uncounted == frozenset(future.steps())
    assert series.history_by_step(future, ()).is_ahead
    assert series.history_by_type(future).is_ahead
