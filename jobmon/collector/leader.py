"""Leader election: one collector works, the others wait until its lease ends."""

import os
import socket
import time
import uuid
from datetime import datetime, timedelta

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from jobmon.rollup.documents import LEADER, LEASES, OwnDatabase
from jobmon.store.mapping import Document

# Shorter than `MAX_STATS_AGE_MS`: after a crash another collector takes over before stats expire.
LEASE_MS = 4_000
RENEW_EVERY_S = 1.0


class LeaseLostError(Exception):
    """Another collector works now."""


def make_holder() -> str:
    """A new name for what holds leases, with the machine and the process."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class LeaderLease:
    """Who may write the rollup: one holder at a time, by the database's clock."""

    def __init__(self, own: OwnDatabase, holder: str) -> None:
        self._leases = own[LEASES]
        self._key: Document = {"_id": own.id(LEADER)}
        self._scope: Document = {**own.scope, "name": LEADER}
        self.holder = holder
        self._renewed_at = 0.0
        # The database's time when the lease was renewed, and this process's time after that.
        self._clock: tuple[datetime, float] | None = None

    def take(self) -> bool:
        """Take the lease if it is free, or renew it; False while another collector has it."""
        self._renewed_at = time.monotonic()
        # A lease that does not exist yet has no date; MongoDB sorts that before any date.
        is_ours = {"$or": [{"$eq": ["$holder", self.holder]}, {"$lt": ["$expiresAt", "$$NOW"]}]}
        expiry = {"$add": ["$$NOW", LEASE_MS]}
        change: Document = {
            **self._scope,
            "holder": {"$cond": [is_ours, self.holder, "$holder"]},
            "expiresAt": {"$cond": [is_ours, expiry, "$expiresAt"]},
        }
        try:
            lease = self._leases.find_one_and_update(
                self._key, [{"$set": change}], upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:  # another collector created it in this moment
            return False
        if lease is None or lease["holder"] != self.holder:
            return False
        self._clock = lease["expiresAt"] - timedelta(milliseconds=LEASE_MS), time.monotonic()
        return True

    def database_time(self) -> datetime:
        """The time by the database's clock, from the last renewal: no command is sent.

        It is late by at most that renewal's round trip. The lease must be taken.
        """
        assert self._clock is not None  # noqa: S101
        at, seen_at = self._clock
        return at + timedelta(seconds=time.monotonic() - seen_at)

    def renew(self) -> None:
        """Renew the lease once a second; LeaseLostError if another collector has it."""
        if time.monotonic() > self._renewed_at + RENEW_EVERY_S and not self.take():
            raise LeaseLostError

    def release(self) -> None:
        """Let another collector take over at once."""
        self._leases.delete_one({**self._key, "holder": self.holder})
