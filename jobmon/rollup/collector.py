"""The collector: follows changes of the watched jobs and keeps the rollup right.

One works, others wait for its lease in the rollup database. It reads the watched database and
writes to its own only. Counts of segments are in memory, with a checkpoint once a minute; the stats
that the web service reads are one small document, written when they change.
"""

import contextvars
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from jobmon.rollup.buckets import QueueSample, retention
from jobmon.rollup.changes import Changes, StreamLostError, open_changes
from jobmon.rollup.checkpoint import Checkpoint, Checkpoints, IncompleteCheckpointError
from jobmon.rollup.counters import Counters
from jobmon.rollup.documents import (
    BUILD,
    STATE,
    STATS,
    OwnDatabase,
)
from jobmon.rollup.due_changes import DueChanges
from jobmon.rollup.history_writer import HistoryWriter
from jobmon.rollup.leader import LeaderLease, LeaseLostError
from jobmon.rollup.samples import QueueSamples
from jobmon.rollup.segments import SegmentMap
from jobmon.rollup.share import Share
from jobmon.rollup.stats_document import dump_stats
from jobmon.store.connection import Connection
from jobmon.store.failures import name_error
from jobmon.store.live_stats import LiveStats
from jobmon.store.mapping import Document
from jobmon.store.stats import QueueHealth, QueueStats

log = logging.getLogger(__name__)

WRITE_AT_LEAST_EVERY_S = 2.0
CHECKPOINT_EVERY_S = 60.0
SAMPLE_EVERY_S = 10.0
RENAME_AFTER_S = 3_600.0
REPORT_BUILD_EVERY_S = 1.0
# The health is read again after this many times as long as it took: a large backlog costs more.
HEALTH_PAUSE_FACTOR = 20
RETRY_AFTER_S = 1.0
STOP_TIMEOUT_S = 10


class _StoppedError(Exception):
    """The collector was stopped, or has to release its lease, during a first count."""


class RepeatedErrorLog:
    """Logs an error that repeats every second once, until it changes or is over."""

    def __init__(self, level: int, waiting: str) -> None:
        self._level = level
        self._waiting = waiting
        self._logged = ""

    def log(self, error: Exception) -> None:
        """Log "the collector waits, the database refuses: …" if this was not logged before."""
        reason = _describe(error)
        if reason != self._logged:
            log.log(self._level, "%s, %s", self._waiting, reason)
        self._logged = reason

    def clear(self) -> None:
        """The error is over: log it again if it comes back."""
        self._logged = ""


def _describe(error: Exception) -> str:
    if isinstance(error, OperationFailure):
        return f"the database refuses: {name_error(error)}"
    return f"the database is away: {type(error).__name__}"


class Collector:
    """Keeps the rollup right until `stop` is set, and survives times without a database."""

    def __init__(
        self,
        connection: Connection,
        rollups: Database[Document],
        stop: threading.Event,
        share: Share,
    ) -> None:
        self._connection = connection
        self._rollups = rollups
        self._stop = stop
        self._share = share
        self._releases = False  # the lease, so that another process has its share
        self._live_stats = LiveStats(connection)
        self._health: QueueHealth | None = None
        self._health_due_at = 0.0
        self._sample_due_at = 0.0
        self._failure: Exception | None = None  # of the thread that counts the history

    def run(self) -> None:
        """Wait for the lease, work while holding it, release it in the end.

        Waits while the database is away or refuses. Raises any other exception, also of the thread
        that counts the history.
        """
        waiting = RepeatedErrorLog(logging.ERROR, "the collector waits")
        while not self._stop.is_set():
            try:
                self._open()
                with self._share.taking() as may_take:
                    if may_take and self._lease.take():
                        log.info("collecting as %s for %s", self._lease.holder, self._own.queue)
                        waiting.clear()
                        self._releases = False
                        with suppress(_StoppedError):
                            self._work()
                        self._lease.release()
            except LeaseLostError:
                log.warning("the lease is lost: another collector works now")
            except PyMongoError as error:
                waiting.log(error)
            except Exception:
                with suppress(PyMongoError):
                    self._lease.release()
                raise
            self._stop.wait(RETRY_AFTER_S)

    def _open(self) -> None:
        """Find out which queue is watched, once the database answers."""
        if not hasattr(self, "_own"):
            self._own = OwnDatabase(self._rollups, self._connection.queue_key)
            self._lease = LeaderLease(self._own, self._share.holder)
            self._due_changes = DueChanges(self._connection)
            self._samples = QueueSamples(self._own, retention(self._connection.settings))
            self._checkpoints = Checkpoints(self._own)

    def _is_over(self) -> bool:
        """Whether to end the work: the process stops, or holds more leases than its share."""
        self._releases = self._releases or self._share.must_release()
        return self._releases or self._stop.is_set()

    def _work(self) -> None:
        with self._counting_history():
            segments, changes = self._resume() or self._build()
            try:
                while not self._is_over():
                    try:
                        self._follow(segments, changes)
                    except StreamLostError as error:
                        log.warning("counting all jobs again, the change stream ended: %s", error)
                    if not self._is_over():
                        changes.close()
                        segments, changes = self._build()
            finally:
                changes.close()

    @contextmanager
    def _counting_history(self) -> Iterator[None]:
        """Count the history in a thread of its own: a busy hour may take seconds."""
        stop = threading.Event()
        counters = Counters(self._own)
        waiting = RepeatedErrorLog(logging.WARNING, "the history waits")

        def update_counters(now: datetime, settled: bool) -> None:
            counters.update(now, settled=settled)
            waiting.clear()

        def count() -> None:
            while not stop.is_set():
                try:
                    HistoryWriter(self._connection, self._own, update_counters).run(stop)
                except PyMongoError as error:
                    waiting.log(error)
                    stop.wait(RETRY_AFTER_S)
                except Exception as error:  # noqa: BLE001 - the main thread raises it
                    self._failure = error
                    return

        # With the context of this thread, which the log shows.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(count,), name="history", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(STOP_TIMEOUT_S)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _follow(self, segments: SegmentMap, changes: Changes) -> None:
        """Write stats for each change until stopped.

        Returns early if types that were folded can be named again: then all jobs are counted again.
        """
        saved_at = time.monotonic()
        written_at = -WRITE_AT_LEAST_EVERY_S
        unsaved = False
        rename_at = saved_at + RENAME_AFTER_S
        while not self._is_over():
            as_of, at = datetime.now(UTC), self._database_time()
            changes.next_batch(segments)
            as_of = min(as_of, changes.seen_until or as_of)
            self._due_changes.mark(segments, at)
            self._lease.renew()
            self._raise_failure()
            changed = segments.recount() > 0
            now = time.monotonic()
            if changed or now > written_at + WRITE_AT_LEAST_EVERY_S:
                self._write_stats(segments, as_of, at)
                written_at = now
            unsaved = unsaved or changed
            if unsaved and now > saved_at + CHECKPOINT_EVERY_S:
                self._checkpoints.save(Checkpoint(segments.dump(), changes.token))
                saved_at, unsaved = now, False
            if now > rename_at and segments.has_free_names:
                log.info("counting all jobs again, since all types can be named now")
                return
        self._checkpoints.save(Checkpoint(segments.dump(), changes.token))

    def _build(self) -> tuple[SegmentMap, Changes]:
        """Count all jobs; changes wait in the stream meanwhile."""
        jobs = self._connection.jobs
        changes = open_changes(jobs, None, self._stop)
        self._due_changes.restart(self._database_time())
        segments = SegmentMap(jobs)
        estimated = jobs.estimated_count()
        started = reported_at = time.monotonic()

        def report(counted: int) -> None:
            nonlocal reported_at
            self._lease.renew()
            self._raise_failure()
            if self._is_over():
                raise _StoppedError
            if time.monotonic() >= reported_at + REPORT_BUILD_EVERY_S:
                reported_at = time.monotonic()
                log.info("first count: %d of about %d jobs", counted, estimated)
                self._own.write_state(BUILD, {"counted": counted, "estimated": estimated})

        try:
            segments.build(report)
        except BaseException:
            changes.close()
            raise
        took_s = time.monotonic() - started
        log.info("first count: all %d jobs in %.1f s", segments.totals.total(), took_s)
        self._own[STATE].delete_one({"_id": self._own.id(BUILD)})
        self._checkpoints.save(Checkpoint(segments.dump(), changes.token))
        return segments, changes

    def _database_time(self) -> datetime:
        """The time by the clock that readers compare the age of stats with."""
        now: datetime = self._rollups.client.admin.command("hello")["localTime"]
        return now

    def _write_stats(self, segments: SegmentMap, as_of: datetime, at: datetime) -> None:
        """Write the stats as of `as_of`, which is `at` by the database's clock.

        Both are from before the changes were read: stats that a silent database delays are old.
        """
        health = self._read_health(segments, as_of)
        document = dump_stats(segments.totals, health, as_of)
        self._own.write_state(STATS, {**document, "collector": self._lease.holder}, at)
        if time.monotonic() >= self._sample_due_at:
            self._sample_due_at = time.monotonic() + SAMPLE_EVERY_S
            stats = QueueStats(
                as_of=as_of,
                source="rollup",
                counts=segments.totals,
                total=segments.totals.total(),
                health=health,
            )
            sample = QueueSample(
                status_counts=stats.status_counts() or {},
                oldest_queued_ms=stats.oldest_queued_age_ms(),
            )
            self._samples.write(as_of, sample)

    def _read_health(self, segments: SegmentMap, as_of: datetime) -> QueueHealth:
        """The health, read from the jobs; the longer that takes, the less often it is read."""
        started = time.monotonic()
        if self._health is None or started >= self._health_due_at:
            self._health = self._live_stats.health(segments.totals, as_of)
            took_s = time.monotonic() - started
            self._health_due_at = started + took_s * HEALTH_PAUSE_FACTOR
        return self._health

    def _resume(self) -> tuple[SegmentMap, Changes] | None:
        """The segments and changes since the last checkpoint; None if that is not possible."""
        if self._due_changes.is_needed:  # statuses changed meanwhile, without a change of a job
            return None
        segments = SegmentMap(self._connection.jobs)
        try:
            checkpoint = self._checkpoints.load()
            if checkpoint is None or not checkpoint.token:
                return None
            segments.load(checkpoint.segments)
            return segments, open_changes(self._connection.jobs, checkpoint.token, self._stop)
        except IncompleteCheckpointError:
            reason = "the checkpoint is incomplete, or of another version"
        except StreamLostError as error:
            reason = f"the change stream cannot be resumed: {error}"
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"the checkpoint cannot be read: {type(error).__name__}"
        log.warning("counting all jobs again, %s", reason)
        return None
