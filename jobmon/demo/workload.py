"""A sample workload: a producer and workers, so that a monitor has jobs to show.

It uses `jobmon.queue` like a real application. There are successes, retries, dead letters, a
backlog, scheduled jobs, and now and then a worker that dies while it has a lease.
"""

import logging
import random
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from jobmon.queue import JobQueue, LeaseLostError, RetryPolicy

log = logging.getLogger(__name__)

OWNER = "alice"
# As in a mongoose application, some ids of users are ObjectIds. None: a job without an owner.
OWNERS = (OWNER, "bob", ObjectId("65f0c0ffee0123456789abcd"), None)

FINISHED_TTL_S = 86_400
LEASE_MS = 15_000
RECOVER_EVERY_S = 20
FIRST_JOBS = 250
BACKLOG_LIMIT = 400


@dataclass(frozen=True, kw_only=True)
class JobType:
    """A type of job: jobs per second, seconds of work, and shares of attempts that fail."""

    name: str
    per_second: float
    work_s: float
    failure_rate: float = 0.0
    fatal_rate: float = 0.0  # the share of attempts whose job is dead-lettered at once
    hang_rate: float = 0.0  # the share of attempts whose lease expires
    priority: int = 0
    max_attempts: int = 5
    delay_s: float = 0.0


JOB_TYPES = (
    JobType(name="email.send", per_second=4, work_s=0.05, failure_rate=0.02),
    JobType(name="payout.execute", per_second=1, work_s=0.3, failure_rate=0.15, priority=10),
    JobType(name="webhook.deliver", per_second=1.5, work_s=0.1, failure_rate=0.45, max_attempts=3),
    JobType(name="image.resize", per_second=1, work_s=0.4),
    JobType(name="invoice.import", per_second=0.3, work_s=0.1, fatal_rate=0.2),
    JobType(name="ledger.close", per_second=0.05, work_s=0.5, hang_rate=0.5),
    JobType(name="newsletter.digest", per_second=0.1, work_s=0.2, delay_s=120),
)
# Each job is due at a random time of the next 24 hours, so that there is a schedule to show.
REMINDER = JobType(name="invoice.remind", per_second=0.01, work_s=0.1, delay_s=86_400)
FIRST_REMINDERS = 80
BACKLOG = JobType(name="report.monthly", per_second=1, work_s=2, priority=-5)

_ERRORS = (
    ("ETIMEDOUT", "The bank did not answer within {} ms."),
    ("HTTP_502", "The receiver answered 502 Bad Gateway."),
    ("RATE_LIMITED", "The provider asks us to wait {} s."),
)


class Workload:
    """A producer, workers and lease recovery on one database, until `stop` is set."""

    def __init__(self, database: Database[dict[str, Any]], stop: threading.Event) -> None:
        self._database = database
        self._queue = JobQueue(database, retry=RetryPolicy(base_ms=2_000, cap_ms=60_000))
        self._stop = stop
        self._random = random.Random()  # noqa: S311 - for sample data, not for secrets

    def run(self) -> None:
        """Work until `stop` is set; wait a second after each error of the database."""
        names = [job_type.name for job_type in (*JOB_TYPES, REMINDER)]
        roles: list[Callable[[], None]] = [self._produce, self._recover]
        roles += [self._make_worker(f"worker-{number}", names) for number in (1, 2, 3)]
        roles += [self._make_worker("worker-reports", [BACKLOG.name])]
        self._retry_until_stopped(self._prepare)
        threads = [
            threading.Thread(target=self._retry_until_stopped, args=[role], daemon=True)
            for role in roles
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _retry_until_stopped(self, role: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                role()
            except PyMongoError as error:
                log.warning(
                    "the workload waits for the database: %s: %s", type(error).__name__, error
                )
                self._stop.wait(1)
            else:
                return

    def _prepare(self) -> None:
        self._queue.create_indexes()
        # No TTL index on the attempts' finishedAt: the monitor needs an ordinary index there.
        for name, field in (("jobs", "finishedAt"), ("job_attempts", "startedAt")):
            self._database[name].create_index(field, expireAfterSeconds=FINISHED_TTL_S)
        if not self._database.jobs.estimated_document_count():
            for _ in range(FIRST_JOBS):
                self._enqueue(self._pick_job_type(JOB_TYPES))
            for _ in range(FIRST_REMINDERS):
                self._enqueue(REMINDER)

    def _produce(self) -> None:
        job_types = (*JOB_TYPES, REMINDER, BACKLOG)
        rate = sum(job_type.per_second for job_type in job_types)
        while not self._stop.wait(self._random.expovariate(rate)):
            job_type = self._pick_job_type(job_types)
            if job_type is not BACKLOG or self._count_backlog() < BACKLOG_LIMIT:
                self._enqueue(job_type)

    def _pick_job_type(self, job_types: Sequence[JobType]) -> JobType:
        return self._random.choices(job_types, [job_type.per_second for job_type in job_types])[0]

    def _count_backlog(self) -> int:
        job_filter = {"status": "queued", "type": BACKLOG.name}
        return self._database.jobs.count_documents(job_filter, limit=BACKLOG_LIMIT)

    def _enqueue(self, job_type: JobType) -> None:
        cents = self._random.randrange(10_000)
        delay_s = job_type.delay_s * (self._random.random() if job_type is REMINDER else 1)
        self._queue.enqueue(
            job_type.name,
            {
                "reference": f"{job_type.name}/{cents}",
                "amount": {"value": cents / 100, "currency": "EUR"},
                "provider": {"apiKey": "sk_live_not_for_your_eyes"},
            },
            created_by=self._random.choice(OWNERS),
            priority=job_type.priority,
            max_attempts=job_type.max_attempts,
            run_at=datetime.now(UTC) + timedelta(seconds=delay_s),
        )

    def _make_worker(self, worker_id: str, types: list[str]) -> Callable[[], None]:
        job_types = {job_type.name: job_type for job_type in (*JOB_TYPES, REMINDER, BACKLOG)}

        def work() -> None:
            while not self._stop.is_set():
                lease = self._queue.lease(worker_id, types=types, lease_ms=LEASE_MS)
                if lease is None:
                    self._stop.wait(0.2)
                    continue
                job_type = job_types[lease.job["type"]]
                self._stop.wait(job_type.work_s * self._random.uniform(0.5, 1.5))
                if self._random.random() < job_type.hang_rate:
                    continue  # as if the worker died: it reports nothing, and its lease expires
                try:
                    self._report(lease, job_type)
                except LeaseLostError as error:
                    log.info("%s", error)

        return work

    def _report(self, lease: Any, job_type: JobType) -> None:
        draw = self._random.random()  # from 0 to 1
        if draw < job_type.fatal_rate:
            message = "The document is not an invoice."
            self._queue.report_failure(
                lease, "BAD_INPUT", message, stack=_format_stack(), retry=False
            )
        elif draw < job_type.fatal_rate + job_type.failure_rate:
            code, message = self._random.choice(_ERRORS)
            message = message.format(self._random.randrange(2, 6_000))
            self._queue.report_failure(lease, code, message, stack=_format_stack())
        else:
            self._queue.report_success(lease)

    def _recover(self) -> None:
        while not self._stop.wait(RECOVER_EVERY_S):
            recovered = self._queue.recover()
            if recovered:
                log.info("released %d expired leases", recovered)


@contextmanager
def run_workload(uri: str) -> Iterator[None]:
    """Run the sample workload in threads, on the database in `uri` (`jobmon` if it has none)."""
    options: dict[str, Any] = {"appname": "jobmon-workload", "serverSelectionTimeoutMS": 2_000}
    stop = threading.Event()
    with MongoClient[dict[str, Any]](uri, tz_aware=True, **options) as client:
        workload = Workload(client.get_default_database("jobmon"), stop)
        thread = threading.Thread(target=workload.run, name="workload", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _format_stack() -> str:
    return "".join(traceback.format_stack(limit=5)[:-1])
