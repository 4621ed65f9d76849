"""What happened when: jobs enqueued, attempts finished and dead letters, by minute and type.

A minute is counted from the watched collections, again and again while it is young, and no more
when it is past: what was counted outlives the jobs. Minutes are added up to hours, hours to days,
and each is kept for its own while.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from pymongo.database import Database
from pymongo.errors import ExecutionTimeout, OperationFailure

from jobmon.domain import AttemptStatus, JobStatus
from jobmon.rollup.histogram import Histogram, bucket_expression
from jobmon.store.connection import Connection, Document
from jobmon.store.indexes import ATTEMPT_FINISHED, BY_FINISH, is_bad_hint
from jobmon.store.ordering import NEWEST_FIRST
from jobmon.store.plain import text

log = logging.getLogger(__name__)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)

STATE = "state"
BUCKETS = "throughput"
# In the state: `young`, when the newest minutes were counted last; `through`, up to when all were.
THROUGH = "throughput"

# Clocks of writers differ, and a recovery ends an attempt a little after the fact.
YOUNG = 2 * MINUTE
STRAGGLERS = 15 * MINUTE
STRAGGLERS_EVERY_S = 120.0
# Between two looks rest this many times as long as the last one took.
REST = 20

_FINISHED = [status.value for status in AttemptStatus if status is not AttemptStatus.RUNNING]


def floor(moment: datetime, span: timedelta) -> datetime:
    """The start of the minute, hour or day (UTC) that `moment` lies in."""
    seconds = span.total_seconds()
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


@dataclass
class Tally:
    """What happened to jobs of one type in some span of time; `wait` and `run` are durations."""

    enqueued: int = 0
    dlq: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wait: Histogram = field(default_factory=Counter)
    run: Histogram = field(default_factory=Counter)

    def add(self, other: Self) -> None:
        """Count what `other` counts, too."""
        self.enqueued += other.enqueued
        self.dlq += other.dlq
        self.outcomes.update(other.outcomes)
        self.wait.update(other.wait)
        self.run.update(other.run)

    @property
    def events(self) -> int:
        """How much is counted; of a past span it can only shrink by deletions."""
        return self.enqueued + self.dlq + self.outcomes.total()


Tallies = dict[str, Tally]  # by type


def merge(many: Iterator[Tallies]) -> Tallies:
    """The sum."""
    merged: Tallies = {}
    for tallies in many:
        for kind, tally in tallies.items():
            merged.setdefault(kind, Tally()).add(tally)
    return merged


def dump(tallies: Tallies) -> list[Document]:
    """As BSON holds it; a type may have dots and dollars in its name, so none is a key."""
    return [
        {
            "type": kind,
            "enqueued": tally.enqueued,
            "dlq": tally.dlq,
            "outcomes": dict(tally.outcomes),
            "wait": [list(pair) for pair in tally.wait.items()],
            "run": [list(pair) for pair in tally.run.items()],
        }
        for kind, tally in tallies.items()
    ]


def load(documents: list[Document]) -> Tallies:
    """What `dump` gave."""
    return {
        document["type"]: Tally(
            enqueued=document["enqueued"],
            dlq=document["dlq"],
            outcomes=Counter(document["outcomes"]),
            wait=Counter(dict(document["wait"])),
            run=Counter(dict(document["run"])),
        )
        for document in documents
    }


def tally(connection: Connection, start: datetime, end: datetime) -> Tallies:
    """Count what happened from `start` to before `end`; three queries, each by its index."""
    within = {"$gte": start, "$lt": end}
    tallies: Tallies = {}

    def of(kind: Any) -> Tally:
        return tallies.setdefault(text(kind), Tally())

    by_type = {"$group": {"_id": "$type", "count": {"$sum": 1}}}
    created: list[Document] = [{"$match": {"createdAt": within}}, by_type]
    for group in _aggregate(connection, "jobs", created, dict(NEWEST_FIRST)):
        of(group["_id"]).enqueued += int(group["count"])
    dead: list[Document] = [
        {"$match": {"status": JobStatus.DLQ.value, "finishedAt": within}},
        by_type,
    ]
    for group in _aggregate(connection, "jobs", dead, dict(BY_FINISH)):
        of(group["_id"]).dlq += int(group["count"])
    attempts = _attempts(connection.jobs.name, within)
    for group in _aggregate(connection, "attempts", attempts, dict(ATTEMPT_FINISHED)):
        key, count = group["_id"], int(group["count"])
        counted = of(key.get("type"))
        counted.outcomes[key["status"]] += count
        for histogram, name in ((counted.wait, "wait"), (counted.run, "run")):
            if key.get(name) is not None:
                histogram[int(key[name])] += count
    return tallies


def _aggregate(
    connection: Connection, collection: str, pipeline: list[Document], hint: dict[str, int]
) -> Iterator[Document]:
    watched = connection.jobs if collection == "jobs" else connection.attempts
    return watched.aggregate(pipeline, hint=hint, maxTimeMS=connection.max_time_ms)


def _attempts(jobs: str, within: Document) -> list[Document]:
    first = {"$cond": [{"$eq": ["$attemptNumber", 1]}, "$job.createdAt", None]}
    eligible_at = {"$ifNull": ["$eligibleAt", first]}
    return [
        {"$match": {"finishedAt": within, "status": {"$in": _FINISHED}}},
        {
            "$lookup": {
                "from": jobs,
                "localField": "jobId",
                "foreignField": "jobId",
                "pipeline": [{"$project": {"_id": False, "type": True, "createdAt": True}}],
                "as": "job",
            }
        },
        {"$set": {"job": {"$first": "$job"}}},
        {
            "$group": {
                "_id": {
                    "type": "$job.type",
                    "status": "$status",
                    "wait": _bucket_between(eligible_at, "$startedAt"),
                    "run": _bucket_between("$startedAt", "$finishedAt"),
                },
                "count": {"$sum": 1},
            }
        },
    ]


def _bucket_between(start: Any, end: Any) -> Document:
    are_dates = [{"$eq": [{"$type": moment}, "date"]} for moment in (start, end)]
    duration_ms = {"$subtract": [end, start]}
    return {"$cond": [{"$and": are_dates}, bucket_expression(duration_ms), None]}


class Throughput:
    """Keeps the buckets of jobmon's own database right."""

    def __init__(self, connection: Connection, rollups: Database[Document]) -> None:
        self._connection = connection
        self._kept = connection.kept
        self._buckets = rollups[BUCKETS]
        self._state = rollups[STATE]
        self._stragglers_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Count what is young, then what was missed, until stopped; raises PyMongoError."""
        self._buckets.create_index([("span", 1), ("at", 1)])
        missed = self._missed(datetime.now(UTC))
        more, rest_s = True, 0.0
        while not stop.wait(rest_s):
            started = time.monotonic()
            try:
                now = datetime.now(UTC)
                self._count_young(now)
                self._note(young=now)
                more = more and self._count_missed(missed, stop)
                if not more:
                    self._note(through=now)
                self._forget(now)
            except OperationFailure as error:
                if not is_bad_hint(error):
                    raise
                log.warning("no throughput without its indexes; `jobmon init` makes them")
                return
            took_s = time.monotonic() - started
            rest_s = took_s / 4 if more else max(1.0, took_s * REST)

    def _count_missed(
        self, missed: Iterator[tuple[timedelta, datetime]], stop: threading.Event
    ) -> bool:
        """Count what was missed for a second; whether there is more of it."""
        until = time.monotonic() + 1
        for span, at in missed:
            self._count(span, at)
            if stop.is_set() or time.monotonic() > until:
                return True
        return False

    def _note(self, **moments: datetime) -> None:
        self._state.update_one({"_id": THROUGH}, {"$set": moments}, upsert=True)

    def _count_young(self, now: datetime) -> None:
        since = now - YOUNG
        if time.monotonic() > self._stragglers_at:
            self._stragglers_at = time.monotonic() + STRAGGLERS_EVERY_S
            since = now - STRAGGLERS
        minute = floor(since, MINUTE)
        while minute <= now + MINUTE:
            self._count(MINUTE, minute)
            minute += MINUTE
        for span, part in ((HOUR, MINUTE), (DAY, HOUR)):
            for at in {floor(since, span), floor(now, span)}:
                self._add_up(span, at, part)

    def _missed(self, now: datetime) -> Iterator[tuple[timedelta, datetime]]:
        """What no collector has counted, the newest first: minutes, then whole hours."""
        through = self._state.find_one({"_id": THROUGH})
        since = (through or {}).get("through") or self._first()
        if since is None:
            return
        since = max(since, now - self._kept[DAY])
        minutes_since = max(floor(since, HOUR), floor(now - self._kept[MINUTE], HOUR))
        hour = floor(now, HOUR)
        while hour >= minutes_since:
            for number in reversed(range(60)):
                yield MINUTE, hour + number * MINUTE
            self._add_up(HOUR, hour, MINUTE)
            self._add_up(DAY, floor(hour, DAY), HOUR)
            hour -= HOUR
        while hour >= floor(since, HOUR):
            yield HOUR, hour
            self._add_up(DAY, floor(hour, DAY), HOUR)
            hour -= HOUR

    def _first(self) -> datetime | None:
        """When the oldest job was created, as far as jobs tell."""
        oldest = (
            self._connection.jobs.find({"createdAt": {"$type": "date"}}, {"createdAt": True})
            .sort([(name, -order) for name, order in NEWEST_FIRST])
            .limit(1)
            .hint(dict(NEWEST_FIRST))
            .max_time_ms(self._connection.max_time_ms)
        )
        found = next(oldest, {}).get("createdAt")
        return found if isinstance(found, datetime) else None

    def _count(self, span: timedelta, at: datetime) -> None:
        try:
            counted = tally(self._connection, at, at + span)
        except ExecutionTimeout:
            if span == MINUTE:
                raise
            minutes = (at + number * MINUTE for number in range(span // MINUTE))
            counted = merge(tally(self._connection, start, start + MINUTE) for start in minutes)
        self._keep(span, at, counted)

    def _add_up(self, span: timedelta, at: datetime, part: timedelta) -> None:
        parts = self._buckets.find({"span": _seconds(part), "at": {"$gte": at, "$lt": at + span}})
        self._keep(span, at, merge(load(bucket["types"]) for bucket in parts))

    def _keep(self, span: timedelta, at: datetime, counted: Tallies) -> None:
        """Write a bucket, unless it would tell less than before: jobs go, what they did stays."""
        events = sum(tally.events for tally in counted.values())
        if not events:
            return
        key = {"_id": f"{_seconds(span)}:{at.isoformat()}"}
        old = self._buckets.find_one(key, {"events": True})
        if old is None or events >= old["events"]:
            bucket = {"span": _seconds(span), "at": at, "events": events, "types": dump(counted)}
            self._buckets.replace_one(key, bucket, upsert=True)

    def _forget(self, now: datetime) -> None:
        for span, kept in self._kept.items():
            old = {"span": _seconds(span), "at": {"$lt": floor(now - kept, DAY)}}
            self._buckets.delete_many(old)


def _seconds(span: timedelta) -> int:
    return round(span.total_seconds())
