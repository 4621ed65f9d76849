"""Buckets and samples of the history: the stored activity and state for minutes, hours and days.

A bucket counts activity in one span of time; buckets add up to larger buckets. A sample is the
state of the queue at one moment; for each span a sample from its last minute is kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import NoneType
from typing import Self

from jobmon.domain import AttemptStatus
from jobmon.rollup.documents import require_type
from jobmon.rollup.histogram import Histogram, add_counts, pack, unpack
from jobmon.rollup.run_details import RunDetails, dump_details, fold_details, load_details
from jobmon.settings import Settings
from jobmon.store.labels import OTHER
from jobmon.store.mapping import Document

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
# A larger bucket is the sum of buckets of the previous span, so that no answer needs many buckets.
SPANS = (MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY)
# A minute is recounted for this long, then it is final. The clocks of writers differ, and a
# recovery ends attempts late.
FINAL_AFTER = 15 * MINUTE
# Fewer than `labels.MAX_TYPES`: a document has at most 16 MB. With names of 200 characters of 4
# bytes, a bucket needs up to 5 KB a type and 5 MB for details.
MAX_BUCKET_TYPES = 2_000

# A projection for readers that need only the activity of a bucket.
WITHOUT_DETAILS = {"details": False}


def retention(settings: Settings) -> dict[timedelta, timedelta]:
    """How long buckets and samples are stored, by their span."""
    minutes = timedelta(days=settings.minute_retention_days)
    hours = timedelta(days=settings.hour_retention_days)
    days = timedelta(days=settings.day_retention_days)
    return {MINUTE: minutes, 10 * MINUTE: minutes, HOUR: hours, 6 * HOUR: hours, DAY: days}


@lru_cache(4_096)
def floor(moment: datetime, span: timedelta) -> datetime:
    """The start (UTC) of the span that contains `moment`; a span is, for example, an hour."""
    span_s = span.total_seconds()
    return datetime.fromtimestamp(moment.timestamp() // span_s * span_s, UTC)


def seconds(span: timedelta) -> int:
    """A span's length in whole seconds; documents store it in this form."""
    return round(span.total_seconds())


def bucket_name(span: timedelta, at: datetime) -> str:
    """The name of the document of the span from `at` on: `60:2026-11-26T03:07:00+00:00`."""
    return f"{seconds(span)}:{at.isoformat()}"


@dataclass
class Tally:
    """The stored activity of one type of jobs in a span; readers get `series.Activity` from it.

    `enqueued` and `dlq` count the jobs that were enqueued and dead-lettered. `outcomes` counts
    finished attempts by status. `wait` and `run` are histograms of ms.
    """

    enqueued: int = 0
    dlq: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    wait: Histogram = field(default_factory=Counter)
    run: Histogram = field(default_factory=Counter)

    def add(self, other: Self) -> None:
        self.enqueued += other.enqueued
        self.dlq += other.dlq
        add_counts(self.outcomes, other.outcomes)
        add_counts(self.wait, other.wait)
        add_counts(self.run, other.run)

    def maximum(self, other: Self) -> "Tally":
        """The greater of each count, because either tally may lack a part of the same activity."""
        return Tally(
            enqueued=max(self.enqueued, other.enqueued),
            dlq=max(self.dlq, other.dlq),
            outcomes=self.outcomes | other.outcomes,
            wait=self.wait | other.wait,
            run=self.run | other.run,
        )

    @property
    def event_count(self) -> int:
        """The number of events; a recount may find fewer if jobs were deleted or ran again."""
        return self.enqueued + self.dlq + self.outcomes.total()

    @property
    def failed(self) -> int:
        """The number of finished attempts that did not succeed."""
        return self.outcomes.total() - self.outcomes[AttemptStatus.SUCCEEDED.value]

    @property
    def duration_count(self) -> int:
        """The number of measured durations, of waits and of runs."""
        return self.wait.total() + self.run.total()


Tallies = dict[str, Tally]  # by type


def merge(parts: Iterable[Tallies]) -> Tallies:
    """The sum of tallies, type by type."""
    merged: Tallies = {}
    for tallies in parts:
        for job_type, tally in tallies.items():
            if (total := merged.get(job_type)) is None:
                total = merged[job_type] = Tally()
            total.add(tally)
    return merged


def fold_rare_types(tallies: Tallies) -> Tallies:
    """The `MAX_BUCKET_TYPES` types with most events, and the sum of all others as `(other)`.

    So buckets and answers are bounded, even if all jobs have different types. A sum over buckets
    may count too few events of a type, because some buckets may have folded it into `(other)`.
    """
    if len(tallies) <= MAX_BUCKET_TYPES:
        return tallies
    ranked = sorted(tallies, key=lambda name: (name == OTHER, -tallies[name].event_count, name))
    return fold_types(tallies, ranked[:MAX_BUCKET_TYPES])


def fold_types(tallies: Tallies, kept_types: Iterable[str]) -> Tallies:
    """The tallies of `kept_types`, and the sum of all others as `(other)`."""
    kept = frozenset(kept_types)
    return merge({name if name in kept else OTHER: tally} for name, tally in tallies.items())


def dump_tallies(tallies: Tallies) -> list[Document]:
    """The stored form, in the same order. Types are no keys: they may contain dots or NUL."""
    return [
        {
            "type": job_type,
            "enqueued": tally.enqueued,
            "dlq": tally.dlq,
            "outcomes": [[outcome, count] for outcome, count in sorted(tally.outcomes.items())],
            "wait": pack(tally.wait),
            "run": pack(tally.run),
        }
        for job_type, tally in tallies.items()
    ]


def load_tallies(documents: list[Document]) -> Tallies:
    """What `dump_tallies` stored; raises KeyError, TypeError or ValueError for other documents."""
    return {
        require_type(document["type"], str): Tally(
            enqueued=require_type(document["enqueued"], int),
            dlq=require_type(document["dlq"], int),
            outcomes=Counter(
                {
                    require_type(name, str): require_type(count, int)
                    for name, count in document["outcomes"]
                }
            ),
            wait=unpack(document["wait"]),
            run=unpack(document["run"]),
        )
        for document in require_type(documents, list)
    }


def count_events(tallies: Tallies) -> int:
    return sum(tally.event_count for tally in tallies.values())


def count_failed(tallies: Tallies) -> dict[str, int]:
    """Failed runs by type; a type without failed runs is absent."""
    return {job_type: tally.failed for job_type, tally in tallies.items() if tally.failed}


def dump_bucket(span: timedelta, at: datetime, tallies: Tallies, details: RunDetails) -> Document:
    """The stored fields of the bucket of the span that begins at `at`."""
    return {
        "span": seconds(span),
        "at": at,
        "events": count_events(tallies),
        "types": dump_tallies(tallies),
        "details": dump_details(fold_details(details)),
    }


def load_bucket_tallies(document: Document) -> Tallies:
    """The tallies of a bucket; raises what `load_tallies` raises."""
    require_type(document["at"], datetime)  # callers read it
    return load_tallies(document["types"])


def load_bucket_details(document: Document) -> RunDetails:
    """The details of a bucket; raises what `load_details` raises."""
    require_type(document["at"], datetime)  # callers read it
    return load_details(require_type(document["details"], dict))


@dataclass(frozen=True, kw_only=True)
class QueueSample:
    """Jobs by status at one moment, and the age in ms of the oldest queued job (None: unknown)."""

    status_counts: Mapping[str, int]
    oldest_queued_ms: int | None


def dump_sample(sample: QueueSample) -> Document:
    return {
        "counts": [list(pair) for pair in sample.status_counts.items()],
        "oldestQueuedMs": sample.oldest_queued_ms,
    }


def load_sample(document: Document) -> tuple[datetime, QueueSample]:
    """The start of the span and its sample; raises what `load_bucket_tallies` raises."""
    counts = {
        require_type(status, str): require_type(count, int) for status, count in document["counts"]
    }
    return require_type(document["at"], datetime), QueueSample(
        status_counts=counts,
        oldest_queued_ms=require_type(document["oldestQueuedMs"], int, NoneType),
    )


@dataclass(frozen=True, kw_only=True)
class HistoryProgress:
    """How much of the history is counted; dates are UTC.

    `counted_at`: when the newest minutes were counted last. `final_until`: earlier spans are
    final, that is, they cannot change any more; None if no span is final. `counted_from`: set
    while a collector still counts older spans. The history is complete from `counted_from` on, and
    missing between `final_until` and `counted_from`.
    """

    counted_at: datetime
    final_until: datetime | None
    counted_from: datetime | None = None

    def covers(self, start: datetime, end: datetime) -> bool:
        """Whether all past activity from `start` to before `end` is counted."""
        if self.counted_from is None or start >= self.counted_from:
            return True
        return self.final_until is not None and end <= self.final_until


def load_progress(document: Document) -> HistoryProgress:
    """The stored progress; raises MalformedError or KeyError for another document."""
    complete_until = require_type(document.get("completeUntil"), datetime, NoneType)
    return HistoryProgress(
        counted_at=require_type(document["countedAt"], datetime),
        final_until=complete_until and floor(complete_until - FINAL_AFTER, MINUTE),
        counted_from=require_type(document.get("countedFrom"), datetime, NoneType),
    )
