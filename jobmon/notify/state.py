"""Stores what each receiver got and what it still has to get, for the next collector."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from jobmon.diagnosis.notices import CheckKind, Level
from jobmon.notify.problems import Problem
from jobmon.notify.tracking import Change, News, TrackedProblem, TrackedProblems
from jobmon.rollup.documents import NOTIFICATIONS, STATE, OwnDatabase, require_type
from jobmon.rollup.notification_health import (
    ReceiverHealth,
    dump_receiver_health,
    load_receiver_health,
)
from jobmon.store.mapping import Document

_NONE = type(None)


@dataclass(frozen=True, kw_only=True)
class PendingMessage:
    """A message that is not delivered yet. It does not change, but a newer one can replace it.

    `level`: as in `Message`. `attempts`: how many attempts to send it have begun. `retry_at`: when
    the next attempt is due.
    """

    id: str
    made_at: datetime
    news: tuple[News, ...]
    level: Level | None
    attempts: int = 0
    retry_at: datetime


@dataclass(frozen=True, kw_only=True)
class ReceiverState:
    """What a receiver got about a queue, and the message that is not delivered yet."""

    health: ReceiverHealth
    tracked: TrackedProblems = field(default_factory=dict)
    pending: PendingMessage | None = None


@dataclass(frozen=True, kw_only=True)
class NotificationState:
    """The state of all receivers of a queue. `version` increases with each write; -1 before any."""

    version: int = -1
    receivers: tuple[ReceiverState, ...] = ()


class StateStore:
    """Reads and writes the state of a queue; raises PyMongoError."""

    def __init__(self, own: OwnDatabase) -> None:
        self._own = own

    def load(self) -> NotificationState:
        """The stored state; an empty one if none is stored. A malformed document is deleted."""
        stored = self._own[STATE].find_one({"_id": self._own.id(NOTIFICATIONS)})
        state = next(self._own.read(NOTIFICATIONS, [stored], _load_state), None)
        if state is None and stored is not None:
            self._own[STATE].delete_one({"_id": stored["_id"]})
        return state or NotificationState()

    def save(self, receivers: Iterable[ReceiverState], version: int) -> bool:
        """Store the state as version + 1; False if another process has written a state since."""
        fields = {"version": version + 1, "receivers": list(map(_dump_receiver, receivers))}
        document = self._own.new(NOTIFICATIONS, fields)
        if version < 0:
            try:
                self._own[STATE].insert_one(document)
            except DuplicateKeyError:
                return False
            return True
        unchanged = {"_id": document["_id"], "version": version}
        return self._own[STATE].replace_one(unchanged, document).matched_count == 1

    def clear_failures(self) -> None:
        """Forget the present failures of receivers, so that alerts end: nothing more is sent."""
        no_failure = {"receivers.$[].failingSince": None, "receivers.$[].reason": ""}
        key = {"_id": self._own.id(NOTIFICATIONS)}
        self._own[STATE].update_one(key, {"$set": no_failure, "$inc": {"version": 1}})


def _dump_receiver(state: ReceiverState) -> Document:
    pending = state.pending
    return dump_receiver_health(state.health) | {
        "tracked": [
            {
                "problem": _dump_problem(entry.problem),
                "seenAt": entry.seen_at,
                "isConfirmed": entry.is_confirmed,
                "reportedAt": entry.reported_at,
                "worseAt": entry.worse_at,
                "goneAt": entry.gone_at,
                "wasMuted": entry.was_muted,
            }
            for entry in state.tracked.values()
        ],
        "pending": pending
        and {
            "id": pending.id,
            "madeAt": pending.made_at,
            "level": pending.level and pending.level.value,
            "attempts": pending.attempts,
            "retryAt": pending.retry_at,
            "news": [
                {
                    "change": item.change.value,
                    "problem": _dump_problem(item.problem),
                    "endedAt": item.ended_at,
                }
                for item in pending.news
            ],
        },
    }


def _dump_problem(problem: Problem) -> Document:
    return {
        "kind": problem.kind.value,
        "level": problem.level.value,
        "text": problem.text,
        "since": problem.since,
        "count": problem.count,
        "types": sorted(problem.types),
        "address": problem.address,
    }


def _load_state(document: Document) -> NotificationState:
    return NotificationState(
        version=require_type(document["version"], int),
        receivers=tuple(map(_load_receiver, document["receivers"])),
    )


def _load_receiver(document: Document) -> ReceiverState:
    tracked = [_load_tracked(entry) for entry in document["tracked"]]
    pending = document["pending"]
    return ReceiverState(
        health=load_receiver_health(document),
        tracked={entry.problem.kind: entry for entry in tracked},
        pending=None if pending is None else _load_pending(pending),
    )


def _load_tracked(entry: Document) -> TrackedProblem:
    return TrackedProblem(
        problem=_load_problem(entry["problem"]),
        seen_at=require_type(entry["seenAt"], datetime),
        is_confirmed=require_type(entry["isConfirmed"], bool),
        reported_at=_load_time(entry["reportedAt"]),
        worse_at=_load_time(entry["worseAt"]),
        gone_at=_load_time(entry["goneAt"]),
        was_muted=require_type(entry.get("wasMuted", False), bool),  # earlier versions lack it
    )


def _load_pending(pending: Document) -> PendingMessage:
    return PendingMessage(
        id=require_type(pending["id"], str),
        made_at=require_type(pending["madeAt"], datetime),
        level=None if pending["level"] is None else Level(pending["level"]),
        attempts=require_type(pending["attempts"], int),
        retry_at=require_type(pending["retryAt"], datetime),
        news=tuple(
            News(
                change=Change(item["change"]),
                problem=_load_problem(item["problem"]),
                ended_at=_load_time(item["endedAt"]),
            )
            for item in pending["news"]
        ),
    )


def _load_problem(problem: Document) -> Problem:
    return Problem(
        kind=CheckKind(problem["kind"]),
        level=Level(problem["level"]),
        text=require_type(problem["text"], str),
        since=_load_time(problem["since"]),
        count=require_type(problem["count"], int, _NONE),
        types=frozenset(require_type(name, str) for name in problem["types"]),
        address=require_type(problem["address"], str),
    )


def _load_time(value: Any) -> datetime | None:
    return require_type(value, datetime, _NONE)
