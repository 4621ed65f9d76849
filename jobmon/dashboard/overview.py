"""The queue at a glance: tiles, what needs attention in words, a table by type, and the charts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from jobmon.dashboard.words import duration, grouped, percent, query
from jobmon.domain import JobStatus
from jobmon.rollup.gauges import Gauge
from jobmon.rollup.series import Happened, NoCollectorError, Past, SeriesReader, Window
from jobmon.rollup.throughput import HOUR, MINUTE
from jobmon.store.jobs import Figures, JobStore
from jobmon.store.plain import UNNAMED, is_filter

K = TypeVar("K")

RANGES = {
    "1h": (HOUR, MINUTE),
    "24h": (24 * HOUR, 10 * MINUTE),
    "7d": (timedelta(days=7), HOUR),
    "30d": (timedelta(days=30), 6 * HOUR),
}
RANGE_WORDS = {"1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
TYPES_SHOWN = 50
NEWEST_STEPS = 3  # what the throughput is told from

# When a type counts as stopped: something has been due for a while and nothing got finished.
STOPPED_AFTER = 10 * MINUTE
MANY_FAIL = 0.2
FEW = 20
STATUSES_LISTED = 10
GREW_BY = 1.2

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
class Notice:
    """Something that needs attention: `bad` or `watch`."""

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
    """All that the page shows."""

    total: int
    tiles: list[Tile]
    notices: list[Notice]
    types: list[TypeRow]
    has_past: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of the queue: its figures now, a range of its past, and the last hour.

    `past` is the range by step, `types` the same by type; `hour` and `lately` are the last hour and
    the last ten minutes by type. All four are None where nobody keeps the past. `unknown` are the
    fields that the documents do not tell.
    """

    figures: Figures
    range: str
    past: Past[datetime] | None
    types: Past[str] | None
    gauges: Mapping[datetime, Gauge]
    hour: Past[str] | None
    lately: Past[str] | None
    hour_gauges: Mapping[datetime, Gauge]
    unknown: frozenset[str] = frozenset()

    @property
    def counts(self) -> Mapping[str, int]:
        """Jobs by status; empty where they could not be counted."""
        return self.figures.status_counts() or {}


class NotKeptError(Exception):
    """The figures of the range are not kept for so long, as the settings say."""


def window_of(series: SeriesReader, wanted: str, now: datetime) -> Window:
    """The range `wanted` until `now`; NotKeptError."""
    length, step = RANGES[wanted]
    try:
        return series.window(now - length, now, step)
    except ValueError as error:
        raise NotKeptError(str(error)) from None


def gather(store: JobStore, series: SeriesReader, wanted: str, now: datetime) -> Facts:
    """Ask for everything that an overview of the range `wanted` needs; NotKeptError."""
    window, hour = window_of(series, wanted, now), window_of(series, "1h", now)
    lately = series.window(now - STOPPED_AFTER, now, MINUTE)

    return Facts(
        figures=store.figures(),
        range=wanted,
        past=_if_kept(lambda: series.by_step(window, ())),
        types=_if_kept(lambda: series.by_type(window)),
        gauges=series.stood(window),
        hour=_if_kept(lambda: series.by_type(hour)),
        lately=_if_kept(lambda: series.by_type(lately)),
        hour_gauges=series.stood(hour),
        unknown=store.unknown,
    )


def _if_kept(tell: Callable[[], Past[K]]) -> Past[K] | None:
    try:
        return tell()
    except NoCollectorError:
        return None


def overview(facts: Facts) -> Overview:
    """What the page shows of these facts."""
    return Overview(
        total=facts.figures.total,
        tiles=list(_tiles(facts)),
        notices=list(_notices(facts)),
        types=_types(facts),
        has_past=facts.past is not None,
    )


def chart_columns(
    past: Past[datetime], unknown: frozenset[str] = frozenset()
) -> dict[str, list[Any]]:
    """The charts' data, a column each, with `at` in Unix seconds; durations in ms.

    Of what depends on one of the `unknown` fields every value is None.
    """
    no_ends = "finishedAt" in unknown
    columns: dict[str, list[Any]] = {"at": [round(at.timestamp()) for at in past.happened]}
    for at, told in past.happened.items():
        row: dict[str, int | None] = {
            "enqueued": None if "createdAt" in unknown else told.enqueued,
            "succeeded": None if no_ends else told.succeeded,
            "failed": None if no_ends else told.failed,
            "dlq": None if no_ends else told.dlq,
        }
        for name, durations in (("wait", told.wait), ("run", told.run)):
            row |= {
                f"{name}P50": durations.p50,
                f"{name}P95": durations.p95,
                f"{name}P99": durations.p99,
            }
        for name, value in row.items():
            columns.setdefault(name, []).append(value if at <= past.as_of else None)
    return columns


def _tiles(facts: Facts) -> Iterator[Tile]:
    figures, counts = facts.figures, facts.counts
    conditions = figures.conditions
    words = RANGE_WORDS[facts.range]

    def trend(status: str) -> list[float | None]:
        if facts.past is None:
            return []
        samples = [facts.gauges.get(at) for at in facts.past.happened if at <= facts.past.as_of]
        return [None if one is None else one.status_counts.get(status, 0) for one in samples]

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
    when = "when they are due is not known"
    if conditions.scheduled is None:
        when = "too many to tell which of them are due"
    elif "nextRunAt" not in facts.unknown:
        when = f"with retries {due} due, {later} later"
    yield of_status("Queued", _QUEUED, when)
    expired = conditions.expired_leases or 0
    until = "no lease has expired"
    if expired:
        until = f"{grouped(expired)} with an expired lease"
    elif "leaseExpiresAt" in facts.unknown or conditions.expired_leases is None:
        until = "until when is not known"
    yield of_status("Running", _LEASED, until, alarming=expired > 0)
    yield of_status("Retrying", _FAILED, "failed, to be tried again")
    died = sum(step.dlq for step in facts.past.happened.values()) if facts.past else 0
    note = f"{grouped(died)} in the last {words}" if facts.past else "given up"
    yield of_status("Dead", _DLQ, note, alarming=died > 0)
    oldest = conditions.oldest_queued
    samples = [facts.gauges.get(at) for at in facts.past.happened] if facts.past else []
    none, why = "none", "nothing waits"
    if "createdAt" in facts.unknown or "oldest_queued" in conditions.unknown:
        none, why = "–", "when jobs were created is not known"
    yield Tile(
        name="Oldest queued",
        value=duration(figures.age_ms(oldest)) if oldest else none,
        note=_of_oldest_type(conditions.oldest_queued_by_type) if oldest else why,
        link=query(status=_QUEUED, sort="createdAt"),
        trend=[None if one is None else one.oldest_queued_ms for one in samples],
        since=oldest,
    )
    yield from _flow(facts, words)
    yield from _others(facts)


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
    past = facts.past
    if past is None:
        for name in ("Throughput", "Failure rate"):
            yield Tile(name=name, value="–", note="needs the collector")
        return
    length = RANGES[facts.range][1]
    # The step that is still going on would always look like a fall.
    whole = [step for at, step in past.happened.items() if at + length <= past.as_of]
    newest = list(past.happened.items())[-NEWEST_STEPS:]
    minutes = (past.as_of - newest[0][0]) / MINUTE
    per_minute = sum(step.finished for _, step in newest) / minutes if minutes > 0 else 0
    finished = sum(step.finished for step in past.happened.values())
    failed = sum(step.failed for step in past.happened.values())
    rate = failed / finished if finished else None
    yield Tile(
        name="Throughput",
        value=f"{grouped(round(per_minute, 1 if per_minute < 10 else None))}/min",
        note=f"{grouped(finished)} in the last {words}",
        trend=[float(step.finished) for step in whole],
    )
    yield Tile(
        name="Failure rate",
        value=percent(rate),
        note=f"of attempts in the last {words}",
        link=query(status=(_FAILED, _DLQ)),
        trend=[_failure_rate(step) for step in whole],
        alarming=rate is not None and rate >= MANY_FAIL,
    )


def _failure_rate(told: Happened) -> float | None:
    return told.failed / told.finished if told.finished else None


def _jobs_of(kind: str, **more: object) -> str:
    """The list's query for the jobs of a type; empty where its name is none for a filter."""
    return query(type=kind, **more) if is_filter(kind) else ""


def _notices(facts: Facts) -> Iterator[Notice]:
    """What needs attention, the worst first."""
    if facts.figures.counts is None:
        text = "Counting the jobs takes too long: only their estimated number is known."
        yield Notice(level="bad", text=f"{text} Start the collector.")
    expired = facts.figures.conditions.expired_leases
    if expired:
        jobs = "1 job is" if expired == 1 else f"{grouped(expired)} jobs are"
        yield Notice(
            level="bad",
            text=f"{jobs} stuck: the lease has expired and nobody has taken the job back.",
            link=query(status=_LEASED, sort="createdAt"),
        )
    if facts.hour is not None:
        yield from _notices_of_the_hour(facts, facts.hour.happened)
    if facts.figures.source == "live":
        text = "No collector is at work: figures are counted when asked for."
        yield Notice(level="watch", text=text)


def _notices_of_the_hour(facts: Facts, hour: Mapping[str, Happened]) -> Iterator[Notice]:
    yield from _stopped(facts)
    dead = {kind: told.dlq for kind, told in hour.items() if told.dlq}
    if dead:
        worst = max(dead, key=lambda kind: dead[kind])
        count = sum(dead.values())
        jobs = "1 job has" if count == 1 else f"{grouped(count)} jobs have"
        most = "of" if len(dead) == 1 else "most of"
        yield Notice(
            level="bad",
            text=f"{jobs} been given up in the last hour, {most} type {worst}.",
            link=query(status=_DLQ),
        )
    samples = [hour_gauge.status_counts for _, hour_gauge in sorted(facts.hour_gauges.items())]
    if samples:
        was, now = samples[0].get(_QUEUED, 0), facts.counts.get(_QUEUED, 0)
        if now > was + FEW and now > was * GREW_BY:
            text = f"The backlog grows: {grouped(now)} jobs are queued, {grouped(was)} an hour ago"
            yield Notice(level="watch", text=f"{text} or less.", link=query(status=_QUEUED))
    for kind, told in sorted(hour.items()):
        rate = _failure_rate(told)
        if rate is not None and rate >= MANY_FAIL and told.finished >= FEW:
            yield Notice(
                level="watch",
                text=f"{percent(rate)} of the attempts at {kind} failed in the last hour.",
                link=_jobs_of(kind, status=(_FAILED, _DLQ)),
            )


def _stopped(facts: Facts) -> Iterator[Notice]:
    """Types of which something has been due for a while, and nothing was finished meanwhile."""
    if "finishedAt" in facts.unknown:
        return
    lately = facts.lately.happened if facts.lately else {}
    now = facts.figures.type_counts() or {}
    for kind, due in sorted(facts.figures.conditions.overdue_by_type.items()):
        waited = facts.figures.as_of - due
        # Of a type that is not told by its name nothing is said while any such type moves.
        running = now.get(kind, now.get(UNNAMED, {})).get(_LEASED, 0)
        finished = sum(lately[name].finished for name in {kind, UNNAMED} & lately.keys())
        if waited > STOPPED_AFTER and not finished and not running:
            ms = waited // MINUTE * 60_000  # told anew once a minute, not once a second
            yield Notice(
                level="bad",
                text=f"{kind} stands still: a job has been due for {duration(ms)}, "
                f"and none was finished in the last {duration(600_000)}.",
                link=_jobs_of(kind, status=_QUEUED, sort="createdAt"),
            )


def _types(facts: Facts) -> list[TypeRow]:
    by_type = facts.types.happened if facts.types else {}
    now = facts.figures.type_counts_beside(by_type)
    if now is None:
        now = {kind: {} for kind in by_type}
    nothing = Happened.of([])
    rows = []
    for kind in now:
        told = by_type.get(kind, nothing)
        rows.append(
            TypeRow(
                name=kind,
                link=_jobs_of(kind),
                now=now[kind],
                done=told.finished,
                failure_rate=_failure_rate(told),
                wait_p95=told.wait.p95,
                run_p95=told.run.p95,
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


def sorted_types(rows: list[TypeRow], by: str, text: str) -> list[TypeRow]:
    """The rows whose type contains `text`, by a column; `-` in front: the largest first."""
    descending, column = by.startswith("-"), by.removeprefix("-")
    found = [row for row in rows if text.lower() in row.name.lower()]
    found.sort(key=lambda row: row.name)
    found.sort(key=SORTS[column], reverse=descending)
    return found
