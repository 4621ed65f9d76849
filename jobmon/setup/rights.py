"""What the users of the connection strings may do, against what jobmon needs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from pymongo.errors import OperationFailure, PyMongoError

from jobmon.rollup.documents import rollup_database
from jobmon.rollup.throughput import STATE
from jobmon.setup.deployment import Deployment
from jobmon.setup.findings import Finding, describe, granted, ok, problem, warning
from jobmon.store.connection import Connection
from jobmon.store.failures import UNAUTHORIZED
from jobmon.store.mapping import Document
from jobmon.web.revocation import REVOKED, state_database

_WRITES = frozenset(
    {"insert", "update", "remove", "createIndex", "dropIndex", "dropCollection", "collMod"}
    | {"dropDatabase", "renameCollectionSameDB", "convertToCapped", "bypassDocumentValidation"}
)
_OWN_WRITES = frozenset({"insert", "update", "remove"})


def check_rights(deployment: Deployment, refused: list[tuple[str, str]]) -> Iterator[Finding]:
    """What the user may do, given its `refusals`: too little, just right, or too much."""
    if refused:
        yield _missing(deployment, refused)
    elif deployment.users:
        names = ", ".join(f"{user['user']}@{user['db']}" for user in deployment.users)
        yield ok("rights", f"User {names} may read all that jobmon reads.")
    if not deployment.users:
        yield warning(
            "rights",
            "Nobody has to sign in to this database: who reaches it may read and change all.",
            do="Turn on its authentication, then make a user who may only read.",
            commands=(deployment.init_command("--reader USER"),),
        )
        return
    for watched in deployment.watched:
        actions = granted(deployment.privileges, watched.database.name, watched.name)
        if writes := sorted(actions & _WRITES):
            yield warning(
                "rights",
                f"The user may also change {watched.name} ({', '.join(writes)}); "
                "jobmon never does, and need not be able to.",
                do="Make a user who may only read.",
                commands=(deployment.init_command("--reader USER"),),
            )
    yield _rights_to_figures(deployment)


def refusals(deployment: Deployment) -> list[tuple[str, str]]:
    """What the user may not do, as (action, name of a collection or database)."""
    return [
        (action, name) for action, name, attempt in _needed(deployment) if not _is_allowed(attempt)
    ]


def _missing(deployment: Deployment, refused: list[tuple[str, str]]) -> Finding:
    """Which rights are missing; and first of all, whether the name is right."""
    says = f"The user may not {'; may not '.join(' '.join(each) for each in refused)}."
    unreadable = {name for action, name in refused if action == "read"}
    watched = set(deployment.connection.collections)
    others = sorted(_readable(deployment) - watched)
    if unreadable & watched and others:
        # A user that was made for another collection: more rights would be the wrong remedy.
        wrong = " and ".join(sorted(unreadable & watched))
        return problem(
            "rights",
            says,
            do=f"It may read {' and '.join(others)}: set JOBMON_JOBS_COLLECTION or "
            "JOBMON_ATTEMPTS_COLLECTION if the queue is there. Else it is a user of another "
            f"queue: let `jobmon init` make one of its own for {wrong}.",
        )
    return problem(
        "rights",
        says,
        do="Let `jobmon init` grant them; it takes no right away from anybody.",
        commands=(deployment.init_command("--reader USER"),),
    )


def _readable(deployment: Deployment) -> set[str]:
    """The collections of the database that privileges of the user name, to be read."""
    database = deployment.connection.database.name
    return {
        name
        for privilege in deployment.privileges
        if privilege["resource"].get("db") == database and "find" in privilege["actions"]
        if (name := privilege["resource"].get("collection")) and not name.startswith("system.")
    }


def _rights_to_figures(deployment: Deployment) -> Finding:
    """Whether a collector could write, as the user in JOBMON_ROLLUP_URI if that is set."""
    settings, privileges = deployment.settings, deployment.privileges
    if settings.rollup_uri:
        try:
            with Connection(replace(settings, mongo_uri=settings.rollup_uri)).client as client:
                status = client.admin.command("connectionStatus", showPrivileges=True)
        except (PyMongoError, OSError, ValueError) as error:
            says = f"The collector's connection does not work: {describe(error)}."
            return problem("rights", says, do="Correct JOBMON_ROLLUP_URI.")
        privileges = status["authInfo"]["authenticatedUserPrivileges"]
    own = {settings.rollup_db: STATE, settings.state_db: REVOKED}
    closed = [
        name for name, in_it in own.items() if not granted(privileges, name, in_it) >= _OWN_WRITES
    ]
    if not closed:
        both = " and ".join(own)
        return ok("rights", f"A collector may write {both} with these settings.")
    says = f"A collector may not write {' and '.join(closed)} with these settings"
    if settings.rollup_uri or settings.collector:
        do = "Give the collector a user of its own in JOBMON_ROLLUP_URI."
        command = deployment.init_command("--collector USER")
        return problem("rights", f"{says}.", do=do, commands=(command,))
    return ok("rights", f"{says}; the web service needs not.")


def _needed(deployment: Deployment) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Everything that jobmon does to read, to be tried."""
    connection = deployment.connection
    limit = connection.max_time_ms
    size: list[Document] = [{"$collStats": {"count": {}}}]
    for watched in deployment.watched:
        name = watched.name
        yield "read", name, partial(watched.find_one, {}, {"_id": True}, max_time_ms=limit)
        yield "list the indexes of", name, watched.list_indexes
        if name in deployment.kinds:  # a collection that does not exist has no statistics
            statistics = partial(watched.aggregate, size, maxTimeMS=limit)
            yield "read the size (collStats) of", name, statistics
    for own in (rollup_database(connection)[STATE], state_database(connection)[REVOKED]):
        read_own = partial(own.find_one, {}, {"_id": True}, max_time_ms=limit)
        yield "read", own.database.name, read_own


def _is_allowed(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OperationFailure as error:
        return error.code != UNAUTHORIZED  # any other failure is for a later check
    return True
