"""Forecasts whether the backlog clears at the present rates, and when.

Pure functions of an `Evidence`. Without enough data, or if rates vary, the outlook is unknown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import sqrt
from typing import NamedTuple

from jobmon.diagnosis.evidence import COUNTED_TOGETHER, NO_END_TIMES, Evidence, Missing
from jobmon.domain import JobStatus
from jobmon.humanize import per_minute
from jobmon.rollup.buckets import DAY, MINUTE
from jobmon.rollup.series import Activity
from jobmon.store.labels import OTHER, label

# Rates are counted over the last half hour, in three blocks whose counts must be similar.
BLOCK_LENGTH, BLOCK_COUNT = 10 * MINUTE, 3
# How far a block's count may be from the mean: half of it or, if more, three standard deviations.
MAX_SWING, MAX_DEVIATIONS = 0.5, 3
MIN_JOBS = 20  # if fewer jobs came and ended in the half hour (their sum), the rates are unknown
# A difference within two standard deviations counts as zero. A forecast is for at most a day.
NOISE_DEVIATIONS, MAX_FORECAST = 2, DAY
# There is no forecast if more than this share of the waiting jobs is scheduled for later. For a
# whole queue it is a share of the jobs that came in the half hour, if these are more.
MAX_SCHEDULED_SHARE = 0.1

_WAITING = (JobStatus.QUEUED.value, JobStatus.FAILED.value)


class Outlook(StrEnum):
    """What becomes of the backlog at the present rates."""

    EMPTY = "empty"  # no job is due
    CLEARS = "clears"
    STEADY = "steady"  # it changes little, or clears in more than a day
    GROWS = "grows"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The backlog of due jobs, and what becomes of it.

    `arrivals` and `completions` are jobs a minute from `start` to `end` (UTC). `reason`: why the
    outlook is unknown; else empty.
    """

    outlook: Outlook
    reason: str = ""
    backlog: int | None = None
    arrivals: float | None = None
    completions: float | None = None
    clears_in: timedelta | None = None
    start: datetime | None = None
    end: datetime | None = None

    @property
    def text(self) -> str:
        """A sentence without a full stop."""
        match self.outlook:
            case Outlook.EMPTY:
                return "no job is due"
            case Outlook.CLEARS if self.clears_in is not None:
                return f"clears in about {round_duration(self.clears_in)}"
            case Outlook.STEADY:
                return "changes little within a day at this rate"
            case Outlook.GROWS:
                net = (self.arrivals or 0) - (self.completions or 0)
                return f"grows by {per_minute(net)} and does not clear at this rate"
        return f"no forecast: {self.reason}"


class Flow(NamedTuple):
    """How many jobs came, and how many succeeded or died, in one block."""

    arrived: int
    completed: int


def forecast_queue(evidence: Evidence) -> Forecast:
    """The forecast of the whole queue; without due jobs it is `EMPTY` even if rates are unknown."""
    forecast = _forecast_due_jobs(evidence)
    if evidence.stats.health.due == 0:
        return replace(forecast, outlook=Outlook.EMPTY, reason="", backlog=0)
    # Jobs in `(other)` may be of any type.
    if evidence.pauses and _count_waiting(evidence).keys() & {*_list_paused(evidence), OTHER}:
        reason = "jobs of paused types wait until these types are resumed"
        return _limit_to_growth(forecast, reason)
    return forecast


def _forecast_due_jobs(evidence: Evidence) -> Forecast:
    blocks, due = evidence.blocks, evidence.stats.health.due
    if isinstance(blocks, Missing):
        return _make_unknown(blocks.reason)
    flows = [_measure_flow(block.activity.values()) for block in blocks]
    if (reason := _explain_no_forecast(evidence, flows)) or due is None:
        return _make_unknown(reason)
    scheduled = evidence.stats.health.scheduled or 0
    arrived = sum(flow.arrived for flow in flows)
    if scheduled > MAX_SCHEDULED_SHARE * max(due + scheduled, arrived):
        return _make_unknown("many jobs are scheduled for later: it is unknown when they come due")
    return _forecast_backlog(due, flows, evidence.blocks_start)


def forecast_types(evidence: Evidence) -> dict[str, Forecast]:
    """The forecast of each type with waiting jobs; empty if the jobs could not be counted."""
    waiting, paused = _count_waiting(evidence), _list_paused(evidence)
    blocks, health = evidence.blocks, evidence.stats.health
    if isinstance(blocks, Missing):
        return dict.fromkeys(waiting, _make_unknown(blocks.reason))
    if reason := _explain_no_forecast(
        evidence, [_measure_flow(block.activity.values()) for block in blocks]
    ):
        return dict.fromkeys(waiting, _make_unknown(reason))
    if (health.scheduled or 0) > MAX_SCHEDULED_SHARE * sum(waiting.values()):
        reason = "it is unknown how many jobs of this type are due"
        return dict.fromkeys(waiting, _make_unknown(reason))
    is_folded = any(OTHER in block.activity for block in blocks)
    forecasts = {}
    for job_type, count in waiting.items():
        by_block = [block.activity.get(job_type) for block in blocks]
        if is_folded and (job_type == OTHER or None in by_block):
            forecasts[job_type] = _make_unknown(COUNTED_TOGETHER.reason)
            continue
        flows = [_measure_flow([activity] if activity else []) for activity in by_block]
        forecast = _forecast_backlog(count, flows, evidence.blocks_start)
        if job_type in paused:
            forecast = _limit_to_growth(forecast, "the type is paused")
        forecasts[job_type] = forecast
    return forecasts


def _count_waiting(evidence: Evidence) -> dict[str, int]:
    """The waiting jobs of each type that has any; empty if the jobs could not be counted."""
    waiting = {
        job_type: sum(counts.get(status, 0) for status in _WAITING)
        for job_type, counts in (evidence.stats.type_counts() or {}).items()
    }
    return {job_type: count for job_type, count in waiting.items() if count}


def _list_paused(evidence: Evidence) -> frozenset[str]:
    """The labels of the paused types, by which jobs are counted."""
    return frozenset(map(label, evidence.pauses))


def _limit_to_growth(forecast: Forecast, reason: str) -> Forecast:
    """The forecast if a part of the backlog is paused: it may grow, but it does not clear."""
    if forecast.outlook in (Outlook.CLEARS, Outlook.STEADY):
        return replace(forecast, outlook=Outlook.UNKNOWN, reason=reason, clears_in=None)
    return forecast


def explain_missing_runs(evidence: Evidence) -> str:
    """Why runs of the last half hour may be missing; empty if all are counted."""
    blocks = evidence.blocks
    if isinstance(blocks, Missing):
        return blocks.reason
    if "finishedAt" in evidence.unknown:
        return NO_END_TIMES.reason
    if not all(block.is_complete for block in blocks):
        return "the collector is still counting the last half hour"
    if any(block.gaps for block in blocks):
        return "runs of the last half hour may be missing from the history"
    return ""


def counts_vary(counts: Sequence[int]) -> bool:
    """Whether the counts of equally long blocks differ by more than chance explains."""
    mean = sum(counts) / len(counts)
    tolerated = max(MAX_SWING * mean, MAX_DEVIATIONS * sqrt(mean))
    return any(abs(count - mean) > tolerated for count in counts)


def _make_unknown(reason: str) -> Forecast:
    return Forecast(outlook=Outlook.UNKNOWN, reason=reason)


def _explain_no_forecast(evidence: Evidence, flows: Sequence[Flow]) -> str:
    """Why the counts of the last half hour allow no forecast; empty if they do."""
    if "createdAt" in evidence.unknown:
        return "no job records when it was created"
    if reason := explain_missing_runs(evidence):
        return reason
    health = evidence.stats.health
    if health.due is None:
        return health.unknown.get("due", "it is unknown how many jobs are due")
    return _explain_contradiction(evidence, flows)


def _measure_flow(activities: Iterable[Activity]) -> Flow:
    summed = list(activities)
    return Flow(
        sum(activity.enqueued for activity in summed),
        sum(activity.succeeded + activity.dlq for activity in summed),
    )


def _explain_contradiction(evidence: Evidence, flows: Sequence[Flow]) -> str:
    """Why arrivals and completions do not explain how the backlog changed; empty if they do."""
    sample, counts = evidence.samples.get(evidence.blocks_start), evidence.stats.status_counts()
    if sample is None or counts is None:
        return "the collector did not count the jobs half an hour ago"
    unfinished = (*_WAITING, JobStatus.LEASED.value)
    before = sample.status_counts
    change = sum(counts.get(status, 0) - before.get(status, 0) for status in unfinished)
    arrived, completed = (sum(column) for column in zip(*flows, strict=True))
    tolerated = max(20, MAX_SWING * max(arrived, completed))
    if abs(change - (arrived - completed)) > tolerated:
        return "jobs also come or leave in other ways: retried, scheduled, cancelled or deleted"
    return ""


def _forecast_backlog(backlog: int, flows: Sequence[Flow], start: datetime) -> Forecast:
    minutes = BLOCK_COUNT * BLOCK_LENGTH / MINUTE
    arrived, completed = (sum(counts) for counts in zip(*flows, strict=True))
    forecast = Forecast(
        outlook=Outlook.UNKNOWN,
        backlog=backlog,
        arrivals=arrived / minutes,
        completions=completed / minutes,
        start=start,
        end=start + BLOCK_COUNT * BLOCK_LENGTH,
    )
    if not backlog:
        return replace(forecast, outlook=Outlook.EMPTY)
    if arrived + completed < MIN_JOBS:
        reason = f"fewer than {MIN_JOBS} jobs came or ended in the last half hour"
        return replace(forecast, reason=reason)
    if any(counts_vary(counts) for counts in zip(*flows, strict=True)):
        return replace(forecast, reason="the rates varied too much in the last half hour")
    net = completed - arrived
    if abs(net) <= NOISE_DEVIATIONS * sqrt(arrived + completed):
        return replace(forecast, outlook=Outlook.STEADY)
    if net < 0:
        return replace(forecast, outlook=Outlook.GROWS)
    clears_in = backlog / net * BLOCK_COUNT * BLOCK_LENGTH
    if clears_in > MAX_FORECAST:
        return replace(forecast, outlook=Outlook.STEADY)
    return replace(forecast, outlook=Outlook.CLEARS, clears_in=clears_in)


def round_duration(length: timedelta) -> str:
    """A duration with about two digits: `7 min`, `35 min`, `2.5 h`."""
    minutes = max(1, round(length / MINUTE))
    if minutes < 20:
        return f"{minutes} min"
    if minutes < 90:
        return f"{5 * round(minutes / 5)} min"
    return f"{minutes / 60:.1f}".removesuffix(".0") + " h"
