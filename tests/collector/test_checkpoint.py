"""Checkpoints of a large queue: catches a collector that loses its lease, or whose statistics get
old, while it writes 100 MB."""

import threading
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from jobmon.collector.checkpoint import Checkpoint, Checkpoints
from jobmon.rollup.documents import CHECKPOINTS, OwnDatabase
from jobmon.store.mapping import FieldMapping
from jobmon.store.stats import CountsByName

from ..support.waiting import PATIENCE_S, eventually

CHECKPOINT = Checkpoint(
    [
        {"type": "objectId", "low": ObjectId(f"{number:024x}"), "counts": [["queued", "mail", 7]]}
        for number in range(250)
    ],
    {"_data": "82"},
)


@pytest.fixture
def own(database: Database[dict[str, Any]]) -> OwnDatabase:
    return OwnDatabase(database, "shop.jobs")


def test_keep_alive_is_called_for_each_part_that_is_written_or_read(own: OwnDatabase) -> None:
    calls: list[str] = []
    checkpoints = Checkpoints(own, lambda: calls.append("alive"))
    checkpoints.save(CHECKPOINT)
    assert len(calls) == 3
    assert checkpoints.load() == CHECKPOINT
    assert len(calls) == 6


def test_a_checkpoint_is_read_in_the_order_of_an_index(own: OwnDatabase) -> None:
    """Catches a sort of 100 MB, which exceeds the memory that a server allows."""
    Checkpoints(own).save(CHECKPOINT)
    version = own[CHECKPOINTS].find_one({})["version"]  # type: ignore[index]
    found = own[CHECKPOINTS].find({**own.scope, "version": version}).sort("number")
    assert "'SORT'" not in str(found.explain()["queryPlanner"])


def test_a_checkpoint_is_written_while_the_collector_goes_on(
    own: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, goes_on = Checkpoints(own), threading.Event()
    write = OwnDatabase.write

    def write_slowly(*arguments: Any) -> bool:
        assert goes_on.wait(PATIENCE_S)
        return write(*arguments)

    monkeypatch.setattr(OwnDatabase, "write", write_slowly)
    checkpoints.start_saving(CHECKPOINT)
    assert checkpoints.is_saving()
    goes_on.set()
    eventually(lambda: not checkpoints.is_saving())
    assert checkpoints.load() == CHECKPOINT


def test_a_failure_to_write_in_the_thread_is_raised(
    own: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bool:
        raise AutoReconnect("gone")

    checkpoints = Checkpoints(own)
    with monkeypatch.context() as patch:
        patch.setattr(OwnDatabase, "write", fail)
        checkpoints.start_saving(CHECKPOINT)
        with pytest.raises(AutoReconnect):
            eventually(lambda: not checkpoints.is_saving())
    checkpoints.save(CHECKPOINT)
    assert checkpoints.load() == CHECKPOINT


def test_counts_of_many_segments_share_their_keys() -> None:
    """Catches a key of its own for each of millions of counts: three quarters of the memory."""
    by_name = CountsByName(FieldMapping(paths={}))

    def count(name: str) -> tuple[str, str]:
        (key,) = by_name.add_up([{"_id": {"status": "queued", "type": name}, "count": 1}])
        return key

    assert count("".join(["ma", "il"])) is count("".join(["ma", "il"]))
    (loaded,) = by_name.learn({("queued", "".join(["ma", "il"])): 3})
    assert loaded is count("mail")
