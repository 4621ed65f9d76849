"""The counting of runs from changes: catches counting that begins too early, too late or never, or
that does not end."""

from contextlib import nullcontext
from typing import Any

import pytest

from jobmon.collector import run_counting as run_counting_module
from jobmon.collector.run_counting import RunCounting


class FakeEventCounter:
    """An event counter that has prepared changes, which must be counted."""

    def __init__(self) -> None:
        self.must_begin, self.is_begin_urgent, self.calls = True, False, list[str]()

    def begin(self) -> None:
        self.must_begin = False
        self.calls.append("begin")

    def count(self, _: float) -> None:
        self.calls.append("count")

    def stop(self) -> None:
        self.calls.append("stop")


class FakeShare:
    """A share whose other queues are starting, and have taken all slots to begin."""

    def __init__(self) -> None:
        self.has_starting_queues, self.slots = True, 0

    def is_starting(self) -> bool:
        return self.has_starting_queues

    def try_to_begin(self, _: Any) -> Any:
        return nullcontext(self.slots > 0)


class FakeConnection:
    """A connection that counts its queries for recorded attempts."""

    def __init__(self) -> None:
        self.has_attempts, self.queries = False, 0

    def has_recorded_attempts(self) -> bool:
        self.queries += 1
        return self.has_attempts


class Fakes:
    """A `RunCounting` with fake parts, before it begins to count."""

    def __init__(self) -> None:
        self.connection, self.share = FakeConnection(), FakeShare()
        self.counter = FakeEventCounter()
        parts: Any = (self.connection, self.counter, self.share)
        self.counting = RunCounting(*parts)


def test_counting_begins_when_all_queues_have_stats_and_a_slot_is_free() -> None:
    fakes = Fakes()
    counting, counter = fakes.counting, fakes.counter
    counting.count()
    fakes.share.has_starting_queues = False
    counting.count()
    assert (counting.is_waiting, counting.begun.is_set(), counter.calls) == (True, False, [])
    fakes.share.slots = 1
    counting.count()
    assert (counting.is_waiting, counting.begun.is_set()) == (False, True)
    assert counter.calls == ["begin", "count"]


def test_counting_begins_at_once_if_it_is_urgent() -> None:
    fakes = Fakes()
    fakes.counter.is_begin_urgent = True
    fakes.counting.count()
    assert fakes.counter.calls == ["begin", "count"]


def test_counting_ends_when_an_attempt_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_counting_module, "CHECK_EVERY_S", -1.0)
    fakes = Fakes()
    counting, counter = fakes.counting, fakes.counter
    counting.begin()
    counting.count()
    assert counting.counter is not None
    fakes.connection.has_attempts = True
    counting.count()
    assert counter.calls[-2:] == ["count", "stop"]
    assert counting.counter is None


def test_recorded_attempts_are_not_queried_at_each_count() -> None:
    """Catches a query for each queue with every write of its stats."""
    fakes = Fakes()
    fakes.counting.begin()
    for _ in range(3):
        fakes.counting.count()
    assert fakes.connection.queries == 0
