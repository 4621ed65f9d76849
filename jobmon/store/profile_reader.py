"""Adds the fields without a path to jobs and attempts, and to jobs the attempts inside them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobmon.domain import AttemptStatus, JobStatus
from jobmon.profiles.parser import ParsedAttempts, ParsedProfile
from jobmon.profiles.sources import Source
from jobmon.profiles.stored_values import get_value
from jobmon.store.attempts import last_attempt
from jobmon.store.bson_json import make_aware
from jobmon.store.labels import label
from jobmon.store.mapping import Document


class FieldReader:
    """Adds the fields of a profile that have no path to a job or an attempt."""

    def __init__(self, fields: Mapping[str, Source]) -> None:
        self._sources = {name: source for name, source in fields.items() if source.path is None}

    def add_fields(self, document: Document, mapped: Document) -> Document:
        """Add the fields without a path to the job or attempt `mapped`, from its `document`."""
        for name, source in self._sources.items():
            value = _read(source, document, document.get(f"_{name}"))
            if value is not None:
                mapped[name] = value
        return mapped


class JobReader:
    """Adds fields and attempts to jobs by the rules of a profile."""

    def __init__(self, parsed: ParsedProfile) -> None:
        self._fields = FieldReader(parsed.fields)
        self._only_in = {
            name: source.only_in for name, source in parsed.fields.items() if source.only_in
        }
        self._attempts = parsed.attempts

    def add_fields(self, document: Document, job: Document) -> Document:
        """The job with all its fields and attempts, without the fields that its status excludes."""
        self._fields.add_fields(document, job)
        if "_recurring" in document:
            job["_recurring"] = document["_recurring"]
        if self._attempts.array is not None:
            job["attempts"] = _read_array(self._attempts, self._attempts.array, document)
        elif self._attempts.place != "collection" and "status" in job:
            job["attempts"] = _read_last(self._attempts, document, job)
        for name, statuses in self._only_in.items():
            if "status" in job and job["status"] not in statuses:
                job.pop(name, None)
        return job


def _read(source: Source, document: Document, computed: Any) -> Any:
    """The source's value, from the document or from the values that the database computed."""
    if source.computed is None:
        return source.read(document)
    return source.read(computed) if isinstance(computed, dict) else None


def _read_array(attempts: ParsedAttempts, array: str, document: Document) -> list[Document]:
    """The attempts in the array at the path `array` of a job's document."""
    elements = get_value(document, array)
    if not isinstance(elements, list):
        return []
    statuses = (document.get("_attempts") or {}).get("status")
    result = []
    for index, element in enumerate(elements):
        if not isinstance(element, dict):
            continue
        attempt = {
            name: value
            for name, source in attempts.fields.items()
            if (value := source.read(element)) is not None
        }
        if isinstance(statuses, list) and index < len(statuses):
            attempt["status"] = statuses[index]
        elif attempts.status.path is not None:
            status = get_value(element, attempts.status.path)
            attempt["status"] = attempts.status.names.get(label(status), status)
        result.append(attempt)
    return result


def _read_last(attempts: ParsedAttempts, document: Document, job: Document) -> list[Document]:
    """The job's last attempt, from the job's own fields; empty if it had no attempt yet."""
    computed: Mapping[str, Any] = document.get("_attempts") or {}
    fields = {
        name: _read(source, document, computed.get(name))
        for name, source in attempts.fields.items()
    }
    started = fields.get("startedAt", job.get("startedAt"))
    ended = fields.get("finishedAt", job.get("finishedAt"))
    worker = fields.get("workerId", job.get("leasedBy"))
    last_attempts = last_attempt(
        {**job, "startedAt": started, "finishedAt": ended, "leasedBy": worker, "attempts": None}
    )
    if not last_attempts:
        return []
    (attempt,) = last_attempts
    if attempts.outcome:
        if started is None:
            return []
        attempt |= _find_outcome(computed.get("outcome"), started, ended, job)
    return [attempt | {name: fields[name] for name in ("attemptNumber", "error") if name in fields}]


def _find_outcome(outcome: Any, started: Any, ended: Any, job: Document) -> Document:
    """The last run's status, end and error; without a later end: running if leased, or expired."""
    if isinstance(ended, datetime) and (
        not isinstance(started, datetime) or make_aware(ended) >= make_aware(started)
    ):
        error = job.get("lastError") if outcome == AttemptStatus.FAILED else None
        return {"status": outcome, "finishedAt": ended, "error": error}
    is_running = job.get("status") == JobStatus.LEASED
    status = AttemptStatus.RUNNING if is_running else AttemptStatus.EXPIRED
    return {"status": status.value, "finishedAt": None, "error": None}
