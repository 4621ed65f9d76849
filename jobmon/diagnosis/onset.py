"""Finds when a problem began in the history of a queue: no job finishes any more, or jobs die."""

from datetime import datetime, timedelta

from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.rollup.buckets import HOUR, MINUTE, floor
from jobmon.rollup.series import History


def find_last_finish(
    history: History[datetime] | Missing, step: timedelta
) -> tuple[datetime, float] | None:
    """The end of the last step in which an attempt finished, and the rate in the hour before.

    If later steps are not counted yet, an attempt may have finished in them: then the time is the
    end of these steps. The rate is attempts a minute. None if no attempt finished.
    """
    if isinstance(history, Missing):
        return None
    finished = {at: activity.finished for at, activity in history.activity.items()}
    moments = [at for at, count in finished.items() if count]
    if not moments:
        return None
    until = max(moments) + step
    start = max(min(moments), until - HOUR)
    total = sum(count for at, count in finished.items() if count and start <= at < until)
    rate = total / ((until - start) / MINUTE)
    return max([until, *(at + step for at in history.uncounted)]), rate


def find_first_death(evidence: Evidence) -> datetime | None:
    """Since when jobs have died: the first minute of the last hour in which one died.

    If jobs also died in the ten minutes before it, it is the start of the first of the consecutive
    periods of ten minutes with deaths. None if that may be a day ago, or if no death is recorded.
    """
    if isinstance(evidence.minutes, Missing):
        return None
    deaths = (at for at, step in evidence.minutes.activity.items() if step.dlq)
    first = min(deaths, default=None)
    if first is None or isinstance(evidence.day, Missing):
        return first
    day, since = evidence.day.activity, floor(first, 10 * MINUTE)
    while (before := day.get(since - 10 * MINUTE)) is not None and before.dlq:
        since -= 10 * MINUTE
    if since == min(day, default=None):
        return None
    return first if since == floor(first, 10 * MINUTE) else since
