"""The collector's figures as a document: no word of a watched document is ever a key in it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jobmon.rollup.documents import typed
from jobmon.rollup.segments import Counts, dump_counts, load_counts
from jobmon.store.jobs import QueueHealth, QueueStats
from jobmon.store.mapping import Document


def dump_stats(counts: Counts, conditions: QueueHealth, as_of: datetime) -> Document:
    """As BSON holds it."""
    return {
        "asOf": as_of,
        "counts": dump_counts(counts),
        "conditions": {
            "estimatedTotal": conditions.estimated_total,
            "expiredLeases": conditions.expired_leases,
            "eligible": conditions.eligible,
            "scheduled": conditions.scheduled,
            "oldestQueued": conditions.oldest_queued,
            "oldestQueuedByType": _pairs(conditions.oldest_queued_by_type),
            "overdueByType": _pairs(conditions.overdue_by_type),
            "unknown": _pairs(conditions.unknown),
        },
    }


def load_stats(document: Document) -> QueueStats:
    """What `dump_stats` gave; MalformedError or KeyError of anything else."""
    counts = load_counts(typed(document["counts"], list))
    conditions = typed(document["conditions"], dict)
    return QueueStats(
        as_of=typed(document["asOf"], datetime),
        source="rollup",
        counts=counts,
        total=counts.total(),
        conditions=QueueHealth(
            estimated_total=typed(conditions["estimatedTotal"], int),
            expired_leases=_number(conditions["expiredLeases"]),
            eligible=_number(conditions["eligible"]),
            scheduled=_number(conditions["scheduled"]),
            oldest_queued=_moment(conditions["oldestQueued"]),
            oldest_queued_by_type=_mapping(conditions["oldestQueuedByType"], datetime),
            overdue_by_type=_mapping(conditions["overdueByType"], datetime),
            unknown=_mapping(conditions["unknown"], str),
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
