"""Finds in the history of a queue when a problem began: no job finishes any more, or jobs die."""

from datetime import datetime, timedelta

from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.domain import JobStatus
from jobmon.rollup.buckets import HOUR, MINUTE, floor
from jobmon.rollup.series import History


def find_last_finish(
    history: History[datetime] | Missing, step: timedelta
) -> tuple[datetime, float] | None:
    """The end of the last step in which an attempt finished or may have finished, and the rate.

    In a step before `as_of` that is not counted yet, an attempt may have finished. The rate is the
    finished attempts a minute, in the last hour (or less, if the history begins later) before the
    end of the last counted step with an attempt. None if no attempt finished or the history is
    missing.
    """
    if isinstance(history, Missing):
        return None
    finished = {step_start: activity.finished for step_start, activity in history.activity.items()}
    busy_steps = [step_start for step_start, count in finished.items() if count]
    if not busy_steps:
        return None
    until = max(busy_steps) + step
    start = max(min(busy_steps), until - HOUR)
    total = sum(count for step_start, count in finished.items() if start <= step_start < until)
    rate = total / ((until - start) / MINUTE)
    uncounted = (step_start for step_start in history.uncounted if step_start < history.as_of)
    return max([until, *(step_start + step for step_start in uncounted)]), rate


def has_ended_since(evidence: Evidence, moment: datetime) -> bool:
    """Whether more jobs have succeeded or died than in the sample of this minute; False if unknown.

    If the history shows no end since then, it is behind, or clocks of workers are wrong.
    """
    sample, counts = evidence.samples.get(floor(moment, MINUTE)), evidence.stats.status_counts()
    if sample is None or counts is None:
        return False
    ends = (JobStatus.SUCCEEDED.value, JobStatus.DLQ.value)
    return any(counts[status] > sample.status_counts.get(status, 0) for status in ends)


def find_first_death(evidence: Evidence) -> datetime | None:
    """When the present deaths began: the first minute of the last hour in which a job died.

    If jobs also died in each of the ten-minute periods directly before, the start of the earliest
    of these. None if they reach back to the start of the last day, or if no death is known.
    """
    if isinstance(evidence.hour_by_minute, Missing):
        return None
    deaths = (
        minute for minute, activity in evidence.hour_by_minute.activity.items() if activity.dlq
    )
    first_death = min(deaths, default=None)
    if first_death is None or isinstance(evidence.day_by_step, Missing):
        return first_death
    day, since = evidence.day_by_step.activity, floor(first_death, 10 * MINUTE)
    while (previous := day.get(since - 10 * MINUTE)) is not None and previous.dlq:
        since -= 10 * MINUTE
    if since == min(day, default=None):
        return None
    return first_death if since == floor(first_death, 10 * MINUTE) else since
