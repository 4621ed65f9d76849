"""The overview: tiles, what needs attention, a table by type, and the charts' columns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from jobmon.dashboard.formatting import instant, query
from jobmon.diagnosis.attention import (
    MANY_FAIL,
    Check,
    Notice,
    TypeCondition,
    examine,
    failing_types,
    failure_rate,
    grouped_by_reason,
    is_all_clear,
    notices_of,
    stalled_types,
)
from jobmon.diagnosis.evidence import NO_ENDS, Evidence, Missing, history
from jobmon.domain import JobStatus
from jobmon.humanize import duration, grouped, per_minute, percent
from jobmon.rollup.samples import QueueSample
from jobmon.rollup.series import Activity, History, SeriesReader, Window
from jobmon.rollup.throughput import HOUR, MINUTE
from jobmon.store.bson_json import is_filter
from jobmon.store.jobs import JobStore
from jobmon.store.lists import JobFilter, JobLists

RANGES = {
    "1h": (HOUR, MINUTE),
    "24h": (24 * HOUR, 10 * MINUTE),
    "7d": (timedelta(days=7), HOUR),
    "30d": (timedelta(days=30), 6 * HOUR),
}
RANGE_WORDS = {"1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
TYPES_SHOWN = 50
NEWEST_MINUTES = 3  # what the throughput is the mean of
NOTICES_SHOWN = 5
STATUSES_LISTED = 10
LONGEST_SEARCH = 200  # characters of a type's name

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


@dataclass(frozen=True, kw_only=True)
class ShownNotice:
    """A notice in words; `link` is the address of exactly what it counts, or empty."""

    level: str
    text: str
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class TypeRow:
    """A type of job: its jobs now, and what happened to it in the range.

    `link` is the list's query for its jobs, empty where the name is too long for a filter.
    """

    name: str
    link: str = ""
    now: Mapping[str, int] | None
    done: int
    failure_rate: float | None
    wait_p95: int | None
    run_p95: int | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that the page shows.

    `more` are notices beyond the first lines. `not_checked` has a sentence for each reason why
    some checks could not be made. `matching` has the types that a notice counts.
    """

    total: int
    tiles: list[Tile]
    notices: list[ShownNotice]
    more: list[ShownNotice]
    not_checked: list[str]
    is_all_clear: bool
    types: list[TypeRow]
    matching: Mapping[str, frozenset[str]]
    has_past: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of the queue: the evidence of now, and a range of its past.

    `past` is the range by step, `types` the same by type; `gauges` are its samples.
    """

    evidence: Evidence
    range: str
    past: History[datetime] | Missing
    types: History[str] | Missing
    gauges: Mapping[datetime, QueueSample]

    @property
    def counts(self) -> Mapping[str, int]:
        """Jobs by status; empty where they could not be counted."""
        return self.evidence.figures.status_counts() or {}


class NotKeptError(Exception):
    """The figures of the range are not kept for so long, as the settings say."""


def window_of(series: SeriesReader, wanted: str, now: datetime) -> Window:
    """The range `wanted` until `now`; NotKeptError."""
    length, step = RANGES[wanted]
    try:
        return series.window(now - length, now, step)
    except ValueError as error:
        raise NotKeptError(str(error)) from None


def gather(
    store: JobStore, series: SeriesReader, lists: JobLists, wanted: str, now: datetime
) -> Facts:
    """Read everything that an overview of the range `wanted` needs; NotKeptError."""
    window = window_of(series, wanted, now)
    evidence = Evidence.gather(store, series, lists, now)
    return Facts(
        evidence=evidence,
        range=wanted,
        past=history(lambda: series.by_step(window, ()), evidence, partly=True),
        types=history(lambda: series.by_type(window), evidence, partly=True),
        gauges=series.stood(window),
    )


def overview(facts: Facts) -> Overview:
    """What the page shows of these facts."""
    checks = examine(facts.evidence)
    notices = [_shown(notice) for notice in notices_of(checks)]
    lines = NOTICES_SHOWN if len(notices) <= NOTICES_SHOWN else NOTICES_SHOWN - 1
    return Overview(
        total=facts.evidence.figures.total,
        tiles=list(_tiles(facts)),
        notices=notices[:lines],
        more=notices[lines:],
        not_checked=list(_not_checked(checks)),
        is_all_clear=is_all_clear(checks),
        types=_types(facts),
        matching={
            TypeCondition.STALLED: frozenset(stalled_types(facts.evidence)),
            TypeCondition.FAILING: frozenset(failing_types(facts.evidence)),
        },
        has_past=isinstance(facts.types, History) and "finishedAt" not in facts.evidence.unknown,
    )


def _not_checked(checks: list[Check]) -> Iterator[str]:
    for reason, remedy, names in grouped_by_reason(checks):
        yield f"Not checked: {', '.join(names)} ({reason}). {remedy}".rstrip()


def _shown(notice: Notice) -> ShownNotice:
    link = ""
    if notice.jobs is not None:
        link = list_address(notice.jobs)
    elif notice.types is not None:
        # The notice is of the last hour, and so is the table that it leads to.
        name = notice.type_name if len(notice.type_name) <= LONGEST_SEARCH else ""
        link = f"/dashboard{query(range='1h', only=notice.types.value, text=name)}"
        link += "#types-title"
    return ShownNotice(level=notice.level.value, text=notice.text, link=link)


def list_address(jobs: JobFilter) -> str:
    """The address of the list of these jobs; empty where a type's name is none for a filter."""
    if not all(is_filter(kind) for kind in jobs.types):
        return ""
    asked = query(
        status=jobs.statuses,
        type=jobs.types,
        condition=jobs.condition.value if jobs.condition else "",
        finished_from=instant(jobs.finished_from),
        sort="createdAt" if jobs.condition else "",
    )
    return f"/dashboard/jobs{asked}"


def chart_columns(
    past: History[datetime], step: timedelta, unknown: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The charts' data, a column each, with `at` in Unix seconds; durations in ms.

    The first `complete` steps are over; a step that goes on would look like a fall. Of what depends
    on one of the `unknown` fields every value is None.
    """
    no_ends = "finishedAt" in unknown
    over = [at for at in past.happened if at + step <= past.as_of]
    columns: dict[str, Any] = {
        "complete": len(over),
        "at": [round(at.timestamp()) for at in past.happened],
    }
    for at, happened in past.happened.items():
        row: dict[str, int | None] = {
            "enqueued": None if "createdAt" in unknown else happened.enqueued,
            "succeeded": None if no_ends else happened.succeeded,
            "failed": None if no_ends else happened.failed,
            "dlq": None if no_ends else happened.dlq,
        }
        for name, durations in (("wait", happened.wait), ("run", happened.run)):
            row |= {
                f"{name}P50": durations.p50,
                f"{name}P95": durations.p95,
                f"{name}P99": durations.p99,
            }
        for name, value in row.items():
            is_known = at <= past.as_of and at not in past.uncounted
            columns.setdefault(name, []).append(value if is_known else None)
    return columns


def _tiles(facts: Facts) -> Iterator[Tile]:
    figures, counts, unknown = facts.evidence.figures, facts.counts, facts.evidence.unknown
    conditions = figures.conditions
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

    due, later = grouped(conditions.eligible), grouped(conditions.scheduled)
    when = f"{due} due (incl. retries), {later} scheduled"
    if conditions.eligible is None and conditions.scheduled is None:
        unread = "nextRunAt" in unknown or "scheduled" in conditions.unknown
        when = "due times unknown" if unread else "too many to tell due from scheduled"
    yield of_status("Queued", _QUEUED, when)
    expired = conditions.expired_leases
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
    oldest = conditions.oldest_queued
    none, why = "none", "queue empty"
    if "createdAt" in unknown or "oldest_queued" in conditions.unknown:
        none, why = "–", "creation times unknown"
    yield Tile(
        name="Oldest queued",
        value=duration(figures.age_ms(oldest)) if oldest else none,
        note=_of_oldest_type(conditions.oldest_queued_by_type) if oldest else why,
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


def _types(facts: Facts) -> list[TypeRow]:
    by_type = facts.types.happened if isinstance(facts.types, History) else {}
    now = facts.evidence.figures.type_counts_beside(by_type)
    if now is None:
        now = dict.fromkeys(by_type)
    nothing = Activity.of([])
    rows = []
    for kind in now:
        happened = by_type.get(kind, nothing)
        rows.append(
            TypeRow(
                name=kind,
                link=query(type=kind) if is_filter(kind) else "",
                now=now[kind],
                done=happened.finished,
                failure_rate=failure_rate(happened),
                wait_p95=happened.wait.p95,
                run_p95=happened.run.p95,
            )
        )
    return rows


SORTS = {
    "type": lambda row: row.name,
    "queued": lambda row: (row.now or {}).get(_QUEUED, 0),
    "running": lambda row: (row.now or {}).get(_LEASED, 0),
    "retrying": lambda row: (row.now or {}).get(_FAILED, 0),
    "dead": lambda row: (row.now or {}).get(_DLQ, 0),
    "done": lambda row: row.done,
    "failing": lambda row: row.failure_rate or 0.0,
    "wait": lambda row: row.wait_p95 or 0,
    "run": lambda row: row.run_p95 or 0,
}


def sorted_types(
    rows: list[TypeRow], by: str, text: str, only: frozenset[str] | None = None
) -> list[TypeRow]:
    """The rows whose type contains `text`, and is among `only` if given, by a column.

    With `-` in front of the column the largest come first.
    """
    descending, column = by.startswith("-"), by.removeprefix("-")
    found = [
        row
        for row in rows
        if text.lower() in row.name.lower() and (only is None or row.name in only)
    ]
    found.sort(key=lambda row: row.name)
    found.sort(key=SORTS[column], reverse=descending)
    return found
