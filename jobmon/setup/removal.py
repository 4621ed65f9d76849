"""`jobmon init --remove`: what `jobmon init` made for a queue, and nothing that others made."""

from collections.abc import Iterator

from pymongo.errors import OperationFailure

from jobmon.settings import Settings
from jobmon.setup import script
from jobmon.setup.deployment import Deployment, as_admin
from jobmon.setup.findings import Finding, describe, ok, problem
from jobmon.setup.indexes import MadeIndexes, exists
from jobmon.setup.users import remove_users, users_to_drop
from jobmon.store.indexes import required_indexes
from jobmon.store.mapping import Document


def remove(settings: Settings, *, dry_run: bool = False) -> Iterator[Finding]:
    """Remove users, roles and indexes of the queue; each finding has what became of one.

    With `dry_run` what would become of it; nothing is written then. Raises SetupError.
    """
    with as_admin(settings) as client:
        deployment = Deployment.of_admin(settings, client)
        made = MadeIndexes(deployment.connection)
        # Read first: without the right to it nothing is removed.
        entries = made.of(deployment.roles.database, deployment.roles.collections)
        yield from remove_users(client, deployment.roles, dry_run=dry_run)
        for entry in entries:
            yield from _remove_index(deployment, made, entry, dry_run=dry_run)
        yield from _others(deployment, made, dry_run=dry_run)
        yield ok(
            "figures",
            f"{' and '.join(deployment.roles.own_databases)} stay: they may hold what belongs to "
            "other queues.",
        )


def script_removal(settings: Settings) -> Iterator[str]:
    """What `remove` would remove, as lines for mongosh; writes nothing. Raises SetupError."""
    with as_admin(settings) as client:
        deployment = Deployment.of_admin(settings, client)
        roles = deployment.roles
        made = MadeIndexes(deployment.connection)
        entries = made.of(roles.database, roles.collections)
        present = [entry for entry in entries if _is_there(deployment, entry)]
        users = users_to_drop(client, roles)
        yield from script.removal_lines(roles, users, present, settings.state_db)


def _remove_index(
    deployment: Deployment, made: MadeIndexes, entry: Document, *, dry_run: bool
) -> Iterator[Finding]:
    name = f"{entry['collection']}: {entry['name']}"
    if not _is_there(deployment, entry):
        yield ok("index", f"{name}: is gone already")
    elif dry_run:
        yield ok("index", f"{name}: would be removed")
    else:
        try:
            deployment.connection.database[entry["collection"]].drop_index(entry["name"])
        except OperationFailure as error:
            yield problem("index", f"{name}: could not be removed: {describe(error)}.")
            return
        yield ok("index", f"{name}: removed")
    if not dry_run:
        made.forget(entry)


def _is_there(deployment: Deployment, entry: Document) -> bool:
    """Whether the index is still the one that was made."""
    indexes = deployment.connection.database[entry["collection"]].list_indexes()
    return any(
        index["name"] == entry["name"]
        and [list(key) for key in index["key"].items()] == entry["keys"]
        for index in indexes
    )


def _others(deployment: Deployment, made: MadeIndexes, *, dry_run: bool) -> Iterator[Finding]:
    """Indexes that jobmon uses and others made."""
    known = made.of(deployment.roles.database, deployment.roles.collections) if dry_run else []
    ours = {(entry["collection"], str(entry["keys"])) for entry in known}
    for index in required_indexes(deployment.connection):
        keys = str([list(key) for key in index.keys])
        if (index.collection.name, keys) not in ours and exists(index):
            yield ok("index", f"{index}: stays, `jobmon init` did not make it")
