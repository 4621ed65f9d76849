"""`jobmon init --remove`: removes the users, roles and indexes that `jobmon init` created."""

from collections.abc import Iterator

from pymongo.errors import OperationFailure

from jobmon.settings import Settings
from jobmon.setup import script
from jobmon.setup.deployment import Deployment, admin_client
from jobmon.setup.findings import Finding, describe_cause, ok, problem
from jobmon.setup.indexes import CreatedIndexes, index_exists
from jobmon.setup.users import list_removable_users, remove_users
from jobmon.store.connection import Connection
from jobmon.store.indexes import required_indexes
from jobmon.store.mapping import Document


def remove(settings: Settings, *, dry_run: bool = False) -> Iterator[Finding]:
    """Remove users, roles and indexes of the queue; findings report what is removed or kept.

    With `dry_run`, report what would be removed, and write nothing. Raises SetupError.
    """
    with admin_client(settings) as client:
        deployment = Deployment.inspect(settings, Connection(settings, client))
        created = CreatedIndexes(deployment.connection)
        # Read the records first: without the right to read them, nothing is removed.
        entries = created.list_entries(deployment.roles.database, deployment.roles.collections)
        yield from remove_users(client, deployment.roles, dry_run=dry_run)
        for entry in entries:
            yield from _remove_index(deployment, created, entry, dry_run=dry_run)
        yield from _list_other_indexes(deployment, created, dry_run=dry_run)
        yield ok(
            "databases",
            f"{' and '.join(deployment.own_database_names)} are kept: they may hold data of other "
            "queues.",
        )


def script_removal(settings: Settings) -> Iterator[str]:
    """The steps of `remove` as lines for mongosh; writes nothing. Raises SetupError."""
    with admin_client(settings) as client:
        deployment = Deployment.inspect(settings, Connection(settings, client))
        roles = deployment.roles
        created = CreatedIndexes(deployment.connection)
        entries = created.list_entries(roles.database, roles.collections)
        present = [entry for entry in entries if _is_unchanged(deployment, entry)]
        users = list_removable_users(client, roles)
        yield from script.removal_lines(roles, users, present, settings.state_db)


def _remove_index(
    deployment: Deployment, created: CreatedIndexes, entry: Document, *, dry_run: bool
) -> Iterator[Finding]:
    name = f"{entry['collection']}: {entry['name']}"
    if not _is_unchanged(deployment, entry):
        yield ok("index", f"{name}: does not exist any more")
    elif dry_run:
        yield ok("index", f"{name}: would be removed")
    else:
        try:
            deployment.connection.database[entry["collection"]].drop_index(entry["name"])
        except OperationFailure as error:
            yield problem("index", f"{name}: could not be removed: {describe_cause(error)}.")
            return
        yield ok("index", f"{name}: removed")
    if not dry_run:
        created.forget(entry)


def _is_unchanged(deployment: Deployment, entry: Document) -> bool:
    """Whether the index still exists with the recorded keys."""
    indexes = deployment.connection.database[entry["collection"]].list_indexes()
    return any(
        index["name"] == entry["name"]
        and [list(key) for key in index["key"].items()] == entry["keys"]
        for index in indexes
    )


def _list_other_indexes(
    deployment: Deployment, created: CreatedIndexes, *, dry_run: bool
) -> Iterator[Finding]:
    """Report the indexes that jobmon uses but did not create."""
    roles = deployment.roles
    # Without `dry_run`, the indexes that jobmon created are removed already.
    entries = created.list_entries(roles.database, roles.collections) if dry_run else []
    created_keys = {(entry["collection"], str(entry["keys"])) for entry in entries}
    for index in required_indexes(deployment.connection):
        keys = str([list(key) for key in index.keys])
        if (index.collection.name, keys) not in created_keys and index_exists(index):
            yield ok("index", f"{index}: kept, `jobmon init` did not create it")
