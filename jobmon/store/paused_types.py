"""Reads which types of jobs are paused, from the list that `jobmon.queue` honours."""

from collections.abc import Iterable

from jobmon.domain import CONTROLS, PAUSED
from jobmon.single_flight import SingleFlight
from jobmon.store.connection import Connection
from jobmon.store.read_collection import request_comment

CACHE_MS = 1_000


class PausedTypes:
    """The paused types of a queue of `jobmon.queue`; raises PyMongoError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._types = SingleFlight(self._read, CACHE_MS)

    def find(self) -> frozenset[str]:
        """The types, kept for a second. Index: _id."""
        return self._types.get()

    def _read(self) -> frozenset[str]:
        controls = self._connection.database[CONTROLS]
        limit = self._connection.max_time_ms
        found = controls.find_one({"_id": PAUSED}, max_time_ms=limit, **request_comment())
        names = (found or {}).get("types")
        return frozenset(name for name in _list_values(names) if isinstance(name, str))


def _list_values(stored: object) -> Iterable[object]:
    return stored if isinstance(stored, list) else ()
