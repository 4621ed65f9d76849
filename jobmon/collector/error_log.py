"""Logs errors that repeat while a collector or an actor waits."""

import logging
import math
import time

from pymongo.errors import OperationFailure

from jobmon.store.failures import name_error

log = logging.getLogger(__name__)

OVER_AFTER_S = 60.0  # an error that did not occur for this time was over: it is logged again


class RepeatedErrorLog:
    """Logs a repeated error once, and again only if it changes or returns after a minute."""

    def __init__(self, level: int, message: str) -> None:
        self._level = level
        self._message = message
        self._logged = ""
        self._occurred_at = -math.inf

    def log(self, error: Exception) -> None:
        """Log "the collector waits, the database refuses: …", unless this error is repeated."""
        reason, now = _describe_error(error), time.monotonic()
        if reason != self._logged or now > self._occurred_at + OVER_AFTER_S:
            log.log(self._level, "%s, %s", self._message, reason)
        self._logged, self._occurred_at = reason, now


def _describe_error(error: Exception) -> str:
    if isinstance(error, OperationFailure):
        return f"the database refuses: {name_error(error)}"
    return f"the database is unreachable: {type(error).__name__}"
