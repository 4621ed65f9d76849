"""Which fields of the contract documents have, found in samples of them.

Types, names of fields and statuses are read: nothing else that the documents hold.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pymongo.errors import ExecutionTimeout

from jobmon.domain import AttemptStatus, JobStatus
from jobmon.settings import Settings
from jobmon.setup.findings import Finding, Level, printable, problem, warning
from jobmon.store.connection import Connection
from jobmon.store.mapping import Document
from jobmon.store.read_collection import ReadCollection

SAMPLE = 200  # newest documents of each collection whose fields are looked at
_LOOKED_THROUGH = 1_000  # for a field of any document: so many of the newest, oldest and random
_NAMED = 20  # names of fields in one message


@dataclass(frozen=True)
class Field:
    """What a field of the contract holds, and what is lost without it.

    It is looked for in documents with one of `statuses` only, if there are any named. `instead`
    serves as well. Without an `essential` one there is not much to show.
    """

    name: str
    types: tuple[str, ...]
    lost: str
    essential: bool = False
    statuses: tuple[str, ...] = ()
    instead: str | None = None


_NUMBER = ("int", "long", "double")
_DATE, _TEXT = ("date",), ("string",)
_FINISHED = (JobStatus.SUCCEEDED, JobStatus.DLQ, JobStatus.CANCELLED)
_FAULTY = (JobStatus.FAILED, JobStatus.DLQ)
_ENDED = (AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.EXPIRED)

JOB_FIELDS = (
    Field("jobId", _TEXT, "a job cannot be opened or followed", essential=True),
    Field("status", _TEXT, "every job counts as having no status", essential=True),
    Field("type", _TEXT, "jobs are not told apart by what they do"),
    Field("createdAt", _DATE, "lists have no order, and ages are not known", essential=True),
    Field("updatedAt", _DATE, "changes are found late where there is no change stream"),
    Field("createdBy", ("objectId", "string"), "nobody but an admin sees a job"),
    Field("payload", ("object",), "jobs are shown without their input"),
    Field("priority", _NUMBER, "no priority is shown"),
    Field("nextRunAt", _DATE, "jobs that are due are not told from scheduled ones"),
    Field("maxAttempts", _NUMBER, "it is not shown how many attempts are left"),
    Field("attemptCount", _NUMBER, "attempts are not counted in lists", instead="attempts"),
    Field("leasedBy", _TEXT, "the worker is not shown", statuses=(JobStatus.LEASED,)),
    Field("leaseExpiresAt", _DATE, "dead workers are not noticed", statuses=(JobStatus.LEASED,)),
    Field("finishedAt", _DATE, "dead letters are not in the charts", statuses=_FINISHED),
    Field("lastError", ("object",), "errors are not shown in lists", statuses=_FAULTY),
)
ATTEMPT_FIELDS = (
    Field("jobId", _TEXT, "no attempt belongs to a job", essential=True),
    Field("attemptNumber", _NUMBER, "attempts have no order", essential=True),
    Field("status", _TEXT, "succeeded and failed attempts are not told apart", essential=True),
    Field("workerId", _TEXT, "the worker is not shown"),
    Field("startedAt", _DATE, "times of waiting and running are not known"),
    Field("finishedAt", _DATE, "throughput and run times are not known", statuses=_ENDED),
    Field("error", ("object",), "an attempt's error is not shown", statuses=("failed",)),
)


# What every document of a known program has: without these it is another program's collection.
_ESSENTIAL_BY_PROFILE = {"agenda": ("type", "payload"), "celery": ("status", "finishedAt")}


def fields_of_jobs(settings: Settings) -> tuple[Field, ...]:
    """The fields that jobs are expected to have, by the profile."""
    essential = _ESSENTIAL_BY_PROFILE.get(settings.profile)
    if essential is None:
        return JOB_FIELDS
    # What else those programs keep comes and goes, and is read in more ways than one.
    return tuple(
        replace(field, essential=True, statuses=())
        for field in JOB_FIELDS
        if field.essential or field.name in essential
    )


def expected_fields(
    settings: Settings, connection: Connection
) -> list[tuple[ReadCollection, tuple[Field, ...], type[StrEnum]]]:
    """Of each collection: the fields that its documents should have, and their known statuses."""
    expected: list[tuple[ReadCollection, tuple[Field, ...], type[StrEnum]]] = [
        (connection.jobs, fields_of_jobs(settings), JobStatus)
    ]
    if connection.attempts is not None:
        expected.append((connection.attempts, ATTEMPT_FIELDS, AttemptStatus))
    return expected


def paths_in_use(watched: ReadCollection, paths: Iterable[str]) -> set[str]:
    """Those paths that some document has, of some 3,000: the newest, the oldest, random ones.

    `error.code` is in use, too, where `error` is null: it is null until something fails.
    """
    names = {f"p{number}": path for number, path in enumerate(sorted(set(paths)))}
    if not names:
        return set()
    group: Document = {"_id": None}
    for name, path in names.items():
        parent, _, leaf = path.rpartition(".")
        is_there: Document = {"$ne": [{"$type": f"${path}"}, "missing"]}
        if leaf and parent:
            is_there = {"$or": [is_there, {"$eq": [{"$type": f"${parent}"}, "null"]}]}
        group[name] = {"$max": is_there}
    limit: Document = {"$limit": _LOOKED_THROUGH}
    found: set[str] = set()
    for sample in (
        [{"$sort": {"_id": -1}}, limit],
        [{"$sort": {"_id": 1}}, limit],
        [{"$sample": {"size": _LOOKED_THROUGH}}],
    ):
        try:
            rows = list(
                watched.collection.aggregate(
                    [*sample, {"$group": group}], maxTimeMS=watched.max_time_ms
                )
            )
        except ExecutionTimeout:  # the other samples have to do
            continue
        found |= {path for row in rows for name, path in names.items() if row[name]}
    return found


class Sample:
    """Which fields the newest documents have, and of which types. Index: _id."""

    def __init__(self, watched: ReadCollection, fields: tuple[Field, ...]) -> None:
        self._names = watched.names
        paths = self._names.paths
        derived = self._names.derived is not None
        self.name = watched.collection.name
        self._setting = "ATTEMPT_FIELDS" if fields is ATTEMPT_FIELDS else "JOB_FIELDS"
        self._fields = [
            field
            for field in fields
            if field.name in paths and not (derived and field.name == "status")
        ]
        # Types, names and statuses: nothing else that the documents hold comes here.
        types = {field.name: {"$type": f"${paths[field.name]}"} for field in self._fields}
        names = {"$map": {"input": {"$objectToArray": "$$ROOT"}, "in": "$$this.k"}}
        status: Any = None
        if "status" in paths and not derived:
            is_text = {"$eq": [{"$type": f"${paths['status']}"}, "string"]}
            status = {"$cond": [is_text, f"${paths['status']}", None]}
        pipeline: list[Document] = [
            {"$sort": {"_id": -1}},
            {"$limit": SAMPLE},
            {
                "$project": {
                    "_id": 0,
                    "types": types,
                    "names": names,
                    "status": {"$ifNull": [status, None]},
                }
            },
        ]
        self._documents = list(
            watched.collection.aggregate(pipeline, hint={"_id": 1}, maxTimeMS=watched.max_time_ms)
        )
        for document in self._documents:
            document["status"] = self._names.status(document["status"])
        self.size = len(self._documents)

    def types(self, field: str) -> Counter[str]:
        """How often the field has which type, where it is there at all."""
        found = Counter(document["types"].get(field, "missing") for document in self._documents)
        del found["missing"]
        return found

    def without(self, path: str) -> int:
        """How many of the documents have nothing at a mapped `path`, or null."""
        (field,) = (field for field in self._fields if self._names.paths[field.name] == path)
        types = [document["types"].get(field.name, "missing") for document in self._documents]
        return sum(kind in ("missing", "null", "undefined") for kind in types)

    def _names_of_fields(self) -> list[str]:
        """The names of the documents' own fields, the commonest first."""
        names = Counter(name for document in self._documents for name in document["names"])
        return sorted(names, key=lambda name: (-names[name], name))

    def absent(self) -> Iterator[Finding]:
        """Fields that no document has in which they are to be expected."""
        names = set(self._names_of_fields())
        for field in self._fields:
            expected = [
                document
                for document in self._documents
                if not field.statuses or document["status"] in field.statuses
            ]
            if not expected or field.instead in names:
                continue
            if any(document["types"][field.name] != "missing" for document in expected):
                continue
            path = self._names.paths[field.name]
            alike = sorted(name for name in names if _squeezed(name) == _squeezed(path))
            where = f"with status {' or '.join(field.statuses)} " if field.statuses else ""
            yield Finding(
                check="fields",
                level=Level.PROBLEM if field.essential else Level.WARNING,
                says=f"None of the newest {len(expected)} of {self.name} {where}has "
                f"{path}: {field.lost}.",
                do=f"Set JOBMON_{self._setting}={field.name}={printable(alike[0])} if that is it."
                if alike
                else None,
            )

    def unusable(self) -> Finding | None:
        """The problem that none of the documents has a field that jobmon cannot do without."""
        missing = [
            field
            for field in self._fields
            if field.essential and self.size and not self.types(field.name)
        ]
        if not missing:
            return None
        paths = [self._names.paths[field.name] for field in missing]
        common = [printable(name) for name in self._names_of_fields()]
        have = ", ".join(common[:_NAMED]) + (", …" if len(common) > _NAMED else "")
        example = ",".join(f"{field.name}=FIELD" for field in missing)
        return problem(
            "fields",
            f"None of the newest {self.size} of {self.name} has {', '.join(paths)}. "
            f"They have {have}.",
            do=f"If it is the right collection, set JOBMON_{self._setting}={example} to what its "
            "documents call them; docs/adapters.md has examples.",
        )

    def odd_types(self) -> Iterator[Finding]:
        """Fields that hold something else than agreed."""
        for field in self._fields:
            path = self._names.paths[field.name]
            agreed = ("string", "objectId") if path == "_id" else field.types
            found = self.types(field.name)
            odd = {kind: found[kind] for kind in found if kind not in (*agreed, "null")}
            if odd:
                told = ", ".join(f"{number} times {kind}" for kind, number in sorted(odd.items()))
                yield warning(
                    "fields",
                    f"{path} in {self.name} should be {' or '.join(agreed)}, but is "
                    f"{told} (of {self.size}). It is shown as it is; by it, no job is found.",
                )

    def unknown_statuses(self, known: type[StrEnum]) -> Iterator[Finding]:
        """Statuses that the contract does not have."""
        found = Counter(
            document["status"] for document in self._documents if document["status"] is not None
        )
        unknown = {status: found[status] for status in found if status not in set(known)}
        if unknown:
            told = ", ".join(f"{printable(name)} ({unknown[name]})" for name in sorted(unknown))
            yield warning(
                "fields",
                f"Unknown statuses in {self.name}: {told}, of {self.size}. They are shown and "
                "counted under their own names.",
            )


def _squeezed(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
