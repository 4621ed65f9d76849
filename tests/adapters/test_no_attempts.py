"""A queue without recorded attempts, on the real server: catches counts that are 0 although
jobs ended, an attempt that is invented or counted twice, and an alert on unknown values."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.store.bson_json import to_iso

from ..dashboard.conftest import signed_in
from ..support.commands import database_uri
from ..support.waiting import eventually
from ..support.watched_queue import Answer, WatchedQueue, init, temporary_database

FIELDS = {"type": "kind", "status": "state", "nextRunAt": "runAt", "finishedAt": "endedAt"}
STATUSES = {"done": "succeeded", "waiting": "queued", "failed": "dlq", "again": "failed"}
WORDS = {
    "JOB_FIELDS": ",".join(f"{field}={path}" for field, path in FIELDS.items()),
    "STATUS_NAMES": ",".join(f"{state}={status}" for state, status in STATUSES.items()),
}


def ended(number: int, state: str, now: datetime) -> Answer:
    began = now - timedelta(minutes=4) + timedelta(seconds=number)
    return {
        "jobId": f"{state}-{number}",
        "kind": "mail",
        "state": state,
        "createdAt": began - timedelta(seconds=3),
        "updatedAt": began + timedelta(seconds=2),
        "runAt": began - timedelta(seconds=3),
        "startedAt": began,
        "endedAt": began + timedelta(seconds=2),
    }


def waiting(now: datetime) -> Answer:
    due = now - timedelta(minutes=15)
    return {"jobId": "w", "kind": "mail", "state": "waiting", "createdAt": due, "runAt": due}


@pytest.fixture(scope="module")
def queue(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[WatchedQueue]:
    now = datetime.now(UTC).replace(microsecond=0)
    with temporary_database(mongo) as database:
        database.jobs.insert_many(
            [
                *(ended(number, "done", now) for number in range(100)),
                *(ended(number, "failed", now) for number in range(10)),
                *(ended(number, "again", now) for number in range(5)),
                waiting(now),
            ]
        )
        init(database_uri(mongod, database), **WORDS)
        watching = WatchedQueue(mongod, database, job_fields=FIELDS, status_names=STATUSES)
        yield watching
        watching.close()


EXPECTED = {"enqueued": 116, "succeeded": 100, "failed": 15, "dlq": 10}


def check_figures(queue: WatchedQueue) -> None:
    assert queue.activity() == EXPECTED
    (mail,) = queue.get("/admin/jobs/types")["data"]
    assert mail["finishedPerMinute"] > 1
    assert mail["failureRate"] == pytest.approx(15 / 115, abs=0.001)
    assert mail["runMs"]["p50"] == pytest.approx(2_000, rel=0.05)
    assert mail["waitMs"]["p50"] is None  # whether it was the first attempt is unknown


def test_each_job_is_counted_as_its_own_last_attempt(queue: WatchedQueue) -> None:
    check_figures(queue)


def test_the_collector_counts_each_job_as_its_own_last_attempt(queue: WatchedQueue) -> None:
    with queue.running_collector():
        eventually(lambda: queue.activity() == EXPECTED)
        check_figures(queue)
        assert "nothing has finished" not in signed_in(queue.api).page("/dashboard").text


def test_a_job_without_recorded_attempts_is_its_own_attempt(queue: WatchedQueue) -> None:
    job = queue.get("/jobs/done-7")
    assert job["attemptCount"] == 1
    assert job["attempts"] == [
        {
            "attemptNumber": None,
            "status": "succeeded",
            "workerId": None,
            "eligibleAt": None,
            "startedAt": to_iso(queue.database.jobs.find_one({"jobId": "done-7"})["startedAt"]),
            "finishedAt": job["finishedAt"],
            "waitMs": None,
            "durationMs": 2_000,
            "error": None,
            "errorGroup": None,
        }
    ]
    for job_id, status in (("failed-1", "failed"), ("again-1", "failed")):
        (attempt,) = queue.get(f"/jobs/{job_id}")["attempts"]
        assert attempt["status"] == status
    not_begun = queue.get("/jobs/w")
    assert (not_begun["attempts"], not_begun["attemptCount"]) == ([], 0)
    (listed,) = queue.get("/admin/jobs/queue", job_id="done-7", per_page=1)["data"]
    assert listed["attemptCount"] == 1
    assert "Last attempt" in signed_in(queue.api).page("/dashboard/jobs/done-7").text


@pytest.fixture
def few(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[WatchedQueue]:
    """Three jobs of the contract's own form that ended, and none of their attempts."""
    now = datetime.now(UTC)
    with temporary_database(mongo) as database:
        database.jobs.insert_many(
            ended(number, "done", now) | {"status": "succeeded", "finishedAt": now, "type": "t"}
            for number in range(3)
        )
        init(database_uri(mongod, database))
        watching = WatchedQueue(mongod, database)
        yield watching
        watching.close()


def test_where_any_attempt_is_recorded_only_recorded_ones_are_counted(
    few: WatchedQueue, mongod: Mongod
) -> None:
    assert few.activity()["succeeded"] == 3
    now = datetime.now(UTC)
    few.database.job_attempts.insert_one(
        {"jobId": "done-0", "attemptNumber": 1, "status": "succeeded", "finishedAt": now}
    )
    init(database_uri(mongod, few.database))
    eventually(lambda: few.activity()["succeeded"] == 1)
    (recorded,) = few.get("/jobs/done-0")["attempts"]
    (own,) = few.get("/jobs/done-1")["attempts"]
    assert (recorded["attemptNumber"], own["attemptNumber"]) == (1, None)


def test_a_first_attempt_waited_since_its_job_was_due(few: WatchedQueue) -> None:
    few.database.jobs.update_many({}, {"$set": {"attemptCount": 1}})
    (row,) = few.get("/admin/jobs/types")["data"]
    assert row["waitMs"]["p50"] == pytest.approx(3_000, rel=0.05)
    assert few.get("/jobs/done-0")["attempts"][0]["attemptNumber"] == 1


def test_without_any_finishedat_counts_of_finished_attempts_are_null(few: WatchedQueue) -> None:
    """Also catches an alert that nothing finishes."""
    few.database.jobs.update_many({}, {"$set": {"finishedAt": 1_234_567_890_000}})
    due = datetime.now(UTC) - timedelta(minutes=15)
    few.database.jobs.insert_one(
        {"jobId": "w", "status": "queued", "type": "t", "nextRunAt": due, "createdAt": due}
    )
    assert few.activity() == {"enqueued": 4, "succeeded": None, "failed": None, "dlq": None}
    (row,) = few.get("/admin/jobs/types")["data"]
    assert row["finishedPerMinute"] is row["failureRate"] is None
    assert "nothing has finished" not in signed_in(few.api).page("/dashboard").text


def test_dead_jobs_without_an_end_make_the_counts_null_instead_of_zero(few: WatchedQueue) -> None:
    """Catches a failure rate of 0 where only succeeded jobs have a finishedAt."""
    assert few.activity() == {"enqueued": 3, "succeeded": 3, "failed": 0, "dlq": 0}
    few.database.jobs.insert_one({"jobId": "d", "status": "dlq", "type": "t"})
    eventually(lambda: few.activity()["failed"] is None)
    (row,) = few.get("/admin/jobs/types")["data"]
    assert row["finishedPerMinute"] is row["failureRate"] is row["succeeded"] is None
    assert (
        "dead jobs do not record when they finished" in signed_in(few.api).page("/dashboard").text
    )


def test_without_an_index_on_finishedat_that_no_job_has_counts_are_null(few: WatchedQueue) -> None:
    """`jobmon init` makes no index on a field that no document has."""
    few.database.jobs.update_many({}, {"$unset": {"finishedAt": 1}})
    few.database.jobs.drop_index("status_1_finishedAt_1__id_1")
    assert few.activity() == {"enqueued": 3, "succeeded": None, "failed": None, "dlq": None}


ENDS = """\
collection = "tasks"
status = { path = "status" }
[fields]
jobId = "_id"
createdAt = "at"
finishedAt = { path = "changed", only_in = ["succeeded", "dlq"] }
"""


def test_an_end_counts_only_with_the_statuses_that_have_one(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], tmp_path: Path
) -> None:
    """Catches a job that a list leaves out, but the counts of finished attempts include."""
    path = tmp_path / "tasks.toml"
    path.write_text(ENDS)
    now = datetime.now(UTC)
    statuses = ("succeeded", "dlq", "failed", "cancelled")
    with temporary_database(mongo) as database:
        database.tasks.insert_many(
            {"_id": status, "status": status, "at": now, "changed": now} for status in statuses
        )
        init(database_uri(mongod, database), PROFILE=str(path))
        tasks = WatchedQueue(mongod, database, profile=str(path), jobs_collection="tasks")
        hour_ago = to_iso(now - timedelta(hours=1))
        assert set(tasks.ids(finished_from=hour_ago)) == {"succeeded", "dlq"}
        assert tasks.activity() == {"enqueued": 4, "succeeded": 1, "failed": 1, "dlq": 1}
        tasks.close()


def test_embedded_attempts_are_read_by_the_names_of_attempts(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    later = now + timedelta(seconds=4)
    runs = [
        {"from": now, "to": later, "outcome": "ok", "host": "w-1"},
        {"from": later, "outcome": "busy", "try": 7},
    ]
    with temporary_database(mongo) as database:
        database.jobs.insert_one({"jobId": "j", "log": runs})
        watching = WatchedQueue(
            mongod,
            database,
            job_fields={"attempts": "log"},
            attempt_fields={
                "startedAt": "from",
                "finishedAt": "to",
                "status": "outcome",
                "workerId": "host",
                "attemptNumber": "try",
            },
            attempt_status_names={"ok": "succeeded", "busy": "running"},
        )
        job = watching.get("/jobs/j")
        attempts = [
            (found["attemptNumber"], found["status"], found["workerId"], found["durationMs"])
            for found in job["attempts"]
        ]
        assert attempts == [(1, "succeeded", "w-1", 4_000), (7, "running", None, None)]
        assert job["attemptCount"] == 2
        watching.close()
