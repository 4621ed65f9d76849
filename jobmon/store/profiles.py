"""Profiles: how the documents of existing queues hold jobs and attempts.

`jobmon` is for the contract's own documents, with other names where settings have them; `agenda`
for those of Agenda (Node.js), `celery` for those of Celery's MongoDB result backend. What their
documents do not hold is null: docs/adapters.md lists it.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from jobmon.domain import LAST_OUTCOMES, AttemptStatus, JobStatus
from jobmon.settings import Settings
from jobmon.store.bson_json import to_text
from jobmon.store.mapping import DerivedStatus, Document, FieldMapping, Keys

# Agenda's default: a job whose lock is older may be taken by another process.
AGENDA_LOCK_LIFETIME = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How a queue's documents hold jobs and attempts, and which indexes that needs in addition.

    `attempts`: None where no attempts are recorded; then each job is its own last attempt.
    `outcome`: an expression for how the last attempt ended; None where the job's status shows it.
    `indexes`: keys. Both are in the documents' names.
    """

    jobs: FieldMapping
    attempts: FieldMapping | None
    outcome: Any = None
    indexes: tuple[Keys, ...] = ()

    @classmethod
    def from_settings(cls, settings: Settings) -> "Profile":
        """The profile that the settings name, with their names for fields and statuses."""
        profile = _PROFILES[settings.profile]
        attempts = profile.attempts and _override(
            profile.attempts, settings.attempt_fields, settings.attempt_status_names
        )
        jobs = _override(profile.jobs, settings.job_fields, settings.status_names)
        return replace(profile, jobs=jobs, attempts=attempts)


def _override(
    mapping: FieldMapping, paths: Mapping[str, str], statuses: Mapping[str, str]
) -> FieldMapping:
    """The mapping with other paths and statuses; a field with another path is read unchanged."""
    return replace(
        mapping,
        paths={**mapping.paths, **paths},
        statuses={**mapping.statuses, **statuses},
        derived=None if "status" in paths else mapping.derived,
        offsets={name: offset for name, offset in mapping.offsets.items() if name not in paths},
        has_creation_time=mapping.has_creation_time or "createdAt" in paths,
    )


def _is_set(field: str) -> Document:
    """Neither null nor missing, the condition that Agenda uses."""
    return {"$gt": [f"${field}", None]}


# The last run failed: a success sets lastFinishedAt alone and leaves the old failedAt.
_AGENDA_FAILED = {"$and": [_is_set("failedAt"), {"$gte": ["$failedAt", "$lastFinishedAt"]}]}
_AGENDA_STATUS: Document = {
    "$switch": {
        "branches": [
            {"case": _is_set("lockedAt"), "then": JobStatus.LEASED.value},
            {"case": {"$eq": ["$disabled", True]}, "then": "disabled"},
            {
                "case": {"$and": [_AGENDA_FAILED, _is_set("nextRunAt")]},
                "then": JobStatus.FAILED.value,
            },
            {"case": _AGENDA_FAILED, "then": JobStatus.DLQ.value},
            {"case": _is_set("nextRunAt"), "then": JobStatus.QUEUED.value},
            {"case": _is_set("lastFinishedAt"), "then": JobStatus.SUCCEEDED.value},
        ],
        "default": "unscheduled",
    }
}
_ANY = {"$ne": None}
_AGENDA_NEEDS: dict[str, Document] = {
    JobStatus.LEASED.value: {"lockedAt": _ANY},
    "disabled": {"disabled": True},
    JobStatus.FAILED.value: {"failedAt": _ANY, "nextRunAt": _ANY},
    JobStatus.DLQ.value: {"failedAt": _ANY, "nextRunAt": None},
    JobStatus.QUEUED.value: {"nextRunAt": _ANY},
    JobStatus.SUCCEEDED.value: {"nextRunAt": None, "lastFinishedAt": _ANY},
    "unscheduled": {"nextRunAt": None, "lastFinishedAt": None},
}
_AGENDA_RAN = ("lastRunAt", "lastFinishedAt", "failedAt", "failReason", "failCount")


def _complete_agenda_job(document: Document, job: Document) -> Document:
    """The job with its last run as its only attempt; Agenda counts failures, not runs."""
    status = job.get("status")
    if status != JobStatus.LEASED:
        job["leasedBy"] = None  # lastModifiedBy names the last writer
    if status not in (JobStatus.SUCCEEDED, JobStatus.DLQ):
        job["finishedAt"] = None
    failed_at, ended = document.get("failedAt"), document.get("lastFinishedAt")
    if failed_at is not None:
        job["lastError"] = {"code": None, "message": document.get("failReason"), "stack": None}
    has_failed = _is_not_before(failed_at, ended)
    failures = document.get("failCount")
    # Version 6 resets failCount at a success.
    runs = max(failures if isinstance(failures, int) else 0, int(failed_at is not None))
    job |= {"attempts": [], "attemptCount": runs}
    if (started := document.get("lastRunAt")) is None:
        return job
    attempt = {
        "attemptNumber": None,
        "workerId": document.get("lastModifiedBy"),
        "startedAt": started,
    }
    if _is_not_before(ended, started):
        outcome = AttemptStatus.FAILED if has_failed else AttemptStatus.SUCCEEDED
        attempt |= {"finishedAt": ended, "error": job["lastError"] if has_failed else None}
    else:  # unlocked without an end: the run was interrupted
        outcome = AttemptStatus.RUNNING if status == JobStatus.LEASED else AttemptStatus.EXPIRED
    attempt["status"] = outcome.value
    return job | {
        "attempts": [attempt],
        "attemptCount": runs + (outcome is not AttemptStatus.FAILED),
    }


def _is_not_before(moment: Any, other: Any) -> bool:
    if not isinstance(moment, datetime):
        return False
    return not isinstance(other, datetime) or moment >= other


_CELERY_STATUSES = {
    "PENDING": JobStatus.QUEUED.value,
    "RECEIVED": JobStatus.QUEUED.value,
    "STARTED": JobStatus.LEASED.value,
    "RETRY": JobStatus.FAILED.value,
    "SUCCESS": JobStatus.SUCCEEDED.value,
    "FAILURE": JobStatus.DLQ.value,
    "REVOKED": JobStatus.CANCELLED.value,
}
# What a task returned may be large, and is not shown; what it raised is the job's error.
_CELERY_ERROR: Document = {
    "$cond": [
        {"$in": ["$status", ["FAILURE", "RETRY", "REVOKED"]]},
        {"result": "$result", "traceback": "$traceback"},
        None,
    ]
}


def _complete_celery_job(document: Document, job: Document) -> Document:
    """The job with its newest attempt, numbered where extended results have `retries`."""
    job["lastError"] = error = _parse_celery_error(document.get("lastError"))
    if "args" in document or "kwargs" in document:
        job["payload"] = {"args": document.get("args"), "kwargs": document.get("kwargs")}
    outcome = LAST_OUTCOMES.get(to_text(job.get("status")))
    retries = document.get("retries")
    number = retries + 1 if isinstance(retries, int) else None
    job |= {"attempts": [], "attemptCount": number or int(outcome is not None)}
    if outcome is None:
        return job
    worker = document.get("worker")
    if outcome == AttemptStatus.RUNNING:
        job["leasedBy"] = worker
    attempt = {
        "attemptNumber": number,
        "status": outcome,
        "workerId": worker,
        "finishedAt": document.get("date_done"),
        "error": error if outcome == AttemptStatus.FAILED else None,
    }
    return job | {"attempts": [attempt]}


def _parse_celery_error(error: Any) -> Document | None:
    """`{code, message, stack}` of an exception, which Celery stores as JSON text or as BSON."""
    if not isinstance(error, dict):
        return None
    result = error.get("result")
    if isinstance(result, str):
        with suppress(ValueError):
            result = json.loads(result)
    if not isinstance(result, dict):
        result = {"exc_message": result}
    message = result.get("exc_message")
    if isinstance(message, list | tuple):
        message = ", ".join(to_text(part) for part in message)
    return {"code": result.get("exc_type"), "message": message, "stack": error.get("traceback")}


_PROFILES = {
    "jobmon": Profile(
        jobs=FieldMapping.from_job_fields(), attempts=FieldMapping.from_attempt_fields()
    ),
    "agenda": Profile(
        jobs=FieldMapping(
            paths={
                "jobId": "_id",
                "createdAt": "_id",
                "type": "name",
                "payload": "data",
                "priority": "priority",
                "nextRunAt": "nextRunAt",
                "leasedBy": "lastModifiedBy",
                "startedAt": "lastRunAt",
                "leaseExpiresAt": "lockedAt",
                "finishedAt": "lastFinishedAt",
            },
            derived=DerivedStatus(expression=_AGENDA_STATUS, needs=_AGENDA_NEEDS),
            offsets={"leaseExpiresAt": AGENDA_LOCK_LIFETIME},
            reads={
                "lastError": ("failedAt", "failReason"),
                "attempts": (*_AGENDA_RAN, "lastModifiedBy"),
            },
            complete=_complete_agenda_job,
        ),
        attempts=None,
        outcome={
            "$cond": [_AGENDA_FAILED, AttemptStatus.FAILED.value, AttemptStatus.SUCCEEDED.value]
        },
        indexes=(
            [("lockedAt", 1)],
            [("failedAt", 1), ("nextRunAt", 1)],
            [("nextRunAt", 1), ("lastFinishedAt", 1)],
            [("disabled", 1), ("_id", -1)],
        ),
    ),
    "celery": Profile(
        jobs=FieldMapping(
            paths={
                "jobId": "_id",
                "type": "name",
                "status": "status",
                "createdAt": "date_done",
                "updatedAt": "date_done",
                "finishedAt": "date_done",
            },
            statuses=_CELERY_STATUSES,
            reads={"payload": ("args", "kwargs"), "attempts": ("worker", "retries")},
            computed={"lastError": _CELERY_ERROR},
            complete=_complete_celery_job,
            has_creation_time=False,
        ),
        attempts=None,
    ),
}
