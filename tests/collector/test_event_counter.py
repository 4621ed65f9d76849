"""Runs that documents lack, on a real replica set: catches a run that is not counted or counted
twice, also after a crash, with two collectors, and when the change stream is lost."""

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId, Timestamp
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ExecutionTimeout

from jobmon.app import create_app
from jobmon.collector import changes as changes_module
from jobmon.collector import event_counter as event_counter_module
from jobmon.collector import job_memory as job_memory_module
from jobmon.collector.changes import StreamedChanges, open_changes
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

Counts = dict[str, dict[str, int]]
Db = Database[dict[str, Any]]
NO_COLLECTOR = {"reason": "no_collector"}
NAMES = ("enqueued", "succeeded", "failed", "dlq")


def now() -> datetime:
    """The time, at least a millisecond after the last one: writing the same time is no change."""
    time.sleep(0.001)
    return datetime.now(UTC)


class Queue:
    """The queue of another program: writes as that program does, and reads what jobmon counted."""

    def __init__(
        self, mongod: Mongod, database: Db, base_settings: Settings, **settings: Any
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
        self.own = OwnDatabase(rollup_database(self.connection), self.connection.queue_key)
        self.truth: Counts = {}

    def count(self, kind: str, name: str) -> None:
        self.truth.setdefault(kind, dict.fromkeys(NAMES, 0))[name] += 1

    def history(self) -> History[str]:
        """The activity of the last half hour by type, as the web service answers."""
        series = SeriesReader(self.connection, RollupReader(self.connection))
        window = series.window(now() - timedelta(minutes=30), now(), None)
        return series.history_by_type(window)

    def shown(self) -> Counts:
        history = self.history()
        if history.source != "rollup" or not history.is_complete:
            return {}
        found = {
            kind: {name: getattr(activity, name) for name in NAMES}
            for kind, activity in history.activity.items()
        }
        return {kind: counts for kind, counts in found.items() if any(counts.values())}

    def details(self) -> RunDetails:
        """The details of the last half hour, as the web service answers."""
        rollup = RollupReader(self.connection)
        window = Window.widened(now() - timedelta(minutes=30), now(), timedelta(minutes=1))
        series = SeriesReader(self.connection, rollup)
        return RunHistoryReader(rollup, series).read(window).details

    def await_right_counts(self) -> None:
        """Wait until the counts are right, and have every failed run in a group of errors."""
        eventually(lambda: self.shown() == self.truth)
        failed = Counter({kind: counts["failed"] for kind, counts in self.truth.items()})
        grouped: Counter[str] = Counter()
        for (_, kind), count in self.details().by_type.items():
            grouped[kind] += count
        assert grouped == +failed

    def gaps(self) -> list[GapReason]:
        history = self.own.find_state(EVENTS, load_event_history)
        return [gap.reason for gap in history.gaps] if history else []

    def drop(self) -> None:
        self.connection.client.drop_database(rollup_database(self.connection).name)
        self.connection.client.close()

    # What Agenda writes

    def add(self, kind: str) -> ObjectId:
        self.count(kind, "enqueued")
        job = {"name": kind, "data": {}, "nextRunAt": now(), "lockedAt": None, "failCount": None}
        return self.jobs.insert_one(job).inserted_id

    def start(self, job_id: ObjectId) -> None:
        self.jobs.update_one({"_id": job_id}, {"$set": {"lockedAt": now()}})
        self.jobs.update_one({"_id": job_id}, {"$set": {"lastRunAt": now(), "nextRunAt": None}})

    def end(self, job_id: ObjectId, kind: str, *, fails: bool = False, again: bool = False) -> None:
        at = now()
        fields = {"lockedAt": None, "lastFinishedAt": at, "nextRunAt": at if again else None}
        fields |= {"failedAt": at, "failReason": "550"} if fails else {}
        self.jobs.update_one({"_id": job_id}, {"$set": fields})
        self.count(kind, "failed" if fails else "succeeded")
        if fails and not again:
            self.count(kind, "dlq")

    def run(self, kind: str, *, fails: bool = False, remove: bool = False) -> None:
        job_id = self.add(kind)
        self.start(job_id)
        self.end(job_id, kind, fails=fails)
        if remove:
            self.jobs.delete_one({"_id": job_id})


@pytest.fixture
def make_queue(
    mongod: Mongod, database: Db, make_settings: Callable[..., Settings]
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
def collected(queue: Queue) -> Iterator[None]:
    """Run a collector, from the moment when it reads changes."""
    with collecting(queue.settings):
        eventually(lambda: queue.own["state"].find_one({"_id": queue.own.id(CHECKPOINT)}))
        eventually(queue.gaps)
        yield


def test_overwritten_and_removed_runs_are_counted_through_a_restart(agenda: Queue) -> None:
    with collected(agenda):
        repeating, waiting, started = (agenda.add(kind) for kind in ("tick", "mail", "slow"))
        agenda.start(started)
        for number in range(5):
            agenda.start(repeating)
            agenda.end(repeating, "tick", fails=number % 2 == 0, again=True)
        for number in range(6):
            agenda.run("mail", fails=number == 3, remove=True)
        agenda.await_right_counts()
    for number in range(4):  # while no collector works
        agenda.start(repeating)
        agenda.end(repeating, "tick", fails=number == 0, again=True)
        agenda.run("mail", remove=True)
    agenda.start(waiting)
    agenda.end(waiting, "mail")
    agenda.jobs.delete_one({"_id": waiting})
    agenda.jobs.delete_one({"_id": started})  # its listener removed it: it had succeeded
    agenda.count("slow", "succeeded")
    with collected(agenda):
        agenda.await_right_counts()
    assert agenda.gaps() == [GapReason.BEFORE_COLLECTOR]
    (group,) = RollupReader(agenda.connection).error_groups().values()
    assert RollupReader(agenda.connection).error_group(group.id).message == "550"
    assert group.jobs[0].job_id == str(repeating)


def test_a_job_that_is_locked_at_a_start_keeps_its_type(agenda: Queue) -> None:
    """Agenda locks a job before it runs it. Catches a type that is lost when the job is removed."""
    locked = [agenda.add("slow"), agenda.add("slow")]

    def finish(job_id: ObjectId) -> None:
        agenda.start(job_id)
        agenda.end(job_id, "slow")
        agenda.jobs.delete_one({"_id": job_id})

    for job_id in locked:
        agenda.jobs.update_one({"_id": job_id}, {"$set": {"lockedAt": now()}})
    with collected(agenda):
        finish(locked[0])
        agenda.await_right_counts()
    finish(locked[1])  # while no collector works
    with collected(agenda):
        agenda.await_right_counts()


def test_first_start_joins_documents_and_changes_without_overlap(agenda: Queue) -> None:
    agenda.run("mail")
    agenda.run("mail", fails=True)
    running = agenda.add("slow")
    agenda.start(running)
    with collected(agenda):
        agenda.end(running, "slow")
        agenda.run("mail", remove=True)
        agenda.await_right_counts()


def test_deleted_and_expired_leases_are_runs(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue(profile="mongo-message-queue", jobs_collection="_queue")

    def add(kind: str) -> ObjectId:
        queue.count(kind, "enqueued")
        return queue.jobs.insert_one({"dateCreated": now(), "type": kind}).inserted_id

    def receive(job_id: ObjectId) -> None:
        queue.jobs.update_one({"_id": job_id}, {"$set": {"receivedTime": now()}})

    with collected(queue):
        for outcome in ("complete", "retry", "reject", "crash", "cancel"):
            job_id = add(outcome)
            if outcome != "cancel":
                receive(job_id)
            entry = {"releaseHistory": {"releasedTime": now()}}
            if outcome == "retry":
                retry = {"$unset": {"receivedTime": ""}, "$set": {"retryCount": 1}, "$push": entry}
                queue.jobs.update_one({"_id": job_id}, retry)
                receive(job_id)
                queue.count(outcome, "failed")
            elif outcome == "crash":
                receive(job_id)
                queue.count(outcome, "failed")
            if outcome == "reject":
                dead = {"$unset": {"receivedTime": ""}, "$set": {"rejectedTime": now()}}
                queue.jobs.update_one({"_id": job_id}, dead | {"$push": entry})
                queue.count(outcome, "failed")
                queue.count(outcome, "dlq")
                continue
            queue.jobs.delete_one({"_id": job_id})
            if outcome != "cancel":
                queue.count(outcome, "succeeded")
        queue.await_right_counts()


def test_lease_that_ends_without_a_write_fails_at_the_next_one(
    make_queue: Callable[..., Queue],
) -> None:
    queue = make_queue(profile="mongodb-queue", jobs_collection="mail")

    def iso(**ahead: int) -> str:
        return (now() + timedelta(**ahead)).isoformat(timespec="milliseconds")[:-6] + "Z"

    def get(job_id: ObjectId) -> None:
        leased = {"ack": str(ObjectId()), "visible": iso(seconds=-5)}  # it expires at once
        queue.jobs.update_one({"_id": job_id}, {"$set": leased, "$inc": {"tries": 1}})

    with collected(queue):
        job_id, dead = (queue.jobs.insert_one({"visible": iso()}).inserted_id for _ in range(2))
        queue.truth = {"mail": {"enqueued": 2, "succeeded": 1, "failed": 7, "dlq": 1}}
        for _ in range(3):
            get(job_id)
        queue.jobs.update_one({"_id": job_id}, {"$set": {"deleted": iso()}})
        for _ in range(6):  # the sixth time it is moved to the dead queue, not run
            get(dead)
        queue.jobs.update_one({"_id": dead}, {"$set": {"deleted": iso()}})
        queue.jobs.delete_many({"deleted": {"$exists": True}})
        queue.await_right_counts()


def test_schema_of_your_own_without_attempts_counts_all_runs(
    make_queue: Callable[..., Queue],
) -> None:
    queue = make_queue(
        jobs_collection="tasks",
        job_fields={"jobId": "_id", "type": "kind", "status": "state", "createdAt": "at"},
        status_names={"new": "queued", "run": "leased", "ok": "succeeded", "bad": "failed"},
    )

    def move(state: str, **more: Any) -> None:
        queue.jobs.update_one({"_id": 1}, {"$set": {"state": state, **more}})

    with collected(queue):
        queue.jobs.insert_one({"_id": 1, "kind": "t", "state": "new", "at": now()})
        for outcome in ("bad", "bad", "ok", "new", "ok"):
            move("run", startedAt=now())
            move(outcome, finishedAt=now())
        move("ok", payload={"edited": True})
        queue.jobs.delete_one({"_id": 1})
        queue.truth = {"t": {"enqueued": 1, "succeeded": 2, "failed": 2, "dlq": 0}}
        queue.await_right_counts()


def test_recorded_attempts_remain_the_truth(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue()
    attempts = queue.connection.database.job_attempts
    attempts.insert_one({"jobId": "j", "status": "succeeded", "finishedAt": now()})
    job = {"jobId": "j", "type": "t", "status": "leased", "createdAt": now()}
    with collecting(queue.settings):
        eventually(lambda: queue.own["state"].find_one({"_id": queue.own.id(CHECKPOINT)}))
        queue.jobs.insert_one(job)
        queue.jobs.update_one({}, {"$set": {"status": "succeeded", "finishedAt": now()}})
        queue.truth = {"t": {"enqueued": 1, "succeeded": 1, "failed": 0, "dlq": 0}}
        queue.await_right_counts()
    assert queue.gaps() == []


def test_attempts_take_over_as_soon_as_one_is_recorded(make_queue: Callable[..., Queue]) -> None:
    """Catches durations that are missing for a minute, and a history that is never complete."""
    queue = make_queue()
    attempts = queue.connection.database.job_attempts
    with collecting(queue.settings):
        eventually(lambda: queue.own["state"].find_one({"_id": queue.own.id(CHECKPOINT)}))
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

        def counts_durations() -> bool:
            totals = reader.totals()
            return totals is not None and bool(totals.by_type.get("t", Tally()).run)

        eventually(counts_durations)
        eventually(lambda: (progress := reader.progress()) and progress.counted_from is None)


class Reading:
    """An event counter with its stream; the test calls each step."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        LeaderLease(queue.own, "test").take()
        groups = ErrorGroups(queue.own, Redactor())
        self.counter = EventCounter(queue.connection, queue.own, lambda: None, groups)
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
        """The state that a crash leaves: the token, and the jobs that were remembered there."""
        return {"token": self.changes.token, "jobs": self.counter.dump()}

    def resume(self, checkpoint: dict[str, Any]) -> None:
        token = checkpoint["token"]
        self.counter.resume(token["_data"], checkpoint["jobs"], now())
        self.open(token)

    def read(self) -> None:
        """Count all changes so far, and store the counts."""
        self.keep()
        self.counter.count()
        self.counter.write()

    def keep(self) -> None:
        """Read all changes so far, without counting them."""
        segments, until = (
            SegmentMap(self.queue.connection.jobs),
            self.queue.connection.cluster_time(),
        )
        assert until is not None
        last = f"82{until.time:08X}{until.inc:08X}"  # how a token of this time begins
        while not self.changes.token or self.changes.token["_data"] < last:
            events = self.changes.next_batch(segments)
            self.counter.add(events, is_end=self.changes.is_at_end)

    def counts(self) -> Counts:
        found = {}
        for bucket in self.queue.own["buckets"].find({"span": 60}):
            for entry in bucket["types"]:
                outcomes = dict(entry["outcomes"])
                tally = found.setdefault(entry["type"], dict.fromkeys(NAMES, 0))
                for name in NAMES:
                    tally[name] += entry.get(name, 0) + outcomes.get(name, 0)
        return found


def test_crash_between_counts_and_token_neither_doubles_nor_loses(agenda: Queue) -> None:
    first = Reading(agenda)
    first.begin()
    agenda.run("mail", remove=True)
    running = agenda.add("slow")
    agenda.start(running)
    first.read()
    checkpoint = first.checkpoint()
    agenda.run("mail", fails=True, remove=True)
    agenda.end(running, "slow")
    agenda.jobs.delete_one({"_id": running})
    first.read()  # stored, but the process ends before its next checkpoint
    agenda.run("other", remove=True)
    second = Reading(agenda)
    second.resume(checkpoint)
    second.read()
    assert second.counts() == agenda.truth


def test_changes_before_the_beginning_are_counted_once(agenda: Queue) -> None:
    """Catches a run that the documents and the kept changes both show, or neither."""
    running = agenda.add("slow")
    agenda.start(running)
    reading = Reading(agenda)
    reading.prepare()
    for number in range(3):
        agenda.run("mail", fails=number == 1, remove=number == 2)
    agenda.end(running, "slow")
    reading.keep()
    assert reading.counts() == {}
    reading.counter.begin()
    agenda.run("late", remove=True)
    reading.read()
    assert reading.counts() == agenda.truth
    assert not reading.counter.is_begin_urgent
    assert agenda.gaps() == [GapReason.BEFORE_COLLECTOR]


def test_a_stream_that_is_lost_before_the_beginning_is_replaced(agenda: Queue) -> None:
    reading = Reading(agenda)
    reading.prepare()
    agenda.run("mail")
    reading.keep()
    reading.prepare()
    agenda.run("mail", fails=True, remove=True)
    reading.counter.begin()
    reading.read()
    assert reading.counts() == agenda.truth


def test_the_beginning_is_urgent_before_the_memory_is_full_or_the_snapshot_is_gone(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(agenda)
    reading.prepare()
    assert not reading.counter.is_begin_urgent
    with monkeypatch.context() as patch:
        patch.setattr(event_counter_module, "MAX_PENDING", 1)
        agenda.run("mail")
        reading.keep()
        assert reading.counter.is_begin_urgent
    monkeypatch.setattr(event_counter_module, "BEGIN_WITHIN_S", -1.0)
    reading.prepare()
    assert reading.counter.is_begin_urgent


def test_of_two_collectors_one_counts(agenda: Queue) -> None:
    """Catches a collector that was frozen, lost its lease, and goes on."""
    frozen = Reading(agenda)
    frozen.begin()
    agenda.run("mail", remove=True)
    frozen.read()
    checkpoint = frozen.checkpoint()
    follower = Reading(agenda)
    follower.resume(checkpoint)
    agenda.run("mail", remove=True)
    follower.read()
    with pytest.raises(LeaseLostError):
        frozen.read()
    agenda.run("mail", fails=True)
    follower.read()
    assert follower.counts() == agenda.truth


def test_lost_stream_leaves_a_gap_with_what_documents_show(agenda: Queue) -> None:
    with collected(agenda):
        agenda.run("mail", remove=True)
        agenda.await_right_counts()
    agenda.run("mail", remove=True)
    agenda.jobs.drop()  # a stream cannot be resumed after this
    agenda.connection.database.create_collection(agenda.jobs.name)
    create_indexes(agenda.connection)
    known = copy.deepcopy(agenda.truth)
    agenda.run("mail", remove=True)  # no document and no change shows this run
    agenda.truth = known
    agenda.run("kept", fails=True)
    with collected(agenda):
        eventually(lambda: len(agenda.gaps()) == 2)
        agenda.run("mail", remove=True)
        agenda.await_right_counts()
    assert agenda.gaps() == [GapReason.BEFORE_COLLECTOR, GapReason.STREAM_LOST]


def test_more_running_jobs_than_are_remembered_leave_a_gap(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_memory_module, "MAX_RUNNING", 2)
    reading = Reading(agenda)
    reading.begin()
    running = [agenda.add("slow") for _ in range(3)]
    for job_id in running:
        agenda.start(job_id)
    reading.read()
    assert agenda.gaps() == [GapReason.BEFORE_COLLECTOR, GapReason.TOO_MANY_RUNNING]
    for job_id in running:
        agenda.end(job_id, "slow")  # Agenda writes when a run ends, so that none is lost here
    reading.read()
    assert reading.counts() == agenda.truth


def test_jobs_that_cannot_be_read_in_time_do_not_stop_the_count(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a collector that never starts on a large collection without indexes."""

    def take_too_long(_: Any, jobs: Any, query: Any, limit: int) -> Any:
        if query:
            raise ExecutionTimeout("too long", 50)

    running, reading = agenda.add("slow"), Reading(agenda)
    agenda.start(running)
    with monkeypatch.context() as patch:
        patch.setattr(JobEvaluator, "find", take_too_long)
        reading.begin()
    agenda.end(running, "slow")
    agenda.run("mail", remove=True)
    reading.read()
    assert reading.counts() == agenda.truth
    assert agenda.gaps() == [GapReason.BEFORE_COLLECTOR, GapReason.TOO_MANY_RUNNING]


def test_changes_that_were_not_read_yet_make_the_stats_old(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches old counts that are shown as new ones while many changes wait in the stream."""
    monkeypatch.setattr(changes_module, "_MAX_EVENTS", 1)
    reading, segments = Reading(agenda), SegmentMap(agenda.connection.jobs)
    reading.begin()
    added = [agenda.add("mail").generation_time for _ in range(2)]
    second = timedelta(seconds=1)
    read = []
    while not (read and reading.changes.is_at_end):
        if reading.changes.next_batch(segments):
            read.append(reading.changes.seen_until)
    assert reading.changes.seen_until is None
    assert all(abs(seen - at) <= second for at, seen in zip(added, read, strict=True))


def test_waiting_jobs_beyond_the_remembered_ones_are_loaded_later(
    agenda: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_memory_module, "MAX_WAITING", 2)
    monkeypatch.setattr(event_counter_module, "MAX_WAITING", 2)
    monkeypatch.setattr(event_counter_module, "LOAD_PAUSE_FACTOR", 0)
    jobs = [agenda.add(f"k{number}") for number in range(6)]
    reading = Reading(agenda)
    reading.begin()
    for number, job_id in enumerate(jobs):
        agenda.start(job_id)
        agenda.end(job_id, f"k{number}")
        agenda.jobs.delete_one({"_id": job_id})
        reading.read()
    assert reading.counts() == agenda.truth


def test_standalone_server_has_a_gap_until_it_has_change_streams(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with (
        Mongod(tmp_path, replica_set=None) as server,
        MongoClient[dict[str, Any]](server.uri) as client,
    ):
        settings = {"profile": "agenda", "jobs_collection": "agendaJobs"}
        queue = Queue(server, client.shop, make_settings(), **settings)
        with collecting(queue.settings):
            eventually(queue.gaps)
            queue.run("mail")
            queue.await_right_counts()
        assert queue.gaps() == [GapReason.NO_CHANGE_STREAM]
        history = queue.history()
        (gap,) = history.gaps
        assert (gap.reason, gap.end) == (GapReason.NO_CHANGE_STREAM, history.as_of)
        queue.connection.close()


def test_answers_mark_the_gaps_of_their_window(agenda: Queue) -> None:
    api = Api(create_app(agenda.settings))
    agenda.run("mail")
    for path in ("timeseries", "types"):
        meta = api.get_as_admin(f"/admin/jobs/{path}").json["meta"]
        assert meta["gaps"] == [{"from": meta["from"], "to": meta["as_of"]} | NO_COLLECTOR]
    with collected(agenda):
        agenda.await_right_counts()
        (gap,) = api.get_as_admin("/admin/jobs/timeseries").json["meta"]["gaps"]
        assert gap["reason"] == "before_collector"
        # A second earlier: a gap that ends with a minute is in no window from its end on.
        within = datetime.fromisoformat(gap["to"]) - timedelta(seconds=1)
        window = {"from": within.isoformat()}
        started = api.get_as_admin("/admin/jobs/timeseries", **window).json["meta"]
        assert started["gaps"] == [{**gap, "from": started["from"]}]
    api.app.extensions["jobmon_connection"].client.close()
