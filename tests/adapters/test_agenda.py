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

from ..dashboard.conftest import signed_in
from ..store.test_queries import profiled
from ..support.commands import database_uri
from ..support.waiting import eventually
from ..support.watched_queue import (
    Answer,
    MongoDb,
    WatchedQueue,
    drop_derived,
    init,
    temporary_database,
)

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


class Agenda(WatchedQueue):
    """The service over the documents that Agenda wrote."""

    def __init__(self, mongod: Mongod, database: MongoDb, version: str, ids: Ids) -> None:
        super().__init__(mongod, database, **SETTINGS)
        self.version, self.job_ids = version, ids
        self.cases = CASES_BY_VERSION[version]

    def find_document(self, case: str) -> Answer:
        document = self.database.agendaJobs.find_one({"name": case})
        assert document is not None
        return document

    def list_cases(self, **query: Any) -> list[str]:
        """The cases in the list with this query, in the list's order."""
        cases = {job_id: case for case, job_id in self.job_ids.items()}
        return [cases[job_id] for job_id in self.ids(**query)]

    def list_cases_by_status(self, *statuses: str) -> list[str]:
        """The cases with these statuses, newest first."""
        cases = sorted(self.job_ids, key=lambda case: self.job_ids[case], reverse=True)
        return [case for case in cases if self.cases[case][0] in statuses]


@pytest.fixture(scope="module", params=["5", "6"])
def agenda(
    request: pytest.FixtureRequest,
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    run_agenda: Callable[[str, str], Ids],
) -> Iterator[Agenda]:
    with temporary_database(mongo) as database:
        uri = database_uri(mongod, database)
        agenda = Agenda(mongod, database, request.param, run_agenda(request.param, uri))
        init(uri, PROFILE="agenda", JOB_FIELDS="createdBy=data.user.id")
        yield agenda
        agenda.close()


def make_expected_detail(agenda: Agenda, case: str) -> Answer:
    """The expected answer for a job: its document's fields by the rules of docs/adapters.md."""
    document = agenda.find_document(case)
    status, count = agenda.cases[case]
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
def test_every_field_of_a_job_equals_its_document(agenda: Agenda, case: str) -> None:
    detail = make_expected_detail(agenda, case)
    answer = agenda.get(f"/jobs/{agenda.job_ids[case]}")
    drop_derived(answer)
    assert (answer.pop("repetition") is not None) is detail["isRecurring"]
    assert answer == detail
    (summary,) = agenda.get("/admin/jobs/queue", type=case)["data"]
    assert summary == {name: detail[name] for name in summary} | {
        "lastError": detail["lastError"] and {"code": None, "message": "The bank refused."}
    }


def test_the_list_has_every_job_once_in_both_orders(agenda: Agenda) -> None:
    newest_first = sorted(agenda.job_ids.values(), reverse=True)
    assert agenda.ids() == newest_first
    assert agenda.ids(sort="createdAt") == newest_first[::-1]


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
def test_a_status_list_has_the_jobs_of_that_status(agenda: Agenda, statuses: list[str]) -> None:
    assert agenda.list_cases(status=statuses) == agenda.list_cases_by_status(*statuses)
    oldest_first = agenda.list_cases_by_status(*statuses)[::-1]
    assert agenda.list_cases(status=statuses, sort="createdAt") == oldest_first


def test_filters_can_be_combined(agenda: Agenda) -> None:
    assert agenda.list_cases(type=["due", "fails"]) == ["due", "fails"]
    assert agenda.list_cases(type=["due", "fails"], status="dlq") == ["fails"]
    bobs = [
        case for case in agenda.list_cases_by_status("dlq", "succeeded") if OWNERS[case] == "bob"
    ]
    assert agenda.list_cases(owner="bob") == bobs
    assert agenda.list_cases(owner="bob", status="dlq") == ["is dead"]
    assert agenda.list_cases(owner="bob", status="dlq", type="fails") == []
    assert agenda.list_cases(owner="carol") == []
    refused = agenda.api.get_as_admin("/admin/jobs/queue", error_code="ETIMEDOUT")
    assert refused.status_code == 422  # Agenda stores no error code
    runs = agenda.job_ids["runs"]
    assert agenda.list_cases(job_id=runs) == ["runs"]
    assert agenda.ids(job_id=runs[:8])  # the id begins with the second of the creation
    assert agenda.list_cases(job_id=runs[:-1] + "z") == []


def test_a_creation_range_uses_the_time_in_the_ids(agenda: Agenda) -> None:
    created = {case: agenda.find_document(case)["_id"].generation_time for case in CASES}
    middle = sorted(created.values())[len(created) // 2]
    newer = agenda.list_cases(created_from=to_iso(middle))
    older = agenda.list_cases(created_to=to_iso(middle))
    assert sorted(newer) == sorted(case for case in created if created[case] >= middle)
    assert sorted(older) == sorted(case for case in created if created[case] < middle)
    until = middle + timedelta(milliseconds=1)
    assert set(agenda.list_cases(created_from=to_iso(middle), created_to=to_iso(until))) == {
        case for case in created if created[case] == middle
    }


def test_an_owner_sees_their_own_jobs_and_no_others(agenda: Agenda) -> None:
    bobs_jobs = agenda.api.get_as_owner("/jobs", "bob").json["data"]
    assert {job["type"] for job in bobs_jobs} == {"is dead", "recovers"}
    assert agenda.api.get_as_owner(f"/jobs/{agenda.job_ids['recovers']}", "bob").status_code == 200
    assert agenda.api.get_as_owner(f"/jobs/{agenda.job_ids['fails']}", "bob").status_code == 403
    without_owner = f"/jobs/{agenda.job_ids['repeats and fails']}"
    assert agenda.api.get_as_owner(without_owner, "bob").status_code == 403


def check_stats(agenda: Agenda, source: str) -> None:
    stats = agenda.get("/admin/jobs/stats")
    assert stats["source"] == source
    assert stats["totalJobs"] == stats["estimatedTotalJobs"] == len(CASES)
    counts = {status: count for status, count in stats["statusCounts"].items() if count}
    assert counts == dict(Counter(status for status, _ in agenda.cases.values()))
    assert stats["typeCounts"] == {case: {status: 1} for case, (status, _) in agenda.cases.items()}
    assert (stats["dueJobs"], stats["scheduledJobs"], stats["expiredLeases"]) == (1, 4, 0)
    # The queued job `repeats` is missing: it has run before, so its wait began after its creation.
    assert set(stats["oldestQueuedJobAgeMsByType"]) == {"due", "scheduled"}
    assert stats["oldestQueuedJobAgeMs"] == max(stats["oldestQueuedJobAgeMsByType"].values()) > 0
    assert agenda.activity() == {"enqueued": 13, "succeeded": 3, "failed": 4, "dlq": 2}
    types = {row["type"]: row for row in agenda.get("/admin/jobs/types")["data"]}
    assert set(types) == set(CASES)
    for case in ("succeeds", "fails"):
        document = agenda.find_document(case)
        run_ms = (document["lastFinishedAt"] - document["lastRunAt"]) / timedelta(milliseconds=1)
        assert types[case]["runMs"]["p50"] == pytest.approx(run_ms, rel=0.05, abs=1)
        assert types[case]["waitMs"]["p50"] is None  # Agenda overwrites the due time of a run
    assert types["fails"]["dlq"] == types["fails"]["failed"] == 1
    assert types["due"]["succeeded"] == types["due"]["failed"] == 0


def test_live_counts_are_correct(agenda: Agenda) -> None:
    check_stats(agenda, "live")


def test_counts_of_the_collector_are_correct(agenda: Agenda) -> None:
    with agenda.running_collector():
        eventually(lambda: agenda.activity()["enqueued"] == 13)
        check_stats(agenda, "rollup")
        jobs = agenda.metric("jobmon_jobs")
        assert jobs['{status="unscheduled",type="unscheduled"}'] == 1
        assert jobs['{status="dlq",type="is dead"}'] == 1
        eventually(lambda: agenda.metric("jobmon_attempts_finished_total"))
        finished = agenda.metric("jobmon_attempts_finished_total")
        assert finished['{outcome="succeeded",type="recovers"}'] == 1
        assert finished['{outcome="failed",type="recovers"}'] == 0
        assert agenda.metric("jobmon_expired_leases") == {"": 0}
        eventually(lambda: 1 in agenda.sampled_counts("disabled"))


def test_init_creates_exactly_these_indexes(agenda: Agenda) -> None:
    index_names = {index["name"] for index in agenda.database.agendaJobs.list_indexes()}
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
    assert set(agenda.database.list_collection_names()) == collections[agenda.version]


def test_only_counts_and_the_change_stream_scan_and_nothing_is_written(agenda: Agenda) -> None:
    hashes_before = agenda.database.command("dbHash")["collections"]
    with profiled(agenda.database) as entries:
        agenda.list_cases()
        agenda.list_cases(sort="createdAt")
        for status, _ in set(CASES.values()):
            agenda.list_cases(status=status)
        agenda.list_cases(type=["fails", "due"], status="dlq")
        agenda.list_cases(owner="bob")
        agenda.get(f"/jobs/{agenda.job_ids['fails']}")
        agenda.activity()
        with agenda.running_collector():
            eventually(lambda: agenda.activity()["enqueued"] == 13)
    assert entries
    for entry in entries:
        query = f"{entry.get('planSummary')} {entry['command']}"
        if entry["ns"].endswith(".system.profile"):
            continue
        assert entry["op"] in ("query", "command", "getmore"), query
        assert entry["ns"] == f"{agenda.database.name}.agendaJobs", query
        is_scan = "COLLSCAN" in entry.get("planSummary", "")
        assert not is_scan or entry["op"] == "getmore" or may_scan(entry), query
    hashes_after = agenda.database.command("dbHash")["collections"]
    assert {name: hashes_after[name] for name in hashes_before} == hashes_before


def may_scan(entry: Answer) -> bool:
    """Whether this command is allowed to scan: a live count, or the start of a change stream."""
    pipeline = entry["command"].get("pipeline") or [{}]
    return "$group" in pipeline[0] or "$changeStream" in pipeline[0]


def test_the_pages_show_only_known_fields(agenda: Agenda) -> None:
    viewer = signed_in(agenda.api)
    overview = viewer.page("/dashboard")
    other_statuses = {"5": "2 unscheduled, 1 disabled", "6": "1 disabled, 1 unscheduled"}
    assert other_statuses[agenda.version] in overview.text
    assert "is dead" in overview.text
    job_list = viewer.page("/dashboard/jobs")
    for status in ("disabled", "unscheduled"):
        assert job_list.all("input", name="status", value=status)
    assert len(job_list.all("a", **{"class": "row-link mono"})) == len(CASES)
    repeating = viewer.page(f"/dashboard/jobs/{agenda.job_ids['repeats']}")
    assert "Last attempt succeeded on worker-1" in repeating.text.replace("\n", "")
    assert "ran " in repeating.text
    assert "waited" not in repeating.text  # the time since its creation is not a wait
    assert "Due" in repeating.text
    assert "Earlier runs" in repeating.text
    assert "Intervalevery" in repeating.text
    dead = viewer.page(f"/dashboard/jobs/{agenda.job_ids['is dead']}")
    assert "The bank refused." in dead.text
    assert "hidden" not in dead.text
    running = viewer.page(f"/dashboard/jobs/{agenda.job_ids['runs']}")
    assert "running on worker-1" in running.text
    assert "Intervalevery" not in running.text
    never_run = viewer.page(f"/dashboard/jobs/{agenda.job_ids['due']}")
    assert "attempt" not in never_run.text.lower().replace("attempts", "")


def test_the_collector_counts_jobs_while_agenda_runs_them(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], run_agenda: Callable[[str, str], Ids]
) -> None:
    with temporary_database(mongo) as database:
        queue = Agenda(mongod, database, "6", {})
        init(database_uri(mongod, database), "--create", PROFILE="agenda")
        with queue.running_collector():
            run_agenda("6", database_uri(mongod, database))
            counts = dict(Counter(status for status, _ in CASES.values()))
            eventually(lambda: read_nonzero_counts(queue) == counts)
            minimum = {"enqueued": 13, "succeeded": 3, "failed": 4, "dlq": 2}
            # A document has only its last attempt, but the collector may have seen earlier ones.
            eventually(lambda: are_at_least(queue.activity(), minimum))
        queue.close()


def test_the_jobs_of_a_standalone_server_are_polled(
    tmp_path: Path, run_agenda: Callable[[str, str], Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a collector that finds changes only by its sweeps, which this test switches off."""
    monkeypatch.setattr("jobmon.collector.changes.SWEEP_S", 100_000.0)
    with Mongod(tmp_path, replica_set=None) as standalone, MongoClient(standalone.uri) as client:
        queue = Agenda(standalone, client["shop"], "5", {})
        init(database_uri(standalone, queue.database), "--create", PROFILE="agenda")
        with queue.running_collector():
            run_agenda("5", database_uri(standalone, queue.database))
            counts = dict(Counter(status for status, _ in CASES_BY_VERSION["5"].values()))
            eventually(lambda: read_nonzero_counts(queue) == counts)
        queue.close()


def read_nonzero_counts(queue: WatchedQueue) -> dict[str, int]:
    counts = queue.get("/admin/jobs/stats")["statusCounts"]
    return {status: count for status, count in counts.items() if count}


def are_at_least(counts: dict[str, int], minimum: dict[str, int]) -> bool:
    return all(counts[name] >= count for name, count in minimum.items())


def test_the_total_of_a_long_list_is_not_counted_by_a_scan(
    agenda: Agenda, monkeypatch: pytest.MonkeyPatch
) -> None:
    agenda.database.client.drop_database(agenda.settings.rollup_db)
    eventually(lambda: agenda.get("/admin/jobs/stats")["source"] == "live")
    monkeypatch.setattr("jobmon.store.list_count.COUNT_EXACTLY_UP_TO", 1)
    with profiled(agenda.database) as entries:
        all_jobs = agenda.get("/admin/jobs/queue", per_page=1)["meta"]
        queued = agenda.get("/admin/jobs/queue", status="queued", per_page=1)["meta"]
    assert (all_jobs["total"], all_jobs["total_is_exact"]) == (13, False)
    assert (queued["total"], queued["total_is_exact"]) == (1, False)
    assert entries
    assert not [entry for entry in entries if may_scan(entry) or "COLLSCAN" in str(entry)]
    with agenda.running_collector():
        all_jobs = agenda.get("/admin/jobs/queue")["meta"]
        assert (all_jobs["total"], all_jobs["total_is_exact"]) == (13, True)
