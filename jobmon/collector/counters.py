"""Keeps totals of activity for Prometheus: they never fall, and all readers get the same totals.

One document holds them. `closed` is the sum of all hours before `openSince`, which are not counted
again. The hours since then, usually one or two, are read at each update. So all counts come
from buckets: after a recount, a crash or a long pause nothing is lost or counted twice. One write
adds an hour to `closed` and moves `openSince`, long before retention deletes the hour's bucket.

`totals` has the maximum of each sum so far: if a recount finds fewer runs (jobs were deleted), a
total stays until the sum has reached it. Prometheus takes a fall of a counter for a restart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pymongo.errors import DuplicateKeyError

from jobmon.rollup.buckets import (
    FINAL_AFTER,
    HOUR,
    WITHOUT_DETAILS,
    Tallies,
    Tally,
    dump_tallies,
    floor,
    fold_types,
    load_bucket_tallies,
    load_tallies,
    merge,
    seconds,
)
from jobmon.rollup.documents import BUCKETS, COUNTERS, STATE, OwnDatabase, require_type
from jobmon.store.labels import OTHER
from jobmon.store.mapping import Document

# Fewer than `MAX_TYPES`: each type's histograms are stored twice, which needs up to 12 KB.
MAX_COUNTER_TYPES = 500


@dataclass(frozen=True, kw_only=True)
class _Counters:
    """The stored document; `totals` has the types in the order in which they appeared."""

    open_since: datetime
    closed: Tallies
    totals: Tallies
    version: int


class Counters:
    """Keeps the totals in jobmon's own database, beginning with the hour of the first update.

    `database_time` returns the time by the clock of jobmon's own database.
    """

    def __init__(self, own: OwnDatabase, database_time: Callable[[], datetime]) -> None:
        self._own = own
        self._database_time = database_time
        self._state = own[STATE]
        self._buckets = own[BUCKETS]

    def update(self, now: datetime, *, is_complete: bool) -> None:
        """Update the totals from the buckets, which were counted at `now` (UTC).

        Hours are closed only if all earlier hours are counted (`is_complete`). If two collectors
        update at the same time, only one of them writes.
        """
        now = min(now, self._database_time())  # a clock that is ahead closes no hour too early
        document = self._state.find_one({"_id": self._own.id(COUNTERS)})
        stored = next(self._own.read(COUNTERS, [document], _load_counters), None) or _Counters(
            open_since=floor(now, HOUR), closed={}, totals={}, version=-1
        )
        since = stored.open_since
        until = max(since, floor(now - FINAL_AFTER, HOUR)) if is_complete else since
        query = {"span": seconds(HOUR), "at": {"$gte": since}}
        buckets = self._buckets.find({**self._own.scope, **query}, WITHOUT_DETAILS)
        hours = dict(self._own.read(BUCKETS, buckets, _load_hour))
        names = _extend_names(stored.totals, merge(hours.values()))
        closing = (fold_types(hour, names) for at, hour in hours.items() if at < until)
        closed = merge([stored.closed, *closing])
        still_open = (fold_types(hour, names) for at, hour in hours.items() if at >= until)
        sums = merge([closed, *still_open])
        totals = {
            name: stored.totals.get(name, Tally()).maximum(sums.get(name, Tally()))
            for name in (*names, OTHER)
            if name in stored.totals or name in sums
        }
        updated = _Counters(open_since=until, closed=closed, totals=totals, version=stored.version)
        if stored.version < 0 or updated != stored:
            self._own.write(COUNTERS, lambda: self._replace_counters(document, updated))

    def _replace_counters(self, replaced: Document | None, counters: _Counters) -> None:
        fields = {
            "openSince": counters.open_since,
            "closed": dump_tallies(counters.closed),
            "totals": dump_tallies(counters.totals),
            "version": counters.version + 1,
        }
        document = self._own.new(COUNTERS, fields)
        if replaced is None:
            try:
                self._state.insert_one(document)
            except DuplicateKeyError:
                return  # another collector created the document
        else:
            unchanged = {"_id": replaced["_id"], "version": replaced.get("version")}
            self._state.replace_one(unchanged, document)


def _load_counters(document: Document) -> _Counters:
    return _Counters(
        open_since=require_type(document["openSince"], datetime),
        closed=load_tallies(document["closed"]),
        totals=load_tallies(document["totals"]),
        version=require_type(document["version"], int),
    )


def _load_hour(document: Document) -> tuple[datetime, Tallies]:
    return require_type(document["at"], datetime), load_bucket_tallies(document)


def _extend_names(known: Tallies, tallies: Tallies) -> list[str]:
    """The types with a total of their own: known types, then the busiest of the new types."""
    named = [name for name in known if name != OTHER]
    new = sorted(
        tallies.keys() - {*named, OTHER}, key=lambda name: (-tallies[name].event_count, name)
    )
    return [*named, *new][:MAX_COUNTER_TYPES]
