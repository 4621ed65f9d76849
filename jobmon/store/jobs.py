"""One job with its attempts."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from bson import Decimal128

from jobmon.domain import LAST_OUTCOMES, AttemptStatus
from jobmon.store.bson_json import to_text, to_utc
from jobmon.store.connection import Connection
from jobmon.store.identity import identity_values, is_identity, match_any
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.truncate import CharacterBudget

MAX_ATTEMPTS_SHOWN = 1_000
# In characters. A job is 16 MB at the most, but each of its attempts may be.
MAX_ATTEMPTS_LENGTH = 10_000_000
MIN_FIELD_LENGTH = 2_000
MAX_COUNT = 2**53


class JobStore:
    """Reads single jobs; PyMongoError when the watched collections cannot be read."""

    def __init__(self, connection: Connection) -> None:
        self._jobs = connection.jobs
        self._attempts = connection.attempts

    def get_job(self, job_id: str, owner: str | None = None) -> Document | None:
        """The job with its `attempts` in order and its attemptCount; None if there is none.

        `job_id` is the id as lists print it, `owner` a token's `sub`. With `owner`, a job of
        somebody else is as absent as one that does not exist. Of more
        than 1,000 attempts the newest 1,000 are returned, of long texts in them 10 million
        characters, the newest first, and 2,000 of each field of the others. Index: (jobId) unique.
        """
        query = _any_identity("jobId", job_id)
        if owner is not None:
            query |= _any_identity("createdBy", owner)

        def is_meant(job: Document) -> bool:
            owns = owner is None or is_identity(job.get("createdBy"), owner)
            return owns and is_identity(job.get("jobId"), job_id)

        found = self._jobs.look_up(query, by="jobId", accept=is_meant, limit=1)
        if not found:
            return None
        (job,) = found
        attempts = self._attempts_at(job_id) or self._embedded_attempts(job)
        if not attempts and self._attempts is not None:  # else the profile has made them
            attempts = last_attempt(job)
        return {
            **job,
            "attempts": attempts,
            "attemptCount": attempt_count(job, default=len(attempts)),
        }

    def _attempts_at(self, job_id: str) -> list[Document]:
        if self._attempts is None:
            return []
        budget = CharacterBudget(MAX_ATTEMPTS_LENGTH)

        def truncate(attempt: Document) -> Document:
            return {
                name: budget.truncate(value, at_least=MIN_FIELD_LENGTH)
                for name, value in attempt.items()
            }

        return self._attempts.look_up(  # index: (jobId, attemptNumber)
            _any_identity("jobId", job_id),
            by="jobId",
            accept=lambda attempt: is_identity(attempt.get("jobId"), job_id),
            limit=MAX_ATTEMPTS_SHOWN,
            order=[("attemptNumber", -1)],
            transform=truncate,
        )[::-1]

    def _embedded_attempts(self, job: Document) -> list[Document]:
        """Attempts that another program keeps in the job itself, numbered if they are not."""
        embedded = job.get("attempts")
        if not isinstance(embedded, list):
            return []
        names = (
            self._attempts.mapping
            if self._attempts is not None
            else FieldMapping.from_attempt_fields()
        )
        return [
            {"attemptNumber": number, **names.to_contract(attempt)}
            for number, attempt in enumerate(embedded, start=1)
            if isinstance(attempt, dict)
        ][-MAX_ATTEMPTS_SHOWN:]


def _any_identity(field: str, printed: str) -> Document:
    """A query for what a text means in a field. Mongoose refers to a job by its ObjectId."""
    return {field: match_any(identity_values(printed))}


def last_attempt(job: Document) -> list[Document]:
    """The job as its own last attempt, where none is recorded; empty if it had none so far.

    What the job does not say is None: its number, for instance, or how it ended.
    """
    outcome = LAST_OUTCOMES.get(to_text(job.get("status")))
    started, ended = job.get("startedAt"), job.get("finishedAt")
    if outcome is None and not isinstance(started, datetime):
        return []
    is_over = outcome != AttemptStatus.RUNNING
    if isinstance(started, datetime) and isinstance(ended, datetime):
        is_over = is_over and to_utc(ended) >= to_utc(started)  # else it is of the one before
    return [
        {
            "attemptNumber": attempt_count(job, default=0) or None,
            "status": outcome,
            "workerId": job.get("leasedBy"),
            "startedAt": started,
            "finishedAt": ended if is_over else None,
            "error": job.get("lastError") if outcome == AttemptStatus.FAILED else None,
        }
    ]


def attempt_count(job: Document, default: int) -> int:
    """How many attempts were started: what the job says in one way or another, or `default`."""
    embedded = job.get("attempts")
    for value in (job.get("attemptCount"), embedded):
        if (number := _whole_number(value)) is not None:
            return number
    return len(embedded) if isinstance(embedded, list) else default


def _whole_number(value: Any) -> int | None:
    """A number that every JSON parser reads exactly; None for anything else."""
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    if isinstance(number, bool) or not isinstance(number, int | float | Decimal):
        return None
    try:
        whole = int(number)
    except (ValueError, OverflowError):  # not a number, infinite
        return None
    return whole if abs(whole) <= MAX_COUNT else None
