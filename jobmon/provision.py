"""What `jobmon init` makes in a deployment: replica set and users.

The web service never does any of this; it needs a user who may write.
"""

import time
from collections.abc import Iterable, Mapping

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure

from jobmon.settings import Settings
from jobmon.store.names import Document

READER_ROLE = "jobmonReader"
COLLECTOR_ROLE = "jobmonCollector"
# The last two are for `jobmon check`.
READING = ("find", "changeStream", "listIndexes", "collStats")
WRITING = ("find", "insert", "update", "remove", "createCollection", "createIndex")
_ALREADY_INITIALIZED = 23
_DUPLICATE = (51002, 51003)  # role, user
_PRIMARY_TIMEOUT_S = 60


def initiate_replica_set(client: MongoClient[Document], name: str, member: str) -> bool:
    """Make `member` (host:port) the first of replica set `name`; False if it is in one already.

    Returns when there is a primary to write to; TimeoutError if there is none within a minute.
    """
    config = {"_id": name, "members": [{"_id": 0, "host": member}]}
    try:
        client.admin.command("replSetInitiate", config)
        initiated = True
    except OperationFailure as error:
        if error.code != _ALREADY_INITIALIZED:
            raise
        initiated = False
    deadline = time.monotonic() + _PRIMARY_TIMEOUT_S
    while not client.admin.command("hello")["isWritablePrimary"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"replica set {name} has no primary")
        time.sleep(0.2)
    return initiated


def privileges_of_roles(
    database: str,
    collections: Iterable[str],
    rollup_db: str,
    state_db: str = Settings.state_db,
) -> dict[str, list[Document]]:
    """What the two roles may do: all of it, and nothing of it writes to `database`."""
    watched: list[Document] = [
        {"resource": {"db": database, "collection": name}, "actions": list(READING)}
        for name in collections
    ]
    own = [{"db": name, "collection": ""} for name in (rollup_db, state_db)]
    return {
        role: [*watched, *({"resource": resource, "actions": list(actions)} for resource in own)]
        for role, actions in ((READER_ROLE, ("find",)), (COLLECTOR_ROLE, WRITING))
    }


def create_users(
    client: MongoClient[Document],
    database: str,
    collections: Iterable[str],
    rollup_db: str,
    passwords: Mapping[str, str],
    *,
    collector: str | None = None,
    state_db: str = Settings.state_db,
) -> None:
    """Make (or bring up to date) users of `database`, who may read these collections.

    All of them may read jobmon's own databases, too; the one named `collector` may write those.
    """
    # A role that spans two databases can only be one of `admin`.
    roles = privileges_of_roles(database, collections, rollup_db, state_db)
    for role, privileges in roles.items():
        _create_or_update(client["admin"], "Role", role, {"privileges": privileges, "roles": []})
    for user, password in passwords.items():
        role = COLLECTOR_ROLE if user == collector else READER_ROLE
        fields = {"pwd": password, "roles": [{"role": role, "db": "admin"}]}
        _create_or_update(client[database], "User", user, fields)


def _create_or_update(database: Database[Document], kind: str, name: str, fields: Document) -> None:
    try:
        database.command({f"create{kind}": name, **fields})
    except OperationFailure as error:
        if error.code not in _DUPLICATE:
            raise
        database.command({f"update{kind}": name, **fields})
