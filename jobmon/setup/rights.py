"""Compares the rights of the configured users with the rights that jobmon needs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from pymongo.errors import OperationFailure, PyMongoError

from jobmon.actions.records import DECISIONS
from jobmon.rollup.documents import STATE, rollup_database, state_database
from jobmon.settings import Settings
from jobmon.setup.deployment import Deployment
from jobmon.setup.findings import Finding, describe_cause, granted_actions, ok, problem, warning
from jobmon.setup.users import UserKind, list_state_rights
from jobmon.store.connection import Connection
from jobmon.store.failures import UNAUTHORIZED
from jobmon.store.mapping import Document
from jobmon.web.revocation import REVOKED

WRITES = frozenset(
    {"insert", "update", "remove", "createIndex", "dropIndex", "dropCollection", "collMod"}
    | {"dropDatabase", "renameCollectionSameDB", "convertToCapped", "bypassDocumentValidation"}
)
OWN_WRITES = frozenset({"insert", "update", "remove"})


def check_rights(deployment: Deployment, refused: list[tuple[str, str]]) -> Iterator[Finding]:
    """Report missing and unnecessary rights of the user; `refused`: see `find_refused_actions`."""
    if refused:
        yield _describe_missing(deployment, refused)
    elif deployment.users:
        names = ", ".join(f"{user['user']}@{user['db']}" for user in deployment.users)
        yield ok("rights", f"User {names} may read everything that jobmon reads.")
    if not deployment.users:
        yield warning(
            "rights",
            "This database has no authentication: anybody who reaches it may change everything.",
            remedy="Turn on authentication, then create a user who may only read.",
            commands=(deployment.init_command("--reader"),),
        )
        return
    for collection in deployment.watched_collections:
        actions = granted_actions(deployment.privileges, collection.database.name, collection.name)
        if writes := sorted(actions & WRITES):
            yield warning(
                "rights",
                f"The user may also change {collection.name} ({', '.join(writes)}); "
                "the web service and the collector do not need that.",
                remedy="Create a user who may only read.",
                commands=(deployment.init_command("--reader"),),
            )
    if deployment.has_own_databases:
        yield from _check_collector_rights(deployment)


def check_own_databases(deployment: Deployment) -> Iterator[Finding]:
    """Report whether the user may read jobmon's own databases, and a collector may write them."""
    settings = deployment.settings
    names = f"{settings.rollup_db} and {settings.state_db}"
    refused = [name for _, name, read in _list_own_reads(deployment) if not _is_allowed(read)]
    if refused:
        yield problem(
            "rights",
            f"The user may not read {' and '.join(refused)}.",
            remedy="Run `jobmon init` for a queue in this deployment; all other rights stay.",
            commands=(deployment.init_command("--reader"),),
        )
    else:
        yield ok("rights", f"jobmon's own databases, {names}, can be read.")
    if deployment.users:
        yield from _check_collector_rights(deployment)


def find_refused_actions(deployment: Deployment) -> list[tuple[str, str]]:
    """The required reads that are refused, as (action, name of a collection or database)."""
    return [
        (action, name) for action, name, read in _list_reads(deployment) if not _is_allowed(read)
    ]


def _describe_missing(deployment: Deployment, refused: list[tuple[str, str]]) -> Finding:
    """The problem of missing rights; the remedy may be to watch other, readable collections."""
    message = f"The user may not {'; may not '.join(map(' '.join, refused))}."
    unreadable = {name for action, name in refused if action == "read"}
    watched_names = set(deployment.connection.collection_names)
    readable = sorted(_list_readable_collections(deployment) - watched_names)
    if unreadable & watched_names and readable:
        # The user may read other collections: more rights would be the wrong remedy.
        lacking = " and ".join(sorted(unreadable & watched_names))
        jobs, attempts = map(
            deployment.settings.describe_setting, ("jobs_collection", "attempts_collection")
        )
        return problem(
            "rights",
            message,
            remedy=f"It may read {' and '.join(readable)}: set {jobs} or {attempts} if the queue "
            f"is there. Otherwise it is the user of another queue: create one for {lacking} with "
            "`jobmon init`.",
        )
    return problem(
        "rights",
        message,
        remedy="Run `jobmon init` to grant the missing rights; all other rights stay.",
        commands=(deployment.init_command("--reader"),),
    )


def _list_readable_collections(deployment: Deployment) -> set[str]:
    """The collections that the user may read by a right on the collection, not on the database."""
    database = deployment.connection.database.name
    return {
        name
        for privilege in deployment.privileges
        if privilege["resource"].get("db") == database and "find" in privilege["actions"]
        if (name := privilege["resource"].get("collection")) and not name.startswith("system.")
    }


def _check_collector_rights(deployment: Deployment) -> Iterator[Finding]:
    """Report whether a collector could write, with JOBMON_ROLLUP_URI if that is set."""
    settings, privileges = deployment.settings, deployment.privileges
    if settings.rollup_uri:
        try:
            privileges = read_privileges(replace(settings, mongo_uri=settings.rollup_uri))[1]
        except (PyMongoError, OSError, ValueError) as error:
            message = f"The collector's connection does not work: {describe_cause(error)}."
            yield problem("rights", message, remedy="Correct JOBMON_ROLLUP_URI.")
            return
    needed = [(settings.rollup_db, STATE, OWN_WRITES)]
    state_rights = list_state_rights(UserKind.COLLECTOR, has_actions=settings.actions)
    for name, rights in state_rights.items():  # for `jobmon revoke`, `mark` and `mute`
        needed.append((settings.state_db, name, frozenset(rights) - {"find"}))
    refused = [
        f"{database}.{name}"
        for database, name, writes in needed
        if not granted_actions(privileges, database, name) >= writes
    ]
    yield _describe_collector_writes(deployment, refused)
    decision_rights = granted_actions(privileges, settings.state_db, DECISIONS)
    if settings.rollup_uri and settings.actions and decision_rights & OWN_WRITES:
        yield warning(
            "rights",
            f"The collector's user may also write {settings.state_db}.{DECISIONS}: with its "
            "password, anybody can request actions.",
            remedy="Run `jobmon init` again: it replaces such rights of older versions.",
            commands=(deployment.init_command("--collector"),),
        )


def _describe_collector_writes(deployment: Deployment, refused: list[str]) -> Finding:
    """Whether a collector may write; `refused`: the names of collections that it may not write."""
    settings = deployment.settings
    databases = f"{settings.rollup_db} and {settings.state_db}"
    if not refused:
        return ok("rights", f"A collector may write {databases} with these settings.")
    if settings.rollup_uri or settings.collector:
        message = f"A collector may not write {', '.join(refused)} with these settings."
        remedy = "Set JOBMON_ROLLUP_URI to the connection string of a user for the collector."
        command = deployment.init_command("--collector")
        return problem("rights", message, remedy=remedy, commands=(command,))
    message = f"A collector may not write {', '.join(refused)} with these settings"
    return ok("rights", f"{message}; the web service does not need to.")


def _list_reads(deployment: Deployment) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """The reads of jobmon and its commands, as (action, name, a function that tries the read)."""
    connection = deployment.connection
    max_time_ms = connection.max_time_ms
    count_stages: list[Document] = [{"$collStats": {"count": {}}}]
    for collection in deployment.watched_collections:
        name = collection.name
        yield "read", name, partial(collection.find_one, {}, {"_id": True}, max_time_ms=max_time_ms)
        yield "list the indexes of", name, collection.list_indexes
        if name in deployment.kinds:  # a missing collection has no statistics
            statistics = partial(collection.aggregate, count_stages, maxTimeMS=max_time_ms)
            yield "read the size (collStats) of", name, statistics
    if deployment.has_own_databases:
        yield from _list_own_reads(deployment)


def _list_own_reads(deployment: Deployment) -> Iterator[tuple[str, str, Callable[[], object]]]:
    connection = deployment.connection
    for collection in (rollup_database(connection)[STATE], state_database(connection)[REVOKED]):
        read = partial(collection.find_one, {}, {"_id": True}, max_time_ms=connection.max_time_ms)
        yield "read", collection.database.name, read


def read_privileges(settings: Settings) -> tuple[list[Document], list[Document]]:
    """The users who are signed in, and their privileges; both empty without authentication."""
    with Connection(settings).client as client:
        status = client.admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    return status["authenticatedUsers"], status["authenticatedUserPrivileges"]


def _is_allowed(read: Callable[[], object]) -> bool:
    try:
        read()
    except OperationFailure as error:
        return error.code != UNAUTHORIZED  # later checks report all other failures
    return True
