"""Decides whether and when a collector starts to count the runs of its queue from changes."""

import threading
import time
from datetime import datetime

from bson import Timestamp

from jobmon.collector.changes import Changes, open_changes
from jobmon.collector.checkpoint import Checkpoint
from jobmon.collector.event_counter import EventCounter
from jobmon.collector.share import Share
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document

CHECK_EVERY_S = 5.0  # between two checks whether attempts are recorded now
COUNT_FOR_S = 0.5  # the time for which a call of `count` counts; meanwhile, the stats wait


class RunCounting:
    """Counts runs with `counter`, which is None if attempts are recorded or there is no stream.

    Counting begins when no queue of this process waits for its first stats (for up to 15 s), or
    once it is urgent. Methods raise PyMongoError, and LeaseLostError if another collector counts.
    """

    def __init__(self, connection: Connection, counter: EventCounter | None, share: Share) -> None:
        self._connection = connection
        self._share = share
        self.counter = counter
        self._check_at = time.monotonic() + CHECK_EVERY_S
        self.has_begun = threading.Event()  # also set if nothing is counted from changes

    @property
    def is_waiting(self) -> bool:
        """Whether changes are kept to be counted later; write no checkpoint while this is true."""
        return self.counter is not None and self.counter.must_begin

    @property
    def seen_until(self) -> datetime | None:
        """The time up to which changes are counted; None if they are not counted."""
        return None if self.counter is None else self.counter.seen_until

    def open_new_changes(self, seen_until: datetime | None, stop: threading.Event) -> Changes:
        """The changes from now on; call `begin` to count them.

        Without a stream, a gap is recorded, and runs are not counted from changes any more.
        `seen_until`: the time up to which earlier changes were counted; None if none were counted.
        """
        if self.counter is None:
            return open_changes(self._connection.jobs, None, stop)
        now = self._connection.cluster_time()
        start = None if now is None else Timestamp(now.time, now.inc + 1)
        fields = self.counter.rules.top_level_fields
        changes = open_changes(self._connection.jobs, None, stop, start=start, fields=fields)
        try:
            if now is None or changes.token is None:
                self.counter.record_missing_stream()
                self.counter = None
            else:
                self.counter.prepare(now, changes.token["_data"], seen_until)
        except BaseException:
            changes.close()
            raise
        return changes

    def can_resume(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint has what `resume` needs to count the changes since then."""
        if self.counter is None:
            return True
        return checkpoint.seen_until is not None and self.counter.boundary is not None

    def resume(self, checkpoint: Checkpoint, token: Document, stop: threading.Event) -> Changes:
        """The changes since this checkpoint.

        Raises StreamLostError, and for a malformed checkpoint KeyError or TypeError.
        """
        jobs, counter = self._connection.jobs, self.counter
        if counter is None or checkpoint.seen_until is None:
            return open_changes(jobs, token, stop)
        counter.resume(token["_data"], checkpoint.jobs, checkpoint.seen_until)
        return open_changes(jobs, token, stop, fields=counter.rules.top_level_fields)

    def begin(self) -> None:
        """Begin to count the changes that were prepared, if any."""
        if self.counter is not None and self.counter.must_begin:
            self.counter.begin()
        self.has_begun.set()

    def begin_if_allowed(self) -> None:
        """Begin if it is urgent, or if no queue waits for its first stats and few others begin."""
        if self.counter is None or not self.counter.must_begin or self.counter.is_begin_urgent:
            self.begin()
        elif not self._share.is_starting():
            with self._share.try_to_begin(self._connection) as is_allowed:
                if is_allowed:
                    self.begin()

    def count(self) -> None:
        """Count changes for about half a second; stop for good if attempts are recorded now."""
        self.begin_if_allowed()
        if self.counter is None or self.counter.must_begin:
            return
        self.counter.count(COUNT_FOR_S)
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + CHECK_EVERY_S
            if self._connection.has_recorded_attempts():
                self.counter.stop()
                self.counter = None

    def dump(self) -> list[Document]:
        """The jobs to remember in a checkpoint; all changes are counted first."""
        return [] if self.counter is None else self.counter.dump()
