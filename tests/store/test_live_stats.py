"""The health of a queue: catches queries for jobs that the counts show not to exist."""

from collections.abc import Callable
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
    assert (health.eligible, health.scheduled, health.expired_leases) == (0, 0, 0)
    assert (health.oldest_queued, health.overdue_by_type, health.unknown) == (None, {}, {})
