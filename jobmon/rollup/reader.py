"""What the web service asks of the rollup: the collector's figures, if they are fresh."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pymongo.errors import OperationFailure

from jobmon.rollup.counters import COUNTERS, load_counters
from jobmon.rollup.documents import OwnDatabase, rollup_database, typed
from jobmon.rollup.leader import LEASE, LEASES
from jobmon.rollup.samples import GAUGES, QueueSample
from jobmon.rollup.samples import load as load_gauge
from jobmon.rollup.stats_document import load_stats
from jobmon.rollup.throughput import (
    BUCKETS,
    MINUTE,
    STATE,
    STRAGGLERS,
    THROUGH,
    Tallies,
    bucket_name,
    floor,
    load_bucket,
    load_counted_from,
    load_through,
)
from jobmon.single_flight import SingleFlight
from jobmon.store.connection import Connection
from jobmon.store.failures import is_unauthorized
from jobmon.store.mapping import Document
from jobmon.store.read_collection import mark
from jobmon.store.stats import QueueStats

log = logging.getLogger(__name__)
T = TypeVar("T")

# In the collection `state`: the figures, how far a first build is, what to go on from.
FIGURES = "figures"
BUILD = "build"
CHECKPOINT = "snapshot"
FAILURE = "failure"  # of a collector in a web process, which was started again

# A collector writes every two seconds at the least; later than this it is taken for stopped.
MAX_AGE_MS = 5_000
FAILURE_IS_NEWS_S = 300.0
# A busy minute takes seconds to count, and the collector rests between two counts.
MAX_THROUGHPUT_AGE_MS = 60_000
KEEP_MS = 200


@dataclass(frozen=True, kw_only=True)
class Counted:
    """How far the past is counted, as it is now.

    `young` is when the newest minutes were counted last; spans that end by `settled` are counted
    for good (None: while history is still being counted, none is). While a collector still counts
    what is older, all is counted from `counted_from` on, and nothing between `settled` and that.
    All are UTC.
    """

    young: datetime
    settled: datetime | None
    counted_from: datetime | None = None

    def covers(self, start: datetime, end: datetime) -> bool:
        """Whether all from `start` to before `end` is counted, as far as it is past."""
        if self.counted_from is None or start >= self.counted_from:
            return True
        return self.settled is not None and end <= self.settled


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What happened since the collector first ran, by type, in an order that never changes.

    `age_s` is how long ago they were brought up to date.
    """

    by_type: Tallies
    age_s: float


class RollupReader:
    """Reads jobmon's own database; never writes. What it read is kept and shared for 0.2 s.

    It reads as the user of `own`, where that is another than the one who reads the queue.
    """

    def __init__(self, connection: Connection, own: Connection | None = None) -> None:
        self._connection = connection
        self._own = own or connection
        self._figures = SingleFlight(self._read_figures, KEEP_MS)
        self._counted = SingleFlight(self._read_counted, KEEP_MS)
        self._totals = SingleFlight(self._read_totals, KEEP_MS)
        self._is_readable = True

    @property
    def is_readable(self) -> bool:
        """Whether the user could read jobmon's own database when it was last read."""
        return self._is_readable

    def figures(self) -> QueueStats | None:
        """The collector's figures; None if there are none, or they are stale.

        As long as nothing new is read it is the same object.
        """
        return self._figures.get()

    def counted(self) -> Counted | None:
        """How far the past is counted; None if no collector does that now."""
        return self._counted.get()

    def totals(self) -> Totals | None:
        """The running totals, however old; None if no collector ever counted."""
        return self._totals.get()

    def history_age_s(self) -> float | None:
        """How long ago the newest minutes of the past were counted; None if none ever were."""
        return self._find(THROUGH, _load_age, age_of="$young")

    def build(self) -> Document | None:
        """How far a first build is, `counted` of about `estimated` jobs; None if there is none."""
        found = self._find(BUILD, _load_build)
        return found if found is not None and found.pop("age_s") <= MAX_AGE_MS / 1_000 else None

    def failure(self) -> str | None:
        """What a collector in a web process failed of in the last five minutes, if one did."""

        def load(document: Document) -> tuple[float, str]:
            return _load_age(document), typed(document["exception"], str)

        found = self._find(FAILURE, load)
        return found[1] if found is not None and found[0] <= FAILURE_IS_NEWS_S else None

    def figures_age_s(self) -> float | None:
        """How old the newest figures are, however old; None if there are none."""
        return self._find(FIGURES, _load_age)

    def leader(self) -> str | None:
        """Which collector works now; None if none does."""

        def ask(own: OwnDatabase) -> Iterable[Document]:
            held = {"_id": own.id(LEASE), "$expr": {"$gt": ["$expiresAt", "$$NOW"]}}
            return own[LEASES].find(held).max_time_ms(self._connection.max_time_ms)

        return next(self._read(LEASES, ask, lambda lease: typed(lease["holder"], str)), None)

    def buckets(
        self, wanted: Iterable[tuple[timedelta, datetime]]
    ) -> dict[tuple[timedelta, datetime], Tallies]:
        """What was counted in spans from a moment on; one without events is absent. Index: _id."""
        names = {bucket_name(span, at): (span, at) for span, at in wanted}
        if not names:
            return {}

        def ask(own: OwnDatabase) -> Iterable[Document]:
            query = {"_id": {"$in": [own.id(name) for name in names]}}
            found = own[BUCKETS].find(query, **mark())
            return found.max_time_ms(self._connection.max_time_ms)

        def load(bucket: Document) -> tuple[tuple[timedelta, datetime], Tallies]:
            return names[bucket["name"]], load_bucket(bucket)

        return dict(self._read(BUCKETS, ask, load))

    def gauges(
        self, span: timedelta, start: datetime, end: datetime
    ) -> dict[datetime, QueueSample]:
        """How the queue stood, once a span from `start` to before `end`; index: span, at."""
        wanted = {"span": round(span.total_seconds()), "at": {"$gte": start, "$lt": end}}

        def ask(own: OwnDatabase) -> Iterable[Document]:
            found = own[GAUGES].find({**own.scope, **wanted}, **mark())
            return found.max_time_ms(self._connection.max_time_ms)

        return dict(self._read(GAUGES, ask, load_gauge))

    def _read_figures(self) -> QueueStats | None:
        found = self._find(FIGURES, lambda document: (_load_age(document), load_stats(document)))
        return found[1] if found is not None and found[0] <= MAX_AGE_MS / 1_000 else None

    def _read_counted(self) -> Counted | None:
        def load(document: Document) -> tuple[float, Counted]:
            through = load_through(document)
            settled = floor(through - STRAGGLERS, MINUTE) if through else None
            young = typed(document["young"], datetime)
            counted_from = load_counted_from(document)
            counted = Counted(young=young, settled=settled, counted_from=counted_from)
            return _load_age(document), counted

        found = self._find(THROUGH, load, age_of="$young")
        return found[1] if found is not None and found[0] <= MAX_THROUGHPUT_AGE_MS / 1_000 else None

    def _read_totals(self) -> Totals | None:
        age_s = self._find(THROUGH, _load_age, age_of="$counters")
        by_type = self._find(COUNTERS, load_counters)
        return None if age_s is None or by_type is None else Totals(by_type=by_type, age_s=age_s)

    def _find(self, name: str, load: Callable[[Document], T], age_of: str = "$at") -> T | None:
        """A document of the state with its age by the database's own clock; index: _id."""

        def ask(own: OwnDatabase) -> Iterable[Document]:
            pipeline: list[Document] = [
                {"$match": {"_id": own.id(name)}},
                {"$set": {"ageMs": _age_ms(age_of)}},
            ]
            limits: dict[str, Any] = {"maxTimeMS": self._connection.max_time_ms}
            return own[STATE].aggregate(pipeline, **limits, **mark())

        return next(self._read(name, ask, load), None)

    def _read(
        self,
        what: str,
        ask: Callable[[OwnDatabase], Iterable[Document]],
        load: Callable[[Document], T],
    ) -> Iterator[T]:
        """What is found in jobmon's own database; nothing where the user may not read it.

        Every read goes through here: without this right all figures are counted live.
        """
        own = OwnDatabase(rollup_database(self._own), self._connection.queue_key)
        try:
            found = list(ask(own))
        except OperationFailure as error:
            if not is_unauthorized(error):
                raise
            if self._is_readable:
                log.warning("may not read jobmon's own database: figures are counted live")
            self._is_readable = False
            return iter(())
        self._is_readable = True
        return own.read(what, found, load)


def _age_ms(moment: str) -> Document:
    """As an expression; null where there is no date."""
    is_date = {"$eq": [{"$type": moment}, "date"]}
    return {"$cond": [is_date, {"$subtract": ["$$NOW", moment]}, None]}


def _load_age(document: Document) -> float:
    """In seconds; of what a clock ahead of the database's wrote, 0."""
    return max(0.0, typed(document["ageMs"], int) / 1_000)


def _load_build(document: Document) -> Document:
    counts = {name: typed(document[name], int) for name in ("counted", "estimated")}
    return {**counts, "age_s": _load_age(document)}
