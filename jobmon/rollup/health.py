"""Checks whether a collector keeps the stats of a queue fresh: `jobmon collector --check`."""

from dataclasses import dataclass

from pymongo.errors import PyMongoError

from jobmon.rollup.documents import connect_as_writer
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings
from jobmon.store.connection import Connection

# Higher than `MAX_STATS_AGE_MS`: a restart does not help a collector that is only slow.
MAX_STATS_AGE_S = 30.0
MAX_HISTORY_AGE_S = 120.0


@dataclass(frozen=True)
class CollectorHealth:
    """`message` is one line for people."""

    is_good: bool
    message: str


def check_collector(settings: Settings) -> CollectorHealth:
    """Check the age of the stats and of the history, whichever collector writes them.

    Takes at most the server-selection timeout and the time limit of four queries.
    """
    watched, own = Connection(settings), connect_as_writer(settings)
    try:
        return _check(RollupReader(watched, own))
    except PyMongoError as error:
        return CollectorHealth(False, f"jobmon's own database: {type(error).__name__}")
    finally:
        watched.close()
        own.close()


def _check(reader: RollupReader) -> CollectorHealth:
    leader, stats_s = reader.leader(), reader.stats_age_s()
    history_s, build = reader.history_age_s(), reader.first_build()
    if not reader.is_readable:
        return CollectorHealth(False, "the user may not read jobmon's own database")
    if leader is None:
        return CollectorHealth(False, "no collector works for this queue")
    if build is not None:
        counted, estimated = build["counted"], build["estimated"]
        return CollectorHealth(True, f"first count: {counted:,} of about {estimated:,} jobs")
    ages = {"stats": (stats_s, MAX_STATS_AGE_S), "history": (history_s, MAX_HISTORY_AGE_S)}
    parts = [
        f"{name}: {'none' if age_s is None else f'{age_s:.1f} s old'}"
        for name, (age_s, _) in ages.items()
    ]
    is_good = all(age_s is not None and age_s <= most for age_s, most in ages.values())
    message = f"{', '.join(parts)}, collector {leader}"
    if history_s is None:
        message += "; create the history's indexes with `jobmon init`"
    return CollectorHealth(is_good, message)
