"""The indexes that the queries of this package need: `jobmon init` creates them.

Equality fields come first, then the order of a list: by default (createdAt, _id), newest first.
Queries name an index by its keys: this hint also finds an index that another program has created.
"""

from collections.abc import Container
from typing import NamedTuple

from pymongo import ASCENDING
from pymongo.collection import Collection

from jobmon.store.connection import Connection
from jobmon.store.cursor import EARLIEST_FINISH_FIRST, NEWEST_FIRST, SOONEST_FIRST
from jobmon.store.event_log import EVENT, EVENT_TIME
from jobmon.store.mapping import Document, FieldMapping, Keys
from jobmon.store.profiles import Profile
from jobmon.store.queue_key import deployment_name
from jobmon.store.read_collection import ReadCollection, StoredIndex
from jobmon.store.repetition import INTERVAL, IS_SCHEDULE, TIME_OF_DAY

_STATUS, _TYPE, _OWNER = ("status", ASCENDING), ("type", ASCENDING), ("createdBy", ASCENDING)

JOB_ID: Keys = [("jobId", ASCENDING)]
BY_STATUS: Keys = [_STATUS, *NEWEST_FIRST]
BY_TYPE: Keys = [_TYPE, *NEWEST_FIRST]
BY_STATUS_AND_TYPE: Keys = [_STATUS, _TYPE, *NEWEST_FIRST]  # also covers the stats pipeline
# The last keys are for other filters of such a list: MongoDB checks these without reading the jobs.
BY_OWNER: Keys = [_OWNER, *NEWEST_FIRST, _TYPE]
BY_OWNER_AND_STATUS: Keys = [_OWNER, _STATUS, *NEWEST_FIRST, _TYPE]
BY_ERROR_CODE: Keys = [("lastError.code", ASCENDING), *NEWEST_FIRST, _STATUS, _TYPE]
BY_LEASE: Keys = [_STATUS, ("leaseExpiresAt", ASCENDING)]
BY_NEXT_RUN: Keys = [_STATUS, *SOONEST_FIRST, _TYPE]  # to count by type without reading a job
# Without a status field: BY_WAITING if nextRunAt decides whether a job waits, else BY_DUE_TIME.
BY_WAITING: Keys = [*SOONEST_FIRST, ("finishedAt", ASCENDING)]
BY_DUE_TIME: Keys = SOONEST_FIRST
BY_FINISH: Keys = [_STATUS, *EARLIEST_FINISH_FIRST]
# Only for filters: see `_FILTER_INDEXES`. Few jobs have several attempts or an error, and few
# priorities change, so most of these indexes cost little when a job changes.
BY_ATTEMPTS: Keys = [("attemptCount", ASCENDING), *NEWEST_FIRST, _STATUS, _TYPE]
BY_PRIORITY: Keys = [("priority", ASCENDING), *NEWEST_FIRST]
BY_TYPE_AND_FINISH: Keys = [_TYPE, _STATUS, *EARLIEST_FINISH_FIRST]
BY_CODE_AND_FINISH: Keys = [("lastError.code", ASCENDING), *EARLIEST_FINISH_FIRST, _STATUS, _TYPE]
BY_UPDATE: Keys = [("updatedAt", ASCENDING)]  # for a collector without change streams
ATTEMPT: Keys = [("jobId", ASCENDING), ("attemptNumber", ASCENDING)]
ATTEMPT_FINISHED: Keys = [("finishedAt", ASCENDING)]

# The indexes of all jobs, each with the field that it serves.
_JOB_INDEXES = (
    ("jobId", JOB_ID),
    ("createdAt", NEWEST_FIRST),
    ("status", BY_STATUS),
    ("type", BY_TYPE),
    ("status", BY_STATUS_AND_TYPE),
    ("createdBy", BY_OWNER),
    ("createdBy", BY_OWNER_AND_STATUS),
    ("lastError.code", BY_ERROR_CODE),
    ("leaseExpiresAt", BY_LEASE),
    ("nextRunAt", BY_NEXT_RUN),
    ("finishedAt", BY_FINISH),
)
# The values of leasedBy that are in `worker_index`: texts, except the empty text.
HAS_NAME: Document = {"$gt": ""}

# The least number of attempts of the jobs in BY_ATTEMPTS.
RETRIED = 2

# Unique by the contract, but `jobmon init` creates them as unique only with `--unique`.
UNIQUE = (JOB_ID, ATTEMPT)


def schedule_index(mapping: FieldMapping) -> Keys:
    """The index that has the scheduled jobs in the order of nextRunAt."""
    if mapping.has_status:
        return BY_NEXT_RUN
    return BY_WAITING if mapping.date_decides_waiting else BY_DUE_TIME


def date_index(field: str, mapping: FieldMapping) -> Keys:
    """The index that has all jobs with a date, other than createdAt, by which lists are ordered."""
    if field == "nextRunAt":
        return schedule_index(mapping)
    return BY_FINISH if field == "finishedAt" else BY_LEASE


def recurring_indexes(mapping: FieldMapping) -> dict[str, Keys]:
    """The partial indexes of recurring jobs in the order of nextRunAt, by the name of a path.

    The path holds the schedule of these jobs. Empty if there is no such path, or no nextRunAt.
    """
    if not mapping.can_query("nextRunAt"):
        return {}
    return {
        name: [*SOONEST_FIRST, (name, ASCENDING)]
        for name in (INTERVAL, TIME_OF_DAY)
        if name in mapping.paths
    }


def search_index(field: str) -> Keys:
    """The partial index of the jobs that have this field of the payload.

    The fields of the index rarely change, so most changes of a job do not write to it.
    """
    return [(field, ASCENDING), *NEWEST_FIRST]


class ListIndex(NamedTuple):
    """An index for lists, with the contract's names.

    `setting`: its name in JOBMON_FILTERS, if only filters need it. `is_chosen`: whether that
    setting has this name. `partial`: the filter of a partial index; if empty, the index has the
    jobs that match a filter by its first key. None for an index of all jobs. `needs`: the fields
    that a filter must have for this index.
    """

    keys: Keys
    setting: str = ""
    is_chosen: bool = True
    partial: Document | None = None
    needs: frozenset[str] = frozenset()


# By the name in JOBMON_FILTERS: the indexes that only these filters need.
_FILTER_INDEXES: dict[str, tuple[ListIndex, ...]] = {
    "attempts": (
        ListIndex(
            BY_ATTEMPTS,
            partial={"attemptCount": {"$gte": RETRIED}},
            needs=frozenset({"attemptCount"}),
        ),
    ),
    "finished": (
        ListIndex(
            BY_TYPE_AND_FINISH,
            partial={"finishedAt": {"$type": "date"}},
            needs=frozenset({"type", "finishedAt"}),
        ),
        ListIndex(
            BY_CODE_AND_FINISH,
            partial={"lastError.code": {"$exists": True}},
            needs=frozenset({"lastError.code", "finishedAt"}),
        ),
    ),
    "priority": (ListIndex(BY_PRIORITY, needs=frozenset({"priority"})),),
}


def filter_indexes(mapping: FieldMapping, chosen: Container[str]) -> list[ListIndex]:
    """The indexes that only filters need, without those of which the documents lack a field.

    `chosen` is JOBMON_FILTERS.
    """
    result = []
    for name, entries in _FILTER_INDEXES.items():
        for index in entries:
            # A status that is computed is in no index.
            keys = [key for key in index.keys if key != _STATUS or mapping.has_status]
            has_fields = all(map(mapping.can_query, index.needs))
            if has_fields and mapping.translate_keys(keys) is not None:
                result.append(index._replace(keys=keys, setting=name, is_chosen=name in chosen))
    return result


def make_list_indexes(profile: Profile, chosen: Container[str]) -> list[ListIndex]:
    """Every index for lists, except lists of recurring jobs; `chosen` is JOBMON_FILTERS."""
    mapping = profile.jobs
    always = [[("_id", ASCENDING)], *(keys for _, keys in _JOB_INDEXES), BY_WAITING, BY_DUE_TIME]
    by_lease = lease_index(profile)
    if by_lease is not None and not isinstance(by_lease, StoredIndex):
        always.append(by_lease)
    partial = [search_index(name) for name in mapping.search_paths]
    if (by_worker := worker_index(mapping)) is not None:
        partial.append(by_worker)
    return [
        *map(ListIndex, always),
        *(ListIndex(keys, partial={}) for keys in partial),
        *filter_indexes(mapping, chosen),
    ]


def worker_index(mapping: FieldMapping) -> Keys | None:
    """The partial index of the jobs that name a worker.

    None if no document names a worker, or if only jobs with certain statuses name one: then an
    index by status finds them.
    """
    if not mapping.can_query("leasedBy") or "leasedBy" in mapping.only_in:
        return None
    status = [_STATUS] if mapping.has_status else []
    return [("leasedBy", ASCENDING), *NEWEST_FIRST, *status, _TYPE]


def worker_attempt_index(profile: Profile) -> Keys | None:
    """The index for the newest attempts of a worker.

    None if attempts are not recorded, or only as events, or without a worker or a date.
    """
    attempts = profile.attempts
    if attempts is None or profile.log is not None or not attempts.can_query("workerId"):
        return None
    for name in ("startedAt", "finishedAt"):
        if attempts.can_query(name):
            # Not with jobId: then attempts with arrays in two of the fields could not be inserted.
            return [("workerId", ASCENDING), (name, ASCENDING)]
    return None


def attempt_index(profile: Profile) -> Keys:
    """The index for the attempts, or events, of a job in their order."""
    if profile.log is not None:
        return EVENT
    for name in ("attemptNumber", "startedAt", "finishedAt"):
        if profile.attempts is not None and profile.attempts.can_query(name):
            return [("jobId", ASCENDING), (name, ASCENDING)]
    return [("jobId", ASCENDING)]


def lease_index(profile: Profile) -> Keys | StoredIndex | None:
    """The index in whose order workers take due jobs; None if that order is unknown."""
    lease = profile.lease
    if lease is None:
        return None
    if lease.index:
        return StoredIndex(list(lease.index))
    status = [_STATUS] if profile.jobs.has_status else []
    if lease.each_type:
        return [*status, _TYPE, *lease.order]
    return [*status, *lease.order, _TYPE]  # to count by type without reading a job


def attempt_end_index(profile: Profile) -> Keys:
    """The index for the attempts that ended in a window of time."""
    return ATTEMPT_FINISHED if profile.log is None else EVENT_TIME


def _list_full_indexes(connection: Connection) -> list[tuple[ReadCollection, str, Keys]]:
    """(collection, served field, contract keys) of each index that has all documents."""
    job_indexes = list(_JOB_INDEXES)
    by_lease = lease_index(connection.profile)
    if by_lease is not None and not isinstance(by_lease, StoredIndex):
        job_indexes.append(("nextRunAt", by_lease))
    if deployment_name(connection.client.admin.command("hello")) is None:
        job_indexes.append(("updatedAt", BY_UPDATE))
    if connection.profile.reads_last_attempt:
        job_indexes.append(("finishedAt", ATTEMPT_FINISHED))
    jobs = [(connection.jobs, field, keys) for field, keys in job_indexes]
    if connection.attempts is None:
        return jobs
    by_worker = worker_attempt_index(connection.profile)
    return [
        *jobs,
        (connection.attempts, "jobId", attempt_index(connection.profile)),
        (connection.attempts, "finishedAt", attempt_end_index(connection.profile)),
        *([] if by_worker is None else [(connection.attempts, "workerId", by_worker)]),
    ]


class Index(NamedTuple):
    """An index with the documents' names; its text is `collection(field, -field, …)`.

    `field`: the contract's field that it serves, at `path` in the documents. Both are None for an
    index of a profile, a searched field or recurring jobs. `may_be_unique`: the contract requires
    unique values. `partial`: the filter of a partial index; None if the index has all documents.
    `setting`: its name in JOBMON_FILTERS, if only filters of lists need it.
    """

    collection: Collection[Document]
    keys: Keys
    may_be_unique: bool = False
    field: str | None = None
    path: str | None = None
    partial: Document | None = None
    setting: str = ""

    def __str__(self) -> str:
        fields = (field if order == ASCENDING else f"-{field}" for field, order in self.keys)
        return f"{self.collection.name}({', '.join(fields)})"


def required_indexes(connection: Connection) -> list[Index]:
    """Every index that jobmon needs and whose fields have a path, with the documents' names."""
    required: dict[tuple[str, tuple[tuple[str, int], ...]], Index] = {}
    for collection, field, keys in _list_full_indexes(connection):
        translated = collection.mapping.translate_keys(keys)
        if translated is None or translated == [("_id", ASCENDING)]:
            continue
        order = collection.mapping.translate_order([(field, ASCENDING)])
        path = order[0][0] if order else None
        index = Index(collection.collection, translated, keys in UNIQUE, field, path)
        required.setdefault((collection.collection.name, tuple(translated)), index)
    jobs = connection.jobs.collection
    for keys in connection.profile.indexes:
        required.setdefault((jobs.name, tuple(keys)), Index(jobs, list(keys)))
    partial_indexes = filter_indexes(connection.jobs.mapping, connection.settings.filters)
    if (by_worker := worker_index(connection.jobs.mapping)) is not None:
        partial_indexes.insert(0, ListIndex(by_worker, partial={"leasedBy": HAS_NAME}))
    for listed in partial_indexes:
        if listed.is_chosen:
            filtered = _make_partial_index(connection.jobs, listed)
            required.setdefault((jobs.name, tuple(filtered.keys)), filtered)
    for name, path in connection.jobs.mapping.search_paths.items():
        keys = connection.jobs.mapping.translate_keys(search_index(name)) or []
        # Without `field` and `path`, the index is created even if no sampled job has the field.
        required[jobs.name, tuple(keys)] = Index(jobs, keys, partial={path: {"$exists": True}})
    for name, recurring in recurring_indexes(connection.jobs.mapping).items():
        keys = connection.jobs.mapping.translate_keys(recurring) or []
        partial = connection.jobs.mapping.translate_query({name: IS_SCHEDULE})
        required[jobs.name, tuple(keys)] = Index(jobs, keys, partial=partial)
    return list(required.values())


def _make_partial_index(jobs: ReadCollection, index: ListIndex) -> Index:
    keys = jobs.mapping.translate_keys(index.keys) or []
    field = next(iter(index.partial or dict(index.keys)))
    ((path, _),) = jobs.mapping.translate_order([(field, ASCENDING)])
    partial = None if index.partial is None else jobs.mapping.translate_query(index.partial)
    return Index(jobs.collection, keys, False, field, path, partial, index.setting)
