"""Keeps exact counts by status and type, for segments of the jobs in the order of their _id.

A segment has about a thousand jobs. A change, also a deletion, has the _id of its job, so that the
job's segment can be counted again. Counting is idempotent: a change may be seen twice or late, and
nothing is remembered about single jobs. New jobs have ascending ObjectIds, so the jobs that change
are mostly in few segments.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson import Binary, Code, DBRef, Decimal128, ObjectId
from bson.binary import OLD_BINARY_SUBTYPE, USER_DEFINED_SUBTYPE
from bson.datetime_ms import DatetimeMS

from jobmon.rollup.stats_document import Counts, dump_counts, load_counts
from jobmon.store.bson_json import to_utc
from jobmon.store.labels import MAX_TYPES, OTHER
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import ReadCollection
from jobmon.store.stats import COUNT_BY_STATUS_AND_TYPE, CountsByName

SEGMENT_JOBS = 1_000
SPLIT_ABOVE = 2 * SEGMENT_JOBS
MERGE_BELOW = SEGMENT_JOBS // 2

_BY_ID: Keys = [("_id", 1)]


def _number_key(value: Any) -> Any:
    if isinstance(value, Decimal128):
        decimal = value.to_decimal()
        return -math.inf if decimal.is_nan() else decimal  # math.isnan raises on a signalling one
    return -math.inf if math.isnan(value) else value


def _date_key(value: Any) -> Any:
    if isinstance(value, datetime):
        return int(DatetimeMS(to_utc(value)))
    return int(value)


def _binary_key(value: Any) -> tuple[int, int, bytes]:
    return len(value), value.subtype if isinstance(value, Binary) else 0, bytes(value)


@dataclass(frozen=True)
class _Type:
    """A BSON type of an _id. `key` orders its values as MongoDB does; None: one segment has all."""

    name: str
    python_types: tuple[type, ...]
    key: Callable[[Any], Any] | None


_OBJECT = _Type("object", (dict,), None)
_TYPES = (
    _Type("objectId", (ObjectId,), lambda value: value.binary),
    _Type("string", (str,), lambda value: value.encode()),
    _Type("bool", (bool,), int),
    _Type("number", (int, float, Decimal128), _number_key),
    _Type("date", (datetime, DatetimeMS), _date_key),
    _Type("binData", (bytes, Binary), _binary_key),
    _OBJECT,
)
_OTHER = _Type("other", (), None)
_OTHER_NAMES = [
    "null",
    "timestamp",
    "javascript",
    "javascriptWithScope",
    "dbPointer",
    "minKey",
    "maxKey",
]
# BSON types that MongoDB sorts with a type, and that Python decodes like it.
_SORTED_ALIKE = {"string": ["symbol"]}


def _find_types(job_id: Any) -> list[_Type]:
    """The types that an _id with this decoded value may have."""
    match job_id:
        case Code():  # a str to Python
            return [_OTHER]
        case DBRef():  # a document, or the deprecated type
            return [_OBJECT, _OTHER]
        case _:
            fits = (each for each in _TYPES if isinstance(job_id, each.python_types))
            return [next(fits, _OTHER)]


def _is_lossy(job_id: Any) -> bool:
    """Whether decoding may have lost a part of an _id, so that its order is unknown."""
    match job_id:
        case str():
            return "\ufffd" in job_id
        case Binary():
            return job_id.subtype in (OLD_BINARY_SUBTYPE, USER_DEFINED_SUBTYPE)
        case _:
            return False


@dataclass
class Segment:
    """The jobs from `low` (None: the first _id of the type) to before the next segment."""

    low: Any = None
    counts: Counts = field(default_factory=Counter)


class _TypeSegments:
    """The segments of one type, in order."""

    def __init__(self, bson_type: _Type) -> None:
        self.bson_type = bson_type
        self.segments = [Segment()]
        self._keys: list[Any] = []  # of every segment but the first

    def indexes(self) -> range:
        return range(len(self.segments))

    def find(self, value: Any) -> int:
        """The index of the segment that contains this _id."""
        return bisect_right(self._keys, self._key(value)) if self.bson_type.key else 0

    def insert(self, index: int, segment: Segment) -> None:
        self.segments.insert(index, segment)
        self._keys.insert(index - 1, self._key(segment.low))

    def merge_into_left(self, index: int) -> None:
        self.segments[index - 1].counts += self.segments[index].counts
        del self.segments[index], self._keys[index - 1]

    def bounds(self, index: int) -> tuple[Any, Any]:
        """The first _id of the segment and the first one after it; None for no bound."""
        following = self.segments[index + 1 : index + 2]
        return self.segments[index].low, following[0].low if following else None

    def match(self, low: Any, high: Any) -> Document:
        if self.bson_type is _OTHER:
            return {"_id": {"$type": _OTHER_NAMES}}
        bounds = {"$gte": low, "$lt": high}
        given = {operator: value for operator, value in bounds.items() if value is not None}
        if self.bson_type.name == "number" and low is None and given:
            given = {"$type": "number", "$not": {"$gte": high}}  # also finds NaN, $lt does not
        # A comparison finds only values of its own type; without one, name the type.
        name = self.bson_type.name
        return {"_id": given or {"$type": [name, *_SORTED_ALIKE.get(name, [])]}}

    def _key(self, value: Any) -> Any:
        assert self.bson_type.key is not None  # noqa: S101
        return self.bson_type.key(value)


class SegmentMap:
    """The counts of all jobs; `totals` is always the sum of the segments."""

    def __init__(self, jobs: ReadCollection) -> None:
        self._jobs = jobs
        self._rows = {bson_type.name: _TypeSegments(bson_type) for bson_type in (*_TYPES, _OTHER)}
        self._dirty_ids: list[Any] = []
        self._dirty_segments: set[tuple[str, int]] = set()
        self._swept_to = 0
        self._by_name = CountsByName(jobs.mapping)
        self.totals: Counts = Counter()

    def mark(self, job_id: Any) -> None:
        """Mark the job with this _id: it was changed, inserted or deleted."""
        self._dirty_ids.append(job_id)

    def mark_next(self, share: float) -> None:
        """Mark a `share` of all segments, in turn, to find changes that no event reported."""
        segments = [(name, index) for name, row in self._rows.items() for index in row.indexes()]
        count = math.ceil(len(segments) * share)
        start = self._swept_to % len(segments)
        self._dirty_segments.update((segments + segments)[start : start + count])
        self._swept_to = start + count

    def build(self, progress: Callable[[int], None]) -> None:
        """Count all jobs; calls `progress` with the number of jobs counted so far.

        After a failure this map cannot be used any more.
        """
        for row in self._find_used_rows():
            low = None
            while True:
                middle = self._find_split(row, low, None)
                self._replace_counts(row.segments[-1], self._count(row, low, middle))
                progress(self.totals.total())
                if middle is None:
                    break
                row.insert(len(row.segments), Segment(middle))
                low = middle

    def _find_used_rows(self) -> Collection[_TypeSegments]:
        """The rows that may have jobs: one, if the first and the last _id have the same type."""
        types = list[_Type]()
        for order in (1, -1):
            found = self._jobs.find({}, ("_id",), index=_BY_ID, order=[("_id", order)], limit=1)
            if not found:
                return ()
            types += _find_types(found[0]["_id"])
        is_one = len(set(types)) == 1 and types[0] is not _OTHER
        return [self._rows[types[0].name]] if is_one else self._rows.values()

    def recount(self) -> int:
        """Count the segments of all marked jobs again; returns the number of segments.

        After a failure of the database all of them are still marked.
        """
        marked = self._dirty_segments | set(self._find_marked())
        self._by_name.forget(all_but=self.totals)
        # From the right: a split or a merge then moves only segments that are counted already.
        for name, index in sorted(marked, reverse=True):
            row = self._rows[name]
            self._replace_counts(row.segments[index], self._count(row, *row.bounds(index)))
            self._resize(row, index)
        self._dirty_ids.clear()
        self._dirty_segments.clear()
        return len(marked)

    @property
    def has_free_names(self) -> bool:
        """Whether types are folded into `(other)` although half of all names are free."""
        types = {job_type for _, job_type in self.totals}
        return OTHER in types and len(types) <= MAX_TYPES // 2

    def dump(self) -> list[Document]:
        """The stored form of the segments."""
        return [
            {"type": name, "low": segment.low, "counts": dump_counts(segment.counts)}
            for name, row in self._rows.items()
            for segment in row.segments
        ]

    def load(self, documents: Iterable[Document], progress: Callable[[], object]) -> None:
        """Load the segments that `dump` stored; calls `progress` after each one."""
        for document in documents:
            row = self._rows[document["type"]]
            counts = self._by_name.learn(load_counts(document["counts"]))
            segment = Segment(document["low"], counts)
            if segment.low is None:
                row.segments[0] = segment
            else:
                row.insert(len(row.segments), segment)
            self.totals.update(counts)
            progress()

    def _find_marked(self) -> Iterator[tuple[str, int]]:
        """Type and index of the segments that may contain the marked jobs."""
        for job_id in self._dirty_ids:
            for bson_type in _find_types(job_id):
                row = self._rows[bson_type.name]
                for index in row.indexes() if _is_lossy(job_id) else [row.find(job_id)]:
                    yield bson_type.name, index

    def _resize(self, row: _TypeSegments, index: int) -> None:
        """Split or merge a segment whose size is far from `SEGMENT_JOBS`."""
        while row.segments[index].counts.total() > SPLIT_ABOVE and self._split(row, index):
            index += 1
        if index:
            left, right = row.segments[index - 1 : index + 1]
            if left.counts.total() + right.counts.total() < MERGE_BELOW:
                row.merge_into_left(index)

    def _split(self, row: _TypeSegments, index: int) -> bool:
        """Split a segment after its first thousand jobs; False if it has no more jobs.

        Both parts are counted before anything changes: a failure must not lose a count.
        """
        low, high = row.bounds(index)
        middle = self._find_split(row, low, high)
        if middle is None:
            return False
        left, right = self._count(row, low, middle), self._count(row, middle, high)
        row.insert(index + 1, Segment(middle))
        self._replace_counts(row.segments[index], left)
        self._replace_counts(row.segments[index + 1], right)
        return True

    def _find_split(self, row: _TypeSegments, low: Any, high: Any) -> Any:
        """The _id of the job after the first thousand; None if there are fewer jobs."""
        if row.bson_type.key is None:
            return None
        found = self._jobs.find(  # index: _id, keys only
            row.match(low, high), ("_id",), index=_BY_ID, order=_BY_ID, skip=SEGMENT_JOBS, limit=1
        )
        return found[0]["_id"] if found else None

    def _count(self, row: _TypeSegments, low: Any, high: Any) -> Counts:
        pipeline: list[Document] = [{"$match": row.match(low, high)}, COUNT_BY_STATUS_AND_TYPE]
        return self._by_name.add_up(self._jobs.aggregate(pipeline, index=_BY_ID))

    def _replace_counts(self, segment: Segment, counts: Counts) -> None:
        self.totals.subtract(segment.counts)
        self.totals.update(counts)
        self.totals += Counter()  # drops zeros
        segment.counts = counts
