"""Several queues in one service: catches a queue that waits for another one."""

from collections import Counter
from threading import Barrier, Event
from types import SimpleNamespace
from typing import Any

import pytest

from jobmon.web.queues import READERS, QueueReading


def queues_in(deployment: str, count: int) -> list[Any]:
    settings = SimpleNamespace(mongo_uri=deployment)
    return [SimpleNamespace(name=f"{deployment}{n}", settings=settings) for n in range(count)]


class Reads:
    """A read that blocks for the deployment `frozen` until it is released."""

    def __init__(self) -> None:
        self.released = Event()
        self.begun: Counter[str] = Counter()

    def __call__(self, queue: Any) -> int:
        self.begun[queue.name] += 1
        if queue.settings.mongo_uri == "frozen":
            self.released.wait(30)
        return self.begun[queue.name]


def test_a_deployment_that_does_not_answer_delays_no_other() -> None:
    read, well = Reads(), queues_in("well", 20)
    reading = QueueReading[int](read)
    found = reading.read([*queues_in("frozen", 20), *well], within_s=0.5)
    assert found == dict.fromkeys((queue.name for queue in well), 1)
    read.released.set()


def test_a_queue_is_not_read_again_before_the_last_read_has_ended() -> None:
    read, frozen = Reads(), queues_in("frozen", 20)
    reading = QueueReading[int](read)
    for _ in range(3):
        assert reading.read(frozen, within_s=0.1) == {}
    assert read.begun == dict.fromkeys((queue.name for queue in frozen[:READERS]), 1)
    read.released.set()
    # The reads that waited are shared, too; only then does a new one begin.
    assert reading.read(frozen, within_s=10).keys() == {queue.name for queue in frozen}
    assert set(reading.read(frozen, within_s=10).values()) == {2}


def test_queues_of_a_deployment_are_read_side_by_side() -> None:
    """Catches a hundred queues of a distant deployment that are read one after the other."""
    together = Barrier(READERS, timeout=10)
    reading = QueueReading[int](lambda _: together.wait())
    assert len(reading.read(queues_in("distant", 3 * READERS), within_s=10)) == 3 * READERS


def test_a_read_that_raises_is_logged_and_takes_no_other_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad, good = queues_in("same", 2)
    reading = QueueReading[float](lambda queue: 1 / (queue is not bad))
    for _ in range(2):
        assert reading.read([bad, good], within_s=10) == {good.name: 1}
    assert caplog.messages == ["the queue same0 could not be read"] * 2
    assert "ZeroDivisionError" in caplog.text
