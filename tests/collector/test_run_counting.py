"""When runs are counted from changes: catches counting that begins too early, too late or never,
or that does not end."""

from contextlib import nullcontext
from typing import Any

import pytest

from jobmon.collector import run_counting as run_counting_module
from jobmon.collector.run_counting import RunCounting


class Events:
    """An event counter whose stream was prepared."""

    def __init__(self) -> None:
        self.must_begin, self.is_begin_urgent, self.calls = True, False, list[str]()

    def begin(self) -> None:
        self.must_begin = False
        self.calls.append("begin")

    def count(self, _: float) -> None:
        self.calls.append("count")

    def stop(self) -> None:
        self.calls.append("stop")


class Share:
    """A share whose other queues have no stats yet, and take all slots."""

    def __init__(self) -> None:
        self.starting, self.slots = True, 0

    def is_starting(self) -> bool:
        return self.starting

    def try_to_begin(self, _: Any) -> Any:
        return nullcontext(self.slots > 0)


class Queue:
    """A connection that counts how often it is asked whether attempts are recorded."""

    def __init__(self) -> None:
        self.has_attempts, self.reads = False, 0

    def has_recorded_attempts(self) -> bool:
        self.reads += 1
        return self.has_attempts


def make_counting() -> tuple[RunCounting, Any, Any, Any]:
    queue, events, share = Queue(), Events(), Share()
    parts: Any = (queue, events, share)
    return RunCounting(*parts), queue, events, share


def test_counting_begins_when_all_queues_have_stats_and_few_others_begin() -> None:
    counting, _, events, share = make_counting()
    counting.count()
    share.starting = False
    counting.count()
    assert (counting.is_waiting, counting.has_begun.is_set(), events.calls) == (True, False, [])
    share.slots = 1
    counting.count()
    assert (counting.is_waiting, counting.has_begun.is_set()) == (False, True)
    assert events.calls == ["begin", "count"]


def test_counting_begins_at_once_where_it_is_urgent() -> None:
    counting, _, events, _ = make_counting()
    events.is_begin_urgent = True
    counting.count()
    assert events.calls == ["begin", "count"]


def test_counting_ends_when_an_attempt_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_counting_module, "CHECK_EVERY_S", -1.0)
    counting, queue, events, _ = make_counting()
    counting.begin()
    counting.count()
    assert counting.events is events
    queue.has_attempts = True
    counting.count()
    assert events.calls[-2:] == ["count", "stop"]
    assert counting.events is None


def test_recorded_attempts_are_not_queried_each_time() -> None:
    """Catches a query for each queue with every write of its stats."""
    counting, queue, _, _ = make_counting()
    counting.begin()
    for _ in range(3):
        counting.count()
    assert queue.reads == 0
