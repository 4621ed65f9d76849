"""Parses a profile's conditions, and converts them to aggregation expressions.

A condition is a MongoDB query with two uses. Converted to an expression, it computes the status of
a document. Reduced to the clauses that `select_indexable` returns, it finds documents by an index.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from jobmon.profiles.schema import TomlMistakeError
from jobmon.profiles.stored_values import PER_SECOND, encode_date
from jobmon.profiles.toml_lines import KeyPath

Query = dict[str, Any]

# The largest expected difference between this machine's clock and the database's.
_MARGIN = timedelta(minutes=5)
_LOGICAL_OPERATORS = ("$and", "$or", "$nor")
_COMPARISONS = ("$gt", "$gte", "$lt", "$lte")
_OPERATORS = ("$eq", "$ne", *_COMPARISONS, "$in", "$nin", "$exists", "$type", "$not", "$size")
_ISO = "%Y-%m-%dT%H:%M:%S.%LZ"


@dataclass(frozen=True)
class Now:
    """The present moment, to be compared with dates that are stored in the form `reading`."""

    reading: str = "date"

    def to_expression(self) -> Any:
        """The expression for the moment on the database's clock."""
        if self.reading == "date":
            return "$$NOW"
        if self.reading == "iso":
            return {"$dateToString": {"date": "$$NOW", "format": _ISO}}
        return {"$multiply": [{"$toLong": "$$NOW"}, PER_SECOND[self.reading] / 1_000]}


def parse_query(
    query: Query, constants: Mapping[str, Any], readings: Mapping[str, str], key_path: KeyPath
) -> Query:
    """The query with its `$null`, `$now` and constants replaced by values.

    `key_path`: where the query is in the profile. Raises TomlMistakeError.
    """

    def parse_value(raw: Any, reading: str, key_path: KeyPath) -> Any:
        match raw:
            case str() if raw.startswith("$"):
                if raw == "$now":
                    return Now(reading)
                return resolve_constant(raw, constants, key_path, "$now")
            case list():
                return [parse_value(element, reading, key_path) for element in raw]
            case dict() if any(name.startswith("$") for name in raw):
                return parse_operators(raw, reading, key_path)
            case date() | time() if not isinstance(raw, datetime):
                message = "must be a date with a time, such as 2026-01-01T00:00:00Z"
                raise TomlMistakeError(key_path, message)
            case _:
                return raw

    def parse_operators(condition: Query, reading: str, key_path: KeyPath) -> Query:
        for name in condition:
            if name not in _OPERATORS:
                allowed = ", ".join(_OPERATORS)
                raise TomlMistakeError(
                    (*key_path, name), f"unknown operator; allowed are {allowed}"
                )
        operands = {
            name: parse_value(raw, reading, (*key_path, name)) for name, raw in condition.items()
        }
        for name, operand in operands.items():
            _check_operand(name, operand, (*key_path, name))
        return operands

    parsed: Query = {}
    for name, condition in query.items():
        name_path = (*key_path, name)
        if name in _LOGICAL_OPERATORS:
            if not (
                isinstance(condition, list) and all(isinstance(inner, dict) for inner in condition)
            ):
                raise TomlMistakeError(name_path, "must be an array of queries")
            parsed[name] = [
                parse_query(inner, constants, readings, (*name_path, index))
                for index, inner in enumerate(condition)
            ]
        elif name == "$expr":
            parsed[name] = parse_expression(condition, constants, name_path)
        elif name.startswith("$"):
            allowed = ", ".join((*_LOGICAL_OPERATORS, "$expr"))
            raise TomlMistakeError(name_path, f"unknown operator; allowed are {allowed}")
        else:
            _refuse_nested(name, condition, name_path)
            parsed[name] = parse_value(condition, readings.get(name, "date"), name_path)
            if not _has_operators(parsed[name]):
                _check_operand("$eq", parsed[name], name_path)
    return parsed


def _check_operand(operator: str, operand: Any, key_path: KeyPath) -> None:
    """Refuse an operand from which `to_expression` cannot make a right expression."""
    names = operand if isinstance(operand, list) else [operand]
    if operator in ("$in", "$nin") and not isinstance(operand, list):
        raise TomlMistakeError(key_path, "must be an array")
    if operator == "$not" and not _has_operators(operand):
        raise TomlMistakeError(key_path, 'must have operators, such as { "$gt" = 1 }')
    if operator == "$type" and not all(isinstance(name, str) for name in names):
        raise TomlMistakeError(key_path, "must be the name of a type, or an array of names")
    if operator in _COMPARISONS and (operand is None or isinstance(operand, list | dict)):
        raise TomlMistakeError(key_path, "must be a number, a text, a date, true or false")
    if operator not in (*_COMPARISONS, "$not") and has_now(operand):
        message = f"$now cannot be compared with {operator}; use one of {', '.join(_COMPARISONS)}"
        raise TomlMistakeError(key_path, message)


def _refuse_nested(name: str, condition: Any, key_path: KeyPath) -> None:
    """Refuse a table as a field's value: TOML reads a path without quotes as nested tables."""
    path = name
    inner = condition
    while isinstance(inner, dict) and len(inner) == 1 and not _has_operators(inner):
        ((key, inner),) = inner.items()
        path += f".{key}"
    if isinstance(condition, dict) and condition and not _has_operators(condition):
        raise TomlMistakeError(
            key_path,
            f'must not be a table. Write a path in quotes: "{path}" = …. To compare with a '
            'whole document, write { "$eq" = { … } }',
        )


def parse_expression(expression: Any, constants: Mapping[str, Any], key_path: KeyPath) -> Any:
    """`parse_query` for an aggregation expression; raises TomlMistakeError."""
    match expression:
        case "$now":
            return "$$NOW"
        case str() if expression in ("$null", "$collection") or expression.startswith("$const."):
            return {"$literal": resolve_constant(expression, constants, key_path)}
        case dict():
            return {
                name: parse_expression(inner, constants, (*key_path, name))
                for name, inner in expression.items()
            }
        case list():
            return [parse_expression(inner, constants, key_path) for inner in expression]
        case _:
            return expression


def resolve_constant(
    raw: Any, constants: Mapping[str, Any], key_path: KeyPath, *other_values: str
) -> Any:
    """Replace `$null`, `$collection`, `$const.NAME`; raises TomlMistakeError for other `$…`.

    `other_values`: more values for the message, such as `$now`, which the caller replaces itself.
    """
    if not isinstance(raw, str) or not raw.startswith("$"):
        return raw
    if raw == "$null":
        return None
    if raw not in constants:
        allowed = ", ".join(["$null", *other_values, *constants])
        raise TomlMistakeError(key_path, f"unknown value {raw}; known are {allowed}")
    return constants[raw]


def to_expression(query: Query) -> Any:
    """The query as an aggregation expression. Like the query, it tests each element of an array."""
    parts = [_convert_clause(name, condition) for name, condition in query.items()]
    return parts[0] if len(parts) == 1 else {"$and": parts}


def _convert_clause(name: str, condition: Any) -> Any:
    match name:
        case "$expr":
            return condition
        case "$and" | "$or":
            return {name: [to_expression(query) for query in condition]}
        case "$nor":
            return {"$not": [{"$or": [to_expression(query) for query in condition]}]}
    reference = _to_reference(name)
    if not _has_operators(condition):
        return _match_equal(reference, condition)
    parts = [_convert_operator(reference, operator, value) for operator, value in condition.items()]
    return parts[0] if len(parts) == 1 else {"$and": parts}


def _has_operators(condition: Any) -> bool:
    return isinstance(condition, dict) and any(name.startswith("$") for name in condition)


def _to_reference(path: str) -> Any:
    """An expression for the value at a path. A number in the path is the index of an element."""
    reference: Any = None
    names: list[str] = []
    for part in [*path.split("."), None]:
        if part is not None and not part.isdecimal():
            names.append(part)
            continue
        if names:
            inner = ".".join(names)
            reference = (
                f"${inner}"
                if reference is None
                else {"$let": {"vars": {"element": reference}, "in": f"$$element.{inner}"}}
            )
            names = []
        if part is not None and reference is not None:
            reference = {"$arrayElemAt": [list_elements(reference), int(part)]}
    return f"${path}" if reference is None else reference


def _convert_operator(reference: Any, operator: str, value: Any) -> Any:
    match operator:
        case "$eq":
            return _match_equal(reference, value)
        case "$ne":
            return _negate(_match_equal(reference, value))
        case "$in":
            return {"$or": [_match_equal(reference, element) for element in value]}
        case "$nin":
            return _negate(_convert_operator(reference, "$in", value))
        case "$exists":
            exists = {"$ne": [{"$type": reference}, "missing"]}
            return exists if value else _negate(exists)
        case "$type":
            names = value if isinstance(value, list) else [value]
            return _match_any(
                reference, lambda element: {"$or": [_match_type(element, name) for name in names]}
            )
        case "$not":
            parts = [_convert_operator(reference, inner, raw) for inner, raw in value.items()]
            return _negate({"$and": parts})
        case "$size":
            is_array = {"$isArray": [reference]}
            return {"$and": [is_array, {"$eq": [{"$size": list_elements(reference)}, value]}]}
        case _:  # in queries, a comparison matches only values of the same type
            compared = value.to_expression() if isinstance(value, Now) else {"$literal": value}
            type_name = _find_type_name(value)
            return _match_any(
                reference,
                lambda element: {
                    "$and": [_match_type(element, type_name), {operator: [element, compared]}]
                },
            )


def _match_equal(reference: Any, value: Any) -> Any:
    if value is None:  # a missing value matches, too
        has_null = {"$in": [None, reference]}
        return {"$cond": [{"$isArray": [reference]}, has_null, {"$lte": [reference, None]}]}
    return _match_any(reference, lambda element: {"$eq": [element, {"$literal": value}]})


def _match_any(reference: Any, test: Callable[[Any], Any]) -> Any:
    """An expression that is true if the value or one of its elements passes the test."""
    results = {"$map": {"input": list_elements(reference), "in": test("$$this")}}
    return {"$or": [test(reference), {"$anyElementTrue": [results]}]}


def list_elements(reference: Any) -> Any:
    """An expression for an array's elements; for an empty array if the value is no array."""
    return {"$cond": [{"$isArray": [reference]}, reference, []]}


def _negate(expression: Any) -> Any:
    return {"$not": [expression]}


def _match_type(reference: Any, name: str) -> Any:
    return {"$isNumber": reference} if name == "number" else {"$eq": [{"$type": reference}, name]}


def _find_type_name(value: Any) -> str:
    match value:
        case Now():
            return {"date": "date", "iso": "string"}.get(value.reading, "number")
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case datetime():
            return "date"
        case _:
            return "string"


def select_indexable(query: Query) -> Query:
    """The clauses of a query that an index can serve.

    They match every document that the query matches, and maybe more documents.
    """
    selected: Query = {}
    for name, condition in query.items():
        if name == "$and":
            if parts := [part for inner in condition if (part := select_indexable(inner))]:
                selected[name] = parts
        elif name == "$or":
            parts = [select_indexable(inner) for inner in condition]
            if all(parts):
                selected[name] = parts
        elif name not in ("$expr", "$nor") and not _is_negated_now(condition):
            selected[name] = condition
    return selected


def _is_negated_now(condition: Any) -> bool:
    """Whether the margin of `resolve_now` would make the condition match fewer documents."""
    return _has_operators(condition) and "$not" in condition and has_now(condition)


def negate_query(query: Query) -> Query:
    """The negation of a simple query on one field; for any other query {}, which matches all."""
    if len(query) != 1:
        return {}
    ((name, condition),) = query.items()
    if name.startswith("$"):
        return {}
    if condition == {"$ne": None}:
        return {name: None}
    if condition is None:
        return {name: {"$ne": None}}
    return {name: {"$ne": condition}} if isinstance(condition, bool) else {}


def has_now(query: Any) -> bool:
    """Whether a query depends on the present moment."""
    return bool(find_due_fields(query))


def resolve_now(query: Any, now: datetime, operator: str = "") -> Any:
    """The query with dates in place of `Now`.

    Comparisons get a margin, so that they match more documents: the clocks of jobmon and of the
    database may differ.
    """
    match query:
        case Now():
            margin = {"$g": -_MARGIN, "$l": _MARGIN}.get(operator[:2], timedelta())
            return encode_date(now + margin, query.reading)
        case dict():
            return {name: resolve_now(inner, now, name) for name, inner in query.items()}
        case list():
            return [resolve_now(inner, now, operator) for inner in query]
        case _:
            return query


def list_index_fields(query: Query) -> tuple[list[str], bool]:
    """The fields of an index for a query, and whether the query compares each with one value.

    If it does, sort fields can follow in the index. Null does not count as one value.
    """
    fields, is_equality = [], True
    for name, condition in select_indexable(query).items():
        if name.startswith("$"):
            continue
        fields.append(name)
        is_equality = is_equality and not _has_operators(condition) and condition is not None
    return fields, is_equality


def find_due_fields(query: Any, path: str = "") -> set[tuple[str, str]]:
    """The fields that a query compares with `Now`, as pairs (path, reading)."""
    match query:
        case Now():
            return {(path, query.reading)}
        case dict():
            return {
                due_field
                for name, inner in query.items()
                for due_field in find_due_fields(inner, path if name.startswith("$") else name)
            }
        case list():
            return set[tuple[str, str]]().union(*(find_due_fields(inner, path) for inner in query))
        case _:
            return set()
