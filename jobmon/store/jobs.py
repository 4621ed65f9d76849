"""Reads one job with its attempts."""

from jobmon.domain import ATTEMPT_FIELDS
from jobmon.store.attempts import (
    MAX_ATTEMPTS_SHOWN,
    attempt_count,
    explain_missing,
    last_attempt,
    number_attempts,
)
from jobmon.store.bson_json import to_text
from jobmon.store.connection import Connection
from jobmon.store.identity import identity_values, is_identity, match_any
from jobmon.store.indexes import attempt_index
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.truncate import CharacterBudget

_MAX_EVENTS = 2 * MAX_ATTEMPTS_SHOWN + 1  # an attempt has two; one more shows that some are left
# In characters; a document may have 16 MB.
MAX_ATTEMPTS_LENGTH = 10_000_000
MIN_FIELD_LENGTH = 2_000
_CONTRACT = FieldMapping(paths={name: name for name in ATTEMPT_FIELDS})


class JobStore:
    """Reads single jobs; PyMongoError when the watched collections cannot be read."""

    def __init__(self, connection: Connection) -> None:
        self._jobs = connection.jobs
        self._attempts = connection.attempts
        self._profile = connection.profile
        self._max_read = MAX_ATTEMPTS_SHOWN if self._profile.log is None else _MAX_EVENTS

    def get_job(self, job_id: str, owner: str | None = None) -> Document | None:
        """The job with its `attempts` in order and its attemptCount; None if there is none.

        `reasons` has one for `attempts` if some are missing. `isRecurring`: whether the job is run
        again after a success; None if that is unknown.

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
        log, recorded = self._profile.log, self._read_recorded(job_id, self._max_read)
        attempts = self._list_attempts(recorded, job)
        count = attempt_count(job, default=len(attempts))
        if log is not None:  # a log may have more runs than the job counts
            count = max(count, len(attempts))
        attempts = attempts[-MAX_ATTEMPTS_SHOWN:]
        recurring = job.get("_recurring") if self._profile.is_recurring else None
        may_recur = self._profile.is_recurring if recurring is None else recurring
        reason = explain_missing(attempts, count, is_recurring=may_recur and not recorded)
        return {
            **job,
            "isRecurring": recurring,
            "attempts": attempts,
            "attemptCount": count,
            "reasons": {} if reason is None else {"attempts": reason},
        }

    def list_runs(self, job: Document, limit: int) -> list[Document]:
        """The newest attempts of a job that a list has read, in their order: recorded ones only.

        Index: (jobId).
        """
        job_id = to_text(job.get("jobId"))
        if job_id is None:
            return []
        most = limit if self._profile.log is None else 2 * limit + 1
        recorded = self._read_recorded(job_id, most)
        return self._list_attempts(recorded, job)[-limit:] if recorded else []

    def _list_attempts(self, recorded: list[Document], job: Document) -> list[Document]:
        """The attempts that are recorded, or else those that the job contains."""
        log = self._profile.log
        if not recorded:
            embedded = self._list_embedded_attempts(job)
            return embedded if embedded or self._profile.reads_last_attempt else last_attempt(job)
        attempts = recorded if log is None else log.pair(recorded, job)
        if self._attempts is not None and not self._attempts.mapping.can_query("attemptNumber"):
            attempts = number_attempts(attempts, job, is_complete=len(recorded) < self._max_read)
        return attempts

    def _read_recorded(self, job_id: str, limit: int) -> list[Document]:
        """The newest attempts of a job, or events of them, in their order."""
        if self._attempts is None:
            return []
        budget = CharacterBudget(MAX_ATTEMPTS_LENGTH)

        def truncate(attempt: Document) -> Document:
            return {
                name: budget.truncate(value, at_least=MIN_FIELD_LENGTH)
                for name, value in attempt.items()
            }

        order = attempt_index(self._profile)[1:]
        return self._attempts.look_up(
            _match_identity("jobId", job_id),
            by="jobId",
            accept=lambda attempt: is_identity(attempt.get("jobId"), job_id),
            limit=limit,
            order=[(name, -1) for name, _ in order],
            transform=truncate,
        )[::-1]

    def _list_embedded_attempts(self, job: Document) -> list[Document]:
        """Attempts that another program stores in the job itself, each with a number."""
        embedded = job.get("attempts")
        if not isinstance(embedded, list):
            return []
        mapping = (
            _CONTRACT
            if self._attempts is None or self._profile.log is not None
            else self._attempts.mapping
        )
        return [
            {"attemptNumber": number, **mapping.to_contract(attempt)}
            for number, attempt in enumerate(embedded, start=1)
            if isinstance(attempt, dict)
        ][-MAX_ATTEMPTS_SHOWN:]


def _match_identity(field: str, printed: str) -> Document:
    """A query for the values that a printed text means in a field."""
    return {field: match_any(identity_values(printed))}
