"""The queue at a glance: tiles, what needs attention in words, a table by type, and the charts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from jobmon.dashboard.words import duration, grouped, percent, query
from jobmon.domain import AttemptStatus, JobStatus
from jobmon.rollup.gauges import Gauge
from jobmon.rollup.histogram import percentiles
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.series import NoCollectorError, Past, SeriesReader
from jobmon.rollup.throughput import HOUR, MINUTE, Tally, merge
from jobmon.store.jobs import Figures, JobStore

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
GREW_BY = 1.2

_QUEUED, _LEASED = JobStatus.QUEUED.value, JobStatus.LEASED.value
_FAILED, _DLQ = JobStatus.FAILED.value, JobStatus.DLQ.value


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
    """A type of job: its jobs now, and what happened to it in the range."""

    name: str
    now: Mapping[str, int]
    done: int
    per_minute: float
    failure_rate: float | None
    wait_p95: int | None
    run_p95: int | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All that the page shows."""

    as_of: datetime
    source: str
    total: int
    range: str
    tiles: list[Tile]
    notices: list[Notice]
    types: list[TypeRow]
    has_past: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of the queue: its figures now, a range of its past, and the last hour.

    `past` is None where nobody keeps it.
    """

    figures: Figures
    range: str
    past: Past | None
    gauges: Mapping[datetime, Gauge]
    hour: Past | None
    hour_gauges: Mapping[datetime, Gauge]

    @property
    def counts(self) -> Mapping[str, int]:
        """Jobs by status; empty where they could not be counted."""
        return self.figures.status_counts() or {}


def gather(
    store: JobStore, series: SeriesReader, rollup: RollupReader, wanted: str, now: datetime
) -> Facts:
    """Ask for everything that an overview of the range `wanted` needs."""

    def look_back(name: str) -> tuple[Past | None, Mapping[datetime, Gauge]]:
        length, step = RANGES[name]
        window = series.window(now - length, now, step)
        try:
            return series.past(window), rollup.gauges(step, window.start, window.end)
        except NoCollectorError:
            return None, {}

    past, gauges = look_back(wanted)
    hour, hour_gauges = (past, gauges) if wanted == "1h" else look_back("1h")
    return Facts(
        figures=store.figures(),
        range=wanted,
        past=past,
        gauges=gauges,
        hour=hour,
        hour_gauges=hour_gauges,
    )


def overview(facts: Facts) -> Overview:
    """What the page shows of these facts."""
    return Overview(
        as_of=facts.figures.as_of,
        source=facts.figures.source,
        total=facts.figures.total,
        range=facts.range,
        tiles=list(_tiles(facts)),
        notices=list(_notices(facts)),
        types=_types(facts),
        has_past=facts.past is not None,
    )


def chart_columns(past: Past) -> dict[str, list[Any]]:
    """The charts' data, a column each, with `at` in Unix seconds; durations in ms."""
    columns: dict[str, list[Any]] = {"at": [round(at.timestamp()) for at in past.steps]}
    for at, tallies in past.steps.items():
        total = _total(tallies)
        known = at <= past.as_of
        succeeded = total.outcomes[AttemptStatus.SUCCEEDED]
        row: dict[str, int | None] = {
            "enqueued": total.enqueued,
            "succeeded": succeeded,
            "failed": total.outcomes.total() - succeeded,
            "dlq": total.dlq,
        }
        for name, histogram in (("wait", total.wait), ("run", total.run)):
            told = percentiles(histogram, (0.5, 0.95, 0.99))
            row |= {f"{name}{p}": ms for p, ms in zip(("P50", "P95", "P99"), told, strict=True)}
        for name, value in row.items():
            columns.setdefault(name, []).append(value if known else None)
    return columns


def _total(tallies: Mapping[str, Tally]) -> Tally:
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    return total


def _tiles(facts: Facts) -> Iterator[Tile]:
    figures, counts = facts.figures, facts.counts
    conditions = figures.conditions
    words = RANGE_WORDS[facts.range]

    def trend(status: str) -> list[float | None]:
        if facts.past is None:
            return []
        samples = [facts.gauges.get(at) for at in facts.past.steps if at <= facts.past.as_of]
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

    later = grouped(conditions.scheduled)
    yield of_status("Queued", _QUEUED, f"{grouped(conditions.eligible)} due, {later} for later")
    expired = conditions.expired_leases
    yield of_status(
        "Running",
        _LEASED,
        f"{grouped(expired)} with an expired lease" if expired else "no lease has expired",
        alarming=expired > 0,
    )
    yield of_status("Retrying", _FAILED, "failed, to be tried again")
    steps = [_total(tallies) for tallies in facts.past.steps.values()] if facts.past else []
    died = sum(step.dlq for step in steps)
    note = f"{grouped(died)} in the last {words}" if facts.past else "given up"
    yield of_status("Dead", _DLQ, note, alarming=died > 0)
    oldest = conditions.oldest_queued
    samples = [facts.gauges.get(at) for at in facts.past.steps] if facts.past else []
    yield Tile(
        name="Oldest queued",
        value=duration(figures.age_ms(oldest)) if oldest else "none",
        note=_of_oldest_type(conditions.oldest_queued_by_type),
        link=query(status=_QUEUED, sort="createdAt"),
        trend=[None if one is None else one.oldest_queued_ms for one in samples],
        since=oldest,
    )
    yield from _flow(facts, steps, words)


def _of_oldest_type(by_type: Mapping[str, datetime]) -> str:
    return min(by_type, key=lambda kind: by_type[kind]) if by_type else "nothing waits"


def _flow(facts: Facts, steps: list[Tally], words: str) -> Iterator[Tile]:
    past = facts.past
    if past is None:
        for name in ("Throughput", "Failure rate"):
            yield Tile(name=name, value="–", note="needs the collector")
        return
    length = RANGES[facts.range][1]
    # The step that is still going on would always look like a fall.
    whole = [step for at, step in zip(past.steps, steps, strict=True) if at + length <= past.as_of]
    newest = list(zip(past.steps, steps, strict=True))[-NEWEST_STEPS:]
    minutes = (past.as_of - newest[0][0]) / MINUTE
    per_minute = sum(step.outcomes.total() for _, step in newest) / minutes if minutes > 0 else 0
    yield Tile(
        name="Throughput",
        value=f"{grouped(round(per_minute, 1 if per_minute < 10 else None))}/min",
        note=f"{grouped(sum(step.outcomes.total() for step in steps))} in the last {words}",
        trend=[float(step.outcomes.total()) for step in whole],
    )
    all_of_it = Tally()
    for step in steps:
        all_of_it.add(step)
    rate = _failure_rate(all_of_it)
    yield Tile(
        name="Failure rate",
        value=percent(rate),
        note=f"of attempts in the last {words}",
        link=query(status=(_FAILED, _DLQ)),
        trend=[_failure_rate(step) for step in whole],
        alarming=rate is not None and rate >= MANY_FAIL,
    )


def _failure_rate(tally: Tally) -> float | None:
    finished = tally.outcomes.total()
    return (finished - tally.outcomes[AttemptStatus.SUCCEEDED]) / finished if finished else None


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
        yield from _notices_of_the_hour(facts, facts.hour)
    if facts.figures.source == "live":
        text = "No collector is at work: figures are counted when asked for."
        yield Notice(level="watch", text=text)


def _notices_of_the_hour(facts: Facts, hour: Past) -> Iterator[Notice]:
    by_type = merge(iter(hour.steps.values()))
    yield from _stopped(facts, hour)
    dead = {kind: tally.dlq for kind, tally in by_type.items() if tally.dlq}
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
    for kind, tally in sorted(by_type.items()):
        rate = _failure_rate(tally)
        if rate is not None and rate >= MANY_FAIL and tally.outcomes.total() >= FEW:
            yield Notice(
                level="watch",
                text=f"{percent(rate)} of the attempts at {kind} failed in the last hour.",
                link=query(type=kind, status=(_FAILED, _DLQ)),
            )


def _stopped(facts: Facts, hour: Past) -> Iterator[Notice]:
    """Types that have waited for a while, of which nothing was finished meanwhile."""
    since = hour.as_of - STOPPED_AFTER
    lately = merge(tallies for at, tallies in hour.steps.items() if at > since)
    for kind, due in sorted(facts.figures.conditions.overdue_by_type.items()):
        waited = facts.figures.as_of - due
        running = (facts.figures.type_counts() or {}).get(kind, {}).get(_LEASED, 0)
        finished = lately.get(kind, Tally()).outcomes.total()
        if waited > STOPPED_AFTER and not finished and not running:
            ms = waited.total_seconds() * 1_000
            yield Notice(
                level="bad",
                text=f"{kind} stands still: a job has been due for {duration(ms)}, "
                f"and none was finished in the last {duration(600_000)}.",
                link=query(type=kind, status=_QUEUED, sort="createdAt"),
            )


def _types(facts: Facts) -> list[TypeRow]:
    now = facts.figures.type_counts() or {}
    by_type = merge(iter(facts.past.steps.values())) if facts.past else {}
    minutes = RANGES[facts.range][0] / MINUTE
    rows = []
    for kind in {*now, *by_type}:
        tally = by_type.get(kind, Tally())
        done = tally.outcomes.total()
        rows.append(
            TypeRow(
                name=kind,
                now=now.get(kind, {}),
                done=done,
                per_minute=done / minutes,
                failure_rate=_failure_rate(tally),
                wait_p95=percentiles(tally.wait, (0.95,))[0],
                run_p95=percentiles(tally.run, (0.95,))[0],
            )
        )
    return rows


SORTS = {
    "type": lambda row: row.name,
    "queued": lambda row: row.now.get(_QUEUED, 0),
    "running": lambda row: row.now.get(_LEASED, 0),
    "retrying": lambda row: row.now.get(_FAILED, 0),
    "dead": lambda row: row.now.get(_DLQ, 0),
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
