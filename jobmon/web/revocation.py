"""The list of revoked tokens, which are refused before they expire.

The web service only reads it; `jobmon init` and `jobmon revoke` write it.
It is not in the rollups' database, which can be dropped at any time: a revoked token must stay
revoked.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from jobmon.rollup.documents import rollup_database, state_database
from jobmon.single_flight import SingleFlight
from jobmon.store.connection import Connection
from jobmon.store.failures import is_unauthorized
from jobmon.store.mapping import Document

log = logging.getLogger(__name__)

REVOKED = "revoked_tokens"
FORMAT = 1
CACHE_MS = 1_000
# The entry that shows that the list exists; its `since` is when the list was created.
MARKER: Document = {"marker": REVOKED}
_FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class _RevocationList:
    ids: frozenset[str] = frozenset()
    # By subject: tokens issued before this moment are refused.
    before: Mapping[str, datetime] = field(default_factory=dict)
    since: datetime | None = None  # when it was created; None without a marker

    def merge(self, other: "_RevocationList") -> "_RevocationList":
        """The entries of both lists, with the `since` of this list."""
        before = dict(other.before)
        for subject, moment in self.before.items():
            before[subject] = max(moment, before.get(subject, moment))
        return _RevocationList(self.ids | other.ids, before, self.since)


class RevokedTokens:
    """The list of revoked tokens; it is short, so it is read whole and cached for a second.

    An entry is a token's id, or `{sub}` for all tokens of a subject that were issued before a
    moment. Every method raises PyMongoError if the database does not answer.

    If the list is gone or can no longer be read, an error is logged. The entries that this process
    has read before stay in force.

    >>> RevokedTokens(connection).includes("0b1f6c1e", "ada", issued_at=1_700_000_000)
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._name = f"the list of revoked tokens ({connection.settings.state_db}.{REVOKED})"
        self._list = SingleFlight(self._read, CACHE_MS)
        self._known = _RevocationList()  # as last read
        self._lost = _RevocationList()  # the entries of lists that are gone
        self._is_gone = False
        self._is_refused = False  # whether a missing right to read the list was logged

    def includes(self, token_id: str, subject: str, issued_at: float) -> bool:
        """Whether a token is revoked; `issued_at` is in seconds since 1970, UTC."""
        listed = self._list.get()
        before = listed.before.get(subject)
        return token_id in listed.ids or (before is not None and issued_at < before.timestamp())

    def is_lost(self) -> bool:
        """Whether the list is gone or unreadable: this process may accept some revoked tokens."""
        self._list.get()
        return self._is_gone

    def create(self) -> None:
        """Create the list if it does not exist, with a marker by which its loss is noticed."""
        created = {"$setOnInsert": {"format": FORMAT, "since": datetime.now(UTC)}}
        self._collection().update_one({"_id": MARKER}, created, upsert=True)
        self._known_lists().update_one(
            {"_id": self._connection.settings.state_db}, {"$set": {"format": FORMAT}}, upsert=True
        )

    def add(self, token_id: str, until: datetime | None) -> None:
        """Refuse a token; the entry is deleted after `until` (UTC), None for never.

        If the token already has an entry, the later end counts.
        """
        entries, query = self._collection(), {"_id": token_id}
        entries.create_index("expiresAt", expireAfterSeconds=0)
        self.create()
        if until is None:
            change = {"$set": {"format": FORMAT}, "$unset": {"expiresAt": ""}}
        else:
            later: Document = {"expiresAt": until}
            entries.update_one({**query, "expiresAt": {"$lt": until}}, {"$set": later})
            change = {"$setOnInsert": {"format": FORMAT, **later}}
        entries.update_one(query, change, upsert=True)

    def add_subject(self, subject: str) -> None:
        """Refuse all tokens of a subject that were issued before now."""
        self.create()
        change = {"$set": {"format": FORMAT, "before": datetime.now(UTC)}}
        self._collection().update_one({"_id": {"sub": subject}}, change, upsert=True)

    def describe_entries(self) -> Iterator[tuple[str, str]]:
        """Two texts for each entry: a token's id and its end, or a subject and a time of issue."""
        for entry in (
            self._collection().find().sort("_id").max_time_ms(self._connection.max_time_ms)
        ):
            subject, expires_at = _read_subject(entry), entry.get("expiresAt")
            if subject is not None:
                yield f"sub {subject}", f"issued before {_read_before(entry).isoformat()}"
            elif isinstance(entry["_id"], str):
                until = "forever"
                if isinstance(expires_at, datetime):
                    until = f"until {expires_at.isoformat()}"
                yield entry["_id"], until

    def _collection(self) -> Collection[Document]:
        return state_database(self._connection)[REVOKED]

    def _known_lists(self) -> Collection[Document]:
        """The collection, in the rollups' database, of the databases where a list was created."""
        return rollup_database(self._connection)[REVOKED]

    def _read(self) -> _RevocationList:
        current, loss = self._find()
        if loss is None and current.since is None:
            loss = self._find_loss()
        is_new = loss is None and self._known.since not in (None, current.since)
        if loss is not None or is_new:
            self._lost = self._lost.merge(self._known)
        if loss is not None and not self._is_gone:
            log.error("%s; tokens that were known to be revoked stay refused", loss)
        elif is_new:
            log.warning("the list of revoked tokens is new: entries of the old list stay in force")
        elif loss is None and self._is_gone:
            log.warning("the list of revoked tokens is back")
        self._is_gone = loss is not None
        if loss is None:
            self._known = current
        return current.merge(self._lost)

    def _find(self) -> tuple[_RevocationList, str | None]:
        """The list, and a message if the list can no longer be read."""
        try:
            cursor = self._collection().find({}, {"before": True, "since": True})
            entries = list(cursor.max_time_ms(self._connection.max_time_ms))
        except OperationFailure as error:
            if not is_unauthorized(error):
                raise
            if self._known.since is not None:
                return _RevocationList(), f"{self._name} can no longer be read"
            # A user that cannot read jobmon's own databases cannot see revocations.
            if not self._is_refused:
                log.warning("no right to read the list of revoked tokens: none is refused")
            self._is_refused = True
            return _RevocationList(), None
        return self._parse(entries), None

    def _find_loss(self) -> str | None:
        """A message if the list existed and is gone; None if it never existed, or if unknown."""
        gone = f"{self._name} existed and is gone: restore it, or run `jobmon revoke` again"
        if self._known.since is not None:
            return gone
        try:
            cursor = self._known_lists().find(
                {"_id": self._connection.settings.state_db}, {"_id": True}
            )
            has_existed = any(cursor.max_time_ms(self._connection.max_time_ms))
        except OperationFailure as error:
            if not is_unauthorized(error):
                raise
            return None
        return gone if has_existed else None

    def _parse(self, entries: list[Document]) -> _RevocationList:
        """The list of these entries; an entry without a date refuses all tokens of its subject."""
        ids: set[str] = set()
        before: dict[str, datetime] = {}
        since: datetime | None = None
        for entry in entries:
            subject = _read_subject(entry)
            if isinstance(entry["_id"], str):
                ids.add(entry["_id"])
            elif subject is not None:
                before[subject] = _read_before(entry)
            elif entry["_id"] == MARKER:
                since = entry["since"]
        return _RevocationList(frozenset(ids), before, since)


def _read_subject(entry: Document) -> str | None:
    subject = entry["_id"].get("sub") if isinstance(entry["_id"], dict) else None
    return subject if isinstance(subject, str) else None


def _read_before(entry: Document) -> datetime:
    """Tokens issued before this moment are refused; the latest moment if the entry has no date."""
    before = entry.get("before")
    return before if isinstance(before, datetime) else _FOREVER
