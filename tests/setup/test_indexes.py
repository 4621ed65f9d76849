"""`create_indexes` on the real server: catches an index that is missing or created twice, and an
index with other options that counts as existing."""

from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes, index_exists
from jobmon.store.connection import Connection
from jobmon.store.indexes import JOB_ID, required_indexes

from ..conftest import Api
from ..support.commands import database_uri

MongoDb = Database[dict[str, Any]]
DEFAULT_INDEXES = [
    "jobs(jobId)",
    "jobs(-createdAt, -_id)",
    "jobs(status, -createdAt, -_id)",
    "jobs(type, -createdAt, -_id)",
    "jobs(status, type, -createdAt, -_id)",
    "jobs(createdBy, -createdAt, -_id, type)",
    "jobs(createdBy, status, -createdAt, -_id, type)",
    "jobs(lastError.code, -createdAt, -_id, status, type)",
    "jobs(status, leaseExpiresAt)",
    "jobs(status, nextRunAt, _id, type)",
    "jobs(status, finishedAt, _id)",
    "jobs(status, -priority, nextRunAt, type)",
    "job_attempts(jobId, attemptNumber)",
    "job_attempts(finishedAt)",
    "job_attempts(workerId, startedAt)",
    "jobs(leasedBy, -createdAt, -_id, status, type)",
    "jobs(attemptCount, -createdAt, -_id, status, type)",
    "jobs(type, status, finishedAt, _id)",
    "jobs(lastError.code, finishedAt, _id, status, type)",
]


def get_connection(api: Api) -> Connection:
    return api.app.extensions["jobmon_connection"]


def list_missing(connection: Connection) -> list[str]:
    return [str(index) for index in required_indexes(connection) if not index_exists(index)]


def test_create_indexes_creates_each_index_once(real_api: Api, database: MongoDb) -> None:
    connection = get_connection(real_api)
    assert list_missing(connection) == DEFAULT_INDEXES
    assert create_indexes(connection) == dict.fromkeys(DEFAULT_INDEXES, "created")
    assert list_missing(connection) == []
    assert create_indexes(connection) == dict.fromkeys(DEFAULT_INDEXES, "exists")
    assert not any(index.get("unique") for index in database.jobs.list_indexes())


def test_create_indexes_recognizes_an_equal_index_with_another_name(
    real_api: Api, database: MongoDb
) -> None:
    database.jobs.create_index([("createdAt", -1), ("_id", -1)], name="by_mongoose")
    assert create_indexes(get_connection(real_api))["jobs(-createdAt, -_id)"] == "exists"


def test_create_indexes_does_not_accept_a_partial_or_sparse_index(
    real_api: Api, database: MongoDb
) -> None:
    keys = [("createdAt", -1), ("_id", -1)]
    queued = {"status": "queued"}
    database.jobs.create_index(keys, name="partial", partialFilterExpression=queued)
    database.jobs.create_index([("jobId", 1)], name="sparse", sparse=True)
    assert {"jobs(-createdAt, -_id)", "jobs(jobId)"} <= set(list_missing(get_connection(real_api)))
    assert create_indexes(get_connection(real_api))["jobs(-createdAt, -_id)"] == "created"


def test_create_indexes_works_if_the_default_name_is_taken(
    real_api: Api, database: MongoDb
) -> None:
    keys = [("status", 1), ("finishedAt", 1), ("_id", 1)]
    database.jobs.create_index(keys, sparse=True)
    assert create_indexes(get_connection(real_api))["jobs(status, finishedAt, _id)"] == "created"
    assert list_missing(get_connection(real_api)) == []


def test_other_programs_can_create_their_own_indexes_afterwards(
    real_api: Api, database: MongoDb, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches an index of jobmon that makes another program fail when it starts."""
    create_indexes(get_connection(real_api))
    queue = JobQueue(database)
    queue.create_indexes()
    database.jobs.create_index([("createdAt", -1), ("_id", -1)])
    unique_names = [index["name"] for index in database.jobs.list_indexes() if index.get("unique")]
    assert unique_names == ["jobId_1"]
    # Now two indexes have the keys of the query's hint.
    job_id = queue.enqueue("email.send")
    jobs = get_connection(real_api).jobs.find({"jobId": job_id}, index=JOB_ID, require_index=True)
    assert [job["jobId"] for job in jobs] == [job_id]
    assert "no index" not in caplog.text


def test_create_indexes_unique_makes_ids_unique(real_api: Api, database: MongoDb) -> None:
    create_indexes(get_connection(real_api), unique=True)
    JobQueue(database).create_indexes()
    unique_names = {
        index["name"]
        for name in ("jobs", "job_attempts")
        for index in database[name].list_indexes()
        if index.get("unique")
    }
    assert unique_names == {"jobId_1", "jobId_1_attemptNumber_1"}
    assert not any(index["name"].startswith("jobmon") for index in database.jobs.list_indexes())


def test_create_indexes_uses_the_configured_collections(mongod: Mongod, database: MongoDb) -> None:
    uri = database_uri(mongod, database)
    settings = Settings(mongo_uri=uri, jobs_collection="tasks", attempts_collection="tries")
    connection = Connection(settings)
    created = create_indexes(connection)
    connection.client.close()
    assert "tasks(jobId)" in created
    assert "tries(jobId, attemptNumber)" in created
    assert set(database.list_collection_names()) == {"tasks", "tries"}


def test_create_indexes_on_a_standalone_server_creates_the_polling_index(tmp_path: Path) -> None:
    with Mongod(tmp_path, replica_set=None) as server:
        connection = Connection(Settings(mongo_uri=server.uri))
        assert create_indexes(connection)["jobs(updatedAt)"] == "created"
        connection.client.close()
