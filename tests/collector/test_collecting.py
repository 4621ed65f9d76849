"""Collectors of several queues: catches a queue that waits for another, or is never counted."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

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
from jobmon.rollup.health import CollectorHealth, are_good, check_collectors
from jobmon.settings import Settings, load_queues
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from jobmon.store.stats import QueueHealth

from ..conftest import NOW
from ..support.commands import database_uri
from ..support.waiting import eventually
from ..support.watched_queue import Documents, temporary_database

NAMES = ("a", "b", "c", "d")
QUIET = QueueHealth(
    estimated_total=0,
    expired_leases=0,
    due=0,
    scheduled=0,
    oldest_queued=None,
    oldest_queued_by_type={},
)


@pytest.fixture
def database(mongo: MongoClient[dict[str, Any]]) -> Iterator[Documents]:
    with temporary_database(mongo) as database:
        yield database


@pytest.fixture
def settings(mongod: Mongod, database: Documents, tmp_path: Path) -> Settings:
    """Four queues with a job each, and one whose database is unreachable."""
    path = tmp_path / "queues.toml"
    tables = [f'[{name}]\ncollection = "{name}"' for name in NAMES]
    away = f'[away]\nuri = "mongodb://127.0.0.1:{free_port()}/app"'
    path.write_text("\n".join([away, *tables]))
    for name in NAMES:
        database[name].insert_one({"jobId": name, "status": "queued", "type": name})
    return Settings(
        mongo_uri=database_uri(mongod, database),
        rollup_db=f"{database.name}_rollups",
        queues=str(path),
        server_selection_timeout_ms=1_000,
    )


@pytest.fixture
def rollups(mongo: MongoClient[dict[str, Any]], database: Documents) -> Documents:
    return mongo[f"{database.name}_rollups"]


def shares(rollups: Documents) -> list[int]:
    """How many queues each process works on, in ascending order."""
    held = Counter(lease["holder"] for lease in rollups.leases.find({"name": LEADER}))
    return sorted(held.values())


def counted_types(rollups: Documents) -> set[str]:
    documents = rollups.state.find({"name": STATS})
    return {kind for document in documents for _, kind, _ in document["counts"]}


def test_each_queue_is_counted_although_one_is_unreachable(
    settings: Settings, rollups: Documents
) -> None:
    with collecting(settings):
        eventually(lambda: counted_types(rollups) == set(NAMES))


def test_the_check_ignores_a_queue_that_is_unreachable_and_fails_for_one_that_nobody_counts(
    settings: Settings, rollups: Documents
) -> None:
    """Catches a container that is restarted for ever because one of its queues is away."""
    with closing(Connection(load_queues(settings)[1])) as connection:
        create_indexes(connection)
    assert not are_good(check_collectors(settings))
    with collecting(settings):
        eventually(lambda: are_good(check_collectors(settings)))
        away, *others = check_collectors(settings)
        assert (away.queue, away.is_good, away.helps_restart) == ("away", False, False)
        assert "its database is unreachable" in away.message
        # Without indexes there is no history: a restart does not help.
        good, *waiting = others
        assert good.is_good
        assert {(each.is_good, each.helps_restart) for each in waiting} == {(False, False)}
        assert all("create the history's indexes" in each.message for each in waiting)
    found = check_collectors(settings)
    assert {each.message for each in found[1:]} == {"no collector works for this queue"}
    assert not are_good(found)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["good", "good"], True),
        (["good", "away"], True),
        (["good", "bad"], False),
        (["good", "away", "bad"], False),
        (["away", "away"], False),
    ],
)
def test_a_restart_is_due_only_where_it_may_help(states: list[str], expected: bool) -> None:
    found = [
        CollectorHealth(
            queue="q", is_good=state == "good", message="", helps_restart=state != "away"
        )
        for state in states
    ]
    assert are_good(found) is expected


def test_histories_of_one_deployment_do_not_wait_for_another(settings: Settings) -> None:
    """Catches a frozen deployment whose histories take the slots of all queues."""
    away, one, other = (Connection(queue) for queue in load_queues(settings)[:3])
    share = Share(load_queues(settings))
    assert share.history_slots(one) is share.history_slots(other)
    assert share.history_slots(one) is not share.history_slots(away)


def test_a_history_is_counted_after_the_first_stats(
    settings: Settings, rollups: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches stats of a hundred queues that wait for the histories of all."""
    counted = list[set[str]]()

    def run(_: HistoryWriter, stop: Event) -> None:
        counted.append(counted_types(rollups))
        stop.wait()

    monkeypatch.setattr(share_module, "STATS_FIRST_S", 3_600)
    monkeypatch.setattr(HistoryWriter, "run", run)
    with collecting(replace(load_queues(settings)[1], queues=None)):
        eventually(lambda: counted)
    assert counted == [{NAMES[0]}]


def test_other_work_waits_until_all_queues_have_stats(settings: Settings) -> None:
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
        assert not share.is_starting(), "a queue that was released is not waited for"
    with share.reserve("d"):
        share.report_start("d")
        assert not share.is_starting(), "nor one that fails again and again"


def test_other_work_does_not_wait_for_a_long_first_count(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a queue of a hundred million jobs that stops the histories of all others."""
    share = Share(load_queues(settings))
    share.report_start("large")
    monkeypatch.setattr(share_module, "STATS_FIRST_S", 0.01)
    share.await_start()
    eventually(lambda: not share.is_starting())


def test_runs_are_counted_from_changes_after_the_stats_of_all_queues(
    settings: Settings, rollups: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches stats of a hundred queues that wait until the waiting jobs of all are read."""
    starting = Event()
    starting.set()
    monkeypatch.setattr(Share, "is_starting", lambda _: starting.is_set())
    names = {"name": {"$in": [EVENTS, CHECKPOINT]}}
    with collecting(replace(load_queues(settings)[1], queues=None)):
        eventually(lambda: counted_types(rollups) == {NAMES[0]})
    assert not rollups.state.count_documents(names), "what was not counted is not resumed either"
    with collecting(replace(load_queues(settings)[1], queues=None)):
        eventually(lambda: counted_types(rollups) == {NAMES[0]})
        starting.clear()
        eventually(lambda: rollups.state.count_documents(names) == 2)


def test_few_queues_of_a_deployment_begin_to_count_runs_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches stats that get old because all queues read their waiting jobs at the same time."""
    monkeypatch.setattr(share_module, "BEGIN_SLOTS", 1)
    away, one, other = (Connection(queue) for queue in load_queues(settings)[:3])
    share = Share(load_queues(settings))
    with share.try_to_begin(one) as first, share.try_to_begin(other) as second:
        assert (first, second) == (True, False)
        with share.try_to_begin(away) as elsewhere:
            assert elsewhere
    with share.try_to_begin(other) as later:
        assert later


def test_the_first_checkpoint_is_written_after_the_first_stats(
    settings: Settings, rollups: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches stats of a hundred queues that wait for the checkpoints of all."""
    counted = list[set[str]]()
    save = Checkpoints.start_saving

    def start_saving(checkpoints: Checkpoints, checkpoint: Checkpoint) -> None:
        counted.append(counted_types(rollups))
        save(checkpoints, checkpoint)

    monkeypatch.setattr(Checkpoints, "start_saving", start_saving)
    with collecting(replace(load_queues(settings)[1], queues=None)):
        eventually(lambda: rollups.state.find_one({"name": CHECKPOINT}))
    assert counted == [{NAMES[0]}]


def test_the_health_of_a_queue_without_changes_is_read_less_often(
    settings: Settings, rollups: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection(load_queues(settings)[1])
    collector = Collector(connection, rollups, Event(), Share([settings]), Redactor())
    segments, read = SegmentMap(connection.jobs), list[datetime]()
    monkeypatch.setattr(collector_module, "HEALTH_PAUSE_FACTOR", 0)
    monkeypatch.setattr(
        collector._live_stats, "health", lambda _, as_of, __: (read.append(as_of), QUIET)[1]
    )
    for _ in range(3):
        assert collector._read_health(segments, NOW) is QUIET
    assert len(read) == 1
    collector._is_health_outdated = True
    collector._read_health(segments, NOW)
    assert len(read) == 2


def test_processes_share_the_queues_and_take_over(settings: Settings, rollups: Documents) -> None:
    def entries() -> int:
        return rollups.leases.count_documents({"name": "process"})

    with ExitStack() as first:
        first.enter_context(collecting(settings))
        eventually(lambda: shares(rollups) == [4])
        with collecting(settings):
            # Of five queues each may have three: the first one releases one of its four.
            eventually(lambda: shares(rollups) == [1, 3])
            first.close()
            eventually(lambda: shares(rollups) == [4])
            assert entries() == 1
    assert entries() == 0
