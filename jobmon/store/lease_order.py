"""Counts the due jobs that workers take before one job, by the lease order of its queue."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.errors import ExecutionTimeout, OperationFailure

from jobmon.domain import WAITING_STATUSES, CappedCount
from jobmon.single_flight import SingleFlightCache
from jobmon.store.bson_json import to_utc
from jobmon.store.connection import Connection
from jobmon.store.indexes import lease_index
from jobmon.store.live_stats import UNCOUNTED
from jobmon.store.mapping import Document
from jobmon.store.read_collection import is_bad_hint

# Index keys that are read; a server reads them in about 10 ms.
MAX_AHEAD = 10_000
# Documents that are read instead, where no field holds the status.
MAX_READ = 1_000
# More jobs ahead than these are counted once for all callers. Also the ties that are counted.
SHARE_FROM, SHARE_S = 200, 2
KEEP_PLACES = 1_000


class UnknownPlaceError(Exception):
    """It is unknown how many jobs are ahead; the message has the reason."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a job among the due jobs, in the order in which workers take them.

    `ahead`: the jobs before it. `tied`: the other jobs with the same place. `same_type`: those of
    both that have its type, a lower bound unless `ahead` is exact. `outranking`: those of its type
    that are ahead by their priority. `each_type`: only jobs of its type are counted, since workers
    take the jobs of each type by themselves.
    """

    ahead: CappedCount
    tied: CappedCount
    same_type: int
    outranking: int
    each_type: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the number of jobs before it is exactly `ahead`."""
        return self.ahead.is_exact and not self.tied.value


@dataclass(frozen=True, kw_only=True)
class _OrderKey:
    """What decides the place of a job: its type, and name, value and direction of each field."""

    job_type: Any
    order: tuple[tuple[str, Any, int], ...]


class PlaceFinder:
    """Finds the place of a job; reads at most 10,000 index keys for it."""

    def __init__(self, connection: Connection) -> None:
        self._jobs = connection.jobs
        self._lease = connection.profile.lease
        self._index = lease_index(connection.profile)
        self._has_status = connection.jobs.mapping.has_status
        self._shared: SingleFlightCache[Counter[str]] = SingleFlightCache(KEEP_PLACES)

    def find_place(self, job: Document, now: datetime) -> Place:
        """The place of a job that is due, as the store reads it.

        Beyond 200 jobs ahead, the count may be two seconds old. Raises UnknownPlaceError and
        PyMongoError.
        """
        key = self._find_key(job)
        limit = MAX_AHEAD if self._has_status else MAX_READ
        found = self._count(key, now, SHARE_FROM)
        if found["read"] > SHARE_FROM:
            found = self._shared.get(key, lambda: self._count(key, now, limit), max_age_s=SHARE_S)
        is_exact, ahead = found["read"] <= limit, found["jobs"] - found["tied"]
        tied = max(0, found["tied"] - 1)  # without the job itself
        return Place(
            ahead=CappedCount(ahead if is_exact else max(0, ahead - 1), is_exact),
            tied=CappedCount(tied, is_exact),
            same_type=max(0, found["same"] - 1),
            outranking=found["outranking"],
            each_type=self._lease is not None and self._lease.each_type,
        )

    def _find_key(self, job: Document) -> _OrderKey:
        """What decides the place of the job; UnknownPlaceError if that is unknown."""
        if self._lease is None:
            raise UnknownPlaceError("it is unknown in which order the workers take jobs")
        job_type = job.get("type")
        if not isinstance(job_type, str | int | float | None):
            raise UnknownPlaceError("the type of the job is not a text")
        order = []
        for name, direction in self._lease.order:
            if not self._jobs.mapping.can_query(name):
                raise UnknownPlaceError(f"the documents do not record {name}")
            order.append((name, _read_value(name, job.get(name)), direction))
        return _OrderKey(job_type=job_type, order=tuple(order))

    def _count(self, key: _OrderKey, now: datetime, limit: int) -> Counter[str]:
        """Of the first `limit + 1` jobs up to the place, which are `read`, how many wait.

        A query for each field of the order, so that each is one range of the index; the last one
        also finds the jobs with the same place, which are `tied`.
        """
        found: Counter[str] = Counter()
        due = {"$lte": now} if self._jobs.mapping.waits_by_date else {"$not": {"$gt": now}}
        same: Document = {}
        for name, value, direction in key.order:
            is_last = name == key.order[-1][0]
            condition = self._match_before(value, direction, or_equal=is_last)
            if condition is not None and found["read"] <= limit:
                query = {"nextRunAt": due} | same | ({name: condition} if condition else {})
                is_tied = is_last and _match_value(name, value)
                outranks = name == "priority" == key.order[0][0] and {"$not": [is_tied]}
                left = limit - found["read"]
                found.update(self._count_matching(query, key, left, is_tied, outranks))
            same[name] = value
        return found

    def _match_before(self, value: Any, direction: int, *, or_equal: bool) -> Any:
        """A condition for the values before this one, or also for itself; None if none are.

        Missing values are the first ones, or the last ones in descending order. An empty condition
        is for all values.
        """
        if value is None:
            if direction < 0:
                return {} if or_equal else {"$ne": None}
            return {"$eq": None} if or_equal else None
        if direction < 0:
            return {"$not": {"$lt" if or_equal else "$lte": value}, "$ne": None}
        # Jobs without the date that do not wait would be read, too.
        if self._jobs.mapping.waits_by_date:
            return {"$lte" if or_equal else "$lt": value}
        return {"$not": {"$gt" if or_equal else "$gte": value}}

    def _count_matching(
        self, query: Document, key: _OrderKey, limit: int, is_tied: Any, outranks: Any
    ) -> Document:
        """Of the first `limit + 1` jobs that match a query, how many wait, and meet a condition."""
        is_waiting: Any = {"$in": ["$status", list(WAITING_STATUSES)]}
        if self._has_status:
            query, is_waiting = {"status": {"$in": list(WAITING_STATUSES)}} | query, True
        if self._lease is not None and self._lease.each_type:
            query = {"type": key.job_type} | query
        is_same = _match_value("type", key.job_type)
        counts = {
            "_id": None,
            "read": {"$sum": 1},
            "jobs": _count_if(is_waiting),
            "tied": _count_if(is_waiting, is_tied),
            "same": _count_if(is_waiting, is_same),
            "outranking": _count_if(is_waiting, is_same, outranks),
        }
        try:
            found = self._jobs.aggregate(
                [{"$match": query}, {"$limit": limit + 1}, {"$group": counts}],
                index=self._index,
                require_index=True,
            )
        except ExecutionTimeout:
            raise UnknownPlaceError(UNCOUNTED) from None
        except OperationFailure as error:
            if not is_bad_hint(error):
                raise
            raise UnknownPlaceError("indexes are missing") from None
        return {name: count for name, count in found[0].items() if name != "_id"} if found else {}


def _read_value(name: str, value: Any) -> Any:
    """The value of a field that orders jobs; UnknownPlaceError if it has an unexpected type."""
    match value:
        case None:
            return None
        case int() | float() if name == "priority" and not isinstance(value, bool):
            return value
        case datetime() if name != "priority":
            return to_utc(value)
    expected = "a number" if name == "priority" else "a date"
    raise UnknownPlaceError(f"{name} of the job is not {expected}")


def _match_value(name: str, value: Any) -> Document:
    return {"$eq": [{"$ifNull": [f"${name}", None]}, {"$literal": value}]}


def _count_if(*conditions: Any) -> Document:
    return {"$sum": {"$cond": [{"$and": list(conditions)}, 1, 0]}}
