"""The collector's figures as a document: no word of a watched document is ever a key in it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobmon.rollup.documents import typed
from jobmon.rollup.segments import Counts, dump_counts, load_counts
from jobmon.store.mapping import Document
from jobmon.store.stats import QueueHealth, QueueStats


def dump_stats(counts: Counts, health: QueueHealth, as_of: datetime) -> Document:
    """As BSON holds it."""
    return {
        "asOf": as_of,
        "counts": dump_counts(counts),
        "conditions": {
            "estimatedTotal": health.estimated_total,
            "expiredLeases": health.expired_leases,
            "eligible": health.eligible,
            "scheduled": health.scheduled,
            "oldestQueued": health.oldest_queued,
            "oldestQueuedByType": _pairs(health.oldest_queued_by_type),
            "overdueByType": _pairs(health.overdue_by_type),
            "unknown": _pairs(health.unknown),
        },
    }


def load_stats(document: Document) -> QueueStats:
    """What `dump_stats` gave; MalformedError or KeyError of anything else."""
    counts = load_counts(typed(document["counts"], list))
    health = typed(document["conditions"], dict)
    return QueueStats(
        as_of=typed(document["asOf"], datetime),
        source="rollup",
        counts=counts,
        total=counts.total(),
        health=QueueHealth(
            estimated_total=typed(health["estimatedTotal"], int),
            expired_leases=_number(health["expiredLeases"]),
            eligible=_number(health["eligible"]),
            scheduled=_number(health["scheduled"]),
            oldest_queued=_moment(health["oldestQueued"]),
            oldest_queued_by_type=_mapping(health["oldestQueuedByType"], datetime),
            overdue_by_type=_mapping(health["overdueByType"], datetime),
            unknown=_mapping(health["unknown"], str),
        ),
    )


def _pairs(mapping: Mapping[str, Any]) -> list[list[Any]]:
    return [[name, value] for name, value in mapping.items()]


def _mapping(pairs: Any, kind: type[Any]) -> dict[str, Any]:
    return {typed(name, str): typed(value, kind) for name, value in typed(pairs, list)}


def _number(value: Any) -> int | None:
    return None if value is None else typed(value, int)


def _moment(value: Any) -> datetime | None:
    return None if value is None else typed(value, datetime)
