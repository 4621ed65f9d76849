"""Counts runs from the changes of jobs, for queues whose documents keep only the last run.

An update event has only the fields that it changes. So the counter remembers, of each job that
waits or runs, the fields that the profile's rules need. It applies each change to these fields, and
lets the database evaluate the rules.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from bson import Timestamp
from pymongo.errors import ExecutionTimeout

from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.event_buckets import EventBuckets
from jobmon.collector.job_changes import (
    JobChange,
    apply_change,
    read_change,
    replace_values,
    select_paths,
)
from jobmon.collector.job_evaluator import BATCH, JobEvaluator, split_batches
from jobmon.collector.job_memory import MAX_RUNNING, MAX_WAITING, NOT_RUN_YET, JobMemory, KnownJob
from jobmon.collector.run_details_counter import RunDetailsCounter, add_run
from jobmon.collector.run_errors import EndedRun, complete_errors
from jobmon.collector.run_lists import RunLists
from jobmon.collector.runs import FinishedRun, HistoryEntry, JobVersion, count_change, find_lost_run
from jobmon.domain import AttemptStatus
from jobmon.rollup.activity import count_activity
from jobmon.rollup.buckets import FINAL_AFTER, MINUTE, Tallies, floor
from jobmon.rollup.documents import EVENTS, OwnDatabase
from jobmon.rollup.gaps import EventHistory, Gap, GapReason, load_event_history, write_event_history
from jobmon.rollup.run_details import RunDetails
from jobmon.store.bson_json import encode_key
from jobmon.store.connection import Connection
from jobmon.store.conversions import get_at_path
from jobmon.store.labels import OTHER
from jobmon.store.mapping import Document
from jobmon.store.read_collection import NoIndexError, ReadCollection

log = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
BEHIND_AFTER_S = 15.0
MAX_PENDING = 20_000  # while this many events wait to be counted, no more are read
# A prepared stream is begun within about this time: a server keeps snapshots for five minutes.
BEGIN_WITHIN_S = 60.0
MAX_ERROR_BYTES = 2_000  # a longer error is not remembered
# The pause until waiting jobs are loaded again is this many times as long as loading took.
LOAD_PAUSE_FACTOR = 20


class _AppliedChange(NamedTuple):
    """A change, and the job's document after the change; None if the job was deleted.

    `knows_error`: whether the document has all fields of the job's error.
    """

    change: JobChange
    document: Document | None
    knows_error: bool


class EventCounter:
    """Counts the runs in the changes that a queue's collector reads from a change stream.

    The collector calls `prepare` for a new stream or `resume` for a continued stream. Then it calls
    `add` and `count` for each batch of events. A new stream is counted only after `begin`. Methods
    raise PyMongoError, and LeaseLostError if another collector counts. `renew` is called between
    the parts of longer work.
    """

    def __init__(
        self,
        connection: Connection,
        own: OwnDatabase,
        renew: Callable[[], None],
        groups: ErrorGroups,
    ) -> None:
        self._connection = connection
        self._groups = groups
        self._details = RunDetailsCounter(connection, groups)
        self._jobs = connection.jobs
        self._own = own
        self._renew = renew
        self.rules = connection.profile.runs
        self._evaluator = JobEvaluator(connection.jobs, own, self.rules)
        self._memory = JobMemory()
        self._buckets = EventBuckets(own)
        self._run_lists = RunLists(own, groups.redactor)
        self._pending: deque[Document] = deque()
        self._prepared: tuple[Timestamp, str] | None = None  # time and position for `begin`
        self._begin_by = math.inf
        # When the end of the stream was read last (monotonic), and the `end` of that `add`.
        self._end_at: tuple[float, datetime] | None = None
        self._position = ""
        self._write_at = self._load_at = 0.0
        self._caught_up_at = -math.inf
        self._has_stopped = False
        self.counted_until: datetime | None = None  # all changes before this time are counted
        stored = own.find_state(EVENTS, load_event_history)
        self._has_history = stored is not None
        self._history = stored or EventHistory()

    @property
    def first_minute(self) -> datetime | None:
        """The first minute that is counted from changes; None if changes are not counted."""
        return self._history.first_minute

    @property
    def is_behind(self) -> bool:
        """Whether it has not reached the end of the stream for more than `BEHIND_AFTER_S`."""
        return not self._has_stopped and time.monotonic() - self._caught_up_at > BEHIND_AFTER_S

    def take_written(self) -> set[datetime]:
        """The minutes that were written since the last call; may be called from any thread."""
        return self._buckets.take_written()

    def stop(self) -> None:
        """Stop counting, because attempts are recorded from now on."""
        self.count()
        self.write()
        self._write_history(EventHistory(gaps=self._history.gaps))
        self._has_stopped = True

    def record_missing_stream(self) -> None:
        """Record that runs are counted from documents, because there is no change stream."""
        if any(gap.end is None for gap in self._history.gaps):
            return
        start = self._connection.server_time() if self._has_history else None
        gap = Gap(start=start, end=None, reason=GapReason.NO_CHANGE_STREAM)
        self._write_history(EventHistory(gaps=self._history.add(gap).gaps))

    def resume(self, position: str, jobs: Iterable[Document], counted_until: datetime) -> None:
        """Continue after the change at `position`, with the jobs that `dump` returned then."""
        self._position, self.counted_until = position, counted_until
        self._remember_jobs((entry["job"], entry["at"], entry["knowsError"]) for entry in jobs)

    def prepare(self, at: Timestamp, position: str, counted_until: datetime | None) -> None:
        """Prepare a new stream of the changes after `at` (cluster time): `begin` will count it.

        `position`: where the stream begins. `counted_until`: the time up to which an earlier stream
        was counted; None without such a stream.
        """
        if self.must_begin:  # the kept events of the previous stream are older than `at`
            self._pending.clear()
            self._end_at = None
        else:
            self.count()
            self.write()
        self._prepared, self.counted_until = (at, position), counted_until
        self._begin_by = time.monotonic() + BEGIN_WITHIN_S

    @property
    def must_begin(self) -> bool:
        """Whether a stream was prepared, but is not counted yet."""
        return self._prepared is not None

    @property
    def is_begin_urgent(self) -> bool:
        """Whether too many events wait, or the server will soon drop the snapshot for `begin`."""
        return len(self._pending) >= MAX_PENDING or time.monotonic() > self._begin_by

    def begin(self) -> None:
        """Count the prepared stream from now on, and the last minutes before it from documents."""
        assert self._prepared is not None  # noqa: S101
        (at, position), counted_until = self._prepared, self.counted_until
        moment, jobs = at.as_datetime(), self._evaluator.snapshot(at)
        self._position = position
        self._memory = JobMemory()
        running_filter = self.rules.select_running(jobs.mapping)
        self._memory.has_overflowed = self._load_jobs(jobs, running_filter, MAX_RUNNING, moment)
        self._load_waiting(jobs, moment)
        first_minute = floor(moment - FINAL_AFTER, MINUTE)
        end = floor(moment, MINUTE) + 2 * MINUTE
        counted = self._count_documents(jobs, first_minute, end)
        self._buckets.begin(counted, self._details.count(counted, MINUTE, jobs=jobs))
        gap = Gap(start=None, end=moment, reason=GapReason.BEFORE_COLLECTOR)
        if self._has_history:
            start = min(counted_until or first_minute, moment)
            # In whole seconds both times may be equal, but a gap has a length.
            lost_until = moment + timedelta(seconds=1)
            gap = Gap(start=start, end=lost_until, reason=GapReason.STREAM_LOST)
        history = self._history.close(moment).add(gap)
        self._write_history(EventHistory(first_minute=first_minute, gaps=history.gaps))
        self.counted_until, self._prepared = moment, None
        self.write()

    def _count_documents(
        self, jobs: ReadCollection, start: datetime, end: datetime
    ) -> dict[datetime, Tallies]:
        """The activity of these minutes from documents, without minutes that cannot be read."""
        try:
            return count_activity(self._connection, start, end, MINUTE, jobs=jobs)
        except ExecutionTimeout:
            self._renew()
            if end - start <= MINUTE:
                return {}
            middle = floor(start + (end - start) / 2, MINUTE)
            earlier = self._count_documents(jobs, start, middle)
            return earlier | self._count_documents(jobs, middle, end)
        except NoIndexError:
            return {}  # the history's thread logs that indexes are missing

    def add(self, events: Sequence[Document], *, end: datetime | None) -> bool:
        """Keep a batch of events for `count`; returns whether there is room for another batch.

        `end`: all changes before this time are read now; None if the stream has further events.
        """
        self._pending.extend(events)
        if end is not None:
            self._end_at = time.monotonic(), end
        return len(self._pending) < MAX_PENDING

    def count(self, for_s: float | None = None) -> None:
        """Count the events that were added: all of them, or for about `for_s` seconds."""
        until = math.inf if for_s is None else time.monotonic() + for_s
        while self._pending and time.monotonic() < until:
            batch = list(islice(self._pending, BATCH))
            changes = [change for event in batch if (change := read_change(event)) is not None]
            self._count_batch(changes)
            for _ in batch:
                self._pending.popleft()
            if changes:
                self.counted_until = changes[-1].at
            self._renew()
        if not self._pending and self._end_at is not None:
            (self._caught_up_at, self.counted_until), self._end_at = self._end_at, None
        if self._memory.should_load_waiting and time.monotonic() >= self._load_at:
            self._load_waiting(self._jobs, self._connection.server_time())
        if time.monotonic() >= self._write_at:
            self.write()

    def write(self) -> None:
        self._write_at = time.monotonic() + WRITE_EVERY_S
        self._groups.write()
        self._buckets.write(self._position)
        self._run_lists.write(self._position)
        if self._memory.has_overflowed and self.counted_until is not None:
            self._memory.has_overflowed = False
            start, end = self.counted_until - MINUTE, self.counted_until + MINUTE
            gap = Gap(start=start, end=end, reason=GapReason.TOO_MANY_RUNNING)
            self._write_history(self._history.add(gap))

    def dump(self) -> list[Document]:
        """Count and store all events; returns the running and waiting jobs, for the checkpoint."""
        self.count()
        self.write()
        return list(self._memory.dump(self._redact_job))

    def _redact_job(self, document: Document) -> Document:
        values = ((path, get_at_path(document, path)) for path in self.rules.sensitive_paths)
        redact = self._groups.redactor.redact
        redacted = {path: redact(value) for path, value in values if value is not None}
        return replace_values(document, redacted)

    def _write_history(self, history: EventHistory) -> None:
        write_event_history(self._own, history)
        self._history, self._has_history = history, True

    def _count_batch(self, changes: Sequence[JobChange]) -> None:
        applied = list(self._apply_changes(changes))
        dated = [(document, change.at) for change, document, _ in applied if document is not None]
        versions = iter(self._evaluator.evaluate(dated))
        entries: list[tuple[JobChange, HistoryEntry]] = []
        ended: list[EndedRun] = []
        for change, document, knows_error in applied:
            after = None if document is None else next(versions)
            known = self._memory.get(change.key)
            before = known.version if known else None
            for entry in count_change(change, before, after, self.rules):
                entries.append((change, entry))
                if entry.run is not None:
                    ended.append(EndedRun(entry.run, change, document or {}, knows_error))
            if (lost := find_lost_run(before, after, self.rules)) is not None:
                self._run_lists.add(change.job_id, lost, change.position)
            if document is None:
                self._memory.forget(change.key)
            else:
                job = self._reduce_job(document, change.at, after, knows_error)
                self._memory.put(change.key, job)
            self._position = change.position
        runs = iter(complete_errors(ended, self._evaluator, self.rules))
        for change, entry in entries:
            self._add_entry(change, entry, None if entry.run is None else next(runs))

    def _add_entry(
        self, change: JobChange, entry: HistoryEntry, completed: FinishedRun | None
    ) -> None:
        """Add an entry of a change; `completed`: its run, None without a run or a known error."""
        add_details: Callable[[RunDetails], None] | None = None
        if entry.run is not None:
            run = completed or entry.run._replace(error=None)
            run = run._replace(worker=self._groups.redact_worker(run.worker))
            group_id: str | None = None
            if run.outcome != AttemptStatus.SUCCEEDED:
                group_id = OTHER if completed is None else self._groups.group([run])[0]
            add_details = partial(add_run, run=run, group_id=group_id)
            self._run_lists.add(change.job_id, run, change.position)
        at = floor(entry.at, MINUTE)
        self._buckets.add(at, entry.type, entry.tally, change.position, add_details)

    def _reduce_job(
        self, document: Document, at: datetime, version: JobVersion | None, knows_error: bool
    ) -> KnownJob:
        """The job to remember; it keeps its error unless the error is unknown or too long.

        The error is needed if the next run fails with the same error: its change does not have it.
        """
        if version is not None and version.error is not None:
            version = replace(version, error=None)
        error = select_paths(document, self.rules.error_paths)
        if knows_error and len(error) > 1:
            knows_error = len(encode_key(error)) <= MAX_ERROR_BYTES
        if not knows_error:
            document = select_paths(document, self.rules.remembered)
        return KnownJob(document, at, version, knows_error)

    def _apply_changes(self, changes: Sequence[JobChange]) -> Iterator[_AppliedChange]:
        """Apply each change to its job's document; skip updates of fields that no rule needs."""
        # By key: the document after the last applied change, and its `knows_error`.
        latest = {key: (base, False) for key, base in self._look_up_unknown(changes).items()}
        for change in changes:
            key, document = change.key, change.document
            if change.operation == "delete":
                latest.pop(key, None)
                yield _AppliedChange(change, None, False)
                continue
            knows_error = True
            if change.operation == "update":
                if not change.is_relevant(self.rules.top_level_fields):
                    continue
                known = self._memory.get(key)
                remembered = (known.document, known.knows_error) if known else None
                base, knew_error = latest.get(key) or remembered or ({"_id": change.job_id}, False)
                document = apply_change(base, change)
                knows_error = knew_error or all(map(change.has_replaced, self.rules.error_reads))
            latest[key] = select_paths(document or {}, self.rules.paths), knows_error
            yield _AppliedChange(change, *latest[key])

    def _look_up_unknown(self, changes: Sequence[JobChange]) -> dict[bytes, Document]:
        """The present documents, by key, of updated jobs that are not remembered; index: _id.

        They may include later changes, which are then applied again. They have no errors, because
        an error may be from a later run.
        """
        unknown: dict[bytes, Any] = {}
        known: set[bytes] = set()
        for change in changes:
            key = change.key
            if change.operation != "update":
                known.add(key)
            elif key not in known and self._memory.get(key) is None:
                unknown[key] = change.job_id
        if not unknown:
            return {}
        documents = self._evaluator.find_by_id(list(unknown.values()))
        paths = self.rules.remembered
        return {encode_key(job["_id"]): select_paths(job, paths) for job in documents}

    def _load_waiting(self, jobs: ReadCollection, at: datetime) -> None:
        started = time.monotonic()
        waiting_filter = jobs.mapping.translate_filter({"status": {"$in": list(NOT_RUN_YET)}})
        self._memory.has_unknown_waiting = self._load_jobs(jobs, waiting_filter, MAX_WAITING, at)
        self._load_at = started + LOAD_PAUSE_FACTOR * (time.monotonic() - started)

    def _load_jobs(self, jobs: ReadCollection, query: Document, limit: int, at: datetime) -> bool:
        """Remember up to `limit` jobs that match; returns whether more jobs may match."""
        try:
            matching = self._evaluator.find(jobs, query, limit)
        except ExecutionTimeout:
            log.warning("running or waiting jobs are read too slowly: `jobmon init` adds indexes")
            return True
        is_exact = jobs is not self._jobs  # a snapshot of `at`; present jobs may show later runs
        unknown = (job for job in matching if self._memory.get(encode_key(job["_id"])) is None)
        self._remember_jobs((document, at, is_exact) for document in unknown)
        return len(matching) == limit

    def _remember_jobs(self, documents: Iterable[tuple[Document, datetime, bool]]) -> None:
        """Remember jobs, given as (document, time of the document, `knows_error`)."""
        for batch in split_batches(documents):
            evaluated = self._evaluator.evaluate([(document, at) for document, at, _ in batch])
            for (document, at, knows_error), version in zip(batch, evaluated, strict=True):
                job = self._reduce_job(document, at, version, knows_error)
                self._memory.put(encode_key(document["_id"]), job)
            self._renew()
