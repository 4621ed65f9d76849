"""Checks whether the database answers and the watched collections can be read."""

import logging
import time
from dataclasses import dataclass

import pymongo
from pymongo.errors import PyMongoError

from jobmon.single_flight import SingleFlight
from jobmon.store.client import UnresolvedHostError
from jobmon.store.connection import Connection
from jobmon.store.failures import Failure, classify_failure, describe_error, is_unauthorized

log = logging.getLogger(__name__)

CACHE_TTL_MS = 1_000
_READ_TIMEOUT_S = 1.0
_BUSY = "the server answers too slowly"
_REASONS = {
    Failure.UNREACHABLE: "no server answers",
    Failure.INTERRUPTED: "the server ended the query",
    Failure.TOO_SLOW: _BUSY,
    Failure.TOO_LARGE: "the server has too little memory",
    Failure.REFUSED: "authentication failed",
    None: "the check itself failed",
}


@dataclass(frozen=True, kw_only=True)
class DatabaseHealth:
    """The result of a check.

    `is_up`: a server responded. `ping_ms`: how long the response to a ping took; None if the check
    failed. `is_readable`: whether the user may read the watched collections, None if unknown.
    `is_ready`: whether this instance can serve; also true if the server responds to a ping but is
    too busy for a read, because another instance would have the same problem. `reason`: why
    `is_readable` is not True, without secrets.
    """

    ping_ms: float | None = None
    is_up: bool
    is_readable: bool | None
    is_ready: bool
    reason: str | None = None


class DatabaseProbe:
    """Checks the database at most once a second, within a bounded time.

    A failure is logged when it begins, changes or ends, not with each check. A busy server is not
    logged.
    """

    def __init__(self, connection: Connection, timeout_ms: int) -> None:
        self._connection = connection
        self._timeout_s = timeout_ms / 1_000
        self._checks = SingleFlight(self._run_check, CACHE_TTL_MS)
        self._reason: str | None = None

    def check(self) -> DatabaseHealth:
        """The health of the database, at most a second old."""
        return self._checks.get()

    def _run_check(self) -> DatabaseHealth:
        started, ping_ms = time.perf_counter(), None
        try:
            with pymongo.timeout(self._timeout_s):
                self._connection.ping()
            ping_ms = round((time.perf_counter() - started) * 1_000, 1)
            refused, is_busy = self._try_to_read()
        except Exception as error:  # noqa: BLE001 - any failure is a result
            return self._handle_failure(error, ping_ms)
        if refused:
            reason = f"not authorized to read {', '.join(refused)}"
            self._log_change(reason)
            return DatabaseHealth(
                ping_ms=ping_ms, is_up=True, is_readable=False, is_ready=False, reason=reason
            )
        if is_busy:
            return DatabaseHealth(
                ping_ms=ping_ms, is_up=True, is_readable=None, is_ready=True, reason=_BUSY
            )
        self._log_change(None)
        return DatabaseHealth(ping_ms=ping_ms, is_up=True, is_readable=True, is_ready=True)

    def _try_to_read(self) -> tuple[list[str], bool]:
        """The watched collections that the user may not read, and whether a read took too long."""
        refused, is_busy = list[str](), False
        for collection in (self._connection.jobs, self._connection.attempts):
            if collection is None:
                continue
            try:
                with pymongo.timeout(min(_READ_TIMEOUT_S, self._timeout_s)):
                    collection.touch()
            except PyMongoError as error:
                if error.timeout:
                    is_busy = True
                elif is_unauthorized(error):
                    refused.append(collection.collection.name)
                else:
                    raise
        return refused, is_busy

    def _handle_failure(self, error: Exception, ping_ms: float | None) -> DatabaseHealth:
        failure = classify_failure(error)
        reason = _REASONS[failure]
        if isinstance(error, UnresolvedHostError):
            reason = "the host name is not resolved"
        detail = describe_error(error) if isinstance(error, PyMongoError) else None
        self._log_change(reason, detail, None if failure else error)
        is_up = failure is not Failure.UNREACHABLE and (failure is not None or ping_ms is not None)
        is_readable = False if failure is Failure.REFUSED else None
        return DatabaseHealth(is_up=is_up, is_readable=is_readable, is_ready=False, reason=reason)

    def _log_change(
        self, reason: str | None, detail: str | None = None, error: Exception | None = None
    ) -> None:
        """Log the reason of a failure, or None at its end, unless the last check had the same."""
        if reason == self._reason:
            return
        self._reason = reason
        if reason is None:
            log.warning("the watched collections can be read again")
        else:
            suffix = f" ({detail})" if detail else ""
            log.error(
                "the watched collections cannot be read: %s%s", reason, suffix, exc_info=error
            )
