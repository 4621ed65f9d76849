"""The plans of the queries for lists, jobs, exports and stats, on the real server: catches a
collection scan, an in-memory sort, a read that grows with the queue, and a missing time limit."""

import json
import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store import live_stats
from jobmon.store.bson_json import to_iso
from jobmon.store.connection import Connection
from jobmon.store.filter import JobFilter
from jobmon.store.identity import identity_values
from jobmon.store.jobs import JobStore
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists
from jobmon.store.live_stats import LiveStats

from ..conftest import NOW, SECRET, Api
from ..support.commands import database_uri, index_queue

MongoDb = Database[dict[str, Any]]
JOB_COUNT = 30_000
OWNER = "owner-1"
BIG_OWNER = str(ObjectId("65f0c0ffee0123456789abcd"))
STATUSES = ["succeeded"] * 93 + ["queued"] * 3 + ["failed", "dlq", "cancelled", "leased"]


@pytest.fixture(scope="module")
def large_db(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[MongoDb]:
    database = mongo["test_queries"]
    generator = random.Random(59)
    owners = [f"owner-{number}" for number in range(50)] + [ObjectId(BIG_OWNER)] * 50
    database.jobs.insert_many(
        {
            "jobId": str(number) if number < 20_000 else f"job-{number}",
            "type": f"type-{generator.randrange(8)}",
            "status": generator.choice(STATUSES),
            "createdBy": generator.choice(owners),
            "createdAt": NOW + timedelta(seconds=number // 3),
            "nextRunAt": NOW + timedelta(seconds=number),
            "leaseExpiresAt": NOW,
            "finishedAt": NOW + timedelta(seconds=number),
            "leasedBy": None if number % 10 else f"worker-{number // 10 % 4}",
            "lastError": {"code": ("E1", "E2", 11_000, None)[number % 4]},
            "payload": {"filler": "x" * 200},
        }
        for number in range(JOB_COUNT)
    )
    database.job_attempts.insert_many(
        {"jobId": str(number // 2), "attemptNumber": number % 2 + 1} for number in range(5_000)
    )
    index_queue(Settings(mongo_uri=database_uri(mongod, database)))
    yield database
    mongo.drop_database(database.name)


@pytest.fixture(scope="module")
def service(mongod: Mongod, large_db: MongoDb) -> Iterator[Api]:
    uri = database_uri(mongod, large_db)
    app = create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET, stats_ttl_ms=0))
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


@contextmanager
def profiled(database: MongoDb) -> Iterator[list[dict[str, Any]]]:
    """The profiler's entries of jobmon's commands in the block; empty until the block ends."""
    entries: list[dict[str, Any]] = []
    database.command("profile", 0)
    database["system.profile"].drop()
    database.command("profile", 2)
    try:
        yield entries
    finally:
        database.command("profile", 0)
        entries += database["system.profile"].find({"appName": "jobmon"})


def list_stages(plan: Any) -> Iterator[str]:
    """Every stage that an explained plan names, at any depth."""
    if isinstance(plan, dict):
        if "stage" in plan:
            yield plan["stage"]
        for inner in plan.values():
            yield from list_stages(inner)
    elif isinstance(plan, list):
        for inner in plan:
            yield from list_stages(inner)


def assert_cheap(
    database: MongoDb, entries: list[dict[str, Any]], by_id: bool = False, joined: int = 0
) -> None:
    """Fail if a command scanned a collection, sorted, or read two documents more than it returned.

    A count must read no document. With `by_id`, a command may read 1,000 jobs by the index on
    jobId, and sort them. `joined`: how many documents of a second collection it may read, too.
    """
    assert entries
    for entry in entries:
        command = entry["command"]
        if "explain" in command:
            assert command["explain"]["maxTimeMS"] == 5_000
            continue
        summary = f"{entry['planSummary']} {command}"
        assert "COLLSCAN" not in entry["planSummary"], summary
        assert command["maxTimeMS"] == 5_000, summary
        if by_id:
            scans = entry["planSummary"].split(", ")
            assert {scan.split(" ", 1)[1] for scan in scans} == {"{ jobId: 1 }"}, summary
            assert entry["docsExamined"] <= entry["keysExamined"] <= 1_001 + len(scans), summary
            continue
        assert not entry.get("hasSortStage"), summary
        if "count" in command:
            continue  # estimated_document_count reads metadata: it has no plan
        returned = entry["nreturned"]
        is_count = any("$group" in stage for stage in command.get("pipeline", []))
        assert entry["docsExamined"] <= (0 if is_count else returned + 1 + joined), summary
        # explain accepts neither lsid nor keys like $db.
        explained = {key: command[key] for key in command if key != "lsid" and key[0] != "$"}
        codec = database.codec_options
        plan = database.command("explain", explained, verbosity="queryPlanner", codec_options=codec)
        assert not {"COLLSCAN", "SORT"} & set(list_stages(plan)), summary


FILTERS: list[dict[str, Any]] = [
    {},
    {"status": "dlq"},
    {"status": ["dlq", "failed", "succeeded"]},
    {"type": "type-3"},
    {"type": ["type-1", "type-2"]},
    {"status": "succeeded", "type": "type-5"},
    {"status": ["queued", "succeeded", "dlq"], "type": [f"type-{number}" for number in range(8)]},
    {"status": "no such status"},
]


def make_query(filters: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    """The MongoDB query for the jobs that a list with these filters has."""
    query = {
        name: {"$in": values if isinstance(values, list) else [values]}
        for name, values in filters.items()
    }
    return query | ({} if owner is None else {"createdBy": {"$in": identity_values(owner)}})


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize(("path", "subject"), [("/admin/jobs/queue", OWNER), ("/jobs", BIG_OWNER)])
def test_a_list_by_status_and_type_reads_at_most_one_job_that_it_does_not_show(
    service: Api, large_db: MongoDb, path: str, subject: str, filters: dict[str, Any]
) -> None:
    token = service.token(subject, "admin")

    def get_page(**query: Any) -> dict[str, Any]:
        answer = service.get(path, token=token, per_page=50, **filters, **query)
        assert answer.status_code == 200
        return answer.json

    total = large_db.jobs.count_documents(make_query(filters, subject if path == "/jobs" else None))
    page_count = math.ceil(total / 50)
    with profiled(large_db) as entries:
        first = get_page()
        if path != "/jobs":  # the statistics have the totals of lists without an owner
            assert (first["meta"]["total"], first["meta"]["total_is_exact"]) == (total, True)
        if first["meta"]["next_cursor"]:
            second = get_page(cursor=first["meta"]["next_cursor"])
            assert get_page(page=2)["data"] == second["data"]
        last = get_page(page=max(1, page_count))
        assert len(last["data"]) == ((total - 1) % 50 + 1 if total else 0)
        assert last["meta"]["next_cursor"] is None
        if page_count > 2:
            previous = get_page(cursor=last["meta"]["prev_cursor"])
            assert previous["data"] == get_page(page=page_count - 1)["data"]
            assert get_page(cursor=previous["meta"]["next_cursor"])["data"] == last["data"]
    assert_cheap(large_db, entries)


START, END = NOW + timedelta(seconds=5_000), NOW + timedelta(seconds=9_000)
RANGE = {"created_from": to_iso(START), "created_to": to_iso(END)}
IN_RANGE = {"createdAt": {"$gte": START, "$lt": END}}
BY_BIG_OWNER = {"createdBy": ObjectId(BIG_OWNER)}
# The query parameters of a list, and a MongoDB query for the same jobs.
INDEXED_FILTERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (RANGE, IN_RANGE),
    ({"created_from": to_iso(END)}, {"createdAt": {"$gte": END}}),
    (
        RANGE | {"status": ["dlq", "succeeded"]},
        IN_RANGE | {"status": {"$in": ["dlq", "succeeded"]}},
    ),
    (RANGE | {"type": "type-3"}, IN_RANGE | {"type": "type-3"}),
    (
        {"created_to": to_iso(START), "status": "succeeded", "type": ["type-1", "type-2"]},
        {"createdAt": {"$lt": START}, "status": "succeeded", "type": {"$in": ["type-1", "type-2"]}},
    ),
    ({"owner": OWNER}, {"createdBy": OWNER}),
    ({"owner": BIG_OWNER, "type": "type-3"}, BY_BIG_OWNER | {"type": "type-3"}),
    (RANGE | {"owner": BIG_OWNER}, IN_RANGE | BY_BIG_OWNER),
    (
        RANGE | {"owner": BIG_OWNER, "status": ["queued", "succeeded"]},
        IN_RANGE | BY_BIG_OWNER | {"status": {"$in": ["queued", "succeeded"]}},
    ),
    ({"error_code": "E1"}, {"lastError.code": "E1"}),
    (RANGE | {"error_code": "11000"}, IN_RANGE | {"lastError.code": 11_000}),
    (
        RANGE | {"error_code": "E2", "status": ["dlq", "queued"], "type": "type-1"},
        IN_RANGE | {"lastError.code": "E2", "status": {"$in": ["dlq", "queued"]}, "type": "type-1"},
    ),
    ({"worker": "worker-3"}, {"leasedBy": "worker-3"}),
    (
        RANGE | {"worker": "worker-1", "status": ["leased", "succeeded"], "type": "type-1"},
        IN_RANGE
        | {
            "leasedBy": "worker-1",
            "status": {"$in": ["leased", "succeeded"]},
            "type": "type-1",
        },
    ),
]
ID_FILTERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"job_id": "job-212"}, {"jobId": {"$regex": "^job-212"}}),
    ({"job_id": "1234"}, {"jobId": {"$regex": "^1234"}}),
    (
        {"job_id": "job-22", "status": "succeeded", "type": "type-1", "owner": BIG_OWNER}
        | {"created_from": to_iso(NOW + timedelta(seconds=7_400))},
        {
            "jobId": {"$regex": "^job-22"},
            "status": "succeeded",
            "type": "type-1",
            "createdAt": {"$gte": NOW + timedelta(seconds=7_400)},
        }
        | BY_BIG_OWNER,
    ),
    (
        {"job_id": "job-22", "error_code": "E1"},
        {"jobId": {"$regex": "^job-22"}, "lastError.code": "E1"},
    ),
]


@pytest.mark.parametrize("sort", ["-createdAt", "createdAt"])
@pytest.mark.parametrize(("filters", "query"), INDEXED_FILTERS + ID_FILTERS, ids=str)
def test_a_filtered_list_reads_few_jobs_in_both_directions(
    service: Api, large_db: MongoDb, filters: dict[str, Any], query: dict[str, Any], sort: str
) -> None:
    direction = 1 if sort == "createdAt" else -1
    order = [("createdAt", direction), ("_id", direction)]
    expected = [job["jobId"] for job in large_db.jobs.find(query, ["jobId"]).sort(order)]

    def get_page(**position: Any) -> tuple[list[str], dict[str, Any]]:
        """The ids of a page, and its `meta`."""
        query = {"per_page": 3, "sort": sort, **filters, **position}
        answer = service.get_as_admin("/admin/jobs/queue", **query)
        assert answer.status_code == 200
        return [job["jobId"] for job in answer.json["data"]], answer.json["meta"]

    assert len(expected) > 9
    with profiled(large_db) as entries:
        ids, first_meta = get_page()
        assert ids == expected[:3]
        # No attempt names a worker, so jobs that this worker ran earlier may be missing.
        is_exact = len(expected) <= 10_000 and "worker" not in filters
        assert first_meta["total"] == min(len(expected), 10_000)
        assert first_meta["total_is_exact"] == is_exact
        ids, second_meta = get_page(cursor=first_meta["next_cursor"])
        assert ids == expected[3:6]
        ids, third_meta = get_page(page=3)
        assert ids == expected[6:9]
        ids, _ = get_page(cursor=third_meta["prev_cursor"])
        assert ids == expected[3:6]
        ids, _ = get_page(cursor=second_meta["prev_cursor"])
        assert ids == expected[:3]
    assert_cheap(large_db, entries, by_id="job_id" in filters)
    if "job_id" in filters:
        # One command reads a page. On a busy machine cached counts expire and are read again.
        aggregations = [entry for entry in entries if "aggregate" in entry["command"]]
        assert 5 <= len(aggregations) <= 3 * 5


@pytest.mark.parametrize("direction", [-1, 1])
def test_a_list_of_jobs_that_finished_in_one_minute_reads_only_these_jobs(
    service: Api, large_db: MongoDb, direction: int
) -> None:
    start, end = NOW + timedelta(seconds=20_000), NOW + timedelta(seconds=20_060)
    final = {"$in": ["succeeded", "dlq", "cancelled"]}
    query = {"finishedAt": {"$gte": start, "$lt": end}, "status": final}
    order = [("finishedAt", direction), ("_id", direction)]
    expected = [job["jobId"] for job in large_db.jobs.find(query, ["jobId"]).sort(order)]
    assert len(expected) > 40
    filters = {"finished_from": to_iso(start), "finished_to": to_iso(end), "per_page": 100}
    with profiled(large_db) as entries:
        sort = "finishedAt" if direction == 1 else "-finishedAt"
        answer = service.get_as_admin("/admin/jobs/queue", sort=sort, **filters).json
    assert [job["jobId"] for job in answer["data"]] == expected
    assert answer["meta"]["total"] == len(expected)
    assert_cheap(large_db, entries)
    assert max(entry.get("keysExamined", 0) for entry in entries) <= len(expected) + 10


def test_a_prefix_of_too_many_ids_is_refused(service: Api, large_db: MongoDb) -> None:
    with profiled(large_db) as entries:
        for answer_format in ("json", "csv"):
            answer = service.get_as_admin("/admin/jobs/queue", job_id="job-", format=answer_format)
            assert answer.status_code == 422
            assert answer.json["error"]["details"] == {
                "job_id": ["Matches more than 1,000 jobs: give more of the id."]
            }
    reads = [entry for entry in entries if "explain" not in entry["command"]]
    assert {(entry["keysExamined"], entry["docsExamined"]) for entry in reads} == {(1_001, 0)}
    answer = service.get_as_owner("/jobs", BIG_OWNER, job_id="job-")
    assert answer.status_code == 422
    # For an owner, only the owner's jobs are compared with the prefix.
    page = service.get_as_owner("/jobs", "nobody", job_id="job-").json
    assert (page["data"], page["meta"]["total"]) == ([], 0)
    assert service.get_as_admin("/admin/jobs/queue", job_id="job-2").status_code == 422
    assert service.get_as_admin("/admin/jobs/queue", job_id="job-22").json["meta"]["total"] == 1_000


def test_an_export_reads_each_job_once_in_batches(service: Api, large_db: MongoDb) -> None:
    query = IN_RANGE | BY_BIG_OWNER
    with profiled(large_db) as entries:
        answer = service.get_as_admin(
            "/admin/jobs/queue", owner=BIG_OWNER, sort="createdAt", format="ndjson", **RANGE
        )
        *rows, _ = map(json.loads, answer.text.splitlines())
        ids = [row["jobId"] for row in rows]
    jobs = large_db.jobs.find(query, ["jobId"]).sort([("createdAt", 1), ("_id", 1)])
    assert ids == [job["jobId"] for job in jobs]
    assert len(ids) > 5_000
    assert_cheap(large_db, entries)
    finds = [entry for entry in entries if "find" in entry["command"]]
    assert finds
    assert all("skip" not in entry["command"] for entry in finds)
    assert sum(entry["docsExamined"] for entry in finds) <= len(ids) + len(finds)


def test_one_command_reads_a_job_and_its_attempts_by_indexes(
    service: Api, large_db: MongoDb
) -> None:
    owner = str(large_db.jobs.find_one({"jobId": "7"})["createdBy"])
    for subject, role, status in (
        (owner, "user", 200),
        ("nobody", "user", 403),
        ("root", "admin", 200),
    ):
        with profiled(large_db) as entries:
            answer = service.get("/jobs/7", token=service.token(subject, role))
        assert answer.status_code == status
        assert_cheap(large_db, entries, joined=2 if status == 200 else 0)
        reads = [entry for entry in entries if "explain" not in entry["command"]]
        # For an owner, a second command reads whether another job has the same id.
        assert len(reads) == (2 if subject == owner else 1)
    assert [attempt["attemptNumber"] for attempt in answer.json["attempts"]] == [1, 2]


@pytest.mark.parametrize(
    ("job_filter", "oldest_first"),
    [
        (JobFilter(), False),
        (JobFilter(), True),
        (JobFilter(statuses=("succeeded",), types=("type-5",)), False),
        (JobFilter(owner=BIG_OWNER), False),
        (JobFilter(error_code="E1"), True),
    ],
)
def test_the_neighbors_of_a_job_are_found_without_reading_other_jobs(
    mongod: Mongod, large_db: MongoDb, job_filter: JobFilter, oldest_first: bool
) -> None:
    settings = Settings(mongo_uri=database_uri(mongod, large_db))
    connection = Connection(settings)
    with connection.client:
        lists, store = JobLists(ListPlanner(connection), Redactor()), JobStore(connection)
        first_page = lists.page(job_filter, per_page=3, oldest_first=oldest_first).jobs
        deep_page = lists.page(job_filter, page=50, per_page=3, oldest_first=oldest_first).jobs
        for job_id, expected in (
            (deep_page[1]["jobId"], [deep_page[0]["jobId"], deep_page[2]["jobId"]]),
            (first_page[0]["jobId"], [None, first_page[1]["jobId"]]),
        ):
            job = store.get_job(job_id)
            assert job is not None
            with profiled(large_db) as entries:
                neighbors = lists.find_neighbors(job, job_filter, oldest_first=oldest_first)
            assert neighbors is not None
            assert [neighbor and neighbor["jobId"] for neighbor in neighbors] == expected
            assert_cheap(large_db, entries)
        # A list by a prefix of the id is sorted in memory: no query finds the next job.
        assert lists.find_neighbors(job, JobFilter(job_id="1234")) is None


@pytest.mark.parametrize(("jobs_per_date", "query_count"), [(1, 1), (4, 2)])
def test_a_page_by_cursor_takes_one_query_unless_dates_repeat(
    mongod: Mongod, database: MongoDb, jobs_per_date: int, query_count: int
) -> None:
    """Catches a page that needs the cursor's job (52), which is deleted after the first read."""
    connection = Connection(Settings(mongo_uri=database_uri(mongod, database)))
    with connection.client:
        create_indexes(connection)
        database.jobs.insert_many(
            [
                {"jobId": str(number), "createdAt": NOW + timedelta(hours=number // jobs_per_date)}
                for number in range(60)
            ]
        )
        lists = JobLists(ListPlanner(connection), Redactor())
        first = lists.page(JobFilter(), per_page=8)
        assert first.next_cursor is not None
        expected = [str(number) for number in range(51, 43, -1)]
        for _ in range(2):
            with profiled(database) as entries:
                page = lists.page(JobFilter(), cursor=first.next_cursor, per_page=8)
            assert [job["jobId"] for job in page.jobs] == expected
            assert len([entry for entry in entries if "find" in entry["command"]]) == query_count
            database.jobs.delete_one({"jobId": "52"})


def test_stats_read_only_index_keys(service: Api, large_db: MongoDb) -> None:
    with profiled(large_db) as entries:
        stats = service.get_as_admin("/admin/jobs/stats").json
    assert stats["totalJobs"] == JOB_COUNT == sum(stats["statusCounts"].values())
    assert_cheap(large_db, entries)
    counts = [entry for entry in entries if "pipeline" in entry["command"]]
    assert any(entry["keysExamined"] >= JOB_COUNT for entry in counts)


def test_jobs_that_change_while_they_are_counted_are_counted_once(
    mongod: Mongod, database: MongoDb
) -> None:
    """Catches a job that is counted by its old status and again by its new status."""
    connection = Connection(Settings(mongo_uri=database_uri(mongod, database)))
    create_indexes(connection)
    database.jobs.insert_many(
        [{"_id": number, "jobId": str(number), "status": "dlq"} for number in range(3_000)]
    )
    stop = threading.Event()

    def change_statuses() -> None:
        while not stop.is_set():
            low = random.randrange(3_000)
            for status in ("succeeded", "dlq"):
                batch = {"_id": {"$gte": low, "$lt": low + 100}}
                database.jobs.update_many(batch, {"$set": {"status": status}})

    writers = [threading.Thread(target=change_statuses) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        stats = LiveStats(connection)
        assert {stats.count().total for _ in range(40)} == {3_000}
    finally:
        stop.set()
        for writer in writers:
            writer.join()
        connection.client.close()


@pytest.mark.parametrize(
    ("seconds", "is_known"), [(27_500, True), (2_500, True), (15_000, False), (-1, True)]
)
def test_due_and_scheduled_jobs_are_counted_if_few_are_due_or_few_are_scheduled(
    large_db: MongoDb,
    mongod: Mongod,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
    *,
    is_known: bool,
) -> None:
    """Catches a count that runs into its time limit when ten million jobs wait."""
    monkeypatch.setattr(live_stats, "MAX_COUNTED", 300)
    monkeypatch.setattr(live_stats, "MAX_OVERDUE_READ", 300)
    now = NOW + timedelta(seconds=seconds)
    waiting = {"status": {"$in": ["queued", "failed"]}}
    scheduled = large_db.jobs.count_documents({**waiting, "nextRunAt": {"$gt": now}})
    due = large_db.jobs.count_documents(waiting) - scheduled
    assert max(due, scheduled) > 300
    connection = Connection(Settings(mongo_uri=database_uri(mongod, large_db)))
    counts = LiveStats(connection).count().counts
    with profiled(large_db) as entries:
        health = LiveStats(connection).health(counts, now)
    connection.client.close()
    assert (health.due, health.scheduled) == ((due, scheduled) if is_known else (None, None))
    assert ("overdue_by_type" in health.unknown) == (due >= 300)
    assert_cheap(large_db, entries)
    assert max(entry.get("keysExamined", 0) for entry in entries) <= 300 + 2


def test_without_indexes_answers_are_correct_and_each_missing_index_is_logged_once(
    real_api: Api, database: MongoDb, caplog: pytest.LogCaptureFixture
) -> None:
    database.jobs.insert_many([{"jobId": str(number), "status": "dlq"} for number in range(3)])
    for _ in range(2):
        assert real_api.get_as_admin("/admin/jobs/queue", status="dlq").json["meta"]["total"] == 3
        assert real_api.get_as_admin("/admin/jobs/stats").json["statusCounts"]["dlq"] == 3
    warnings = [record.message for record in caplog.records if "no index on" in record.message]
    assert len(warnings) == len(set(warnings)) >= 3


def test_a_query_that_takes_too_long_is_a_503(service: Api, large_db: MongoDb) -> None:
    admin = large_db.client.admin
    timeouts = {"failCommands": ["find", "aggregate"], "errorCode": 50, "appName": "jobmon"}
    admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=timeouts)
    try:
        answer = service.get_as_admin("/admin/jobs/queue")
        assert answer.status_code == 503
        assert answer.json["error"]["code"] == "database_unavailable"
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        admin.command("configureFailPoint", "failCommand", mode="off")


def test_without_indexes_every_query_still_has_its_time_limit(
    real_api: Api, database: MongoDb
) -> None:
    database.jobs.insert_many(
        {
            "jobId": str(number),
            "status": "queued",
            "type": "t",
            "createdBy": OWNER,
            "createdAt": NOW + timedelta(seconds=number),
        }
        for number in range(5)
    )
    with profiled(database) as entries:
        for filters in ({}, {"status": "queued"}, {"type": "t"}, {"status": "queued", "type": "t"}):
            for path in ("/admin/jobs/queue", "/jobs"):
                token = real_api.token(OWNER, "admin")
                query = {**filters, "per_page": 2}
                first = real_api.get(path, token=token, **query).json
                cursor = first["meta"]["next_cursor"]
                second = real_api.get(path, token=token, **query, cursor=cursor).json
                assert [job["jobId"] for job in second["data"]] == ["2", "1"]
                assert second["meta"]["total"] == 5
        assert real_api.get_as_owner("/jobs/3", OWNER).status_code == 200
        assert real_api.get_as_admin("/admin/jobs/stats").json["totalJobs"] == 5
    commands = [entry["command"] for entry in entries]
    assert {"find", "aggregate"} <= {next(iter(command)) for command in commands}
    unlimited = [command for command in commands if command.get("maxTimeMS") != 5_000]
    assert unlimited == []
