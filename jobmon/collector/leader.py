"""Leader election: one collector works, other collectors wait until its lease ends."""

import os
import socket
import threading
import time
import uuid
from datetime import datetime, timedelta
from typing import NamedTuple

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from jobmon.rollup.documents import LEADER, LEASES, OwnDatabase
from jobmon.store.mapping import Document

# Shorter than `MAX_STATS_AGE_MS`: after a crash another collector takes over before stats expire.
LEASE_MS = 4_000
RENEW_EVERY_S = 1.0
GROUP_IS_LATE_AFTER_S = 2.0  # then a lease is renewed without its group
_LEASE = timedelta(milliseconds=LEASE_MS)
_EXPIRY: Document = {"$add": ["$$NOW", LEASE_MS]}


class LeaseLostError(Exception):
    """Another collector works now, or the lease was removed."""


def make_holder() -> str:
    """A new name for a holder of leases; it contains the host name and the process id."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class LeaseGroup:
    """The leases of all queues of a process, renewed together by one thread.

    A lease is renewed only if `request` was called for it since the last renewal: if its collector
    hangs, the lease ends.
    """

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._lock = threading.Lock()
        self._requested = set[str]()
        self._renewals = dict[str, _Renewal]()

    def request(self, lease_id: str) -> "_Renewal | None":
        """Request the next renewal of a lease; returns the last renewal, None before the first."""
        with self._lock:
            self._requested.add(lease_id)
            return self._renewals.get(lease_id)

    def renew(self, leases: Collection[Document]) -> None:
        """Renew the requested leases that this holder still has; raises PyMongoError."""
        with self._lock:
            requested, self._requested = list(self._requested), set()
        started = time.monotonic()
        query: Document = {"_id": {"$in": requested}, "holder": self._holder}
        leases.update_many(query, [{"$set": {"expiresAt": _EXPIRY}}])
        renewed = {
            lease["_id"]: _Renewal(started, lease["expiresAt"] - _LEASE, time.monotonic())
            for lease in leases.find(query)
        }
        with self._lock:
            self._renewals |= renewed


class _Renewal(NamedTuple):
    """When a renewal was sent and answered (monotonic), and its `time` by the database's clock."""

    sent_at: float
    time: datetime
    answered_at: float


class LeaderLease:
    """The right to write the rollup: one holder has it at a time, by the database's clock.

    With a `group` the group's thread renews it; `renew` does so only if the group is late.
    Other work, such as the actor's, has a lease with another `name` or in another `collection`.
    """

    def __init__(
        self,
        own: OwnDatabase,
        holder: str,
        group: LeaseGroup | None = None,
        *,
        name: str = LEADER,
        collection: str = LEASES,
    ) -> None:
        self._group = group
        self._leases = own[collection]
        self._key: Document = {"_id": own.id(name)}
        self._scope: Document = {**own.scope, "name": name}
        self.holder = holder
        self._last: _Renewal | None = None

    def take(self) -> bool:
        """Take the lease if it is free, or renew it; returns False if another holder has it."""
        sent_at = time.monotonic()
        # A new lease has no `expiresAt`, and a missing value sorts before all dates.
        may_take = {"$or": [{"$eq": ["$holder", self.holder]}, {"$lt": ["$expiresAt", "$$NOW"]}]}
        change: Document = {
            **self._scope,
            "holder": {"$cond": [may_take, self.holder, "$holder"]},
            "expiresAt": {"$cond": [may_take, _EXPIRY, "$expiresAt"]},
        }
        try:
            lease = self._leases.find_one_and_update(
                self._key, [{"$set": change}], upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:  # another collector has just created it
            return False
        if lease is None or lease["holder"] != self.holder:
            return False
        self._last = _Renewal(sent_at, lease["expiresAt"] - _LEASE, time.monotonic())
        if self._group is not None:  # so that the group renews the lease from now on
            self._group.request(self._key["_id"])
        return True

    def database_time(self) -> datetime:
        """The time by the database's clock, from the last renewal: no command is sent.

        It is behind by at most the round trip of that renewal. Call `take` first.
        """
        assert self._last is not None  # noqa: S101
        return self._last.time + timedelta(seconds=time.monotonic() - self._last.answered_at)

    def renew(self) -> None:
        """Renew the lease if that is due; raises LeaseLostError if another holder has it."""
        renew_after_s = RENEW_EVERY_S
        if self._group is not None:
            renew_after_s = GROUP_IS_LATE_AFTER_S
            renewal = self._group.request(self._key["_id"])
            if renewal and (self._last is None or renewal.sent_at > self._last.sent_at):
                self._last = renewal
        renewed_at = 0.0 if self._last is None else self._last.sent_at
        if time.monotonic() > renewed_at + renew_after_s and not self.take():
            raise LeaseLostError

    def release(self) -> None:
        """Delete the lease, so that another holder can take over at once."""
        self._leases.delete_one({**self._key, "holder": self.holder})

    def end(self) -> None:
        """Let another holder take over at once, but keep the document with the end of the lease."""
        ended: Document = {"expiresAt": {"$subtract": ["$$NOW", 1]}}
        self._leases.update_one({**self._key, "holder": self.holder}, [{"$set": ended}])
