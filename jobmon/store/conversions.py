"""Converts conditions and expressions between the contract's values and those of documents."""

import math
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from jobmon.profiles.conditions import encode_date
from jobmon.store.bson_json import to_utc


def prefix_expression(expression: Any, prefix: str) -> Any:
    """The expression with `prefix` in the place of the `$` of each field."""
    match expression:
        case str() if expression.startswith("$") and not expression.startswith("$$"):
            return prefix + expression[1:]
        case {"$literal": _}:
            return expression
        case dict():
            return {name: prefix_expression(inner, prefix) for name, inner in expression.items()}
        case list():
            return [prefix_expression(inner, prefix) for inner in expression]
        case _:
            return expression


def subtract_offset(condition: Any, offset: timedelta) -> Any:
    """A condition on a date as one on a date that is earlier by `offset`."""
    if isinstance(condition, dict):
        return {operator: subtract_offset(value, offset) for operator, value in condition.items()}
    return condition - offset if isinstance(condition, datetime) else condition


def to_stored(condition: Any, reading: str) -> Any:
    """A condition on a date as one on the form in which the documents hold it."""
    stored = "string" if reading == "iso" else "number"
    match condition:
        case dict():
            return {operator: to_stored(value, reading) for operator, value in condition.items()}
        case list():  # of types
            return ["date" if value == stored else value for value in condition]
        case datetime():
            return encode_date(condition, reading)
        case _:
            return stored if condition == "date" else condition


def creation_time(value: Any) -> datetime | None:
    return value.generation_time if isinstance(value, ObjectId) else None


def match_creation_time(condition: Any) -> Any:
    """A condition on a date as one on the ObjectIds that were made then."""
    if isinstance(condition, dict):
        return {operator: match_creation_time(value) for operator, value in condition.items()}
    if condition == "date":  # of a $type
        return "objectId"
    if isinstance(condition, datetime):
        # An id has whole seconds: from 3.5 on is the same as from 4 on.
        seconds = math.ceil(to_utc(condition).timestamp())
        bounded = min(max(seconds, 0), 0xFFFF_FFFF)
        return ObjectId(f"{bounded:08x}" + "0" * 16)
    return condition
