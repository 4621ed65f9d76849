"""Maps the contract's field names (`jobId`, `status`, …) to the field names of the documents.

Queries are written with the contract's names. `FieldMapping` translates queries to the documents'
names, and documents to the contract's names. If the documents already have the contract's names
and values, it changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from jobmon.domain import ATTEMPT_FIELDS, JOB_FIELDS, MAPPED_JOB_FIELDS, WAITING_STATUSES
from jobmon.profiles.conditions import resolve_now
from jobmon.profiles.stored_values import parse_date, shift_date
from jobmon.store.conversions import (
    creation_time,
    get_at_path,
    is_unset,
    list_paths,
    list_prefixes,
    match_creation_time,
    matches_constant,
    prefix_expression,
    replace_references,
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
_MISSING = object()
# BSON types that a document may have instead of a date; each is one range of an index.
NOT_DATES = ["number", "string", "object", "objectId", "bool", "timestamp"]
# The condition that the field, or a field that contains it, is an array.
IS_ARRAY: Document = {"$type": "array"}
# By date that orders lists: the key of the stored value in a job, if that is not a BSON date.
STORED_DATES = {"createdAt": "_at", "nextRunAt": "_nextRunAt", "finishedAt": "_finishedAt"}
_OPTIONAL_DATES = frozenset({"updatedAt", "nextRunAt", "startedAt", "finishedAt"})


@dataclass(frozen=True, kw_only=True)
class DerivedStatus:
    """A status that is computed from other fields of the document.

    `expression`: the aggregation expression that computes it. No index can serve it. So `needs` has
    for each status a query that an index can serve. This query matches every document with the
    status, and maybe other documents. It may contain `Now`.
    """

    expression: Document
    needs: Mapping[str, Document]


@dataclass(frozen=True, kw_only=True)
class FieldMapping:
    """Where and in which form the documents of a collection hold the contract's fields.

    A mapping for jobs such as {"_id": 7, "state": "done", "locked": DATE}, where a lease ends ten
    minutes after the date `locked`:

        FieldMapping(
            paths={"jobId": "_id", "status": "state", "leaseExpiresAt": "locked"},
            statuses={"done": "succeeded"},
            offsets={"leaseExpiresAt": timedelta(minutes=10)},
        )
    """

    # Each field that a document stores, and its path with dots. `jobId` and `createdAt` may have
    # the path `_id`: an ObjectId holds its creation time, in whole seconds.
    paths: Mapping[str, str]
    # By field: the form of dates that are not stored as BSON dates: iso, seconds, milliseconds, …
    readings: Mapping[str, str] = field(default_factory=dict)
    # By field: the time to add to the stored date.
    offsets: Mapping[str, timedelta] = field(default_factory=dict)
    # By field: the only statuses with which a job has this field. Other fields have no such limit.
    only_in: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Label of a stored status -> status of the contract. The label of a missing status is `null`.
    statuses: Mapping[str, str] = field(default_factory=dict)
    # The status, if it is computed from other fields.
    derived: DerivedStatus | None = None

    # For each field without a path: the values from which it is computed. `reads` has paths in the
    # document, `computed` expressions. `add_fields` adds the field to the job from these values.
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    computed: Mapping[str, Any] = field(default_factory=dict)
    add_fields: Callable[[Document, Document], Document] = lambda _, document: document
    # How queries match such a field: its value is the same in each document (`constants`), or it is
    # at the first of several paths with a value (`alternatives`).
    constants: Mapping[str, Any] = field(default_factory=dict)
    alternatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # By field: its value as an aggregation expression, if that is not just the value at its path.
    expressions: Mapping[str, Any] = field(default_factory=dict)

    # The paths of the fields in the payload that can be searched: `payload.orderId`.
    search_paths: Mapping[str, str] = field(default_factory=dict)

    # Which documents of the collection are jobs: a query with the documents' names.
    where: Document = field(default_factory=dict)
    # If false, `createdAt` is unknown: its path only defines the order of lists.
    has_creation_time: bool = True

    @cached_property
    def translates(self) -> bool:
        """Whether the documents have other names or values than the contract."""
        renames = any(name != path for name, path in self.paths.items())
        translations = (self.statuses, self.derived, self.reads, self.expressions, self.where)
        return renames or not self.has_creation_time or any(translations)

    @property
    def orders_by_id(self) -> bool:
        return self.paths.get("createdAt") == "_id"

    @cached_property
    def missing_fields(self) -> frozenset[str]:
        """The fields of a job that no document holds."""
        held = {*self.paths, *self.reads, *self.computed, "attemptCount"}
        held |= {"status"} if self.derived is not None else set()
        no_creation = set() if self.has_creation_time else {"createdAt"}
        return frozenset(JOB_FIELDS) - held | no_creation

    @property
    def has_status(self) -> bool:
        """Whether a field holds the status; indexes on a computed status are not possible."""
        return self.derived is None

    @property
    def date_decides_waiting(self) -> bool:
        """Whether nextRunAt decides which jobs wait, so that an index on it has all of them."""
        path = self.paths.get("nextRunAt")
        needs = {} if self.derived is None else self.derived.needs
        return bool(needs) and all(
            path in needs.get(status, {path: 0}) for status in WAITING_STATUSES
        )

    def holds(self, name: str) -> bool:
        """Whether documents hold this field, or the values from which it is computed."""
        return name in self.paths or name in self.reads or name in self.computed

    def list_sources(self, name: str) -> set[str]:
        """The paths in documents that are read for a field, also the paths in its conditions."""
        sources = {*self.reads.get(name, ()), *list_paths(self.computed.get(name))}
        return sources | ({self.paths[name]} if name in self.paths else set())

    def can_query(self, name: str) -> bool:
        """Whether documents can be queried by this field."""
        return self._find_path(name) is not None

    def select_statuses(self, name: str, statuses: Iterable[str]) -> tuple[str, ...]:
        """The elements of `statuses` with which a job has this field."""
        possible = self.only_in.get(name)
        return tuple(status for status in statuses if possible is None or status in possible)

    @property
    def dated_fields(self) -> tuple[str, ...]:
        """The date fields that show most changes of a document, because a change sets them."""
        if "updatedAt" in self.paths:
            return ("updatedAt",)
        return tuple(
            name for name in ("createdAt", "leaseExpiresAt", "finishedAt") if name in self.paths
        )

    def translate_keys(self, keys: Keys) -> Keys | None:
        """The keys of an index in the documents' names; None if any but the type has no path."""
        if not self.translates:
            return keys
        translated: dict[str, int] = {}
        for name, order in keys:
            path = self._find_path(name)
            if path is None and name == "type" and (translated or not self.alternatives):
                continue  # the index is used without the type: each job is compared with the type
            if path is None or (name == "status" and self.derived is not None):
                return None
            translated.setdefault(path, order)
        # _id is unique: an index that begins with it is replaced by MongoDB's own index on _id.
        is_by_id = next(iter(translated)) == "_id"
        return [("_id", 1)] if is_by_id else list(translated.items())

    def translate_order(self, order: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """A sort order in the documents' names, without fields that have no path."""
        translated: dict[str, int] = {}
        for name, direction in order:
            if (path := self._find_path(name)) is not None:
                translated.setdefault(path, direction)
        return list(translated.items())

    def translate_filter(self, query: Document) -> Document:
        """`translate_query`, restricted to the documents that are jobs (`where`)."""
        translated = self.translate_query(query)
        return {"$and": [self.where, translated]} if self.where else translated

    def translate_query(self, query: Document) -> Document:
        """A query in the documents' names. A field without a path counts as missing, except a type.

        A status in the query is a label: `null` matches a missing status.
        """
        clauses = [self._translate_clause(name, condition) for name, condition in query.items()]
        if not self.translates:
            return {name: condition for clause in clauses for name, condition in clause.items()}
        return clauses[0] if len(clauses) == 1 else {"$and": clauses} if clauses else {}

    def translate_pipeline(self, stages: list[Document]) -> list[Document]:
        """An aggregation in the documents' names.

        To match or sort by a field that a stage adds, its name must begin with an underscore.
        """
        if not self.translates:
            return [
                {
                    name: self.translate_query(spec) if name == "$match" else spec
                    for name, spec in stage.items()
                }
                for stage in stages
            ]
        only_jobs: list[Document] = [{"$match": self.where}] if self.where else []
        return only_jobs + [self._translate_stage(stage) for stage in stages]

    def translate_expression(self, expression: Any, *, under: str = "") -> Any:
        """An aggregation expression in the documents' names.

        `under`: the path of the mapped document, if it is inside another document.
        """
        return replace_references(expression, lambda name: self._translate_reference(name, under))

    def can_compute(self, name: str) -> bool:
        """Whether an aggregation, and not only Python, can compute this field."""
        return self.translate_expression(f"${name}") is not None or name not in self.reads

    def projection(self, fields: Iterable[str] | None) -> Any:
        """The projection that reads these fields of the contract; with None it reads all fields."""
        if fields is None and not self.translates:
            return None
        all_fields = (*self.paths, *self.reads, *self.computed, "status", "_id")
        names = set(all_fields if fields is None else fields)
        paths = {path for name in names if (path := self._find_path(name)) is not None}
        paths = paths.union(*(self.reads.get(name, ()) for name in names)) - {"_id"}
        outer = {path for path in paths if paths.isdisjoint(list_prefixes(path)[:-1])}
        has_id = any(self._find_path(name) == "_id" for name in names)
        read: Document = {"_id": has_id} | dict.fromkeys(sorted(outer), True)
        if "status" in names and self.derived is not None:
            read["_status"] = self.derived.expression
        return read | {f"_{name}": self.computed[name] for name in names & self.computed.keys()}

    def to_contract(self, document: Document) -> Document:
        """A document from the database, with the contract's names and values."""
        if not self.translates:
            return document
        job: Document = {"_id": document["_id"]} if "_id" in document else {}
        for name, path, is_nested, offset, date_form in self._stored_fields:
            get = get_at_path if is_nested else dict.get
            if (value := get(document, path, _MISSING)) is _MISSING:
                continue
            stored = value
            if date_form is not None:
                value = parse_date(value, date_form)
            if name in _OPTIONAL_DATES and is_unset(value):
                value = None
            if name in STORED_DATES and (date_form is not None or value is not stored):
                job[STORED_DATES[name]] = stored
            job[name] = shift_date(value, offset) if offset else value
        if self.orders_by_id:
            job["createdAt"] = creation_time(document.get("_id"))
        if "_status" in document:
            job["status"] = document["_status"]
        elif "status" in job or NO_STATUS in self.statuses:
            job["status"] = self.to_contract_status(job.get("status"))
        if not self.has_creation_time:
            job["_at"] = job.pop("createdAt", None)
        return self.add_fields(document, job)

    @cached_property
    def _stored_fields(self) -> list[tuple[str, str, bool, timedelta | None, str | None]]:
        """Each field with a path: its name, its path, whether that has dots, offset, date form."""
        return [
            (name, path, "." in path, self.offsets.get(name), self.readings.get(name))
            for name, path in self.paths.items()
        ]

    def to_contract_status(self, value: Any) -> Any:
        """The contract's status for a stored status; a status that is not mapped is unchanged."""
        return self.statuses.get(label(value), value) if self.statuses else value

    def _find_path(self, name: str) -> str | None:
        if name in self.search_paths:
            return self.search_paths[name]
        if name.startswith("_") or name in self.paths:
            return self.paths.get(name, name)
        head, dot, tail = name.partition(".")
        path = self.paths.get(head)
        return None if path is None else f"{path}{dot}{tail}"

    def _translate_clause(self, name: str, condition: Any) -> Document:
        if name in _CLAUSE_LISTS:
            return {name: [self.translate_query(query) for query in condition]}
        if name == "$expr":
            return {name: self._use_stored_values().translate_expression(condition)}
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
            return {"$or": [{part: condition} for part in list_prefixes(path)]}
        return {path: condition}

    def _match_status(self, condition: Any) -> Document:
        statuses = condition["$in"] if isinstance(condition, dict) else [condition]
        if self.derived is not None:
            needs = [
                self.derived.needs[status] for status in statuses if status in self.derived.needs
            ]
            is_status = {"$expr": {"$in": [self.derived.expression, {"$literal": statuses}]}}
            query = {"$and": [{"$or": resolve_now(needs, datetime.now(UTC))}, is_status]}
            return query if needs else _MATCH_NONE
        path = self.paths.get("status")
        if path is None:
            return _MATCH_NONE
        stored = [value for status in statuses for value in self._list_values(status)]
        return {path: match_any(stored)}

    def _match_computed(self, name: str, condition: Any) -> Document:
        """A query for the values of a condition in a field without a path."""
        values = condition["$in"] if isinstance(condition, dict) else [condition]
        if name in self.constants:
            is_match = any(matches_constant(self.constants[name], value) for value in values)
            return {} if is_match else _MATCH_NONE
        if paths := self.alternatives.get(name):
            not_null = [value for value in values if value is not None]
            queries: list[Document] = [
                dict.fromkeys(paths[:position]) | {path: match_any(not_null)}
                for position, path in enumerate(paths)
                if not_null
            ]
            queries += [dict.fromkeys(paths)] if None in values else []
            return {"$or": queries} if queries else _MATCH_NONE
        if (expression := self.expressions.get(name)) is None:
            return {} if None in values else _MATCH_NONE
        return {"$expr": {"$in": [{"$ifNull": [expression, None]}, {"$literal": values}]}}

    def _use_stored_values(self) -> "FieldMapping":
        """The mapping for expressions that compare stored values, as indexes do."""
        return replace(self, expressions={}) if self.expressions else self

    def _list_values(self, status: str) -> list[Any]:
        """The stored values that mean a status of the contract."""
        labels = [stored for stored, meaning in self.statuses.items() if meaning == status]
        if status not in self.statuses:
            labels.append(status)
        return [value for stored in labels for value in label_values(stored)]

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
        if head.startswith("$"):  # a variable
            return f"${name}"
        prefix = f"${under}." if under else "$"
        is_known = head in MAPPED_JOB_FIELDS or head in ATTEMPT_FIELDS
        if head not in self.paths and not is_known:
            return f"{prefix}{name}"
        if name == "status" and self.derived is not None:
            return prefix_expression(self.derived.expression, prefix)
        if name == "createdAt" and self.orders_by_id:
            return {"$convert": {"input": f"{prefix}_id", "to": "date", "onError": None}}
        if name in self.expressions:
            return prefix_expression(self.expressions[name], prefix)
        path = self.paths.get(head)
        return None if path is None else f"{prefix}{path}{dot}{tail}"
