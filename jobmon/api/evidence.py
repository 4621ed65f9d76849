"""Reads the evidence that the checks of a queue need."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from jobmon.diagnosis.evidence import (
    STALLED_AFTER,
    STILL_COUNTING,
    Evidence,
    Missing,
    died_since,
)
from jobmon.rollup.buckets import DAY, HOUR, MINUTE
from jobmon.rollup.series import History, NoCollectorError
from jobmon.store.filter import UnknownFieldError
from jobmon.web.queues import WatchedQueue

K = TypeVar("K")


def gather_evidence(queue: WatchedQueue, now: datetime) -> Evidence:
    """Read everything that the checks of the queue need; raises PyMongoError."""
    series = queue.series
    hour = series.window(now - HOUR, now, MINUTE)
    ten_minutes = series.window(now - STALLED_AFTER, now, MINUTE)
    day = series.window(now - DAY, now, 10 * MINUTE)
    evidence = Evidence(
        stats=queue.stats.stats(),
        hour_start=hour.start,
        samples=series.samples(hour),
        first_build=series.rollup.first_build(),
        leader=series.rollup.leader(),
        unknown=queue.known_fields.unknown,
    )
    if "finishedAt" in evidence.unknown:
        return evidence
    by_type = read_history(lambda: series.history_by_type(hour), evidence)
    new_dead = None
    if isinstance(by_type, History) and any(step.dlq for step in by_type.activity.values()):
        with suppress(UnknownFieldError):
            new_dead = queue.stats.count(died_since(hour.start))
    return replace(
        evidence,
        hour=by_type,
        ten_minutes=read_history(lambda: series.history_by_type(ten_minutes), evidence),
        minutes=read_history(lambda: series.history_by_step(hour, ()), evidence),
        day=read_history(lambda: series.history_by_step(day, ()), evidence, partly=True),
        new_dead=new_dead,
    )


def read_history(
    read: Callable[[], History[K]], evidence: Evidence, *, partly: bool = False
) -> History[K] | Missing:
    """The history, or why it is missing; with `partly` also one that is still being counted."""
    try:
        past = read()
    except NoCollectorError as error:
        return Missing.from_error(error, has_collector=evidence.has_collector)
    return past if past.is_complete or partly else STILL_COUNTING
