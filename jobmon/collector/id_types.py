"""The BSON types of _ids, and the order of their values as in MongoDB's index."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import Binary, Code, DBRef, Decimal128, ObjectId
from bson.binary import OLD_BINARY_SUBTYPE, USER_DEFINED_SUBTYPE
from bson.datetime_ms import DatetimeMS

from jobmon.store.bson_json import to_utc


def _make_number_key(value: Any) -> Any:
    if isinstance(value, Decimal128):
        decimal = value.to_decimal()
        return -math.inf if decimal.is_nan() else decimal  # math.isnan raises for a signaling NaN
    return -math.inf if math.isnan(value) else value


def make_date_key(value: Any) -> Any:
    """A date as ms since 1970."""
    if isinstance(value, datetime):
        return int(DatetimeMS(to_utc(value)))
    return int(value)


def _make_binary_key(value: Any) -> tuple[int, int, bytes]:
    return len(value), value.subtype if isinstance(value, Binary) else 0, bytes(value)


@dataclass(frozen=True)
class IdType:
    """A BSON type of an _id; `key` orders its values as MongoDB does.

    `key` is None if Python cannot order the values: then one segment has all jobs of this type.
    """

    name: str
    python_types: tuple[type, ...]
    key: Callable[[Any], Any] | None


_OBJECT = IdType("object", (dict,), None)
ID_TYPES = (
    IdType("objectId", (ObjectId,), lambda value: value.binary),
    IdType("string", (str,), lambda value: value.encode()),
    IdType("bool", (bool,), int),
    IdType("number", (int, float, Decimal128), _make_number_key),
    IdType("date", (datetime, DatetimeMS), make_date_key),
    IdType("binData", (bytes, Binary), _make_binary_key),
    _OBJECT,
)
OTHER_TYPE = IdType("other", (), None)
OTHER_TYPES = [  # the BSON types that are `OTHER_TYPE` here
    "null",
    "timestamp",
    "javascript",
    "javascriptWithScope",
    "dbPointer",
    "minKey",
    "maxKey",
]
# By type: other BSON types that MongoDB sorts like this type, and that Python decodes like it.
SORTED_ALIKE = {"string": ["symbol"]}


def find_id_types(job_id: Any) -> list[IdType]:
    """The types that an _id with this decoded value may have."""
    match job_id:
        case Code():  # a subclass of str in Python, but another BSON type
            return [OTHER_TYPE]
        case DBRef():  # a document with $ref, or the deprecated type dbPointer
            return [_OBJECT, OTHER_TYPE]
        case _:
            matching = (kind for kind in ID_TYPES if isinstance(job_id, kind.python_types))
            return [next(matching, OTHER_TYPE)]


def is_lossy(job_id: Any) -> bool:
    """Whether decoding may have lost a part of an _id, so that it cannot be ordered."""
    match job_id:
        case str():
            return "\ufffd" in job_id
        case Binary():
            return job_id.subtype in (OLD_BINARY_SUBTYPE, USER_DEFINED_SUBTYPE)
        case _:
            return False
