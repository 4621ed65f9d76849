"""Finds out from samples which fields of the contract the watched documents have.

It reads types, field names and statuses, and no other value of a document.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from pymongo.errors import ExecutionTimeout

from jobmon.domain import FINAL_ATTEMPT_STATUSES, FINAL_STATUSES, AttemptStatus, JobStatus
from jobmon.profiles import shipped_profiles
from jobmon.settings import Settings
from jobmon.setup.findings import Finding, printable, problem, warning
from jobmon.store.connection import Connection
from jobmon.store.labels import label
from jobmon.store.mapping import Document, FieldMapping
from jobmon.store.read_collection import ReadCollection

SAMPLE_SIZE = 200  # the newest documents of each collection
_SEARCHED_DOCUMENTS = 1_000  # in each of three samples: the newest, the oldest and random ones
_MAX_NAMES = 20  # names of fields in one message


@dataclass(frozen=True)
class Field:
    """A field of the contract: its types, and the consequence if documents lack it.

    With `statuses`, only documents with one of these statuses need the field. `alternative` is a
    field that can replace it. `is_essential`: jobmon is of little use without the field.
    """

    name: str
    types: tuple[str, ...]
    consequence: str
    is_essential: bool = False
    statuses: tuple[str, ...] = ()
    alternative: str | None = None


_NUMBER = ("int", "long", "double")
_DATE, _TEXT = ("date",), ("string",)
_IDS = ("string", "objectId", *_NUMBER, "binData")
_LABELS = (*_IDS, "bool", "symbol")  # MongoDB compares a symbol like a string
_STATUS_TYPES = ["string", *_NUMBER, "bool", "symbol"]  # types of statuses that warnings name
_FAILED = (JobStatus.FAILED, JobStatus.DLQ)

JOB_FIELDS = (
    Field("jobId", _IDS, "a job cannot be opened or followed", is_essential=True),
    Field("status", _LABELS, "every job counts as having no status", is_essential=True),
    Field("type", _LABELS, "jobs cannot be distinguished by type"),
    Field("createdAt", _DATE, "lists have no order, and ages are unknown", is_essential=True),
    Field("updatedAt", _DATE, "without a change stream, changes are found late"),
    Field("createdBy", _IDS, "only admins see jobs"),
    Field("payload", ("object",), "jobs are shown without their input"),
    Field("priority", _NUMBER, "no priority is shown"),
    Field("nextRunAt", _DATE, "due and scheduled jobs cannot be distinguished"),
    Field("maxAttempts", _NUMBER, "the number of attempts left is not shown"),
    Field("attemptCount", _NUMBER, "attempts are not counted in lists", alternative="attempts"),
    Field("leasedBy", _TEXT, "the worker is not shown", statuses=(JobStatus.LEASED,)),
    Field("leaseExpiresAt", _DATE, "expired leases are not detected", statuses=(JobStatus.LEASED,)),
    Field("finishedAt", _DATE, "dead jobs are not in the charts", statuses=FINAL_STATUSES),
    Field("lastError", ("object",), "errors are not shown in lists", statuses=_FAILED),
)
ATTEMPT_FIELDS = (
    Field("jobId", _IDS, "attempts cannot be matched to jobs", is_essential=True),
    Field("attemptNumber", _NUMBER, "attempts have no order", is_essential=True),
    Field(
        "status",
        _LABELS,
        "succeeded and failed attempts cannot be distinguished",
        is_essential=True,
    ),
    Field("workerId", _TEXT, "the worker is not shown"),
    Field("startedAt", _DATE, "wait and run times are unknown"),
    Field(
        "finishedAt",
        _DATE,
        "throughput and run times are unknown",
        statuses=FINAL_ATTEMPT_STATUSES,
    ),
    Field("error", ("object",), "an attempt's error is not shown", statuses=("failed",)),
)


def _list_required(
    fields: tuple[Field, ...], settings: Settings, always: Container[str]
) -> tuple[Field, ...]:
    """The fields that documents should have; `always`: those that the profile's program writes."""
    if settings.profile == Settings.profile:
        return fields
    # Other programs may omit optional fields, or store them in another form.
    return tuple(
        replace(field, is_essential=True, statuses=())
        for field in fields
        if field.is_essential or field.name in always
    )


class ExpectedFields(NamedTuple):
    """A collection, the fields that its documents should have, and their known statuses.

    People set other paths for the fields in the `table` of a profile's `file` or, without a file,
    in `setting`.
    """

    collection: ReadCollection
    fields: tuple[Field, ...]
    statuses: type[StrEnum]
    setting: str
    table: str
    file: str | None

    def write_paths(self, paths: Mapping[str, str]) -> str:
        """The part of a message that shows how to set these paths, by the names of their fields."""
        if self.file is None:
            return f"{self.setting}={','.join(f'{name}={path}' for name, path in paths.items())}"
        keys = {"status": f"{self.table.removesuffix('fields')}status.path"}
        lines = (
            f'{keys.get(name, f"{self.table}.{name}")} = "{path}"' for name, path in paths.items()
        )
        return f"{', '.join(lines)} in {self.file}"


def expected_fields(settings: Settings, connection: Connection) -> list[ExpectedFields]:
    """The fields that the documents of each watched collection should have."""
    profile, attempts = connection.profile, connection.attempts
    jobs = _list_required(JOB_FIELDS, settings, profile.always)
    file = "a profile of your own" if settings.queues is not None else None
    if settings.profile not in shipped_profiles():
        file = settings.profile
    expected = [
        ExpectedFields(connection.jobs, jobs, JobStatus, "JOBMON_JOB_FIELDS", "fields", file)
    ]
    if attempts is not None:
        always = () if profile.log is None else ("finishedAt",)
        fields = _list_required(ATTEMPT_FIELDS, settings, always)
        setting, table = "JOBMON_ATTEMPT_FIELDS", "attempts.fields"
        if profile.log is not None:
            file, table = file or "a profile of your own", "attempts.log.fields"
        expected.append(ExpectedFields(attempts, fields, AttemptStatus, setting, table, file))
    return expected


# What does not work if a profile computes a field, so that it has no index.
_COMPUTED_LIMITS = {
    "type": "a list that is filtered by type reads all jobs",
    "nextRunAt": "due and scheduled jobs are neither counted nor listed",
    "leaseExpiresAt": "expired leases are neither counted nor listed",
    "finishedAt": "finished attempts and dead jobs are not counted by time",
}


def list_computed_fields(mapping: FieldMapping) -> list[str]:
    """The fields that jobmon can only show, because they have no index, with the consequences."""
    return [
        f"{name} ({limit})"
        for name, limit in _COMPUTED_LIMITS.items()
        if name not in mapping.missing_fields
        and not mapping.can_query(name)
        and name not in (*mapping.alternatives, *mapping.constants)
    ]


def find_used_paths(
    watched: ReadCollection, paths: Iterable[str], *, require_value: bool = False
) -> set[str]:
    """The paths that occur in up to 3,000 documents: the newest, the oldest and random ones.

    `error.code` counts even where `error` is null, because `error` may be null until a job fails.
    With `require_value`, a path counts only where its value is not null.
    """
    paths_by_key = {f"p{index}": path for index, path in enumerate(sorted(set(paths)))}
    if not paths_by_key:
        return set()
    group: Document = {"_id": None}
    for key, path in paths_by_key.items():
        parent, _, leaf = path.rpartition(".")
        empty_types = ["missing", "null"] if require_value else ["missing"]
        is_present: Document = {"$not": [{"$in": [{"$type": f"${path}"}, empty_types]}]}
        if leaf and parent:
            # For a path through an array, MongoDB returns the array of its elements' values.
            is_present = {"$and": [is_present, {"$ne": [f"${path}", []]}]}
            if not require_value:
                is_present = {"$or": [is_present, {"$eq": [{"$type": f"${parent}"}, "null"]}]}
        group[key] = {"$max": is_present}
    limit: Document = {"$limit": _SEARCHED_DOCUMENTS}
    used: set[str] = set()
    for sample_stages in (
        [{"$sort": {"_id": -1}}, limit],
        [{"$sort": {"_id": 1}}, limit],
        [{"$sample": {"size": _SEARCHED_DOCUMENTS}}],
    ):
        try:
            rows = list(
                watched.collection.aggregate(
                    [*sample_stages, {"$group": group}], maxTimeMS=watched.max_time_ms
                )
            )
        except ExecutionTimeout:  # use only the other samples
            continue
        used |= {path for row in rows for key, path in paths_by_key.items() if row[key]}
    return used


class Sample:
    """The fields of the newest documents, and the types of the values. Index: _id."""

    def __init__(self, expected: ExpectedFields) -> None:
        watched, fields = expected.collection, expected.fields
        self._mapping = watched.mapping
        paths = self._mapping.paths
        is_status_derived = self._mapping.derived is not None
        self.name = watched.collection.name
        self._write_paths = expected.write_paths
        self._fields = [
            field
            for field in fields
            if field.name in paths and not (is_status_derived and field.name == "status")
        ]
        # Only types, names and statuses leave the database.
        types = {field.name: {"$type": f"${paths[field.name]}"} for field in self._fields}
        names = {"$map": {"input": {"$objectToArray": "$$ROOT"}, "in": "$$this.k"}}
        named_status: Any = None
        if "status" in paths and not is_status_derived:
            is_named = {"$in": [{"$type": f"${paths['status']}"}, _STATUS_TYPES]}
            named_status = {"$cond": [is_named, f"${paths['status']}", None]}
        pipeline: list[Document] = [
            {"$match": self._mapping.where},
            {"$sort": {"_id": -1}},
            {"$limit": SAMPLE_SIZE},
            {
                "$project": {
                    "_id": 0,
                    "types": types,
                    "names": names,
                    "status": {"$ifNull": [named_status, None]},
                }
            },
        ]
        self._documents = list(
            watched.collection.aggregate(pipeline, hint={"_id": 1}, maxTimeMS=watched.max_time_ms)
        )
        for document in self._documents:
            status = self._mapping.to_contract_status(document["status"])
            document["status"] = status if isinstance(status, str | None) else label(status)
        self.size = len(self._documents)

    def types(self, field: str) -> Counter[str]:
        """The number of documents that have the field, by its type."""
        counts = Counter(document["types"].get(field, "missing") for document in self._documents)
        del counts["missing"]
        return counts

    def count_without(self, path: str) -> int:
        """The number of documents that lack a mapped `path`, or have null there."""
        (field,) = (field for field in self._fields if self._mapping.paths[field.name] == path)
        types = [document["types"].get(field.name, "missing") for document in self._documents]
        return sum(name in ("missing", "null", "undefined") for name in types)

    def _list_field_names(self) -> list[str]:
        """The names of the documents' fields, the most frequent first."""
        names = Counter(name for document in self._documents for name in document["names"])
        return sorted(names, key=lambda name: (-names[name], name))

    def find_absent(self) -> Iterator[Finding]:
        """Findings for fields that are missing in every document that should have them."""
        names = set(self._list_field_names())
        for field in self._fields:
            documents = [
                document
                for document in self._documents
                if not field.statuses or document["status"] in field.statuses
            ]
            alternative = self._mapping.paths.get(field.alternative or "", "").partition(".")[0]
            if not documents or alternative in names:
                continue
            if any(document["types"][field.name] != "missing" for document in documents):
                continue
            path = self._mapping.paths[field.name]
            similar = [
                printable(name) for name in sorted(names) if _normalize(name) == _normalize(path)
            ]
            condition = f"with status {' or '.join(field.statuses)} " if field.statuses else ""
            report = problem if field.is_essential else warning
            yield report(
                "fields",
                f"None of the newest documents of {self.name} {condition}has {path} "
                f"({len(documents)} read): {field.consequence}.",
                remedy=f"If {similar[0]} is that field, set "
                f"{self._write_paths({field.name: similar[0]})}."
                if similar
                else None,
            )

    def explain_unusable(self) -> Finding | None:
        """The problem that essential fields are missing in every document, or None."""
        missing = [
            field
            for field in self._fields
            if field.is_essential and self.size and not self.types(field.name)
        ]
        if not missing:
            return None
        paths = [self._mapping.paths[field.name] for field in missing]
        names = [printable(name) for name in self._list_field_names()]
        listed = ", ".join(names[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else "")
        example = self._write_paths({field.name: "FIELD" for field in missing})
        return problem(
            "fields",
            f"None of the newest documents of {self.name} has {', '.join(paths)} "
            f"({self.size} read). They have {listed}.",
            remedy="If it is the right collection, map its field names: set "
            f"{example}; docs/adapters.md has examples.",
        )

    def find_odd_types(self) -> Iterator[Finding]:
        """Findings for fields with values of an unexpected type."""
        for field in self._fields:
            path = self._mapping.paths[field.name]
            expected = _IDS if path == "_id" else field.types
            if (date_form := self._mapping.readings.get(field.name)) is not None:
                expected = _TEXT if date_form == "iso" else _NUMBER
            counts = self.types(field.name)
            odd = sorted(name for name in counts if name not in (*expected, "null"))
            if odd:
                listed = ", ".join(f"{name} in {counts[name]} of {self.size}" for name in odd)
                yield warning(
                    "fields",
                    f"{path} in {self.name} should be {' or '.join(expected)}, but is "
                    f"{listed} documents. jobmon shows it, but cannot search by it.",
                )

    def find_unknown_statuses(self, known: type[StrEnum]) -> Iterator[Finding]:
        """A warning with the statuses that are not `known`, if there are any."""
        counts = Counter(
            document["status"] for document in self._documents if document["status"] is not None
        )
        unknown = {status: counts[status] for status in counts if status not in set(known)}
        if unknown:
            listed = ", ".join(f"{printable(name)} ({unknown[name]})" for name in sorted(unknown))
            yield warning(
                "fields",
                f"Unknown statuses in {self.name}: {listed}, of {self.size}. jobmon shows and "
                "counts them under their own names.",
            )


def _normalize(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
