"""The collector on a real replica set: would catch a count that is lost, doubled or stale, after
any change to the jobs and any fault of the collector or its database."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import Binary, Decimal128, ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.embedded import Mongod
from jobmon.rollup import collector as collector_module
from jobmon.rollup import segments as segments_module
from jobmon.rollup.collector import Collector, Lease, collecting
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.segments import SegmentMap
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.indexes import create_indexes
from jobmon.store.plain import text

from ..conftest import SECRET
from ..waiting import eventually

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
WITHIN_S = 2  # what is promised after the last change
Counts = dict[tuple[str, str], int]


class Watch:
    """A watched database, a collector over it, and what the web service would read."""

    def __init__(self, database: Database[dict[str, Any]], given: Settings) -> None:
        self.jobs = database.jobs
        self.settings = replace(given, rollup_db=f"{database.name}_rollups")
        self.connection = Connection(self.settings)
        self.rollups = self.connection.rollups
        self.reader = RollupReader(self.connection)

    def truth(self) -> Counts:
        counts: Counter[tuple[str, str]] = Counter()
        for job in self.jobs.find({}, {"status": 1, "type": 1}):
            counts[text(job.get("status")), text(job.get("type"))] += 1
        return dict(counts)

    def figures(self) -> Counts | None:
        figures = self.reader.figures()
        return None if figures is None else dict(figures.counts or {})

    def becomes_right(self, within_s: float = WITHIN_S) -> None:
        truth = self.truth()
        eventually(lambda: self.figures() == truth, within_s)


@pytest.fixture
def watch(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[Watch]:
    watch = Watch(database, make_settings(mongo_uri=mongod.uri.replace("/?", f"/{database.name}?")))
    yield watch
    database.client.drop_database(watch.rollups.name)
    watch.connection.client.close()


@pytest.fixture
def collected(watch: Watch) -> Iterator[Watch]:
    with collecting(watch.settings):
        eventually(lambda: watch.figures() is not None)
        yield watch


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
        case "odd", _:
            jobs.insert_one({"status": ["queued"], "type": {"a": 1}})
            jobs.insert_one({"_id": Decimal128(str(time.time_ns())), "status": None})


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=CHANGES)
def test_any_changes_leave_the_figures_equal_to_a_recount(
    collected: Watch, changes: list[tuple[str, Any]]
) -> None:
    for change in changes:
        apply(collected, change)
    collected.becomes_right()


def test_many_jobs_are_split_into_segments_and_merged_again(collected: Watch) -> None:
    collected.jobs.insert_many([job(_id=number) for number in range(9_000)])
    collected.jobs.insert_many([job(type=f"t{number % 8}") for number in range(9_000)])
    collected.becomes_right()
    collected.jobs.update_many({"type": "t3"}, {"$set": {"status": "succeeded"}})
    collected.becomes_right()
    collected.jobs.delete_many({"_id": {"$gte": 100, "$lt": 8_900}})
    collected.becomes_right()


def test_a_job_that_expires_by_ttl_is_no_longer_counted(collected: Watch) -> None:
    collected.jobs.create_index("finishedAt", expireAfterSeconds=0)
    collected.jobs.insert_many([job(finishedAt=LONG_AGO), job()])
    eventually(lambda: collected.jobs.count_documents({}) == 1)
    collected.becomes_right()


def test_the_collection_dropped_and_refilled_is_counted_anew(collected: Watch) -> None:
    collected.jobs.insert_many([job() for _ in range(50)])
    collected.becomes_right()
    collected.jobs.drop()
    collected.becomes_right(within_s=5)
    collected.jobs.insert_many([job(status="dlq") for _ in range(30)])
    collected.becomes_right(within_s=5)


def test_the_rollup_database_dropped_is_written_again(collected: Watch) -> None:
    collected.jobs.insert_many([job() for _ in range(50)])
    collected.becomes_right()
    collected.rollups.client.drop_database(collected.rollups.name)
    collected.jobs.insert_one(job(status="leased"))
    collected.becomes_right(within_s=5)


def test_a_restart_goes_on_from_what_was_saved_and_sees_what_happened_meanwhile(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.jobs.insert_many([job() for _ in range(3_000)])
    with collecting(watch.settings):
        watch.becomes_right(within_s=10)
    watch.jobs.update_many(
        {},
        {"$set": {"status": "succeeded"}},
    )
    watch.jobs.insert_many([job() for _ in range(10)])
    monkeypatch.setattr(SegmentMap, "build", pytest.fail)
    with collecting(watch.settings):
        watch.becomes_right(within_s=10)


def test_a_history_that_is_lost_means_counting_anew(watch: Watch) -> None:
    watch.jobs.insert_many([job() for _ in range(20)])
    with collecting(watch.settings):
        watch.becomes_right(within_s=10)
    token = watch.rollups.state.find_one({"_id": "snapshot"})["token"]
    watch.rollups.state.update_one(
        {"_id": "snapshot"}, {"$set": {"token._data": "8200000001" + token["_data"][10:]}}
    )
    watch.jobs.delete_many({})
    watch.jobs.insert_many([job(status="dlq") for _ in range(7)])
    with collecting(watch.settings):
        watch.becomes_right(within_s=10)


def test_one_collector_works_and_another_takes_over(watch: Watch) -> None:
    first, second = Lease(watch.rollups), Lease(watch.rollups)
    assert first.take()
    assert not second.take()
    assert first.take()
    watch.rollups.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    assert second.take()
    assert not first.take()
    second.give_up()
    assert first.take()


def test_two_collectors_side_by_side_stay_right_when_one_ends(watch: Watch) -> None:
    stops = [threading.Event(), threading.Event()]
    threads = [
        threading.Thread(target=Collector(watch.connection, watch.rollups, stop).run)
        for stop in stops
    ]
    for thread in threads:
        thread.start()
    watch.jobs.insert_many([job() for _ in range(100)])
    watch.becomes_right(within_s=10)
    working = watch.rollups.state.find_one({"_id": "figures"})["collector"]
    for stop, thread in zip(stops, threads, strict=True):
        stop.set()
        thread.join()
        watch.jobs.insert_one(job(status="leased"))
        if stop is stops[0]:
            watch.becomes_right(within_s=15)
    assert working


def collector_process(watch: Watch) -> subprocess.Popen[bytes]:
    environment = dict(os.environ) | {
        "JOBMON_MONGO_URI": watch.settings.mongo_uri,
        "JOBMON_ROLLUP_DB": watch.settings.rollup_db,
        "JOBMON_JWT_SECRET_KEY": SECRET,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "jobmon.cli", "collector"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )


def test_a_collector_killed_at_any_moment_is_replaced_and_nothing_is_lost(watch: Watch) -> None:
    watch.jobs.insert_many([job() for _ in range(5_000)])
    first = collector_process(watch)
    eventually(watch.rollups.leases.find_one)
    second = collector_process(watch)
    try:
        for number in range(40):
            watch.jobs.update_many(
                {"jobId": {"$regex": f"^{number % 16:x}"}}, {"$set": {"type": "u"}}
            )
            if number == 20:
                first.kill()
        watch.becomes_right(within_s=15)
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


def test_a_primary_that_steps_down_only_interrupts(
    make_settings: Callable[..., Settings], tmp_path: Path, mongod: Mongod
) -> None:
    with Mongod(tmp_path) as server, MongoClient(server.uri) as client:
        watch = Watch(client.shop, make_settings(mongo_uri=server.uri.replace("/?", "/shop?")))
        watch.jobs.insert_many([job() for _ in range(100)])
        with collecting(watch.settings):
            watch.becomes_right(within_s=10)
            client.admin.command("replSetStepDown", 1, force=True)
            eventually(lambda: client.admin.command("hello")["isWritablePrimary"])
            watch.jobs.delete_many({})
            watch.jobs.insert_many([job(status="dlq") for _ in range(7)])
            watch.becomes_right(within_s=15)
        watch.connection.client.close()


def test_a_standalone_server_is_polled_and_swept(
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    mongod: Mongod,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector_module, "SWEEP_S", 3.0)
    with Mongod(tmp_path, replica_set=None) as server, MongoClient(server.uri) as client:
        watch = Watch(client.shop, make_settings(mongo_uri=f"{server.uri}shop"))
        create_indexes(watch.connection)
        watch.jobs.insert_many([job() for _ in range(2_500)])
        with collecting(watch.settings):
            watch.becomes_right(within_s=10)
            now = datetime.now(UTC)
            watch.jobs.update_many({}, {"$set": {"status": "dlq", "updatedAt": now}})
            watch.jobs.insert_one(job(updatedAt=now))
            watch.becomes_right()
            watch.jobs.delete_many({"status": "dlq"})  # nothing tells of this
            watch.becomes_right(within_s=8)
        watch.connection.client.close()


def test_stale_figures_are_not_served(watch: Watch) -> None:
    watch.jobs.insert_one(job())
    with collecting(watch.settings):
        watch.becomes_right(within_s=10)
    watch.rollups.state.update_one({"_id": "figures"}, {"$set": {"at": LONG_AGO}})
    eventually(lambda: watch.figures() is None)


def test_a_failure_in_mid_recount_loses_nothing(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 10)
    monkeypatch.setattr(segments_module, "SPLIT_ABOVE", 20)
    kept = SegmentMap(watch.jobs, 5_000)
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
