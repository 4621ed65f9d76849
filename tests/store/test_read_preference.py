"""Reads from a secondary that lags: catches an old answer that looks current, a wrong count
that is not corrected, and a revoked token that is accepted."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.collector.collecting import collecting
from jobmon.demo.mongod import Mongod, MongodUnavailableError
from jobmon.rollup.documents import connect_as_writer
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.client import DatabaseUnreachableError
from jobmon.store.connection import Connection
from jobmon.store.cursor import NEWEST_FIRST
from jobmon.web.revocation import RevokedTokens

from ..conftest import NOW, Api
from ..support.waiting import eventually

pytestmark = pytest.mark.real
Document = dict[str, Any]
MongoDb = Database[Document]


@dataclass
class Pair:
    """A primary, and a secondary without a vote, so that the primary alone is a majority."""

    primary: Mongod
    secondary: Mongod

    def make_uri(self, options: str = "readPreference=secondary") -> str:
        return f"mongodb://{self.primary.address}/watched?replicaSet=rs0&{options}"

    @contextmanager
    def lagging(self) -> Iterator[None]:
        """Make the secondary apply no change of the primary in the block; it still answers."""
        with MongoClient[Document](self.secondary.address, directConnection=True) as client:
            stop = {"configureFailPoint": "rsSyncApplyStop", "mode": "alwaysOn"}
            client.admin.command(stop)
            try:
                yield
            finally:
                client.admin.command(stop | {"mode": "off"})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    options = ("--setParameter", "enableTestCommands=1")
    primary, secondary = (
        Mongod(tmp_path_factory.mktemp("member"), initiate=False, cache_gb=0.25, options=options)
        for _ in range(2)
    )
    try:
        primary.start()
    except MongodUnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no real MongoDB server: {error}")
    secondary.start()
    try:
        voter = {"_id": 0, "host": primary.address}
        non_voter = {"_id": 1, "host": secondary.address, "priority": 0, "votes": 0}
        with MongoClient[Document](primary.address, directConnection=True) as client:
            config = {"_id": "rs0", "members": [voter, non_voter]}
            config["settings"] = {"heartbeatIntervalMillis": 200, "electionTimeoutMillis": 500}
            client.admin.command("replSetInitiate", config)

            def has_secondary() -> bool:
                members = client.admin.command("replSetGetStatus")["members"]
                return [member["stateStr"] for member in members] == ["PRIMARY", "SECONDARY"]

            eventually(has_secondary)
        yield Pair(primary, secondary)
    finally:
        for member in (secondary, primary):  # a member that stops normally waits for the other one
            os.kill(member.pid, signal.SIGKILL)
            member.stop()


@pytest.fixture
def primary_db(pair: Pair) -> Iterator[MongoDb]:
    """The watched database on the primary, with one job that the secondary has, too."""
    options: Document = {"w": 2, "tz_aware": True}
    with MongoClient[Document](pair.make_uri("readPreference=primary"), **options) as client:
        database = client.watched
        create_indexes(Connection(Settings(mongo_uri=pair.make_uri("")), client))
        database.jobs.insert_one(make_job("first"))
        yield database.with_options(write_concern=client.watched.write_concern.__class__(w=1))
        for name in ("watched", "jobmon_rollups", "jobmon_state"):
            client.drop_database(name)


def make_job(name: str, **fields: Any) -> Document:
    return {"jobId": name, "type": "mail", "status": "queued", "createdAt": NOW} | fields


@pytest.fixture
def api(pair: Pair, make_settings: Callable[..., Settings]) -> Iterator[Api]:
    """The service, which reads from the secondary."""
    app = create_app(make_settings(mongo_uri=pair.make_uri()))
    yield Api(app)
    app.extensions["jobmon_connection"].close()


def read_as_of(api: Api, path: str) -> datetime:
    """The time of an answer, which some routes have in `meta`."""
    answer = api.get_as_admin(path).json
    return datetime.fromisoformat(answer["meta"]["as_of"] if "meta" in answer else answer["asOf"])


def test_stats_of_a_lagging_secondary_have_the_time_of_its_last_write(
    pair: Pair, primary_db: MongoDb, api: Api
) -> None:
    stats_path, series_path = "/admin/jobs/stats", "/admin/jobs/timeseries"
    eventually(lambda: api.get_as_admin(stats_path).json["totalJobs"] == 1)
    with pair.lagging():
        written_at = datetime.now(UTC)
        primary_db.jobs.insert_one(make_job("second"))
        assert api.get_as_admin(stats_path).json["totalJobs"] == 1
        assert read_as_of(api, stats_path) <= written_at
        assert read_as_of(api, series_path) <= written_at
    eventually(lambda: api.get_as_admin(stats_path).json["totalJobs"] == 2)

    def is_newer() -> bool:
        primary_db.others.insert_one({})  # without a new write, the time stays the same
        return read_as_of(api, stats_path) > written_at

    eventually(is_newer)


def test_lists_and_jobs_are_read_from_the_secondary(
    pair: Pair, primary_db: MongoDb, api: Api
) -> None:
    eventually(lambda: len(api.get_as_admin("/admin/jobs/queue").json["data"]) == 1)
    with pair.lagging():
        primary_db.jobs.insert_one(make_job("second"))
        assert [job["jobId"] for job in api.get_as_admin("/admin/jobs/queue").json["data"]] == [
            "first"
        ]
        assert api.get_as_admin("/jobs/second").status_code == 403


def test_collector_counts_on_the_primary(
    pair: Pair, primary_db: MongoDb, api: Api, make_settings: Callable[..., Settings]
) -> None:
    """Catches a count on a lagging secondary, which stays wrong until the next change."""

    def is_counted(total: int) -> bool:
        stats = api.get_as_admin("/admin/jobs/stats").json
        return (stats["source"], stats["totalJobs"]) == ("rollup", total)

    with pair.lagging(), collecting(make_settings(mongo_uri=pair.make_uri())):
        primary_db.jobs.insert_one(make_job("second"))
        eventually(lambda: is_counted(2))
        primary_db.jobs.insert_one(make_job("third"))
        eventually(lambda: is_counted(3))


def test_a_revoked_token_is_refused_while_the_secondary_lags(
    pair: Pair, primary_db: MongoDb, api: Api, make_settings: Callable[..., Settings]
) -> None:
    token = api.token()
    writer = connect_as_writer(make_settings(mongo_uri=pair.make_uri()))
    with pair.lagging():
        RevokedTokens(writer).add_subject("root")
        answer = api.get("/admin/jobs/stats", token=token)
        assert (answer.status_code, answer.json["error"]["code"]) == (401, "token_invalid")
    writer.close()


def test_arrays_are_detected_on_the_primary(
    pair: Pair, primary_db: MongoDb, make_settings: Callable[..., Settings]
) -> None:
    """Catches a page by cursor that lacks jobs, because a lagging secondary has no array yet."""
    connection = Connection(make_settings(mongo_uri=pair.make_uri()))
    with pair.lagging():
        primary_db.jobs.insert_one(make_job("second", createdAt=[NOW, NOW + timedelta(days=1)]))
        assert not connection.jobs.has_no_arrays("createdAt", NEWEST_FIRST)
    connection.close()


def test_a_direct_connection_to_a_secondary_is_refused(
    pair: Pair, make_settings: Callable[..., Settings]
) -> None:
    """The driver would send every query to the secondary, with any read preference."""
    uri = f"mongodb://{pair.secondary.address}/watched?directConnection=true"
    connection = Connection(make_settings(mongo_uri=uri))
    with pytest.raises(DatabaseUnreachableError, match="leads to a secondary"):
        connection.ping()
    connection.close()


def test_the_first_data_time_is_the_time_of_the_secondarys_last_write(
    pair: Pair, primary_db: MongoDb, make_settings: Callable[..., Settings]
) -> None:
    """Catches a first answer with the present time, because the secondary was not known yet."""
    connection = Connection(make_settings(mongo_uri=pair.make_uri()))
    with pair.lagging():
        primary_db.jobs.insert_one(make_job("second"))
        # The time of a last write is in whole seconds.
        assert connection.data_time().microsecond == 0
        assert [job["jobId"] for job in connection.jobs.find({}, ("jobId",))] == ["first"]
    connection.close()


def test_the_time_of_a_standalone_server_is_the_present(
    mongod: Mongod, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    """Catches stats that fail because a standalone server, read as a secondary, has no times."""
    with Mongod(tmp_path, replica_set=None) as standalone:
        uri = f"{standalone.uri}watched?readPreference=secondaryPreferred"
        connection = Connection(make_settings(mongo_uri=uri))
        before = datetime.now(UTC)
        assert before <= connection.data_time() <= datetime.now(UTC)
        connection.close()
