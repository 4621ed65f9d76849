"""Attempts that are read from a log of events: catches a run that is missing or counted twice, a
start that is paired with the end of another run, a wrong duration, a query without an index, and a
malformed event that breaks a page."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.rollup.activity import count_activity
from jobmon.rollup.buckets import MINUTE, Tally, floor
from jobmon.rollup.histogram import bucket
from jobmon.setup.check import check_deployment
from jobmon.store.bson_json import to_iso
from jobmon.store.connection import Connection
from jobmon.store.jobs import JobStore

from ..conftest import NOW
from ..dashboard.conftest import signed_in
from ..store.test_queries import profiled
from ..support.commands import database_uri
from ..support.queue_service import MongoDb, QueueService, init, temporary_database
from ..support.waiting import eventually
from .test_samples import load_sample

Ids = dict[str, str]
WINDOW = (NOW, NOW + MINUTE, MINUTE)  # the start, the end and the step of `count_activity`
AGENDA_SETTINGS: dict[str, Any] = {
    "profile": "agenda-logs",
    "jobs_collection": "agendaJobs",
    "attempts_collection": "agenda_logs",
}
# Rules give the status of an event. Its time and its duration are in seconds. `run` is the id of
# its run. Its error is an object. Only jobs have a type.
SHOP_PROFILE = """\
collection = "work"
status = { path = "state" }

[readings]
at = "seconds"
took = "seconds"
due = "iso"

[fields]
jobId = "key"
type = "kind"
createdAt = "created"

[attempts]
in = "log"

[attempts.log]
collection = "work_log"
time = "at"
same = ["run"]
duration = "took"
status = [
  { is = "running", when = { what = "begin" } },
  { is = "succeeded", when = { what = "end", ok = true } },
  { is = "failed", when = { what = "end" } },
]

[attempts.log.fields]
jobId = "of.job"
attemptNumber = "number"
workerId = { first_of = ["host", "by"] }
error = { object = { code = "kind", message = "text" } }
"""


@pytest.fixture
def shop(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], tmp_path: Path
) -> Iterator[QueueService]:
    path = tmp_path / "shop.toml"
    path.write_text(SHOP_PROFILE)
    with temporary_database(mongo) as database:
        database.work.insert_many(
            {"key": key, "kind": f"kind {key}", "state": "queued", "created": NOW} for key in "ab"
        )
        log_start(database, "a", 1, host="h-1", number=1)
        log_end(database, "a", 1, ok=True)
        log_start(database, "b", 2, by="h-2", number=1)
        log_end(database, "b", 2, ok=False, kind="E1", text="no", took=1.5)
        log_start(database, "b", 5, by="h-2", number=2)
        log_end(database, "gone", 9, ok=True)  # a deleted job; the start is not in the log
        database.work_log.insert_many(
            [
                {"of": {"job": "a"}, "what": "progress", "at": to_timestamp(1)},
                {"of": {"job": "a"}, "what": "end", "at": "odd", "ok": True, "run": "odd"},
                {"of": 7, "what": ["end"], "took": float("inf")},
            ]
        )
        init(database_uri(mongod, database), PROFILE=str(path))
        queue = QueueService(
            mongod,
            database,
            profile=str(path),
            jobs_collection="work",
            attempts_collection="work_log",
        )
        yield queue
        queue.close()


def to_timestamp(after_s: float) -> float:
    return NOW.timestamp() + after_s


def log_start(database: MongoDb, job: str, at_s: float, **fields: Any) -> None:
    event = {"of": {"job": job}, "run": f"{job}{at_s}", "what": "begin", "at": to_timestamp(at_s)}
    database.work_log.insert_one(event | fields)


def log_end(database: MongoDb, job: str, at_s: float, **fields: Any) -> None:
    """Log the end, 2 s after `at_s`, of the run that began at `at_s`."""
    event = {"of": {"job": job}, "run": f"{job}{at_s}", "what": "end", "at": to_timestamp(at_s + 2)}
    database.work_log.insert_one(event | fields)


def test_attempts_of_a_job_are_read_from_its_events(shop: QueueService) -> None:
    job = shop.get("/jobs/b")
    assert job["attemptCount"] == 2
    first, second = job["attempts"]
    assert first == {
        "attemptNumber": 1,
        "status": "failed",
        "workerId": "h-2",
        "eligibleAt": None,
        "startedAt": to_iso(NOW + timedelta(seconds=2.5)),  # the end minus the logged duration
        "finishedAt": to_iso(NOW + timedelta(seconds=4)),
        "waitMs": None,
        "durationMs": 1_500,
        "error": {"code": "E1", "message": "no", "stack": None},
        "errorGroup": None,  # no collector has counted it
    }
    assert (second["attemptNumber"], second["status"]) == (2, "expired")
    malformed, done = shop.get("/jobs/a")["attempts"]
    assert (malformed["status"], malformed["finishedAt"]) == ("succeeded", "odd")
    assert (done["attemptNumber"], done["workerId"], done["durationMs"]) == (1, "h-1", 2_000)


def test_runs_are_counted_from_the_events_that_end_them(shop: QueueService) -> None:
    # A first run has waited since the job's creation.
    waits, runs = {bucket(1_000): 1}, {bucket(2_000): 1}
    assert count_activity(shop.connection, *WINDOW)[NOW] == {
        "kind a": Tally(enqueued=1, outcomes={"succeeded": 1}, wait=waits, run=runs),
        "kind b": Tally(
            enqueued=1, outcomes={"failed": 1}, wait={bucket(2_500): 1}, run={bucket(1_500): 1}
        ),
        "null": Tally(outcomes={"succeeded": 1}),
    }


def test_every_query_of_a_log_has_an_index(shop: QueueService) -> None:
    with profiled(shop.database) as entries:
        shop.get("/jobs/b")
        count_activity(shop.connection, *WINDOW)
    commands = [entry for entry in entries if "work_log" in str(entry["command"])]
    queries = [entry for entry in commands if "planSummary" in entry]  # without `explain` commands
    assert len(queries) >= 2
    for entry in queries:
        assert "COLLSCAN" not in entry["planSummary"], entry
        assert entry["docsExamined"] <= 20, entry
    levels = {finding.check: finding.level for finding in check_deployment(shop.settings)}
    assert levels["indexes"] == "ok"
    assert levels["fields"] == "warning"  # because of the malformed events


def test_start_of_a_run_is_searched_up_to_a_day_before_its_end(shop: QueueService) -> None:
    """Catches a query that reads all events of a job if the start of a run is missing."""
    start = {"of": {"job": "a"}, "what": "begin"}
    shop.database.work_log.insert_many(
        [start | {"run": "old", "at": to_timestamp(-86_000 - hours * 3_600)} for hours in (0, 24)]
    )
    runs = count_activity(shop.connection, *WINDOW)[NOW]["kind a"].run
    log_end(shop.database, "a", 1, run="old", ok=True)
    added = count_activity(shop.connection, *WINDOW)[NOW]["kind a"].run - runs
    assert added == {bucket(86_003_000): 1}
    shop.database.work_log.delete_one({"run": "old", "at": to_timestamp(-86_000)})
    assert count_activity(shop.connection, *WINDOW)[NOW]["kind a"].run == runs


def test_due_time_of_a_run_is_read_from_its_start_event(shop: QueueService, tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(SHOP_PROFILE + 'eligibleAt = "due"\ntype = "name"\n')
    due = to_iso(NOW - timedelta(seconds=3))
    shop.database.work_log.update_many({"what": "begin"}, {"$set": {"due": due}})
    shop.database.work_log.update_many({"what": "end"}, {"$set": {"name": "mail"}})
    connection = Connection(shop.settings)
    tally = count_activity(connection, *WINDOW)[NOW]["mail"]
    assert tally.outcomes == {"succeeded": 2, "failed": 1}
    assert tally.wait == {bucket(4_000): 1, bucket(5_500): 1}
    assert tally.run == {bucket(1_500): 1, bucket(2_000): 1}
    first, _ = JobStore(connection).get_job("b")["attempts"]
    assert to_iso(first["eligibleAt"]) == due
    connection.client.close()


def test_newest_runs_have_no_number_if_older_events_were_not_read(
    shop: QueueService, tmp_path: Path
) -> None:
    """Catches the fourth run with the number 2."""
    profile = SHOP_PROFILE.replace('attemptNumber = "number"\n', "")
    (tmp_path / "shop.toml").write_text(profile)
    for at_s in (8, 11):
        log_start(shop.database, "b", at_s)
        log_end(shop.database, "b", at_s, ok=True)
    connection = Connection(shop.settings)
    store = JobStore(connection)
    (newest,) = store.list_runs({"jobId": "b"}, limit=1)
    assert (newest["status"], newest.get("attemptNumber")) == ("succeeded", None)
    (newest,) = store.list_runs({"jobId": "b", "attemptCount": 4}, limit=1)
    assert newest["attemptNumber"] == 4
    all_runs = store.list_runs({"jobId": "b"}, limit=4)
    assert [run["attemptNumber"] for run in all_runs] == [1, 2, 3, 4]
    connection.client.close()


@pytest.fixture
def agenda_sample(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[QueueService]:
    monkeypatch.setattr("jobmon.store.known_fields.CACHE_TTL_MS", 100)
    with temporary_database(mongo) as database:
        load_sample(database, "agenda-6")
        init(database_uri(mongod, database), PROFILE="agenda-logs")
        queue = QueueService(mongod, database, **AGENDA_SETTINGS)
        yield queue
        queue.close()


def test_events_of_the_sample_are_counted(agenda_sample: QueueService) -> None:
    """Catches events that are not counted because their jobs do not exist."""
    event = agenda_sample.database.agenda_logs.find_one({"event": "success"})
    start = floor(event["timestamp"].replace(tzinfo=UTC), MINUTE)
    (tallies,) = count_activity(agenda_sample.connection, start, start + MINUTE, MINUTE).values()
    succeeded = Tally(outcomes={"succeeded": 1}, run={bucket(47): 1})
    assert tallies.pop("every second") == succeeded
    assert list(tallies.values()) == [Tally(outcomes={"failed": 1})]


def test_runs_are_unknown_while_the_log_is_empty(agenda_sample: QueueService) -> None:
    """Catches runs that are counted from the jobs, and a second time once the log has events."""
    log, jobs = agenda_sample.database.agenda_logs, agenda_sample.database.agendaJobs
    (event,) = log.find({"event": "success"})
    log.delete_many({})
    now = datetime.now(UTC)
    ended = {"lastRunAt": now - timedelta(seconds=1), "lastFinishedAt": now}
    with agenda_sample.running_collector():
        jobs.update_many({"name": "recovers"}, {"$set": ended})
        assert agenda_sample.activity()["succeeded"] is None
        log.insert_one(event | {"timestamp": now})
        eventually(lambda: agenda_sample.activity()["succeeded"] == 1)
        (row,) = (row for row in agenda_sample.get("/admin/jobs/types")["data"] if row["succeeded"])
        assert row["type"] == "every second"


def test_job_without_events_shows_its_own_last_run(agenda_sample: QueueService) -> None:
    (job,) = agenda_sample.get("/admin/jobs/queue", type="bad email")["data"]
    (attempt,) = agenda_sample.get(f"/jobs/{job['jobId']}")["attempts"]
    assert (attempt["status"], attempt["attemptNumber"]) == ("failed", None)
    assert attempt["durationMs"] == 14


@pytest.fixture(scope="module")
def agenda(
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    run_agenda: Callable[..., Ids],
) -> Iterator[tuple[QueueService, Ids]]:
    """The service over the documents of Agenda, and the job ids; a collector runs all the time."""
    with temporary_database(mongo) as database:
        queue = QueueService(mongod, database, **AGENDA_SETTINGS)
        init(database_uri(mongod, database), "--create", PROFILE="agenda-logs")
        with queue.running_collector():
            ids = run_agenda("6", database_uri(mongod, database), logs=True)
            yield queue, ids
        queue.close()


def test_every_run_of_the_real_agenda_is_counted(agenda: tuple[QueueService, Ids]) -> None:
    """Catches runs that are not counted: earlier runs of a job, and runs of removed jobs."""
    queue, _ = agenda
    event_counts = {
        (event["jobName"], event["event"]): event["count"]
        for event in queue.database.agenda_logs.aggregate(
            [
                {"$match": {"event": {"$in": ["success", "fail"]}}},
                {
                    "$group": {
                        "_id": {"jobName": "$jobName", "event": "$event"},
                        "count": {"$sum": 1},
                    }
                },
                {"$replaceWith": {"$mergeObjects": ["$_id", {"count": "$count"}]}},
            ]
        )
    }
    assert event_counts["ticks", "success"] >= 4
    assert event_counts["is removed", "success"] == 1
    totals = {
        outcome: sum(count for (_, event), count in event_counts.items() if event == outcome)
        for outcome in ("success", "fail")
    }
    eventually(lambda: queue.activity()["succeeded"] == totals["success"])
    eventually(lambda: queue.activity()["failed"] == totals["fail"])
    for row in queue.get("/admin/jobs/types")["data"]:
        assert row["succeeded"] == event_counts.get((row["type"], "success"), 0), row["type"]
        assert row["failed"] == event_counts.get((row["type"], "fail"), 0), row["type"]
        assert (row["runMs"]["p50"] is None) == (row["succeeded"] + row["failed"] == 0)


def test_every_run_of_the_real_agenda_is_shown(agenda: tuple[QueueService, Ids]) -> None:
    queue, ids = agenda
    outcomes = {"start": "running", "success": "succeeded", "fail": "failed"}
    for case, job_id in ids.items():
        # `ticks` was deleted, and the worker stopped before it logged the start of `interrupted`.
        if case in ("ticks", "interrupted"):
            continue
        events = list(queue.database.agenda_logs.find({"jobId": job_id}).sort("_id", 1))
        starts = [event for event in events if event["event"] == "start"]
        ends = [event for event in events if event["event"] in ("success", "fail")]
        job = queue.get(f"/jobs/{job_id}")
        attempts = job["attempts"]
        numbers = [attempt["attemptNumber"] for attempt in attempts]
        assert numbers == list(range(1, len(starts) + 1)), case
        assert job["attemptCount"] == len(starts)
        statuses = [outcomes[event["event"]] for event in ends]
        statuses += ["running"] * (len(starts) - len(ends))
        assert [attempt["status"] for attempt in attempts] == statuses, case
        for attempt, start in zip(attempts, starts, strict=True):
            assert attempt["workerId"] == start["agendaName"]
            assert attempt["startedAt"] is not None
        for attempt, end_event in zip(attempts, ends, strict=False):
            assert attempt["finishedAt"] == to_iso(end_event["timestamp"])
            assert (attempt["error"] or {}).get("message") == end_event.get("error")
            assert attempt["durationMs"] >= 0
    dead = signed_in(queue.api).page(f"/dashboard/jobs/{ids['is dead']}")
    assert "Attempt 1 failed on worker-1" in dead.text.replace("\n", "")
    assert "Attempt 2 failed on worker-1" in dead.text.replace("\n", "")
    assert "waited" not in dead.text  # the due time of a run is unknown


def test_check_recommends_the_profile_that_reads_the_log(agenda: tuple[QueueService, Ids]) -> None:
    queue, _ = agenda
    findings = list(check_deployment(replace(queue.settings, profile="agenda")))
    (warning,) = (finding for finding in findings if "agenda_logs records" in finding.message)
    assert (warning.level, warning.check) == ("warning", "attempts")
    assert "agenda-logs" in str(warning.remedy)
    messages = [finding.message for finding in check_deployment(queue.settings)]
    assert not any("records" in message for message in messages)


RUNS_PROFILE = """\
collection = "work"
status = { path = "state" }

[readings]
began = "iso"
ended = "iso"

[fields]
jobId = "key"
type = "kind"
createdAt = "created"

[attempts]
in = "collection"
collection = "runs"
status = [
  { is = "running", when = { ended = "$null" } },
  { is = "failed", when = { why = { "$ne" = "$null" } } },
  { is = "succeeded" },
]

[attempts.fields]
jobId = "job"
workerId = { first_of = ["host", "by"] }
startedAt = "began"
finishedAt = "ended"
error = { object = { message = "why" } }
"""


def test_attempts_of_a_collection_are_read_with_rules_readings_and_computed_fields(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], tmp_path: Path
) -> None:
    """Catches attempts without numbers that are not numbered in the order of their starts."""
    path = tmp_path / "runs.toml"
    path.write_text(RUNS_PROFILE)

    def to_text(after_s: float) -> str:
        return (NOW + timedelta(seconds=after_s)).isoformat(timespec="milliseconds")[:-6] + "Z"

    with temporary_database(mongo) as database:
        database.work.insert_one({"key": "a", "kind": "mail", "state": "queued", "created": NOW})
        database.runs.insert_many(
            [
                {"job": "a", "began": to_text(9), "by": "w-2"},
                {"job": "a", "began": to_text(1), "ended": to_text(3), "why": "no", "host": "w-1"},
                {"job": "a", "began": to_text(5), "ended": to_text(6), "host": "w-1"},
                {"job": "b", "began": to_text(5), "ended": to_text(6)},
            ]
        )
        indexes = init(database_uri(mongod, database), PROFILE=str(path))
        assert {"runs(job, began)", "runs(ended)"} <= set(indexes)
        queue = QueueService(
            mongod,
            database,
            profile=str(path),
            jobs_collection="work",
            attempts_collection="runs",
        )
        with profiled(database) as entries:
            attempts = queue.get("/jobs/a")["attempts"]
            (tallies,) = count_activity(queue.connection, NOW, NOW + MINUTE, MINUTE).values()
        queue.close()
    fields = ("attemptNumber", "status", "workerId", "durationMs")
    assert [tuple(attempt[name] for name in fields) for attempt in attempts] == [
        (1, "failed", "w-1", 2_000),
        (2, "succeeded", "w-1", 1_000),
        (3, "running", "w-2", None),
    ]
    assert attempts[0]["error"] == {"code": None, "message": "no", "stack": None}
    runs = {bucket(2_000): 1, bucket(1_000): 1}
    assert tallies["mail"] == Tally(enqueued=1, outcomes={"failed": 1, "succeeded": 1}, run=runs)
    reads = [entry for entry in entries if entry["ns"].endswith(".runs") and "planSummary" in entry]
    plans = {entry["planSummary"] for entry in reads if "limit" not in entry["command"]}
    assert plans
    assert "COLLSCAN" not in str(plans)
