"""The collector's lease on the real server: catches two that work at once, or none for long."""

import time
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.collector import leader as leader_module
from jobmon.collector.leader import LeaderLease, LeaseLostError, make_holder
from jobmon.rollup.documents import OwnDatabase

from ..conftest import NOW
from ..support.waiting import eventually

READ_TIME = [{"$documents": [{"now": "$$NOW"}]}]
LONG_AGO = NOW - timedelta(days=2_000)


def new_lease(database: Database[dict[str, Any]], queue: str = "shop.jobs#1") -> LeaderLease:
    return LeaderLease(OwnDatabase(database, queue), make_holder())


def test_a_free_lease_is_taken_by_one_collector(database: Database[dict[str, Any]]) -> None:
    first, second = new_lease(database), new_lease(database)
    assert first.take()
    assert not second.take()
    assert first.take()
    assert new_lease(database, "shop.jobs#2").take()


def test_the_holder_knows_the_databases_time(database: Database[dict[str, Any]]) -> None:
    """Catches stats whose age is measured with the clock of the collector's machine."""
    lease = new_lease(database)
    (before,) = database.aggregate(READ_TIME)
    assert lease.take()
    known = lease.database_time()
    (after,) = database.aggregate(READ_TIME)
    assert before["now"] <= known <= after["now"]


def test_an_expired_lease_is_taken_over(database: Database[dict[str, Any]]) -> None:
    first, second = new_lease(database), new_lease(database)
    assert first.take()
    database.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    assert second.take()
    assert not first.take()
    second.release()
    assert first.take()


def test_a_crashed_collector_is_replaced_when_readers_drop_its_stats(
    database: Database[dict[str, Any]],
) -> None:
    """Catches a restarted collector that waits long after its stats have expired."""
    assert new_lease(database).take()
    started = time.monotonic()
    eventually(new_lease(database).take, 10)
    assert time.monotonic() - started < 7


def test_only_another_holder_ends_a_lease(
    database: Database[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that was slow keeps a lease that has expired, if no other one took it."""
    monkeypatch.setattr(leader_module, "RENEW_EVERY_S", -1)
    first, second = new_lease(database), new_lease(database)
    first.take()
    database.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    first.renew()
    assert not second.take()
    database.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    assert second.take()
    with pytest.raises(LeaseLostError):
        first.renew()
