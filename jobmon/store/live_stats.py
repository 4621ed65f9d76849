"""Counts a queue live: its jobs by status and type, and its health."""

import logging
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from pymongo.errors import ExecutionTimeout

from jobmon.domain import WAITING_STATUSES, CappedCount, JobStatus
from jobmon.store import indexes
from jobmon.store.bson_json import make_aware, read_date
from jobmon.store.connection import Connection
from jobmon.store.cursor import OLDEST_FIRST
from jobmon.store.identity import label_values, match_any
from jobmon.store.labels import can_filter_by, label
from jobmon.store.mapping import NOT_DATES, Document
from jobmon.store.stats import COUNT_BY_STATUS_AND_TYPE, CountsByName, QueueHealth, QueueStats

log = logging.getLogger(__name__)

MAX_AGES = 100  # types whose oldest queued job is looked up
MAX_OVERDUE_READ = 50_000  # index keys; a server reads them in about 20 ms
MAX_COUNTED = 500_000  # index keys; a server counts them in about a quarter of a second
_QUEUED = JobStatus.QUEUED.value
# Reasons for a value that is unknown.
TOO_MANY = f"{MAX_COUNTED:,} or more jobs are due, and {MAX_COUNTED:,} or more are scheduled"
UNCOUNTED = "counting the jobs took longer than a query may take"


class _WaitingCounts(NamedTuple):
    """The fields of `QueueHealth` about waiting jobs."""

    due: int | None
    scheduled: int | None
    too_many_due: bool = False


class LiveStats:
    """Counts the watched jobs; methods raise PyMongoError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._jobs = connection.jobs
        self._is_recurring = connection.profile.is_recurring
        self._waiting_index = (
            indexes.BY_WAITING
            if connection.jobs.mapping.date_decides_waiting
            else indexes.BY_NEXT_RUN
        )

    def count(self) -> QueueStats:
        """The present stats: counts by one `$group`, or an estimate if that takes too long."""
        as_of = self._connection.data_time()
        try:
            counts = self._counts_by_status_and_type()
        except ExecutionTimeout:
            log.warning("counting the jobs took over %d ms", self._jobs.max_time_ms)
            counted_at = self._connection.data_time()
            health = self.health(None, counted_at)
            return QueueStats(
                as_of=min(as_of, counted_at),
                source="estimate",
                counts=None,
                total=health.estimated_total,
                health=health,
            )
        counted_at = self._connection.data_time()
        return QueueStats(
            as_of=min(as_of, counted_at),
            source="live",
            counts=counts,
            total=sum(counts.values()),
            health=self.health(counts, counted_at),
        )

    def _counts_by_status_and_type(self) -> dict[tuple[str, str], int]:
        groups = self._jobs.aggregate(
            [COUNT_BY_STATUS_AND_TYPE], index=indexes.BY_STATUS_AND_TYPE, snapshot=True
        )
        largest_first = sorted(groups, key=lambda group: -int(group["count"]))
        return CountsByName(self._jobs.mapping).add_up(largest_first)

    def health(
        self,
        counts: Mapping[tuple[str, str], int] | None,
        now: datetime,
        unchanged: QueueHealth | None = None,
    ) -> QueueHealth:
        """The health at `now`. `counts`: the jobs by (status, type); None if they are unknown.

        `unchanged`: an earlier health, if no job has changed since then; its values that do not
        depend on the time are used again.
        """
        unknown: dict[str, str] = {}
        all_waiting = None
        queued: Counter[str] = Counter()
        if counts is not None:
            all_waiting = sum(
                count for (status, _), count in counts.items() if status in WAITING_STATUSES
            )
            for (status, job_type), count in counts.items():
                if status == _QUEUED:
                    queued[job_type] = count
        readable = _list_readable_counts(unchanged)
        waiting = self._count_waiting(now, all_waiting, unknown, are_dates="due" in readable)
        types = [job_type for job_type, _ in queued.most_common(MAX_AGES)]
        is_any_queued = self._has_any(JobStatus.QUEUED, counts)
        if unchanged is not None:
            oldest, by_type = unchanged.oldest_queued, unchanged.oldest_queued_by_type
        else:
            oldest, by_type = self._find_oldest_queued(types) if is_any_queued else (None, {})
        if oldest is None and is_any_queued and self._is_age_unknown(None):
            unknown["oldest_queued"] = self._explain_unknown_age()
        if ages_unknown := set(filter(self._is_age_unknown, set(types) - by_type.keys())):
            unknown["oldest_queued_by_type"] = (
                f"not known for {len(ages_unknown)} of {len(types)} types: "
                f"{self._explain_unknown_age()}, or the type is not a text"
            )
        return QueueHealth(
            estimated_total=(unchanged and unchanged.estimated_total)
            or self._estimate_total(counts),
            expired_leases=self._count_expired_leases(
                counts, now, unknown, are_dates="expired_leases" in readable
            ),
            due=waiting.due,
            scheduled=waiting.scheduled,
            too_many_due=waiting.too_many_due,
            oldest_queued=oldest,
            oldest_queued_by_type=by_type,
            overdue_by_type={} if all_waiting == 0 else self._find_overdue(now, unknown),
            unknown=unknown,
        )

    def _estimate_total(self, counts: Mapping[tuple[str, str], int] | None) -> int:
        """The number of jobs by the metadata, or by the counts if not all documents are jobs."""
        if self._jobs.mapping.where and counts is not None:
            return sum(counts.values())
        return self._jobs.estimated_count()

    def _count_expired_leases(
        self,
        counts: Mapping[tuple[str, str], int] | None,
        now: datetime,
        unknown: dict[str, str],
        *,
        are_dates: bool,
    ) -> int | None:
        """The leased jobs whose lease has ended, counted up to 500,000.

        If there is a reason in `unknown`, the number is a lower bound or None. `are_dates`: the
        leaseExpiresAt of each leased job is a date.
        """

        def count(condition: Document) -> CappedCount:
            query = {"status": JobStatus.LEASED.value, "leaseExpiresAt": condition}
            counted = self._jobs.count(query, index=indexes.BY_LEASE, limit=MAX_COUNTED)
            return CappedCount(counted, counted < MAX_COUNTED)

        can_query = self._jobs.mapping.can_query("leaseExpiresAt")
        # Without counts, the queries below are enough: they count 0 if no job is leased.
        if (counts is not None or not can_query) and not self._has_any(JobStatus.LEASED, counts):
            return 0
        if not can_query:
            unknown["expired_leases"] = "the documents do not record when a lease ends"
            return None
        expired = count({"$lte": now})
        unreadable = CappedCount(0, True) if are_dates else count({"$type": NOT_DATES})
        if unreadable.value:
            reason = f"leaseExpiresAt of {_describe(unreadable)} leased jobs is not a date"
            unknown["expired_leases"] = reason
        elif not expired.is_exact:
            unknown["expired_leases"] = f"{_describe(expired)} leases have expired"
        return expired.value or (None if unreadable.value else 0)

    def _has_any(self, status: JobStatus, counts: Mapping[tuple[str, str], int] | None) -> bool:
        if counts is not None:
            return any(count for (counted, _), count in counts.items() if counted == status.value)
        return self._jobs.count({"status": status.value}, index=indexes.BY_STATUS, limit=1) > 0

    def _explain_unknown_age(self) -> str:
        if "createdAt" in self._jobs.mapping.missing_fields:
            return "the documents do not record when a job was created"
        if not self._jobs.mapping.has_status:
            return "the documents do not record since when a repeated job has waited"
        return "createdAt of the queued jobs is not a date, or missing"

    def _count_waiting(
        self,
        now: datetime,
        all_waiting: int | None,
        unknown: dict[str, str],
        *,
        are_dates: bool,
    ) -> _WaitingCounts:
        """The numbers of the due and of the scheduled jobs.

        The scheduled jobs are counted; the other waiting jobs are due. From 500,000 scheduled jobs
        on, the due jobs are counted instead. `are_dates`: each waiting job's nextRunAt is a date.
        """
        both, mapping = ("due", "scheduled"), self._jobs.mapping
        can_query = mapping.can_query("nextRunAt")
        # With neither date, as in Celery, the documents are results: waiting jobs are elsewhere.
        if all_waiting == 0 and (can_query or "createdAt" not in mapping.missing_fields):
            return _WaitingCounts(0, 0)
        if not can_query:
            unknown |= dict.fromkeys(both, "the documents do not record when a job is due")
            return _WaitingCounts(None, None)

        def count(condition: Document) -> CappedCount:
            query = {"status": {"$in": list(WAITING_STATUSES)}, "nextRunAt": condition}
            counted = self._jobs.count(query, index=self._waiting_index, limit=MAX_COUNTED)
            return CappedCount(counted, counted < MAX_COUNTED)

        unreadable = CappedCount(0, True) if are_dates else count({"$type": NOT_DATES})
        later = count({"$gt": now})
        if unreadable.value:
            reason = f"nextRunAt of {_describe(unreadable)} waiting jobs is not a date"
            unknown |= dict.fromkeys(both, reason)
        scheduled = later.value if later.is_exact else None
        if all_waiting is None:
            unknown["due"] = UNCOUNTED
            if scheduled is None:
                unknown["scheduled"] = f"{MAX_COUNTED:,} or more jobs are scheduled"
            return _WaitingCounts(None, None if scheduled == 0 and unreadable.value else scheduled)
        if not unreadable.is_exact:
            return _WaitingCounts(None, scheduled or None)
        if scheduled is not None:
            due = max(0, all_waiting - unreadable.value - scheduled)
        else:
            not_scheduled = count({"$not": {"$gt": now}})  # due, or without a readable date
            if not not_scheduled.is_exact:
                unknown |= dict.fromkeys(both, TOO_MANY)
                return _WaitingCounts(None, None, too_many_due=True)
            due = max(0, not_scheduled.value - unreadable.value)
            scheduled = max(0, all_waiting - not_scheduled.value)
        if unreadable.value:  # both counts are lower bounds: 0 may be too low
            return _WaitingCounts(due or None, scheduled or None)
        return _WaitingCounts(due, scheduled)

    def _find_overdue(self, now: datetime, unknown: dict[str, str]) -> dict[str, datetime]:
        """The earliest nextRunAt by type, of the 50,000 jobs that have been due the longest."""
        pipeline: list[Document] = [
            {"$match": {"status": {"$in": list(WAITING_STATUSES)}, "nextRunAt": {"$lte": now}}},
            {"$sort": dict(self._jobs.mapping.translate_order([("nextRunAt", 1)]))},
            {"$limit": MAX_OVERDUE_READ},
            {"$group": {"_id": "$type", "first": {"$min": "$nextRunAt"}, "jobs": {"$sum": 1}}},
        ]
        if not self._jobs.mapping.can_query("nextRunAt"):
            return {}
        groups = self._jobs.aggregate(pipeline, index=self._waiting_index)
        if sum(group["jobs"] for group in groups) >= MAX_OVERDUE_READ:
            unknown["overdue_by_type"] = f"only the first {MAX_OVERDUE_READ:,} due jobs are read"
        overdue: dict[str, datetime] = {}
        for group in groups:
            if isinstance(group["first"], datetime):
                job_type, first = label(group["_id"]), make_aware(group["first"])
                overdue[job_type] = min(first, overdue.get(job_type, first))
        return overdue

    def _find_oldest_queued(self, types: list[str]) -> tuple[datetime | None, dict[str, datetime]]:
        """The createdAt of the oldest queued job: of all jobs, and of each of these types."""
        if not self._jobs.mapping.has_status:
            return self._scan_for_oldest_queued(types)
        oldest = {job_type: self._look_up_oldest_queued(job_type) for job_type in types}
        by_type = {job_type: at for job_type, at in oldest.items() if at is not None}
        return self._look_up_oldest_queued(None), by_type

    def _scan_for_oldest_queued(
        self, types: list[str]
    ) -> tuple[datetime | None, dict[str, datetime]]:
        """`_find_oldest_queued` for documents without a status field: it scans all queued jobs.

        A recurring job that has run before has not waited since its creation, so it is left out.
        """
        query: Document = {"status": JobStatus.QUEUED.value}
        if self._is_recurring:
            query["finishedAt"] = None
        pipeline: list[Document] = [
            {"$match": query},
            {"$group": {"_id": "$type", "oldest": {"$min": "$createdAt"}}},
        ]
        oldest = {
            label(group["_id"]): make_aware(group["oldest"])
            for group in self._jobs.aggregate(pipeline, index=self._waiting_index)
            if isinstance(group["oldest"], datetime)
        }
        by_type = {job_type: oldest[job_type] for job_type in types if job_type in oldest}
        return min(oldest.values(), default=None), by_type

    def _look_up_oldest_queued(self, job_type: str | None) -> datetime | None:
        """The createdAt of the oldest queued job; with `job_type`, of this type."""
        oldest = self._find_first_queued(job_type, {"createdAt": {"$type": "date"}})
        return read_date(oldest[0].get("createdAt")) if oldest else None

    def _is_age_unknown(self, job_type: str | None) -> bool:
        """Whether a queued job (of this type) without a readable createdAt exists.

        If there is none, the job that was counted has started before its age was looked up.
        """
        mapping = self._jobs.mapping
        if not mapping.has_status or "createdAt" in mapping.missing_fields:
            return True
        if job_type is not None and not can_filter_by(job_type):
            return True
        first = self._find_first_queued(job_type, {})  # before dates come missing and other values
        return bool(first) and read_date(first[0].get("createdAt")) is None

    def _find_first_queued(self, job_type: str | None, condition: Document) -> list[Document]:
        """The first queued job by createdAt (of `job_type`, if given) that matches, as a list."""
        query: Document = {"status": _QUEUED, **condition}
        index = indexes.BY_STATUS
        if job_type is not None:
            query["type"] = match_any(label_values(job_type))
            index = indexes.BY_STATUS_AND_TYPE
        return self._jobs.find(query, ("createdAt",), index=index, order=OLDEST_FIRST, limit=1)


def _describe(count: CappedCount) -> str:
    return f"{count.value:,}" if count.is_exact else f"{count.value:,} or more"


def _list_readable_counts(health: QueueHealth | None) -> set[str]:
    """The names of the counts without a reason in `unknown`: all their dates are readable."""
    return set() if health is None else {"due", "expired_leases"} - health.unknown.keys()
