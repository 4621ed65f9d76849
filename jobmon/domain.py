"""The words of the trade: what a job and an attempt can be, and what of them must stay hidden.

Plain Python: nothing here knows Flask, MongoDB or any other library.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any


class JobStatus(StrEnum):
    """Where a job stands. Watched documents may hold others; they are shown as they are."""

    QUEUED = "queued"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # an attempt failed, a retry is due at nextRunAt
    DLQ = "dlq"  # given up: the dead-letter queue
    CANCELLED = "cancelled"


class JobCondition(StrEnum):
    """What a job is in at some moment, by its status and a date."""

    DUE = "due"  # waits, and may be leased now
    EXPIRED = "expired"  # leased, beyond the end of its lease


class AttemptStatus(StrEnum):
    """How one attempt at a job ended, or that it has not yet."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"  # its lease ran out before it reported


# The fields of a job and of an attempt at it (contract, section 1); `eligibleAt`: when it was due.
JOB_FIELDS = (
    "jobId",
    "type",
    "status",
    "payload",
    "priority",
    "createdBy",
    "createdAt",
    "updatedAt",
    "nextRunAt",
    "maxAttempts",
    "attemptCount",
    "attempts",
    "leasedBy",
    "leaseExpiresAt",
    "finishedAt",
    "lastError",
)
# What a document may hold of a job; when its last attempt began is answered as that attempt's.
MAPPED_JOB_FIELDS = (*JOB_FIELDS, "startedAt")
# How the last attempt at a job ended, where the job itself is all that is known of it.
LAST_OUTCOMES = {
    JobStatus.LEASED.value: AttemptStatus.RUNNING.value,
    JobStatus.SUCCEEDED.value: AttemptStatus.SUCCEEDED.value,
    JobStatus.FAILED.value: AttemptStatus.FAILED.value,
    JobStatus.DLQ.value: AttemptStatus.FAILED.value,
}
ATTEMPT_FIELDS = (
    "jobId",
    "attemptNumber",
    "status",
    "workerId",
    "eligibleAt",
    "startedAt",
    "finishedAt",
    "error",
)

REDACTED = "[redacted]"

DEFAULT_REDACT_KEYS = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "jwt",
    "otp",
    "authorization",
    "cookie",
    "credential",
    "api_key",
    "access_key",
    "private_key",
    "card_number",
    "card_no",
    "credit_card",
    "pan",
    "cvv",
    "cvc",
    "pin",
    "ssn",
    "iban",
    "account_number",
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SHORT = 4


class Redactor:
    """Replaces the values of keys that look secret, at any depth.

    Case, underscores and hyphens do not matter. A long name is found anywhere in a key
    (`token` in `refreshTokenV2`), a short one only as whole words (`pan` in `card-pan`, not in
    `company`), because hiding too much is a nuisance and hiding too little is a leak.
    """

    def __init__(self, keys: Iterable[str] = DEFAULT_REDACT_KEYS) -> None:
        names = {_squeeze(key) for key in keys} - {""}
        self._anywhere = tuple(name for name in names if len(name) > _SHORT)
        self._words = frozenset(name for name in names if len(name) <= _SHORT)

    def redact(self, value: Any) -> Any:
        """Return `value`, any nesting of dicts and lists, with the secrets replaced."""
        if isinstance(value, dict):
            return {
                key: REDACTED if self.is_secret(str(key)) else self.redact(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list):
            return [self.redact(inner) for inner in value]
        return value

    def is_secret(self, key: str) -> bool:
        """Whether the value under `key` is to be hidden."""
        squeezed = _squeeze(key)
        if squeezed in self._words or any(name in squeezed for name in self._anywhere):
            return True
        return any(word.lower() in self._words for word in _WORD.findall(key))


def _squeeze(key: str) -> str:
    return "".join(filter(str.isalnum, key)).lower()
