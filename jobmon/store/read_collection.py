"""How a query reaches a watched collection: in the documents' words, with its index named, under a
time limit, and marked with the request that it serves."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, TypeVar

from pymongo.collection import Collection
from pymongo.errors import ExecutionTimeout, OperationFailure
from pymongo.read_concern import ReadConcern
from structlog.contextvars import get_contextvars

from jobmon.store.failures import BAD_VALUE, INDEX_NOT_FOUND
from jobmon.store.mapping import IS_ARRAY, Document, FieldMapping, Keys

log = logging.getLogger(__name__)
T = TypeVar("T")
Hint = dict[str, int] | str | None

Each = Callable[[Document], Document]


def _as_it_is(document: Document) -> Document:
    return document


_SNAPSHOT = ReadConcern("snapshot")
# Strings are compared by their bytes, whatever collation the collection has.
EXACTLY = {"locale": "simple"}
_LOOK_AGAIN_S = 60.0
_KEEP_ARRAYS_S = 1.0


class ReadCollection:
    """A collection that is only read; every method raises PyMongoError when it cannot be.

    Queries, orders and indexes are given, and documents returned, in the contract's words.
    An index that does not exist is done without, and said so once; `strictly` it is a failure.
    """

    def __init__(
        self, collection: Callable[[], Collection[Document]], names: FieldMapping, max_time_ms: int
    ) -> None:
        self._collection = collection
        self.names = names
        self.max_time_ms = max_time_ms
        self._warned: set[str] = set()
        self._lookup: tuple[float, dict[str, Any]] | None = None
        self._without_arrays: dict[str, tuple[float, bool]] = {}

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

    def look_up(
        self,
        query: Document,
        *,
        by: str,
        keep: Callable[[Document], bool],
        most: int,
        order: Keys | None = None,
        each: Each = _as_it_is,
    ) -> list[Document]:
        """The first `most` documents that match and that `keep` accepts.

        `query` asks for values of the field `by`, whose index serves it under any collation. Under
        one that is not simple it matches more than these values: `keep` has to compare them.
        """
        found = self.collection.find(
            self.names.query(query),
            self.names.projection(None),
            sort=self.names.order(order or []) or None,
            batch_size=most + 1,
            **self._limits("max_time_ms") | self._collation_of_lookups(by),
        )
        kept: list[Document] = []
        with closing(found):
            for document in found:
                told = self.names.document(document)
                if keep(told):
                    kept.append(each(told))
                    if len(kept) == most:
                        break
        return kept

    def _collation_of_lookups(self, by: str) -> dict[str, Any]:
        """The simple one, unless the collection has another and the index on `by` has that, too.

        Its index serves no exact comparison then, and that of `_id` is always so.
        """
        now = time.monotonic()
        if self._lookup is None or self._lookup[0] < now - _LOOK_AGAIN_S:
            planned = self._explained({"filter": self.names.query({by: ""})})
            serves = "collation" in planned and "COLLSCAN" not in str(planned["winningPlan"])
            self._lookup = now, {"collation": None if serves else EXACTLY}
        return self._lookup[1]

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
        return self.collection.estimated_document_count(maxTimeMS=self.max_time_ms, **mark())

    def touch(self) -> None:
        """Read one _id by its index, and no document; PyMongoError where that cannot be read."""

        def run(hint: Hint) -> list[Document]:
            limits = self._limits("max_time_ms")
            return list(self.collection.find({}, {"_id": True}, limit=1, hint=hint, **limits))

        self._with_index([("_id", 1)], run)

    def has_no_arrays(self, field: str, index: Keys) -> bool:
        """Whether no document has an array in `field` or on the way to it; as of a second ago.

        The plan for the index shows whether it ever had one; without the index, this is a scan.
        """
        key, now = f"{field} {index}", time.monotonic()
        known = self._without_arrays.get(key)
        if known is None or known[0] < now - _KEEP_ARRAYS_S:
            arrays = list(_array_paths(self._plan(index), self.names.paths.get(field, "")))
            has_none = not any(arrays) if arrays else not self.find({field: IS_ARRAY}, (), limit=1)
            known = self._without_arrays[key] = now, has_none
        return known[1]

    def _plan(self, index: Keys) -> Any:
        """The plan of a query for everything, by an index."""

        def run(hint: Hint) -> Any:
            hinted = {} if hint is None else {"hint": hint}
            return self._explained({"filter": {}, "collation": EXACTLY} | hinted)["winningPlan"]

        return self._with_index(index, run)

    def _explained(self, find: Document) -> Document:
        """What the planner makes of a find. The driver's own explain would run the query, too."""
        collection, limit = self.collection, {"maxTimeMS": self.max_time_ms}
        answer = collection.database.command(
            {"explain": {"find": collection.name} | find | limit, "verbosity": "queryPlanner"}
            | limit
            | mark(),
            read_preference=collection.read_preference,
        )
        planned: Document = answer["queryPlanner"]
        return planned

    def _limits(self, max_time: str = "maxTimeMS") -> dict[str, Any]:
        return {max_time: self.max_time_ms, "collation": EXACTLY} | mark()

    def _with_index(
        self, index: Keys | None, run: Callable[[Hint], T], *, strictly: bool = False
    ) -> T:
        keys = None if index is None else self.names.keys(index)
        if keys is None:
            return run(None)
        try:
            return self._run_with_one(keys, run)
        except OperationFailure as error:
            if strictly or not is_bad_hint(error):
                raise
        if str(keys) not in self._warned:
            self._warned.add(str(keys))
            log.warning("no index on %s: queries will be slow; `jobmon init` makes it", dict(keys))
        return run(None)

    def _run_with_one(self, keys: Keys, run: Callable[[Hint], T]) -> T:
        """Run with the index on these keys; of several the one that compares exactly.

        If they differ in something else, in being unique for instance, the server chooses.
        """
        for hint in (dict(keys), exact_index_name(keys)):
            try:
                return run(hint)
            except OperationFailure as error:
                is_first = not isinstance(hint, str)
                if not is_bad_hint(error) or (is_first and "multiple" not in str(error)):
                    raise
        return run(None)


def exact_index_name(keys: Keys) -> str:
    """What `jobmon init` calls an index with the simple collation where the collection has another.

    The name that the server would choose is perhaps that of an index with the same keys.
    """
    return "_".join([*(f"{field}_{order}" for field, order in keys), EXACTLY["locale"]])


def mark() -> dict[str, Any]:
    """The option by which a query is known, in MongoDB's profiler and logs, as one of a request."""
    request_id = get_contextvars().get("request_id")
    return {} if request_id is None else {"comment": f"jobmon {request_id}"}


def is_bad_hint(error: OperationFailure) -> bool:
    """Whether a query failed only because the index that it hints at does not exist."""
    return error.code in (BAD_VALUE, INDEX_NOT_FOUND) and "hint" in str(error).lower()


def _array_paths(plan: Any, path: str) -> Iterator[list[str]]:
    """For each index that a plan uses and that has `path`: which parts of it have held arrays."""
    if isinstance(plan, dict):
        if path in (paths := plan.get("multiKeyPaths", {})):
            yield paths[path]
        plan = list(plan.values())
    if isinstance(plan, list):
        for inner in plan:
            yield from _array_paths(inner, path)
