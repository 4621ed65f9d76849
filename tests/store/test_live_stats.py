"""The health of a queue: catches queries for jobs that do not exist by the counts."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.live_stats import LiveStats
from jobmon.store.read_collection import ReadCollection

from ..conftest import NOW


def test_a_drained_queue_needs_no_query(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of a hundred quiet queues would cost a collector nine queries every few seconds."""
    for name in ("find", "count", "aggregate"):
        monkeypatch.setattr(ReadCollection, name, None)
    stats = LiveStats(Connection(make_settings(), watched.client))
    health = stats.health({("succeeded", "t"): 7, ("dlq", "t"): 1}, NOW)
    assert (health.due, health.scheduled, health.expired_leases) == (0, 0, 0)
    assert (health.oldest_queued, health.overdue_by_type, health.unknown) == (None, {}, {})


def test_the_ages_of_unchanged_jobs_are_not_read_again(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a query for each type of each queue every few seconds, also where nothing changes."""
    since = NOW - timedelta(minutes=3)
    jobs = [{"status": "queued", "type": kind, "createdAt": since} for kind in ("a", "b")]
    jobs[1]["nextRunAt"] = NOW + timedelta(minutes=1)
    watched.jobs.insert_many(jobs)
    stats, counts = LiveStats(Connection(make_settings(), watched.client)), Counter[Any]()
    counts.update({("queued", "a"): 1, ("queued", "b"): 1})
    first = stats.health(counts, NOW)
    assert (first.oldest_queued, first.estimated_total, first.scheduled) == (since, 2, 1)
    for name in ("find", "estimated_count"):
        monkeypatch.setattr(ReadCollection, name, None)
    later = stats.health(counts, NOW + timedelta(minutes=2), first)
    assert later.scheduled == 0, "time changes it"
    assert later.overdue_by_type == {"b": NOW + timedelta(minutes=1)}
    assert later.oldest_queued_by_type == {"a": since, "b": since}
    assert (later.oldest_queued, later.estimated_total) == (since, 2)


def test_whether_dates_can_be_read_is_asked_once_for_unchanged_jobs(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches two queries more for each queue every few seconds, also where nothing changes."""
    ends = NOW + timedelta(minutes=1)
    watched.jobs.insert_one({"status": "leased", "type": "a", "leaseExpiresAt": ends})
    watched.jobs.insert_one({"status": "queued", "type": "a", "nextRunAt": ends})
    stats, counts = LiveStats(Connection(make_settings(), watched.client)), Counter[Any]()
    counts.update({("leased", "a"): 1, ("queued", "a"): 1})
    asked = list[Any]()
    count = ReadCollection.count

    def count_and_note(jobs: ReadCollection, query: Any, **options: Any) -> int:
        asked.append(query)
        return count(jobs, query, **options)

    monkeypatch.setattr(ReadCollection, "count", count_and_note)
    first = stats.health(counts, NOW)
    assert (len(asked), first.due, first.expired_leases) == (4, 0, 0)
    later = stats.health(counts, NOW + timedelta(minutes=2), first)
    assert (len(asked), later.due, later.expired_leases) == (6, 1, 1)
    # Where some cannot be read, the reason is found again.
    watched.jobs.update_many({}, {"$set": {"leaseExpiresAt": "x", "nextRunAt": "x"}})
    odd = stats.health(counts, NOW)
    assert stats.health(counts, NOW, odd).unknown == odd.unknown
    assert {"due", "scheduled", "expired_leases"} <= odd.unknown.keys()
