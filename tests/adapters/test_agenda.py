"""Documents that two versions of Agenda wrote: catches a wrong field, a job that is missing from a
list, a wrong count, a query that scans a collection, and any write."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.store.bson_json import to_iso
from jobmon.store.mapping import Document

from ..dashboard.conftest import signed_in
from ..store.test_queries import profiled
from ..support.commands import database_uri
from ..support.queue_service import (
    Answer,
    MongoDb,
    QueueService,
    drop_derived,
    init,
    temporary_database,
)
from ..support.waiting import eventually

Ids = dict[str, str]

# The jobs of `agenda.mjs` by name: the status that jobmon shows, and the number of known attempts.
CASES = {
    "succeeds": ("succeeded", 1),
    "fails": ("dlq", 1),
    "retries": ("failed", 1),
    "is dead": ("dlq", 2),
    "recovers": ("succeeded", 2),
    "repeats": ("queued", 1),
    "repeats and fails": ("failed", 1),
    "runs": ("leased", 1),
    "due": ("queued", 0),
    "scheduled": ("queued", 0),
    "disabled": ("disabled", 0),
    "unscheduled": ("unscheduled", 0),
    "interrupted": ("leased", 1),
}
# When version 5 stops, it unlocks its running jobs and does not schedule them again.
CASES_BY_VERSION = {"5": CASES | {"interrupted": ("unscheduled", 1)}, "6": CASES}
OWNERS = dict.fromkeys(CASES, "ada") | {
    "is dead": "bob",
    "recovers": "bob",
    "repeats and fails": None,
}
SETTINGS: dict[str, Any] = {
    "profile": "agenda",
    "jobs_collection": "agendaJobs",
    "job_fields": {"createdBy": "data.user.id"},
}


class AgendaQueue(QueueService):
    """The service over the documents that Agenda wrote."""

    def __init__(self, mongod: Mongod, database: MongoDb, version: str, ids: Ids) -> None:
        super().__init__(mongod, database, **SETTINGS)
        self.version, self.job_ids = version, ids
        self.cases = CASES_BY_VERSION[version]

    def find_document(self, case: str) -> Document:
        document = self.database.agendaJobs.find_one({"name": case})
        assert document is not None
        return document

    def list_cases(self, **query: Any) -> list[str]:
        """The cases in the list with this query, in the list's order."""
        cases = {job_id: case for case, job_id in self.job_ids.items()}
        return [cases[job_id] for job_id in self.list_ids(**query)]

    def list_cases_by_status(self, *statuses: str) -> list[str]:
        """The cases with these statuses, newest first."""
        cases = sorted(self.job_ids, key=lambda case: self.job_ids[case], reverse=True)
        return [case for case in cases if self.cases[case][0] in statuses]


@pytest.fixture(scope="module", params=[pytest.param("5", marks=pytest.mark.long), "6"])
def agenda_queue(
    request: pytest.FixtureRequest,
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    run_agenda: Callable[[str, str], Ids],
) -> Iterator[AgendaQueue]:
    with temporary_database(mongo) as database:
        uri = database_uri(mongod, database)
        agenda_queue = AgendaQueue(mongod, database, request.param, run_agenda(request.param, uri))
        init(uri, PROFILE="agenda", JOB_FIELDS="createdBy=data.user.id")
        yield agenda_queue
        agenda_queue.close()


def make_expected_detail(agenda_queue: AgendaQueue, case: str) -> Answer:
    """The expected answer for a job: its document's fields by the rules of docs/adapters.md."""
    document = agenda_queue.find_document(case)
    status, count = agenda_queue.cases[case]
    dates = {name: to_iso(value) for name, value in document.items() if hasattr(value, "year")}
    is_leased, has_finished = status == "leased", status in ("succeeded", "dlq")
    error = None
    if document.get("failedAt"):
        error = {"code": None, "message": "The bank refused.", "stack": None}
    attempts = []
    if document.get("lastRunAt"):
        ended, run_ms = document.get("lastFinishedAt"), None
        if ended:
            outcome = "failed" if document.get("failedAt") == ended else "succeeded"
            run_ms = round((ended - document["lastRunAt"]) / timedelta(milliseconds=1))
        else:
            outcome = "running" if is_leased else "expired"
        attempts = [
            {
                "attemptNumber": None,
                "status": outcome,
                "workerId": "worker-2" if case == "interrupted" else "worker-1",
                "eligibleAt": None,
                "startedAt": dates["lastRunAt"],
                "finishedAt": dates.get("lastFinishedAt"),
                "waitMs": None,
                "durationMs": run_ms,
                "error": error if outcome == "failed" else None,
            }
        ]
    payload = document["data"] and {
        name: "[redacted]" if name == "apiKey" else value
        for name, value in document["data"].items()
    }
    reasons = {}
    is_recurring = case.startswith("repeats")
    if attempts and (is_recurring or count > 1):
        reasons = {"attempts": "the queue does not record every attempt"}
    expires_at = to_iso(document["lockedAt"] + timedelta(minutes=10)) if is_leased else None
    return {
        "jobId": str(document["_id"]),
        "type": case,
        "status": status,
        "priority": 10 if case == "runs" else 0,
        "createdBy": OWNERS[case],
        "createdAt": to_iso(document["_id"].generation_time),
        "updatedAt": None,
        "nextRunAt": dates.get("nextRunAt"),
        "maxAttempts": None,
        "attemptCount": count,
        "leasedBy": attempts[0]["workerId"] if is_leased else None,
        "leaseExpiresAt": expires_at,
        "finishedAt": dates["lastFinishedAt"] if has_finished else None,
        "lastError": error,
        "payload": payload,
        "attempts": attempts,
        "reasons": reasons,
        "isRecurring": is_recurring,
    }


@pytest.mark.parametrize("case", CASES)
def test_every_field_of_a_job_equals_its_document(agenda_queue: AgendaQueue, case: str) -> None:
    detail = make_expected_detail(agenda_queue, case)
    answer = agenda_queue.get(f"/jobs/{agenda_queue.job_ids[case]}")
    drop_derived(answer)
    assert (answer.pop("repetition") is not None) is detail["isRecurring"]
    assert answer == detail
    (summary,) = agenda_queue.get("/admin/jobs/queue", type=case)["data"]
    assert summary == {name: detail[name] for name in summary} | {
        "lastError": detail["lastError"] and {"code": None, "message": "The bank refused."}
    }


def test_the_list_has_every_job_once_in_both_orders(agenda_queue: AgendaQueue) -> None:
    newest_first = sorted(agenda_queue.job_ids.values(), reverse=True)
    assert agenda_queue.list_ids() == newest_first
    assert agenda_queue.list_ids(sort="createdAt") == newest_first[::-1]


@pytest.mark.parametrize(
    "statuses",
    [
        ["queued"],
        ["leased"],
        ["succeeded"],
        ["failed"],
        ["dlq"],
        ["cancelled"],
        ["disabled"],
        ["unscheduled"],
        ["failed", "dlq"],
        ["queued", "disabled"],
        ["no such status"],
    ],
    ids=str,
)
def test_a_status_list_has_the_jobs_of_that_status(
    agenda_queue: AgendaQueue, statuses: list[str]
) -> None:
    assert agenda_queue.list_cases(status=statuses) == agenda_queue.list_cases_by_status(*statuses)
    oldest_first = agenda_queue.list_cases_by_status(*statuses)[::-1]
    assert agenda_queue.list_cases(status=statuses, sort="createdAt") == oldest_first


def test_filters_can_be_combined(agenda_queue: AgendaQueue) -> None:
    assert agenda_queue.list_cases(type=["due", "fails"]) == ["due", "fails"]
    assert agenda_queue.list_cases(type=["due", "fails"], status="dlq") == ["fails"]
    bobs = [
        case
        for case in agenda_queue.list_cases_by_status("dlq", "succeeded")
        if OWNERS[case] == "bob"
    ]
    assert agenda_queue.list_cases(owner="bob") == bobs
    assert agenda_queue.list_cases(owner="bob", status="dlq") == ["is dead"]
    assert agenda_queue.list_cases(owner="bob", status="dlq", type="fails") == []
    assert agenda_queue.list_cases(owner="carol") == []
    refused = agenda_queue.api.get_as_admin("/admin/jobs/queue", error_code="ETIMEDOUT")
    assert refused.status_code == 422  # Agenda stores no error code
    runs = agenda_queue.job_ids["runs"]
    assert agenda_queue.list_cases(job_id=runs) == ["runs"]
    seconds = runs[:8]  # the first 8 digits of an ObjectId are the time of its creation
    assert agenda_queue.list_ids(job_id=seconds)
    assert agenda_queue.list_cases(job_id=runs[:-1] + "z") == []


def test_a_creation_range_uses_the_time_in_the_ids(agenda_queue: AgendaQueue) -> None:
    created = {case: agenda_queue.find_document(case)["_id"].generation_time for case in CASES}
    middle = sorted(created.values())[len(created) // 2]
    newer = agenda_queue.list_cases(created_from=to_iso(middle))
    older = agenda_queue.list_cases(created_to=to_iso(middle))
    assert sorted(newer) == sorted(case for case in created if created[case] >= middle)
    assert sorted(older) == sorted(case for case in created if created[case] < middle)
    until = middle + timedelta(milliseconds=1)
    assert set(agenda_queue.list_cases(created_from=to_iso(middle), created_to=to_iso(until))) == {
        case for case in created if created[case] == middle
    }


def test_an_owner_sees_their_own_jobs_and_no_others(agenda_queue: AgendaQueue) -> None:
    bobs_jobs = agenda_queue.api.get_as_owner("/jobs", "bob").json["data"]
    assert {job["type"] for job in bobs_jobs} == {"is dead", "recovers"}
    assert (
        agenda_queue.api.get_as_owner(
            f"/jobs/{agenda_queue.job_ids['recovers']}", "bob"
        ).status_code
        == 200
    )
    assert (
        agenda_queue.api.get_as_owner(f"/jobs/{agenda_queue.job_ids['fails']}", "bob").status_code
        == 403
    )
    without_owner = f"/jobs/{agenda_queue.job_ids['repeats and fails']}"
    assert agenda_queue.api.get_as_owner(without_owner, "bob").status_code == 403


def check_stats(agenda_queue: AgendaQueue, source: str) -> None:
    stats = agenda_queue.get("/admin/jobs/stats")
    assert stats["source"] == source
    assert stats["totalJobs"] == stats["estimatedTotalJobs"] == len(CASES)
    counts = {status: count for status, count in stats["statusCounts"].items() if count}
    assert counts == dict(Counter(status for status, _ in agenda_queue.cases.values()))
    assert stats["typeCounts"] == {
        case: {status: 1} for case, (status, _) in agenda_queue.cases.items()
    }
    assert (stats["dueJobs"], stats["scheduledJobs"], stats["expiredLeases"]) == (1, 4, 0)
    # The queued job `repeats` is missing: it has run before, so its wait began after its creation.
    assert set(stats["oldestQueuedJobAgeMsByType"]) == {"due", "scheduled"}
    assert stats["oldestQueuedJobAgeMs"] == max(stats["oldestQueuedJobAgeMsByType"].values()) > 0
    assert agenda_queue.activity() == {"enqueued": 13, "succeeded": 3, "failed": 4, "dlq": 2}
    types = {row["type"]: row for row in agenda_queue.get("/admin/jobs/types")["data"]}
    assert set(types) == set(CASES)
    for case in ("succeeds", "fails"):
        document = agenda_queue.find_document(case)
        run_ms = (document["lastFinishedAt"] - document["lastRunAt"]) / timedelta(milliseconds=1)
        assert types[case]["runMs"]["p50"] == pytest.approx(run_ms, rel=0.05, abs=1)
        assert types[case]["waitMs"]["p50"] is None  # Agenda overwrites the due time of a run
    assert types["fails"]["dlq"] == types["fails"]["failed"] == 1
    assert types["due"]["succeeded"] == types["due"]["failed"] == 0


def test_live_counts_are_correct(agenda_queue: AgendaQueue) -> None:
    check_stats(agenda_queue, "live")


def test_counts_of_the_collector_are_correct(agenda_queue: AgendaQueue) -> None:
    with agenda_queue.running_collector():
        eventually(lambda: agenda_queue.activity()["enqueued"] == 13)
        check_stats(agenda_queue, "rollup")
        jobs = agenda_queue.metric("jobmon_jobs")
        assert jobs['{status="unscheduled",type="unscheduled"}'] == 1
        assert jobs['{status="dlq",type="is dead"}'] == 1
        eventually(lambda: agenda_queue.metric("jobmon_attempts_finished_total"))
        finished = agenda_queue.metric("jobmon_attempts_finished_total")
        assert finished['{outcome="succeeded",type="recovers"}'] == 1
        assert finished['{outcome="failed",type="recovers"}'] == 0
        assert agenda_queue.metric("jobmon_expired_leases") == {"": 0}
        eventually(lambda: 1 in agenda_queue.sampled_counts("disabled"))


def test_init_creates_exactly_these_indexes(agenda_queue: AgendaQueue) -> None:
    index_names = {index["name"] for index in agenda_queue.database.agendaJobs.list_indexes()}
    assert index_names == {
        "_id_",
        "findAndLockNextJobIndex",  # created by Agenda
        "name_1__id_-1",
        "data.user.id_1__id_-1_name_1",
        "lastFinishedAt_1",
        "name_1_lastFinishedAt_1__id_1",
        "lockedAt_1",
        "failedAt_1_nextRunAt_1",
        "nextRunAt_1__id_1_lastFinishedAt_1",
        "nextRunAt_1__id_1_repeatInterval_1",
        "nextRunAt_1__id_1_repeatAt_1",
        "disabled_1__id_-1",
    }
    collections = {"5": {"agendaJobs"}, "6": {"agendaJobs", "agenda_logs"}}
    assert set(agenda_queue.database.list_collection_names()) == collections[agenda_queue.version]


def test_collection_scans_come_only_from_counts_and_change_streams_and_nothing_is_written(
    agenda_queue: AgendaQueue,
) -> None:
    hashes_before = agenda_queue.database.command("dbHash")["collections"]
    with profiled(agenda_queue.database) as entries:
        agenda_queue.list_cases()
        agenda_queue.list_cases(sort="createdAt")
        for status, _ in set(CASES.values()):
            agenda_queue.list_cases(status=status)
        agenda_queue.list_cases(type=["fails", "due"], status="dlq")
        agenda_queue.list_cases(owner="bob")
        agenda_queue.get(f"/jobs/{agenda_queue.job_ids['fails']}")
        agenda_queue.activity()
        with agenda_queue.running_collector():
            eventually(lambda: agenda_queue.activity()["enqueued"] == 13)
    assert entries
    for entry in entries:
        query = f"{entry.get('planSummary')} {entry['command']}"
        if entry["ns"].endswith(".system.profile"):
            continue
        assert entry["op"] in ("query", "command", "getmore"), query
        assert entry["ns"] == f"{agenda_queue.database.name}.agendaJobs", query
        is_scan = "COLLSCAN" in entry.get("planSummary", "")
        assert not is_scan or entry["op"] == "getmore" or may_scan(entry), query
    hashes_after = agenda_queue.database.command("dbHash")["collections"]
    assert {name: hashes_after[name] for name in hashes_before} == hashes_before


def may_scan(entry: Document) -> bool:
    """Whether this command is allowed to scan: a live count, or the start of a change stream."""
    pipeline = entry["command"].get("pipeline") or [{}]
    return "$group" in pipeline[0] or "$changeStream" in pipeline[0]


def test_the_pages_show_only_known_fields(agenda_queue: AgendaQueue) -> None:
    """Catches pages that lack jobs or statuses, or show what Agenda does not record."""
    viewer = signed_in(agenda_queue.api)
    overview = viewer.page("/dashboard")
    other_statuses = {"5": "2 unscheduled, 1 disabled", "6": "1 disabled, 1 unscheduled"}
    assert other_statuses[agenda_queue.version] in overview.text
    assert "is dead" in overview.text
    job_list = viewer.page("/dashboard/jobs")
    for status in ("disabled", "unscheduled"):
        assert job_list.all("input", name="status", value=status)
    assert len(job_list.all("a", **{"class": "row-link mono"})) == len(CASES)
    repeating = viewer.page(f"/dashboard/jobs/{agenda_queue.job_ids['repeats']}")
    assert "Last attempt succeeded on worker-1" in repeating.text.replace("\n", "")
    assert "ran " in repeating.text
    assert "waited" not in repeating.text  # the time since its creation is not a wait
    assert "Due" in repeating.text
    assert "Earlier runs" in repeating.text
    assert "Intervalevery" in repeating.text
    dead = viewer.page(f"/dashboard/jobs/{agenda_queue.job_ids['is dead']}")
    assert "The bank refused." in dead.text
    assert "hidden" not in dead.text
    running = viewer.page(f"/dashboard/jobs/{agenda_queue.job_ids['runs']}")
    assert "running on worker-1" in running.text
    assert "Intervalevery" not in running.text
    never_run = viewer.page(f"/dashboard/jobs/{agenda_queue.job_ids['due']}")
    # "0 attempts" is there, but no sentence about an attempt.
    assert "attempt" not in never_run.text.lower().replace("attempts", "")


@pytest.mark.long
def test_the_collector_counts_jobs_while_agenda_runs_them(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], run_agenda: Callable[[str, str], Ids]
) -> None:
    with temporary_database(mongo) as database:
        queue = AgendaQueue(mongod, database, "6", {})
        init(database_uri(mongod, database), "--create", PROFILE="agenda")
        with queue.running_collector():
            run_agenda("6", database_uri(mongod, database))
            counts = dict(Counter(status for status, _ in CASES.values()))
            eventually(lambda: read_nonzero_counts(queue) == counts)
            minimum = {"enqueued": 13, "succeeded": 3, "failed": 4, "dlq": 2}
            # A document has only its last attempt, but the collector may have seen earlier ones.
            eventually(lambda: counts_reach(queue.activity(), minimum))
        queue.close()


@pytest.mark.long
def test_the_jobs_of_a_standalone_server_are_polled(
    tmp_path: Path, run_agenda: Callable[[str, str], Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a collector that finds changes only by its sweeps, which this test switches off."""
    monkeypatch.setattr("jobmon.collector.changes.SWEEP_S", 100_000.0)
    with Mongod(tmp_path, replica_set=None) as standalone, MongoClient(standalone.uri) as client:
        queue = AgendaQueue(standalone, client["shop"], "5", {})
        init(database_uri(standalone, queue.database), "--create", PROFILE="agenda")
        with queue.running_collector():
            run_agenda("5", database_uri(standalone, queue.database))
            counts = dict(Counter(status for status, _ in CASES_BY_VERSION["5"].values()))
            eventually(lambda: read_nonzero_counts(queue) == counts)
        queue.close()


def read_nonzero_counts(queue: QueueService) -> dict[str, int]:
    counts = queue.get("/admin/jobs/stats")["statusCounts"]
    return {status: count for status, count in counts.items() if count}


def counts_reach(counts: dict[str, int], minimum: dict[str, int]) -> bool:
    return all(counts[name] >= count for name, count in minimum.items())


def test_the_total_of_a_long_list_is_not_counted_by_a_scan(
    agenda_queue: AgendaQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    agenda_queue.database.client.drop_database(agenda_queue.settings.rollup_db)
    eventually(lambda: agenda_queue.get("/admin/jobs/stats")["source"] == "live")
    monkeypatch.setattr("jobmon.store.list_count.COUNT_EXACTLY_UP_TO", 1)
    with profiled(agenda_queue.database) as entries:
        all_jobs = agenda_queue.get("/admin/jobs/queue", per_page=1)["meta"]
        queued = agenda_queue.get("/admin/jobs/queue", status="queued", per_page=1)["meta"]
    assert (all_jobs["total"], all_jobs["total_is_exact"]) == (13, False)
    assert (queued["total"], queued["total_is_exact"]) == (1, False)  # capped at 1
    assert entries
    assert not [entry for entry in entries if may_scan(entry) or "COLLSCAN" in str(entry)]
    with agenda_queue.running_collector():
        all_jobs = agenda_queue.get("/admin/jobs/queue")["meta"]
        assert (all_jobs["total"], all_jobs["total_is_exact"]) == (13, True)
