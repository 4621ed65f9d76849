"""`JobQueue`: each change of a job is one conditional update, then the attempt's record follows."""

import random
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.database import Database
from pymongo.errors import OperationFailure

from jobmon.domain import CONTROLS, PAUSED, WAITING_STATUSES, AttemptStatus, JobAction, JobStatus
from jobmon.queue.attempts import MAX_RECOVERED, AttemptRecords
from jobmon.queue.changes import (
    ATTEMPT_ENDS,
    CANCELLED,
    DEFAULT_MAX_ATTEMPTS,
    JobChange,
    RefusedActionError,
    RetryPolicy,
    decide_change,
    finish_fields,
    schedule_retry,
)

Document = dict[str, Any]

DEFAULT_LEASE_MS = 30_000
PAUSED_TYPES_MAX_AGE_S = 1.0
_UNAUTHORIZED = 13


class LeaseLostError(Exception):
    """The worker no longer holds the job: the lease expired, or the job was cancelled."""


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
        controls: str = CONTROLS,
        retry: RetryPolicy | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        options = database.codec_options.with_options(tz_aware=True)
        self._jobs = database.get_collection(jobs, codec_options=options)
        self._attempts = AttemptRecords(database.get_collection(attempts, codec_options=options))
        self._controls = database.get_collection(controls, codec_options=options)
        self._paused: tuple[float, list[str]] | None = None
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._chance = chance

    def create_indexes(self, *, by_type: bool = False) -> None:
        """Create the indexes that leasing and recovery need.

        With `by_type`, also create the index for `lease` with `types`. Without it, such a lease
        reads the index keys of all more urgent jobs. Each change of a status writes to this index.
        """
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
        if by_type:
            self._jobs.create_index(
                [("status", 1), ("type", 1), ("priority", -1), ("nextRunAt", 1)]
            )
        self._jobs.create_index([("status", ASCENDING), ("leaseExpiresAt", ASCENDING)])
        self._attempts.create_indexes()

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

        That is the job with the highest priority; of several, the job that has been due longest.
        Also None if the lease expired before it could be recorded. Jobs of a paused type are not
        leased: the list of paused types is read once a second.
        """
        now = self._now()
        expires_at = now + timedelta(milliseconds=lease_ms)
        # `$not` also finds a nextRunAt that is null or missing.
        due: Document = {
            "status": {"$in": list(WAITING_STATUSES)},
            "nextRunAt": {"$not": {"$gt": now}},
        }
        paused = self.list_paused_types()
        if types is not None:
            due["type"] = {"$in": [name for name in types if name not in paused]}
        elif paused:
            due["type"] = {"$nin": paused}
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
        if job is None or not self._attempts.record_start(job, worker_id, now):
            return None
        return Lease(
            job_id=job["jobId"],
            attempt_number=job["attemptCount"],
            worker_id=worker_id,
            started_at=now,
            expires_at=expires_at,
            job=job,
        )

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
        self._change_held(lease, now, finish_fields(JobStatus.SUCCEEDED, now))
        self._attempts.record_end(lease.job, AttemptStatus.SUCCEEDED, now, None)

    def report_failure(
        self, lease: Lease, code: str, message: str, *, stack: str | None = None, retry: bool = True
    ) -> JobStatus:
        """Report that the attempt failed: the job is retried after a delay.

        It is dead-lettered instead if `maxAttempts` are used up or `retry` is false. Returns the
        job's new status. Raises LeaseLostError, without a change, if the lease is lost.
        """
        now = self._now()
        error = {"code": code, "message": message, "stack": stack}
        chance = self._chance()
        status, change = schedule_retry(lease.job, now, self._retry, chance, may_retry=retry)
        self._change_held(lease, now, change | {"lastError": error})
        self._attempts.record_end(lease.job, AttemptStatus.FAILED, now, error)
        return status

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that is not finished; a worker that runs it loses its lease.

        Returns False if the job does not exist or is finished.
        """
        now = self._now()
        before = self._jobs.find_one_and_update(
            {"jobId": job_id, "status": {"$in": [*WAITING_STATUSES, JobStatus.LEASED.value]}},
            {"$set": finish_fields(JobStatus.CANCELLED, now) | {"updatedAt": now}},
        )
        if before is not None and before["status"] == JobStatus.LEASED.value:
            self._attempts.record_end(before, AttemptStatus.FAILED, now, CANCELLED)
        return before is not None

    def recover(self) -> int:
        """Release expired leases and complete attempts whose worker died while reporting.

        An expired attempt counts: its job is retried after a delay or, with `maxAttempts` used
        up, goes to the dead-letter queue. Run it every few seconds, anywhere, in any number of
        processes. Returns how many leases it released, at most 1,000 a call.
        """
        now = self._now()
        expired = {"status": JobStatus.LEASED.value, "leaseExpiresAt": {"$lte": now}}
        found = self._jobs.find(expired).sort("leaseExpiresAt").limit(MAX_RECOVERED)
        recovered = sum(map(self._release, found))
        self._attempts.complete_lost_reports(self._jobs, now)
        return recovered

    def _release(self, job: Document) -> bool:
        try:
            return self.apply(self.decide(JobAction.RELEASE, job))
        except RefusedActionError:  # the clock was set back meanwhile
            return False

    def decide(
        self, action: JobAction, job: Document, value: Any = None, *, reset_attempts: bool = False
    ) -> JobChange:
        """What an action does to a job, which was read with all fields but the payload.

        `value`: the time (UTC) for `reschedule`, the number for `prioritize`, the earlier fields
        for `undo`. With `reset_attempts`, a retry gives the job as many attempts as it had at
        first; otherwise the job keeps the attempts that are left, at least one. Nothing is written.
        Raises RefusedActionError.

            change = queue.decide(JobAction.RETRY, job)
            is_made = queue.apply(change)  # False if the job has changed since it was read
        """
        chance = self._chance() if action is JobAction.RELEASE else 0.0
        return decide_change(
            action,
            job,
            value,
            now=self._now(),
            retry=self._retry,
            chance=chance,
            reset_attempts=reset_attempts,
        )

    def apply(
        self, change: JobChange, *, mark: Document | None = None, may_insert: bool = True
    ) -> bool:
        """Make a change that `decide` returned; False if the job has changed since it was read.

        `mark` is stored in the job as `lastAction`. If the change ends an attempt, its document is
        written next; unless `may_insert`, only if its start was recorded, because an insert needs a
        right of its own.
        """
        if change.fields is None:
            is_made = bool(self._jobs.delete_one(change.expected).deleted_count)
            if is_made:
                self._attempts.delete(change.job["jobId"])
            return is_made
        fields = change.fields if mark is None else change.fields | {"lastAction": mark}
        is_made = bool(self._jobs.update_one(change.expected, {"$set": fields}).matched_count)
        was_running = change.expected["status"] == JobStatus.LEASED.value
        if is_made and was_running and change.action in ATTEMPT_ENDS:
            status, error = ATTEMPT_ENDS[change.action]
            now = change.fields["updatedAt"]
            self._attempts.record_end(change.job, status, now, error, may_insert=may_insert)
        return is_made

    def list_paused_types(self) -> list[str]:
        """The types whose jobs are not leased, as of at most a second ago.

        If the user may not read the list, no type is paused.
        """
        now = time.monotonic()
        if self._paused is None or now - self._paused[0] > PAUSED_TYPES_MAX_AGE_S:
            try:
                found = self._controls.find_one({"_id": PAUSED})
            except OperationFailure as error:
                if error.code != _UNAUTHORIZED:
                    raise
                found = None
            self._paused = now, list((found or {}).get("types", ()))
        return self._paused[1]

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
