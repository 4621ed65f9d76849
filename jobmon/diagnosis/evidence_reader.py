"""Reads the evidence that the checks of a queue need."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar

from pymongo.errors import PyMongoError

from jobmon.diagnosis.evidence import (
    NO_CURRENT_HISTORY,
    NO_CURRENT_STATS,
    NOT_COUNTED,
    STILL_COUNTING,
    Evidence,
    Missing,
)
from jobmon.diagnosis.forecast import (
    BLOCK_COUNT,
    BLOCK_LENGTH,
    Forecast,
    Outlook,
    forecast_queue,
    forecast_types,
)
from jobmon.rollup.buckets import DAY, HOUR, MINUTE, floor
from jobmon.rollup.series import History, NoCollectorError, SeriesReader
from jobmon.rollup.stats import StatsReader
from jobmon.rollup.windows import Window
from jobmon.store.connection import Connection
from jobmon.store.failures import describe_error
from jobmon.store.filter import UnknownFieldError
from jobmon.store.known_fields import KnownFields
from jobmon.store.paused_types import PausedTypes, Pauses
from jobmon.store.running_jobs import RunningJobReader
from jobmon.store.stats import QueueStats

log = logging.getLogger(__name__)
K = TypeVar("K")
T = TypeVar("T")

NOT_READ = Forecast(outlook=Outlook.UNKNOWN, reason="the history could not be read")


class EvidenceSources(Protocol):
    """The readers from which the evidence of a queue comes, in the web service or the collector."""

    @property
    def name(self) -> str:
        """The queue's name, for the log."""

    @property
    def connection(self) -> Connection: ...

    @property
    def stats(self) -> StatsReader: ...

    @property
    def series(self) -> SeriesReader: ...

    @property
    def running(self) -> RunningJobReader: ...

    @property
    def known_fields(self) -> KnownFields: ...

    @property
    def pauses(self) -> PausedTypes | None:
        """The paused types; None if the queue cannot pause types."""


def find_pauses(queue: EvidenceSources) -> Pauses | None:
    """The paused types; None if the queue cannot pause types, or they cannot be read."""
    return None if queue.pauses is None else queue.pauses.find()


def gather_evidence(queue: EvidenceSources, now: datetime) -> Evidence:
    """Read all evidence that the checks of a queue need; raises PyMongoError."""
    series = queue.series
    hour = series.window(now - HOUR, now, MINUTE)
    day = series.window(now - DAY, now, 10 * MINUTE)
    evidence = replace(
        gather_base_evidence(queue, queue.stats.stats(), now),
        samples=series.samples(hour),
        first_build=series.rollup.first_build(),
        leader=series.rollup.leader(),
    )
    if evidence.stats.health.expired_leases:
        evidence = replace(evidence, first_expiry=queue.running.find_first_expiry())
    if "finishedAt" in evidence.unknown:
        return evidence
    by_type = read_history(lambda: series.history_by_type(hour), evidence)
    evidence = replace(evidence, hour_by_type=by_type)
    new_dead = None
    if (dead := evidence.find_dead_filter()) is not None:
        with suppress(UnknownFieldError):
            new_dead = queue.stats.count(dead)
    return replace(
        evidence,
        recent={
            length: read_recent(queue, evidence, length, now)
            for length in {limits.stalled_after for limits in evidence.rules.list_thresholds()}
        },
        hour_by_minute=read_history(lambda: series.history_by_step(hour, ()), evidence),
        day_by_step=read_history(
            lambda: series.history_by_step(day, ()), evidence, allow_incomplete=True
        ),
        new_dead=new_dead,
    )


def read_recent(
    queue: EvidenceSources, evidence: Evidence, length: timedelta, now: datetime
) -> History[str] | Missing:
    """The history by type over the last `length`; raises PyMongoError."""
    step = MINUTE if length <= HOUR else 10 * MINUTE
    window = queue.series.window(now - length, now, step)
    return read_history(lambda: queue.series.history_by_type(window), evidence)


def explain_missing_history(queue: EvidenceSources, stats: QueueStats | None) -> Missing | None:
    """Why no collector keeps a history that is up to date; None if one does."""
    if stats is None or stats.source != "rollup":
        return NO_CURRENT_STATS
    return None if queue.series.rollup.progress() else NO_CURRENT_HISTORY


def gather_forecast_evidence(queue: EvidenceSources, stats: QueueStats, now: datetime) -> Evidence:
    """Read only what a forecast needs; raises PyMongoError."""
    evidence = gather_base_evidence(queue, stats, now)
    if isinstance(evidence.blocks, Missing):
        return evidence
    start = evidence.blocks_start
    window = Window(start=start, end=start + MINUTE, step=MINUTE)
    return replace(evidence, samples=queue.series.samples(window))


def gather_base_evidence(queue: EvidenceSources, stats: QueueStats, now: datetime) -> Evidence:
    """The evidence for a forecast, without samples; without a collector no history is read."""
    series = queue.series
    # The present minute and the one before are left out: the collector may still count them.
    start = floor(now, MINUTE) - MINUTE - BLOCK_COUNT * BLOCK_LENGTH
    evidence = Evidence(
        stats=stats,
        hour_start=floor(now - HOUR, MINUTE),
        blocks_start=start,
        samples={},
        unknown=queue.known_fields.unknown,
        assumed_lease=queue.connection.jobs.mapping.offsets.get("leaseExpiresAt"),
        pauses=find_pauses(queue) or {},
        rules=queue.connection.settings.rules,
    )
    if (missing := explain_missing_history(queue, stats)) is not None:
        return replace(evidence, blocks=missing)
    blocks: list[History[str]] = []
    for block_start in (start + index * BLOCK_LENGTH for index in range(BLOCK_COUNT)):
        window = Window(start=block_start, end=block_start + BLOCK_LENGTH, step=MINUTE)
        block = read_history(partial(series.history_by_type, window), evidence)
        if isinstance(block, Missing):
            return replace(evidence, blocks=block)
        blocks.append(block)
    return replace(evidence, blocks=tuple(blocks))


def read_forecast(queue: EvidenceSources, stats: QueueStats) -> Forecast:
    """The forecast of a queue with these stats; unknown where the history cannot be read."""
    return _make_forecast(queue, stats, forecast_queue, NOT_READ)


def read_type_forecasts(queue: EvidenceSources, stats: QueueStats) -> dict[str, Forecast]:
    """The forecast of each type that has waiting jobs; empty if the history cannot be read."""
    return _make_forecast(queue, stats, forecast_types, {})


def _make_forecast(
    queue: EvidenceSources, stats: QueueStats, make: Callable[[Evidence], T], default: T
) -> T:
    try:
        return make(gather_forecast_evidence(queue, stats, datetime.now(UTC)))
    except PyMongoError as error:
        log.error("no forecast of the queue %s: %s", queue.name, describe_error(error))
        return default


def read_history(
    read: Callable[[], History[K]], evidence: Evidence, *, allow_incomplete: bool = False
) -> History[K] | Missing:
    """The history, or why it is missing. `allow_incomplete`: also while it is being counted."""
    try:
        history = read()
    except NoCollectorError as error:
        return Missing.from_error(error, has_collector=evidence.has_collector)
    if history.is_ahead:
        return NOT_COUNTED
    return history if history.is_complete or allow_incomplete else STILL_COUNTING
