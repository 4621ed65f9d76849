"""Remembers running and waiting jobs: an update event has only the fields that it changes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from jobmon.collector.runs import JobVersion
from jobmon.domain import WAITING_STATUSES, JobStatus
from jobmon.store.bson_json import can_contain
from jobmon.store.mapping import Document

# A leased job has perhaps not run yet: Agenda locks a job before it runs it.
NOT_RUN_YET = (*WAITING_STATUSES, JobStatus.LEASED)
MAX_RUNNING = 20_000
MAX_WAITING = 20_000
MAX_JOB_BYTES = 50_000  # a document of the checkpoint has 200 jobs
MAX_OTHERS = 1_000  # mostly jobs that have ended


@dataclass(frozen=True)
class KnownJob:
    """A job's document, reduced to the fields that the rules need, and its version as of `at`.

    `version` is None if the document is no job, or the rules failed for it. The document has the
    fields of the error only if `knows_error`.
    """

    document: Document
    at: datetime
    version: JobVersion | None
    knows_error: bool


class JobMemory:
    """Running jobs, waiting jobs, and other jobs that changed last; each kind up to a limit.

    Waiting jobs beyond their limit are not remembered: `has_unknown_waiting` is true until they are
    loaded.
    """

    def __init__(self) -> None:
        self._running: dict[bytes, KnownJob] = {}
        self._waiting: dict[bytes, KnownJob] = {}
        self._others: dict[bytes, KnownJob] = {}
        self.has_unknown_waiting = False
        self.has_overflowed = False  # a running job was not remembered; `EventCounter` resets it

    def get(self, key: bytes) -> KnownJob | None:
        """The job with this encoded _id; None if it is not remembered."""
        return self._running.get(key) or self._waiting.get(key) or self._others.get(key)

    def forget(self, key: bytes) -> None:
        """Forget a job, for example because it was deleted."""
        for jobs in (self._running, self._waiting, self._others):
            jobs.pop(key, None)

    def put(self, key: bytes, job: KnownJob) -> None:
        """Remember a job in place of its earlier version, unless no checkpoint can contain it."""
        self.forget(key)
        if not can_contain(job.document, MAX_JOB_BYTES):
            return
        if job.version is not None and job.version.is_running:
            if len(self._running) < MAX_RUNNING:
                self._running[key] = job
            else:
                self.has_overflowed = True
        elif job.version is not None and job.version.status in NOT_RUN_YET:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[key] = job
            else:
                self.has_unknown_waiting = True
        else:
            self._others[key] = job
            if len(self._others) > MAX_OTHERS:
                del self._others[next(iter(self._others))]

    @property
    def should_load_waiting(self) -> bool:
        """Whether waiting jobs are unknown, and more than half of `MAX_WAITING` could be added."""
        return self.has_unknown_waiting and len(self._waiting) < MAX_WAITING // 2

    def dump(self, redact: Callable[[Document], Document]) -> Iterator[Document]:
        """The stored form of the running and the waiting jobs, with their documents redacted."""
        for jobs in (self._running, self._waiting):
            for job in jobs.values():
                document = redact(job.document)
                yield {"job": document, "at": job.at, "knowsError": job.knows_error}
