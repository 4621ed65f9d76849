"""Mutes and acknowledgements of notices: who, until when, why, and which notices they are about.

A muted notice stays on the pages, but no message is sent. For an acknowledged notice no reminder is
sent. Both end by themselves.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from jobmon.actions.catalog import RequestError
from jobmon.actions.request import Person, check_reason, truncate_to_ms
from jobmon.diagnosis.notices import KINDS_BY_TYPE, Check, CheckKind, Notice
from jobmon.rollup.documents import require_type
from jobmon.settings.name_patterns import matches_any
from jobmon.store.mapping import Document

MAX_DURATION = timedelta(days=30)
MAX_PATTERN_LENGTH = 200  # characters
# A notice that begins within this time after an acknowledgement counts as the acknowledged one.
SAME_NOTICE = timedelta(minutes=5)


class MuteMode(StrEnum):
    """Whether no message is sent, or only no reminder."""

    MUTE = "mute"
    ACKNOWLEDGE = "acknowledge"


@dataclass(frozen=True, kw_only=True)
class MuteEnd:
    """Who ended a mute early, when, and why."""

    by: Person
    at: datetime
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Mute:
    """A mute from `at` (UTC) until just before `until`; RequestError if a field is not valid.

    `kind`: the kind of notices; None for all kinds. `types`: a pattern such as `mail*`, if only the
    part about these types is muted; else empty. `end`: None unless a person ended the mute early.

        Mute(kind=CheckKind.STALLED, types="mail*", by=ada, until=at_eight, reason="provider down")
    """

    kind: CheckKind | None
    types: str = ""
    mode: MuteMode = MuteMode.MUTE
    by: Person
    until: datetime
    reason: str
    at: datetime = field(default_factory=lambda: truncate_to_ms(datetime.now(UTC)))
    id: str = field(default_factory=lambda: secrets.token_hex(10))
    end: MuteEnd | None = None

    def __post_init__(self) -> None:
        if self.until <= self.at:
            raise RequestError("until", "Must be in the future.")
        if self.until > self.at + MAX_DURATION:
            raise RequestError("until", f"At most {MAX_DURATION.days} days.")
        if not self.reason.strip():
            raise RequestError("reason", "Required.")
        check_reason(self.reason)
        if len(self.types) > MAX_PATTERN_LENGTH or not self.types.isprintable():
            message = f"At most {MAX_PATTERN_LENGTH} characters, all of them printable."
            raise RequestError("types", message)
        if self.types and self.kind is not None and self.kind not in KINDS_BY_TYPE:
            kinds = ", ".join(sorted(KINDS_BY_TYPE))
            raise RequestError("types", f"Only for notices about types: {kinds}.")
        if self.kind is None and self.mode is MuteMode.ACKNOWLEDGE:
            raise RequestError("kind", "Required: one notice is acknowledged at a time.")

    def is_active(self, now: datetime) -> bool:
        """Whether its time is not over and nobody has ended it early."""
        return now < self.until and self.end is None

    def covers(self, kind: CheckKind, type_name: str | None = None) -> bool:
        """Whether it covers this kind of notice; with a `type_name`, the part about this type."""
        if self.kind not in (None, kind):
            return False
        if not self.types:
            return True
        is_by_type = type_name is not None and kind in KINDS_BY_TYPE
        return is_by_type and matches_any(type_name or "", [self.types])

    def dump(self) -> Document:
        """The stored fields, without the end."""
        return {
            "request": self.id,
            "notice": self.kind and self.kind.value,
            "types": self.types,
            "mode": self.mode.value,
            "by": self.by.dump(),
            "at": self.at,
            "until": self.until,
            "reason": self.reason,
        }

    @classmethod
    def load(cls, stored: Mapping[str, Any], end: MuteEnd | None = None) -> Self:
        """The mute that `dump` stored; ValueError or KeyError for another form."""
        kind = require_type(stored["notice"], str, type(None))
        return cls(
            id=require_type(stored["request"], str),
            kind=None if kind is None else CheckKind(kind),
            types=require_type(stored["types"], str),
            mode=MuteMode(stored["mode"]),
            by=Person.load(stored["by"]),
            at=require_type(stored["at"], datetime),
            until=require_type(stored["until"], datetime),
            reason=require_type(stored["reason"], str),
            end=end,
        )


@dataclass(frozen=True)
class ActiveMutes:
    """The mutes of a queue that are active now, the newest first."""

    mutes: tuple[Mute, ...] = ()

    def find(self, kind: CheckKind, types: Iterable[str]) -> list[Mute]:
        """The mutes that cover a whole notice, or its part about at least one of these types."""
        parts = (None, *types)
        return [mute for mute in self.mutes if any(mute.covers(kind, part) for part in parts)]

    def select_muted(self, kind: CheckKind, types: Iterable[str]) -> frozenset[str]:
        """The subset of `types` that is muted for this kind of notice."""
        mutes = list(self._select(kind, MuteMode.MUTE))
        return frozenset(name for name in types if any(mute.covers(kind, name) for mute in mutes))

    def is_muted(self, kind: CheckKind, types: frozenset[str]) -> bool:
        """Whether a notice with these types is muted completely."""
        return _cover_all(list(self._select(kind, MuteMode.MUTE)), kind, types)

    def leave_out_muted(self, checks: Iterable[Check]) -> list[Check]:
        """The checks without the notices that are muted completely."""

        def select_unmuted(check: Check) -> tuple[Notice, ...]:
            return tuple(
                notice
                for notice in check.notices
                if not self.is_muted(check.kind, notice.about_types)
            )

        return [replace(check, notices=select_unmuted(check)) for check in checks]

    def is_acknowledged(self, kind: CheckKind, types: frozenset[str], since: datetime) -> bool:
        """Whether a notice that began at `since` is acknowledged completely."""
        acknowledgements = [
            mute
            for mute in self._select(kind, MuteMode.ACKNOWLEDGE)
            if since <= mute.at + SAME_NOTICE
        ]
        return _cover_all(acknowledgements, kind, types)

    def _select(self, kind: CheckKind, mode: MuteMode) -> Iterator[Mute]:
        return (mute for mute in self.mutes if mute.mode is mode and mute.kind in (None, kind))


def _cover_all(mutes: list[Mute], kind: CheckKind, types: frozenset[str]) -> bool:
    """Whether one mute covers the whole notice, or each of its types is covered by a mute."""
    if any(mute.covers(kind) for mute in mutes):
        return True
    return bool(types) and all(any(mute.covers(kind, name) for mute in mutes) for name in types)


NO_MUTES = ActiveMutes()
