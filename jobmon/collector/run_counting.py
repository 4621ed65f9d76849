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

    Counting waits until all queues of this process have stats (15 s at most) and few others begin,
    unless it is urgent. Methods raise PyMongoError, and LeaseLostError if another collector counts.
    """

    def __init__(self, connection: Connection, counter: EventCounter | None, share: Share) -> None:
        self._connection = connection
        self._share = share
        self.counter = counter
        self._check_at = time.monotonic() + CHECK_EVERY_S
        # Set when counting begins, when nothing is counted from changes, and when the work ends.
        self.begun = threading.Event()

    @property
    def is_waiting(self) -> bool:
        """Whether changes are kept to be counted later; write no checkpoint while this is true."""
        return self.counter is not None and self.counter.must_begin

    @property
    def counted_until(self) -> datetime | None:
        """The time up to which changes are counted; None if they are not counted."""
        return None if self.counter is None else self.counter.counted_until

    def open_new_changes(self, counted_until: datetime | None, stop: threading.Event) -> Changes:
        """The changes from now on; call `begin` to count them.

        Without a stream, a gap is recorded, and runs are not counted from changes any more.
        `counted_until`: the time up to which earlier changes were counted; None if none were.
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
                self.counter.prepare(now, changes.token["_data"], counted_until)
        except BaseException:
            changes.close()
            raise
        return changes

    def can_resume(self, checkpoint: Checkpoint) -> bool:
        """Whether `resume` can count the changes since this checkpoint."""
        if self.counter is None:
            return True
        return checkpoint.counted_until is not None and self.counter.first_minute is not None

    def resume(self, checkpoint: Checkpoint, token: Document, stop: threading.Event) -> Changes:
        """The changes since this checkpoint.

        Raises StreamLostError, and for a malformed checkpoint KeyError or TypeError.
        """
        jobs, counter = self._connection.jobs, self.counter
        if counter is None or checkpoint.counted_until is None:
            return open_changes(jobs, token, stop)
        counter.resume(token["_data"], checkpoint.jobs, checkpoint.counted_until)
        return open_changes(jobs, token, stop, fields=counter.rules.top_level_fields)

    def begin(self) -> None:
        """Begin to count the changes that were prepared, if any."""
        if self.counter is not None and self.counter.must_begin:
            self.counter.begin()
        self.begun.set()

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
