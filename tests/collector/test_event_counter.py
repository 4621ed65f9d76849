"""Runs that are counted from changes, on a real replica set: catches a run that is not counted or
counted twice, even after a crash, with two collectors, or when the change stream is lost."""

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest
from bson import ObjectId, Timestamp
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ExecutionTimeout

from jobmon.app import create_app
from jobmon.collector import changes as changes_module
from jobmon.collector import collector as collector_module
from jobmon.collector import event_counter as event_counter_module
from jobmon.collector import job_memory as job_memory_module
from jobmon.collector.changes import StreamedChanges, open_changes
from jobmon.collector.checkpoint import Checkpoint, Checkpoints
from jobmon.collector.collecting import collecting
from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.event_counter import EventCounter
from jobmon.collector.job_evaluator import JobEvaluator
from jobmon.collector.leader import LeaderLease, LeaseLostError
from jobmon.collector.segments import SegmentMap
from jobmon.demo.mongod import Mongod
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.buckets import Tally
from jobmon.rollup.documents import CHECKPOINT, EVENTS, OwnDatabase, rollup_database
from jobmon.rollup.gaps import GapReason, load_event_history
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.run_details import RunDetails
from jobmon.rollup.run_history import RunHistoryReader
from jobmon.rollup.series import History, SeriesReader
from jobmon.rollup.windows import Window
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.client import DatabaseClient
from jobmon.store.connection import Connection

from ..conftest import Api
from ..support.commands import database_uri
from ..support.waiting import eventually

Counts = dict[str, dict[str, int]]  # by type and by name of the count
MongoDb = Database[dict[str, Any]]
NO_COLLECTOR = {"reason": "no_collector"}
COUNT_NAMES = ("enqueued", "succeeded", "failed", "dlq")


def now() -> datetime:
    """The time, at least 1 ms after the last call: an update to the same time is no change."""
    time.sleep(0.001)
    return datetime.now(UTC)


class Queue:
    """The queue of another program: writes as that program does, and reads what jobmon counted."""

    def __init__(
        self, mongod: Mongod, database: MongoDb, base_settings: Settings, **settings: Any
    ) -> None:
        self.settings = replace(
            base_settings,
            mongo_uri=database_uri(mongod, database),
            rollup_db=f"{database.name}_rollups",
            **settings,
        )
        self.jobs = database[self.settings.jobs_collection]
        client = DatabaseClient(self.settings, majority_reads=True)
        self.connection = Connection(self.settings, client)
        database.create_collection(self.jobs.name)
        create_indexes(self.connection)
        self.rollups = OwnDatabase(rollup_database(self.connection), self.connection.queue_key)
        self.expected: Counts = {}

    def expect(self, job_type: str, name: str) -> None:
        """Expect one more in the count `name` of this type."""
        self.expected.setdefault(job_type, dict.fromkeys(COUNT_NAMES, 0))[name] += 1

    def read_history(self) -> History[str]:
        """The activity of the last half hour by type, as the web service answers."""
        series = SeriesReader(self.connection, RollupReader(self.connection))
        window = series.window(now() - timedelta(minutes=30), now(), None)
        return series.history_by_type(window)

    def read_counts(self) -> Counts:
        """The counts of the last half hour by type; empty until the history is complete."""
        history = self.read_history()
        if history.source != "rollup" or not history.is_complete:
            return {}
        by_type = {
            job_type: {name: getattr(activity, name) for name in COUNT_NAMES}
            for job_type, activity in history.activity.items()
        }
        return {job_type: counts for job_type, counts in by_type.items() if any(counts.values())}

    def read_details(self) -> RunDetails:
        """The details of the last half hour, as the web service answers."""
        rollup = RollupReader(self.connection)
        window = Window.from_steps(now() - timedelta(minutes=30), now(), timedelta(minutes=1))
        series = SeriesReader(self.connection, rollup)
        return RunHistoryReader(rollup, series).read(window).details

    def await_right_counts(self) -> None:
        """Wait for the expected counts; check that each failed run is in a group of errors."""
        eventually(lambda: self.read_counts() == self.expected)
        failed = Counter({job_type: counts["failed"] for job_type, counts in self.expected.items()})
        grouped: Counter[str] = Counter()
        for (_, job_type), count in self.read_details().by_type.items():
            grouped[job_type] += count
        assert grouped == +failed

    def has_checkpoint(self) -> bool:
        name = self.rollups.id(CHECKPOINT)
        return self.rollups["state"].find_one({"_id": name}) is not None

    def read_gaps(self) -> list[GapReason]:
        history = self.rollups.find_state(EVENTS, load_event_history)
        return [gap.reason for gap in history.gaps] if history else []

    def drop(self) -> None:
        self.connection.client.drop_database(rollup_database(self.connection).name)
        self.connection.client.close()

    # The writes of the program Agenda:

    def add(self, job_type: str) -> ObjectId:
        self.expect(job_type, "enqueued")
        job = {"name": job_type, "data": {}, "lockedAt": None, "failCount": None}
        return self.jobs.insert_one(job | {"nextRunAt": now()}).inserted_id

    def start(self, job_id: ObjectId) -> None:
        self.jobs.update_one({"_id": job_id}, {"$set": {"lockedAt": now()}})
        self.jobs.update_one({"_id": job_id}, {"$set": {"lastRunAt": now(), "nextRunAt": None}})

    def end(
        self, job_id: ObjectId, job_type: str, *, fails: bool = False, repeats: bool = False
    ) -> None:
        at = now()
        fields = {"lockedAt": None, "lastFinishedAt": at, "nextRunAt": at if repeats else None}
        fields |= {"failedAt": at, "failReason": "550"} if fails else {}
        self.jobs.update_one({"_id": job_id}, {"$set": fields})
        self.expect(job_type, "failed" if fails else "succeeded")
        if fails and not repeats:
            self.expect(job_type, "dlq")

    def run(self, job_type: str, *, fails: bool = False, remove: bool = False) -> None:
        job_id = self.add(job_type)
        self.start(job_id)
        self.end(job_id, job_type, fails=fails)
        if remove:
            self.jobs.delete_one({"_id": job_id})


@pytest.fixture
def make_queue(
    mongod: Mongod, database: MongoDb, make_settings: Callable[..., Settings]
) -> Iterator[Callable[..., Queue]]:
    queues: list[Queue] = []

    def make(**settings: Any) -> Queue:
        queues.append(Queue(mongod, database, make_settings(), **settings))
        return queues[-1]

    yield make
    for queue in queues:
        queue.drop()


@pytest.fixture
def agenda(make_queue: Callable[..., Queue]) -> Queue:
    return make_queue(profile="agenda", jobs_collection="agendaJobs")


@contextmanager
def running_collector(queue: Queue) -> Iterator[None]:
    """Run a collector; the block starts once the collector counts changes."""
    with collecting(queue.settings):
        eventually(queue.has_checkpoint)
        eventually(queue.read_gaps)
        yield


def test_overwritten_and_removed_runs_are_counted_through_a_restart(agenda: Queue) -> None:
    with running_collector(agenda):
        repeating, waiting, started = map(agenda.add, ("tick", "mail", "slow"))
        agenda.start(started)
        for index in range(5):
            agenda.start(repeating)
            agenda.end(repeating, "tick", fails=index % 2 == 0, repeats=True)
        for index in range(6):
            agenda.run("mail", fails=index == 3, remove=True)
        agenda.await_right_counts()
    for index in range(4):  # while no collector works
        agenda.start(repeating)
        agenda.end(repeating, "tick", fails=index == 0, repeats=True)
        agenda.run("mail", remove=True)
    agenda.start(waiting)
    agenda.end(waiting, "mail")
    agenda.jobs.delete_one({"_id": waiting})
    agenda.jobs.delete_one({"_id": started})  # as Agenda removes a job whose run succeeded
    agenda.expect("slow", "succeeded")
    with running_collector(agenda):
        agenda.await_right_counts()
    assert agenda.read_gaps() == [GapReason.BEFORE_COLLECTOR]
    (group,) = RollupReader(agenda.connection).error_groups().values()
    assert RollupReader(agenda.connection).error_group(group.id).message == "550"
    assert group.jobs[0].job_id == str(repeating)


def test_a_job_that_was_locked_before_the_collector_started_keeps_its_type(agenda: Queue) -> None:
    """Agenda locks a job before it runs it. Catches a type that is lost when the job is removed."""
    locked = [agenda.add("slow"), agenda.add("slow")]

    def finish(job_id: ObjectId) -> None:
        agenda.start(job_id)
        agenda.end(job_id, "slow")
        agenda.jobs.delete_one({"_id": job_id})

    for job_id in locked:
        agenda.jobs.update_one({"_id": job_id}, {"$set": {"lockedAt": now()}})
    with running_collector(agenda):
        finish(locked[0])
        agenda.await_right_counts()
    finish(locked[1])  # while no collector works
    with running_collector(agenda):
        agenda.await_right_counts()


def test_the_first_start_counts_documents_and_changes_without_overlap(agenda: Queue) -> None:
    agenda.run("mail")
    agenda.run("mail", fails=True)
    running = agenda.add("slow")
    agenda.start(running)
    with running_collector(agenda):
        agenda.end(running, "slow")
        agenda.run("mail", remove=True)
        agenda.await_right_counts()


def test_runs_in_a_capped_collection_are_counted(agenda: Queue) -> None:
    """Catches a collector that never works: the server has no snapshots of such a collection."""
    database, name = agenda.jobs.database, agenda.jobs.name
    agenda.jobs.drop()
    database.create_collection(name, capped=True, size=1_000_000, max=5)
    create_indexes(agenda.connection)
    agenda.run("mail")
    with running_collector(agenda):
        for _ in range(6):
            agenda.run("mail")
        agenda.await_right_counts()


def test_a_deletion_and_a_second_lease_end_a_run(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue(profile="mongo-message-queue", jobs_collection="_queue")

    def add(job_type: str) -> ObjectId:
        queue.expect(job_type, "enqueued")
        return queue.jobs.insert_one({"dateCreated": now(), "type": job_type}).inserted_id

    def receive(job_id: ObjectId) -> None:
        queue.jobs.update_one({"_id": job_id}, {"$set": {"receivedTime": now()}})

    with running_collector(queue):
        ids = {name: add(name) for name in ("complete", "retry", "reject", "crash", "cancel")}
        for name in ("complete", "retry", "reject", "crash"):
            receive(ids[name])
        entry = {"releaseHistory": {"releasedTime": now()}}
        retry = {"$unset": {"receivedTime": ""}, "$set": {"retryCount": 1}, "$push": entry}
        queue.jobs.update_one({"_id": ids["retry"]}, retry)
        for name in ("retry", "crash"):
            receive(ids[name])
            queue.expect(name, "failed")
        reject = {"$unset": {"receivedTime": ""}, "$set": {"rejectedTime": now()}, "$push": entry}
        queue.jobs.update_one({"_id": ids["reject"]}, reject)
        queue.expect("reject", "failed")
        queue.expect("reject", "dlq")
        for name in ("complete", "retry", "crash"):
            queue.jobs.delete_one({"_id": ids[name]})
            queue.expect(name, "succeeded")
        queue.jobs.delete_one({"_id": ids["cancel"]})
        queue.await_right_counts()


def test_an_expired_lease_counts_as_failed_at_the_next_lease(
    make_queue: Callable[..., Queue],
) -> None:
    queue = make_queue(profile="mongodb-queue", jobs_collection="mail")

    def format_time(seconds: int = 0) -> str:
        return (now() + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")[:-6] + "Z"

    def get(job_id: ObjectId) -> None:
        lease = {"ack": str(ObjectId()), "visible": format_time(-5)}  # it has expired already
        queue.jobs.update_one({"_id": job_id}, {"$set": lease, "$inc": {"tries": 1}})

    with running_collector(queue):
        new = [{"visible": format_time()}, {"visible": format_time()}]
        job_id, dead = queue.jobs.insert_many(new).inserted_ids
        queue.expected = {"mail": {"enqueued": 2, "succeeded": 1, "failed": 7, "dlq": 1}}
        for _ in range(3):
            get(job_id)
        queue.jobs.update_one({"_id": job_id}, {"$set": {"deleted": format_time()}})
        for _ in range(6):  # the sixth `get` moves it to the dead queue: no run
            get(dead)
        queue.jobs.update_one({"_id": dead}, {"$set": {"deleted": format_time()}})
        queue.jobs.delete_many({"deleted": {"$exists": True}})
        queue.await_right_counts()


def test_runs_of_a_custom_schema_without_attempts_are_counted(
    make_queue: Callable[..., Queue],
) -> None:
    queue = make_queue(
        jobs_collection="tasks",
        job_fields={"jobId": "_id", "type": "job_type", "status": "state", "createdAt": "at"},
        status_names={"new": "queued", "run": "leased", "ok": "succeeded", "bad": "failed"},
    )

    def move(state: str, **fields: Any) -> None:
        queue.jobs.update_one({"_id": 1}, {"$set": {"state": state, **fields}})

    with running_collector(queue):
        queue.jobs.insert_one({"_id": 1, "job_type": "t", "state": "new", "at": now()})
        for outcome in ("bad", "bad", "ok", "new", "ok"):
            move("run", startedAt=now())
            move(outcome, finishedAt=now())
        move("ok", payload={"edited": True})
        queue.jobs.delete_one({"_id": 1})
        queue.expected = {"t": {"enqueued": 1, "succeeded": 2, "failed": 2, "dlq": 0}}
        queue.await_right_counts()


def test_recorded_attempts_are_counted_instead_of_changes(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue()
    attempts = queue.connection.database.job_attempts
    attempts.insert_one({"jobId": "j", "status": "succeeded", "finishedAt": now()})
    job = {"jobId": "j", "type": "t", "status": "leased", "createdAt": now()}
    with collecting(queue.settings):
        eventually(queue.has_checkpoint)
        queue.jobs.insert_one(job)
        queue.jobs.update_one({}, {"$set": {"status": "succeeded", "finishedAt": now()}})
        queue.expected = {"t": {"enqueued": 1, "succeeded": 1, "failed": 0, "dlq": 0}}
        queue.await_right_counts()
    assert queue.read_gaps() == []


def test_attempts_take_over_as_soon_as_one_is_recorded(make_queue: Callable[..., Queue]) -> None:
    """Catches durations that are missing for a minute, and a history that is never complete."""
    queue = make_queue()
    attempts = queue.connection.database.job_attempts
    with collecting(queue.settings):
        eventually(queue.has_checkpoint)
        started = now()
        attempts.insert_one(
            {
                "jobId": "j",
                "attemptNumber": 1,
                "status": "succeeded",
                "startedAt": started,
                "finishedAt": started + timedelta(milliseconds=40),
            }
        )
        queue.jobs.insert_one({"jobId": "j", "type": "t", "status": "succeeded"})
        reader = RollupReader(queue.connection)

        def has_durations() -> bool:
            totals = reader.totals()
            return totals is not None and bool(totals.by_type.get("t", Tally()).run)

        eventually(has_durations)
        eventually(lambda: (progress := reader.progress()) and progress.counted_from is None)


class SteppedCollector:
    """An event counter with its change stream; a test calls each step."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        LeaderLease(queue.rollups, "test").take()
        groups = ErrorGroups(queue.rollups, Redactor())
        self.counter = EventCounter(queue.connection, queue.rollups, lambda: None, groups)
        self.stop = threading.Event()

    def begin(self) -> None:
        self.prepare()
        self.counter.begin()

    def prepare(self) -> None:
        at = self.queue.connection.cluster_time()
        assert at is not None
        self.open(None, Timestamp(at.time, at.inc + 1))
        self.counter.prepare(at, self.changes.token["_data"], None)

    def open(self, token: dict[str, Any] | None, start: Timestamp | None = None) -> None:
        fields = self.counter.rules.top_level_fields
        changes = open_changes(
            self.queue.connection.jobs, token, self.stop, start=start, fields=fields
        )
        assert isinstance(changes, StreamedChanges)
        self.changes = changes

    def checkpoint(self) -> dict[str, Any]:
        """The state that a crash leaves: the token, and the jobs that are remembered with it."""
        return {"token": self.changes.token, "jobs": self.counter.dump()}

    def resume(self, checkpoint: dict[str, Any]) -> None:
        token = checkpoint["token"]
        self.counter.resume(token["_data"], checkpoint["jobs"], now())
        self.open(token)

    def count_changes(self) -> None:
        """Count all changes so far, and store the counts."""
        self.read_changes()
        self.counter.count()
        self.counter.write()

    def read_changes(self) -> None:
        """Read all changes so far, without counting them."""
        segments = SegmentMap(self.queue.connection.jobs)
        until = self.queue.connection.cluster_time()
        assert until is not None
        end = f"82{until.time:08X}{until.inc:08X}"  # how a token of this time begins
        while not self.changes.token or self.changes.token["_data"] < end:
            events = self.changes.next_batch(segments)
            self.counter.add(events, end=now() if self.changes.is_at_end else None)

    def read_stored_counts(self) -> Counts:
        by_type = {}
        for bucket in self.queue.rollups["buckets"].find({"span": 60}):
            for entry in bucket["types"]:
                outcomes = dict(entry["outcomes"])
                counts = by_type.setdefault(entry["type"], dict.fromkeys(COUNT_NAMES, 0))
                for name in COUNT_NAMES:
                    counts[name] += entry.get(name, 0) + outcomes.get(name, 0)
        return by_type


def test_runs_are_counted_once_after_a_crash_between_counts_and_checkpoint(agenda: Queue) -> None:
    first = SteppedCollector(agenda)
    first.begin()
    agenda.run("mail", remove=True)
    running = agenda.add("slow")
    agenda.start(running)
    first.count_changes()
    checkpoint = first.checkpoint()
    agenda.run("mail", fails=True, remove=True)
    agenda.end(running, "slow")
    agenda.jobs.delete_one({"_id": running})
    first.count_changes()  # stored, but the process ends before its next checkpoint
    agenda.run("sms", remove=True)
    second = SteppedCollector(agenda)
    second.resume(checkpoint)
    second.count_changes()
    assert second.read_stored_counts() == agenda.expected


def test_changes_before_counting_begins_are_counted_once(agenda: Queue) -> None:
    """Catches a run that is counted from its document and from its changes, or from neither."""
    running = agenda.add("slow")
    agenda.start(running)
    collector = SteppedCollector(agenda)
    collector.prepare()
    for index in range(3):
        agenda.run("mail", fails=index == 1, remove=index == 2)
    agenda.end(running, "slow")
    collector.read_changes()
    assert collector.read_stored_counts() == {}
    collector.counter.begin()
    agenda.run("late", remove=True)
    collector.count_changes()
    assert collector.read_stored_counts() == agenda.expected
    assert not collector.counter.is_begin_urgent
    assert agenda.read_gaps() == [GapReason.BEFORE_COLLECTOR]


def test_a_stream_that_is_lost_before_counting_begins_is_replaced(agenda: Queue) -> None:
    collector = SteppedCollector(agenda)
    collector.prepare()
    agenda.run("mail")
    collector.read_changes()
    collector.prepare()
    agenda.run("mail", fails=True, remove=True)
    collector.counter.begin()
    collector.count_changes()
    assert collector.read_stored_counts() == agenda.expected


def test_counting_must_begin_soon_with_many_kept_events_or_after_a_minute(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = SteppedCollector(agenda)
    collector.prepare()
    assert not collector.counter.is_begin_urgent
    with monkeypatch.context() as patch:
        patch.setattr(event_counter_module, "MAX_PENDING", 1)
        agenda.run("mail")
        collector.read_changes()
        assert collector.counter.is_begin_urgent
    monkeypatch.setattr(event_counter_module, "BEGIN_WITHIN_S", -1.0)
    collector.prepare()
    assert collector.counter.is_begin_urgent


def test_only_one_of_two_collectors_counts(agenda: Queue) -> None:
    """Catches a collector that was frozen, lost its lease, and goes on counting."""
    frozen = SteppedCollector(agenda)
    frozen.begin()
    agenda.run("mail", remove=True)
    frozen.count_changes()
    checkpoint = frozen.checkpoint()
    follower = SteppedCollector(agenda)
    follower.resume(checkpoint)
    agenda.run("mail", remove=True)
    follower.count_changes()
    with pytest.raises(LeaseLostError):
        frozen.count_changes()
    agenda.run("mail", fails=True)
    follower.count_changes()
    assert follower.read_stored_counts() == agenda.expected


class FastClock(datetime):
    """The clock of a machine that is an hour ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(hours=1)


def test_a_lost_stream_leaves_a_gap_that_is_counted_from_documents(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a gap without a length, too: the collector's clock was ahead of the server's."""
    with monkeypatch.context() as patch, running_collector(agenda):
        patch.setattr(collector_module, "datetime", FastClock)
        agenda.run("mail", remove=True)
        agenda.await_right_counts()
    agenda.run("mail", remove=True)
    agenda.jobs.drop()  # a stream cannot be resumed after this
    agenda.connection.database.create_collection(agenda.jobs.name)
    create_indexes(agenda.connection)
    expected = copy.deepcopy(agenda.expected)
    agenda.run("mail", remove=True)  # no document and no change shows this run
    agenda.expected = expected
    agenda.run("kept", fails=True)
    with running_collector(agenda):
        eventually(lambda: len(agenda.read_gaps()) == 2)
        agenda.run("mail", remove=True)
        agenda.await_right_counts()
    assert agenda.read_gaps() == [GapReason.BEFORE_COLLECTOR, GapReason.STREAM_LOST]
    history = agenda.rollups.find_state(EVENTS, load_event_history)
    assert history is not None
    lost = history.gaps[-1]
    assert lost.start is not None
    assert lost.end is not None
    assert lost.start < lost.end


def test_changes_are_counted_up_to_the_time_that_all_shards_have_reached(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a gap that begins too late: a mongos holds back changes that it reads as the end."""
    reached = now().replace(microsecond=0) - timedelta(seconds=30)
    monkeypatch.setattr(StreamedChanges, "read_until", reached)
    with running_collector(agenda):
        agenda.run("mail", remove=True)
        agenda.await_right_counts()
    checkpoint = Checkpoints(agenda.rollups, lambda: None).load()
    assert checkpoint is not None
    assert checkpoint.counted_until == reached


def test_more_running_jobs_than_are_remembered_leave_a_gap(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_memory_module, "MAX_RUNNING", 2)
    collector = SteppedCollector(agenda)
    collector.begin()
    running = [agenda.add("slow") for _ in range(3)]
    for job_id in running:
        agenda.start(job_id)
    collector.count_changes()
    assert agenda.read_gaps() == [GapReason.BEFORE_COLLECTOR, GapReason.TOO_MANY_RUNNING]
    for job_id in running:
        agenda.end(job_id, "slow")  # Agenda writes the end of a run, so no run is lost here
    collector.count_changes()
    assert collector.read_stored_counts() == agenda.expected


@pytest.mark.parametrize("levels", [177, 0], ids=["nested too deeply", "too large"])
def test_running_job_that_no_checkpoint_can_contain_is_not_remembered(
    agenda: Queue, levels: int
) -> None:
    """Catches a collector that counts all jobs again each minute because of one job."""
    odd_type: Any = "x" * (100 if levels else 60_000)
    for _ in range(levels):
        odd_type = {"a": odd_type}
    collector = SteppedCollector(agenda)
    collector.begin()
    for job_type in ("mail", odd_type):
        agenda.jobs.insert_one({"name": job_type, "lockedAt": now(), "lastRunAt": now()})
    collector.count_changes()
    state = collector.checkpoint()
    checkpoints = Checkpoints(agenda.rollups)
    checkpoints.save(Checkpoint([], state["token"], state["jobs"], now()))
    stored = checkpoints.load()
    assert stored is not None
    assert [entry["job"]["name"] for entry in stored.jobs] == ["mail"]


def test_jobs_that_cannot_be_read_in_time_do_not_stop_the_count(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a collector that never starts on a large collection without indexes."""

    def take_too_long(_: Any, jobs: Any, query: Any, limit: int) -> Any:
        if query:
            raise ExecutionTimeout("too long", 50)

    running, collector = agenda.add("slow"), SteppedCollector(agenda)
    agenda.start(running)
    with monkeypatch.context() as patch:
        patch.setattr(JobEvaluator, "find", take_too_long)
        collector.begin()
    agenda.end(running, "slow")
    agenda.run("mail", remove=True)
    collector.count_changes()
    assert collector.read_stored_counts() == agenda.expected
    assert agenda.read_gaps() == [GapReason.BEFORE_COLLECTOR, GapReason.TOO_MANY_RUNNING]


def test_stats_are_as_old_as_the_last_change_that_was_read(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches old counts with a new time while many changes wait in the stream."""
    monkeypatch.setattr(changes_module, "_MAX_EVENTS", 1)
    collector, segments = SteppedCollector(agenda), SegmentMap(agenda.connection.jobs)
    collector.begin()
    added_at = [agenda.add("mail").generation_time for _ in range(2)]
    tolerance = timedelta(seconds=1)
    time.sleep(1.1)  # so that the present time is not near the times of the changes
    seen_until = []
    while not (seen_until and collector.changes.is_at_end):
        if collector.changes.next_batch(segments):
            seen_until.append(collector.changes.seen_until)
    assert collector.changes.seen_until is None
    assert all(abs(seen - at) <= tolerance for at, seen in zip(added_at, seen_until, strict=True))


def test_waiting_jobs_beyond_the_limit_are_loaded_later(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_memory_module, "MAX_WAITING", 2)
    monkeypatch.setattr(event_counter_module, "MAX_WAITING", 2)
    monkeypatch.setattr(event_counter_module, "LOAD_PAUSE_FACTOR", 0)
    jobs = [agenda.add(f"k{index}") for index in range(6)]
    collector = SteppedCollector(agenda)
    collector.begin()
    for index, job_id in enumerate(jobs):
        agenda.start(job_id)
        agenda.end(job_id, f"k{index}")
        agenda.jobs.delete_one({"_id": job_id})
        collector.count_changes()
    assert collector.read_stored_counts() == agenda.expected


def test_the_gap_of_a_standalone_server_lasts_until_now(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with (
        Mongod(tmp_path, replica_set=None) as server,
        MongoClient[dict[str, Any]](server.uri) as client,
    ):
        settings = {"profile": "agenda", "jobs_collection": "agendaJobs"}
        queue = Queue(server, client.shop, make_settings(), **settings)
        with collecting(queue.settings):
            eventually(queue.read_gaps)
            queue.run("mail")
            queue.await_right_counts()
        assert queue.read_gaps() == [GapReason.NO_CHANGE_STREAM]
        history = queue.read_history()
        (gap,) = history.gaps
        assert (gap.reason, gap.end) == (GapReason.NO_CHANGE_STREAM, history.as_of)
        queue.connection.close()


def test_answers_list_the_gaps_of_their_window(agenda: Queue) -> None:
    api = Api(create_app(agenda.settings))
    agenda.run("mail")
    for path in ("timeseries", "types"):
        meta = api.get_as_admin(f"/admin/jobs/{path}").json["meta"]
        assert meta["gaps"] == [{"from": meta["from"], "to": meta["as_of"]} | NO_COLLECTOR]
    with running_collector(agenda):
        agenda.await_right_counts()

        def find_collector_gap() -> dict[str, Any] | None:
            (gap,) = api.get_as_admin("/admin/jobs/timeseries").json["meta"]["gaps"]
            return gap if gap["reason"] == "before_collector" else None

        gap = eventually(find_collector_gap)  # the service reuses a live count for some seconds
        # One second before the gap's end: a window that starts at the end does not have the gap.
        start = datetime.fromisoformat(gap["to"]) - timedelta(seconds=1)
        window = {"from": start.isoformat()}
        meta = api.get_as_admin("/admin/jobs/timeseries", **window).json["meta"]
        assert meta["gaps"] == [{**gap, "from": meta["from"]}]
    api.app.extensions["jobmon_connection"].client.close()
