"""The indexes that the queries of this package need: made by `jobmon init`, hinted by their keys.

Equality fields first, then the sort: (createdAt, _id) is the order of every list, newest first.
A hint by keys also finds an index that another program made under a name of its own.
"""

from collections.abc import Mapping

from pymongo import ASCENDING
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, OperationFailure

from jobmon.store.connection import Connection, Document
from jobmon.store.ordering import NEWEST_FIRST

Keys = list[tuple[str, int]]

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
BY_FINISH: Keys = [_STATUS, ("finishedAt", ASCENDING)]
BY_UPDATE: Keys = [("updatedAt", ASCENDING)]  # for a collector without change streams
ATTEMPT: Keys = [("jobId", ASCENDING), ("attemptNumber", ASCENDING)]
ATTEMPT_FINISHED: Keys = [("finishedAt", ASCENDING)]

UNIQUE = (JOB_ID, ATTEMPT)
_INDEX_OPTIONS_CONFLICT = (85, 86)


def _wanted(connection: Connection) -> list[tuple[Collection[Document], Keys]]:
    jobs = [
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
        jobs.append(BY_UPDATE)
    attempts = (ATTEMPT, ATTEMPT_FINISHED)
    return [(connection.jobs, keys) for keys in jobs] + [
        (connection.attempts, keys) for keys in attempts
    ]


def create_indexes(connection: Connection) -> dict[str, str]:
    """Make what is missing; needs a user that may write. Returns what became of each index.

    A unique index that the data forbids is made without `unique`, and the answer says so.
    """
    outcome = {}
    for collection, keys in _wanted(connection):
        name = _name(collection, keys)
        if _exists(collection, keys):
            outcome[name] = "exists"
            continue
        try:
            collection.create_index(keys, unique=keys in UNIQUE)
            outcome[name] = "created"
        except DuplicateKeyError:
            collection.create_index(keys)
            outcome[name] = "created, but not unique: the collection holds duplicates"
    return outcome


def missing_indexes(connection: Connection) -> list[str]:
    """The wanted indexes that the watched collections lack, as `collection(field, …)`."""
    return [
        _name(collection, keys)
        for collection, keys in _wanted(connection)
        if not _exists(collection, keys)
    ]


def _exists(collection: Collection[Document], keys: Keys) -> bool:
    """Whether an index with these keys covers the whole collection."""
    return any(
        list(index["key"].items()) == keys and not _is_partial(index)
        for index in collection.list_indexes()
    )


def _is_partial(index: Mapping[str, object]) -> bool:
    return "partialFilterExpression" in index or bool(index.get("sparse"))


def _name(collection: Collection[Document], keys: Keys) -> str:
    fields = ", ".join(field if order == ASCENDING else f"-{field}" for field, order in keys)
    return f"{collection.name}({fields})"


def is_bad_hint(error: OperationFailure) -> bool:
    """Whether a query failed only because the index that it hints at does not exist."""
    return error.code in (2, 27) and "hint" in str(error).lower()
