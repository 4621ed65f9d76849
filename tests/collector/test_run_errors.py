"""Errors of runs that are counted from changes, on a real replica set: catches a failed run that is
counted under the error of another run of its job, and a secret in the checkpoint."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from jobmon.collector import job_memory as job_memory_module
from jobmon.rollup.buckets import load_bucket_details
from jobmon.rollup.error_registry import load_error_group
from jobmon.rollup.run_details import merge_details
from jobmon.store.labels import OTHER

from ..support.error_counts import count_by_group
from .test_event_counter import Queue, Reading, agenda, make_queue, now

__all__ = ["agenda", "make_queue"]  # fixtures

LONG = "no route to host " * 200
FIELDS = {
    "jobId": "_id",
    "type": "kind",
    "status": "state",
    "createdAt": "at",
    "lastError": "error",
}
STATUSES = {"new": "queued", "run": "leased", "bad": "failed", "dead": "dlq"}


def count_messages(queue: Queue) -> Counter[str]:
    """Failed runs by the first words of their group's pattern; `(other)` for an unknown error."""
    groups = {group.id: group for group in map(load_error_group, queue.own["errors"].find())}
    buckets = map(load_bucket_details, queue.own["buckets"].find({"span": 60}))
    counts: Counter[str] = Counter()
    for group, count in count_by_group(merge_details(buckets)).items():
        counts[group if group == OTHER else groups[group].pattern[:8]] += count
    return counts


class Worker:
    """Runs the one job of a queue whose jobs keep the fields of their last run only."""

    def __init__(self, queue: Queue, **fields: Any) -> None:
        self.jobs = queue.jobs
        self.jobs.insert_one({"_id": 1, "kind": "t", "state": "new", "at": now(), **fields})

    def set(self, **fields: Any) -> None:
        self.jobs.update_one({"_id": 1}, {"$set": fields})

    def fail(self, error: str, **fields: Any) -> None:
        self.set(state="run")
        self.set(state="bad", error=error, **fields)


@pytest.fixture
def make_reading(make_queue: Callable[..., Queue]) -> Callable[..., Reading]:
    """An event counter for a queue; its jobs record the end of a run if there is a path for it."""

    def make(finished_at: str | None = None) -> Reading:
        fields = FIELDS | ({"finishedAt": finished_at} if finished_at else {})
        settings = {"job_fields": fields, "status_names": STATUSES, "jobs_collection": "tasks"}
        return Reading(make_queue(**settings))

    return make


def fail_again(queue: Queue, job_id: ObjectId, reason: str) -> None:
    queue.start(job_id)
    at = now()
    fields = {"lockedAt": None, "lastFinishedAt": at, "failedAt": at, "nextRunAt": at}
    queue.jobs.update_one({"_id": job_id}, {"$set": fields | {"failReason": reason}})


def test_error_that_did_not_change_is_not_replaced_by_that_of_a_later_run(agenda: Queue) -> None:
    reading, job_id = Reading(agenda), agenda.add("mail")
    reading.begin()
    fail_again(agenda, job_id, "550")
    reading.read()
    for reason in ("550", "ETIMEDOUT"):
        fail_again(agenda, job_id, reason)
    reading.read()
    assert count_messages(agenda) == {"<value>": 2, "ETIMEDOU": 1}


@pytest.mark.parametrize("finished_at", [None, "ended"])
def test_run_that_fails_in_the_same_way_has_the_remembered_error(
    make_reading: Callable[..., Reading], finished_at: str | None
) -> None:
    reading = make_reading(finished_at)
    worker = Worker(reading.queue)
    reading.begin()
    worker.fail("refused", ended=now())
    reading.read()
    worker.fail("refused", ended=now())
    worker.fail("timeout", ended=now())
    reading.read()
    assert count_messages(reading.queue) == {"refused": 2, "timeout": 1}


@pytest.mark.parametrize(("finished_at", "known"), [(None, 1), ("ended", 2)])
def test_error_that_is_not_remembered_is_read_if_the_end_of_the_run_proves_it(
    make_reading: Callable[..., Reading], finished_at: str | None, known: int
) -> None:
    reading = make_reading(finished_at)
    worker = Worker(reading.queue)
    reading.begin()
    for _ in range(2):
        worker.fail(LONG, ended=now())
        reading.read()
    expected = Counter({"no route": known, OTHER: 2 - known})
    assert count_messages(reading.queue) == +expected
    worker.fail(LONG, ended=now())
    worker.fail("timeout", ended=now())
    reading.read()
    assert count_messages(reading.queue) == expected + Counter({OTHER: 1, "timeout": 1})


def test_error_of_a_job_that_was_not_known_is_not_that_of_a_later_run(
    make_reading: Callable[..., Reading],
) -> None:
    reading = make_reading("ended")
    worker = Worker(reading.queue, error="refused", ended=now() - timedelta(days=1))
    worker.set(state="dead")
    reading.begin()
    worker.set(ended=now())
    worker.set(ended=now() + timedelta(milliseconds=1), error="timeout")
    reading.read()
    assert count_messages(reading.queue) == {OTHER: 1, "timeout": 1}


def test_present_jobs_that_are_loaded_later_have_no_error_of_a_later_run(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_memory_module, "MAX_WAITING", 0)
    monkeypatch.setattr(job_memory_module, "MAX_RUNNING", 0)
    reading, job_id = Reading(agenda), agenda.add("mail")
    fail_again(agenda, job_id, "550")
    reading.begin()
    for reason in ("550", "ETIMEDOUT"):
        fail_again(agenda, job_id, reason)
    reading.read()
    assert count_messages(agenda) == {"<value>": 1, OTHER: 1, "ETIMEDOU": 1}


def test_error_that_is_written_after_the_end_is_that_of_the_run(
    make_reading: Callable[..., Reading],
) -> None:
    reading = make_reading("ended")
    worker = Worker(reading.queue)
    reading.begin()
    worker.fail("refused", ended=now())
    reading.read()
    worker.set(state="run")
    worker.set(state="bad", ended=now())
    worker.set(error="timeout")
    reading.read()
    assert count_messages(reading.queue) == {"refused": 1, "timeout": 1}


def test_error_in_a_field_that_is_not_read_is_unknown(make_queue: Callable[..., Queue]) -> None:
    """Celery's errors are in a field that may be large: catches a group without a message."""
    queue = make_queue(profile="celery", jobs_collection="celery_taskmeta")
    reading = Reading(queue)
    reading.begin()
    for status in ("STARTED", "FAILURE"):
        task = {"name": "t", "status": status, "date_done": now(), "result": '{"exc_type": "E"}'}
        queue.jobs.replace_one({"_id": 1}, task, upsert=True)
    reading.read()
    assert count_messages(queue) == {OTHER: 1}


def test_checkpoint_without_secrets_has_the_error_of_the_next_run(agenda: Queue) -> None:
    reason, worker = "refused password=hunter2secret", "amqp://w:hunter2secret@host"
    first, job_id = Reading(agenda), agenda.add("mail")
    first.begin()
    agenda.jobs.update_one({"_id": job_id}, {"$set": {"lastModifiedBy": worker}})
    fail_again(agenda, job_id, reason)
    first.read()
    checkpoint = first.checkpoint()
    assert len(checkpoint["jobs"]) == 1
    assert "hunter2secret" not in str(checkpoint)
    second = Reading(agenda)
    second.resume(checkpoint)
    fail_again(agenda, job_id, reason)
    fail_again(agenda, job_id, "ETIMEDOUT")
    second.read()
    assert count_messages(agenda) == {"refused ": 2, "ETIMEDOU": 1}
