"""Which jobs change: by a change stream, or by looking where the server has none."""

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure, CursorNotFound, OperationFailure, PyMongoError

from jobmon.rollup.segments import SegmentMap
from jobmon.store.failures import NOT_A_REPLICA_SET, STREAM_LOST
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import ReadCollection, is_bad_hint

log = logging.getLogger(__name__)

TICK_S = 0.5
# Without a change stream:
SWEEP_S = 120.0
CLOCKS_DIFFER_BY = timedelta(seconds=40)

# As long as another primary may lag behind what the stream told, and longer.
_REMEMBER_S = 30.0
_ENDS_STREAM = ("drop", "rename", "dropDatabase", "invalidate")


class StreamLostError(Exception):
    """What changed meanwhile can no longer be learnt."""


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
                raise StreamLostError(event["operationType"])
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

    def __init__(self, jobs: ReadCollection, stop: threading.Event) -> None:
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


def open_changes(jobs: ReadCollection, token: Document | None, stop: threading.Event) -> Changes:
    """The changes from now on, or from where a `token` says; StreamLostError if that is too old."""
    try:
        return StreamedChanges(jobs.collection, token, stop)
    except OperationFailure as error:
        if error.code != NOT_A_REPLICA_SET:
            raise
    return PolledChanges(jobs, stop)


def _lost(error: OperationFailure) -> Exception:
    return StreamLostError(str(error)) if error.code in STREAM_LOST else error
