"""Collectors of several queues: catches a queue that waits for another, or is never counted."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from pymongo import MongoClient

from jobmon.collector import collector as collector_module
from jobmon.collector import share as share_module
from jobmon.collector.checkpoint import Checkpoint, Checkpoints
from jobmon.collector.collecting import collecting
from jobmon.collector.collector import Collector
from jobmon.collector.history_writer import HistoryWriter
from jobmon.collector.segments import SegmentMap
from jobmon.collector.share import Share
from jobmon.demo.mongod import Mongod, free_port
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import CHECKPOINT, EVENTS, LEADER, STATS
from jobmon.rollup.health import CollectorHealth, are_good, check_collectors, may_restart_help
from jobmon.settings import Settings, load_queues
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from jobmon.store.stats import QueueHealth

from ..support.commands import database_uri
from ..support.queue_service import MongoDb, temporary_database
from ..support.waiting import eventually

QUEUE_NAMES = ("a", "b", "c", "d")
EMPTY_QUEUE_HEALTH = QueueHealth(
    estimated_total=0,
    expired_leases=0,
    due=0,
    scheduled=0,
    oldest_queued=None,
    oldest_queued_by_type={},
)


@pytest.fixture
def database(mongo: MongoClient[dict[str, Any]]) -> Iterator[MongoDb]:
    with temporary_database(mongo) as database:
        yield database


@pytest.fixture
def settings(mongod: Mongod, database: MongoDb, tmp_path: Path) -> Settings:
    """Four queues with a job each, and one whose database is unreachable."""
    path = tmp_path / "queues.toml"
    tables = [f'[{name}]\ncollection = "{name}"' for name in QUEUE_NAMES]
    unreachable = f'[unreachable]\nuri = "mongodb://127.0.0.1:{free_port()}/app"'
    path.write_text("\n".join([unreachable, *tables]))
    for name in QUEUE_NAMES:
        database[name].insert_one({"jobId": name, "status": "queued", "type": name})
    return Settings(
        mongo_uri=database_uri(mongod, database),
        rollup_db=f"{database.name}_rollups",
        queues=str(path),
        server_selection_timeout_ms=1_000,
    )


@pytest.fixture
def rollups(mongo: MongoClient[dict[str, Any]], database: MongoDb) -> MongoDb:
    return mongo[f"{database.name}_rollups"]


def load_queue_a(settings: Settings) -> Settings:
    """The settings of the queue `a` alone."""
    return replace(load_queues(settings)[1], queues=None)


def count_queues_per_process(rollups: MongoDb) -> list[int]:
    """The number of queues of each process, in ascending order."""
    leases = rollups.leases.find({"name": LEADER})
    return sorted(Counter(lease["holder"] for lease in leases).values())


def read_types(rollups: MongoDb) -> set[str]:
    documents = rollups.state.find({"name": STATS})
    return {job_type for document in documents for _, job_type, _ in document["counts"]}


def test_each_queue_is_counted_although_one_is_unreachable(
    settings: Settings, rollups: MongoDb
) -> None:
    with collecting(settings):
        eventually(lambda: read_types(rollups) == set(QUEUE_NAMES))


def test_the_check_ignores_an_unreachable_queue_and_fails_without_a_collector(
    settings: Settings, rollups: MongoDb
) -> None:
    """Catches a container that is restarted for ever because one of its queues is unreachable."""
    with closing(Connection(load_queue_a(settings))) as connection:
        create_indexes(connection)
    assert not are_good(check_collectors(settings))
    with collecting(settings):
        eventually(lambda: are_good(check_collectors(settings)))
        unreachable, good, *unindexed = check_collectors(settings)
        assert (unreachable.queue, unreachable.is_good) == ("unreachable", False)
        assert not unreachable.can_restart_help
        assert "its database is unreachable" in unreachable.message
        assert good.is_good
        # Without indexes there is no history: a restart does not help.
        assert {(queue.is_good, queue.can_restart_help) for queue in unindexed} == {(False, False)}
        assert all("create the history's indexes" in queue.message for queue in unindexed)
    checked = check_collectors(settings)
    assert {queue.message for queue in checked[1:]} == {"no collector works for this queue"}
    assert not are_good(checked)


@pytest.mark.parametrize(
    ("states", "is_good", "is_restart_useful"),
    [
        (["good", "good"], True, False),
        (["good", "unreachable"], True, False),
        (["good", "bad"], False, True),
        (["good", "unreachable", "bad"], False, True),
        (["unreachable", "unreachable"], False, False),
    ],
)
def test_the_check_passes_if_a_queue_is_good_and_a_restart_helps_no_other(
    states: list[str], is_good: bool, is_restart_useful: bool
) -> None:
    queues = [
        CollectorHealth(
            queue="q", is_good=state == "good", message="", can_restart_help=state != "unreachable"
        )
        for state in states
    ]
    assert are_good(queues) is is_good
    assert may_restart_help(queues) is is_restart_useful


def test_each_deployment_has_its_own_slots_for_histories(settings: Settings) -> None:
    """Catches a frozen deployment whose histories take the slots of all queues."""
    unreachable, first, second = (Connection(queue) for queue in load_queues(settings)[:3])
    share = Share(load_queues(settings))
    assert share.history_slots(first) is share.history_slots(second)
    assert share.history_slots(first) is not share.history_slots(unreachable)


def test_a_history_is_counted_after_the_first_stats(
    settings: Settings, rollups: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches first stats of a hundred queues that wait for the histories of all."""
    counted_at_start = list[set[str]]()

    def wait_for_stop(_: HistoryWriter, stop: Event) -> None:
        counted_at_start.append(read_types(rollups))
        stop.wait()

    monkeypatch.setattr(share_module, "STATS_FIRST_S", 3_600)
    monkeypatch.setattr(HistoryWriter, "run", wait_for_stop)
    with collecting(load_queue_a(settings)):
        eventually(lambda: counted_at_start)
    assert counted_at_start == [{"a"}]


def test_a_process_is_starting_until_all_its_queues_have_stats(settings: Settings) -> None:
    """Catches the histories of some queues that delay the first stats of the others."""
    share = Share(load_queues(settings))
    with share.reserve("a"), share.reserve("b"), share.reserve("c"):
        assert not share.is_starting()
        for queue in ("a", "b"):
            share.report_start(queue)
        share.report_stats("a")
        assert share.is_starting()
        share.report_stats("b")
        assert not share.is_starting()
        with share.reserve("d"):
            share.report_start("d")
            assert share.is_starting()
        assert not share.is_starting(), "it waits for a queue that was released"
    with share.reserve("d"):
        share.report_start("d")
        assert not share.is_starting(), "it waits for a queue that starts a second time"


def test_histories_do_not_wait_for_a_long_first_count(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a queue of a hundred million jobs that stops the histories of all others."""
    share = Share(load_queues(settings))
    share.report_start("large")
    monkeypatch.setattr(share_module, "STATS_FIRST_S", 0.01)
    share.await_start(Event())
    eventually(lambda: not share.is_starting())


def test_runs_are_counted_from_changes_after_the_stats_of_all_queues(
    settings: Settings, rollups: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches first stats of a hundred queues that come only after their waiting jobs are read."""
    starting = Event()
    starting.set()
    monkeypatch.setattr(Share, "is_starting", lambda _: starting.is_set())
    saved = {"name": {"$in": [EVENTS, CHECKPOINT]}}
    with collecting(load_queue_a(settings)):
        eventually(lambda: read_types(rollups) == {"a"})
    assert not rollups.state.count_documents(saved), "it saved a position before it counted runs"
    with collecting(load_queue_a(settings)):
        eventually(lambda: read_types(rollups) == {"a"})
        starting.clear()
        eventually(lambda: rollups.state.count_documents(saved) == 2)


def test_few_queues_of_a_deployment_begin_to_count_runs_at_the_same_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches stats that get old because all queues read their waiting jobs at the same time."""
    monkeypatch.setattr(share_module, "BEGIN_SLOTS", 1)
    unreachable, first, second = (Connection(queue) for queue in load_queues(settings)[:3])
    share = Share(load_queues(settings))
    with share.try_to_begin(first) as may_first, share.try_to_begin(second) as may_second:
        assert (may_first, may_second) == (True, False)
        with share.try_to_begin(unreachable) as may_other_deployment:
            assert may_other_deployment
    with share.try_to_begin(second) as may_second:
        assert may_second


def test_the_first_checkpoint_is_written_after_the_first_stats(
    settings: Settings, rollups: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches first stats of a hundred queues that wait for the checkpoints of all."""
    counted_at_save = list[set[str]]()
    save = Checkpoints.start_saving

    def start_saving(checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
        counted_at_save.append(read_types(rollups))
        save(checkpoints, checkpoint)

    monkeypatch.setattr(Checkpoints, "start_saving", start_saving)
    with collecting(load_queue_a(settings)):
        eventually(lambda: rollups.state.find_one({"name": CHECKPOINT}))
    assert counted_at_save == [{"a"}]


def test_the_health_of_a_queue_without_changes_is_read_less_often(
    settings: Settings, rollups: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection(load_queue_a(settings))
    collector = Collector(connection, rollups, Event(), Share([settings]), Redactor())
    segments, read_health = SegmentMap(connection.jobs), Mock(return_value=EMPTY_QUEUE_HEALTH)
    monkeypatch.setattr(collector_module, "HEALTH_PAUSE_FACTOR", 0)
    monkeypatch.setattr(collector._live_stats, "health", read_health)
    started = datetime.now(UTC)
    for _ in range(3):
        assert collector._read_health(segments) is EMPTY_QUEUE_HEALTH
    assert read_health.call_count == 1
    assert read_health.call_args.args[1] >= started, "the database is read as of now"
    collector._is_health_outdated = True
    collector._read_health(segments)
    assert read_health.call_count == 2


def test_health_is_read_again_soon_after_a_slow_read(
    settings: Settings, rollups: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches numbers that are wrong for minutes after a database was slow for a moment."""
    connection, now = Connection(load_queue_a(settings)), 1_000.0
    collector = Collector(connection, rollups, Event(), Share([settings]), Redactor())
    reads = 0

    def read_slowly(*_: Any) -> QueueHealth:
        nonlocal now, reads
        now, reads = now + 30, reads + 1
        return EMPTY_QUEUE_HEALTH

    monkeypatch.setattr(collector_module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(collector._live_stats, "health", read_slowly)
    for waited, expected_reads in ((0, 1), (9, 1), (1, 2)):
        now += waited
        collector._is_health_outdated = True
        collector._read_health(SegmentMap(connection.jobs))
        assert reads == expected_reads


def test_processes_share_the_queues_and_take_over(settings: Settings, rollups: MongoDb) -> None:
    def count_processes() -> int:
        return rollups.leases.count_documents({"name": "process"})

    with ExitStack() as first:
        first.enter_context(collecting(settings))
        eventually(lambda: count_queues_per_process(rollups) == [4])
        with collecting(settings):
            # Each process may have three of the five queues: the first releases one of its four.
            eventually(lambda: count_queues_per_process(rollups) == [1, 3])
            first.close()
            eventually(lambda: count_queues_per_process(rollups) == [4])
            assert count_processes() == 1
    assert count_processes() == 0
