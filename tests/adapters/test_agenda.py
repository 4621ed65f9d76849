"""Documents that two versions of Agenda wrote: catches a wrong field, a job that a list loses,
a wrong count, a query that scans a collection, and any write."""

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
    Documents,
    WatchedQueue,
    drop_derived,
    init,
    temporary_database,
)

Ids = dict[str, str]

# The jobs of `agenda.mjs`: jobmon's status of each, and its number of known attempts.
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
SETTINGS: Answer = {
    "profile": "agenda",
    "jobs_collection": "agendaJobs",
    "job_fields": {"createdBy": "data.user.id"},
}


class Agenda(WatchedQueue):
    """The service over the documents that Agenda wrote."""

    def __init__(self, mongod: Mongod, database: Documents, version: str, ids: Ids) -> None:
        super().__init__(mongod, database, **SETTINGS)
        self.version, self.jobs = version, ids
        self.cases = CASES_BY_VERSION[version]

    def document(self, case: str) -> Answer:
        document = self.database.agendaJobs.find_one({"name": case})
        assert document is not None
        return document

    def names(self, **query: Any) -> list[str]:
        names = {job_id: name for name, job_id in self.jobs.items()}
        return [names[job_id] for job_id in self.ids(**query)]

    def list_by_status(self, *statuses: str) -> list[str]:
        """The cases with these statuses, newest first."""
        cases = sorted(self.jobs, key=lambda case: self.jobs[case], reverse=True)
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


def expected(agenda: Agenda, case: str) -> Answer:
    """The expected answer for a job: its document's fields by the rules of docs/adapters.md."""
    document = agenda.document(case)
    status, count = agenda.cases[case]
    dates = {name: to_iso(value) for name, value in document.items() if hasattr(value, "year")}
    is_leased, is_over = status == "leased", status in ("succeeded", "dlq")
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
    repeats = case.startswith("repeats")
    if attempts and (repeats or count > 1):
        reasons = {"attempts": "the queue does not record every attempt"}
    expires = to_iso(document["lockedAt"] + timedelta(minutes=10)) if is_leased else None
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
        "leaseExpiresAt": expires,
        "finishedAt": dates["lastFinishedAt"] if is_over else None,
        "lastError": error,
        "payload": payload,
        "attempts": attempts,
        "reasons": reasons,
        "isRecurring": repeats,
    }


@pytest.mark.parametrize("case", CASES)
def test_every_field_of_a_job_equals_its_document(agenda: Agenda, case: str) -> None:
    detail = expected(agenda, case)
    answer = agenda.get(f"/jobs/{agenda.jobs[case]}")
    drop_derived(answer)
    assert (answer.pop("repetition") is not None) is detail["isRecurring"]
    assert answer == detail
    (summary,) = agenda.get("/admin/jobs/queue", type=case)["data"]
    assert summary == {name: detail[name] for name in summary} | {
        "lastError": detail["lastError"] and {"code": None, "message": "The bank refused."}
    }


def test_the_list_has_every_job_once_in_either_order(agenda: Agenda) -> None:
    newest_first = sorted(agenda.jobs.values(), reverse=True)
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
    assert agenda.names(status=statuses) == agenda.list_by_status(*statuses)
    oldest_first = agenda.list_by_status(*statuses)[::-1]
    assert agenda.names(status=statuses, sort="createdAt") == oldest_first


def test_filters_combine(agenda: Agenda) -> None:
    assert agenda.names(type=["due", "fails"]) == ["due", "fails"]
    assert agenda.names(type=["due", "fails"], status="dlq") == ["fails"]
    bobs = [case for case in agenda.list_by_status("dlq", "succeeded") if OWNERS[case] == "bob"]
    assert agenda.names(owner="bob") == bobs
    assert agenda.names(owner="bob", status="dlq") == ["is dead"]
    assert agenda.names(owner="bob", status="dlq", type="fails") == []
    assert agenda.names(owner="carol") == []
    refused = agenda.api.get_as_admin("/admin/jobs/queue", error_code="ETIMEDOUT")
    assert refused.status_code == 422  # Agenda stores no error code
    runs = agenda.jobs["runs"]
    assert agenda.names(job_id=runs) == ["runs"]
    assert len(agenda.ids(job_id=runs[:8])) >= 1  # created in the same second
    assert agenda.names(job_id=runs[:-1] + "z") == []


def test_creation_range_selects_by_the_time_in_the_ids(agenda: Agenda) -> None:
    created = {case: agenda.document(case)["_id"].generation_time for case in CASES}
    middle = sorted(created.values())[len(created) // 2]
    newer = agenda.names(created_from=to_iso(middle))
    older = agenda.names(created_to=to_iso(middle))
    assert sorted(newer) == sorted(case for case in created if created[case] >= middle)
    assert sorted(older) == sorted(case for case in created if created[case] < middle)
    until = middle + timedelta(milliseconds=1)
    assert set(agenda.names(created_from=to_iso(middle), created_to=to_iso(until))) == {
        case for case in created if created[case] == middle
    }


def test_an_owner_sees_their_own_jobs_and_no_others(agenda: Agenda) -> None:
    bobs_jobs = agenda.api.get_as_owner("/jobs", "bob").json["data"]
    assert {job["type"] for job in bobs_jobs} == {"is dead", "recovers"}
    assert agenda.api.get_as_owner(f"/jobs/{agenda.jobs['recovers']}", "bob").status_code == 200
    assert agenda.api.get_as_owner(f"/jobs/{agenda.jobs['fails']}", "bob").status_code == 403
    assert (
        agenda.api.get_as_owner(f"/jobs/{agenda.jobs['repeats and fails']}", "bob").status_code
        == 403
    )


def check_stats(agenda: Agenda, source: str) -> None:
    stats = agenda.get("/admin/jobs/stats")
    assert stats["source"] == source
    assert stats["totalJobs"] == stats["estimatedTotalJobs"] == len(CASES)
    counted = {status: count for status, count in stats["statusCounts"].items() if count}
    assert counted == dict(Counter(status for status, _ in agenda.cases.values()))
    assert stats["typeCounts"] == {case: {s: 1} for case, (s, _) in agenda.cases.items()}
    assert (stats["dueJobs"], stats["scheduledJobs"], stats["expiredLeases"]) == (1, 4, 0)
    # `repeats` is missing: it has run before, so its creation is not the start of its wait.
    assert set(stats["oldestQueuedJobAgeMsByType"]) == {"due", "scheduled"}
    assert stats["oldestQueuedJobAgeMs"] == max(stats["oldestQueuedJobAgeMsByType"].values()) > 0
    assert agenda.activity() == {"enqueued": 13, "succeeded": 3, "failed": 4, "dlq": 2}
    types = {row["type"]: row for row in agenda.get("/admin/jobs/types")["data"]}
    assert set(types) == set(CASES)
    for case in ("succeeds", "fails"):
        document = agenda.document(case)
        run_ms = (document["lastFinishedAt"] - document["lastRunAt"]) / timedelta(milliseconds=1)
        assert types[case]["runMs"]["p50"] == pytest.approx(run_ms, rel=0.05, abs=1)
        assert types[case]["waitMs"]["p50"] is None  # Agenda overwrites the due time of a run
    assert types["fails"]["dlq"] == types["fails"]["failed"] == 1
    assert types["due"]["succeeded"] == types["due"]["failed"] == 0


def test_live_counts_are_right(agenda: Agenda) -> None:
    check_stats(agenda, "live")


def test_counts_of_the_collector_are_right(agenda: Agenda) -> None:
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
    names = {index["name"] for index in agenda.database.agendaJobs.list_indexes()}
    assert names == {
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


def test_nothing_is_scanned_and_nothing_is_written(agenda: Agenda) -> None:
    before = agenda.database.command("dbHash")["collections"]
    with profiled(agenda.database) as entries:
        agenda.names()
        agenda.names(sort="createdAt")
        for status, _ in set(CASES.values()):
            agenda.names(status=status)
        agenda.names(type=["fails", "due"], status="dlq")
        agenda.names(owner="bob")
        agenda.get(f"/jobs/{agenda.jobs['fails']}")
        agenda.activity()
        with agenda.running_collector():
            eventually(lambda: agenda.activity()["enqueued"] == 13)
    for entry in entries:
        query = f"{entry.get('planSummary')} {entry['command']}"
        if entry["ns"].endswith(".system.profile"):
            continue
        assert entry["op"] in ("query", "command", "getmore"), query
        assert entry["ns"] == f"{agenda.database.name}.agendaJobs", query
        is_scan = "COLLSCAN" in entry.get("planSummary", "")
        assert not is_scan or entry["op"] == "getmore" or is_count_of_all(entry), query
    after = agenda.database.command("dbHash")["collections"]
    assert {name: after[name] for name in before} == before


def is_count_of_all(entry: Answer) -> bool:
    """Whether the entry is a live count or reads the change stream: both may scan."""
    pipeline = entry["command"].get("pipeline") or [{}]
    return "$group" in pipeline[0] or "$changeStream" in pipeline[0]


def test_the_pages_show_known_fields_only(agenda: Agenda) -> None:
    viewer = signed_in(agenda.api)
    overview = viewer.page("/dashboard")
    other_statuses = {"5": "2 unscheduled, 1 disabled", "6": "1 disabled, 1 unscheduled"}
    assert other_statuses[agenda.version] in overview.text
    assert "is dead" in overview.text
    listed = viewer.page("/dashboard/jobs")
    for status in ("disabled", "unscheduled"):
        assert listed.all("input", name="status", value=status)
    assert len(listed.all("a", **{"class": "row-link mono"})) == len(CASES)
    repeating = viewer.page(f"/dashboard/jobs/{agenda.jobs['repeats']}")
    assert "Last attempt succeeded on worker-1" in repeating.text.replace("\n", "")
    assert "ran " in repeating.text
    assert "waited" not in repeating.text  # the time since its creation is not a wait
    assert "Due" in repeating.text
    assert "Earlier runs" in repeating.text
    assert "Intervalevery" in repeating.text
    dead = viewer.page(f"/dashboard/jobs/{agenda.jobs['is dead']}")
    assert "The bank refused." in dead.text
    assert "hidden" not in dead.text
    running = viewer.page(f"/dashboard/jobs/{agenda.jobs['runs']}")
    assert "running on worker-1" in running.text
    assert "Intervalevery" not in running.text
    due = viewer.page(f"/dashboard/jobs/{agenda.jobs['due']}")
    assert "attempt" not in due.text.lower().replace("attempts", "")


def test_the_collector_follows_agenda_at_work(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], run_agenda: Callable[[str, str], Ids]
) -> None:
    with temporary_database(mongo) as database:
        empty = Agenda(mongod, database, "6", {})
        init(database_uri(mongod, database), "--create", PROFILE="agenda")
        with empty.running_collector():
            run_agenda("6", database_uri(mongod, database))
            counts = dict(Counter(status for status, _ in CASES.values()))
            eventually(lambda: read_nonzero_counts(empty) == counts)
            minimum = {"enqueued": 13, "succeeded": 3, "failed": 4, "dlq": 2}
            # A document holds only the last attempt. The collector may also see an earlier one.
            eventually(lambda: reaches(empty.activity(), minimum))
        empty.close()


def test_a_standalone_server_is_polled(
    tmp_path: Path, run_agenda: Callable[[str, str], Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a collector that finds changes only by sweeps, which are switched off here."""
    monkeypatch.setattr("jobmon.collector.changes.SWEEP_S", 100_000.0)
    with Mongod(tmp_path, replica_set=None) as alone, MongoClient(alone.uri) as client:
        watching = Agenda(alone, client["shop"], "5", {})
        init(database_uri(alone, watching.database), "--create", PROFILE="agenda")
        with watching.running_collector():
            run_agenda("5", database_uri(alone, watching.database))
            counts = dict(Counter(status for status, _ in CASES_BY_VERSION["5"].values()))
            eventually(lambda: read_nonzero_counts(watching) == counts)
        watching.close()


def read_nonzero_counts(watching: WatchedQueue) -> dict[str, int]:
    counts = watching.get("/admin/jobs/stats")["statusCounts"]
    return {status: count for status, count in counts.items() if count}


def reaches(counts: dict[str, int], minimum: dict[str, int]) -> bool:
    return all(counts[name] >= count for name, count in minimum.items())


def test_a_long_list_does_not_wait_for_stats_without_an_index(
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
    assert not [entry for entry in entries if is_count_of_all(entry)]
    with agenda.running_collector():
        all_jobs = agenda.get("/admin/jobs/queue")["meta"]
        assert (all_jobs["total"], all_jobs["total_is_exact"]) == (13, True)
