"""Ids of many types, on the real server: catches a listed id whose printed form opens no job, in
the API or on the page."""

from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from pymongo.database import Database

from jobmon.page_addresses import job_address

from ..conftest import NOW, Api
from ..dashboard.conftest import signed_in
from ..support.queue_service import QueueService, temporary_database

A_UUID = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
TEXT_IDS = [
    "user/234",
    "/first",
    "last/",
    "a//b",
    "//",
    "a/../b",
    "./a",
    ".",
    "..",
    "...",
    "",
    "~",
    "a%2Fb",
    "%2e",
    "100%",
    "a b",
    " ",
    "a+b",
    "?",
    "#top",
    "a\nb",
    "a\0b",
    "zażółć",
    "🦄",
    'a"b',
    "null",
    "queue",
]
NON_TEXT_IDS = [
    1_234_567,
    -5,
    Int64(2**53 + 1),
    Int64(-(2**63)),
    1_032_600_000_123.0,
    1.5,
    Decimal128("98765432109876543210"),
    ObjectId("65f0c0ffee0123456789abcd"),
    Binary(A_UUID.bytes, 4),
    Binary(bytes(reversed(A_UUID.bytes)), 3),
]


def read_ids_by_cursors(queue: QueueService) -> list[str]:
    """The ids of all jobs, from pages of three."""
    ids, cursor = [], ""
    while cursor is not None:
        page = queue.get("/admin/jobs/queue", per_page=3, cursor=cursor)
        ids += [job["jobId"] for job in page["data"]]
        cursor = page["meta"]["next_cursor"]
    return ids


@pytest.fixture(scope="module", params=["jobId", "_id"])
def queue_and_ids(request: pytest.FixtureRequest, mongod: Any, mongo: Any) -> Any:
    """A queue, and the ids of its jobs; each job has the same value as its id and its owner."""
    mapping = {} if request.param == "jobId" else {"job_fields": {"jobId": "_id"}}
    ids = [*TEXT_IDS, *NON_TEXT_IDS]
    with temporary_database(mongo) as database:
        database.jobs.insert_many(
            {request.param: job_id, "createdBy": job_id, "createdAt": NOW} for job_id in ids
        )
        database.job_attempts.insert_many(
            {"jobId": job_id, "attemptNumber": 1, "workerId": repr(job_id)} for job_id in ids
        )
        queue = QueueService(mongod, database, **mapping)
        yield queue, ids
        queue.close()


def test_every_listed_id_opens_in_the_api_and_on_the_page(queue_and_ids: Any) -> None:
    queue, ids = queue_and_ids
    printed_ids = read_ids_by_cursors(queue)
    assert len(printed_ids) == len(ids) == len(set(printed_ids))
    workers = set()
    for job_id in printed_ids:
        job = queue.get("/job", id=job_id)
        assert job["jobId"] == job_id
        (attempt,) = job["attempts"]
        workers.add(attempt["workerId"])
        if job_id:
            assert queue.get(f"/jobs/{quote(job_id, safe='')}") == job
    assert len(workers) == len(ids)
    viewer = signed_in(queue.api)
    links = [
        link["href"]
        for page in (1, 2)
        for link in viewer.page(f"/dashboard/jobs?page={page}").all(
            "a", **{"class": "row-link mono"}
        )
    ]
    assert links == [job_address(job_id, list="all") for job_id in printed_ids]
    for link in links:
        assert viewer.client.get(link).status_code == 200, link


def test_caller_owns_the_jobs_whose_printed_owner_is_their_subject(queue_and_ids: Any) -> None:
    queue, _ = queue_and_ids
    api: Api = queue.api
    for job_id in filter(None, read_ids_by_cursors(queue)):  # a subject cannot be empty
        answer = api.get_as_owner("/jobs", job_id).json
        assert [job["jobId"] for job in answer["data"]] == [job_id]
        assert answer["meta"]["total"] == 1
        assert api.get_as_owner("/job", job_id, id=job_id).status_code == 200
        assert api.get_as_owner("/job", "somebody", id=job_id).status_code == 403


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("1234", ["1234567"]),
        ("1234567", ["1234567"]),
        ("10326", ["1032600000123"]),
        ("-922337203685477580", ["-9223372036854775808"]),
        ("-9223372036854775808", ["-9223372036854775808"]),
        ("0f8fad5b-d9cb", [str(A_UUID)]),
        ("65f0", ["65f0c0ffee0123456789abcd"]),
        ("user/", ["user/234"]),
        ("1.50", []),
        ("9876543210987654321", []),
    ],
)
def test_prefix_finds_ids_except_numbers_beyond_64_bits(
    queue_and_ids: Any, prefix: str, expected: list[str]
) -> None:
    queue, _ = queue_and_ids
    assert queue.list_ids(job_id=prefix) == expected


@pytest.mark.parametrize("spelling", ["01234567", "1234567.0", "1_234_567", "1234567 ", "1.50"])
def test_another_spelling_of_an_id_opens_no_job(queue_and_ids: Any, spelling: str) -> None:
    queue, _ = queue_and_ids
    assert queue.api.get_as_admin("/job", id=spelling).status_code == 403


def test_job_whose_owner_is_in_an_array_or_a_document_belongs_to_nobody(
    mongod: Any, database: Database[dict[str, Any]]
) -> None:
    """The array can be the value of the owner's field, or lie on the path to this field."""
    queue = QueueService(mongod, database, job_fields={"createdBy": "by.id"})
    database.jobs.insert_many(
        {"jobId": name, "by": creator, "createdAt": NOW, "status": "queued"}
        for name, creator in (
            ("text", {"id": "ada"}),
            ("array", {"id": ["ada", "bob"]}),
            ("in the path", [{"id": "ada"}]),
            ("nested", {"id": [["ada"]]}),
            ("document", {"id": {"a": "ada"}}),
        )
    )
    index = [("by.id", 1), ("createdAt", -1), ("_id", -1), ("type", 1)]
    for has_index in (False, True):
        if has_index:
            database.jobs.create_index(index)
        answer = queue.api.get_as_owner("/jobs", "ada").json
        assert [job["jobId"] for job in answer["data"]] == ["text"]
        assert answer["meta"]["total"] == 1
        for query in ({"owner": "ada"}, {"owner": "ada", "status": "queued"}):
            assert queue.list_ids(**query) == ["text"]
        for name in ("array", "in the path", "nested", "document"):
            assert queue.api.get_as_owner(f"/jobs/{name}", "ada").status_code == 403
            assert queue.get(f"/jobs/{name}")["jobId"] == name
    queue.close()
