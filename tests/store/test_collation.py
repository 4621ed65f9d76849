"""Collections whose default collation ignores case, on the real server: catches a job that is shown
to somebody else, an id that opens another job, and counts that mix values of different case."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes

from ..conftest import NOW
from ..support.commands import database_uri, index_queue
from ..support.queue_service import QueueService

CASE_INSENSITIVE = {"locale": "en", "strength": 2}
OWNERS = ("u-a", "u-A")
IDS = ("xk9ab", "xK9Ab")


@pytest.fixture(params=["program's indexes", "jobmon's indexes", "both", "no indexes"])
def queue(
    request: pytest.FixtureRequest, mongod: Mongod, database: Database[dict[str, Any]]
) -> Iterator[QueueService]:
    for name in ("jobs", "job_attempts"):
        database.create_collection(name, collation=CASE_INSENSITIVE)
    for index, (owner, job_id) in enumerate(zip(OWNERS, IDS, strict=True)):
        database.jobs.insert_one(
            {
                "_id": ObjectId(f"{index:024x}"),
                "jobId": job_id,
                "createdBy": owner,
                "type": ["mail", "Mail"][index],
                "status": ["queued", "Queued"][index],
                "createdAt": NOW,
            }
        )
        database.job_attempts.insert_one({"jobId": job_id, "attemptNumber": 1, "workerId": owner})
    service = QueueService(mongod, database)
    if request.param in ("program's indexes", "both"):
        database.jobs.create_index([("jobId", 1)])
        database.jobs.create_index([("createdBy", 1), ("createdAt", -1), ("_id", -1), ("type", 1)])
        database.job_attempts.create_index([("jobId", 1), ("attemptNumber", 1)])
    if request.param in ("jobmon's indexes", "both"):
        create_indexes(service.connection)
    yield service
    service.close()


def test_the_case_of_a_job_id_and_of_an_owner_must_match(queue: QueueService) -> None:
    for owner, job_id in zip(OWNERS, IDS, strict=True):
        job = queue.api.get_as_owner(f"/jobs/{job_id}", owner).json
        assert (job["jobId"], job["createdBy"]) == (job_id, owner)
        assert [attempt["workerId"] for attempt in job["attempts"]] == [owner]
        assert queue.get(f"/jobs/{job_id}")["createdBy"] == owner
    assert queue.api.get_as_owner(f"/jobs/{IDS[0]}", OWNERS[1]).status_code == 403
    for path, owner in ((f"/jobs/{IDS[0].upper()}", OWNERS[0]), (f"/jobs/{IDS[0]}", "U-A")):
        assert queue.api.get_as_owner(path, owner).status_code == 403
    assert queue.api.get_as_admin(f"/jobs/{IDS[0].upper()}").status_code == 403


@pytest.mark.parametrize("sort", ["createdAt", "-createdAt"])
def test_lists_totals_and_exports_compare_filters_case_sensitively(
    queue: QueueService, sort: str
) -> None:
    for index, owner in enumerate(OWNERS):
        page = queue.api.get_as_owner("/jobs", owner, sort=sort).json
        assert [job["jobId"] for job in page["data"]] == [IDS[index]]
        assert page["meta"]["total"] == 1
        for query in (
            {"owner": owner},
            {"owner": owner, "status": ["queued", "Queued"][index]},
            {"type": ["mail", "Mail"][index]},
            {"status": ["queued", "Queued"][index]},
            {"job_id": IDS[index][:4]},
        ):
            # `ids` also checks the total and the export.
            assert queue.list_ids(sort=sort, **query) == [IDS[index]]
    assert queue.api.get_as_owner("/jobs", "U-A").json["meta"]["total"] == 0
    assert queue.list_ids(owner=OWNERS[0], type="Mail") == []


def test_counts_distinguish_values_that_differ_in_case(queue: QueueService) -> None:
    stats = queue.get("/admin/jobs/stats")
    assert {name: count for name, count in stats["statusCounts"].items() if count} == {
        "queued": 1,
        "Queued": 1,
    }
    assert stats["typeCounts"] == {"mail": {"queued": 1}, "Mail": {"Queued": 1}}


def test_created_indexes_have_no_collation(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> None:
    database.create_collection("jobs", collation=CASE_INSENSITIVE)
    database.jobs.insert_one({"jobId": "a", "createdBy": "ada"})
    database.jobs.create_index([("jobId", 1)])
    uri = database_uri(mongod, database)
    index_queue(make_settings(mongo_uri=uri))
    indexes = list(database.jobs.list_indexes())
    created = [index for index in indexes if index["name"] not in ("_id_", "jobId_1")]
    assert not any("collation" in index for index in created)
    assert {"jobId", "createdBy"} <= {next(iter(index["key"])) for index in created}
