"""Windows of the history: catches a step that is counted twice or from an old bucket, and an
answer that costs the database something for each viewer."""

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
from jobmon.rollup.series import SeriesCache, SeriesReader, TooManyTypesError
from jobmon.rollup.step_cache import StepCache
from jobmon.rollup.windows import Window, WindowError
from jobmon.store.labels import OTHER

from .. import conftest

MANY = {"a": Tally(1), "most": Tally(5), "b": Tally(3)}
NOW = conftest.NOW.replace(minute=7, second=11)
KEPT = dict.fromkeys(SPANS, 400 * DAY)


@pytest.mark.parametrize(
    ("length", "step", "steps"),
    [
        (HOUR, MINUTE, 61),
        (DAY, 10 * MINUTE, 145),
        (7 * DAY, HOUR, 169),
        (30 * DAY, 6 * HOUR, 121),
        (90 * DAY, DAY, 91),
    ],
)
def test_default_steps_are_stored_spans(length: timedelta, step: timedelta, steps: int) -> None:
    window = Window.from_range(NOW - length, NOW, None, KEPT)
    assert (window.step, window.span, len(list(window.steps()))) == (step, step, steps)


RETENTION = {
    MINUTE: 2 * DAY,
    10 * MINUTE: 2 * DAY,
    HOUR: 35 * DAY,
    6 * HOUR: 35 * DAY,
    DAY: 400 * DAY,
}


@pytest.mark.parametrize(
    ("ago", "length", "step"),
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
def test_the_default_step_is_still_retained(
    ago: timedelta, length: timedelta, step: timedelta
) -> None:
    """Catches a 422 for a default step."""
    start = datetime.now(UTC) - ago
    assert Window.from_range(start, start + length, None, RETENTION).step == step


@given(ago_minutes=st.integers(1, 400 * 1_440), minutes=st.integers(1, 400 * 1_440))
def test_every_retained_window_has_a_default_step(ago_minutes: int, minutes: int) -> None:
    start = datetime.now(UTC) - ago_minutes * MINUTE
    window = Window.from_range(start, start + minutes * MINUTE, None, RETENTION)
    assert window.start <= start < start + minutes * MINUTE <= window.end
    assert len(list(window.steps())) <= windows.MAX_STEPS


def test_a_window_before_the_retention_is_refused() -> None:
    start = datetime.now(UTC) - 402 * DAY
    with pytest.raises(WindowError, match="before the retained history") as refused:
        Window.from_range(start, start + HOUR, None, RETENTION)
    assert refused.value.parameter == "to"


@pytest.mark.parametrize("step", [None, DAY, 7 * DAY])
def test_a_window_begins_with_the_retained_history(step: timedelta | None) -> None:
    """Catches an answer that grows with the requested time, and a zero for an unknown day."""
    now = datetime.now(UTC)
    window = Window.from_range(now - 3_000 * DAY, now, step, RETENTION)
    oldest = floor(now - 400 * DAY, DAY)
    assert window.no_data_before == oldest
    assert oldest - (step or DAY) < window.start <= oldest
    within = Window.from_range(now - 400 * DAY, now, step, RETENTION)
    assert within.no_data_before is None


@pytest.mark.parametrize(
    ("ago", "length", "is_coarse"),
    [(HOUR, HOUR, False), (3 * DAY, HOUR, True), (30 * DAY, 30 * DAY, False)],
)
def test_a_window_knows_whether_finer_steps_are_no_longer_kept(
    ago: timedelta, length: timedelta, *, is_coarse: bool
) -> None:
    start = datetime.now(UTC) - ago
    window = Window.from_range(start, start + length, None, RETENTION)
    assert (window.step > window.finest_step) is is_coarse


def test_too_many_steps_name_the_parameter_that_causes_them() -> None:
    now = datetime.now(UTC)
    for end, step, parameter in ((now, MINUTE, "step"), (now + 99 * 365 * DAY, None, "to")):
        with pytest.raises(WindowError, match="more than 1500 steps") as refused:
            Window.from_range(now - 40 * HOUR, end, step, RETENTION)
        assert refused.value.parameter == parameter


@given(
    minutes=st.integers(1, 40 * 1_440),
    ago=st.integers(0, 20 * 1_440),
    step=st.sampled_from([*SPANS, 5 * MINUTE, 7 * DAY]),
)
def test_a_window_is_covered_once_by_few_spans(minutes: int, ago: int, step: timedelta) -> None:
    end = floor(NOW - ago * MINUTE, step) + step
    window = Window(start=floor(end - minutes * MINUTE, step), end=end, step=step)
    at, number = window.start, 0
    for span, start in window.cover(NOW + 90 * DAY):
        assert (start, floor(start, span)) == (at, start)
        at, number = start + span, number + 1
    assert at == window.end
    assert number <= (window.end - window.start) / DAY + 2 * (3 + 5 + 5 + 9)


class Rollup(RollupReader):
    """A rollup where one job was enqueued in each span; `read` has the number of buckets read."""

    def __init__(self) -> None:
        self.now: HistoryProgress | None = HistoryProgress(
            counted_at=NOW, final_until=floor(NOW, MINUTE) - 15 * MINUTE
        )
        self.read: list[int] = []
        self.enqueued = 1

    def progress(self) -> HistoryProgress | None:
        return self.now

    def event_history(self) -> EventHistory | None:
        return None

    def buckets(self, wanted: Any) -> dict[tuple[timedelta, datetime], Tallies]:
        keys = list(wanted)
        self.read.append(len(keys))
        return {key: {"t": Tally(self.enqueued), "u": Tally(self.enqueued)} for key in keys}


def test_an_answer_is_shared_until_the_collector_counts_again() -> None:
    rollup = Rollup()
    series, window = SeriesReader(Any, rollup), Window.from_range(NOW - HOUR, NOW, MINUTE, KEPT)
    first = series.history_by_step(window, ())
    assert series.history_by_step(window, ()) is first
    assert rollup.read == [61]
    assert {step.enqueued for step in first.activity.values()} == {2}
    assert {step.enqueued for step in series.history_by_step(window, ("t",)).activity.values()} == {
        1
    }
    assert series.history_by_type(window) is series.history_by_type(window)
    assert rollup.read[1:] == [61, 16]


def test_only_final_steps_are_not_read_again() -> None:
    rollup = Rollup()
    series, window = SeriesReader(Any, rollup), Window.from_range(NOW - HOUR, NOW, MINUTE, KEPT)
    series.history_by_step(window, ())
    rollup.enqueued = 5
    rollup.now = HistoryProgress(counted_at=NOW + MINUTE, final_until=rollup.now.final_until)
    activity = series.history_by_step(window, ()).activity
    assert rollup.read == [61, 16]
    final = [at for at in activity if at + MINUTE <= rollup.now.final_until]
    assert len(final) == 45
    assert {activity[at].enqueued for at in final} == {2}
    assert {activity[at].enqueued for at in activity if at not in final} == {10}


def test_queues_share_one_limit_of_kept_steps() -> None:
    """Catches a process that keeps a full cache for each of a hundred queues."""
    rollup, cache = Rollup(), SeriesCache()
    cache.final_steps = StepCache(50)
    window = Window.from_range(NOW - HOUR, NOW, MINUTE, KEPT)
    first, second = (SeriesReader(Any, rollup, cache) for _ in range(2))
    first.history_by_step(window, ())
    rollup.enqueued = 5
    activity = second.history_by_step(window, ()).activity
    assert {step.enqueued for step in activity.values()} == {10}
    assert len(cache.final_steps._values) == 50
    # The 45 final steps of the second reader are kept, and five of the first reader.
    rollup.now = HistoryProgress(counted_at=NOW + MINUTE, final_until=rollup.now.final_until)
    second.history_by_step(window, ())
    first.history_by_step(window, ())
    assert rollup.read == [61, 61, 16, 56]


def test_a_folded_type_has_no_series_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a type's series that silently lacks runs that were folded into `(other)`."""
    monkeypatch.setattr(buckets_module, "MAX_BUCKET_TYPES", 1)
    rollup = Rollup()
    monkeypatch.setattr(
        rollup, "buckets", lambda wanted: {key: fold_rare_types(MANY) for key in list(wanted)}
    )
    series, window = SeriesReader(Any, rollup), Window.from_range(NOW - HOUR, NOW, MINUTE, KEPT)
    with pytest.raises(TooManyTypesError):
        series.history_by_step(window, ("most",))
    assert {step.enqueued for step in series.history_by_step(window, ()).activity.values()} == {9}
    activity = series.history_by_type(window).activity
    assert {kind: row.enqueued for kind, row in activity.items()} == {"most": 80, OTHER: 64}


def test_cached_steps_are_dropped_with_the_rollup() -> None:
    rollup = Rollup()
    series, window = SeriesReader(Any, rollup), Window.from_range(NOW - HOUR, NOW, MINUTE, KEPT)
    series.history_by_step(window, ())
    rollup.enqueued, rollup.now = 5, HistoryProgress(counted_at=NOW + MINUTE, final_until=None)
    assert {step.enqueued for step in series.history_by_step(window, ()).activity.values()} == {10}


@pytest.mark.parametrize(
    ("start", "end", "covered"),
    [(0, 1, True), (3, 4, True), (1, 4, False), (2, 3, False), (4, 5, True), (0, 2, False)],
)
def test_the_gap_before_spans_that_are_being_counted_is_known(
    start: int, end: int, covered: bool
) -> None:
    """A collector that starts again counts the newest spans first: earlier spans are unknown."""
    hours = [NOW + number * HOUR for number in range(6)]
    counted = HistoryProgress(counted_at=hours[5], final_until=hours[1], counted_from=hours[3])
    assert counted.covers(hours[start], hours[end]) is covered
    assert HistoryProgress(counted_at=NOW, final_until=None).covers(hours[0], hours[5])


def test_uncounted_steps_are_marked() -> None:
    rollup = Rollup()
    series, window = SeriesReader(Any, rollup), Window.from_range(NOW - HOUR, NOW, MINUTE, KEPT)
    quarter = floor(NOW, MINUTE) - 15 * MINUTE
    rollup.now = HistoryProgress(counted_at=NOW, final_until=None, counted_from=quarter)
    past = series.history_by_step(window, ())
    assert (len(past.uncounted), max(past.uncounted)) == (45, quarter - MINUTE)
    assert not past.is_complete
    assert not series.history_by_type(window).is_complete
    rollup.now = HistoryProgress(counted_at=NOW + MINUTE, final_until=quarter)
    assert (
        series.history_by_step(window, ()).uncounted,
        series.history_by_type(window).is_complete,
    ) == (
        frozenset(),
        True,
    )


def test_time_after_the_last_count_is_unknown() -> None:
    """Catches a sum of 0 for a window in the future, and for the steps after the last count."""
    series = SeriesReader(Any, Rollup())
    window = Window.from_range(NOW - 2 * MINUTE, NOW + 2 * MINUTE, MINUTE, KEPT)
    past, later = floor(NOW, MINUTE), {floor(NOW, MINUTE) + ahead * MINUTE for ahead in (1, 2)}
    history = series.history_by_step(window, ())
    assert (history.uncounted, history.is_complete, history.is_ahead) == (later, True, False)
    future = Window.from_range(past + MINUTE, past + HOUR, MINUTE, KEPT)
    assert series.history_by_step(future, ()).uncounted == frozenset(future.steps())
    assert series.history_by_step(future, ()).is_ahead
    assert series.history_by_type(future).is_ahead
