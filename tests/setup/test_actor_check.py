"""What `jobmon check` reports about actions: catches an actor that is missed, or reported where
actions are switched off, and a web service that has the actor's connection string.

`test_users.py` has the checks of users."""

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

ENDED_S = 192


@pytest.fixture
def settings(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Settings:
    uri = database_uri(mongod, database)
    return make_settings(mongo_uri=uri, state_db=database.name, actions=True)


def check(settings: Settings, mongo: MongoClient[dict[str, Any]]) -> list[Finding]:
    connection = Connection(settings, mongo)
    deployment = Deployment.inspect(settings, connection)
    return [*check_requester(deployment), *check_actor(deployment, connection)]


def set_lease(settings: Settings, mongo: MongoClient[dict[str, Any]], ended_s: int) -> None:
    """Store the lease of an actor that ended `ended_s` seconds ago."""
    connection = Connection(settings, mongo)
    state = OwnDatabase(state_database(connection), connection.queue_key)
    end = {"$subtract": ["$$NOW", ended_s * 1_000]}
    state[ACTOR_LEASES].update_one(
        {"_id": state.id("actor")}, [{"$set": {"holder": "a", "expiresAt": end}}], upsert=True
    )


def test_check_of_the_actor_reports_nothing_without_actions(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    assert check(replace(settings, actions=False), mongo) == []


def test_check_reports_whether_an_actor_works_and_since_when_none_does(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    (never,) = check(settings, mongo)
    assert never.level is Level.WARNING
    assert never.message.startswith("No actor has ever worked for this queue: pages have no")
    assert never.commands == ("jobmon actor",)
    set_lease(settings, mongo, ENDED_S)
    (ended,) = check(settings, mongo)
    assert (ended.level, "the last one ended 3 min 1" in ended.message) == (Level.WARNING, True)
    set_lease(settings, mongo, -ENDED_S)
    (works,) = check(settings, mongo)
    assert (works.level, works.message) == (Level.OK, "An actor works for this queue.")


def test_check_of_a_queue_without_actions_gives_the_reason(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    celery = replace(settings, profile="celery", jobs_collection="celery_taskmeta")
    (found,) = check(celery, mongo)
    assert (found.level, "Celery's results" in found.message) == (Level.OK, True)


def test_check_warns_where_a_web_service_has_the_connection_string_of_the_actor(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    set_lease(settings, mongo, -ENDED_S)
    both = replace(settings, actor_mongo_uri=settings.mongo_uri)
    warned, works = check(both, mongo)
    assert (warned.level, works.level) == (Level.WARNING, Level.OK)
    assert warned.message.startswith("JOBMON_ACTOR_MONGO_URI is set together with the key for")
    only_actor = replace(both, jwt_secret_key=None)
    assert [finding.level for finding in check(only_actor, mongo)] == [Level.OK]


def test_check_reports_a_connection_of_the_actor_that_does_not_work(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    wrong = "mongodb://127.0.0.1:1/shop"
    broken = replace(
        settings, actor_mongo_uri=wrong, jwt_secret_key=None, server_selection_timeout_ms=50
    )
    problem, _ = check(broken, mongo)
    assert problem.level is Level.PROBLEM
    assert problem.message.startswith("The actor's connection does not work: ")
    assert problem.remedy == "Correct JOBMON_ACTOR_MONGO_URI."
