"""Counts milestones of the lists (dates with the number of older jobs), and stores them."""

import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from jobmon.collector.segments import SegmentMap, SegmentRange, TimeRange
from jobmon.rollup.documents import OwnDatabase
from jobmon.rollup.milestone_document import MILESTONES, dump_milestones
from jobmon.rollup.stats_document import Counts
from jobmon.store.mapping import FieldMapping
from jobmon.store.milestones import IdRange, Milestone, MilestoneChanges, Milestones

MIN_JOBS = 20_000  # among fewer jobs, skipping index keys takes only a few milliseconds
MAX_MILESTONES = 1_024
MAX_NUMBERS = 40_000  # in the document, which has a number for each milestone and label
MAX_LABELS = 400  # with more, the jobs are counted by status only
# The most segments with jobs on both sides of a milestone: each request counts their older jobs.
MAX_SHARED = 4
READ_TIMES_SHARE = 0.1  # `write` reads times for this share of the time since its last call
MAX_READ_TIMES_S = 0.2  # but at most this long, because the stats wait for it
WRITE_EVERY_S = 20.0
RETRY_AFTER_S = 3_600.0  # if milestones are not possible
PAUSE_FACTOR = 50  # the pause is this many times as long as counting and writing took
# Milliseconds since 1970 that a datetime can hold in any time zone.
_MIN_MS = int(datetime(2, 1, 1, tzinfo=UTC).timestamp() * 1_000)
_MAX_MS = int(datetime(9998, 1, 1, tzinfo=UTC).timestamp() * 1_000)

_Timed = tuple[TimeRange, SegmentRange]  # the known times of a segment, and the segment


class MilestoneWriter:
    """Stores the milestones of a queue's lists while its jobs change, a few times a minute."""

    def __init__(self, own: OwnDatabase, mapping: FieldMapping) -> None:
        self._own = own
        path, name = mapping.paths.get("createdAt"), "createdAt"
        # Lists are in the order of the stored values, so these values have to be dates.
        is_date = name not in mapping.readings and name not in mapping.offsets
        self._has_dates = path is not None and is_date and mapping.has_creation_time
        self._is_ordered_by_id = mapping.orders_by_id
        self._segments: SegmentMap | None = None
        self._version: str | None = None
        self._due_at = self._called_at = 0.0

    def write(self, segments: SegmentMap) -> None:
        """Count and store the milestones if jobs have changed and the pause is over.

        First, several calls read the unknown times of segments; each call reads a part of them.
        """
        started = time.monotonic()
        since_s, self._called_at = started - self._called_at, started
        if segments is not self._segments:  # it is unknown how many jobs have changed
            self._segments, self._version, self._due_at = segments, None, started
        is_due = started >= self._due_at and (self._version is None or segments.changes > 0)
        if not self._has_dates or not is_due or segments.totals.total() < MIN_JOBS:
            return
        segments.keeps_times = True
        if not segments.read_times(started + min(READ_TIMES_SHARE * since_s, MAX_READ_TIMES_S)):
            return
        milestones = count_milestones(segments)
        if not milestones.entries or (
            self._is_ordered_by_id and not _has_only_object_ids(segments)
        ):
            # No moment is suitable, or the order of the _ids is not the order of the lists.
            segments.keeps_times, self._version = False, None
            self._due_at = started + RETRY_AFTER_S
            return
        version = uuid.uuid4().hex
        self._own.write_state(MILESTONES, dump_milestones(version, milestones))
        self._version = version
        segments.reset_changes()
        self._due_at = started + max(WRITE_EVERY_S, PAUSE_FACTOR * (time.monotonic() - started))

    def find_changes(self, segments: SegmentMap) -> MilestoneChanges | None:
        """The changes since the milestones were stored; None if no milestones are stored."""
        if self._version is None or segments is not self._segments:
            return None
        return MilestoneChanges(self._version, segments.changes, segments.oldest_change)


@dataclass
class _Sweep:
    """Divides the segments at a moment that only moves forward.

    `by_first`, `by_last`: all segments in the order of their first and of their last time.
    `opened`, `closed`: how many of them begin before the moment, and how many end before it.
    `divided`: by place, the segments that begin, but do not end, before it. `older`: the number of
    jobs in the segments that end before it, by column of `labels`.
    """

    labels: dict[tuple[str, str | None], int]
    by_first: list[_Timed]
    by_last: list[_Timed]
    opened: int = 0
    closed: int = 0
    divided: dict[tuple[str, int], SegmentRange] = field(default_factory=dict)
    older: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.older = [0] * len(self.labels)

    def move_to(self, at_ms: float) -> None:
        while self.opened < len(self.by_first) and self.by_first[self.opened][0].first < at_ms:
            _, segment = self.by_first[self.opened]
            self.divided[segment.place] = segment
            self.opened += 1
        while self.closed < len(self.by_last) and self.by_last[self.closed][0].last < at_ms:
            _, segment = self.by_last[self.closed]
            del self.divided[segment.place]
            for (status, job_type), count in segment.counts.items():
                column = self.labels.get((status, job_type))
                self.older[self.labels[status, None] if column is None else column] += count
            self.closed += 1


def count_milestones(segments: SegmentMap) -> Milestones:
    """The milestones of all lists by status and type; the times of all segments must be known.

    A milestone counts the jobs of segments that have only older jobs. There is no milestone where
    more than `MAX_SHARED` segments have both older and newer jobs.
    """
    labels = _choose_labels(segments.totals)
    filled = [segment for segment in segments.ranges() if segment.counts]
    timed_segments = [(segment.times, segment) for segment in filled if segment.times]
    by_first = sorted(timed_segments, key=lambda timed: timed[0].first)
    by_last = sorted(timed_segments, key=lambda timed: timed[0].last)
    sweep = _Sweep(labels, by_first, by_last)
    step = segments.totals.total() / min(MAX_MILESTONES, MAX_NUMBERS // max(1, len(labels)))
    milestones, passed_jobs, jobs_before_next, last_ms = [], 0, step, float(_MIN_MS)
    for times, segment in by_first:
        at_ms = times.first
        if passed_jobs >= jobs_before_next and last_ms < at_ms < _MAX_MS:
            sweep.move_to(at_ms)
            divided = list(sweep.divided.values())
            if len(divided) <= MAX_SHARED and all(part.has_bounds for part in divided):
                uncounted = sum(part.counts.total() for part in divided)
                ranges = tuple(_join_ranges(divided))
                milestones.append(Milestone(int(at_ms), tuple(sweep.older), uncounted, ranges))
                jobs_before_next, last_ms = passed_jobs + step, at_ms
        passed_jobs += segment.counts.total()
    return Milestones(tuple(labels), tuple(milestones))


def _has_only_object_ids(segments: SegmentMap) -> bool:
    """Whether all _ids are ObjectIds: these are in the order of the times that they contain."""
    filled = (segment for segment in segments.ranges() if segment.counts)
    return all(segment.place[0] == "objectId" for segment in filled)


def _choose_labels(totals: Counts) -> dict[tuple[str, str | None], int]:
    """The labels (status and type, None for all types) to count, each with its column."""
    labels: Iterable[tuple[str, str | None]] = totals
    if len(totals) > MAX_LABELS:
        labels = ((status, None) for status, _ in totals)
    return {label: column for column, label in enumerate(dict.fromkeys(labels))}


def _join_ranges(segments: list[SegmentRange]) -> Iterator[IdRange]:
    """The ranges of these segments' _ids; consecutive segments are one range."""
    by_place = {segment.place: segment for segment in segments}
    for (name, index), segment in by_place.items():
        if (name, index - 1) in by_place:
            continue
        last = segment
        while (following := by_place.get((name, last.place[1] + 1))) is not None:
            last = following
        yield IdRange(segment.low, last.high)
