"""Reads the fields of jobs that a profile's rules need; the database evaluates the rules."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from bson import Timestamp
from bson.errors import InvalidDocument
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from jobmon.collector.leader import LeaseLostError
from jobmon.collector.runs import JobVersion, read_version
from jobmon.rollup.documents import LEADER, LEASES, OwnDatabase
from jobmon.store.failures import classify_failure
from jobmon.store.mapping import Document
from jobmon.store.read_collection import SIMPLE_COLLATION, ReadCollection
from jobmon.store.run_rules import CHANGED_AT, RunRules

log = logging.getLogger(__name__)
T = TypeVar("T")

BATCH = 500  # documents in one command


class _SnapshotAt(ReadConcern):
    """Reads documents as of one moment, of which servers keep the last five minutes by default."""

    def __init__(self, at: Timestamp) -> None:
        super().__init__("snapshot")
        self._at = at

    @property
    def document(self) -> dict[str, Any]:
        return {"level": "snapshot", "atClusterTime": self._at}


def split_batches(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of up to `BATCH`."""
    remaining = iter(items)
    while batch := list(islice(remaining, BATCH)):
        yield batch


class JobEvaluator:
    """Evaluates documents of one queue by the queue's rules; methods raise PyMongoError."""

    def __init__(self, jobs: ReadCollection, own: OwnDatabase, rules: RunRules) -> None:
        self._jobs = jobs
        self._own = own
        self._rules = rules
        self._has_warned = False

    def find(self, jobs: ReadCollection, query: Document, limit: int = 0) -> list[Document]:
        """The documents that match, with only the fields that the rules need."""
        options: dict[str, Any] = {"max_time_ms": jobs.max_time_ms, "collation": SIMPLE_COLLATION}
        return list(jobs.collection.find(query, self._fields, limit=limit, **options))

    def find_by_id(self, ids: list[Any]) -> list[Document]:
        """The documents with these _ids, and any others that the collection's collation matches."""
        jobs, query = self._jobs, {"_id": {"$in": ids}}
        return list(jobs.collection.find(query, self._fields, max_time_ms=jobs.max_time_ms))

    @property
    def _fields(self) -> dict[str, bool]:
        return dict.fromkeys(["_id", *self._rules.paths], True)

    def snapshot(self, at: Timestamp) -> ReadCollection:
        """The jobs as of a moment or, if the server has no such snapshots, the present jobs."""
        jobs, concern = self._jobs, _SnapshotAt(at)
        snapshot = ReadCollection(
            jobs.name,
            lambda: jobs.collection.with_options(read_concern=concern),
            jobs.mapping,
            jobs.max_time_ms,
        )
        try:
            self.find(snapshot, {}, limit=1)
        except OperationFailure as error:
            # The server reports it as a temporary failure that a capped collection has none.
            if classify_failure(error) is not None and not self._is_capped():
                raise
            return jobs
        return snapshot

    def _is_capped(self) -> bool:
        stages: list[Document] = [{"$collStats": {"storageStats": {}}}]
        stats = self._jobs.collection.aggregate(stages, maxTimeMS=self._jobs.max_time_ms)
        return any(part["storageStats"].get("capped") for part in stats)

    def evaluate(self, documents: Sequence[tuple[Document, datetime]]) -> list[JobVersion | None]:
        """The version that each document shows as of its time; None if the document is no job.

        Also None if the rules fail for a document; only the first such failure is logged. Raises
        LeaseLostError if the lease was removed.
        """
        if not documents:
            return []
        try:
            return self._evaluate(documents)
        except (OperationFailure, InvalidDocument, OverflowError) as error:
            if classify_failure(error) is not None:
                raise
            if len(documents) > 1:
                middle = len(documents) // 2
                return self.evaluate(documents[:middle]) + self.evaluate(documents[middle:])
            if not self._has_warned:
                self._has_warned = True
                log.warning(
                    "runs of a job are not counted, its fields cannot be evaluated: %s",
                    type(error).__name__,
                )
            return [None]

    def _evaluate(self, documents: Sequence[tuple[Document, datetime]]) -> list[JobVersion | None]:
        dated = [document | {CHANGED_AT: at} for document, at in documents]
        pipeline: list[Document] = [
            # The pipeline must start from a document: the lease exists while a collector works.
            {"$match": {"_id": self._own.id(LEADER)}},
            {"$project": {"jobs": {"$literal": dated}}},
            {"$unwind": "$jobs"},
            {"$replaceRoot": {"newRoot": "$jobs"}},
            {"$project": {"_id": False, **self._rules.facts}},
        ]
        results = list(self._own[LEASES].aggregate(pipeline, maxTimeMS=self._jobs.max_time_ms))
        if len(results) != len(dated):
            raise LeaseLostError
        mapping = self._jobs.mapping
        if "error" not in self._rules.facts:
            for (document, _), evaluated in zip(documents, results, strict=True):
                evaluated["error"] = mapping.to_contract(document).get("lastError")
        return [read_version(evaluated, mapping, self._rules) for evaluated in results]
