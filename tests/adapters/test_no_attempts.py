"""A queue that records no attempts: catches counts of 0 although jobs have finished, an attempt
that is invented or counted twice, and a notice because of unknown values."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.store import known_fields
from jobmon.store.bson_json import to_iso

from ..dashboard.conftest import signed_in
from ..support.commands import database_uri
from ..support.queue_service import Answer, QueueService, init, temporary_database
from ..support.waiting import eventually

FIELDS = {"type": "kind", "status": "state", "nextRunAt": "runAt", "finishedAt": "endedAt"}
STATUSES = {"done": "succeeded", "waiting": "queued", "failed": "dlq", "again": "failed"}
VARIABLES = {
    "JOB_FIELDS": ",".join(f"{field}={path}" for field, path in FIELDS.items()),
    "STATUS_NAMES": ",".join(f"{state}={status}" for state, status in STATUSES.items()),
}


def make_finished_job(number: int, state: str, now: datetime) -> Answer:
    """A job that waited 3 s and ran 2 s."""
    started = now - timedelta(minutes=4) + timedelta(seconds=number)
    return {
        "jobId": f"{state}-{number}",
        "kind": "mail",
        "state": state,
        "createdAt": started - timedelta(seconds=3),
        "updatedAt": started + timedelta(seconds=2),
        "runAt": started - timedelta(seconds=3),
        "startedAt": started,
        "endedAt": started + timedelta(seconds=2),
    }


def make_waiting_job(now: datetime) -> Answer:
    due = now - timedelta(minutes=15)
    return {"jobId": "w", "kind": "mail", "state": "waiting", "createdAt": due, "runAt": due}


@pytest.fixture(scope="module")
def queue(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[QueueService]:
    now = datetime.now(UTC).replace(microsecond=0)
    with temporary_database(mongo) as database:
        database.jobs.insert_many(
            [
                *(make_finished_job(number, "done", now) for number in range(100)),
                *(make_finished_job(number, "failed", now) for number in range(10)),
                *(make_finished_job(number, "again", now) for number in range(5)),
                make_waiting_job(now),
            ]
        )
        init(database_uri(mongod, database), **VARIABLES)
        queue = QueueService(mongod, database, job_fields=FIELDS, status_names=STATUSES)
        yield queue
        queue.close()


ACTIVITY = {"enqueued": 116, "succeeded": 100, "failed": 15, "dlq": 10}


def check_counts(queue: QueueService) -> None:
    assert queue.activity() == ACTIVITY
    (mail,) = queue.get("/admin/jobs/types")["data"]
    assert mail["finishedPerMinute"] > 1
    assert mail["failureRate"] == pytest.approx(15 / 115, abs=0.001)
    assert mail["runMs"]["p50"] == pytest.approx(2_000, rel=0.05)
    assert mail["waitMs"]["p50"] is None  # unknown, because the last attempt can be a retry


def test_the_last_attempt_of_each_job_is_counted(queue: QueueService) -> None:
    check_counts(queue)


def test_the_collector_counts_the_last_attempt_of_each_job(queue: QueueService) -> None:
    with queue.running_collector():
        eventually(lambda: queue.activity() == ACTIVITY)
        check_counts(queue)
        # The last run ended minutes ago, but the collector may have missed runs since then.
        overview = signed_in(queue.api).page("/dashboard").text
        assert "runs may be missing from the history" in overview
        assert "Nothing has finished" not in overview


def test_a_job_without_recorded_attempts_shows_its_last_attempt(queue: QueueService) -> None:
    job = queue.get("/jobs/done-7")
    assert job["attemptCount"] == 1  # at least
    assert job["reasons"] == {"attempts": "the queue does not record every attempt"}
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
    not_started = queue.get("/jobs/w")
    assert (not_started["attempts"], not_started["attemptCount"]) == ([], 0)
    (summary,) = queue.get("/admin/jobs/queue", job_id="done-7", per_page=1)["data"]
    assert summary["attemptCount"] == 1
    assert "Last attempt" in signed_in(queue.api).page("/dashboard/jobs/done-7").text


@pytest.fixture
def three_jobs(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[QueueService]:
    """The service over three succeeded jobs with the contract's field names, without attempts."""
    monkeypatch.setattr(known_fields, "CACHE_TTL_MS", 0)  # tests change which fields are known
    now = datetime.now(UTC)
    with temporary_database(mongo) as database:
        database.jobs.insert_many(
            make_finished_job(number, "done", now)
            | {"status": "succeeded", "finishedAt": now, "type": "t"}
            for number in range(3)
        )
        init(database_uri(mongod, database))
        queue = QueueService(mongod, database)
        yield queue
        queue.close()


def test_only_recorded_attempts_are_counted_if_there_are_any(
    three_jobs: QueueService, mongod: Mongod
) -> None:
    assert three_jobs.activity()["succeeded"] == 3
    now = datetime.now(UTC)
    three_jobs.database.job_attempts.insert_one(
        {"jobId": "done-0", "attemptNumber": 1, "status": "succeeded", "finishedAt": now}
    )
    init(database_uri(mongod, three_jobs.database))
    eventually(lambda: three_jobs.activity()["succeeded"] == 1)
    (recorded,) = three_jobs.get("/jobs/done-0")["attempts"]
    (derived,) = three_jobs.get("/jobs/done-1")["attempts"]
    assert (recorded["attemptNumber"], derived["attemptNumber"]) == (1, None)


def test_the_wait_is_known_if_the_last_attempt_is_the_first(three_jobs: QueueService) -> None:
    three_jobs.database.jobs.update_many({}, {"$set": {"attemptCount": 1}})
    (row,) = three_jobs.get("/admin/jobs/types")["data"]
    assert row["waitMs"]["p50"] == pytest.approx(3_000, rel=0.05)
    assert three_jobs.get("/jobs/done-0")["attempts"][0]["attemptNumber"] == 1


def test_counts_are_null_if_no_finishedat_is_a_date(three_jobs: QueueService) -> None:
    """Catches a count of 0, and a notice that nothing finishes."""
    three_jobs.database.jobs.update_many({}, {"$set": {"finishedAt": 1_234_567_890_000}})
    due = datetime.now(UTC) - timedelta(minutes=15)
    three_jobs.database.jobs.insert_one(
        {"jobId": "w", "status": "queued", "type": "t", "nextRunAt": due, "createdAt": due}
    )
    assert three_jobs.activity() == {"enqueued": 4, "succeeded": None, "failed": None, "dlq": None}
    (row,) = three_jobs.get("/admin/jobs/types")["data"]
    assert row["finishedPerMinute"] is row["failureRate"] is None
    assert "Nothing has finished" not in signed_in(three_jobs.api).page("/dashboard").text


def test_counts_are_null_if_dead_jobs_have_no_end(three_jobs: QueueService) -> None:
    """Catches a failure rate of 0 if succeeded jobs have a finishedAt, but dead jobs have none."""
    assert three_jobs.activity() == {"enqueued": 3, "succeeded": 3, "failed": 0, "dlq": 0}
    three_jobs.database.jobs.insert_one({"jobId": "d", "status": "dlq", "type": "t"})
    eventually(lambda: three_jobs.activity()["failed"] is None)
    (row,) = three_jobs.get("/admin/jobs/types")["data"]
    assert row["finishedPerMinute"] is row["failureRate"] is row["succeeded"] is None
    overview = signed_in(three_jobs.api).page("/dashboard").text
    assert "dead jobs do not record when they finished" in overview


def test_counts_are_null_if_finishedat_and_its_index_are_missing(three_jobs: QueueService) -> None:
    """Catches an error: `jobmon init` creates no index on a field that no document has."""
    three_jobs.database.jobs.update_many({}, {"$unset": {"finishedAt": 1}})
    three_jobs.database.jobs.drop_index("status_1_finishedAt_1__id_1")
    assert three_jobs.activity() == {"enqueued": 3, "succeeded": None, "failed": None, "dlq": None}


UNSET_PROFILE = """\
collection = "tasks"
status = { path = "status" }
[fields]
jobId = "_id"
createdAt = "at"
startedAt = "started"
finishedAt = "ended"
nextRunAt = "due"
"""


@pytest.mark.parametrize(
    ("unset", "date", "readings"),
    [
        (datetime(1, 1, 1, tzinfo=UTC), lambda moment: moment, ""),
        (0, lambda moment: int(moment.timestamp() * 1_000), "milliseconds"),
        ("0001-01-01T00:00:00.000Z", to_iso, "iso"),
    ],
    ids=["BSON date of Go", "number", "text"],
)
def test_a_date_in_place_of_null_is_no_date(
    unset: Any,
    date: Callable[[datetime], Any],
    readings: str,
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Catches a job that died 2,000 years ago, an attempt of a job that never ran, and a failure
    rate of 0 although no dead job has the date of its end."""
    path = tmp_path / "tasks.toml"
    forms = "\n".join(f'{name} = "{readings}"' for name in ("at", "started", "ended", "due"))
    path.write_text(UNSET_PROFILE + (f"[readings]\n{forms}\n" if readings else ""))
    now = datetime.now(UTC).replace(microsecond=0)
    never = {"at": date(now), "started": unset, "ended": unset, "due": unset}
    with temporary_database(mongo) as database:
        database.tasks.insert_many(
            [
                *({"_id": f"q{number}", "status": "queued"} | never for number in range(3)),
                {"_id": "d", "status": "dlq"} | never,
                {"_id": "s", "status": "succeeded"}
                | never
                | {"started": date(now), "ended": date(now)},
            ]
        )
        init(database_uri(mongod, database), PROFILE=str(path))
        queue = QueueService(mongod, database, profile=str(path), jobs_collection="tasks")
        waiting, dead = queue.get("/jobs/q0"), queue.get("/jobs/d")
        assert waiting["nextRunAt"] is waiting["finishedAt"] is dead["finishedAt"] is None
        assert waiting["attempts"] == []
        assert dead["explanation"]["text"] == "It died, and is not retried."
        assert queue.activity() == {"enqueued": 5, "succeeded": None, "failed": None, "dlq": None}
        assert queue.get("/admin/jobs/stats")["dueJobs"] == 3
        assert set(queue.list_ids(due_to=to_iso(now))) == {"q0", "q1", "q2"}
        queue.close()


PROFILE = """\
collection = "tasks"
status = { path = "status" }
[fields]
jobId = "_id"
createdAt = "at"
finishedAt = { path = "changed", only_in = ["succeeded", "dlq"] }
"""


def test_finishedat_is_used_only_with_the_statuses_of_only_in(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], tmp_path: Path
) -> None:
    """Catches a job that is counted as finished, but is missing in the list of finished jobs."""
    path = tmp_path / "tasks.toml"
    path.write_text(PROFILE)
    now = datetime.now(UTC)
    statuses = ("succeeded", "dlq", "failed", "cancelled")
    with temporary_database(mongo) as database:
        database.tasks.insert_many(
            {"_id": status, "status": status, "at": now, "changed": now} for status in statuses
        )
        init(database_uri(mongod, database), PROFILE=str(path))
        tasks = QueueService(mongod, database, profile=str(path), jobs_collection="tasks")
        hour_ago = to_iso(now - timedelta(hours=1))
        assert set(tasks.list_ids(finished_from=hour_ago)) == {"succeeded", "dlq"}
        assert tasks.activity() == {"enqueued": 4, "succeeded": 1, "failed": 1, "dlq": 1}
        reasons = tasks.get("/jobs/dlq")["reasons"]  # the profile has no attemptCount
        assert reasons == {"attempts": "the queue does not record every attempt"}
        tasks.close()


@pytest.mark.parametrize("has_lease", [True, False])
def test_runs_are_counted_from_changes_if_no_document_has_its_end(
    has_lease: bool, mongod: Mongod, mongo: MongoClient[dict[str, Any]], tmp_path: Path
) -> None:
    """Without a status for running jobs, no change shows the end of a run: catches a count of 0."""
    names = {"waiting": "queued", "done": "succeeded", "bad": "dlq"}
    names |= {"running": "leased"} if has_lease else {}
    entries = ", ".join(f'{name} = "{status}"' for name, status in names.items())
    path = tmp_path / "tasks.toml"
    path.write_text(
        f'collection = "tasks"\nstatus = {{ path = "state", names = {{ {entries} }} }}\n'
        '[fields]\njobId = "_id"\ncreatedAt = "at"\n'
    )
    now = datetime.now(UTC)
    with temporary_database(mongo) as database:
        database.tasks.insert_many({"state": "waiting", "at": now} for _ in range(3))
        init(database_uri(mongod, database), PROFILE=str(path))
        queue = QueueService(mongod, database, profile=str(path), jobs_collection="tasks")
        with queue.running_collector():
            for job, state in zip(database.tasks.find(), ("done", "bad", "done"), strict=True):
                for new_state in ("running", state):
                    database.tasks.update_one({"_id": job["_id"]}, {"$set": {"state": new_state}})
            eventually(lambda: queue.get("/admin/jobs/stats")["statusCounts"]["dlq"] == 1)
            counts = {"enqueued": 3, "succeeded": 2, "failed": 1, "dlq": 1}
            if not has_lease:
                counts |= dict.fromkeys(("succeeded", "failed", "dlq"))
            eventually(lambda: queue.activity() == counts)
        queue.close()


@pytest.mark.parametrize(("profile", "due"), [("celery", None), ("payload", 0)])
def test_no_job_is_known_to_be_due_if_only_results_are_stored(
    profile: str, due: int | None, mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> None:
    """Catches 0 due jobs, and a page without any doubt, while tasks wait in Celery's broker."""
    result = {"status": "SUCCESS", "date_done": datetime.now(UTC), "completedAt": datetime.now(UTC)}
    with temporary_database(mongo) as database:
        database.results.insert_one(result)
        queue = QueueService(mongod, database, profile=profile, jobs_collection="results")
        stats = queue.get("/admin/jobs/stats")
        assert (stats["dueJobs"], stats["scheduledJobs"]) == (due, due)
        assert ("dueJobs" in stats["reasons"]) is (due is None)
        queue.close()


def test_embedded_attempts_are_read_with_the_attempt_field_names(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ended = now + timedelta(seconds=4)
    runs = [
        {"from": now, "to": ended, "outcome": "ok", "host": "w-1"},
        {"from": ended, "outcome": "busy", "try": 7},
    ]
    with temporary_database(mongo) as database:
        database.jobs.insert_one({"jobId": "j", "log": runs})
        queue = QueueService(
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
        job = queue.get("/jobs/j")
        names = ("attemptNumber", "status", "workerId", "durationMs")
        attempts = [tuple(attempt[name] for name in names) for attempt in job["attempts"]]
        assert attempts == [(1, "succeeded", "w-1", 4_000), (7, "running", None, None)]
        assert job["attemptCount"] == 2
        queue.close()
