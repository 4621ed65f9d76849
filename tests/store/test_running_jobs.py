"""The jobs that run now, on the real server: catches a read that grows with the queue, a missing
start, and a limit that hides an expired lease."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.setup.indexes import create_indexes
from jobmon.store import running_jobs
from jobmon.store.running_jobs import RunningJobReader

from ..support.queue_service import MongoDb, QueueService, temporary_database
from .test_queries import profiled

SECOND = timedelta(seconds=1)


class BusyQueue(QueueService):
    """A queue with 2,000 finished jobs and 40 running jobs, whose leases end one second apart.

    The first five leases have expired. In jobmon's own queue, only the attempt has the start.
    """

    def __init__(self, mongod: Mongod, database: MongoDb, profile: str) -> None:
        collection = {"jobmon": "jobs", "agenda": "agendaJobs"}[profile]
        super().__init__(mongod, database, profile=profile, jobs_collection=collection)
        self.is_agenda = profile == "agenda"
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.started = self.now - timedelta(minutes=20)
        database[collection].insert_many(self.make_job(number) for number in range(40))
        database[collection].insert_many(
            self.make_job(number, is_done=True) for number in range(40, 2_040)
        )
        if not self.is_agenda:
            database.job_attempts.insert_many(
                {"jobId": str(number), "attemptNumber": attempt, "startedAt": started}
                for number in range(2_040)
                for attempt, started in ((1, self.started - timedelta(hours=1)), (2, self.started))
            )
        create_indexes(self.connection)

    def make_job(self, number: int, *, is_done: bool = False) -> dict[str, Any]:
        expires_at, worker = self.now + (number - 4) * SECOND, f"worker-{number % 7}"
        if self.is_agenda:
            return {
                "_id": ObjectId(),
                "name": "mail",
                "nextRunAt": None,
                "lastModifiedBy": worker,
                "lastRunAt": self.started,
                "lockedAt": None if is_done else expires_at - timedelta(minutes=10),
                "lastFinishedAt": self.now if is_done else None,
            }
        return {
            "jobId": str(number),
            "type": "mail",
            "status": "succeeded" if is_done else "leased",
            "createdAt": self.now,
            "leasedBy": None if is_done else worker,
            "leaseExpiresAt": None if is_done else expires_at,
            "attemptCount": 2,
            "payload": {"filler": "x" * 500},
        }


@pytest.fixture(scope="module", params=["jobmon", "agenda"])
def queue(
    request: pytest.FixtureRequest, mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[BusyQueue]:
    with temporary_database(mongo) as database:
        busy_queue = BusyQueue(mongod, database, request.param)
        yield busy_queue
        busy_queue.close()


def test_running_jobs_are_read_by_an_index_in_the_order_of_their_leases(queue: BusyQueue) -> None:
    with profiled(queue.database) as entries:
        running = RunningJobReader(queue.connection).read()
    assert (len(running.jobs), running.is_complete, running.reason) == (40, True, "")
    lease_ends = [job.expires_at for job in running.jobs]
    assert lease_ends == [queue.now + number * SECOND for number in range(-4, 36)]
    assert {job.worker for job in running.jobs} == {f"worker-{number}" for number in range(7)}
    assert {job.type for job in running.jobs} == {"mail"}
    assert {job.started_at for job in running.jobs} == {queue.started}
    half_a_second_later = queue.now + SECOND / 2
    assert sum(job.is_expired(half_a_second_later) for job in running.jobs) == 5
    assert len(entries) == (1 if queue.is_agenda else 2)
    for entry in entries:
        assert entry["planSummary"].startswith("IXSCAN")
        assert not entry.get("hasSortStage")
        assert entry["keysExamined"] <= 40 * 3  # for each job: a seek, and its two attempts
        assert entry["docsExamined"] <= 41


def test_the_jobs_whose_leases_end_first_are_read_up_to_a_limit(
    queue: BusyQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_jobs, "MAX_READ", 7)
    with profiled(queue.database) as entries:
        running = RunningJobReader(queue.connection).read()
    assert (len(running.jobs), running.is_complete) == (7, False)
    assert running.jobs[0].expires_at == queue.now - 4 * SECOND
    assert max(entry["docsExamined"] for entry in entries) <= 8


def test_the_first_expired_lease_is_found_by_one_index_key(queue: BusyQueue) -> None:
    with profiled(queue.database) as entries:
        first = RunningJobReader(queue.connection).find_first_expiry()
    assert first == queue.now - 4 * SECOND
    (entry,) = entries
    assert (entry["keysExamined"], entry.get("hasSortStage")) == (1, None)


def test_running_jobs_are_unknown_without_the_index(mongod: Mongod, database: MongoDb) -> None:
    database.jobs.insert_one({"status": "leased", "leasedBy": "w1"})
    queue = QueueService(mongod, database)
    running = RunningJobReader(queue.connection).read()
    queue.close()
    assert running.jobs == ()
    assert "jobmon init" in running.reason


def test_odd_values_are_unknown_and_hide_no_job(mongod: Mongod, database: MongoDb) -> None:
    odd_job = {"jobId": {"$ne": 1}, "leaseExpiresAt": "soon", "attemptCount": [1], "leasedBy": 7}
    long_job = {"jobId": ObjectId(), "leasedBy": "x" * 9_000, "attemptCount": 1.0}
    database.jobs.insert_many({"status": "leased", **job} for job in (odd_job, long_job, {}))
    started, job_id = datetime.now(UTC).replace(microsecond=0), str(long_job["jobId"])
    attempt = {"jobId": job_id, "attemptNumber": 1, "startedAt": started}
    database.job_attempts.insert_one(attempt)
    queue = QueueService(mongod, database)
    create_indexes(queue.connection)
    jobs = RunningJobReader(queue.connection).read().jobs
    queue.close()
    assert sorted(str(job.job_id) for job in jobs) == sorted([job_id, "None", "None"])
    (job,) = (job for job in jobs if job.job_id == job_id)
    # The label of the worker has 200 characters and `…`.
    assert (job.started_at, len(job.worker or "")) == (started, 201)
