"""Actions of `jobmon.queue` on the real server.

Catches an action on a job that does not allow it, a change that overwrites a later change, a
retried job that has no attempt left, and a job of a paused type that is leased.
"""

from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.domain import ACTION_STATUSES, JobAction, JobStatus
from jobmon.queue import JobQueue, LeaseLostError, RefusedActionError
from jobmon.queue import job_queue as queue_module

from ..conftest import NOW
from .test_job_queue import lease_job

Db = Database[dict[str, Any]]
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def queue(database: Db) -> JobQueue:
    return JobQueue(database, clock=lambda: NOW, jitter=lambda: 0.5)


def read_job(database: Db, job_id: str = "job") -> dict[str, Any]:
    job = database.jobs.find_one({"jobId": job_id})
    assert job is not None
    return job


def fail_without_retry(queue: JobQueue, times: int = 1) -> None:
    """Lease a job and report a failure without a retry, `times` times."""
    for _ in range(times):
        lease = lease_job(queue)
        queue.report_failure(lease, "E", "no answer", retry=False)


def test_decide_refuses_each_action_for_jobs_with_another_status(queue: JobQueue) -> None:
    values = {JobAction.RESCHEDULE: LATER, JobAction.PRIORITIZE: 3}
    for action, allowed in ACTION_STATUSES.items():
        for status in set(JobStatus) - set(allowed):
            with pytest.raises(RefusedActionError, match=f"it is {status}"):
                queue.decide(action, {"status": status.value}, values.get(action))


def test_disable_is_refused_for_a_job_of_jobmons_own_queue(queue: JobQueue) -> None:
    with pytest.raises(RefusedActionError):
        queue.decide(JobAction.DISABLE, {"status": "queued"})


@pytest.mark.parametrize(
    "later_change",
    [
        {"status": "queued"},
        {"attemptCount": 2},
        {"leasedBy": "w2"},
        {"updatedAt": LATER},
        {"nextRunAt": LATER},
        {"priority": 9},
    ],
    ids=lambda later_change: next(iter(later_change)),
)
def test_apply_changes_nothing_if_the_job_has_changed_since_it_was_read(
    queue: JobQueue, database: Db, later_change: dict[str, Any]
) -> None:
    queue.enqueue("mail", job_id="job")
    fail_without_retry(queue)
    change = queue.decide(JobAction.RETRY, read_job(database))
    database.jobs.update_one({}, {"$set": later_change})
    before = read_job(database)
    assert queue.apply(change, last_action={"id": "r1"}) is False
    assert read_job(database) == before


def test_a_running_job_is_cancelled_despite_a_heartbeat_since_it_was_read(
    queue: JobQueue, database: Db
) -> None:
    queue.enqueue("mail", job_id="job")
    lease = lease_job(queue)
    change = queue.decide(JobAction.CANCEL, read_job(database))
    JobQueue(database, clock=lambda: NOW + timedelta(seconds=1)).heartbeat(lease)
    assert queue.apply(change) is True
    with pytest.raises(LeaseLostError):
        queue.heartbeat(lease)
    attempt = database.job_attempts.find_one()
    assert attempt is not None
    assert (attempt["status"], attempt["error"]["code"]) == ("failed", "cancelled")


def test_retry_gives_one_more_attempt_or_resets_the_attempts(queue: JobQueue, database: Db) -> None:
    queue.enqueue("mail", job_id="job", max_attempts=2)
    fail_without_retry(queue)
    queue.apply(queue.decide(JobAction.RETRY, read_job(database)))
    fail_without_retry(queue)
    queue.apply(queue.decide(JobAction.RETRY, read_job(database)))
    # A page must not show `attempt 3 of 2`.
    assert read_job(database)["maxAttempts"] == read_job(database)["attemptCount"] + 1 == 3
    lease = lease_job(queue)
    assert lease.attempt_number == 3
    assert queue.report_failure(lease, "E", "no") is JobStatus.DLQ  # retry gave only one attempt
    for attempts_before in (3, 5):
        queue.apply(queue.decide(JobAction.RETRY, read_job(database), reset_attempts=True))
        job = read_job(database)
        assert job["attemptsBefore"] == attempts_before
        assert job["maxAttempts"] == attempts_before + 2
        lease = lease_job(queue)
        assert queue.report_failure(lease, "E", "no") is JobStatus.FAILED
        # The delay is the delay after a first attempt.
        assert read_job(database)["nextRunAt"] == NOW + timedelta(milliseconds=750)
        database.jobs.update_one({}, {"$set": {"nextRunAt": NOW}})
        lease = lease_job(queue)
        assert queue.report_failure(lease, "E", "no") is JobStatus.DLQ
    numbers = [attempt["attemptNumber"] for attempt in database.job_attempts.find()]
    assert sorted(numbers) == [1, 2, 3, 4, 5, 6, 7]


def test_a_job_whose_max_attempts_is_null_has_the_default_limit(
    queue: JobQueue, database: Db
) -> None:
    """Catches a TypeError for a job that another program enqueued."""
    queue.enqueue("mail", job_id="job")
    database.jobs.update_one({}, {"$set": {"maxAttempts": None}})
    lease = lease_job(queue)
    assert queue.report_failure(lease, "E", "no") is JobStatus.FAILED
    database.jobs.update_one({}, {"$set": {"status": "dlq", "attemptCount": 5}})
    queue.apply(queue.decide(JobAction.RETRY, read_job(database)))
    assert read_job(database)["maxAttempts"] == 6


def test_actions_that_would_change_nothing_are_refused(queue: JobQueue) -> None:
    waiting_job = {"status": "queued", "nextRunAt": NOW, "priority": 3}
    for action, value in (
        (JobAction.RUN_NOW, None),
        (JobAction.RESCHEDULE, NOW),
        (JobAction.PRIORITIZE, 3),
    ):
        with pytest.raises(RefusedActionError, match="already"):
            queue.decide(action, waiting_job, value)


def test_delete_removes_the_job_with_its_attempts(queue: JobQueue, database: Db) -> None:
    for job_id in ("job", "other"):
        queue.enqueue("mail", job_id=job_id)
    fail_without_retry(queue, 2)
    assert queue.apply(queue.decide(JobAction.DELETE, read_job(database))) is True
    assert [job["jobId"] for job in database.jobs.find()] == ["other"]
    assert [attempt["jobId"] for attempt in database.job_attempts.find()] == ["other"]


def test_delete_that_crashed_before_it_deleted_the_attempts_is_completed_by_a_second_call(
    queue: JobQueue, database: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("mail", job_id="job")
    fail_without_retry(queue)
    change = queue.decide(JobAction.DELETE, read_job(database))
    with monkeypatch.context() as crash:
        crash.setattr(queue, "_attempts", None)
        with pytest.raises(AttributeError):
            queue.apply(change)
    assert database.job_attempts.count_documents({}) == 1
    assert queue.apply(change) is False
    assert database.job_attempts.count_documents({}) == 0


def test_delete_keeps_the_attempts_of_a_new_job_with_the_same_id(
    queue: JobQueue, database: Db
) -> None:
    queue.enqueue("mail", job_id="job")
    fail_without_retry(queue)
    change = queue.decide(JobAction.DELETE, read_job(database))
    database.jobs.delete_many({})
    queue.enqueue("mail", job_id="job")
    assert queue.apply(change) is False
    assert database.job_attempts.count_documents({}) == 1


def test_jobs_of_a_paused_type_are_not_leased(
    queue: JobQueue, database: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("mail", job_id="mail", priority=9)
    queue.enqueue("report", job_id="report")
    database.job_controls.insert_one({"_id": "paused", "types": ["mail"]})
    lease = lease_job(queue)
    assert lease.job_id == "report"
    assert queue.lease("w1", types=["mail"]) is None
    database.job_controls.update_one({}, {"$set": {"types": []}})
    assert queue.lease("w1") is None  # the queue caches the list of paused types for a second
    monkeypatch.setattr(queue_module, "PAUSED_TYPES_MAX_AGE_S", -1.0)  # no cached list is used
    lease = lease_job(queue, types=["mail"])
    assert lease.job_id == "mail"
