"""`jobmon.queue` on the real server.

Catches a job that two workers run at a time, a late report that changes something, a job or an
attempt that is lost in a crash, and a wrong delay of a retry.
"""

import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import AutoReconnect, DuplicateKeyError

from jobmon.demo.mongod import Mongod
from jobmon.domain import JobStatus
from jobmon.queue import JobQueue, Lease, LeaseLostError, RetryPolicy
from jobmon.queue.job_queue import MAX_ERROR_TEXT_LENGTH

from ..conftest import NOW
from ..support.processes import end_process
from ..support.waiting import eventually

Db = Database[dict[str, Any]]
CANCELLED = {"code": "cancelled", "message": "The job was cancelled.", "stack": None}
EXPIRED = {"code": "lease_expired", "message": "The worker stopped.", "stack": None}


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(database: Db, clock: Clock) -> JobQueue:
    queue = JobQueue(database, clock=clock, jitter=lambda: 0.5)
    queue.create_indexes()
    return queue


def lease_job(queue: JobQueue, worker: str = "w1", **options: Any) -> Lease:
    lease = queue.lease(worker, **options)
    assert lease is not None
    return lease


def make_lease(worker: str, job: dict[str, Any]) -> Lease:
    return Lease(
        job_id=job["jobId"],
        attempt_number=1,
        worker_id=worker,
        started_at=NOW,
        expires_at=NOW,
        job=job,
    )


def read_job(database: Db, job_id: str) -> dict[str, Any]:
    return database.jobs.find_one({"jobId": job_id}, {"_id": 0})


def read_attempts(database: Db) -> list[dict[str, Any]]:
    return list(database.job_attempts.find({}, {"_id": 0}).sort("attemptNumber"))


def test_an_enqueued_job_has_the_contracts_fields(queue: JobQueue, database: Db) -> None:
    job_id = queue.enqueue("email.send", {"to": "ada"}, created_by="ada", priority=3)
    assert read_job(database, job_id) == {
        "jobId": job_id,
        "type": "email.send",
        "status": "queued",
        "payload": {"to": "ada"},
        "priority": 3,
        "createdBy": "ada",
        "createdAt": NOW,
        "updatedAt": NOW,
        "nextRunAt": NOW,
        "maxAttempts": 5,
        "attemptCount": 0,
        "leasedBy": None,
        "leaseExpiresAt": None,
        "finishedAt": None,
        "lastError": None,
    }


def test_second_job_with_the_same_id_is_refused(queue: JobQueue) -> None:
    queue.enqueue("t", job_id="same")
    with pytest.raises(DuplicateKeyError):
        queue.enqueue("t", job_id="same")


@pytest.mark.parametrize(
    "options",
    [{"job_type": ""}, {"job_type": "t", "max_attempts": 0}],
    ids=["no type", "no attempts"],
)
def test_a_job_that_could_never_run_is_refused(queue: JobQueue, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        queue.enqueue(**options)


def test_due_jobs_are_leased_by_priority_and_then_by_due_time(
    queue: JobQueue, clock: Clock
) -> None:
    overdue = queue.enqueue("t", run_at=NOW - timedelta(seconds=5))
    due_now = queue.enqueue("t")
    urgent = queue.enqueue("t", priority=1)
    scheduled = queue.enqueue("t", priority=9, run_at=NOW + timedelta(seconds=1))
    assert [lease_job(queue).job_id for _ in range(3)] == [urgent, overdue, due_now]
    assert queue.lease("w1") is None
    clock.advance(seconds=1)
    assert lease_job(queue).job_id == scheduled


@pytest.mark.parametrize("new_job_due_in_ms", [700, 800])
def test_retries_and_new_jobs_are_leased_in_the_order_of_their_due_times(
    queue: JobQueue, clock: Clock, new_job_due_in_ms: int
) -> None:
    retried = queue.enqueue("t")
    queue.report_failure(lease_job(queue), "E", "m")  # due again in 750 ms
    new = queue.enqueue("t", run_at=NOW + timedelta(milliseconds=new_job_due_in_ms))
    clock.advance(seconds=1)
    expected = [new, retried] if new_job_due_in_ms < 750 else [retried, new]
    assert [lease_job(queue).job_id for _ in range(2)] == expected


def test_a_worker_gets_only_the_requested_types(queue: JobQueue) -> None:
    queue.enqueue("a")
    requested = queue.enqueue("b")
    assert queue.lease("w1", types=["c"]) is None
    assert lease_job(queue, types=["b", "c"]).job_id == requested


def test_a_single_text_for_types_is_one_type(queue: JobQueue) -> None:
    """Catches a worker that never gets a job, because it requests types with one letter."""
    requested = queue.enqueue("mail")
    assert lease_job(queue, types="mail").job_id == requested


@pytest.mark.parametrize("types", [None, ["rare"], ["rare", "other"]], ids=str)
def test_lease_reads_few_index_keys_even_if_many_jobs_wait(
    queue: JobQueue, database: Db, types: list[str] | None
) -> None:
    """Catches a lease that reads the keys of all more urgent jobs."""
    queue.create_indexes(by_type=True)
    urgent_job = {"type": "common", "status": "queued", "priority": 9}
    database.jobs.insert_many(
        urgent_job | {"jobId": str(index), "nextRunAt": NOW - timedelta(seconds=index + 1)}
        for index in range(300)
    )
    queue.enqueue("rare")
    database.command("profile", 2)
    lease_job(queue, types=types)
    database.command("profile", 0)
    entry = database.system.profile.find_one({"command.findAndModify": "jobs"})
    assert entry is not None
    assert entry["keysExamined"] <= 10


@pytest.mark.parametrize("due_time", [{}, {"nextRunAt": None}], ids=["missing", "null"])
def test_a_job_of_another_program_without_a_due_time_is_due(
    queue: JobQueue, database: Db, due_time: dict[str, Any]
) -> None:
    database.jobs.insert_one({"jobId": "a", "type": "t", "status": "queued", **due_time})
    assert lease_job(queue).attempt_number == 1
    assert read_job(database, "a")["status"] == "leased"


@pytest.mark.parametrize("odd_count", [None, "many"])
def test_a_job_of_another_program_with_an_odd_number_of_attempts_is_leased(
    queue: JobQueue, database: Db, odd_count: Any
) -> None:
    """Catches one job that makes every lease of all workers fail."""
    queue.enqueue("t", job_id="job")
    database.jobs.update_one({"jobId": "job"}, {"$set": {"attemptCount": odd_count}})
    lease = lease_job(queue, "$worker")
    assert (lease.job_id, lease.attempt_number, lease.job["leasedBy"]) == ("job", 1, "$worker")


@pytest.mark.parametrize("odd_limit", ["five", math.inf])
def test_a_job_with_an_odd_limit_does_not_stop_the_recovery_of_others(
    queue: JobQueue, database: Db, clock: Clock, odd_limit: Any
) -> None:
    for job_id in ("odd", "other"):
        queue.enqueue("t", job_id=job_id)
        lease_job(queue)
        clock.advance(seconds=1)
    database.jobs.update_one({"jobId": "odd"}, {"$set": {"maxAttempts": odd_limit}})
    clock.advance(minutes=1)
    assert queue.recover() == 1
    statuses = {job_id: read_job(database, job_id)["status"] for job_id in ("odd", "other")}
    assert statuses == {"odd": "leased", "other": "failed"}


def test_eight_threads_lease_each_of_600_jobs_once(database: Db) -> None:
    queue = JobQueue(database)
    queue.create_indexes()
    enqueued_ids = {queue.enqueue("t") for _ in range(600)}
    leased_ids: list[str] = []

    def lease_all(worker: str) -> None:
        while (lease := queue.lease(worker)) is not None:
            leased_ids.append(lease.job_id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lease_all, [f"w{index}" for index in range(8)]))
    assert len(leased_ids) == 600
    assert set(leased_ids) == enqueued_ids
    assert database.job_attempts.count_documents({"attemptNumber": 1, "status": "running"}) == 600
    assert database.jobs.count_documents({"status": "leased", "attemptCount": 1}) == 600


def test_success_is_recorded_in_job_and_attempt(
    queue: JobQueue, database: Db, clock: Clock
) -> None:
    job_id = queue.enqueue("t")
    lease = lease_job(queue)
    assert read_job(database, job_id)["leaseExpiresAt"] == NOW + timedelta(seconds=30)
    clock.advance(seconds=2)
    queue.report_success(lease)
    job = read_job(database, job_id)
    dates = (job["finishedAt"], job["updatedAt"])
    assert (job["status"], *dates) == ("succeeded", clock.now, clock.now)
    assert (job["leasedBy"], job["leaseExpiresAt"], job["attemptCount"]) == (None, None, 1)
    assert read_attempts(database) == [
        {
            "jobId": job_id,
            "attemptNumber": 1,
            "status": "succeeded",
            "workerId": "w1",
            "eligibleAt": NOW,
            "startedAt": NOW,
            "finishedAt": clock.now,
            "error": None,
        }
    ]


def test_lease_heartbeat_failure_recovery_and_cancel_set_updated_at(
    queue: JobQueue, database: Db, clock: Clock
) -> None:
    job_id = queue.enqueue("t")
    leases: list[Lease] = []
    changes: list[Callable[[], Any]] = [
        lambda: leases.append(lease_job(queue)),
        lambda: queue.heartbeat(leases[-1]),
        lambda: queue.report_failure(leases[-1], "E", "m"),
        lambda: leases.append(lease_job(queue)),
        queue.recover,
        lambda: queue.cancel(job_id),
    ]
    for change in changes:
        clock.advance(seconds=45 if change == queue.recover else 5)
        change()
        assert read_job(database, job_id)["updatedAt"] == clock.now


def test_lease_returns_the_times_that_the_database_stores(database: Db) -> None:
    queue = JobQueue(database, clock=lambda: NOW.replace(microsecond=123_999))
    job_id = queue.enqueue("t")
    lease = lease_job(queue, lease_ms=1)
    assert lease.started_at == NOW.replace(microsecond=123_000)
    assert lease.expires_at == read_job(database, job_id)["leaseExpiresAt"]
    assert lease.expires_at == NOW.replace(microsecond=124_000)


def test_failures_are_retried_with_growing_delays_until_the_dead_letter_queue(
    queue: JobQueue, database: Db, clock: Clock
) -> None:
    job_id = queue.enqueue("t", max_attempts=3)
    for code, delay_ms in (("E1", 750), ("E2", 1_500)):
        status = queue.report_failure(lease_job(queue), code, "broken", stack="at line 1")
        assert status is JobStatus.FAILED
        job = read_job(database, job_id)
        assert job["status"] == "failed"
        assert job["nextRunAt"] == clock.now + timedelta(milliseconds=delay_ms)
        assert job["lastError"] == {"code": code, "message": "broken", "stack": "at line 1"}
        assert job["finishedAt"] is None
        clock.advance(milliseconds=delay_ms - 1)
        assert queue.lease("w1") is None
        clock.advance(milliseconds=1)
    assert queue.report_failure(lease_job(queue), "E3", "broken") is JobStatus.DLQ
    job = read_job(database, job_id)
    assert (job["status"], job["finishedAt"], job["attemptCount"]) == ("dlq", clock.now, 3)
    attempts = read_attempts(database)
    assert [attempt["attemptNumber"] for attempt in attempts] == [1, 2, 3]
    assert [attempt["status"] for attempt in attempts] == ["failed"] * 3
    assert [attempt["error"]["code"] for attempt in attempts] == ["E1", "E2", "E3"]
    clock.advance(days=9)
    assert queue.lease("w1") is None


def test_a_failure_whose_texts_cannot_be_stored_is_reported(queue: JobQueue, database: Db) -> None:
    """Catches a lost error: a name of a file can have surrogates, and a stack can be long."""
    queue.enqueue("mail", job_id="job")
    message = "No such file: 'caf\udce9'"
    assert queue.report_failure(lease_job(queue), "E", message, stack=20_000_000 * "x") == "failed"
    error = read_job(database, "job")["lastError"]
    stack = MAX_ERROR_TEXT_LENGTH * "x"
    assert error == {"code": "E", "message": "No such file: 'caf?'", "stack": stack}
    assert database.job_attempts.find_one({"jobId": "job"})["error"] == error


def test_a_failure_without_retry_goes_to_the_dead_letter_queue_at_once(
    queue: JobQueue, database: Db
) -> None:
    job_id = queue.enqueue("t")
    assert queue.report_failure(lease_job(queue), "BAD", "no", retry=False) is JobStatus.DLQ
    assert read_job(database, job_id)["status"] == "dlq"


@pytest.mark.parametrize(
    ("attempt_number", "min_ms", "max_ms"), [(1, 500, 1_000), (2, 1_000, 2_000), (5, 8_000, 16_000)]
)
def test_the_delay_doubles_and_jitter_subtracts_at_most_half_of_it(
    attempt_number: int, min_ms: int, max_ms: int
) -> None:
    policy = RetryPolicy(base_ms=1_000, cap_ms=60_000)
    assert policy.delay_ms(attempt_number, 0) == min_ms
    assert policy.delay_ms(attempt_number, 0.999_999) == max_ms
    assert min_ms < policy.delay_ms(attempt_number, 0.5) < max_ms


def test_the_delay_is_capped_after_many_attempts() -> None:
    policy = RetryPolicy(base_ms=1_000, cap_ms=60_000)
    assert policy.delay_ms(7, 0.999_999) == policy.delay_ms(10**9, 0.999_999) == 60_000


def test_heartbeat_extends_the_lease(queue: JobQueue, database: Db, clock: Clock) -> None:
    job_id = queue.enqueue("t")
    lease = lease_job(queue, lease_ms=1_000)
    clock.advance(milliseconds=900)
    assert queue.heartbeat(lease, lease_ms=1_000) == clock.now + timedelta(seconds=1)
    clock.advance(milliseconds=900)
    assert queue.recover() == 0
    queue.report_success(lease)
    assert read_job(database, job_id)["status"] == "succeeded"


# The ways in which a worker loses its lease.
def expire_lease(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    clock.advance(minutes=1)


def recover_job(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    clock.advance(minutes=1)
    assert queue.recover() == 1


def lease_by_another_worker(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    recover_job(queue, clock, lease)
    clock.advance(minutes=1)
    assert lease_job(queue, "w2").job_id == lease.job_id


def lease_by_the_same_worker(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    recover_job(queue, clock, lease)
    clock.advance(minutes=1)
    assert lease_job(queue, "w1").job_id == lease.job_id


def cancel_job(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    assert queue.cancel(lease.job_id)


@pytest.mark.parametrize(
    "end_lease",
    [expire_lease, recover_job, lease_by_another_worker, lease_by_the_same_worker, cancel_job],
)
@pytest.mark.parametrize(
    "report",
    [
        lambda queue, lease: queue.report_success(lease),
        lambda queue, lease: queue.report_failure(lease, "E", "late"),
        lambda queue, lease: queue.heartbeat(lease),
    ],
    ids=["success", "failure", "heartbeat"],
)
def test_a_late_report_after_a_lost_lease_changes_nothing(
    queue: JobQueue,
    database: Db,
    clock: Clock,
    end_lease: Callable[[JobQueue, Clock, Lease], None],
    report: Callable[[JobQueue, Lease], Any],
) -> None:
    job_id = queue.enqueue("t")
    lease = lease_job(queue)
    end_lease(queue, clock, lease)
    before = read_job(database, job_id), read_attempts(database)
    with pytest.raises(LeaseLostError, match=f"w1 no longer holds attempt 1 of job {job_id}"):
        report(queue, lease)
    assert (read_job(database, job_id), read_attempts(database)) == before


@pytest.mark.parametrize(
    "fields",
    [{"status": "cancelled"}, {"leasedBy": "w2"}, {"attemptCount": 2}, {"leaseExpiresAt": None}],
    ids=str,
)
def test_lease_is_lost_if_another_program_changes_a_field_of_the_lease(
    queue: JobQueue, database: Db, fields: dict[str, Any]
) -> None:
    job_id = queue.enqueue("t")
    lease = lease_job(queue)
    database.jobs.update_one({"jobId": job_id}, {"$set": fields})
    before = read_job(database, job_id), read_attempts(database)
    for report in (queue.heartbeat, queue.report_success):
        with pytest.raises(LeaseLostError):
            report(lease)
    with pytest.raises(LeaseLostError):
        queue.report_failure(lease, "E", "late")
    assert (read_job(database, job_id), read_attempts(database)) == before


def test_an_expired_lease_is_released_and_its_attempt_counts(
    queue: JobQueue, database: Db, clock: Clock
) -> None:
    job_id = queue.enqueue("t", max_attempts=2)
    lease_job(queue)
    assert queue.recover() == 0
    clock.advance(seconds=30)
    assert queue.recover() == 1
    job = read_job(database, job_id)
    assert (job["status"], job["leasedBy"], job["lastError"]) == ("failed", None, EXPIRED)
    assert job["nextRunAt"] == clock.now + timedelta(milliseconds=750)
    clock.advance(seconds=1)
    lease_job(queue)
    clock.advance(seconds=30)
    assert queue.recover() == 1
    assert read_job(database, job_id)["status"] == "dlq"
    attempts = read_attempts(database)
    assert [attempt["status"] for attempt in attempts] == ["expired", "expired"]
    assert [attempt["error"] for attempt in attempts] == [EXPIRED, EXPIRED]
    assert queue.recover() == 0


def test_parallel_recoveries_release_each_lease_once(database: Db, clock: Clock) -> None:
    queue = JobQueue(database, clock=clock)
    for _ in range(200):
        queue.enqueue("t", max_attempts=1)
        lease_job(queue)
    clock.advance(minutes=1)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: queue.recover(), range(4))) == 200
    assert database.jobs.count_documents({"status": "dlq"}) == 200


def read_clock_a_minute_later() -> datetime:
    return NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    "change_job",
    [
        lambda queue, lease: queue.heartbeat(lease, lease_ms=600_000),
        lambda queue, lease: queue.report_success(lease),
        lambda queue, lease: queue.report_failure(lease, "E", "m"),
        lambda queue, lease: queue.cancel(lease.job_id),
        lambda queue, _: JobQueue(queue._jobs.database, clock=read_clock_a_minute_later).recover(),
    ],
    ids=["heartbeat", "success", "failure", "cancel", "another recovery"],
)
def test_recovery_does_not_change_a_job_that_changed_after_recovery_read_it(
    queue: JobQueue, database: Db, change_job: Callable[[JobQueue, Lease], Any]
) -> None:
    job_id = queue.enqueue("t")
    lease = lease_job(queue)
    after_change: list[Any] = []

    def jitter() -> float:
        """Change the job: recovery calls this after its query and before its update."""
        change_job(queue, lease)
        after_change.extend([read_job(database, job_id), read_attempts(database)])
        return 0.5

    assert JobQueue(database, clock=read_clock_a_minute_later, jitter=jitter).recover() == 0
    assert [read_job(database, job_id), read_attempts(database)] == after_change


def test_job_of_a_killed_worker_is_recovered_and_run_again(mongod: Mongod, database: Db) -> None:
    queue = JobQueue(database)
    job_id = queue.enqueue("t")
    script = (
        "import sys, time; from pymongo import MongoClient; from jobmon.queue import JobQueue\n"
        "JobQueue(MongoClient(sys.argv[1])[sys.argv[2]]).lease('victim'); time.sleep(600)"
    )
    victim = subprocess.Popen([sys.executable, "-c", script, mongod.uri, database.name])
    try:
        eventually(lambda: database.job_attempts.find_one({"workerId": "victim"}))
    finally:
        end_process(victim, None)

    queue = JobQueue(database, clock=lambda: datetime.now(UTC) + timedelta(minutes=1))
    assert queue.recover() == 1
    queue = JobQueue(database, clock=lambda: datetime.now(UTC) + timedelta(minutes=2))
    lease = lease_job(queue, "survivor")
    assert lease.job_id == job_id
    queue.report_success(lease)
    assert read_job(database, job_id)["status"] == "succeeded"
    attempts = read_attempts(database)
    assert [attempt["attemptNumber"] for attempt in attempts] == [1, 2]
    assert [attempt["workerId"] for attempt in attempts] == ["victim", "survivor"]
    assert [attempt["status"] for attempt in attempts] == ["expired", "succeeded"]


class CrashingAttempts:
    """Attempt records that raise at each use, as if the process were killed just before it."""

    def __getattr__(self, _: str) -> Any:
        raise AutoReconnect("killed")


@pytest.mark.parametrize(
    ("report", "status", "attempt_status", "error"),
    [
        (lambda queue, lease: queue.report_success(lease), "succeeded", "succeeded", None),
        (
            lambda queue, lease: queue.report_failure(lease, "E", "m"),
            "failed",
            "failed",
            {"code": "E", "message": "m", "stack": None},
        ),
        (lambda queue, lease: queue.cancel(lease.job_id), "cancelled", "failed", CANCELLED),
    ],
    ids=["success", "failure", "cancel"],
)
def test_report_that_crashes_before_it_writes_the_attempt_is_completed_by_recovery(
    queue: JobQueue,
    database: Db,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    report: Callable[[JobQueue, Lease], Any],
    status: str,
    attempt_status: str,
    error: dict[str, Any] | None,
) -> None:
    job_id = queue.enqueue("t")
    lease = lease_job(queue)
    clock.advance(seconds=1)
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_attempts", CrashingAttempts())
        with pytest.raises(AutoReconnect):
            report(queue, lease)
    assert read_job(database, job_id)["status"] == status
    assert read_attempts(database)[0]["status"] == "running"
    reported_at = clock.now
    clock.advance(seconds=9)
    queue.recover()
    (attempt,) = read_attempts(database)
    assert (attempt["status"], attempt["error"]) == (attempt_status, error)
    assert attempt["finishedAt"] == reported_at


def test_lease_that_crashes_before_it_writes_the_attempt_is_recorded_by_recovery(
    queue: JobQueue, database: Db, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queue.enqueue("t")
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_attempts", CrashingAttempts())
        with pytest.raises(AutoReconnect):
            queue.lease("w1")
    assert read_attempts(database) == []
    clock.advance(minutes=1)
    assert queue.recover() == 1
    (attempt,) = read_attempts(database)
    assert (attempt["jobId"], attempt["status"], attempt["workerId"]) == (job_id, "expired", "w1")
    assert (attempt["startedAt"], attempt["finishedAt"]) == (NOW, clock.now)


@pytest.mark.parametrize("end_lease", [recover_job, lease_by_another_worker, cancel_job])
def test_worker_that_stalls_before_it_writes_an_attempt_does_not_reopen_the_ended_attempt(
    queue: JobQueue, database: Db, clock: Clock, end_lease: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("t")
    stalling_queue = JobQueue(database, clock=Clock())
    write_attempt, ended_attempts = stalling_queue._attempts._collection.replace_one, []

    def stall(*arguments: Any, **options: Any) -> Any:
        """End the lease, and only then write its attempt."""
        job = database.jobs.find_one({"status": "leased"})
        end_lease(queue, clock, make_lease("w0", job))
        ended_attempts.extend(read_attempts(database))
        return write_attempt(*arguments, **options)

    monkeypatch.setattr(stalling_queue._attempts._collection, "replace_one", stall)
    assert stalling_queue.lease("w0") is None
    ended_at = NOW if end_lease is cancel_job else NOW + timedelta(minutes=1)
    assert ended_attempts[0]["finishedAt"] == ended_at
    assert read_attempts(database) == ended_attempts


def test_recovery_that_crashes_before_it_writes_the_attempt_is_completed_by_the_next_recovery(
    queue: JobQueue, database: Db, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("t")
    lease_job(queue)
    clock.advance(minutes=1)
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_attempts", CrashingAttempts())
        with pytest.raises(AutoReconnect):
            queue.recover()
    assert read_attempts(database)[0]["status"] == "running"
    expired_at = clock.now
    clock.advance(seconds=9)
    assert queue.recover() == 0
    (attempt,) = read_attempts(database)
    assert (attempt["status"], attempt["error"], attempt["finishedAt"]) == (
        "expired",
        EXPIRED,
        expired_at,
    )


def test_lost_report_is_completed_although_a_full_batch_of_attempts_runs(
    queue: JobQueue, database: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a lost report that recovery never completes, because running attempts fill a batch.

    The job of the last attempt has succeeded, but the attempt has no end.
    """
    monkeypatch.setattr("jobmon.queue.attempts.BATCH_SIZE", 2)
    for _ in range(5):
        queue.enqueue("t")
        lease = lease_job(queue)
    database.jobs.update_one({"jobId": lease.job_id}, {"$set": {"status": "succeeded"}})
    queue.recover()
    statuses = sorted(attempt["status"] for attempt in read_attempts(database))
    assert statuses == ["running"] * 4 + ["succeeded"]


def test_attempt_whose_job_was_deleted_or_has_a_later_attempt_expires(
    queue: JobQueue, database: Db
) -> None:
    for job_id in ("deleted", "retried"):
        database.job_attempts.insert_one({"jobId": job_id, "attemptNumber": 1, "status": "running"})
    database.jobs.insert_one({"jobId": "retried", "status": "leased", "attemptCount": 2})
    queue.recover()
    assert [attempt["status"] for attempt in read_attempts(database)] == ["expired", "expired"]


def test_cancel_ends_only_unfinished_jobs(queue: JobQueue, database: Db, clock: Clock) -> None:
    queued, running, failed, succeeded = (queue.enqueue("t", priority=-rank) for rank in range(4))
    assert queue.cancel(queued)
    lease_job(queue)
    queue.report_failure(lease_job(queue), "E", "m")
    queue.report_success(lease_job(queue))
    assert queue.cancel(running)
    assert queue.cancel(failed)
    assert not queue.cancel(succeeded)
    assert not queue.cancel("no such job")
    assert not queue.cancel(queued)
    for job_id in (queued, running, failed):
        assert read_job(database, job_id)["status"] == "cancelled"
    assert read_job(database, succeeded)["status"] == "succeeded"
    attempt = database.job_attempts.find_one({"jobId": running})
    assert (attempt["status"], attempt["error"]["code"]) == ("failed", "cancelled")


def test_leasing_and_recovery_read_few_index_keys_and_do_not_sort(
    queue: JobQueue, database: Db
) -> None:
    for index in range(500):
        queue.enqueue("t", priority=index % 5)
    database.command("profile", 2)
    lease_job(queue, types=["t"])
    queue.recover()
    database.command("profile", 0)
    entries = list(database["system.profile"].find({"ns": {"$regex": "jobs$|attempts$"}}))
    assert {"findandmodify", "find"} <= {next(iter(entry["command"])).lower() for entry in entries}
    for entry in entries:
        assert "COLLSCAN" not in entry.get("planSummary", ""), entry["command"]
        assert not entry.get("hasSortStage"), entry["command"]
        assert entry.get("keysExamined", 0) <= 10, entry["command"]
