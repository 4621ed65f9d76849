"""Gaps: parts of the history in which runs may be missing, in jobmon's own database."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import NoneType

from jobmon.rollup.buckets import MINUTE
from jobmon.rollup.documents import EVENTS, OwnDatabase, require_type
from jobmon.store.mapping import Document

# If there are more, the oldest gaps are merged, so that the document stays small.
MAX_GAPS = 100


class GapReason(StrEnum):
    """Why runs may be missing from a part of the history."""

    BEFORE_COLLECTOR = "before_collector"  # counted from documents when the collector began
    STREAM_LOST = "stream_lost"  # the server no longer had the changes since the last checkpoint
    NO_CHANGE_STREAM = "no_change_stream"  # a standalone server
    NO_COLLECTOR = "no_collector"  # counted live, from the documents
    TOO_MANY_RUNNING = "too_many_running"  # more running jobs than are remembered


@dataclass(frozen=True, kw_only=True)
class Gap:
    """From `start` (None: from the beginning) to before `end` (None: until now), in UTC."""

    start: datetime | None
    end: datetime | None
    reason: GapReason

    def clip(self, start: datetime, end: datetime) -> "Gap | None":
        """The part within a window; None if there is none."""
        first = start if self.start is None else max(start, self.start)
        last = end if self.end is None else min(end, self.end)
        return replace(self, start=first, end=last) if first < last else None


@dataclass(frozen=True, kw_only=True)
class EventHistory:
    """What is known of the history that is counted from changes.

    Minutes from `first_minute` on are counted from changes, earlier minutes from documents.
    `first_minute` is None if no minute is counted from changes.
    """

    first_minute: datetime | None = None
    gaps: tuple[Gap, ...] = ()

    def add(self, gap: Gap) -> "EventHistory":
        """The history with another gap.

        It is joined to the last gap if that has the same reason and touches it. If there are more
        than `MAX_GAPS` gaps, the two oldest become one, with the reason of the oldest.
        """
        *others, last = (*self.gaps, gap)
        if others and others[-1].reason == gap.reason and _touches(others[-1], gap):
            last = replace(others.pop(), end=gap.end)
        gaps = [*others, last]
        if len(gaps) > MAX_GAPS:
            oldest, second, *later = gaps
            gaps = [replace(oldest, end=second.end), *later]
        return replace(self, gaps=tuple(gaps))

    def close(self, end: datetime) -> "EventHistory":
        """The history in which each gap without an end now ends at `end`."""
        gaps = (replace(gap, end=end) if gap.end is None else gap for gap in self.gaps)
        return replace(self, gaps=tuple(gaps))


def _touches(earlier: Gap, later: Gap) -> bool:
    """Whether `later` begins at most a minute after the end of `earlier`."""
    if earlier.end is None or later.start is None:
        return True
    return later.start <= earlier.end + MINUTE


def write_event_history(own: OwnDatabase, history: EventHistory) -> None:
    """Store the history; raises PyMongoError."""
    gaps = [[gap.start, gap.end, gap.reason.value] for gap in history.gaps]
    own.write_state(EVENTS, {"boundary": history.first_minute, "gaps": gaps})


def load_event_history(document: Document) -> EventHistory:
    """The stored history; raises KeyError or ValueError for another document."""
    return EventHistory(
        first_minute=require_type(document["boundary"], datetime, NoneType),
        gaps=tuple(
            Gap(
                start=require_type(start, datetime, NoneType),
                end=require_type(end, datetime, NoneType),
                reason=GapReason(reason),
            )
            for start, end, reason in require_type(document["gaps"], list)
        ),
    )
