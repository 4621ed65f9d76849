"""Creates the indexes that jobmon's queries need, and records which indexes it created."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pymongo import IndexModel
from pymongo.errors import ExecutionTimeout

from jobmon.rollup.documents import state_database
from jobmon.settings import Settings
from jobmon.setup.fields import find_used_paths
from jobmon.store.connection import Connection
from jobmon.store.indexes import Index, required_indexes
from jobmon.store.mapping import Document
from jobmon.store.read_collection import SIMPLE_COLLATION, exact_index_name

CREATED_INDEXES = "init_indexes"  # a collection of JOBMON_STATE_DB
FORMAT = 1
_SAMPLE = 1_000  # random documents, to estimate sizes
_ENTRY_BYTES = 6  # the size of an index entry without its values


class State(StrEnum):
    """Whether `jobmon init` has to create an index."""

    MISSING = "missing"
    EXISTS = "exists"
    UNUSED = "unused"  # no sampled document has its field


@dataclass(frozen=True)
class PlannedIndex:
    """An index that jobmon's queries use, and whether `jobmon init` has to create it."""

    index: Index
    state: State


def plan_indexes(
    settings: Settings,
    connection: Connection,
    collections: Collection[str],
    *,
    include_unused: bool = False,
) -> list[PlannedIndex]:
    """The indexes of these collections; with `include_unused`, none counts as unused."""
    required = [
        index for index in required_indexes(connection) if index.collection.name in collections
    ]
    unused = set() if include_unused else _unused_indexes(settings, connection, required)

    def find_state(index: Index) -> State:
        if index_exists(index):
            return State.EXISTS
        return State.UNUSED if str(index) in unused else State.MISSING

    return [PlannedIndex(index, find_state(index)) for index in required]


def create_indexes(connection: Connection, *, unique: bool = False) -> dict[str, str]:
    """Create every missing index; needs a user who may create indexes.

    Use this only if the documents follow the contract; `jobmon init` checks other queues first.
    Each collection gets its indexes in one command, so that MongoDB scans it once. Returns
    "created" or "exists" for each index, by its description.
    """
    outcome = {}
    by_collection: dict[str, list[Index]] = {}
    for index in required_indexes(connection):
        by_collection.setdefault(index.collection.full_name, []).append(index)
    for indexes in by_collection.values():
        collection = indexes[0].collection
        present = list(collection.list_indexes())
        models = []
        for index in indexes:
            exists = _has_index(present, index)
            outcome[str(index)] = "exists" if exists else "created"
            if not exists:
                options = _choose_options(index, present, unique=unique)
                models.append(IndexModel(index.keys, **options))
                present.append(models[-1].document)
        if models:
            collection.create_indexes(models)
    return outcome


def create_index(index: Index, *, unique: bool = False) -> str:
    """Create an index, `unique` where that is allowed; returns its name. Raises PyMongoError."""
    return index.collection.create_index(index.keys, **index_options(index, unique=unique))


def index_options(index: Index, *, unique: bool = False) -> dict[str, Any]:
    """The options for creating an index: its name, and each option that is not the default.

    The index compares by bytes, even in a collection with a collation. If possible it has the
    default name: if another program later creates the same index, MongoDB keeps this index. If
    other programs make such an index unique, the default name stays free, so that both can exist.
    """
    return _choose_options(index, list(index.collection.list_indexes()), unique=unique)


def _choose_options(
    index: Index, present: Sequence[Mapping[str, Any]], *, unique: bool
) -> dict[str, Any]:
    """The result of `index_options` for a collection that has the indexes `present`."""
    is_unique = unique and index.may_be_unique
    options: dict[str, Any] = {"name": default_name(index)}
    if any("collation" in existing for existing in present if existing["name"] == "_id_"):
        # The index on _id has the collection's collation.
        options |= {"name": exact_index_name(index.keys), "collation": SIMPLE_COLLATION}
    elif options["name"] in {existing["name"] for existing in present} or (
        index.may_be_unique and not is_unique
    ):
        options["name"] = f"jobmon_{default_name(index)}"
    partial = {} if index.partial is None else {"partialFilterExpression": index.partial}
    return options | partial | ({"unique": True} if is_unique else {})


def default_name(index: Index) -> str:
    """The name that drivers give to an index by default."""
    return "_".join(f"{field}_{order}" for field, order in index.keys)


def index_exists(required: Index) -> bool:
    """Whether an index with these keys covers the same documents and compares by bytes."""
    return _has_index(required.collection.list_indexes(), required)


def _has_index(present: Iterable[Mapping[str, Any]], required: Index) -> bool:
    return any(
        list(index["key"].items()) == required.keys
        and index.get("partialFilterExpression") == required.partial
        and not index.get("sparse")
        and not index.get("hidden")
        and "collation" not in index
        for index in present
    )


def estimate_bytes(index: Index, max_time_ms: int) -> int | None:
    """Estimate the size of an index from the values in a sample; None if that takes too long.

    MongoDB compresses keys with a common prefix, so that most indexes are smaller. An index of an
    empty collection has 0 bytes.
    """
    # The document with `v` has 8 bytes without its value. A missing value counts as 1 byte.
    widths = [
        {"$max": [{"$subtract": [{"$bsonSize": {"v": f"${path}"}}, 8]}, 1]}
        for path, _ in index.keys
    ]
    group = {"_id": None, "documents": {"$sum": 1}, "width": {"$avg": {"$add": widths}}}
    stages: list[Document] = [
        {"$sample": {"size": _SAMPLE}},
        {"$match": index.partial or {}},
        {"$group": group},
    ]
    try:
        rows = list(index.collection.aggregate(stages, maxTimeMS=max_time_ms))
        documents = index.collection.estimated_document_count(maxTimeMS=max_time_ms)
    except ExecutionTimeout:
        return None
    if not rows:
        return 0
    share: float = rows[0]["documents"] / max(1, min(documents, _SAMPLE))
    entry_bytes: float = _ENTRY_BYTES + rows[0]["width"]
    return round(documents * share * entry_bytes)


def _unused_indexes(settings: Settings, connection: Connection, required: list[Index]) -> set[str]:
    """The indexes, by description, whose field no sampled document has or may get later."""
    unused: set[str] = set()
    for watched in (connection.jobs, connection.attempts):
        if watched is None:
            continue
        candidates = {
            str(index): index.path
            for index in required
            if index.collection.name == watched.collection.name
            and index.path is not None
            and not _may_get_field_later(settings, index)
        }
        in_use = find_used_paths(watched, candidates.values())
        unused |= {name for name, path in candidates.items() if path not in in_use}
    return unused


def _may_get_field_later(settings: Settings, index: Index) -> bool:
    """Whether jobs of this profile may get the field later, even if no sampled job has it."""
    field = str(index.field).partition(".")[0]
    return settings.profile != Settings.profile and field not in settings.job_fields


class CreatedIndexes:
    """The record of indexes that `jobmon init` created; methods raise PyMongoError.

    The name of an index does not show who created it: usually the queue's own program would give
    the index the same name.
    """

    def __init__(self, connection: Connection) -> None:
        self._created = state_database(connection)[CREATED_INDEXES]

    @staticmethod
    def entry(index: Index, name: str) -> Document:
        """The record of an index, without the time."""
        return {
            "_id": f"{index.collection.full_name}/{name}",
            "format": FORMAT,
            "database": index.collection.database.name,
            "collection": index.collection.name,
            "name": name,
            "keys": [list(key) for key in index.keys],
        }

    def add(self, index: Index, name: str) -> None:
        entry = self.entry(index, name) | {"at": datetime.now(UTC)}
        self._created.replace_one({"_id": entry["_id"]}, entry, upsert=True)

    def list_entries(self, database: str, collections: Collection[str]) -> list[Document]:
        """The records of indexes of these collections, by collection and name."""
        query = {"database": database, "collection": {"$in": list(collections)}, "format": FORMAT}
        return list(self._created.find(query).sort("_id"))

    def forget(self, entry: Document) -> None:
        self._created.delete_one({"_id": entry["_id"]})
