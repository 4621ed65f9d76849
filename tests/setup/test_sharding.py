"""`jobmon check` and `jobmon init` through a simulated mongos: catches a missing finding about a
sharded cluster, and a warning without a cause."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.check import check_deployment
from jobmon.setup.findings import Finding, SetupError
from jobmon.setup.init import run_init
from jobmon.setup.init_plan import InitOptions

from ..conftest import NOW
from ..support.mongos import Router

pytestmark = pytest.mark.real


@pytest.fixture
def router(mongod: Mongod) -> Iterator[Router]:
    with Router(mongod.address) as router:
        yield router


@pytest.fixture
def settings(
    router: Router, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Settings:
    database.jobs.insert_one({"jobId": "a", "type": "t", "status": "queued", "createdAt": NOW})
    return make_settings(mongo_uri=f"mongodb://{router.address}/{database.name}")


@pytest.fixture
def set_shard_key(
    mongo: MongoClient[dict[str, Any]], settings: Settings
) -> Iterator[Callable[..., None]]:
    """A function that stores a shard key for the jobs, in the form of a sharded cluster."""
    name = f"{settings.mongo_uri.rpartition('/')[2]}.jobs"
    collections = mongo["config"]["collections"]
    yield lambda **key: collections.insert_one({"_id": name, "key": key})
    collections.delete_one({"_id": name})


def find_sharding(settings: Settings) -> list[Finding]:
    return [finding for finding in check_deployment(settings) if finding.check == "sharding"]


def test_check_reports_what_differs_through_mongos(settings: Settings) -> None:
    findings = list(check_deployment(settings))
    database, *_ = (finding.message for finding in findings if finding.check == "database")
    assert database.endswith("a sharded cluster.")
    assert not any("could not be checked" in finding.message for finding in findings)
    cluster, jobs = (finding.message for finding in findings if finding.check == "sharding")
    assert "when every shard has reached their time" in cluster
    assert jobs.endswith(".jobs is not sharded: one shard answers every query.")


@pytest.mark.parametrize(
    ("key", "description"),
    [
        ({"jobId": 1}, "(jobId): one shard answers a job by its id, all shards the other queries."),
        ({"_id": "hashed"}, "(hashed _id): all shards answer every query."),
        ({"tenant": 1, "_id": 1}, "(tenant, _id): all shards answer every query."),
    ],
)
def test_check_names_the_queries_that_one_shard_answers(
    settings: Settings, set_shard_key: Callable[..., None], key: dict[str, Any], description: str
) -> None:
    set_shard_key(**key)
    assert find_sharding(settings)[1].message.endswith(f".jobs is sharded by {description}")


@pytest.mark.parametrize(
    ("key", "warnings"),
    [
        ({"_id": 1}, []),
        ({"jobId": 1}, ["statistics read every job"]),
        ({"status": 1, "_id": 1}, ["The shard key contains the status"]),
    ],
)
def test_check_warns_of_a_shard_key(
    settings: Settings, set_shard_key: Callable[..., None], key: dict[str, Any], warnings: list[str]
) -> None:
    set_shard_key(**key)
    findings = [finding for finding in find_sharding(settings) if finding.level == "warning"]
    assert len(findings) == len(warnings)
    assert all(text in finding.message for text, finding in zip(warnings, findings, strict=True))


def test_check_reports_an_unreadable_shard_key(settings: Settings, router: Router) -> None:
    router.refused_databases.add("config")
    assert "may not read config.collections" in find_sharding(settings)[1].message


def test_check_warns_of_a_read_preference_without_effect(
    settings: Settings, make_settings: Callable[..., Settings]
) -> None:
    uri = f"{settings.mongo_uri}?readPreference=secondaryPreferred"
    findings = find_sharding(make_settings(mongo_uri=uri))
    assert [finding.level for finding in findings] == ["ok", "warning", "ok"]
    assert "readPreference in JOBMON_MONGO_URI has no effect" in findings[1].message


def test_init_of_a_replica_set_through_mongos_is_refused(settings: Settings) -> None:
    with pytest.raises(SetupError, match="the mongos of a sharded cluster"):
        list(run_init(settings, InitOptions(replica_set="rs0/localhost:27017")))
