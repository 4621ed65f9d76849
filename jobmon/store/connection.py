"""One MongoDB client a process, made when first needed, never before a fork."""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import (
    InvalidURI,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from jobmon.settings import Settings
from jobmon.store.decoding import Decoded
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.profiles import profile_of
from jobmon.store.queue_key import queue_key
from jobmon.store.read_collection import ReadCollection
from jobmon.store.slow_queries import SlowQueries

log = logging.getLogger(__name__)

DEFAULT_DATABASE = "jobmon"
# A frozen server neither answers nor hangs up; the socket gives up soon after maxTimeMS would have.
_SOCKET_GRACE_MS = 1_000
# How often the driver's monitors look at each server: within this and a connection timeout a frozen
# one is noticed and one that is back is found. The driver's own 10 s is too long for that.
_HEARTBEAT_MS = 1_000


_RESOLVE_AGAIN_AFTER_S = 1.0


class DatabaseAwayError(ServerSelectionTimeoutError):
    """No server for longer than the selection timeout: this query does not wait as well."""


class UnresolvedHostError(DatabaseAwayError):
    """The DNS does not resolve the host name of a mongodb+srv:// address, or not to servers."""


class _Presence:
    """Whether a server can be asked, as the driver's monitors know without being asked."""

    def __init__(self, patience_ms: int) -> None:
        self._patience_s = patience_ms / 1_000
        self._lost_at: float | None = None
        self._looked_at = 0.0
        self._said = False

    def check(self, client: MongoClient[Document]) -> None:
        """DatabaseAwayError when queries have waited in vain for as long as they may, or
        OperationFailure when a server was there and refused to let this user sign in.

        Whoever comes first waits, for a new primary mostly comes soon; whoever comes after that
        must not hold a thread each for as long again.
        """
        now = time.monotonic()
        if client.topology_description.has_readable_server(client.read_preference):
            self._lost_at = None
            if self._said:
                self._said = False
                log.warning("the database is back")
            return
        _raise_refusal(client)
        # What was seen long ago may have been another outage.
        if self._lost_at is None or now - self._looked_at > 2 * self._patience_s:
            self._lost_at = now
        self._looked_at = now
        if now - self._lost_at <= self._patience_s:
            return
        if not self._said:
            self._said = True
            log.error("the database is away: queries are refused at once until it is back")
        raise DatabaseAwayError(f"no server for {now - self._lost_at:.1f} s")


def _raise_refusal(client: MongoClient[Document]) -> None:
    """OperationFailure if a server refused the sign-in: until it is looked at again, the driver
    takes it for one that is not there."""
    for server in client.topology_description.server_descriptions().values():
        if isinstance(refusal := server.error, OperationFailure):
            raise OperationFailure("the sign-in was refused", refusal.code, refusal.details)


class _ClientMaker:
    """Makes one client; where that asks the DNS (mongodb+srv), in a thread that tries until it can.

    The driver resolves such a name as it makes a client, and fails where the DNS is away. Whoever
    comes first waits for that, nobody for longer than `patience_ms` after the first try.
    """

    def __init__(
        self, make: Callable[[], MongoClient[Document]], patience_ms: int, *, asks_dns: bool
    ) -> None:
        self._make = make
        self._asks_dns = asks_dns
        self._give_up_at = time.monotonic() + patience_ms / 1_000
        self._client: MongoClient[Document] | None = None
        self._reason = "it is still being resolved"
        self._done = threading.Event()
        self._closed = threading.Event()
        if asks_dns:
            threading.Thread(target=self._try_until_made, name="mongodb+srv", daemon=True).start()
            return
        try:
            self._client = make()
        except (OSError, ValueError) as error:  # a certificate's file has gone since the start
            raise DatabaseAwayError(f"no client can be made: {error}") from error

    def client(self) -> MongoClient[Document]:
        """The client; UnresolvedHostError as long as its host name is not resolved."""
        if self._client is None:
            self._done.wait(max(0.0, self._give_up_at - time.monotonic()))
        if self._client is None:
            raise UnresolvedHostError(f"the database's host name is not resolved: {self._reason}")
        return self._client

    def close(self) -> None:
        """Close the client; one that is not there is not waited for."""
        self._closed.set()
        if self._client is not None:
            self._client.close()

    def _try_until_made(self) -> None:
        has_failed = False
        while not self._closed.is_set():
            try:
                client = self._make()
            except Exception as error:  # noqa: BLE001 - whatever it is, a later try may succeed
                # Of an address that is no name the driver's message may quote a password.
                is_quoting = isinstance(error, InvalidURI) or not isinstance(error, PyMongoError)
                self._reason = type(error).__name__ if is_quoting else str(error)
                if not has_failed:
                    log.error(
                        "the database is away: its host name is not resolved: %s", self._reason
                    )
                has_failed = True
                self._closed.wait(_RESOLVE_AGAIN_AFTER_S)
                continue
            if has_failed:
                log.warning("the database's host name is resolved")
            self._client = client
            self._done.set()
            if self._closed.is_set():
                client.close()
            return


class Connection:
    """The watched database.

    A document that another program wrote never fails to load: see `store.decoding`.
    With `only_lasting` nothing is read that could be lost with the primary, should it be lost now.
    """

    def __init__(
        self,
        settings: Settings,
        client: MongoClient[Document] | None = None,
        *,
        only_lasting: bool = False,
    ) -> None:
        self.settings = settings
        self._read_concern: dict[str, Any] = (
            {"readConcernLevel": "majority"} if only_lasting else {}
        )
        self._lock = threading.Lock()
        self._given = client
        self._maker: _ClientMaker | None = None
        self._pid = os.getpid()
        self._queue_key: str | None = None
        self.profile = profile_of(settings)
        self.jobs = self._watched(settings.jobs_collection, self.profile.jobs)
        # None where the documents have no attempts but the last one, in the job itself.
        self.attempts = (
            self._watched(settings.attempts_collection, self.profile.attempts)
            if self.profile.attempts is not None
            else None
        )
        self._presence = _Presence(settings.server_selection_timeout_ms)

    @property
    def client(self) -> MongoClient[Document]:
        """This process's client; it connects in the background and survives its database.

        UnresolvedHostError while the host name of a mongodb+srv:// address is not resolved.
        """
        if self._given is not None:
            return self._given
        with self._lock:
            if self._maker is None or self._pid != os.getpid():
                self._maker = self._connect()
                self._pid = os.getpid()
            maker = self._maker
        return maker.client()

    @property
    def reachable_client(self) -> MongoClient[Document]:
        """The client, unless no server was reachable for longer than the selection timeout.

        DatabaseAwayError then; OperationFailure if the server refused this user's sign-in.
        """
        client = self.client
        if self._given is None:
            self._presence.check(client)
        return client

    def close(self) -> None:
        """Close the client, if there is one; the connection is of no use after that."""
        with self._lock:
            maker = self._maker
        if self._given is not None:
            self._given.close()
        elif maker is not None:
            maker.close()

    @property
    def database(self) -> Database[Document]:
        """The database that the URI names, `jobmon` if it names none; DatabaseAwayError."""
        return self.reachable_client.get_default_database(DEFAULT_DATABASE)

    @property
    def collections(self) -> list[str]:
        """The names of what is read in it."""
        watched = [self.jobs, self.attempts]
        return [each.collection.name for each in watched if each is not None]

    def has_recorded_attempts(self) -> bool:
        """Whether any attempt is recorded. If none is, each job is its own last attempt."""
        return self.attempts is not None and bool(self.attempts.find({}, ("_id",), limit=1))

    @property
    def queue_key(self) -> str:
        """What identifies the watched queue in jobmon's own database; PyMongoError."""
        if self._queue_key is None:
            hello = self.reachable_client.admin.command("hello")
            if hello.get("isreplicaset"):  # one that is to be initiated has no name yet
                raise NotPrimaryError("the replica set is not initiated")
            self._queue_key = queue_key(hello.get("setName"), self.database.name, self.settings)
        return self._queue_key

    @property
    def max_time_ms(self) -> int:
        """How long the server may work at one query."""
        return self.settings.query_timeout_ms

    def ping(self) -> None:
        """Return when the database answers; PyMongoError when it does not."""
        self.reachable_client.admin.command("ping")

    def _watched(self, collection: str, names: FieldMapping) -> ReadCollection:
        return ReadCollection(
            lambda: self.database[collection], names, self.settings.query_timeout_ms
        )

    def _connect(self) -> _ClientMaker:
        settings = self.settings

        def make() -> MongoClient[Document]:
            return MongoClient(
                settings.mongo_uri,
                document_class=Decoded,
                appname="jobmon",
                serverSelectionTimeoutMS=settings.server_selection_timeout_ms,
                connectTimeoutMS=settings.server_selection_timeout_ms,
                event_listeners=[SlowQueries(settings.slow_query_ms)],
                heartbeatFrequencyMS=_HEARTBEAT_MS,
                socketTimeoutMS=settings.query_timeout_ms + _SOCKET_GRACE_MS,
                **self._read_concern,
            )

        asks_dns = settings.mongo_uri.startswith("mongodb+srv://")
        return _ClientMaker(make, settings.server_selection_timeout_ms, asks_dns=asks_dns)
