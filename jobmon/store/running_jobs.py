"""Reads the jobs that run now: at most 1,000, in the order in which their leases end."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from jobmon.domain import JobStatus
from jobmon.single_flight import SingleFlight
from jobmon.store import indexes
from jobmon.store.attempts import recorded_count
from jobmon.store.bson_json import read_date, to_text
from jobmon.store.connection import Connection
from jobmon.store.identity import is_identity
from jobmon.store.labels import label, worker_label
from jobmon.store.mapping import Document
from jobmon.store.read_collection import NoIndexError, ReadCollection

MAX_READ = 1_000
CACHE_TTL_MS = 1_000
NO_INDEX = "an index is missing: `jobmon init` creates it"
_FIELDS = (
    "jobId",
    "type",
    "status",
    "leasedBy",
    "leaseExpiresAt",
    "startedAt",
    "attemptCount",
)


class RunningJob(NamedTuple):
    """A job that runs; dates are UTC, type and worker are labels. An unknown value is None."""

    job_id: str | None
    type: str
    worker: str | None = None
    attempt: int | None = None
    started_at: datetime | None = None
    expires_at: datetime | None = None

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, kw_only=True)
class RunningJobs:
    """The jobs that ran at `as_of` (UTC), in the order in which their leases end.

    If `is_complete` is false, other jobs ran, too. `reason`: why the jobs could not be read; empty
    if they were read.
    """

    as_of: datetime
    jobs: tuple[RunningJob, ...] = ()
    is_complete: bool = True
    reason: str = ""


class RunningJobReader:
    """Reads the running jobs; callers share the result for a second. Raises PyMongoError."""

    def __init__(self, connection: Connection) -> None:
        self._jobs = connection.jobs
        self._attempts = _find_numbered_attempts(connection)
        self._shared = SingleFlight(self._read, CACHE_TTL_MS)

    def read(self) -> RunningJobs:
        """At most 1,000 running jobs. Index: (status, leaseExpiresAt)."""
        return self._shared.get()

    def find_first_expiry(self) -> datetime | None:
        """The end of the lease that expired first; None if no lease is known to have expired.

        Reads one key of the index (status, leaseExpiresAt).
        """
        if not self._jobs.mapping.can_query("leaseExpiresAt"):
            return None
        now = datetime.now(UTC)
        expired = self._jobs.find(
            {"status": JobStatus.LEASED.value, "leaseExpiresAt": {"$lte": now}},
            ("leaseExpiresAt",),
            index=indexes.BY_LEASE,
            order=[("leaseExpiresAt", 1)],
            limit=1,
        )
        return read_date(expired[0].get("leaseExpiresAt")) if expired else None

    def _read(self) -> RunningJobs:
        now, mapping = datetime.now(UTC), self._jobs.mapping
        has_end = mapping.can_query("leaseExpiresAt")
        try:
            running = self._jobs.find(
                {"status": JobStatus.LEASED.value},
                _FIELDS,
                index=indexes.BY_LEASE if has_end else indexes.BY_STATUS,
                order=[("leaseExpiresAt", 1)] if has_end else None,
                limit=MAX_READ + 1,
                require_index=mapping.has_status,
                transform=_extract_values,
            )
        except NoIndexError:
            return RunningJobs(as_of=now, reason=NO_INDEX)
        starts = self._look_up_starts(running[:MAX_READ])
        jobs = [_make_job(values, starts) for values in running[:MAX_READ]]
        return RunningJobs(as_of=now, jobs=tuple(jobs), is_complete=len(running) <= MAX_READ)

    def _look_up_starts(self, jobs: list[Document]) -> dict[tuple[str, int], datetime]:
        """The starts of attempts, by job id and attempt number, for jobs without a startedAt.

        Index: (jobId, attemptNumber). For each job, it reads a key for each attempt number.
        """
        incomplete = [
            job
            for job in jobs
            if job["startedAt"] is None and job["attempt"] is not None and job["jobId"] is not None
        ]
        if self._attempts is None or not incomplete:
            return {}
        ids = [job["storedId"] for job in incomplete]
        query = {
            "jobId": {"$in": list(_list_id_forms(ids))},
            "attemptNumber": {"$in": sorted({job["attempt"] for job in incomplete})},
        }
        fields = ("jobId", "attemptNumber", "startedAt")
        try:
            attempts = self._attempts.find(query, fields, index=indexes.ATTEMPT, require_index=True)
        except NoIndexError:
            return {}
        return {
            (to_text(attempt["jobId"]), number): started_at
            for attempt in attempts
            if (started_at := read_date(attempt.get("startedAt"))) is not None
            and (number := _read_attempt_number(attempt.get("attemptNumber"))) is not None
        }


def _find_numbered_attempts(connection: Connection) -> ReadCollection | None:
    """The recorded attempts, if they have numbers, by which the running attempt is found."""
    attempts = connection.attempts
    if attempts is None or connection.profile.log is not None:
        return None
    has_fields = map(attempts.mapping.can_query, ("attemptNumber", "startedAt"))
    return attempts if all(has_fields) else None


def _list_id_forms(ids: Iterable[Any]) -> Iterable[Any]:
    """Each id unchanged, and as text: an attempt may hold the ObjectId of its job as text."""
    for value in ids:
        yield value
        if type(value) is not str:
            yield to_text(value)


def _extract_values(job: Document) -> Document:
    """The values of a running job, shortened: a field of its document may have megabytes."""
    job_id = job.get("jobId")
    printed = to_text(job_id)
    return {
        "storedId": job_id,
        "jobId": printed if is_identity(job_id, printed) else None,
        "type": label(job.get("type")),
        "worker": worker_label(job.get("leasedBy")),
        "attempt": _read_attempt_number(job.get("attemptCount")),
        "startedAt": read_date(job.get("startedAt")),
        "expiresAt": read_date(job.get("leaseExpiresAt")),
    }


def _make_job(values: Document, starts: dict[tuple[str, int], datetime]) -> RunningJob:
    return RunningJob(
        job_id=values["jobId"],
        type=values["type"],
        worker=values["worker"],
        attempt=values["attempt"],
        started_at=values["startedAt"] or starts.get((values["jobId"], values["attempt"])),
        expires_at=values["expiresAt"],
    )


def _read_attempt_number(value: Any) -> int | None:
    return recorded_count({"attemptCount": value}) or None
