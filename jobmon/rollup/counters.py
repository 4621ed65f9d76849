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
from datetime import datetime

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

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
    merge,
)
from jobmon.store.names import Document
from jobmon.store.plain import UNNAMED

# In the state.
COUNTERS = "counters"
# Some 4 KiB each; types beyond these, and those that buckets do not name, are counted together.
MAX_TYPES = 500
OTHER = "other"


class Counters:
    """Keeps the totals in jobmon's own database; they begin with the hour of the first look."""

    def __init__(self, rollups: Database[Document]) -> None:
        self._state = rollups[STATE]
        self._buckets = rollups[BUCKETS]

    def look(self, now: datetime, *, settled: bool) -> None:
        """Bring the totals up to the buckets as they are; `now` is when these were counted (UTC).

        `settled` says that all before was counted too: only then may hours be closed. Two
        collectors may do this at once; one of them writes.
        """
        kept = self._state.find_one({"_id": COUNTERS})
        since = kept["since"] if kept else floor(now, HOUR)
        until = max(since, floor(now - STRAGGLERS, HOUR)) if settled else since
        query = {"span": round(HOUR.total_seconds()), "at": {"$gte": since}}
        hours = {hour["at"]: load(hour["types"]) for hour in self._buckets.find(query)}
        order = _extended(kept["order"] if kept else [], merge(hours.values()))
        closed = (_folded(hour, order) for at, hour in hours.items() if at < until)
        before = merge([load(kept["before"]) if kept else {}, *closed])
        open_ = (_folded(hour, order) for at, hour in hours.items() if at >= until)
        told = _greatest(load(kept["told"]) if kept else {}, merge([before, *open_]))
        totals = {"since": until, "order": order, "before": dump(before), "told": dump(told)}
        if kept is None:
            self._begin(totals)
        elif any(kept[name] != value for name, value in totals.items()):
            version = kept["version"]
            self._state.replace_one(
                {"_id": COUNTERS, "version": version}, {**totals, "version": version + 1}
            )

    def _begin(self, totals: Document) -> None:
        try:
            self._state.insert_one({"_id": COUNTERS, **totals, "version": 0})
        except DuplicateKeyError:
            return  # another collector began them


def load_counters(document: Document) -> Tallies:
    """The totals by type, in an order that never changes: a new type comes last."""
    told = load(document["told"])
    return {kind: told[kind] for kind in (*document["order"], OTHER) if kind in told}


def _extended(order: list[str], tallies: Tallies) -> list[str]:
    """The known types, then the new ones, the busiest first, as many as there may be."""
    new = sorted(tallies.keys() - {*order, UNNAMED}, key=lambda kind: (-tallies[kind].events, kind))
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
