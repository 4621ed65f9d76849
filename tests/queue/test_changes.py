"""Actions of `jobmon.queue` on the real server: catches a change of a job that does not allow it, a
change that overwrites a later one, a retry without an attempt, and a paused type that runs."""

from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.domain import ACTION_STATUSES, JobAction, JobStatus
from jobmon.queue import JobQueue, LeaseLostError, RefusedActionError
from jobmon.queue import job_queue as queue_module

from ..conftest import NOW

Db = Database[dict[str, Any]]
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def queue(database: Db) -> JobQueue:
    return JobQueue(database, clock=lambda: NOW, jitter=lambda: 0.5)


def read(database: Db, job_id: str = "job") -> dict[str, Any]:
    found = JobQueue(database)._jobs.find_one({"jobId": job_id})
    assert found is not None
    return found


def kill(queue: JobQueue, times: int = 1) -> None:
    """Lease the job, and let its attempt fail without a retry."""
    for _ in range(times):
        lease = queue.lease("w1")
        assert lease is not None
        queue.report_failure(lease, "E", "no answer", retry=False)


def test_decide_refuses_each_action_for_jobs_with_another_status(queue: JobQueue) -> None:
    values = {JobAction.RESCHEDULE: LATER, JobAction.PRIORITIZE: 3}
    for action, allowed in ACTION_STATUSES.items():
        for status in set(JobStatus) - set(allowed):
            with pytest.raises(RefusedActionError, match=f"it is {status}"):
                queue.decide(action, {"status": status.value}, values.get(action))


def test_disable_is_refused_for_jobs_of_the_library(queue: JobQueue) -> None:
    with pytest.raises(RefusedActionError):
        queue.decide(JobAction.DISABLE, {"status": "queued"})


@pytest.mark.parametrize(
    "change",
    [
        {"status": "queued"},
        {"attemptCount": 2},
        {"leasedBy": "w2"},
        {"updatedAt": LATER},
        {"nextRunAt": LATER},
        {"priority": 9},
    ],
    ids=lambda change: next(iter(change)),
)
def test_apply_changes_nothing_if_the_job_has_changed_since_it_was_read(
    queue: JobQueue, database: Db, change: dict[str, Any]
) -> None:
    queue.enqueue("mail", job_id="job")
    kill(queue)
    decided = queue.decide(JobAction.RETRY, read(database))
    database.jobs.update_one({}, {"$set": change})
    before = read(database)
    assert queue.apply(decided, last_action={"id": "r1"}) is False
    assert read(database) == before


def test_cancel_of_a_running_job_is_not_prevented_by_its_heartbeat(
    queue: JobQueue, database: Db
) -> None:
    queue.enqueue("mail", job_id="job")
    lease = queue.lease("w1")
    assert lease is not None
    decided = queue.decide(JobAction.CANCEL, read(database))
    queue.heartbeat(lease, lease_ms=60_000)
    assert queue.apply(decided) is True
    with pytest.raises(LeaseLostError):
        queue.heartbeat(lease)
    attempt = database.job_attempts.find_one()
    assert attempt is not None
    assert (attempt["status"], attempt["error"]["code"]) == ("failed", "cancelled")


def test_a_retry_continues_or_resets_its_attempts(queue: JobQueue, database: Db) -> None:
    queue.enqueue("mail", job_id="job", max_attempts=2)
    kill(queue)
    queue.apply(queue.decide(JobAction.RETRY, read(database)))
    kill(queue)
    queue.apply(queue.decide(JobAction.RETRY, read(database)))
    # The page must not show attempt 3 of 2.
    assert read(database)["maxAttempts"] == read(database)["attemptCount"] + 1 == 3
    lease = queue.lease("w1")
    assert lease is not None
    assert lease.attempt_number == 3
    assert queue.report_failure(lease, "E", "no") is JobStatus.DLQ  # one attempt at least, no more
    for count in (3, 5):
        queue.apply(queue.decide(JobAction.RETRY, read(database), reset_attempts=True))
        job = read(database)
        assert (job["maxAttempts"], job["attemptsBefore"]) == (count + 2, count)
        lease = queue.lease("w1")
        assert lease is not None
        assert queue.report_failure(lease, "E", "no") is JobStatus.FAILED
        # The delay is as after a first attempt, too.
        assert read(database)["nextRunAt"] == NOW + timedelta(milliseconds=750)
        database.jobs.update_one({}, {"$set": {"nextRunAt": NOW}})
        lease = queue.lease("w1")
        assert lease is not None
        assert queue.report_failure(lease, "E", "no") is JobStatus.DLQ
    numbers = [each["attemptNumber"] for each in database.job_attempts.find()]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6, 7]


def test_actions_that_would_change_nothing_are_refused(queue: JobQueue) -> None:
    waiting = {"status": "queued", "nextRunAt": NOW, "priority": 3}
    for action, value in (
        (JobAction.RUN_NOW, None),
        (JobAction.RESCHEDULE, NOW),
        (JobAction.PRIORITIZE, 3),
    ):
        with pytest.raises(RefusedActionError, match="already"):
            queue.decide(action, waiting, value)


def test_delete_removes_the_job_with_its_attempts(queue: JobQueue, database: Db) -> None:
    for job_id in ("job", "other"):
        queue.enqueue("mail", job_id=job_id)
    kill(queue, 2)
    assert queue.apply(queue.decide(JobAction.DELETE, read(database))) is True
    assert [job["jobId"] for job in database.jobs.find()] == ["other"]
    assert [attempt["jobId"] for attempt in database.job_attempts.find()] == ["other"]


def test_jobs_of_a_paused_type_are_not_leased(
    queue: JobQueue, database: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("mail", job_id="mail", priority=9)
    queue.enqueue("report", job_id="report")
    database.job_controls.insert_one({"_id": "paused", "types": ["mail"]})
    lease = queue.lease("w1")
    assert lease is not None
    assert lease.job_id == "report"
    assert queue.lease("w1", types=["mail"]) is None
    database.job_controls.update_one({}, {"$set": {"types": []}})
    assert queue.lease("w1") is None  # the list is at most a second old
    monkeypatch.setattr(queue_module, "PAUSED_TYPES_MAX_AGE_S", -1.0)
    lease = queue.lease("w1", types=["mail"])
    assert lease is not None
    assert lease.job_id == "mail"
