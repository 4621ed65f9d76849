"""Recurring jobs on the real server: catches a job that no page lists, a query that also reads jobs
that do not recur, an answer that claims more than is known, and a secret in a run."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.setup.indexes import create_indexes

from ..adapters.test_samples import load_sample
from ..store.test_queries import profiled
from ..support.queue_service import MongoDb, QueueService, temporary_database

PATH = "/admin/jobs/recurring"
MINUTE = timedelta(minutes=1)
MakeQueue = Callable[..., QueueService]


@pytest.fixture
def make_queue(mongod: Mongod, database: MongoDb) -> Iterator[MakeQueue]:
    """A function that serves `database` by a profile; `changes` are other settings."""
    queues: list[QueueService] = []

    def make(
        profile: str = "agenda", collection: str = "agendaJobs", **changes: Any
    ) -> QueueService:
        changes |= {"profile": profile, "jobs_collection": collection}
        queues.append(QueueService(mongod, database, **changes))
        return queues[-1]

    yield make
    for queue in queues:
        queue.close()


@pytest.fixture(scope="module")
def agenda_queue(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[QueueService]:
    """An Agenda queue with 62 recurring jobs among 3,060; some have the same nextRunAt."""
    with temporary_database(mongo) as database:
        now = datetime.now(UTC)
        database.agendaJobs.insert_many(
            {
                "name": f"job {index}",
                "nextRunAt": None if index % 11 == 0 else now + (index % 7 - 2) * 10 * MINUTE,
                "repeatInterval": _make_interval(index),
                "repeatAt": "3:30pm" if index % 100 == 1 else None,
                "lockedAt": None,
                "lastFinishedAt": now if index % 11 == 0 else None,
            }
            for index in range(3_060)
        )
        queue = QueueService(mongod, database, profile="agenda", jobs_collection="agendaJobs")
        create_indexes(queue.connection)
        yield queue
        queue.close()


def _make_interval(index: int) -> Any:
    if index % 100 == 0:
        return ("5 minutes", 60_000, "*/5 * * * *")[index // 100 % 3]
    return None


def list_all_jobs(queue: QueueService, per_page: int) -> list[dict[str, Any]]:
    jobs, cursor = [], ""
    while cursor is not None:
        page = queue.get(PATH, per_page=per_page, cursor=cursor)
        assert page["data"] or not jobs  # only the first page may be empty
        assert len(page["data"]) <= per_page
        jobs += page["data"]
        cursor = page["meta"]["next_cursor"]
    return jobs


@pytest.mark.parametrize("per_page", [1, 7, 31, 100])
def test_each_recurring_job_is_listed_once_and_jobs_with_an_interval_come_first(
    agenda_queue: QueueService, per_page: int
) -> None:
    collection = agenda_queue.database.agendaJobs
    order = [("nextRunAt", 1), ("_id", 1)]
    jobs_with_interval = collection.find({"repeatInterval": {"$ne": None}}).sort(order)
    jobs_with_time = collection.find({"repeatAt": {"$ne": None}}).sort(order)
    expected = [str(job["_id"]) for job in (*jobs_with_interval, *jobs_with_time)]
    assert len(expected) == 62
    jobs = list_all_jobs(agenda_queue, per_page)
    assert [job["jobId"] for job in jobs] == expected
    assert {job["repetition"]["intervalText"] for job in jobs} == {
        "every 5 minutes",
        "every minute",
        "every day at 3:30pm",
    }


def test_a_page_reads_no_job_that_does_not_recur(agenda_queue: QueueService) -> None:
    with profiled(agenda_queue.database) as entries:
        page = agenda_queue.get(PATH, per_page=10)
    assert page["meta"]["total"] == 62
    assert page["meta"]["total_is_exact"]
    reads = [entry for entry in entries if "docsExamined" in entry]  # commands that read jobs
    assert len(reads) >= 2
    # Ten jobs of the page, one job after it, and the jobs of both kinds, counted for the total.
    assert sum(entry["docsExamined"] for entry in reads) <= 11 + 2 * 31
    for entry in reads:
        command = entry["command"]
        assert command["maxTimeMS"] == 5_000
        assert "COLLSCAN" not in entry["planSummary"]
        assert not entry.get("hasSortStage")
        assert entry["keysExamined"] <= 33


@pytest.mark.parametrize("cursor", ["x", "_interval.x", "_timezone.", "_interval", "._interval"])
def test_bad_cursor_is_refused(agenda_queue: QueueService, cursor: str) -> None:
    answer = agenda_queue.api.get_as_admin(PATH, cursor=cursor)
    if cursor == "_interval":  # without a position, it means the beginning of the list
        assert answer.status_code == 200
        return
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == ["cursor"]


def test_only_overdue_jobs_have_overdue_since(agenda_queue: QueueService) -> None:
    jobs = list_all_jobs(agenda_queue, 100)
    overdue_ids = {job["jobId"] for job in jobs if job["repetition"]["overdueSince"]}
    late_query = {"nextRunAt": {"$ne": None, "$lt": datetime.now(UTC) - MINUTE}}
    recurring_queries = [{"repeatInterval": {"$ne": None}}, {"repeatAt": {"$ne": None}}]
    expected = agenda_queue.database.agendaJobs.find(late_query | {"$or": recurring_queries})
    assert overdue_ids == {str(job["_id"]) for job in expected} != set()


@pytest.mark.parametrize("sample", ["agenda-6", "pulse"])
def test_recurring_jobs_of_a_sample_show_interval_zone_and_last_run(
    make_queue: MakeQueue, database: MongoDb, sample: str
) -> None:
    load_sample(database, sample)
    profile = sample.removesuffix("-6")
    queue = make_queue(profile, f"{profile}Jobs")
    create_indexes(queue.connection)
    repetitions = {job["type"]: job["repetition"] for job in queue.get(PATH)["data"]}
    assert {
        name: (repetition["intervalText"], repetition["timezone"])
        for name, repetition in repetitions.items()
    } == {
        "hourly report": ("every hour", None),
        "fails hourly": ("every hour", None),
        "every second": ("every second", None),
        "cron nightly": ("at 03:00 every day", "Europe/Berlin"),
    }
    last_run = repetitions["fails hourly"]["lastRun"]
    assert (last_run["status"], last_run["error"]) == (
        "failed",
        {"code": None, "message": "SMTP 550 mailbox unavailable"},
    )
    assert last_run["durationMs"] in (8, 45)  # 45 in Agenda, 8 in Pulse
    assert repetitions["hourly report"]["lastRun"]["status"] == "succeeded"
    assert repetitions["cron nightly"]["lastRun"] is None
    for repetition in repetitions.values():
        assert repetition["missedRuns"] is None
        assert repetition["reasons"]["runs"] == repetition["reasons"]["missedRuns"]
        assert "no collector" in repetition["reasons"]["runs"]


def test_runs_come_from_the_log_of_attempts(make_queue: MakeQueue, database: MongoDb) -> None:
    now = datetime.now(UTC)
    job = {"name": "tick", "repeatInterval": "5 minutes", "nextRunAt": now + MINUTE}
    job_id = database.agendaJobs.insert_one(job | {"lockedAt": None}).inserted_id
    for minutes_ago, event, fields in (
        (20, "start", {}),
        (19, "success", {"duration": 60_000}),
        (15, "start", {}),
        (15, "fail", {"error": "ETIMEDOUT password=hunter2"}),
        (4, "start", {}),
    ):
        database.agenda_logs.insert_one(
            {
                "jobId": str(job_id),
                "jobName": "tick",
                "agendaName": "host-1",
                "event": event,
                "timestamp": now - minutes_ago * MINUTE,
            }
            | fields
        )
    queue = make_queue("agenda-logs", attempts_collection="agenda_logs")
    create_indexes(queue.connection)
    (listed_job,) = queue.get(PATH)["data"]
    repetition = listed_job["repetition"]
    assert [(run["status"], run["count"]) for run in repetition["runs"]] == [
        ("succeeded", 1),
        ("failed", 1),
        ("missed", 1),
        ("expired", 1),
    ]
    assert repetition["missedRuns"] == 1
    assert repetition["reasons"] == {}
    assert repetition["runs"][0]["durationMs"] == 60_000
    assert "hunter2" not in str(repetition)
    assert queue.get(f"/jobs/{job_id}")["repetition"] == repetition


@pytest.mark.parametrize(
    ("profile", "collection", "reason"),
    [
        ("jobmon", "jobs", "no job of this kind of queue is known to run repeatedly"),
        ("celery", "celery_taskmeta", "no job of this kind of queue is known to run repeatedly"),
        ("agenda", "agendaJobs", "an index is missing: `jobmon init` creates it"),
    ],
)
def test_unknown_recurring_jobs_are_null_with_a_reason(
    make_queue: MakeQueue, database: MongoDb, profile: str, collection: str, reason: str
) -> None:
    database[collection].insert_one({"repeatInterval": "1 hour", "jobId": "j", "status": "queued"})
    answer = make_queue(profile, collection).get(PATH)
    assert (answer["data"], answer["meta"]["total"]) == (None, None)
    assert answer["meta"]["reasons"] == {"data": reason}


def test_custom_profile_declares_how_jobs_repeat(
    make_queue: MakeQueue, database: MongoDb, tmp_path: Any
) -> None:
    path = tmp_path / "cron.toml"
    path.write_text(
        """
        recurring = { "plan.every" = { "$ne" = "$null" } }
        status = [{ is = "leased", when = { locked = true } }, { is = "queued" }]
        [readings]
        run_at = "iso"
        [fields]
        jobId = "_id"
        type = "kind"
        nextRunAt = "run_at"
        startedAt = "began"
        finishedAt = "ended"
        [repetition]
        interval = "plan.every"
        timezone = "plan.zone"
        """
    )
    now = datetime.now(UTC)
    for index in (3, 1, 2):
        run_at = (now + index * MINUTE).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        plan = {"every": "0 * * * *", "zone": "Asia/Tokyo"}
        database.work.insert_one({"_id": index, "kind": "sync", "run_at": run_at, "plan": plan})
    database.work.insert_one({"_id": 4, "kind": "once"})
    queue = make_queue(str(path), "work")
    create_indexes(queue.connection)
    jobs = list_all_jobs(queue, 2)
    assert [job["jobId"] for job in jobs] == ["1", "2", "3"]
    assert {(job["repetition"]["intervalText"], job["repetition"]["timezone"]) for job in jobs} == {
        ("every hour", "Asia/Tokyo")
    }
    assert queue.list_ids(condition="scheduled", sort="nextRunAt") == ["1", "2", "3"]
    assert [window["count"] for window in queue.get("/admin/jobs/schedule")["windows"]] == [3] * 3
    assert queue.get("/jobs/1")["isRecurring"] is True
    assert queue.get("/jobs/4")["repetition"] is None


def test_owner_sees_the_repetition_of_own_jobs_only(
    make_queue: MakeQueue, database: MongoDb
) -> None:
    jobs = [
        {"name": "tick", "repeatInterval": "1 hour", "data": {"user": owner}, "nextRunAt": None}
        for owner in ("ada", "bob")
    ]
    adas_id, bobs_id = database.agendaJobs.insert_many(jobs).inserted_ids
    queue = make_queue(job_fields={"createdBy": "data.user"})
    create_indexes(queue.connection)
    job = queue.api.get_as_owner(f"/jobs/{adas_id}", "ada").json
    assert job["repetition"]["intervalText"] == "every hour"
    assert queue.api.get_as_owner(f"/jobs/{bobs_id}", "ada").status_code == 403
    assert queue.api.get_as_owner(PATH, "ada").status_code == 403
