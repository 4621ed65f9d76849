"""The job queue for producers and workers: enqueue, lease, report. The monitor never imports it.

Every transition is one atomic, conditional update of the job, so two workers can never hold one
job, and a report from a worker that lost its lease changes nothing. The attempt's own document
is written right after; if the process crashes between the two, `recover` completes the record.

    queue = JobQueue(MongoClient(uri).jobmon)
    queue.create_indexes()
    queue.enqueue("email.send", {"to": "ada@example.com"}, created_by="ada")
    if lease := queue.lease("worker-1"):
        queue.report_success(lease)

Times are those of this machine's clock, in UTC: the clocks of all workers must agree to within a
small part of a lease.
"""

import random
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from jobmon.domain import WAITING_STATUSES, AttemptStatus, JobStatus

Document = dict[str, Any]

DEFAULT_LEASE_MS = 30_000
DEFAULT_MAX_ATTEMPTS = 5
_MAX_RECOVERED = 1_000


class LeaseLostError(Exception):
    """The worker no longer holds the job: the lease expired, or the job was cancelled."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long to wait before the next attempt: doubled each time, capped, with jitter."""

    base_ms: int = 1_000
    cap_ms: int = 3_600_000

    def delay_ms(self, attempt_number: int, chance: float) -> int:
        """The delay after attempt `attempt_number` (1, 2, …) failed; `chance` is in [0, 1).

        The delay lies between half and all of base * 2^(n-1), so that jobs that failed together
        do not come back together.
        """
        full = min(self.base_ms << min(attempt_number - 1, 40), self.cap_ms)
        return round(full / 2 + chance * full / 2)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A worker's right to run a job, for one attempt, until `expires_at` (UTC)."""

    job_id: str
    attempt_number: int
    worker_id: str
    started_at: datetime
    expires_at: datetime
    job: Document


class JobQueue:
    """A job queue in two collections of `database`, in the documents that jobmon watches."""

    def __init__(
        self,
        database: Database[Document],
        *,
        jobs: str = "jobs",
        attempts: str = "job_attempts",
        retry: RetryPolicy | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        options = database.codec_options.with_options(tz_aware=True)
        self._jobs = database.get_collection(jobs, codec_options=options)
        self._attempts = database.get_collection(attempts, codec_options=options)
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._chance = chance

    def create_indexes(self) -> None:
        """Create the indexes that leasing and recovery need."""
        self._jobs.create_index([("jobId", ASCENDING)], unique=True)
        # The order of `lease`. The type makes it the index by which jobmon counts the jobs ahead.
        self._jobs.create_index(
            [
                ("status", ASCENDING),
                ("priority", DESCENDING),
                ("nextRunAt", ASCENDING),
                ("type", ASCENDING),
            ]
        )
        self._jobs.create_index([("status", ASCENDING), ("leaseExpiresAt", ASCENDING)])
        self._attempts.create_index(
            [("jobId", ASCENDING), ("attemptNumber", ASCENDING)], unique=True
        )
        self._attempts.create_index(
            [("status", ASCENDING)],
            partialFilterExpression={"status": AttemptStatus.RUNNING.value},
        )

    def enqueue(
        self,
        job_type: str,
        payload: Document | None = None,
        *,
        created_by: Any = None,
        priority: int = 0,
        run_at: datetime | None = None,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        job_id: str | None = None,
    ) -> str:
        """Add a job and return its jobId; pymongo's DuplicateKeyError if `job_id` is taken.

        It may be leased from `run_at` (UTC) on, at once by default.
        """
        if not job_type or max_attempts < 1:
            raise ValueError("a job needs a type and at least one attempt")
        now = self._now()
        job_id = job_id or str(uuid.uuid4())
        self._jobs.insert_one(
            {
                "jobId": job_id,
                "type": job_type,
                "status": JobStatus.QUEUED.value,
                "payload": payload or {},
                "priority": priority,
                "createdBy": created_by,
                "createdAt": now,
                "updatedAt": now,
                "nextRunAt": run_at or now,
                "maxAttempts": max_attempts,
                "attemptCount": 0,
                "leasedBy": None,
                "leaseExpiresAt": None,
                "finishedAt": None,
                "lastError": None,
            }
        )
        return job_id

    def lease(
        self,
        worker_id: str,
        *,
        types: Iterable[str] | None = None,
        lease_ms: int = DEFAULT_LEASE_MS,
    ) -> Lease | None:
        """Lease the most urgent job that is due, of `types` if given; None if there is none.

        That is the job with the highest priority; of several, the one that has been due longest.
        Also None if the lease expired before it could be recorded.
        """
        now = self._now()
        expires_at = now + timedelta(milliseconds=lease_ms)
        # `$not` also finds a nextRunAt that is null or missing.
        due: Document = {
            "status": {"$in": list(WAITING_STATUSES)},
            "nextRunAt": {"$not": {"$gt": now}},
        }
        if types is not None:
            due["type"] = {"$in": list(types)}
        job = self._jobs.find_one_and_update(
            due,
            {
                "$set": {
                    "status": JobStatus.LEASED.value,
                    "leasedBy": worker_id,
                    "leaseExpiresAt": expires_at,
                    "updatedAt": now,
                },
                "$inc": {"attemptCount": 1},
            },
            sort=[("priority", DESCENDING), ("nextRunAt", ASCENDING)],
            return_document=ReturnDocument.AFTER,
        )
        if job is None or not self._record_start(job, worker_id, now):
            return None
        return Lease(
            job_id=job["jobId"],
            attempt_number=job["attemptCount"],
            worker_id=worker_id,
            started_at=now,
            expires_at=expires_at,
            job=job,
        )

    def _record_start(self, job: Document, worker_id: str, now: datetime) -> bool:
        """Write the attempt of a leased job; False if its end was recorded meanwhile."""
        attempt = {"jobId": job["jobId"], "attemptNumber": job["attemptCount"]}
        running = {
            "status": AttemptStatus.RUNNING.value,
            "workerId": worker_id,
            "eligibleAt": job.get("nextRunAt"),
            "startedAt": now,
            "finishedAt": None,
            "error": None,
        }
        # Never replace an end recorded since: this worker may have stalled and lost the lease.
        not_ended = {"finishedAt": {"$not": {"$gte": now}}}
        try:
            self._attempts.replace_one(attempt | not_ended, attempt | running, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def heartbeat(self, lease: Lease, *, lease_ms: int = DEFAULT_LEASE_MS) -> datetime:
        """Extend the lease to `lease_ms` from now; returns its end.

        Raises LeaseLostError if the lease is lost.
        """
        now = self._now()
        expires_at = now + timedelta(milliseconds=lease_ms)
        self._change_held(lease, now, {"leaseExpiresAt": expires_at})
        return expires_at

    def report_success(self, lease: Lease) -> None:
        """Report that the job is done; raises LeaseLostError and changes nothing if it is lost."""
        now = self._now()
        self._change_held(lease, now, _finish_fields(JobStatus.SUCCEEDED, now))
        self._end_attempt(lease.job, AttemptStatus.SUCCEEDED, now, None)

    def report_failure(
        self, lease: Lease, code: str, message: str, *, stack: str | None = None, retry: bool = True
    ) -> JobStatus:
        """Report that the attempt failed: the job is retried after a delay.

        It is dead-lettered instead if `maxAttempts` are used up or `retry` is false. Returns the
        job's new status. Raises LeaseLostError, without a change, if the lease is lost.
        """
        now = self._now()
        error = {"code": code, "message": message, "stack": stack}
        status, change = self._schedule_retry(lease.job, now, retry=retry)
        self._change_held(lease, now, change | {"lastError": error})
        self._end_attempt(lease.job, AttemptStatus.FAILED, now, error)
        return status

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that is not finished; a worker that runs it loses its lease.

        Returns False if the job does not exist or is finished.
        """
        now = self._now()
        before = self._jobs.find_one_and_update(
            {"jobId": job_id, "status": {"$in": [*WAITING_STATUSES, JobStatus.LEASED.value]}},
            {"$set": _finish_fields(JobStatus.CANCELLED, now) | {"updatedAt": now}},
        )
        if before is not None and before["status"] == JobStatus.LEASED.value:
            self._end_attempt(before, AttemptStatus.FAILED, now, _CANCELLED)
        return before is not None

    def recover(self) -> int:
        """Release expired leases and complete attempts whose worker died while reporting.

        An expired attempt counts: its job is retried after a delay or, with `maxAttempts` used
        up, goes to the dead-letter queue. Run it every few seconds, anywhere, in any number of
        processes. Returns how many leases it released, at most 1,000 a call.
        """
        recovered = 0
        now = self._now()
        expired = {"status": JobStatus.LEASED.value, "leaseExpiresAt": {"$lte": now}}
        for job in self._jobs.find(expired).sort("leaseExpiresAt").limit(_MAX_RECOVERED):
            _, change = self._schedule_retry(job, now, retry=True)
            lease = ("_id", "status", "leasedBy", "leaseExpiresAt", "attemptCount")
            held = {field: job.get(field) for field in lease}
            change |= {"lastError": _LEASE_EXPIRED, "updatedAt": now}
            if self._jobs.update_one(held, {"$set": change}).modified_count:
                recovered += 1
                self._end_attempt(job, AttemptStatus.EXPIRED, now, _LEASE_EXPIRED)
        self._complete_lost_reports(now)
        return recovered

    def _now(self) -> datetime:
        # MongoDB stores milliseconds; a value compared later must not be more precise.
        now = self._clock()
        return now.replace(microsecond=now.microsecond // 1_000 * 1_000)

    def _change_held(self, lease: Lease, now: datetime, change: Document) -> None:
        held = {
            "jobId": lease.job_id,
            "status": JobStatus.LEASED.value,
            "leasedBy": lease.worker_id,
            "attemptCount": lease.attempt_number,
            "leaseExpiresAt": {"$gt": now},
        }
        result = self._jobs.update_one(held, {"$set": change | {"updatedAt": now}})
        if not result.matched_count:
            raise LeaseLostError(
                f"{lease.worker_id} no longer holds attempt {lease.attempt_number} "
                f"of job {lease.job_id}"
            )

    def _schedule_retry(
        self, job: Document, now: datetime, *, retry: bool
    ) -> tuple[JobStatus, Document]:
        attempt_number = _attempt_number(job)
        if not retry or attempt_number >= job.get("maxAttempts", DEFAULT_MAX_ATTEMPTS):
            return JobStatus.DLQ, _finish_fields(JobStatus.DLQ, now)
        delay = timedelta(milliseconds=self._retry.delay_ms(attempt_number, self._chance()))
        return JobStatus.FAILED, {
            "status": JobStatus.FAILED.value,
            "nextRunAt": now + delay,
            "leasedBy": None,
            "leaseExpiresAt": None,
        }

    def _end_attempt(
        self, held: Document, status: AttemptStatus, now: datetime, error: Document | None
    ) -> None:
        """Record how the present attempt of `held`, a leased job, ended.

        An upsert, because its worker may have died between leasing and recording the start.
        """
        self._attempts.update_one(
            {"jobId": held["jobId"], "attemptNumber": _attempt_number(held)},
            {
                "$set": {"status": status.value, "finishedAt": now, "error": error},
                "$setOnInsert": {
                    "workerId": held.get("leasedBy"),
                    "startedAt": held.get("updatedAt"),
                },
            },
            upsert=True,
        )

    def _complete_lost_reports(self, now: datetime) -> None:
        """End attempts that are recorded as running although their job is no longer leased."""
        running = {"status": AttemptStatus.RUNNING.value}
        attempts = list(self._attempts.find(running).limit(_MAX_RECOVERED))
        job_ids = [attempt["jobId"] for attempt in attempts]
        jobs = {job["jobId"]: job for job in self._jobs.find({"jobId": {"$in": job_ids}})}
        for attempt in attempts:
            job = jobs.get(attempt["jobId"])
            if job is not None and _attempt_number(job) != attempt["attemptNumber"]:
                job = None  # it has a newer attempt: the outcome of this one is not known any more
            if job is None or job["status"] != JobStatus.LEASED.value:
                self._attempts.update_one(
                    {"_id": attempt["_id"], **running}, {"$set": _attempt_end(job, now)}
                )


_CANCELLED = {"code": "cancelled", "message": "The job was cancelled.", "stack": None}
_LEASE_EXPIRED = {"code": "lease_expired", "message": "The worker stopped.", "stack": None}


def _finish_fields(status: JobStatus, now: datetime) -> Document:
    return {"status": status.value, "finishedAt": now, "leasedBy": None, "leaseExpiresAt": None}


def _attempt_number(job: Document) -> int:
    return int(job.get("attemptCount") or 1)


def _attempt_end(job: Document | None, now: datetime) -> Document:
    """The end of an attempt, from the fields of its job, which is not leased.

    Without a job the attempt is `expired`.
    """
    if job is None:
        return {"status": AttemptStatus.EXPIRED.value, "finishedAt": now, "error": _LEASE_EXPIRED}
    error = job.get("lastError")
    if job["status"] == JobStatus.SUCCEEDED.value:
        status, error = AttemptStatus.SUCCEEDED, None
    elif error == _LEASE_EXPIRED:
        status = AttemptStatus.EXPIRED
    else:
        status = AttemptStatus.FAILED
    return {"status": status.value, "finishedAt": job.get("updatedAt"), "error": error}
