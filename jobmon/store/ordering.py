"""Newest first, exactly: which jobs come after a given one, whatever their createdAt holds.

MongoDB sorts values of different BSON types one type after the other, but `$lt` finds only
values of the type that it is given. So the jobs after a place in the list are found by a few
simple clauses, in list order: the rest of the type at hand, then each type below it. Each
clause is one contiguous range of an index, and the ones for odd types cost an index probe.

Rules: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

import base64
import binascii
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

import bson
from bson import Binary, Decimal128, MinKey, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError

Clause = dict[str, Any]

# From the highest downwards. What sorts above a date (a timestamp, a regular expression) or has
# no `$lt` is placed by `$expr`, which compares across types but needs an index without arrays.
_TYPES: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("date", (datetime, DatetimeMS)),
    ("bool", (bool,)),
    ("objectId", (ObjectId,)),
    ("binData", (bytes, Binary)),
    ("object", (dict,)),
    ("string", (str,)),
    ("number", (int, float, Decimal128)),
)
_BELOW_ALL_TYPES: tuple[Clause, ...] = ({"$eq": None}, {"$eq": []}, {"$eq": MinKey()})

_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place in the list: right after the job (createdAt, _id), the last one of page `page`.

    `created_at` is the value that the job sorts by: of an array its greatest element.
    """

    created_at: Any
    id: Any
    page: int

    def token(self) -> str:
        """The place as an opaque string that is safe in a URL."""
        document = {"c": self.created_at, "i": self.id, "p": self.page}
        return base64.urlsafe_b64encode(bson.encode(document)).decode().rstrip("=")

    @classmethod
    def from_token(cls, token: str) -> Self:
        """The place that `token` says; ValueError if it says none."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars="-_", validate=True)
            document = bson.decode(raw, _CODEC)
            created_at, job_id, page = document["c"], document["i"], document["p"]
        except (binascii.Error, BSONError, KeyError, UnicodeError) as error:
            raise ValueError("not a cursor") from error
        if type(page) is not int or page < 1 or len(document) != 3:
            raise ValueError("not a cursor")
        return cls(created_at=created_at, id=job_id, page=page)


def after(place: Place) -> Iterator[Clause]:
    """The clauses that together match every job after `place`, in list order, each job once."""
    created_at, rank = place.created_at, _rank(place.created_at)
    for below, _ in _below("_id", place.id):
        yield {"createdAt": {"$eq": created_at}, **below, **_without_above(rank, "$gt", created_at)}
    for below, its_rank in _below("createdAt", created_at):
        yield {
            **below,
            **_without_above(its_rank, "$gte", created_at if its_rank == rank else None),
        }


def _below(field: str, value: Any) -> Iterator[tuple[Clause, int | None]]:
    """Clauses for what sorts below `value`, each with the rank of the type that it finds."""
    rank = _rank(value)
    if rank is None:
        yield {"$expr": {"$lt": [f"${field}", {"$literal": value}]}}, None
        return
    if rank < len(_TYPES):
        yield {field: {"$lt": value}}, rank
        if _TYPES[rank][0] == "number" and not _is_nan(value):
            yield {field: {"$eq": math.nan}}, rank  # sorts below every number, is $lt none
    for lower, (name, _) in enumerate(_TYPES[rank + 1 :], start=rank + 1):
        yield {field: {"$type": name}}, lower
    for lower in range(max(rank + 1, len(_TYPES)), len(_TYPES) + len(_BELOW_ALL_TYPES)):
        yield {field: _BELOW_ALL_TYPES[lower - len(_TYPES)]}, lower


def _without_above(rank: int | None, operator: str, value: Any) -> Clause:
    """Keeps an array from being found again by a lesser element than the one it sorts by.

    In the list it stands where its greatest element does: not here, if it has one of a higher
    type, or of this type beyond `value`.
    """
    if rank is None:
        return {}
    higher: list[Clause] = [{"createdAt": {"$type": name}} for name, _ in _TYPES[:rank]]
    if value is not None and rank < len(_TYPES):
        # Every number is above NaN, but no comparison says so.
        above = {"$gte": -math.inf} if _is_nan(value) else {operator: value}
        higher.append({"createdAt": above})
    return {"$nor": higher} if higher else {}


def _rank(value: Any) -> int | None:
    if value is None:
        return len(_TYPES)
    if value == []:
        return len(_TYPES) + 1
    if isinstance(value, MinKey):
        return len(_TYPES) + 2
    return next((rank for rank, (_, kinds) in enumerate(_TYPES) if isinstance(value, kinds)), None)


def _is_nan(value: Any) -> bool:
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    return isinstance(number, float | Decimal) and math.isnan(number)
