"""The overview's tiles: a number each, with a note and a trend."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from jobmon.dashboard.comparison import (
    Change,
    compare_attempts,
    compare_failure_rates,
    compare_samples,
)
from jobmon.dashboard.facts import Facts
from jobmon.dashboard.formatting import query
from jobmon.diagnosis.attention import HIGH_FAILURE_RATE
from jobmon.diagnosis.evidence import NO_END_TIMES, Missing
from jobmon.diagnosis.forecast import MIN_JOBS, Forecast, Outlook, forecast_queue
from jobmon.domain import JobStatus, failure_rate
from jobmon.humanize import duration, grouped, per_minute, percent
from jobmon.rollup.buckets import MINUTE, QueueSample
from jobmon.rollup.series import Activity, History
from jobmon.store.labels import is_filter

THROUGHPUT_MINUTES = 3  # the newest ones, of which the throughput is the mean
LINKED_STATUSES = 10

_KNOWN_STATUSES = frozenset(status.value for status in JobStatus)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A number with a note and a trend: one value a step, None where it is unknown.

    `link` is the query of the list of its jobs. With `since` the value is the age of that instant.
    `scheduled` follows the note, as a link to the schedule.
    `change` is the difference to the previous period, where both are known.
    """

    name: str
    value: str
    note: str = ""
    scheduled: str = ""
    link: str = ""
    trend: list[float | None] = field(default_factory=list)
    status: str = ""
    alarming: bool = False
    since: datetime | None = None
    change: Change | None = None


def tiles(facts: Facts) -> list[Tile]:
    """All tiles, in the order of the page."""
    return [
        _queued_tile(facts),
        _running_tile(facts),
        _status_tile(facts, "Retrying", JobStatus.FAILED, "awaiting retry"),
        _dead_tile(facts),
        _oldest_queued_tile(facts),
        _throughput_tile(facts),
        _failure_rate_tile(facts),
        *_other_statuses_tile(facts),
    ]


def _queued_tile(facts: Facts) -> Tile:
    health = facts.evidence.stats.health
    note = f"{grouped(health.due)} due (incl. retries)"
    scheduled = f"{grouped(health.scheduled)} scheduled"
    if health.due is None and health.scheduled is None:
        is_unknown = "nextRunAt" in facts.evidence.unknown or "scheduled" in health.unknown
        note = "due times unknown" if is_unknown else "due jobs not counted: too many"
        scheduled = ""
    forecast = forecast_queue(facts.evidence)
    if has_answer(forecast):
        note = f"{grouped(health.due)} due: {forecast.text}"
    tile = _status_tile(facts, "Queued", JobStatus.QUEUED, note)
    return replace(tile, scheduled=scheduled)


def has_answer(forecast: Forecast) -> bool:
    """Whether a forecast is worth a note: a few due jobs are usual in a steady queue."""
    is_backlog = (forecast.backlog or 0) >= MIN_JOBS
    steady = forecast.outlook is Outlook.STEADY and is_backlog
    return steady or forecast.outlook in (Outlook.CLEARS, Outlook.GROWS)


def _running_tile(facts: Facts) -> Tile:
    expired = facts.evidence.stats.health.expired_leases
    note = "no expired leases"
    if expired:
        note = f"{grouped(expired)} with an expired lease"
    elif expired is None or "leaseExpiresAt" in facts.evidence.unknown:
        note = "lease times unknown"
    return _status_tile(facts, "Running", JobStatus.LEASED, note, alarming=bool(expired))


def _dead_tile(facts: Facts) -> Tile:
    past, died, note = _attempt_history(facts), 0, ""
    if isinstance(past, History):
        died, is_exact = sum(step.dlq for step in past.activity.values()), True
        if facts.page_window.range == "1h" and facts.evidence.new_dead is not None:
            died, is_exact = facts.evidence.new_dead  # as in the notice: the history is a bit older
        note = f"{grouped(died)}{'' if is_exact else '+'} died in {_name_window(facts)}"
    return _status_tile(facts, "Dead", JobStatus.DLQ, note, alarming=died > 0)


def _status_tile(
    facts: Facts, name: str, status: JobStatus, note: str, *, alarming: bool = False
) -> Tile:
    count = facts.counts.get(status, 0) if facts.evidence.stats.counts is not None else None
    return Tile(
        name=name,
        value=grouped(count),
        note=note,
        link=query(status=status.value),
        trend=_sample_trend(facts, lambda sample: sample.status_counts.get(status, 0)),
        status=status.value,
        alarming=alarming,
        change=compare_samples(facts, count, lambda sample: sample.status_counts.get(status, 0)),
    )


def _oldest_queued_tile(facts: Facts) -> Tile:
    stats, health = facts.evidence.stats, facts.evidence.stats.health
    oldest, by_type = health.oldest_queued, health.oldest_queued_by_type
    value, note = "none", "queue empty"
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
        trend=_sample_trend(facts, lambda sample: sample.oldest_queued_ms),
        since=oldest,
    )


def _throughput_tile(facts: Facts) -> Tile:
    past, minutes, throughput = _attempt_history(facts), facts.evidence.minutes, None
    if isinstance(minutes, History):
        throughput = _current_throughput(minutes)
    if isinstance(past, Missing):
        note = past.reason
    else:
        finished = sum(step.finished for step in past.activity.values())
        if facts.is_over:
            throughput = finished / (facts.window.length / MINUTE)
        note = f"{grouped(finished)} attempts in {_name_window(facts)}"
    return Tile(
        name="Throughput",
        value=per_minute(throughput),
        note=note,
        trend=_activity_trend(facts, lambda step: float(step.finished)),
        change=compare_attempts(facts),
    )


def _current_throughput(minutes: History[datetime]) -> float | None:
    """Attempts a minute in the newest minutes; None if not even one minute is counted."""
    newest = list(minutes.activity.items())[-THROUGHPUT_MINUTES:]
    length = (minutes.as_of - newest[0][0]) / MINUTE
    return sum(step.finished for _, step in newest) / length if length > 0 else None


def _failure_rate_tile(facts: Facts) -> Tile:
    past, rate = _attempt_history(facts), None
    if isinstance(past, Missing):
        note = past.reason
    else:
        finished = sum(step.finished for step in past.activity.values())
        failed = sum(step.failed for step in past.activity.values())
        rate = failure_rate(failed, finished)
        note = f"of attempts in {_name_window(facts)}"
    return Tile(
        name="Failure rate",
        value=percent(rate),
        note=note,
        link=query(status=(JobStatus.FAILED.value, JobStatus.DLQ.value)),
        trend=_activity_trend(facts, lambda step: step.failure_rate),
        alarming=rate is not None and rate >= HIGH_FAILURE_RATE,
        change=compare_failure_rates(facts),
    )


def _other_statuses_tile(facts: Facts) -> Iterator[Tile]:
    """A tile for jobs whose status is not in `JobStatus`, if there are any."""
    counts = {name: count for name, count in facts.counts.items() if name not in _KNOWN_STATUSES}
    if counts:
        names = sorted(counts, key=lambda name: (-counts[name], name))
        linked = [name for name in names if is_filter(name)]
        yield Tile(
            name="Other",
            value=grouped(sum(counts.values())),
            note=", ".join(f"{grouped(counts[name])} {name}" for name in names),
            link=query(status=tuple(linked[:LINKED_STATUSES])),
        )


def _name_window(facts: Facts) -> str:
    """The window, with a remark while a collector is still counting it."""
    is_counting = isinstance(facts.past, History) and not facts.past.is_complete
    return facts.page_window.words + (", still counting" if is_counting else "")


def _attempt_history(facts: Facts) -> History[datetime] | Missing:
    """The attempts of the range by step, or why there are none."""
    return NO_END_TIMES if "finishedAt" in facts.evidence.unknown else facts.past


def _activity_trend(
    facts: Facts, measure: Callable[[Activity], float | None]
) -> list[float | None]:
    """A value for each step that is over; the step in progress would look like a fall."""
    past, step_length = _attempt_history(facts), facts.window.step
    if isinstance(past, Missing):
        return []
    return [
        None if at in past.uncounted else measure(step)
        for at, step in past.activity.items()
        if at + step_length <= past.as_of
    ]


def _sample_trend(
    facts: Facts, measure: Callable[[QueueSample], float | None]
) -> list[float | None]:
    """A value for each step until now, None where there is no sample."""
    if isinstance(facts.past, Missing):
        return []
    samples = (facts.samples.get(at) for at in facts.past.activity if at <= facts.past.as_of)
    return [None if sample is None else measure(sample) for sample in samples]
