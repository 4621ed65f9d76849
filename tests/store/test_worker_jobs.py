"""The jobs that a worker ran, on the real server: catches a finished job that is not found, an
incomplete list that looks complete, a read that grows with the collection, and an error without a
remedy when an index is missing."""

import csv
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.buckets import MINUTE
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.filter import JobFilter
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists
from jobmon.store.worker_jobs import MAX_READ, NAMED_ONLY, NEWEST_ONLY

from ..conftest import NOW, SECRET, Api
from ..support.commands import database_uri, index_queue
from .test_queries import profiled

QueueDatabase = Database[dict[str, Any]]
LIST_PATH = "/admin/jobs/queue"
INDEX = "job_attempts(workerId, startedAt)"
OBJECT_ID = ObjectId("65f0c0ffee0123456789abcd")
BUSY_ATTEMPTS = 1_200  # two for each of 600 jobs


def make_job(job_id: Any, minute: int, status: str = "succeeded", **fields: Any) -> dict[str, Any]:
    """A job that was created this many minutes after `NOW`."""
    dates = {"createdAt": NOW + minute * MINUTE, "finishedAt": NOW}
    return {"jobId": job_id, "type": f"type-{minute % 2}", "status": status, **dates, **fields}


def make_attempt(job_id: Any, worker: str | None, minute: int, number: int = 1) -> dict[str, Any]:
    """An attempt that started this many minutes after `NOW`."""
    started_at = NOW + minute * MINUTE
    dates = {"startedAt": started_at, "finishedAt": started_at + timedelta(seconds=1)}
    return {"jobId": job_id, "attemptNumber": number, "workerId": worker, **dates}


@pytest.fixture(scope="module")
def queue_db(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[QueueDatabase]:
    """Worker w1 has attempts of six jobs and the lease of `crashed`; `busy` ran 600 jobs twice."""
    database = mongo["test_worker_jobs"]
    database.jobs.insert_many(
        [
            make_job("done", 1),
            make_job("retried", 2),
            make_job("moved", 3, "failed"),
            make_job(OBJECT_ID, 4),
            make_job("runs", 5, "leased", leasedBy="w1"),
            make_job("crashed", 6, "leased", leasedBy="w1"),  # w1 did not record an attempt
            make_job("job of w2", 7),
            *(make_job(f"many-{number:04}", 10 + number) for number in range(3_000)),
        ]
    )
    database.job_attempts.insert_many(
        [
            make_attempt("done", "w1", 1),
            make_attempt("retried", "w1", 2),
            make_attempt("retried", "w1", 3, 2),
            make_attempt("moved", "w1", 4),
            make_attempt("moved", "w2", 5, 2),
            make_attempt(str(OBJECT_ID), "w1", 6),
            make_attempt("runs", "w1", 7),
            make_attempt("job of w2", "w2", 8),
            make_attempt("deleted", "w1", 9),
            *(
                make_attempt(f"many-{minute % 600:04}", "busy", minute, 1 + minute // 600)
                for minute in range(BUSY_ATTEMPTS)
            ),
            *(
                make_attempt(f"many-{minute:04}", f"pod-{minute}", minute)
                for minute in range(600, 3_000)
            ),
        ]
    )
    index_queue(Settings(mongo_uri=database_uri(mongod, database)))
    yield database
    mongo.drop_database(database.name)


@pytest.fixture(scope="module")
def service(mongod: Mongod, queue_db: QueueDatabase) -> Iterator[Api]:
    uri = database_uri(mongod, queue_db)
    app = create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET))
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


def list_jobs(api: Api, worker: str = "w1", **query: Any) -> tuple[list[str], dict[str, Any]]:
    """The ids of a page of the worker's jobs, and its `meta`."""
    answer = api.get_as_admin(LIST_PATH, worker=worker, **query)
    assert answer.status_code == 200, answer.text
    return [job["jobId"] for job in answer.json["data"]], answer.json["meta"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["crashed", "runs", str(OBJECT_ID), "moved", "retried", "done"]),
        ({"sort": "createdAt"}, ["done", "retried", "moved", str(OBJECT_ID), "runs", "crashed"]),
        ({"status": ["failed", "leased"]}, ["crashed", "runs", "moved"]),
        ({"type": "type-0"}, ["crashed", str(OBJECT_ID), "retried"]),
        ({"created_from": (NOW + 5 * MINUTE).isoformat()}, ["crashed", "runs"]),
        ({"job_id": "retr"}, ["retried"]),
        ({"per_page": 2, "page": 2}, [str(OBJECT_ID), "moved"]),
        ({"worker": "w2"}, ["job of w2", "moved"]),
        ({"worker": "nobody"}, []),
    ],
    ids=str,
)
def test_each_job_that_a_worker_ran_or_runs_is_listed_once(
    service: Api, query: dict[str, Any], expected: list[str]
) -> None:
    ids, meta = list_jobs(service, **query)
    assert ids == expected
    assert (meta["total_is_exact"], meta["reasons"]) == (True, {})
    if "page" not in query:
        assert meta["total"] == len(expected)
        filters = {"worker": "w1", **query}
        lines = service.get_as_admin(LIST_PATH, format="ndjson", **filters).text.splitlines()
        assert [json.loads(line)["jobId"] for line in lines[:-1]] == expected
        assert json.loads(lines[-1]) == {"end": True, "rows": len(expected)}


def test_pages_by_cursor_have_each_job_of_a_worker_once(service: Api) -> None:
    listed, cursor = list[str](), ""
    while cursor is not None:
        ids, meta = list_jobs(service, per_page=2, cursor=cursor)
        listed += ids
        cursor = meta["next_cursor"]
    assert listed == ["crashed", "runs", str(OBJECT_ID), "moved", "retried", "done"]


def test_only_the_newest_attempts_are_read_and_the_answer_has_the_reason(
    service: Api, queue_db: QueueDatabase
) -> None:
    with profiled(queue_db) as entries:
        ids, meta = list_jobs(service, "busy", per_page=3)
    minutes = range(BUSY_ATTEMPTS - MAX_READ, BUSY_ATTEMPTS)
    newest_ids = {f"many-{minute % 600:04}" for minute in minutes}
    assert ids == sorted(newest_ids, reverse=True)[:3]
    assert (meta["total"], meta["total_is_exact"]) == (len(newest_ids), False)
    assert meta["reasons"] == {"data": NEWEST_ONLY}
    attempt_read, *job_reads = [entry for entry in entries if "explain" not in entry["command"]]
    assert attempt_read["planSummary"] == "IXSCAN { workerId: 1, startedAt: 1 }"
    assert attempt_read["docsExamined"] == attempt_read["keysExamined"] == MAX_READ + 1
    assert {entry["planSummary"] for entry in job_reads} == {
        "IXSCAN { leasedBy: 1, createdAt: -1, _id: -1, status: 1, type: 1 }",
        "IXSCAN { jobId: 1 }",
    }
    for entry in job_reads:
        assert entry["docsExamined"] <= len(newest_ids), entry
        assert entry["keysExamined"] <= 2 * len(newest_ids) + 1, entry


def test_an_incomplete_export_has_the_reason_in_its_last_line(service: Api) -> None:
    *rows, end = service.get_as_admin(LIST_PATH, format="ndjson", worker="busy").text.splitlines()
    assert json.loads(end) == {"end": True, "rows": len(rows), "reason": NEWEST_ONLY}
    text = service.get_as_admin(LIST_PATH, format="csv", worker="busy").text
    header, *_, last = csv.reader(text.splitlines())
    assert last[:3] == ["#end", str(len(rows)), NEWEST_ONLY]
    assert len(last) == len(header)


def test_the_dashboard_list_shows_the_reason(real_api: Api, database: QueueDatabase) -> None:
    token = real_api.token()
    real_api.client.set_cookie("jobmon_session", token, path="/dashboard")
    database.jobs.insert_one(make_job("kept", 1, leasedBy="w1"))
    page = real_api.client.get("/dashboard/jobs?worker=w2")
    assert page.status_code == 200
    assert NAMED_ONLY[1:] in page.text  # on a page, the first letter is a capital


def test_a_filter_without_its_index_is_422_with_the_remedy(
    real_api: Api, database: QueueDatabase
) -> None:
    database.jobs.insert_one(make_job("done", 1))
    database.job_attempts.insert_one(make_attempt("done", "w1", 1))
    for answer_format in ("json", "csv"):
        answer = real_api.get_as_admin(LIST_PATH, worker="w1", format=answer_format)
        assert answer.status_code == 422
        message = f"Needs the index {INDEX}: `jobmon init` creates it."
        assert answer.json["error"]["details"] == {"worker": [message]}
    connection = real_api.app.extensions["jobmon_connection"]
    assert create_indexes(connection)[INDEX] == "created"
    assert list_jobs(real_api)[0] == ["done"]


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize(
    "attempts", [[], [make_attempt("done", None, 1)]], ids=["no attempt", "no worker"]
)
def test_a_list_is_inexact_if_no_attempt_names_a_worker(
    real_api: Api, database: QueueDatabase, attempts: list[dict[str, Any]], *, has_index: bool
) -> None:
    database.jobs.insert_many([make_job("done", 1), make_job("runs", 2, "leased", leasedBy="w1")])
    if attempts:
        database.job_attempts.insert_many(map(dict, attempts))
    if has_index:
        create_indexes(real_api.app.extensions["jobmon_connection"])
    for worker, expected in (("w1", ["runs"]), ("w2", [])):
        ids, meta = list_jobs(real_api, worker)
        assert ids == expected
        assert (meta["total_is_exact"], meta["reasons"]) == (False, {"data": NAMED_ONLY})


def test_a_job_that_is_looked_up_matches_if_the_worker_ran_it(service: Api) -> None:
    lists = JobLists(ListPlanner(service.app.extensions["jobmon_connection"]), Redactor())
    rows = lists.look_up(["done", "job of w2"], JobFilter(worker="w1"))
    assert {job["jobId"]: matches for job, matches in rows} == {"done": True, "job of w2": False}


def test_a_looked_up_job_with_the_id_1_does_not_match_because_of_a_job_with_the_id_true(
    real_api: Api, database: QueueDatabase
) -> None:
    database.jobs.insert_many(
        [make_job("one", 1, "dlq", _id=1), make_job("true", 2, "queued", _id=True)]
    )
    lists = JobLists(ListPlanner(real_api.app.extensions["jobmon_connection"]), Redactor())
    rows = lists.look_up(["one", "true"], JobFilter(statuses=("queued",)))
    assert {job["jobId"]: matches for job, matches in rows} == {"one": False, "true": True}
