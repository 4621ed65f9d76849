"""The collector on a real replica set: catches a count that is lost, doubled or stale, after
any change to the jobs and any fault of the collector or its database."""

import os
import struct
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Decimal128, ObjectId
from bson.raw_bson import RawBSONDocument
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import DeleteMany, InsertOne, MongoClient, UpdateMany
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

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

from ..conftest import NOW, SECRET, Api
from ..fuzz.documents import REFERENCE, Value, binary, code_with_scope, document, int32, raw, text
from ..support.commands import database_uri
from ..support.preloaded import start_python
from ..support.processes import end_process
from ..support.waiting import PATIENCE_S, eventually

LONG_AGO = NOW - timedelta(days=2_000)
Counts = dict[tuple[str, str], int]


class Watch:
    """A watched database, and what the web service reads from its rollups."""

    def __init__(self, database: Database[dict[str, Any]], base_settings: Settings) -> None:
        self.jobs = database.jobs
        self.settings = replace(base_settings, rollup_db=f"{database.name}_rollups")
        self.connection = Connection(self.settings)
        self.rollups = rollup_database(self.connection)
        self.reader = RollupReader(self.connection)

    def truth(self) -> Counts:
        counts: Counter[tuple[str, str]] = Counter()
        for job in self.jobs.find({}, {"status": 1, "type": 1}):
            counts[label(job.get("status")), label(job.get("type"))] += 1
        return dict(counts)

    def stats(self) -> Counts | None:
        stats = self.reader.stats()
        return None if stats is None else dict(stats.counts or {})

    def await_right_counts(self) -> None:
        truth = self.truth()
        eventually(lambda: self.stats() == truth)

    def collect_once(self) -> None:
        """Run a collector until its stats are right."""
        with collecting(self.settings):
            self.await_right_counts()


@pytest.fixture
def watch(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[Watch]:
    watch = Watch(database, make_settings(mongo_uri=database_uri(mongod, database)))
    yield watch
    database.client.drop_database(watch.rollups.name)
    watch.connection.client.close()


@pytest.fixture
def collected(watch: Watch) -> Iterator[Watch]:
    with collecting(watch.settings):
        eventually(lambda: watch.stats() is not None)
        yield watch


def limit_types(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    for module in (stats_module, segments_module):
        monkeypatch.setattr(module, "MAX_TYPES", most)


def job(**more: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {"jobId": str(uuid.uuid4()), "type": "t", "status": "queued", "createdAt": now} | more


IDS = st.one_of(
    st.just(None),
    st.uuids().map(str),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=8).map(lambda data: Binary(data, 5)),
    st.integers(0, 2**31).map(lambda at: ObjectId.from_datetime(datetime.fromtimestamp(at, UTC))),
    st.integers(0, 9).map(lambda number: {"part": number}),
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


def apply(watch: Watch, change: tuple[str, Any]) -> None:
    jobs = watch.jobs
    match change:
        case "insert", rows:
            for job_id, status, kind in rows:
                document = job(status=status, type=kind)
                document |= {} if job_id is None else {"_id": job_id}
                jobs.replace_one({"_id": document.pop("_id", ObjectId())}, document, upsert=True)
        case "transition", (status, count):
            for found in list(jobs.aggregate([{"$sample": {"size": count}}])):
                jobs.update_one({"_id": found["_id"]}, {"$set": {"status": status}})
        case "retype", (kind, count):
            for found in list(jobs.find().limit(count)):
                jobs.update_one({"_id": found["_id"]}, {"$set": {"type": kind}})
        case "retry from dlq", _:
            jobs.update_many({"status": "dlq"}, {"$set": {"status": "queued"}})
        case "delete", count:
            for found in list(jobs.find().limit(count)):
                jobs.delete_one({"_id": found["_id"]})
        case "delete all of", status:
            jobs.delete_many({"status": status})
        case "delete a half", newer:
            ids = sorted(jobs.distinct("_id", {"_id": {"$type": "objectId"}}))
            if ids:
                operator = "$gte" if newer else "$lt"
                jobs.delete_many({"_id": {operator: ids[len(ids) // 2]}})
        case "in bulk", rows:
            inserts = [InsertOne(job(status=status, type=kind)) for status, kind in rows]
            retry = UpdateMany({"status": "failed"}, {"$set": {"status": "queued"}})
            jobs.bulk_write([*inserts, retry, DeleteMany({"type": "a.b$c"})])
        case "odd", _:
            jobs.insert_one({"status": ["queued"], "type": {"a": 1}})
            jobs.insert_one({"_id": Decimal128(str(time.time_ns())), "status": None})


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES)
def test_stats_after_any_changes_equal_a_recount(
    collected: Watch, changes: list[tuple[str, Any]]
) -> None:
    for change in changes:
        apply(collected, change)
    collected.await_right_counts()


def test_many_jobs_are_split_into_segments_and_merged_again(
    collected: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, jobs in (("SEGMENT_JOBS", 100), ("SPLIT_ABOVE", 200), ("MERGE_BELOW", 50)):
        monkeypatch.setattr(segments_module, name, jobs)
    collected.jobs.insert_many([job(_id=number) for number in range(900)])
    collected.jobs.insert_many([job(type=f"t{number % 8}") for number in range(900)])
    collected.await_right_counts()
    collected.jobs.update_many({"type": "t3"}, {"$set": {"status": "succeeded"}})
    collected.await_right_counts()
    collected.jobs.delete_many({"_id": {"$gte": 10, "$lt": 890}})
    collected.await_right_counts()


ODD_IDS = [
    Value(0x09, struct.pack("<q", 2**63 - 1)),  # a date that Python has none for
    text(b"\xff\xfe"),
    text("symbol", 0x0E),
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


def test_a_change_of_a_job_with_any_id_is_counted(collected: Watch) -> None:
    taken = 0
    for number, value in enumerate(ODD_IDS):
        fields = [(b"_id", value), (b"n", int32(number)), (b"status", text("queued"))]
        with suppress(DuplicateKeyError):  # NaN is NaN
            collected.jobs.insert_one(RawBSONDocument(raw(fields)))
            taken += 1
    collected.jobs.insert_many([{"_id": number, "status": "queued"} for number in range(3_000)])
    eventually(lambda: collected.stats() == {("queued", "null"): 3_000 + taken})
    collected.jobs.update_many({"n": {"$gte": 0}}, {"$set": {"status": "dlq"}})
    expected = {("queued", "null"): 3_000, ("dlq", "null"): taken}
    eventually(lambda: collected.stats() == expected)


def test_a_first_count_finds_a_job_with_any_id(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 2)
    watch.jobs.insert_many([{"_id": number} for number in range(9)])
    for value in ODD_IDS:
        with suppress(DuplicateKeyError):
            watch.jobs.insert_one(RawBSONDocument(raw([(b"_id", value)])))
    segments = SegmentMap(watch.connection.jobs)
    segments.build(lambda _: None)
    assert segments.totals.total() == watch.jobs.count_documents({}) == 9 + len(ODD_IDS) - 1


def test_a_job_that_expires_by_ttl_is_no_longer_counted(collected: Watch) -> None:
    collected.jobs.create_index("finishedAt", expireAfterSeconds=0)
    collected.jobs.insert_many([job(finishedAt=LONG_AGO), job()])
    eventually(lambda: collected.jobs.count_documents({}) == 1)
    collected.await_right_counts()


def test_a_dropped_and_refilled_collection_is_counted_again(collected: Watch) -> None:
    collected.jobs.insert_many([job() for _ in range(50)])
    collected.await_right_counts()
    collected.jobs.drop()
    collected.await_right_counts()
    collected.jobs.insert_many([job(status="dlq") for _ in range(30)])
    collected.await_right_counts()


def test_a_dropped_rollup_database_is_written_again(collected: Watch) -> None:
    collected.jobs.insert_many([job() for _ in range(50)])
    collected.await_right_counts()
    collected.rollups.client.drop_database(collected.rollups.name)
    collected.jobs.insert_one(job(status="leased"))
    collected.await_right_counts()


def test_a_restart_resumes_from_the_checkpoint_and_sees_changes_since(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.jobs.insert_many([job() for _ in range(3_000)])
    watch.collect_once()
    watch.jobs.update_many(
        {},
        {"$set": {"status": "succeeded"}},
    )
    watch.jobs.insert_many([job() for _ in range(10)])
    monkeypatch.setattr(SegmentMap, "build", pytest.fail)
    watch.collect_once()


def test_types_get_the_names_of_types_that_are_gone(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches types that stay folded for ever because there once were too many."""
    limit_types(monkeypatch, 4)
    monkeypatch.setattr(collector_module, "RENAME_AFTER_S", 0.0)
    with collecting(watch.settings):
        for number in range(10):  # never more than one at a time
            watch.jobs.insert_one(job(type=f"t{number}"))
            watch.await_right_counts()
            watch.jobs.delete_many({})
        watch.jobs.insert_many([job(type=f"u{number}") for number in range(6)])
        eventually(lambda: ("queued", "(other)") in (watch.stats() or {}))
        watch.jobs.delete_many({"type": {"$in": ["u0", "u1", "u2", "u3"]}})
        watch.await_right_counts()


def test_stats_that_are_too_large_to_write_are_logged_and_skipped(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watch.jobs.insert_one(job(type="t" * 100))
    huge = [["queued", "x" * 1_000, 1]] * 20_000
    with monkeypatch.context() as patch, collecting(watch.settings):
        patch.setattr(stats_document_module, "dump_counts", lambda _: huge)
        eventually(lambda: "larger than a document may be" in caplog.text)
        patch.undo()
        watch.await_right_counts()


def test_a_checkpoint_from_when_attempts_were_recorded_is_not_used_without_them(
    watch: Watch,
) -> None:
    """Catches the old counts together with a stream that begins only now."""
    attempts = watch.jobs.database.job_attempts
    watch.jobs.insert_many([job() for _ in range(5)])
    attempts.insert_one({"jobId": "j", "status": "succeeded"})
    watch.collect_once()
    attempts.delete_many({})
    watch.jobs.update_many({}, {"$set": {"status": "succeeded"}})
    watch.collect_once()


def test_an_incomplete_checkpoint_is_not_used(watch: Watch) -> None:
    watch.jobs.insert_many([job() for _ in range(50)])
    watch.collect_once()
    watch.rollups.checkpoints.delete_one({"number": 0})
    watch.jobs.insert_one(job(status="dlq"))
    watch.collect_once()


def test_types_beyond_the_limit_are_folded_also_after_a_restart(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a collector that fails, or counts wrong, when there are ever more types."""
    limit_types(monkeypatch, 3)
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 10)
    monkeypatch.setattr(segments_module, "SPLIT_ABOVE", 20)
    monkeypatch.setattr(checkpoint_module, "_COUNTS_PER_DOCUMENT", 5)

    def await_counts(**counts: int) -> None:
        expected = {("queued", kind.replace("rest", "(other)")): n for kind, n in counts.items()}
        eventually(lambda: watch.stats() == expected)

    watch.jobs.insert_many([job(type=f"t{number % 3}") for number in range(30)])
    watch.jobs.insert_many([job(type=f"t{number % 5}") for number in range(70)])
    with collecting(watch.settings):
        await_counts(t0=24, t1=24, t2=24, rest=28)
        watch.jobs.delete_many({"type": "t1"})
        watch.jobs.insert_many([job(type="t9") for _ in range(7)])
        await_counts(t0=24, t2=24, rest=35)
    assert watch.rollups.checkpoints.count_documents({}) > 1
    monkeypatch.setattr(SegmentMap, "build", pytest.fail)
    with collecting(watch.settings):
        watch.jobs.delete_many({"type": {"$in": ["t0", "t3"]}})
        await_counts(t2=24, rest=21)
        watch.jobs.insert_many([job(type=f"t{number}") for number in range(4)])
        await_counts(t0=1, t2=25, rest=23)  # t1 was gone when this collector began


def test_a_lost_resume_token_leads_to_a_full_count(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    watch.jobs.insert_many([job() for _ in range(20)])
    with watch.jobs.watch() as changes:
        watch.jobs.insert_one(job())
        token = changes.next()["_id"]["_data"]
    watch.collect_once()
    lost = f"8200000001{token[10:]}"  # an event of 1970
    watch.rollups.state.update_one({"name": "checkpoint"}, {"$set": {"token._data": lost}})
    watch.jobs.delete_many({})
    watch.jobs.insert_many([job(status="dlq") for _ in range(7)])
    watch.collect_once()
    (line,) = (each for each in caplog.messages if "counting all jobs again" in each)
    assert line.endswith(": OperationFailure ChangeStreamFatalError")


def test_two_collectors_stay_right_when_one_ends(watch: Watch) -> None:
    stops = [threading.Event(), threading.Event()]
    threads = [
        threading.Thread(
            target=Collector(
                watch.connection, watch.rollups, stop, Share([watch.settings]), Redactor()
            ).run
        )
        for stop in stops
    ]
    for thread in threads:
        thread.start()
    watch.jobs.insert_many([job() for _ in range(100)])
    watch.await_right_counts()
    working = watch.rollups.state.find_one({"name": "stats"})["collector"]
    for stop, thread in zip(stops, threads, strict=True):
        stop.set()
        thread.join()
        watch.jobs.insert_one(job(status="leased"))
        if stop is stops[0]:
            watch.await_right_counts()
    assert working


def collector_process(watch: Watch) -> subprocess.Popen[bytes]:
    environment = dict(os.environ) | {
        "JOBMON_MONGO_URI": watch.settings.mongo_uri,
        "JOBMON_ROLLUP_DB": watch.settings.rollup_db,
        "JOBMON_JWT_SECRET_KEY": SECRET,
    }
    with open(os.devnull, "w") as nowhere:
        return start_python("jobmon.cli", "collector", env=environment, stderr=nowhere)


def test_a_collector_killed_at_any_moment_is_replaced_and_nothing_is_lost(watch: Watch) -> None:
    watch.jobs.insert_many([job() for _ in range(5_000)])
    with ExitStack() as running:
        first = collector_process(watch)
        running.callback(end_process, first, None)
        eventually(watch.rollups.leases.find_one)
        running.callback(end_process, collector_process(watch), None)
        for number in range(40):
            watch.jobs.update_many(
                {"jobId": {"$regex": f"^{number % 16:x}"}}, {"$set": {"type": "u"}}
            )
            if number == 20:
                first.kill()
        watch.await_right_counts()


def test_the_only_collector_killed_again_and_again_is_right_in_the_end(watch: Watch) -> None:
    create_indexes(watch.connection)
    state, buckets = watch.rollups.state, watch.rollups.buckets
    watch.jobs.insert_many([job() for _ in range(5_000)])
    moments: list[Callable[[], Any]] = [
        watch.rollups.leases.find_one,  # it has just begun
        lambda: state.find_one({"name": "stats"}),  # built, not saved
        lambda: state.find_one({"name": "checkpoint"}),  # saved
        lambda: state.find_one({"name": "stats"}) and buckets.find_one(),  # continued
    ]
    for number, moment in enumerate(moments):
        process = collector_process(watch)
        try:
            eventually(moment)
            watch.jobs.update_many({"jobId": {"$regex": f"^{number}"}}, {"$set": {"type": "u"}})
            watch.jobs.delete_many({"jobId": {"$regex": f"^{number}1"}})
        finally:
            end_process(process, None)
        watch.jobs.insert_many([job(status="dlq") for _ in range(10)])
        watch.rollups.leases.delete_many({})  # as if the lease had expired
        if number < 2:
            state.delete_one({"name": "stats"})
    enqueued = watch.jobs.count_documents({})
    with collecting(watch.settings):
        watch.await_right_counts()
        eventually(lambda: sum(counted["events"] for counted in buckets.find({"span": 86_400})))
        for span in (60, 600, 3_600, 21_600, 86_400):
            eventually(lambda span=span: count_enqueued(watch, span) >= enqueued)


def count_enqueued(watch: Watch, span: int) -> int:
    """The sum of enqueued jobs in the buckets of a span."""
    buckets = watch.rollups.buckets.find({"span": span})
    return sum(row["enqueued"] for bucket in buckets for row in bucket["types"])


def test_routes_agree_with_a_full_recount(
    collected: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_count, "COUNT_EXACTLY_UP_TO", 10)  # totals come from the rollup
    create_indexes(collected.connection)
    api = Api(create_app(collected.settings))
    kinds, statuses = ["email.send", "payout.execute", "a.b$c"], ["queued", "dlq", "odd"]
    for number in range(300):
        kind, status = kinds[number % 3], statuses[number // 3 % 3]
        collected.jobs.insert_one(job(type=kind, status=status))
    collected.jobs.update_many({"type": "a.b$c", "status": "dlq"}, {"$set": {"type": "email.send"}})
    collected.jobs.delete_many({"type": "payout.execute", "status": "odd"})
    collected.await_right_counts()
    truth = collected.truth()

    def count(status: str | None = None, kind: str | None = None) -> int:
        rows = truth.items()
        return sum(n for (s, k), n in rows if status in (None, s) and kind in (None, k))

    def agrees() -> bool:
        stats = api.get_as_admin("/admin/jobs/stats").json
        return stats["source"] == "rollup" and stats["totalJobs"] == count()

    eventually(agrees)
    stats = api.get_as_admin("/admin/jobs/stats").json
    known = {name: n for name, n in stats["statusCounts"].items() if n}
    assert known == {status: count(status) for status in statuses}
    assert stats["typeCounts"] == {
        kind: {status: count(status, kind) for status in statuses if count(status, kind)}
        for kind in kinds
    }
    types = api.get_as_admin("/admin/jobs/types").json["data"]
    assert {row["type"]: row["statusCounts"] for row in types} == stats["typeCounts"]
    for status in (None, *statuses):
        for kind in (None, *kinds):
            query = {name: value for name, value in (("status", status), ("type", kind)) if value}
            total = api.get_as_admin("/admin/jobs/queue", **query).json["meta"]["total"]
            assert total == collected.jobs.count_documents(query) == count(status, kind)
    api.app.extensions["jobmon_connection"].client.close()


def test_progress_of_a_first_count_is_in_the_log_and_in_readyz(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 10)
    monkeypatch.setattr(collector_module, "REPORT_BUILD_EVERY_S", 0)
    caplog.set_level("INFO", "jobmon.collector.collector")
    watch.jobs.insert_many([job() for _ in range(30)])
    api, count, go_on = Api(create_app(watch.settings)), SegmentMap._count, threading.Event()

    def count_when_allowed(self: SegmentMap, row: Any, low: Any, high: Any) -> Any:
        assert low is None or go_on.wait(PATIENCE_S)
        return count(self, row, low, high)

    monkeypatch.setattr(SegmentMap, "_count", count_when_allowed)
    with collecting(watch.settings):
        unready = {"isFresh": False, "build": {"counted": 10, "estimated": 30}}
        eventually(lambda: api.get("/readyz").json["checks"]["rollup"] == unready)
        assert api.get("/readyz").status_code == 200
        go_on.set()
        eventually(lambda: api.get("/readyz").json["checks"]["rollup"] == {"isFresh": True})
    api.app.extensions["jobmon_connection"].client.close()
    assert "first count: 10 of about 30 jobs" in caplog.messages


@pytest.mark.parametrize("seconds", [-30, 30])
def test_polling_finds_changes_of_a_writer_with_a_wrong_clock(
    watch: Watch, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.jobs.create_index("updatedAt")
    segments, stop = SegmentMap(watch.connection.jobs), threading.Event()
    stop.set()  # no pause between two polls
    watch.jobs.insert_many([job() for _ in range(10)])
    segments.build(lambda _: None)
    wrong = datetime.now(UTC) + timedelta(seconds=seconds)
    watch.jobs.update_many({}, {"$set": {"status": "dlq", "updatedAt": wrong}})
    monkeypatch.setattr(segments, "mark_next", lambda _: None)  # no sweep
    PolledChanges(watch.connection.jobs, stop).next_batch(segments)
    segments.recount()
    assert dict(segments.totals) == watch.truth()


def test_a_primary_that_steps_down_only_interrupts(
    make_settings: Callable[..., Settings], tmp_path: Path, mongod: Mongod
) -> None:
    with Mongod(tmp_path) as server, MongoClient(server.uri) as client:
        watch = Watch(client.shop, make_settings(mongo_uri=server.uri.replace("/?", "/shop?")))
        watch.jobs.insert_many([job() for _ in range(100)])
        with collecting(watch.settings):
            watch.await_right_counts()
            client.admin.command("replSetStepDown", 1, force=True)
            eventually(lambda: client.admin.command("hello")["isWritablePrimary"])
            watch.jobs.delete_many({})
            watch.jobs.insert_many([job(status="dlq") for _ in range(7)])
            watch.await_right_counts()
        watch.connection.client.close()


def test_a_standalone_server_is_polled_and_swept(
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    mongod: Mongod,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes_module, "SWEEP_S", 3.0)
    with Mongod(tmp_path, replica_set=None) as server, MongoClient(server.uri) as client:
        watch = Watch(client.shop, make_settings(mongo_uri=f"{server.uri}shop"))
        create_indexes(watch.connection)
        watch.jobs.insert_many([job() for _ in range(2_500)])
        with collecting(watch.settings):
            watch.await_right_counts()
            now = datetime.now(UTC)
            watch.jobs.update_many({}, {"$set": {"status": "dlq", "updatedAt": now}})
            watch.jobs.insert_one(job(updatedAt=now))
            watch.await_right_counts()
            watch.jobs.delete_many({"status": "dlq"})  # without a new updatedAt
            watch.await_right_counts()
        watch.connection.client.close()


def test_stale_stats_are_not_served(watch: Watch) -> None:
    watch.jobs.insert_one(job())
    watch.collect_once()
    watch.rollups.state.update_one({"name": "stats"}, {"$set": {"at": LONG_AGO}})
    eventually(lambda: watch.stats() is None)


def test_a_database_that_refuses_writes_is_still_read(
    collected: Watch, database: Database[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a service that fails, or shows old stats, when only writes are refused."""
    create_indexes(collected.connection)
    api = Api(create_app(collected.settings))
    collected.jobs.insert_many([job() for _ in range(3)])
    collected.await_right_counts()
    caplog.clear()
    full = {"failCommands": ["insert", "update", "delete", "findAndModify"], "appName": "jobmon"}
    failpoint = {"data": full | {"errorCode": 14_031}}  # OutOfDiskSpace
    admin = database.client.admin
    admin.command("configureFailPoint", "failCommand", mode="alwaysOn", **failpoint)
    try:
        collected.jobs.insert_many([job() for _ in range(4)])

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
    collected.await_right_counts()
    api.app.extensions["jobmon_connection"].client.close()


def test_a_failure_during_a_recount_loses_nothing(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 10)
    monkeypatch.setattr(segments_module, "SPLIT_ABOVE", 20)
    kept = SegmentMap(watch.connection.jobs)
    watch.jobs.insert_many([job(_id=number) for number in range(15)])
    kept.build(lambda _: None)
    watch.jobs.insert_many([job(_id=number) for number in range(15, 60)])
    for number in range(15, 60):
        kept.mark(number)
    count, calls = SegmentMap._count, 0

    def failing(self: SegmentMap, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise ConnectionError
        return count(self, *arguments)

    monkeypatch.setattr(SegmentMap, "_count", failing)
    for _ in range(20):
        try:
            kept.recount()
            break
        except ConnectionError:
            continue
    assert dict(kept.totals) == watch.truth()
    kept.mark(0)
    monkeypatch.setattr(SegmentMap, "_count", count)
    kept.recount()
    assert dict(kept.totals) == watch.truth()
