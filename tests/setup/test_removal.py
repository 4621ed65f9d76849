"""`jobmon init --remove`: catches an index, user or role of jobmon that stays, and a removed
index, user or role of another program."""

from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue

from ..support.commands import all_names, database_uri, init

MongoDb = Database[dict[str, Any]]
USERS = ("--reader", "reader", "--collector", "collector")


@pytest.fixture
def shop(database: MongoDb) -> MongoDb:
    """A queue whose program has created indexes and a user."""
    queue = JobQueue(database)
    queue.create_indexes()
    queue.enqueue("email.send", created_by="ada")
    assert queue.lease("worker-1")
    database.jobs.create_index([("createdAt", -1), ("_id", -1)])
    database.command("createUser", "worker", pwd="workerpw", roles=["readWrite"])
    return database


def list_names(mongo: MongoClient[dict[str, Any]], shop: MongoDb) -> dict[str, Any]:
    names = all_names(mongo, shop.name)
    del names["databases"]  # jobmon's own databases stay
    return names


def test_remove_drops_only_what_init_created(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], shop: MongoDb
) -> None:
    before = list_names(mongo, shop)
    assert init(database_uri(mongod, shop), *USERS).exit_code == 0
    after_init = list_names(mongo, shop)
    assert after_init["users"] == ["collector", "reader", "worker"]
    # Another program creates an index later, under its own name.
    shop.jobs.create_index([("payload.to", 1)], name="by_address")
    preview = init(database_uri(mongod, shop), "--remove", "--dry-run")
    assert preview.exit_code == 0, preview.output
    assert "by_address" in shop.jobs.index_information()
    assert list_names(mongo, shop)["users"] == after_init["users"]
    assert "jobs: status_1_finishedAt_1__id_1: would be removed" in preview.output
    result = init(database_uri(mongod, shop), "--remove")
    assert result.exit_code == 0, result.output
    assert "jobs(-createdAt, -_id): kept, `jobmon init` did not create it" in result.output
    assert result.output.replace(": removed", ": would be removed") == preview.output
    shop.jobs.drop_index("by_address")
    assert list_names(mongo, shop) == before
    result = init(database_uri(mongod, shop), "--remove")
    assert result.exit_code == 0
    assert ": removed" not in result.output


def test_remove_keeps_users_with_other_roles(mongod: Mongod, shop: MongoDb) -> None:
    assert init(database_uri(mongod, shop), "--reader", "worker").exit_code == 0
    result = init(database_uri(mongod, shop), *USERS)
    assert result.exit_code == 0
    shop.command("grantRolesToUser", "reader", roles=["dbAdmin"])
    shop.command("createUser", "idle", pwd="idlepw", roles=[])
    assert init(database_uri(mongod, shop), "--reader", "idle").exit_code == 0
    result = init(database_uri(mongod, shop), "--remove")
    users = {
        user["user"]: [role["role"] for role in user["roles"]]
        for user in shop.command("usersInfo", 1)["users"]
    }
    assert users == {"worker": ["readWrite"], "reader": ["dbAdmin"], "idle": []}
    assert f"worker@{shop.name}: kept, without the role; it has other roles" in result.output
    assert f"idle@{shop.name}: kept, without the role; it was not created by" in result.output


def test_remove_leaves_another_queue_of_the_database_unchanged(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], shop: MongoDb
) -> None:
    """Catches a role of another queue that is removed from a user of both queues."""
    other_queue = ("--jobs", "mails", "--attempts", "mail_attempts")
    JobQueue(shop, jobs="mails", attempts="mail_attempts").enqueue("mail")
    assert init(database_uri(mongod, shop), *USERS, *other_queue).exit_code == 0
    names_of_other_queue = list_names(mongo, shop)
    assert init(database_uri(mongod, shop), *USERS).exit_code == 0
    assert init(database_uri(mongod, shop), "--remove").exit_code == 0
    assert list_names(mongo, shop) == names_of_other_queue
    (reader,) = shop.command("usersInfo", "reader")["users"]
    assert [role["role"] for role in reader["roles"]] == [f"jobmonReader.{shop.name}.mails"]


def test_remove_keeps_an_index_that_was_replaced(mongod: Mongod, shop: MongoDb) -> None:
    assert init(database_uri(mongod, shop)).exit_code == 0
    shop.jobs.drop_index("status_1_finishedAt_1__id_1")
    shop.jobs.create_index([("finishedAt", 1), ("status", 1)], name="status_1_finishedAt_1__id_1")
    result = init(database_uri(mongod, shop), "--remove")
    assert "jobs: status_1_finishedAt_1__id_1: does not exist any more" in result.output
    assert "status_1_finishedAt_1__id_1" in shop.jobs.index_information()
