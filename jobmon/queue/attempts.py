"""Records attempts: one document for each run of a job, written after the job's own document."""

from datetime import datetime
from itertools import islice
from typing import Any

from pymongo import ASCENDING
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from jobmon.domain import AttemptStatus, JobStatus
from jobmon.queue.changes import attempt_number, describe_attempt_end

Document = dict[str, Any]

BATCH_SIZE = 1_000
_JOB_FIELDS = ["jobId", "status", "attemptCount", "lastError", "updatedAt"]


class AttemptRecords:
    """Writes the collection of attempts."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def create_indexes(self) -> None:
        """Create the indexes that leasing, reporting and recovery need."""
        self._collection.create_index(
            [("jobId", ASCENDING), ("attemptNumber", ASCENDING)], unique=True
        )
        self._collection.create_index(
            [("status", ASCENDING)],
            partialFilterExpression={"status": AttemptStatus.RUNNING.value},
        )

    def delete(self, job_id: str) -> None:
        """Delete the attempts of a job."""
        self._collection.delete_many({"jobId": job_id})

    def record_start(self, job: Document, worker_id: str, now: datetime) -> bool:
        """Record that an attempt at a job started; False if its end is recorded already."""
        attempt = {"jobId": job["jobId"], "attemptNumber": job["attemptCount"]}
        running = {
            "status": AttemptStatus.RUNNING.value,
            "workerId": worker_id,
            "eligibleAt": job.get("nextRunAt"),
            "startedAt": now,
            "finishedAt": None,
            "error": None,
        }
        # Never replace an end that was recorded meanwhile: this worker may have lost the lease.
        not_ended = {"finishedAt": {"$not": {"$gte": now}}}
        try:
            self._collection.replace_one(attempt | not_ended, attempt | running, upsert=True)
        except DuplicateKeyError:
            return False
        return True

    def record_end(
        self,
        job: Document,
        status: AttemptStatus,
        now: datetime,
        error: Document | None,
        *,
        may_insert: bool = True,
    ) -> None:
        """Record how the newest attempt of a job ended. `job`: its fields while it was leased.

        With `may_insert`, a missing document is inserted: it is missing if the worker died between
        the update of the job and `record_start`.
        """
        attempt = {"jobId": job["jobId"], "attemptNumber": attempt_number(job)}
        change = {"$set": {"status": status.value, "finishedAt": now, "error": error}}
        if may_insert:
            start = {"workerId": job.get("leasedBy"), "startedAt": job.get("updatedAt")}
            change["$setOnInsert"] = start
        self._collection.update_one(attempt, change, upsert=may_insert)

    def complete_lost_reports(self, jobs: Collection[Document], now: datetime) -> None:
        """End the running attempts whose job is deleted or not leased, or has a newer attempt."""
        is_running = {"status": AttemptStatus.RUNNING.value}
        running = self._collection.find(is_running, ["jobId", "attemptNumber"])
        # All batches are read: the attempts to end need not be in the first.
        while attempts := list(islice(running, BATCH_SIZE)):
            self._complete_batch(attempts, jobs, now)

    def _complete_batch(
        self, attempts: list[Document], jobs: Collection[Document], now: datetime
    ) -> None:
        job_ids = [attempt["jobId"] for attempt in attempts]
        found_jobs = jobs.find({"jobId": {"$in": job_ids}}, _JOB_FIELDS)
        jobs_by_id = {job["jobId"]: job for job in found_jobs}
        for attempt in attempts:
            job = jobs_by_id.get(attempt["jobId"])
            if job is not None and attempt_number(job) != attempt["attemptNumber"]:
                job = None  # the job has a newer attempt: nothing shows how this attempt ended
            if job is None or job["status"] != JobStatus.LEASED.value:
                self._collection.update_one(
                    {"_id": attempt["_id"], "status": AttemptStatus.RUNNING.value},
                    {"$set": describe_attempt_end(job, now)},
                )
