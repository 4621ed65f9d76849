"""Invent history for an empty queue, as if the sample workload had run for hours.

Jobs are like the jobs of `jobmon.demo.workload`, without expired leases and reminders. Some minutes
are busy, and nine minutes have more failures, so that the charts are not flat.
"""

import math
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pymongo.database import Database

from jobmon.collector.samples import QueueSamples
from jobmon.demo.workload import BACKLOG, JOB_TYPES, OWNERS, JobType
from jobmon.rollup.buckets import DAY, HOUR, MINUTE, QueueSample
from jobmon.rollup.documents import OwnDatabase

Document = dict[str, Any]

RETRY_S = 20
BACKLOG_WAIT_S = 600  # the additional wait of a backlog job
ERRORS = (
    ("ETIMEDOUT", "The bank did not answer within 5 s."),
    ("HTTP_502", "The receiver answered 502 Bad Gateway."),
    ("RATE_LIMITED", "The provider asks us to slow down."),
)
STACK = """Traceback (most recent call last):
  File "/srv/worker/run.py", line 88, in work
    outcome = handler(job.payload)
  File "/srv/worker/handlers.py", line 41, in deliver
    response = client.post(receiver, json=body, timeout=5)
"""


class Change(NamedTuple):
    """A change of a job's status; `old_status` is None if the job was enqueued."""

    changed_at: datetime
    old_status: str | None
    new_status: str
    created_at: datetime


class History:
    """Invented jobs of the last `hours`; `seed` starts the random numbers."""

    def __init__(self, hours: float, seed: int = 4) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._now = datetime.now(UTC)
        self._start = self._now - timedelta(hours=hours)
        self._changes: list[Change] = []

    def fill(self, watched: Database[Document], rollups: OwnDatabase) -> None:
        """Write the jobs, their attempts, and a sample of each minute."""
        jobs: list[Document] = []
        attempts: list[Document] = []
        for job_type in (*JOB_TYPES, BACKLOG):
            for created_at in self._list_enqueue_times(job_type):
                job, job_attempts = self._make_job(job_type, created_at)
                jobs.append(job)
                attempts += job_attempts
        jobs.sort(key=lambda job: job["createdAt"])
        watched.jobs.insert_many(jobs, ordered=False)
        watched.job_attempts.insert_many(attempts, ordered=False)
        samples = QueueSamples(rollups, {MINUTE: 2 * DAY, HOUR: 35 * DAY, DAY: 400 * DAY})
        for sampled_at, sample in self._list_samples():
            samples.write(sampled_at, sample)

    def _list_enqueue_times(self, job_type: JobType) -> Iterator[datetime]:
        """The times at which jobs of a type were enqueued, with busy and quiet minutes."""
        per_second = job_type.per_second / 2 if job_type is BACKLOG else job_type.per_second
        enqueued_at = self._start
        while True:
            seconds = enqueued_at.timestamp()
            factor = 1 + 0.3 * math.sin(seconds / 600) + 0.12 * math.sin(seconds / 97)
            enqueued_at += timedelta(seconds=self._random.expovariate(per_second * factor))
            if enqueued_at >= self._now:
                return
            yield enqueued_at

    def _make_job(self, job_type: JobType, created_at: datetime) -> tuple[Document, list[Document]]:
        """A job in its present state, and its attempts."""
        job: Document = {
            "jobId": str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            "type": job_type.name,
            "status": "queued",
            "payload": self._make_payload(job_type),
            "priority": job_type.priority,
            "createdBy": self._random.choice(OWNERS),
            "createdAt": created_at,
            "updatedAt": created_at,
            "nextRunAt": created_at + timedelta(seconds=job_type.delay_s),
            "maxAttempts": job_type.max_attempts,
            "attemptCount": 0,
            "leasedBy": None,
            "leaseExpiresAt": None,
            "finishedAt": None,
            "lastError": None,
        }
        attempts: list[Document] = []
        self._note_change(job, None, created_at)
        while job["status"] in ("queued", "failed"):
            wait_s = self._random.lognormvariate(-1.2, 0.9)
            wait_s += self._random.uniform(0.9, 1.1) * BACKLOG_WAIT_S if job_type is BACKLOG else 0
            started_at = job["nextRunAt"] + timedelta(seconds=wait_s)
            run_s = job_type.work_s * self._random.lognormvariate(0, 0.4)
            finished_at = started_at + timedelta(seconds=run_s)
            if finished_at >= self._now:
                break
            attempts.append(self._make_attempt(job_type, job, started_at, finished_at))
        return job, attempts

    def _make_attempt(
        self, job_type: JobType, job: Document, started_at: datetime, finished_at: datetime
    ) -> Document:
        """Make an attempt, and change the job by its outcome."""
        error, old_status = self._make_error(job_type, finished_at), job["status"]
        worker = "worker-reports" if job_type is BACKLOG else f"worker-{self._random.randint(1, 3)}"
        attempt = {
            "jobId": job["jobId"],
            "attemptNumber": job["attemptCount"] + 1,
            "status": "failed" if error else "succeeded",
            "workerId": worker,
            "eligibleAt": job["nextRunAt"],
            "startedAt": started_at,
            "finishedAt": finished_at,
            "error": error,
        }
        job |= {"attemptCount": attempt["attemptNumber"], "updatedAt": finished_at}
        job["lastError"] = error or job["lastError"]
        is_fatal = error is not None and error["code"] == "BAD_INPUT"
        if error is None:
            job |= {"status": "succeeded", "finishedAt": finished_at}
        elif is_fatal or job["attemptCount"] >= job_type.max_attempts:
            job |= {"status": "dlq", "finishedAt": finished_at}
        else:
            retry_s = RETRY_S * 2 ** (job["attemptCount"] - 1) * self._random.uniform(0.5, 1)
            job |= {"status": "failed", "nextRunAt": finished_at + timedelta(seconds=retry_s)}
        self._note_change(job, old_status, finished_at)
        return attempt

    def _make_error(self, job_type: JobType, finished_at: datetime) -> Document | None:
        minutes_ago = (self._now - finished_at) / MINUTE
        factor = 1.25 if 32 < minutes_ago < 41 else 0.5
        chance = self._random.random()
        if chance < job_type.fatal_rate:
            message = "The document is not an invoice."
            return {"code": "BAD_INPUT", "message": message, "stack": STACK}
        if chance < job_type.fatal_rate + job_type.failure_rate * factor:
            code, message = self._random.choice(ERRORS)
            return {"code": code, "message": message, "stack": STACK + f"{code}: {message}\n"}
        return None

    def _make_payload(self, job_type: JobType) -> Document:
        number = self._random.randrange(10_000)
        return {
            "reference": f"{job_type.name}/{number}",
            "amount": {"value": number / 100, "currency": "EUR"},
            "provider": {"apiKey": "sk_live_not_for_your_eyes"},
        }

    def _note_change(self, job: Document, old_status: str | None, changed_at: datetime) -> None:
        self._changes.append(Change(changed_at, old_status, job["status"], job["createdAt"]))

    def _list_samples(self) -> Iterator[tuple[datetime, QueueSample]]:
        """The time and the sample of each minute; the number of leased jobs is random."""
        self._changes.sort(key=lambda change: change.changed_at)
        counts: Counter[str] = Counter()
        queued: Counter[datetime] = Counter()
        changes = iter(self._changes)
        change = next(changes, None)
        sampled_at = self._start + MINUTE
        while sampled_at < self._now:
            while change is not None and change.changed_at <= sampled_at:
                for status, added in ((change.old_status, -1), (change.new_status, 1)):
                    if status is not None:
                        counts[status] += added
                    if status == "queued":
                        queued[change.created_at] += added
                change = next(changes, None)
            queued = +queued  # drops the times without queued jobs
            counts["leased"] = self._random.randint(1, 4)
            oldest_age = sampled_at - min(queued, default=sampled_at)
            oldest_ms = round(oldest_age / timedelta(milliseconds=1))
            yield sampled_at, QueueSample(status_counts=dict(counts), oldest_queued_ms=oldest_ms)
            sampled_at += MINUTE
