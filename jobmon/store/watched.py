"""How a query reaches a watched collection: in the documents' words, with its index named, under a
time limit, and marked with the request that it serves."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pymongo.collection import Collection
from pymongo.errors import ExecutionTimeout, OperationFailure
from pymongo.read_concern import ReadConcern
from structlog.contextvars import get_contextvars

from jobmon.store.names import Document, Keys, Names

log = logging.getLogger(__name__)
T = TypeVar("T")
Hint = dict[str, int] | None

Each = Callable[[Document], Document]


def _as_it_is(document: Document) -> Document:
    return document


_BAD_VALUE, _INDEX_NOT_FOUND = 2, 27
_SNAPSHOT = ReadConcern("snapshot")


class Watched:
    """A collection that is only read; every method raises PyMongoError when it cannot be.

    Queries, orders and indexes are given, and documents returned, in the contract's words.
    An index that does not exist is done without, and said so once; `strictly` it is a failure.
    """

    def __init__(
        self, collection: Callable[[], Collection[Document]], names: Names, max_time_ms: int
    ) -> None:
        self._collection = collection
        self.names = names
        self.max_time_ms = max_time_ms
        self._warned: set[str] = set()

    @property
    def collection(self) -> Collection[Document]:
        """The collection itself, on this process's client."""
        return self._collection()

    def find(
        self,
        query: Document,
        fields: Iterable[str] | None = None,
        *,
        index: Keys | None = None,
        order: Keys | None = None,
        skip: int = 0,
        limit: int = 0,
        strictly: bool = False,
        each: Each = _as_it_is,
    ) -> list[Document]:
        """Documents, all of them if `limit` is 0; with these `fields`, or all.

        What `each` makes of one is kept, and the document let go before the next batch comes.
        """

        def run(hint: Hint) -> list[Document]:
            found = self.collection.find(
                self.names.query(query),
                self.names.projection(fields),
                sort=self.names.order(order or []) or None,
                skip=skip,
                limit=limit,
                batch_size=limit,
                hint=hint,
                **self._limits("max_time_ms"),
            )
            return [each(self.names.document(document)) for document in found]

        return self._with_index(index, run, strictly=strictly)

    def aggregate(
        self,
        pipeline: list[Document],
        *,
        index: Keys | None = None,
        batch_size: int | None = None,
        strictly: bool = False,
        at_one_moment: bool = False,
        each: Each = _as_it_is,
    ) -> list[Document]:
        """What the pipeline gives, and `each` makes of it.

        `at_one_moment`: without it a document that moves in the index meanwhile may be met twice,
        or not at all. It is the newest moment that a majority of the replica set has; a server that
        cannot tell one, being alone for instance, does without.
        """
        stages = self.names.pipeline(pipeline)

        def run(hint: Hint) -> list[Document]:
            options: dict[str, Any] = {"hint": hint, "batchSize": batch_size}
            given = {name: value for name, value in options.items() if value is not None}

            def ask(collection: Collection[Document]) -> list[Document]:
                found = collection.aggregate(stages, **given, **self._limits())
                return [each(document) for document in found]

            if at_one_moment:
                try:
                    return ask(self.collection.with_options(read_concern=_SNAPSHOT))
                except OperationFailure as error:
                    if isinstance(error, ExecutionTimeout) or is_bad_hint(error):
                        raise
            return ask(self.collection)

        return self._with_index(index, run, strictly=strictly)

    def count(self, query: Document, *, index: Keys | None, limit: int | None = None) -> int:
        """How many documents match, up to `limit`."""

        def run(hint: Hint) -> int:
            options: dict[str, Any] = {"hint": hint, "limit": limit}
            given = {name: value for name, value in options.items() if value is not None}
            said = self.names.query(query)
            return self.collection.count_documents(said, **given, **self._limits())

        return self._with_index(index, run)

    def estimated_count(self) -> int:
        """How many documents there are, as the metadata has it."""
        return self.collection.estimated_document_count(**self._limits())

    def plan(self, index: Keys) -> Any:
        """The plan of a query for everything, by an index."""

        def run(hint: Hint) -> Any:
            everything = self.collection.find(
                {}, limit=1, hint=hint, max_time_ms=self.max_time_ms
            ).explain()
            return everything["queryPlanner"]["winningPlan"]

        return self._with_index(index, run)

    def _limits(self, max_time: str = "maxTimeMS") -> dict[str, Any]:
        return {max_time: self.max_time_ms} | mark()

    def _with_index(
        self, index: Keys | None, run: Callable[[Hint], T], *, strictly: bool = False
    ) -> T:
        keys = None if index is None else self.names.keys(index)
        if keys is None:
            return run(None)
        try:
            return run(dict(keys))
        except OperationFailure as error:
            if strictly or not is_bad_hint(error):
                raise
        if str(keys) not in self._warned:
            self._warned.add(str(keys))
            log.warning("no index on %s: queries will be slow; `jobmon init` makes it", dict(keys))
        return run(None)


def mark() -> dict[str, Any]:
    """The option by which a query is known, in MongoDB's profiler and logs, as one of a request."""
    request_id = get_contextvars().get("request_id")
    return {} if request_id is None else {"comment": f"jobmon {request_id}"}


def is_bad_hint(error: OperationFailure) -> bool:
    """Whether a query failed only because the index that it hints at does not exist."""
    return error.code in (_BAD_VALUE, _INDEX_NOT_FOUND) and "hint" in str(error).lower()
