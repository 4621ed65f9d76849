"""`jobmon.queue` on the real server: catches a job held twice, a late report that changes
something, a job or an attempt that is lost in a crash, a wrong delay."""

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import AutoReconnect, DuplicateKeyError

from jobmon.demo.mongod import Mongod
from jobmon.domain import JobStatus
from jobmon.queue import JobQueue, Lease, LeaseLostError, RetryPolicy

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

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(database: Db, clock: Clock) -> JobQueue:
    queue = JobQueue(database, clock=clock, jitter=lambda: 0.5)
    queue.create_indexes()
    return queue


def leased(queue: JobQueue, worker: str = "w1", **options: Any) -> Lease:
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


def job(database: Db, job_id: str) -> dict[str, Any]:
    return database.jobs.find_one({"jobId": job_id}, {"_id": 0})


def attempts(database: Db) -> list[dict[str, Any]]:
    return list(database.job_attempts.find({}, {"_id": 0}).sort("attemptNumber"))


def test_an_enqueued_job_has_the_contracts_fields(queue: JobQueue, database: Db) -> None:
    job_id = queue.enqueue("email.send", {"to": "ada"}, created_by="ada", priority=3)
    assert job(database, job_id) == {
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


def test_a_job_id_is_used_once(queue: JobQueue) -> None:
    queue.enqueue("t", job_id="same")
    with pytest.raises(DuplicateKeyError):
        queue.enqueue("t", job_id="same")


@pytest.mark.parametrize("bad", [{"job_type": ""}, {"job_type": "t", "max_attempts": 0}])
def test_a_job_that_could_never_run_is_refused(queue: JobQueue, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        queue.enqueue(**bad)


def test_the_most_urgent_job_that_is_due_comes_first(queue: JobQueue, clock: Clock) -> None:
    late = queue.enqueue("t", run_at=NOW - timedelta(seconds=5))
    later = queue.enqueue("t")
    urgent = queue.enqueue("t", priority=1)
    future = queue.enqueue("t", priority=9, run_at=NOW + timedelta(seconds=1))
    assert [leased(queue).job_id for _ in range(3)] == [urgent, late, later]
    assert queue.lease("w1") is None
    clock.forward(seconds=1)
    assert leased(queue).job_id == future


@pytest.mark.parametrize("new_is_due_ms", [700, 800])
def test_retries_and_new_jobs_are_taken_in_the_order_of_their_due_times(
    queue: JobQueue, clock: Clock, new_is_due_ms: int
) -> None:
    retried = queue.enqueue("t")
    queue.report_failure(leased(queue), "E", "m")  # due again 750 ms from now
    new = queue.enqueue("t", run_at=NOW + timedelta(milliseconds=new_is_due_ms))
    clock.forward(seconds=1)
    in_order = [new, retried] if new_is_due_ms < 750 else [retried, new]
    assert [leased(queue).job_id for _ in range(2)] == in_order


def test_a_worker_gets_only_the_requested_types(queue: JobQueue) -> None:
    queue.enqueue("a")
    requested = queue.enqueue("b")
    assert queue.lease("w1", types=["c"]) is None
    assert leased(queue, types=["b", "c"]).job_id == requested


@pytest.mark.parametrize("types", [None, ["rare"], ["rare", "other"]], ids=str)
def test_a_lease_reads_a_few_index_keys_however_many_jobs_wait(
    queue: JobQueue, database: Db, types: list[str] | None
) -> None:
    """Catches a lease that reads the keys of all more urgent jobs."""
    queue.create_indexes(by_type=True)
    urgent = {"type": "common", "status": "queued", "priority": 9}
    database.jobs.insert_many(
        urgent | {"jobId": str(number), "nextRunAt": NOW - timedelta(seconds=number + 1)}
        for number in range(300)
    )
    queue.enqueue("rare")
    queue.list_paused_types()
    database.command("profile", 2)
    leased(queue, types=types)
    database.command("profile", 0)
    found = database.system.profile.find_one({"command.findAndModify": "jobs"})
    assert found is not None
    assert found["keysExamined"] <= 10


@pytest.mark.parametrize("more", [{}, {"nextRunAt": None}])
def test_a_job_of_another_program_is_due_without_a_date(
    queue: JobQueue, database: Db, more: dict[str, Any]
) -> None:
    database.jobs.insert_one({"jobId": "other", "type": "t", "status": "queued", **more})
    assert leased(queue).attempt_number == 1
    assert job(database, "other")["status"] == "leased"


def test_eight_threads_leasing_hundreds_of_jobs_never_hold_one_twice(database: Db) -> None:
    queue = JobQueue(database)
    queue.create_indexes()
    enqueued = {queue.enqueue("t") for _ in range(600)}
    taken: list[str] = []

    def work(worker: str) -> None:
        while (lease := queue.lease(worker)) is not None:
            taken.append(lease.job_id)

    threads = [threading.Thread(target=work, args=[f"w{number}"]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 600
    assert set(taken) == enqueued
    assert database.job_attempts.count_documents({"attemptNumber": 1, "status": "running"}) == 600
    assert database.jobs.count_documents({"status": "leased", "attemptCount": 1}) == 600


def test_success_is_recorded_in_job_and_attempt(
    queue: JobQueue, database: Db, clock: Clock
) -> None:
    job_id = queue.enqueue("t")
    lease = leased(queue)
    assert job(database, job_id)["leaseExpiresAt"] == NOW + timedelta(seconds=30)
    clock.forward(seconds=2)
    queue.report_success(lease)
    done = job(database, job_id)
    assert (done["status"], done["finishedAt"], done["updatedAt"]) == (
        "succeeded",
        clock.now,
        clock.now,
    )
    assert (done["leasedBy"], done["leaseExpiresAt"], done["attemptCount"]) == (None, None, 1)
    assert attempts(database) == [
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


def test_every_change_of_a_job_is_dated_in_its_updatedat(
    queue: JobQueue, database: Db, clock: Clock
) -> None:
    job_id = queue.enqueue("t")
    held: list[Lease] = []
    changes: list[Callable[[], Any]] = [
        lambda: held.append(leased(queue)),
        lambda: queue.heartbeat(held[-1]),
        lambda: queue.report_failure(held[-1], "E", "m"),
        lambda: held.append(leased(queue)),
        queue.recover,
        lambda: queue.cancel(job_id),
    ]
    for change in changes:
        clock.forward(seconds=45 if change == queue.recover else 5)
        change()
        assert job(database, job_id)["updatedAt"] == clock.now


def test_lease_returns_the_times_that_the_database_stores(database: Db) -> None:
    queue = JobQueue(database, clock=lambda: NOW.replace(microsecond=123_999))
    job_id = queue.enqueue("t")
    lease = leased(queue, lease_ms=1)
    assert lease.started_at == NOW.replace(microsecond=123_000)
    assert lease.expires_at == job(database, job_id)["leaseExpiresAt"]
    assert lease.expires_at == NOW.replace(microsecond=124_000)


def test_failures_are_retried_with_growing_delays_until_the_dead_letter_queue(
    queue: JobQueue, database: Db, clock: Clock
) -> None:
    job_id = queue.enqueue("t", max_attempts=3)
    for number, delay_ms in ((1, 750), (2, 1_500)):
        status = queue.report_failure(leased(queue), f"E{number}", "broken", stack="at line 1")
        assert status is JobStatus.FAILED
        failed = job(database, job_id)
        assert failed["status"] == "failed"
        assert failed["nextRunAt"] == clock.now + timedelta(milliseconds=delay_ms)
        assert failed["lastError"] == {
            "code": f"E{number}",
            "message": "broken",
            "stack": "at line 1",
        }
        assert failed["finishedAt"] is None
        clock.forward(milliseconds=delay_ms - 1)
        assert queue.lease("w1") is None
        clock.forward(milliseconds=1)
    assert queue.report_failure(leased(queue), "E3", "broken") is JobStatus.DLQ
    dead = job(database, job_id)
    assert (dead["status"], dead["finishedAt"], dead["attemptCount"]) == ("dlq", clock.now, 3)
    assert [(a["attemptNumber"], a["status"], a["error"]["code"]) for a in attempts(database)] == [
        (1, "failed", "E1"),
        (2, "failed", "E2"),
        (3, "failed", "E3"),
    ]
    clock.forward(days=9)
    assert queue.lease("w1") is None


def test_a_failure_without_retry_goes_to_the_dead_letter_queue_at_once(
    queue: JobQueue, database: Db
) -> None:
    job_id = queue.enqueue("t")
    assert queue.report_failure(leased(queue), "BAD", "no", retry=False) is JobStatus.DLQ
    assert job(database, job_id)["status"] == "dlq"


@pytest.mark.parametrize(
    ("number", "least", "most"), [(1, 500, 1_000), (2, 1_000, 2_000), (5, 8_000, 16_000)]
)
def test_the_delay_doubles_and_has_jitter_between_half_and_all_of_it(
    number: int, least: int, most: int
) -> None:
    policy = RetryPolicy(base_ms=1_000, cap_ms=60_000)
    assert policy.delay_ms(number, 0) == least
    assert policy.delay_ms(number, 0.999_999) == most
    assert least < policy.delay_ms(number, 0.5) < most


def test_the_delay_is_capped_however_many_attempts_there_were() -> None:
    policy = RetryPolicy(base_ms=1_000, cap_ms=60_000)
    assert policy.delay_ms(7, 0.999_999) == policy.delay_ms(10**9, 0.999_999) == 60_000


def test_a_heartbeat_holds_the_job_longer(queue: JobQueue, database: Db, clock: Clock) -> None:
    job_id = queue.enqueue("t")
    lease = leased(queue, lease_ms=1_000)
    clock.forward(milliseconds=900)
    assert queue.heartbeat(lease, lease_ms=1_000) == clock.now + timedelta(seconds=1)
    clock.forward(milliseconds=900)
    assert queue.recover() == 0
    queue.report_success(lease)
    assert job(database, job_id)["status"] == "succeeded"


def expire(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    clock.forward(minutes=1)


def recover(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    clock.forward(minutes=1)
    assert queue.recover() == 1


def take_over(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    recover(queue, clock, lease)
    clock.forward(minutes=1)
    assert leased(queue, "w2").job_id == lease.job_id


def same_worker_again(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    recover(queue, clock, lease)
    clock.forward(minutes=1)
    assert leased(queue, "w1").job_id == lease.job_id


def cancel(queue: JobQueue, clock: Clock, lease: Lease) -> None:
    assert queue.cancel(lease.job_id)


@pytest.mark.parametrize("lose", [expire, recover, take_over, same_worker_again, cancel])
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
    lose: Callable[[JobQueue, Clock, Lease], None],
    report: Callable[[JobQueue, Lease], Any],
) -> None:
    job_id = queue.enqueue("t")
    lease = leased(queue)
    lose(queue, clock, lease)
    before = job(database, job_id), attempts(database)
    with pytest.raises(LeaseLostError, match=f"w1 no longer holds attempt 1 of job {job_id}"):
        report(queue, lease)
    assert (job(database, job_id), attempts(database)) == before


@pytest.mark.parametrize(
    "other",
    [{"status": "cancelled"}, {"leasedBy": "w2"}, {"attemptCount": 2}, {"leaseExpiresAt": None}],
    ids=str,
)
def test_a_job_that_another_program_took_away_by_any_field_is_lost(
    queue: JobQueue, database: Db, other: dict[str, Any]
) -> None:
    job_id = queue.enqueue("t")
    lease = leased(queue)
    database.jobs.update_one({"jobId": job_id}, {"$set": other})
    before = job(database, job_id), attempts(database)
    for report in (queue.heartbeat, queue.report_success):
        with pytest.raises(LeaseLostError):
            report(lease)
    with pytest.raises(LeaseLostError):
        queue.report_failure(lease, "E", "late")
    assert (job(database, job_id), attempts(database)) == before


def test_an_expired_lease_is_taken_back_and_its_attempt_counts(
    queue: JobQueue, database: Db, clock: Clock
) -> None:
    job_id = queue.enqueue("t", max_attempts=2)
    leased(queue)
    assert queue.recover() == 0
    clock.forward(seconds=30)
    assert queue.recover() == 1
    back = job(database, job_id)
    assert (back["status"], back["leasedBy"], back["lastError"]) == ("failed", None, EXPIRED)
    assert back["nextRunAt"] == clock.now + timedelta(milliseconds=750)
    clock.forward(seconds=1)
    leased(queue)
    clock.forward(seconds=30)
    assert queue.recover() == 1
    assert job(database, job_id)["status"] == "dlq"
    assert [(a["status"], a["error"]) for a in attempts(database)] == [("expired", EXPIRED)] * 2
    assert queue.recover() == 0


def test_recoverers_side_by_side_take_each_lease_back_once(database: Db, clock: Clock) -> None:
    queue = JobQueue(database, clock=clock)
    for _ in range(200):
        queue.enqueue("t", max_attempts=1)
        leased(queue)
    clock.forward(minutes=1)
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(queue.recover())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 200
    assert database.jobs.count_documents({"status": "dlq"}) == 200


def later() -> datetime:
    return NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda queue, lease: queue.heartbeat(lease, lease_ms=600_000),
        lambda queue, lease: queue.report_success(lease),
        lambda queue, lease: queue.report_failure(lease, "E", "m"),
        lambda queue, lease: queue.cancel(lease.job_id),
        lambda queue, lease: JobQueue(queue._jobs.database, clock=later).recover(),
    ],
    ids=["heartbeat", "success", "failure", "cancel", "another recovery"],
)
def test_recovery_does_not_touch_a_job_that_changed_after_its_query(
    queue: JobQueue, database: Db, meanwhile: Callable[[JobQueue, Lease], Any]
) -> None:
    job_id = queue.enqueue("t")
    lease = leased(queue)
    seen: list[Any] = []

    def change_job() -> float:  # called for the jitter: after the read, before the update
        meanwhile(queue, lease)
        seen.extend([job(database, job_id), attempts(database)])
        return 0.5

    assert JobQueue(database, clock=later, jitter=change_job).recover() == 0
    assert [job(database, job_id), attempts(database)] == seen


def test_a_worker_killed_in_mid_job_loses_nothing(mongod: Mongod, database: Db) -> None:
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

    later = JobQueue(database, clock=lambda: datetime.now(UTC) + timedelta(minutes=1))
    assert later.recover() == 1
    much_later = JobQueue(database, clock=lambda: datetime.now(UTC) + timedelta(minutes=2))
    lease = leased(much_later, "survivor")
    assert lease.job_id == job_id
    much_later.report_success(lease)
    assert job(database, job_id)["status"] == "succeeded"
    assert [(a["attemptNumber"], a["workerId"], a["status"]) for a in attempts(database)] == [
        (1, "victim", "expired"),
        (2, "survivor", "succeeded"),
    ]


class CrashingAttempts:
    """The attempts collection of a process that dies before it can write to it."""

    def __getattr__(self, _: str) -> Any:
        raise AutoReconnect("killed")


@pytest.mark.parametrize(
    ("report", "status", "attempt"),
    [
        (lambda queue, lease: queue.report_success(lease), "succeeded", ("succeeded", None)),
        (
            lambda queue, lease: queue.report_failure(lease, "E", "m"),
            "failed",
            ("failed", {"code": "E", "message": "m", "stack": None}),
        ),
        (lambda queue, lease: queue.cancel(lease.job_id), "cancelled", ("failed", CANCELLED)),
    ],
    ids=["success", "failure", "cancel"],
)
def test_a_crash_between_job_and_attempt_is_completed_by_recovery(
    queue: JobQueue,
    database: Db,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    report: Callable[[JobQueue, Lease], Any],
    status: str,
    attempt: tuple[str, Any],
) -> None:
    job_id = queue.enqueue("t")
    lease = leased(queue)
    clock.forward(seconds=1)
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_attempts", CrashingAttempts())
        with pytest.raises(AutoReconnect):
            report(queue, lease)
    assert job(database, job_id)["status"] == status
    assert attempts(database)[0]["status"] == "running"
    reported_at = clock.now
    clock.forward(seconds=9)
    queue.recover()
    (only,) = attempts(database)
    assert (only["status"], only["error"], only["finishedAt"]) == (*attempt, reported_at)


def test_a_crash_between_leasing_and_the_first_record_is_recorded_by_recovery(
    queue: JobQueue, database: Db, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = queue.enqueue("t")
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_attempts", CrashingAttempts())
        with pytest.raises(AutoReconnect):
            queue.lease("w1")
    assert attempts(database) == []
    clock.forward(minutes=1)
    assert queue.recover() == 1
    (only,) = attempts(database)
    assert (only["jobId"], only["status"], only["workerId"]) == (job_id, "expired", "w1")
    assert (only["startedAt"], only["finishedAt"]) == (NOW, clock.now)


@pytest.mark.parametrize("lose", [recover, take_over, cancel])
def test_a_worker_that_stalls_before_the_first_record_does_not_reopen_its_attempt(
    queue: JobQueue, database: Db, clock: Clock, lose: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("t")
    stalled = JobQueue(database, clock=Clock())
    record, ended = stalled._attempts._collection.replace_one, []

    def stall(*arguments: Any, **options: Any) -> Any:
        lost = database.jobs.find_one({"status": "leased"})
        lose(queue, clock, make_lease("w0", lost))
        ended.extend(attempts(database))
        return record(*arguments, **options)

    monkeypatch.setattr(stalled._attempts._collection, "replace_one", stall)
    assert stalled.lease("w0") is None
    assert ended[0]["finishedAt"] == (NOW if lose is cancel else NOW + timedelta(minutes=1))
    assert attempts(database) == ended


def test_a_crash_of_recovery_between_job_and_attempt_is_completed_by_the_next(
    queue: JobQueue, database: Db, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("t")
    leased(queue)
    clock.forward(minutes=1)
    with monkeypatch.context() as patch:
        patch.setattr(queue, "_attempts", CrashingAttempts())
        with pytest.raises(AutoReconnect):
            queue.recover()
    assert attempts(database)[0]["status"] == "running"
    expired_at = clock.now
    clock.forward(seconds=9)
    assert queue.recover() == 0
    (only,) = attempts(database)
    assert (only["status"], only["error"], only["finishedAt"]) == ("expired", EXPIRED, expired_at)


def test_lost_reports_are_completed_however_many_attempts_run(
    queue: JobQueue, database: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a lost report that is never read, because as many long runs come first."""
    monkeypatch.setattr("jobmon.queue.attempts.BATCH_SIZE", 2)
    for _ in range(5):
        queue.enqueue("t")
        lease = leased(queue)
    database.jobs.update_one({"jobId": lease.job_id}, {"$set": {"status": "succeeded"}})
    queue.recover()
    assert sorted(a["status"] for a in attempts(database)) == ["running"] * 4 + ["succeeded"]


def test_an_attempt_whose_job_was_deleted_or_has_moved_on_is_ended(
    queue: JobQueue, database: Db
) -> None:
    for number in (1, 2):
        database.job_attempts.insert_one(
            {"jobId": f"j{number}", "attemptNumber": 1, "status": "running"}
        )
    database.jobs.insert_one({"jobId": "j2", "status": "leased", "attemptCount": 2})
    queue.recover()
    assert [a["status"] for a in attempts(database)] == ["expired", "expired"]


def test_cancel_ends_unfinished_jobs_and_no_others(
    queue: JobQueue, database: Db, clock: Clock
) -> None:
    queued, running, failed, done = (queue.enqueue("t", priority=-n) for n in range(4))
    assert queue.cancel(queued)
    leased(queue)
    queue.report_failure(leased(queue), "E", "m")
    queue.report_success(leased(queue))
    assert queue.cancel(running)
    assert queue.cancel(failed)
    assert not queue.cancel(done)
    assert not queue.cancel("no such job")
    assert not queue.cancel(queued)
    statuses = [job(database, job_id)["status"] for job_id in (queued, running, failed, done)]
    assert statuses == ["cancelled", "cancelled", "cancelled", "succeeded"]
    cancelled = database.job_attempts.find_one({"jobId": running})
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")


def test_leasing_and_recovery_read_from_an_index_in_order(queue: JobQueue, database: Db) -> None:
    for number in range(500):
        queue.enqueue("t", priority=number % 5)
    database.command("profile", 2)
    leased(queue, types=["t"])
    queue.recover()
    database.command("profile", 0)
    entries = list(database["system.profile"].find({"ns": {"$regex": "jobs$|attempts$"}}))
    assert {"findandmodify", "find"} <= {next(iter(entry["command"])).lower() for entry in entries}
    for entry in entries:
        assert "COLLSCAN" not in entry.get("planSummary", ""), entry["command"]
        assert not entry.get("hasSortStage"), entry["command"]
        assert entry.get("keysExamined", 0) <= 10, entry["command"]
