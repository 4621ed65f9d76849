"""Divides many queues among the collector processes that run."""

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import PyMongoError

from jobmon.collector.leader import LEASE_MS, LeaseGroup, make_holder
from jobmon.rollup.documents import FORMAT, LEASES
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document

RENEW_EVERY_S = 1.0
_EXPIRED_TTL_MS = 3_600_000  # how long the entry of a process is kept after its lease has expired
# How many histories of a deployment are counted at the same time: they must not delay first stats.
HISTORY_SLOTS = 4
# How many queues of a deployment begin to count changes at the same time: their stats wait for it.
BEGIN_SLOTS = 4
STATS_FIRST_S = 15.0  # the longest that other work waits for first stats, which may take minutes


class Share:
    """Limits how many queues this process works on: all queues, divided by the running processes.

    Each process has an entry in jobmon's own database, with a lease. Processes that list the same
    queues share them; `run` keeps the entry and the number of processes up to date.
    """

    def __init__(self, queues: Sequence[Settings]) -> None:
        self._total = len(queues)
        names = sorted(
            f"{queue.queue} {queue.jobs_collection} {queue.mongo_uri.rpartition('@')[2]}"
            for queue in queues
        )
        group = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
        self._scope: Document = {"format": FORMAT, "name": "process", "group": group}
        self.holder = make_holder()  # this process's name in the leases of these queues
        self.lease_group = LeaseGroup(self.holder) if len(queues) > 1 else None
        self._id = f"{FORMAT}/process/{self.holder}"
        self._history_slots = {
            queue.mongo_uri: threading.Semaphore(HISTORY_SLOTS) for queue in queues
        }
        self._begin_slots = {queue.mongo_uri: threading.Semaphore(BEGIN_SLOTS) for queue in queues}
        self._lock = threading.Condition()
        self._starting = dict[str, float]()  # queue without stats -> its start (monotonic)
        self._has_started = set[str]()
        self._max_reserved = self._total
        self._reserved = 0
        self._leaving = 0  # places that must be left, but are still in use

    @contextmanager
    def reserve(self, queue: str) -> Iterator[bool]:
        """Reserve a place for a queue during this block; yields False if no place is free."""
        with self._lock:
            has_place = self._reserved < self._max_reserved
            self._reserved += has_place
        try:
            yield has_place
        finally:
            self.report_stats(queue)
            if has_place:
                with self._lock:
                    self._reserved -= 1
                    self._leaving = max(0, self._leaving - 1)

    def report_start(self, queue: str) -> None:
        """Report that a queue with a place starts its first count; later reports have no effect."""
        with self._lock:
            if queue not in self._has_started:
                self._starting[queue] = time.monotonic()
            self._has_started.add(queue)

    def report_stats(self, queue: str) -> None:
        """Report that a queue has stats, or has left its place."""
        with self._lock:
            if self._starting.pop(queue, None) is not None:
                self._lock.notify_all()

    def is_starting(self) -> bool:
        """Whether a queue that started in the last `STATS_FIRST_S` seconds has no stats yet.

        Work that is less urgent than these stats should wait.
        """
        since = time.monotonic() - STATS_FIRST_S
        return any(at > since for at in self._starting.copy().values())

    def await_start(self, stop: threading.Event) -> None:
        """Wait for up to `STATS_FIRST_S` seconds, until no queue is starting or `end` sets `stop`.

        The caller checks `stop`.
        """
        with self._lock:
            self._lock.wait_for(lambda: stop.is_set() or not self.is_starting(), STATS_FIRST_S)

    def end(self, stop: threading.Event) -> None:
        """Set `stop`, and end the call of `await_start` that waits with it."""
        with self._lock:
            stop.set()
            self._lock.notify_all()

    def decide_release(self) -> bool:
        """Whether the caller must end its `reserve` block, because too many queues have a place.

        If two queues are too many, only the next two calls return True.
        """
        with self._lock:
            exceeds = self._reserved - self._leaving > self._max_reserved
            self._leaving += exceeds
            return exceeds

    def history_slots(self, connection: Connection) -> threading.Semaphore:
        """The semaphore that limits how many histories of the queue's deployment are counted."""
        return self._history_slots[connection.settings.mongo_uri]

    @contextmanager
    def try_to_begin(self, connection: Connection) -> Iterator[bool]:
        """Yields whether a queue may begin to count changes in this block; see `BEGIN_SLOTS`."""
        slots = self._begin_slots[connection.settings.mongo_uri]
        is_allowed = slots.acquire(blocking=False)
        try:
            yield is_allowed
        finally:
            if is_allowed:
                slots.release()

    def run(self, database: Callable[[], Database[Document]], stop: threading.Event) -> None:
        """Renew this process's entry and its leases until `stop` is set; then delete the entry."""
        while not stop.is_set():
            with suppress(PyMongoError):  # until it succeeds, this process keeps its queues
                self._update_entry(database()[LEASES])
            stop.wait(RENEW_EVERY_S)
        with suppress(PyMongoError):
            database()[LEASES].delete_one({"_id": self._id})

    def _update_entry(self, leases: Collection[Document]) -> None:
        if self.lease_group is not None:
            self.lease_group.renew(leases)
        expiry = {"$add": ["$$NOW", LEASE_MS]}
        leases.update_one(
            {"_id": self._id}, [{"$set": {**self._scope, "expiresAt": expiry}}], upsert=True
        )
        expired = {"$lt": ["$expiresAt", {"$subtract": ["$$NOW", _EXPIRED_TTL_MS]}]}
        leases.delete_many({**self._scope, "$expr": expired})
        alive = {"$expr": {"$gt": ["$expiresAt", "$$NOW"]}}
        processes = leases.count_documents({**self._scope, **alive})
        with self._lock:
            self._max_reserved = math.ceil(self._total / max(1, processes))
