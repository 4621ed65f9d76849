"""The collector: follows what changes in the watched jobs and keeps the rollup right.

One works, others wait: a lease in the rollup database says which. It reads the watched database
and writes to its own only. What it knows of single segments it keeps in memory and saves once a
minute; the figures that the web service reads are one small document, written as they change.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from jobmon.rollup.changes import Changes, StreamLostError, open_changes
from jobmon.rollup.counters import Counters
from jobmon.rollup.documents import OwnDatabase, connect_as_writer, rollup_database, typed
from jobmon.rollup.leader import LeaderLease, LeaseLostError
from jobmon.rollup.reader import BUILD, CHECKPOINT, FAILURE, FIGURES
from jobmon.rollup.samples import QueueSample, QueueSamples
from jobmon.rollup.segments import SegmentMap
from jobmon.rollup.stats_document import dump_stats
from jobmon.rollup.throughput import STATE, Throughput, retention
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.failures import name_error
from jobmon.store.live_stats import LiveStats
from jobmon.store.mapping import Document
from jobmon.store.stats import QueueHealth, QueueStats

log = logging.getLogger(__name__)

WRITE_AT_LEAST_EVERY_S = 2.0
SNAPSHOT_EVERY_S = 60.0
SAMPLE_EVERY_S = 10.0
RENAME_AFTER_S = 3_600.0
SAY_EVERY_S = 1.0  # how far a first build is
# Rest this many times as long as a look at the health took: a large backlog costs its count.
HEALTH_REST = 20
_RETRY_AFTER_S = 1.0
RESTART_AFTER_S, MAX_RESTART_AFTER_S = 2.0, 60.0  # after an unexpected exception
_STOP_TIMEOUT_S = 10
_SEGMENTS_A_DOCUMENT = 100
_COUNTS_A_DOCUMENT = 10_000  # of a status and a type, with names of 200 characters

CHECKPOINTS = "snapshots"


class _StoppedError(Exception):
    """Asked to stop in the middle of a first build."""


def _parts(segments: list[Document]) -> Iterator[list[Document]]:
    """As many as a document has room for, one after another."""
    part: list[Document] = []
    room = _COUNTS_A_DOCUMENT
    for segment in segments:
        room -= len(segment["counts"])
        if part and (room < 0 or len(part) == _SEGMENTS_A_DOCUMENT):
            yield part
            part, room = [], _COUNTS_A_DOCUMENT - len(segment["counts"])
        part.append(segment)
    yield part


class RepeatedErrorLog:
    """What keeps somebody waiting: logged once, not once a second, until it is over."""

    def __init__(self, level: int, who_waits: str) -> None:
        self._level = level
        self._who_waits = who_waits
        self._logged = ""

    def log(self, error: Exception) -> None:
        in_short = _in_short(error)
        if in_short != self._logged:
            log.log(self._level, "%s, %s", self._who_waits, in_short)
        self._logged = in_short

    def is_over(self) -> None:
        self._logged = ""


def _in_short(error: Exception) -> str:
    if isinstance(error, OperationFailure):
        return f"the database refuses: {name_error(error)}"
    return f"the database is away: {type(error).__name__}"


class Collector:
    """Keeps the rollup right until `stop` is set, also through times without a database."""

    def __init__(
        self, connection: Connection, rollups: Database[Document], stop: threading.Event
    ) -> None:
        self._connection = connection
        self._rollups = rollups
        self._stop = stop
        self._live_stats = LiveStats(connection)
        self._health: QueueHealth | None = None
        self._look_again_at = 0.0
        self._sample_at = 0.0
        self._failure: Exception | None = None  # of another thread

    def run(self) -> None:
        """Wait for the lease, work while holding it, give it back in the end.

        A database that is away or refuses is waited for; any other exception, of this thread or of
        the one that counts the history, is raised.
        """
        trouble = RepeatedErrorLog(logging.ERROR, "the collector waits")
        while not self._stop.is_set():
            try:
                self._open()
                if self._lease.take():
                    log.info("collecting as %s for %s", self._lease.holder, self._own.queue)
                    trouble.is_over()
                    with suppress(_StoppedError):
                        self._work()
                    self._lease.give_up()
            except LeaseLostError:
                log.warning("the lease is lost; another collector may have it")
            except PyMongoError as error:
                trouble.log(error)
            except Exception:
                with suppress(PyMongoError):
                    self._lease.give_up()
                raise
            self._stop.wait(_RETRY_AFTER_S)

    def _open(self) -> None:
        """Learn which queue is watched, which needs the database, and what belongs to it."""
        if not hasattr(self, "_own"):
            self._own = OwnDatabase(self._rollups, self._connection.queue_key)
            self._lease = LeaderLease(self._own)
            self._gauges = QueueSamples(self._own, retention(self._connection.settings))

    def _work(self) -> None:
        with self._counting_throughput():
            segments, changes = self._resume() or self._build()
            try:
                while not self._stop.is_set():
                    try:
                        self._follow(segments, changes)
                    except StreamLostError as error:
                        log.warning("counting anew, the change stream ended: %s", error)
                    if not self._stop.is_set():
                        changes.close()
                        segments, changes = self._build()
            finally:
                changes.close()

    @contextmanager
    def _counting_throughput(self) -> Iterator[None]:
        """Count the history in a thread of its own: counting a busy hour may take seconds."""
        stop = threading.Event()
        counters = Counters(self._own)
        trouble = RepeatedErrorLog(logging.WARNING, "throughput waits")

        def looked(now: datetime, settled: bool) -> None:
            counters.look(now, settled=settled)
            trouble.is_over()

        def count() -> None:
            while not stop.is_set():
                try:
                    Throughput(self._connection, self._own, looked).run(stop)
                except PyMongoError as error:
                    trouble.log(error)
                    stop.wait(_RETRY_AFTER_S)
                except Exception as error:  # noqa: BLE001 - the main thread raises it
                    self._failure = error
                    return

        thread = threading.Thread(target=count, name="throughput", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(_STOP_TIMEOUT_S)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _follow(self, segments: SegmentMap, changes: Changes) -> None:
        """Turn changes into figures until stopped, or until there are names again for types that
        are told together: then all has to be counted anew."""
        saved_at = time.monotonic()
        written_at = -WRITE_AT_LEAST_EVERY_S
        unsaved = False
        rename_at = saved_at + RENAME_AFTER_S
        while not self._stop.is_set():
            as_of, at = datetime.now(UTC), self._database_time()
            changes.next_batch(segments)
            self._lease.keep()
            self._raise_failure()
            changed = segments.recount() > 0
            now = time.monotonic()
            if changed or now > written_at + WRITE_AT_LEAST_EVERY_S:
                self._write(segments, as_of, at)
                written_at = now
            unsaved = unsaved or changed
            if unsaved and now > saved_at + SNAPSHOT_EVERY_S:
                self._save(segments, changes.token)
                saved_at, unsaved = now, False
            if now > rename_at and segments.has_names_left:
                log.info("counting anew, for there are names for all types again")
                return
        self._save(segments, changes.token)

    def _build(self) -> tuple[SegmentMap, Changes]:
        """Count everything, with the changes meanwhile waiting in the stream."""
        jobs = self._connection.jobs
        changes = open_changes(jobs, None, self._stop)
        segments = SegmentMap(jobs)
        estimated = jobs.estimated_count()
        started = said_at = time.monotonic()

        def progress(counted: int) -> None:
            nonlocal said_at
            self._lease.keep()
            self._raise_failure()
            if self._stop.is_set():
                raise _StoppedError
            if time.monotonic() >= said_at + SAY_EVERY_S:
                said_at = time.monotonic()
                log.info("first build: %d of about %d jobs counted", counted, estimated)
                self._put(BUILD, {"counted": counted, "estimated": estimated})

        try:
            segments.build(progress)
        except BaseException:
            changes.close()
            raise
        log.info("built: %d jobs in %.1f s", segments.totals.total(), time.monotonic() - started)
        self._own[STATE].delete_one({"_id": self._own.id(BUILD)})
        self._save(segments, changes.token)
        return segments, changes

    def _database_time(self) -> datetime:
        """By the clock that tells readers how old the figures are."""
        now: datetime = self._rollups.client.admin.command("hello")["localTime"]
        return now

    def _write(self, segments: SegmentMap, as_of: datetime, at: datetime) -> None:
        """Write the figures, true of `as_of`, which is `at` by the database's own clock.

        Not of now: what came since then is not counted, however long the database was silent.
        """
        health = self._look_at_health(segments, as_of)
        figures = dump_stats(segments.totals, health, as_of)
        self._put(FIGURES, {**figures, "collector": self._lease.holder}, at)
        if time.monotonic() >= self._sample_at:
            self._sample_at = time.monotonic() + SAMPLE_EVERY_S
            counted = QueueStats(
                as_of=as_of,
                source="rollup",
                counts=segments.totals,
                total=segments.totals.total(),
                health=health,
            )
            gauge = QueueSample(
                status_counts=counted.status_counts() or {},
                oldest_queued_ms=counted.oldest_queued_age_ms(),
            )
            self._gauges.sample(as_of, gauge)

    def _look_at_health(self, segments: SegmentMap, as_of: datetime) -> QueueHealth:
        """What has to be asked the jobs themselves; the longer it takes, the less often."""
        started = time.monotonic()
        if self._health is None or started >= self._look_again_at:
            self._health = self._live_stats.health(segments.totals, as_of)
            took_s = time.monotonic() - started
            self._look_again_at = started + took_s * HEALTH_REST
        return self._health

    def _put(self, name: str, fields: Document, at: datetime | str = "$$NOW") -> None:
        """Write a document of the state, with the time by the database's own clock."""
        document = self._own.new(name, fields)
        stages: list[Document] = [{"$replaceWith": {"$literal": document}}, {"$set": {"at": at}}]
        self._own.write(
            name,
            lambda: self._own[STATE].update_one({"_id": document["_id"]}, stages, upsert=True),
        )

    def _save(self, segments: SegmentMap, token: Document | None) -> None:
        """Keep the segments for the next start; what is there counts only once it is complete."""
        version = uuid.uuid4().hex
        snapshots = self._own[CHECKPOINTS]
        snapshots.create_index(self._own.index("version"))
        parts = list(_parts(segments.dump()))
        for number, part in enumerate(parts):
            fields = {"version": version, "number": number, "segments": part}
            document = self._own.new(f"{version}:{number}", fields)
            if not self._own.write(CHECKPOINTS, partial(snapshots.insert_one, document)):
                return
        self._put(CHECKPOINT, {"version": version, "parts": len(parts), "token": token})
        snapshots.delete_many({**self._own.scope, "version": {"$ne": version}})

    def _resume(self) -> tuple[SegmentMap, Changes] | None:
        """Go on where the last collector saved; None if there is nothing to go on from."""
        found = [self._own[STATE].find_one({"_id": self._own.id(CHECKPOINT)})]
        snapshot = next(self._own.read(CHECKPOINT, found, _load_checkpoint), None)
        if snapshot is None or not snapshot.token:
            return None
        jobs = self._connection.jobs
        segments = SegmentMap(jobs)
        saved = self._own[CHECKPOINTS].find({**self._own.scope, "version": snapshot.version})
        parts = list(self._own.read(CHECKPOINTS, saved.sort("number"), _load_part))
        if len(parts) != snapshot.parts:
            log.warning("counting anew, what was saved is not complete, or not of this version")
            return None
        try:
            segments.load(segment for part in parts for segment in part)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("counting anew, what was saved cannot be read: %s", type(error).__name__)
            return None
        try:
            return segments, open_changes(jobs, snapshot.token, self._stop)
        except StreamLostError as error:
            log.warning("counting anew, the change stream cannot be resumed: %s", error)
            return None


@dataclass(frozen=True)
class _Checkpoint:
    version: str
    parts: int
    token: Document | None


def _load_checkpoint(document: Document) -> _Checkpoint:
    token = document["token"]
    return _Checkpoint(
        version=typed(document["version"], str),
        parts=typed(document["parts"], int),
        token=None if token is None else typed(token, dict),
    )


def _load_part(document: Document) -> list[Document]:
    return typed(document["segments"], list)


@contextmanager
def collecting(
    settings: Settings, on_failure: Callable[[], None] | None = None
) -> Iterator[threading.Event]:
    """Run a collector in a thread of this process, on connections of its own.

    What is yielded is set once it has failed of an unexpected exception, which is logged with its
    stack; then `on_failure` is called. Without `on_failure` it is started again after a while.
    """
    stop, failed = threading.Event(), threading.Event()
    # What it counts is kept: nothing would tell it of a change that went with a lost primary.
    watched = Connection(settings, only_lasting=True)
    own = connect_as_writer(settings)

    def work() -> None:
        rest_s, trouble = RESTART_AFTER_S, RepeatedErrorLog(logging.ERROR, "the collector waits")
        while not stop.is_set():
            started = time.monotonic()
            try:
                Collector(watched, rollup_database(own), stop).run()
            except PyMongoError as error:  # the DNS may be away at the start, too
                trouble.log(error)
                stop.wait(_RETRY_AFTER_S)
            except Exception as error:
                log.exception("the collector failed")
                failed.set()
                if on_failure is not None:
                    on_failure()
                    return
                with suppress(PyMongoError):
                    _note_failure(OwnDatabase(rollup_database(own), watched.queue_key), error)
                lasted = time.monotonic() - started > MAX_RESTART_AFTER_S
                rest_s = RESTART_AFTER_S if lasted else min(2 * rest_s, MAX_RESTART_AFTER_S)
                stop.wait(rest_s)

    thread = threading.Thread(target=work, name="collector", daemon=True)
    thread.start()
    try:
        yield failed
    finally:
        stop.set()
        thread.join(timeout=_STOP_TIMEOUT_S)
        watched.close()
        own.close()


def _note_failure(own: OwnDatabase, error: Exception) -> None:
    """Tell the web services, whose log may be another."""
    now = own.database.client.admin.command("hello")["localTime"]
    document = own.new(FAILURE, {"at": now, "exception": type(error).__name__})
    own[STATE].replace_one({"_id": document["_id"]}, document, upsert=True)
