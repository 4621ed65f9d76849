"""Reads which types of jobs are paused, from the list that the workers of `jobmon.queue` read."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pymongo.errors import PyMongoError

from jobmon.domain import CONTROLS, PAUSED
from jobmon.single_flight import SingleFlight
from jobmon.store.connection import Connection
from jobmon.store.failures import describe_error, is_unauthorized
from jobmon.store.read_collection import request_comment

log = logging.getLogger(__name__)

CACHE_MS = 1_000


@dataclass(frozen=True, kw_only=True)
class TypePause:
    """The pause of a type: since when (UTC), by whom and why. Unknown values are None or empty."""

    since: datetime | None = None
    by: str | None = None
    reason: str = ""


Pauses = Mapping[str, TypePause]


class PausedTypes:
    """The paused types of a queue of `jobmon.queue`.

    `describe` finds when, by whom and why types were paused; it may raise PyMongoError.
    """

    def __init__(
        self,
        connection: Connection,
        describe: Callable[[frozenset[str]], Pauses] | None = None,
    ) -> None:
        self._connection = connection
        self._describe = describe
        self._pauses = SingleFlight(self._read, CACHE_MS)

    def find(self) -> Pauses | None:
        """The paused types, kept for a second; None if they cannot be read. Index: _id."""
        return self._pauses.get()

    def _read(self) -> Pauses | None:
        controls = self._connection.database[CONTROLS]
        limit = self._connection.max_time_ms
        try:
            stored = controls.find_one({"_id": PAUSED}, max_time_ms=limit, **request_comment())
        except PyMongoError as error:
            if not is_unauthorized(error):  # `jobmon check` reports a missing right
                log.error("the paused types cannot be read: %s", describe_error(error))
            return None
        types = (stored or {}).get("types")
        values = types if isinstance(types, list) else []
        names = frozenset(name for name in values if isinstance(name, str))
        return {**dict.fromkeys(names, TypePause()), **self._find_details(names)}

    def _find_details(self, names: frozenset[str]) -> Pauses:
        if self._describe is None or not names:
            return {}
        try:
            return self._describe(names)
        except PyMongoError as error:
            log.error("the details of the pauses cannot be read: %s", describe_error(error))
            return {}
