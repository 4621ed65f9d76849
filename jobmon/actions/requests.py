"""Files requests for actions, records decisions on them, and reads their states."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import bson
from bson import MaxKey, MinKey

from jobmon.actions.catalog import RequestError
from jobmon.actions.records import (
    OUTCOMES,
    ActionRecords,
    Decision,
    Progress,
    RequestCursor,
    Result,
)
from jobmon.actions.request import ActionRequest, Person, make_id
from jobmon.actions.state import ActionState, Phase, conclude_state
from jobmon.actions.target import Target
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import OwnDatabase, state_database
from jobmon.settings import Settings
from jobmon.single_flight import SingleFlight, SingleFlightCache
from jobmon.store.bson_json import can_contain, decode_token, encode_token
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document
from jobmon.store.paused_types import TypePause

MAX_LISTED = 100  # requests on a page
BATCH = 1_000  # outcomes that a download reads at a time
ACTOR_CACHE_MS = 2_000
MAX_TYPE_CHANGES = 1_000  # pauses are searched in so many changes of types, the newest
MAX_CACHED_JOBS = 200  # jobs whose outcomes are cached for open pages
ACTOR_ABSENCE_S = 60  # pages hide their buttons if the actor is absent for longer


class RequestConflictError(Exception):
    """The request does not allow this decision now; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class JobOutcome:
    """The outcome of one job or type of a request. `before`, `after`: the fields that changed.

    `key`: the job's `_id`. `job_id`: the printed id; None for a type or a job that is gone.
    """

    request_id: str
    key: Any
    job_id: str | None
    result: str
    reason: str
    at: datetime
    before: Document
    after: Document


@dataclass(frozen=True, kw_only=True)
class OutcomePage:
    """Outcomes in the order of their jobs' _ids; `next_after` is None on the last page."""

    outcomes: list[JobOutcome]
    next_after: str | None = None


@dataclass(frozen=True, kw_only=True)
class RequestPage:
    """Requests, the newest first; `next_cursor` is None on the last page."""

    states: list[ActionState]
    next_cursor: RequestCursor | None = None


class ActionRequests:
    """The requests for the queue of `connection`, in jobmon's own database (connection `own`).

    The user of `own` needs only the rights to insert decisions and to read. Methods raise
    PyMongoError. Decisions, from `approve` to `stop`, raise RequestConflictError if the request is
    in a phase that does not allow them.

        requests = ActionRequests(connection, own, redactor)
        state = requests.file(ActionRequest(action="retry", target=target, …), key="7d1c")
        requests.pause(state.request.id, person)
    """

    def __init__(self, connection: Connection, own: Connection, redactor: Redactor) -> None:
        self._connection = connection
        self._own = own
        self._redactor = redactor
        self._reported: set[tuple[str, str]] = set()
        self._job_outcomes: SingleFlightCache[list[tuple[JobOutcome, ActionRequest]]] = (
            SingleFlightCache(MAX_CACHED_JOBS)
        )
        self._absence_s = SingleFlight(self._find_absence_s, ACTOR_CACHE_MS)

    @property
    def records(self) -> ActionRecords:
        own = OwnDatabase(state_database(self._own), self._connection.queue_key, self._reported)
        return ActionRecords(own, self._connection.settings.actions_retention_days)

    def file(self, request: ActionRequest, key: str | None = None) -> ActionState:
        """File a request; returns the earlier request if the subject has filed it with this `key`.

        Secrets in the reason are redacted. The settings decide how long the request is valid, and
        whether it needs an approval. RequestError for a malformed key, or a key that was used for a
        different request.
        """
        settings, records = self._connection.settings, self.records
        if key is not None:
            request = replace(request, id=make_id(request.by.subject, key))
        request = replace(
            request,
            reason=self._redactor.redact(request.reason.strip()),
            valid_s=60 * settings.actions_expire_minutes,
            needs_approval=needs_approval(
                request.target, request.expected, settings, dry_run=request.dry_run
            ),
        )
        stored = {name: value for name, value in request.dump().items() if name != "request"}
        if not records.add_decision(request.id, Decision.REQUESTED, request.by, stored):
            earlier = self.get(request.id)
            if earlier is None or not _is_same(earlier.request, request):
                raise RequestError("idempotency_key", "Was used for another request.")
            return earlier
        return conclude_state(request, (), None, request.at)

    def has_actor(self) -> bool:
        """Whether an actor works for this queue; without one, requests wait until they expire.

        The result is cached for two seconds.
        """
        return self._absence_s.get() == 0

    def had_actor(self) -> bool:
        """Whether an actor worked for this queue in the last minute; cached as in `has_actor`."""
        return self._absence_s.get() <= ACTOR_ABSENCE_S

    def get(self, request_id: str) -> ActionState | None:
        """A request with its state; None if no request has this id, or if it cannot be read."""
        return next(iter(read_states(self.records, [request_id], self._connection.settings)), None)

    def list_recent(self, *, limit: int = 50, before: RequestCursor | None = None) -> RequestPage:
        """A page of at most 100 requests, the newest first; with `before`, older than that one.

        It has fewer than `limit` requests if some cannot be read, even if another page follows.
        """
        records, now = self.records, datetime.now(UTC)
        since = now - timedelta(days=self._connection.settings.actions_retention_days)
        limit = min(limit, MAX_LISTED)
        cursors = records.list_requested(since, limit + 1, before)
        ids = [cursor.request_id for cursor in cursors[:limit]]
        return RequestPage(
            states=read_states(records, ids, self._connection.settings),
            next_cursor=cursors[limit - 1] if len(cursors) > limit else None,
        )

    def list_all(self) -> Iterator[list[ActionState]]:
        """All requests in batches, the newest first."""
        before: RequestCursor | None = None
        while True:
            page = self.list_recent(limit=MAX_LISTED, before=before)
            yield page.states
            if (before := page.next_cursor) is None:
                return

    def list_outcomes(
        self,
        request_id: str,
        *,
        after: str | None = None,
        limit: int = 100,
        result: Result | None = None,
    ) -> OutcomePage:
        """A page of the outcomes of a request; with `result`, only outcomes with this result.

        `after`: the `next_after` of the previous page; RequestError for a malformed text.
        """
        own = self.records.own
        ids = {"request": own.id(request_id)}
        bounds: Document = {"$gte": ids | {"key": MinKey()}, "$lte": ids | {"key": MaxKey()}}
        if after is not None:
            bounds = {"$gt": ids | {"key": _decode_key(after)}, "$lte": bounds["$lte"]}
        query: Document = {"_id": bounds}
        if result is not None:
            query |= {**own.scope, "request": request_id, "result": result.value}
        outcomes = own[OUTCOMES].find(query).sort("_id", 1).limit(limit + 1)
        documents = list(outcomes.max_time_ms(self._connection.max_time_ms))
        page = documents[:limit]
        return OutcomePage(
            outcomes=list(own.read(OUTCOMES, page, _load_outcome)),
            next_after=encode_token({"key": page[-1]["key"]}) if len(documents) > limit else None,
        )

    def list_all_outcomes(
        self, request_id: str, result: Result | None = None
    ) -> Iterator[list[JobOutcome]]:
        """All outcomes of a request in batches; with `result`, only outcomes with this result."""
        after: str | None = None
        while True:
            page = self.list_outcomes(request_id, after=after, limit=BATCH, result=result)
            yield page.outcomes
            if (after := page.next_after) is None:
                return

    def describe_pauses(self, names: Collection[str]) -> dict[str, TypePause]:
        """By type: since when, by whom and why it is paused. A pause without record is left out."""
        records, newest = self.records, dict[str, JobOutcome]()
        for stored in records.find_type_changes(names, MAX_TYPE_CHANGES):
            for outcome in records.own.read(OUTCOMES, [stored], _load_outcome):
                newest.setdefault(stored["key"], outcome)
        pauses = {
            name: outcome for name, outcome in newest.items() if outcome.after.get("paused") is True
        }
        requests = self._read_requests(records, pauses.values())
        return {
            name: TypePause(since=outcome.at, by=request.by.subject, reason=request.reason)
            for name, outcome in pauses.items()
            if (request := requests.get(outcome.request_id)) is not None
        }

    def list_job_outcomes(
        self, job_id: str, limit: int = 50, max_age_s: float = 0.0
    ) -> list[tuple[JobOutcome, ActionRequest]]:
        """The outcomes of the job with this printed id, and their requests; the newest first.

        Dry runs are left out. The result can be up to `max_age_s` old.
        """
        read = partial(self._read_job_outcomes, job_id, limit)
        return self._job_outcomes.get((job_id, limit), read, max_age_s)

    def _read_job_outcomes(self, job_id: str, limit: int) -> list[tuple[JobOutcome, ActionRequest]]:
        records = self.records
        query = {**records.own.scope, "jobId": job_id, "dryRun": False}
        stored = records.own[OUTCOMES].find(query).sort("at", -1).limit(limit)
        stored = stored.max_time_ms(self._connection.max_time_ms)
        outcomes = list(records.own.read(OUTCOMES, stored, _load_outcome))
        requests = self._read_requests(records, outcomes)
        return [
            (outcome, requests[outcome.request_id])
            for outcome in outcomes
            if outcome.request_id in requests
        ]

    def _read_requests(
        self, records: ActionRecords, outcomes: Iterable[JobOutcome]
    ) -> dict[str, ActionRequest]:
        """The requests of these outcomes by id, without those that cannot be read."""
        ids = list({outcome.request_id for outcome in outcomes})
        states = read_states(records, ids, self._connection.settings)
        return {state.request.id: state.request for state in states}

    def approve(self, request_id: str, by: Person, reason: str = "") -> ActionState:
        """Approve a request that awaits an approval.

        Raises RequestConflictError also for the person who filed it.
        """
        state = self._require(request_id, (Phase.AWAITING_APPROVAL,))
        if state.request.by.subject == by.subject:
            raise RequestConflictError("Another person has to approve it.")
        return self._decide(state, Decision.APPROVED, by, reason)

    def reject(self, request_id: str, by: Person, reason: str = "") -> ActionState:
        state = self._require(request_id, (Phase.AWAITING_APPROVAL,))
        return self._decide(state, Decision.REJECTED, by, reason)

    def pause(self, request_id: str, by: Person, reason: str = "") -> ActionState:
        """Pause a request, after a batch that runs."""
        state = self._require(request_id, (Phase.WAITING, Phase.RUNNING))
        return self._decide(state, Decision.PAUSED, by, reason)

    def resume(self, request_id: str, by: Person, reason: str = "") -> ActionState:
        """Resume a request that a person paused or the actor interrupted."""
        state = self._require(request_id, (Phase.PAUSED,))
        return self._decide(state, Decision.RESUMED, by, reason)

    def stop(self, request_id: str, by: Person, reason: str = "") -> ActionState:
        """Stop a request permanently, after a batch that runs; its changes are not undone."""
        open_phases = (Phase.AWAITING_APPROVAL, Phase.WAITING, Phase.RUNNING, Phase.PAUSED)
        state = self._require(request_id, open_phases)
        return self._decide(state, Decision.STOPPED, by, reason)

    def _find_absence_s(self) -> float:
        absence_s = self.records.find_actor_absence_s()
        return math.inf if absence_s is None else absence_s

    def _require(self, request_id: str, phases: Sequence[Phase]) -> ActionState:
        state = self.get(request_id)
        if state is None:
            raise RequestConflictError("There is no such request.")
        if state.phase not in phases:
            raise RequestConflictError(f"The request is {state.phase.replace('_', ' ')}.")
        return state

    def _decide(self, state: ActionState, kind: Decision, by: Person, reason: str) -> ActionState:
        fields = {"reason": self._redactor.redact(reason.strip())}
        request_id, newest = state.request.id, state.history[-1].at
        self.records.add_decision(request_id, kind, by, fields, after=newest)
        decided = self.get(request_id)
        assert decided is not None  # noqa: S101 - records are never deleted before they expire
        return decided


def read_states(
    records: ActionRecords, request_ids: Sequence[str], settings: Settings
) -> list[ActionState]:
    """The states of requests, in the order of the ids; a request that cannot be read is left out.

    The settings limit how long a request is valid, and can require an approval, whatever the record
    contains: another program may have written it.
    """
    now, histories = datetime.now(UTC), records.list_records(list(request_ids))
    states: list[ActionState] = []
    for request_id in request_ids:
        stored = histories[request_id]
        requested = [record for record in stored if record["kind"] == Decision.REQUESTED]
        kinds = {record["kind"] for record in stored}
        is_running = Progress.CLAIMED in kinds and Progress.FINISHED not in kinds
        last_batch = records.find_last(request_id, Progress.BATCH) if is_running else None
        load = partial(
            _load_state, stored=stored, last_batch=last_batch, settings=settings, now=now
        )
        states += records.own.read("a request", requested[:1], load)
    return states


def _load_state(
    requested: Document,
    *,
    stored: Sequence[Document],
    last_batch: Document | None,
    settings: Settings,
    now: datetime,
) -> ActionState:
    request = ActionRequest.load(requested)
    request = replace(
        request,
        valid_s=min(request.valid_s, 60 * settings.actions_expire_minutes),
        needs_approval=request.needs_approval
        or needs_approval(request.target, request.expected, settings, dry_run=request.dry_run),
    )
    return conclude_state(request, stored, last_batch, now)


def needs_approval(target: Target, expected: int, settings: Settings, *, dry_run: bool) -> bool:
    """Whether another person has to approve a request for `expected` jobs or types.

    All selected ids count, even if fewer jobs are expected: the actor tries to change each job.
    """
    limit = settings.actions_approval_above
    return limit is not None and not dry_run and max(expected, target.listed_count) > limit


def _is_same(first: ActionRequest, second: ActionRequest) -> bool:
    """Whether two requests are the same, apart from time, person and what the settings decide.

    They are compared as BSON, because stored times are in milliseconds.
    """
    first = replace(
        first,
        at=second.at,
        by=second.by,
        valid_s=second.valid_s,
        needs_approval=second.needs_approval,
    )
    return bson.encode(first.dump()) == bson.encode(second.dump())


def _decode_key(encoded: str) -> Any:
    try:
        key = decode_token(encoded)["key"]
        if can_contain(key, 4_096):  # else the query would be nested too deeply
            return key
    except (ValueError, KeyError):
        pass
    raise RequestError("after", "Not a cursor of this list.")


def _load_outcome(stored: Document) -> JobOutcome:
    return JobOutcome(
        request_id=stored["request"],
        key=stored["key"],
        job_id=stored["jobId"],
        result=stored["result"],
        reason=stored["reason"],
        at=stored["at"],
        before=stored["before"],
        after=stored["after"],
    )
