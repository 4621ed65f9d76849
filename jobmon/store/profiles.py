"""Queues that exist already: how the documents of other programs tell of a job.

`jobmon` is the contract's own documents, with other names where settings give them. `agenda` reads
what Agenda (Node.js) keeps, `celery` what Celery's MongoDB result backend does. Only what their
documents say is told: docs/adapters.md has what that is.
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
    """How jobs and attempts are told, and which indexes that needs beside the usual ones.

    Without `attempts` none are recorded: each job is its own last one. How that ended follows from
    the job's status, unless `outcome` is an expression for it. That and `indexes` are in the words
    of the documents.
    """

    jobs: FieldMapping
    attempts: FieldMapping | None
    outcome: Any = None
    indexes: tuple[Keys, ...] = ()


def profile_of(settings: Settings) -> Profile:
    """The profile that the settings name, with their names for fields and statuses."""
    profile = _PROFILES[settings.profile]
    return replace(
        profile,
        jobs=_renamed(profile.jobs, settings.job_fields, settings.status_names),
        attempts=profile.attempts
        and _renamed(profile.attempts, settings.attempt_fields, settings.attempt_status_names),
    )


def _renamed(
    names: FieldMapping, paths: Mapping[str, str], statuses: Mapping[str, str]
) -> FieldMapping:
    """These names, but for what is given: a field of their own is taken at its word."""
    return replace(
        names,
        paths={**names.paths, **paths},
        statuses={**names.statuses, **statuses},
        derived=None if "status" in paths else names.derived,
        lags={name: lag for name, lag in names.lags.items() if name not in paths},
        knows_creation=names.knows_creation or "createdAt" in paths,
    )


def _has(field: str) -> Document:
    """Neither null nor missing, as Agenda itself asks."""
    return {"$gt": [f"${field}", None]}


# The last run failed: a success sets lastFinishedAt alone and leaves the old failedAt.
_AGENDA_FAILED = {"$and": [_has("failedAt"), {"$gte": ["$failedAt", "$lastFinishedAt"]}]}
_AGENDA_STATUS: Document = {
    "$switch": {
        "branches": [
            {"case": _has("lockedAt"), "then": JobStatus.LEASED.value},
            {"case": {"$eq": ["$disabled", True]}, "then": "disabled"},
            {
                "case": {"$and": [_AGENDA_FAILED, _has("nextRunAt")]},
                "then": JobStatus.FAILED.value,
            },
            {"case": _AGENDA_FAILED, "then": JobStatus.DLQ.value},
            {"case": _has("nextRunAt"), "then": JobStatus.QUEUED.value},
            {"case": _has("lastFinishedAt"), "then": JobStatus.SUCCEEDED.value},
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


def _agenda_job(watched: Document, job: Document) -> Document:
    """Its last run as its only attempt, without a number: Agenda counts failures, not runs."""
    status = job.get("status")
    if status != JobStatus.LEASED:
        job["leasedBy"] = None  # the name is that of whoever wrote last
    if status not in (JobStatus.SUCCEEDED, JobStatus.DLQ):
        job["finishedAt"] = None
    failed_at, ended = watched.get("failedAt"), watched.get("lastFinishedAt")
    if failed_at is not None:
        job["lastError"] = {"code": None, "message": watched.get("failReason"), "stack": None}
    has_failed = _not_before(failed_at, ended)
    failures = watched.get("failCount")
    # Version 6 forgets the failures before a success.
    runs = max(failures if isinstance(failures, int) else 0, int(failed_at is not None))
    job |= {"attempts": [], "attemptCount": runs}
    if (started := watched.get("lastRunAt")) is None:
        return job
    attempt = {
        "attemptNumber": None,
        "workerId": watched.get("lastModifiedBy"),
        "startedAt": started,
    }
    if _not_before(ended, started):
        outcome = AttemptStatus.FAILED if has_failed else AttemptStatus.SUCCEEDED
        attempt |= {"finishedAt": ended, "error": job["lastError"] if has_failed else None}
    else:  # unlocked without an end, it was broken off
        outcome = AttemptStatus.RUNNING if status == JobStatus.LEASED else AttemptStatus.EXPIRED
    attempt["status"] = outcome.value
    return job | {
        "attempts": [attempt],
        "attemptCount": runs + (outcome is not AttemptStatus.FAILED),
    }


def _not_before(moment: Any, other: Any) -> bool:
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
# What a task returned may be large and is nobody's business here; what it raised is its error.
_CELERY_ERROR: Document = {
    "$cond": [
        {"$in": ["$status", ["FAILURE", "RETRY", "REVOKED"]]},
        {"result": "$result", "traceback": "$traceback"},
        None,
    ]
}


def _celery_job(watched: Document, job: Document) -> Document:
    """Its newest attempt, numbered where extended results tell of retries."""
    job["lastError"] = error = _celery_error(watched.get("lastError"))
    if "args" in watched or "kwargs" in watched:
        job["payload"] = {"args": watched.get("args"), "kwargs": watched.get("kwargs")}
    outcome = LAST_OUTCOMES.get(to_text(job.get("status")))
    retries = watched.get("retries")
    number = retries + 1 if isinstance(retries, int) else None
    job |= {"attempts": [], "attemptCount": number or int(outcome is not None)}
    if outcome is None:
        return job
    worker = watched.get("worker")
    if outcome == AttemptStatus.RUNNING:
        job["leasedBy"] = worker
    attempt = {
        "attemptNumber": number,
        "status": outcome,
        "workerId": worker,
        "finishedAt": watched.get("date_done"),
        "error": error if outcome == AttemptStatus.FAILED else None,
    }
    return job | {"attempts": [attempt]}


def _celery_error(error: Any) -> Document | None:
    """`{code, message, stack}` of an exception as Celery keeps it: JSON text, or BSON."""
    if not isinstance(error, dict):
        return None
    said = error.get("result")
    if isinstance(said, str):
        with suppress(ValueError):
            said = json.loads(said)
    if not isinstance(said, dict):
        said = {"exc_message": said}
    message = said.get("exc_message")
    if isinstance(message, list | tuple):
        message = ", ".join(to_text(part) for part in message)
    return {"code": said.get("exc_type"), "message": message, "stack": error.get("traceback")}


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
            lags={"leaseExpiresAt": AGENDA_LOCK_LIFETIME},
            reads={
                "lastError": ("failedAt", "failReason"),
                "attempts": (*_AGENDA_RAN, "lastModifiedBy"),
            },
            complete=_agenda_job,
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
            complete=_celery_job,
            knows_creation=False,
        ),
        attempts=None,
    ),
}
