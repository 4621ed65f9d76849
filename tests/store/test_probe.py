"""The probe on the real server: catches a busy database that is reported as unreachable, a check
for each of many callers, and a failure that is logged at every check."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import NetworkTimeout, OperationFailure

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.probe import DatabaseProbe
from jobmon.store.read_collection import ReadCollection

from ..support.commands import database_uri
from ..support.waiting import eventually


@pytest.fixture
def connection(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[Connection]:
    uri = database_uri(mongod, database)
    connection = Connection(make_settings(mongo_uri=uri))
    yield connection
    connection.close()


def test_a_busy_server_that_answers_a_ping_is_ready(
    connection: Connection, database: Database[dict[str, Any]]
) -> None:
    probe = DatabaseProbe(connection, 2_000)
    assert probe.check().is_readable is True
    delay = {"failCommands": ["find"], "namespace": f"{database.name}.jobs"}
    delay |= {"blockConnection": True, "blockTimeMS": 3_000}
    admin = database.client.admin
    admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=delay)
    try:
        eventually(lambda: probe.check().is_readable is None)
        health = probe.check()
        assert (health.is_up, health.is_ready) == (True, True)
        assert health.reason == "the server answers too slowly"
    finally:
        admin.command("configureFailPoint", "failCommand", mode="off")
    eventually(lambda: probe.check().is_readable)


@pytest.mark.parametrize("forbidden", ["jobs", "job_attempts"])
def test_a_collection_without_read_rights_is_reported_while_the_other_one_is_slow(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    """Catches a service without rights that is ready while its database is busy."""

    def fail(collection: ReadCollection) -> None:
        is_forbidden = collection.collection.name == forbidden
        raise OperationFailure("", 13) if is_forbidden else NetworkTimeout()

    monkeypatch.setattr(ReadCollection, "touch", fail)
    health = DatabaseProbe(connection, 2_000).check()
    assert (health.is_readable, health.is_ready) == (False, False)
    assert health.reason == f"not authorized to read {forbidden}"


def test_concurrent_callers_share_checks(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    touch = ReadCollection.touch
    monkeypatch.setattr(ReadCollection, "touch", lambda jobs: (reads.append(jobs), touch(jobs)))
    probe = DatabaseProbe(connection, 2_000)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: probe.check(), range(200)))
    check_count = len(set(map(id, answers)))
    assert len(reads) == 2 * check_count, "each check reads both collections once"
    assert check_count < 20


@pytest.mark.parametrize(
    ("error", "is_up", "is_readable"),
    [
        (OperationFailure("quoted", 13), True, False),
        (OperationFailure("quoted", 18), True, False),
        (OperationFailure("quoted", 11_601), True, None),
        (OperationFailure("quoted", 2), True, None),
        (KeyError("quoted"), True, None),
    ],
)
def test_a_failure_has_a_reason_and_is_logged_once_until_it_ends(
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    *,
    is_up: bool,
    is_readable: bool | None,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr("jobmon.store.probe.CACHE_TTL_MS", 0)
    probe = DatabaseProbe(connection, 2_000)

    def fail(_: ReadCollection) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ReadCollection, "touch", fail)
        health = [probe.check() for _ in range(3)][-1]
    assert (health.is_up, health.is_readable, health.is_ready) == (is_up, is_readable, False)
    assert health.reason
    assert "quoted" not in health.reason
    assert probe.check().is_ready
    levels = [record.levelname for record in caplog.records]
    assert levels == ["ERROR", "WARNING"]  # the beginning and the end of the failure
