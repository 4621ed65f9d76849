"""The collector: follows changes of the watched jobs, and keeps the rollup (the results) current.

For each queue one collector works; others wait for the lease. It reads the watched database, and
writes only to jobmon's own. Counts of segments are in memory; about once a minute a checkpoint
stores them. The web service reads the stats from one small document, written every two seconds or
sooner.
"""

import contextvars
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime

from pymongo.database import Database
from pymongo.errors import PyMongoError

from jobmon.collector.changes import Changes, StreamLostError
from jobmon.collector.checkpoint import Checkpoint, Checkpoints
from jobmon.collector.counters import Counters
from jobmon.collector.due_changes import DueChanges
from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.error_log import RepeatedErrorLog
from jobmon.collector.event_counter import EventCounter
from jobmon.collector.history_writer import HistoryWriter
from jobmon.collector.leader import LeaderLease, LeaseLostError
from jobmon.collector.milestone_writer import MilestoneWriter
from jobmon.collector.run_counting import RunCounting
from jobmon.collector.samples import QueueSamples
from jobmon.collector.segments import SegmentMap
from jobmon.collector.share import Share
from jobmon.notify.notifications import Notifications
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.buckets import QueueSample, retention
from jobmon.rollup.documents import BUILD, STATE, STATS, OwnDatabase
from jobmon.rollup.stats_document import dump_stats
from jobmon.store.connection import Connection
from jobmon.store.live_stats import LiveStats
from jobmon.store.mapping import Document
from jobmon.store.stats import QueueHealth, QueueStats

log = logging.getLogger(__name__)

WRITE_AT_LEAST_EVERY_S = 1.5  # while no job changes, reads come each second: a write every 2 s
CHECKPOINT_EVERY_S = 60.0
CHECKPOINT_PAUSE_FACTOR = 20  # the pause is this many times as long as writing a checkpoint took
READ_FOR_S = 1.0  # after this time of reading changes, stats are written
SAMPLE_EVERY_S = 10.0
RENAME_AFTER_S = 3_600.0  # then all jobs are counted again, if types in `(other)` can be named
REPORT_BUILD_EVERY_S = 1.0
# The pause between two reads of the health is this many times as long as the last read took, but
# not longer than `MAX_HEALTH_PAUSE_S`: after a slow read, numbers would be wrong for minutes.
HEALTH_PAUSE_FACTOR = 20
MAX_HEALTH_PAUSE_S = 10.0
HEALTH_REST_S = 2.5  # while no job changes: with a write every 2 s, a read of health every 4 s
RETRY_AFTER_S = 1.0
HANDOVER_EVERY = 20  # after so many failures, another process can take the lease
STOP_TIMEOUT_S = 10


class _StoppedError(Exception):
    """The collector must stop or release its lease before it has counted all jobs."""


class Collector:
    """Keeps the rollup up to date until `stop` is set; waits while a database is unreachable."""

    def __init__(
        self,
        connection: Connection,
        rollups: Database[Document],
        stop: threading.Event,
        share: Share,
        redactor: Redactor,
        *,
        notifications: Notifications | None = None,
    ) -> None:
        self._connection = connection
        self._rollups = rollups
        self._stop = stop
        self._share = share
        self._redactor = redactor
        self._notifications = notifications
        self._must_release = False  # so that another process can take the lease
        self._live_stats = LiveStats(connection)
        self._health: QueueHealth | None = None
        self._health_due_at = self._health_read_at = 0.0
        self._is_health_outdated = True  # jobs have changed since the health was read
        self._changed = threading.Event()  # wakes the thread that counts the history
        self._sample_due_at = 0.0
        self._failure: Exception | None = None  # raised in the thread that counts the history

    def run(self) -> None:
        """Wait for the lease, work while holding it, release it at the end.

        Waits while the database is unreachable or refuses commands. Raises any other exception,
        even from the thread that counts the history.
        """
        error_log = RepeatedErrorLog(logging.ERROR, "the collector waits")
        failures, holds_lease = 0, False
        while not self._stop.is_set():
            try:
                self._create_parts()
                with self._share.reserve(self._own.queue) as has_place:
                    if has_place and self._lease.take():
                        if not holds_lease:
                            log.info("collecting as %s for %s", self._lease.holder, self._own.queue)
                        holds_lease = True
                        self._must_release = False
                        self._share.report_start(self._own.queue)
                        with suppress(_StoppedError):
                            self._work()
                        self._lease.release()
                holds_lease = False
            except LeaseLostError:
                holds_lease = False
                log.warning("the lease is lost: another collector works now")
            except PyMongoError as error:
                error_log.log(error)
                failures += 1
                if holds_lease and failures % HANDOVER_EVERY == 0:
                    with suppress(PyMongoError):
                        self._lease.release()
                    self._stop.wait(3 * RETRY_AFTER_S)  # meanwhile the others try to take it
            except Exception:
                with suppress(PyMongoError):
                    self._lease.release()
                raise
            self._stop.wait(RETRY_AFTER_S)

    def _create_parts(self) -> None:
        """Create, once, the objects that need the queue's key, which comes from the database."""
        if not hasattr(self, "_own"):
            self._own = OwnDatabase(self._rollups, self._connection.queue_key)
            self._lease = LeaderLease(self._own, self._share.holder, self._share.lease_group)
            self._due_changes = DueChanges(self._connection)
            self._samples = QueueSamples(self._own, retention(self._connection.settings))
            self._checkpoints = Checkpoints(self._own, self._lease.renew)
            self._milestones = MilestoneWriter(self._own, self._connection.jobs.mapping)

    def _must_end(self) -> bool:
        """Whether to end the work: the process stops, or must leave the lease to another one."""
        self._must_release = self._must_release or self._share.decide_release()
        return self._must_release or self._stop.is_set()

    def _work(self) -> None:
        segments, changes = self._start()
        try:
            with self._counting_history(), self._notifying():
                while not self._must_end():
                    try:
                        is_new = segments is None
                        segments = segments or self._count_all()
                        self._follow_changes(segments, changes, is_new=is_new)
                    except StreamLostError as error:
                        log.warning("counting all jobs again, the change stream ended: %s", error)
                        changes.close()
                        changes = self._runs.open_new_changes(self._runs.counted_until, self._stop)
                        self._runs.begin()
                    segments = None
        finally:
            changes.close()

    def _start(self) -> tuple[SegmentMap | None, Changes]:
        """The segments of the last checkpoint, and the changes since then.

        The segments are None if all jobs must be counted. If the checkpoint cannot be used, the
        changes begin now.
        """
        self._groups = ErrorGroups(self._own, self._redactor)
        # With an event log, runs are counted from it alone, even while it is empty.
        has_log = self._connection.profile.log is not None
        counter = None
        if not has_log and not self._connection.has_recorded_attempts():
            counter = EventCounter(self._connection, self._own, self._lease.renew, self._groups)
        self._runs = RunCounting(self._connection, counter, self._share)
        checkpoint = None
        try:
            checkpoint = self._checkpoints.load()
            if checkpoint is not None and checkpoint.token:
                if self._runs.can_resume(checkpoint):
                    return self._resume(checkpoint, checkpoint.token)
                log.warning("counting all jobs again, runs were not counted from changes before")
        except StreamLostError as error:
            log.warning("counting all jobs again, the change stream cannot be resumed: %s", error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = type(error).__name__
            log.warning("counting all jobs again, the checkpoint cannot be read: %s", name)
        counted_until = None if checkpoint is None else checkpoint.counted_until
        return None, self._runs.open_new_changes(counted_until, self._stop)

    def _resume(self, checkpoint: Checkpoint, token: Document) -> tuple[SegmentMap | None, Changes]:
        """The segments (None if all jobs must be counted), and the changes since this checkpoint.

        Raises StreamLostError, and for a malformed checkpoint KeyError, TypeError, ValueError or
        AttributeError.
        """
        segments = None
        # A status that depends on the time may have changed since the checkpoint without a write.
        if not self._due_changes.is_needed:
            segments = SegmentMap(self._connection.jobs)
            segments.load(checkpoint.segments, self._lease.renew)
        return segments, self._runs.resume(checkpoint, token, self._stop)

    @contextmanager
    def _counting_history(self) -> Iterator[None]:
        """Count the history in another thread, because counting a busy hour may take seconds."""
        stop = threading.Event()
        counters = Counters(self._own, self._lease.database_time)
        error_log = RepeatedErrorLog(logging.WARNING, "the history waits")

        def count() -> None:
            self._share.await_start(stop)
            self._runs.begun.wait()
            while not stop.is_set():
                try:
                    writer = HistoryWriter(
                        self._connection,
                        self._own,
                        self._groups,
                        lambda now, is_complete: counters.update(now, is_complete=is_complete),
                        self._runs.counter,
                        changed=self._changed,
                        slots=self._share.history_slots(self._connection),
                    )
                    writer.run(stop)
                except PyMongoError as error:
                    error_log.log(error)
                    stop.wait(RETRY_AFTER_S)
                except Exception as error:  # noqa: BLE001 - the collector's thread raises it
                    self._failure = error
                    return

        # Log lines of the thread show this context, such as the queue's name.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(count,), name="history", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._share.end(stop)
            self._changed.set()
            self._runs.begun.set()
            thread.join(STOP_TIMEOUT_S)

    def _notifying(self) -> AbstractContextManager[None]:
        if self._notifications is None:
            return nullcontext()
        clock = self._lease.database_time
        return self._notifications.running(self._connection, self._own, clock)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _follow_changes(self, segments: SegmentMap, changes: Changes, *, is_new: bool) -> None:
        """Write stats until the work must end; `is_new`: the segments are in no checkpoint.

        Returns earlier if types in `(other)` can be named: then all jobs must be counted again.
        """
        started_at = time.monotonic()
        save_at, rename_at = started_at + CHECKPOINT_EVERY_S, started_at + RENAME_AFTER_S
        written_at = -WRITE_AT_LEAST_EVERY_S
        has_unsaved, self._is_health_outdated = is_new, True
        if is_new:  # the first checkpoint comes soon, but after the stats of all queues
            save_at = started_at
        while not self._must_end():
            as_of, database_time = self._read_changes(segments, changes)
            self._due_changes.mark_due_jobs(segments)
            self._lease.renew()
            self._raise_failure()
            has_changed = segments.recount() > 0
            if has_changed:
                self._is_health_outdated = True
                self._changed.set()
            now = time.monotonic()
            if has_changed or now > written_at + WRITE_AT_LEAST_EVERY_S:
                self._write_stats(segments, as_of, database_time)
                written_at = now
            self._runs.count()
            has_unsaved = has_unsaved or has_changed or segments.has_new_times
            may_save = not (self._share.is_starting() or self._runs.is_waiting)
            if may_save and now > save_at and not self._checkpoints.is_saving():
                save_at = now + self._start_saving(segments, changes, has_changed=has_unsaved)
                has_unsaved = False
            if now > rename_at and segments.has_free_names:
                log.info("counting all jobs again, since more types can be named now")
                return
        if not self._runs.is_waiting:
            self._checkpoints.save(self._make_checkpoint(segments, changes))

    def _read_changes(self, segments: SegmentMap, changes: Changes) -> tuple[datetime, datetime]:
        """Read changes to the end of the stream, for a second, or until too many are uncounted.

        Returns the time up to which every change is read, by this machine's clock and by the
        database's. At the end of a sharded cluster's stream, mongos may hold changes back. The
        second time ignores that, because it must show that the collector works.
        """
        as_of, database_time = datetime.now(UTC), self._lease.database_time()
        until, has_room = time.monotonic() + READ_FOR_S, True
        while True:
            events = changes.next_batch(segments)
            if self._runs.counter is not None:
                end = (changes.read_until or datetime.now(UTC)) if changes.is_at_end else None
                has_room = self._runs.counter.add(events, end=end)
            if changes.is_at_end or not has_room or time.monotonic() > until:
                break
        if changes.seen_until is not None:
            if not changes.is_at_end:
                database_time = min(database_time, changes.seen_until)
            as_of = min(as_of, changes.seen_until)
        return as_of, database_time

    def _start_saving(self, segments: SegmentMap, changes: Changes, *, has_changed: bool) -> float:
        """Start to save a checkpoint, or move its position; returns the pause after that, in s."""
        if not has_changed:
            self._checkpoints.save_position(changes.token, self._runs.counted_until)
            return CHECKPOINT_EVERY_S
        pause_s = max(CHECKPOINT_EVERY_S, self._checkpoints.took_s * CHECKPOINT_PAUSE_FACTOR)
        self._checkpoints.start_saving(self._make_checkpoint(segments, changes))
        return pause_s

    def _make_checkpoint(self, segments: SegmentMap, changes: Changes) -> Checkpoint:
        """A checkpoint of all counts, with the token of the last change that they include."""
        jobs = self._runs.dump()
        return Checkpoint(segments.dump(), changes.token, jobs, self._runs.counted_until)

    def _count_all(self) -> SegmentMap:
        """Count all jobs; meanwhile, changes wait in the stream."""
        jobs = self._connection.jobs
        self._due_changes.restart()
        segments = SegmentMap(jobs)
        started = reported_at = time.monotonic()
        estimated: int | None = None  # read for the first report

        def report_progress(counted: int) -> None:
            nonlocal reported_at, estimated
            self._lease.renew()
            self._raise_failure()
            if self._must_end():
                raise _StoppedError
            self._runs.begin_if_allowed()
            if time.monotonic() >= reported_at + REPORT_BUILD_EVERY_S:
                reported_at = time.monotonic()
                estimated = jobs.estimated_count() if estimated is None else estimated
                log.info("first count: %d of about %d jobs", counted, estimated)
                self._own.write_state(BUILD, {"counted": counted, "estimated": estimated})

        segments.build(report_progress)
        took_s = time.monotonic() - started
        log.info("first count: all %d jobs in %.1f s", segments.totals.total(), took_s)
        if estimated is not None:
            self._own[STATE].delete_one({"_id": self._own.id(BUILD)})
        return segments

    def _write_stats(self, segments: SegmentMap, as_of: datetime, database_time: datetime) -> None:
        """Write the stats; `_read_changes` returns `as_of` and `database_time`."""
        health = self._read_health(segments)
        if not self._share.is_starting():
            self._milestones.write(segments)
        milestones = self._milestones.find_changes(segments)
        document = dump_stats(segments.totals, health, as_of, milestones)
        self._own.write_state(STATS, {**document, "collector": self._lease.holder}, database_time)
        self._share.report_stats(self._own.queue)
        if time.monotonic() >= self._sample_due_at and not self._share.is_starting():
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

    def _read_health(self, segments: SegmentMap) -> QueueHealth:
        """The queue's health; the longer it takes to read, the less often it is read.

        It is also read less often while no job changes: then it changes only because time passes.
        """
        started = time.monotonic()
        rest_until = 0.0 if self._is_health_outdated else self._health_read_at + HEALTH_REST_S
        if self._health is None or started >= max(self._health_due_at, rest_until):
            unchanged = None if self._is_health_outdated else self._health
            self._is_health_outdated = False
            # The present time: jobs that came after the last change would count as scheduled.
            now = datetime.now(UTC)
            self._health = self._live_stats.health(segments.totals, now, unchanged)
            self._health_read_at = started
            ended = time.monotonic()
            pause_s = min((ended - started) * HEALTH_PAUSE_FACTOR, MAX_HEALTH_PAUSE_S)
            self._health_due_at = ended + pause_s
        return self._health
