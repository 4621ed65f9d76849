"""A queue whose fields and statuses have other names, as in mongoose schemas: catches a query, a
count or a page that works only with the names of the contract."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from jobmon.collector import changes as changes_module
from jobmon.collector import run_counting
from jobmon.collector.changes import PolledChanges
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.bson_json import to_iso

from ..dashboard.conftest import signed_in
from ..store.test_queries import assert_cheap, profiled
from ..support.commands import database_uri
from ..support.queue_service import Answer, QueueService, drop_derived, init, temporary_database
from ..support.waiting import eventually

NOW = datetime.now(UTC).replace(microsecond=0)
JOB_COUNT = 40
JOB_STATUSES = {
    "pending": "queued",
    "running": "leased",
    "done": "succeeded",
    "retry": "failed",
    "failed": "dlq",  # this name has another meaning in the contract
    "paused": "paused",
}
STATES = list(JOB_STATUSES)
# Field names in snake case. The job id is a field of its own.
SNAKE_CASE = {
    "JOBS_COLLECTION": "tasks",
    "ATTEMPTS_COLLECTION": "task_runs",
    "JOB_FIELDS": "jobId=job_id,type=kind,status=state,payload=input,createdBy=input.user.id,"
    "createdAt=created_at,updatedAt=updated_at,nextRunAt=run_at,maxAttempts=max_tries,"
    "attemptCount=tries,leasedBy=lock.owner,leaseExpiresAt=lock.until,finishedAt=finished_at,"
    "lastError=error",
    "ATTEMPT_FIELDS": "jobId=job_id,attemptNumber=number,status=outcome,workerId=worker,"
    "startedAt=started_at,finishedAt=finished_at",
    "STATUS_NAMES": "pending=queued,running=leased,done=succeeded,retry=failed,failed=dlq",
    "ATTEMPT_STATUS_NAMES": "ok=succeeded",
}
# As above, but the job id is the ObjectId in `_id`, which also holds the creation time.
ID_AS_KEY = SNAKE_CASE | {
    "JOB_FIELDS": SNAKE_CASE["JOB_FIELDS"]
    .replace("jobId=job_id", "jobId=_id")
    .replace("createdAt=created_at", "createdAt=_id"),
    "ATTEMPT_FIELDS": SNAKE_CASE["ATTEMPT_FIELDS"].replace("jobId=job_id", "jobId=task"),
}
CASES = {"snake": SNAKE_CASE, "by id": ID_AS_KEY}


def make_task(number: int) -> Answer:
    """The task with this number: the next task is a second newer and has the next of six states."""
    created = NOW - timedelta(minutes=10) + timedelta(seconds=number)
    state = STATES[number % len(STATES)]
    error = {"code": f"E{number % 2}", "message": "The bank refused.", "stack": "at pay"}
    return {
        "_id": ObjectId(f"{int(created.timestamp()):08x}{'ab' * 6}{number:04x}"),
        "job_id": f"task-{number:04}",
        "kind": f"kind-{number % 3}",
        "state": state,
        "input": {"user": {"id": f"user-{number % 4}"}, "password": "hidden"},
        "priority": number,
        "created_at": created,
        "updated_at": created + timedelta(seconds=30),
        "run_at": created + timedelta(hours=1 if number % 2 else 0),
        "max_tries": 5,
        "tries": 1,
        "lock": {"owner": "w-1", "until": created + timedelta(seconds=40)}
        if state == "running"
        else {"owner": None, "until": None},
        "finished_at": created + timedelta(seconds=30) if state in ("done", "failed") else None,
        "error": error if state in ("retry", "failed") else None,
        # These names are fields of the contract, but have another meaning here.
        "status": "queued",
        "createdAt": "long ago",
        "type": 7,
    }


def make_attempt(number: int) -> Answer:
    """The only attempt of a task. Its `task` is the task's ObjectId, or this id as a text."""
    task = make_task(number)
    outcome = {"done": "ok", "retry": "failed", "failed": "failed"}.get(task["state"])
    started = task["created_at"] + timedelta(seconds=2)
    return {
        "job_id": task["job_id"],
        "task": task["_id"] if number % 2 else str(task["_id"]),
        "number": 1,
        "outcome": outcome or "running",
        "worker": "w-1",
        "started_at": started,
        "finished_at": started + timedelta(milliseconds=500) if outcome else None,
        "error": task["error"],
        "status": "a field with another meaning",
    }


class Tasks(QueueService):
    """The service over the tasks, with settings from these variables (without `JOBMON_`)."""

    def __init__(self, mongod: Mongod, database: Any, variables: dict[str, str]) -> None:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(f"JOBMON_{name}", value)
            settings = Settings.for_init("mongodb://db")
        names = ("jobs_collection", "attempts_collection", "job_fields", "attempt_fields")
        names += ("status_names", "attempt_status_names")
        super().__init__(mongod, database, **{name: getattr(settings, name) for name in names})
        self.tasks = [make_task(number) for number in range(JOB_COUNT)]
        self.has_object_ids = variables is ID_AS_KEY
        self.indexes: list[str] = []

    def get_job_id(self, task: Answer) -> str:
        return str(task["_id"]) if self.has_object_ids else task["job_id"]

    def list_newest_first(self, **fields: Any) -> list[str]:
        """The ids of the tasks with these fields, newest first."""
        return [
            self.get_job_id(task)
            for task in reversed(self.tasks)
            if all(task[name] == value for name, value in fields.items())
        ]


@pytest.fixture(scope="module", params=CASES)
def tasks(
    request: pytest.FixtureRequest, mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[Tasks]:
    variables = CASES[request.param]
    with temporary_database(mongo) as database:
        queue = Tasks(mongod, database, variables)
        database.tasks.insert_many(queue.tasks)
        runs = [
            make_attempt(number)
            for number in range(JOB_COUNT)
            if make_task(number)["state"] != "pending"
        ]
        database.task_runs.insert_many(runs)
        queue.indexes = init(database_uri(mongod, database), **variables)
        yield queue
        queue.close()


@pytest.mark.parametrize("number", range(6))
def test_every_field_of_a_job_is_read_from_its_path(tasks: Tasks, number: int) -> None:
    task = make_task(number)
    status = JOB_STATUSES[task["state"]]
    run = make_attempt(number)
    attempts = [
        {
            "attemptNumber": 1,
            "status": {"ok": "succeeded"}.get(run["outcome"], run["outcome"]),
            "workerId": "w-1",
            "eligibleAt": None,
            "startedAt": to_iso(run["started_at"]),
            "finishedAt": run["finished_at"] and to_iso(run["finished_at"]),
            "waitMs": None,
            "durationMs": 500 if run["finished_at"] else None,
            "error": run["error"],
        }
    ]
    detail = {
        "jobId": tasks.get_job_id(task),
        "type": task["kind"],
        "status": status,
        "priority": number,
        "createdBy": f"user-{number % 4}",
        "createdAt": to_iso(task["created_at"]),
        "updatedAt": to_iso(task["updated_at"]),
        "nextRunAt": to_iso(task["run_at"]),
        "maxAttempts": 5,
        "attemptCount": 1,
        "leasedBy": task["lock"]["owner"],
        "leaseExpiresAt": task["lock"]["until"] and to_iso(task["lock"]["until"]),
        "finishedAt": task["finished_at"] and to_iso(task["finished_at"]),
        "lastError": task["error"],
        "payload": {"user": {"id": f"user-{number % 4}"}, "password": "[redacted]"},
        "attempts": [] if task["state"] == "pending" else attempts,
    }
    reasons = {"attempts": "the queue records only the number of attempts"}
    detail |= {"reasons": {} if detail["attempts"] else reasons}
    detail |= {"isRecurring": None, "repetition": None}
    answer = tasks.get(f"/jobs/{detail['jobId']}")
    explanation = answer["explanation"]
    drop_derived(answer)
    assert answer == detail
    code, since, until = {
        "pending": ("waiting", detail["nextRunAt"], None),
        "running": ("lease_expired", detail["leaseExpiresAt"], None),
        "done": ("succeeded", detail["finishedAt"], None),
        "retry": ("retry_scheduled", None, detail["nextRunAt"]),
        "failed": ("dead", detail["finishedAt"], None),
        "paused": ("other_status", None, None),
    }[task["state"]]
    assert (explanation["code"], explanation["since"], explanation["until"]) == (code, since, until)
    if code == "waiting":
        reason = "it is unknown in which order the workers take jobs"
        assert (explanation["ahead"], explanation["reasons"]["ahead"]) == (None, reason)
    (summary,) = tasks.get("/admin/jobs/queue", job_id=detail["jobId"])["data"]
    error = task["error"] and {name: task["error"][name] for name in ("code", "message")}
    assert summary == {name: detail[name] for name in summary} | {"lastError": error}


def test_lists_have_the_filtered_jobs_in_order(tasks: Tasks) -> None:
    assert tasks.list_ids() == tasks.list_newest_first()
    assert tasks.list_ids(sort="createdAt") == tasks.list_newest_first()[::-1]
    for state, status in JOB_STATUSES.items():
        assert tasks.list_ids(status=status) == tasks.list_newest_first(state=state)
    oldest_first = tasks.list_newest_first(state=state)[::-1]
    assert tasks.list_ids(status=status, sort="createdAt") == oldest_first
    assert tasks.list_ids(status="pending") == []  # the queue's name for `queued`
    assert tasks.list_ids(type="kind-1") == tasks.list_newest_first(kind="kind-1")
    dead_lettered = tasks.list_newest_first(kind="kind-1", state="failed")
    assert dead_lettered
    assert tasks.list_ids(type="kind-1", status="dlq") == dead_lettered
    assert len(tasks.list_ids(owner="user-1")) == 10
    assert len(tasks.list_ids(owner="user-1", status=["dlq", "succeeded", "failed"])) > 0
    assert len(tasks.list_ids(error_code="E1")) == len(
        [task for task in tasks.tasks if task["error"] and task["error"]["code"] == "E1"]
    )
    ids_with_attempt = [
        tasks.get_job_id(task) for task in reversed(tasks.tasks) if task["state"] != "pending"
    ]
    assert tasks.list_ids(worker="w-1") == ids_with_attempt


def test_a_creation_range_uses_the_path_of_createdat(tasks: Tasks) -> None:
    middle = tasks.tasks[20]["created_at"]
    newer, older = tasks.list_newest_first()[:20], tasks.list_newest_first()[20:]
    assert tasks.list_ids(created_from=to_iso(middle)) == newer
    assert tasks.list_ids(created_to=to_iso(middle)) == older
    start = to_iso(middle - timedelta(seconds=2))
    assert tasks.list_ids(created_from=start, created_to=to_iso(middle)) == older[:2]


def test_an_owner_sees_their_own_jobs_and_no_others(tasks: Tasks) -> None:
    jobs = tasks.api.get_as_owner("/jobs", "user-1", per_page=100).json["data"]
    assert len(jobs) == 10
    assert {job["createdBy"] for job in jobs} == {"user-1"}
    for number, status in ((1, 200), (2, 403)):
        path = f"/jobs/{tasks.get_job_id(make_task(number))}"
        assert tasks.api.get_as_owner(path, "user-1").status_code == status


def check_stats(tasks: Tasks, source: str) -> None:
    stats = tasks.get("/admin/jobs/stats")
    assert stats["source"] == source
    counts = Counter(JOB_STATUSES[task["state"]] for task in tasks.tasks)
    assert {status: count for status, count in stats["statusCounts"].items() if count} == counts
    assert set(stats["typeCounts"]) == {"kind-0", "kind-1", "kind-2"}
    waiting = [task for task in tasks.tasks if task["state"] in ("pending", "retry")]
    assert stats["scheduledJobs"] == len([task for task in waiting if task["run_at"] > NOW])
    assert stats["dueJobs"] == len(waiting) - stats["scheduledJobs"]
    assert stats["expiredLeases"] == counts["leased"]
    age_ms = (datetime.now(UTC) - tasks.tasks[0]["created_at"]) / timedelta(milliseconds=1)
    assert stats["oldestQueuedJobAgeMs"] == pytest.approx(age_ms, abs=10_000)
    assert tasks.activity() == {
        "enqueued": JOB_COUNT,
        "succeeded": counts["succeeded"],
        "failed": counts["failed"] + counts["dlq"],
        "dlq": counts["dlq"],
    }
    rows = {row["type"]: row for row in tasks.get("/admin/jobs/types")["data"]}
    assert set(rows) == {"kind-0", "kind-1", "kind-2"}
    assert rows["kind-2"]["runMs"]["p50"] == pytest.approx(500, rel=0.05)
    # The wait begins when the job is created; the query joins the job to its attempt.
    assert rows["kind-2"]["waitMs"]["p50"] == pytest.approx(2_000, rel=0.05)


def test_live_counts_are_correct(tasks: Tasks) -> None:
    check_stats(tasks, "live")


@pytest.mark.parametrize("changes", ["streamed", "polled"])
def test_counts_of_the_collector_are_correct(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, changes: str
) -> None:
    if changes == "polled":
        open_polled = lambda jobs, _, stop, **__: PolledChanges(jobs, stop)  # noqa: E731
        for module in (changes_module, run_counting):
            monkeypatch.setattr(module, "open_changes", open_polled)
        monkeypatch.setattr(changes_module, "SWEEP_S", 100_000.0)  # no sweeps in this test
        tasks.database.tasks.create_index("updated_at")
        request.addfinalizer(lambda: tasks.database.tasks.drop_index("updated_at_1"))
    with tasks.running_collector():
        eventually(lambda: tasks.activity()["enqueued"] == JOB_COUNT)
        check_stats(tasks, "rollup")
        task = tasks.database.tasks.find_one({"state": "pending"})
        queued = tasks.get("/admin/jobs/stats")["statusCounts"]["queued"]
        for state, expected in (("running", queued - 1), ("pending", queued)):
            values = {"state": state, "updated_at": datetime.now(UTC)}
            tasks.database.tasks.update_one({"_id": task["_id"]}, {"$set": values})
            eventually(
                lambda expected=expected: (
                    tasks.get("/admin/jobs/stats")["statusCounts"]["queued"] == expected
                )
            )
        restored = {"$set": {"updated_at": task["updated_at"]}}
        tasks.database.tasks.update_one({"_id": task["_id"]}, restored)


INDEXES = {
    "snake": [
        "tasks(job_id)",
        "tasks(-created_at, -_id)",
        "tasks(state, -created_at, -_id)",
        "tasks(kind, -created_at, -_id)",
        "tasks(state, kind, -created_at, -_id)",
        "tasks(input.user.id, -created_at, -_id, kind)",
        "tasks(input.user.id, state, -created_at, -_id, kind)",
        "tasks(error.code, -created_at, -_id, state, kind)",
        "tasks(state, lock.until)",
        "tasks(state, run_at, _id, kind)",
        "tasks(state, finished_at, _id)",
        "task_runs(job_id, number)",
        "task_runs(finished_at)",
        "task_runs(worker, started_at)",
        "tasks(lock.owner, -created_at, -_id, state, kind)",
        "tasks(tries, -created_at, -_id, state, kind)",
        "tasks(kind, state, finished_at, _id)",
        "tasks(error.code, finished_at, _id, state, kind)",
    ],
    "by id": [
        "tasks(state, -_id)",
        "tasks(kind, -_id)",
        "tasks(state, kind, -_id)",
        "tasks(input.user.id, -_id, kind)",
        "tasks(input.user.id, state, -_id, kind)",
        "tasks(error.code, -_id, state, kind)",
        "tasks(state, lock.until)",
        "tasks(state, run_at, _id, kind)",
        "tasks(state, finished_at, _id)",
        "task_runs(task, number)",
        "task_runs(finished_at)",
        "task_runs(worker, started_at)",
        "tasks(lock.owner, -_id, state, kind)",
        "tasks(tries, -_id, state, kind)",
        "tasks(kind, state, finished_at, _id)",
        "tasks(error.code, finished_at, _id, state, kind)",
    ],
}


def test_init_creates_exactly_these_indexes(tasks: Tasks) -> None:
    assert tasks.indexes == INDEXES["by id" if tasks.has_object_ids else "snake"]
    created = sum(
        len(list(tasks.database[name].list_indexes())) - 1 for name in ("tasks", "task_runs")
    )
    assert created == len(tasks.indexes)


def test_queries_use_their_indexes_and_nothing_is_written(tasks: Tasks) -> None:
    hashes_before = tasks.database.command("dbHash")["collections"]
    hashes_before.pop("system.profile", None)
    with profiled(tasks.database) as entries:
        for query in (
            {},
            {"sort": "createdAt"},
            {"status": "dlq"},
            {"status": ["dlq", "succeeded"], "type": ["kind-1", "kind-2"]},
            {"type": "kind-1"},
            {"owner": "user-1"},
            {"owner": "user-1", "status": "dlq"},
            {"error_code": "E1", "status": "dlq"},
            {"type": "kind-*", "status": "dlq"},
            {"finished_from": to_iso(NOW - timedelta(days=9)), "type": "kind-1"},
            {"status": ["queued", "failed"], "sort": "-nextRunAt"},
            {"created_from": to_iso(tasks.tasks[5]["created_at"]), "status": "queued"},
        ):
            page = tasks.get("/admin/jobs/queue", per_page=2, **query)
            tasks.get("/admin/jobs/queue", per_page=2, cursor=page["meta"]["next_cursor"], **query)
        tasks.get(f"/jobs/{tasks.get_job_id(make_task(1))}")
    queries = [entry for entry in entries if not entry["ns"].endswith("system.profile")]
    assert_cheap(tasks.database, queries)
    with tasks.running_collector():
        eventually(lambda: tasks.activity()["enqueued"] == JOB_COUNT)
    hashes_after = tasks.database.command("dbHash")["collections"]
    assert {name: hashes_after[name] for name in hashes_before} == hashes_before


def test_the_pages_show_the_mapped_fields(tasks: Tasks) -> None:
    viewer = signed_in(tasks.api)
    assert "kind-1" in viewer.page("/dashboard").text
    job_list = viewer.page("/dashboard/jobs?status=dlq")
    assert len(job_list.all("a", **{"class": "row-link mono"})) == len(
        tasks.list_newest_first(state="failed")
    )
    page = viewer.page(f"/dashboard/jobs/{tasks.get_job_id(make_task(2))}")
    assert "Attempt 1" in page.text
    assert "succeeded on w-1" in page.text
    assert "hidden" not in page.text


def test_the_id_of_an_attempt_can_be_the_id_of_its_job(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> None:
    """Catches a 500 for a job whose attempts have its id as their `_id`."""
    now = datetime.now(UTC)
    with temporary_database(mongo) as database:
        queue = QueueService(mongod, database, attempt_fields={"jobId": "_id"})
        database.jobs.insert_one(
            {"jobId": "j", "type": "mail", "status": "leased", "createdAt": now}
        )
        database.job_attempts.insert_one(
            {"_id": "j", "attemptNumber": 1, "status": "succeeded", "finishedAt": now}
        )
        init(database_uri(mongod, database), ATTEMPT_FIELDS="jobId=_id")
        (attempt,) = queue.get("/jobs/j")["attempts"]
        assert attempt["status"] == "succeeded"
        (mail,) = queue.get("/admin/jobs/types")["data"]
        assert (mail["type"], mail["succeeded"]) == ("mail", 1)
        queue.close()
