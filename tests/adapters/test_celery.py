"""Celery's results in MongoDB, with and without `result_extended`: catches a wrong field, a task
that is missing from a list, a wrong count, a query that scans a collection, and any write."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.store.bson_json import to_iso

from ..dashboard.conftest import signed_in
from ..store.test_queries import profiled
from ..support.commands import database_uri
from ..support.queue_service import Answer, QueueService, drop_derived, init, temporary_database
from ..support.waiting import eventually

Ids = dict[str, str]
WORKER = "worker-1@shop"


class Result(NamedTuple):
    """A stored result: its task, jobmon's status, and the status and number of the last attempt."""

    task: str
    status: str
    outcome: str | None  # None: jobmon shows no attempt
    attempt_number: int


# The results of `celery_app.py`.
CASES = {
    "add": Result("add", "succeeded", "succeeded", 1),
    "refuse": Result("refuse", "dlq", "failed", 1),
    "retry": Result("retry", "failed", "failed", 1),
    "recover": Result("recover", "succeeded", "succeeded", 2),
    "run": Result("run", "leased", "running", 1),
    "progress": Result("progress", "PROGRESS", None, 1),
    "ignore": Result("ignore", "leased", "running", 1),  # Celery stores no end of an ignored task
    "reject": Result("reject", "dlq", "failed", 1),
    "expired": Result("add", "cancelled", None, 1),
    "first of a group": Result("add", "succeeded", "succeeded", 1),
    "second of a group": Result("add", "succeeded", "succeeded", 1),
    "start of a chain": Result("add", "succeeded", "succeeded", 1),
    "end of a chain": Result("add", "succeeded", "succeeded", 1),
}
ERRORS = {
    "refuse": ("ValueError", "The bank refused., 402"),
    "retry": ("TimeoutError", "The bank did not answer."),
    "reject": ("Reject", "Not for us., false"),
    "expired": ("TaskRevokedError", "expired"),
}
OWNERS = {"add": "ada", "refuse": "ada", "retry": "ada", "run": "ada"}
OWNERS |= {"recover": "bob", "progress": "bob"}
ARGS = {
    "add": [2, 3],
    "expired": [1, 1],
    "first of a group": [1, 1],
    "second of a group": [2, 2],
    "start of a chain": [1, 1],
    "end of a chain": [2, 2],
}


class Celery(QueueService):
    """The service over the documents that Celery wrote."""

    def __init__(self, mongod: Mongod, database: Any, is_extended: bool, ids: Ids) -> None:
        super().__init__(
            mongod,
            database,
            profile="celery",
            jobs_collection="celery_taskmeta",
            job_fields={"createdBy": "kwargs.user_id"},
        )
        self.is_extended, self.job_ids = is_extended, ids

    def find_document(self, case: str) -> Answer:
        document = self.database.celery_taskmeta.find_one({"_id": self.job_ids[case]})
        assert document is not None
        return document

    def list_cases(self, **query: Any) -> list[str]:
        """The cases in the list with this query, in the list's order."""
        cases = {job_id: case for case, job_id in self.job_ids.items()}
        return [cases[job_id] for job_id in self.list_ids(**query)]

    def list_expected_cases(self, matches: Callable[[str], bool] = lambda _: True) -> list[str]:
        """The cases that match, in a list's order: latest end first, cases without an end last."""
        ends = {case: self.find_document(case)["date_done"] for case in CASES if matches(case)}
        ended = sorted((end, self.job_ids[case], case) for case, end in ends.items() if end)
        unended = sorted((self.job_ids[case], case) for case, end in ends.items() if not end)
        return [sort_key[-1] for sort_key in ended[::-1] + unended[::-1]]


@pytest.fixture(scope="module", params=[True, False], ids=["extended", "not extended"])
def celery(
    request: pytest.FixtureRequest,
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    run_celery: Callable[[str, bool], Ids],
) -> Iterator[Celery]:
    with temporary_database(mongo) as database:
        uri = database_uri(mongod, database)
        ids = run_celery(uri, request.param)
        assert database.celery_taskmeta.find_one({"_id": ids.pop("forget")}) is None
        celery = Celery(mongod, database, request.param, ids)
        init(uri, PROFILE="celery", JOB_FIELDS="createdBy=kwargs.user_id")
        yield celery
        celery.close()


def make_expected_detail(celery: Celery, case: str) -> Answer:
    """The expected answer for a task: its document's fields by the rules of docs/adapters.md."""
    document = celery.find_document(case)
    name, status, outcome, number = CASES[case]
    ended = document["date_done"] and to_iso(document["date_done"])
    error = None
    if case in ERRORS:
        code, message = ERRORS[case]
        error = {"code": code, "message": message, "stack": document["traceback"]}
    worker = WORKER if celery.is_extended else None
    attempt = {
        "attemptNumber": number if celery.is_extended else None,
        "status": outcome,
        "workerId": worker,
        "eligibleAt": None,
        "startedAt": None,
        "finishedAt": ended,
        "waitMs": None,
        "durationMs": None,
        "error": error if outcome == "failed" else None,
    }
    kwargs = {"user_id": OWNERS[case]} if case in OWNERS else {}
    if OWNERS.get(case) == "ada":
        kwargs["api_key"] = "[redacted]"
    payload = {"args": ARGS.get(case, []), "kwargs": kwargs}
    reasons = {}
    if not celery.is_extended and outcome:  # the number of retries is not stored
        reasons = {"attempts": "the queue does not record every attempt"}
    if celery.is_extended and number > int(outcome is not None):
        reasons = {
            "attempts": "the queue does not record every attempt"
            if outcome
            else "the queue records only the number of attempts"
        }
    return {
        "jobId": celery.job_ids[case],
        "type": name if celery.is_extended else None,
        "status": status,
        "priority": None,
        "createdBy": OWNERS.get(case) if celery.is_extended else None,
        "createdAt": None,
        "updatedAt": ended,
        "nextRunAt": None,
        "maxAttempts": None,
        "attemptCount": number if celery.is_extended else int(outcome is not None),
        "leasedBy": worker if status == "leased" else None,
        "leaseExpiresAt": None,
        "finishedAt": ended,
        "lastError": error,
        "payload": payload if celery.is_extended else None,
        "attempts": [attempt] if outcome else [],
        "reasons": reasons,
        "isRecurring": None,
        "repetition": None,
    }


@pytest.mark.parametrize("case", CASES)
def test_every_field_of_a_task_equals_its_document(celery: Celery, case: str) -> None:
    detail = make_expected_detail(celery, case)
    answer = celery.get(f"/jobs/{celery.job_ids[case]}")
    drop_derived(answer)
    assert answer == detail
    if case == "refuse":
        assert 'raise ValueError("The bank refused.", 402)' in detail["lastError"]["stack"]
    (summary,) = celery.get("/admin/jobs/queue", job_id=celery.job_ids[case])["data"]
    error = detail["lastError"] and {
        name: detail["lastError"][name] for name in ("code", "message")
    }
    assert summary == {name: detail[name] for name in summary} | {"lastError": error}


def test_the_list_has_every_task_once_in_both_orders(celery: Celery) -> None:
    assert celery.list_cases() == celery.list_expected_cases()
    assert celery.list_cases(sort="createdAt") == celery.list_expected_cases()[::-1]


@pytest.mark.parametrize(
    "statuses",
    [
        ["queued"],
        ["leased"],
        ["succeeded"],
        ["failed"],
        ["dlq"],
        ["cancelled"],
        ["PROGRESS"],
        ["dlq", "cancelled", "PROGRESS"],
        ["SUCCESS"],  # a status of Celery, which jobmon maps to `succeeded`
    ],
    ids=str,
)
def test_a_status_list_has_the_tasks_of_that_status(celery: Celery, statuses: list[str]) -> None:
    cases = celery.list_expected_cases(lambda case: CASES[case].status in statuses)
    assert celery.list_cases(status=statuses) == cases
    assert celery.list_cases(status=statuses, sort="createdAt") == cases[::-1]


def test_filters_can_be_combined(celery: Celery) -> None:
    def list_tasks(*names: str) -> list[str]:
        return (
            celery.list_expected_cases(lambda case: CASES[case].task in names)
            if celery.is_extended
            else []
        )

    assert celery.list_cases(type=["add", "refuse"]) == list_tasks("add", "refuse")
    assert celery.list_cases(type=["add", "refuse"], status="dlq") == list_tasks("refuse")
    assert celery.list_cases(owner="bob") == list_tasks("recover", "progress")
    assert celery.list_cases(owner="bob", status="succeeded") == list_tasks("recover")
    assert celery.list_cases(owner="bob", status="succeeded", type="progress") == []
    refused = celery.api.get_as_admin("/admin/jobs/queue", error_code="ValueError")
    assert refused.status_code == 422  # Celery stores the error's code and message in one text
    assert list(refused.json["error"]["details"]) == ["error_code"]
    assert celery.list_cases(job_id=celery.job_ids["add"][:13]) == ["add"]


def test_a_creation_range_uses_the_end_of_tasks(celery: Celery) -> None:
    ended = [
        case for case in celery.list_expected_cases() if celery.find_document(case)["date_done"]
    ]
    middle = celery.find_document(ended[len(ended) // 2])["date_done"]
    newer = [case for case in ended if celery.find_document(case)["date_done"] >= middle]
    assert celery.list_cases(created_from=to_iso(middle)) == newer
    assert celery.list_cases(created_to=to_iso(middle)) == ended[len(newer) :]


def test_an_owner_sees_their_own_tasks_and_no_others(celery: Celery) -> None:
    listed = celery.api.get_as_owner("/jobs", "bob").json["data"]
    bobs_ids = (
        {celery.job_ids[case] for case in ("recover", "progress")} if celery.is_extended else set()
    )
    assert {job["jobId"] for job in listed} == bobs_ids
    for case in ("recover", "add"):
        answer = celery.api.get_as_owner(f"/jobs/{celery.job_ids[case]}", "bob")
        assert answer.status_code == (200 if celery.job_ids[case] in bobs_ids else 403)


def check_stats(celery: Celery, source: str) -> None:
    stats = celery.get("/admin/jobs/stats")
    assert stats["source"] == source
    assert stats["totalJobs"] == stats["estimatedTotalJobs"] == len(CASES)
    counts = {status: count for status, count in stats["statusCounts"].items() if count}
    assert counts == dict(Counter(result.status for result in CASES.values()))
    types = {result.task for result in CASES.values()} if celery.is_extended else {"null"}
    assert set(stats["typeCounts"]) == types
    # Celery does not store when a retry is due or when a lease expires. No stored task is queued.
    unknown = {"expiredLeases", "dueJobs", "scheduledJobs"}
    assert {name: stats[name] for name in unknown} == dict.fromkeys(unknown)
    assert (set(stats["reasons"]), stats["oldestQueuedJobAgeMs"]) == (unknown, 0)
    assert celery.activity() == {"enqueued": None, "succeeded": 6, "failed": 2, "dlq": 2}
    rows = {row["type"]: row for row in celery.get("/admin/jobs/types")["data"]}
    assert set(rows) == types
    if celery.is_extended:
        assert (rows["add"]["succeeded"], rows["refuse"]["dlq"]) == (5, 1)
        assert rows["add"]["runMs"]["p50"] is None  # Celery does not store the start


def test_live_counts_are_correct(celery: Celery) -> None:
    check_stats(celery, "live")


def test_counts_of_the_collector_are_correct(celery: Celery) -> None:
    with celery.running_collector():
        eventually(lambda: celery.activity()["succeeded"] == 6)
        check_stats(celery, "rollup")
        job_type = "progress" if celery.is_extended else "null"
        labels = f'{{status="PROGRESS",type="{job_type}"}}'
        assert celery.metric("jobmon_jobs")[labels] == 1
        eventually(lambda: 1 in celery.sampled_counts("PROGRESS"))


def test_init_creates_exactly_these_indexes(celery: Celery) -> None:
    index_names = {index["name"] for index in celery.database.celery_taskmeta.list_indexes()}
    owner_indexes = {
        "kwargs.user_id_1_date_done_-1__id_-1_name_1",
        "kwargs.user_id_1_status_1_date_done_-1__id_-1_name_1",
    }
    if not celery.is_extended:  # the results have no arguments
        owner_indexes = set()
    assert index_names == owner_indexes | {
        "_id_",
        "date_done_1",  # created by Celery
        "date_done_-1__id_-1",
        "status_1_date_done_-1__id_-1",
        "name_1_date_done_-1__id_-1",
        "status_1_name_1_date_done_-1__id_-1",
        "status_1_date_done_1__id_1",
        "name_1_status_1_date_done_1__id_1",
    }
    collections = set(celery.database.list_collection_names()) - {"system.profile"}
    assert collections == {"celery_taskmeta", "celery_groupmeta"}


def test_only_the_change_stream_scans_and_nothing_is_written(celery: Celery) -> None:
    hashes_before = celery.database.command("dbHash")["collections"]
    with profiled(celery.database) as entries:
        celery.list_cases()
        celery.list_cases(sort="createdAt")
        for status in ("queued", "leased", "succeeded", "failed", "dlq", "PROGRESS"):
            celery.list_cases(status=status)
        celery.list_cases(type=["add", "refuse"], status="dlq")
        celery.list_cases(owner="bob", status="succeeded")
        celery.get(f"/jobs/{celery.job_ids['add']}")
        celery.get("/admin/jobs/stats")
        celery.activity()
        with celery.running_collector():
            eventually(lambda: celery.activity()["succeeded"] == 6)
    assert entries
    for entry in entries:
        query = f"{entry.get('planSummary')} {entry['command']}"
        if entry["ns"].endswith(".system.profile"):
            continue
        assert entry["op"] in ("query", "command", "getmore"), query
        assert entry["ns"] == f"{celery.database.name}.celery_taskmeta", query
        opens_stream = "$changeStream" in (entry["command"].get("pipeline") or [{}])[0]
        is_stream = opens_stream or entry["op"] == "getmore"
        assert "COLLSCAN" not in entry.get("planSummary", "") or is_stream, query
    hashes_after = celery.database.command("dbHash")["collections"]
    assert {name: hashes_after[name] for name in hashes_before} == hashes_before


def test_the_pages_show_only_known_fields(celery: Celery) -> None:
    viewer = signed_in(celery.api)
    overview = viewer.page("/dashboard")
    assert "creation times unknown" in overview.text
    assert "1 PROGRESS" in overview.text
    assert "?status=PROGRESS" in " ".join(overview.addresses())
    columns = json.loads(viewer.get("/dashboard/charts?range=1h").text)
    assert set(columns["enqueued"]) == set(columns["waitP50"]) == {None}
    assert sum(count or 0 for count in columns["succeeded"]) == 6
    job_list = viewer.page("/dashboard/jobs")
    assert job_list.all("input", name="status", value="PROGRESS")
    assert "Error code" not in job_list.text  # the API refuses this filter
    assert len(job_list.all("a", **{"class": "row-link mono"})) == len(CASES)
    refused = viewer.page(f"/dashboard/jobs/{celery.job_ids['refuse']}")
    assert "The bank refused., 402" in refused.text
    assert "error_code" not in " ".join(refused.addresses())
    assert "waited" not in refused.text
    assert "hidden" not in refused.text
    running = viewer.page(f"/dashboard/jobs/{celery.job_ids['run']}")
    assert ("running on worker-1@shop" in running.text) == celery.is_extended
    assert "Lease expires" not in running.text
    revoked = viewer.page(f"/dashboard/jobs/{celery.job_ids['expired']}")
    assert "TaskRevokedError" in revoked.text
    assert "Cancelled" in revoked.text


def test_the_collector_counts_tasks_while_celery_runs_them(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], run_celery: Callable[[str, bool], Ids]
) -> None:
    with temporary_database(mongo) as database:
        queue = Celery(mongod, database, True, {})
        init(database_uri(mongod, database), "--create", PROFILE="celery")
        with queue.running_collector():
            run_celery(database_uri(mongod, database), True)
            counts = dict(Counter(result.status for result in CASES.values()))

            def are_correct() -> bool:
                status_counts = queue.get("/admin/jobs/stats")["statusCounts"]
                return {status: count for status, count in status_counts.items() if count} == counts

            eventually(are_correct)
            eventually(lambda: queue.activity()["succeeded"] == 6)
        queue.close()
