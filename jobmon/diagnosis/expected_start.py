"""Estimates when a due job starts, and whether jobs of its type are started at all.

Pure functions of a job and of what is known of its queue. Without enough data, or with rates that
vary, the result is unknown.
"""

from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from jobmon.diagnosis.attention import stalled_types
from jobmon.diagnosis.evidence import COUNTED_TOGETHER, Evidence, Missing
from jobmon.diagnosis.forecast import (
    BLOCK_COUNT,
    BLOCK_LENGTH,
    MAX_FORECAST,
    MIN_JOBS,
    counts_vary,
    explain_missing_runs,
)
from jobmon.diagnosis.job_facts import JobFacts, QueueFacts
from jobmon.rollup.buckets import DAY, HOUR, MINUTE
from jobmon.rollup.series import History
from jobmon.store.labels import OTHER
from jobmon.store.lease_order import Place

# If three or more attempts of a type usually end in three minutes, one must have ended lately.
RECENT_LENGTH, MIN_EXPECTED = 3 * MINUTE, 3
MAX_EXTRA = 3  # jobs of other types that may be ahead beyond twice their usual number


class StartRate(NamedTuple):
    """Attempts a minute that started in the last half hour: of a type, and of all other types."""

    same_type: float
    other_types: float


def find_start_rate(evidence: Evidence, job_type: str) -> StartRate | str:
    """The rates at which jobs are started, or the reason why they are unknown.

    Each attempt that ended counts as one that started. So the rates are right while the number of
    running attempts stays the same, even if the backlog changes.
    """
    blocks = evidence.blocks
    if (reason := explain_missing_runs(evidence)) or isinstance(blocks, Missing):
        return reason
    activities = [history.activity for history in blocks]
    ended = [block[job_type].finished if job_type in block else 0 for block in activities]
    if any(OTHER in block and job_type not in block for block in activities):
        return COUNTED_TOGETHER.reason
    if sum(ended) < MIN_JOBS:
        return f"fewer than {MIN_JOBS} attempts of its type ended in the last half hour"
    if counts_vary(ended):
        return "the rate of its type varied too much in the last half hour"
    total = sum(activity.finished for block in activities for activity in block.values())
    minutes = BLOCK_COUNT * BLOCK_LENGTH / MINUTE
    return StartRate(sum(ended) / minutes, (total - sum(ended)) / minutes)


def is_stalled(job: JobFacts, evidence: Evidence | Missing) -> bool:
    """Whether the type of a due job is stalled, by the rule of `stalled_types`."""
    if isinstance(evidence, Missing) or job.due_since is None or "finishedAt" in evidence.unknown:
        return False
    health = evidence.stats.health
    # The statistics may not count this job.
    oldest = min(job.due_since, health.overdue_by_type.get(job.job_type, job.due_since))
    overdue = replace(health, overdue_by_type={job.job_type: oldest})
    return job.job_type in stalled_types(
        replace(evidence, stats=replace(evidence.stats, health=overdue))
    )


def find_place(job: JobFacts, queue: QueueFacts) -> Place | str:
    """The place of a due job among the due jobs, or the reason why it is unknown."""
    if "nextRunAt" in job.unknown:
        return "the documents do not record when a job is due"
    if "nextRunAt" in job.unreadable:
        return "nextRunAt of the job is not a date"
    place = queue.place
    # A lower bound of zero is no information.
    if isinstance(place, Place) and not place.ahead.is_exact and not place.ahead.value:
        return "too many jobs would have to be read"
    return place


def estimate_wait(job: JobFacts, queue: QueueFacts) -> timedelta | str:
    """How long it takes until the job starts at the present rate, or why that is unknown."""
    place = find_place(job, queue)
    if isinstance(place, str):
        return f"it is unknown how many jobs are ahead: {place}"
    if not place.ahead.is_exact or not place.tied.is_exact:
        return "the exact number of jobs ahead is unknown"
    if isinstance(queue.evidence, Missing):
        return queue.evidence.reason
    rate = find_start_rate(queue.evidence, job.job_type)
    if isinstance(rate, str):
        return rate
    if place.outranking:
        return "jobs of its type with a higher priority are ahead, and more may come"
    expected = rate.same_type * (RECENT_LENGTH / MINUTE)
    if isinstance(queue.recent, Missing):
        return queue.recent.reason
    recent = queue.recent.activity.get(job.job_type)
    if expected >= MIN_EXPECTED and (recent is None or not recent.finished):
        return "no attempt of its type has ended in the last minutes"
    wait = (place.same_type + 1) / rate.same_type * MINUTE
    other_types = max(0, place.ahead.value + place.tied.value - place.same_type)
    # While many jobs of other types come first, jobs of its type start less often than before.
    if other_types > 2 * rate.other_types * (wait / MINUTE) + MAX_EXTRA:
        return "more jobs of other types are ahead than usual"
    return wait if wait <= MAX_FORECAST else "it does not start within a day at the present rate"


class Silence(NamedTuple):
    """For how long no attempt has ended: `length` if `is_exact`, otherwise at least `length`."""

    length: timedelta
    is_exact: bool


def measure_silence(queue: QueueFacts) -> Silence:
    """How long a stalled type has ended no attempt, in whole minutes.

    A silence of more than an hour can be measured up to an hour too short.
    """
    shortest = MINUTE
    for history, step in ((queue.hour_by_minute, MINUTE), (queue.day_by_hour, HOUR)):
        if isinstance(history, Missing) or history.gaps:
            continue
        busy_steps = [start for start, activity in history.activity.items() if activity.finished]
        if busy_steps:
            length = history.as_of - max(busy_steps) - step
            return Silence(max(shortest, length // MINUTE * MINUTE), is_exact=True)
        shortest = HOUR  # none has ended in the last hour
    for history, length in ((queue.day_by_hour, DAY), (queue.hour_by_minute, HOUR)):
        if isinstance(history, History) and not history.gaps:
            return Silence(length, is_exact=False)
    # A stalled type has ended nothing in the shortest time that the evidence covers.
    recent = {} if isinstance(queue.evidence, Missing) else queue.evidence.recent
    return Silence(min(recent, default=MINUTE), is_exact=False)
