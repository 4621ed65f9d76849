"""`JobQueue`: each change first updates the job, under conditions, and then writes the attempt."""

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
from jobmon.queue.attempts import AttemptRecords
from jobmon.queue.changes import (
    ATTEMPT_ENDS,
    CANCELLED,
    DEFAULT_MAX_ATTEMPTS,
    JobChange,
    RetryPolicy,
    decide_change,
    make_final_fields,
    schedule_retry,
)

Document = dict[str, Any]

DEFAULT_LEASE_MS = 30_000
MAX_RECOVERED = 1_000
MAX_ERROR_TEXT_LENGTH = 100_000  # characters; a document has room for 16 MB
PAUSED_TYPES_MAX_AGE_S = 1.0
_UNAUTHORIZED = 13


class LeaseLostError(Exception):
    """The lease has ended: it expired, or the job was reported, released, cancelled or deleted."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A worker's right to run a job for one attempt, until `expires_at` (UTC) if not extended.

    `job`: its document right after it was leased.
    """

    job_id: str
    attempt_number: int
    worker_id: str
    started_at: datetime
    expires_at: datetime
    job: Document


class JobQueue:
    """A job queue in `database`; the collection `controls` has the list of paused types."""

    def __init__(
        self,
        database: Database[Document],
        *,
        jobs: str = "jobs",
        attempts: str = "job_attempts",
        controls: str = CONTROLS,
        retry: RetryPolicy | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        options = database.codec_options.with_options(tz_aware=True)
        self._jobs = database.get_collection(jobs, codec_options=options)
        self._attempts = AttemptRecords(database.get_collection(attempts, codec_options=options))
        self._controls = database.get_collection(controls, codec_options=options)
        self._paused_cache: tuple[float, list[str]] | None = None
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._jitter = jitter

    def create_indexes(self, *, by_type: bool = False) -> None:
        """Create the indexes that leasing and recovery need.

        `by_type` adds an index for `lease` with `types`: without it, such a lease also reads the
        index keys of more urgent jobs of other types. Each change of a status writes to this index.
        """
        self._jobs.create_index([("jobId", ASCENDING)], unique=True)
        # In the order of `lease`. With the type, jobmon can also count the jobs ahead of a job.
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
        """Add a job, and return its jobId. It can be leased from `run_at` (UTC) on, or at once.

        Raises DuplicateKeyError if `job_id` exists, and ValueError if the type is empty or
        `max_attempts` is less than 1.
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

        The most urgent job has the highest priority and, among equals, has been due longest. Jobs
        of paused types are skipped: see `list_paused_types`. The result is also None if this
        process stalled after the update, and the job was recovered or cancelled meanwhile.
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
            types = [types] if isinstance(types, str) else types  # one type, not its letters
            due["type"] = {"$in": [name for name in types if name not in paused]}
        elif paused:
            due["type"] = {"$nin": paused}
        is_number = {"$isNumber": "$attemptCount"}
        leased = {
            "status": JobStatus.LEASED.value,
            "leasedBy": {"$literal": worker_id},
            "leaseExpiresAt": expires_at,
            "updatedAt": now,
            # `$inc` would fail for a null or a text, and with it the leases of all workers.
            "attemptCount": {"$add": [1, {"$cond": [is_number, "$attemptCount", 0]}]},
        }
        job = self._jobs.find_one_and_update(
            due,
            [{"$set": leased}],
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
        """Extend the lease to `lease_ms` from now, and return its new end.

        Raises LeaseLostError if the worker no longer holds the job.
        """
        now = self._now()
        expires_at = now + timedelta(milliseconds=lease_ms)
        self._update_leased(lease, now, {"leaseExpiresAt": expires_at})
        return expires_at

    def report_success(self, lease: Lease) -> None:
        """Report success. Raises LeaseLostError, and changes nothing, if the lease has ended."""
        now = self._now()
        self._update_leased(lease, now, make_final_fields(JobStatus.SUCCEEDED, now))
        self._attempts.record_end(lease.job, AttemptStatus.SUCCEEDED, now, None)

    def report_failure(
        self, lease: Lease, code: str, message: str, *, stack: str | None = None, retry: bool = True
    ) -> JobStatus:
        """Report that the attempt failed, and return the job's new status.

        The job is retried after a delay, or dead-lettered if it has had all its `maxAttempts` or
        `retry` is false. Each text is cut after 100,000 characters, and has a `?` for each
        surrogate, because BSON has none. Raises LeaseLostError, and changes nothing, if the lease
        has ended.
        """
        now = self._now()
        texts = {"code": code, "message": message, "stack": stack}
        error = {name: text and _make_storable(text) for name, text in texts.items()}
        jitter = self._jitter()
        status, change = schedule_retry(lease.job, now, self._retry, jitter, may_retry=retry)
        self._update_leased(lease, now, change | {"lastError": error})
        self._attempts.record_end(lease.job, AttemptStatus.FAILED, now, error)
        return status

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that is not finished; a worker that runs it loses its lease.

        Returns False if the job does not exist or is finished.
        """
        now = self._now()
        previous = self._jobs.find_one_and_update(
            {"jobId": job_id, "status": {"$in": [*WAITING_STATUSES, JobStatus.LEASED.value]}},
            {"$set": make_final_fields(JobStatus.CANCELLED, now) | {"updatedAt": now}},
        )
        if previous is not None and previous["status"] == JobStatus.LEASED.value:
            self._attempts.record_end(previous, AttemptStatus.FAILED, now, CANCELLED)
        return previous is not None

    def recover(self) -> int:
        """Release expired leases, and record the end of attempts whose worker died while reporting.

        An expired attempt counts: its job is retried after a delay, or dead-lettered if it has had
        all its `maxAttempts`. Call this every few seconds, in any number of processes. Returns the
        number of released leases, at most 1,000 a call.
        """
        now = self._now()
        is_expired = {"status": JobStatus.LEASED.value, "leaseExpiresAt": {"$lte": now}}
        expired_jobs = self._jobs.find(is_expired).sort("leaseExpiresAt").limit(MAX_RECOVERED)
        released = sum(map(self._release, expired_jobs))
        self._attempts.complete_lost_reports(self._jobs, now)
        return released

    def _release(self, job: Document) -> bool:
        try:
            change = self.decide(JobAction.RELEASE, job)
        except (TypeError, ValueError, ArithmeticError):
            # The clock was set back meanwhile, or a field has an odd value: the job stays leased.
            return False
        return self.apply(change)

    def decide(
        self, action: JobAction, job: Document, value: Any = None, *, reset_attempts: bool = False
    ) -> JobChange:
        """The change that an action makes to a job. Nothing is written.

        `job`: its document with all fields; only the payload may be missing. `value`: the time
        (UTC) for `reschedule`, the number for `prioritize`, the earlier fields for `undo`. With
        `reset_attempts`, a retried job gets its original number of attempts again; otherwise it
        keeps its remaining attempts, and gets one if none remain. Raises RefusedActionError if the
        job does not allow the action.

            change = queue.decide(JobAction.RETRY, job)
            is_applied = queue.apply(change)
        """
        jitter = self._jitter() if action is JobAction.RELEASE else 0.0
        return decide_change(
            action,
            job,
            value,
            now=self._now(),
            retry=self._retry,
            jitter=jitter,
            reset_attempts=reset_attempts,
        )

    def apply(
        self, change: JobChange, *, last_action: Document | None = None, may_insert: bool = True
    ) -> bool:
        """Make a change from `decide`; False if the job no longer has the `expected` values.

        `last_action` is stored in the job as `lastAction`. If the change ends an attempt, the
        attempt's document is written next; if it deletes the job, its attempts are deleted, also if
        the job is gone already. Set `may_insert` to false for a user without the right to insert
        attempts: then only an existing document is updated.
        """
        if change.fields is None:
            is_applied = bool(self._jobs.delete_one(change.expected).deleted_count)
            job_id = change.job["jobId"]
            # An earlier call may have ended between the two deletions.
            if is_applied or self._jobs.find_one({"jobId": job_id}, ["_id"]) is None:
                self._attempts.delete(job_id)
            return is_applied
        fields = change.fields | ({} if last_action is None else {"lastAction": last_action})
        is_applied = bool(self._jobs.update_one(change.expected, {"$set": fields}).matched_count)
        was_running = change.expected["status"] == JobStatus.LEASED.value
        if is_applied and was_running and change.action in ATTEMPT_ENDS:
            status, error = ATTEMPT_ENDS[change.action]
            now = change.fields["updatedAt"]
            self._attempts.record_end(change.job, status, now, error, may_insert=may_insert)
        return is_applied

    def list_paused_types(self) -> list[str]:
        """The paused types, as read at most a second ago: `lease` skips their jobs.

        Empty if the user has no right to read the controls.
        """
        now = time.monotonic()
        if self._paused_cache is None or now - self._paused_cache[0] > PAUSED_TYPES_MAX_AGE_S:
            try:
                stored = self._controls.find_one({"_id": PAUSED})
            except OperationFailure as error:
                if error.code != _UNAUTHORIZED:
                    raise
                stored = None
            self._paused_cache = now, list((stored or {}).get("types", ()))
        return self._paused_cache[1]

    def _now(self) -> datetime:
        # MongoDB stores whole milliseconds: a more precise time would differ from its stored value.
        now = self._clock()
        return now.replace(microsecond=now.microsecond // 1_000 * 1_000)

    def _update_leased(self, lease: Lease, now: datetime, change: Document) -> None:
        is_held = {
            "jobId": lease.job_id,
            "status": JobStatus.LEASED.value,
            "leasedBy": lease.worker_id,
            "attemptCount": lease.attempt_number,
            "leaseExpiresAt": {"$gt": now},
        }
        result = self._jobs.update_one(is_held, {"$set": change | {"updatedAt": now}})
        if not result.matched_count:
            raise LeaseLostError(
                f"{lease.worker_id} no longer holds attempt {lease.attempt_number} "
                f"of job {lease.job_id}"
            )


def _make_storable(text: str) -> str:
    return text[:MAX_ERROR_TEXT_LENGTH].encode(errors="replace").decode()
