"""The collector on a real replica set: catches a count that is lost, doubled or stale, after
any change to the jobs and any fault of the collector or its database."""

import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Decimal128, ObjectId
from bson.raw_bson import RawBSONDocument
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import DeleteMany, InsertOne, MongoClient, UpdateMany
from pymongo.database import Database
from pymongo.errors import AutoReconnect, DuplicateKeyError

from jobmon.app import create_app
from jobmon.collector import changes as changes_module
from jobmon.collector import checkpoint as checkpoint_module
from jobmon.collector import collector as collector_module
from jobmon.collector import segments as segments_module
from jobmon.collector.changes import PolledChanges
from jobmon.collector.collecting import collecting
from jobmon.collector.collector import Collector
from jobmon.collector.segments import SegmentMap
from jobmon.collector.share import Share
from jobmon.demo.mongod import Mongod
from jobmon.redaction.redactor import Redactor
from jobmon.rollup import stats_document as stats_document_module
from jobmon.rollup.documents import rollup_database
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store import list_count
from jobmon.store import stats as stats_module
from jobmon.store.connection import Connection
from jobmon.store.labels import label

from ..conftest import NOW, Api
from ..fuzz.documents import (
    REFERENCE,
    Value,
    binary,
    code_with_scope,
    document,
    encode_pairs,
    int32,
    text,
)
from ..support.commands import database_uri
from ..support.processes import end_process
from ..support.services import start_collector
from ..support.waiting import PATIENCE_S, eventually

LONG_AGO = NOW - timedelta(days=2_000)
MongoDb = Database[dict[str, Any]]
Counts = dict[tuple[str, str], int]  # jobs by (status, type)


class Queue:
    """A queue on the real server, and the counts that the web service reads from its rollups."""

    def __init__(self, database: MongoDb, base_settings: Settings) -> None:
        self.jobs = database.jobs
        self.settings = replace(base_settings, rollup_db=f"{database.name}_rollups")
        self.environment = {
            "JOBMON_MONGO_URI": self.settings.mongo_uri,
            "JOBMON_ROLLUP_DB": self.settings.rollup_db,
        }
        self.connection = Connection(self.settings)
        self.rollups = rollup_database(self.connection)
        self.reader = RollupReader(self.connection)

    def count_jobs(self) -> Counts:
        counts: Counter[tuple[str, str]] = Counter()
        for job in self.jobs.find({}, {"status": 1, "type": 1}):
            counts[label(job.get("status")), label(job.get("type"))] += 1
        return dict(counts)

    def read_counts(self) -> Counts | None:
        stats = self.reader.stats()
        return None if stats is None else dict(stats.counts or {})

    def await_right_counts(self) -> None:
        expected = self.count_jobs()
        eventually(lambda: self.read_counts() == expected)

    def collect_once(self) -> None:
        """Run a collector until its stats are right."""
        with collecting(self.settings):
            self.await_right_counts()


@pytest.fixture
def queue(
    mongod: Mongod, database: MongoDb, make_settings: Callable[..., Settings]
) -> Iterator[Queue]:
    queue = Queue(database, make_settings(mongo_uri=database_uri(mongod, database)))
    yield queue
    database.client.drop_database(queue.rollups.name)
    queue.connection.client.close()


@pytest.fixture
def collected_queue(queue: Queue) -> Iterator[Queue]:
    """The queue, with a running collector that has written its first stats."""
    with collecting(queue.settings):
        eventually(lambda: queue.read_counts() is not None)
        yield queue


def limit_types(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    for module in (stats_module, segments_module):
        monkeypatch.setattr(module, "MAX_TYPES", limit)


def make_job(**fields: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"jobId": str(uuid.uuid4()), "type": "t", "status": "queued", "createdAt": now} | fields


IDS = st.one_of(
    st.just(None),
    st.uuids().map(str),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=8).map(lambda data: Binary(data, 5)),
    st.integers(0, 2**31).map(
        lambda time_s: ObjectId.from_datetime(datetime.fromtimestamp(time_s, UTC))
    ),
    st.integers(0, 9).map(lambda part: {"part": part}),
)
STATUSES = st.sampled_from(["queued", "leased", "succeeded", "failed", "dlq", "odd", None, 7])
TYPES = st.sampled_from(["email.send", "payout.execute", "a.b$c", None])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.lists(st.tuples(IDS, STATUSES, TYPES), max_size=20)),
        st.tuples(st.just("transition"), st.tuples(STATUSES, st.integers(1, 20))),
        st.tuples(st.just("retype"), st.tuples(TYPES, st.integers(1, 20))),
        st.tuples(st.just("retry from dlq"), st.none()),
        st.tuples(st.just("delete"), st.integers(1, 5)),
        st.tuples(st.just("delete all of"), STATUSES),
        st.tuples(st.just("delete a half"), st.booleans()),
        st.tuples(st.just("in bulk"), st.lists(st.tuples(STATUSES, TYPES), max_size=20)),
        st.tuples(st.just("odd"), st.none()),
    ),
    max_size=12,
)


def apply_change(queue: Queue, change: tuple[str, Any]) -> None:
    jobs = queue.jobs
    match change:
        case "insert", rows:
            for job_id, status, job_type in rows:
                query = {"_id": ObjectId() if job_id is None else job_id}
                jobs.replace_one(query, make_job(status=status, type=job_type), upsert=True)
        case "transition", (status, count):
            for job in list(jobs.aggregate([{"$sample": {"size": count}}])):
                jobs.update_one({"_id": job["_id"]}, {"$set": {"status": status}})
        case "retype", (job_type, count):
            for job in list(jobs.find().limit(count)):
                jobs.update_one({"_id": job["_id"]}, {"$set": {"type": job_type}})
        case "retry from dlq", _:
            jobs.update_many({"status": "dlq"}, {"$set": {"status": "queued"}})
        case "delete", count:
            for job in list(jobs.find().limit(count)):
                jobs.delete_one({"_id": job["_id"]})
        case "delete all of", status:
            jobs.delete_many({"status": status})
        case "delete a half", is_newer_half:
            ids = sorted(jobs.distinct("_id", {"_id": {"$type": "objectId"}}))
            if ids:
                operator = "$gte" if is_newer_half else "$lt"
                jobs.delete_many({"_id": {operator: ids[len(ids) // 2]}})
        case "in bulk", rows:
            new = [make_job(status=status, type=job_type) for status, job_type in rows]
            retry = UpdateMany({"status": "failed"}, {"$set": {"status": "queued"}})
            jobs.bulk_write([*map(InsertOne, new), retry, DeleteMany({"type": "a.b$c"})])
        case "odd", _:
            jobs.insert_one({"status": ["queued"], "type": {"a": 1}})
            jobs.insert_one({"_id": Decimal128(str(time.time_ns())), "status": None})


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES)
def test_counts_after_any_changes_equal_a_recount(
    collected_queue: Queue, changes: list[tuple[str, Any]]
) -> None:
    for change in changes:
        apply_change(collected_queue, change)
    collected_queue.await_right_counts()


def test_counts_stay_right_while_segments_are_split_and_merged(
    collected_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit in (("SEGMENT_JOBS", 100), ("SPLIT_ABOVE", 200), ("MERGE_BELOW", 50)):
        monkeypatch.setattr(segments_module, name, limit)
    collected_queue.jobs.insert_many([make_job(_id=number) for number in range(900)])
    collected_queue.jobs.insert_many([make_job(type=f"t{number % 8}") for number in range(900)])
    collected_queue.await_right_counts()
    collected_queue.jobs.update_many({"type": "t3"}, {"$set": {"status": "succeeded"}})
    collected_queue.await_right_counts()
    collected_queue.jobs.delete_many({"_id": {"$gte": 10, "$lt": 890}})
    collected_queue.await_right_counts()


ODD_IDS = [
    Value(0x09, struct.pack("<q", 2**63 - 1)),  # a date that Python cannot represent
    text("f()", 0x0D),
    code_with_scope("f()", document()),
    Value(0x0C, text("users").data + ObjectId().binary),
    REFERENCE,
    binary(b"abc", 2),
    binary(struct.pack("<i", 3) + b"abc", 2),
    Value(0x01, struct.pack("<d", float("nan"))),
    Value(0x13, Decimal128("sNaN").bid),
    Value(0xFF, b""),
]


def test_a_change_of_a_job_with_any_id_is_counted(collected_queue: Queue) -> None:
    jobs, inserted = collected_queue.jobs, 0
    for number, value in enumerate(ODD_IDS):
        fields = [(b"_id", value), (b"n", int32(number)), (b"status", text("queued"))]
        with suppress(DuplicateKeyError):  # both NaNs are the same _id
            jobs.insert_one(RawBSONDocument(encode_pairs(fields)))
            inserted += 1
    jobs.insert_many([{"_id": number, "status": "queued"} for number in range(3_000)])
    eventually(lambda: collected_queue.read_counts() == {("queued", "null"): 3_000 + inserted})
    jobs.update_many({"n": {"$gte": 0}}, {"$set": {"status": "dlq"}})
    expected = {("queued", "null"): 3_000, ("dlq", "null"): inserted}
    eventually(lambda: collected_queue.read_counts() == expected)


def test_a_first_count_finds_a_job_with_any_id(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 2)
    queue.jobs.insert_many([{"_id": number} for number in range(9)])
    for value in ODD_IDS:
        with suppress(DuplicateKeyError):
            queue.jobs.insert_one(RawBSONDocument(encode_pairs([(b"_id", value)])))
    segments = SegmentMap(queue.connection.jobs)
    segments.build(lambda _: None)
    assert segments.totals.total() == queue.jobs.count_documents({}) == 9 + len(ODD_IDS) - 1


def test_a_job_that_expires_by_ttl_is_no_longer_counted(collected_queue: Queue) -> None:
    collected_queue.jobs.create_index("finishedAt", expireAfterSeconds=0)
    collected_queue.jobs.insert_many([make_job(finishedAt=LONG_AGO), make_job()])
    eventually(lambda: collected_queue.jobs.count_documents({}) == 1)
    collected_queue.await_right_counts()


def test_a_dropped_and_refilled_collection_is_counted_again(collected_queue: Queue) -> None:
    collected_queue.jobs.insert_many([make_job() for _ in range(50)])
    collected_queue.await_right_counts()
    collected_queue.jobs.drop()
    collected_queue.await_right_counts()
    collected_queue.jobs.insert_many([make_job(status="dlq") for _ in range(30)])
    collected_queue.await_right_counts()


def test_a_dropped_rollup_database_is_written_again(collected_queue: Queue) -> None:
    collected_queue.jobs.insert_many([make_job() for _ in range(50)])
    collected_queue.await_right_counts()
    collected_queue.rollups.client.drop_database(collected_queue.rollups.name)
    collected_queue.jobs.insert_one(make_job(status="leased"))
    collected_queue.await_right_counts()


def test_a_restart_resumes_from_the_checkpoint_and_sees_changes_since(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.jobs.insert_many([make_job() for _ in range(3_000)])
    queue.collect_once()
    queue.jobs.update_many({}, {"$set": {"status": "succeeded"}})
    queue.jobs.insert_many([make_job() for _ in range(10)])
    monkeypatch.setattr(SegmentMap, "build", pytest.fail)
    queue.collect_once()


def test_folded_types_are_counted_by_name_when_other_types_are_gone(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches types that stay in `(other)` for ever because there once were too many."""
    limit_types(monkeypatch, 4)
    monkeypatch.setattr(collector_module, "RENAME_AFTER_S", 0.0)
    with collecting(queue.settings):
        for number in range(10):  # one type at a time
            queue.jobs.insert_one(make_job(type=f"t{number}"))
            queue.await_right_counts()
            queue.jobs.delete_many({})
        queue.jobs.insert_many([make_job(type=f"u{number}") for number in range(6)])
        eventually(lambda: ("queued", "(other)") in (queue.read_counts() or {}))
        queue.jobs.delete_many({"type": {"$in": ["u0", "u1", "u2", "u3"]}})
        queue.await_right_counts()


def test_stats_that_are_too_large_to_write_are_logged_and_skipped(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue.jobs.insert_one(make_job(type="t" * 100))
    huge = [["queued", "x" * 1_000, 1]] * 20_000
    with monkeypatch.context() as patch, collecting(queue.settings):
        patch.setattr(stats_document_module, "dump_counts", lambda _: huge)
        eventually(lambda: "larger than a document may be" in caplog.text)
        patch.undo()
        queue.await_right_counts()


def test_a_checkpoint_with_recorded_attempts_is_not_used_without_them(queue: Queue) -> None:
    """Catches old counts with a stream that begins now: the changes in between are lost."""
    attempts = queue.jobs.database.job_attempts
    queue.jobs.insert_many([make_job() for _ in range(5)])
    attempts.insert_one({"jobId": "j", "status": "succeeded"})
    queue.collect_once()
    attempts.delete_many({})
    queue.jobs.update_many({}, {"$set": {"status": "succeeded"}})
    queue.collect_once()


def test_an_incomplete_checkpoint_is_not_used(queue: Queue) -> None:
    queue.jobs.insert_many([make_job() for _ in range(50)])
    queue.collect_once()
    queue.rollups.checkpoints.delete_one({"number": 0})
    queue.jobs.insert_one(make_job(status="dlq"))
    queue.collect_once()


def test_types_beyond_the_limit_are_folded_even_after_a_restart(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a collector that fails, or counts wrong, when more and more types appear."""
    limit_types(monkeypatch, 3)
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 10)
    monkeypatch.setattr(segments_module, "SPLIT_ABOVE", 20)
    monkeypatch.setattr(checkpoint_module, "_COUNTS_PER_DOCUMENT", 5)

    def await_counts(**counts: int) -> None:
        types = {name.replace("other", "(other)"): count for name, count in counts.items()}
        expected = {("queued", job_type): count for job_type, count in types.items()}
        eventually(lambda: queue.read_counts() == expected)

    queue.jobs.insert_many([make_job(type=f"t{number % 3}") for number in range(30)])
    queue.jobs.insert_many([make_job(type=f"t{number % 5}") for number in range(70)])
    with collecting(queue.settings):
        await_counts(t0=24, t1=24, t2=24, other=28)
        queue.jobs.delete_many({"type": "t1"})
        queue.jobs.insert_many([make_job(type="t9") for _ in range(7)])
        await_counts(t0=24, t2=24, other=35)
    assert queue.rollups.checkpoints.count_documents({}) > 1
    monkeypatch.setattr(SegmentMap, "build", pytest.fail)
    with collecting(queue.settings):
        queue.jobs.delete_many({"type": {"$in": ["t0", "t3"]}})
        await_counts(t2=24, other=21)
        queue.jobs.insert_many([make_job(type=f"t{number}") for number in range(4)])
        await_counts(t0=1, t2=25, other=23)  # no job had t1 when this collector began


def test_a_lost_resume_token_leads_to_a_full_count(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.jobs.insert_many([make_job() for _ in range(20)])
    with queue.jobs.watch() as changes:
        queue.jobs.insert_one(make_job())
        token = changes.next()["_id"]["_data"]
    queue.collect_once()
    lost_token = f"8200000001{token[10:]}"  # the token of an event of 1970
    queue.rollups.state.update_one({"name": "checkpoint"}, {"$set": {"token._data": lost_token}})
    queue.jobs.delete_many({})
    queue.jobs.insert_many([make_job(status="dlq") for _ in range(7)])
    queue.collect_once()
    (line,) = (line for line in caplog.messages if "counting all jobs again" in line)
    assert line.endswith(": OperationFailure ChangeStreamFatalError")


def test_a_second_collector_takes_over_when_the_first_ends(queue: Queue) -> None:
    collectors = {}
    for _ in range(2):
        stop, share = threading.Event(), Share([queue.settings])
        collector = Collector(queue.connection, queue.rollups, stop, share, Redactor())
        collectors[share.holder] = stop, threading.Thread(target=collector.run)
    for _, thread in collectors.values():
        thread.start()
    queue.jobs.insert_many([make_job() for _ in range(100)])
    queue.await_right_counts()
    stop, thread = collectors.pop(queue.rollups.state.find_one({"name": "stats"})["collector"])
    stop.set()
    thread.join()
    queue.jobs.insert_one(make_job(status="leased"))
    queue.await_right_counts()
    for stop, thread in collectors.values():
        stop.set()
        thread.join()


def test_a_collector_that_cannot_reach_its_queue_leaves_the_lease_to_another(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a process that keeps the lease because it reaches only jobmon's database."""

    def fail() -> None:
        raise AutoReconnect("away")

    monkeypatch.setattr(collector_module, "HANDOVER_EVERY", 2)
    queue.jobs.insert_one(make_job())
    stop = threading.Event()
    threads = []
    for is_cut_off in (True, False):
        share = Share([queue.settings])
        collector = Collector(queue.connection, queue.rollups, stop, share, Redactor())
        if is_cut_off:
            monkeypatch.setattr(collector, "_work", fail)
        threads.append(threading.Thread(target=collector.run))
        threads[-1].start()
        eventually(queue.rollups.leases.find_one)
    try:
        queue.await_right_counts()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_killed_collector_is_replaced_and_no_change_is_lost(queue: Queue) -> None:
    queue.jobs.insert_many([make_job() for _ in range(5_000)])
    with ExitStack() as running:
        first = start_collector(**queue.environment)
        running.callback(end_process, first, None)
        eventually(queue.rollups.leases.find_one)
        running.callback(end_process, start_collector(**queue.environment), None)
        for number in range(40):
            queue.jobs.update_many(
                {"jobId": {"$regex": f"^{number % 16:x}"}}, {"$set": {"type": "u"}}
            )
            if number == 20:
                first.kill()
        queue.await_right_counts()


def test_counts_are_right_after_a_kill_at_each_stage_of_a_collector(queue: Queue) -> None:
    create_indexes(queue.connection)
    state, buckets = queue.rollups.state, queue.rollups.buckets
    queue.jobs.insert_many([make_job() for _ in range(5_000)])
    stages: list[Callable[[], Any]] = [
        queue.rollups.leases.find_one,  # the lease is taken
        lambda: state.find_one({"name": "stats"}),  # all jobs are counted
        lambda: state.find_one({"name": "checkpoint"}),  # the first checkpoint is written
        lambda: state.find_one({"name": "stats"}) and buckets.find_one(),  # also the history
    ]
    for number, has_reached in enumerate(stages):
        process = start_collector(**queue.environment)
        try:
            eventually(has_reached)
            queue.jobs.update_many({"jobId": {"$regex": f"^{number}"}}, {"$set": {"type": "u"}})
            queue.jobs.delete_many({"jobId": {"$regex": f"^{number}1"}})
        finally:
            end_process(process, None)
        queue.jobs.insert_many([make_job(status="dlq") for _ in range(10)])
        queue.rollups.leases.delete_many({})  # as if the lease had expired
        if number < 2:
            state.delete_one({"name": "stats"})
    enqueued = queue.jobs.count_documents({})
    with collecting(queue.settings):
        queue.await_right_counts()
        eventually(lambda: sum(bucket["events"] for bucket in buckets.find({"span": 86_400})))
        for span in (60, 600, 3_600, 21_600, 86_400):
            eventually(lambda span=span: count_enqueued(queue, span) >= enqueued)


def count_enqueued(queue: Queue, span: int) -> int:
    """The sum of enqueued jobs in the buckets of a span."""
    buckets = queue.rollups.buckets.find({"span": span})
    return sum(tally["enqueued"] for bucket in buckets for tally in bucket["types"])


def test_routes_agree_with_a_full_recount(
    collected_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_count, "COUNT_EXACTLY_UP_TO", 10)  # totals come from the rollup
    create_indexes(collected_queue.connection)
    api, jobs = Api(create_app(collected_queue.settings)), collected_queue.jobs
    types, statuses = ["email.send", "payout.execute", "a.b$c"], ["queued", "dlq", "odd"]
    for number in range(300):
        job_type, status = types[number % 3], statuses[number // 3 % 3]
        jobs.insert_one(make_job(type=job_type, status=status))
    jobs.update_many({"type": "a.b$c", "status": "dlq"}, {"$set": {"type": "email.send"}})
    jobs.delete_many({"type": "payout.execute", "status": "odd"})
    collected_queue.await_right_counts()
    counts = Counter(collected_queue.count_jobs())

    def count(status: str | None = None, job_type: str | None = None) -> int:
        keys = product([status] if status else statuses, [job_type] if job_type else types)
        return sum(counts[key] for key in keys)

    def has_all_jobs() -> bool:
        stats = api.get_as_admin("/admin/jobs/stats").json
        return stats["source"] == "rollup" and stats["totalJobs"] == count()

    eventually(has_all_jobs)
    stats = api.get_as_admin("/admin/jobs/stats").json
    status_counts = {status: total for status, total in stats["statusCounts"].items() if total}
    assert status_counts == {status: count(status) for status in statuses}
    assert stats["typeCounts"] == {
        job_type: {
            status: count(status, job_type) for status in statuses if count(status, job_type)
        }
        for job_type in types
    }
    rows = api.get_as_admin("/admin/jobs/types").json["data"]
    assert {row["type"]: row["statusCounts"] for row in rows} == stats["typeCounts"]
    for status in (None, *statuses):
        for job_type in (None, *types):
            filters = {"status": status, "type": job_type}
            query = {name: value for name, value in filters.items() if value}
            total = api.get_as_admin("/admin/jobs/queue", **query).json["meta"]["total"]
            assert total == jobs.count_documents(query) == count(status, job_type)
    api.app.extensions["jobmon_connection"].client.close()


def test_progress_of_a_first_count_is_in_the_log_and_in_readyz(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 10)
    monkeypatch.setattr(collector_module, "REPORT_BUILD_EVERY_S", 0)
    caplog.set_level("INFO", "jobmon.collector.collector")
    queue.jobs.insert_many([make_job() for _ in range(30)])
    api, count, may_continue = Api(create_app(queue.settings)), SegmentMap._count, threading.Event()

    def count_when_allowed(self: SegmentMap, row: Any, low: Any, high: Any) -> Any:
        assert low is None or may_continue.wait(PATIENCE_S)
        return count(self, row, low, high)

    monkeypatch.setattr(SegmentMap, "_count", count_when_allowed)
    with collecting(queue.settings):
        unfinished = {"isFresh": False, "build": {"counted": 10, "estimated": 30}}
        eventually(lambda: api.get("/readyz").json["checks"]["rollup"] == unfinished)
        assert api.get("/readyz").status_code == 200
        may_continue.set()
        eventually(lambda: api.get("/readyz").json["checks"]["rollup"] == {"isFresh": True})
    api.app.extensions["jobmon_connection"].client.close()
    assert "first count: 10 of about 30 jobs" in caplog.messages


@pytest.mark.parametrize("clock_error_s", [-30, 30])
def test_polling_finds_changes_of_a_writer_with_a_wrong_clock(
    queue: Queue, clock_error_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.jobs.create_index("updatedAt")
    segments, stop = SegmentMap(queue.connection.jobs), threading.Event()
    stop.set()  # no pause between two polls
    queue.jobs.insert_many([make_job() for _ in range(10)])
    segments.build(lambda _: None)
    updated_at = datetime.now(UTC) + timedelta(seconds=clock_error_s)
    queue.jobs.update_many({}, {"$set": {"status": "dlq", "updatedAt": updated_at}})
    monkeypatch.setattr(segments, "mark_next_segments", lambda _: None)  # no sweep
    PolledChanges(queue.connection.jobs, stop).next_batch(segments)
    segments.recount()
    assert dict(segments.totals) == queue.count_jobs()


def test_counts_are_right_after_a_primary_steps_down(
    make_settings: Callable[..., Settings], tmp_path: Path, mongod: Mongod
) -> None:
    with Mongod(tmp_path) as server, MongoClient(server.uri) as client:
        queue = Queue(client.shop, make_settings(mongo_uri=server.uri.replace("/?", "/shop?")))
        queue.jobs.insert_many([make_job() for _ in range(100)])
        with collecting(queue.settings):
            queue.await_right_counts()
            client.admin.command("replSetStepDown", 1, force=True)
            eventually(lambda: client.admin.command("hello")["isWritablePrimary"])
            queue.jobs.delete_many({})
            queue.jobs.insert_many([make_job(status="dlq") for _ in range(7)])
            queue.await_right_counts()
        queue.connection.client.close()


def test_a_standalone_server_is_polled_and_swept(
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    mongod: Mongod,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes_module, "SWEEP_S", 3.0)
    with Mongod(tmp_path, replica_set=None) as server, MongoClient(server.uri) as client:
        queue = Queue(client.shop, make_settings(mongo_uri=f"{server.uri}shop"))
        create_indexes(queue.connection)
        queue.jobs.insert_many([make_job() for _ in range(2_500)])
        with collecting(queue.settings):
            queue.await_right_counts()
            now = datetime.now(UTC)
            queue.jobs.update_many({}, {"$set": {"status": "dlq", "updatedAt": now}})
            queue.jobs.insert_one(make_job(updatedAt=now))
            queue.await_right_counts()
            queue.jobs.delete_many({"status": "dlq"})  # without a new updatedAt
            queue.await_right_counts()
        queue.connection.client.close()


def test_stale_stats_are_not_served(queue: Queue) -> None:
    queue.jobs.insert_one(make_job())
    queue.collect_once()
    queue.rollups.state.update_one({"name": "stats"}, {"$set": {"at": LONG_AGO}})
    eventually(lambda: queue.read_counts() is None)


def test_jobs_are_counted_live_while_the_database_refuses_writes(
    collected_queue: Queue, database: MongoDb, caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a service that fails, or shows old stats, when only writes are refused."""
    create_indexes(collected_queue.connection)
    api = Api(create_app(collected_queue.settings))
    collected_queue.jobs.insert_many([make_job() for _ in range(3)])
    collected_queue.await_right_counts()
    caplog.clear()
    writes = {"failCommands": ["insert", "update", "delete", "findAndModify"], "appName": "jobmon"}
    failpoint = {"data": writes | {"errorCode": 14_031}}  # OutOfDiskSpace
    admin = database.client.admin
    admin.command("configureFailPoint", "failCommand", mode="alwaysOn", **failpoint)
    try:
        collected_queue.jobs.insert_many([make_job() for _ in range(4)])

        def is_counted_live() -> bool:
            stats = api.get_as_admin("/admin/jobs/stats").json
            return (stats["source"], stats["totalJobs"]) == ("live", 7)

        eventually(is_counted_live)
        assert api.get_as_admin("/admin/jobs/queue").json["meta"]["total"] == 7
        assert api.get("/readyz").status_code == 200
        logged = [
            record.message for record in caplog.records if "collector waits" in record.message
        ]
        assert logged == ["the collector waits, the database refuses: OutOfDiskSpace"]
    finally:
        admin.command("configureFailPoint", "failCommand", mode="off")
    collected_queue.await_right_counts()
    api.app.extensions["jobmon_connection"].client.close()


def test_a_recount_that_fails_midway_can_be_repeated(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 10)
    monkeypatch.setattr(segments_module, "SPLIT_ABOVE", 20)
    segments = SegmentMap(queue.connection.jobs)
    queue.jobs.insert_many([make_job(_id=number) for number in range(15)])
    segments.build(lambda _: None)
    queue.jobs.insert_many([make_job(_id=number) for number in range(15, 60)])
    for number in range(15, 60):
        segments.mark_job(number)
    count, calls = SegmentMap._count, 0

    def fail_every_third_time(self: SegmentMap, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise ConnectionError
        return count(self, *arguments)

    monkeypatch.setattr(SegmentMap, "_count", fail_every_third_time)
    for _ in range(20):
        try:
            segments.recount()
            break
        except ConnectionError:
            continue
    assert dict(segments.totals) == queue.count_jobs()
    segments.mark_job(0)
    monkeypatch.setattr(SegmentMap, "_count", count)
    segments.recount()
    assert dict(segments.totals) == queue.count_jobs()
