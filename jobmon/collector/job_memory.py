"""Remembers jobs that run or wait, because a change contains only the fields that it sets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from jobmon.collector.runs import JobVersion
from jobmon.domain import WAITING_STATUSES, JobStatus
from jobmon.store.mapping import Document

# A leased job may not have run yet: Agenda locks a job before it runs it.
NOT_RUN_YET = (*WAITING_STATUSES, JobStatus.LEASED)
MAX_RUNNING = 20_000
MAX_WAITING = 20_000
MAX_ENDED = 1_000


@dataclass(frozen=True)
class KnownJob:
    """A job's document, reduced to the fields that are needed, and what it means.

    It was evaluated as of `at`. The document has the fields of the error only if `knows_error`.
    """

    document: Document
    at: datetime
    facts: JobVersion | None
    knows_error: bool


class JobMemory:
    """Running jobs, waiting jobs and the jobs that ended last, each up to a number.

    Further waiting jobs are not remembered: `has_unknown_waiting` is true until they are loaded.
    """

    def __init__(self) -> None:
        self._running: dict[bytes, KnownJob] = {}
        self._waiting: dict[bytes, KnownJob] = {}
        self._ended: dict[bytes, KnownJob] = {}
        self.has_unknown_waiting = False
        self.has_overflowed = False  # a running job was not remembered; the reader resets it

    def get(self, key: bytes) -> KnownJob | None:
        """The job with this encoded _id."""
        return self._running.get(key) or self._waiting.get(key) or self._ended.get(key)

    def forget(self, key: bytes) -> None:
        """Forget a job, because it was deleted."""
        for jobs in (self._running, self._waiting, self._ended):
            jobs.pop(key, None)

    def put(self, key: bytes, job: KnownJob) -> None:
        """Remember a job in place of its earlier version."""
        self.forget(key)
        if job.facts is not None and job.facts.is_running:
            if len(self._running) < MAX_RUNNING:
                self._running[key] = job
            else:
                self.has_overflowed = True
        elif job.facts is not None and job.facts.status in NOT_RUN_YET:
            if len(self._waiting) < MAX_WAITING:
                self._waiting[key] = job
            else:
                self.has_unknown_waiting = True
        else:
            self._ended[key] = job
            if len(self._ended) > MAX_ENDED:
                del self._ended[next(iter(self._ended))]

    @property
    def should_load_waiting(self) -> bool:
        """Whether there are unknown waiting jobs, and room for them again."""
        return self.has_unknown_waiting and len(self._waiting) < MAX_WAITING // 2

    def dump(self, redact: Callable[[Document], Document]) -> Iterator[Document]:
        """The stored form of the running and the waiting jobs, with their documents redacted."""
        for jobs in (self._running, self._waiting):
            for job in jobs.values():
                document = redact(job.document)
                yield {"job": document, "at": job.at, "knowsError": job.knows_error}
