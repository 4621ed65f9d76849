"""Tokens that are refused before they expire: a list in jobmon's own database.

The web service reads it, as a user who may do no more; `jobmon revoke` fills it.
"""

import logging
from collections.abc import Iterator
from datetime import datetime

from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from jobmon.store.connection import Connection, Document
from jobmon.store.shared import Shared

log = logging.getLogger(__name__)

REVOKED = "revoked_tokens"
KEEP_MS = 1_000
_UNAUTHORIZED = 13


class RevokedTokens:
    """The ids of revoked tokens, read whole and shared for a second: there are few of them.

    Every method raises PyMongoError when the database cannot tell.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ids = Shared(self._read, KEEP_MS)
        self._warned = False

    def __contains__(self, token_id: str) -> bool:
        return token_id in self._ids.get()

    def add(self, token_id: str, until: datetime | None) -> None:
        """Refuse a token; the entry goes after `until` (UTC), None for never."""
        listed = self._listed()
        listed.create_index("expiresAt", expireAfterSeconds=0)
        end = {"$set": {"expiresAt": until}} if until is not None else {"$unset": {"expiresAt": ""}}
        listed.update_one({"_id": token_id}, end, upsert=True)

    def all(self) -> Iterator[tuple[str, datetime | None]]:
        """Every id with when its entry goes, in the order of the ids."""
        for entry in self._listed().find().sort("_id").max_time_ms(self._connection.max_time_ms):
            yield entry["_id"], entry.get("expiresAt")

    def _listed(self) -> Collection[Document]:
        return self._connection.rollups[REVOKED]

    def _read(self) -> frozenset[str]:
        try:
            found = self._listed().find({}, {"_id": True})
            return frozenset(
                entry["_id"] for entry in found.max_time_ms(self._connection.max_time_ms)
            )
        except OperationFailure as error:
            # Whose user may read nothing but the watched collections revokes nothing.
            if error.code != _UNAUTHORIZED:
                raise
            if not self._warned:
                self._warned = True
                log.warning("may not read the list of revoked tokens: none is refused")
            return frozenset()
