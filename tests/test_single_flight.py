"""Shared computations: catches one query per viewer, and a failure that is kept."""

import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from jobmon import single_flight as single_flight_module
from jobmon.single_flight import TTL_FACTOR, FreshFlight, SingleFlight, SingleFlightCache

from .support.waiting import PATIENCE_S, eventually, is_waiting


def test_value_that_keep_refuses_is_computed_again() -> None:
    cache, results = SingleFlightCache[int](size=10), iter((1, 20, 30))
    values = [cache.get("q", lambda: next(results), keep=lambda value: value > 9) for _ in range(3)]
    assert values == [1, 20, 20]


class CachedValue:
    """A value that allows weak references, which `object()` does not."""


class HeldComputation:
    """A computation that ends when the test sets `may_end`."""

    def __init__(self, outcome: Callable[[], int]) -> None:
        self.calls = 0
        self.may_end = threading.Event()
        self._outcome = outcome

    def __call__(self) -> int:
        self.calls += 1
        assert self.may_end.wait(PATIENCE_S)
        return self._outcome()


def call_together(flight: SingleFlight[int], slow: HeldComputation, callers: int) -> list[object]:
    """The outcomes of threads that all call `get` before the computation ends."""
    outcomes: list[object] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(get_outcome(flight)))
        for _ in range(callers)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: all(map(is_waiting, threads)))
    slow.may_end.set()
    for thread in threads:
        thread.join()
    return outcomes


def get_outcome(flight: SingleFlight[int]) -> object:
    """The value, or the ArithmeticError that `get` raises."""
    try:
        return flight.get()
    except ArithmeticError as error:
        return error


def test_concurrent_callers_share_one_computation() -> None:
    slow = HeldComputation(lambda: 42)
    assert call_together(SingleFlight(slow, 60_000), slow, 30) == [42] * 30
    assert slow.calls == 1


def test_a_failure_is_raised_for_all_waiting_callers_and_not_kept() -> None:
    is_failing = True

    def outcome() -> int:
        return 1 // 0 if is_failing else 7

    slow = HeldComputation(outcome)
    flight = SingleFlight(slow, 60_000)
    assert {type(outcome) for outcome in call_together(flight, slow, 5)} == {ZeroDivisionError}
    assert slow.calls == 1
    is_failing = False
    assert flight.get() == 7


def test_a_value_is_kept_until_its_ttl_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    values = iter(range(9))
    flight = SingleFlight(lambda: next(values), 2_000)
    assert flight.kept() is None
    assert flight.get() == flight.get() == flight.kept() == 0
    now += 1.999
    assert flight.get() == 0
    now += 0.001
    assert flight.kept() is None
    assert flight.get() == 1


def test_none_is_kept_like_any_other_value() -> None:
    """Catches one query per caller if the result is None, such as without a collector."""
    calls: list[None] = []
    flight = SingleFlight[None](lambda: calls.append(None), 60_000)
    for _ in range(3):
        flight.get()
    assert len(calls) == 1


@pytest.mark.parametrize(("took_s", "kept_s"), [(0.1, 2.0), (0.9, 8.1), (5.0, 30.0)])
def test_a_value_is_kept_nine_times_as_long_as_its_computation_took(
    monkeypatch: pytest.MonkeyPatch, took_s: float, kept_s: float
) -> None:
    """At least for the TTL of 2 s, at most for 30 s.

    Catches a slow count that the database repeats without a pause while a page is open.
    """
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def compute() -> float:
        nonlocal now
        now += took_s
        return now

    flight, cache = SingleFlight(compute, 2_000, TTL_FACTOR), SingleFlightCache[float](9)
    first = flight.get()
    now += kept_s - 0.01
    assert flight.get() == first
    now += 0.02
    assert flight.get() > first
    begun_at, first = now, cache.get("q", compute, 2, ttl_factor=TTL_FACTOR)
    now = begun_at + kept_s - 0.01
    assert cache.get("q", compute, 2, ttl_factor=TTL_FACTOR) == first
    now = begun_at + kept_s + 0.01
    assert cache.get("q", compute, 2, ttl_factor=TTL_FACTOR) > first


def test_without_a_ttl_every_caller_gets_a_new_value() -> None:
    values = iter(range(9))
    flight = SingleFlight(lambda: next(values), 0)
    assert [flight.get() for _ in range(3)] == [0, 1, 2]


def test_a_cached_value_is_computed_once_for_concurrent_callers() -> None:
    slow, cache = HeldComputation(lambda: 42), SingleFlightCache[int](9)
    values: list[int] = []
    threads = [
        threading.Thread(target=lambda: values.append(cache.get("q", slow))) for _ in range(9)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: all(map(is_waiting, threads)))
    assert cache.get("another key", lambda: 7) == 7  # does not wait for the key `q`
    slow.may_end.set()
    for thread in threads:
        thread.join()
    assert (values, slow.calls) == ([42] * 9, 1)
    assert cache.get("q", lambda: 0) == 42


def test_the_values_used_last_are_kept_up_to_the_size() -> None:
    cache = SingleFlightCache[int](2)
    for key in (1, 2, 1, 3):
        cache.get(key, lambda: key)  # noqa: B023 - `get` calls the lambda before it returns
    assert [cache.get(key, lambda: 0) for key in (1, 3, 2)] == [1, 3, 0]


def test_a_value_older_than_its_maximum_age_is_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(single_flight_module, "time", SimpleNamespace(monotonic=lambda: now))
    cache, values = SingleFlightCache[int](9), iter(range(9))
    assert cache.get("q", lambda: next(values), max_age_s=2) == 0
    now = 1.9
    assert cache.get("q", lambda: next(values), max_age_s=2) == 0
    now = 2.0
    assert cache.get("q", lambda: next(values), max_age_s=2) == 1


def test_a_value_unused_for_half_a_minute_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a cache that fills up to its size with values that nobody reads any more."""
    now = 0.0
    monkeypatch.setattr(single_flight_module, "time", SimpleNamespace(monotonic=lambda: now))
    cache, references = SingleFlightCache[object](1_000), list[weakref.ref[CachedValue]]()

    def create_value() -> object:
        value = CachedValue()
        references.append(weakref.ref(value))
        return value

    for second in range(200):
        now = float(second)
        cache.get(second, create_value)
        cache.get("used each second", object)
    assert 30 <= sum(reference() is not None for reference in references) <= 32
    assert cache.get("used each second", lambda: None) is not None


def test_a_failure_is_not_cached() -> None:
    cache = SingleFlightCache[float](9)
    with pytest.raises(ZeroDivisionError):
        cache.get("q", lambda: 1 / 0)
    assert cache.get("q", lambda: 7) == 7


class CountedRuns:
    """A computation that returns the number of its run: 1, then 2, and so on.

    Each run ends when the test releases `may_end` once; a run raises `failure` if that is set.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = threading.Semaphore(0)
        self.failure: Exception | None = None

    def __call__(self) -> int:
        self.begun += 1
        run_number = self.begun
        assert self.may_end.acquire(timeout=PATIENCE_S)
        if self.failure is not None:
            raise self.failure
        return run_number


def start_callers(flight: FreshFlight[int], runs: CountedRuns, count: int) -> list[Future[int]]:
    """Start threads that call `flight.get`; returns the calls when all of them wait."""
    pool = ThreadPoolExecutor(count)
    calls = [pool.submit(flight.get, "key", runs) for _ in range(count)]
    pool.shutdown(wait=False)
    eventually(lambda: len(pool._threads) == count and all(map(is_waiting, pool._threads)))
    return calls


def test_fresh_flight_callers_during_a_run_share_the_next_one() -> None:
    """Catches a caller that gets a value computed before its call, and one query per caller."""
    flight, runs = FreshFlight[int](), CountedRuns()
    (first_call,) = start_callers(flight, runs, 1)
    later_calls = start_callers(flight, runs, 5)
    assert runs.begun == 1
    runs.may_end.release(6)  # enough even if each caller had its own run
    assert first_call.result(PATIENCE_S) == 1
    assert {call.result(PATIENCE_S) for call in later_calls} == {2}
    assert flight.get("key", runs) == 3  # a new run: no value is kept


def test_fresh_flight_failure_is_raised_for_waiting_callers_and_is_not_kept() -> None:
    """Catches a failure after which the next callers also fail, or wait forever."""
    flight, runs = FreshFlight[int](), CountedRuns()
    runs.failure = ArithmeticError("no database")
    calls = start_callers(flight, runs, 1)
    calls += start_callers(flight, runs, 2)
    runs.may_end.release(3)
    assert [type(call.exception(PATIENCE_S)) for call in calls] == [ArithmeticError] * 3
    runs.failure = None
    runs.may_end.release()
    assert flight.get("key", runs) == runs.begun


def test_fresh_flight_callers_with_other_keys_do_not_wait() -> None:
    """Catches one caller's slow list that delays the lists of all other callers."""
    flight, runs = FreshFlight[int](), CountedRuns()
    (call,) = start_callers(flight, runs, 1)
    assert flight.get("another key", lambda: 7) == 7
    runs.may_end.release()
    assert call.result(PATIENCE_S) == 1


def test_fresh_flight_many_threads_never_get_an_old_value() -> None:
    """Catches a caller under load that gets a value computed before its call."""
    flight, clock = FreshFlight[int](), itertools.count()

    def call() -> bool:
        called_at = next(clock)
        return flight.get("key", lambda: next(clock)) > called_at

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: call(), range(2_000)))
