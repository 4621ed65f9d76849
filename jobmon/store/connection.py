"""One MongoDB client a process, made when first needed, never before a fork."""

import os
import threading
from datetime import timedelta

from pymongo import MongoClient
from pymongo.database import Database

from jobmon.settings import Settings
from jobmon.store.decoding import Decoded
from jobmon.store.names import Document, Names
from jobmon.store.profiles import profile_of
from jobmon.store.slow import SlowQueries
from jobmon.store.watched import Watched

DEFAULT_DATABASE = "jobmon"
# A frozen server neither answers nor hangs up; the socket gives up soon after maxTimeMS would have.
_SOCKET_GRACE_MS = 1_000


class Connection:
    """The watched database.

    A document that another program wrote never fails to load: see `store.decoding`.
    """

    def __init__(self, settings: Settings, client: MongoClient[Document] | None = None) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client = client
        self._given = client is not None
        self._pid = os.getpid()
        self.profile = profile_of(settings)
        self.jobs = self._watched(settings.jobs_collection, self.profile.jobs)
        # None where the documents have no attempts but the last one, in the job itself.
        self.attempts = (
            self._watched(settings.attempts_collection, self.profile.attempts)
            if self.profile.attempts is not None
            else None
        )

    @property
    def client(self) -> MongoClient[Document]:
        """This process's client; it connects in the background and survives its database."""
        with self._lock:
            forked = self._pid != os.getpid() and not self._given
            if self._client is None or forked:
                self._client = self._connect()
                self._pid = os.getpid()
            return self._client

    @property
    def database(self) -> Database[Document]:
        """The database that the URI names, `jobmon` if it names none."""
        return self.client.get_default_database(DEFAULT_DATABASE)

    @property
    def collections(self) -> list[str]:
        """The names of what is read in it."""
        watched = [self.jobs, self.attempts]
        return [each.collection.name for each in watched if each is not None]

    @property
    def rollups(self) -> Database[Document]:
        """jobmon's own database, in the watched deployment."""
        return self.client[self._settings.rollup_db]

    @property
    def kept(self) -> dict[timedelta, timedelta]:
        """How long what happened is kept, by the span in which it is counted."""
        settings = self._settings
        minutes = timedelta(days=settings.keep_minutes_days)
        hours = timedelta(days=settings.keep_hours_days)
        return {
            timedelta(minutes=1): minutes,
            timedelta(minutes=10): minutes,
            timedelta(hours=1): hours,
            timedelta(hours=6): hours,
            timedelta(days=1): timedelta(days=settings.keep_days_days),
        }

    @property
    def max_time_ms(self) -> int:
        """How long the server may work at one query."""
        return self._settings.query_timeout_ms

    def ping(self) -> None:
        """Return when the database answers; PyMongoError when it does not."""
        self.client.admin.command("ping")

    def _watched(self, collection: str, names: Names) -> Watched:
        return Watched(lambda: self.database[collection], names, self._settings.query_timeout_ms)

    def _connect(self) -> MongoClient[Document]:
        settings = self._settings
        return MongoClient(
            settings.mongo_uri,
            document_class=Decoded,
            appname="jobmon",
            serverSelectionTimeoutMS=settings.server_selection_timeout_ms,
            connectTimeoutMS=settings.server_selection_timeout_ms,
            event_listeners=[SlowQueries(settings.slow_query_ms)],
            socketTimeoutMS=settings.query_timeout_ms + _SOCKET_GRACE_MS,
        )
