"""Shared computations: catches a query for each viewer, and a failure that is kept."""

import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from jobmon import single_flight as shared_module
from jobmon.single_flight import TENTH, FreshFlight, SingleFlight, SingleFlightCache

from .support.waiting import PATIENCE_S, eventually


def test_value_that_keep_refuses_is_computed_again() -> None:
    cache, values = SingleFlightCache[int](size=10), iter((1, 20, 30))
    found = [cache.get("a", lambda: next(values), keep=lambda value: value > 9) for _ in range(3)]
    assert found == [1, 20, 20]


class Thing:
    """An object that a weak reference can follow."""


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


def call_together(shared: SingleFlight[int], slow: HeldComputation, callers: int) -> list[object]:
    """The outcomes of threads that call while the computation runs."""
    got: list[object] = []
    barrier = threading.Barrier(callers + 1)

    def call() -> None:
        barrier.wait()
        try:
            got.append(shared.get())
        except ArithmeticError as error:
            got.append(error)

    first = threading.Thread(target=lambda: got.append(get_outcome(shared)))
    first.start()
    eventually(lambda: slow.calls == 1)
    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    barrier.wait()
    eventually(lambda: all(thread.is_alive() for thread in threads))
    slow.may_end.set()
    for thread in [first, *threads]:
        thread.join()
    return got


def get_outcome(shared: SingleFlight[int]) -> object:
    try:
        return shared.get()
    except ArithmeticError as error:
        return error


def test_concurrent_callers_share_one_computation() -> None:
    slow = HeldComputation(lambda: 42)
    assert call_together(SingleFlight(slow, 60_000), slow, 30) == [42] * 31
    assert slow.calls == 1


def test_a_failure_is_raised_for_all_waiting_callers_and_not_kept() -> None:
    failing = True

    def outcome() -> int:
        return 1 // 0 if failing else 7

    slow = HeldComputation(outcome)
    shared = SingleFlight(slow, 60_000)
    assert {type(outcome) for outcome in call_together(shared, slow, 5)} == {ZeroDivisionError}
    failing = False
    assert shared.get() == 7


def test_a_value_is_kept_until_its_ttl_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    values = iter(range(9))
    shared = SingleFlight(lambda: next(values), 2_000)
    assert shared.kept() is None
    assert shared.get() == shared.get() == shared.kept() == 0
    now += 1.999
    assert shared.get() == 0
    now += 0.001
    assert shared.kept() is None
    assert shared.get() == 1


def test_an_unknown_value_is_kept_like_any_other() -> None:
    """Catches one query for each caller where nothing is found, such as without a collector."""
    calls: list[None] = []
    shared = SingleFlight[None](lambda: calls.append(None), 60_000)
    for _ in range(3):
        shared.get()
    assert len(calls) == 1


@pytest.mark.parametrize(("took_s", "kept_s"), [(0.1, 2.0), (0.9, 8.1), (5.0, 30.0)])
def test_a_value_is_kept_in_proportion_to_its_cost(
    monkeypatch: pytest.MonkeyPatch, took_s: float, kept_s: float
) -> None:
    """Catches a count that keeps the database busy as long as anybody has a page open."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def compute() -> float:
        nonlocal now
        now += took_s
        return now

    shared, cache = SingleFlight(compute, 2_000, TENTH), SingleFlightCache[float](9)
    first = shared.get()
    now += kept_s - 0.01
    assert shared.get() == first
    now += 0.02
    assert shared.get() > first
    begun_at, first = now, cache.get("q", compute, 2, rest=TENTH)
    now = begun_at + kept_s - 0.01
    assert cache.get("q", compute, 2, rest=TENTH) == first
    now = begun_at + kept_s + 0.01
    assert cache.get("q", compute, 2, rest=TENTH) > first


def test_without_a_ttl_every_caller_gets_a_new_value() -> None:
    values = iter(range(9))
    shared = SingleFlight(lambda: next(values), 0)
    assert [shared.get() for _ in range(3)] == [0, 1, 2]


def test_a_cached_value_is_computed_once_for_concurrent_callers() -> None:
    slow, answers = HeldComputation(lambda: 42), SingleFlightCache[int](9)
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda: got.append(answers.get("q", slow))) for _ in range(9)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: slow.calls == 1)
    assert answers.get("another", lambda: 7) == 7  # another key does not wait for it
    slow.may_end.set()
    for thread in threads:
        thread.join()
    assert (got, slow.calls) == ([42] * 9, 1)
    assert answers.get("q", lambda: 0) == 42


def test_the_values_used_last_are_kept_up_to_the_size() -> None:
    answers = SingleFlightCache[int](2)
    for question in (1, 2, 1, 3):
        answers.get(question, lambda: question)  # noqa: B023 - it is called at once
    assert [answers.get(question, lambda: 0) for question in (1, 3, 2)] == [1, 3, 0]


def test_a_value_older_than_its_maximum_age_is_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(shared_module, "time", SimpleNamespace(monotonic=lambda: now))
    cache, values = SingleFlightCache[int](9), iter(range(9))
    assert cache.get("q", lambda: next(values), max_age_s=2) == 0
    now = 1.9
    assert cache.get("q", lambda: next(values), max_age_s=2) == 0
    now = 2.0
    assert cache.get("q", lambda: next(values), max_age_s=2) == 1


def test_a_value_unused_for_half_a_minute_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches values for past seconds that fill the memory up to the size."""
    now = 0.0
    monkeypatch.setattr(shared_module, "time", SimpleNamespace(monotonic=lambda: now))
    answers, held = SingleFlightCache[object](1_000), list[weakref.ref[Thing]]()

    def make() -> object:
        thing = Thing()
        held.append(weakref.ref(thing))
        return thing

    for second in range(200):
        now = float(second)
        answers.get(second, make)
        answers.get("always", object)
    assert 30 <= sum(thing() is not None for thing in held) <= 32
    assert answers.get("always", lambda: None) is not None


def test_a_failure_is_not_cached() -> None:
    answers = SingleFlightCache[float](9)
    with pytest.raises(ZeroDivisionError):
        answers.get("q", lambda: 1 / 0)
    assert answers.get("q", lambda: 7) == 7


class Steps:
    """A computation whose runs each end when the test allows it; a run returns its number."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = threading.Semaphore(0)
        self.failure: Exception | None = None

    def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        assert self.may_end.acquire(timeout=PATIENCE_S)
        if self.failure is not None:
            raise self.failure
        return number


def start_callers(flight: FreshFlight[int], steps: Steps, count: int) -> list[Future[int]]:
    """Callers in threads, each of which waits for a value already."""
    pool = ThreadPoolExecutor(count)
    calls = [pool.submit(flight.get, "key", steps) for _ in range(count)]
    pool.shutdown(wait=False)
    eventually(lambda: all(call.running() for call in calls))
    return calls


def test_fresh_flight_callers_during_a_run_share_the_next_one() -> None:
    """A caller gets a value from before its call, or each caller has a query of its own."""
    flight, steps = FreshFlight[int](), Steps()
    first = start_callers(flight, steps, 1)
    eventually(lambda: steps.begun == 1)
    later = start_callers(flight, steps, 5)
    assert steps.begun == 1
    steps.may_end.release()
    assert first[0].result(PATIENCE_S) == 1
    eventually(lambda: steps.begun == 2)
    steps.may_end.release(5)  # a second run of the later callers would end, too
    assert {call.result(PATIENCE_S) for call in later} <= {2, 3}
    assert later[0].result() == 2
    assert flight.get("key", steps) == steps.begun  # nothing is kept


def test_fresh_flight_failure_is_raised_for_those_who_waited_and_is_not_kept() -> None:
    """One failure makes the next callers fail, too, or makes them wait for ever."""
    flight, steps = FreshFlight[int](), Steps()
    steps.failure = ArithmeticError("no database")
    calls = start_callers(flight, steps, 1)
    eventually(lambda: steps.begun == 1)
    calls += start_callers(flight, steps, 2)
    steps.may_end.release(3)
    assert [type(call.exception(PATIENCE_S)) for call in calls] == [ArithmeticError] * 3
    steps.failure = None
    steps.may_end.release()
    assert flight.get("key", steps) == steps.begun


def test_fresh_flight_callers_with_other_keys_do_not_wait() -> None:
    """The slow list of one caller delays the lists of all others."""
    flight, steps = FreshFlight[int](), Steps()
    calls = start_callers(flight, steps, 1)
    eventually(lambda: steps.begun == 1)
    assert flight.get("other", lambda: 7) == 7
    steps.may_end.release()
    assert calls[0].result(PATIENCE_S) == 1


def test_fresh_flight_many_threads_never_get_an_old_value() -> None:
    """Under load a caller is given a value that was read before it called."""
    flight, clock = FreshFlight[int](), itertools.count()

    def call() -> bool:
        called_at = next(clock)
        return flight.get("key", lambda: next(clock)) > called_at

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: call(), range(2_000)))
