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
        {"type": "objectId", "low": ObjectId(f"{index:024x}"), "counts": [["queued", "mail", 7]]}
        for index in range(250)
    ],
    {"_data": "82"},
)


@pytest.fixture
def rollups(database: Database[dict[str, Any]]) -> OwnDatabase:
    return OwnDatabase(database, "shop.jobs")


def test_keep_alive_is_called_for_each_part_that_is_written_or_read(rollups: OwnDatabase) -> None:
    calls: list[str] = []
    checkpoints = Checkpoints(rollups, lambda: calls.append("alive"))
    checkpoints.save(CHECKPOINT)
    assert len(calls) == 3  # 250 segments in documents of 100
    assert checkpoints.load() == CHECKPOINT
    assert len(calls) == 6


def test_an_index_sorts_the_parts_of_a_checkpoint(rollups: OwnDatabase) -> None:
    """Catches a sort of 100 MB, which exceeds the memory that a server allows."""
    Checkpoints(rollups).save(CHECKPOINT)
    version = rollups[CHECKPOINTS].find_one({})["version"]  # type: ignore[index]
    parts = rollups[CHECKPOINTS].find({**rollups.scope, "version": version})
    assert "'SORT'" not in str(parts.sort("number").explain()["queryPlanner"])


def test_start_saving_does_not_wait_for_the_writes(
    rollups: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, may_write = Checkpoints(rollups), threading.Event()
    write = OwnDatabase.write

    def write_when_allowed(*arguments: Any) -> bool:
        assert may_write.wait(PATIENCE_S)
        return write(*arguments)

    monkeypatch.setattr(OwnDatabase, "write", write_when_allowed)
    checkpoints.start_saving(CHECKPOINT)
    assert checkpoints.is_saving()
    may_write.set()
    eventually(lambda: not checkpoints.is_saving())
    assert checkpoints.load() == CHECKPOINT


def test_is_saving_raises_the_error_of_the_writing_thread(
    rollups: OwnDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bool:
        raise AutoReconnect("gone")

    checkpoints = Checkpoints(rollups)
    with monkeypatch.context() as patch:
        patch.setattr(OwnDatabase, "write", fail)
        checkpoints.start_saving(CHECKPOINT)
        with pytest.raises(AutoReconnect):
            eventually(lambda: not checkpoints.is_saving())
    checkpoints.save(CHECKPOINT)
    assert checkpoints.load() == CHECKPOINT


def test_a_checkpoint_that_cannot_be_stored_leaves_the_last_one_and_its_position(
    rollups: OwnDatabase,
) -> None:
    """Catches old counts with a new position: the changes between them would never be counted."""
    checkpoints = Checkpoints(rollups)
    checkpoints.save(CHECKPOINT)
    jobs = [{"_id": number, "text": "x" * 2**17} for number in range(200)]  # 26 MB: too large
    checkpoints.save(Checkpoint(CHECKPOINT.segments, {"_data": "83"}, jobs))
    checkpoints.save_position({"_data": "84"}, None)
    assert Checkpoints(rollups).load() == CHECKPOINT
    versions = rollups[CHECKPOINTS].distinct("version")
    assert len(versions) == 1
    later = Checkpoint(CHECKPOINT.segments, {"_data": "85"})
    checkpoints.save(later)
    assert Checkpoints(rollups).load() == later
    checkpoints.save_position({"_data": "86"}, None)
    assert Checkpoints(rollups).load() == Checkpoint(later.segments, {"_data": "86"})


def test_counts_of_many_segments_share_their_keys() -> None:
    """Catches a new key object for each of millions of counts: keys take 75% of their memory."""
    counts = CountsByName(FieldMapping(paths={}))

    def find_key(job_type: str) -> tuple[str, str]:
        (key,) = counts.add_up([{"_id": {"status": "queued", "type": job_type}, "count": 1}])
        return key

    # `join` makes two equal, but different strings.
    assert find_key("".join(["ma", "il"])) is find_key("".join(["ma", "il"]))
    (loaded,) = counts.learn({("queued", "".join(["ma", "il"])): 3})
    assert loaded is find_key("mail")
