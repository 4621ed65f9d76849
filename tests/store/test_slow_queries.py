"""Slow queries: catches a slow query without a warning, and a warning with the query's values."""

from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from structlog.testing import capture_logs

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.store.slow_queries import SlowQueries

from ..conftest import Api
from ..support.commands import database_uri


@pytest.fixture
def slow_api(mongod: Mongod, database: Database[dict[str, Any]], make_settings: Any) -> Any:
    uri = database_uri(mongod, database)
    app = create_app(make_settings(mongo_uri=uri, slow_query_ms=1_000))
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


def make_delay(database: Database[dict[str, Any]], command: str, ms: int) -> dict[str, Any]:
    """The data of a failCommand that delays a command on the collection `jobs`."""
    return {
        "failCommands": [command],
        "namespace": f"{database.name}.jobs",
        "blockConnection": True,
        "blockTimeMS": ms,
    }


def test_a_slow_query_is_logged_without_its_values(
    slow_api: Api, database: Database[dict[str, Any]]
) -> None:
    database.jobs.create_index([("createdBy", 1), ("createdAt", -1), ("_id", -1), ("type", 1)])
    database.jobs.create_index([("createdAt", -1), ("_id", -1)])
    database.jobs.insert_one({"jobId": "a", "createdBy": "someone-secret"})
    admin = database.client.admin
    delay = make_delay(database, "find", 1_050)
    admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=delay)
    with capture_logs() as lines:
        assert slow_api.get_as_owner("/jobs", "someone-secret").status_code == 200
    (line,) = [line for line in lines if line["event"] == "slow query"]
    assert (line["log_level"], line["command"], line["collection"]) == ("warning", "find", "jobs")
    assert (line["outcome"], line["duration_ms"] >= 1_000) == ("succeeded", True)
    assert line["index"] == "{'createdBy': 1, 'createdAt': -1, '_id': -1, 'type': 1}"
    assert line["shape"] == '{"$and": [{"createdBy": {"$in": "?"}}, {}]}'
    assert "someone-secret" not in str(line)


def test_a_slow_query_with_the_name_of_an_index_as_hint_is_logged(
    mongod: Mongod, database: Database[dict[str, Any]]
) -> None:
    """Catches a listener that expects a mapping as the hint, fails, and logs nothing."""
    database.jobs.insert_one({"jobId": "a"})
    listener = SlowQueries(slow_ms=-1)  # logs every query
    with (
        capture_logs() as lines,
        MongoClient[dict[str, Any]](mongod.uri, event_listeners=[listener]) as client,
    ):
        client[database.name].jobs.find_one({}, hint="_id_")
    assert [line["index"] for line in lines if line["command"] == "find"] == ["_id_"]


def test_a_query_that_reaches_its_time_limit_is_logged(
    slow_api: Api, database: Database[dict[str, Any]]
) -> None:
    data = make_delay(database, "aggregate", 1_050) | {"errorCode": 50}
    database.client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=data)
    try:
        with capture_logs() as lines:
            assert slow_api.get_as_admin("/admin/jobs/stats").status_code == 503
    finally:
        database.client.admin.command("configureFailPoint", "failCommand", mode="off")
    slow_lines = [line for line in lines if line["event"] == "slow query"]
    # On a busy machine, queries of other collections are slow, too.
    slow_lines = [line for line in slow_lines if line["collection"] == "jobs"]
    assert {(line["command"], line["outcome"]) for line in slow_lines} == {("aggregate", "failed")}
    assert '"$group"' in slow_lines[0]["shape"]


def test_a_fast_query_is_neither_logged_nor_kept_in_memory(
    slow_api: Api, database: Database[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    listeners: list[SlowQueries] = []
    monkeypatch.setattr(SlowQueries, "started", record_listeners(SlowQueries.started, listeners))
    with capture_logs() as lines:
        assert slow_api.get_as_admin("/admin/jobs/queue").status_code == 200
    assert [line for line in lines if line["event"] == "slow query"] == []
    assert listeners
    assert listeners[0]._running == {}


def record_listeners(started: Any, listeners: list[SlowQueries]) -> Any:
    def record_listener(self: SlowQueries, event: Any) -> None:
        listeners.append(self)
        started(self, event)

    return record_listener
