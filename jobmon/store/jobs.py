"""Reads one job with its attempts."""

from collections.abc import Callable
from functools import partial

from jobmon.domain import ATTEMPT_FIELDS
from jobmon.store.attempts import (
    MAX_ATTEMPTS_SHOWN,
    explain_missing,
    last_attempt,
    number_attempts,
    recorded_count,
)
from jobmon.store.bson_json import to_text
from jobmon.store.connection import Connection
from jobmon.store.id_lookup import IdLookup
from jobmon.store.identity import identity_values, is_identity, match_any
from jobmon.store.indexes import JOB_ID, attempt_index
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.truncate import CharacterBudget

_MAX_EVENTS = 2 * MAX_ATTEMPTS_SHOWN + 1  # two for each attempt; one more shows that more exist
# In characters; a document may have 16 MB.
MAX_ATTEMPTS_LENGTH = 10_000_000
MIN_FIELD_LENGTH = 2_000
MAX_FIELD_LENGTH = 2_000_000  # longer values would be searched for secrets for many seconds
_LONG_FIELDS = ("payload", "lastError")
AMBIGUOUS = "several jobs have this id, and the recorded attempts name no owner"
_CONTRACT_MAPPING = FieldMapping(paths={name: name for name in ATTEMPT_FIELDS})


class JobStore:
    """Reads single jobs; raises PyMongoError if the watched collections cannot be read."""

    def __init__(self, connection: Connection) -> None:
        self._collection = connection.jobs
        self._jobs = IdLookup(connection.jobs)
        self._attempts = None if connection.attempts is None else IdLookup(connection.attempts)
        self._profile = connection.profile
        self._max_read = MAX_ATTEMPTS_SHOWN if self._profile.log is None else _MAX_EVENTS
        # The order of attempts, or of their events.
        self._newest_first = [(name, -1) for name, _ in attempt_index(self._profile)[1:]]

    def get_job(self, job_id: str, owner: str | None = None) -> Document | None:
        """The job with its `attempts` in order and its attemptCount; None without such a job.

        `reasons` has the reason for missing `attempts`, and for a payload, an error, or attempts of
        which only 2 million characters are kept. `isRecurring`: whether the job runs again after a
        success; None if that is unknown.

        `job_id` is the id as lists print it. With `owner`, the `sub` of a token, the result is None
        for another owner's job, too. At most the newest 1,000 attempts are returned. The texts of
        attempts are kept up to 2 million characters in total, the newest attempt first; after that,
        2,000 characters of each field. With `owner`, recorded attempts are left out if several jobs
        have the id. Index: (jobId).
        """
        query = _match_id(job_id)
        if owner is not None:
            query["createdBy"] = match_any(identity_values(owner))

        def is_requested(job: Document) -> bool:
            is_owned = owner is None or is_identity(job.get("createdBy"), owner)
            return is_owned and is_identity(job.get("jobId"), job_id)

        job_and_attempts = self._read_job(job_id, query, is_requested)
        if job_and_attempts is None:
            return None
        job, reasons = _truncate_fields(job_and_attempts[0])
        recorded = job_and_attempts[1]
        is_hidden = bool(recorded) and owner is not None and self._is_ambiguous(job_id)
        if is_hidden:  # attempts name no owner: these can be of another owner's job
            recorded = []
        log = self._profile.log
        attempts = self._list_attempts(recorded, job, self._max_read)
        count_in_job = recorded_count(job)
        count = len(attempts) if count_in_job is None else count_in_job
        if log is not None:  # a log may have more runs than the job counts
            count = max(count, len(attempts))
        attempts, cut_reasons = _truncate_attempts(attempts[-MAX_ATTEMPTS_SHOWN:])
        reasons |= cut_reasons
        is_recurring = job.get("_recurring") if self._profile.is_recurring else None
        may_recur = self._profile.is_recurring if is_recurring is None else is_recurring
        # Without any number, the last attempt may not be the only one.
        numbers = [job.get("attemptCount"), *(attempt.get("attemptNumber") for attempt in attempts)]
        is_uncounted = all(number is None for number in numbers)
        may_lack = (may_recur or is_uncounted) and not recorded
        reason = explain_missing(attempts, count, may_lack=may_lack)
        reason = AMBIGUOUS if is_hidden else reason
        return {
            **job,
            "isRecurring": is_recurring,
            "attempts": attempts,
            "attemptCount": count,
            "reasons": reasons if reason is None else reasons | {"attempts": reason},
        }

    def _is_ambiguous(self, job_id: str) -> bool:
        """Whether several jobs have this printed id. Index: (jobId)."""
        return self._collection.count(_match_id(job_id), index=JOB_ID, limit=2) > 1

    def _read_job(
        self, job_id: str, query: Document, accept: Callable[[Document], bool]
    ) -> tuple[Document, list[Document]] | None:
        """A job that matches, with its newest attempts or events, the oldest first."""
        if self._attempts is not None:
            joined = self._jobs.find_joined(
                query,
                self._attempts,
                _match_id(job_id),
                limit=self._max_read,
                order=self._newest_first,
            )
            if joined is not None:
                accepted = ((job, attempts) for job, attempts in joined if accept(job))
                job, newest_first = next(accepted, (None, []))
                return None if job is None else (job, _keep_exact(newest_first, job_id))
        jobs = self._jobs.find(query, accept, limit=1)
        return (jobs[0], self._read_recorded(job_id, self._max_read)) if jobs else None

    def list_runs(self, job: Document, limit: int) -> list[Document]:
        """The newest `limit` recorded attempts of a job in a list, in the order of their runs.

        Index: (jobId).
        """
        job_id = to_text(job.get("jobId"))
        read_limit = limit if self._profile.log is None else 2 * limit + 1
        recorded = self._read_recorded(job_id, read_limit)
        return self._list_attempts(recorded, job, read_limit)[-limit:] if recorded else []

    def _list_attempts(
        self, recorded: list[Document], job: Document, read_limit: int
    ) -> list[Document]:
        """The recorded attempts, or else the attempts in the job, or else its last attempt.

        `read_limit`: how many of the recorded attempts, or of their events, were read at most.
        """
        log = self._profile.log
        if not recorded:
            embedded = self._list_embedded_attempts(job)
            return embedded if embedded or self._profile.reads_last_attempt else last_attempt(job)
        attempts = recorded if log is None else log.pair(recorded, job)
        mapping = self._profile.attempts
        if mapping is not None and not mapping.can_query("attemptNumber"):
            attempts = number_attempts(attempts, job, is_complete=len(recorded) < read_limit)
        return attempts

    def _read_recorded(self, job_id: str, limit: int) -> list[Document]:
        """The newest `limit` attempts of a job, or their events, the oldest first."""
        if self._attempts is None:
            return []
        return self._attempts.find(
            _match_id(job_id),
            lambda attempt: is_identity(attempt.get("jobId"), job_id),
            limit=limit,
            order=self._newest_first,
            transform=partial(_truncate_attempt, CharacterBudget(MAX_ATTEMPTS_LENGTH)),
        )[::-1]

    def _list_embedded_attempts(self, job: Document) -> list[Document]:
        """The newest 1,000 attempts in the job itself, each with its number."""
        embedded = job.get("attempts")
        if not isinstance(embedded, list):
            return []
        mapping = self._profile.attempts if self._profile.log is None else None
        mapping = mapping or _CONTRACT_MAPPING
        return [
            {"attemptNumber": number, **mapping.to_contract(attempt)}
            for number, attempt in enumerate(embedded, start=1)
            if isinstance(attempt, dict)
        ][-MAX_ATTEMPTS_SHOWN:]


def _match_id(job_id: str) -> Document:
    """A query for the values that the printed id of a job means."""
    return {"jobId": match_any(identity_values(job_id))}


def _truncate_fields(job: Document) -> tuple[Document, dict[str, str]]:
    """The job with its long values truncated, and the reason by the name of a truncated field."""
    kept, reasons = dict(job), dict[str, str]()
    for name in _LONG_FIELDS:
        if name in job:
            budget = CharacterBudget(MAX_FIELD_LENGTH)
            kept[name] = budget.truncate(job[name])
            if budget.has_cut:
                reasons[name] = f"only the first {MAX_FIELD_LENGTH:,} characters are shown"
    return kept, reasons


def _truncate_attempts(attempts: list[Document]) -> tuple[list[Document], dict[str, str]]:
    """The attempts with long texts truncated, those of the oldest first; the reason, if any is."""
    budget = CharacterBudget(MAX_FIELD_LENGTH)
    kept = [_truncate_attempt(budget, attempt) for attempt in reversed(attempts)][::-1]
    reason = f"of all their texts, {MAX_FIELD_LENGTH:,} characters are shown"
    return kept, {"attempts.error": reason} if budget.has_cut else {}


def _truncate_attempt(budget: CharacterBudget, attempt: Document) -> Document:
    """The attempt with the texts that the budget allows, and at least 2,000 characters of each."""
    return {
        name: budget.truncate(value, at_least=MIN_FIELD_LENGTH) for name, value in attempt.items()
    }


def _keep_exact(newest_first: list[Document], job_id: str) -> list[Document]:
    """The attempts with exactly this job id, the oldest first."""
    return [
        attempt for attempt in reversed(newest_first) if is_identity(attempt.get("jobId"), job_id)
    ]
