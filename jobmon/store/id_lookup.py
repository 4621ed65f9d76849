"""Looks up the documents of one job by its id, even if the index has a collation."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

from pymongo.errors import OperationFailure

from jobmon.single_flight import SingleFlight
from jobmon.store.failures import DOCUMENT_TOO_LARGE
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import SIMPLE_COLLATION, ReadCollection, Transform

ID = "jobId"
_COLLATION_TTL_MS = 60_000
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
        self._collation = SingleFlight(self._choose_collation, _COLLATION_TTL_MS)

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
            **self._documents.limits("max_time_ms") | {"collation": self._collation.get()},
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
        self, query: Document, joined: "IdLookup", join_query: Document, *, limit: int, order: Keys
    ) -> list[tuple[Document, list[Document]]] | None:
        """The documents that match, each with the first documents of `joined` for `join_query`.

        `limit` and `order` are for the joined documents. None if documents cannot be joined: an
        index has a collation, or a result exceeds 16 MB. Two queries instead of this command would
        take three times the driver's time, and one and a half times the server's.
        """
        if any(lookup._collation.get() is None for lookup in (self, joined)):
            return None
        select_first: list[Document] = [
            {"$sort": dict(joined._mapping.translate_order(order))},
            {"$limit": limit},
        ]
        join = {
            "from": joined._documents.name,
            "pipeline": joined._make_stages(join_query, *select_first),
            "as": _JOINED,
        }
        stages = self._make_stages(query, {"$lookup": join})
        try:
            jobs = list(self._documents.collection.aggregate(stages, **self._documents.limits()))
        except OperationFailure as error:
            if error.code not in _JOIN_TOO_LARGE:
                raise
            return None
        lists = [list(map(joined._mapping.to_contract, job.pop(_JOINED))) for job in jobs]
        return list(zip(map(self._mapping.to_contract, jobs), lists, strict=True))

    def _make_stages(self, query: Document, *middle: Document) -> list[Document]:
        """The query and projection of `find` as stages, with the stages `middle` between them."""
        match: Document = {"$match": self._mapping.translate_filter(query)}
        fields = self._all_fields and self._all_fields | {_JOINED: True}
        return [match, *middle, {"$project": fields}] if fields else [match, *middle]

    def _choose_collation(self) -> dict[str, Any] | None:
        """The simple collation; None (the collection's default) if the index has another collation.

        An index with another collation cannot serve a query with the simple one. The index on `_id`
        always has the collection's collation.
        """
        planned = self._documents.explain({"filter": self._mapping.translate_filter({ID: ""})})
        # A mongos returns the plan of each shard.
        plans = planned["winningPlan"].get("shards") or [planned]
        is_collated = all(
            "collation" in plan and "COLLSCAN" not in str(plan["winningPlan"]) for plan in plans
        )
        return None if is_collated else SIMPLE_COLLATION
