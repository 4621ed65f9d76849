"""Shortens jobs for lists: each of a hundred jobs may have 16 MB."""

from datetime import datetime
from typing import Any

from bson import ObjectId

from jobmon.domain import MAPPED_JOB_FIELDS
from jobmon.store.attempts import last_attempt, recorded_count
from jobmon.store.mapping import Document
from jobmon.store.short_errors import shorten_error
from jobmon.store.truncate import CharacterBudget

MAX_FIELD_LENGTH = 10_000  # in characters
# A list does not show the payload and unmapped fields, which may have megabytes.
SUMMARY_FIELDS = ("_id", *(name for name in MAPPED_JOB_FIELDS if name != "payload"))
# The fields that a list of errors reads.
ERROR_FIELDS = ("_id", "jobId", "createdAt", "createdBy", "lastError")
_SHORT_TYPES = {datetime, bool, int, float, ObjectId, type(None)}  # never truncated
_NOT_SHOWN = ("attempts", "startedAt")


def summarize(job: Document) -> Document:
    """`job` with the fields that a list shows, each truncated.

    The job is changed in place, which saves time: an export calls this for each row.
    """
    count = recorded_count(job)
    job["attemptCount"] = len(last_attempt(job)) if count is None else count
    error = job.pop("lastError", None)
    for name in _NOT_SHOWN:
        job.pop(name, None)
    for name, value in job.items():
        value_type = type(value)
        if len(value) > MAX_FIELD_LENGTH if value_type is str else value_type not in _SHORT_TYPES:
            job[name] = _truncate(value)
    if isinstance(error, dict):
        job["lastError"] = {name: _truncate(error.get(name)) for name in ("code", "message")}
    else:
        job["lastError"] = _truncate(error)
    return job


def shorten_last_error(job: Document) -> Document:
    """The job with a shortened last error, which still has all that decides its error group."""
    return job | {"lastError": shorten_error(job.get("lastError"))}


def _truncate(value: Any) -> Any:
    value_type = type(value)
    if (value_type is str and len(value) <= MAX_FIELD_LENGTH) or value_type in _SHORT_TYPES:
        return value
    return CharacterBudget(MAX_FIELD_LENGTH).truncate(value)
