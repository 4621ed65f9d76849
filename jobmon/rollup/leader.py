"""Which collector works: one of many, the others wait."""

import os
import socket
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pymongo.errors import DuplicateKeyError

from jobmon.rollup.documents import OwnDatabase
from jobmon.store.mapping import Document

LEASES = "leases"
LEASE = "collector"  # its name among the documents of a queue
LEASE_MS = 10_000
RENEW_EVERY_S = 3.0


class LeaseLostError(Exception):
    """Another collector may be working now."""


class LeaderLease:
    """Who may write the rollup: one holder at a time, by the database's clock.

    One whose process has died on this machine is not waited for.
    """

    def __init__(self, own: OwnDatabase) -> None:
        self._leases = own[LEASES]
        self._key: Document = {"_id": own.id(LEASE)}
        self._kept: Document = {**own.scope, "name": LEASE}
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._mine: Document = {"holder": self.holder, "process": _process(os.getpid())}
        self._good_until = 0.0
        self._taken_at = 0.0

    def take(self) -> bool:
        """Take the lease, or hold on to it; False while another collector has it."""
        asked_at = time.monotonic()
        free_or_mine: Document = {
            "$or": [{"holder": self.holder}, {"$expr": {"$lt": ["$expiresAt", "$$NOW"]}}]
        }
        if not self._take_from(free_or_mine):
            other = self._leases.find_one(self._key)
            if other is None:  # never taken so far, or the rollup database was dropped
                if not self._create():
                    return False
            elif not _is_dead(other) or not self._take_from({"holder": other.get("holder")}):
                return False
        self._taken_at = asked_at
        self._good_until = asked_at + LEASE_MS / 1_000
        return True

    def _take_from(self, whom: Document) -> bool:
        """Take the lease if it is as `whom` says; whether it was."""
        until: Document = {"expiresAt": {"$add": ["$$NOW", LEASE_MS]}}
        held = self._leases.find_one_and_update(
            {**self._key, **whom}, [{"$set": self._kept | self._mine | until}]
        )
        return held is not None

    def _create(self) -> bool:
        """Take the lease where there is none; whether nobody else has meanwhile."""
        until = datetime.now(UTC) + timedelta(milliseconds=LEASE_MS)
        try:
            self._leases.insert_one(self._key | self._kept | self._mine | {"expiresAt": until})
        except DuplicateKeyError:
            return False
        return True

    def keep(self) -> None:
        """Renew when it is time to; LeaseLostError when another collector may work now."""
        now = time.monotonic()
        if now > self._good_until:
            raise LeaseLostError
        if now > self._taken_at + RENEW_EVERY_S and not self.take():
            raise LeaseLostError

    def give_up(self) -> None:
        """Let another collector take over at once."""
        self._leases.delete_one({**self._key, "holder": self.holder})


def _process(pid: int) -> Document | None:
    """What tells a process of this machine from all others; None where the system does not say."""
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None
    return {"host": socket.gethostname(), "kernel": kernel, "namespace": namespace, "pid": pid}


def _is_dead(lease: Document) -> bool:
    """Whether the holder is known to have ended: it was a process of this machine's, and is not."""
    process, holder = lease.get("process"), lease.get("holder")
    if not isinstance(process, dict) or not isinstance(holder, str):
        return False
    pid = process.get("pid")
    if not isinstance(pid, int) or process != _process(pid):
        return False
    if not holder.startswith(f"{process['host']}:{pid}:"):
        return False  # of one before, whom a collector that does not say its process has followed
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # else it is another user's
    return False
