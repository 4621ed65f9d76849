"""`create_indexes` on the real server: would catch an index that is missing, made twice, or taken
for one that it is not."""

from pathlib import Path
from typing import Any

from pymongo.database import Database

from jobmon.embedded import Mongod
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.indexes import create_indexes, missing_indexes

from ..conftest import Api

EXPECTED = [
    "jobs(jobId)",
    "jobs(-createdAt, -_id)",
    "jobs(status, -createdAt, -_id)",
    "jobs(type, -createdAt, -_id)",
    "jobs(status, type, -createdAt, -_id)",
    "jobs(createdBy, -createdAt, -_id, type)",
    "jobs(createdBy, status, -createdAt, -_id, type)",
    "jobs(lastError.code, -createdAt, -_id, status, type)",
    "jobs(status, leaseExpiresAt)",
    "jobs(status, nextRunAt, type)",
    "jobs(status, finishedAt)",
    "job_attempts(jobId, attemptNumber)",
    "job_attempts(finishedAt)",
]


def connection_of(api: Api) -> Connection:
    return api.app.extensions["jobmon_connection"]


def test_all_indexes_are_made_once(real_api: Api, database: Database[dict[str, Any]]) -> None:
    connection = connection_of(real_api)
    assert [str(index) for index in missing_indexes(connection)] == EXPECTED
    assert create_indexes(connection) == dict.fromkeys(EXPECTED, "created")
    assert missing_indexes(connection) == []
    assert create_indexes(connection) == dict.fromkeys(EXPECTED, "exists")
    unique = [index["name"] for index in database.jobs.list_indexes() if index.get("unique")]
    assert unique == ["jobId_1"]


def test_an_equal_index_under_another_name_is_recognised(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    database.jobs.create_index([("createdAt", -1), ("_id", -1)], name="by_mongoose")
    assert create_indexes(connection_of(real_api))["jobs(-createdAt, -_id)"] == "exists"


def test_an_index_over_a_part_of_the_jobs_does_not_count(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    keys = [("createdAt", -1), ("_id", -1)]
    some = {"status": "queued"}
    database.jobs.create_index(keys, name="partial", partialFilterExpression=some)
    database.jobs.create_index([("jobId", 1)], name="sparse", sparse=True)
    assert {"jobs(-createdAt, -_id)", "jobs(jobId)"} <= set(
        map(str, missing_indexes(connection_of(real_api)))
    )
    assert create_indexes(connection_of(real_api))["jobs(-createdAt, -_id)"] == "created"


def test_duplicates_make_the_index_not_unique_and_init_says_so(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    database.jobs.insert_many([{"jobId": "twice"}, {"jobId": "twice"}])
    outcome = create_indexes(connection_of(real_api))
    assert outcome["jobs(jobId)"] == "created, but not unique: the collection holds duplicates"
    assert missing_indexes(connection_of(real_api)) == []


def test_the_collections_have_the_names_that_are_set(
    mongod: Mongod, database: Database[dict[str, Any]]
) -> None:
    uri = mongod.uri.replace("/?", f"/{database.name}?")
    settings = Settings(mongo_uri=uri, jobs_collection="tasks", attempts_collection="tries")
    connection = Connection(settings)
    created = create_indexes(connection)
    connection.client.close()
    assert "tasks(jobId)" in created
    assert "tries(jobId, attemptNumber)" in created
    assert set(database.list_collection_names()) == {"tasks", "tries"}


def test_a_standalone_server_gets_the_index_that_replaces_change_streams(tmp_path: Path) -> None:
    with Mongod(tmp_path, replica_set=None) as alone:
        connection = Connection(Settings(mongo_uri=alone.uri))
        assert create_indexes(connection)["jobs(updatedAt)"] == "created"
        connection.client.close()
