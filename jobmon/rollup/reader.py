"""What the web service asks of the rollup: the collector's figures, if they are fresh."""

import logging
from datetime import datetime, timedelta

from pymongo.errors import OperationFailure

from jobmon.rollup.gauges import GAUGES, Gauge
from jobmon.rollup.gauges import load as load_gauge
from jobmon.rollup.segments import load_counts
from jobmon.rollup.throughput import BUCKETS, STATE, THROUGH, Tallies, load
from jobmon.store.connection import Connection, Document
from jobmon.store.jobs import Conditions, Figures
from jobmon.store.shared import Shared

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
_UNAUTHORIZED = 13


class RollupReader:
    """Reads jobmon's own database; never writes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._shared = Shared(self._read, KEEP_MS)
        self._warned = False

    def figures(self) -> Figures | None:
        """The collector's figures; None if there are none, or they are stale."""
        found = self._shared.get()
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

    def build(self) -> Document | None:
        """How far a first build is, `counted` of about `estimated` jobs; None if there is none."""
        found = self._find(BUILD)
        if found is None or found["ageMs"] > MAX_AGE_MS:
            return None
        return {"counted": found["counted"], "estimated": found["estimated"]}

    def counted_at(self) -> datetime | None:
        """When the newest minutes were counted last; None if no collector does that now."""
        found = self._find(THROUGH, age_of="$young")
        if found is None or found["ageMs"] > MAX_THROUGHPUT_AGE_MS:
            return None
        young: datetime = found["young"]
        return young

    def buckets(self, span: timedelta, start: datetime, end: datetime) -> dict[datetime, Tallies]:
        """What was counted by minute, hour or day from `start` to before `end`; index: span, at."""
        wanted = {"span": round(span.total_seconds()), "at": {"$gte": start, "$lt": end}}
        found = (
            self._connection.rollups[BUCKETS].find(wanted).max_time_ms(self._connection.max_time_ms)
        )
        return {bucket["at"]: load(bucket["types"]) for bucket in found}

    def gauges(self, span: timedelta, start: datetime, end: datetime) -> dict[datetime, Gauge]:
        """How the queue stood, once a span from `start` to before `end`; index: span, at."""
        wanted = {"span": round(span.total_seconds()), "at": {"$gte": start, "$lt": end}}
        found = (
            self._connection.rollups[GAUGES].find(wanted).max_time_ms(self._connection.max_time_ms)
        )
        return {sample["at"]: load_gauge(sample) for sample in found}

    def _read(self) -> Document | None:
        return self._find(FIGURES)

    def _find(self, key: str, age_of: str = "$at") -> Document | None:
        """A document of the state with its age by the database's own clock; index: _id."""
        state = self._connection.rollups[STATE]
        pipeline: list[Document] = [
            {"$match": {"_id": key}},
            {"$set": {"ageMs": {"$subtract": ["$$NOW", age_of]}}},
        ]
        try:
            return next(state.aggregate(pipeline, maxTimeMS=self._connection.max_time_ms), None)
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            if not self._warned:
                self._warned = True
                log.warning("may not read the rollups: figures are counted live")
            return None
