"""`explanation` in `GET /jobs/{jobId}`: catches a condition that the documents do not show, details
of other owners' jobs, and a failure of the history that hides the job."""

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.setup.indexes import create_indexes
from jobmon.store.live_stats import LiveStats

from ..conftest import Api
from ..support.waiting import eventually
from ..support.watched_queue import WatchedQueue, temporary_database

MINUTE = timedelta(minutes=1)
Documents = Database[dict[str, Any]]
NO_COLLECTOR = "no collector keeps the statistics up to date"


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def explanation(api: Api, job_id: str = "j", **query: Any) -> dict[str, Any]:
    answer = api.get_as_admin(f"/jobs/{job_id}", **query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json["explanation"]
    return found


def to_iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_due_job_has_the_number_of_jobs_ahead(api: Api, watched: Any, now: datetime) -> None:
    waiting = {"status": "queued", "priority": 0, "type": "mail"}
    watched.jobs.insert_many(
        [
            {"jobId": f"first{number}", **waiting, "nextRunAt": now - number * MINUTE}
            for number in (2, 3, 4)
        ]
        + [
            {"jobId": "urgent", **waiting, "priority": 9, "type": "pay", "nextRunAt": now - MINUTE},
            {"jobId": "early", **waiting, "priority": 9, "nextRunAt": now + MINUTE},
            {"jobId": "j", **waiting, "nextRunAt": now - MINUTE},
            {"jobId": "last", **waiting, "nextRunAt": now},
        ]
    )
    found = explanation(api)
    since = to_iso(now - MINUTE)
    assert found.pop("text").startswith("It became due 1 min")
    assert found == {
        "code": "waiting",
        "since": since,
        "until": None,
        "ahead": 4,
        "aheadIsExact": True,
        "expectedStart": None,
        "reasons": {"expectedStart": NO_COLLECTOR},
    }
    assert explanation(api, "early")["code"] == "not_due"


@pytest.mark.parametrize(
    ("job", "attempts", "code"),
    [
        ({"status": "failed", "nextRunAt": MINUTE}, [], "retry_scheduled"),
        ({"status": "leased", "leaseExpiresAt": MINUTE}, ["running"], "running"),
        ({"status": "leased", "leaseExpiresAt": -MINUTE}, ["running"], "lease_expired"),
        ({"status": "dlq", "attemptCount": 2, "maxAttempts": 2}, [], "attempts_used_up"),
        ({"status": "dlq", "maxAttempts": 2}, ["failed"], "dead"),
        ({"status": "succeeded"}, ["succeeded"], "succeeded"),
        ({"status": "cancelled"}, [], "cancelled"),
        ({"status": {"odd": 1}}, [], "other_status"),
        ({"status": "queued", "nextRunAt": "soon"}, [], "waiting"),
        ({"status": "queued", "nextRunAt": None, "priority": [1]}, [], "waiting"),
        ({"status": "queued", "type": {"a": 1}, "createdAt": 5, "maxAttempts": "x"}, [], "waiting"),
    ],
)
def test_each_condition_is_read_from_the_documents(
    api: Api, watched: Any, now: datetime, job: dict[str, Any], attempts: list[str], code: str
) -> None:
    dated = {
        name: now + value if isinstance(value, timedelta) else value for name, value in job.items()
    }
    watched.jobs.insert_one({"jobId": "j", **dated})
    for number, status in enumerate(attempts, start=1):
        attempt = {"jobId": "j", "attemptNumber": number, "status": status, "startedAt": now}
        watched.job_attempts.insert_one(attempt)
    found = explanation(api)
    assert found["code"] == code
    if code == "running":
        assert (found["since"], found["until"]) == (to_iso(now), to_iso(now + MINUTE))
    if code == "waiting":
        assert (found["ahead"], found["expectedStart"]) == (None, None)
        assert found["reasons"].keys() == {"ahead", "expectedStart"}


def test_an_owner_learns_no_more_than_numbers_of_others_jobs(
    api: Api, watched: Any, now: datetime
) -> None:
    mine, other_owner = ObjectId(), ObjectId()
    others = {
        "createdBy": other_owner,
        "status": "queued",
        "type": "their-secret-type",
        "payload": {"note": "their-secret-note"},
        "leasedBy": "their-secret-worker",
        "nextRunAt": now - 9 * MINUTE,
    }
    watched.jobs.insert_many(
        [{"jobId": f"their-secret-{number}", **others} for number in range(3)]
        + [{"jobId": "j", "createdBy": mine, "status": "queued", "nextRunAt": now - MINUTE}]
    )
    answer = api.get_as_owner("/jobs/j", str(mine))
    assert answer.json["explanation"]["ahead"] == 3
    assert "3 due jobs are ahead" in answer.json["explanation"]["text"]
    assert "their-secret" not in answer.text
    assert str(other_owner) not in answer.text
    api.client.set_cookie("jobmon_session", api.token(str(mine), "user"), path="/dashboard")
    page = api.client.get("/dashboard/jobs/j").text
    assert "3 due jobs are ahead" in page
    assert "their-secret" not in page
    assert api.get_as_owner("/jobs/their-secret-1", str(mine)).status_code == 403


def test_a_worker_with_a_secret_in_its_name_is_redacted(
    api: Api, watched: Any, now: datetime
) -> None:
    worker = "postgres://u:hunter2-Zx9@db/x"
    leased = {"status": "leased", "leasedBy": worker, "leaseExpiresAt": now + MINUTE}
    watched.jobs.insert_one({"jobId": "j", **leased})
    assert "hunter2" not in json.dumps(explanation(api))


def test_no_job_is_counted_live_for_an_explanation(
    api: Api, watched: Any, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("counted")

    monkeypatch.setattr(LiveStats, "count", refuse)
    watched.jobs.insert_one({"jobId": "j", "status": "queued", "nextRunAt": now})
    assert explanation(api)["ahead"] == 0


# --- Queues of other programs --------------------------------------------------------------------

AGENDA = {"name": "mail", "data": {}, "lastModifiedBy": "maker"}
LEASE = ", if a lease lasts 10 min"
OTHERS: list[tuple[str, str, dict[str, Any], str]] = [
    (
        "agenda",
        "agendaJobs",
        {"nextRunAt": MINUTE, "lockedAt": -MINUTE, "lastRunAt": -MINUTE},
        f"An attempt started 1 min ago on maker; the lease ends in 8 min 59 s{LEASE}.",
    ),
    (  # locked, but not started: start and worker belong to the previous run
        "agenda",
        "agendaJobs",
        {"lockedAt": -MINUTE, "lastRunAt": -9 * MINUTE, "lastFinishedAt": -8 * MINUTE},
        f"It is leased; the lease ends in 8 min 59 s{LEASE}. No start of the attempt is recorded.",
    ),
    (
        "agenda",
        "agendaJobs",
        {"lockedAt": -11 * MINUTE},
        f"Its lease expired 1 min ago{LEASE}. No other worker has taken the job.",
    ),
    (  # how often it ran is not known: failCount counts failures
        "agenda",
        "agendaJobs",
        {"failCount": 2, **dict.fromkeys(("lastRunAt", "lastFinishedAt", "failedAt"), -MINUTE)},
        "It died 1 min ago, and is not retried.",
    ),
    (
        "agenda",
        "agendaJobs",
        {"disabled": True},
        "It is disabled, and not started until it is enabled.",
    ),
    (  # Celery does not change the status of a task that a crashed worker ran
        "celery",
        "celery_taskmeta",
        {"status": "STARTED", "worker": "w1", "retries": 0, "date_done": None},
        "Attempt 1 is leased by w1; it is unknown whether it still runs. "
        "No start of the attempt is recorded.",
    ),
    (
        "celery",
        "celery_taskmeta",
        {"status": "RETRY", "worker": "w1", "retries": 1, "date_done": None},
        "Retry 2 waits. The documents do not record when it is due.",
    ),
    (
        "celery",
        "celery_taskmeta",
        {"status": "FAILURE", "retries": 1, "date_done": -MINUTE},
        "It died 1 min ago after attempt 2, and is not retried.",
    ),
    (
        "mongodb-queue",
        "queue",
        {"visible": MINUTE, "ack": "a", "tries": 1},
        "Attempt 1 is leased; the lease ends in 59 s. No start of the attempt is recorded.",
    ),
    ("mongodb-queue", "queue", {"visible": -MINUTE, "tries": 2}, "Retry 2 became due 1 min ago."),
]


@pytest.mark.parametrize(("profile", "collection"), sorted({case[:2] for case in OTHERS}))
def test_what_other_programs_do_not_record_is_not_claimed(
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    now: datetime,
    profile: str,
    collection: str,
) -> None:
    def store(value: Any) -> Any:
        if not isinstance(value, timedelta):
            return value
        return to_iso(now + value) if profile == "mongodb-queue" else now + value

    def ignore_seconds(text: str) -> str:
        return re.sub(r"(?<=\d) min( \d+ s)?|\b5\d s", " …", text)

    cases = [case[2:] for case in OTHERS if case[0] == profile]
    with temporary_database(mongo) as database:
        for number, (fields, _) in enumerate(cases):
            job = {name: store(value) for name, value in fields.items()}
            job |= AGENDA if profile == "agenda" else {}
            database[collection].insert_one({"_id": f"job{number}", **job})
        watching = WatchedQueue(mongod, database, profile=profile, jobs_collection=collection)
        found = [explanation(watching.api, f"job{number}")["text"] for number in range(len(cases))]
        watching.close()
    assert [ignore_seconds(text) for text in found] == [ignore_seconds(text) for _, text in cases]


# --- With a collector ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[WatchedQueue]:
    """A queue with an hour of history, which a collector has counted."""
    with temporary_database(mongo) as database:
        JobQueue(database).create_indexes()
        watching = WatchedQueue(mongod, database)
        create_indexes(watching.connection)
        now = datetime.now(UTC)
        database.job_attempts.insert_many(
            {
                "jobId": f"done{number}",
                "attemptNumber": 1,
                "status": "succeeded",
                "startedAt": ended - timedelta(seconds=2),
                "finishedAt": ended,
            }
            for number in range(400)
            for ended in [now - number * timedelta(seconds=10)]
        )
        jobs = [
            {"jobId": f"done{number}", "type": "mail", "status": "succeeded", "finishedAt": now}
            for number in range(400)
        ]
        waiting = {"status": "queued", "createdAt": now - 50 * MINUTE, "attemptCount": 0}
        jobs += [
            {"jobId": f"mail{number}", "type": "mail", **waiting, "nextRunAt": now - 9 * MINUTE
             + number * timedelta(seconds=1)}
            for number in range(12)
        ]  # fmt: skip
        jobs += [
            {"jobId": "report", "type": "report", **waiting, "nextRunAt": now - 40 * MINUTE},
            {
                "jobId": "slow",
                "type": "mail",
                "status": "leased",
                "leasedBy": "w1",
                "leaseExpiresAt": now + 50 * MINUTE,
                "startedAt": now - MINUTE,
                "attemptCount": 1,
            },
        ]
        database.jobs.insert_many(jobs)
        running = {"jobId": "slow", "attemptNumber": 1, "status": "running"}
        database.job_attempts.insert_one({**running, "startedAt": now - MINUTE})
        with watching.running_collector():
            yield watching
        watching.close()


def test_a_due_job_starts_at_the_rate_of_its_type(counted: WatchedQueue) -> None:
    def find() -> dict[str, Any]:
        found = explanation(counted.api, "mail11")
        return found if found["expectedStart"] else {}

    found = eventually(find)
    # Twelve jobs at six a minute, behind a report that others run.
    assert (found["code"], found["ahead"], found["reasons"]) == ("waiting", 12, {})
    assert found["text"].endswith(
        "12 due jobs are ahead of it, 11 of its type. At the present rate it starts in about 2 min."
    )
    starts = datetime.fromisoformat(found["expectedStart"]) - datetime.now(UTC)
    assert timedelta(seconds=60) < starts < timedelta(minutes=3)


def test_a_job_of_a_type_that_is_not_started_has_the_time_since_then(counted: WatchedQueue) -> None:
    found = explanation(counted.api, "report")
    assert found["code"] == "type_stalled"
    assert found["ahead"] == 0
    assert "No attempt of its type runs, and none has ended for more than" in found["text"]


def test_a_job_that_runs_longer_than_its_type_is_named(counted: WatchedQueue) -> None:
    found = explanation(counted.api, "slow")
    assert found["code"] == "running_long"
    assert "99% of the runs of its type took up to about 1.9 s in the last hour" in found["text"]


def test_a_job_is_explained_although_its_history_cannot_be_read(
    counted: WatchedQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise AutoReconnect("away")

    eventually(lambda: explanation(counted.api, "mail3")["expectedStart"])
    monkeypatch.setattr("jobmon.rollup.series.SeriesReader.history_by_type", fail)
    with caplog.at_level(logging.ERROR):
        found = explanation(counted.api, "mail3")
    assert (found["code"], found["ahead"]) == ("waiting", 4)
    assert found["reasons"] == {"expectedStart": "the history could not be read"}
    assert "no history for an explanation of the queue default" in caplog.text
    assert explanation(counted.api, "slow")["code"] == "running"
