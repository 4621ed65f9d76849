"""The health of a queue: catches queries for statuses without jobs, queries that are repeated
although no job has changed, a limit that is shown as exact, and another rule for expired leases."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.dashboard.job_view import JobView
from jobmon.domain import JobCondition
from jobmon.settings import Settings
from jobmon.store import live_stats
from jobmon.store.connection import Connection
from jobmon.store.filter import JobFilter
from jobmon.store.live_stats import LiveStats
from jobmon.store.read_collection import ReadCollection
from jobmon.store.running_jobs import RunningJob

from ..conftest import NOW
from ..support.waiting import eventually


def test_the_health_of_a_queue_with_only_finished_jobs_reads_no_jobs(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a collector that sends useless queries for a quiet queue every few seconds."""
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
    """Catches a query for each type and queue every few seconds, although nothing changes."""
    created_at = NOW - timedelta(minutes=3)
    jobs = [{"status": "queued", "type": name, "createdAt": created_at} for name in ("a", "b")]
    jobs[1]["nextRunAt"] = NOW + timedelta(minutes=1)
    watched.jobs.insert_many(jobs)
    stats = LiveStats(Connection(make_settings(), watched.client))
    counts = {("queued", "a"): 1, ("queued", "b"): 1}
    first = stats.health(counts, NOW)
    assert (first.oldest_queued, first.estimated_total, first.scheduled) == (created_at, 2, 1)
    for name in ("find", "estimated_count"):
        monkeypatch.setattr(ReadCollection, name, None)
    later = stats.health(counts, NOW + timedelta(minutes=2), first)
    assert later.scheduled == 0, "the number of scheduled jobs depends on the time"
    assert later.overdue_by_type == {"b": NOW + timedelta(minutes=1)}
    assert later.oldest_queued_by_type == {"a": created_at, "b": created_at}
    assert (later.oldest_queued, later.estimated_total) == (created_at, 2)


def test_age_of_a_queued_job_that_has_started_is_not_unknown(
    watched: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> None:
    """Catches a wrong reason in each tenth answer of a busy queue: jobs start while it is read."""
    stats = LiveStats(Connection(make_settings(), watched.client))
    counts = {("queued", "a"): 1, ("queued", "b"): 1, ("queued", "c"): 1}
    watched.jobs.insert_one({"status": "leased", "type": "a", "createdAt": NOW})
    health = stats.health(counts, NOW)
    assert (health.oldest_queued, health.oldest_queued_by_type) == (None, {})
    assert health.unknown == {}
    watched.jobs.insert_one({"status": "queued", "type": "b"})
    watched.jobs.insert_one({"status": "queued", "type": "c", "createdAt": "yesterday"})
    unknown = stats.health(counts, NOW).unknown
    assert unknown["oldest_queued"] == "createdAt of the queued jobs is not a date, or missing"
    assert unknown["oldest_queued_by_type"].startswith("not known for 2 of 3 types: createdAt")


def test_job_that_came_while_jobs_were_counted_is_not_scheduled(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a busy queue that seems to have scheduled jobs, and so has no forecast."""
    stats = LiveStats(Connection(make_settings(), watched.client))

    def count_slowly() -> Counter[tuple[str, str]]:
        next_run_at = datetime.now(UTC) + timedelta(milliseconds=5)
        watched.jobs.insert_one({"status": "queued", "type": "a", "nextRunAt": next_run_at})
        eventually(lambda: datetime.now(UTC) > next_run_at)
        return Counter({("queued", "a"): 1})

    monkeypatch.setattr(stats, "_counts_by_status_and_type", count_slowly)
    counted = stats.count()
    assert (counted.health.due, counted.health.scheduled) == (1, 0)


def test_dates_of_unchanged_jobs_are_checked_once_if_all_are_dates(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches two more queries for each queue every few seconds, although nothing changes."""
    soon = NOW + timedelta(minutes=1)
    watched.jobs.insert_one({"status": "leased", "type": "a", "leaseExpiresAt": soon})
    watched.jobs.insert_one({"status": "queued", "type": "a", "nextRunAt": soon})
    stats = LiveStats(Connection(make_settings(), watched.client))
    counts = {("leased", "a"): 1, ("queued", "a"): 1}
    queries = list[Any]()
    count = ReadCollection.count

    def record_query(jobs: ReadCollection, query: Any, **options: Any) -> int:
        queries.append(query)
        return count(jobs, query, **options)

    monkeypatch.setattr(ReadCollection, "count", record_query)
    first = stats.health(counts, NOW)
    assert (len(queries), first.due, first.expired_leases) == (4, 0, 0)
    later = stats.health(counts, NOW + timedelta(minutes=2), first)
    assert (len(queries), later.due, later.expired_leases) == (6, 1, 1)
    # Values that are not dates are still reported if no job has changed.
    watched.jobs.update_many({}, {"$set": {"leaseExpiresAt": "x", "nextRunAt": "x"}})
    without_dates = stats.health(counts, NOW)
    assert stats.health(counts, NOW, without_dates).unknown == without_dates.unknown
    assert {"due", "scheduled", "expired_leases"} <= without_dates.unknown.keys()


def test_a_capped_number_of_expired_leases_is_a_lower_bound(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a count that stopped at its limit and is shown as exact."""
    monkeypatch.setattr(live_stats, "MAX_COUNTED", 2)
    stats = LiveStats(Connection(make_settings(), watched.client))
    for count, unknown in ((1, {}), (2, {"expired_leases": "2 or more leases have expired"})):
        watched.jobs.insert_one({"status": "leased", "type": "t", "leaseExpiresAt": NOW})
        health = stats.health({("leased", "t"): count}, NOW)
        assert (health.expired_leases, health.unknown) == (count, unknown)


def test_a_lease_that_ends_now_has_expired(
    watched: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> None:
    """Catches a list or a count with a rule that workers and the action `release` do not have."""
    stats = LiveStats(Connection(make_settings(), watched.client))
    watched.jobs.insert_one({"status": "leased", "type": "t", "leaseExpiresAt": NOW})
    health = stats.health({("leased", "t"): 1}, NOW)
    assert health.expired_leases == 1
    assert RunningJob(job_id="1", type="t", expires_at=NOW).is_expired(NOW)
    assert JobView(status="leased", lease_expires_at=NOW).has_expired_lease(NOW)
    query = JobFilter(condition=JobCondition.EXPIRED).match()
    (now,) = query["leaseExpiresAt"].values()
    watched.jobs.update_one({}, {"$set": {"leaseExpiresAt": now}})
    assert watched.jobs.count_documents(query) == 1
