"""The stored form of a group of errors."""

from datetime import datetime
from types import NoneType
from typing import NamedTuple

from jobmon.rollup.documents import require_type
from jobmon.store.mapping import Document

MAX_RECENT_JOBS = 10
# A projection for a list of groups.
WITHOUT_SAMPLE = {"message": False, "stack": False}


class FailedJob(NamedTuple):
    """A job that failed with the error of a group, at a time (UTC)."""

    job_id: str
    type: str
    worker: str | None
    at: datetime


class ErrorGroup(NamedTuple):
    """Errors of one kind: see `diagnosis.error_kinds.ErrorKind`. Dates are UTC.

    `message` and `stack` are a redacted sample from one error; None if that error has none, or if
    they were not read. `jobs`: the last jobs with such an error, the newest first.
    """

    id: str
    code: str | None
    pattern: str
    frame: str | None
    message: str | None
    stack: str | None
    first_seen: datetime
    last_seen: datetime
    jobs: tuple[FailedJob, ...]


def error_group_name(group_id: str) -> str:
    return f"error:{group_id}"


def dump_error_group(group: ErrorGroup) -> Document:
    return {
        "group": group.id,
        "code": group.code,
        "pattern": group.pattern,
        "frame": group.frame,
        "message": group.message,
        "stack": group.stack,
        "firstSeen": group.first_seen,
        "lastSeen": group.last_seen,
        "jobs": [list(job) for job in group.jobs],
    }


def load_error_group(document: Document) -> ErrorGroup:
    """The group that `dump_error_group` stored.

    Raises KeyError, TypeError or ValueError for another document.
    """
    return ErrorGroup(
        id=require_type(document["group"], str),
        code=require_type(document["code"], str, NoneType),
        pattern=require_type(document["pattern"], str),
        frame=require_type(document["frame"], str, NoneType),
        message=require_type(document.get("message"), str, NoneType),
        stack=require_type(document.get("stack"), str, NoneType),
        first_seen=require_type(document["firstSeen"], datetime),
        last_seen=require_type(document["lastSeen"], datetime),
        jobs=tuple(
            FailedJob(
                job_id=require_type(job_id, str),
                type=require_type(job_type, str),
                worker=require_type(worker, str, NoneType),
                at=require_type(at, datetime),
            )
            for job_id, job_type, worker, at in document["jobs"]
        ),
    )
