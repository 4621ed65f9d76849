"""Maps the contract's field names (`jobId`, `status`, `createdAt`, …) to those of the documents.

Queries are written with the contract's names. `FieldMapping` translates them to the documents'
names, and the documents that come back to the contract's. Where the documents follow the contract,
it changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from bson import ObjectId

from jobmon.domain import ATTEMPT_FIELDS, JOB_FIELDS, MAPPED_JOB_FIELDS
from jobmon.store.bson_json import to_utc
from jobmon.store.identity import label_values, match_any
from jobmon.store.labels import label

Document = dict[str, Any]
Keys = list[tuple[str, int]]

_LISTS = ("$and", "$or", "$nor")
_NOTHING: Document = {"_id": {"$in": []}}
NO_STATUS = label(None)
# Types that may be found where a date is expected; each is one range of an index.
NOT_DATES = ["number", "string", "object", "objectId", "bool", "timestamp"]
# That there is an array in a field, or anywhere on the way to it.
IS_ARRAY: Document = {"$type": "array"}


@dataclass(frozen=True, kw_only=True)
class DerivedStatus:
    """A status that no field holds: an aggregation's expression over the document's own fields.

    `needs` has, for every status that the expression may give, a query that all such documents
    match: it may have an index where an expression has none.
    """

    expression: Document
    needs: Mapping[str, Document]


@dataclass(frozen=True, kw_only=True)
class FieldMapping:
    """How the documents of one collection are told.

    `paths` leads from a field of the contract to its place in a document, dots and all; a field
    that is not among them is in no document. `jobId` and `createdAt` may be at `_id`: an
    ObjectId has the time in it, by the second. `statuses` leads from the words in the documents,
    each as its `label` (`null` is that of a missing one), to the contract's. A field that `lags`
    is so much later than the date at its path.

    What paths cannot say, `complete` makes of what was read: of the fields that `reads` names
    for a field of the contract, and of `computed` ones, which are expressions. Without
    `knows_creation` the place of `createdAt` only says in which order jobs are listed.
    """

    paths: Mapping[str, str]
    statuses: Mapping[str, str] = field(default_factory=dict)
    derived: DerivedStatus | None = None
    lags: Mapping[str, timedelta] = field(default_factory=dict)
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    computed: Mapping[str, Any] = field(default_factory=dict)
    complete: Callable[[Document, Document], Document] = lambda _, document: document
    knows_creation: bool = True

    @classmethod
    def from_job_fields(cls, **paths: str) -> "FieldMapping":
        """The contract's names for a job, but for these."""
        return cls(paths={name: name for name in MAPPED_JOB_FIELDS} | paths)

    @classmethod
    def from_attempt_fields(cls, **paths: str) -> "FieldMapping":
        """The contract's names for an attempt, but for these."""
        return cls(paths={name: name for name in ATTEMPT_FIELDS} | paths)

    @cached_property
    def are_ours(self) -> bool:
        """Whether the documents are as the contract has them."""
        own = all(name == path for name, path in self.paths.items())
        return own and not self.statuses and self.derived is None and not self.computed

    @property
    def orders_by_id(self) -> bool:
        """Whether the order of creation is that of the _id."""
        return self.paths.get("createdAt") == "_id"

    @cached_property
    def unknown(self) -> frozenset[str]:
        """The fields of a job that no document tells."""
        told = {*self.paths, *self.reads, *self.computed, "attemptCount"}
        told |= {"status"} if self.derived is not None else set()
        return frozenset(JOB_FIELDS) - told | (set() if self.knows_creation else {"createdAt"})

    @property
    def has_status(self) -> bool:
        """Whether a field holds the status, so that there can be indexes on it."""
        return self.derived is None

    def finds(self, name: str) -> bool:
        """Whether documents can be asked for by this field."""
        return self._path(name) is not None

    @property
    def dated(self) -> tuple[str, ...]:
        """Fields of which one has a new date after every change that the documents tell of."""
        if "updatedAt" in self.paths:
            return ("updatedAt",)
        return tuple(
            name for name in ("createdAt", "leaseExpiresAt", "finishedAt") if name in self.paths
        )

    def keys(self, keys: Keys) -> Keys | None:
        """An index or an order in the documents' words; None if none of their fields say it."""
        if self.are_ours:
            return keys
        said: dict[str, int] = {}
        for name, order in keys:
            path = self._path(name)
            if path is None or (name == "status" and self.derived is not None):
                return None
            said.setdefault(path, order)
        first = next(iter(said))
        return [("_id", 1)] if first == "_id" else list(said.items())  # the one that always exists

    def order(self, order: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """How to sort; a field of no document says nothing."""
        said: dict[str, int] = {}
        for name, direction in order:
            if (path := self._path(name)) is not None:
                said.setdefault(path, direction)
        return list(said.items())

    def query(self, query: Document) -> Document:
        """A filter; what asks for a value in a field that no document has, matches none.

        Statuses are asked for by their labels: `null` finds those that are missing.
        """
        clauses = [self._clause(name, condition) for name, condition in query.items()]
        if self.are_ours:
            return {name: said for clause in clauses for name, said in clause.items()}
        return clauses[0] if len(clauses) == 1 else {"$and": clauses} if clauses else {}

    def pipeline(self, stages: list[Document]) -> list[Document]:
        """An aggregation; names of its own begin with an underscore."""
        if self.are_ours:
            return [
                {
                    name: self.query(spec) if name == "$match" else spec
                    for name, spec in stage.items()
                }
                for stage in stages
            ]
        return [self._stage(stage) for stage in stages]

    def expression(self, expression: Any, *, under: str = "") -> Any:
        """An aggregation's expression, of a document that is at `under.` of another one."""
        match expression:
            case str() if expression.startswith("$") and not expression.startswith("$$"):
                return self._reference(expression[1:], under)
            case {"$literal": _}:
                return expression
            case dict():
                return {
                    operator: self.expression(inner, under=under)
                    for operator, inner in expression.items()
                }
            case list():
                return [self.expression(inner, under=under) for inner in expression]
            case _:
                return expression

    def projection(self, fields: Iterable[str] | None) -> Any:
        """What of a document to read for these fields, all of them if None."""
        if fields is None and self.are_ours:
            return None
        all_fields = (*self.paths, *self.reads, *self.computed, "status", "_id")
        wanted = set(all_fields if fields is None else fields)
        paths = {path for name in wanted if (path := self._path(name)) is not None}
        paths = paths.union(*(self.reads.get(name, ()) for name in wanted)) - {"_id"}
        outer = {path for path in paths if not _is_inside(path, paths)}
        has_id = any(self._path(name) == "_id" for name in wanted)
        read: Document = {"_id": has_id} | dict.fromkeys(sorted(outer), True)
        if "status" in wanted and self.derived is not None:
            read["_status"] = self.derived.expression
        return read | {name: self.computed[name] for name in wanted & self.computed.keys()}

    def document(self, watched: Document) -> Document:
        """A document that was read, in the contract's words."""
        if self.are_ours:
            return watched
        told: Document = {"_id": watched["_id"]} if "_id" in watched else {}
        for name, path in self.paths.items():
            found, value = _dig(watched, path)
            if found:
                lag = self.lags.get(name)
                told[name] = value + lag if lag and isinstance(value, datetime) else value
        if self.orders_by_id:
            told["createdAt"] = _created(watched.get("_id"))
        if "_status" in watched:
            told["status"] = watched["_status"]
        elif "status" in told or NO_STATUS in self.statuses:
            told["status"] = self.status(told.get("status"))
        if not self.knows_creation:
            told["_at"] = told.pop("createdAt", None)
        return self.complete(watched, told)

    def status(self, value: Any) -> Any:
        """The contract's word for a status as it stands in a document; None if it is missing."""
        return self.statuses.get(label(value), value) if self.statuses else value

    def _path(self, name: str) -> str | None:
        if name.startswith("_") or name in self.paths:
            return self.paths.get(name, name)
        head, dot, rest = name.partition(".")
        path = self.paths.get(head)
        return None if path is None else f"{path}{dot}{rest}"

    def _clause(self, name: str, condition: Any) -> Document:
        if name in _LISTS:
            return {name: [self.query(query) for query in condition]}
        if name == "$expr":
            return {name: self.expression(condition)}
        if name == "status":
            return self._of_status(condition)
        path = self._path(name)
        if path is None:
            return {} if condition in (None, {"$eq": None}) else _NOTHING
        if name in self.lags:
            condition = _earlier(condition, self.lags[name])
        if path == "_id" and name == "createdAt":
            return {"_id": _of_date(condition)}
        if condition == IS_ARRAY and "." in path:
            return {"$or": [{part: condition} for part in _parts_of(path)]}
        return {path: condition}

    def _of_status(self, condition: Any) -> Document:
        words = condition["$in"] if isinstance(condition, dict) else [condition]
        if self.derived is not None:
            needs = [self.derived.needs[word] for word in words if word in self.derived.needs]
            exactly = {"$expr": {"$in": [self.derived.expression, {"$literal": words}]}}
            return {"$and": [{"$or": needs}, exactly]} if needs else _NOTHING
        path = self.paths.get("status")
        if path is None:
            return _NOTHING
        return {path: match_any([value for word in words for value in self._values(word)])}

    def _values(self, word: str) -> list[Any]:
        """What may stand in a document whose status is `word`."""
        labels = [theirs for theirs, meant in self.statuses.items() if meant == word]
        if word not in self.statuses:
            labels.append(word)
        return [value for theirs in labels for value in label_values(theirs)]

    def _stage(self, stage: Document) -> Document:
        (name, spec), *_ = stage.items()
        if name == "$match":
            return {name: self.query(spec)}
        if name in ("$group", "$set"):
            return {name: {key: self.expression(value) for key, value in spec.items()}}
        if name == "$project":
            read = self.projection(key for key, value in spec.items() if value is True)
            rest = {key: value for key, value in spec.items() if value is not True}
            return {name: read | {key: self.expression(value) for key, value in rest.items()}}
        return stage

    def _reference(self, name: str, under: str) -> Any:
        head, dot, rest = name.partition(".")
        prefix = f"${under}." if under else "$"
        if head not in self.paths and not self._is_contracts(head):
            return f"{prefix}{name}"
        if name == "status" and self.derived is not None:
            return self.derived.expression
        if name == "createdAt" and self.orders_by_id:
            return {"$convert": {"input": f"{prefix}_id", "to": "date", "onError": None}}
        path = self.paths.get(head)
        return None if path is None else f"{prefix}{path}{dot}{rest}"

    def _is_contracts(self, name: str) -> bool:
        return name in MAPPED_JOB_FIELDS or name in ATTEMPT_FIELDS


def _is_inside(path: str, paths: set[str]) -> bool:
    """Whether another path leads to something that this one is a part of."""
    return not paths.isdisjoint(_parts_of(path)[:-1])


def _dig(document: Document, path: str) -> tuple[bool, Any]:
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return False, None
        value = value[part]
    return True, value


def _parts_of(path: str) -> list[str]:
    """The path and those to the documents that it leads through."""
    parts = path.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _earlier(condition: Any, lag: timedelta) -> Any:
    """A condition on a date as one on a date so much before it."""
    if isinstance(condition, dict):
        return {operator: _earlier(value, lag) for operator, value in condition.items()}
    return condition - lag if isinstance(condition, datetime) else condition


def _created(value: Any) -> datetime | None:
    return value.generation_time if isinstance(value, ObjectId) else None


def _of_date(condition: Any) -> Any:
    """A condition on a date as one on the ObjectIds that were made then."""
    if isinstance(condition, dict):
        return {operator: _of_date(value) for operator, value in condition.items()}
    if condition == "date":  # of a $type
        return "objectId"
    if isinstance(condition, datetime):
        moment = to_utc(condition).astimezone(UTC)
        # An id has whole seconds: what is not before 3.5 is not before 4.
        whole = moment.replace(microsecond=0)
        later = timedelta(seconds=1 if moment.microsecond else 0)
        return _first_id_of(whole, later)
    return condition


def _first_id_of(moment: datetime, later: timedelta) -> ObjectId:
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC) + later) // timedelta(seconds=1)
    bounded = min(max(seconds, 0), 0xFFFF_FFFF)
    return ObjectId(f"{bounded:08x}" + "0" * 16)
