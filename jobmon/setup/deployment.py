"""Inspects a deployment: its kind, its collections, and the user who is signed in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import OperationFailure, PyMongoError

from jobmon.actions.support import ActionSupport
from jobmon.humanize import count
from jobmon.profiles import load_profile
from jobmon.settings import MAPPING_SETTINGS, Settings
from jobmon.setup.findings import (
    Finding,
    SetupError,
    explain_failure,
    format_setting,
    problem,
    quote_shell,
)
from jobmon.setup.users import (
    ActionRights,
    OwnDatabaseNames,
    QueueRoles,
    UserKind,
    connection_string,
)
from jobmon.store.connection import DEFAULT_DATABASE, Connection
from jobmon.store.failures import UNAUTHORIZED
from jobmon.store.mapping import Document
from jobmon.store.queue_key import SHARDED_CLUSTER, deployment_name

_MAX_SEARCHED = 50  # other collections, and other databases, that are searched for jobs
_MIN_COMMON_FIELDS = 3  # a document with this many of a job's fields may be a job
_TYPICAL_JOB_FIELDS = frozenset({"jobId", "status", "type", "payload", "nextRunAt", "maxAttempts"})
COLLECTION_SETTINGS = ("jobs_collection", "attempts_collection")
ADMIN_URI = "JOBMON_ADMIN_MONGO_URI"  # the setting with the administrator's connection string
_SERVER_SELECTION_MS = 10_000  # the default for that connection string


@dataclass(frozen=True)
class Deployment:
    """A deployment, as the user in the connection string sees it.

    `hello` is the server's reply to the command `hello`. `kinds` maps each collection that the user
    may list to `collection`, `view` or `timeseries`; it is empty for a user without any right.
    `has_own_databases`: whether jobmon's own databases are in this deployment, so that the user
    needs rights on them.
    """

    settings: Settings
    connection: Connection
    hello: Document
    users: list[Document]
    privileges: list[Document]
    kinds: dict[str, str]
    has_own_databases: bool = True

    @classmethod
    def inspect(
        cls, settings: Settings, connection: Connection, *, has_own_databases: bool = True
    ) -> Self:
        """Inspect a deployment; raises PyMongoError if it does not answer or refuses the user."""
        admin = connection.client.admin
        hello = admin.command("hello")
        status = admin.command("connectionStatus", showPrivileges=True)["authInfo"]
        users = status["authenticatedUsers"]
        kinds = {}
        try:
            infos = connection.database.list_collections(nameOnly=True, authorizedCollections=True)
            kinds = {info["name"]: info["type"] for info in infos}
        except OperationFailure as error:
            if error.code != UNAUTHORIZED or not users:
                raise
        privileges = status["authenticatedUserPrivileges"]
        return cls(settings, connection, hello, users, privileges, kinds, has_own_databases)

    @property
    def watched_collections(self) -> list[Collection[Document]]:
        """The collections that jobmon reads, the jobs first."""
        database = self.connection.database
        return [database[name] for name in self.connection.collection_names]

    @property
    def roles(self) -> QueueRoles:
        """The roles of the queue, without the actor's role."""
        return QueueRoles(
            self.connection.database.name,
            self.connection.collection_names,
            self.own_database_names if self.has_own_databases else None,
        )

    @property
    def own_database_names(self) -> OwnDatabaseNames:
        """The names of jobmon's own databases, which may be in another deployment."""
        return OwnDatabaseNames(self.settings.rollup_db, self.settings.state_db)

    def action_rights(self, support: ActionSupport) -> ActionRights:
        """The rights of an actor's user for this queue; the queue must have actions."""
        is_jobmon_queue = support.transitions is None
        names = self.connection.collection_names
        return ActionRights(
            # Only in the format of jobmon's library do actions change attempts.
            collections=names if is_jobmon_queue else names[:1],
            may_pause=is_jobmon_queue,
            may_delete=self.settings.actions_allow_delete,
        )

    @property
    def replica_set(self) -> str | None:
        """The name of the replica set; None for another kind of deployment."""
        return self.hello.get("setName")

    @property
    def is_sharded(self) -> bool:
        """Whether the server is a mongos."""
        return deployment_name(self.hello) == SHARDED_CLUSTER

    def describe_kind(self) -> str:
        """The kind in words, such as `replica set rs0, 3 members`."""
        if self.is_sharded:
            return "a sharded cluster"
        if self.replica_set is not None:
            return f"replica set {self.replica_set}, {count(len(self.hello['hosts']), 'member')}"
        return "a standalone server"

    def init_command(self, option: str = "") -> str:
        """The command line of `jobmon init` for this queue, with placeholders for secrets.

        `option`: `--create`, or the kind of a user to create: `--reader`, `--collector`, `--actor`.
        """
        words = [*self._list_variables(), f"{ADMIN_URI}={quote_shell(self._make_admin_uri())}"]
        kind = option.removeprefix("--")
        creates_user = kind in list(UserKind)
        if creates_user:
            words.append(f"JOBMON_{kind.upper()}_PASSWORD=…")
        words.append("jobmon init")
        if self.settings.queues is not None and self.settings.queue:
            words.append(f"--queue {self.settings.queue}")
        if option:
            words.append(f"{option} USER" if creates_user else option)
        return " ".join(words)

    def _list_variables(self) -> Iterator[str]:
        """The settings for the command that differ from their defaults, as a shell sets them."""
        settings, names = self.settings, MAPPING_SETTINGS
        if settings.queues is not None:
            yield f"JOBMON_QUEUES={quote_shell(settings.queues)}"
            names = ()
        profile = load_profile(settings.profile)
        defaults = Settings(
            mongo_uri="",
            jobs_collection=profile.collection,
            attempts_collection=profile.attempts_collection or Settings.attempts_collection,
        )
        # Redacted keys decide which search fields are allowed.
        redaction = ("redact_keys",) if settings.search_fields else ()
        for name in (*names, *redaction, "rollup_db", "state_db"):
            if (value := getattr(settings, name)) != getattr(defaults, name):
                yield f"JOBMON_{name.upper()}={quote_shell(format_setting(value))}"

    def _make_admin_uri(self) -> str:
        user = "ADMIN" if self.users else ""
        name = self.connection.database.name
        uri = self.settings.mongo_uri
        return connection_string(uri, user, name, self.replica_set, auth_source="admin")


@contextmanager
def admin_client(settings: Settings, setting: str = ADMIN_URI) -> Iterator[MongoClient[Document]]:
    """A client for `settings.mongo_uri`; messages name `setting`. Raises SetupError."""
    no_user_remedy = (
        f"Put an administrator into {setting}: "
        "mongodb://USER:PASSWORD@HOST/DATABASE?authSource=admin"
    )
    uri = settings.mongo_uri
    options: dict[str, Any] = {"appname": "jobmon init"}
    if "serverselectiontimeoutms=" not in uri.lower():
        options["serverSelectionTimeoutMS"] = _SERVER_SELECTION_MS
    try:
        with MongoClient[Document](uri, **options) as client:
            yield client
    except (PyMongoError, OSError, ValueError) as error:
        raise SetupError(explain_failure(error, uri, setting, no_user_remedy)) from None


def explain_unsuitable_kind(name: str, kind: str, setting: str) -> Finding | None:
    """The problem that the collection `name` has an unsuitable kind; None if it is suitable."""
    reasons = {
        "view": "is a view: it has no indexes and no change stream.",
        "timeseries": "is a time series collection: its documents cannot change, and it has no "
        "change stream.",
    }
    if (reason := reasons.get(kind)) is None:
        return None
    remedy = f"Set {setting} to an ordinary collection, such as the one behind a view."
    return problem("collections", f"{name} {reason}", remedy=remedy)


def find_jobs_elsewhere(deployment: Deployment, setting: str | None = None) -> str | None:
    """A remedy that names the collections or databases where the jobs may be, or None.

    `setting`: the name of the setting with the connection string, by default the queue's.
    """
    setting = setting or deployment.settings.uri_setting
    jobs, rollup_db = deployment.watched_collections[0], deployment.settings.rollup_db
    unwatched = deployment.kinds.keys() - set(deployment.connection.collection_names)
    similar = [
        name
        for name in sorted(unwatched)[:_MAX_SEARCHED]
        if not name.startswith("system.") and _looks_like_jobs(deployment, name)
    ]
    if similar:
        jobs_setting = deployment.settings.describe_setting("jobs_collection")
        return f"These look like jobs: {', '.join(similar)}. Set {jobs_setting} to one."
    client = deployment.connection.client
    skipped = {"admin", "config", "local", rollup_db, jobs.database.name}
    try:
        databases = [
            name
            for name in sorted(set(client.list_database_names()) - skipped)[:_MAX_SEARCHED]
            if jobs.name in client[name].list_collection_names(authorizedCollections=True)
        ]
    except OperationFailure:  # the user may not list databases
        return None
    if databases:
        return (
            f"There is a collection {jobs.name} in: {', '.join(databases)}. "
            f"Add /DATABASE to the address in {setting}; the default is {DEFAULT_DATABASE}."
        )
    return None


def _looks_like_jobs(deployment: Deployment, name: str) -> bool:
    paths = deployment.connection.jobs.mapping.paths
    fields = {paths[field] for field in _TYPICAL_JOB_FIELDS & paths.keys()} - {"_id"}
    newest = deployment.connection.database[name].find(
        {},
        dict.fromkeys(fields, True),
        sort=[("_id", -1)],
        limit=1,
        max_time_ms=deployment.connection.max_time_ms,
    )
    try:
        return any(len(fields & document.keys()) >= _MIN_COMMON_FIELDS for document in newest)
    except OperationFailure:
        return False
