"""What the web service asks of the rollup: the collector's figures, if they are fresh."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from jobmon.rollup.counters import COUNTERS, load_counters
from jobmon.rollup.gauges import GAUGES, Gauge
from jobmon.rollup.gauges import load as load_gauge
from jobmon.rollup.segments import load_counts
from jobmon.rollup.throughput import (
    BUCKETS,
    MINUTE,
    STATE,
    STRAGGLERS,
    THROUGH,
    Tallies,
    bucket_id,
    floor,
    load,
)
from jobmon.store.connection import Connection
from jobmon.store.failures import is_unauthorized
from jobmon.store.jobs import Conditions, Figures
from jobmon.store.names import Document
from jobmon.store.shared import Shared
from jobmon.store.watched import mark

log = logging.getLogger(__name__)

# In the collection `state`: the figures, how far a first build is, what to go on from.
FIGURES = "figures"
BUILD = "build"
SNAPSHOT = "snapshot"

# A collector writes every two seconds at the least; later than this it is taken for stopped.
MAX_AGE_MS = 5_000
# A busy minute takes seconds to count, and the collector rests between two counts.
MAX_THROUGHPUT_AGE_MS = 60_000
KEEP_MS = 200


@dataclass(frozen=True, kw_only=True)
class Counted:
    """How far the past is counted, as it is now.

    `young` is when the newest minutes were counted last; spans that end by `settled` are counted
    for good (None: while history is still being counted, none is). Both are UTC.
    """

    young: datetime
    settled: datetime | None


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What happened since the collector first ran, by type, in an order that never changes.

    `age_s` is how long ago they were brought up to date.
    """

    by_type: Tallies
    age_s: float


class RollupReader:
    """Reads jobmon's own database; never writes. What it read is kept and shared for 0.2 s."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._figures = Shared(self._read_figures, KEEP_MS)
        self._counted = Shared(self._read_counted, KEEP_MS)
        self._totals = Shared(self._read_totals, KEEP_MS)
        self._is_readable = True

    @property
    def is_readable(self) -> bool:
        """Whether the user could read jobmon's own database when it was last read."""
        return self._is_readable

    def figures(self) -> Figures | None:
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
        found = self._find(THROUGH, age_of="$young")
        return max(0.0, found["ageMs"] / 1_000) if found and found["ageMs"] is not None else None

    def build(self) -> Document | None:
        """How far a first build is, `counted` of about `estimated` jobs; None if there is none."""
        found = self._find(BUILD)
        if found is None or found["ageMs"] > MAX_AGE_MS:
            return None
        return {"counted": found["counted"], "estimated": found["estimated"]}

    def buckets(
        self, wanted: Iterable[tuple[timedelta, datetime]]
    ) -> dict[tuple[timedelta, datetime], Tallies]:
        """What was counted in spans from a moment on; one without events is absent. Index: _id."""
        by_id = {bucket_id(span, at): (span, at) for span, at in wanted}
        if not by_id:
            return {}
        found = self._read(
            lambda rollups: (
                rollups[BUCKETS]
                .find({"_id": {"$in": list(by_id)}}, {"types": True}, **mark())
                .max_time_ms(self._connection.max_time_ms)
            )
        )
        return {by_id[bucket["_id"]]: load(bucket["types"]) for bucket in found}

    def _read_figures(self) -> Figures | None:
        found = self._find(FIGURES)
        if found is None or found["ageMs"] > MAX_AGE_MS:
            return None
        counts = load_counts(found["counts"])
        return Figures(
            as_of=found["asOf"],
            source="rollup",
            counts=counts,
            total=counts.total(),
            conditions=Conditions(**found["conditions"]),
        )

    def _read_counted(self) -> Counted | None:
        found = self._find(THROUGH, age_of="$young")
        if found is None or found["ageMs"] > MAX_THROUGHPUT_AGE_MS:
            return None
        through = found.get("through")
        settled = floor(through - STRAGGLERS, MINUTE) if through else None
        return Counted(young=found["young"], settled=settled)

    def _read_totals(self) -> Totals | None:
        through, found = self._find(THROUGH, age_of="$counters"), self._find(COUNTERS)
        if through is None or through["ageMs"] is None or found is None:
            return None
        age_s = max(0.0, through["ageMs"] / 1_000)
        return Totals(by_type=load_counters(found), age_s=age_s)

    def gauges(self, span: timedelta, start: datetime, end: datetime) -> dict[datetime, Gauge]:
        """How the queue stood, once a span from `start` to before `end`; index: span, at."""
        wanted = {"span": round(span.total_seconds()), "at": {"$gte": start, "$lt": end}}
        found = self._read(
            lambda rollups: (
                rollups[GAUGES].find(wanted, **mark()).max_time_ms(self._connection.max_time_ms)
            )
        )
        return {sample["at"]: load_gauge(sample) for sample in found}

    def _find(self, key: str, age_of: str = "$at") -> Document | None:
        """A document of the state with its age by the database's own clock; index: _id."""
        pipeline: list[Document] = [
            {"$match": {"_id": key}},
            {"$set": {"ageMs": {"$subtract": ["$$NOW", age_of]}}},
        ]
        limits: dict[str, Any] = {"maxTimeMS": self._connection.max_time_ms}
        found = self._read(lambda rollups: rollups[STATE].aggregate(pipeline, **limits, **mark()))
        return next(iter(found), None)

    def _read(self, ask: Callable[[Database[Document]], Iterable[Document]]) -> list[Document]:
        """What is found in jobmon's own database; nothing where the user may not read it.

        Every read goes through here: without this right all figures are counted live.
        """
        try:
            found = list(ask(self._connection.rollups))
        except OperationFailure as error:
            if not is_unauthorized(error):
                raise
            if self._is_readable:
                log.warning("may not read jobmon's own database: figures are counted live")
            self._is_readable = False
            return []
        self._is_readable = True
        return found
