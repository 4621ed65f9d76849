"""Counts the due jobs that workers take before one job, by the lease order of its queue."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import Code
from pymongo.errors import ExecutionTimeout

from jobmon.domain import WAITING_STATUSES, CappedCount
from jobmon.single_flight import SingleFlightCache
from jobmon.store.bson_json import make_aware
from jobmon.store.connection import Connection
from jobmon.store.indexes import lease_index
from jobmon.store.labels import label
from jobmon.store.live_stats import UNCOUNTED
from jobmon.store.mapping import Document
from jobmon.store.read_collection import NoIndexError

# The most index keys that one query reads; a server reads them in about 10 ms.
MAX_AHEAD = 10_000
# The most documents that one query reads instead, if no field holds the status.
MAX_READ = 1_000
# With more than SHARE_FROM jobs ahead, the counts of a place are cached for SHARE_S seconds, and
# the waiting jobs that are read for them for SHARE_WAITING_S seconds.
SHARE_FROM, SHARE_S, SHARE_WAITING_S = 200, 1, 5
MAX_CACHED_PLACES = 1_000
MAX_CACHED_WAITING = 20  # `_WaitingJobs` of a queue in each process; each takes up to 2 MB
_NEVER = datetime.min.replace(tzinfo=UTC)


class UnknownPlaceError(Exception):
    """It is unknown how many jobs are ahead; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a job among the due jobs, in the order in which workers take them.

    `ahead`: the jobs before it. `tied`: the other jobs with the same place. `same_type`: how many
    of these jobs have the job's type, a lower bound unless both counts are exact. `outranking`: the
    jobs of this type that are ahead by their priority. `each_type`: only jobs of this type are
    counted, because workers take the jobs of each type separately.
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
    """The type of a job, and its values in the fields of the lease order: they decide its place.

    `order` has the name of each of these fields, the job's value, and a direction (1 or -1).
    """

    job_type: Any
    order: tuple[tuple[str, Any, int], ...]


@dataclass(frozen=True, kw_only=True)
class _WaitingJobs:
    """The waiting jobs with the same value in every field of the order but the last, a date.

    `before` counts the jobs ahead of all these jobs, by type label. `dates` has the sorted
    dates of each type label; a job without a date comes first. `horizon`: all jobs before this date
    were read; None if all jobs were read.
    """

    before: Counter[str]
    dates: Mapping[str, list[datetime]]
    horizon: datetime | None

    def count_ahead(self, type_label: str, date: datetime, limit: int) -> Counter[str]:
        """The counts of `PlaceFinder._count` for a job with this type label and date.

        `all_ahead`: 1 if all jobs ahead were read, even if more than `limit` jobs were read.
        """
        outranking, before = self.before[type_label], self.before.total()
        ahead = before + sum(bisect_left(dates, date) for dates in self.dates.values())
        up_to_date = before + sum(bisect_right(dates, date) for dates in self.dates.values())
        counts = Counter(
            same=outranking + bisect_right(self.dates.get(type_label, []), date),
            outranking=outranking,
        )
        if ahead > limit or (self.horizon is not None and date > self.horizon):
            return counts + Counter(read=limit + 1, waiting=limit + 1)
        tied = up_to_date - ahead
        return counts + Counter(read=up_to_date, waiting=up_to_date, tied=tied, all_ahead=1)


class PlaceFinder:
    """Finds the place of a job by the lease order.

    It reads at most about 10,000 index keys. If many jobs are ahead, one read can serve all jobs
    that differ only in the last date of the order. It then reads up to 20,000 keys for this date,
    and up to 10,000 for each other field of the order.
    """

    def __init__(self, connection: Connection) -> None:
        self._jobs = connection.jobs
        self._lease = connection.profile.lease
        self._index = lease_index(connection.profile)
        self._has_status = connection.jobs.mapping.has_status
        self._shared: SingleFlightCache[Counter[str]] = SingleFlightCache(MAX_CACHED_PLACES)
        self._waiting: SingleFlightCache[_WaitingJobs] = SingleFlightCache(MAX_CACHED_WAITING)

    def find_place(self, job: Document, now: datetime) -> Place:
        """The place of a job that is due; `job` has the contract's names.

        With more than 200 jobs ahead, the counts may be six seconds old. Raises UnknownPlaceError
        and PyMongoError.
        """
        key = self._find_key(job)
        counts = self._shared.get(
            key,
            lambda: self._find_counts(key, now),
            SHARE_S,
            keep=lambda counts: counts["read"] > SHARE_FROM,
        )
        is_exact, ahead = counts["read"] <= self._max_read, counts["waiting"] - counts["tied"]
        # Without the job itself. Pages show a lower bound as "more than", so it is one less.
        tied = max(0, counts["tied"] - (1 if is_exact else 2))
        if is_exact or (counts["all_ahead"] and tied):
            ahead_count = CappedCount(ahead, is_exact=True)
        else:
            ahead_count = CappedCount(max(0, ahead - 1), is_exact=False)
        return Place(
            ahead=ahead_count,
            tied=CappedCount(tied, is_exact),
            same_type=max(0, counts["same"] - 1),
            outranking=counts["outranking"],
            each_type=self._each_type,
        )

    @property
    def _each_type(self) -> bool:
        return self._lease is not None and self._lease.each_type

    @property
    def _max_read(self) -> int:
        return MAX_AHEAD if self._has_status else MAX_READ

    def _find_key(self, job: Document) -> _OrderKey:
        """The values that decide the job's place; raises UnknownPlaceError if they are unknown."""
        if self._lease is None:
            raise UnknownPlaceError("it is unknown in which order the workers take jobs")
        job_type = job.get("type")
        # `Code` is a str that cannot be hashed, so it cannot be part of a key of the cache.
        if isinstance(job_type, Code) or not isinstance(job_type, str | int | float | None):
            raise UnknownPlaceError("the type of the job is not a string or a number")
        order = []
        for name, direction in self._lease.order:
            if not self._jobs.mapping.can_query(name):
                raise UnknownPlaceError(f"the documents do not record {name}")
            order.append((name, _read_value(name, job.get(name)), direction))
        return _OrderKey(job_type=job_type, order=tuple(order))

    def _find_counts(self, key: _OrderKey, now: datetime) -> Counter[str]:
        """Counts up to SHARE_FROM jobs; if there are more, counts again, up to `_max_read`."""
        ranges = self._match_ahead(key, now)
        counts = self._count({"$or": ranges} if len(ranges) > 1 else ranges[0], key, SHARE_FROM)
        if counts["read"] <= SHARE_FROM:
            return counts
        field, date, direction = key.order[-1]
        # Documents of other programs may hold a date or a status in several forms. All ranges but
        # the last must be on the priority: `_WaitingJobs` counts their jobs as outranking.
        is_shared = (
            not self._jobs.mapping.translates and isinstance(date, datetime) and direction > 0
        )
        if is_shared and all(name == "priority" for name, _, _ in key.order[:-1]):
            shared_key = key.job_type if self._each_type else None, key.order[:-1]
            waiting = self._waiting.get(
                shared_key, lambda: self._read_waiting(field, ranges), SHARE_WAITING_S
            )
            return waiting.count_ahead(label(key.job_type), date, self._max_read)
        # For many jobs, a query for each range costs less than one query for all ranges.
        counts.clear()
        for range_query in ranges:
            if counts["read"] <= self._max_read:
                counts.update(self._count(range_query, key, self._max_read - counts["read"]))
        return counts

    def _read_waiting(self, field: str, ranges: list[Document]) -> _WaitingJobs:
        """Read the waiting jobs of the last range, with any date; count those of other ranges."""
        before, dates = Counter[str](), dict[str, list[datetime]]()
        horizon: datetime | None = None
        for range_query in ranges[:-1]:
            for group in self._group(range_query, {"_id": "$type", "count": {"$sum": 1}}):
                before[label(group["_id"])] += group["count"]
        for status in WAITING_STATUSES:  # for one status, the index has the dates in order
            query = {name: value for name, value in ranges[-1].items() if name != field}
            group_spec = {"_id": "$type", "count": {"$sum": 1}, "dates": {"$push": f"${field}"}}
            newest, count = _NEVER, 0
            for group in self._group(query | {"status": {"$in": [status]}}, group_spec):
                values = group["dates"]
                in_group = [date if isinstance(date, datetime) else _NEVER for date in values]
                in_group += [_NEVER] * (group["count"] - len(in_group))  # $push skips missing dates
                newest, count = max([newest, *in_group]), count + group["count"]
                dates.setdefault(label(group["_id"]), []).extend(in_group)
            if count > self._max_read:
                horizon = newest if horizon is None else min(horizon, newest)
        for dates_of_type in dates.values():
            dates_of_type.sort()
        return _WaitingJobs(before=before, dates=dates, horizon=horizon)

    def _count(self, query: Document, key: _OrderKey, limit: int) -> Counter[str]:
        """Counts of the first `limit + 1` jobs that match.

        `read`: all of them. `waiting`: the waiting ones; the other counts are parts of it. `tied`:
        jobs with the key's place. `same`: jobs of its type. `outranking`: jobs of its type with
        another priority, which is higher, because `query` selects no lower one.
        """
        waiting_expr = self._has_status or {"$in": ["$status", list(WAITING_STATUSES)]}
        same_type_expr = _equals_expr("type", key.job_type)
        tied_exprs = [_equals_expr(name, value) for name, value, _ in key.order]
        first_field, priority, _ = key.order[0]
        outranks = first_field == "priority" and {"$not": [_equals_expr("priority", priority)]}
        counts = {
            "_id": None,
            "read": {"$sum": 1},
            "waiting": _count_if(waiting_expr),
            "tied": _count_if(waiting_expr, *tied_exprs),
            "same": _count_if(waiting_expr, same_type_expr),
            "outranking": _count_if(waiting_expr, same_type_expr, outranks),
        }
        groups = self._group(query, counts, limit) or [{}]
        return Counter({name: number for name, number in groups[0].items() if name != "_id"})

    def _group(self, query: Document, spec: Document, limit: int | None = None) -> list[Document]:
        """Groups of the first `limit + 1` matches; UnknownPlaceError if too slow, or no index."""
        limit = self._max_read if limit is None else limit
        try:
            return self._jobs.aggregate(
                [{"$match": query}, {"$limit": limit + 1}, {"$group": spec}],
                index=self._index,
                require_index=True,
            )
        except ExecutionTimeout:
            raise UnknownPlaceError(UNCOUNTED) from None
        except NoIndexError:
            raise UnknownPlaceError("indexes are missing") from None

    def _match_ahead(self, key: _OrderKey, now: datetime) -> list[Document]:
        """Queries for the due jobs up to the job's own place: an index range for each field."""
        common: Document = {}
        if self._each_type:
            common["type"] = key.job_type
        if self._has_status:
            common["status"] = {"$in": list(WAITING_STATUSES)}
        due = {"$lte": now} if self._jobs.mapping.date_decides_waiting else {"$not": {"$gt": now}}
        common["nextRunAt"] = due
        ranges: list[Document] = []
        for name, value, direction in key.order:
            is_last = name == key.order[-1][0]
            condition = self._match_before(name, value, direction, or_equal=is_last)
            if condition is not None:
                ranges.append(common | ({name: condition} if condition else {}))
            common = common | {name: value}
        return ranges

    def _match_before(self, name: str, value: Any, direction: int, *, or_equal: bool) -> Any:
        """A condition for the values of a field before `value`; with `or_equal`, also for `value`.

        None if there are no such values; an empty condition matches all values. Missing values come
        first in ascending order, and last in descending order.
        """
        if value is None:
            if direction < 0:
                return {} if or_equal else {"$ne": None}
            return {"$eq": None} if or_equal else None
        if direction < 0:
            return {"$not": {"$lt" if or_equal else "$lte": value}, "$ne": None}
        # `$not` would also read the jobs without nextRunAt, which do not wait in such a queue.
        if name == "nextRunAt" and self._jobs.mapping.date_decides_waiting:
            return {"$lte" if or_equal else "$lt": value}
        return {"$not": {"$gt" if or_equal else "$gte": value}}


def _read_value(name: str, value: Any) -> Any:
    """The value of a field of the order; UnknownPlaceError if it has an unexpected type."""
    match value:
        case None:
            return None
        case int() | float() if name == "priority" and not isinstance(value, bool):
            return value
        case datetime() if name != "priority":
            return make_aware(value)
    expected = "a number" if name == "priority" else "a date"
    raise UnknownPlaceError(f"{name} of the job is not {expected}")


def _equals_expr(name: str, value: Any) -> Document:
    return {"$eq": [{"$ifNull": [f"${name}", None]}, {"$literal": value}]}


def _count_if(*conditions: Any) -> Document:
    return {"$sum": {"$cond": [{"$and": list(conditions)}, 1, 0]}}
