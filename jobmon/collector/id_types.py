"""The BSON types of _ids, and the order of their values as in MongoDB's index."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bson import Binary, Code, Decimal128, ObjectId


def _make_number_key(value: Any) -> Any:
    if isinstance(value, Decimal128):
        decimal = value.to_decimal()
        return -math.inf if decimal.is_nan() else decimal  # math.isnan raises for a signaling NaN
    return -math.inf if math.isnan(value) else value


def _make_binary_key(value: Any) -> tuple[int, int, bytes]:
    return len(value), value.subtype if isinstance(value, Binary) else 0, bytes(value)


@dataclass(frozen=True)
class IdType:
    """A BSON type of an _id; `key` orders its values as MongoDB does."""

    name: str
    python_types: tuple[type, ...]
    key: Callable[[Any], Any]


ID_TYPES = (
    IdType("objectId", (ObjectId,), lambda value: value.binary),
    IdType("string", (str,), lambda value: value.encode()),
    IdType("number", (int, float, Decimal128), _make_number_key),
    IdType("binData", (bytes,), _make_binary_key),
)
OTHER_TYPE = IdType("other", (), lambda _: 0)  # one segment has all jobs of these types
OTHER_BSON_TYPES = [  # their values have the `IdType` `OTHER_TYPE`
    "object",
    "bool",
    "date",
    "null",
    "timestamp",
    "symbol",
    "javascript",
    "javascriptWithScope",
    "dbPointer",
    "minKey",
    "maxKey",
]


def find_id_type(value: Any) -> IdType:
    """The type of an _id with this value."""
    if isinstance(value, Code | bool):  # in Python subclasses of str and int
        return OTHER_TYPE
    return next((kind for kind in ID_TYPES if isinstance(value, kind.python_types)), OTHER_TYPE)
