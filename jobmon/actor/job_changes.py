"""Plans and makes the change of a job's document, by the rules of `jobmon.queue` or a profile."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from pymongo import ReadPreference, WriteConcern
from pymongo.collection import Collection

from jobmon.actions.records import ActionRecords
from jobmon.actions.request import ActionRequest, truncate_to_ms
from jobmon.actions.support import ActionSupport
from jobmon.domain import JobAction, JobStatus, explain_refusal
from jobmon.profiles.conditions import Now, resolve_now
from jobmon.profiles.stored_values import encode_date
from jobmon.profiles.transitions import RequestedValue, Transition
from jobmon.queue import JobChange, JobQueue, RefusedActionError
from jobmon.store.bson_json import encode_key, to_text
from jobmon.store.connection import Connection
from jobmon.store.conversions import get_at_path, overlap
from jobmon.store.mapping import Document
from jobmon.store.read_collection import SIMPLE_COLLATION

# Records do not contain these fields of `jobmon.queue`: they are large, and may hold secrets.
_NOT_RECORDED = ("payload", "lastError")
CHANGED_SINCE_REQUEST = "it has changed since that request"
STOPPED = "the request was stopped"
CONDITION_NOT_MET = "the profile's condition for this action is not met"
# Large fields, which do not show whether a worker has changed the job, and may hold secrets.
_NOT_STATE = ("payload", "attempts", "lastError")


@dataclass(frozen=True, kw_only=True)
class PlannedChange:
    """A conditional update of one document, with the document's own field names.

    It is made only if the document still has the values in `expected`; None also matches a missing
    field. `removals`: fields to remove. `deletes`: the document is deleted. `before`: the values of
    the changed fields before the update, without those that hold the payload or errors.
    """

    key: Any
    job_id: str | None
    expected: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    removals: tuple[str, ...] = ()
    deletes: bool = False
    before: Mapping[str, Any] = field(default_factory=dict)

    @property
    def new_values(self) -> Document:
        """The fields in `before` with their new values, for the records; None if removed."""
        return {name: self.values.get(name) for name in self.before}

    def dump(self) -> Document:
        """The stored form, for the actor that continues if this actor ends."""
        return {
            "key": self.key,
            "jobId": self.job_id,
            "expected": dict(self.expected),
            "values": dict(self.values),
            "removals": list(self.removals),
            "deletes": self.deletes,
            "before": dict(self.before),
        }

    @classmethod
    def load(cls, stored: Document) -> Self:
        """The change that `dump` stored."""
        return cls(
            key=stored["key"],
            job_id=stored["jobId"],
            expected=stored["expected"],
            values=stored["values"],
            removals=tuple(stored["removals"]),
            deletes=stored["deletes"],
            before=stored["before"],
        )


@dataclass(frozen=True)
class StoredJob:
    """A job's document as stored, and as `job`: its fields with the names that jobmon uses."""

    document: Document
    job: Document

    @property
    def job_id(self) -> str | None:
        """The id as lists print it."""
        return to_text(self.job.get("jobId"))


class JobChanges(Protocol):
    """Plans and makes the changes for one request; methods raise PyMongoError."""

    def read(self, keys: Iterable[Any]) -> dict[bytes, StoredJob]:
        """The jobs with these `_id`s, read from the primary, by `encode_key` of the `_id`."""

    def plan(self, stored_job: StoredJob) -> PlannedChange:
        """The change that the request makes to a job; RefusedActionError if it is not allowed."""

    def apply(self, change: PlannedChange) -> bool:
        """Make a change; False if the document has changed since it was read."""

    def is_made(self, stored_job: StoredJob, change: PlannedChange) -> bool:
        """Whether the document proves that the change was made."""


def make_job_changes(
    connection: Connection, records: ActionRecords, support: ActionSupport, request: ActionRequest
) -> JobChanges:
    """The changes of a queue's jobs for a request, made with the database user of `connection`."""
    if support.transitions is None:
        return QueueJobChanges(connection, records, request)
    return ProfileJobChanges(connection, request, support.transitions[request.action])


def _writable_jobs(connection: Connection) -> Collection[Document]:
    return connection.jobs.collection.with_options(
        read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
    )


class QueueJobChanges:
    """Changes of the documents of `jobmon.queue`, by this library's own rules.

    A changed job gets a field `lastAction` with the id of the request.
    """

    def __init__(
        self, connection: Connection, records: ActionRecords, request: ActionRequest
    ) -> None:
        self._connection = connection
        self._records = records
        self._request = request
        # By `encode_key`: the outcomes of the request to undo, for the jobs that `read` returned.
        self._undone: dict[bytes, Document] = {}

    def read(self, keys: Iterable[Any]) -> dict[bytes, StoredJob]:
        keys = list(keys)
        if (undone_id := self._request.target.request_id) is not None:
            outcomes = self._records.find_outcomes(undone_id, keys)
            self._undone = {encode_key(outcome["key"]): outcome for outcome in outcomes}
        jobs = _writable_jobs(self._connection).find({"_id": {"$in": keys}}, {"payload": 0})
        jobs = jobs.max_time_ms(self._connection.max_time_ms)
        return {encode_key(job["_id"]): StoredJob(job, job) for job in jobs}

    def plan(self, stored_job: StoredJob) -> PlannedChange:
        job = stored_job.job
        if not isinstance(job.get("jobId"), str):
            raise RefusedActionError("its jobId is not a text")
        action = JobAction(self._request.action)
        is_undo = action is JobAction.UNDO
        value = self._find_values_before(job) if is_undo else self._request.value
        change = self._queue.decide(action, job, value, reset_attempts=self._request.reset_attempts)
        values = change.fields or {}
        return PlannedChange(
            key=job["_id"],
            job_id=job["jobId"],
            expected=change.expected,
            values=values,
            deletes=change.fields is None,
            before={name: job.get(name) for name in values if name not in _NOT_RECORDED},
        )

    def _find_values_before(self, job: Document) -> Document:
        """The values that an undo restores: those before the action to undo.

        RefusedActionError if the job has changed since that action, or if a worker held it before.
        """
        outcome = self._undone.get(encode_key(job["_id"]))
        last = job.get("lastAction")
        is_last = isinstance(last, dict) and last.get("id") == self._request.target.request_id
        if outcome is None or not is_last:
            raise RefusedActionError(CHANGED_SINCE_REQUEST)
        after, before = outcome["after"], outcome["before"]
        if any(job.get(name) != value for name, value in after.items()):
            raise RefusedActionError(CHANGED_SINCE_REQUEST)
        if before.get("status") == JobStatus.LEASED.value:
            raise RefusedActionError("a worker ran it")
        return {name: value for name, value in before.items() if name != "updatedAt"}

    def apply(self, change: PlannedChange) -> bool:
        last_action = {
            "id": self._request.id,
            "action": self._request.action,
            "by": self._request.by.subject,
            "at": truncate_to_ms(datetime.now(UTC)),
        }
        job_change = JobChange(
            action=JobAction(self._request.action),
            job={"jobId": change.job_id, **change.before, **change.expected},
            expected=dict(change.expected),
            fields=None if change.deletes else dict(change.values),
        )
        return self._queue.apply(job_change, last_action=last_action, may_insert=False)

    def is_made(self, stored_job: StoredJob, change: PlannedChange) -> bool:  # noqa: ARG002
        """As in `JobChanges`: true if the request made the last action on the job."""
        last = stored_job.document.get("lastAction")
        return isinstance(last, dict) and last.get("id") == self._request.id

    @property
    def _queue(self) -> JobQueue:
        settings, database = self._connection.settings, self._connection.database
        return JobQueue(
            database.with_options(
                read_preference=ReadPreference.PRIMARY, write_concern=WriteConcern("majority")
            ),
            jobs=settings.jobs_collection,
            attempts=settings.attempts_collection,
        )


class ProfileJobChanges:
    """Changes of another library's documents, by the transitions of their profile."""

    def __init__(
        self, connection: Connection, request: ActionRequest, transition: Transition
    ) -> None:
        self._connection = connection
        self._mapping = connection.jobs.mapping
        self._request = request
        self._transition = transition
        # The paths of the fields that show a job's state.
        self._state_paths = [
            path for name, path in self._mapping.paths.items() if name not in _NOT_STATE
        ]
        self._recorded_paths = self._list_recorded_paths()
        self._matching: set[bytes] = set()  # by `encode_key`: the jobs that match `when`

    def read(self, keys: Iterable[Any]) -> dict[bytes, StoredJob]:
        transition = self._transition
        names = [*self._mapping.paths, *self._mapping.reads, "status", "_id"]
        projection = self._mapping.projection(set(names) - set(_NOT_STATE))
        for path in _list_changed_paths(transition):
            if not any(path.startswith(f"{outer}.") or path == outer for outer in projection):
                projection[path] = True
        query = self._mapping.translate_filter({"_id": {"$in": list(keys)}})
        if transition.when:
            matching = self._find({"$and": [query, self._resolve_when()]}, {"_id": True})
            self._matching = {encode_key(document["_id"]) for document in matching}
        return {
            encode_key(document["_id"]): StoredJob(document, self._mapping.to_contract(document))
            for document in self._find(query, projection)
        }

    def _find(self, query: Document, projection: Document) -> Iterable[Document]:
        jobs = _writable_jobs(self._connection)
        documents = jobs.find(query, projection, collation=SIMPLE_COLLATION)
        return documents.max_time_ms(self._connection.max_time_ms)

    def _resolve_when(self) -> Document:
        when: Document = resolve_now(self._transition.when, datetime.now(UTC))
        return when

    def plan(self, stored_job: StoredJob) -> PlannedChange:
        transition, document = self._transition, stored_job.document
        status = stored_job.job.get("status")
        if status not in transition.statuses:
            raise RefusedActionError(f"it is {status}")
        now = truncate_to_ms(datetime.now(UTC))
        if reason := explain_refusal(self._request.action, stored_job.job, now):
            raise RefusedActionError(reason)
        if transition.when and encode_key(document["_id"]) not in self._matching:
            raise RefusedActionError(CONDITION_NOT_MET)
        values = {
            path: _make_value(value, self._request, now)
            for path, value in transition.changes.items()
        }
        current = {path: get_at_path(document, path) for path in _list_changed_paths(transition)}
        for path, amount in transition.increments.items():
            old_value = current[path]
            values[path] = (old_value if isinstance(old_value, int | float) else 0) + amount
        has_values = all(_are_equal(current[path], value) for path, value in values.items())
        has_removals = any(current[path] is not None for path in transition.removals)
        if has_values and not transition.deletes and not has_removals:
            raise RefusedActionError("it has this value already")
        before = {path: current[path] for path in self._recorded_paths}
        return PlannedChange(
            key=document["_id"],
            job_id=stored_job.job_id,
            expected={
                path: value
                for path in (*self._state_paths, *before, *transition.increments)
                if not isinstance(value := get_at_path(document, path), dict | list)
            },
            values=values,
            removals=transition.removals,
            deletes=transition.deletes,
            before=before,
        )

    def apply(self, change: PlannedChange) -> bool:
        jobs, transition = _writable_jobs(self._connection), self._transition
        # The profile's rules check the status again: it may depend on fields outside `expected`.
        status = self._mapping.translate_filter({"status": {"$in": list(transition.statuses)}})
        conditions = [{"_id": change.key}, dict(change.expected), status, self._resolve_when()]
        query = {"$and": conditions}
        if change.deletes:
            deleted = jobs.delete_one(query, collation=SIMPLE_COLLATION)
            return bool(deleted.deleted_count)
        update: Document = {"$set": dict(change.values)} if change.values else {}
        if change.removals:
            update["$unset"] = dict.fromkeys(change.removals, "")
        return bool(jobs.update_one(query, update, collation=SIMPLE_COLLATION).matched_count)

    def is_made(self, stored_job: StoredJob, change: PlannedChange) -> bool:
        """As in `JobChanges`: true if the changed fields have the new values."""
        if change.deletes:
            return False
        changed = dict(change.values) | dict.fromkeys(change.removals)
        return all(
            _are_equal(get_at_path(stored_job.document, path), value)
            for path, value in changed.items()
        )

    def _list_recorded_paths(self) -> list[str]:
        """The changed paths, without those whose change may change the payload or an error."""
        sources = set().union(*map(self._mapping.list_sources, _NOT_STATE))
        return [
            path
            for path in _list_changed_paths(self._transition)
            if path in self._state_paths or not any(overlap(path, source) for source in sources)
        ]


def _list_changed_paths(transition: Transition) -> tuple[str, ...]:
    return (*transition.changes, *transition.removals, *transition.increments)


def _make_value(value: Any, request: ActionRequest, now: datetime) -> Any:
    match value:
        case Now():
            return encode_date(now, value.reading)
        case RequestedValue() if isinstance(request.value, datetime):
            return encode_date(request.value, value.reading)
        case RequestedValue():
            return request.value
        case _:
            return value


def _are_equal(value: Any, other: Any) -> bool:
    """Whether values are equal for MongoDB; for Python, True is also equal to 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
