"""`explanation` in `GET /jobs/{jobId}`: catches a condition that the documents do not show, more
than a number of another owner's jobs, and a failure of the history that hides the job."""

import json
import logging
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
    assert "No job of its type has been started for more than" in found["text"]


def test_a_job_that_runs_longer_than_its_type_is_named(counted: WatchedQueue) -> None:
    found = explanation(counted.api, "slow")
    assert found["code"] == "running_long"
    assert "which took up to about 1.9 s in the last hour" in found["text"]


def test_a_history_that_cannot_be_read_leaves_the_job(
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
