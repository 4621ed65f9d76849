"""Every query on the watched collections: one job, a page of jobs, the figures of the queue."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from bson import Decimal128, ObjectId
from pymongo.errors import ExecutionTimeout, OperationFailure

from jobmon.domain import JobStatus
from jobmon.store import indexes
from jobmon.store.connection import Connection, Document
from jobmon.store.ordering import NEWEST_FIRST, Place, after, sort_of
from jobmon.store.plain import aware, text
from jobmon.store.shared import Shared

log = logging.getLogger(__name__)
T = TypeVar("T")
Hint = dict[str, int] | None

COUNT_EXACTLY_UP_TO = 10_000
MAX_ATTEMPTS_SHOWN = 1_000
MAX_TYPES = 100
MAX_OVERDUE = 100  # what the server answers at once

# A list needs neither payload nor stacks, and a job may hold megabytes of what is not ours.
_SUMMARY_FIELDS = (
    "jobId",
    "type",
    "status",
    "priority",
    "createdBy",
    "createdAt",
    "updatedAt",
    "nextRunAt",
    "maxAttempts",
    "attemptCount",
    "attempts",
    "leasedBy",
    "leaseExpiresAt",
    "finishedAt",
    "lastError",
)


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs: any of `statuses`, any of `types`, those of `owner`; empty means all."""

    statuses: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    owner: str | None = None

    def match(self) -> Document:
        """The filter as a query of typed values."""
        query: Document = {}
        if self.statuses:
            query["status"] = {"$in": list(self.statuses)}
        if self.types:
            query["type"] = {"$in": list(self.types)}
        if self.owner is not None:
            query["createdBy"] = {"$in": owner_values(self.owner)}
        return query

    @property
    def index(self) -> indexes.Keys:
        """The index that finds these jobs in list order."""
        if self.owner is not None:
            return indexes.BY_OWNER_AND_STATUS if self.statuses else indexes.BY_OWNER
        if self.statuses:
            return indexes.BY_STATUS_AND_TYPE if self.types else indexes.BY_STATUS
        return indexes.BY_TYPE if self.types else NEWEST_FIRST


@dataclass(frozen=True, kw_only=True)
class JobPage:
    """One page of a list; `next_place` is None on the last page."""

    jobs: list[Document]
    page: int
    total: int
    next_place: Place | None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What an operator asks of a queue beside its counts; dates are UTC.

    `estimated_total` is what the collection's metadata says: the cheap check beside the counts.
    `oldest_queued_by_type` has the createdAt of the oldest queued job of each type, of at most
    100 types, `overdue_by_type` the nextRunAt of the longest overdue job of each type among the 100
    longest overdue. `eligible` jobs wait and are due (None where the waiting ones could not be
    counted); `scheduled` ones have their nextRunAt to come.
    """

    estimated_total: int
    expired_leases: int
    eligible: int | None
    scheduled: int
    oldest_queued: datetime | None
    oldest_queued_by_type: Mapping[str, datetime]
    overdue_by_type: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the whole queue looks like at `as_of` (UTC).

    `counts` holds how many jobs there are by (status, type), each as its text. It is None when
    counting ran into its time limit: then `total` is what the collection's metadata says and
    `source` is `estimate`; else it is `live`, or `rollup` for what the collector keeps.
    """

    as_of: datetime
    source: str
    counts: Mapping[tuple[str, str], int] | None
    total: int
    conditions: Conditions

    def status_counts(self) -> dict[str, int] | None:
        """Jobs by status: the known ones always, the unknown ones that occur."""
        if self.counts is None:
            return None
        by_status = {status.value: 0 for status in JobStatus}
        for (status, _), count in self.counts.items():
            by_status[status] = by_status.get(status, 0) + count
        return by_status

    def type_counts(self) -> dict[str, dict[str, int]] | None:
        """Jobs by type, and by the statuses that occur in it."""
        if self.counts is None:
            return None
        by_type: dict[str, dict[str, int]] = {}
        for (status, kind), count in self.counts.items():
            by_type.setdefault(kind, {})[status] = count
        return by_type

    def age_ms(self, moment: datetime | None) -> int:
        """How long before `as_of` that was; 0 for None and for what a fast clock wrote."""
        if moment is None:
            return 0
        return max(0, round((self.as_of - moment).total_seconds() * 1_000))

    def matching(self, wanted: JobFilter) -> int | None:
        """How many jobs match a filter without owner; None where that is not known."""
        if self.counts is None:
            return None if wanted.match() else self.total
        return sum(
            count
            for (status, kind), count in self.counts.items()
            if (not wanted.statuses or status in wanted.statuses)
            and (not wanted.types or kind in wanted.types)
        )


def owner_values(subject: str) -> list[Any]:
    """What createdBy may hold for a token's `sub`: the text, or the ObjectId that it spells."""
    if ObjectId.is_valid(subject) and str(ObjectId(subject)) == subject:
        return [subject, ObjectId(subject)]
    return [subject]


class JobStore:
    """Reads the watched collections. Every method raises PyMongoError when they cannot be read."""

    def __init__(
        self,
        connection: Connection,
        stats_ttl_ms: int,
        rollup: Callable[[], Figures | None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._live_figures = Shared(self._count_everything, stats_ttl_ms)
        self._rollup = rollup
        self._warned: set[str] = set()

    def get_job(self, job_id: str, owner: str | None = None) -> Document | None:
        """The job with its `attempts` in order and its attemptCount; None if there is none.

        With `owner`, a job of somebody else is as absent as one that does not exist. Of more
        than 1,000 attempts the newest 1,000 are returned. Index: (jobId) unique.
        """
        query: Document = {"jobId": job_id}
        if owner is not None:
            query["createdBy"] = {"$in": owner_values(owner)}
        connection = self._connection
        job = connection.jobs.find_one(query, max_time_ms=connection.max_time_ms)
        if job is None:
            return None
        newest_first = (
            connection.attempts.find({"jobId": job_id})  # index: (jobId, attemptNumber)
            .sort("attemptNumber", -1)
            .limit(MAX_ATTEMPTS_SHOWN)
            .max_time_ms(connection.max_time_ms)
        )
        attempts = list(newest_first)[::-1] or _embedded_attempts(job)
        return {
            **job,
            "attempts": attempts,
            "attemptCount": _attempt_count(job, default=len(attempts)),
        }

    def list_jobs(
        self, wanted: JobFilter, *, page: int = 1, per_page: int = 20, place: Place | None = None
    ) -> JobPage:
        """A page of the jobs that match, newest first; with `place`, the page after it.

        A place costs the same at any depth; a page number skips index keys.
        """
        total = self._total(wanted)
        if place is not None:
            page = place.page + 1
            jobs = self._jobs_after(place, wanted, per_page + 1)
        else:
            skip = (page - 1) * per_page
            # Past the end there is nothing to look for, and `skip` has to fit 64 bits.
            jobs = self._find(wanted, {}, per_page + 1, skip) if skip < total else []
        more = len(jobs) > per_page
        jobs = jobs[:per_page]
        return JobPage(
            jobs=[{**job, "attemptCount": _attempt_count(job, default=0)} for job in jobs],
            page=page,
            total=total,
            next_place=self._place_of(jobs[-1], page) if more else None,
        )

    def figures(self) -> Figures:
        """The queue's figures: the collector's, or else counted here.

        The latter by one query at a time in this process, and kept for a short while.
        """
        return self._rollup() or self._live_figures.get()

    def _find(
        self, wanted: JobFilter, clause: Document, limit: int, skip: int = 0
    ) -> list[Document]:
        def run(hint: Hint) -> list[Document]:
            return list(
                self._connection.jobs.find({**wanted.match(), **clause}, _SUMMARY_FIELDS)
                .sort(sort_of(clause))
                .skip(skip)
                .limit(limit)
                .hint(hint)
                .max_time_ms(self._connection.max_time_ms)
            )

        return self._with_index(wanted.index, run)

    def _jobs_after(self, place: Place, wanted: JobFilter, limit: int) -> list[Document]:
        jobs: list[Document] = []
        for clause in after(place):
            jobs += self._find(wanted, clause, limit - len(jobs))
            if len(jobs) >= limit:
                break
        return jobs

    def _place_of(self, job: Document, page: int) -> Place:
        created_at = job.get("createdAt")
        if isinstance(created_at, list) and created_at:
            # A descending sort puts an array where its greatest element belongs: ask the server.
            pipeline = [
                {"$match": {"_id": {"$eq": job["_id"]}}},
                {"$project": {"greatest": {"$max": "$createdAt"}}},
            ]
            found = next(self._connection.jobs.aggregate(pipeline, **self._given()), {})
            created_at = found.get("greatest")
        return Place(created_at=created_at, id=job["_id"], page=page)

    def _total(self, wanted: JobFilter) -> int:
        """How many jobs match: counted up to 10,000, beyond that as the shared figures say.

        Index: the list's own, of which the count reads keys only.
        """
        if wanted.owner is not None:
            return self._count(wanted, None)
        figures = self._rollup() or self._live_figures.kept()
        if figures is None:
            counted = self._count(wanted, COUNT_EXACTLY_UP_TO)
            if counted < COUNT_EXACTLY_UP_TO:
                return counted
            figures = self.figures()
        known = figures.matching(wanted)
        if known is None:
            return self._count(wanted, None)
        return known if known > COUNT_EXACTLY_UP_TO else self._count(wanted, None)

    def _count(self, wanted: JobFilter, limit: int | None) -> int:
        return self._count_matching(wanted.match(), wanted.index, limit)

    def _count_matching(self, query: Document, index: indexes.Keys, limit: int | None) -> int:
        def run(hint: Hint) -> int:
            options = self._given(limit=limit, hint=hint)
            return self._connection.jobs.count_documents(query, **options)

        return self._with_index(index, run)

    def conditions(self, counts: Mapping[tuple[str, str], int] | None, now: datetime) -> Conditions:
        """How the queue stands at `now`, given its counts by (status, type) if they are known."""
        waiting = [JobStatus.QUEUED.value, JobStatus.FAILED.value]
        expired = {"status": JobStatus.LEASED.value, "leaseExpiresAt": {"$lt": now}}
        later = {"status": {"$in": waiting}, "nextRunAt": {"$gt": now}}
        scheduled = self._count_matching(later, indexes.BY_NEXT_RUN, None)
        eligible = None
        queued: Counter[str] = Counter()
        if counts is not None:
            all_waiting = sum(count for (status, _), count in counts.items() if status in waiting)
            eligible = max(0, all_waiting - scheduled)
            queued.update({kind: n for (status, kind), n in counts.items() if status == waiting[0]})
        oldest = {kind: self._oldest_queued(kind) for kind, _ in queued.most_common(MAX_TYPES)}
        return Conditions(
            estimated_total=self._connection.jobs.estimated_document_count(**self._given()),
            expired_leases=self._count_matching(expired, indexes.BY_LEASE, None),
            eligible=eligible,
            scheduled=scheduled,
            oldest_queued=self._oldest_queued(None),
            oldest_queued_by_type={kind: at for kind, at in oldest.items() if at is not None},
            overdue_by_type=self._overdue(waiting, now),
        )

    def _overdue(self, waiting: list[str], now: datetime) -> dict[str, datetime]:
        """Since when a job of each type has been due, among those that are due the longest."""
        query = {"status": {"$in": waiting}, "nextRunAt": {"$lte": now}}

        def run(hint: Hint) -> list[Document]:
            return list(
                self._connection.jobs.find(query, {"type": True, "nextRunAt": True, "_id": False})
                .sort([("nextRunAt", 1)])
                .limit(MAX_OVERDUE)
                .hint(hint)
                .max_time_ms(self._connection.max_time_ms)
            )

        overdue: dict[str, datetime] = {}
        for job in self._with_index(indexes.BY_NEXT_RUN, run):
            if isinstance(job["nextRunAt"], datetime):
                overdue.setdefault(text(job.get("type")), aware(job["nextRunAt"]))
        return overdue

    def _count_everything(self) -> Figures:
        """One `$group`, covered by an index; the metadata's count where that takes too long."""
        connection = self._connection
        as_of = datetime.now(UTC)
        try:
            counts = self._counts_by_status_and_type()
        except ExecutionTimeout:
            log.warning("counting the jobs took over %d ms", connection.max_time_ms)
            conditions = self.conditions(None, as_of)
            return Figures(
                as_of=as_of,
                source="estimate",
                counts=None,
                total=conditions.estimated_total,
                conditions=conditions,
            )
        return Figures(
            as_of=as_of,
            source="live",
            counts=counts,
            total=sum(counts.values()),
            conditions=self.conditions(counts, as_of),
        )

    def _counts_by_status_and_type(self) -> dict[tuple[str, str], int]:
        pipeline: list[Document] = [
            {"$group": {"_id": {"status": "$status", "type": "$type"}, "count": {"$sum": 1}}}
        ]

        def run(hint: Hint) -> list[Document]:
            return list(self._connection.jobs.aggregate(pipeline, **self._given(hint=hint)))

        counts: dict[tuple[str, str], int] = {}
        for group in self._with_index(indexes.BY_STATUS_AND_TYPE, run):
            key = (text(group["_id"].get("status")), text(group["_id"].get("type")))
            counts[key] = counts.get(key, 0) + int(group["count"])
        return counts

    def _oldest_queued(self, kind: str | None) -> datetime | None:
        """The createdAt of the oldest queued job, of a type if given."""
        query: Document = {"status": JobStatus.QUEUED.value, "createdAt": {"$type": "date"}}
        index = indexes.BY_STATUS
        if kind is not None:
            query["type"] = kind
            index = indexes.BY_STATUS_AND_TYPE

        def run(hint: Hint) -> list[Document]:
            return list(
                self._connection.jobs.find(query, {"createdAt": True, "_id": False})
                .sort([("createdAt", 1), ("_id", 1)])
                .limit(1)
                .hint(hint)
                .max_time_ms(self._connection.max_time_ms)
            )

        found = self._with_index(index, run)
        created_at = found[0]["createdAt"] if found else None
        return aware(created_at) if isinstance(created_at, datetime) else None

    def _given(self, **options: Any) -> dict[str, Any]:
        """A command's options: the server refuses one that is null."""
        options["maxTimeMS"] = self._connection.max_time_ms
        return {name: value for name, value in options.items() if value is not None}

    def _with_index(self, keys: indexes.Keys, run: Callable[[Hint], T]) -> T:
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


def _embedded_attempts(job: Document) -> list[Document]:
    """Attempts that another program keeps in the job itself, numbered if they are not."""
    embedded = job.get("attempts")
    if not isinstance(embedded, list):
        return []
    return [
        {"attemptNumber": number, **attempt}
        for number, attempt in enumerate(embedded, start=1)
        if isinstance(attempt, dict)
    ][-MAX_ATTEMPTS_SHOWN:]


def _attempt_count(job: Document, default: int) -> int:
    embedded = job.get("attempts")
    for value in (job.get("attemptCount"), embedded):
        if (number := _whole_number(value)) is not None:
            return number
    return len(embedded) if isinstance(embedded, list) else default


def _whole_number(value: Any) -> int | None:
    if isinstance(value, Decimal128):
        value = value.to_decimal()
        return int(value) if value.is_finite() else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if math.isfinite(value) else None
