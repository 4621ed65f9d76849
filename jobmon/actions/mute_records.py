"""Adds and reads the records of mutes and of their ends. A record is never changed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pymongo.errors import DuplicateKeyError, OperationFailure

from jobmon.actions.mutes import MAX_DURATION, ActiveMutes, Mute, MuteEnd
from jobmon.actions.records import MUTES, ensure_record_indexes
from jobmon.actions.request import MAX_REASON_LENGTH, Person, truncate_to_ms
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import OwnDatabase, require_type, state_database
from jobmon.single_flight import SingleFlight
from jobmon.store.connection import Connection
from jobmon.store.failures import is_unauthorized
from jobmon.store.mapping import Document
from jobmon.store.read_collection import request_comment

MUTED, UNMUTED = "muted", "unmuted"  # the kinds of records: a mute, and its early end
MAX_LISTED = 1_000  # mutes that a query reads, the newest
CACHE_MS = 1_000


class MuteRecords:
    """Reads and adds the mutes of the queue of `connection`; `own` connects to jobmon's database.

    Methods raise PyMongoError. Secrets in reasons are redacted.

        records = MuteRecords(connection, own, redactor)
        records.add(Mute(kind=CheckKind.LEASES, by=person, until=until, reason="known"))
        records.find_active(now).is_muted(CheckKind.LEASES, frozenset())
    """

    def __init__(self, connection: Connection, own: Connection, redactor: Redactor) -> None:
        self._connection = connection
        self._own = own
        self._redactor = redactor
        self._reported: set[tuple[str, str]] = set()
        self._current = SingleFlight(self._read_current, CACHE_MS)

    def find_active(self, now: datetime) -> ActiveMutes:
        """The mutes that are active at `now`; they may have been read up to a second ago."""
        return ActiveMutes(tuple(mute for mute in self._current.get() if mute.is_active(now)))

    def list_recent(self) -> list[Mute]:
        """The newest 1,000 mutes of the last 30 days, then older mutes whose time is not over.

        The newest mute is first.
        """
        recent = self._read({})
        if len(recent) < MAX_LISTED:  # no older mute can still last: the longest has 30 days
            return recent
        known = {mute.id for mute in recent}
        return recent + [mute for mute in self._read_current() if mute.id not in known]

    def add(self, mute: Mute) -> Mute:
        """Record a mute; returns it as recorded."""
        until = truncate_to_ms(mute.until)
        mute = replace(mute, until=until, reason=self._hide_secrets(mute.reason))
        self._insert(mute.id, MUTED, mute.dump(), mute.until)
        return mute

    def end(self, mute: Mute, by: Person, reason: str = "") -> Mute:
        """Record that a person ends a mute now; returns the mute with its end.

        An end that is recorded already is not changed.
        """
        end = MuteEnd(
            by=by, at=truncate_to_ms(datetime.now(UTC)), reason=self._hide_secrets(reason)
        )
        fields = {"request": mute.id, "by": by.dump(), "at": end.at, "reason": end.reason}
        try:
            self._insert(mute.id, UNMUTED, fields, mute.until)
        except DuplicateKeyError:
            return next((known for known in self.list_recent() if known.id == mute.id), mute)
        return replace(mute, end=end)

    def create_indexes(self) -> None:
        """Create the indexes of the collection, if the user has the right to do so."""
        ensure_record_indexes(state_database(self._own), MUTES)

    def _insert(self, mute_id: str, kind: str, fields: Document, until: datetime) -> None:
        own = self._open()
        retention = timedelta(days=self._connection.settings.actions_retention_days)
        kept_until = max(datetime.now(UTC) + retention, until + MAX_DURATION)
        record = {**fields, "kind": kind, "expiresAt": kept_until}
        own[MUTES].insert_one(own.new(f"{mute_id}/{kind}", record))

    def _read_current(self) -> list[Mute]:
        """The newest 1,000 mutes whose time is not over, even if a person ended them early."""
        mutes = self._read({"until": {"$gt": datetime.now(UTC)}})
        if len(mutes) == MAX_LISTED:
            problem = f"only the newest {MAX_LISTED:,} mutes whose time is not over have an effect"
            self._open().report(MUTES, problem)
        return mutes

    def _read(self, query: Document) -> list[Mute]:
        """The newest 1,000 mutes of the last 30 days that match a query. Index: at."""
        own, since = self._open(), datetime.now(UTC) - MAX_DURATION
        try:
            muted = self._find(own, {**own.scope, "at": {"$gte": since}, "kind": MUTED, **query})
            ids = [own.id(f"{record.get('request')}/{UNMUTED}") for record in muted]
            ended = self._find(own, {"_id": {"$in": ids}}) if ids else []
        except OperationFailure as error:
            if not is_unauthorized(error):
                raise
            own.report(MUTES, "no right to read it: no notice is muted")
            return []
        ends = dict(own.read(UNMUTED, ended, _load_end))

        def load(stored: Document) -> Mute:
            return Mute.load(stored, ends.get(stored["request"]))

        return list(own.read(MUTED, muted, load))

    def _find(self, own: OwnDatabase, query: Document) -> list[Document]:
        newest = own[MUTES].find(query, **request_comment()).sort("at", -1).limit(MAX_LISTED)
        return list(newest.max_time_ms(self._connection.max_time_ms))

    def _open(self) -> OwnDatabase:
        return OwnDatabase(state_database(self._own), self._connection.queue_key, self._reported)

    def _hide_secrets(self, reason: str) -> str:
        text: str = self._redactor.redact(reason.strip())
        return text[:MAX_REASON_LENGTH]


def _load_end(stored: Document) -> tuple[str, MuteEnd]:
    """The id of the mute that a record ends, and its end."""
    end = MuteEnd(
        by=Person.load(stored["by"]),
        at=require_type(stored["at"], datetime),
        reason=require_type(stored["reason"], str),
    )
    return require_type(stored["request"], str), end
