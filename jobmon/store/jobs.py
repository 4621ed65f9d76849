"""Reads one job with its attempts."""

from jobmon.store.attempts import attempt_count, last_attempt
from jobmon.store.connection import Connection
from jobmon.store.identity import identity_values, is_identity, match_any
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.truncate import CharacterBudget

MAX_ATTEMPTS_SHOWN = 1_000
# In characters: each attempt may have 16 MB.
MAX_ATTEMPTS_LENGTH = 10_000_000
MIN_FIELD_LENGTH = 2_000


class JobStore:
    """Reads single jobs; PyMongoError when the watched collections cannot be read."""

    def __init__(self, connection: Connection) -> None:
        self._jobs = connection.jobs
        self._attempts = connection.attempts

    def get_job(self, job_id: str, owner: str | None = None) -> Document | None:
        """The job with its `attempts` in order and its attemptCount; None if there is none.

        `job_id` is the id as lists print it, `owner` the `sub` of a token: with it, the answer is
        None for another owner's job too. At most the newest 1,000 attempts are returned. Their
        texts are kept up to 10 million characters in total, the newest attempt first; after that,
        2,000 characters of each field. Index: (jobId).
        """
        query = _match_identity("jobId", job_id)
        if owner is not None:
            query |= _match_identity("createdBy", owner)

        def is_requested(job: Document) -> bool:
            owns = owner is None or is_identity(job.get("createdBy"), owner)
            return owns and is_identity(job.get("jobId"), job_id)

        found = self._jobs.look_up(query, by="jobId", accept=is_requested, limit=1)
        if not found:
            return None
        (job,) = found
        attempts = self._read_attempts(job_id) or self._list_embedded_attempts(job)
        if not attempts and self._attempts is not None:  # otherwise the profile created them
            attempts = last_attempt(job)
        return {
            **job,
            "attempts": attempts,
            "attemptCount": attempt_count(job, default=len(attempts)),
        }

    def _read_attempts(self, job_id: str) -> list[Document]:
        if self._attempts is None:
            return []
        budget = CharacterBudget(MAX_ATTEMPTS_LENGTH)

        def truncate(attempt: Document) -> Document:
            return {
                name: budget.truncate(value, at_least=MIN_FIELD_LENGTH)
                for name, value in attempt.items()
            }

        return self._attempts.look_up(  # index: (jobId, attemptNumber)
            _match_identity("jobId", job_id),
            by="jobId",
            accept=lambda attempt: is_identity(attempt.get("jobId"), job_id),
            limit=MAX_ATTEMPTS_SHOWN,
            order=[("attemptNumber", -1)],
            transform=truncate,
        )[::-1]

    def _list_embedded_attempts(self, job: Document) -> list[Document]:
        """Attempts that another program stores in the job itself, each with a number."""
        embedded = job.get("attempts")
        if not isinstance(embedded, list):
            return []
        mapping = (
            self._attempts.mapping
            if self._attempts is not None
            else FieldMapping.from_attempt_fields()
        )
        return [
            {"attemptNumber": number, **mapping.to_contract(attempt)}
            for number, attempt in enumerate(embedded, start=1)
            if isinstance(attempt, dict)
        ][-MAX_ATTEMPTS_SHOWN:]


def _match_identity(field: str, printed: str) -> Document:
    """A query for the values that a printed text means in a field."""
    return {field: match_any(identity_values(printed))}
