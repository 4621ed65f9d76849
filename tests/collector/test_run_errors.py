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
from jobmon.rollup.error_group_document import load_error_group
from jobmon.rollup.run_details import merge_details
from jobmon.store.labels import OTHER

from ..support.error_counts import count_by_group
from .test_event_counter import Queue, SteppedCollector, agenda, make_queue, now

__all__ = ["agenda", "make_queue"]  # fixtures

LONG_ERROR = "no route to host " * 200
JOB_FIELDS = {"jobId": "_id", "type": "kind", "status": "state"}
JOB_FIELDS |= {"createdAt": "at", "lastError": "error"}
STATUS_NAMES = {"new": "queued", "run": "leased", "bad": "failed", "dead": "dlq"}


def count_messages(queue: Queue) -> Counter[str]:
    """Failed runs by the first 8 characters of the pattern; `(other)` if the error is unknown."""
    documents = queue.rollups["errors"].find()
    groups = {group.id: group for group in map(load_error_group, documents)}
    buckets = map(load_bucket_details, queue.rollups["buckets"].find({"span": 60}))
    counts: Counter[str] = Counter()
    for group, count in count_by_group(merge_details(buckets)).items():
        counts[group if group == OTHER else groups[group].pattern[:8]] += count
    return counts


class Worker:
    """Runs the only job of a queue; the job keeps only the fields of its last run."""

    def __init__(self, queue: Queue, **fields: Any) -> None:
        self.jobs = queue.jobs
        self.jobs.insert_one({"_id": 1, "kind": "t", "state": "new", "at": now(), **fields})

    def write(self, **fields: Any) -> None:
        self.jobs.update_one({"_id": 1}, {"$set": fields})

    def fail(self, error: str, **fields: Any) -> None:
        self.write(state="run")
        self.write(state="bad", error=error, **fields)


@pytest.fixture
def make_collector(make_queue: Callable[..., Queue]) -> Callable[..., SteppedCollector]:
    """A function that makes a collector; `finished_at`: where jobs record the end of a run."""

    def make(finished_at: str | None = None) -> SteppedCollector:
        fields = JOB_FIELDS | ({"finishedAt": finished_at} if finished_at else {})
        settings = {"job_fields": fields, "status_names": STATUS_NAMES, "jobs_collection": "tasks"}
        return SteppedCollector(make_queue(**settings))

    return make


def fail_again(queue: Queue, job_id: ObjectId, reason: str) -> None:
    queue.start(job_id)
    at = now()
    fields = {"lockedAt": None, "lastFinishedAt": at, "failedAt": at, "nextRunAt": at}
    queue.jobs.update_one({"_id": job_id}, {"$set": fields | {"failReason": reason}})


def test_a_repeated_error_is_not_replaced_by_the_error_of_a_later_run(agenda: Queue) -> None:
    collector, job_id = SteppedCollector(agenda), agenda.add("mail")
    collector.begin()
    fail_again(agenda, job_id, "550")
    collector.count_changes()
    for reason in ("550", "ETIMEDOUT"):
        fail_again(agenda, job_id, reason)
    collector.count_changes()
    assert count_messages(agenda) == {"<value>": 2, "ETIMEDOU": 1}


@pytest.mark.parametrize("finished_at", [None, "ended"])
def test_a_run_that_repeats_an_error_gets_the_remembered_error(
    make_collector: Callable[..., SteppedCollector], finished_at: str | None
) -> None:
    collector = make_collector(finished_at)
    worker = Worker(collector.queue)
    collector.begin()
    worker.fail("refused", ended=now())
    collector.count_changes()
    worker.fail("refused", ended=now())
    worker.fail("timeout", ended=now())
    collector.count_changes()
    assert count_messages(collector.queue) == {"refused": 2, "timeout": 1}


@pytest.mark.parametrize(("finished_at", "runs_with_error"), [(None, 1), ("ended", 2)])
def test_a_long_error_is_read_from_the_job_if_the_end_of_the_run_is_recorded(
    make_collector: Callable[..., SteppedCollector], finished_at: str | None, runs_with_error: int
) -> None:
    collector = make_collector(finished_at)
    worker = Worker(collector.queue)
    collector.begin()
    for _ in range(2):
        worker.fail(LONG_ERROR, ended=now())
        collector.count_changes()
    expected = Counter({"no route": runs_with_error, OTHER: 2 - runs_with_error})
    assert count_messages(collector.queue) == +expected
    worker.fail(LONG_ERROR, ended=now())
    worker.fail("timeout", ended=now())
    collector.count_changes()
    assert count_messages(collector.queue) == expected + Counter({OTHER: 1, "timeout": 1})


def test_a_dead_lettered_job_does_not_get_the_error_of_a_later_run(
    make_collector: Callable[..., SteppedCollector],
) -> None:
    collector = make_collector("ended")
    worker = Worker(collector.queue, error="refused", ended=now() - timedelta(days=1))
    worker.write(state="dead")
    collector.begin()
    worker.write(ended=now())
    worker.write(ended=now() + timedelta(milliseconds=1), error="timeout")
    collector.count_changes()
    assert count_messages(collector.queue) == {OTHER: 1, "timeout": 1}


def test_a_job_that_is_not_remembered_does_not_get_the_error_of_a_later_run(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_memory_module, "MAX_WAITING", 0)
    monkeypatch.setattr(job_memory_module, "MAX_RUNNING", 0)
    collector, job_id = SteppedCollector(agenda), agenda.add("mail")
    fail_again(agenda, job_id, "550")
    collector.begin()
    for reason in ("550", "ETIMEDOUT"):
        fail_again(agenda, job_id, reason)
    collector.count_changes()
    assert count_messages(agenda) == {"<value>": 1, OTHER: 1, "ETIMEDOU": 1}


def test_an_error_that_is_written_after_the_end_belongs_to_the_run(
    make_collector: Callable[..., SteppedCollector],
) -> None:
    collector = make_collector("ended")
    worker = Worker(collector.queue)
    collector.begin()
    worker.fail("refused", ended=now())
    collector.count_changes()
    worker.write(state="run")
    worker.write(state="bad", ended=now())
    worker.write(error="timeout")
    collector.count_changes()
    assert count_messages(collector.queue) == {"refused": 1, "timeout": 1}


def test_an_error_in_a_field_that_is_not_read_is_unknown(make_queue: Callable[..., Queue]) -> None:
    """Catches a group without a message: Celery's errors are in a field that may be large."""
    queue = make_queue(profile="celery", jobs_collection="celery_taskmeta")
    collector = SteppedCollector(queue)
    collector.begin()
    for status in ("STARTED", "FAILURE"):
        task = {"name": "t", "status": status, "date_done": now(), "result": '{"exc_type": "E"}'}
        queue.jobs.replace_one({"_id": 1}, task, upsert=True)
    collector.count_changes()
    assert count_messages(queue) == {OTHER: 1}


def test_a_checkpoint_has_the_last_error_without_its_secrets(agenda: Queue) -> None:
    reason, worker = "refused password=hunter2secret", "amqp://w:hunter2secret@host"
    first, job_id = SteppedCollector(agenda), agenda.add("mail")
    first.begin()
    agenda.jobs.update_one({"_id": job_id}, {"$set": {"lastModifiedBy": worker}})
    fail_again(agenda, job_id, reason)
    first.count_changes()
    checkpoint = first.checkpoint()
    assert len(checkpoint["jobs"]) == 1
    assert "hunter2secret" not in str(checkpoint)
    second = SteppedCollector(agenda)
    second.resume(checkpoint)
    fail_again(agenda, job_id, reason)
    fail_again(agenda, job_id, "ETIMEDOUT")
    second.count_changes()
    assert count_messages(agenda) == {"refused ": 2, "ETIMEDOU": 1}
