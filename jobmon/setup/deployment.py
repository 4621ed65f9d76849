"""What a deployment is: its kind, its collections, and who is signed in."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import OperationFailure, PyMongoError

from jobmon.settings import PROFILES, Settings
from jobmon.setup.findings import (
    Finding,
    SetupError,
    as_setting,
    count,
    problem,
    split_uri,
    unreachable,
)
from jobmon.setup.users import QueueRoles
from jobmon.store.connection import DEFAULT_DATABASE, Connection
from jobmon.store.failures import UNAUTHORIZED
from jobmon.store.mapping import Document

# The settings that describe the watched documents; `jobmon init` reads them, too.
_OF_INIT = (
    "profile",
    "jobs_collection",
    "attempts_collection",
    "job_fields",
    "attempt_fields",
    "status_names",
    "attempt_status_names",
)

_OTHERS = 50  # other collections, and databases, that are looked at when jobs are not found
_ALIKE = 3  # this many of a job's own fields make a collection look like jobs
_OF_A_JOB = frozenset({"jobId", "status", "type", "payload", "nextRunAt", "maxAttempts"})
ADMIN_URI = "JOBMON_ADMIN_MONGO_URI"  # the connection string of who sets up
_SERVER_SELECTION_MS = 10_000  # where it has none of its own
_ALREADY_INITIALIZED = 23
_PRIMARY_TIMEOUT_S = 60


@dataclass(frozen=True)
class Deployment:
    """One look at a deployment, as the user of its connection string sees it.

    `hello` is the server's answer to that command. `kinds` has the collections that the user may
    know of, each with `collection`, `view` or `timeseries`; it is empty without a single right.
    """

    settings: Settings
    connection: Connection
    hello: Document
    users: list[Document]
    privileges: list[Document]
    kinds: dict[str, str]

    @classmethod
    def inspect(cls, settings: Settings, connection: Connection) -> Self:
        """Look at it; PyMongoError if it does not answer or does not let us in."""
        admin = connection.client.admin
        hello = admin.command("hello")
        status = admin.command("connectionStatus", showPrivileges=True)["authInfo"]
        users = status["authenticatedUsers"]
        kinds = {}
        try:
            found = connection.database.list_collections(nameOnly=True, authorizedCollections=True)
            kinds = {collection["name"]: collection["type"] for collection in found}
        except OperationFailure as error:
            if error.code != UNAUTHORIZED or not users:
                raise
        return cls(settings, connection, hello, users, status["authenticatedUserPrivileges"], kinds)

    @property
    def watched(self) -> list[Collection[Document]]:
        """The collections that jobmon reads, the jobs first."""
        database = self.connection.database
        return [database[name] for name in self.connection.collections]

    @classmethod
    def of_admin(cls, settings: Settings, client: MongoClient[Document]) -> Self:
        """The same, with the client of somebody who may write."""
        return cls.inspect(settings, Connection(settings, client))

    @property
    def roles(self) -> QueueRoles:
        """The roles of the queue that is watched."""
        own = [self.settings.rollup_db, self.settings.state_db]
        return QueueRoles(self.connection.database.name, self.connection.collections, own)

    @property
    def replica_set(self) -> str | None:
        """The name of the replica set, if it is one."""
        return self.hello.get("setName")

    @property
    def is_sharded(self) -> bool:
        """Whether a mongos answers."""
        return self.hello.get("msg") == "isdbgrid"

    def describe_kind(self) -> str:
        """`replica set rs0, 3 members`."""
        if self.is_sharded:
            return "a sharded cluster"
        if self.replica_set is not None:
            return f"replica set {self.replica_set}, {count(len(self.hello['hosts']), 'member')}"
        return "a standalone server"

    def init_command(self, options: str = "") -> str:
        """The line that runs `jobmon init` here, to be given a name and a password."""
        settings = self.settings
        usual = replace(
            Settings(mongo_uri="", profile=settings.profile),
            jobs_collection=PROFILES[settings.profile],
        )
        given = ""
        for name in _OF_INIT:
            value = getattr(settings, name)
            if value != getattr(usual, name) or (name == "profile" and value != Settings.profile):
                given += f"JOBMON_{name.upper()}='{as_setting(value)}' "
        for name in ("rollup_db", "state_db"):
            if getattr(settings, name) != getattr(Settings, name):
                given += f"JOBMON_{name.upper()}='{getattr(settings, name)}' "
        user = "ADMIN:PASSWORD@" if self.users else ""
        scheme, hosts = split_uri(settings.mongo_uri)
        uri = f"{scheme}://{user}{hosts}/{self.connection.database.name}"
        if self.replica_set is not None and scheme == "mongodb":
            uri += f"?replicaSet={self.replica_set}"
        if user:
            uri += ("&" if "?" in uri else "?") + "authSource=admin"
        makes = options.removeprefix("--").partition(" ")[0].upper()
        password = f"JOBMON_{makes}_PASSWORD=… " if makes in ("READER", "COLLECTOR") else ""
        command = f"{given}JOBMON_ADMIN_MONGO_URI='{uri}' {password}jobmon init {options}"
        return command.rstrip()


@contextmanager
def as_admin(settings: Settings) -> Iterator[MongoClient[Document]]:
    """A client of the admin's connection string; whatever fails inside is raised as SetupError."""
    no_user = (
        f"Put a user into {ADMIN_URI} who may set it up: "
        "mongodb://USER:PASSWORD@HOST/DATABASE?authSource=admin"
    )
    uri = settings.mongo_uri
    waits = "serverselectiontimeoutms=" in uri.lower()
    try:
        options: dict[str, Any] = {"appname": "jobmon init"}
        if not waits:
            options["serverSelectionTimeoutMS"] = _SERVER_SELECTION_MS
        with MongoClient[Document](uri, **options) as client:
            yield client
    except (PyMongoError, OSError, ValueError) as error:
        raise SetupError(unreachable(error, uri, ADMIN_URI, no_user)) from None


def unfit_kind(where: str, kind: str, setting: str) -> Finding | None:
    """The problem that `where` is no ordinary collection, or None."""
    if kind == "view":
        return problem(
            "collections",
            f"{where} is a view: it has no indexes and no change stream.",
            do=f"Set {setting} to the collection that the view is of.",
        )
    if kind == "timeseries":
        return problem(
            "collections",
            f"{where} is a time series collection: its documents cannot change, and it has no "
            "change stream.",
            do=f"Set {setting} to an ordinary collection.",
        )
    return None


def jobs_elsewhere(deployment: Deployment, setting: str = "JOBMON_MONGO_URI") -> str | None:
    """Where the jobs may be instead: a collection that looks like them, or another database.

    `setting` holds the connection string.
    """
    jobs, own = deployment.watched[0], deployment.settings.rollup_db
    others = deployment.kinds.keys() - set(deployment.connection.collections)
    alike = [
        name
        for name in sorted(others)[:_OTHERS]
        if not name.startswith("system.") and _looks_like_jobs(deployment, name)
    ]
    if alike:
        return f"These look like jobs: {', '.join(alike)}. Set JOBMON_JOBS_COLLECTION to one."
    client = deployment.connection.client
    skipped = {"admin", "config", "local", own, jobs.database.name}
    try:
        holding = [
            name
            for name in sorted(set(client.list_database_names()) - skipped)[:_OTHERS]
            if jobs.name in client[name].list_collection_names(authorizedCollections=True)
        ]
    except OperationFailure:  # what may not be seen is no remedy either
        return None
    if holding:
        return (
            f"There is a collection {jobs.name} in: {', '.join(holding)}. "
            f"The database is the one that {setting} names after the address, "
            f"{DEFAULT_DATABASE} if it names none."
        )
    return None


def _looks_like_jobs(deployment: Deployment, name: str) -> bool:
    paths = deployment.connection.jobs.names.paths
    fields = {paths[field] for field in _OF_A_JOB & paths.keys()} - {"_id"}
    newest = deployment.connection.database[name].find(
        {},
        dict.fromkeys(fields, True),
        sort=[("_id", -1)],
        limit=1,
        max_time_ms=deployment.connection.max_time_ms,
    )
    try:
        return any(len(fields & document.keys()) >= _ALIKE for document in newest)
    except OperationFailure:
        return False


def replica_set_config(name: str, member: str) -> Document:
    """A replica set of one member (host:port)."""
    return {"_id": name, "members": [{"_id": 0, "host": member}]}


def initiate_replica_set(client: MongoClient[Document], name: str, member: str) -> bool:
    """Make `member` (host:port) the first of replica set `name`; False if it is in one already.

    Returns when there is a primary to write to; TimeoutError if there is none within a minute.
    """
    try:
        client.admin.command("replSetInitiate", replica_set_config(name, member))
        initiated = True
    except OperationFailure as error:
        if error.code != _ALREADY_INITIALIZED:
            raise
        initiated = False
    deadline = time.monotonic() + _PRIMARY_TIMEOUT_S
    while not client.admin.command("hello")["isWritablePrimary"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Replica set {name} has no primary.")
        time.sleep(0.2)
    return initiated
