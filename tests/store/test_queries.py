"""The plan of every query on a request path, on the real server with 50,000 jobs: catches a
collection scan, an in-memory sort, a read that grows with the collection, a missing time limit."""

import json
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

JOBS = 50_000
OWNER = "owner-1"
BIG_OWNER = str(ObjectId("65f0c0ffee0123456789abcd"))
STATUSES = ["succeeded"] * 93 + ["queued"] * 3 + ["failed", "dlq", "cancelled", "leased"]


@pytest.fixture(scope="module")
def filled(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[Database[dict[str, Any]]]:
    database = mongo["test_queries"]
    pick = random.Random(59)
    owners = [f"owner-{number}" for number in range(50)] + [ObjectId(BIG_OWNER)] * 50
    database.jobs.insert_many(
        {
            "jobId": str(number) if number < 40_000 else f"job-{number}",
            "type": f"type-{pick.randrange(8)}",
            "status": pick.choice(STATUSES),
            "createdBy": pick.choice(owners),
            "createdAt": NOW + timedelta(seconds=number // 3),
            "nextRunAt": NOW + timedelta(seconds=number),
            "leaseExpiresAt": NOW,
            "finishedAt": NOW + timedelta(seconds=number),
            "leasedBy": None if number % 10 else f"worker-{number // 10 % 4}",
            "lastError": {"code": ("E1", "E2", 11_000, None)[number % 4]},
            "payload": {"filler": "x" * 200},
        }
        for number in range(JOBS)
    )
    database.job_attempts.insert_many(
        {"jobId": str(number // 2), "attemptNumber": number % 2 + 1} for number in range(5_000)
    )
    index_queue(Settings(mongo_uri=database_uri(mongod, database)))
    yield database
    mongo.drop_database(database.name)


@pytest.fixture(scope="module")
def served(mongod: Mongod, filled: Database[dict[str, Any]]) -> Iterator[Api]:
    uri = database_uri(mongod, filled)
    app = create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET, stats_ttl_ms=0))
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


@contextmanager
def profiled(database: Database[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The profiler's entries of jobmon's commands in the block; filled when the block ends."""
    entries: list[dict[str, Any]] = []
    database.command("profile", 0)
    database["system.profile"].drop()
    database.command("profile", 2)
    try:
        yield entries
    finally:
        database.command("profile", 0)
        entries += database["system.profile"].find({"appName": "jobmon"})


def stages(plan: Any) -> Iterator[str]:
    """Every stage that an explained plan names, at any depth."""
    if isinstance(plan, dict):
        if "stage" in plan:
            yield plan["stage"]
        for inner in plan.values():
            yield from stages(inner)
    elif isinstance(plan, list):
        for inner in plan:
            yield from stages(inner)


def assert_cheap(
    database: Database[dict[str, Any]],
    entries: list[dict[str, Any]],
    by_id: bool = False,
    joined: int = 0,
) -> None:
    """Each command read only what it returned; `by_id`, it may read 1,000 jobs and sort them.

    `joined`: how many documents of another collection it may return within its own.
    """
    assert entries
    for entry in entries:
        command = entry["command"]
        if "explain" in command:
            assert command["explain"]["maxTimeMS"] == 5_000
            continue
        shown = f"{entry['planSummary']} {command}"
        assert "COLLSCAN" not in entry["planSummary"], shown
        assert command["maxTimeMS"] == 5_000, shown
        if by_id:
            ranges = entry["planSummary"].split(", ")
            assert {scan.split(" ", 1)[1] for scan in ranges} == {"{ jobId: 1 }"}, shown
            assert entry["docsExamined"] <= entry["keysExamined"] <= 1_001 + len(ranges), shown
            continue
        assert not entry.get("hasSortStage"), shown
        if "count" in command:
            continue  # estimated_document_count: metadata, no plan
        returned = entry["nreturned"]
        counting = any("$group" in stage for stage in command.get("pipeline", []))
        assert entry["docsExamined"] <= (0 if counting else returned + 1 + joined), shown
        again = {key: command[key] for key in command if key[0] not in "$l" or key == "limit"}
        codec = database.codec_options
        plan = database.command("explain", again, verbosity="queryPlanner", codec_options=codec)
        assert not {"COLLSCAN", "SORT"} & set(stages(plan)), shown


FILTERS: list[dict[str, Any]] = [
    {},
    {"status": "dlq"},
    {"status": ["dlq", "failed", "succeeded"]},
    {"type": "type-3"},
    {"type": ["type-1", "type-2"]},
    {"status": "succeeded", "type": "type-5"},
    {"status": ["queued", "succeeded", "dlq"], "type": [f"type-{n}" for n in range(8)]},
    {"status": "no such status"},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize(
    ("path", "subject"),
    [("/admin/jobs/queue", OWNER), ("/jobs", OWNER), ("/jobs", BIG_OWNER)],
)
def test_every_list_reads_no_more_jobs_than_it_shows(
    served: Api, filled: Database[dict[str, Any]], path: str, subject: str, filters: dict[str, Any]
) -> None:
    token = served.token(subject, "admin")

    def ask(**more: Any) -> dict[str, Any]:
        answer = served.get(path, token=token, per_page=50, **filters, **more)
        assert answer.status_code == 200
        return answer.json

    total = filled.jobs.count_documents(make_query(filters, subject if path == "/jobs" else None))
    pages = -(-total // 50)
    with profiled(filled) as entries:
        first = ask()["meta"]
        if first["next_cursor"]:
            second = ask(cursor=first["next_cursor"])
            assert ask(page=2)["data"] == second["data"]
        last = ask(page=max(1, pages))
        assert len(last["data"]) == (total - 1) % 50 + 1 if total else not last["data"]
        assert last["meta"]["next_cursor"] is None
        if pages > 2:
            before = ask(cursor=last["meta"]["prev_cursor"])
            assert before["data"] == ask(page=pages - 1)["data"]
            assert ask(cursor=before["meta"]["next_cursor"])["data"] == last["data"]
    assert_cheap(filled, entries)


def make_query(filters: dict[str, Any], owner: str | None = None) -> dict[str, Any]:
    query = {
        name: {"$in": values if isinstance(values, list) else [values]}
        for name, values in filters.items()
    }
    return query | ({} if owner is None else {"createdBy": {"$in": identity_values(owner)}})


def moment(seconds: int) -> str:
    return to_iso(NOW + timedelta(seconds=seconds))


EARLY, LATE = NOW + timedelta(seconds=5_000), NOW + timedelta(seconds=9_000)
RANGE = {"created_from": to_iso(EARLY), "created_to": to_iso(LATE)}
WITHIN = {"createdAt": {"$gte": EARLY, "$lt": LATE}}
BY_BIG_OWNER = {"createdBy": ObjectId(BIG_OWNER)}
NARROWED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (RANGE, WITHIN),
    ({"created_from": to_iso(LATE)}, {"createdAt": {"$gte": LATE}}),
    (RANGE | {"status": ["dlq", "succeeded"]}, WITHIN | {"status": {"$in": ["dlq", "succeeded"]}}),
    (RANGE | {"type": "type-3"}, WITHIN | {"type": "type-3"}),
    (
        {"created_to": to_iso(EARLY), "status": "succeeded", "type": ["type-1", "type-2"]},
        {
            "createdAt": {"$lt": EARLY},
            "status": "succeeded",
            "type": {"$in": ["type-1", "type-2"]},
        },
    ),
    ({"owner": OWNER}, {"createdBy": OWNER}),
    ({"owner": BIG_OWNER, "type": "type-3"}, BY_BIG_OWNER | {"type": "type-3"}),
    (RANGE | {"owner": BIG_OWNER}, WITHIN | BY_BIG_OWNER),
    (
        RANGE | {"owner": BIG_OWNER, "status": ["queued", "succeeded"]},
        WITHIN | BY_BIG_OWNER | {"status": {"$in": ["queued", "succeeded"]}},
    ),
    ({"error_code": "E1"}, {"lastError.code": "E1"}),
    (RANGE | {"error_code": "11000"}, WITHIN | {"lastError.code": 11_000}),
    (
        RANGE | {"error_code": "E2", "status": ["dlq", "queued"], "type": "type-1"},
        WITHIN | {"lastError.code": "E2", "status": {"$in": ["dlq", "queued"]}, "type": "type-1"},
    ),
    ({"worker": "worker-3"}, {"leasedBy": "worker-3"}),
    (
        RANGE | {"worker": "worker-1", "status": ["leased", "succeeded"], "type": "type-1"},
        WITHIN
        | {
            "leasedBy": "worker-1",
            "status": {"$in": ["leased", "succeeded"]},
            "type": "type-1",
        },
    ),
]
BY_ID: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"job_id": "job-412"}, {"jobId": {"$regex": "^job-412"}}),
    ({"job_id": "1234"}, {"jobId": {"$regex": "^1234"}}),
    (
        {"job_id": "job-42", "status": "succeeded", "type": "type-1", "owner": BIG_OWNER}
        | {"created_from": moment(14_100)},
        {
            "jobId": {"$regex": "^job-42"},
            "status": "succeeded",
            "type": "type-1",
            "createdAt": {"$gte": NOW + timedelta(seconds=14_100)},
        }
        | BY_BIG_OWNER,
    ),
    (
        {"job_id": "job-42", "error_code": "E1"},
        {"jobId": {"$regex": "^job-42"}, "lastError.code": "E1"},
    ),
]


@pytest.mark.parametrize("sort", ["-createdAt", "createdAt"])
@pytest.mark.parametrize(("filters", "query"), NARROWED + BY_ID, ids=str)
def test_a_narrowed_list_reads_no_more_jobs_than_it_shows_in_both_directions(
    served: Api,
    filled: Database[dict[str, Any]],
    filters: dict[str, Any],
    query: dict[str, Any],
    sort: str,
) -> None:
    direction = 1 if sort == "createdAt" else -1
    found = filled.jobs.find(query, ["jobId"]).sort([("createdAt", direction), ("_id", direction)])
    expected = [job["jobId"] for job in found]

    def ask(**more: Any) -> tuple[list[str], dict[str, Any]]:
        query = {"per_page": 3, "sort": sort, **filters, **more}
        answer = served.get_as_admin("/admin/jobs/queue", **query)
        assert answer.status_code == 200
        return [job["jobId"] for job in answer.json["data"]], answer.json["meta"]

    assert len(expected) > 9
    with profiled(filled) as entries:
        shown, first = ask()
        assert shown == expected[:3]
        # The attempts name no worker: there may be earlier jobs of this worker.
        is_exact = len(expected) <= 10_000 and "worker" not in filters
        assert (first["total"], first["total_is_exact"]) == (min(len(expected), 10_000), is_exact)
        shown, second = ask(cursor=first["next_cursor"])
        assert shown == expected[3:6]
        shown, third = ask(page=3)
        assert shown == expected[6:9]
        shown, _ = ask(cursor=third["prev_cursor"])
        assert shown == expected[3:6]
        shown, _ = ask(cursor=second["prev_cursor"])
        assert shown == expected[:3]
    assert_cheap(filled, entries, by_id="job_id" in filters)
    if "job_id" in filters:  # a query for each page; matching ids and totals are kept for a while
        lists = [entry for entry in entries if "aggregate" in entry["command"]]
        assert 5 <= len(lists) <= 3 * 5  # on a busy machine, totals are counted again


@pytest.mark.parametrize("direction", [-1, 1])
def test_a_list_of_the_jobs_that_finished_in_a_minute_reads_only_these(
    served: Api, filled: Database[dict[str, Any]], direction: int
) -> None:
    start, end = NOW + timedelta(seconds=20_000), NOW + timedelta(seconds=20_060)
    ended = {"$in": ["succeeded", "dlq", "cancelled"]}
    query = {"finishedAt": {"$gte": start, "$lt": end}, "status": ended}
    order = [("finishedAt", direction), ("_id", direction)]
    found = filled.jobs.find(query, ["jobId"]).sort(order)
    expected = [job["jobId"] for job in found]
    assert len(expected) > 40
    filters = {"finished_from": to_iso(start), "finished_to": to_iso(end), "per_page": 100}
    with profiled(filled) as entries:
        sort = "finishedAt" if direction == 1 else "-finishedAt"
        answer = served.get_as_admin("/admin/jobs/queue", sort=sort, **filters).json
    assert [job["jobId"] for job in answer["data"]] == expected
    assert answer["meta"]["total"] == len(expected)
    assert_cheap(filled, entries)
    keys = (entry.get("keysExamined", 0) for entry in entries)
    assert max(keys) <= len(expected) + 10


def test_a_prefix_of_too_many_ids_is_refused(served: Api, filled: Database[dict[str, Any]]) -> None:
    with profiled(filled) as entries:
        for form in ("json", "csv"):
            answer = served.get_as_admin("/admin/jobs/queue", job_id="job-", format=form)
            assert answer.status_code == 422
            assert answer.json["error"]["details"] == {
                "job_id": ["Matches more than 1,000 jobs: give more of the id."]
            }
    read = [entry for entry in entries if "explain" not in entry["command"]]
    assert {(entry["keysExamined"], entry["docsExamined"]) for entry in read} == {(1_001, 0)}
    answer = served.get_as_owner("/jobs", BIG_OWNER, job_id="job-")
    assert answer.status_code == 422
    few = served.get_as_owner("/jobs", "nobody", job_id="job-").json  # compared one by one
    assert (few["data"], few["meta"]["total"]) == ([], 0)
    assert served.get_as_admin("/admin/jobs/queue", job_id="job-4").status_code == 422
    assert served.get_as_admin("/admin/jobs/queue", job_id="job-42").json["meta"]["total"] == 1_000


def test_an_export_reads_each_job_once_a_batch_at_a_time(
    served: Api, filled: Database[dict[str, Any]]
) -> None:
    query = WITHIN | BY_BIG_OWNER
    with profiled(filled) as entries:
        answer = served.get_as_admin(
            "/admin/jobs/queue", owner=BIG_OWNER, sort="createdAt", format="ndjson", **RANGE
        )
        *jobs, _ = map(json.loads, answer.text.splitlines())
        shown = [job["jobId"] for job in jobs]
    found = filled.jobs.find(query, ["jobId"]).sort([("createdAt", 1), ("_id", 1)])
    assert shown == [job["jobId"] for job in found]
    assert len(shown) > 5_000
    assert_cheap(filled, entries)
    finds = [entry for entry in entries if "find" in entry["command"]]
    assert all("skip" not in entry["command"] for entry in finds)
    assert sum(entry["docsExamined"] for entry in finds) <= len(shown) + len(finds)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_totals_are_exact_at_any_size(
    served: Api, filled: Database[dict[str, Any]], filters: dict[str, Any]
) -> None:
    meta = served.get_as_admin("/admin/jobs/queue", **filters).json["meta"]
    assert meta["total"] == filled.jobs.count_documents(make_query(filters))
    assert meta["total_is_exact"] is True


def test_a_job_is_found_by_its_index_with_its_attempts(
    served: Api, filled: Database[dict[str, Any]]
) -> None:
    owner = str(filled.jobs.find_one({"jobId": "7"})["createdBy"])
    for subject, role, status in (
        (owner, "user", 200),
        ("nobody", "user", 403),
        ("r", "admin", 200),
    ):
        with profiled(filled) as entries:
            answer = served.get("/jobs/7", token=served.token(subject, role))
        assert answer.status_code == status
        assert_cheap(filled, entries, joined=2 if status == 200 else 0)
        reads = [entry for entry in entries if "explain" not in entry["command"]]
        assert len(reads) == 1  # one command for both, which reads no attempts for a 403
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
def test_the_jobs_before_and_after_a_job_cost_a_read_each(
    mongod: Mongod, filled: Database[dict[str, Any]], job_filter: JobFilter, oldest_first: bool
) -> None:
    settings = Settings(mongo_uri=database_uri(mongod, filled))
    connection = Connection(settings)
    with connection.client:
        lists, store = JobLists(ListPlanner(connection), Redactor()), JobStore(connection)
        first = lists.page(job_filter, per_page=3, oldest_first=oldest_first).jobs
        middle = lists.page(job_filter, page=50, per_page=3, oldest_first=oldest_first).jobs
        for shown, position, expected in (
            (middle, 1, [middle[0]["jobId"], middle[2]["jobId"]]),
            (first, 0, [None, first[1]["jobId"]]),
        ):
            job = store.get_job(shown[position]["jobId"])
            assert job is not None
            with profiled(filled) as entries:
                found = lists.find_neighbors(job, job_filter, oldest_first=oldest_first)
            assert found is not None
            assert [neighbor and neighbor["jobId"] for neighbor in found] == expected
            assert_cheap(filled, entries)
        by_id = JobFilter(job_id="1234")  # sorted in memory: no query finds the jobs beyond a job
        assert lists.find_neighbors(job, by_id) is None


@pytest.mark.parametrize(("together", "finds"), [(1, 1), (4, 2)])
def test_a_page_by_cursor_takes_one_query_unless_dates_repeat(
    mongod: Mongod, database: Database[dict[str, Any]], together: int, finds: int
) -> None:
    """`together`: how many jobs have the same date. After the first read, job 52 is deleted."""
    connection = Connection(Settings(mongo_uri=database_uri(mongod, database)))
    with connection.client:
        create_indexes(connection)
        database.jobs.insert_many(
            [
                {"jobId": str(number), "createdAt": NOW + timedelta(hours=number // together)}
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
            assert len([entry for entry in entries if "find" in entry["command"]]) == finds
            database.jobs.delete_one({"jobId": "52"})


def test_stats_examine_keys_only(served: Api, filled: Database[dict[str, Any]]) -> None:
    with profiled(filled) as entries:
        stats = served.get_as_admin("/admin/jobs/stats").json
    assert stats["totalJobs"] == JOBS == sum(stats["statusCounts"].values())
    assert_cheap(filled, entries)
    groups = [entry for entry in entries if "pipeline" in entry["command"]]
    assert any(entry["keysExamined"] >= JOBS for entry in groups)


def test_jobs_that_change_while_they_are_counted_are_counted_once(
    mongod: Mongod, database: Database[dict[str, Any]]
) -> None:
    """Catches a job that is counted under its old status and again under its new one."""
    connection = Connection(Settings(mongo_uri=database_uri(mongod, database)))
    create_indexes(connection)
    database.jobs.insert_many(
        [{"_id": number, "jobId": str(number), "status": "dlq"} for number in range(3_000)]
    )
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            low = random.randrange(3_000)
            for status in ("succeeded", "dlq"):
                batch = {"_id": {"$gte": low, "$lt": low + 100}}
                database.jobs.update_many(batch, {"$set": {"status": status}})

    changing = [threading.Thread(target=change) for _ in range(3)]
    for thread in changing:
        thread.start()
    try:
        stats = LiveStats(connection)
        assert {stats.count().total for _ in range(40)} == {3_000}
    finally:
        stop.set()
        for thread in changing:
            thread.join()
        connection.client.close()


@pytest.mark.parametrize(
    ("second", "is_known"), [(47_500, True), (2_500, True), (25_000, False), (-1, True)]
)
def test_due_and_scheduled_jobs_are_counted_when_one_of_them_is_rare(
    filled: Database[dict[str, Any]],
    mongod: Mongod,
    monkeypatch: pytest.MonkeyPatch,
    second: int,
    *,
    is_known: bool,
) -> None:
    """Catches a count that runs into its time limit when ten million jobs wait."""
    monkeypatch.setattr(live_stats, "MAX_COUNTED", 300)
    monkeypatch.setattr(live_stats, "MAX_OVERDUE", 300)
    now = NOW + timedelta(seconds=second)
    waiting = {"status": {"$in": ["queued", "failed"]}}
    later = filled.jobs.count_documents({**waiting, "nextRunAt": {"$gt": now}})
    due = filled.jobs.count_documents(waiting) - later
    assert max(due, later) > 300
    connection = Connection(Settings(mongo_uri=database_uri(mongod, filled)))
    counts = LiveStats(connection).count().counts
    with profiled(filled) as entries:
        found = LiveStats(connection).health(counts, now)
    connection.client.close()
    assert (found.due, found.scheduled) == ((due, later) if is_known else (None, None))
    assert ("overdue_by_type" in found.unknown) == (due >= 300)
    assert_cheap(filled, entries)
    assert max(entry.get("keysExamined", 0) for entry in entries) <= 300 + 2


def test_without_indexes_the_answers_are_right_and_the_log_names_each_once(
    real_api: Api, database: Database[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    database.jobs.insert_many([{"jobId": str(n), "status": "dlq"} for n in range(3)])
    for _ in range(2):
        assert real_api.get_as_admin("/admin/jobs/queue", status="dlq").json["meta"]["total"] == 3
        assert real_api.get_as_admin("/admin/jobs/stats").json["statusCounts"]["dlq"] == 3
    named = [record.message for record in caplog.records if "no index on" in record.message]
    assert len(named) == len(set(named)) >= 3


def test_a_query_that_takes_too_long_is_a_503(
    served: Api, filled: Database[dict[str, Any]]
) -> None:
    admin = filled.client.admin
    slow = {"failCommands": ["find", "aggregate"], "errorCode": 50, "appName": "jobmon"}
    admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=slow)
    try:
        answer = served.get_as_admin("/admin/jobs/queue")
        assert answer.status_code == 503
        assert answer.json["error"]["code"] == "database_unavailable"
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        admin.command("configureFailPoint", "failCommand", mode="off")


def test_without_indexes_every_query_still_has_its_time_limit(
    real_api: Api, database: Database[dict[str, Any]]
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
                first = real_api.get(path, token=token, per_page=2, **filters).json["meta"]
                query = {**filters, "per_page": 2, "cursor": first["next_cursor"]}
                second = real_api.get(path, token=token, **query).json
                assert [job["jobId"] for job in second["data"]] == ["2", "1"]
                assert second["meta"]["total"] == 5
        assert real_api.get_as_owner("/jobs/3", OWNER).status_code == 200
        assert real_api.get_as_admin("/admin/jobs/stats").json["totalJobs"] == 5
    commands = [entry["command"] for entry in entries]
    assert {"find", "aggregate"} <= {next(iter(command)) for command in commands}
    unlimited = [command for command in commands if command.get("maxTimeMS") != 5_000]
    assert unlimited == []
