"""What happened when: jobs enqueued, attempts finished and dead letters, by minute and type.

A minute is counted from the watched collections, again and again while it is young, and no more
when it is past: what was counted outlives the jobs. Minutes are added up to ten minutes, these to
hours, hours to six hours and these to days; each is kept for its own while.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Self

from pymongo.errors import ExecutionTimeout, OperationFailure

from jobmon.domain import LAST_OUTCOMES, STATUSES_AFTER_ATTEMPT, AttemptStatus, JobStatus
from jobmon.rollup.documents import OwnDatabase, typed
from jobmon.rollup.histogram import Histogram, bucket_expression, pack, unpack
from jobmon.settings import Settings
from jobmon.store.bson_json import to_text
from jobmon.store.connection import Connection
from jobmon.store.cursor import NEWEST_FIRST, OLDEST_FIRST
from jobmon.store.indexes import ATTEMPT_FINISHED, BY_FINISH
from jobmon.store.labels import MAX_TYPES, OTHER, label
from jobmon.store.mapping import Document, Keys
from jobmon.store.read_collection import ReadCollection, is_bad_hint

log = logging.getLogger(__name__)

_BY_ID: Keys = [("_id", 1)]
_LOOKED_AT = 200  # documents at either end of a collection without an index on finishedAt

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# Each is added up from the one before it, so that an answer never needs many.
SPANS = (MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY)

STATE = "state"
BUCKETS = "buckets"
# In the state: `young`, when the newest minutes were counted last; `through`, up to when all were;
# `countedFrom`, while older ones are still being counted, from when on all newer ones are;
# `counters`, when the running totals were last brought up to that.
THROUGH = "buckets"

# The minute that runs is counted at every look. Clocks of writers differ, and a recovery ends an
# attempt a little after the fact: minutes that are past are counted again, but less often.
STRAGGLERS = 15 * MINUTE
LOOK_BACK_EVERY_S = {MINUTE: 5.0, 2 * MINUTE: 20.0, STRAGGLERS: 120.0}
# Between two looks rest this many times as long as the last one took: a fortieth of a core of the
# database at the most, unless that would make the figures old.
REST = 40
MAX_REST_S = 15.0
LOOK_FOR_INDEXES_EVERY_S = 10.0

_FINISHED = [status.value for status in AttemptStatus if status is not AttemptStatus.RUNNING]


def retention(settings: Settings) -> dict[timedelta, timedelta]:
    """How long buckets are kept, by their span."""
    minutes = timedelta(days=settings.minute_retention_days)
    hours = timedelta(days=settings.hour_retention_days)
    days = timedelta(days=settings.day_retention_days)
    return {MINUTE: minutes, 10 * MINUTE: minutes, HOUR: hours, 6 * HOUR: hours, DAY: days}


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

    @property
    def durations(self) -> int:
        """How many are known; where a job tells of its last attempt alone, the others are lost."""
        return self.wait.total() + self.run.total()


Tallies = dict[str, Tally]  # by type


def merge(many: Iterable[Tallies]) -> Tallies:
    """The sum."""
    merged: Tallies = {}
    for tallies in many:
        for kind, tally in tallies.items():
            merged.setdefault(kind, Tally()).add(tally)
    return merged


def busiest(tallies: Tallies) -> Tallies:
    """The types with most events by their names, 500 of them, the rest as `(other)`: what is kept
    and told of some time must not grow with the jobs, if each has a type of its own.

    Of a sum of such a type may be told too low: what it had where it was of the rest is in there.
    """
    if len(tallies) <= MAX_TYPES:
        return tallies
    ranked = sorted(tallies, key=lambda kind: (kind == OTHER, -tallies[kind].events, kind))
    named = set(ranked[:MAX_TYPES])
    return merge({kind if kind in named else OTHER: tallies[kind]} for kind in ranked)


def dump(tallies: Tallies) -> list[Document]:
    """As BSON holds it, in order; a type may have dots and dollars in its name: it is no key."""
    return [
        {
            "type": kind,
            "enqueued": tally.enqueued,
            "dlq": tally.dlq,
            "outcomes": [[outcome, count] for outcome, count in sorted(tally.outcomes.items())],
            "wait": pack(tally.wait),
            "run": pack(tally.run),
        }
        for kind, tally in sorted(tallies.items())
    ]


def load(documents: list[Document]) -> Tallies:
    """What `dump` gave; MalformedError or KeyError of anything else."""
    return {
        typed(document["type"], str): Tally(
            enqueued=typed(document["enqueued"], int),
            dlq=typed(document["dlq"], int),
            outcomes=Counter(
                {typed(name, str): typed(count, int) for name, count in document["outcomes"]}
            ),
            wait=unpack(document["wait"]),
            run=unpack(document["run"]),
        )
        for document in documents
    }


def tally(
    connection: Connection, start: datetime, end: datetime, span: timedelta
) -> dict[datetime, Tallies]:
    """Count what happened from `start` to before `end`, by spans; those without events are absent.

    Three queries, each by its index.
    """
    within = {"$gte": start, "$lt": end}
    tallies: dict[datetime, Tallies] = {}

    def of(key: Document) -> Tally:
        kind = label(key.get("type"))
        return tallies.setdefault(floor(key["at"], span), {}).setdefault(kind, Tally())

    jobs = connection.jobs
    if jobs.names.knows_creation:
        created: list[Document] = [{"$match": {"createdAt": within}}, _by_type("$createdAt")]
        for group in _groups(jobs, created, NEWEST_FIRST):
            of(group["_id"]).enqueued += int(group["count"])
    dead: list[Document] = [
        {"$match": {"status": JobStatus.DLQ.value, "finishedAt": within}},
        _by_type("$finishedAt"),
    ]
    for group in _groups(jobs, dead, BY_FINISH):
        of(group["_id"]).dlq += int(group["count"])
    for group in _finished(connection, within):
        counted = of(group["_id"])
        outcome = group["_id"]["outcome"]
        if outcome not in _FINISHED:
            continue
        counted.outcomes[outcome] += len(group["run"])
        counted.wait.update(int(bucket) for bucket in group["wait"] if bucket is not None)
        counted.run.update(int(bucket) for bucket in group["run"] if bucket is not None)
    return tallies


def _finished(connection: Connection, within: Document) -> Iterator[Document]:
    """Finished attempts by minute, type and outcome, each with its buckets.

    Either all from the recorded attempts or, where there is none at all, all from the jobs: so
    that none is counted twice.
    """
    jobs, outcome_of_jobs = connection.jobs, connection.profile.outcome
    if connection.attempts is not None and connection.has_recorded_attempts():
        pipeline = _attempts(connection.attempts, jobs, within)
        for group in _groups(connection.attempts, pipeline, ATTEMPT_FINISHED):
            group["_id"]["outcome"] = connection.attempts.names.status(group["_id"].get("status"))
            yield group
    elif outcome_of_jobs is not None:
        pipeline = _last_attempts({"finishedAt": within}, "outcome", outcome_of_jobs)
        yield from _groups(jobs, pipeline, ATTEMPT_FINISHED)
    else:
        ended = {"status": {"$in": list(STATUSES_AFTER_ATTEMPT)}, "finishedAt": within}
        for group in _groups(jobs, _last_attempts(ended, "status", "$status"), BY_FINISH):
            status = jobs.names.status(group["_id"].get("status"))
            group["_id"]["outcome"] = LAST_OUTCOMES.get(to_text(status))
            yield group


def _by_type(moment: str) -> Document:
    key = {"at": _minute_of(moment), "type": "$type"}
    return {"$group": {"_id": key, "count": {"$sum": 1}}}


def _minute_of(moment: str) -> Document:
    """`floor` as an expression; null for an array of dates, which the match lets through."""
    seconds = {"$mod": [{"$toLong": moment}, 60_000]}
    is_date = {"$eq": [{"$type": moment}, "date"]}
    return {"$cond": [is_date, {"$subtract": [moment, seconds]}, None]}


def _groups(watched: ReadCollection, pipeline: list[Document], index: Keys) -> Iterator[Document]:
    """The groups that have a moment; none where no document has a finishedAt and its index lacks.

    `jobmon init` makes no index for a field that no document has.
    """
    try:
        groups = watched.aggregate(pipeline, index=index, strictly=True)
    except OperationFailure as error:
        if not is_bad_hint(error) or index == NEWEST_FIRST or _has_finished(watched):
            raise
        return
    for group in groups:
        if group["_id"].get("at") is not None:
            yield group


def _has_finished(watched: ReadCollection) -> bool:
    """Whether one of the newest or of the oldest documents has a finishedAt."""
    for direction in (-1, 1):
        found = watched.find(
            {}, ("finishedAt",), index=_BY_ID, order=[("_id", direction)], limit=_LOOKED_AT
        )
        if any(document.get("finishedAt") is not None for document in found):
            return True
    return False


def _attempts(attempts: ReadCollection, jobs: ReadCollection, within: Document) -> list[Document]:
    """Finished attempts by minute, type and outcome, with every one's buckets.

    Grouped by its buckets nearly every attempt would be a group of its own. A $lookup without a
    pipeline is several times as fast: MongoDB 6.0 joins by index in its slot-based engine.
    """

    def of_job(field: str) -> Any:
        return jobs.names.expression(field, under="_job")

    first = {"$cond": [{"$eq": ["$attemptNumber", 1]}, of_job("$createdAt"), None]}
    eligible_at = {"$ifNull": ["$eligibleAt", first]}
    local, foreign = attempts.names.paths["jobId"], jobs.names.paths["jobId"]
    either: list[Document] = []
    if foreign == "_id":  # an attempt may hold its job's ObjectId as text
        as_id = {"$convert": {"input": "$jobId", "to": "objectId", "onError": "$jobId"}}
        either, local = [{"$set": {"_jobIds": ["$jobId", as_id]}}], "_jobIds"
    by_job_id = {"localField": local, "foreignField": foreign}
    return [
        {"$match": {"finishedAt": within, "status": {"$in": _FINISHED}}},
        *either,
        {"$lookup": {"from": jobs.collection.name, **by_job_id, "as": "_job"}},
        {"$set": {"_job": {"$first": "$_job"}}},
        {
            "$group": {
                "_id": {
                    "at": _minute_of("$finishedAt"),
                    "type": of_job("$type"),
                    "status": "$status",
                },
                "wait": {"$push": _bucket_between(eligible_at, "$startedAt")},
                "run": {"$push": _bucket_between("$startedAt", "$finishedAt")},
            }
        },
    ]


def _last_attempts(match: Document, name: str, outcome: Any) -> list[Document]:
    """The last attempt at each job, where the job itself is all that is known of it.

    A first attempt waited since the job was due. A job that runs anew has forgotten when the
    attempt began that ended.
    """
    started, ended = "$startedAt", "$finishedAt"
    due = {"$max": ["$createdAt", "$nextRunAt"]}
    first_due = {"$cond": [{"$eq": ["$attemptCount", 1]}, due, None]}
    buckets = {
        "wait": {"$push": _bucket_in_order(first_due, started)},
        "run": {"$push": _bucket_in_order(started, ended)},
    }
    key = {"at": _minute_of("$finishedAt"), "type": "$type", name: outcome}
    return [{"$match": match}, {"$group": {"_id": key, **buckets}}]


def _bucket_in_order(start: Any, end: Any) -> Document:
    return {"$cond": [{"$lte": [start, end]}, _bucket_between(start, end), None]}


def _bucket_between(start: Any, end: Any) -> Document:
    are_dates = [{"$eq": [{"$type": moment}, "date"]} for moment in (start, end)]
    duration_ms = {"$subtract": [end, start]}
    return {"$cond": [{"$and": are_dates}, bucket_expression(duration_ms), None]}


class Throughput:
    """Keeps the buckets of jobmon's own database right.

    After each look `looked` is told when that was and whether nothing missed is left to count.
    """

    def __init__(
        self,
        connection: Connection,
        own: OwnDatabase,
        looked: Callable[[datetime, bool], None] = lambda _, __: None,
    ) -> None:
        self._looked = looked
        self._connection = connection
        self._kept = retention(connection.settings)
        self._own = own
        self._buckets = own[BUCKETS]
        self._state = own[STATE]
        # How far back to look is due when; each look back includes the shorter ones.
        self._due_at = dict.fromkeys(LOOK_BACK_EVERY_S, 0.0)
        self._at_a_time = 6 * HOUR
        self._forgotten: datetime | None = None
        self._warned = False
        # From here on all is counted; None once nothing missed is left to count.
        self._counted_from: datetime | None = None

    def run(self, stop: threading.Event) -> None:
        """Count what is young, then what was missed, until stopped; raises PyMongoError."""
        self._buckets.create_index(self._own.index("span", "at"))
        missed = self._missed(datetime.now(UTC))
        more, rest_s = True, 0.0
        while not stop.wait(rest_s):
            started = time.monotonic()
            try:
                now = datetime.now(UTC)
                self._count_young(now)
                if more and self._counted_from is None:
                    self._counted_from = floor(now - STRAGGLERS, MINUTE)
                self._note(young=now, countedFrom=self._counted_from)
                more = more and self._count_missed(missed, stop)
                if not more:
                    self._counted_from = None
                    self._note(through=now, countedFrom=None)
                self._looked(now, not more)
                self._note(counters=now)
                self._forget(now)
            except OperationFailure as error:
                if not is_bad_hint(error):
                    raise
                if not self._warned:
                    self._warned = True
                    log.warning("no throughput without its indexes; `jobmon init` makes them")
                stop.wait(LOOK_FOR_INDEXES_EVERY_S)
                missed, more = self._missed(datetime.now(UTC)), True
                self._counted_from = None
                continue
            took_s = time.monotonic() - started
            rest_s = took_s / 4 if more else min(max(1.0, took_s * REST), MAX_REST_S)

    def _count_missed(
        self, missed: Iterator[tuple[datetime, datetime, timedelta]], stop: threading.Event
    ) -> bool:
        """Count what was missed for a second; whether there is more of it."""
        until = time.monotonic() + 1
        for start, end, span in missed:
            self._count(start, end, span)
            self._add_up(start, end, span)
            if self._counted_from is not None:
                self._counted_from = min(self._counted_from, start)
            if stop.is_set() or time.monotonic() > until:
                return True
        return False

    def _note(self, **moments: datetime | None) -> None:
        fields = {**self._own.scope, "name": THROUGH, **moments}
        self._state.update_one({"_id": self._own.id(THROUGH)}, {"$set": fields}, upsert=True)

    def _count_young(self, now: datetime) -> None:
        back = timedelta(0)
        for look_back, every_s in LOOK_BACK_EVERY_S.items():
            if time.monotonic() >= self._due_at[look_back]:
                self._due_at[look_back] = time.monotonic() + every_s
                back = max(back, look_back)
        # A writer's clock may be ahead: the minute that is to come is counted, too.
        start, end = floor(now - back, MINUTE), floor(now, MINUTE) + 2 * MINUTE
        if self._count(start, end, MINUTE):
            self._add_up(start, end, MINUTE)

    def _missed(self, now: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
        """What no collector has counted for good, the newest first.

        From when to when, and in which spans: an hour by the minute, further back six by the hour.
        """
        kept = [self._state.find_one({"_id": self._own.id(THROUGH)})]
        through = next(self._own.read(STATE, kept, load_through), None)
        since = through - STRAGGLERS if through else self._first()
        if since is None:
            return
        since = floor(max(since, now - self._kept[DAY]), MINUTE)
        end = floor(now, HOUR) + HOUR
        while end > max(since, floor(now - self._kept[MINUTE], HOUR)):
            yield max(end - HOUR, since), end, MINUTE
            end -= HOUR
        while end > since:
            start = floor(end - HOUR, 6 * HOUR)
            yield start, end, HOUR
            end = start

    def _first(self) -> datetime | None:
        """When the oldest job was created, as far as jobs tell."""
        oldest = self._connection.jobs.find(
            {"createdAt": {"$type": "date"}},
            ("createdAt",),
            index=NEWEST_FIRST,
            order=OLDEST_FIRST,
            limit=1,
            strictly=True,
        )
        found = oldest[0].get("_at", oldest[0].get("createdAt")) if oldest else None
        return found if isinstance(found, datetime) else None

    def _count(self, start: datetime, end: datetime, span: timedelta) -> bool:
        """Count from `start` to before `end` in spans; whether that told anything new."""
        counted = self._tally(start, end, span)
        return sum(self._keep(span, at, tallies) for at, tallies in counted.items()) > 0

    def _add_up(self, start: datetime, end: datetime, span: timedelta) -> None:
        """Make every larger span that begins before `end` the sum of its parts again."""
        for part, larger in pairwise(SPANS[SPANS.index(span) :]):
            at = floor(start, larger)
            while at < end:
                within = {"span": _seconds(part), "at": {"$gte": at, "$lt": at + larger}}
                parts = self._buckets.find({**self._own.scope, **within})
                self._keep(larger, at, merge(self._own.read(BUCKETS, parts, load_bucket)))
                at += larger

    def _tally(self, start: datetime, end: datetime, span: timedelta) -> dict[datetime, Tallies]:
        """`tally`, in pieces as long as the query time limit lets them be."""
        counted: dict[datetime, Tallies] = {}
        while start < end:
            until = min(start + self._at_a_time, end)
            try:
                piece = tally(self._connection, start, until, span)
            except ExecutionTimeout:
                if self._at_a_time <= MINUTE:
                    raise
                self._at_a_time = max(MINUTE, self._at_a_time // (2 * MINUTE) * MINUTE)
                continue
            for at, tallies in piece.items():
                counted[at] = merge([counted.get(at, {}), tallies])
            start = until
        return counted

    def _keep(self, span: timedelta, at: datetime, counted: Tallies) -> bool:
        """Write a bucket; whether it had to be.

        It never tells less than before: jobs go, what they did stays.
        """
        counted = busiest(counted)
        events = sum(tally.events for tally in counted.values())
        if not events:
            return False
        fields = {"span": _seconds(span), "at": at, "events": events, "types": dump(counted)}
        bucket = self._own.new(bucket_name(span, at), fields)
        found = self._buckets.find_one({"_id": bucket["_id"]})
        old = next(self._own.read(BUCKETS, [found], load_bucket), None)
        if old is not None:
            known = sum(tally.events for tally in old.values()), _durations(old)
            if (events, _durations(counted)) < known or old == counted:
                return False
        return self._own.write(
            BUCKETS,
            lambda: self._buckets.replace_one({"_id": bucket["_id"]}, bucket, upsert=True),
        )

    def _forget(self, now: datetime) -> None:
        """Drop what is older than it is kept, by whole days, hence once a day."""
        if floor(now, DAY) == self._forgotten:
            return
        for span, kept in self._kept.items():
            old = {"span": _seconds(span), "at": {"$lt": floor(now - kept, DAY)}}
            self._buckets.delete_many({**self._own.scope, **old})
        self._forgotten = floor(now, DAY)


def _durations(tallies: Tallies) -> int:
    return sum(tally.durations for tally in tallies.values())


def load_bucket(document: Document) -> Tallies:
    """What a bucket counts, by type; MalformedError or KeyError of another document."""
    typed(document["at"], datetime)
    return load(typed(document["types"], list))


def load_through(document: Document) -> datetime | None:
    """Up to when all is counted, if it ever was; MalformedError of another document."""
    through = document.get("through")
    return None if through is None else typed(through, datetime)


def load_counted_from(document: Document) -> datetime | None:
    """From when on all is counted, while a collector still counts what is older; else None."""
    counted_from = document.get("countedFrom")
    return None if counted_from is None else typed(counted_from, datetime)


def bucket_name(span: timedelta, at: datetime) -> str:
    """The name of a bucket among the documents of its queue."""
    return f"{_seconds(span)}:{at.isoformat()}"


def _seconds(span: timedelta) -> int:
    return round(span.total_seconds())
