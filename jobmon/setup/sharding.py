"""Reports how jobmon works differently on a sharded cluster: see docs/scaling.md."""

from collections.abc import Iterator, Mapping
from typing import Any

from pymongo import ReadPreference
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from jobmon.setup.deployment import Deployment
from jobmon.setup.findings import Finding, ok, warning
from jobmon.store.failures import is_unauthorized
from jobmon.store.indexes import BY_STATUS_AND_TYPE
from jobmon.store.mapping import Document

# The queries that one shard can answer alone, by the first field of the shard key.
_ON_ONE_SHARD = {
    "jobId": "a job by its id",
    "createdBy": "an owner's lists",
    "status": "lists by status",
    "type": "lists by type",
}


def check_sharding(deployment: Deployment) -> Iterator[Finding]:
    """Report the differences, and how watched collections are sharded; nothing without a mongos."""
    if not deployment.is_sharded:
        return
    yield ok(
        "sharding",
        "Through mongos, changes are seen when every shard has reached their time (up to 10 s if a "
        "shard is idle), and estimatedTotalJobs may include documents that are being moved.",
    )
    if deployment.connection.client.read_preference != ReadPreference.PRIMARY:
        yield warning(
            "sharding",
            f"The readPreference in {deployment.settings.uri_setting} has no effect: mongos does "
            "not report how far a secondary lags.",
            remedy="Remove it.",
        )
    for collection in deployment.watched_collections:
        if collection.name in deployment.kinds:
            yield from _describe_key(deployment, collection)


def _describe_key(deployment: Deployment, collection: Collection[Document]) -> Iterator[Finding]:
    name = collection.full_name
    try:
        key = _find_shard_key(deployment, collection)
    except OperationFailure as error:
        if not is_unauthorized(error):
            raise
        message = f"The shard key of {name} is unknown: the user may not read config.collections."
        yield ok("sharding", message)
        return
    if key is None:
        yield ok("sharding", f"{name} is not sharded: one shard answers every query.")
        return
    is_jobs = collection.name == deployment.connection.collection_names[0]
    mapping = deployment.connection.jobs.mapping
    fields = {path: field for field, path in mapping.paths.items()} if is_jobs else {}
    query = _ON_ONE_SHARD.get(fields.get(next(iter(key)), ""))
    answers = f"one shard answers {query}, all shards the other queries"
    yield ok(
        "sharding",
        f"{name} is sharded by {_format_key(key)}: "
        f"{answers if query else 'all shards answer every query'}.",
    )
    if any(fields.get(path) == "status" for path in key):
        yield warning(
            "sharding",
            "The shard key contains the status: a job moves to another shard when its status "
            "changes, and the change stream reports a deletion and a new job.",
            remedy="Choose a shard key that does not change.",
        )
    index_paths = {path for path, _ in mapping.translate_keys(BY_STATUS_AND_TYPE) or []}
    if is_jobs and mapping.has_status and not set(key) <= index_paths:
        yield warning(
            "sharding",
            "Without a collector, statistics read every job, because the index that counts them "
            "does not contain the shard key.",
            remedy="Run a collector.",
            commands=("jobmon collector",),
        )


def _find_shard_key(
    deployment: Deployment, collection: Collection[Document]
) -> Mapping[str, Any] | None:
    """The shard key; None if the collection is not sharded. Raises OperationFailure."""
    query = {"_id": collection.full_name, "dropped": {"$ne": True}}
    entry = deployment.connection.client["config"]["collections"].find_one(
        query, {"key": True}, max_time_ms=deployment.connection.max_time_ms
    )
    return None if entry is None else entry.get("key")


def _format_key(key: Mapping[str, Any]) -> str:
    """The key as text: `(jobId)` or `(hashed _id, createdAt)`."""
    parts = (f"hashed {path}" if order == "hashed" else path for path, order in key.items())
    return f"({', '.join(parts)})"
