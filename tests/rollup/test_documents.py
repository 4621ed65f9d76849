"""jobmon's own documents on the real server.

Catches stats of another queue, a text of a watched document that becomes a key, and a document of
another version or program that stops the collector or breaks an answer.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import DocumentTooLarge

from jobmon.app import create_app
from jobmon.collector import collecting as collecting_module
from jobmon.collector import collector as collector_module
from jobmon.collector import share as share_module
from jobmon.collector.collecting import collecting
from jobmon.demo.mongod import Mongod
from jobmon.rollup import reader as reader_module
from jobmon.rollup.buckets import MINUTE
from jobmon.rollup.documents import FORMAT, OwnDatabase, require_type, rollup_database
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from jobmon.store.profiles import Profile
from jobmon.store.queue_key import queue_key

from ..conftest import NOW, Api
from ..support.commands import database_uri
from ..support.history import make_history_writer
from ..support.waiting import PATIENCE_S, eventually

Db = Database[dict[str, Any]]
LONG_AGO = NOW - timedelta(days=5_000)
ROUTES = ("/admin/jobs/stats", "/admin/jobs/timeseries", "/admin/jobs/types", "/metrics", "/readyz")


class Queue:
    """A watched queue, its service and its rollups."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.api = Api(create_app(settings))
        self.connection: Connection = self.api.app.extensions["jobmon_connection"]
        self.reader = RollupReader(self.connection)
        create_indexes(self.connection)

    @property
    def own(self) -> OwnDatabase:
        """The queue's documents in jobmon's own database."""
        return OwnDatabase(rollup_database(self.connection), self.connection.queue_key)

    @property
    def jobs(self) -> Any:
        return self.connection.jobs.collection

    def insert_jobs(self, job_type: str, count: int) -> None:
        now = datetime.now(UTC)
        self.jobs.insert_many(
            {"jobId": str(ObjectId()), "type": job_type, "status": "queued", "createdAt": now}
            for _ in range(count)
        )

    def read_counts(self) -> dict[str, int] | None:
        """Queued jobs by type from the collector's stats; None without stats."""
        stats = self.reader.stats()
        if stats is None or (by_type := stats.type_counts()) is None:
            return None
        return {job_type: counts.get("queued", 0) for job_type, counts in by_type.items()}

    def await_counts(self, **counts: int) -> None:
        eventually(lambda: self.read_counts() == counts)

    def read_statuses(self) -> list[int]:
        """The statuses of the answers of `ROUTES`."""
        return [self.api.get_as_admin(path).status_code for path in ROUTES]


@pytest.fixture
def make_queue(
    mongod: Mongod, database: Db, make_settings: Callable[..., Settings]
) -> Iterator[Callable[..., Queue]]:
    """A function that makes a queue, by default in `database`; all share one rollup database."""
    queues = []

    def make(database_name: str = database.name, **changes: Any) -> Queue:
        uri = database_uri(mongod, database_name)
        settings = make_settings(mongo_uri=uri, rollup_db=f"{database.name}_rollups", **changes)
        queues.append(Queue(settings))
        return queues[-1]

    yield make
    for queue in queues:
        queue.connection.client.close()


@pytest.mark.parametrize("difference", ["database", "collection", "mapping"])
def test_two_queues_in_one_rollup_database_have_separate_stats(
    make_queue: Callable[..., Queue], database: Db, difference: str
) -> None:
    """Catches stats or totals of the first queue in answers about the second queue."""
    first = make_queue()
    match difference:
        case "database":
            second = make_queue(f"{database.name}_b")
        case "collection":
            second = make_queue(jobs_collection="others")
        case _:
            second = make_queue(status_names={"queued": "dlq"})
    first.insert_jobs("a", 3)
    if difference != "mapping":
        second.insert_jobs("b", 2)
    expected = {"a": 0} if difference == "mapping" else {"b": 2}
    with collecting(first.settings):
        first.await_counts(a=3)
        assert second.read_counts() is None
        assert second.api.get_as_admin("/admin/jobs/stats").json["source"] == "live"
        assert second.api.get_as_admin("/admin/jobs/timeseries").json["meta"]["source"] == "live"
        assert RollupReader(second.connection).totals() is None
        with collecting(second.settings):  # each queue has its own leader
            second.await_counts(**expected)
            for queue in (first, second):
                eventually(lambda queue=queue: RollupReader(queue.connection).totals())
            assert first.read_counts() == {"a": 3}
            leaders = {RollupReader(queue.connection).leader() for queue in (first, second)}
            assert len(leaders - {None}) == 2
    first.own["state"].update_one({"name": "stats"}, {"$set": {"at": LONG_AGO}})
    with collecting(second.settings):  # while no collector of the first queue runs
        eventually(lambda: first.read_counts() is None)
        second.await_counts(**expected)
        assert first.read_counts() is None
        totals = RollupReader(second.connection).totals()
        assert totals is not None
        assert "a" not in totals.by_type or difference == "mapping"
    database.client.drop_database(f"{database.name}_b")


def test_overview_reads_the_groups_of_errors_and_the_gaps_once(
    make_queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches an overview that reads them again for each of its windows: a slow database delays it
    by each of these queries."""
    monkeypatch.setattr(reader_module, "CACHE_MS", 1_000 * PATIENCE_S)
    queue, names, read = make_queue(), list[str](), RollupReader._read

    def record_name(reader: RollupReader, name: str, *arguments: Any) -> Any:
        names.append(name)
        return read(reader, name, *arguments)

    with collecting(queue.settings):
        eventually(lambda: RollupReader(queue.connection).progress())
        monkeypatch.setattr(RollupReader, "_read", record_name)
        assert queue.api.get_as_admin("/dashboard").status_code == 200
        monkeypatch.setattr(RollupReader, "_read", read)
    assert (names.count("events"), names.count("errors")) == (1, 1)


def test_key_of_a_queue_changes_only_with_settings_that_change_its_jobs(
    make_settings: Callable[..., Settings],
) -> None:
    base = make_settings(job_fields={"type": "kind", "status": "state"}, status_names={"a": "dlq"})

    def make_key(deployment: str | None = "rs0", database: str = "shop", **changes: Any) -> str:
        settings = replace(base, **changes)
        return queue_key(deployment, database, settings, Profile.from_settings(settings))

    same_keys = [
        make_key(mongo_uri="mongodb://other:pw@elsewhere/shop"),
        make_key(job_fields={"status": "state", "type": "kind"}),
        make_key(job_fields={"type": "kind", "status": "state", "jobId": "jobId"}),
        make_key(rollup_db="x", stats_ttl_ms=9, jwt_secret_key=None),
    ]
    assert set(same_keys) == {make_key()}
    other_keys = [
        make_key(deployment=None),
        make_key(deployment="rs1"),
        make_key(database="shop2"),
        make_key(jobs_collection="tasks"),
        make_key(attempts_collection="tries"),
        make_key(profile="agenda"),
        make_key(job_fields={"type": "kind"}),
        make_key(status_names={"a": "failed"}),
        make_key(attempt_fields={"startedAt": "began"}),
        make_key(attempt_status_names={"ok": "succeeded"}),
        # A connection string of the queue's own: in two deployments, names may be the same.
        make_key(queue="production", uri_setting="PRODUCTION_URI"),
        make_key(queue="staging", uri_setting="`uri` of staging in JOBMON_QUEUES"),
    ]
    assert len({make_key(), *other_keys}) == 13
    assert make_key(queue="renamed") == make_key()
    assert make_key().startswith("shop.jobs#")


def rewrite_as_next_version(own: OwnDatabase, name: str) -> None:
    """Replace the documents of a collection by documents of an invented next version."""
    for document in list(own[name].find({"format": FORMAT})):
        rewritten = {**document, "format": FORMAT + 1, "added": {"by": ["the next version"]}}
        for field in ("counts", "types", "health", "countedAt", "openSince", "segments"):
            if field in rewritten:
                rewritten[field] = {"in": "another form"}
        own[name].replace_one({"_id": document["_id"]}, rewritten)


COLLECTIONS = ("state", "buckets", "samples", "checkpoints")


def test_web_service_works_with_documents_of_a_newer_collector(
    make_queue: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    """Catches an older service that misreads a newer document, or logs it again at each read."""
    queue = make_queue()
    queue.insert_jobs("a", 3)
    with collecting(queue.settings):
        queue.await_counts(a=3)
        eventually(lambda: RollupReader(queue.connection).totals())
    for name in COLLECTIONS:
        rewrite_as_next_version(queue.own, name)
    formats: list[Any] = [FORMAT + 1, None, "1", 1.5, {"a": 1}]
    for format_ in formats:
        for name in COLLECTIONS:
            queue.own[name].update_many({}, {"$set": {"format": format_}})
        new_dates = {"$set": {"at": datetime.now(UTC), "countedAt": datetime.now(UTC)}}
        queue.own["state"].update_many({}, new_dates)
        caplog.clear()
        api = queue.api = Api(create_app(queue.settings))
        for _ in range(3):
            assert queue.read_statuses() == [200] * len(ROUTES), format_
        assert api.get_as_admin("/admin/jobs/stats").json["source"] == "live", format_
        lines = [line for line in caplog.messages if "in jobmon's own database" in line]
        assert len(lines) == len(set(lines)) > 0, format_
        assert "ERROR" not in {record.levelname for record in caplog.records}
        api.app.extensions["jobmon_connection"].client.close()


def test_document_of_another_format_is_skipped_even_if_its_fields_are_valid(
    make_queue: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a reader that checks only the types of fields, which may have another meaning."""
    queue = make_queue()
    queue.insert_jobs("a", 3)
    with collecting(queue.settings):
        queue.await_counts(a=3)
    change = {"$set": {"format": FORMAT + 1, "at": datetime.now(UTC)}}
    assert queue.own["state"].update_one({"name": "stats"}, change).matched_count
    eventually(lambda: queue.read_counts() is None)
    assert queue.reader.stats_age_s() is None
    skipped = f"skipped: format {FORMAT + 1}, this version reads {FORMAT}"
    assert [skipped in line for line in caplog.messages if "own database" in line] == [True]


def test_collector_works_with_documents_of_the_next_version(
    make_queue: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a collector that fails when an upgrade is reverted."""
    queue = make_queue()
    queue.insert_jobs("a", 3)
    with collecting(queue.settings):
        queue.await_counts(a=3)
        eventually(lambda: RollupReader(queue.connection).totals())
    for name in COLLECTIONS:
        rewrite_as_next_version(queue.own, name)
    new_document = {"_id": "next", "queue": queue.own.queue, "format": FORMAT + 1}
    for name in COLLECTIONS:
        queue.own[name].insert_one({**new_document, "span": 60, "at": datetime.now(UTC)})
    with collecting(queue.settings) as failed:
        queue.await_counts(a=3)
        eventually(lambda: RollupReader(queue.connection).totals())
        assert not failed.is_set()
        assert queue.read_statuses() == [200] * len(ROUTES)
    for name in COLLECTIONS:
        assert queue.own[name].count_documents({"_id": "next"}) == 1


def test_unknown_fields_are_ignored(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue()
    queue.insert_jobs("a", 3)
    with collecting(queue.settings):
        queue.await_counts(a=3)
    change = {"$set": {"health.more": 1, "more": {"a.b": 1}, "at": datetime.now(UTC)}}
    queue.own["state"].update_one({"name": "stats"}, change)
    assert queue.read_counts() == {"a": 3}
    assert queue.read_statuses() == [200] * len(ROUTES)


# Paths in the documents of `state`, each with a value of a wrong form.
BROKEN_FIELDS: list[tuple[str, Any]] = [
    ("counts", None),
    ("counts", [["queued", "a"]]),
    ("counts", [["queued", "a", "3"]]),
    ("counts", [[["queued"], "a", 3]]),
    ("health", None),
    ("health", {}),
    ("health.due", "many"),
    ("health.oldestQueued", 7),
    ("health.oldestQueuedByType", {"a": 1}),
    ("asOf", "now"),
    ("at", "now"),
    ("countedAt", 7),
    ("completeUntil", "yesterday"),
    ("openSince", None),
    ("closed", 7),
    ("totals", [{"type": 7}]),
    ("version", "x"),
]


def test_all_routes_answer_200_if_a_document_is_broken(make_queue: Callable[..., Queue]) -> None:
    queue = make_queue()
    queue.insert_jobs("a", 3)
    with collecting(queue.settings):
        queue.await_counts(a=3)
        eventually(lambda: RollupReader(queue.connection).totals())
        eventually(lambda: queue.own["state"].find_one({"completeUntil": {"$ne": None}}))
    state = queue.own["state"]
    valid_documents = list(state.find())
    for path, value in BROKEN_FIELDS:
        now = datetime.now(UTC)
        for document in valid_documents:
            dates = {name: now for name in ("at", "countedAt") if name in document}
            state.replace_one({"_id": document["_id"]}, document | dates)
        change = {"$set": {path: value}}
        result = state.update_many({path.partition(".")[0]: {"$exists": True}}, change)
        assert result.matched_count, path
        queue.api = Api(create_app(queue.settings))
        assert queue.read_statuses() == [200] * len(ROUTES), (path, value)
        queue.api.app.extensions["jobmon_connection"].client.close()


def test_documents_of_other_programs_do_not_stop_the_history(
    make_queue: Callable[..., Queue], caplog: pytest.LogCaptureFixture
) -> None:
    """Catches a document that ends the history thread of a collector that still looks healthy."""
    queue = make_queue()
    queue.insert_jobs("a", 3)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    broken_documents: list[dict[str, Any]] = [
        {"span": 60, "at": now},
        {"span": 60, "at": now, "types": "none"},
        {"span": 3_600, "at": now.replace(minute=0), "types": [{"type": "a"}]},
        {"span": 600, "at": now, "types": [{"type": "a", "enqueued": "many"}]},
    ]
    for scope in ({}, queue.own.scope, {"queue": queue.own.queue, "format": 99}):
        queue.own["buckets"].insert_many({**document, **scope} for document in broken_documents)
        queue.own["samples"].insert_many({**document, **scope} for document in broken_documents)
        queue.own["state"].insert_one({**scope, "odd": True})
    with collecting(queue.settings) as failed:
        queue.await_counts(a=3)

        def count_enqueued() -> int:
            steps = queue.api.get_as_admin("/admin/jobs/timeseries").json
            enqueued = sum(step["enqueued"] or 0 for step in steps["data"])
            return enqueued if steps["meta"]["source"] == "rollup" else 0

        eventually(lambda: count_enqueued() == 3)
        eventually(lambda: RollupReader(queue.connection).totals())
        assert not failed.is_set()
    assert any("buckets in jobmon's own database: skipped" in line for line in caplog.messages)


def test_retention_deletes_no_document_of_another_queue(make_queue: Callable[..., Queue]) -> None:
    first, second = make_queue(), make_queue(jobs_collection="others")
    for own in (first.own, second.own):
        own["buckets"].insert_one(own.new("old", {"span": 60, "at": LONG_AGO, "types": []}))
        own["checkpoints"].insert_one(own.new("old", {"version": "x", "number": 0}))
    first.own["buckets"].insert_one({"_id": "no queue", "span": 60, "at": LONG_AGO})
    make_history_writer(first.connection)._delete_expired(datetime.now(UTC))
    with collecting(first.settings):
        eventually(lambda: first.own["state"].find_one({"name": "checkpoint"}))
    for name in ("buckets", "checkpoints"):
        eventually(
            lambda name=name: first.own[name].count_documents({"_id": first.own.id("old")}) == 0
        )
        assert first.own[name].count_documents({"_id": second.own.id("old")}) == 1
    assert first.own["buckets"].count_documents({"_id": "no queue"}) == 1


ODD_TEXTS = ["a\0b", "a.b", "$a", "", "é\ufffd", "x" * 1_000_000, "(other)", "__proto__", "_id"]


def iter_keys(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for key, inner in value.items():
                yield key
                yield from iter_keys(inner)
        case list():
            for inner in value:
                yield from iter_keys(inner)


def test_text_of_a_watched_document_never_becomes_a_key_or_stops_the_collector(
    make_queue: Callable[..., Queue],
) -> None:
    queue = make_queue()
    now = datetime.now(UTC)
    past = now - timedelta(minutes=15)
    for status in ("queued", "dlq", "leased", *ODD_TEXTS):
        for job_type in (*ODD_TEXTS, None, 7, {"a": 1}, ["$x"]):
            job = {"jobId": str(ObjectId()), "type": job_type, "status": status}
            dates = {"createdAt": past, "nextRunAt": past, "leaseExpiresAt": past}
            queue.jobs.insert_one({**job, **dates, "finishedAt": now})
    for text in ODD_TEXTS:
        job_id = str(ObjectId())
        queue.jobs.insert_one({"jobId": job_id, "type": text, "status": text, "createdAt": past})
        queue.connection.attempts.collection.insert_one(  # type: ignore[union-attr]
            {"jobId": job_id, "attemptNumber": 1, "status": text, "startedAt": past}
            | {"finishedAt": now}
        )
    total = queue.jobs.count_documents({})
    with collecting(queue.settings) as failed:
        eventually(lambda: (queue.read_counts() or {}).get("a\0b"))
        eventually(lambda: RollupReader(queue.connection).totals())
        stats = queue.api.get_as_admin("/admin/jobs/stats").json
        assert (stats["source"], stats["totalJobs"]) == ("rollup", total)
        assert stats["typeCounts"]["a\0b"]["queued"] == 1
        assert "a\0b" in stats["oldestQueuedJobAgeMsByType"]
        assert queue.read_statuses() == [200] * len(ROUTES)
        assert not failed.is_set()
    for name in (*COLLECTIONS, "leases"):
        for document in queue.own[name].find():
            stored_texts = {*ODD_TEXTS, "queued", "succeeded", "7"} - {"_id"}
            assert not stored_texts & set(iter_keys(document))


def test_document_that_cannot_be_written_is_logged_with_the_reason(
    make_queue: Callable[..., Queue],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Catches stats that are no longer written because another document cannot be stored."""
    queue = make_queue()
    queue.insert_jobs("a", 3)
    monkeypatch.setattr(collector_module, "SAMPLE_EVERY_S", 0.0)
    monkeypatch.setattr("jobmon.collector.samples.SPANS", (MINUTE,))
    dump = collector_module.QueueStats.status_counts
    monkeypatch.setattr(
        collector_module.QueueStats, "status_counts", lambda self: {**dump(self), "x": 2**80}
    )
    with collecting(queue.settings) as failed:
        queue.await_counts(a=3)
        eventually(lambda: "samples in jobmon's own database: not written" in caplog.text)
        queue.insert_jobs("b", 2)
        queue.await_counts(a=3, b=2)
        assert not failed.is_set()
    assert "larger than" not in caplog.text
    assert caplog.text.count("samples in jobmon's own database: not written") == 1
    own = queue.own

    def fail() -> None:
        raise DocumentTooLarge("BSON document too large")

    assert not own.write("stats", fail)
    assert "stats in jobmon's own database: not written: it is larger" in caplog.text


def test_documents_are_stored_even_if_others_cannot_be_stored(
    database: Db, caplog: pytest.LogCaptureFixture
) -> None:
    own = OwnDatabase(database, "q")
    contents: dict[str, Any] = {"a": 1, "large": "x" * 17_000_000, "huge": 2**80, "b": 2}
    documents = [own.new(name, {"value": value}) for name, value in contents.items()]
    assert own.replace("buckets", documents)
    assert {document["name"] for document in own["buckets"].find()} == {"a", "b"}
    assert not own.replace("buckets", documents[1:3])
    assert len([line for line in caplog.messages if "not written" in line]) == 2


@pytest.mark.parametrize("thread", ["counts", "history"])
def test_unexpected_exception_in_a_thread_is_logged_with_its_stack(
    make_queue: Callable[..., Queue],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    thread: str,
) -> None:
    """Catches a collector that looks healthy without one of its threads.

    Also catches a failed collector that keeps its lease until its history thread stops waiting.
    """
    queue = make_queue()
    for module, timeout in ((share_module, "STATS_FIRST_S"), (collector_module, "STOP_TIMEOUT_S")):
        monkeypatch.setattr(module, timeout, 2.0 * PATIENCE_S)

    def fail(*_: Any, **__: Any) -> Any:
        raise KeyError("raised by the test")

    if thread == "counts":
        monkeypatch.setattr(collector_module.SegmentMap, "recount", fail)
    else:
        monkeypatch.setattr(collector_module.HistoryWriter, "_count_young", fail)
    reported = threading.Event()
    with collecting(queue.settings, reported.set) as failed:
        assert reported.wait(PATIENCE_S)
        assert failed.is_set()
    (record,) = [line for line in caplog.records if line.message == "the collector failed"]
    assert record.exc_info is not None
    assert "raised by the test" in caplog.text
    assert RollupReader(queue.connection).leader() is None  # the next collector can start


def test_failed_collector_in_a_web_process_starts_again(
    make_queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make_queue()
    queue.insert_jobs("a", 3)
    monkeypatch.setattr(collecting_module, "RESTART_AFTER_S", 0.0)
    with monkeypatch.context() as patch:

        def fail(*_: Any, **__: Any) -> Any:
            patch.undo()
            raise RuntimeError("once")

        patch.setattr(collector_module.SegmentMap, "recount", fail)
        with collecting(queue.settings) as failed:
            assert failed.wait(PATIENCE_S)
            queue.await_counts(a=3)
            ready = queue.api.get("/readyz").json["checks"]["rollup"]
            assert ready == {"isFresh": True, "failure": "RuntimeError"}


@pytest.mark.parametrize("value", [True, 1.0, "1", None, []])
def test_require_type_accepts_no_other_type_as_an_int(value: Any) -> None:
    assert require_type(1, int) == 1
    with pytest.raises(ValueError, match="instead of int"):
        require_type(value, int)
