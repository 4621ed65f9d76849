"""The connection to one watched queue: its database, and its collections to read from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from bson import Timestamp
from pymongo import MongoClient, ReadPreference
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import NotPrimaryError
from pymongo.read_preferences import _ServerMode

from jobmon.settings import Settings
from jobmon.store.client import DatabaseClient
from jobmon.store.event_log import EVENT_TIME
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.profiles import Profile
from jobmon.store.queue_key import deployment_name, queue_key
from jobmon.store.read_collection import ReadCollection

DEFAULT_DATABASE = "jobmon"


class Connection:
    """A connection to the watched database, with the collections of jobs and attempts to read.

    The URI's readPreference decides which member is read: see `_choose_read_preference`. With
    `client`, which several queues may share, no other client is created.
    """

    def __init__(
        self, settings: Settings, client: DatabaseClient | MongoClient[Document] | None = None
    ) -> None:
        self.settings = settings
        if not isinstance(client, DatabaseClient):
            client = DatabaseClient(settings, client)
        self._client = client
        self._queue_key: str | None = None
        self._cached_database: Database[Document] | None = None
        self.profile = Profile.from_settings(settings)
        self.jobs = self._make_collection(settings.jobs_collection, self.profile.jobs)
        # None if the profile has no collection of attempts.
        self.attempts = (
            self._make_collection(settings.attempts_collection, self.profile.attempts)
            if self.profile.attempts is not None
            else None
        )

    @property
    def client(self) -> MongoClient[Document]:
        """This process's client: see `DatabaseClient.client`."""
        return self._client.client

    @property
    def reachable_client(self) -> MongoClient[Document]:
        """The client, unless the database is unreachable: see `DatabaseClient.reachable_client`."""
        return self._client.reachable_client

    def close(self) -> None:
        """Close the client; the connection cannot be used after that."""
        self._client.close()

    @property
    def database(self) -> Database[Document]:
        """The database that the URI names, or `jobmon`.

        Raises PyMongoError, for example DatabaseUnreachableError.
        """
        client = self.reachable_client
        preference, cached = self._choose_read_preference(client), self._cached_database
        if cached is None or cached.client is not client or cached.read_preference != preference:
            cached = client.get_default_database(DEFAULT_DATABASE, read_preference=preference)
            self._cached_database = cached
        return cached

    def own_database(self, name: str) -> Database[Document]:
        """A database of jobmon's own in the same deployment, always read from the primary.

        Raises the errors of `reachable_client`.
        """
        return self.reachable_client.get_database(name, read_preference=ReadPreference.PRIMARY)

    def server_time(self) -> datetime:
        """The time (UTC) by the clock of the watched server; raises PyMongoError."""
        client = self.reachable_client
        hello = client.admin.command("hello", codec_options=client.codec_options)
        local_time: datetime = hello["localTime"]
        return local_time

    def data_time(self) -> datetime:
        """The time (UTC) up to which reads of the watched collections have every change.

        For a secondary it is the time of its last write, in whole seconds, and never later than the
        last write of a majority. An idle primary writes every ten seconds, so the time may be ten
        seconds ago. If several secondaries may be read, it is the earliest of their times. The
        driver may choose another server during a read: call this before and after the read, and
        take the earlier time. Raises PyMongoError.
        """
        now, client = datetime.now(UTC), self.reachable_client
        preference = self._choose_read_preference(client)
        if preference == ReadPreference.PRIMARY:
            return now
        hello = client.admin.command("hello", read_preference=preference)
        written_at = [
            datetime.fromtimestamp(server.last_write_date, UTC)
            for server in client.topology_description.apply_selector(preference)
            if not server.is_writable and server.last_write_date is not None
        ]
        if not written_at:  # no secondary, or a standalone server, whose `hello` has no times
            return now
        # A snapshot has only the writes that, as far as the server knows, a majority has.
        majority_at: datetime = hello["lastWrite"]["majorityWriteDate"].replace(tzinfo=UTC)
        return min(now, majority_at, *written_at)

    def _choose_read_preference(self, client: MongoClient[Document]) -> _ServerMode:
        """The URI's preference; the primary with `majority_reads` or behind a mongos.

        A mongos does not report how late a secondary is. The first call may wait for a server.
        Raises PyMongoError.
        """
        preference = client.read_preference
        if self._client.majority_reads or preference == ReadPreference.PRIMARY:
            return ReadPreference.PRIMARY
        if client.topology_description.topology_type_name == "Unknown":
            client.admin.command("ping")
        is_sharded = client.topology_description.topology_type_name == "Sharded"
        return ReadPreference.PRIMARY if is_sharded else preference

    @property
    def collection_names(self) -> list[str]:
        """The names of the watched collections, the jobs first."""
        watched = (self.jobs, self.attempts)
        return [collection.name for collection in watched if collection is not None]

    def has_recorded_attempts(self) -> bool:
        """Whether any attempt is recorded; if not, only a job itself can show its attempts."""
        if self.attempts is None:
            return False
        index = [("_id", 1)] if self.profile.log is None else EVENT_TIME
        return bool(self.attempts.find({}, ("_id",), limit=1, index=index))

    @property
    def queue_key(self) -> str:
        """The key of the watched queue in jobmon's own database; raises PyMongoError."""
        if self._queue_key is None:
            hello = self.reachable_client.admin.command("hello")
            if hello.get("isreplicaset"):  # the replica set has no name before it is initiated
                raise NotPrimaryError("the replica set is not initiated")
            self._queue_key = queue_key(
                deployment_name(hello), self.database.name, self.settings, self.profile
            )
        return self._queue_key

    def cluster_time(self) -> Timestamp | None:
        """The cluster's present logical time; None without a replica set. Raises PyMongoError."""
        answer = self.reachable_client.admin.command("ping")
        time: Timestamp | None = answer.get("operationTime")
        return time

    @property
    def max_time_ms(self) -> int:
        """The time limit of one query, in milliseconds; the server ends the query then."""
        return self.settings.query_timeout_ms

    def ping(self) -> None:
        """Return when the database answers; raises PyMongoError if it does not."""
        self.reachable_client.admin.command("ping")

    def _make_collection(self, name: str, mapping: FieldMapping) -> ReadCollection:
        cached: Collection[Document] | None = None

        def find_collection() -> Collection[Document]:
            nonlocal cached
            database = self.database
            if cached is None or cached.database is not database:
                cached = database[name]
            return cached

        return ReadCollection(name, find_collection, mapping, self.settings.query_timeout_ms)


@contextmanager
def connect_queues(
    queues: Sequence[Settings], *, majority_reads: bool = False
) -> Iterator[list[Connection]]:
    """A connection to each queue during the block; queues with the same URI share a client."""
    clients = {
        queue.mongo_uri: DatabaseClient(queue, majority_reads=majority_reads) for queue in queues
    }
    try:
        yield [Connection(queue, clients[queue.mongo_uri]) for queue in queues]
    finally:
        for client in clients.values():
            client.close()
