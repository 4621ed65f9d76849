"""What `jobmon check` reports about actions: catches a missing actor that is not reported, a report
although actions are off, and no warning about a web service that has the actor's connection string.

`test_users.py` tests the checks of the users' rights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.actions.records import ACTOR_LEASES
from jobmon.demo.mongod import Mongod
from jobmon.rollup.documents import OwnDatabase, state_database
from jobmon.settings import Settings
from jobmon.setup.actor_check import check_actor, check_requester
from jobmon.setup.deployment import Deployment
from jobmon.setup.findings import Finding, Level
from jobmon.store.connection import Connection

from ..support.commands import database_uri

EXPIRED_S = 192  # 3 min 12 s


@pytest.fixture
def settings(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Settings:
    uri = database_uri(mongod, database)
    return make_settings(mongo_uri=uri, state_db=database.name, actions=True)


def list_findings(settings: Settings, mongo: MongoClient[dict[str, Any]]) -> list[Finding]:
    connection = Connection(settings, mongo)
    deployment = Deployment.inspect(settings, connection)
    return [*check_requester(deployment), *check_actor(deployment, connection)]


def store_lease(settings: Settings, mongo: MongoClient[dict[str, Any]], expired_s: int) -> None:
    """Store an actor's lease that expired `expired_s` seconds ago; if negative, it is valid."""
    connection = Connection(settings, mongo)
    state = OwnDatabase(state_database(connection), connection.queue_key)
    end = {"$subtract": ["$$NOW", expired_s * 1_000]}
    state[ACTOR_LEASES].update_one(
        {"_id": state.id("actor")}, [{"$set": {"holder": "a", "expiresAt": end}}], upsert=True
    )


def test_check_of_the_actor_reports_nothing_without_actions(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    assert list_findings(replace(settings, actions=False), mongo) == []


def test_check_reports_whether_an_actor_works_and_since_when_none_does(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    (finding,) = list_findings(settings, mongo)
    assert finding.level is Level.WARNING
    assert finding.message.startswith("No actor has ever worked for this queue: pages have no")
    assert finding.commands == ("jobmon actor",)
    store_lease(settings, mongo, EXPIRED_S)
    (finding,) = list_findings(settings, mongo)
    assert (finding.level, "the last one ended 3 min 1" in finding.message) == (Level.WARNING, True)
    store_lease(settings, mongo, -EXPIRED_S)
    (finding,) = list_findings(settings, mongo)
    assert (finding.level, finding.message) == (Level.OK, "An actor works for this queue.")


def test_check_of_a_queue_without_actions_gives_the_reason(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    celery = replace(settings, profile="celery", jobs_collection="celery_taskmeta")
    (finding,) = list_findings(celery, mongo)
    assert (finding.level, "Celery's results" in finding.message) == (Level.OK, True)


def test_check_warns_if_a_web_service_has_the_connection_string_of_the_actor(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    store_lease(settings, mongo, -EXPIRED_S)
    web_settings = replace(settings, actor_mongo_uri=settings.mongo_uri)
    uri_finding, actor_finding = list_findings(web_settings, mongo)
    assert (uri_finding.level, actor_finding.level) == (Level.WARNING, Level.OK)
    assert uri_finding.message.startswith("JOBMON_ACTOR_MONGO_URI is set together with the key for")
    actor_settings = replace(web_settings, jwt_secret_key=None)
    assert [finding.level for finding in list_findings(actor_settings, mongo)] == [Level.OK]


def test_check_reports_a_connection_of_the_actor_that_does_not_work(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    uri = "mongodb://127.0.0.1:1/shop"
    broken = replace(
        settings, actor_mongo_uri=uri, jwt_secret_key=None, server_selection_timeout_ms=50
    )
    problem, _ = list_findings(broken, mongo)
    assert problem.level is Level.PROBLEM
    assert problem.message.startswith("The actor's connection does not work: ")
    assert problem.remedy == "Correct JOBMON_ACTOR_MONGO_URI."
