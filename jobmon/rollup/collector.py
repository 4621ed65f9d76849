"""The collector: follows what changes in the watched jobs and keeps the rollup right.

One works, others wait: a lease in the rollup database says which. It reads the watched database
and writes to its own only. What it knows of single segments it keeps in memory and saves once a
minute; the figures that the web service reads are one small document, written as they change.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    ConnectionFailure,
    CursorNotFound,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)

from jobmon.rollup.counters import Counters
from jobmon.rollup.gauges import Gauge, Gauges
from jobmon.rollup.reader import BUILD, FIGURES, SNAPSHOT
from jobmon.rollup.segments import SegmentMap, dump_counts
from jobmon.rollup.throughput import STATE, Throughput
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.jobs import Conditions, Figures, JobStore
from jobmon.store.names import Document, Keys
from jobmon.store.watched import Watched, is_bad_hint

log = logging.getLogger(__name__)

TICK_S = 0.5
WRITE_AT_LEAST_EVERY_S = 2.0
LEASE_MS = 10_000
RENEW_EVERY_S = 3.0
SNAPSHOT_EVERY_S = 60.0
SAMPLE_EVERY_S = 10.0
SAY_EVERY_S = 1.0  # how far a first build is
# Without a change stream:
SWEEP_S = 120.0
CLOCKS_DIFFER_BY = timedelta(seconds=40)
# Rest this many times as long as a look at the conditions took: a large backlog costs its count.
CONDITIONS_REST = 20
_RETRY_AFTER_S = 1.0
_STOP_TIMEOUT_S = 10
_SEGMENTS_A_DOCUMENT = 100
_COUNTS_A_DOCUMENT = 10_000  # of a status and a type, with names of 200 characters

SNAPSHOTS = "snapshots"
LEASES = "leases"

# ChangeStreamHistoryLost, ChangeStreamFatalError, InvalidResumeToken: only counting anew helps.
_STREAM_IS_LOST = (286, 280, 260)
_NOT_A_REPLICA_SET = 40573
# As long as another primary may lag behind what the stream told, and longer.
_REMEMBER_S = 30.0
_ENDS_STREAM = ("drop", "rename", "dropDatabase", "invalidate")


class _StreamLostError(Exception):
    """What changed meanwhile can no longer be learnt."""


class _LeaseLostError(Exception):
    """Another collector may be working now."""


class _StoppedError(Exception):
    """Asked to stop in the middle of a first build."""


def _process(pid: int) -> Document | None:
    """What tells a process of this machine from all others; None where the system does not say."""
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None
    return {"host": socket.gethostname(), "kernel": kernel, "namespace": namespace, "pid": pid}


def _is_dead(process: Document | None) -> bool:
    """Whether a process is known to have ended: it was one of ours, and there is none such now."""
    if process is None or process != _process(process["pid"]):
        return False
    try:
        os.kill(process["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    return False


class Lease:
    """Who may write the rollup: one holder at a time, by the database's clock.

    One whose process has died on this machine is not waited for.
    """

    def __init__(self, rollups: Database[Document]) -> None:
        self._leases = rollups[LEASES]
        self._process = _process(os.getpid())
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._good_until = 0.0
        self._taken_at = 0.0

    def take(self) -> bool:
        """Take the lease, or hold on to it; False while another collector has it."""
        asked_at = time.monotonic()
        free_or_mine = {
            "$or": [{"holder": self.holder}, {"$expr": {"$lt": ["$expiresAt", "$$NOW"]}}]
        }
        mine: Document = {"holder": self.holder, "process": self._process}
        until: Document = {"expiresAt": {"$add": ["$$NOW", LEASE_MS]}}
        held = self._leases.find_one_and_update(
            {"_id": "collector", **free_or_mine},
            [{"$set": mine | until}],
            return_document=ReturnDocument.AFTER,
        )
        if held is None:
            other = self._leases.find_one({"_id": "collector"})
            if other is not None and _is_dead(other.get("process")):
                self._leases.delete_one({"_id": "collector", "holder": other["holder"]})
            try:
                # Never taken so far, or the rollup database was dropped, or the holder is dead.
                expires_at = datetime.now(UTC) + timedelta(milliseconds=LEASE_MS)
                self._leases.insert_one({"_id": "collector", **mine, "expiresAt": expires_at})
            except DuplicateKeyError:
                return False
        self._taken_at = asked_at
        self._good_until = asked_at + LEASE_MS / 1_000
        return True

    def keep(self) -> None:
        """Renew when it is time to; _LeaseLostError when another collector may work now."""
        now = time.monotonic()
        if now > self._good_until:
            raise _LeaseLostError
        if now > self._taken_at + RENEW_EVERY_S and not self.take():
            raise _LeaseLostError

    def give_up(self) -> None:
        """Let another collector take over at once."""
        self._leases.delete_one({"_id": "collector", "holder": self.holder})


class Changes(Protocol):
    """The _ids of jobs that change."""

    @property
    def token(self) -> Document | None:
        """Where to go on after a restart; None if one cannot."""

    def next_batch(self, segments: SegmentMap) -> None:
        """Mark what has changed since the last call, after waiting a moment for something to."""

    def close(self) -> None:
        """Nothing more is asked."""


class StreamedChanges:
    """Changes from a change stream, a tick's worth at a time.

    The driver's own iterator asks again as soon as one event has come; with many a second that
    costs the server and us more than everything else. So the cursor is driven by hand.
    """

    def __init__(
        self, jobs: Collection[Document], token: Document | None, stop: threading.Event
    ) -> None:
        self._jobs = jobs
        self._stop = stop
        self._session = jobs.database.client.start_session()  # a cursor belongs to one
        self._rest_s = 0.0
        self._told: deque[tuple[float, Any]] = deque()
        self.token = token
        self._open()

    def next_batch(self, segments: SegmentMap) -> None:
        self._stop.wait(self._rest_s)  # where something comes, let more of it come together
        now, events = time.monotonic(), self._more()
        self._rest_s = TICK_S if events else 0.0
        while self._told and self._told[0][0] < now - _REMEMBER_S:
            self._told.popleft()
        if events is None:
            # Counted since then on a primary that did not know yet, perhaps.
            for _, job_id in self._told:
                segments.mark(job_id)
        for event in events or []:
            if event["operationType"] in _ENDS_STREAM:
                raise _StreamLostError(event["operationType"])
            job_id = event["documentKey"]["_id"]
            segments.mark(job_id)
            self._told.append((now, job_id))

    def close(self) -> None:
        with suppress(PyMongoError):
            self._command({"killCursors": self._jobs.name, "cursors": [self._cursor]})
        self._session.end_session()

    def _open(self) -> None:
        stream = {"$changeStream": {"resumeAfter": self.token} if self.token else {}}
        names = {"$project": {"documentKey": True, "operationType": True}}
        watch: Document = {"aggregate": self._jobs.name, "pipeline": [stream, names]}
        opened = self._command({**watch, "cursor": {"batchSize": 0}})["cursor"]
        self._cursor = opened["id"]
        self.token = opened["postBatchResumeToken"]

    def _more(self) -> list[Document] | None:
        """All events that have come, after waiting a tick for the first; then `token` is newer.

        None when the stream had to be opened again.
        """
        more: Document = {"getMore": self._cursor, "collection": self._jobs.name}
        try:
            answer = self._command({**more, "maxTimeMS": round(TICK_S * 1_000)})["cursor"]
        except (ConnectionFailure, CursorNotFound):  # another primary, perhaps: go on from there
            self._open()
            return None
        self.token = answer["postBatchResumeToken"]
        events: list[Document] = answer["nextBatch"]
        return events

    def _command(self, command: Document) -> Document:
        try:
            # Of itself a command decodes less than a collection does: an _id may be anything.
            return self._jobs.database.command(
                command, session=self._session, codec_options=self._jobs.codec_options
            )
        except OperationFailure as error:
            raise _lost(error) from error


class PolledChanges:
    """Changes without a change stream: by updatedAt, and every segment in its turn.

    Every writer sets updatedAt at every change (contract, section 1). What it does not tell of, a
    deletion above all, is found when the sweep comes round, within `SWEEP_S`.
    """

    token = None

    def __init__(self, jobs: Watched, stop: threading.Event) -> None:
        self._jobs = jobs
        self._stop = stop
        self._next_look_back = 0.0
        self._polls = True

    def next_batch(self, segments: SegmentMap) -> None:
        self._stop.wait(TICK_S)
        segments.mark_next(TICK_S / SWEEP_S)
        now = time.monotonic()
        look_back = now >= self._next_look_back
        if look_back:
            self._next_look_back = now + CLOCKS_DIFFER_BY.total_seconds() / 2
        overlap = CLOCKS_DIFFER_BY if look_back else timedelta(seconds=4 * TICK_S)
        if self._polls:
            self._poll(segments, datetime.now(UTC) - overlap)

    def _poll(self, segments: SegmentMap, since: datetime) -> None:
        names = self._jobs.names
        for field in names.dated:
            query = {field: {"$gte": since + names.lags.get(field, timedelta(0))}}
            index: Keys = [(field, 1)]
            try:
                for job in self._jobs.find(query, ("_id",), index=index, strictly=True):
                    segments.mark(job["_id"])
            except OperationFailure as error:
                if not is_bad_hint(error):
                    raise
                self._polls = False
                log.warning(
                    "no index on %s: changes are found by sweeping, in %d s", field, SWEEP_S
                )
                return

    def close(self) -> None:
        pass


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


def _in_short(error: PyMongoError) -> str:
    if isinstance(error, OperationFailure):
        return f"the database refuses: {(error.details or {}).get('codeName', error.code)}"
    return f"the database is away: {type(error).__name__}"


def _lost(error: OperationFailure) -> Exception:
    return _StreamLostError(str(error)) if error.code in _STREAM_IS_LOST else error


class Collector:
    """Keeps the rollup right until `stop` is set, also through times without a database."""

    def __init__(
        self, connection: Connection, rollups: Database[Document], stop: threading.Event
    ) -> None:
        self._connection = connection
        self._rollups = rollups
        self._stop = stop
        self._lease = Lease(rollups)
        self._store = JobStore(connection, 0)
        self._conditions: Document = {}
        self._look_again_at = 0.0
        self._gauges = Gauges(rollups, connection.kept)
        self._sample_at = 0.0

    def run(self) -> None:
        """Wait for the lease, work while holding it, give it back in the end."""
        said = ""
        while not self._stop.is_set():
            try:
                if self._lease.take():
                    log.info("collecting as %s", self._lease.holder)
                    said = ""
                    with suppress(_StoppedError):
                        self._work()
                    self._lease.give_up()
            except _LeaseLostError:
                log.warning("the lease is lost; another collector may have it")
            except PyMongoError as error:
                trouble = _in_short(error)
                if trouble != said:  # once, not once a second
                    log.error("the collector waits, %s", trouble)
                said = trouble
            self._stop.wait(_RETRY_AFTER_S)

    def _work(self) -> None:
        with self._counting_throughput():
            segments, changes = self._resume() or self._build()
            try:
                while not self._stop.is_set():
                    try:
                        self._follow(segments, changes)
                    except _StreamLostError as error:
                        log.warning("counting anew, the change stream ended: %s", error)
                        changes.close()
                        segments, changes = self._build()
            finally:
                changes.close()

    @contextmanager
    def _counting_throughput(self) -> Iterator[None]:
        """Beside the counts, in a thread of its own: counting a busy hour may take seconds."""
        stop = threading.Event()
        counters = Counters(self._rollups)

        def looked(now: datetime, settled: bool) -> None:
            counters.look(now, settled=settled)

        def count() -> None:
            while not stop.is_set():
                try:
                    Throughput(self._connection, self._rollups, looked).run(stop)
                    return
                except PyMongoError as error:
                    log.warning("throughput waits, %s", _in_short(error))
                    stop.wait(_RETRY_AFTER_S)

        thread = threading.Thread(target=count, name="throughput", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(_STOP_TIMEOUT_S)

    def _follow(self, segments: SegmentMap, changes: Changes) -> None:
        """Turn changes into figures until stopped."""
        saved_at = time.monotonic()
        written_at = -WRITE_AT_LEAST_EVERY_S
        unsaved = False
        while not self._stop.is_set():
            as_of, at = datetime.now(UTC), self._database_time()
            changes.next_batch(segments)
            self._lease.keep()
            changed = segments.recount() > 0
            now = time.monotonic()
            if changed or now > written_at + WRITE_AT_LEAST_EVERY_S:
                self._write(segments, as_of, at)
                written_at = now
            unsaved = unsaved or changed
            if unsaved and now > saved_at + SNAPSHOT_EVERY_S:
                self._save(segments, changes.token)
                saved_at, unsaved = now, False
        self._save(segments, changes.token)

    def _build(self) -> tuple[SegmentMap, Changes]:
        """Count everything, with the changes meanwhile waiting in the stream."""
        jobs = self._connection.jobs
        changes = self._changes(None)
        segments = SegmentMap(jobs)
        estimated = jobs.estimated_count()
        started = said_at = time.monotonic()

        def progress(counted: int) -> None:
            nonlocal said_at
            self._lease.keep()
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
        self._rollups[STATE].delete_one({"_id": BUILD})
        self._save(segments, changes.token)
        return segments, changes

    def _changes(self, token: Document | None) -> Changes:
        jobs = self._connection.jobs
        try:
            return StreamedChanges(jobs.collection, token, self._stop)
        except OperationFailure as error:
            if error.code != _NOT_A_REPLICA_SET:
                raise
        return PolledChanges(jobs, self._stop)

    def _database_time(self) -> datetime:
        """By the clock that tells readers how old the figures are."""
        now: datetime = self._rollups.client.admin.command("hello")["localTime"]
        return now

    def _write(self, segments: SegmentMap, as_of: datetime, at: datetime) -> None:
        """Write the figures, true of `as_of`, which is `at` by the database's own clock.

        Not of now: what came since then is not counted, however long the database was silent.
        """
        conditions = self._look_at_conditions(segments, as_of)
        self._put(
            FIGURES,
            {
                "asOf": as_of,
                "counts": dump_counts(segments.totals),
                "conditions": conditions,
                "collector": self._lease.holder,
            },
            at,
        )
        if time.monotonic() >= self._sample_at:
            self._sample_at = time.monotonic() + SAMPLE_EVERY_S
            figures = Figures(
                as_of=as_of,
                source="rollup",
                counts=segments.totals,
                total=segments.totals.total(),
                conditions=Conditions(**conditions),
            )
            gauge = Gauge(
                status_counts=figures.status_counts() or {},
                oldest_queued_ms=figures.age_ms(figures.conditions.oldest_queued),
            )
            self._gauges.sample(as_of, gauge)

    def _look_at_conditions(self, segments: SegmentMap, as_of: datetime) -> Document:
        """What has to be asked the jobs themselves; the longer it takes, the less often."""
        started = time.monotonic()
        if started >= self._look_again_at:
            self._conditions = asdict(self._store.conditions(segments.totals, as_of))
            took_s = time.monotonic() - started
            self._look_again_at = started + took_s * CONDITIONS_REST
        return self._conditions

    def _put(self, key: str, document: Document, at: datetime | str = "$$NOW") -> None:
        """Write a document of the state, with the time by the database's own clock."""
        self._rollups[STATE].update_one(
            {"_id": key},
            [{"$replaceWith": {"$literal": {"_id": key, **document}}}, {"$set": {"at": at}}],
            upsert=True,
        )

    def _save(self, segments: SegmentMap, token: Document | None) -> None:
        """Keep the segments for the next start; what is there counts only once it is complete."""
        version = uuid.uuid4().hex
        snapshots = self._rollups[SNAPSHOTS]
        parts = list(_parts(segments.dump()))
        for number, part in enumerate(parts):
            snapshots.insert_one({"version": version, "number": number, "segments": part})
        about = {"version": version, "parts": len(parts), "watched": self._watched()}
        self._put(SNAPSHOT, {**about, "token": token})
        snapshots.delete_many({"version": {"$ne": version}})

    def _resume(self) -> tuple[SegmentMap, Changes] | None:
        """Go on where the last collector saved; None if there is nothing to go on from."""
        snapshot = self._rollups[STATE].find_one({"_id": SNAPSHOT})
        if snapshot is None or not snapshot["token"] or snapshot["watched"] != self._watched():
            return None
        jobs = self._connection.jobs
        parts = list(self._rollups[SNAPSHOTS].find({"version": snapshot["version"]}).sort("number"))
        if len(parts) != snapshot.get("parts"):
            log.warning("counting anew, what was saved is not complete")
            return None
        try:
            changes = self._changes(snapshot["token"])
        except _StreamLostError as error:
            log.warning("counting anew, the change stream cannot be resumed: %s", error)
            return None
        segments = SegmentMap(jobs)
        segments.load(segment for part in parts for segment in part["segments"])
        return segments, changes

    def _watched(self) -> str:
        """What the rollup is of: another collection's counts must not be taken for this one's."""
        return self._connection.jobs.collection.full_name


@contextmanager
def collecting(settings: Settings) -> Iterator[None]:
    """Run a collector in a thread of this process, on connections of its own."""
    stop = threading.Event()
    # What it counts is kept: nothing would tell it of a change that went with a lost primary.
    watched = Connection(settings, only_lasting=True)
    own = Connection.of_writer(settings)
    collector = Collector(watched, own.rollups, stop)
    thread = threading.Thread(target=collector.run, name="collector", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=_STOP_TIMEOUT_S)
        watched.client.close()
        own.client.close()
