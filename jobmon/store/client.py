"""The MongoDB client of a process for one deployment, created after the fork."""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from pymongo import MongoClient
from pymongo.errors import (
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.server_description import ServerDescription

from jobmon.settings import Settings
from jobmon.store.decoding import Decoded
from jobmon.store.mapping import Document
from jobmon.store.slow_queries import SlowQueries

log = logging.getLogger(__name__)

# Of a socket, after the time limit of a query: a frozen server neither answers nor closes it.
_SOCKET_GRACE_MS = 1_000
# The driver's monitors check each server at this interval. With the default of 10 s, they would
# notice too late that a server is frozen, or is back.
_HEARTBEAT_MS = 1_000
_RESOLVE_AGAIN_AFTER_S = 1.0


class DatabaseUnreachableError(ServerSelectionTimeoutError):
    """jobmon can query no server; the message is the reason."""


class UnresolvedHostError(DatabaseUnreachableError):
    """The DNS has not resolved the host name of a mongodb+srv:// address to servers."""


class _OutageDetector:
    """Refuses queries in an outage that is longer than the selection timeout."""

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_s = timeout_ms / 1_000
        self._lost_at: float | None = None
        self._checked_at = 0.0
        self._is_logged = False

    def check(self, client: MongoClient[Document]) -> None:
        """Raise DatabaseUnreachableError in a long outage, OperationFailure for a refused sign-in.

        Until the selection timeout, queries wait for a server, because a new primary is usually
        elected soon. Later queries fail at once, so that they do not hold threads. This check uses
        the state that the driver's monitors know; only a direct connection may need a ping, and is
        refused at once if it leads to a secondary. An outage ends when the primary is back: jobmon
        reads its own documents, such as the revoked tokens, only from the primary.
        """
        now = time.monotonic()
        topology = client.topology_description
        if _has_primary(client) and topology.has_readable_server(client.read_preference):
            self._lost_at = None
            if self._is_logged:
                self._is_logged = False
                log.warning("the database is back")
            return
        _raise_refusal(client)
        lost_at = self._lost_at  # another thread may reset it meanwhile
        if topology.topology_type_name == "Single":
            _refuse_secondary(client, wait=lost_at is None)
        # If nothing was checked for a while, this may be another outage.
        if lost_at is None or now - self._checked_at > 2 * self._timeout_s:
            self._lost_at = lost_at = now
        self._checked_at = now
        if now - lost_at <= self._timeout_s:
            return
        if not self._is_logged:
            self._is_logged = True
            log.error("the database is unreachable: queries are refused at once until it is back")
        raise DatabaseUnreachableError(f"no server for {now - lost_at:.1f} s")


def _has_primary(client: MongoClient[Document]) -> bool:
    """Whether a server that accepts writes is known: a primary, mongos or standalone server."""
    servers = client.topology_description.server_descriptions().values()
    return any(server.is_writable for server in servers)


def _raise_refusal(client: MongoClient[Document]) -> None:
    """Raise OperationFailure if a server refused the sign-in: to the driver it is `Unknown`."""
    for server in client.topology_description.server_descriptions().values():
        if isinstance(refusal := server.error, OperationFailure):
            raise OperationFailure("the sign-in was refused", refusal.code, refusal.details)


def _refuse_secondary(client: MongoClient[Document], *, wait: bool) -> None:
    """Raise DatabaseUnreachableError if the server of a direct connection is a secondary.

    The driver would send all queries to it. With `wait`, a ping first waits for the server's state.
    """
    if wait and not client.topology_description.has_readable_server():
        client.admin.command("ping")
    if client.topology_description.has_readable_server() and not _has_primary(client):
        raise DatabaseUnreachableError("directConnection leads to a secondary, not to the primary")


def select_one_router(servers: list[ServerDescription]) -> list[ServerDescription]:
    """Always the same mongos, because each knows only its own cursors; all servers without one."""
    routers = [server for server in servers if server.server_type_name == "Mongos"]
    return [min(routers, key=lambda server: server.address)] if routers else servers


class _ClientMaker:
    """Creates one client; for mongodb+srv:// in a thread that retries until the DNS answers.

    The driver resolves the name in such an address when it creates a client, and fails if the DNS
    is unreachable. Callers wait for the client until `timeout_ms` after the first try.
    """

    def __init__(
        self, create: Callable[[], MongoClient[Document]], timeout_ms: int, *, uses_dns: bool
    ) -> None:
        self._create = create
        self._deadline = time.monotonic() + timeout_ms / 1_000
        self._client: MongoClient[Document] | None = None
        self._reason = "it is still being resolved"
        self._done = threading.Event()
        self._closed = threading.Event()
        if uses_dns:
            threading.Thread(target=self._retry, name="mongodb+srv", daemon=True).start()
            return
        try:
            self._client = create()
        except (OSError, ValueError) as error:  # for example, a certificate's file was removed
            raise DatabaseUnreachableError(f"no client can be created: {error}") from error

    def client(self) -> MongoClient[Document]:
        """The client; raises UnresolvedHostError if its host name is not resolved in time."""
        if self._client is None:
            self._done.wait(max(0.0, self._deadline - time.monotonic()))
        if self._client is None:
            raise UnresolvedHostError(f"the database's host name is not resolved: {self._reason}")
        return self._client

    def close(self) -> None:
        """Close the client, and stop trying to create one."""
        self._closed.set()
        if self._client is not None:
            self._client.close()

    def _retry(self) -> None:
        has_failed = False
        while not self._closed.is_set():
            try:
                client = self._create()
            except Exception as error:  # noqa: BLE001 - after any failure a later try may succeed
                # For a malformed address the driver's message may contain the password.
                is_secret = isinstance(error, InvalidURI) or not isinstance(error, PyMongoError)
                self._reason = type(error).__name__ if is_secret else str(error)
                if not has_failed:
                    log.error(
                        "the database is unreachable: its host name is not resolved: %s",
                        self._reason,
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


class DatabaseClient:
    """The client for the deployment at `settings.mongo_uri`; several queues may share it.

    Any document that a server stores can be decoded: see `store.decoding`. With `majority_reads`,
    only the primary is read, and queries do not see what a failover could roll back. With `client`,
    no other client is created.
    """

    def __init__(
        self,
        settings: Settings,
        client: MongoClient[Document] | None = None,
        *,
        majority_reads: bool = False,
    ) -> None:
        self._settings = settings
        self.majority_reads = majority_reads
        self._lock = threading.Lock()
        self._external_client = client
        self._maker: _ClientMaker | None = None
        self._pid = os.getpid()
        self._outage = _OutageDetector(settings.server_selection_timeout_ms)

    @property
    def client(self) -> MongoClient[Document]:
        """This process's client; it connects and reconnects in the background.

        Raises DatabaseUnreachableError if it cannot be created: UnresolvedHostError while the host
        name of a mongodb+srv:// address is not resolved.
        """
        if self._external_client is not None:
            return self._external_client
        with self._lock:
            if self._maker is None or self._pid != os.getpid():
                self._maker = self._connect()
                self._pid = os.getpid()
            maker = self._maker
        return maker.client()

    @property
    def reachable_client(self) -> MongoClient[Document]:
        """The client, after `_OutageDetector.check`.

        Raises DatabaseUnreachableError in a long outage, and OperationFailure if a server refused
        the sign-in. A client that the constructor got is not checked.
        """
        client = self.client
        if self._external_client is None:
            self._outage.check(client)
        return client

    def close(self) -> None:
        """Close the client, if there is one; it cannot be used after that."""
        with self._lock:
            maker = self._maker
        if self._external_client is not None:
            self._external_client.close()
        elif maker is not None:
            maker.close()

    def _connect(self) -> _ClientMaker:
        settings, options = self._settings, dict[str, Any]()
        if self.majority_reads:
            options["readConcernLevel"] = "majority"
            options["server_selector"] = select_one_router
        if "maxpoolsize" not in settings.mongo_uri.lower():
            options["maxPoolSize"] = 0  # jobmon's threads are the limit

        def create() -> MongoClient[Document]:
            return MongoClient(
                settings.mongo_uri,
                document_class=Decoded,
                appname="jobmon",
                serverSelectionTimeoutMS=settings.server_selection_timeout_ms,
                connectTimeoutMS=settings.server_selection_timeout_ms,
                event_listeners=[SlowQueries(settings.slow_query_ms)],
                heartbeatFrequencyMS=_HEARTBEAT_MS,
                socketTimeoutMS=settings.query_timeout_ms + _SOCKET_GRACE_MS,
                **options,
            )

        uses_dns = settings.mongo_uri.startswith("mongodb+srv://")
        return _ClientMaker(create, settings.server_selection_timeout_ms, uses_dns=uses_dns)
