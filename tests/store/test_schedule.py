"""Lists in the order of nextRunAt, and counts of scheduled jobs, on the real server: catches a job
that is missing or listed twice, a plan that sorts or scans, and a read that grows with the queue.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.setup.indexes import create_indexes
from jobmon.store.bson_json import to_iso
from jobmon.store.schedule import ScheduleReader

from ..support.queue_service import MongoDb, QueueService, temporary_database
from .test_queries import assert_cheap, profiled

parse_date = datetime.fromisoformat
SCHEDULED = {"condition": "scheduled", "sort": "nextRunAt"}


class ScheduledQueue(QueueService):
    """A queue with 80 scheduled jobs, ten for each of eight due times, and with other jobs.

    One of the other jobs is due in the year 10000.
    """

    def __init__(self, mongod: Mongod, database: MongoDb, profile: str) -> None:
        collection = {"jobmon": "jobs", "agenda": "agendaJobs"}[profile]
        super().__init__(mongod, database, profile=profile, jobs_collection=collection)
        self.is_agenda = profile == "agenda"
        self.jobs = database[collection]
        now = datetime.now(UTC).replace(microsecond=0)
        future = [now + timedelta(hours=1 + number // 10) for number in range(80)]
        past = [now - timedelta(minutes=number) for number in range(20)]
        odd_values = [None, "soon", 7, DatetimeMS(253_402_300_800_000)]
        self.jobs.insert_many(
            self.make_job(number, next_run_at)
            for number, next_run_at in enumerate([*future, *past, *odd_values, None])
        )
        self.jobs.insert_many(
            self.make_job(number, None, is_done=True) for number in range(200, 1_000)
        )
        create_indexes(self.connection)

    def make_job(self, number: int, next_run_at: Any, *, is_done: bool = False) -> dict[str, Any]:
        job_type = f"type-{number % 3}"
        if self.is_agenda:
            finished_at = datetime.now(UTC) if is_done else None
            return {"name": job_type, "nextRunAt": next_run_at, "lastFinishedAt": finished_at}
        return {
            # The order of the ids differs from the order of the dates.
            "_id": ObjectId(f"{(number * 7_919) % 2**32:08x}" + "0" * 16),
            "jobId": f"job-{number}",
            "type": job_type,
            "status": "succeeded" if is_done else ("queued", "failed")[number % 2],
            "createdAt": datetime.now(UTC),
            "nextRunAt": next_run_at,
        }

    def sort_ids(self, query: dict[str, Any]) -> list[str]:
        """The ids of the jobs that match, as MongoDB sorts the jobs."""
        jobs = self.jobs.find(query).sort([("nextRunAt", 1), ("_id", 1)])
        return [str(job["_id"]) if self.is_agenda else job["jobId"] for job in jobs]


@pytest.fixture(scope="module", params=["jobmon", "agenda"])
def queue(
    request: pytest.FixtureRequest, mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[ScheduledQueue]:
    with temporary_database(mongo) as database:
        scheduled_queue = ScheduledQueue(mongod, database, request.param)
        yield scheduled_queue
        scheduled_queue.close()


def test_scheduled_jobs_are_listed_in_the_order_of_their_due_time(queue: ScheduledQueue) -> None:
    is_scheduled = {"nextRunAt": {"$gt": datetime.now(UTC)}}
    assert len(expected := queue.sort_ids(is_scheduled)) == 81
    with profiled(queue.database) as entries:
        pages, cursor = [], ""
        while cursor is not None:
            page = queue.get("/admin/jobs/queue", per_page=12, cursor=cursor, **SCHEDULED)
            pages.append([job["jobId"] for job in page["data"]])
            cursor = page["meta"]["next_cursor"]
    assert [job_id for page in pages for job_id in page] == expected
    assert queue.list_ids(**SCHEDULED) == expected
    assert page["meta"]["total"] == 81
    finds = [entry for entry in entries if "find" in entry["command"]]
    assert finds
    assert all("skip" not in entry["command"] for entry in finds)
    if not queue.is_agenda:
        assert_cheap(queue.database, entries)
    for entry in finds:
        assert "COLLSCAN" not in entry["planSummary"]
        assert not entry.get("hasSortStage")
        assert entry["docsExamined"] <= entry["nreturned"] + 1


def test_waiting_jobs_with_any_due_time_are_listed_once(queue: ScheduledQueue) -> None:
    statuses = ("queued",) if queue.is_agenda else ("queued", "failed")
    is_waiting = {"nextRunAt": {"$ne": None}} if queue.is_agenda else {"status": {"$in": statuses}}
    expected = queue.sort_ids({**is_waiting, "lastFinishedAt": None})
    assert queue.list_ids(status=statuses, sort="nextRunAt") == expected
    if not queue.is_agenda:
        odd_ids = {"job-101", "job-102"}  # their nextRunAt is neither a date nor missing
        scheduled_ids = set(queue.sort_ids({"nextRunAt": {"$gt": datetime.now(UTC)}}))
        due = [job_id for job_id in expected if job_id not in scheduled_ids | odd_ids]
        assert queue.list_ids(condition="due", sort="nextRunAt") == due


def test_a_type_filters_the_scheduled_jobs(queue: ScheduledQueue) -> None:
    name = "name" if queue.is_agenda else "type"
    is_scheduled = {"nextRunAt": {"$gt": datetime.now(UTC)}, name: "type-1"}
    assert queue.list_ids(type="type-1", **SCHEDULED) == queue.sort_ids(is_scheduled)


@pytest.mark.parametrize(
    "query",
    [{}, {"status": "succeeded"}, {"status": ["queued", "leased"]}, {"condition": "expired"}],
    ids=str,
)
def test_a_sort_by_due_time_is_422_unless_all_jobs_of_the_list_wait(
    queue: ScheduledQueue, query: dict[str, Any]
) -> None:
    query = {"sort": "nextRunAt", **query}
    for answer_format in ("json", "csv"):
        answer = queue.api.get_as_admin("/admin/jobs/queue", format=answer_format, **query)
        assert answer.status_code == 422
        assert list(answer.json["error"]["details"]) == ["sort"]


def sum_steps(window: dict[str, Any]) -> int:
    return sum(step["count"] for step in window["steps"])


def test_scheduled_jobs_are_counted_by_step_and_type(queue: ScheduledQueue) -> None:
    with profiled(queue.database) as entries:
        answer = queue.get("/admin/jobs/schedule")
    now = parse_date(answer["asOf"])
    assert answer["reasons"] == {}
    hour, day, week = answer["windows"]
    for window, hours in ((hour, 1), (day, 24), (week, 24 * 7)):
        end = now + timedelta(hours=hours)
        expected = queue.jobs.count_documents({"nextRunAt": {"$gt": now, "$lt": end}})
        assert (window["count"], window["isExact"], window["to"]) == (expected, True, to_iso(end))
        assert sum_steps(window) == sum(window["typeCounts"].values()) == expected
        for step in window["steps"]:
            bounds = {"$gte": parse_date(step["from"]), "$lt": parse_date(step["to"])}
            assert step["count"] == queue.jobs.count_documents({"nextRunAt": bounds})
            assert step["count"] == sum(step["typeCounts"].values())
        assert window["steps"][0]["from"] == answer["asOf"]
        assert window["steps"][-1]["to"] == window["to"]
    assert (hour["step"], day["step"], week["step"]) == (300, 3_600, 86_400)
    assert set(day["typeCounts"]) == {"type-0", "type-1", "type-2"}
    counts = [entry for entry in entries if "$group" in str(entry["command"].get("pipeline"))]
    assert len(counts) == 3
    for entry in counts:
        assert "COLLSCAN" not in entry["planSummary"]
        assert not entry.get("hasSortStage")
        assert entry["docsExamined"] <= (80 if queue.is_agenda else 0)


def test_steps_after_the_last_job_that_was_read_are_unknown(
    queue: ScheduledQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ScheduleReader(queue.connection)
    monkeypatch.setattr(reader, "_limit", 25)
    with profiled(queue.database) as entries:
        schedule = reader.schedule()
    assert max(entry["keysExamined"] for entry in entries) <= 30
    day = schedule.windows[1]
    assert (day.jobs, day.is_exact) == (25, False)
    *exact_steps, last_step = (step for step in day.steps if step.jobs is not None)
    assert sum(step.jobs or 0 for step in (*exact_steps, last_step)) == 25
    for step in exact_steps:
        is_in_step = {"nextRunAt": {"$gte": step.start, "$lt": step.end}}
        assert (step.jobs, step.is_exact) == (queue.jobs.count_documents(is_in_step), True)
    assert not last_step.is_exact
    assert {step.is_exact for step in day.steps[len(exact_steps) + 1 :]} == {False}


def test_schedule_is_unknown_without_its_index(mongod: Mongod, database: MongoDb) -> None:
    database.jobs.insert_one({"status": "queued", "nextRunAt": datetime.now(UTC)})
    queue = QueueService(mongod, database)
    answer = queue.get("/admin/jobs/schedule")
    assert answer["windows"] is None
    assert "jobmon init" in answer["reasons"]["windows"]
    queue.close()


def test_schedule_is_unknown_if_documents_have_no_due_times(
    mongod: Mongod, database: MongoDb
) -> None:
    queue = QueueService(mongod, database, profile="celery", jobs_collection="celery_taskmeta")
    answer = queue.get("/admin/jobs/schedule")
    assert answer["windows"] is None
    assert answer["reasons"]["windows"] == "the documents do not record when a job is due"
    refusal = queue.api.get_as_admin("/admin/jobs/queue", **SCHEDULED)
    assert refusal.status_code == 422
    assert list(refusal.json["error"]["details"]) == ["condition"]
    queue.close()
