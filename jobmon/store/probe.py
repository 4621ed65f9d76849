"""Whether the database answers, and lets jobmon read what it watches: for probes and metrics."""

import logging
import time
from dataclasses import dataclass

import pymongo
from pymongo.errors import PyMongoError

from jobmon.single_flight import SingleFlight
from jobmon.store.connection import Connection, UnresolvedHostError
from jobmon.store.failures import Failure, classify_failure, describe_error, is_unauthorized

log = logging.getLogger(__name__)

KEEP_MS = 1_000
_READ_WITHIN_S = 1.0
_BUSY = "reading one document takes too long"
_REASONS = {
    Failure.AWAY: "no server answers",
    Failure.INTERRUPTED: "the server ended the query",
    Failure.TOO_SLOW: _BUSY,
    Failure.TOO_LARGE: "the server has too little memory",
    Failure.REFUSED: "authentication failed",
    None: "the check itself failed",
}


@dataclass(frozen=True, kw_only=True)
class DatabaseHealth:
    """What a look at the database found.

    `answers` tells whether a server is there, `ping_ms` how long it took to answer, `readable`
    whether it lets jobmon read the watched collections: None where that is not known. `reason` is
    why `readable` is not True, for anybody, without a secret. A server that answers a ping but is
    too busy to read one document in time is `ready`: no other instance would fare better.
    """

    ping_ms: float | None = None
    answers: bool
    readable: bool | None
    ready: bool
    reason: str | None = None


class _BusyError(Exception):
    """The server answers a ping, and no read within its time."""


class DatabaseProbe:
    """Looks at the database, at most once a second however many ask, within a bounded time.

    A failure is logged when it begins and when it ends, not at each look.
    """

    def __init__(self, connection: Connection, within_ms: int) -> None:
        self._connection = connection
        self._within_s = within_ms / 1_000
        self._looks = SingleFlight(self._look, KEEP_MS)
        self._reason: str | None = None

    def look(self) -> DatabaseHealth:
        """How it is now, or was a second ago."""
        return self._looks.get()

    def _look(self) -> DatabaseHealth:
        began, ping_ms = time.perf_counter(), None
        try:
            with pymongo.timeout(self._within_s):
                self._connection.ping()
            ping_ms = round((time.perf_counter() - began) * 1_000, 1)
            refused = self._refused()
        except _BusyError:
            return DatabaseHealth(
                ping_ms=ping_ms, answers=True, readable=None, ready=True, reason=_BUSY
            )
        except Exception as error:  # noqa: BLE001 - a probe answers, whatever it comes upon
            return self._failed(error, ping_ms)
        if refused:
            reason = f"not authorized to read {', '.join(refused)}"
            self._report(reason)
            return DatabaseHealth(
                ping_ms=ping_ms, answers=True, readable=False, ready=False, reason=reason
            )
        self._report(None)
        return DatabaseHealth(ping_ms=ping_ms, answers=True, readable=True, ready=True)

    def _refused(self) -> list[str]:
        """The watched collections that the user may not read; _BusyError."""
        refused = []
        for watched in (self._connection.jobs, self._connection.attempts):
            if watched is None:
                continue
            try:
                with pymongo.timeout(min(_READ_WITHIN_S, self._within_s)):
                    watched.touch()
            except PyMongoError as error:
                if error.timeout:
                    raise _BusyError from error
                if not is_unauthorized(error):
                    raise
                refused.append(watched.collection.name)
        return refused

    def _failed(self, error: Exception, ping_ms: float | None) -> DatabaseHealth:
        failure = classify_failure(error)
        reason = _REASONS[failure]
        if isinstance(error, UnresolvedHostError):
            reason = "the host name is not resolved"
        said = describe_error(error) if isinstance(error, PyMongoError) else None
        self._report(reason, said, None if failure else error)
        answers = failure is not Failure.AWAY and (failure is not None or ping_ms is not None)
        readable = False if failure is Failure.REFUSED else None
        return DatabaseHealth(answers=answers, readable=readable, ready=False, reason=reason)

    def _report(
        self, reason: str | None, said: str | None = None, error: Exception | None = None
    ) -> None:
        if reason == self._reason:
            return
        self._reason = reason
        if reason is None:
            log.warning("the watched collections can be read again")
        else:
            more = f" ({said})" if said else ""
            log.error("the watched collections cannot be read: %s%s", reason, more, exc_info=error)
