"""The indexes that the queries of this package need: made by `jobmon init`, hinted by their keys.

Equality fields first, then the sort: (createdAt, _id) is the order of every list, newest first.
A hint by keys also finds an index that another program made under a name of its own.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pymongo import ASCENDING
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError

from jobmon.store.connection import Connection
from jobmon.store.names import Document, Keys
from jobmon.store.ordering import NEWEST_FIRST
from jobmon.store.watched import EXACTLY, Watched, name_of_exact

_STATUS, _TYPE, _OWNER = ("status", ASCENDING), ("type", ASCENDING), ("createdBy", ASCENDING)

JOB_ID: Keys = [("jobId", ASCENDING)]
BY_STATUS: Keys = [_STATUS, *NEWEST_FIRST]
BY_TYPE: Keys = [_TYPE, *NEWEST_FIRST]
BY_STATUS_AND_TYPE: Keys = [_STATUS, _TYPE, *NEWEST_FIRST]  # also covers the stats pipeline
# What may be filtered by beside the first field stands last: it is checked in the index.
BY_OWNER: Keys = [_OWNER, *NEWEST_FIRST, _TYPE]
BY_OWNER_AND_STATUS: Keys = [_OWNER, _STATUS, *NEWEST_FIRST, _TYPE]
BY_ERROR_CODE: Keys = [("lastError.code", ASCENDING), *NEWEST_FIRST, _STATUS, _TYPE]
BY_LEASE: Keys = [_STATUS, ("leaseExpiresAt", ASCENDING)]
BY_NEXT_RUN: Keys = [_STATUS, ("nextRunAt", ASCENDING), _TYPE]  # the type without the job
BY_WAITING: Keys = [("nextRunAt", ASCENDING), ("finishedAt", ASCENDING)]  # without a status
BY_FINISH: Keys = [_STATUS, ("finishedAt", ASCENDING)]
BY_UPDATE: Keys = [("updatedAt", ASCENDING)]  # for a collector without change streams
ATTEMPT: Keys = [("jobId", ASCENDING), ("attemptNumber", ASCENDING)]
ATTEMPT_FINISHED: Keys = [("finishedAt", ASCENDING)]

UNIQUE = (JOB_ID, ATTEMPT)


def _wanted(connection: Connection) -> list[tuple[Watched, Keys]]:
    """Every index, in the contract's words."""
    wanted = [
        JOB_ID,
        NEWEST_FIRST,
        BY_STATUS,
        BY_TYPE,
        BY_STATUS_AND_TYPE,
        BY_OWNER,
        BY_OWNER_AND_STATUS,
        BY_ERROR_CODE,
        BY_LEASE,
        BY_NEXT_RUN,
        BY_FINISH,
    ]
    if "setName" not in connection.client.admin.command("hello"):
        wanted.append(BY_UPDATE)
    if connection.attempts is None:
        wanted.append(ATTEMPT_FINISHED)
    jobs = [(connection.jobs, keys) for keys in wanted]
    if connection.attempts is None:
        return jobs
    return [*jobs, (connection.attempts, ATTEMPT), (connection.attempts, ATTEMPT_FINISHED)]


class Index(NamedTuple):
    """An index in the documents' words; as a text `collection(field, -field, …)`."""

    collection: Collection[Document]
    keys: Keys
    unique: bool

    def __str__(self) -> str:
        fields = (field if order == ASCENDING else f"-{field}" for field, order in self.keys)
        return f"{self.collection.name}({', '.join(fields)})"


def _in_their_words(connection: Connection) -> list[Index]:
    """Every index that the documents have the fields for."""
    said: dict[tuple[str, tuple[tuple[str, int], ...]], bool] = {}
    for watched, keys in _wanted(connection):
        theirs = watched.names.keys(keys)
        if theirs is not None and theirs != [("_id", ASCENDING)]:
            said.setdefault((watched.collection.name, tuple(theirs)), keys in UNIQUE)
    for keys in connection.profile.indexes:
        said.setdefault((connection.jobs.collection.name, tuple(keys)), False)
    database = connection.database
    return [Index(database[name], list(keys), unique) for (name, keys), unique in said.items()]


def create_indexes(connection: Connection) -> dict[str, str]:
    """Make what is missing; needs a user that may write. Returns what became of each index.

    A unique index that the data forbids is made without `unique`, and the answer says so.
    """
    outcome = {}
    for index in _in_their_words(connection):
        if _exists(index):
            outcome[str(index)] = "exists"
            continue
        try:
            _create(index, unique=index.unique)
            outcome[str(index)] = "created"
        except DuplicateKeyError:
            _create(index)
            outcome[str(index)] = "created, but not unique: the collection holds duplicates"
    return outcome


def _create(index: Index, *, unique: bool = False) -> None:
    """Make an index that compares by bytes, also where the collection's own would not."""
    options: dict[str, Any] = {"unique": unique, "collation": EXACTLY}
    if "collation" in index.collection.options():
        options["name"] = name_of_exact(index.keys)
    index.collection.create_index(index.keys, **options)


def missing_indexes(connection: Connection) -> list[Index]:
    """The wanted indexes that the watched collections lack."""
    return [index for index in _in_their_words(connection) if not _exists(index)]


def _exists(wanted: Index) -> bool:
    """Whether an index with these keys covers the whole collection and compares by bytes."""
    return any(
        list(index["key"].items()) == wanted.keys
        and not _is_partial(index)
        and "collation" not in index
        for index in wanted.collection.list_indexes()
    )


def _is_partial(index: Mapping[str, object]) -> bool:
    return "partialFilterExpression" in index or bool(index.get("sparse"))
