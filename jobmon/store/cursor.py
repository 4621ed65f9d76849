"""Cursors: places in a list of jobs, and the queries for the jobs beyond a place.

A list is in the order of a date (createdAt, nextRunAt, …) and the _id. A cursor has these two
values of a job, so that the next page costs the same at any depth. MongoDB's aggregation compares
values of all types, in the order in which an index sorts them. Arrays are an exception: an index
sorts an array by its greatest or its least element, but a comparison uses the whole array. So a
cursor has only its page number if there are arrays, or if a value is secret, too long or not exact.

Rules: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from bson import Binary, Int64, MinKey, ObjectId
from bson.binary import OLD_BINARY_SUBTYPE, USER_DEFINED_SUBTYPE
from bson.datetime_ms import DatetimeMS

from jobmon.store.bson_json import decode_token, encode_key, encode_token, read_date
from jobmon.store.mapping import STORED_DATES, Document, FieldMapping, Keys

NEWEST_FIRST: Keys = [("createdAt", -1), ("_id", -1)]
OLDEST_FIRST: Keys = [("createdAt", 1), ("_id", 1)]
SOONEST_FIRST: Keys = [("nextRunAt", 1), ("_id", 1)]
EARLIEST_FINISH_FIRST: Keys = [("finishedAt", 1), ("_id", 1)]

# By date that orders a list: the key that stands for it in an encoded cursor; none for createdAt.
_MARKS = {"nextRunAt": "n", "finishedAt": "f", "leaseExpiresAt": "l"}
_EXACT_TYPES = (datetime, DatetimeMS, ObjectId, bool, int, float, type(None))
# Decoding may change binary values of these subtypes: see `store.decoding`.
_INEXACT_SUBTYPES = (OLD_BINARY_SUBTYPE, USER_DEFINED_SUBTYPE)
_MAX_LENGTH = 200  # of a text in characters, of a binary value in bytes


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """A place in a list: after the job with the _id `id`, the last job of page `page`.

    With `backwards`, the place is before this job, which is the first job of the page. `date`: the
    value of the job's date `order_by`, which orders the list. `neighbor_differs`: the job next to
    this job in the page has another date, so one query usually finds the jobs beyond. A cursor
    `by_page` has no values of a job: the jobs beyond are found by skipping pages.
    """

    page: int
    date: Any = None
    id: Any = None
    oldest_first: bool = False
    order_by: str = "createdAt"
    backwards: bool = False
    by_page: bool = False
    neighbor_differs: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the values are short, and exactly the values in the database."""
        return _is_exact(self.date) and _is_exact(self.id)

    @property
    def ascending(self) -> bool:
        """Whether the jobs beyond are read in ascending order of the date."""
        return self.oldest_first != self.backwards

    def drop_values(self) -> Self:
        return replace(self, date=None, id=None, by_page=True, neighbor_differs=False)

    def encode(self) -> str:
        """The cursor as an opaque string that is safe in a URL."""
        document = {"p": self.page, "o": self.oldest_first, "b": self.backwards}
        if not self.by_page:
            document |= {"c": self.date, "i": self.id}
        if mark := _MARKS.get(self.order_by):
            document[mark] = True
        if self.neighbor_differs:
            document["a"] = True
        return encode_token(document)

    @classmethod
    def decode(cls, encoded: str) -> Self:
        """The cursor of a text; raises ValueError for a text that `encode` never returns."""
        try:
            cursor = cls._parse(decode_token(encoded))
        except KeyError as error:
            raise ValueError("not a cursor") from error
        # `encode` returns only one text for each cursor: any other text is refused.
        if not cursor.is_exact or cursor.encode() != encoded:
            raise ValueError("not a cursor")
        return cursor

    @classmethod
    def _parse(cls, document: Document) -> Self:
        by_page = "i" not in document
        page, oldest_first, backwards = document["p"], document["o"], document["b"]
        if type(page) not in (int, Int64) or not 1 <= page < 2**53:
            raise ValueError("not a page")
        if type(oldest_first) is not bool or type(backwards) is not bool:
            raise ValueError("not a direction")
        return cls(
            page=int(page),
            date=None if by_page else document["c"],
            id=None if by_page else document["i"],
            oldest_first=oldest_first,
            order_by=next((name for name, mark in _MARKS.items() if mark in document), "createdAt"),
            backwards=backwards,
            by_page=by_page,
            neighbor_differs="a" in document,
        )

    def query_from(self) -> Document | None:
        """The query for jobs from the date on; None without a date, or if many jobs may have it."""
        if not self.neighbor_differs or not isinstance(self.date, datetime):
            return None
        operator = "$gte" if self.ascending else "$lte"
        return {"$expr": {operator: [f"${self.order_by}", {"$literal": self.date}]}}

    def select_beyond(self, jobs: list[Document]) -> list[Document] | None:
        """The jobs beyond the cursor; `jobs` are the results of `query_from`, in its direction.

        None if they are unknown: jobs have the cursor's date, but the cursor's job is not among
        them.
        """
        # Not the _ids themselves: for Python, True is equal to 1.
        cursor_key, keys = encode_key(self.id), []
        date = read_date(self.date)
        for job in jobs:
            if read_date(stored_date(job, self.order_by)) != date:
                break
            keys.append(encode_key(job["_id"]))
        if cursor_key in keys:
            return jobs[keys.index(cursor_key) + 1 :]
        return None if keys else jobs

    def queries_beyond(self, *, by_id: bool = False) -> Iterator[tuple[Document, Keys]]:
        """Queries that together match every job beyond the cursor once, each with its sort order.

        They are right only if no date is an array. `by_id`: the order of _id is the list's order.
        """
        field = self.order_by
        operator, direction = ("$gt", 1) if self.ascending else ("$lt", -1)
        order: Keys = [(field, direction), ("_id", direction)]
        is_id_beyond = {"$expr": {operator: ["$_id", {"$literal": self.id}]}}
        if by_id:
            yield is_id_beyond, order
            return
        # If the date is fixed, MongoDB uses an index only for a sort order without the date.
        yield {field: {"$eq": self.date}, **is_id_beyond}, order[1:]
        if self.date is None and not self.ascending:
            # An index sorts a missing value like null, but an expression sorts it before null.
            yield {field: {"$eq": MinKey()}}, order[1:]
        else:
            yield {"$expr": {operator: [f"${field}", {"$literal": self.date}]}}, order

    def query_beyond(self, *, by_id: bool = False) -> Document:
        """One query for every job beyond the cursor: no index has its results in list order."""
        return {"$or": [query for query, _ in self.queries_beyond(by_id=by_id)]}


def find_beyond(
    cursor: Cursor,
    find: Callable[[Document, Keys, int], list[Document]],
    order: Keys,
    limit: int,
    *,
    by_id: bool,
) -> list[Document]:
    """Up to `limit` jobs beyond a cursor, usually by one query."""
    if not by_id and (query := cursor.query_from()) is not None:
        from_date = find(query, order, limit + 1)
        jobs = cursor.select_beyond(from_date)
        if jobs is not None and (len(jobs) >= limit or len(from_date) <= limit):
            return jobs[:limit]
    jobs = []
    for query, part_order in cursor.queries_beyond(by_id=by_id):
        jobs += find(query, part_order, limit - len(jobs))
        if len(jobs) >= limit:
            break
    return jobs


def stored_date(job: Document, field: str) -> Any:
    """The value of a job's date that orders a list, in the form that the document stores."""
    return job.get(STORED_DATES.get(field, field), job.get(field))


def list_order(field: str, mapping: FieldMapping) -> Keys:
    """The ascending order of a list by a date, and then by _id if an index has both."""
    has_id = field in ("createdAt", "nextRunAt") or (field == "finishedAt" and mapping.has_status)
    return [(field, 1), ("_id", 1)] if has_id else [(field, 1)]


def _is_exact(value: Any) -> bool:
    match value:
        case Binary() if value.subtype in _INEXACT_SUBTYPES:
            return False
        case bytes():
            return len(value) <= _MAX_LENGTH
        case str():  # BSON code is decoded as a subclass
            return type(value) is str and len(value) <= _MAX_LENGTH and "\ufffd" not in value
        case _:
            return isinstance(value, _EXACT_TYPES)
