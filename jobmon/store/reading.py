"""How a query reaches the server: with its index named, and under its time limit."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from pymongo.errors import OperationFailure

from jobmon.store import indexes
from jobmon.store.connection import Connection, Document

log = logging.getLogger(__name__)
T = TypeVar("T")
Hint = dict[str, int] | None


class Reader:
    """Runs queries on the watched jobs; PyMongoError when they cannot be read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._warned: set[str] = set()

    def with_index(self, keys: indexes.Keys, run: Callable[[Hint], T]) -> T:
        """Run a query with its index; without it, as well as it goes, and say so once."""
        try:
            return run(dict(keys))
        except OperationFailure as error:
            if not indexes.is_bad_hint(error):
                raise
        if str(keys) not in self._warned:
            self._warned.add(str(keys))
            log.warning("no index on %s: queries will be slow; `jobmon init` makes it", dict(keys))
        return run(None)

    def count(self, query: Document, index: indexes.Keys, limit: int | None) -> int:
        """How many jobs match, up to `limit`."""

        def run(hint: Hint) -> int:
            options = self.options(limit=limit, hint=hint)
            return self._connection.jobs.count_documents(query, **options)

        return self.with_index(index, run)

    def options(self, **options: Any) -> dict[str, Any]:
        """A command's options: the server refuses one that is null."""
        options["maxTimeMS"] = self._connection.max_time_ms
        return {name: value for name, value in options.items() if value is not None}
