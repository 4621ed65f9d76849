"""Running totals of what happened: counters that never fall, the same for whoever reads them.

One document holds them. `before` is the sum of all hours that begin before `since`; these are
counted for good. The hours from then on are read anew at each look, one or two of them, however
often their minutes are recounted. So a total is always a sum of buckets, never something added to
as events come: counting the same again changes nothing, and a collector that stops anywhere, or
that was away for as long as hours are kept, loses and doubles nothing. An hour enters `before`
and moves `since` in one write, after nothing counts it any more, so retention cannot reach it
either. `told` is the greatest that each total ever was: if a recount finds less (jobs deleted,
dead letters put back), the counter stands still until the sum has caught up, for a counter that
falls looks to Prometheus like one that began anew. Where a bucket has more types than it names,
one may be counted by its name and, after a recount, among the others as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pymongo.errors import DuplicateKeyError

from jobmon.rollup.documents import OwnDatabase, typed
from jobmon.rollup.throughput import (
    BUCKETS,
    HOUR,
    STATE,
    STRAGGLERS,
    Tallies,
    Tally,
    dump,
    floor,
    load,
    load_bucket,
    merge,
)
from jobmon.store.labels import MAX_TYPES, OTHER
from jobmon.store.mapping import Document

# In the state.
COUNTERS = "counters"


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """The totals as they are stored."""

    since: datetime
    order: list[str]
    before: Tallies
    told: Tallies
    version: int


class Counters:
    """Keeps the totals in jobmon's own database; they begin with the hour of the first look."""

    def __init__(self, own: OwnDatabase) -> None:
        self._own = own
        self._state = own[STATE]
        self._buckets = own[BUCKETS]

    def look(self, now: datetime, *, settled: bool) -> None:
        """Bring the totals up to the buckets as they are; `now` is when these were counted (UTC).

        `settled` says that all before was counted too: only then may hours be closed. Two
        collectors may do this at once; one of them writes.
        """
        found = self._state.find_one({"_id": self._own.id(COUNTERS)})
        kept = next(self._own.read(COUNTERS, [found], _load), None)
        since = kept.since if kept else floor(now, HOUR)
        until = max(since, floor(now - STRAGGLERS, HOUR)) if settled else since
        query = {"span": round(HOUR.total_seconds()), "at": {"$gte": since}}
        buckets = self._buckets.find({**self._own.scope, **query})
        hours = dict(self._own.read(BUCKETS, buckets, _load_hour))
        order = _extended(kept.order if kept else [], merge(hours.values()))
        closed = (_folded(hour, order) for at, hour in hours.items() if at < until)
        before = merge([kept.before if kept else {}, *closed])
        open_ = (_folded(hour, order) for at, hour in hours.items() if at >= until)
        told = _greatest(kept.told if kept else {}, merge([before, *open_]))
        fresh = _Kept(
            since=until,
            order=order,
            before=before,
            told=told,
            version=kept.version if kept else -1,
        )
        if fresh != kept:
            self._own.write(COUNTERS, lambda: self._put(fresh, found))

    def _put(self, totals: _Kept, found: Document | None) -> None:
        fields = {
            "since": totals.since,
            "order": totals.order,
            "before": dump(totals.before),
            "told": dump(totals.told),
            "version": totals.version + 1,
        }
        document = self._own.new(COUNTERS, fields)
        if found is None:
            try:
                self._state.insert_one(document)
            except DuplicateKeyError:
                return  # another collector began them
        else:
            same = {"_id": found["_id"], "version": found.get("version")}
            self._state.replace_one(same, document)


def _load(document: Document) -> _Kept:
    return _Kept(
        since=typed(document["since"], datetime),
        order=[typed(kind, str) for kind in document["order"]],
        before=load(document["before"]),
        told=load(document["told"]),
        version=typed(document["version"], int),
    )


def _load_hour(document: Document) -> tuple[datetime, Tallies]:
    return typed(document["at"], datetime), load_bucket(document)


def load_counters(document: Document) -> Tallies:
    """The totals by type, in an order that never changes: a new type comes last.

    MalformedError or KeyError of another document.
    """
    kept = _load(document)
    return {kind: kept.told[kind] for kind in (*kept.order, OTHER) if kind in kept.told}


def _extended(order: list[str], tallies: Tallies) -> list[str]:
    """The known types, then the new ones, the busiest first, as many as there may be."""
    new = sorted(tallies.keys() - {*order, OTHER}, key=lambda kind: (-tallies[kind].events, kind))
    return [*order, *new][:MAX_TYPES]


def _folded(tallies: Tallies, order: Iterable[str]) -> Tallies:
    known = set(order)
    return merge({kind if kind in known else OTHER: tally} for kind, tally in tallies.items())


def _greatest(told: Tallies, fresh: Tallies) -> Tallies:
    """Every number as great as it ever was."""
    return {
        kind: _either(told.get(kind, Tally()), fresh.get(kind, Tally()))
        for kind in told.keys() | fresh.keys()
    }


def _either(one: Tally, other: Tally) -> Tally:
    return Tally(
        enqueued=max(one.enqueued, other.enqueued),
        dlq=max(one.dlq, other.dlq),
        outcomes=one.outcomes | other.outcomes,
        wait=one.wait | other.wait,
        run=one.run | other.run,
    )
