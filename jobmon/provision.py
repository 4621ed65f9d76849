"""What `jobmon init` makes in a deployment: replica set, read-only user, indexes.

The web service never does any of this; it needs a user who may write.
"""

import time
from collections.abc import Iterable

from pymongo import MongoClient
from pymongo.errors import OperationFailure

from jobmon.store.connection import Document

READER_ROLE = "jobmonReader"
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


def create_reader(
    client: MongoClient[Document],
    database: str,
    collections: Iterable[str],
    user: str,
    password: str,
) -> None:
    """Make (or bring up to date) a user of `database` who may read these collections, no more."""
    actions = ["find", "listIndexes", "collStats", "changeStream"]
    privileges = [
        {"resource": {"db": database, "collection": name}, "actions": actions}
        for name in collections
    ]
    commands: tuple[tuple[str, str, Document], ...] = (
        ("Role", READER_ROLE, {"privileges": privileges, "roles": []}),
        ("User", user, {"pwd": password, "roles": [READER_ROLE]}),
    )
    for kind, name, fields in commands:
        try:
            client[database].command({f"create{kind}": name, **fields})
        except OperationFailure as error:
            if error.code not in _DUPLICATE:
                raise
            client[database].command({f"update{kind}": name, **fields})
