"""Collectors of several queues: catches a queue that waits for another one, or that none counts."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod, free_port
from jobmon.rollup.collecting import collecting
from jobmon.rollup.documents import LEADER, STATS
from jobmon.settings import Settings

from ..support.commands import database_uri
from ..support.waiting import eventually
from ..support.watched_queue import Documents, temporary_database

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def database(mongo: MongoClient[dict[str, Any]]) -> Iterator[Documents]:
    with temporary_database(mongo) as database:
        yield database


@pytest.fixture
def settings(mongod: Mongod, database: Documents, tmp_path: Path) -> Settings:
    """Four queues with a job each, and one whose database is away."""
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
        server_selection_timeout_ms=300,
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


def test_each_queue_is_counted_although_one_is_away(settings: Settings, rollups: Documents) -> None:
    with collecting(settings):
        eventually(lambda: counted_types(rollups) == set(NAMES))


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
