"""A sharded cluster, with two simulated routers (mongos): catches a query that only a replica set
can answer, and a change stream that is opened again because a read went to the second router."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.hello import Hello
from pymongo.server_description import ServerDescription

from jobmon.app import create_app
from jobmon.collector.changes import StreamedChanges
from jobmon.collector.collecting import collecting
from jobmon.collector.segments import SegmentMap
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.init import run_init
from jobmon.setup.init_plan import InitOptions
from jobmon.store.client import DatabaseClient, select_one_router
from jobmon.store.connection import Connection
from jobmon.store.cursor import NEWEST_FIRST
from jobmon.store.id_lookup import IdLookup
from jobmon.store.queue_key import deployment_name

from ..conftest import NOW, Api
from ..support.mongos import Router
from ..support.waiting import eventually

pytestmark = pytest.mark.real
Document = dict[str, Any]


@pytest.fixture
def routers(mongod: Mongod) -> Iterator[list[Router]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Router(mongod.address)) for _ in range(2)]


@pytest.fixture
def settings(
    routers: list[Router], database: Database[Document], make_settings: Callable[..., Settings]
) -> Settings:
    hosts = ",".join(router.address for router in routers)
    rollups = f"{database.name[:50]}_rollups"
    return make_settings(mongo_uri=f"mongodb://{hosts}/{database.name}", rollup_db=rollups)


@pytest.fixture
def watched_database(database: Database[Document]) -> Database[Document]:
    database.jobs.insert_many([make_job(number) for number in range(3)])
    return database


def make_job(number: int) -> Document:
    return {"jobId": f"job-{number}", "type": "mail", "status": "queued", "createdAt": NOW}


def test_a_sharded_cluster_is_not_a_standalone_server() -> None:
    """Catches a cluster that is polled as if it had no change streams."""
    assert deployment_name({"msg": "isdbgrid"}) == "sharded cluster"
    assert deployment_name({"setName": "rs0"}) == "rs0"
    assert deployment_name({}) is None


def test_stats_lists_init_and_the_collector_work_through_a_router(
    settings: Settings, routers: list[Router], watched_database: Database[Document]
) -> None:
    messages = [finding.message for finding in run_init(settings, InitOptions())]
    assert not any("updatedAt" in message for message in messages)
    api = Api(create_app(settings))
    try:
        stats = api.get_as_admin("/admin/jobs/stats").json
        assert (stats["source"], stats["totalJobs"]) == ("live", 3)
        assert len(api.get_as_admin("/admin/jobs/queue").json["data"]) == 3
        assert api.get_as_admin("/jobs/job-1").json["jobId"] == "job-1"

        def is_counted(total: int) -> bool:
            stats = api.get_as_admin("/admin/jobs/stats").json
            return (stats["source"], stats["totalJobs"]) == ("rollup", total)

        with collecting(settings):
            eventually(lambda: is_counted(3))
            watched_database.jobs.insert_one(make_job(3))
            eventually(lambda: is_counted(4))
    finally:
        connection = api.app.extensions["jobmon_connection"]
        connection.client.drop_database(settings.rollup_db)
        connection.close()
    assert any(router.commands for router in routers)


def test_plans_of_shards_show_that_no_value_is_an_array(
    settings: Settings, watched_database: Database[Document]
) -> None:
    watched_database.jobs.create_index(NEWEST_FIRST)
    connection = Connection(settings)
    assert connection.jobs.has_no_arrays("createdAt", NEWEST_FIRST)
    connection.close()


def test_a_lookup_through_a_router_uses_an_index_with_a_collation(
    settings: Settings, routers: list[Router], database: Database[Document]
) -> None:
    """Catches a lookup with a simple collation, for which the server scans every job."""
    database.create_collection("jobs", collation={"locale": "en", "strength": 2})
    database.jobs.create_index("jobId")
    database.jobs.insert_one(make_job(1))
    connection = Connection(settings)
    jobs = IdLookup(connection.jobs).find({"jobId": "job-1"}, lambda _: True, limit=1)
    connection.close()
    assert jobs[0]["jobId"] == "job-1"
    finds = [command for router in routers for command in router.commands if "find" in command]
    assert [command.get("collation") for command in finds] == [None]


@contextmanager
def open_changes(settings: Settings) -> Iterator[tuple[StreamedChanges, SegmentMap]]:
    connection = Connection(settings, DatabaseClient(settings, majority_reads=True))
    changes = StreamedChanges(connection.jobs.collection, None, threading.Event())
    try:
        yield changes, SegmentMap(connection.jobs)
    finally:
        changes.close()
        connection.close()


def test_changes_of_a_sharded_cluster_are_seen_up_to_the_time_of_the_token(
    settings: Settings, watched_database: Database[Document]
) -> None:
    """Catches counts that look current although a shard has not reported its changes yet."""
    inserted_at = datetime.now(UTC).replace(microsecond=0)
    with open_changes(settings) as (changes, segments):
        watched_database.jobs.insert_one(make_job(3))

        def is_seen() -> bool:
            changes.next_batch(segments)
            return changes.seen_until is not None and changes.seen_until >= inserted_at

        eventually(is_seen)
        assert changes.seen_until is not None
        assert changes.seen_until <= datetime.now(UTC)


def test_changes_of_a_replica_set_are_seen_up_to_now(
    settings: Settings, mongod: Mongod, watched_database: Database[Document]
) -> None:
    """Catches counts of a replica set that look older than they are."""
    uri = mongod.uri.replace("/?", f"/{watched_database.name}?")
    with open_changes(replace(settings, mongo_uri=uri)) as (changes, segments):
        changes.next_batch(segments)
        assert changes.is_at_end
        assert changes.seen_until is None


def test_the_router_with_the_lowest_address_is_selected() -> None:
    routers = [
        ServerDescription(("127.0.0.1", port), Hello({"ok": 1, "msg": "isdbgrid"}))
        for port in (2, 1, 3)
    ]
    assert [server.address[1] for server in select_one_router(routers)] == [1]
    members = [ServerDescription(("127.0.0.1", 1), Hello({"ok": 1, "isWritablePrimary": True}))]
    assert select_one_router(members) == members


def test_the_stream_is_not_opened_again_for_each_batch(
    settings: Settings, routers: list[Router], watched_database: Database[Document]
) -> None:
    with open_changes(settings) as (changes, segments):
        for _ in range(6):
            changes.next_batch(segments)
    commands = [command for router in routers for command in router.commands]
    # The stream is opened again if a router does not answer in time.
    assert 1 <= sum("aggregate" in command for command in commands) <= 2
