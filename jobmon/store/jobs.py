"""One job with its attempts, and the figures of the whole queue."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from bson import Decimal128
from pymongo.errors import ExecutionTimeout, OperationFailure

from jobmon.domain import LAST_OUTCOMES, AttemptStatus, JobStatus
from jobmon.single_flight import SingleFlight
from jobmon.store import indexes
from jobmon.store.bson_json import (
    MAX_STATUSES,
    MAX_TYPES,
    UNNAMED,
    CharacterBudget,
    LabelBudget,
    aware,
    label,
    text,
)
from jobmon.store.connection import Connection
from jobmon.store.cursor import OLDEST_FIRST
from jobmon.store.identity import identity_values, is_identity, label_values, match_any
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.read_collection import is_bad_hint

log = logging.getLogger(__name__)

MAX_ATTEMPTS_SHOWN = 1_000
# In characters. A job is 16 MB at the most, but each of its attempts may be.
ROOM_FOR_ATTEMPTS = 10_000_000
ROOM_FOR_A_FIELD = 2_000
# Statuses of jobs whose last attempt has ended, and how long it is remembered if any says when.
FINISHED_STATUSES = [
    status for status, outcome in LAST_OUTCOMES.items() if outcome != AttemptStatus.RUNNING
]
ENDS_TTL_MS = 10_000
MAX_AGES = 100  # of the oldest job, by type
MAX_COUNT = 2**53
MAX_OVERDUE = 50_000  # index keys; what a server reads in some 20 ms
MAX_COUNTED = 500_000  # of one condition; what an index gives in a quarter of a second
# Why a condition is not known.
TOO_MANY = "500,000 and more jobs are due, and as many are scheduled"
UNCOUNTED = "counting the jobs took longer than a query may take"
# What may stand where a date belongs; each is one range of an index.
NOT_DATES = ["number", "string", "object", "objectId", "bool", "timestamp"]


@dataclass(frozen=True, kw_only=True)
class QueueHealth:
    """What an operator asks of a queue beside its counts; dates are UTC.

    `estimated_total` is what the collection's metadata says: the cheap check beside the counts.
    `oldest_queued_by_type` has the createdAt of the oldest queued job of each type, of at most
    100 types, `overdue_by_type` the nextRunAt of the longest overdue job of each type among the
    50,000 longest overdue. `eligible` jobs wait and are due (None where the waiting ones could not
    be counted, or do not tell when they are due); `scheduled` ones have their nextRunAt to come.
    Where 500,000 and more are due and as many are to come, both are None (and the latter also where
    the waiting ones could not be counted); of expired leases no more than that are counted.

    `unknown` has the reason for each of these, by its name, that is None though it may not be
    nothing, and for each that is only a lower bound, because some documents cannot be read. None of
    them is ever 0 for want of a readable date.
    """

    estimated_total: int
    expired_leases: int | None
    eligible: int | None
    scheduled: int | None
    oldest_queued: datetime | None
    oldest_queued_by_type: Mapping[str, datetime]
    overdue_by_type: Mapping[str, datetime] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QueueStats:
    """What the whole queue looks like at `as_of` (UTC).

    `counts` holds how many jobs there are by (status, type), each as its text; beyond 100 statuses
    or 5,000 types the rest are `(other)`. It is None when counting ran into its time limit: then
    `total` is what the collection's metadata says and `source` is `estimate`; else it is `live`, or
    `rollup` for what the collector keeps.
    """

    as_of: datetime
    source: str
    counts: Mapping[tuple[str, str], int] | None
    total: int
    conditions: QueueHealth

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

    def type_counts_beside(
        self, types: Collection[str]
    ) -> dict[str, Mapping[str, int] | None] | None:
        """The same for these types and all others, to be told beside what else is told of `types`.

        Where `(other)` is one of `types`, those that are not given are told as that, too. A type
        that is given and not counted by its name, where there are others, is None.
        """
        if self.counts is None:
            return None
        by_type: dict[str, Counter[str]] = {}
        for (status, kind), count in self.counts.items():
            name = UNNAMED if UNNAMED in types and kind not in types else kind
            by_type.setdefault(name, Counter())[status] += count
        of_no_job = None if UNNAMED in by_type else Counter[str]()
        return {kind: by_type.get(kind, of_no_job) for kind in {*types, *by_type}}

    def age_ms(self, moment: datetime | None) -> int:
        """How long before `as_of` that was; 0 for None and for what a fast clock wrote."""
        if moment is None:
            return 0
        return max(0, round((self.as_of - moment).total_seconds() * 1_000))

    def oldest_queued_age_ms(self) -> int | None:
        """How old the oldest queued job is; 0 when none is queued, None where that is unknown."""
        if "oldest_queued" in self.conditions.unknown:
            return None
        return self.age_ms(self.conditions.oldest_queued)

    def matching(self, statuses: Collection[str], types: Collection[str]) -> int | None:
        """How many jobs have any of `statuses` and any of `types`, none meaning all.

        None where that was not counted, or not by that name.
        """
        if self.counts is None:
            return None
        for wanted, told in (
            (statuses, {status for status, _ in self.counts}),
            (types, {kind for _, kind in self.counts}),
        ):
            if UNNAMED in told and not (told - {UNNAMED}).issuperset(wanted):
                return None
        return sum(
            count
            for (status, kind), count in self.counts.items()
            if (not statuses or status in statuses) and (not types or kind in types)
        )


# A stage that counts jobs; what it gives is for `CountsByName`.
COUNT_BY_STATUS_AND_TYPE: Document = {
    "$group": {"_id": {"status": "$status", "type": "$type"}, "count": {"$sum": 1}}
}


class CountsByName:
    """Adds up groups of jobs by (status, type), each by its name as far as there are names."""

    def __init__(self, names: FieldMapping) -> None:
        self._names = names
        self._statuses, self._types = LabelBudget(MAX_STATUSES, JobStatus), LabelBudget(MAX_TYPES)

    def of(self, groups: Iterable[Document]) -> Counter[tuple[str, str]]:
        """The sum; the names go to those that come first."""
        counts: Counter[tuple[str, str]] = Counter()
        for group in groups:
            status = self._statuses.word(self._names.status(group["_id"].get("status")))
            counts[status, self._types.word(group["_id"].get("type"))] += int(group["count"])
        return counts

    def learn(self, counts: Collection[tuple[str, str]]) -> None:
        """These have been counted so before."""
        self._statuses.learn(status for status, _ in counts)
        self._types.learn(kind for _, kind in counts)

    def forget(self, *, all_but: Collection[tuple[str, str]]) -> None:
        """Only these are still counted, so that others may have names."""
        self._statuses.forget(all_but=(status for status, _ in all_but))
        self._types.forget(all_but=(kind for _, kind in all_but))


class JobStore:
    """Reads the watched collections. Every method raises PyMongoError when they cannot be read."""

    def __init__(
        self,
        connection: Connection,
        stats_ttl_ms: int,
        rollup: Callable[[], QueueStats | None] = lambda: None,
    ) -> None:
        self._jobs = connection.jobs
        self._waiting = (
            indexes.BY_NEXT_RUN if connection.jobs.names.has_status else indexes.BY_WAITING
        )
        self._attempts = connection.attempts
        self._connection = connection
        self._ends_are_known = SingleFlight(self._look_for_ends, ENDS_TTL_MS)
        self._live_figures = SingleFlight(self._count_everything, stats_ttl_ms)
        self._rollup = rollup

    def get_job(self, job_id: str, owner: str | None = None) -> Document | None:
        """The job with its `attempts` in order and its attemptCount; None if there is none.

        `job_id` is the id as lists print it, `owner` a token's `sub`. With `owner`, a job of
        somebody else is as absent as one that does not exist. Of more
        than 1,000 attempts the newest 1,000 are returned, of long texts in them 10 million
        characters, the newest first, and 2,000 of each field of the others. Index: (jobId) unique.
        """
        query = _any_identity("jobId", job_id)
        if owner is not None:
            query |= _any_identity("createdBy", owner)

        def is_meant(job: Document) -> bool:
            owns = owner is None or is_identity(job.get("createdBy"), owner)
            return owns and is_identity(job.get("jobId"), job_id)

        found = self._jobs.look_up(query, by="jobId", keep=is_meant, most=1)
        if not found:
            return None
        (job,) = found
        attempts = self._attempts_at(job_id) or self._embedded_attempts(job)
        if not attempts and self._attempts is not None:  # else the profile has made them
            attempts = last_attempt(job)
        return {
            **job,
            "attempts": attempts,
            "attemptCount": attempt_count(job, default=len(attempts)),
        }

    def _attempts_at(self, job_id: str) -> list[Document]:
        if self._attempts is None:
            return []
        room = CharacterBudget(ROOM_FOR_ATTEMPTS)

        def cut(attempt: Document) -> Document:
            return {
                name: room.cut(value, at_least=ROOM_FOR_A_FIELD) for name, value in attempt.items()
            }

        return self._attempts.look_up(  # index: (jobId, attemptNumber)
            _any_identity("jobId", job_id),
            by="jobId",
            keep=lambda attempt: is_identity(attempt.get("jobId"), job_id),
            most=MAX_ATTEMPTS_SHOWN,
            order=[("attemptNumber", -1)],
            each=cut,
        )[::-1]

    def _embedded_attempts(self, job: Document) -> list[Document]:
        """Attempts that another program keeps in the job itself, numbered if they are not."""
        embedded = job.get("attempts")
        if not isinstance(embedded, list):
            return []
        names = (
            self._attempts.names
            if self._attempts is not None
            else FieldMapping.from_attempt_fields()
        )
        return [
            {"attemptNumber": number, **names.document(attempt)}
            for number, attempt in enumerate(embedded, start=1)
            if isinstance(attempt, dict)
        ][-MAX_ATTEMPTS_SHOWN:]

    @property
    def unknown(self) -> frozenset[str]:
        """The fields of a job that the watched documents do not hold.

        `finishedAt` is one of them where jobs have ended and none says when.
        """
        fields = self._jobs.names.unknown
        return fields if self._ends_are_known.get() else fields | {"finishedAt"}

    def _look_for_ends(self) -> bool:
        """Whether it is known when attempts end: from the recorded ones or from the jobs."""
        if self._connection.profile.outcome is not None:
            return True
        if self._connection.has_recorded_attempts():
            return True
        ended: Document = {"status": {"$in": FINISHED_STATUSES}}

        def is_any(query: Document) -> bool:
            index = indexes.BY_FINISH
            return bool(self._jobs.find(query, ("_id",), index=index, limit=1, strictly=True))

        try:
            return is_any(ended | {"finishedAt": {"$type": "date"}}) or not is_any(ended)
        except OperationFailure as error:
            if not is_bad_hint(error):
                raise
            return True  # nothing is counted without that index

    def finds(self, field: str) -> bool:
        """Whether jobs can be asked for by this field."""
        return self._jobs.names.finds(field)

    def estimated_total(self) -> int:
        """How many jobs there are by the collection's own metadata, whoever counted them."""
        return self._jobs.estimated_count()

    def figures(self) -> QueueStats:
        """The queue's figures: the collector's, or else counted here.

        The latter by one query at a time in this process, and kept for a short while.
        """
        return self._rollup() or self._live_figures.get()

    def cached_stats(self) -> QueueStats | None:
        """The figures if they need no counting now."""
        return self._rollup() or self._live_figures.kept()

    def conditions(
        self, counts: Mapping[tuple[str, str], int] | None, now: datetime
    ) -> QueueHealth:
        """How the queue is at `now`, given its counts by (status, type) if they are known."""
        unknown: dict[str, str] = {}
        waiting = [JobStatus.QUEUED.value, JobStatus.FAILED.value]
        all_waiting = None
        queued: Counter[str] = Counter()
        if counts is not None:
            all_waiting = sum(count for (status, _), count in counts.items() if status in waiting)
            queued.update({kind: n for (status, kind), n in counts.items() if status == waiting[0]})
        eligible, scheduled = self._due_and_to_come(waiting, now, all_waiting, unknown)
        types = [kind for kind, _ in queued.most_common(MAX_AGES)]
        oldest, by_type = self._oldest_queued(types)
        if oldest is None and self._is_any(JobStatus.QUEUED, counts):
            unknown["oldest_queued"] = self._why_no_age()
        if ages_unknown := set(types) - by_type.keys():
            unknown["oldest_queued_by_type"] = (
                f"not known for {len(ages_unknown)} of {len(types)} types: "
                f"{self._why_no_age()}, or the type is not a text"
            )
        return QueueHealth(
            estimated_total=self._jobs.estimated_count(),
            expired_leases=self._expired_leases(counts, now, unknown),
            eligible=eligible,
            scheduled=scheduled,
            oldest_queued=oldest,
            oldest_queued_by_type=by_type,
            overdue_by_type=self._overdue(waiting, now, unknown),
            unknown=unknown,
        )

    def _expired_leases(
        self, counts: Mapping[tuple[str, str], int] | None, now: datetime, unknown: dict[str, str]
    ) -> int | None:
        def count(when: Document) -> int:
            query = {"status": JobStatus.LEASED.value, "leaseExpiresAt": when}
            return self._jobs.count(query, index=indexes.BY_LEASE, limit=MAX_COUNTED)

        if not self.finds("leaseExpiresAt"):
            if not self._is_any(JobStatus.LEASED, counts):
                return 0
            unknown["expired_leases"] = "no field of the documents has the end of a lease"
            return None
        expired, unreadable = count({"$lt": now}), count({"$type": NOT_DATES})
        if unreadable:
            why = f"leaseExpiresAt of {unreadable:,} leased jobs is not a date"
            unknown["expired_leases"] = why
        return expired or (None if unreadable else 0)

    def _is_any(self, status: JobStatus, counts: Mapping[tuple[str, str], int] | None) -> bool:
        """Whether any job has this status."""
        if counts is not None:
            return any(count for (counted, _), count in counts.items() if counted == status.value)
        return self._jobs.count({"status": status.value}, index=indexes.BY_STATUS, limit=1) > 0

    def _why_no_age(self) -> str:
        if "createdAt" in self._jobs.names.unknown:
            return "no field of the documents has when a job was created"
        if not self._jobs.names.has_status:
            return "since when a job waits that ran before is not recorded"
        return "createdAt of the queued jobs is not a date, or missing"

    def _due_and_to_come(
        self, waiting: list[str], now: datetime, all_waiting: int | None, unknown: dict[str, str]
    ) -> tuple[int | None, int | None]:
        """`eligible` and `scheduled`. One is counted, the other is the rest: so it takes no longer
        with a huge backlog, nor with a huge schedule."""
        both = ("eligible", "scheduled")
        if all_waiting == 0:
            return 0, 0
        if not self.finds("nextRunAt"):
            unknown |= dict.fromkeys(both, "no field of the documents has when a job is due")
            return None, None

        def count(when: Document) -> int | None:
            query = {"status": {"$in": waiting}, "nextRunAt": when}
            counted = self._jobs.count(query, index=self._waiting, limit=MAX_COUNTED)
            return counted if counted < MAX_COUNTED else None

        unreadable, scheduled = count({"$type": NOT_DATES}), count({"$gt": now})
        if unreadable != 0:
            jobs = f"{MAX_COUNTED:,} and more" if unreadable is None else f"{unreadable:,}"
            why = f"nextRunAt of {jobs} waiting jobs is not a date"
            unknown |= dict.fromkeys(both, why)
        if all_waiting is None:
            unknown["eligible"] = UNCOUNTED
            if scheduled is None:
                unknown["scheduled"] = TOO_MANY
            return None, scheduled or (None if unreadable != 0 else scheduled)
        if unreadable is None:
            return None, scheduled or None
        readable = all_waiting - unreadable
        if scheduled is not None:
            due: int | None = max(0, readable - scheduled)
        else:
            at_rest = count({"$not": {"$gt": now}})
            if at_rest is None:
                unknown |= dict.fromkeys(both, TOO_MANY)
                return None, None
            due, scheduled = max(0, at_rest - unreadable), max(0, all_waiting - at_rest)
        if unreadable:  # each is a lower bound then: never "none"
            return due or None, scheduled or None
        return due, scheduled

    def _overdue(
        self, waiting: list[str], now: datetime, unknown: dict[str, str]
    ) -> dict[str, datetime]:
        """Since when a job of each type has been due, among those that are due the longest."""
        pipeline: list[Document] = [
            {"$match": {"status": {"$in": waiting}, "nextRunAt": {"$lte": now}}},
            {"$sort": dict(self._jobs.names.order([("nextRunAt", 1)]))},
            {"$limit": MAX_OVERDUE},
            {"$group": {"_id": "$type", "first": {"$min": "$nextRunAt"}, "jobs": {"$sum": 1}}},
        ]
        if not self.finds("nextRunAt"):
            return {}
        groups = self._jobs.aggregate(pipeline, index=self._waiting)
        if sum(group["jobs"] for group in groups) >= MAX_OVERDUE:
            unknown["overdue_by_type"] = f"of the due jobs only the first {MAX_OVERDUE:,} are read"
        overdue: dict[str, datetime] = {}
        lag = self._jobs.names.lags.get("nextRunAt") or timedelta()
        for group in groups:
            if isinstance(group["first"], datetime):
                kind, first = label(group["_id"]), aware(group["first"]) + lag
                overdue[kind] = min(first, overdue.get(kind, first))
        return overdue

    def _count_everything(self) -> QueueStats:
        """One `$group`, covered by an index; the metadata's count where that takes too long."""
        as_of = datetime.now(UTC)
        try:
            counts = self._counts_by_status_and_type()
        except ExecutionTimeout:
            log.warning("counting the jobs took over %d ms", self._jobs.max_time_ms)
            conditions = self.conditions(None, as_of)
            return QueueStats(
                as_of=as_of,
                source="estimate",
                counts=None,
                total=conditions.estimated_total,
                conditions=conditions,
            )
        return QueueStats(
            as_of=as_of,
            source="live",
            counts=counts,
            total=sum(counts.values()),
            conditions=self.conditions(counts, as_of),
        )

    def _counts_by_status_and_type(self) -> dict[tuple[str, str], int]:
        groups = self._jobs.aggregate(
            [COUNT_BY_STATUS_AND_TYPE], index=indexes.BY_STATUS_AND_TYPE, at_one_moment=True
        )
        largest_first = sorted(groups, key=lambda group: -int(group["count"]))
        return CountsByName(self._jobs.names).of(largest_first)

    def _oldest_queued(self, types: list[str]) -> tuple[datetime | None, dict[str, datetime]]:
        """The createdAt of the oldest queued job, and of the oldest one of each of these types."""
        if not self._jobs.names.has_status:
            return self._oldest_that_never_ran(types)
        by_type = {kind: self._oldest_queued_of(kind) for kind in types}
        told = {kind: at for kind, at in by_type.items() if at is not None}
        return self._oldest_queued_of(None), told

    def _oldest_that_never_ran(
        self, types: list[str]
    ) -> tuple[datetime | None, dict[str, datetime]]:
        """The same where no index has the status in order: the waiting jobs are gone through.

        A job that has run before, hourly for instance, has not waited since it was created.
        """
        pipeline: list[Document] = [
            {"$match": {"status": JobStatus.QUEUED.value, "finishedAt": None}},
            {"$group": {"_id": "$type", "oldest": {"$min": "$createdAt"}}},
        ]
        oldest = {
            label(group["_id"]): aware(group["oldest"])
            for group in self._jobs.aggregate(pipeline, index=self._waiting)
            if isinstance(group["oldest"], datetime)
        }
        by_type = {kind: oldest[kind] for kind in types if kind in oldest}
        return min(oldest.values(), default=None), by_type

    def _oldest_queued_of(self, kind: str | None) -> datetime | None:
        """The createdAt of the oldest queued job, of a type if given."""
        query: Document = {"status": JobStatus.QUEUED.value, "createdAt": {"$type": "date"}}
        index = indexes.BY_STATUS
        if kind is not None:
            query["type"] = match_any(label_values(kind))
            index = indexes.BY_STATUS_AND_TYPE
        found = self._jobs.find(query, ("createdAt",), index=index, order=OLDEST_FIRST, limit=1)
        created_at = found[0].get("createdAt") if found else None
        return aware(created_at) if isinstance(created_at, datetime) else None


def _any_identity(field: str, printed: str) -> Document:
    """A query for what a text means in a field. Mongoose refers to a job by its ObjectId."""
    return {field: match_any(identity_values(printed))}


def last_attempt(job: Document) -> list[Document]:
    """The job as its own last attempt, where none is recorded; empty if it had none so far.

    What the job does not say is None: its number, for instance, or how it ended.
    """
    outcome = LAST_OUTCOMES.get(text(job.get("status")))
    started, ended = job.get("startedAt"), job.get("finishedAt")
    if outcome is None and not isinstance(started, datetime):
        return []
    is_over = outcome != AttemptStatus.RUNNING
    if isinstance(started, datetime) and isinstance(ended, datetime):
        is_over = is_over and aware(ended) >= aware(started)  # else it is of the one before
    return [
        {
            "attemptNumber": attempt_count(job, default=0) or None,
            "status": outcome,
            "workerId": job.get("leasedBy"),
            "startedAt": started,
            "finishedAt": ended if is_over else None,
            "error": job.get("lastError") if outcome == AttemptStatus.FAILED else None,
        }
    ]


def attempt_count(job: Document, default: int) -> int:
    """How many attempts were started: what the job says in one way or another, or `default`."""
    embedded = job.get("attempts")
    for value in (job.get("attemptCount"), embedded):
        if (number := _whole_number(value)) is not None:
            return number
    return len(embedded) if isinstance(embedded, list) else default


def _whole_number(value: Any) -> int | None:
    """A number that every JSON parser reads exactly; None for anything else."""
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    if isinstance(number, bool) or not isinstance(number, int | float | Decimal):
        return None
    try:
        whole = int(number)
    except (ValueError, OverflowError):  # not a number, infinite
        return None
    return whole if abs(whole) <= MAX_COUNT else None
