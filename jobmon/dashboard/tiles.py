"""The tiles of the overview: each shows a value, a note and a trend."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from jobmon.dashboard.comparison import (
    Change,
    compare_attempts,
    compare_failure_rates,
    compare_samples,
)
from jobmon.dashboard.facts import Facts
from jobmon.diagnosis.evidence import NO_END_TIMES, Missing
from jobmon.diagnosis.forecast import MIN_JOBS as MIN_BACKLOG
from jobmon.diagnosis.forecast import Forecast, Outlook
from jobmon.domain import JobStatus, failure_rate
from jobmon.humanize import duration, grouped, per_minute, percent
from jobmon.page_addresses import query
from jobmon.rollup.buckets import MINUTE, QueueSample
from jobmon.rollup.series import Activity, History
from jobmon.store.labels import can_filter_by

RATE_MINUTES = 3  # the rate of a window that is not over is the mean of these newest minutes
MAX_LINKED_STATUSES = 10

_KNOWN_STATUSES = frozenset(status.value for status in JobStatus)


class TileGroup(StrEnum):
    """What a tile is about: the present state of the queue, or rates in the window."""

    NOW = "Now"
    FLOW = "Flow"


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A value with a note and a trend: a number for each step, None where it is unknown.

    `link` is the query string for the list of the counted jobs. `since`: the page shows the age of
    this instant instead of the value. `scheduled` follows the note, as a link to the schedule.
    `status` sets the colour of the trend. `change` is the change from the period before; None if
    unknown. `is_alarming`: the value needs action now, not only in a window of the past.
    `counts_faults`: an increase is bad.
    """

    group: TileGroup = TileGroup.NOW
    name: str
    value: str
    note: str = ""
    scheduled: str = ""
    link: str = ""
    trend: list[float | None] = field(default_factory=list)
    status: str = ""
    is_alarming: bool = False
    counts_faults: bool = False
    since: datetime | None = None
    change: Change | None = None


def make_tiles(facts: Facts, forecast: Forecast | None) -> list[Tile]:
    """All tiles, in the order of the page; `forecast` is about the due jobs, None for no note."""
    return [
        _make_queued_tile(facts, forecast),
        _make_running_tile(facts),
        _make_status_tile(facts, "Retrying", JobStatus.FAILED, "awaiting retry"),
        _make_dead_tile(facts),
        _make_oldest_queued_tile(facts),
        *_make_other_statuses_tile(facts),
        _make_enqueued_tile(facts),
        _make_throughput_tile(facts),
        _make_failure_rate_tile(facts),
    ]


def _make_queued_tile(facts: Facts, forecast: Forecast | None) -> Tile:
    health = facts.evidence.stats.health
    note = f"{grouped(health.due)} due (incl. retries)"
    scheduled = f"{grouped(health.scheduled)} scheduled"
    if health.due is None and health.scheduled is None:
        is_unknown = "nextRunAt" in facts.evidence.unknown or "scheduled" in health.unknown
        note = "due times unknown" if is_unknown else "due jobs not counted: too many"
        scheduled = ""
    if forecast is not None and is_worth_a_note(forecast):
        note = f"{grouped(health.due)} due: {forecast.text}"
    tile = _make_status_tile(facts, "Queued", JobStatus.QUEUED, note)
    return replace(tile, scheduled=scheduled)


def is_worth_a_note(forecast: Forecast) -> bool:
    """Whether a tile shows the forecast: a steady backlog only if many jobs are due."""
    is_backlog = (forecast.backlog or 0) >= MIN_BACKLOG
    is_steady_backlog = forecast.outlook is Outlook.STEADY and is_backlog
    return is_steady_backlog or forecast.outlook in (Outlook.CLEARS, Outlook.GROWS)


def _make_running_tile(facts: Facts) -> Tile:
    health = facts.evidence.stats.health
    expired, note = health.expired_leases, "no expired leases"
    if expired:
        plus = "+" if "expired_leases" in health.unknown else ""  # a lower bound
        note = f"{grouped(expired)}{plus} with an expired lease"
    elif expired is None or "leaseExpiresAt" in facts.evidence.unknown:
        note = "lease times unknown"
    return _make_status_tile(facts, "Running", JobStatus.LEASED, note, is_alarming=bool(expired))


def _make_dead_tile(facts: Facts) -> Tile:
    history, died, note = _find_attempts(facts), 0, ""
    if isinstance(history, History):
        died, is_exact = sum(step.dlq for step in history.activity.values()), True
        new_dead = facts.evidence.new_dead
        if facts.page_window.range == "1h" and new_dead is not None and new_dead.value > died:
            died, is_exact = new_dead  # as in the notice: the history is older
        note = f"{grouped(died)}{'' if is_exact else '+'} died in {_name_window(facts)}"
    return _make_status_tile(facts, "Dead", JobStatus.DLQ, note, is_alarming=_has_new_dead(facts))


def _has_new_dead(facts: Facts) -> bool:
    """Whether jobs died in the last hour; if it is known which are still dead, only these count."""
    if facts.evidence.new_dead is not None:
        return facts.evidence.new_dead.value > 0
    minutes = facts.evidence.hour_by_minute
    return isinstance(minutes, History) and any(step.dlq for step in minutes.activity.values())


def _make_status_tile(
    facts: Facts, name: str, status: JobStatus, note: str, *, is_alarming: bool = False
) -> Tile:
    count = facts.counts.get(status, 0) if facts.evidence.stats.counts is not None else None
    return Tile(
        name=name,
        value=grouped(count),
        note=note,
        link=query(status=status.value),
        trend=_measure_sample_trend(facts, lambda sample: sample.status_counts.get(status, 0)),
        status=status.value,
        is_alarming=is_alarming,
        counts_faults=status is JobStatus.DLQ,
        change=compare_samples(facts, count, lambda sample: sample.status_counts.get(status, 0)),
    )


def _make_oldest_queued_tile(facts: Facts) -> Tile:
    stats, health = facts.evidence.stats, facts.evidence.stats.health
    oldest, by_type = health.oldest_queued, health.oldest_queued_by_type
    value, note = "none", "no queued jobs"
    if oldest:
        value = duration(stats.age_ms(oldest))
        note = min(by_type, key=by_type.__getitem__, default="")
    elif "createdAt" in facts.evidence.unknown or "oldest_queued" in health.unknown:
        value, note = "–", "creation times unknown"
    return Tile(
        name="Oldest queued",
        value=value,
        note=note,
        link=query(status=JobStatus.QUEUED.value, sort="createdAt"),
        trend=_measure_sample_trend(facts, lambda sample: sample.oldest_queued_ms),
        since=oldest,
    )


def _make_enqueued_tile(facts: Facts) -> Tile:
    history, rate, note = facts.history_by_step, None, ""
    if "createdAt" in facts.evidence.unknown:
        note = "creation times unknown"
    elif isinstance(history, Missing):
        note = history.reason
    else:
        rate = _find_rate(facts, history, lambda step: step.enqueued)
        enqueued = sum(step.enqueued for step in history.activity.values())
        jobs = "job" if enqueued == 1 else "jobs"
        note = f"{grouped(enqueued)} {jobs} in {_name_window(facts)}"
    return Tile(
        group=TileGroup.FLOW,
        name="Enqueued",
        value=per_minute(rate),
        note=note,
        trend=[] if rate is None else _measure_trend(facts, history, lambda step: step.enqueued),
    )


def _make_throughput_tile(facts: Facts) -> Tile:
    history = _find_attempts(facts)
    if isinstance(history, Missing):
        note = history.reason
    else:
        finished = sum(step.finished for step in history.activity.values())
        attempts = "attempt" if finished == 1 else "attempts"
        note = f"{grouped(finished)} {attempts} in {_name_window(facts)}"
    return Tile(
        group=TileGroup.FLOW,
        name="Throughput",
        value=per_minute(_find_rate(facts, history, lambda step: step.finished)),
        note=note,
        trend=_measure_trend(facts, history, lambda step: step.finished),
        change=compare_attempts(facts),
    )


def _find_rate(
    facts: Facts, history: History[datetime] | Missing, count: Callable[[Activity], int]
) -> float | None:
    """The rate per minute: the mean of a window that is over, or else of the newest minutes.

    None if the history is unknown, or if none of the newest minutes is counted.
    """
    minutes = facts.evidence.hour_by_minute
    if isinstance(history, Missing):
        return None
    if facts.is_over:
        return sum(map(count, history.activity.values())) / (facts.window.length / MINUTE)
    if isinstance(minutes, Missing):
        return None
    newest = list(minutes.activity.items())[-RATE_MINUTES:]
    length = (minutes.as_of - newest[0][0]) / MINUTE
    return sum(count(step) for _, step in newest) / length if length > 0 else None


def _make_failure_rate_tile(facts: Facts) -> Tile:
    history, rate = _find_attempts(facts), None
    if isinstance(history, Missing):
        note = history.reason
    else:
        finished = sum(step.finished for step in history.activity.values())
        failed = sum(step.failed for step in history.activity.values())
        rate = failure_rate(failed, finished)
        note = f"of attempts in {_name_window(facts)}"
    return Tile(
        group=TileGroup.FLOW,
        name="Failure rate",
        value=percent(rate),
        note=note,
        link=query(status=(JobStatus.FAILED.value, JobStatus.DLQ.value)),
        trend=_measure_trend(facts, history, lambda step: step.failure_rate),
        is_alarming=_is_high(facts, rate) and _fails_now(facts),
        counts_faults=True,
        change=compare_failure_rates(facts),
    )


def _is_high(facts: Facts, rate: float | None) -> bool:
    return (rate or 0) >= facts.evidence.rules.thresholds.failure_rate


def _fails_now(facts: Facts) -> bool:
    """Whether the last hour had enough attempts, and too high a failure rate."""
    minutes = facts.evidence.hour_by_minute
    if isinstance(minutes, Missing):
        return False
    finished = sum(step.finished for step in minutes.activity.values())
    failed = sum(step.failed for step in minutes.activity.values())
    rate = failure_rate(failed, finished)
    return rate is not None and facts.evidence.rules.thresholds.is_failing(finished, rate)


def _make_other_statuses_tile(facts: Facts) -> Iterator[Tile]:
    """A tile for jobs whose status is not in `JobStatus`, if there are any."""
    counts = {name: count for name, count in facts.counts.items() if name not in _KNOWN_STATUSES}
    if counts:
        names = sorted(counts, key=lambda name: (-counts[name], name))
        linked = [name for name in names if can_filter_by(name)]
        is_linked = len(linked) <= MAX_LINKED_STATUSES  # a list refuses more
        yield Tile(
            name="Other",
            value=grouped(sum(counts.values())),
            note=", ".join(f"{grouped(counts[name])} {name}" for name in names),
            link=query(status=tuple(linked)) if is_linked else "",
        )


def _name_window(facts: Facts) -> str:
    """The window in words, with a remark while the collector is still counting it."""
    is_counting = (
        isinstance(facts.history_by_step, History) and not facts.history_by_step.is_complete
    )
    return facts.page_window.phrase + (", still counting" if is_counting else "")


def _find_attempts(facts: Facts) -> History[datetime] | Missing:
    """The attempts of the window by step, or why they are unknown."""
    return NO_END_TIMES if "finishedAt" in facts.evidence.unknown else facts.history_by_step


def _measure_trend(
    facts: Facts,
    history: History[datetime] | Missing,
    measure: Callable[[Activity], float | None],
) -> list[float | None]:
    """A value for each step that is over: the step in progress would look like a drop."""
    step_length = facts.window.step
    if isinstance(history, Missing):
        return []
    return [
        None if start in history.uncounted else measure(step)
        for start, step in history.activity.items()
        if start + step_length <= history.as_of
    ]


def _measure_sample_trend(
    facts: Facts, measure: Callable[[QueueSample], float | None]
) -> list[float | None]:
    """A value for each step until now, None where there is no sample."""
    if isinstance(facts.history_by_step, Missing):
        return []
    starts = (
        start for start in facts.history_by_step.activity if start <= facts.history_by_step.as_of
    )
    samples = map(facts.samples.get, starts)
    return [None if sample is None else measure(sample) for sample in samples]
