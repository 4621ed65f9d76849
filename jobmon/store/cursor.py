"""The order of jobs, exactly: which come after a given one, whatever their createdAt holds.

There is one order, newest first by (createdAt, _id), and it is walked in both directions. An array
stands where its greatest element does.

MongoDB sorts values of different BSON types one type after the other, but `$lt` finds only
values of the type that it is given. So the older jobs after a place in the list are found by a few
simple clauses, in list order: the rest of the type at hand, then each type below it. Each
clause is one contiguous range of an index, and the ones for odd types cost an index probe.

Towards the newer jobs `$expr` compares across types, in two clauses. It needs an index without
arrays, and so does the direction itself: sorted upwards, an array stands where its least element
does. Where there are arrays, `SORT_KEY` computes what a job sorts by.

Rules: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

import base64
import binascii
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import bson
from bson import Binary, Code, DBRef, Decimal128, Int64, MinKey, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError

Clause = dict[str, Any]

NEWEST_FIRST: list[tuple[str, int]] = [("createdAt", -1), ("_id", -1)]
OLDEST_FIRST: list[tuple[str, int]] = [("createdAt", 1), ("_id", 1)]

_GREATEST: dict[str, Any] = {
    "$ifNull": [{"$cond": [{"$isArray": "$createdAt"}, {"$max": "$createdAt"}, "$createdAt"]}, None]
}
# An aggregation's expression. Documents are compared field by field, each across all types; only
# the empty array, which sorts between MinKey and null, has no value to stand for it.
SORT_KEY: dict[str, Any] = {
    "r": {
        "$switch": {
            "branches": [
                {"case": {"$eq": ["$createdAt", []]}, "then": 1},
                {"case": {"$eq": [{"$type": _GREATEST}, "minKey"]}, "then": 0},
            ],
            "default": 2,
        }
    },
    "c": _GREATEST,
    "i": "$_id",
}

# The same where the order of creation is that of the _id.
BY_ID_KEY: dict[str, Any] = {"i": "$_id"}

# From the highest downwards. Below what sorts above a date (a timestamp, a regular expression) all
# is found by its computed `SORT_KEY`: there is little above it to be passed over.
# Below all of these come null (or nothing), the empty array and MinKey.
_TYPES: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("date", (datetime, DatetimeMS)),
    ("bool", (bool,)),
    ("objectId", (ObjectId,)),
    ("binData", (bytes, Binary)),
    ("object", (dict, DBRef)),
    ("string", (str,)),
    ("number", (int, float, Decimal128)),
)
_NAMES = [name for name, _ in _TYPES]
_ABOVE_DATES = ["timestamp", "regex", "dbPointer", "javascript", "javascriptWithScope", "maxKey"]

_LOSSLESS = (datetime, DatetimeMS, ObjectId, bool, int, float, type(None))
_LONGEST = 500
# A cursor has to fit in an address, and the server refuses queries nested 200 levels deep.
MAX_TOKEN_LENGTH = 3_000
MAX_DEPTH = 32

_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """A place in a list: right after the job (created_at, id), the last one of page `page`; or,
    `backwards`, right before that job, the first one of the page.

    `created_at` is the value that the job sorts by: of an array its greatest element. A place
    `by_page` does not say which job that is, only the page: what is beyond has to be counted off.
    """

    created_at: Any
    id: Any
    page: int
    oldest_first: bool = False
    backwards: bool = False
    by_page: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether its values are short and decoded without loss."""
        return all(
            isinstance(value, _LOSSLESS)
            or (type(value) is str and len(value) <= _LONGEST and "\ufffd" not in value)
            for value in (self.created_at, self.id)
        )

    @property
    def fits(self) -> bool:
        """Whether it can be a cursor: short enough, and nested no deeper than a query may be."""
        return (
            not _is_deeper([self.created_at, self.id], MAX_DEPTH + 1)
            and len(self.token()) <= MAX_TOKEN_LENGTH
        )

    @property
    def ascending(self) -> bool:
        """Whether what lies beyond is newer, the nearest first."""
        return self.oldest_first != self.backwards

    @property
    def sort_key(self) -> dict[str, Any]:
        """What `SORT_KEY` computes for the job."""
        rank = {len(_TYPES) + 1: 1, len(_TYPES) + 2: 0}.get(_rank(self.created_at) or 0, 2)
        return {"r": rank, "c": None if self.created_at == [] else self.created_at, "i": self.id}

    def token(self) -> str:
        """The place as an opaque string that is safe in a URL."""
        document = {"p": self.page, "o": self.oldest_first, "b": self.backwards}
        if not self.by_page:
            document |= {"c": self.created_at, "i": self.id}
        return base64.urlsafe_b64encode(bson.encode(document)).decode().rstrip("=")

    @classmethod
    def decode(cls, token: str) -> Self:
        """The place that `token` encodes; ValueError unless it is one that `token()` makes."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars="-_", validate=True)
            place = cls._from_document(bson.decode(raw, _CODEC))
            # Whatever decodes to the same place in another spelling was not made here.
            is_ours = place.fits and place.token() == token
        except (binascii.Error, BSONError, KeyError, UnicodeError) as error:
            raise ValueError("not a cursor") from error
        if not is_ours:
            raise ValueError("not a cursor")
        return place

    @classmethod
    def _from_document(cls, document: dict[str, Any]) -> Self:
        by_page = "i" not in document
        page, oldest_first, backwards = document["p"], document["o"], document["b"]
        created_at, job_id = (None, None) if by_page else (document["c"], document["i"])
        if type(page) not in (int, Int64) or not 1 <= page < 2**53:
            raise ValueError("not a page")
        if type(oldest_first) is not bool or type(backwards) is not bool:
            raise ValueError("not a direction")
        if isinstance(job_id, list):
            raise ValueError("not an id")  # the server takes none
        return cls(
            created_at=created_at,
            id=job_id,
            page=int(page),
            oldest_first=oldest_first,
            backwards=backwards,
            by_page=by_page,
        )


def sort_of(clause: Clause, *, ascending: bool) -> list[tuple[str, int]]:
    """How to sort what a clause of `after` finds.

    With one createdAt for all, MongoDB reads the rest of the order from an index only if it is
    asked for the rest of the order.
    """
    order = OLDEST_FIRST if ascending else NEWEST_FIRST
    has_one = "$eq" in clause.get("createdAt", {})
    return order[1:] if has_one else order


def after(place: Cursor, *, only_dates: bool = False) -> Iterator[Clause]:
    """The clauses that together match every job beyond `place`, in that order, each job once.

    With `only_dates`, those are left out that cannot match a date.
    """
    if place.ascending:
        yield from _above(place)
        return
    created_at, rank = place.created_at, _rank(place.created_at)
    if rank is None:
        yield {"$expr": {"$lt": [SORT_KEY, {"$literal": place.sort_key}]}}
        return
    before, not_before = _below_id(place.id)
    visited = _elements_above(rank, "$gt", created_at)
    yield {"createdAt": {"$eq": created_at}, **before, **_except(visited + not_before)}
    for below, its_rank in _below(created_at, rank, "createdAt"):
        if only_dates and its_rank:
            return
        beyond = created_at if its_rank == rank else None
        if _is_nan(below["createdAt"].get("$eq")):
            beyond = math.nan  # an array with a number was found by that, if not before
        visited = _elements_above(its_rank, "$gte", beyond)
        yield {**below, **_except(visited)}


def after_id(place: Cursor) -> Iterator[Clause]:
    """`after`, where the order of creation is that of the _id: that is never an array."""
    if place.ascending:
        yield {"$expr": {"$gt": ["$_id", {"$literal": place.id}]}}
        return
    rank = _rank(place.id)
    if rank is None:
        yield {"$expr": {"$lt": ["$_id", {"$literal": place.id}]}}
        return
    for clause, _ in _below(place.id, rank, "_id"):
        yield clause


def _above(place: Cursor) -> Iterator[Clause]:
    """The clauses towards newer jobs; there must be no arrays."""
    higher_id = {"$expr": {"$gt": ["$_id", {"$literal": place.id}]}}
    yield {"createdAt": {"$eq": place.created_at}, **higher_id}
    yield {"$expr": {"$gt": ["$createdAt", {"$literal": place.created_at}]}}


def _below_id(value: Any) -> tuple[Clause, list[Clause]]:
    """What has a lesser _id, as a clause and what to except from it.

    One clause for all types: of equal createdAt there are few jobs, with mixed _ids fewer.
    """
    rank = _rank(value)
    if rank is None:
        return {"$expr": {"$lt": ["$_id", {"$literal": value}]}}, []
    higher: list[Clause] = [{"_id": {"$type": name}} for name in _higher(rank)]
    if _is_nan(value):  # below every number, but $gte finds none
        return {"_id": {"$not": {"$gte": -math.inf}, "$ne": value}}, higher
    return {"_id": {"$not": {"$gte": value}}}, higher


def _below(value: Any, rank: int, field: str) -> Iterator[tuple[Clause, int]]:
    """Clauses for what sorts below `value`, each with the rank of the type that it finds."""
    if rank < len(_NAMES):
        yield {field: {"$lt": value}}, rank
        if _NAMES[rank] == "number" and not _is_nan(value):
            yield {field: {"$eq": math.nan}}, rank  # sorts below every number, is $lt none
    found_by: list[Clause] = [
        # A symbol, long deprecated, sorts with the strings.
        {"$gte": ""} if name == "string" else {"$type": name}
        for name in _NAMES
    ] + [
        {"$eq": None},
        {"$eq": []},
        {"$eq": MinKey()},
    ]
    for lower in range(rank + 1, len(found_by)):
        yield {field: found_by[lower]}, lower


def _elements_above(rank: int, operator: str, value: Any) -> list[Clause]:
    """What an array must not hold, so that it is not found again by one of its lesser elements.

    In the list it stands where its greatest element does: not here, if that is of a higher type,
    or of this type beyond `value`.
    """
    higher: list[Clause] = [{"createdAt": {"$type": name}} for name in _higher(rank)]
    if value is not None and rank < len(_NAMES):
        # Every number is above NaN, but no comparison says so.
        higher.append({"createdAt": {"$gte": -math.inf} if _is_nan(value) else {operator: value}})
    return higher


def _higher(rank: int) -> list[str]:
    """The names of the types above that of `rank`."""
    names = [*_ABOVE_DATES, *_NAMES[:rank]]
    return [*names, "symbol"] if "string" in names else names


def _except(clauses: list[Clause]) -> Clause:
    return {"$nor": clauses} if clauses else {}


def _rank(value: Any) -> int | None:
    if isinstance(value, Code):  # a str to Python, above dates to MongoDB
        return None
    if value is None:
        return len(_TYPES)
    if value == []:
        return len(_TYPES) + 1
    if isinstance(value, MinKey):
        return len(_TYPES) + 2
    return next((rank for rank, (_, kinds) in enumerate(_TYPES) if isinstance(value, kinds)), None)


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether documents and arrays are nested more than `depth` deep, `value` included."""
    match value:
        case dict():
            inner: Iterable[Any] = value.values()
        case list():
            inner = value
        case DBRef():
            inner = value.as_doc().values()
        case Code() if value.scope:
            inner = value.scope.values()
        case _:
            return False
    return depth == 0 or any(_is_deeper(each, depth - 1) for each in inner)


def _is_nan(value: Any) -> bool:
    if isinstance(value, Decimal128):
        return value.to_decimal().is_nan()  # math.isnan raises on a signalling one
    return isinstance(value, float) and math.isnan(value)
