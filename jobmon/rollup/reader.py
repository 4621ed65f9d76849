"""Reads the collector's stats and history from jobmon's own database, for the web service."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pymongo.errors import OperationFailure

from jobmon.rollup.buckets import (
    WITHOUT_DETAILS,
    HistoryProgress,
    QueueSample,
    Tallies,
    bucket_name,
    load_bucket_details,
    load_bucket_tallies,
    load_progress,
    load_sample,
    load_tallies,
    seconds,
)
from jobmon.rollup.documents import (
    BUCKETS,
    BUILD,
    COUNTERS,
    ERRORS,
    EVENTS,
    FAILURE,
    LEADER,
    LEASES,
    NOTIFICATIONS,
    PROGRESS,
    SAMPLES,
    STATE,
    STATS,
    OwnDatabase,
    require_type,
    rollup_database,
)
from jobmon.rollup.error_group_document import (
    WITHOUT_SAMPLE,
    ErrorGroup,
    error_group_name,
    load_error_group,
)
from jobmon.rollup.gaps import EventHistory, load_event_history
from jobmon.rollup.milestone_document import MILESTONES, load_milestones
from jobmon.rollup.notification_health import ReceiverHealth, load_receiver_health
from jobmon.rollup.recurring_runs import RECURRING_RUNS, RecordedRun, load_runs, run_list_name
from jobmon.rollup.run_details import RunDetails
from jobmon.rollup.stats_document import load_stats
from jobmon.single_flight import TTL_FACTOR, SingleFlight, SingleFlightCache
from jobmon.store.connection import Connection
from jobmon.store.decoding import large_document_check
from jobmon.store.failures import is_unauthorized
from jobmon.store.mapping import Document
from jobmon.store.milestones import Milestones
from jobmon.store.read_collection import request_comment
from jobmon.store.stats import QueueStats

log = logging.getLogger(__name__)
T = TypeVar("T")

# A collector writes stats at least every two seconds: if they are older, it has stopped or is slow.
MAX_STATS_AGE_MS = 5_000
# A busy minute takes seconds to count, and the collector pauses between two counts.
MAX_HISTORY_AGE_MS = 60_000
MAX_FAILURE_AGE_S = 300.0
CACHE_MS = 200
# The age of a document in ms; null if `at` is no date.
_AGE_MS: Document = {
    "$cond": [{"$eq": [{"$type": "$at"}, "date"]}, {"$subtract": ["$$NOW", "$at"]}, None]
}


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Activity since a collector first ran, by type, in the order in which the types appeared.

    `age_s` is the time since the totals were updated.
    """

    by_type: Tallies
    age_s: float


class RollupReader:
    """Reads jobmon's own database, and never writes to it.

    It reads over the connection `own`; by default over `connection`, the connection to the queue.
    Stats, progress and totals are kept for 0.2 s; so are groups and gaps, or longer if it took
    long to read them: a page needs them for each of its windows.
    """

    def __init__(self, connection: Connection, own: Connection | None = None) -> None:
        self._connection = connection
        self._own = own or connection
        self._reported: set[tuple[str, str]] = set()
        self._stats = SingleFlight(self._read_stats, CACHE_MS)
        self._progress = SingleFlight(self._read_progress, CACHE_MS)
        self._totals = SingleFlight(self._read_totals, CACHE_MS)
        self._events = SingleFlight(self._read_event_history, CACHE_MS, TTL_FACTOR)
        self._groups = SingleFlight(self._read_error_groups, CACHE_MS, TTL_FACTOR)
        self._milestones: SingleFlightCache[Milestones | None] = SingleFlightCache(1)
        self._is_readable = True

    @property
    def is_readable(self) -> bool:
        """Whether the last read of jobmon's own database was allowed; true before the first."""
        return self._is_readable

    def stats(self) -> QueueStats | None:
        """The collector's stats; None if there are none, or they are older than 5 s.

        All callers get the same object for 0.2 s.
        """
        return self._stats.get()

    def milestones(self, version: str) -> Milestones | None:
        """The milestones of this version; None if this version is not stored. Index: _id."""

        def read() -> Milestones | None:
            stored = self._find(MILESTONES, load_milestones)
            return stored[1] if stored is not None and stored[0] == version else None

        return self._milestones.get(version, read, keep=lambda milestones: milestones is not None)

    def progress(self) -> HistoryProgress | None:
        """How much of the history is counted; None if no collector counts it now."""
        return self._progress.get()

    def totals(self) -> Totals | None:
        """The running totals, of any age; None if no collector ever counted."""
        return self._totals.get()

    def event_history(self) -> EventHistory | None:
        """Which part of the history is counted from changes; None if no collector recorded it."""
        return self._events.get()

    def counts_changes(self) -> bool:
        """Whether runs are counted from the changes of jobs."""
        history = self.event_history()
        return history is not None and history.first_minute is not None

    def stats_age_s(self) -> float | None:
        """The age of the newest stats; None if there are none."""
        return self._find(STATS, _load_age)

    def history_age_s(self) -> float | None:
        """The time since the newest minutes were counted; None if none were ever counted."""
        return self._find(PROGRESS, _load_age)

    def first_build(self) -> dict[str, int] | None:
        """The progress of a first count: `counted` of about `estimated` jobs; None if none runs."""

        def load(document: Document) -> dict[str, int]:
            return {name: require_type(document[name], int) for name in ("counted", "estimated")}

        return self._find(BUILD, load, max_age_s=MAX_STATS_AGE_MS / 1_000)

    def failure(self) -> str | None:
        """The name of the exception if a collector failed in the last five minutes; else None."""

        def load(document: Document) -> str:
            return require_type(document["exception"], str)

        return self._find(FAILURE, load, max_age_s=MAX_FAILURE_AGE_S)

    def notifications(self) -> list[ReceiverHealth]:
        """The deliveries to each receiver of notifications; empty if there are no receivers."""

        def load(document: Document) -> list[ReceiverHealth]:
            return list(map(load_receiver_health, document["receivers"]))

        return self._find(NOTIFICATIONS, load) or []

    def leader(self) -> str | None:
        """The name of the collector that works now; None if no collector works."""

        def make_query(own: OwnDatabase) -> Document:
            return {"_id": own.id(LEADER), "$expr": {"$gt": ["$expiresAt", "$$NOW"]}}

        def load(lease: Document) -> str:
            return require_type(lease["holder"], str)

        return next(self._read_matching(LEASES, make_query, load), None)

    def buckets(
        self, spans: Iterable[tuple[timedelta, datetime]]
    ) -> dict[tuple[timedelta, datetime], Tallies]:
        """The buckets of these spans, which are pairs (length, start). Index: _id.

        A span without activity has no bucket.
        """
        names = {bucket_name(span, at): (span, at) for span, at in spans}

        def load(bucket: Document) -> tuple[tuple[timedelta, datetime], Tallies]:
            return names[bucket["name"]], load_bucket_tallies(bucket)

        return dict(self._read_named(BUCKETS, names, load, WITHOUT_DETAILS))

    def details(
        self, spans: Iterable[tuple[timedelta, datetime]], *, only_errors: bool = False
    ) -> dict[tuple[timedelta, datetime], RunDetails]:
        """The details of the buckets of these spans; with `only_errors` only errors by type.

        A span without activity has no bucket. Index: _id.
        """
        names = {bucket_name(span, at): (span, at) for span, at in spans}
        fields = ["format", "name", "at", "details.errorsByType" if only_errors else "details"]

        def load(bucket: Document) -> tuple[tuple[timedelta, datetime], RunDetails]:
            return names[bucket["name"]], load_bucket_details(bucket)

        return dict(self._read_named(BUCKETS, names, load, fields))

    def error_groups(self) -> dict[str, ErrorGroup]:
        """All groups of errors by id, without their sample message and stack; index: queue."""
        return self._groups.get()

    def known_error_groups(self, ids: Iterable[str]) -> frozenset[str]:
        """The subset of these ids for which a group exists. Index: _id."""

        def load(document: Document) -> str:
            return require_type(document["group"], str)

        names = list(map(error_group_name, ids))
        return frozenset(self._read_named(ERRORS, names, load, ["format", "group"]))

    def error_group(self, group_id: str) -> ErrorGroup | None:
        """The group with this id, and its sample; None if it does not exist. Index: _id."""
        names = [error_group_name(group_id)]
        return next(self._read_named(ERRORS, names, load_error_group), None)

    def recorded_runs(self, job_ids: Iterable[Any]) -> dict[str, list[RecordedRun]]:
        """The newest runs that a collector saw of the jobs with these _ids. Index: _id.

        The keys are those of `run_list_name`; a job without such runs has no entry.
        """

        def load(document: Document) -> tuple[str, list[RecordedRun]]:
            return document["name"], load_runs(document)

        return dict(self._read_named(RECURRING_RUNS, list(map(run_list_name, job_ids)), load))

    def samples(
        self, span: timedelta, start: datetime, end: datetime
    ) -> dict[datetime, QueueSample]:
        """The samples of spans from `start` to before `end`, by their start; index: span, at."""
        within = {"span": seconds(span), "at": {"$gte": start, "$lt": end}}
        return dict(self._read_matching(SAMPLES, lambda own: own.scope | within, load_sample))

    def _read_stats(self) -> QueueStats | None:
        return self._find(STATS, load_stats, max_age_s=MAX_STATS_AGE_MS / 1_000)

    def _read_progress(self) -> HistoryProgress | None:
        return self._find(PROGRESS, load_progress, max_age_s=MAX_HISTORY_AGE_MS / 1_000)

    def _read_event_history(self) -> EventHistory | None:
        return self._find(EVENTS, load_event_history)

    def _read_error_groups(self) -> dict[str, ErrorGroup]:
        groups = self._read_matching(
            ERRORS, lambda own: own.scope, load_error_group, WITHOUT_SAMPLE
        )
        return {group.id: group for group in groups}

    def _read_totals(self) -> Totals | None:
        age_s = self._find(PROGRESS, _load_age)
        by_type = self._find(COUNTERS, lambda document: load_tallies(document["totals"]))
        return None if age_s is None or by_type is None else Totals(by_type=by_type, age_s=age_s)

    def _find(
        self, name: str, load: Callable[[Document], T], *, max_age_s: float | None = None
    ) -> T | None:
        """A document of `state`, loaded; None without one, or if it is too old. Index: _id.

        `load` gets it with `ageMs`, the time since its date `at` by the database's clock.
        """

        def load_unless_old(document: Document) -> T | None:
            is_old = max_age_s is not None and _load_age(document) > max_age_s
            return None if is_old else load(document)

        def find(own: OwnDatabase) -> Iterable[Document]:
            pipeline: list[Document] = [
                {"$match": {"_id": own.id(name)}},
                {"$set": {"ageMs": _AGE_MS}},
            ]
            limits: dict[str, Any] = {"maxTimeMS": self._connection.max_time_ms}
            return own[STATE].aggregate(pipeline, **limits, **request_comment())

        return next(self._read(name, find, load_unless_old), None)

    def _read_named(
        self,
        collection: str,
        names: Collection[str],
        load: Callable[[Document], T],
        fields: Any = None,
    ) -> Iterator[T]:
        """Read the documents of a collection with these names. Index: _id."""

        def make_query(own: OwnDatabase) -> Document:
            return {"_id": {"$in": [own.id(name) for name in names]}}

        return self._read_matching(collection, make_query, load, fields) if names else iter(())

    def _read_matching(
        self,
        collection: str,
        make_query: Callable[[OwnDatabase], Document],
        load: Callable[[Document], T],
        fields: Any = None,
    ) -> Iterator[T]:
        def find(own: OwnDatabase) -> Iterable[Document]:
            cursor = own[collection].find(make_query(own), fields, **request_comment())
            return cursor.max_time_ms(self._connection.max_time_ms)

        return self._read(collection, find, load)

    def _read(
        self,
        name: str,
        find: Callable[[OwnDatabase], Iterable[Document]],
        load: Callable[[Document], T],
    ) -> Iterator[T]:
        """Read and load documents of jobmon's own database; none without the right to read it."""
        own = OwnDatabase(rollup_database(self._own), self._connection.queue_key, self._reported)
        # All callers share these documents: none takes the place of a large document for them.
        token = large_document_check.set(None)
        try:
            documents = list(find(own))
        except OperationFailure as error:
            if not is_unauthorized(error):
                raise
            if self._is_readable:
                log.warning("no right to read jobmon's own database: stats are counted live")
            self._is_readable = False
            return iter(())
        finally:
            large_document_check.reset(token)
        self._is_readable = True
        return own.read(name, documents, load)


def _load_age(document: Document) -> float:
    """The age in seconds; 0 if the writer's clock was ahead of the database's."""
    return max(0.0, require_type(document["ageMs"], int) / 1_000)
