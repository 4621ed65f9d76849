"""Tokens that are refused before they expire: a list in jobmon's own database.

The web service reads it, as a user who may do no more; `jobmon revoke` fills it.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from jobmon.store.connection import Connection
from jobmon.store.names import Document
from jobmon.store.shared import Shared

log = logging.getLogger(__name__)

REVOKED = "revoked_tokens"
KEEP_MS = 1_000
_UNAUTHORIZED = 13


@dataclass(frozen=True)
class _List:
    ids: frozenset[str]
    before: Mapping[str, datetime]  # by subject


class RevokedTokens:
    """The list, read whole and shared for a second: it is short.

    An entry is a token's id, or `{sub}` for all tokens of a subject that were issued before a
    moment. Every method raises PyMongoError when the database cannot tell.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._list = Shared(self._read, KEEP_MS)
        self._warned = False

    def includes(self, token_id: str, subject: str, issued_at: float) -> bool:
        """Whether a token is revoked, that was issued at `issued_at` (seconds since 1970, UTC)."""
        listed = self._list.get()
        before = listed.before.get(subject)
        return token_id in listed.ids or (before is not None and issued_at < before.timestamp())

    def add(self, token_id: str, until: datetime | None) -> None:
        """Refuse a token; the entry goes after `until` (UTC), None for never."""
        entries = self._entries()
        entries.create_index("expiresAt", expireAfterSeconds=0)
        end: Document = {"$set": {"expiresAt": until}}
        change = end if until is not None else {"$unset": {"expiresAt": ""}}
        entries.update_one({"_id": token_id}, change, upsert=True)

    def add_subject(self, subject: str) -> None:
        """Refuse all tokens of a subject that were issued until now; newer ones are good."""
        entry = {"_id": {"sub": subject}}
        self._entries().update_one(entry, {"$set": {"before": datetime.now(UTC)}}, upsert=True)

    def all(self) -> Iterator[tuple[str, str]]:
        """What is revoked, and for how long, in words; in the order of the list."""
        for entry in self._entries().find().sort("_id").max_time_ms(self._connection.max_time_ms):
            if isinstance(entry["_id"], dict):
                yield f"sub {entry['_id']['sub']}", f"issued before {entry['before'].isoformat()}"
            else:
                ends = entry.get("expiresAt")
                yield entry["_id"], f"until {ends.isoformat()}" if ends else "for good"

    def _entries(self) -> Collection[Document]:
        return self._connection.rollups[REVOKED]

    def _read(self) -> _List:
        try:
            found = self._entries().find({}, {"before": True})
            entries = list(found.max_time_ms(self._connection.max_time_ms))
        except OperationFailure as error:
            # Whose user may read nothing but the watched collections revokes nothing.
            if error.code != _UNAUTHORIZED:
                raise
            if not self._warned:
                self._warned = True
                log.warning("may not read the list of revoked tokens: none is refused")
            entries = []
        return _List(
            ids=frozenset(entry["_id"] for entry in entries if isinstance(entry["_id"], str)),
            before={
                entry["_id"]["sub"]: entry["before"]
                for entry in entries
                if isinstance(entry["_id"], dict)
            },
        )
