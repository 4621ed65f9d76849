"""Recurring jobs over the real server: catches a job that a page loses, a read that grows with the
jobs that do not recur, an answer that claims more than is known, and a secret in a run."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.setup.indexes import create_indexes

from ..adapters.test_samples import load_sample
from ..store.test_queries import profiled
from ..support.watched_queue import Documents, WatchedQueue, temporary_database

PATH = "/admin/jobs/recurring"
MINUTE = timedelta(minutes=1)
Make = Callable[..., WatchedQueue]


@pytest.fixture
def make(mongod: Mongod, database: Documents) -> Iterator[Make]:
    """A function that watches the database with a profile."""
    queues: list[WatchedQueue] = []

    def make(
        profile: str = "agenda", collection: str = "agendaJobs", **changes: Any
    ) -> WatchedQueue:
        changes |= {"profile": profile, "jobs_collection": collection}
        queues.append(WatchedQueue(mongod, database, **changes))
        return queues[-1]

    yield make
    for queue in queues:
        queue.connection.client.drop_database(f"{database.name}_rollups")
        queue.close()


@pytest.fixture(scope="module")
def busy(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[WatchedQueue]:
    """An Agenda queue with 60 recurring jobs among 3,000 others; some have the same nextRunAt."""
    with temporary_database(mongo) as database:
        now = datetime.now(UTC)
        database.agendaJobs.insert_many(
            {
                "name": f"job {number}",
                "nextRunAt": None if number % 11 == 0 else now + (number % 7 - 2) * 10 * MINUTE,
                "repeatInterval": _interval(number),
                "repeatAt": "3:30pm" if number % 100 == 1 else None,
                "lockedAt": None,
                "lastFinishedAt": now if number % 11 == 0 else None,
            }
            for number in range(3_060)
        )
        queue = WatchedQueue(mongod, database, profile="agenda", jobs_collection="agendaJobs")
        create_indexes(queue.connection)
        yield queue
        queue.close()


def _interval(number: int) -> Any:
    if number % 100 == 0:
        return ("5 minutes", 60_000, "*/5 * * * *")[number // 100 % 3]
    return None


def walk(queue: WatchedQueue, per_page: int) -> list[dict[str, Any]]:
    jobs, cursor = [], ""
    while cursor is not None:
        page = queue.get(PATH, per_page=per_page, cursor=cursor)
        assert page["data"] or not jobs
        assert len(page["data"]) <= per_page
        jobs += page["data"]
        cursor = page["meta"]["next_cursor"]
    return jobs


@pytest.mark.parametrize("per_page", [1, 7, 31, 100])
def test_every_recurring_job_is_listed_once_the_soonest_first(
    busy: WatchedQueue, per_page: int
) -> None:
    found = busy.database.agendaJobs
    order = [("nextRunAt", 1), ("_id", 1)]
    by_interval = found.find({"repeatInterval": {"$ne": None}}).sort(order)
    by_time = found.find({"repeatAt": {"$ne": None}}).sort(order)
    expected = [str(job["_id"]) for jobs in (by_interval, by_time) for job in jobs]
    assert len(expected) == 62
    jobs = walk(busy, per_page)
    assert [job["jobId"] for job in jobs] == expected
    assert {job["repetition"]["words"] for job in jobs} == {
        "every 5 minutes",
        "every minute",
        "every day at 3:30pm",
    }


def test_a_page_reads_no_job_that_does_not_recur(busy: WatchedQueue) -> None:
    with profiled(busy.database) as entries:
        page = busy.get(PATH, per_page=10)
    assert page["meta"]["total"] == 62
    assert page["meta"]["total_is_exact"]
    reads = [entry for entry in entries if "docsExamined" in entry]  # others read nothing
    assert len(reads) >= 2
    assert sum(entry["docsExamined"] for entry in reads) <= 11 + 2 * 31
    for entry in reads:
        command = entry["command"]
        assert command["maxTimeMS"] == 5_000
        assert "COLLSCAN" not in entry["planSummary"]
        assert not entry.get("hasSortStage")
        assert entry["keysExamined"] <= 33


@pytest.mark.parametrize("cursor", ["x", "_interval.x", "_timezone.", "_interval", "._interval"])
def test_bad_cursor_is_refused(busy: WatchedQueue, cursor: str) -> None:
    answer = busy.api.get_as_admin(PATH, cursor=cursor)
    if cursor == "_interval":  # without a position: the beginning of the list
        assert answer.status_code == 200
        return
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == ["cursor"]


def test_overdue_jobs_are_marked(busy: WatchedQueue) -> None:
    jobs = walk(busy, 100)
    overdue = {job["jobId"] for job in jobs if job["repetition"]["overdueSince"]}
    late = {"nextRunAt": {"$ne": None, "$lt": datetime.now(UTC) - MINUTE}}
    expected = [{"repeatInterval": {"$ne": None}}, {"repeatAt": {"$ne": None}}]
    found = busy.database.agendaJobs.find(late | {"$or": expected})
    assert overdue == {str(job["_id"]) for job in found} != set()


@pytest.mark.parametrize("sample", ["agenda-6", "pulse"])
def test_sample_shows_interval_zone_and_last_run(
    make: Make, database: Documents, sample: str
) -> None:
    load_sample(database, sample)
    profile = sample.removesuffix("-6")
    queue = make(profile, f"{profile}Jobs")
    create_indexes(queue.connection)
    found = {job["type"]: job["repetition"] for job in queue.get(PATH)["data"]}
    assert {name: (job["words"], job["timezone"]) for name, job in found.items()} == {
        "hourly report": ("every hour", None),
        "fails hourly": ("every hour", None),
        "every second": ("every second", None),
        "cron nightly": ("at 03:00 every day", "Europe/Berlin"),
    }
    last = found["fails hourly"]["lastRun"]
    assert (last["status"], last["error"]) == (
        "failed",
        {"code": None, "message": "SMTP 550 mailbox unavailable"},
    )
    assert last["durationMs"] in (8, 45)
    assert found["hourly report"]["lastRun"]["status"] == "succeeded"
    assert found["cron nightly"]["lastRun"] is None
    for job in found.values():
        assert job["missedRuns"] is None
        assert job["reasons"]["runs"] == job["reasons"]["missedRuns"]
        assert "no collector" in job["reasons"]["runs"]


def test_runs_are_taken_from_the_log_where_there_is_one(make: Make, database: Documents) -> None:
    now = datetime.now(UTC)
    job = {"name": "tick", "repeatInterval": "5 minutes", "nextRunAt": now + MINUTE}
    job_id = database.agendaJobs.insert_one(job | {"lockedAt": None}).inserted_id
    for ago, event, more in (
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
                "timestamp": now - ago * MINUTE,
            }
            | more
        )
    queue = make("agenda-logs", attempts_collection="agenda_logs")
    create_indexes(queue.connection)
    (listed,) = queue.get(PATH)["data"]
    repetition = listed["repetition"]
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
    make: Make, database: Documents, profile: str, collection: str, reason: str
) -> None:
    database[collection].insert_one({"repeatInterval": "1 hour", "jobId": "j", "status": "queued"})
    answer = make(profile, collection).get(PATH)
    assert (answer["data"], answer["meta"]["total"]) == (None, None)
    assert answer["meta"]["reasons"] == {"data": reason}


def test_profile_of_your_own_declares_how_jobs_repeat(
    make: Make, database: Documents, tmp_path: Any
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
    for number in (3, 1, 2):
        at = (now + number * MINUTE).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        plan = {"every": "0 * * * *", "zone": "Asia/Tokyo"}
        database.work.insert_one({"_id": number, "kind": "sync", "run_at": at, "plan": plan})
    database.work.insert_one({"_id": 4, "kind": "once"})
    queue = make(str(path), "work")
    create_indexes(queue.connection)
    jobs = walk(queue, 2)
    assert [job["jobId"] for job in jobs] == ["1", "2", "3"]
    assert {(job["repetition"]["words"], job["repetition"]["timezone"]) for job in jobs} == {
        ("every hour", "Asia/Tokyo")
    }
    assert queue.ids(condition="scheduled", sort="nextRunAt") == ["1", "2", "3"]
    assert [window["count"] for window in queue.get("/admin/jobs/schedule")["windows"]] == [3] * 3
    assert queue.get("/jobs/1")["isRecurring"] is True
    assert queue.get("/jobs/4")["repetition"] is None


def test_owner_sees_the_runs_of_an_own_job_only(make: Make, database: Documents) -> None:
    jobs = [
        {"name": "tick", "repeatInterval": "1 hour", "data": {"user": owner}, "nextRunAt": None}
        for owner in ("ada", "bob")
    ]
    adas, bobs = database.agendaJobs.insert_many(jobs).inserted_ids
    queue = make(job_fields={"createdBy": "data.user"})
    create_indexes(queue.connection)
    shown = queue.api.get_as_owner(f"/jobs/{adas}", "ada").json
    assert shown["repetition"]["words"] == "every hour"
    assert queue.api.get_as_owner(f"/jobs/{bobs}", "ada").status_code == 403
    assert queue.api.get_as_owner(PATH, "ada").status_code == 403
