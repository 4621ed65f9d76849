"""Detects which jobs change: by a change stream or, if the server has none, by polling."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import bson
from bson import CodecOptions, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.errors import (
    ConnectionFailure,
    CursorNotFound,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
)

from jobmon.collector.job_changes import project_events
from jobmon.collector.segments import SegmentMap
from jobmon.store.failures import NOT_A_REPLICA_SET, STREAM_LOST, describe_error
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import NoIndexError, ReadCollection

log = logging.getLogger(__name__)

POLL_PAUSE_S = 0.5  # between two reads of changes
IDLE_POLL_PAUSE_S = 1.0  # after half a minute without a change
SWEEP_S = 120.0  # without a change stream, all segments are counted again in this time
INDEX_RETRY_S = 60.0  # `jobmon init` may create a missing index while a collector runs
# How far a writer's clock may be behind this machine's; used only without a change stream.
MAX_CLOCK_DIFFERENCE = timedelta(seconds=40)

# The collector pauses between two reads. It does not let the server wait for events: each write, to
# any collection, would wake the waiting command. With 100 queues this kept a core busy.
_AWAIT_MS = 1
# When the stream is opened again, the jobs that changed in the time before are counted again.
_REMEMBER_S = 30.0
_TIMESTAMP_PREFIX = "82"  # the first characters of a resume token that begins with a timestamp
# The most events in one batch, if they contain fields of the jobs.
_MAX_EVENTS = 1_000
# After so many timeouts in a row the stream counts as lost. Each read scans the server's log from
# the same place, and the log may be longer than one read can scan.
_MAX_TIMEOUTS = 3
# From this size on, more events may wait: a batch ends before the event that would exceed 16 MB.
_FULL_BYTES = 8_000_000
_RAW = CodecOptions(document_class=RawBSONDocument)
_ENDING_OPERATIONS = ("drop", "rename", "dropDatabase", "invalidate")


class StreamLostError(Exception):
    """The change stream ended, or changes since the resume token are lost."""


class Changes(Protocol):
    """A source of changes: it marks the jobs that change, so that they are counted again."""

    @property
    def token(self) -> Document | None:
        """Where to resume after a restart; None if that is not possible."""

    @property
    def seen_until(self) -> datetime | None:
        """Changes before this time (UTC) were read; None: all were read, or the time is unknown."""

    @property
    def read_until(self) -> datetime | None:
        """Changes before this time by the server's clock (UTC) were read; None if it is unknown."""

    @property
    def is_at_end(self) -> bool:
        """Whether the last call of `next_batch` read all available changes."""

    def next_batch(self, segments: SegmentMap) -> Sequence[Document]:
        """Wait up to a second, and mark the jobs that may have changed since the last call.

        Returns the events if they contain fields of the jobs, otherwise an empty sequence. When the
        stream ends, this call still handles its last events; the next call raises StreamLostError.
        """

    def close(self) -> None:
        """Release the server's resources."""


class StreamedChanges:
    """Changes from a change stream, read every half second, or at once if more events wait.

    After half a minute without a change, they are read every second. The stream begins after
    `token`, or else at `start`, or else now. The events contain the top-level `fields` of the jobs;
    if `fields` is None, they contain only the _ids of the jobs.

    This class sends the cursor's commands itself: the driver's iterator does not show where a batch
    ends, nor that the driver has opened the stream again on another primary.
    """

    def __init__(
        self,
        jobs: Collection[Document],
        token: Document | None,
        stop: threading.Event,
        *,
        start: Timestamp | None = None,
        fields: AbstractSet[str] | None = None,
    ) -> None:
        self._jobs = jobs
        self._stop = stop
        self._start = start
        self._fields = fields
        self._ended_by = ""
        self.is_at_end = False
        self._session = jobs.database.client.start_session()  # the cursor belongs to it
        self._pause_s = 0.0
        self._timeouts = 0
        self._recent: deque[tuple[float, Any]] = deque()  # monotonic time of the read, and _id
        self.token = token
        try:
            self._open_stream()
        except BaseException:
            self._session.end_session()
            raise

    @property
    def seen_until(self) -> datetime | None:
        """`read_until` if the reads may lag: on a sharded cluster, or with unread events.

        A mongos holds back an event until every shard, even an idle one, has passed its time.
        """
        topology = self._jobs.database.client.topology_description
        may_lag = topology.topology_type_name == "Sharded" or not self.is_at_end
        return self.read_until if may_lag else None

    @property
    def read_until(self) -> datetime | None:
        """The token's time in whole seconds; None for a token of unknown form."""
        return None if self.token is None else _read_token_time(self.token)

    def next_batch(self, segments: SegmentMap) -> Sequence[Document]:
        if self._ended_by:
            raise StreamLostError(self._ended_by)
        self._stop.wait(self._pause_s)  # so that one read returns many events
        now, events = time.monotonic(), self._read_events()
        while self._recent and self._recent[0][0] < now - _REMEMBER_S:
            self._recent.popleft()
        if events is None:
            # Recent jobs may have been counted on a primary that did not have their changes yet.
            for _, job_id in self._recent:
                segments.mark_job(job_id)
            events = []
        for index, event in enumerate(events):
            if event["operationType"] in _ENDING_OPERATIONS:
                self._ended_by = event["operationType"]
                events = events[:index]
                break
            job_id = event["documentKey"]["_id"]
            segments.mark_job(job_id)
            self._recent.append((now, job_id))
        pause_s = POLL_PAUSE_S if self._recent else IDLE_POLL_PAUSE_S
        self._pause_s = pause_s if self.is_at_end else 0.0
        return events if self._fields is not None else ()

    def close(self) -> None:
        self._kill_cursor()
        self._session.end_session()

    def _kill_cursor(self) -> None:
        """Release the cursor; a read that got no answer in time would go on in the server."""
        with suppress(PyMongoError):
            self._send_command({"killCursors": self._jobs.name, "cursors": [self._cursor]})

    def _open_stream(self) -> None:
        options: Document = {"resumeAfter": self.token} if self.token else {}
        if not self.token and self._start is not None:
            options = {"startAtOperationTime": self._start}
        projection: Document = {"documentKey": True, "operationType": True}
        if self._fields is not None:
            projection = project_events(self._fields)
        pipeline = [{"$changeStream": options}, {"$project": projection}]
        watch: Document = {"aggregate": self._jobs.name, "pipeline": pipeline}
        answer, _ = self._send_command({**watch, "cursor": {"batchSize": 0}})
        self._cursor = answer["cursor"]["id"]
        self.token = answer["cursor"]["postBatchResumeToken"]

    def _read_events(self) -> list[Document] | None:
        """Read the next events, and set `token` and `is_at_end`.

        Returns None if the stream had to be opened again. Raises StreamLostError after
        `_MAX_TIMEOUTS` timeouts in a row.
        """
        get_more: Document = {"getMore": self._cursor, "collection": self._jobs.name}
        if self._fields is not None:
            get_more["batchSize"] = _MAX_EVENTS
        try:
            answer, size = self._send_command({**get_more, "maxTimeMS": _AWAIT_MS})
        except (ConnectionFailure, CursorNotFound) as error:
            is_timeout = isinstance(error, NetworkTimeout)
            self._timeouts = self._timeouts + 1 if is_timeout else 0
            if self._timeouts == _MAX_TIMEOUTS:
                raise StreamLostError("its changes cannot be read in time") from error
            if is_timeout:
                self._kill_cursor()
            self._open_stream()  # another server may be the primary now
            self.is_at_end = False
            return None
        self._timeouts = 0
        self.token = answer["cursor"]["postBatchResumeToken"]
        events: list[Document] = answer["cursor"]["nextBatch"]
        is_full = self._fields is not None and len(events) == _MAX_EVENTS
        self.is_at_end = not is_full and size < _FULL_BYTES
        return events

    def _send_command(self, command: Document) -> tuple[Document, int]:
        """Send a command; returns the answer, and its size in bytes."""
        try:
            encoded = self._jobs.database.command(
                command, session=self._session, codec_options=_RAW
            ).raw
            # pymongo's default options cannot decode every _id.
            return bson.decode(encoded, self._jobs.codec_options), len(encoded)
        except OperationFailure as error:
            if error.code in STREAM_LOST:
                raise StreamLostError(describe_error(error)) from error
            raise


class PolledChanges:
    """Changes without a change stream: finds jobs with a new updatedAt, and sweeps all segments.

    If no updatedAt is mapped, other dates are polled: see `FieldMapping.dated_fields`. The sweep
    finds a change that sets no polled date, such as a deletion, within about `SWEEP_S`.
    """

    token = None
    seen_until = None
    read_until = None
    is_at_end = True

    def __init__(self, jobs: ReadCollection, stop: threading.Event) -> None:
        self._jobs = jobs
        self._stop = stop
        self._next_long_overlap = 0.0  # monotonic
        self._unindexed: dict[str, float] = {}  # by field: when to try its index again (monotonic)

    def next_batch(self, segments: SegmentMap) -> Sequence[Document]:
        self._stop.wait(POLL_PAUSE_S)
        segments.mark_next_segments(POLL_PAUSE_S / SWEEP_S)
        now = time.monotonic()
        is_long_overlap_due = now >= self._next_long_overlap
        if is_long_overlap_due:
            self._next_long_overlap = now + MAX_CLOCK_DIFFERENCE.total_seconds() / 2
        short_overlap = timedelta(seconds=4 * POLL_PAUSE_S)
        overlap = MAX_CLOCK_DIFFERENCE if is_long_overlap_due else short_overlap
        self._poll(segments, datetime.now(UTC) - overlap)
        return ()

    def close(self) -> None:
        pass

    def _poll(self, segments: SegmentMap, since: datetime) -> None:
        mapping = self._jobs.mapping
        for field in mapping.dated_fields:
            if time.monotonic() < self._unindexed.get(field, 0.0):
                continue
            query = {field: {"$gte": since + mapping.offsets.get(field, timedelta(0))}}
            index: Keys = [(field, 1)]
            try:
                for job in self._jobs.find(query, ("_id",), index=index, require_index=True):
                    segments.mark_job(job["_id"])
            except NoIndexError:
                if field not in self._unindexed:
                    message = "no index on %s: a change of only this date is found after up to %d s"
                    log.warning(message, field, SWEEP_S)
                self._unindexed[field] = time.monotonic() + INDEX_RETRY_S


def open_changes(
    jobs: ReadCollection,
    token: Document | None,
    stop: threading.Event,
    *,
    start: Timestamp | None = None,
    fields: AbstractSet[str] | None = None,
) -> Changes:
    """The changes after `token`, or else from `start` on, or else from now on.

    `fields`: see `StreamedChanges`. Raises StreamLostError if the server cannot resume at `token`.
    """
    try:
        return StreamedChanges(jobs.collection, token, stop, start=start, fields=fields)
    except OperationFailure as error:
        if error.code != NOT_A_REPLICA_SET:
            raise
    return PolledChanges(jobs, stop)


def _read_token_time(token: Document) -> datetime | None:
    """The time with which a resume token begins; None if the token has an unknown form."""
    data = token.get("_data")
    if not isinstance(data, str) or not data.startswith(_TIMESTAMP_PREFIX):
        return None
    hex_seconds = data[len(_TIMESTAMP_PREFIX) :][:8]
    return datetime.fromtimestamp(int(hex_seconds, 16), UTC)
