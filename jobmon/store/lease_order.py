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
# More jobs ahead than these are counted once for all callers.
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
    """What decides the place of a job: its type, and the fields of the order.

    Each has a name, the value of the job, and a direction (1 or -1).
    """

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
        found = self._shared.get(
            key,
            lambda: self._find_counts(key, now),
            SHARE_S,
            keep=lambda counts: counts["read"] > SHARE_FROM,
        )
        is_exact, ahead = found["read"] <= self._max_read, found["jobs"] - found["tied"]
        tied = max(0, found["tied"] - 1)  # without the job itself
        return Place(
            ahead=CappedCount(ahead if is_exact else max(0, ahead - 1), is_exact),
            tied=CappedCount(tied, is_exact),
            same_type=max(0, found["same"] - 1),
            outranking=found["outranking"],
            each_type=self._lease is not None and self._lease.each_type,
        )

    @property
    def _max_read(self) -> int:
        return MAX_AHEAD if self._has_status else MAX_READ

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

    def _find_counts(self, key: _OrderKey, now: datetime) -> Counter[str]:
        """`_count` of few jobs, or else of as many as may be read."""
        ranges = self._match_ahead(key, now)
        counts = self._count({"$or": ranges} if len(ranges) > 1 else ranges[0], key, SHARE_FROM)
        if counts["read"] <= SHARE_FROM:
            return counts
        # Of many jobs, the server counts those of one range after the other at half of the cost.
        counts.clear()
        for ahead in ranges:
            if counts["read"] <= self._max_read:
                counts.update(self._count(ahead, key, self._max_read - counts["read"]))
        return counts

    def _count(self, query: Document, key: _OrderKey, limit: int) -> Counter[str]:
        """Counts of the first `limit + 1` jobs that match: `read` are all, `jobs` those that wait.

        Of these, `tied` have the place of the key, `same` its type, and `outranking` its type and a
        higher priority.
        """
        is_waiting = self._has_status or {"$in": ["$status", list(WAITING_STATUSES)]}
        is_same = _match_value("type", key.job_type)
        first, priority, _ = key.order[0]
        outranks = first == "priority" and {"$not": [_match_value(first, priority)]}
        counts = {
            "_id": None,
            "read": {"$sum": 1},
            "jobs": _count_if(is_waiting),
            "tied": _count_if(is_waiting, *(_match_value(name, at) for name, at, _ in key.order)),
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
        return Counter({name: found[0][name] for name in counts if name != "_id"} if found else {})

    def _match_ahead(self, key: _OrderKey, now: datetime) -> list[Document]:
        """Queries for the due jobs up to the place: a range of the index for each field."""
        same: Document = {}
        if self._lease is not None and self._lease.each_type:
            same["type"] = key.job_type
        if self._has_status:
            same["status"] = {"$in": list(WAITING_STATUSES)}
        due = {"$lte": now} if self._jobs.mapping.waits_by_date else {"$not": {"$gt": now}}
        same["nextRunAt"] = due
        ranges: list[Document] = []
        for name, value, direction in key.order:
            is_last = name == key.order[-1][0]
            condition = self._match_before(value, direction, or_equal=is_last)
            if condition is not None:
                ranges.append(same | ({name: condition} if condition else {}))
            same = same | {name: value}
        return ranges

    def _match_before(self, value: Any, direction: int, *, or_equal: bool) -> Any:
        """A condition for the values before this one, or also for itself; None if there are none.

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
