"""The stored form of the queue's stats; texts from watched documents are never keys in it."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from types import NoneType
from typing import Any

from jobmon.domain import WAITING_STATUSES
from jobmon.rollup.documents import require_type
from jobmon.rollup.milestone_document import load_changes
from jobmon.store.mapping import Document
from jobmon.store.milestones import MilestoneChanges
from jobmon.store.stats import QueueHealth, QueueStats

Counts = Counter[tuple[str, str]]  # jobs by (status, type), as in `QueueStats`


def dump_stats(
    counts: Counts,
    health: QueueHealth,
    as_of: datetime,
    milestones: MilestoneChanges | None = None,
) -> Document:
    # The health may be some seconds older than the counts, so more jobs may have been due.
    waiting = sum(count for (status, _), count in counts.items() if status in WAITING_STATUSES)
    due = None if health.due is None else min(health.due, waiting)
    return {
        "asOf": as_of,
        "milestones": milestones and milestones._asdict(),
        "counts": dump_counts(counts),
        "health": {
            "estimatedTotal": health.estimated_total,
            "expiredLeases": health.expired_leases,
            "due": due,
            "scheduled": health.scheduled,
            "tooManyDue": health.too_many_due,
            "oldestQueued": health.oldest_queued,
            "oldestQueuedByType": _dump_pairs(health.oldest_queued_by_type),
            "overdueByType": _dump_pairs(health.overdue_by_type),
            "unknown": _dump_pairs(health.unknown),
        },
    }


def load_stats(document: Document) -> QueueStats:
    """The stored stats; raises KeyError, TypeError or ValueError for another document."""
    counts = load_counts(require_type(document["counts"], list))
    health = require_type(document["health"], dict)
    return QueueStats(
        as_of=require_type(document["asOf"], datetime),
        source="rollup",
        counts=counts,
        total=counts.total(),
        milestones=load_changes(document.get("milestones")),
        health=QueueHealth(
            estimated_total=require_type(health["estimatedTotal"], int),
            expired_leases=require_type(health["expiredLeases"], int, NoneType),
            due=require_type(health["due"], int, NoneType),
            scheduled=require_type(health["scheduled"], int, NoneType),
            too_many_due=require_type(health["tooManyDue"], bool),
            oldest_queued=require_type(health["oldestQueued"], datetime, NoneType),
            oldest_queued_by_type=_load_mapping(health["oldestQueuedByType"], datetime),
            overdue_by_type=_load_mapping(health["overdueByType"], datetime),
            unknown=_load_mapping(health["unknown"], str),
        ),
    )


def dump_counts(counts: Counts) -> list[list[Any]]:
    """The stored form, [[status, type, count], …]: names may contain dots and dollars."""
    return [[status, job_type, count] for (status, job_type), count in counts.items()]


def load_counts(dumped: list[list[Any]]) -> Counts:
    """The counts that `dump_counts` stored."""
    return Counter(
        {
            (require_type(status, str), require_type(job_type, str)): require_type(count, int)
            for status, job_type, count in dumped
        }
    )


def _dump_pairs(mapping: Mapping[str, Any]) -> list[list[Any]]:
    return [[name, value] for name, value in mapping.items()]


def _load_mapping(pairs: Any, kind: type[Any]) -> dict[str, Any]:
    return {
        require_type(name, str): require_type(value, kind)
        for name, value in require_type(pairs, list)
    }
