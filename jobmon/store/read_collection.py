"""Runs queries on a watched collection.

Each query is translated to the documents' names. It has a time limit, the simple collation, a hint
if the caller names an index, and a comment with the id of the request, if there is one.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pymongo.collection import Collection
from pymongo.errors import ExecutionTimeout, OperationFailure
from pymongo.read_concern import ReadConcern
from structlog.contextvars import get_contextvars

from jobmon.store.decoding import WITH_NAIVE_DATES
from jobmon.store.failures import BAD_VALUE, INDEX_NOT_FOUND
from jobmon.store.mapping import IS_ARRAY, Document, FieldMapping, Keys

log = logging.getLogger(__name__)
T = TypeVar("T")
Hint = dict[str, int] | str | None
Transform = Callable[[Document], Document]

_SNAPSHOT = ReadConcern("snapshot")
# Strings are compared by their bytes, whatever collation the collection has.
SIMPLE_COLLATION = {"locale": "simple"}
_ARRAYS_TTL_S = 1.0
_INDEXES_TTL_S = 10.0


@dataclass(frozen=True)
class StoredIndex:
    """An index, by its keys as the documents name them: it may have fields that jobmon does not."""

    keys: Keys


def _identity(document: Document) -> Document:
    return document


class NoIndexError(OperationFailure):
    """The index that a query requires does not exist."""


class ReadCollection:
    """Reads a collection; methods raise PyMongoError.

    Queries, orders, indexes and returned documents have the contract's names. If the index is
    missing, a query runs without it, and a warning is logged once for each index.

        jobs.find({"status": "dlq"}, ("jobId",), index=BY_STATUS, order=NEWEST_FIRST, limit=20)
    """

    def __init__(
        self,
        name: str,
        collection: Callable[[], Collection[Document]],
        mapping: FieldMapping,
        max_time_ms: int,
    ) -> None:
        self.name = name
        self._collection = collection
        self.mapping = mapping
        self.max_time_ms = max_time_ms
        self._projections: dict[tuple[str, ...], Any] = {}
        # The collection, and the same collection with naive dates.
        self._naive: tuple[Collection[Document], Collection[Document]] | None = None
        self._warned: set[str] = set()
        # The results of `has_no_arrays` and `has_index`, each with its time (monotonic seconds).
        self._without_arrays: dict[tuple[str, str], tuple[float, bool]] = {}
        self._indexed: dict[str, tuple[float, bool]] = {}

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
        require_index: bool = False,
        naive_dates: bool = False,
        transform: Transform = _identity,
    ) -> list[Document]:
        """The documents that match, with these `fields` or with all; `limit` 0 means no limit.

        `transform` is applied to each document when it is read, so that large documents need not be
        kept. With `require_index`, a missing index raises NoIndexError. With `naive_dates`,
        dates have no time zone: then decoding takes a third of the time.
        """
        collection = self._naive_collection if naive_dates else self.collection

        def run(hint: Hint) -> list[Document]:
            cursor = collection.find(
                self.mapping.translate_filter(query),
                self._project(fields),
                sort=self.mapping.translate_order(order or []) or None,
                skip=skip,
                limit=limit,
                batch_size=limit,
                hint=hint,
                **self.limits("max_time_ms"),
            )
            return [transform(self.mapping.to_contract(document)) for document in cursor]

        return self._run_with_index(index, run, require_index=require_index)

    @property
    def _naive_collection(self) -> Collection[Document]:
        collection, cached = self.collection, self._naive
        if cached is None or cached[0] is not collection:
            naive = collection.with_options(codec_options=WITH_NAIVE_DATES)
            cached = self._naive = collection, naive
        return cached[1]

    def _project(self, fields: Iterable[str] | None) -> Any:
        """The projection that reads these fields; cached for a tuple, which is a constant."""
        if isinstance(fields, tuple) and (cached := self._projections.get(fields)) is not None:
            return cached
        projection = self.mapping.projection(fields)
        if projection == {"_id": False}:  # the server would read all other fields
            projection = {"_id": True}
        if isinstance(fields, tuple):
            self._projections[fields] = projection
        return projection

    def aggregate(
        self,
        pipeline: list[Document],
        *,
        index: Keys | StoredIndex | None = None,
        batch_size: int | None = None,
        require_index: bool = False,
        snapshot: bool = False,
        transform: Transform = _identity,
    ) -> list[Document]:
        """The results of a pipeline, each with `transform` applied to it.

        With `snapshot`, all documents are read as of one moment, the newest that a majority of the
        replica set has. Otherwise a document whose keys change during the read may be read twice,
        or not at all. If the server refuses a snapshot, as a standalone server does, the read runs
        without one. The results have the names that the pipeline gives them.
        """
        stages = self.mapping.translate_pipeline(pipeline)

        def run(hint: Hint) -> list[Document]:
            options = _drop_none({"hint": hint, "batchSize": batch_size})

            def run_on(collection: Collection[Document]) -> list[Document]:
                results = collection.aggregate(stages, **options, **self.limits())
                return [transform(document) for document in results]

            if snapshot:
                try:
                    return run_on(self.collection.with_options(read_concern=_SNAPSHOT))
                except OperationFailure as error:
                    if isinstance(error, ExecutionTimeout) or is_bad_hint(error):
                        raise
            return run_on(self.collection)

        return self._run_with_index(index, run, require_index=require_index)

    def count(
        self,
        query: Document,
        *,
        index: Keys | None,
        limit: int | None = None,
        require_index: bool = False,
    ) -> int:
        """The number of documents that match, at most `limit`; `require_index` as in `find`."""

        def run(hint: Hint) -> int:
            options = _drop_none({"hint": hint, "limit": limit})
            translated = self.mapping.translate_filter(query)
            return self.collection.count_documents(translated, **options, **self.limits())

        return self._run_with_index(index, run, require_index=require_index)

    def estimated_count(self) -> int:
        """The number of documents by the collection's metadata."""
        return self.collection.estimated_document_count(
            maxTimeMS=self.max_time_ms, **request_comment()
        )

    def touch(self) -> None:
        """Read one _id from its index, and no document; raises PyMongoError if that fails."""

        def run(hint: Hint) -> list[Document]:
            limits = self.limits("max_time_ms")
            return list(self.collection.find({}, {"_id": True}, limit=1, hint=hint, **limits))

        self._run_with_index([("_id", 1)], run)

    def has_index(self, index: Keys, query: Document) -> bool:
        """Whether the index exists and can serve a query; the result is kept for ten seconds."""
        now, key = time.monotonic(), str(index)
        cached = self._indexed.get(key)
        if cached is None or cached[0] < now - _INDEXES_TTL_S:
            keys = self.mapping.translate_keys(index)
            translated = self.mapping.translate_query(query)
            try:
                self._run_hinted(
                    keys or [],
                    lambda hint: self.explain({"filter": translated, **_drop_none({"hint": hint})}),
                )
                exists = True
            except OperationFailure as error:
                if not is_bad_hint(error):
                    raise
                exists = False
            cached = self._indexed[key] = now, exists
        return cached[1]

    def has_no_arrays(self, field: str, index: Keys, *, may_scan: bool = False) -> bool:
        """Whether no document of the index has an array in `field` or in a parent of this field.

        The plan for the index shows whether it ever had such an array. Without the index the result
        is False, or with `may_scan` the result of a scan. It is kept for a second.
        """
        now, key = time.monotonic(), (field, str(index))  # a partial index has only some documents
        cached = self._without_arrays.get(key)
        if cached is None or cached[0] < now - _ARRAYS_TTL_S:
            arrays = list(_iter_array_paths(self._plan(index), self.mapping.paths.get(field, "")))
            is_proven = bool(arrays) and not any(arrays)
            if not arrays and may_scan:
                is_proven = not self.find({field: IS_ARRAY}, (), limit=1)
            cached = self._without_arrays[key] = now, is_proven
        return cached[1]

    def _plan(self, index: Keys) -> Any:
        def run(hint: Hint) -> Any:
            options = _drop_none({"hint": hint})
            find = {"filter": {}, "collation": SIMPLE_COLLATION, **options}
            return self.explain(find)["winningPlan"]

        return self._run_with_index(index, run)

    def explain(self, find: Document) -> Document:
        """The planner's output for a find. The driver's own `explain` would also run the find.

        The primary runs this: no secondary has an array in an index before the primary has it.
        """
        collection, limit = self.collection, {"maxTimeMS": self.max_time_ms}
        reply = collection.database.command(
            {"explain": {"find": collection.name} | find | limit, "verbosity": "queryPlanner"}
            | limit
            | request_comment(),
        )
        planned: Document = reply["queryPlanner"]
        return planned

    def limits(self, max_time: str = "maxTimeMS") -> dict[str, Any]:
        """The options of each query: a time limit, the simple collation, a request's comment."""
        return {max_time: self.max_time_ms, "collation": SIMPLE_COLLATION} | request_comment()

    def _run_with_index(
        self,
        index: Keys | StoredIndex | None,
        run: Callable[[Hint], T],
        *,
        require_index: bool = False,
    ) -> T:
        if isinstance(index, StoredIndex):
            keys: Keys | None = index.keys
        else:
            keys = None if index is None else self.mapping.translate_keys(index)
        if keys is None:
            return run(None)
        try:
            return self._run_hinted(keys, run)
        except OperationFailure as error:
            if not is_bad_hint(error):
                raise
            if require_index:
                raise NoIndexError(error.args[0], error.code, error.details) from error
        if str(keys) not in self._warned:
            self._warned.add(str(keys))
            log.warning(
                "no index on %s: queries will be slow; `jobmon init` creates it", dict(keys)
            )
        return run(None)

    def _run_hinted(self, keys: Keys, run: Callable[[Hint], T]) -> T:
        """Run with the index on these keys.

        If several indexes have these keys, the index with the name `exact_index_name` is used, or
        without such an index, the index that the server chooses.
        """
        try:
            return run(dict(keys))
        except OperationFailure as error:
            if not _is_ambiguous_hint(error):
                raise
        try:
            return run(exact_index_name(keys))
        except OperationFailure as error:
            if not is_bad_hint(error):
                raise
        return run(None)


def exact_index_name(keys: Keys) -> str:
    """The name that `jobmon init` gives an index if the collection has a collation.

    An index with the same keys may already have the name that the server would choose.
    """
    return "_".join([*(f"{field}_{order}" for field, order in keys), SIMPLE_COLLATION["locale"]])


def request_comment() -> dict[str, Any]:
    """The option that marks a query in MongoDB's profiler and logs with the request's id."""
    request_id = get_contextvars().get("request_id")
    return {} if request_id is None else {"comment": f"jobmon {request_id}"}


def is_bad_hint(error: OperationFailure) -> bool:
    """Whether a query failed because its hint names no index, or several indexes."""
    # The code alone does not show that: the server reports many other faults as BadValue.
    return error.code in (BAD_VALUE, INDEX_NOT_FOUND) and "hint" in str(error).lower()


def _is_ambiguous_hint(error: OperationFailure) -> bool:
    """Whether a query failed because several indexes have its keys; only the message shows that."""
    return is_bad_hint(error) and "multiple" in str(error)


def _drop_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _iter_array_paths(plan: Any, path: str) -> Iterator[list[str]]:
    """For each index of a plan that has the key `path`: the parts of the path that held arrays."""
    if isinstance(plan, dict):
        if path in (paths := plan.get("multiKeyPaths", {})):
            yield paths[path]
        plan = list(plan.values())
    if isinstance(plan, list):
        for inner in plan:
            yield from _iter_array_paths(inner, path)
