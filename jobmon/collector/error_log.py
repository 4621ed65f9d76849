"""Logs errors that repeat while a collector waits."""

import logging

from pymongo.errors import OperationFailure

from jobmon.store.failures import name_error

log = logging.getLogger(__name__)


class RepeatedErrorLog:
    """Logs a repeated error once, and again only if it changes or returns after `clear`."""

    def __init__(self, level: int, message: str) -> None:
        self._level = level
        self._message = message
        self._logged = ""

    def log(self, error: Exception) -> None:
        """Log "the collector waits, the database refuses: …", unless this line was logged last."""
        reason = _describe_error(error)
        if reason != self._logged:
            log.log(self._level, "%s, %s", self._message, reason)
        self._logged = reason

    def clear(self) -> None:
        """Forget the logged error, because it is over: it is logged again if it returns."""
        self._logged = ""


def _describe_error(error: Exception) -> str:
    if isinstance(error, OperationFailure):
        return f"the database refuses: {name_error(error)}"
    return f"the database is unreachable: {type(error).__name__}"
