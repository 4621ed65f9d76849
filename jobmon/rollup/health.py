"""Whether a collector keeps the figures of a queue, for `jobmon collector --check`."""

from dataclasses import dataclass

from pymongo.errors import PyMongoError

from jobmon.rollup.documents import connect_as_writer
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings
from jobmon.store.connection import Connection

# More than readers allow: a restart does not help a collector that is only slow.
MAX_FIGURES_AGE_S = 30.0
MAX_HISTORY_AGE_S = 120.0


@dataclass(frozen=True)
class CollectorHealth:
    """`message` is one line for people."""

    is_good: bool
    message: str


def check_collector(settings: Settings) -> CollectorHealth:
    """Look at the ages of the figures and of the history, whoever keeps them.

    Answers within the server-selection timeout and one query's time limit for each.
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
    leader, figures_s = reader.leader(), reader.figures_age_s()
    history_s, build = reader.history_age_s(), reader.build()
    if not reader.is_readable:
        return CollectorHealth(False, "the user may not read jobmon's own database")
    if leader is None:
        return CollectorHealth(False, "no collector works for this queue")
    if build is not None:
        counted, estimated = build["counted"], build["estimated"]
        return CollectorHealth(True, f"first count: {counted:,} of about {estimated:,} jobs")
    ages = {
        "figures": (figures_s, MAX_FIGURES_AGE_S),
        "history": (history_s, MAX_HISTORY_AGE_S),
    }
    words = [
        f"{name}: {'none' if age_s is None else f'{age_s:.1f} s old'}"
        for name, (age_s, _) in ages.items()
    ]
    is_good = all(age_s is not None and age_s <= most for age_s, most in ages.values())
    message = f"{', '.join(words)}, collector {leader}"
    if history_s is None:
        message += "; `jobmon init` makes the indexes that the history needs"
    return CollectorHealth(is_good, message)
