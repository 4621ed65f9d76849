"""A request for an action: what a person wants to change, in which jobs or types, and why."""

import getpass
import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from jobmon.actions.catalog import ACTIONS, RequestError, ValueKind
from jobmon.actions.target import Target, TargetKind
from jobmon.domain import JobAction
from jobmon.rollup.documents import MalformedError, require_type
from jobmon.store.mapping import Document

MAX_REASON_LENGTH = 500  # characters
MAX_KEY_LENGTH = 200  # characters
MAX_PRIORITY = 2**31 - 1
MAX_JOBS = 1_000_000  # a request for more jobs needs a narrower filter
ID_FORM = re.compile("[0-9a-f]{20}")


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who filed a request or a mute, or decided on it.

    `subject`: the person's name, for example from the token. `address`: the client's IP address.
    """

    subject: str
    role: str | None = None
    address: str | None = None

    def dump(self) -> Document:
        return {"subject": self.subject, "role": self.role, "address": self.address}

    @classmethod
    def from_terminal(cls, subject: str | None) -> Self:
        """The person at a terminal; without a `subject`, the account's name is used.

        An account without a name, as in many containers, has its number.
        """
        try:
            return cls(subject=subject or getpass.getuser(), role="terminal")
        except (KeyError, OSError):
            return cls(subject=f"uid {os.getuid()}", role="terminal")

    @classmethod
    def load(cls, stored: Any) -> Self:
        """The person that `dump` stored; MalformedError or KeyError for another form."""
        document = require_type(stored, dict)
        return cls(
            subject=require_type(document["subject"], str),
            role=require_type(document.get("role"), str, type(None)),
            address=require_type(document.get("address"), str, type(None)),
        )


def check_reason(reason: str) -> None:
    """Raise RequestError for a reason that is too long or not printable; it may have newlines."""
    if len(reason) > MAX_REASON_LENGTH or not reason.replace("\n", "").isprintable():
        message = f"At most {MAX_REASON_LENGTH} characters, all of them printable."
        raise RequestError("reason", message)


def explain_required_reason(target: Target, *, dry_run: bool) -> str:
    """Why a request needs a reason; empty if it can be filed without one."""
    if dry_run or target.is_single:
        return ""
    if target.kind is TargetKind.REQUEST:
        return "Required to undo a request."
    return "Required for more than one job or type."


def check_target(action: str, target: Target) -> None:
    """Raise RequestError if the action is unknown, or not for this kind of target."""
    kind = ACTIONS.get(action)
    if kind is None:
        raise RequestError("action", f"Unknown. These are known: {', '.join(ACTIONS)}.")
    if kind.is_for_types != (target.kind is TargetKind.TYPES):
        targets = "types of jobs" if kind.is_for_types else "jobs"
        raise RequestError("action", f"{action} is for {targets}.")


@dataclass(frozen=True, kw_only=True)
class ActionRequest:
    """A request; RequestError if a field is not valid.

    `run_at`: the new time for `reschedule`. `reset_attempts`: a `retry` gives a job its original
    number of attempts again; otherwise the job keeps its remaining attempts, at least one. `owner`:
    change only jobs of this owner. `expected`: the number of jobs or types that the person
    confirmed. `valid_s`: how long the request waits for an actor before it expires, in seconds.
    `needs_approval`: another person has to approve it. `dry_run`: change nothing, and record what
    would be done.
    """

    action: str
    target: Target
    by: Person
    expected: int
    reason: str = ""
    run_at: datetime | None = None
    priority: int | None = None
    reset_attempts: bool = False
    owner: str | None = None
    dry_run: bool = False
    needs_approval: bool = False
    valid_s: int = 900
    at: datetime = field(default_factory=lambda: truncate_to_ms(datetime.now(UTC)))
    id: str = field(default_factory=lambda: secrets.token_hex(10))

    def __post_init__(self) -> None:
        check_target(self.action, self.target)
        if (self.action == JobAction.UNDO) != (self.target.kind is TargetKind.REQUEST):
            raise RequestError("action", "undo, and only undo, is for an earlier request.")
        self._check_value(ACTIONS[self.action].value)
        if self.reset_attempts and self.action != JobAction.RETRY:
            raise RequestError("reset_attempts", "Only for a retry.")
        if not 0 <= self.expected <= MAX_JOBS:
            message = f"More than {MAX_JOBS:,} jobs: use a filter that fewer jobs match."
            raise RequestError("expected", message)
        check_reason(self.reason)
        required = explain_required_reason(self.target, dry_run=self.dry_run)
        if required and not self.reason.strip():
            raise RequestError("reason", required)

    def _check_value(self, required_kind: ValueKind | None) -> None:
        for value, kind, name in (
            (self.run_at, ValueKind.TIME, "run_at"),
            (self.priority, ValueKind.PRIORITY, "priority"),
        ):
            if kind is required_kind and value is None:
                raise RequestError(name, f"Required for {self.action}.")
            if kind is not required_kind and value is not None:
                raise RequestError(name, f"Not for {self.action}.")
        if self.run_at is not None and self.run_at.tzinfo is None:
            raise RequestError("run_at", "Needs an offset or Z.")
        if self.priority is not None and abs(self.priority) > MAX_PRIORITY:
            raise RequestError("priority", f"Must be within ±{MAX_PRIORITY:,}.")

    @property
    def value(self) -> datetime | int | None:
        """The requested time or priority; None for an action without a value."""
        return self.priority if self.run_at is None else self.run_at

    def dump(self) -> Document:
        return {
            "request": self.id,
            "action": self.action,
            "target": self.target.dump(),
            "by": self.by.dump(),
            "expected": self.expected,
            "reason": self.reason,
            "runAt": self.run_at,
            "priority": self.priority,
            "resetAttempts": self.reset_attempts,
            "owner": self.owner,
            "dryRun": self.dry_run,
            "needsApproval": self.needs_approval,
            "validS": self.valid_s,
            "at": self.at,
        }

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> Self:
        """The request that `dump` stored; ValueError, KeyError or TypeError for another form."""
        request_id = require_type(stored["request"], str)
        if not ID_FORM.fullmatch(request_id):
            raise MalformedError("the id of a request is not 20 hexadecimal digits")
        return cls(
            id=request_id,
            action=require_type(stored["action"], str),
            target=Target.load(stored["target"]),
            by=Person.load(stored["by"]),
            expected=require_type(stored["expected"], int),
            reason=require_type(stored["reason"], str),
            run_at=require_type(stored.get("runAt"), datetime, type(None)),
            priority=require_type(stored.get("priority"), int, type(None)),
            reset_attempts=require_type(stored["resetAttempts"], bool),
            owner=require_type(stored.get("owner"), str, type(None)),
            dry_run=require_type(stored["dryRun"], bool),
            needs_approval=require_type(stored["needsApproval"], bool),
            valid_s=require_type(stored["validS"], int),
            at=require_type(stored["at"], datetime),
        )


def make_id(subject: str, key: str) -> str:
    """The id of the subject's request with this idempotency key; RequestError for a bad key."""
    if not key or len(key) > MAX_KEY_LENGTH or not key.isprintable():
        raise RequestError(
            "idempotency_key", f"Must have 1 to {MAX_KEY_LENGTH} printable characters."
        )
    return hashlib.sha256(f"{len(subject)} {subject} {key}".encode()).hexdigest()[:20]


def truncate_to_ms(moment: datetime) -> datetime:
    """The moment as MongoDB stores it, without parts of a millisecond."""
    return moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)
