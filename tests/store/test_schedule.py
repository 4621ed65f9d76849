"""Lists in the order of nextRunAt, and the counts of what is due, on the real server: catches a job
that is lost or shown twice, a plan that sorts or scans, and a read that grows with the schedule."""

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

from ..support.watched_queue import Documents, WatchedQueue, temporary_database
from .test_queries import assert_cheap, profiled

parse = datetime.fromisoformat
PLAIN = {"condition": "scheduled", "sort": "nextRunAt"}


class ScheduledQueue(WatchedQueue):
    """A queue with 80 scheduled jobs, of which ten each have the same nextRunAt, and others."""

    def __init__(self, mongod: Mongod, database: Documents, profile: str) -> None:
        collection = {"jobmon": "jobs", "agenda": "agendaJobs"}[profile]
        super().__init__(mongod, database, profile=profile, jobs_collection=collection)
        self.is_agenda = profile == "agenda"
        self.jobs = database[collection]
        now = datetime.now(UTC).replace(microsecond=0)
        due = [now + timedelta(hours=1 + number // 10) for number in range(80)]
        past = [now - timedelta(minutes=number) for number in range(20)]
        odd = [None, "soon", 7, DatetimeMS(253_402_300_800_000)]
        self.jobs.insert_many(
            self.make(number, at) for number, at in enumerate([*due, *past, *odd, None])
        )
        self.jobs.insert_many(self.make(n, None, done=True) for n in range(200, 1_000))
        create_indexes(self.connection)

    def make(self, number: int, at: Any, *, done: bool = False) -> dict[str, Any]:
        job_type = f"type-{number % 3}"
        if self.is_agenda:
            ended = datetime.now(UTC) if done else None
            return {"name": job_type, "nextRunAt": at, "lastFinishedAt": ended}
        status = "succeeded" if done else ("queued", "failed")[number % 2]
        # An _id in another order than the dates.
        name = f"job-{number}"
        return {
            "_id": ObjectId(f"{(number * 7_919) % 2**32:08x}" + "0" * 16),
            "jobId": name,
            "type": job_type,
            "status": status,
            "createdAt": datetime.now(UTC),
            "nextRunAt": at,
        }

    def ordered(self, query: dict[str, Any]) -> list[str]:
        """The ids of the jobs that match, as MongoDB itself sorts them."""
        found = self.jobs.find(query).sort([("nextRunAt", 1), ("_id", 1)])
        return [str(job["_id"]) if self.is_agenda else job["jobId"] for job in found]


@pytest.fixture(scope="module", params=["jobmon", "agenda"])
def queue(
    request: pytest.FixtureRequest, mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[ScheduledQueue]:
    with temporary_database(mongo) as database:
        scheduled = ScheduledQueue(mongod, database, request.param)
        yield scheduled
        scheduled.close()


def test_scheduled_jobs_are_listed_in_the_order_of_their_due_time(queue: ScheduledQueue) -> None:
    later = {"nextRunAt": {"$gt": datetime.now(UTC)}}
    assert len(expected := queue.ordered(later)) == 81
    with profiled(queue.database) as entries:
        pages, cursor = [], ""
        while cursor is not None:
            page = queue.get("/admin/jobs/queue", per_page=12, cursor=cursor, **PLAIN)
            pages.append([job["jobId"] for job in page["data"]])
            cursor = page["meta"]["next_cursor"]
    assert [job_id for page in pages for job_id in page] == expected
    assert queue.ids(**PLAIN) == expected
    assert page["meta"]["total"] == 81
    finds = [entry for entry in entries if "find" in entry["command"]]
    assert all("skip" not in entry["command"] for entry in finds)
    if not queue.is_agenda:
        assert_cheap(queue.database, entries)
    for entry in finds:
        assert "COLLSCAN" not in entry["planSummary"]
        assert not entry.get("hasSortStage")
        assert entry["docsExamined"] <= entry["nreturned"] + 1


def test_waiting_jobs_with_any_due_time_are_each_listed_once(queue: ScheduledQueue) -> None:
    statuses = ("queued",) if queue.is_agenda else ("queued", "failed")
    waiting = {"nextRunAt": {"$ne": None}} if queue.is_agenda else {"status": {"$in": statuses}}
    expected = queue.ordered({**waiting, "lastFinishedAt": None})
    assert queue.ids(status=statuses, sort="nextRunAt") == expected
    if not queue.is_agenda:
        not_due = {*queue.ordered({"nextRunAt": {"$gt": datetime.now(UTC)}}), "job-101", "job-102"}
        due = [job_id for job_id in expected if job_id not in not_due]
        assert queue.ids(condition="due", sort="nextRunAt") == due


def test_types_narrow_the_schedule(queue: ScheduledQueue) -> None:
    name = "name" if queue.is_agenda else "type"
    later = {"nextRunAt": {"$gt": datetime.now(UTC)}, name: "type-1"}
    assert queue.ids(type="type-1", **PLAIN) == queue.ordered(later)


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({}, "sort"),
        ({"status": "succeeded"}, "sort"),
        ({"status": ["queued", "leased"]}, "sort"),
        ({"condition": "expired"}, "sort"),
    ],
    ids=str,
)
def test_orders_that_no_index_serves_are_refused(
    queue: ScheduledQueue, query: dict[str, Any], parameter: str
) -> None:
    for form in ("json", "csv"):
        answer = queue.api.get_as_admin("/admin/jobs/queue", sort="nextRunAt", format=form, **query)
        assert answer.status_code == 422
        assert list(answer.json["error"]["details"]) == [parameter]


def sum_steps(window: dict[str, Any]) -> int:
    return sum(step["count"] for step in window["steps"])


def test_what_is_due_is_counted_by_step_and_type(queue: ScheduledQueue) -> None:
    with profiled(queue.database) as entries:
        answer = queue.get("/admin/jobs/schedule")
    now = datetime.fromisoformat(answer["asOf"])
    assert answer["reasons"] == {}
    hour, day, week = answer["windows"]
    for window, length in ((hour, 1), (day, 24), (week, 24 * 7)):
        end = now + timedelta(hours=length)
        within = {"nextRunAt": {"$gt": now, "$lt": end}}
        expected = queue.jobs.count_documents(within)
        assert (window["count"], window["isExact"], window["to"]) == (expected, True, to_iso(end))
        assert sum_steps(window) == sum(window["typeCounts"].values()) == expected
        for step in window["steps"]:
            part = {"$gte": parse(step["from"]), "$lt": parse(step["to"])}
            assert step["count"] == queue.jobs.count_documents({"nextRunAt": part})
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


def test_more_scheduled_jobs_than_are_read_leave_steps_unknown(
    queue: ScheduledQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ScheduleReader(queue.connection)
    monkeypatch.setattr(reader, "_limit", 25)
    with profiled(queue.database) as entries:
        schedule = reader.schedule()
    assert all(entry["keysExamined"] <= 30 for entry in entries)
    day = schedule.windows[1]
    assert (day.jobs, day.is_exact) == (25, False)
    known = [step for step in day.steps if step.jobs is not None]
    assert sum(step.jobs or 0 for step in known) == 25
    for step in known[:-1]:
        part = {"$gte": step.start, "$lt": step.end}
        assert (step.jobs, step.is_exact) == (queue.jobs.count_documents({"nextRunAt": part}), True)
    assert not known[-1].is_exact
    assert {step.is_exact for step in day.steps[len(known) :]} == {False}


def test_schedule_without_its_index_is_unknown_with_a_reason(
    mongod: Mongod, database: Documents
) -> None:
    database.jobs.insert_one({"status": "queued", "nextRunAt": datetime.now(UTC)})
    queue = WatchedQueue(mongod, database)
    answer = queue.get("/admin/jobs/schedule")
    assert answer["windows"] is None
    assert "jobmon init" in answer["reasons"]["windows"]
    queue.close()


def test_schedule_of_a_queue_without_due_times_is_unknown_with_a_reason(
    mongod: Mongod, database: Documents
) -> None:
    queue = WatchedQueue(mongod, database, profile="celery", jobs_collection="celery_taskmeta")
    answer = queue.get("/admin/jobs/schedule")
    assert answer["windows"] is None
    assert answer["reasons"]["windows"] == "the documents do not record when a job is due"
    refused = queue.api.get_as_admin("/admin/jobs/queue", **PLAIN)
    assert refused.status_code == 422
    assert list(refused.json["error"]["details"]) == ["condition"]
    queue.close()
