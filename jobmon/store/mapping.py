"""Maps the contract's field names (`jobId`, `status`, `createdAt`, …) to those of the documents.

Queries are written with the contract's names. `FieldMapping` translates them to the documents'
names, and the documents that are read to the contract's. Where the documents follow the contract,
it changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from jobmon.domain import ATTEMPT_FIELDS, JOB_FIELDS, MAPPED_JOB_FIELDS, WAITING_STATUSES
from jobmon.profiles.conditions import resolve_now
from jobmon.profiles.sources import parse_date
from jobmon.store.conversions import (
    creation_time,
    match_creation_time,
    prefix_expression,
    subtract_offset,
    to_stored,
)
from jobmon.store.identity import label_values, match_any
from jobmon.store.labels import label

Document = dict[str, Any]
Keys = list[tuple[str, int]]

_CLAUSE_LISTS = ("$and", "$or", "$nor")
_MATCH_NONE: Document = {"_id": {"$in": []}}
NO_STATUS = label(None)
# Types that may be found where a date is expected; each is one range of an index.
NOT_DATES = ["number", "string", "object", "objectId", "bool", "timestamp"]
# That there is an array in a field, or anywhere on the way to it.
IS_ARRAY: Document = {"$type": "array"}


@dataclass(frozen=True, kw_only=True)
class DerivedStatus:
    """A status that no field holds: an aggregation expression over the document's own fields.

    `needs` has a query for each status that the expression may return; every document with this
    status matches the query, which may contain `Now`. A query may have an index, an expression has
    none.
    """

    expression: Document
    needs: Mapping[str, Document]


@dataclass(frozen=True, kw_only=True)
class FieldMapping:
    """How the documents of one collection hold the fields of the contract.

    `paths`: field -> path in a document, with dots. A field without a path is in no document.
    `jobId` and `createdAt` may be at `_id`: an ObjectId holds its creation time, in seconds.
    `statuses`: label of a document's status (`null` for a missing one) -> status of the contract.
    `offsets`: field -> how much later it is than the date at its path.
    `reads` and `computed`: fields of the documents, and expressions, that are read for a field of
    the contract which no path leads to; `complete` makes the job of them.
    `readings`: field -> form of the date at its path, if that is no BSON date.
    `expressions`: field -> its value as an expression, where that is not just a path.
    `alternatives`: field -> its paths, of which the first with a value has it.
    `constants`: field -> the value that it has in every document.
    `where`: which documents of the collection are meant, in the documents' names.
    `has_creation_time`: if false, the path of `createdAt` only gives the order of lists.
    """

    paths: Mapping[str, str]
    statuses: Mapping[str, str] = field(default_factory=dict)
    derived: DerivedStatus | None = None
    offsets: Mapping[str, timedelta] = field(default_factory=dict)
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    computed: Mapping[str, Any] = field(default_factory=dict)
    readings: Mapping[str, str] = field(default_factory=dict)
    expressions: Mapping[str, Any] = field(default_factory=dict)
    alternatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    where: Document = field(default_factory=dict)
    complete: Callable[[Document, Document], Document] = lambda _, document: document
    has_creation_time: bool = True

    @classmethod
    def from_job_fields(cls, **paths: str) -> "FieldMapping":
        """The contract's names for a job, except for these paths."""
        return cls(paths={name: name for name in MAPPED_JOB_FIELDS} | paths)

    @classmethod
    def from_attempt_fields(cls, **paths: str) -> "FieldMapping":
        """The contract's names for an attempt, except for these paths."""
        return cls(paths={name: name for name in ATTEMPT_FIELDS} | paths)

    @cached_property
    def is_identity(self) -> bool:
        """Whether the documents follow the contract, so that nothing is translated."""
        is_same = all(name == path for name, path in self.paths.items())
        translations = (self.statuses, self.derived, self.reads, self.expressions, self.where)
        return is_same and self.has_creation_time and not any(translations)

    @property
    def orders_by_id(self) -> bool:
        """Whether jobs are in the order of their _id."""
        return self.paths.get("createdAt") == "_id"

    @cached_property
    def unknown(self) -> frozenset[str]:
        """The fields of a job that no document holds."""
        known = {*self.paths, *self.reads, *self.computed, "attemptCount"}
        known |= {"status"} if self.derived is not None else set()
        no_creation = set() if self.has_creation_time else {"createdAt"}
        return frozenset(JOB_FIELDS) - known | no_creation

    @property
    def has_status(self) -> bool:
        """Whether a field holds the status, so that there can be indexes on it."""
        return self.derived is None

    @property
    def waits_by_date(self) -> bool:
        """Whether the status of a waiting job follows from its nextRunAt, so that an index on that
        finds all of them.
        """
        path = self.paths.get("nextRunAt")
        needs = {} if self.derived is None else self.derived.needs
        return bool(needs) and all(
            path in needs.get(status, {path: 0}) for status in WAITING_STATUSES
        )

    def can_query(self, name: str) -> bool:
        """Whether documents can be queried by this field."""
        return self._find_path(name) is not None

    @property
    def dated_fields(self) -> tuple[str, ...]:
        """Fields of which at least one gets a new date with every change."""
        if "updatedAt" in self.paths:
            return ("updatedAt",)
        return tuple(
            name for name in ("createdAt", "leaseExpiresAt", "finishedAt") if name in self.paths
        )

    def translate_keys(self, keys: Keys) -> Keys | None:
        """The keys of an index in the documents' names; None if they lack one of the fields."""
        if self.is_identity:
            return keys
        translated: dict[str, int] = {}
        for name, order in keys:
            path = self._find_path(name)
            if path is None and name == "type" and (translated or not self.alternatives):
                continue  # the type is compared in the jobs that the index finds
            if path is None or (name == "status" and self.derived is not None):
                return None
            translated.setdefault(path, order)
        # What begins with _id is in the order of the index that always exists.
        is_by_id = next(iter(translated)) == "_id"
        return [("_id", 1)] if is_by_id else list(translated.items())

    def translate_order(self, order: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """A sort order in the documents' names, without the fields that they lack."""
        translated: dict[str, int] = {}
        for name, direction in order:
            if (path := self._find_path(name)) is not None:
                translated.setdefault(path, direction)
        return list(translated.items())

    def translate_filter(self, query: Document) -> Document:
        """`translate_query`, for the documents that are meant."""
        translated = self.translate_query(query)
        return {"$and": [self.where, translated]} if self.where else translated

    def translate_query(self, query: Document) -> Document:
        """A query in the documents' names; a value in a field that they lack matches none.

        Statuses are given by their labels: `null` matches a missing one.
        """
        clauses = [self._translate_clause(name, condition) for name, condition in query.items()]
        if self.is_identity:
            return {name: condition for clause in clauses for name, condition in clause.items()}
        return clauses[0] if len(clauses) == 1 else {"$and": clauses} if clauses else {}

    def translate_pipeline(self, stages: list[Document]) -> list[Document]:
        """An aggregation in the documents' names; its own fields begin with an underscore."""
        if self.is_identity:
            return [
                {
                    name: self.translate_query(spec) if name == "$match" else spec
                    for name, spec in stage.items()
                }
                for stage in stages
            ]
        meant: list[Document] = [{"$match": self.where}] if self.where else []
        return meant + [self._translate_stage(stage) for stage in stages]

    def translate_expression(self, expression: Any, *, under: str = "") -> Any:
        """An aggregation expression in the documents' names.

        `under`: the path of the document within the one that the expression is evaluated for.
        """
        match expression:
            case str() if expression.startswith("$") and not expression.startswith("$$"):
                return self._translate_reference(expression[1:], under)
            case {"$literal": _}:
                return expression
            case dict():
                return {
                    operator: self.translate_expression(inner, under=under)
                    for operator, inner in expression.items()
                }
            case list():
                return [self.translate_expression(inner, under=under) for inner in expression]
            case _:
                return expression

    def projection(self, fields: Iterable[str] | None) -> Any:
        """What to read of a document for these fields, for all of them if None."""
        if fields is None and self.is_identity:
            return None
        all_fields = (*self.paths, *self.reads, *self.computed, "status", "_id")
        names = set(all_fields if fields is None else fields)
        paths = {path for name in names if (path := self._find_path(name)) is not None}
        paths = paths.union(*(self.reads.get(name, ()) for name in names)) - {"_id"}
        outer = {path for path in paths if paths.isdisjoint(_split_path(path)[:-1])}
        has_id = any(self._find_path(name) == "_id" for name in names)
        read: Document = {"_id": has_id} | dict.fromkeys(sorted(outer), True)
        if "status" in names and self.derived is not None:
            read["_status"] = self.derived.expression
        return read | {f"_{name}": self.computed[name] for name in names & self.computed.keys()}

    def to_contract(self, document: Document) -> Document:
        """A document that was read, with the contract's names."""
        if self.is_identity:
            return document
        job: Document = {"_id": document["_id"]} if "_id" in document else {}
        for name, path in self.paths.items():
            found, value = _get_at_path(document, path)
            if found:
                offset, stored = self.offsets.get(name), value
                if name in self.readings:
                    value = parse_date(value, self.readings[name])
                    if name == "createdAt":
                        job["_at"] = stored  # the value by which lists are ordered
                job[name] = value + offset if offset and isinstance(value, datetime) else value
        if self.orders_by_id:
            job["createdAt"] = creation_time(document.get("_id"))
        if "_status" in document:
            job["status"] = document["_status"]
        elif "status" in job or NO_STATUS in self.statuses:
            job["status"] = self.to_contract_status(job.get("status"))
        if not self.has_creation_time:
            job["_at"] = job.pop("createdAt", None)
        return self.complete(document, job)

    def to_contract_status(self, value: Any) -> Any:
        """The contract's status for the one in a document; None if it is missing."""
        return self.statuses.get(label(value), value) if self.statuses else value

    def _find_path(self, name: str) -> str | None:
        if name.startswith("_") or name in self.paths:
            return self.paths.get(name, name)
        head, dot, tail = name.partition(".")
        path = self.paths.get(head)
        return None if path is None else f"{path}{dot}{tail}"

    def _translate_clause(self, name: str, condition: Any) -> Document:
        if name in _CLAUSE_LISTS:
            return {name: [self.translate_query(query) for query in condition]}
        if name == "$expr":
            return {name: self._stored().translate_expression(condition)}
        if name == "status":
            return self._match_status(condition)
        path = self._find_path(name)
        if path is None and name == "type":
            return self._match_computed(name, condition)
        if path is None:
            return {} if condition in (None, {"$eq": None}) else _MATCH_NONE
        if name in self.offsets:
            condition = subtract_offset(condition, self.offsets[name])
        if name in self.readings:
            condition = to_stored(condition, self.readings[name])
        if path == "_id" and name == "createdAt":
            return {"_id": match_creation_time(condition)}
        if condition == IS_ARRAY and "." in path:
            return {"$or": [{part: condition} for part in _split_path(path)]}
        return {path: condition}

    def _match_status(self, condition: Any) -> Document:
        statuses = condition["$in"] if isinstance(condition, dict) else [condition]
        if self.derived is not None:
            needs = [
                self.derived.needs[status] for status in statuses if status in self.derived.needs
            ]
            is_status = {"$expr": {"$in": [self.derived.expression, {"$literal": statuses}]}}
            found = {"$and": [{"$or": resolve_now(needs, datetime.now(UTC))}, is_status]}
            return found if needs else _MATCH_NONE
        path = self.paths.get("status")
        if path is None:
            return _MATCH_NONE
        return {path: match_any([v for status in statuses for v in self._list_values(status)])}

    def _match_computed(self, name: str, condition: Any) -> Document:
        """The documents that have one of these values in a field that no path leads to."""
        values = condition["$in"] if isinstance(condition, dict) else [condition]
        if name in self.constants:
            return {} if self.constants[name] in values else _MATCH_NONE
        if paths := self.alternatives.get(name):
            others = [value for value in values if value is not None]
            found: list[Document] = [
                dict.fromkeys(paths[:number]) | {path: match_any(others)}
                for number, path in enumerate(paths)
                if others
            ]
            return {"$or": found + ([dict.fromkeys(paths)] if None in values else [])}
        if (expression := self.expressions.get(name)) is None:
            return {} if None in values else _MATCH_NONE
        return {"$expr": {"$in": [{"$ifNull": [expression, None]}, {"$literal": values}]}}

    def _stored(self) -> "FieldMapping":
        """The mapping for expressions about stored values, by which an index is ordered."""
        return replace(self, expressions={}) if self.expressions else self

    def _list_values(self, status: str) -> list[Any]:
        """The values in documents that mean a status of the contract."""
        labels = [name for name, meaning in self.statuses.items() if meaning == status]
        if status not in self.statuses:
            labels.append(status)
        return [value for name in labels for value in label_values(name)]

    def _translate_stage(self, stage: Document) -> Document:
        (name, spec), *_ = stage.items()
        if name == "$match":
            return {name: self.translate_query(spec)}
        if name in ("$group", "$set"):
            return {name: {key: self.translate_expression(value) for key, value in spec.items()}}
        if name == "$project":
            read = self.projection(key for key, value in spec.items() if value is True)
            computed = {key: value for key, value in spec.items() if value is not True}
            return {
                name: read
                | {key: self.translate_expression(value) for key, value in computed.items()}
            }
        return stage

    def _translate_reference(self, name: str, under: str) -> Any:
        head, dot, tail = name.partition(".")
        prefix = f"${under}." if under else "$"
        is_contracts = head in MAPPED_JOB_FIELDS or head in ATTEMPT_FIELDS
        if head not in self.paths and not is_contracts:
            return f"{prefix}{name}"
        if name == "status" and self.derived is not None:
            return self.derived.expression
        if name == "createdAt" and self.orders_by_id:
            return {"$convert": {"input": f"{prefix}_id", "to": "date", "onError": None}}
        if name in self.expressions:
            return prefix_expression(self.expressions[name], prefix)
        path = self.paths.get(head)
        return None if path is None else f"{prefix}{path}{dot}{tail}"


def _get_at_path(document: Document, path: str) -> tuple[bool, Any]:
    """Whether there is a value at a path, and which one."""
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return False, None
        value = value[part]
    return True, value


def _split_path(path: str) -> list[str]:
    """The paths to each document on the way, and the path itself: `a`, `a.b`, `a.b.c`."""
    parts = path.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
