"""The overview's tiles: a number each, with a note and a trend."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from jobmon.dashboard.facts import RANGE_WORDS, RANGES, Facts
from jobmon.dashboard.formatting import query
from jobmon.diagnosis.attention import MANY_FAIL, failure_rate
from jobmon.diagnosis.evidence import NO_ENDS, Missing
from jobmon.domain import JobStatus
from jobmon.humanize import duration, grouped, per_minute, percent
from jobmon.rollup.samples import QueueSample
from jobmon.rollup.series import Activity, History
from jobmon.rollup.throughput import MINUTE
from jobmon.store.labels import is_filter

NEWEST_MINUTES = 3  # what the throughput is the mean of
STATUSES_LISTED = 10

_QUEUED, _LEASED = JobStatus.QUEUED.value, JobStatus.LEASED.value
_FAILED, _DLQ = JobStatus.FAILED.value, JobStatus.DLQ.value
_KNOWN = frozenset(status.value for status in JobStatus)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A figure with its trend: one value a step, None where it is not known."""

    name: str
    value: str
    note: str = ""
    link: str = ""
    trend: list[float | None] = field(default_factory=list)
    status: str = ""
    alarming: bool = False
    since: datetime | None = None  # the value is the age of this instant


def tiles(facts: Facts) -> Iterator[Tile]:
    """The tiles of these facts, in the order of the page."""
    figures, counts, unknown = facts.evidence.figures, facts.counts, facts.evidence.unknown
    health = figures.health
    words = RANGE_WORDS[facts.range]

    def trend(status: str) -> list[float | None]:
        return [
            None if one is None else one.status_counts.get(status, 0) for one in _samples(facts)
        ]

    def of_status(name: str, status: str, note: str, *, alarming: bool = False) -> Tile:
        known = figures.counts is not None
        return Tile(
            name=name,
            value=grouped(counts.get(status, 0) if known else None),
            note=note,
            link=query(status=status),
            trend=trend(status),
            status=status,
            alarming=alarming,
        )

    due, later = grouped(health.eligible), grouped(health.scheduled)
    when = f"{due} due (incl. retries), {later} scheduled"
    if health.eligible is None and health.scheduled is None:
        unread = "nextRunAt" in unknown or "scheduled" in health.unknown
        when = "due times unknown" if unread else "too many to tell due from scheduled"
    yield of_status("Queued", _QUEUED, when)
    expired = health.expired_leases
    until = "no expired leases"
    if expired:
        until = f"{grouped(expired)} with an expired lease"
    elif "leaseExpiresAt" in unknown or expired is None:
        until = "lease times unknown"
    yield of_status("Running", _LEASED, until, alarming=bool(expired))
    yield of_status("Retrying", _FAILED, "awaiting retry")
    died = None
    if isinstance(facts.past, History) and "finishedAt" not in unknown:
        died = sum(step.dlq for step in facts.past.happened.values())
    note = f"{grouped(died)} died in the last {words}{_so_far(facts)}" if died is not None else ""
    yield of_status("Dead", _DLQ, note, alarming=bool(died))
    oldest = health.oldest_queued
    none, why = "none", "queue empty"
    if "createdAt" in unknown or "oldest_queued" in health.unknown:
        none, why = "–", "creation times unknown"
    yield Tile(
        name="Oldest queued",
        value=duration(figures.age_ms(oldest)) if oldest else none,
        note=_of_oldest_type(health.oldest_queued_by_type) if oldest else why,
        link=query(status=_QUEUED, sort="createdAt"),
        trend=[None if one is None else one.oldest_queued_ms for one in _samples(facts)],
        since=oldest,
    )
    yield from _flow(facts, words)
    yield from _others(facts)


def _so_far(facts: Facts) -> str:
    """Behind a sum over the range, while a collector is still counting it."""
    counting = isinstance(facts.past, History) and not facts.past.is_complete
    return ", still counting" if counting else ""


def _samples(facts: Facts) -> list[QueueSample | None]:
    """A sample for each step of the range; None where there is none."""
    if isinstance(facts.past, Missing):
        return []
    return [facts.gauges.get(at) for at in facts.past.happened if at <= facts.past.as_of]


def _others(facts: Facts) -> Iterator[Tile]:
    """Jobs whose status is none that we know, by its own name."""
    odd = {status: count for status, count in facts.counts.items() if status not in _KNOWN}
    if odd:
        most = sorted(odd, key=lambda status: (-odd[status], status))
        listed = [status for status in most if is_filter(status)]
        yield Tile(
            name="Others",
            value=grouped(sum(odd.values())),
            note=", ".join(f"{grouped(odd[status])} {status}" for status in most),
            link=query(status=tuple(listed[:STATUSES_LISTED])),
        )


def _of_oldest_type(by_type: Mapping[str, datetime]) -> str:
    return min(by_type, key=lambda kind: by_type[kind]) if by_type else ""


def _flow(facts: Facts, words: str) -> Iterator[Tile]:
    past, minutes = facts.past, facts.evidence.minutes
    steps: dict[datetime, Activity | None] = {}
    finished = failed = rate = None
    missing = past.reason if isinstance(past, Missing) else ""
    if "finishedAt" in facts.evidence.unknown:
        missing = NO_ENDS.reason
    elif isinstance(past, History):
        length = RANGES[facts.range][1]
        # The step that is still going on would always look like a fall.
        steps = {
            at: None if at in past.uncounted else step
            for at, step in past.happened.items()
            if at + length <= past.as_of
        }
        finished = sum(step.finished for step in past.happened.values())
        failed = sum(step.failed for step in past.happened.values())
        rate = failed / finished if finished else None
    yield Tile(
        name="Throughput",
        value=per_minute(_throughput(minutes) if isinstance(minutes, History) else None),
        note=missing or f"{grouped(finished)} attempts in the last {words}{_so_far(facts)}",
        trend=[None if step is None else float(step.finished) for step in steps.values()],
    )
    yield Tile(
        name="Failure rate",
        value=percent(rate),
        note=missing or f"of attempts in the last {words}{_so_far(facts)}",
        link=query(status=(_FAILED, _DLQ)),
        trend=[None if step is None else failure_rate(step) for step in steps.values()],
        alarming=rate is not None and rate >= MANY_FAIL,
    )


def _throughput(minutes: History[datetime]) -> float | None:
    """Attempts a minute in the newest minutes; None where not even one is counted."""
    newest = list(minutes.happened.items())[-NEWEST_MINUTES:]
    length = (minutes.as_of - newest[0][0]) / MINUTE
    return sum(step.finished for _, step in newest) / length if length > 0 else None
