"""Keeps the history: buckets of activity by minute and type, added up to larger spans.

The minutes of the last quarter of an hour are counted from the watched collections again and again.
Older minutes are final once they are counted, so their counts outlive the jobs. The time is the
watched server's: this machine's clock may be wrong. If runs are counted from changes, an
`EventCounter` writes the minutes instead. The bucket of ten minutes is the sum of its minutes, and
so on: hours, six hours and days. Buckets of longer spans are kept longer.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import groupby

from pymongo.errors import ExecutionTimeout

from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.event_counter import EventCounter
from jobmon.collector.run_details_counter import RunDetailsCounter
from jobmon.rollup.activity import count_activity
from jobmon.rollup.buckets import (
    DAY,
    FINAL_AFTER,
    HOUR,
    MINUTE,
    SPANS,
    WITHOUT_DETAILS,
    Tallies,
    Tally,
    bucket_name,
    count_events,
    dump_bucket,
    floor,
    fold_rare_types,
    load_bucket_details,
    load_bucket_tallies,
    load_progress,
    merge,
    retention,
    seconds,
)
from jobmon.rollup.documents import BUCKETS, PROGRESS, STATE, OwnDatabase
from jobmon.rollup.run_details import RunDetails, merge_details
from jobmon.store.connection import Connection
from jobmon.store.cursor import NEWEST_FIRST, OLDEST_FIRST
from jobmon.store.labels import label
from jobmon.store.mapping import STORED_DATES, Document
from jobmon.store.read_collection import NoIndexError

log = logging.getLogger(__name__)
Bucket = tuple[datetime, Tallies, RunDetails]  # the start of the span, activity, details of runs

# By age: the seconds between two counts of the minutes up to this age. Every count includes the
# current minute.
RECOUNT_EVERY_S = {MINUTE: 5.0, 2 * MINUTE: 20.0, FINAL_AFTER: 120.0}
# The pause between two counts is this many times as long as the last count, up to `MAX_PAUSE_S`.
# So counting usually needs at most a fortieth of one core of the database.
PAUSE_FACTOR = 40
MAX_PAUSE_S = 15.0
# If no job has changed for `REST_AFTER_S`, a pause is up to `REST_S` longer. This does not begin
# sooner, because an attempt may be written some seconds after its job.
REST_S = 4.0
REST_AFTER_S = 10.0
INDEX_RETRY_S = 10.0


class HistoryWriter:
    """Counts activity, and writes it to the buckets in jobmon's own database.

    `groups` are the groups of errors. After each count, `on_counted` is called with its time, and
    with whether the history is complete. Minutes that `event_counter` writes are only summed here.
    A job's change sets `changed`, which ends a rest. Each count takes one of the `slots`.
    """

    def __init__(
        self,
        connection: Connection,
        own: OwnDatabase,
        groups: ErrorGroups,
        on_counted: Callable[[datetime, bool], None] = lambda _, __: None,
        event_counter: EventCounter | None = None,
        *,
        changed: threading.Event | None = None,
        slots: threading.Semaphore | None = None,
    ) -> None:
        self._groups = groups
        self._details = RunDetailsCounter(connection, groups)
        self._event_counter = event_counter
        self._changed = changed or threading.Event()
        self._changed_at = time.monotonic()
        self._slots = slots or threading.Semaphore()
        self._on_counted = on_counted
        self._connection = connection
        self._retention = retention(connection.settings)
        self._own = own
        self._buckets = own[BUCKETS]
        # By age: when the minutes up to this age are counted again, in monotonic seconds.
        self._due_at = dict.fromkeys(RECOUNT_EVERY_S, 0.0)
        self._longest_query = 6 * HOUR  # the longest time whose activity is counted in one query
        self._expired_on: datetime | None = None
        self._has_warned = self._has_indexes = False
        # Windows that no collector has counted, and `_first_minute` when they were listed.
        self._missed: Iterator[tuple[datetime, datetime, timedelta]] = iter(())
        self._listed_first_minute: datetime | None = None
        self._has_missed = True
        # Larger spans (length, start) to sum later: their earlier parts are not counted yet.
        self._unsummed: set[tuple[timedelta, datetime]] = set()
        # The history is complete from this time on; None if the whole history is complete.
        self._counted_from: datetime | None = None
        self._counted_at: datetime | None = None  # when the young minutes were counted last

    def run(self, stop: threading.Event) -> None:
        """Count minutes that are not final, then missed spans until `stop`; raises PyMongoError."""
        self._buckets.create_index(self._own.index("span", "at"))
        self._restart_missed(self._connection.server_time())
        pause_s, is_urgent = 0.0, True
        while not (stop.wait(pause_s) or (not is_urgent and self._rest(stop))):
            started = time.monotonic()
            try:
                is_urgent = self._count_once(self._connection.server_time(), stop)
            except NoIndexError:
                if not self._has_warned:
                    self._has_warned = True
                    log.warning("no history: indexes are missing; create them with `jobmon init`")
                stop.wait(INDEX_RETRY_S)
                self._restart_missed(self._connection.server_time())
                continue
            took_s = time.monotonic() - started
            pause_s = took_s / 4 if is_urgent else min(max(1.0, took_s * PAUSE_FACTOR), MAX_PAUSE_S)

    def _count_once(self, now: datetime, stop: threading.Event) -> bool:
        """Count young minutes, and missed spans for a second; returns whether to go on soon."""
        if self._first_minute is not None and not self._has_indexes:
            count_activity(self._connection, now, now, MINUTE)  # checks the indexes
            self._has_indexes = True
        # For example, changes were lost, or this process or its machine was suspended.
        is_late = self._counted_at is not None and now > self._counted_at + FINAL_AFTER
        if is_late or self._listed_first_minute != self._first_minute:
            self._restart_missed(now)
        is_behind = self._event_counter is not None and self._event_counter.is_behind
        self._count_young(now)
        self._counted_at = now
        is_complete = not (self._has_missed or is_behind)
        if is_complete:
            self._counted_from = None
        elif is_behind:
            self._counted_from = floor(now, MINUTE) + MINUTE
        elif self._counted_from is None or self._counted_from > now:
            self._counted_from = floor(now - FINAL_AFTER, MINUTE)
        self._on_counted(now, is_complete)
        self._write_progress(now, is_complete=is_complete)
        self._has_missed = self._has_missed and (is_behind or self._count_missed(stop))
        self._delete_expired(now)
        return self._has_missed or not (is_complete or is_behind)

    def _restart_missed(self, now: datetime) -> None:
        """Begin again with the windows that no collector has counted."""
        self._missed, self._has_missed = self._list_missed(now), True
        self._listed_first_minute, self._counted_from = self._first_minute, None

    @property
    def _first_minute(self) -> datetime | None:
        """The first minute that is counted from changes; None if changes are not counted."""
        return None if self._event_counter is None else self._event_counter.first_minute

    def _rest(self, stop: threading.Event) -> bool:
        """Rest if no job has changed for a while; returns whether `stop` is set afterwards."""
        if time.monotonic() > self._changed_at + REST_AFTER_S:
            self._changed.wait(REST_S)
        if self._changed.is_set():
            self._changed.clear()
            self._changed_at = time.monotonic()
        return stop.is_set()

    def _count_missed(self, stop: threading.Event) -> bool:
        """Count missed spans for a second, or until `stop`; returns whether there may be more."""
        until = time.monotonic() + 1
        for start, end, span in self._missed:
            self._count(start, end, span)
            self._sum_missed(start, end, span)
            if self._counted_from is not None:
                self._counted_from = min(self._counted_from, start)
            if stop.is_set() or time.monotonic() > until:
                return True
        for larger, at in sorted(self._unsummed):
            self._write_sums(larger, at, at + larger)
        self._unsummed.clear()
        return False

    def _sum_missed(self, start: datetime, end: datetime, span: timedelta) -> None:
        """Sum the larger spans that begin in this window; all later windows are counted already."""
        for larger in SPANS[SPANS.index(span) + 1 :]:
            first = floor(start, larger)
            if first < start:
                self._unsummed.add((larger, first))
                first += larger
            else:
                self._unsummed.discard((larger, first))
            if first < end:
                self._write_sums(larger, first, end)

    def _write_progress(self, now: datetime, *, is_complete: bool) -> None:
        """Store the time of the last count, and since when the history is complete.

        Readers compute its age from `at`, which is by the clock of jobmon's own database.
        """
        fields = {**self._own.scope, "name": PROGRESS, "countedAt": now}
        fields |= {"countedFrom": self._counted_from} | (
            {"completeUntil": now} if is_complete else {}
        )
        change = {"$set": fields, "$currentDate": {"at": True}}
        self._own[STATE].update_one({"_id": self._own.id(PROGRESS)}, change, upsert=True)

    def _count_young(self, now: datetime) -> None:
        max_age = timedelta(0)
        for age, every_s in RECOUNT_EVERY_S.items():
            if time.monotonic() >= self._due_at[age]:
                self._due_at[age] = time.monotonic() + every_s
                max_age = max(max_age, age)
        # A writer's clock may be ahead: the next minute is counted, too.
        start, end = floor(now - max_age, MINUTE), floor(now, MINUTE) + 2 * MINUTE
        has_changed = self._count(start, end, MINUTE)
        if self._event_counter is not None and (written := self._event_counter.take_written()):
            start, has_changed = min(start, *written), True
        if has_changed:
            self._sum_larger_spans(start, end, MINUTE)

    def _list_missed(self, now: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
        """Start, end and span of each window that no collector has counted, the newest first.

        A window is up to an hour, to be counted by minutes. If its minutes are expired, it is up to
        six hours, to be counted by hours.
        """
        progress = self._own.find_state(PROGRESS, load_progress)
        since = (progress and progress.final_until) or self._find_oldest_creation()
        if since is None:
            return
        since = floor(max(since, now - self._retention[DAY]), MINUTE)
        end = floor(now, HOUR) + HOUR
        while end > max(since, floor(now - self._retention[MINUTE], HOUR)):
            yield max(end - HOUR, since), end, MINUTE
            end -= HOUR
        while end > since:
            start = floor(end - HOUR, 6 * HOUR)
            yield start, end, HOUR
            end = start

    def _find_oldest_creation(self) -> datetime | None:
        """The createdAt of the oldest job; None if no job has this date."""
        oldest = self._connection.jobs.find(
            {"createdAt": {"$type": "date"}},
            ("createdAt",),
            index=NEWEST_FIRST,
            order=OLDEST_FIRST,
            limit=1,
            require_index=True,
        )
        stored_name = STORED_DATES["createdAt"]
        created_at = oldest[0].get("createdAt", oldest[0].get(stored_name)) if oldest else None
        return created_at if isinstance(created_at, datetime) else None

    def _count(self, start: datetime, end: datetime, span: timedelta) -> bool:
        """Count from `start` to before `end` in spans; returns whether any bucket changed.

        Spans from `_first_minute` on are not counted here: the `EventCounter` counts them.
        """
        end = end if self._first_minute is None else min(end, floor(self._first_minute, span))
        with self._slots:
            counted = self._count_in_pieces(start, end, span)
            stored = self._read_buckets(span, counted)
            changed = {
                at for at, tallies in counted.items() if self._must_replace(tallies, stored.get(at))
            }
            # Read after the activity: if a run ends in between, both are counted again.
            details = self._details.count(counted, span, only=changed)
            self._groups.write()
            return self._write_buckets(span, ((at, counted[at], details[at]) for at in changed))

    def _sum_larger_spans(self, start: datetime, end: datetime, span: timedelta) -> None:
        """Write the sum of each larger span that has a part from `start` to before `end`."""
        for larger in SPANS[SPANS.index(span) + 1 :]:
            self._write_sums(larger, floor(start, larger), end)

    def _write_sums(self, larger: timedelta, first: datetime, end: datetime) -> None:
        """Write the sums of the spans of this length from `first` to before `end`."""
        count = math.ceil((end - first) / larger)
        stored = self._read_buckets(larger, (first + index * larger for index in range(count)))
        within = {"$gte": first, "$lt": first + count * larger}
        part = SPANS[SPANS.index(larger) - 1]
        query = {**self._own.scope, "span": seconds(part), "at": within}
        parts = self._buckets.find(query).sort("at")  # so that the parts of a span are neighbors
        self._write_buckets(larger, self._make_sums(parts, larger, stored))

    def _make_sums(
        self, parts: Iterable[Document], larger: timedelta, stored: Mapping[datetime, Tallies]
    ) -> Iterator[Bucket]:
        """The sums of these parts, in order of time; only sums that replace the `stored` sums."""
        dated = (part for part in parts if isinstance(part["at"], datetime))
        for at, group in groupby(dated, lambda part: floor(part["at"], larger)):
            span_parts = list(group)
            tallies = fold_rare_types(
                merge(self._own.read(BUCKETS, span_parts, load_bucket_tallies))
            )
            if self._must_replace(tallies, stored.get(at)):
                details = merge_details(self._own.read(BUCKETS, span_parts, load_bucket_details))
                yield at, tallies, details

    def _count_in_pieces(
        self, start: datetime, end: datetime, span: timedelta
    ) -> dict[datetime, Tallies]:
        """Call `count_activity` for pieces that are short enough for the query time limit."""
        counted: dict[datetime, Tallies] = {}
        while start < end:
            until = min(start + self._longest_query, end)
            try:
                piece = count_activity(self._connection, start, until, span)
            except ExecutionTimeout:
                if self._longest_query <= MINUTE:
                    raise
                self._longest_query = max(MINUTE, self._longest_query // (2 * MINUTE) * MINUTE)
                continue
            for at, tallies in piece.items():
                counted[at] = merge([counted.get(at, {}), tallies])
            start = until
        return {at: fold_rare_types(tallies) for at, tallies in counted.items()}

    def _read_buckets(self, span: timedelta, starts: Iterable[datetime]) -> dict[datetime, Tallies]:
        """The stored buckets of the spans with these starts; index: _id."""
        ids = [self._own.id(bucket_name(span, at)) for at in starts]
        buckets = self._buckets.find({"_id": {"$in": ids}}, WITHOUT_DETAILS) if ids else ()
        return dict(
            self._own.read(BUCKETS, buckets, lambda each: (each["at"], load_bucket_tallies(each)))
        )

    def _must_replace(self, counted: Tallies, stored: Tallies | None) -> bool:
        """Whether a count replaces the stored count.

        It never replaces a larger count: if jobs were deleted, their activity and its types stay.
        """
        if not count_events(counted):
            return False
        return stored is None or (_measure(counted) >= _measure(stored) and counted != stored)

    def _write_buckets(self, span: timedelta, buckets: Iterable[Bucket]) -> bool:
        """Write buckets of one span; returns whether any could be stored."""
        return self._own.replace(
            BUCKETS,
            [
                self._own.new(bucket_name(span, at), dump_bucket(span, at, tallies, details))
                for at, tallies, details in buckets
            ],
        )

    def _delete_expired(self, now: datetime) -> None:
        """Once a day, delete the buckets and error groups of whole days after their retention."""
        if floor(now, DAY) == self._expired_on:
            return
        for span, kept_for in self._retention.items():
            expired = {"span": seconds(span), "at": {"$lt": floor(now - kept_for, DAY)}}
            self._buckets.delete_many({**self._own.scope, **expired})
        self._groups.delete_unseen(floor(now - self._retention[DAY], DAY))
        self._expired_on = floor(now, DAY)


def _measure(tallies: Tallies) -> tuple[int, int, int]:
    """The numbers of events, of those with a type, and of known durations.

    `_must_replace` compares counts by them. An attempt whose job was deleted has no type.
    """
    events = count_events(tallies)
    untyped = tallies.get(label(None), Tally()).event_count
    return events, events - untyped, sum(tally.duration_count for tally in tallies.values())
