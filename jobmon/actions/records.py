"""Writes and reads the records of requests in jobmon's own database.

Records are inserted and read, never changed; they expire. The web service inserts the decisions of
persons into a collection where its user has only the rights to insert and to read. The actor
inserts what it did into other collections. So neither can change the other's records. Mutes have
their own collection, because the user of `jobmon mute` has no right to file requests.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Self

from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from jobmon.actions.request import ID_FORM, Person, truncate_to_ms
from jobmon.rollup.documents import OwnDatabase, index_keys, require_type
from jobmon.store.failures import has_only_duplicates, is_unauthorized
from jobmon.store.mapping import Document, Keys

# The collections, all in JOBMON_STATE_DB. The web service inserts into the first two only.
DECISIONS = "action_decisions"
MUTES = "notice_mutes"
PROGRESS = "action_progress"
OUTCOMES = "action_outcomes"
ACTOR_LEASES, ACTOR = "action_leases", "actor"  # the actor's lease: its collection and its name

_EXPIRY: tuple[Keys, Document] = ([("expiresAt", 1)], {"expireAfterSeconds": 0})
_REQUEST_ORDER: tuple[Keys, Document] = (index_keys("request", "kind", "number"), {})
# The collection, the keys and the options of each index.
RECORD_INDEXES: tuple[tuple[str, Keys, Document], ...] = (
    (DECISIONS, *_REQUEST_ORDER),
    (DECISIONS, index_keys("kind", "at", "request"), {}),
    (DECISIONS, *_EXPIRY),
    (PROGRESS, *_REQUEST_ORDER),
    (PROGRESS, *_EXPIRY),
    (OUTCOMES, index_keys("request", "result", "_id"), {}),
    (OUTCOMES, index_keys("jobId", "at"), {}),
    (OUTCOMES, *_EXPIRY),
    (MUTES, index_keys("at"), {}),
    (MUTES, *_EXPIRY),
)


def create_record_indexes(database: Database[Document], only: str | None = None) -> None:
    """Create the indexes of all collections, or of the collection `only`; OperationFailure."""
    for name, keys, options in RECORD_INDEXES:
        if only in (None, name):
            database[name].create_index(keys, **options)


def ensure_record_indexes(database: Database[Document], only: str | None = None) -> None:
    """Create the indexes if the user has the right; otherwise leave this to `jobmon init`."""
    try:
        create_record_indexes(database, only)
    except OperationFailure as error:
        if not is_unauthorized(error):
            raise


class Decision(StrEnum):
    """The kinds of records that persons add."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    PAUSED = "paused"
    RESUMED = "resumed"
    STOPPED = "stopped"


class Progress(StrEnum):
    """The kinds of records that the actor adds."""

    CLAIMED = "claimed"  # with a copy of the request
    INTENT = "intent"  # before a change: the changes of a batch, or which types are paused
    BATCH = "batch"  # a batch is done; with the counts of all batches so far
    INTERRUPTED = "interrupted"  # the actor continues after a person has resumed the request
    EXPIRED = "expired"
    FINISHED = "finished"  # or stopped or refused, see `Phase`; with the counts of all batches


# The kinds in the history of a request: all except intents and batches.
HISTORY_KINDS: tuple[str, ...] = tuple(
    kind.value for kind in (*Decision, *Progress) if kind not in (Progress.INTENT, Progress.BATCH)
)


class Result(StrEnum):
    """What a request did with one job or type."""

    DONE = "done"
    SKIPPED = "skipped"
    POSSIBLE = "possible"  # in a dry run: the job would have been changed


# A request has at most one record of each of these kinds.
_ONCE = {Decision.REQUESTED, Decision.APPROVED, Decision.REJECTED, Decision.STOPPED} | {
    Progress.CLAIMED,
    Progress.EXPIRED,
    Progress.FINISHED,
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record in the history of a request. `by`: the person; None if the actor wrote the record.

    `details`: all stored fields.
    """

    kind: Decision | Progress
    at: datetime
    by: Person | None = None
    reason: str = ""
    details: Mapping[str, Any]

    @classmethod
    def load(cls, stored: Document) -> Self:
        """The record in a document; KeyError or ValueError if a field is missing or malformed."""
        kind = require_type(stored["kind"], str)
        is_decision = kind in list(Decision)
        return cls(
            kind=Decision(kind) if is_decision else Progress(kind),
            at=require_type(stored["at"], datetime),
            by=Person.load(stored["by"]) if is_decision else None,
            reason=require_type(stored.get("reason", ""), str),
            details=stored,
        )


class RequestCursor(NamedTuple):
    """A request in the list of requests: the next page begins after it."""

    at: datetime
    request_id: str


class ActionRecords:
    """The records of one queue's requests; methods raise PyMongoError."""

    def __init__(self, own: OwnDatabase, retention_days: int) -> None:
        self.own = own
        self._retention = timedelta(days=retention_days)

    def add_decision(
        self,
        request_id: str,
        kind: Decision,
        by: Person,
        fields: Document | None = None,
        *,
        after: datetime | None = None,
    ) -> bool:
        """Record what a person decided; False if the same decision is recorded already.

        A request can have several pauses and resumptions: each is recorded. `after`: the time of
        the newest known record. The new one gets a later time, although the clocks of the hosts
        that write records differ: the order of times decides whether the request is paused.
        """
        fields = {"by": by.dump(), **(fields or {})}
        return self._add(DECISIONS, request_id, kind, fields, after=after)

    def add_progress(
        self,
        request_id: str,
        kind: Progress,
        fields: Document,
        number: int | None = None,
        *,
        after: datetime | None = None,
    ) -> bool:
        """Record what the actor did; False if that is recorded already.

        `number`: the batch's number, from 1; only for the kinds INTENT and BATCH. `after`: as in
        `add_decision`.
        """
        return self._add(PROGRESS, request_id, kind, fields, number, after=after)

    def _add(
        self,
        collection: str,
        request_id: str,
        kind: Decision | Progress,
        fields: Document,
        number: int | None = None,
        *,
        after: datetime | None = None,
    ) -> bool:
        at = truncate_to_ms(datetime.now(UTC))
        if after is not None:
            with suppress(OverflowError):  # another program wrote a date near the year 9999
                at = max(at, after + timedelta(milliseconds=1))
        suffix = "" if kind in _ONCE else f"/{secrets.token_hex(4) if number is None else number}"
        record = {
            "request": request_id,
            "kind": kind.value,
            "at": at,
            "expiresAt": datetime.now(UTC) + self._retention,
            **({} if number is None else {"number": number}),
            **fields,
        }
        try:
            self.own[collection].insert_one(self.own.new(f"{request_id}/{kind}{suffix}", record))
        except DuplicateKeyError:
            return False
        return True

    def add_outcomes(self, request_id: str, outcomes: Iterable[Document]) -> None:
        """Record the outcomes of jobs or types; a second outcome with the same key is ignored.

        An outcome has `key` (the job's _id, or the name of a type), `jobId` (printed; None for a
        type or a job that is gone), `result`, `reason`, `before`, `after` and `dryRun`.
        """
        now = datetime.now(UTC)
        documents = [
            {
                "_id": {"request": self.own.id(request_id), "key": outcome["key"]},
                **self.own.scope,
                "request": request_id,
                "at": truncate_to_ms(now),
                "expiresAt": now + self._retention,
                **outcome,
            }
            for outcome in outcomes
        ]
        if not documents:
            return
        try:
            self.own[OUTCOMES].insert_many(documents, ordered=False)
        except BulkWriteError as error:
            if not has_only_duplicates(error):
                raise

    def list_done(self, request_id: str, after: Any, limit: int) -> list[Document]:
        """The outcomes of jobs that a request changed, in the order of the jobs' `_id`s.

        `after`: begin after the job with this `_id`; None to begin with the first. Index: request,
        result, _id.
        """
        query: Document = {**self.own.scope, "request": request_id, "result": Result.DONE.value}
        if after is not None:
            query["_id"] = {"$gt": {"request": self.own.id(request_id), "key": after}}
        return list(self.own[OUTCOMES].find(query).sort("_id", 1).limit(limit))

    def find_outcomes(self, request_id: str, keys: Iterable[Any]) -> list[Document]:
        """The outcomes of a request for the jobs with these `_id`s, whatever their results."""
        ids = [{"request": self.own.id(request_id), "key": key} for key in keys]
        return list(self.own[OUTCOMES].find({"_id": {"$in": ids}}))

    def find_type_changes(self, names: Iterable[str], limit: int) -> list[Document]:
        """The outcomes that paused or resumed these types: the newest `limit`, the newest first.

        Index: jobId, at.
        """
        query: Document = {**self.own.scope, "jobId": None, "key": {"$in": list(names)}}
        query |= {"result": Result.DONE.value, "dryRun": False}
        return list(self.own[OUTCOMES].find(query).sort("at", -1).limit(limit))

    def count_outcomes(self, request_id: str) -> dict[str, int]:
        """The number of jobs or types with each result. Index: request, result."""
        query = {**self.own.scope, "request": request_id}
        groups = self.own[OUTCOMES].aggregate(
            [{"$match": query}, {"$group": {"_id": "$result", "count": {"$sum": 1}}}]
        )
        return {group["_id"]: group["count"] for group in groups}

    def list_records(self, request_ids: list[str]) -> dict[str, list[Document]]:
        """By request id: the records of the request's history, in order of time."""
        kinds: Document = {"kind": {"$in": list(HISTORY_KINDS)}}
        query = {**self.own.scope, "request": {"$in": request_ids}, **kinds}
        records = [record for name in (DECISIONS, PROGRESS) for record in self._find(name, query)]
        records.sort(key=lambda record: record["at"])
        return {
            request_id: [record for record in records if record["request"] == request_id]
            for request_id in request_ids
        }

    def _find(self, name: str, query: Document) -> Iterator[Document]:
        def load(document: Document) -> Document:
            Record.load(document)
            return document

        yield from self.own.read(name, self.own[name].find(query), load)

    def find_last(self, request_id: str, kind: Progress) -> Document | None:
        """The INTENT or BATCH record of a request with the highest number; None if it has none."""
        query = {**self.own.scope, "request": request_id, "kind": kind.value}
        return self.own[PROGRESS].find_one(query, sort=[("number", -1)])

    def find_actor_absence_s(self) -> float | None:
        """Seconds since the lease of this queue's last actor ended, by the database's clock.

        0 while an actor has the lease; None if no actor has ever had it.
        """
        absence_ms = {"$max": [0, {"$subtract": ["$$NOW", "$expiresAt"]}]}
        leases = self.own[ACTOR_LEASES].aggregate(
            [{"$match": {"_id": self.own.id(ACTOR)}}, {"$project": {"absenceMs": absence_ms}}]
        )
        return next((lease["absenceMs"] / 1_000 for lease in leases), None)

    def list_requested(
        self, since: datetime, limit: int = 0, before: RequestCursor | None = None
    ) -> list[RequestCursor]:
        """The cursors of the requests filed since a time, the newest first.

        With `before`, only requests that are older than this one. A `limit` of 0 means no limit.
        Index: kind, at, request.
        """
        query: Document = {**self.own.scope, "kind": Decision.REQUESTED.value}
        query["request"] = {"$regex": f"^{ID_FORM.pattern}$"}  # a cursor can hold no other ids
        query["at"] = {"$gte": since} | ({} if before is None else {"$lte": before.at})
        if before is not None:
            same_time = {"at": before.at, "request": {"$lt": before.request_id}}
            query["$or"] = [{"at": {"$lt": before.at}}, same_time]
        records = self.own[DECISIONS].find(query, {"_id": False, "at": True, "request": True})
        newest = records.sort([("at", -1), ("request", -1)]).limit(limit)
        return [RequestCursor(record["at"], record["request"]) for record in newest]

    def find_owners_request(self, owner: str, since: datetime, number: int) -> datetime | None:
        """When an owner filed the `number`th of their requests since a time, from the newest on.

        None if there are fewer. Index: kind, at, request.
        """
        query = {**self.own.scope, "kind": Decision.REQUESTED.value, "owner": owner}
        query["at"] = {"$gte": since}
        newest = self.own[DECISIONS].find(query, {"_id": False, "at": True}).sort("at", -1)
        return next((record["at"] for record in newest.skip(number - 1).limit(1)), None)


def make_outcome(
    key: Any,
    job_id: str | None,
    result: Result,
    reason: str = "",
    *,
    before: Document | None = None,
    after: Document | None = None,
) -> Document:
    """An outcome for `ActionRecords.add_outcomes`, without its `dryRun`."""
    return {
        "key": key,
        "jobId": job_id,
        "result": result.value,
        "reason": reason,
        "before": before or {},
        "after": after or {},
    }
