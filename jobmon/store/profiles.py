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

from jobmon.domain import AttemptStatus, JobStatus
from jobmon.settings import Settings
from jobmon.store.names import DerivedStatus, Document, Keys, Names

# Agenda's default: a job whose lock is older may be taken by another process.
AGENDA_LOCK_LIFETIME = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How jobs and attempts are told, and which indexes that needs beside the usual ones.

    Without `attempts` the job itself tells of its last one: when it began and how it ended are
    expressions, its end is the job's `finishedAt`.
    """

    jobs: Names
    attempts: Names | None
    started_at: Any = None
    outcome: Any = None
    indexes: tuple[Keys, ...] = ()


def profile_of(settings: Settings) -> Profile:
    """The profile that the settings name, with their names for fields and statuses."""
    profile = _PROFILES[settings.profile]
    return replace(
        profile,
        jobs=_renamed(profile.jobs, settings.job_fields, settings.status_names),
        attempts=profile.attempts
        and _renamed(profile.attempts, settings.attempt_fields, settings.status_names),
    )


def _renamed(names: Names, paths: Mapping[str, str], statuses: Mapping[str, str]) -> Names:
    return replace(names, paths={**names.paths, **paths}, statuses={**names.statuses, **statuses})


def _is_date(field: str) -> Document:
    return {"$eq": [{"$type": field}, "date"]}


# The last run failed: a success sets lastFinishedAt alone and leaves the old failedAt.
_AGENDA_FAILED = {"$and": [_is_date("$failedAt"), {"$gte": ["$failedAt", "$lastFinishedAt"]}]}
_AGENDA_STATUS: Document = {
    "$switch": {
        "branches": [
            {"case": _is_date("$lockedAt"), "then": JobStatus.LEASED.value},
            {"case": {"$eq": ["$disabled", True]}, "then": "disabled"},
            {
                "case": {"$and": [_AGENDA_FAILED, _is_date("$nextRunAt")]},
                "then": JobStatus.FAILED.value,
            },
            {"case": _AGENDA_FAILED, "then": JobStatus.DLQ.value},
            {"case": _is_date("$nextRunAt"), "then": JobStatus.QUEUED.value},
            {"case": _is_date("$lastFinishedAt"), "then": JobStatus.SUCCEEDED.value},
        ],
        "default": "unscheduled",
    }
}
_AGENDA_RAN = ("lastRunAt", "lastFinishedAt", "failedAt", "failReason", "failCount")


def _agenda_job(watched: Document, job: Document) -> Document:
    status = job.get("status")
    started, ended = watched.get("lastRunAt"), watched.get("lastFinishedAt")
    failed_at = watched.get("failedAt")
    has_failed = _not_before(failed_at, ended)
    error = {"code": None, "message": watched.get("failReason"), "stack": None}
    job["lastError"] = error if failed_at is not None else None
    if status not in (JobStatus.SUCCEEDED, JobStatus.DLQ):
        job["finishedAt"] = None
    runs = watched["failCount"] if isinstance(watched.get("failCount"), int) else 0
    if started is None:
        job |= {"attempts": [], "attemptCount": runs}
        return job
    is_running = status == JobStatus.LEASED and not _not_before(ended, started)
    outcome = AttemptStatus.FAILED if has_failed else AttemptStatus.SUCCEEDED
    attempt = {
        "attemptNumber": runs + (0 if has_failed and not is_running else 1),
        "status": (AttemptStatus.RUNNING if is_running else outcome).value,
        "workerId": watched.get("lastModifiedBy"),
        "startedAt": started,
        "finishedAt": None if is_running else ended,
        "error": error if has_failed and not is_running else None,
    }
    job |= {"attempts": [attempt], "attemptCount": attempt["attemptNumber"]}
    return job


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
_CELERY_ERROR: Document = {
    "$cond": [
        {"$in": ["$status", ["FAILURE", "RETRY"]]},
        {"result": "$result", "traceback": "$traceback"},
        None,
    ]
}


def _celery_job(watched: Document, job: Document) -> Document:
    status = job.get("status")
    retries = watched["retries"] if isinstance(watched.get("retries"), int) else 0
    job["attemptCount"] = retries + (status != JobStatus.QUEUED)
    job["lastError"] = error = _celery_error(watched.get("lastError"))
    if "args" in watched or "kwargs" in watched:
        job["payload"] = {"args": watched.get("args"), "kwargs": watched.get("kwargs")}
    outcome = _CELERY_OUTCOMES.get(str(watched.get("status")))
    if outcome is not None:
        attempt = {
            "attemptNumber": job["attemptCount"],
            "status": outcome,
            "workerId": watched.get("worker"),
            "finishedAt": watched.get("date_done"),
            "error": error,
        }
        job["attempts"] = [attempt]
    return job


_CELERY_OUTCOMES = {
    "STARTED": AttemptStatus.RUNNING.value,
    "RETRY": AttemptStatus.FAILED.value,
    "SUCCESS": AttemptStatus.SUCCEEDED.value,
    "FAILURE": AttemptStatus.FAILED.value,
}


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
        message = ", ".join(str(part) for part in message)
    return {"code": said.get("exc_type"), "message": message, "stack": error.get("traceback")}


_PROFILES = {
    "jobmon": Profile(jobs=Names.of_jobs(), attempts=Names.of_attempts()),
    "agenda": Profile(
        jobs=Names(
            paths={
                "jobId": "_id",
                "createdAt": "_id",
                "type": "name",
                "payload": "data",
                "priority": "priority",
                "nextRunAt": "nextRunAt",
                "leasedBy": "lastModifiedBy",
                "leaseExpiresAt": "lockedAt",
                "finishedAt": "lastFinishedAt",
            },
            derived=DerivedStatus(
                expression=_AGENDA_STATUS,
                needs={
                    JobStatus.LEASED.value: {"lockedAt": {"$type": "date"}},
                    JobStatus.FAILED.value: {"failedAt": {"$type": "date"}},
                    JobStatus.DLQ.value: {"failedAt": {"$type": "date"}},
                    JobStatus.QUEUED.value: {"nextRunAt": {"$type": "date"}},
                    JobStatus.SUCCEEDED.value: {"lastFinishedAt": {"$type": "date"}},
                    JobStatus.CANCELLED.value: {"_id": {"$in": []}},
                },
            ),
            lags={"leaseExpiresAt": AGENDA_LOCK_LIFETIME},
            reads={
                "lastError": ("failedAt", "failReason"),
                "attempts": (*_AGENDA_RAN, "lastModifiedBy"),
            },
            complete=_agenda_job,
        ),
        attempts=None,
        started_at="$lastRunAt",
        outcome={
            "$cond": [_AGENDA_FAILED, AttemptStatus.FAILED.value, AttemptStatus.SUCCEEDED.value]
        },
        indexes=([("lockedAt", 1)], [("failedAt", 1)], [("nextRunAt", 1)]),
    ),
    "celery": Profile(
        jobs=Names(
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
        outcome={
            "$switch": {
                "branches": [
                    {"case": {"$eq": ["$status", word]}, "then": outcome}
                    for word, outcome in _CELERY_OUTCOMES.items()
                ],
                "default": None,
            }
        },
    ),
}
