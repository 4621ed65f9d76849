"""The records of requests in jobmon's own database: written and read by web service and actor.

Records are inserted and read, never changed; they expire. The web service inserts the decisions of
persons into a collection where its user has only the rights to insert and to read. The actor
inserts what it did into collections of its own. So neither can change the other's records. Mutes
have a collection of their own, because the user of `jobmon mute` has no right to file requests.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Self

from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure

from jobmon.actions.request import ID_FORM, Person, to_milliseconds
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
# The indexes: the collection, the keys, and the options.
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
    """Create the indexes of all collections, or `only` of one; OperationFailure without a right."""
    for name, keys, options in RECORD_INDEXES:
        if only in (None, name):
            database[name].create_index(keys, **options)


def ensure_record_indexes(database: Database[Document], only: str | None = None) -> None:
    """Create the indexes if the user has the right; otherwise `jobmon init` has created them."""
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
    FINISHED = "finished"  # also of a stopped or refused request; with the counts of all batches


# The kinds in the history of a request: all except those of batches.
HISTORY_KINDS: tuple[str, ...] = tuple(
    kind.value for kind in (*Decision, *Progress) if kind not in (Progress.INTENT, Progress.BATCH)
)


class Result(StrEnum):
    """The outcome of one job of a request."""

    DONE = "done"
    SKIPPED = "skipped"
    POSSIBLE = "possible"  # in a dry run: the job would have been changed


# The kinds of which a request has at most one record.
_ONCE = {Decision.REQUESTED, Decision.APPROVED, Decision.REJECTED, Decision.STOPPED} | {
    Progress.CLAIMED,
    Progress.EXPIRED,
    Progress.FINISHED,
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record of a request, but not of a batch. `by` is None if the actor wrote the record.

    `details`: all stored fields.
    """

    kind: Decision | Progress
    at: datetime
    by: Person | None = None
    reason: str = ""
    details: Mapping[str, Any]

    @classmethod
    def load(cls, stored: Document) -> Self:
        """The record in a document; raises MalformedError, KeyError or ValueError for others."""
        kind = require_type(stored["kind"], str)
        is_decision = kind in list(Decision)
        return cls(
            kind=Decision(kind) if is_decision else Progress(kind),
            at=require_type(stored["at"], datetime),
            by=Person.load(stored["by"]) if is_decision else None,
            reason=require_type(stored.get("reason", ""), str),
            details=stored,
        )


class RequestPlace(NamedTuple):
    """A place in the list of requests: a page begins after this request."""

    at: datetime
    request_id: str


class ActionRecords:
    """The records of one queue's requests; methods raise PyMongoError."""

    def __init__(self, own: OwnDatabase, retention_days: int) -> None:
        self.own = own
        self._retention = timedelta(days=retention_days)

    def add_decision(
        self, request_id: str, kind: Decision, by: Person, fields: Document | None = None
    ) -> bool:
        """Record what a person decided; False if this was decided before.

        Each pause and resumption is recorded: a request can have several.
        """
        return self._add(DECISIONS, request_id, kind, {"by": by.dump(), **(fields or {})})

    def add_progress(
        self, request_id: str, kind: Progress, fields: Document, number: int | None = None
    ) -> bool:
        """Record what the actor did; False if that is recorded already.

        `number`: the batch's, for an intent or a batch; the first is 1.
        """
        return self._add(PROGRESS, request_id, kind, fields, number)

    def _add(
        self,
        collection: str,
        request_id: str,
        kind: Decision | Progress,
        fields: Document,
        number: int | None = None,
    ) -> bool:
        suffix = "" if kind in _ONCE else f"/{secrets.token_hex(4) if number is None else number}"
        record = {
            "request": request_id,
            "kind": kind.value,
            "at": to_milliseconds(datetime.now(UTC)),
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
        """Record the outcomes of jobs; a second outcome of a job is ignored.

        An outcome has `key` (the job's _id, or the name of a type), `jobId` (printed; None for a
        type), `result`, `reason`, `before`, `after` and `dryRun`.
        """
        now = datetime.now(UTC)
        documents = [
            {
                "_id": {"request": self.own.id(request_id), "key": outcome["key"]},
                **self.own.scope,
                "request": request_id,
                "at": to_milliseconds(now),
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

    def find_recorded_keys(self, request_id: str, keys: list[Any]) -> list[Any]:
        """The subset of these `_id`s for which the request has an outcome, of any result."""
        ids = [{"request": self.own.id(request_id), "key": key} for key in keys]
        outcomes = self.own[OUTCOMES].find({"_id": {"$in": ids}}, {"key": True})
        return [outcome["key"] for outcome in outcomes]

    def list_done(self, request_id: str, after: Any, limit: int) -> list[Document]:
        """The outcomes of jobs that a request changed, in the order of the jobs' `_id`s.

        They begin after the `_id` in `after` (None: at the first). Index: request, result, _id.
        """
        query: Document = {**self.own.scope, "request": request_id, "result": Result.DONE.value}
        if after is not None:
            query["_id"] = {"$gt": {"request": self.own.id(request_id), "key": after}}
        return list(self.own[OUTCOMES].find(query).sort("_id", 1).limit(limit))

    def find_outcomes(self, request_id: str, keys: Iterable[Any]) -> list[Document]:
        """The outcomes of a request for the jobs with these `_id`s."""
        ids = [{"request": self.own.id(request_id), "key": key} for key in keys]
        return list(self.own[OUTCOMES].find({"_id": {"$in": ids}}))

    def find_type_changes(self, names: Iterable[str], limit: int) -> list[Document]:
        """The newest outcomes that paused or resumed these types, the newest first.

        Index: jobId, at.
        """
        query: Document = {**self.own.scope, "jobId": None, "key": {"$in": list(names)}}
        query |= {"result": Result.DONE.value, "dryRun": False}
        return list(self.own[OUTCOMES].find(query).sort("at", -1).limit(limit))

    def count_outcomes(self, request_id: str) -> dict[str, int]:
        """The number of jobs with each result. Index: request, result."""
        query = {**self.own.scope, "request": request_id}
        groups = self.own[OUTCOMES].aggregate(
            [{"$match": query}, {"$group": {"_id": "$result", "count": {"$sum": 1}}}]
        )
        return {group["_id"]: group["count"] for group in groups}

    def list_records(self, request_ids: list[str]) -> dict[str, list[Document]]:
        """The records of requests in order of time, by the request's id; none of batches."""
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
        """The record of the last intent or batch of a request; None if there is none."""
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
        self, since: datetime, limit: int = 0, before: RequestPlace | None = None
    ) -> list[RequestPlace]:
        """The places of requests since a time, the newest first. Index: kind, at, request.

        They begin after the place `before`. A `limit` of 0 means no limit.
        """
        query: Document = {**self.own.scope, "kind": Decision.REQUESTED.value}
        query["request"] = {"$regex": f"^{ID_FORM.pattern}$"}  # a cursor can hold no other ids
        query["at"] = {"$gte": since} | ({} if before is None else {"$lte": before.at})
        if before is not None:
            same_time = {"at": before.at, "request": {"$lt": before.request_id}}
            query["$or"] = [{"at": {"$lt": before.at}}, same_time]
        records = self.own[DECISIONS].find(query, {"_id": False, "at": True, "request": True})
        newest = records.sort([("at", -1), ("request", -1)]).limit(limit)
        return [RequestPlace(record["at"], record["request"]) for record in newest]


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
