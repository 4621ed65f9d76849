"""Keeps exact counts by status and type, for segments of the jobs in the order of their _id.

A segment has about a thousand jobs. A change, even a deletion, has the _id of its job, so that the
job's segment can be counted again. Counting is idempotent: a change may be seen twice or late, and
nothing is remembered about single jobs. New jobs have ascending ObjectIds, so the jobs that change
are mostly in few segments. For milestones, a segment also has its first and last createdAt.
"""

import math
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Self

from bson.datetime_ms import DatetimeMS

from jobmon.collector.id_types import (
    ID_TYPES,
    OTHER_BSON_TYPES,
    OTHER_TYPE,
    IdType,
    find_id_type,
)
from jobmon.rollup.stats_document import Counts, dump_counts, load_counts
from jobmon.store.bson_json import make_aware
from jobmon.store.labels import MAX_TYPES, OTHER
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import ReadCollection
from jobmon.store.stats import COUNT_BY_STATUS_AND_TYPE, CountsByName

# The first and the last createdAt. A missing date becomes a value that sorts before all dates.
_TIMES: Document = {
    "first": {"$min": {"$ifNull": ["$createdAt", False]}},
    "last": {"$max": "$createdAt"},
}
_COUNT_WITH_TIMES: Document = {"$group": COUNT_BY_STATUS_AND_TYPE["$group"] | _TIMES}

SEGMENT_JOBS = 1_000
SPLIT_ABOVE = 2 * SEGMENT_JOBS
MERGE_BELOW = SEGMENT_JOBS // 2

_BY_ID: Keys = [("_id", 1)]

# The place of a segment: the type of its _ids, and its index among the segments of this type.
SegmentPlace = tuple[str, int]


class TimeRange(NamedTuple):
    """The first and the last createdAt of some jobs, in ms since 1970.

    Infinite if one of the jobs has no date: that job may be anywhere in the list.
    """

    first: float
    last: float

    def join(self, other: Self) -> Self:
        """The range of the times in both ranges."""
        return self._replace(first=min(self.first, other.first), last=max(self.last, other.last))


_NO_TIMES = TimeRange(math.inf, -math.inf)  # without jobs
_ANY_TIME = TimeRange(-math.inf, math.inf)


@dataclass
class Segment:
    """The jobs from `low` (None: the first _id of the type) to before the next segment."""

    low: Any = None
    counts: Counts = field(default_factory=Counter)
    times: TimeRange | None = None  # None if not read yet


class _Counted(NamedTuple):
    counts: Counts
    times: TimeRange | None


class SegmentRange(NamedTuple):
    """A segment of the jobs from `low` to before `high`; None for no bound.

    `has_bounds`: comparing the _id with the bounds finds these jobs and no others.
    """

    place: SegmentPlace
    low: Any
    high: Any
    counts: Counts
    times: TimeRange | None
    has_bounds: bool


class _SegmentRow:
    """The segments, in order, of the jobs whose _ids have the same type."""

    def __init__(self, bson_type: IdType) -> None:
        self.bson_type = bson_type
        self.segments = [Segment()]
        self._keys: list[Any] = []  # the key of `low`, of every segment except the first

    def indexes(self) -> range:
        return range(len(self.segments))

    def find(self, value: Any) -> int:
        """The index of the segment that contains this _id."""
        return bisect_right(self._keys, self.bson_type.key(value))

    def insert(self, index: int, segment: Segment) -> None:
        self.segments.insert(index, segment)
        self._keys.insert(index - 1, self.bson_type.key(segment.low))

    def merge_into_left(self, index: int) -> None:
        left, right = self.segments[index - 1 : index + 1]
        left.counts += right.counts
        left.times = left.times and right.times and left.times.join(right.times)
        del self.segments[index], self._keys[index - 1]

    def bounds(self, index: int) -> tuple[Any, Any]:
        """The first _ids of this segment and of the next segment; None for no bound."""
        following = self.segments[index + 1 : index + 2]
        return self.segments[index].low, following[0].low if following else None

    def match(self, low: Any, high: Any) -> Document:
        if self.bson_type is OTHER_TYPE:
            return {"_id": {"$type": OTHER_BSON_TYPES}}
        bounds = {"$gte": low, "$lt": high}
        condition = {operator: value for operator, value in bounds.items() if value is not None}
        if self.bson_type.name == "number" and low is None and condition:
            condition = {"$type": "number", "$not": {"$gte": high}}  # finds NaN, unlike $lt
        # A comparison finds only values of one type; without a comparison, name the type.
        return {"_id": condition or {"$type": self.bson_type.name}}

    def ranges(self) -> Iterator[SegmentRange]:
        for index, segment in enumerate(self.segments):
            low, high = self.bounds(index)
            has_bounds = low is not None or (high is not None and self.bson_type.name != "number")
            place = self.bson_type.name, index
            yield SegmentRange(place, low, high, segment.counts, segment.times, has_bounds)


class SegmentMap:
    """The counts of all jobs; `totals` is always the sum of the segments.

    With `keeps_times`, segments that are counted again also get their times, which takes a quarter
    longer. `has_new_times`: whether `read_times` read times since the last `dump`. `changes`: how
    many changes of jobs were seen since `reset_changes`; a sweep sees only the differences of
    counts. `oldest_change`: the first createdAt in the segments of these jobs, as in `TimeRange`.
    """

    def __init__(self, jobs: ReadCollection) -> None:
        self._jobs = jobs
        self._rows = {
            bson_type.name: _SegmentRow(bson_type) for bson_type in (*ID_TYPES, OTHER_TYPE)
        }
        self._marked_ids: list[Any] = []
        self._marked_segments: set[SegmentPlace] = set()
        self._swept_to = 0
        self._by_name = CountsByName(jobs.mapping)
        self.totals: Counts = Counter()
        self.keeps_times = self.has_new_times = False
        self.changes, self.oldest_change = 0, math.inf

    def reset_changes(self) -> None:
        """Count changes from now on."""
        self.changes, self.oldest_change = 0, math.inf

    def ranges(self) -> Iterator[SegmentRange]:
        """All segments, grouped by the type of their _ids, and in order within each type."""
        for row in self._rows.values():
            yield from row.ranges()

    def read_times(self, until: float) -> bool:
        """Read unknown times of segments until a monotonic time; returns whether all are known."""
        for row in self._rows.values():
            for index in row.indexes():
                segment = row.segments[index]
                if segment.times is None:
                    if time.monotonic() >= until:
                        return False
                    match = {"$match": row.match(*row.bounds(index))}
                    stages = [match, {"$group": {"_id": None} | _TIMES}]
                    segment.times = _find_times(self._jobs.aggregate(stages, index=_BY_ID))
                    self.has_new_times = True
        return True

    def mark_job(self, job_id: Any) -> None:
        """Mark the job with this _id, because it was changed, inserted or deleted."""
        self._marked_ids.append(job_id)

    def mark_next_segments(self, share: float) -> None:
        """Mark a `share` of all segments, in turn, to find changes that no event reported."""
        places = [(name, index) for name, row in self._rows.items() for index in row.indexes()]
        count = math.ceil(len(places) * share)
        start = self._swept_to % len(places)
        self._marked_segments.update((places + places)[start : start + count])
        self._swept_to = start + count

    def build(self, progress: Callable[[int], None]) -> None:
        """Count all jobs; calls `progress` with the number of jobs counted so far.

        After a failure this map cannot be used any more.
        """
        for row in self._find_used_rows():
            low = None
            while True:
                middle = self._find_split(row, low, None)
                self._set_counts(row.segments[-1], self._count(row, low, middle))
                progress(self.totals.total())
                if middle is None:
                    break
                row.insert(len(row.segments), Segment(middle))
                low = middle

    def _find_used_rows(self) -> Collection[_SegmentRow]:
        """The rows that may have jobs: just one if the first and last _id have the same type."""
        types = list[IdType]()
        for order in (1, -1):
            jobs = self._jobs.find({}, ("_id",), index=_BY_ID, order=[("_id", order)], limit=1)
            if not jobs:
                return ()
            types.append(find_id_type(jobs[0]["_id"]))
        has_one_type = len(set(types)) == 1 and types[0] is not OTHER_TYPE
        return [self._rows[types[0].name]] if has_one_type else self._rows.values()

    def recount(self) -> int:
        """Count again all marked segments and the segments of marked jobs; returns their number.

        After a failure of the database, the segments that were not counted are still marked.
        """
        with_marked_jobs = set(self._locate_marked_jobs())
        marked = self._marked_segments | with_marked_jobs
        self._by_name.forget(all_but=self.totals)
        # From the right: a split or a merge then moves only segments that are counted already.
        for name, index in sorted(marked, reverse=True):
            row = self._rows[name]
            segment, counted = row.segments[index], self._count(row, *row.bounds(index))
            self._record_change(segment, counted, has_marked_job=(name, index) in with_marked_jobs)
            self._set_counts(segment, counted)
            self._resize_segment(row, index)
            self._marked_segments.discard((name, index))  # at once: a merge may have deleted it
        self.changes += len(self._marked_ids)
        self._marked_ids.clear()
        return len(marked)

    @property
    def has_free_names(self) -> bool:
        """Whether types are folded into `(other)`, although at least half of all names are free."""
        types = {job_type for _, job_type in self.totals}
        return OTHER in types and len(types) <= MAX_TYPES // 2

    def dump(self) -> list[Document]:
        self.has_new_times = False
        return [
            {
                "type": name,
                "low": segment.low,
                "counts": dump_counts(segment.counts),
                "times": segment.times,
            }
            for name, row in self._rows.items()
            for segment in row.segments
        ]

    def load(self, documents: Iterable[Document], progress: Callable[[], object]) -> None:
        """Load the segments that `dump` stored; calls `progress` after each segment."""
        for document in documents:
            row = self._rows[document["type"]]
            counts = self._by_name.learn(load_counts(document["counts"]))
            times = document["times"]
            time_range = None if times is None else TimeRange(*times)
            segment = Segment(document["low"], counts, time_range)
            if segment.low is None:
                row.segments[0] = segment
            else:
                row.insert(len(row.segments), segment)
            self.totals.update(counts)
            progress()

    def _locate_marked_jobs(self) -> Iterator[SegmentPlace]:
        """The place of the segment that contains each marked job."""
        for job_id in self._marked_ids:
            name = find_id_type(job_id).name
            yield name, self._rows[name].find(job_id)

    def _resize_segment(self, row: _SegmentRow, index: int) -> None:
        """Split or merge a segment whose size is far from `SEGMENT_JOBS`."""
        while row.segments[index].counts.total() > SPLIT_ABOVE and self._split_segment(row, index):
            index += 1
        if index:
            left, right = row.segments[index - 1 : index + 1]
            if left.counts.total() + right.counts.total() < MERGE_BELOW:
                row.merge_into_left(index)

    def _split_segment(self, row: _SegmentRow, index: int) -> bool:
        """Split a segment after its first thousand jobs; returns False if that is not possible.

        Both parts are counted before anything changes: a failure must not lose a count.
        """
        low, high = row.bounds(index)
        middle = self._find_split(row, low, high)
        if middle is None:
            return False
        left, right = self._count(row, low, middle), self._count(row, middle, high)
        row.insert(index + 1, Segment(middle))
        self._set_counts(row.segments[index], left)
        self._set_counts(row.segments[index + 1], right)
        return True

    def _find_split(self, row: _SegmentRow, low: Any, high: Any) -> Any:
        """The _id of the job after the first thousand; None without such a job or a known order."""
        if row.bson_type is OTHER_TYPE:
            return None
        jobs = self._jobs.find(  # index: _id, keys only
            row.match(low, high), ("_id",), index=_BY_ID, order=_BY_ID, skip=SEGMENT_JOBS, limit=1
        )
        return jobs[0]["_id"] if jobs else None

    def _count(self, row: _SegmentRow, low: Any, high: Any) -> _Counted:
        group = _COUNT_WITH_TIMES if self.keeps_times else COUNT_BY_STATUS_AND_TYPE
        groups = self._jobs.aggregate([{"$match": row.match(low, high)}, group], index=_BY_ID)
        times = _find_times(groups) if self.keeps_times else None
        return _Counted(self._by_name.add_up(groups), times)

    def _record_change(self, segment: Segment, counted: _Counted, *, has_marked_job: bool) -> None:
        """Record the change of a segment: how many jobs changed, and the first createdAt.

        With `has_marked_job`, the number is already known from the marked jobs.
        """
        if segment.times is None or counted.times is None:
            self.oldest_change = -math.inf
        elif has_marked_job or segment.times != counted.times or segment.counts != counted.counts:
            first = min(segment.times.first, counted.times.first)
            self.oldest_change = min(self.oldest_change, first)
        if not has_marked_job:
            fewer, more = segment.counts - counted.counts, counted.counts - segment.counts
            self.changes += fewer.total() + more.total()

    def _set_counts(self, segment: Segment, counted: _Counted) -> None:
        self.totals.subtract(segment.counts)
        self.totals.update(counted.counts)
        self.totals += Counter()  # drops counts of 0
        segment.counts, segment.times = counted


def _find_times(groups: Iterable[Document]) -> TimeRange:
    """The range of the times of all these groups of jobs."""
    total = _NO_TIMES
    for group in groups:
        first, last = group["first"], group["last"]
        are_dates = all(isinstance(value, datetime | DatetimeMS) for value in (first, last))
        total = total.join(TimeRange(_to_ms(first), _to_ms(last)) if are_dates else _ANY_TIME)
    return total


def _to_ms(date: datetime | DatetimeMS) -> int:
    """A date in ms since 1970."""
    return int(DatetimeMS(make_aware(date)) if isinstance(date, datetime) else date)
