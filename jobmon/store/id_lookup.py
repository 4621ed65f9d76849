"""Looks up the documents of one job by its id, even if the index has a collation."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from pymongo.errors import OperationFailure

from jobmon.store.failures import DOCUMENT_TOO_LARGE
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import SIMPLE_COLLATION, ReadCollection, Transform

ID = "jobId"
_COLLATION_TTL_S = 60.0
_JOINED = "_joined"
_JOIN_TOO_LARGE = (*DOCUMENT_TOO_LARGE, 4_568)  # the last: for the documents of one `$lookup`


class IdLookup:
    """Looks up documents by the field `jobId`; raises PyMongoError if they cannot be read.

    With a collation that is not simple, a query may match other ids, too. So `find` calls `accept`
    with each document.

        IdLookup(connection.jobs).find({"jobId": "a"}, lambda job: job["jobId"] == "a", limit=1)
    """

    def __init__(self, collection: ReadCollection) -> None:
        self._documents = collection
        self._mapping = collection.mapping
        self._all_fields = collection.mapping.projection(None)
        # When the index was checked (monotonic seconds), and the result of `_choose_collation`.
        self._collation: tuple[float, dict[str, Any] | None] | None = None

    def find(
        self,
        query: Document,
        accept: Callable[[Document], bool],
        *,
        limit: int,
        order: Keys | None = None,
        transform: Transform = lambda document: document,
    ) -> list[Document]:
        """The first `limit` documents that match and for which `accept` returns true.

        `transform` is applied to each document when it is read.
        """
        cursor = self._documents.collection.find(
            self._mapping.translate_filter(query),
            self._all_fields,
            sort=self._mapping.translate_order(order or []) or None,
            batch_size=limit + 1,
            **self._documents.limits("max_time_ms") | {"collation": self._choose_collation()},
        )
        accepted: list[Document] = []
        with closing(cursor):
            for stored in cursor:
                document = self._mapping.to_contract(stored)
                if accept(document):
                    accepted.append(transform(document))
                    if len(accepted) == limit:
                        break
        return accepted

    def find_joined(
        self, query: Document, others: "IdLookup", other_query: Document, *, limit: int, order: Keys
    ) -> list[tuple[Document, list[Document]]] | None:
        """The documents that match, each with the first `limit` documents of `others` that match.

        This command takes a third of the driver's time for two commands, and two thirds of the
        server's. None if documents cannot be joined: an index has a collation, or the result
        exceeds 16 MB.
        """
        if any(lookup._choose_collation() is None for lookup in (self, others)):
            return None
        select_first: list[Document] = [
            {"$sort": dict(others._mapping.translate_order(order))},
            {"$limit": limit},
        ]
        join = {
            "from": others._documents.name,
            "pipeline": others._make_stages(other_query, *select_first),
            "as": _JOINED,
        }
        stages = self._make_stages(query, {"$lookup": join})
        try:
            jobs = list(self._documents.collection.aggregate(stages, **self._documents.limits()))
        except OperationFailure as error:
            if error.code not in _JOIN_TOO_LARGE:
                raise
            return None
        joined = [list(map(others._mapping.to_contract, job.pop(_JOINED))) for job in jobs]
        return list(zip(map(self._mapping.to_contract, jobs), joined, strict=True))

    def _make_stages(self, query: Document, *more: Document) -> list[Document]:
        """The query and projection of `find` as stages, with `more` stages between them."""
        match: Document = {"$match": self._mapping.translate_filter(query)}
        fields = self._all_fields and self._all_fields | {_JOINED: True}
        return [match, *more, {"$project": fields}] if fields else [match, *more]

    def _choose_collation(self) -> dict[str, Any] | None:
        """The simple collation; None (for the collection's default) if the index has another one.

        An index with another collation cannot serve a query with the simple one. The index on `_id`
        always has the collection's collation.
        """
        now, last = time.monotonic(), self._collation
        if last is None or last[0] < now - _COLLATION_TTL_S:
            by_id = {"filter": self._mapping.translate_filter({ID: ""})}
            planned = self._documents.explain(by_id)
            # A mongos returns the plan of each shard.
            plans = planned["winningPlan"].get("shards") or [planned]
            is_collated = all(
                "collation" in plan and "COLLSCAN" not in str(plan["winningPlan"]) for plan in plans
            )
            last = self._collation = now, None if is_collated else SIMPLE_COLLATION
        return last[1]
