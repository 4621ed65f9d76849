"""Reads the last attempt and the number of attempts from a job itself, and numbers attempts."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from bson import Decimal128

from jobmon.domain import LAST_OUTCOMES, AttemptStatus
from jobmon.store.bson_json import make_aware, to_text
from jobmon.store.mapping import Document

MAX_COUNT = 2**53
MAX_ATTEMPTS_SHOWN = 1_000


def last_attempt(job: Document) -> list[Document]:
    """A list of the last attempt, from the job's own fields, if a queue records no attempts.

    It is empty if neither the job's status nor its startedAt shows an attempt. A value that
    the job lacks is None.
    """
    outcome = LAST_OUTCOMES.get(to_text(job.get("status")))
    started, ended = job.get("startedAt"), job.get("finishedAt")
    if outcome is None and not isinstance(started, datetime):
        return []
    is_over = outcome != AttemptStatus.RUNNING
    if isinstance(started, datetime) and isinstance(ended, datetime):
        # An end before the start belongs to the previous attempt.
        is_over = is_over and make_aware(ended) >= make_aware(started)
    return [
        {
            "attemptNumber": recorded_count(job) or None,
            "status": outcome,
            "workerId": job.get("leasedBy"),
            "startedAt": started,
            "finishedAt": ended if is_over else None,
            "error": job.get("lastError") if outcome == AttemptStatus.FAILED else None,
        }
    ]


def number_attempts(
    attempts: list[Document], job: Document, *, is_complete: bool
) -> list[Document]:
    """The attempts, oldest first, each with its number.

    The number of the newest attempt is the job's own count, or the length of the list if that is
    larger. If `is_complete` is false, older attempts may exist that were not read. If then the job
    also counts fewer attempts than were read, the numbers are unknown and none is added.
    """
    count, read_count = recorded_count(job) or 0, len(attempts)
    if count < read_count and not is_complete:
        return attempts
    first = max(count, read_count) - read_count + 1
    return [
        {**attempt, "attemptNumber": number} for number, attempt in enumerate(attempts, start=first)
    ]


def explain_missing(attempts: list[Document], count: int, *, may_lack: bool) -> str | None:
    """The reason why this list lacks attempts; None if no attempt is known to be missing.

    `count`: the attempts that the job counts. `may_lack`: the job may have had more.
    """
    if count > len(attempts) >= MAX_ATTEMPTS_SHOWN:
        return f"only the newest {MAX_ATTEMPTS_SHOWN:,} attempts are read"
    if count > 0 and not attempts:
        return "the queue records only the number of attempts"
    if attempts and (count > len(attempts) or may_lack):
        return "the queue does not record every attempt"
    return None


def recorded_count(job: Document) -> int | None:
    """The number of attempts that a job records.

    It is in `attemptCount`, or in `attempts` as a number or as the length of an array. None if
    neither field has such a value.
    """
    count, embedded = job.get("attemptCount"), job.get("attempts")
    if type(count) is int and 0 <= count <= MAX_COUNT:  # as in nearly every job
        return count
    for value in (count, embedded):
        if (number := _whole_number(value)) is not None:
            return number
    return len(embedded) if isinstance(embedded, list) else None


def _whole_number(value: Any) -> int | None:
    """A number from 0 on, without its fraction; None if it is no such number or is too large.

    Parsers of JSON may round a number above `MAX_COUNT`.
    """
    if value is None:
        return None
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    if isinstance(number, bool) or not isinstance(number, int | float | Decimal):
        return None
    try:
        whole = int(number)
    except (ValueError, OverflowError):  # not a number, infinite
        return None
    return whole if 0 <= whole <= MAX_COUNT else None
