"""`explanation` in `GET /jobs/{jobId}`: catches a claim that the documents do not support, details
of other owners' jobs, and a job that is not shown because its history cannot be read."""

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Code, ObjectId
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.rollup.series import NoCollectorError
from jobmon.setup.indexes import create_indexes
from jobmon.store.live_stats import LiveStats

from ..conftest import Api
from ..support.queue_service import QueueService, temporary_database
from ..support.waiting import eventually

MINUTE = timedelta(minutes=1)
MongoDb = Database[dict[str, Any]]
NO_COLLECTOR = "no collector keeps the statistics up to date"


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def get_explanation(api: Api, job_id: str = "j", **query: Any) -> dict[str, Any]:
    answer = api.get_as_admin(f"/jobs/{job_id}", **query)
    assert answer.status_code == 200, answer.text
    explanation: dict[str, Any] = answer.json["explanation"]
    return explanation


def to_iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_due_job_has_the_number_of_jobs_ahead(api: Api, watched: Any, now: datetime) -> None:
    waiting = {"status": "queued", "priority": 0, "type": "mail"}
    watched.jobs.insert_many(
        [
            {"jobId": f"first{index}", **waiting, "nextRunAt": now - index * MINUTE}
            for index in (2, 3, 4)
        ]
        + [
            {"jobId": "urgent", **waiting, "priority": 9, "type": "pay", "nextRunAt": now - MINUTE},
            {"jobId": "early", **waiting, "priority": 9, "nextRunAt": now + MINUTE},
            {"jobId": "j", **waiting, "nextRunAt": now - MINUTE},
            {"jobId": "last", **waiting, "nextRunAt": now},
        ]
    )
    explanation = get_explanation(api)
    since = to_iso(now - MINUTE)
    assert explanation.pop("text").startswith("It became due 1 min")
    assert explanation == {
        "code": "waiting",
        "since": since,
        "until": None,
        "ahead": 4,
        "aheadIsExact": True,
        "expectedStart": None,
        "reasons": {"expectedStart": NO_COLLECTOR},
    }
    assert get_explanation(api, "early")["code"] == "not_due"


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
def test_the_code_follows_from_the_job_and_its_attempts(
    api: Api, watched: Any, now: datetime, job: dict[str, Any], attempts: list[str], code: str
) -> None:
    job_with_dates = {
        name: now + value if isinstance(value, timedelta) else value for name, value in job.items()
    }
    watched.jobs.insert_one({"jobId": "j", **job_with_dates})
    for number, status in enumerate(attempts, start=1):
        attempt = {"jobId": "j", "attemptNumber": number, "status": status, "startedAt": now}
        watched.job_attempts.insert_one(attempt)
    explanation = get_explanation(api)
    assert explanation["code"] == code
    if code == "running":
        assert (explanation["since"], explanation["until"]) == (to_iso(now), to_iso(now + MINUTE))
    if code == "waiting":
        assert (explanation["ahead"], explanation["expectedStart"]) == (None, None)
        assert explanation["reasons"].keys() == {"ahead", "expectedStart"}


def test_a_job_whose_type_is_code_is_explained(api: Api, watched: Any) -> None:
    """Catches a 500: a BSON `Code` is a `str` that cannot be the key of a dictionary."""
    watched.jobs.insert_one({"jobId": "odd", "type": Code("mail"), "status": "queued"})
    answer = api.get_as_admin("/jobs/odd")
    assert answer.status_code == 200
    assert (answer.json["type"], answer.json["explanation"]["code"]) == ("mail", "waiting")


def test_an_owner_learns_only_the_number_of_other_owners_jobs(
    api: Api, watched: Any, now: datetime
) -> None:
    caller, other_owner = ObjectId(), ObjectId()
    fields = {
        "createdBy": other_owner,
        "status": "queued",
        "type": "their-secret-type",
        "payload": {"note": "their-secret-note"},
        "leasedBy": "their-secret-worker",
        "nextRunAt": now - 9 * MINUTE,
    }
    watched.jobs.insert_many(
        [{"jobId": f"their-secret-{index}", **fields} for index in range(3)]
        + [{"jobId": "j", "createdBy": caller, "status": "queued", "nextRunAt": now - MINUTE}]
    )
    answer = api.get_as_owner("/jobs/j", str(caller))
    assert answer.json["explanation"]["ahead"] == 3
    assert "3 due jobs are ahead" in answer.json["explanation"]["text"]
    assert "their-secret" not in answer.text
    assert str(other_owner) not in answer.text
    api.client.set_cookie("jobmon_session", api.token(str(caller), "user"), path="/dashboard")
    page = api.client.get("/dashboard/jobs/j").text
    assert "3 due jobs are ahead" in page
    assert "their-secret" not in page
    assert api.get_as_owner("/jobs/their-secret-1", str(caller)).status_code == 403


def test_a_secret_in_the_name_of_a_worker_is_redacted(
    api: Api, watched: Any, now: datetime
) -> None:
    worker = "postgres://u:hunter2-Zx9@db/x"
    leased = {"status": "leased", "leasedBy": worker, "leaseExpiresAt": now + MINUTE}
    watched.jobs.insert_one({"jobId": "j", **leased})
    explanation = get_explanation(api)
    assert "leased by postgres:" in explanation["text"]
    assert "hunter2" not in json.dumps(explanation)


def test_no_job_is_counted_live_for_an_explanation(
    api: Api, watched: Any, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("jobs were counted live")

    monkeypatch.setattr(LiveStats, "count", refuse)
    watched.jobs.insert_one({"jobId": "j", "status": "queued", "nextRunAt": now})
    assert get_explanation(api)["ahead"] == 0


# --- Queues of other programs --------------------------------------------------------------------

AGENDA_FIELDS = {"name": "mail", "data": {}, "lastModifiedBy": "maker"}
LEASE = ", if a lease lasts 10 min"  # the assumption in each text about a lease
# Profile, collection, fields of the job (a duration is added to now), text of the explanation.
PROGRAM_CASES: list[tuple[str, str, dict[str, Any], str]] = [
    (
        "agenda",
        "agendaJobs",
        {"nextRunAt": MINUTE, "lockedAt": -MINUTE, "lastRunAt": -MINUTE},
        f"An attempt started 1 min ago on maker; the lease ends in 8 min 59 s{LEASE}.",
    ),
    (  # locked, but not started: the recorded start and worker are those of the previous run
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
    (  # the number of runs is unknown: failCount counts only failures
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
    (  # if a worker crashes, Celery does not change the status of its task
        "celery",
        "celery_taskmeta",
        {"status": "STARTED", "worker": "w1", "retries": 0, "date_done": None},
        "It is leased by w1 for attempt 1; it is unknown whether it still runs. "
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
    (  # the number of the attempt is not a number
        "celery",
        "celery_taskmeta",
        {"status": "FAILURE", "retries": "odd", "date_done": -MINUTE},
        "It died 1 min ago, and is not retried.",
    ),
    (
        "mongodb-queue",
        "queue",
        {"visible": MINUTE, "ack": "a", "tries": 1},
        "It is leased for attempt 1; the lease ends in 59 s. No start of the attempt is recorded.",
    ),
    ("mongodb-queue", "queue", {"visible": -MINUTE, "tries": 2}, "Retry 2 became due 1 min ago."),
]


@pytest.mark.parametrize(("profile", "collection"), sorted({case[:2] for case in PROGRAM_CASES}))
def test_explanation_claims_only_what_the_queue_records(
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    now: datetime,
    profile: str,
    collection: str,
) -> None:
    def to_stored(value: Any) -> Any:
        if not isinstance(value, timedelta):
            return value
        return to_iso(now + value) if profile == "mongodb-queue" else now + value

    def ignore_seconds(text: str) -> str:
        return re.sub(r"(?<=\d) min( \d+ s)?|\b5\d s", " …", text)

    cases = [case[2:] for case in PROGRAM_CASES if case[0] == profile]
    with temporary_database(mongo) as database:
        for index, (fields, _) in enumerate(cases):
            job = {name: to_stored(value) for name, value in fields.items()}
            job |= AGENDA_FIELDS if profile == "agenda" else {}
            database[collection].insert_one({"_id": f"job{index}", **job})
        queue = QueueService(mongod, database, profile=profile, jobs_collection=collection)
        texts = [get_explanation(queue.api, f"job{index}")["text"] for index in range(len(cases))]
        queue.close()
    assert [ignore_seconds(text) for text in texts] == [ignore_seconds(text) for _, text in cases]


# --- With a collector ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def queue(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[QueueService]:
    """A queue with an hour of history, and a collector that counts it."""
    with temporary_database(mongo) as database:
        JobQueue(database).create_indexes()
        queue = QueueService(mongod, database)
        create_indexes(queue.connection)
        now = datetime.now(UTC)
        database.job_attempts.insert_many(
            {
                "jobId": f"done{index}",
                "attemptNumber": 1,
                "status": "succeeded",
                "startedAt": ended_at - timedelta(seconds=2),
                "finishedAt": ended_at,
            }
            for index in range(400)
            for ended_at in [now - index * timedelta(seconds=10)]
        )
        jobs = [
            {"jobId": f"done{index}", "type": "mail", "status": "succeeded", "finishedAt": now}
            for index in range(400)
        ]
        waiting = {"status": "queued", "createdAt": now - 50 * MINUTE, "attemptCount": 0}
        jobs += [
            {"jobId": f"mail{index}", "type": "mail", **waiting, "nextRunAt": now - 9 * MINUTE
             + index * timedelta(seconds=1)}
            for index in range(12)
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
        with queue.running_collector():
            yield queue
        queue.close()


def test_a_due_job_starts_at_the_rate_of_its_type(queue: QueueService) -> None:
    def read_once_estimated() -> dict[str, Any]:
        explanation = get_explanation(queue.api, "mail11")
        return explanation if explanation["expectedStart"] else {}

    explanation = eventually(read_once_estimated)
    # Six mails finish per minute. Ahead are 11 mails, and a report, which does not delay mails.
    assert (explanation["code"], explanation["ahead"], explanation["reasons"]) == (
        "waiting",
        12,
        {},
    )
    assert explanation["text"].endswith(
        "12 due jobs are ahead of it, 11 of its type. At the present rate it starts in about 2 min."
    )
    delay = datetime.fromisoformat(explanation["expectedStart"]) - datetime.now(UTC)
    assert timedelta(seconds=60) < delay < timedelta(minutes=3)


def test_a_due_job_of_a_type_without_runs_is_type_stalled(queue: QueueService) -> None:
    explanation = get_explanation(queue.api, "report")
    assert explanation["code"] == "type_stalled"
    assert explanation["ahead"] == 0
    assert "No attempt of its type runs, and none has ended for more than" in explanation["text"]


def test_a_job_slower_than_99_percent_of_its_type_is_running_long(queue: QueueService) -> None:
    explanation = get_explanation(queue.api, "slow")
    assert explanation["code"] == "running_long"
    comparison = "99% of the runs of its type took up to about 1.9 s in the last hour"
    assert comparison in explanation["text"]


def test_running_job_is_explained_although_the_collector_has_just_stopped(
    queue: QueueService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a 500: without a collector, the history of a day cannot be read."""

    def raise_no_collector(*_: object) -> None:
        raise NoCollectorError

    monkeypatch.setattr("jobmon.rollup.series.SeriesReader.history_by_type", raise_no_collector)
    assert get_explanation(queue.api, "slow")["code"] == "running"


def test_a_job_is_explained_although_its_history_cannot_be_read(
    queue: QueueService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def raise_disconnected(*_: object) -> None:
        raise AutoReconnect("away")

    eventually(lambda: get_explanation(queue.api, "mail3")["expectedStart"])
    monkeypatch.setattr("jobmon.rollup.series.SeriesReader.history_by_type", raise_disconnected)
    with caplog.at_level(logging.ERROR):
        explanation = get_explanation(queue.api, "mail3")
    assert (explanation["code"], explanation["ahead"]) == ("waiting", 4)
    assert explanation["reasons"] == {"expectedStart": "the history could not be read"}
    assert "queue default: a job is explained without history" in caplog.text
    assert get_explanation(queue.api, "slow")["code"] == "running"
