"""Converts conditions and expressions from the contract's values to the values in documents.

It also reads the values at paths of documents.
"""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from bson.regex import Regex

from jobmon.profiles.stored_values import encode_date
from jobmon.store.bson_json import make_aware

# No job is as old as this: programs store an earlier date in place of null.
FIRST_DATE = datetime(1970, 1, 2, tzinfo=UTC)
_NAIVE_FIRST = FIRST_DATE.replace(tzinfo=None)


def replace_references(expression: Any, replace: Callable[[str], Any]) -> Any:
    """An aggregation expression with the result of `replace` in place of each `$path`.

    `replace` gets the path; for a variable such as `$$NOW`, it gets `$NOW`.
    """
    match expression:
        case str() if expression.startswith("$"):
            return replace(expression[1:])
        case {"$literal": _}:
            return expression
        case dict():
            return {name: replace_references(inner, replace) for name, inner in expression.items()}
        case list():
            return [replace_references(inner, replace) for inner in expression]
        case _:
            return expression


def prefix_expression(expression: Any, prefix: str) -> Any:
    """The expression with `prefix` in place of the `$` of each path; variables are unchanged."""
    return replace_references(
        expression, lambda name: f"${name}" if name.startswith("$") else prefix + name
    )


def list_paths(expression: Any) -> Iterator[str]:
    """The paths that an aggregation expression reads."""
    match expression:
        case str() if expression.startswith(("$$ROOT.", "$$CURRENT.")):
            yield expression.partition(".")[2]
        case str() if expression.startswith("$") and not expression.startswith("$$"):
            yield expression[1:]
        case {"$literal": _}:
            pass
        case dict():
            for inner in expression.values():
                yield from list_paths(inner)
        case list():
            for inner in expression:
                yield from list_paths(inner)


def overlap(path: str, other: str) -> bool:
    """Whether the values at the paths are the same, or one contains the other."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")


def subtract_offset(condition: Any, offset: timedelta) -> Any:
    """The condition on a date, for documents in which the stored date is earlier by `offset`."""
    if isinstance(condition, dict):
        return {operator: subtract_offset(value, offset) for operator, value in condition.items()}
    try:
        return condition - offset if isinstance(condition, datetime) else condition
    except OverflowError:  # no job has a date so near to the year 1 or 9999
        return condition


def to_stored(condition: Any, date_form: str) -> Any:
    """The condition on a date, for documents that store dates in this form, such as `iso`."""
    stored_type = "string" if date_form == "iso" else "number"
    match condition:
        case dict():
            return {operator: to_stored(value, date_form) for operator, value in condition.items()}
        case list():  # the types of a `$type` condition that matches values other than dates
            return ["date" if value == stored_type else value for value in condition]
        case datetime():
            return encode_date(condition, date_form)
        case _:
            return stored_type if condition == "date" else condition


def is_unset(value: Any) -> bool:
    """Whether a date stands for no date, such as Go's and .NET's year 1, or 0 ms since 1970."""
    return isinstance(value, datetime) and value < (FIRST_DATE if value.tzinfo else _NAIVE_FIRST)


def creation_time(value: Any) -> datetime | None:
    """The creation time that an ObjectId holds, in whole seconds; None for any other value."""
    return value.generation_time if isinstance(value, ObjectId) else None


def match_creation_time(condition: Any) -> Any:
    """The condition (`$gte` or `$lt`) on createdAt, for documents whose ObjectId holds the date."""
    if isinstance(condition, dict):
        return {operator: match_creation_time(value) for operator, value in condition.items()}
    if condition == "date":  # the type in a `$type` condition
        return "objectId"
    if isinstance(condition, datetime):
        # An ObjectId has whole seconds: the first ObjectId after 3.5 s has 4 s.
        seconds = math.ceil(make_aware(condition).timestamp())
        bounded = min(max(seconds, 0), 0xFFFF_FFFF)
        return ObjectId(f"{bounded:08x}" + "0" * 16)
    return condition


def matches_constant(constant: Any, value: Any) -> bool:
    """Whether a constant matches `value`, the value or the pattern in a query."""
    if isinstance(value, Regex):
        return isinstance(constant, str) and value.try_compile().match(constant) is not None
    return bool(constant == value)


def get_at_path(value: Any, path: str, default: Any = None) -> Any:
    """The value at a path with dots in a document; `default` without one, or inside an array."""
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return default
        value = value[part]
    return value


def list_prefixes(path: str) -> list[str]:
    """The paths that contain a path, and the path itself: `a`, `a.b` and `a.b.c` for `a.b.c`."""
    parts = path.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
