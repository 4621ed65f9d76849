"""Checks whether collectors keep the stats and the history fresh: `jobmon collector --check`."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from pymongo.errors import OperationFailure, PyMongoError

from jobmon.rollup.activity import count_activity
from jobmon.rollup.buckets import MINUTE
from jobmon.rollup.documents import connect_as_writer
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings, load_queues
from jobmon.store.connection import Connection, connect_queues
from jobmon.store.failures import describe_error
from jobmon.store.read_collection import is_bad_hint

# Higher than `MAX_STATS_AGE_MS`: a restart does not help a collector that is only slow.
MAX_STATS_AGE_S = 30.0
MAX_HISTORY_AGE_S = 120.0
_MAX_THREADS = 32


@dataclass(frozen=True, kw_only=True)
class CollectorHealth:
    """Whether a collector works for a queue; `message` is one line for people.

    If none works, `can_restart_help` is whether a restart may help: it does not if a database is
    unreachable or refuses the user, or if indexes are missing.
    """

    queue: str
    is_good: bool
    message: str
    can_restart_help: bool = True


def are_good(collectors: Sequence[CollectorHealth]) -> bool:
    """Whether a collector works for at least one queue, and a restart can help no other queue."""
    return any(collector.is_good for collector in collectors) and not may_restart_help(collectors)


def may_restart_help(collectors: Sequence[CollectorHealth]) -> bool:
    """Whether a restart of the collectors may help a queue."""
    return any(collector.can_restart_help for collector in collectors if not collector.is_good)


def check_collectors(settings: Settings) -> list[CollectorHealth]:
    """Check the age of the stats and of the history of each queue, written by any collector.

    For up to 32 queues it takes at most the server-selection timeout and the time limit of
    nine queries.
    """

    def check(watched: Connection) -> CollectorHealth:
        queue = watched.settings
        try:
            watched.jobs.estimated_count()  # needs the right to read them
            watched.queue_key  # noqa: B018 - reads it, so that a failure is reported here
        except PyMongoError as error:
            message = f"its database is unreachable or refuses: {describe_error(error)}"
            return CollectorHealth(
                queue=queue.queue, is_good=False, message=message, can_restart_help=False
            )
        try:
            return _check_queue(queue.queue, watched, RollupReader(watched, own))
        except PyMongoError as error:
            message = f"jobmon's own database, or the watched one: {type(error).__name__}"
            return CollectorHealth(
                queue=queue.queue, is_good=False, message=message, can_restart_help=False
            )

    with (
        closing(connect_as_writer(settings)) as own,
        connect_queues(load_queues(settings)) as connections,
        ThreadPoolExecutor(_MAX_THREADS) as pool,
    ):
        return list(pool.map(check, connections))


def _check_queue(queue: str, watched: Connection, reader: RollupReader) -> CollectorHealth:
    leader, stats_age_s = reader.leader(), reader.stats_age_s()
    history_age_s, build = reader.history_age_s(), reader.first_build()
    if not reader.is_readable:
        message = "the user may not read jobmon's own database"
        return CollectorHealth(queue=queue, is_good=False, message=message, can_restart_help=False)
    if leader is None:
        message = "no collector works for this queue"
        return CollectorHealth(queue=queue, is_good=False, message=message)
    if build is not None:
        counted, estimated = build["counted"], build["estimated"]
        message = f"first count: {counted:,} of about {estimated:,} jobs"
        return CollectorHealth(queue=queue, is_good=True, message=message)
    ages = {"stats": (stats_age_s, MAX_STATS_AGE_S), "history": (history_age_s, MAX_HISTORY_AGE_S)}
    parts = [
        f"{name}: {'none' if age_s is None else f'{age_s:.1f} s old'}"
        for name, (age_s, _) in ages.items()
    ]
    is_good = all(age_s is not None and age_s <= max_age_s for age_s, max_age_s in ages.values())
    message = f"{', '.join(parts)}, collector {leader}"
    is_history_old = history_age_s is None or history_age_s > MAX_HISTORY_AGE_S
    lacks_indexes = is_history_old and _lacks_indexes(watched)
    if lacks_indexes:
        message += "; create the history's indexes with `jobmon init`"
    are_stats_good = stats_age_s is not None and stats_age_s <= MAX_STATS_AGE_S
    return CollectorHealth(
        queue=queue,
        is_good=is_good,
        message=message,
        # Without a history, the collector lacks indexes or has just begun to count.
        can_restart_help=not (are_stats_good and (lacks_indexes or history_age_s is None)),
    )


def _lacks_indexes(watched: Connection) -> bool:
    """Whether an index is missing that the history needs."""
    now = datetime.now(UTC)
    try:
        count_activity(watched, now, now, MINUTE)
    except OperationFailure as error:
        return is_bad_hint(error)
    return False
