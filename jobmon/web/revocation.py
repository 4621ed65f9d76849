"""Tokens that are refused before they expire: a list in a database of its own.

The web service reads it, with a user that can do no more; `jobmon revoke` writes it. It is kept
apart from the figures, which can be dropped at any time: a revoked token must not come back then.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from jobmon.rollup.documents import rollup_database
from jobmon.single_flight import SingleFlight
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document

log = logging.getLogger(__name__)

REVOKED = "revoked_tokens"
FORMAT = 1
KEEP_MS = 1_000
# In the list itself, so that it goes with the list; `since` is when the list was made.
_MARKER: Document = {"marker": REVOKED}
_UNAUTHORIZED = 13
_ALWAYS = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _List:
    ids: frozenset[str] = frozenset()
    before: Mapping[str, datetime] = field(default_factory=dict)  # by subject
    since: datetime | None = None  # of the marker

    def with_all_of(self, other: "_List") -> "_List":
        """What either refuses; the marker is this one's."""
        before = dict(other.before)
        for subject, moment in self.before.items():
            before[subject] = max(moment, before.get(subject, moment))
        return _List(self.ids | other.ids, before, self.since)


def state_database(connection: Connection) -> Database[Document]:
    """The database for what must outlive the rollups, in the same deployment; DatabaseAwayError."""
    return connection.reachable_client[connection.settings.state_db]


class RevokedTokens:
    """The list, read whole and shared for a second: it is short.

    An entry is a token's id, or `{sub}` for all tokens of a subject that were issued before a
    moment. Every method raises PyMongoError when the database cannot tell.

    A list that was there and is gone is an error in the log; what this process knew to be revoked
    stays refused.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._list = SingleFlight(self._read, KEEP_MS)
        self._known = _List()  # as last read
        self._lost = _List()  # what lists had that are gone
        self._is_gone = False
        self._reported: set[str] = set()

    def includes(self, token_id: str, subject: str, issued_at: float) -> bool:
        """Whether a token is revoked, that was issued at `issued_at` (seconds since 1970, UTC)."""
        listed = self._list.get()
        before = listed.before.get(subject)
        return token_id in listed.ids or (before is not None and issued_at < before.timestamp())

    def are_lost(self) -> bool:
        """Whether the list was there and is gone, so that revoked tokens may not be known."""
        self._list.get()
        return self._is_gone

    def create(self) -> None:
        """Make the list if there is none; only one that was made can be missed later."""
        made = {"$setOnInsert": {"format": FORMAT, "since": datetime.now(UTC)}}
        self._entries().update_one({"_id": _MARKER}, made, upsert=True)
        self._witnesses().update_one(
            {"_id": self._connection.settings.state_db}, {"$set": {"format": FORMAT}}, upsert=True
        )

    def add(self, token_id: str, until: datetime | None) -> None:
        """Refuse a token; the entry goes after `until` (UTC), None for never."""
        entries = self._entries()
        entries.create_index("expiresAt", expireAfterSeconds=0)
        self.create()
        change: Document = {"$set": {"format": FORMAT}}
        if until is not None:
            change["$set"]["expiresAt"] = until
        else:
            change["$unset"] = {"expiresAt": ""}
        entries.update_one({"_id": token_id}, change, upsert=True)

    def add_subject(self, subject: str) -> None:
        """Refuse all tokens of a subject that were issued until now; newer ones are good."""
        self.create()
        change = {"$set": {"format": FORMAT, "before": datetime.now(UTC)}}
        self._entries().update_one({"_id": {"sub": subject}}, change, upsert=True)

    def entries(self) -> Iterator[tuple[str, str]]:
        """What is revoked, and for how long, in words; in the order of the list."""
        for entry in self._entries().find().sort("_id").max_time_ms(self._connection.max_time_ms):
            subject, ends = _subject(entry), entry.get("expiresAt")
            if subject is not None:
                yield f"sub {subject}", f"issued before {_before(entry).isoformat()}"
            elif isinstance(entry["_id"], str):
                until = f"until {ends.isoformat()}" if isinstance(ends, datetime) else "for good"
                yield entry["_id"], until

    def _entries(self) -> Collection[Document]:
        return state_database(self._connection)[REVOKED]

    def _witnesses(self) -> Collection[Document]:
        """Where the figures are: the databases in which a list was made, by their names."""
        return rollup_database(self._connection)[REVOKED]

    def _read(self) -> _List:
        found, gone = self._find()
        if gone is None and found.since is None:
            gone = self._missing()
        made_anew = gone is None and self._known.since not in (None, found.since)
        if gone is not None or made_anew:
            self._lost = self._lost.with_all_of(self._known)
        if gone is not None and not self._is_gone:
            log.error("%s; tokens that were known to be revoked stay refused", gone)
        elif made_anew:
            log.warning("the list of revoked tokens is new: what it had before stays refused")
        elif gone is None and self._is_gone:
            log.warning("the list of revoked tokens is back")
        self._is_gone = gone is not None
        if gone is None:
            self._known = found
        return found.with_all_of(self._lost)

    def _find(self) -> tuple[_List, str | None]:
        """The list as it stands, and why it cannot be read although it was there before."""
        name = f"the list of revoked tokens ({self._connection.settings.state_db}.{REVOKED})"
        try:
            found = self._entries().find({}, {"before": True, "since": True})
            entries = list(found.max_time_ms(self._connection.max_time_ms))
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            if self._known.since is not None:
                return _List(), f"{name} may not be read any more"
            # A user that cannot read jobmon's own databases cannot see revocations.
            self._report("may not read the list of revoked tokens: none is refused")
            return _List(), None
        return self._parse(entries), None

    def _missing(self) -> str | None:
        """Why the marker should be there, if it should."""
        name = f"the list of revoked tokens ({self._connection.settings.state_db}.{REVOKED})"
        gone = f"{name} was there and is gone: restore it, or run `jobmon revoke` again"
        if self._known.since is not None:
            return gone
        try:
            found = self._witnesses().find(
                {"_id": self._connection.settings.state_db}, {"_id": True}
            )
            seen = any(found.max_time_ms(self._connection.max_time_ms))
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            return None
        return gone if seen else None

    def _parse(self, entries: list[Document]) -> _List:
        """The list of these entries: one that is only half understood refuses what it names."""
        ids: set[str] = set()
        before: dict[str, datetime] = {}
        since: datetime | None = None
        for entry in entries:
            subject = _subject(entry)
            if isinstance(entry["_id"], str):
                ids.add(entry["_id"])
            elif subject is not None:
                before[subject] = _before(entry)
            elif entry["_id"] == _MARKER:
                made = entry.get("since")
                since = made if isinstance(made, datetime) else _ALWAYS
            else:
                self._report("the list of revoked tokens has entries that are neither id nor sub")
        return _List(frozenset(ids), before, since)

    def _report(self, message: str) -> None:
        if message not in self._reported:
            self._reported.add(message)
            log.warning(message)


def _subject(entry: Document) -> str | None:
    subject = entry["_id"].get("sub") if isinstance(entry["_id"], dict) else None
    return subject if isinstance(subject, str) else None


def _before(entry: Document) -> datetime:
    """Until when tokens of the subject are refused; always, where that cannot be read."""
    before = entry.get("before")
    return before if isinstance(before, datetime) else _ALWAYS
