"""The collector's lease on the real server: catches two collectors that work at the same
time, and a long time without a collector."""

from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.collector import leader as leader_module
from jobmon.collector.leader import LeaderLease, LeaseGroup, LeaseLostError, make_holder
from jobmon.rollup.documents import OwnDatabase
from jobmon.rollup.reader import MAX_STATS_AGE_MS

from ..conftest import NOW
from ..support.waiting import eventually

MongoDb = Database[dict[str, Any]]
READ_TIME = [{"$documents": [{"now": "$$NOW"}]}]
LONG_AGO = NOW - timedelta(days=2_000)


def make_lease(database: MongoDb, queue: str = "shop.jobs#1") -> LeaderLease:
    return LeaderLease(OwnDatabase(database, queue), make_holder())


def test_a_free_lease_is_taken_by_one_collector(database: MongoDb) -> None:
    first, second = make_lease(database), make_lease(database)
    assert first.take()
    assert not second.take()
    assert first.take()
    assert make_lease(database, "shop.jobs#2").take()


def test_the_holder_knows_the_databases_time(database: MongoDb) -> None:
    """Catches stats whose age is measured with the clock of the collector's machine."""
    lease = make_lease(database)
    (before,) = database.aggregate(READ_TIME)
    assert lease.take()
    holder_time = lease.database_time()
    (after,) = database.aggregate(READ_TIME)
    assert before["now"] <= holder_time <= after["now"]
    # A database whose clock is years behind this machine's.
    assert lease._last is not None
    lease._last = lease._last._replace(time=LONG_AGO)
    assert LONG_AGO <= lease.database_time() < LONG_AGO + timedelta(minutes=1)


def test_an_expired_lease_is_taken_over(database: MongoDb) -> None:
    first, second = make_lease(database), make_lease(database)
    assert first.take()
    database.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    assert second.take()
    assert not first.take()
    second.release()
    assert first.take()


def test_a_crashed_collector_is_replaced_when_readers_drop_its_stats(
    database: MongoDb,
) -> None:
    """Catches a restarted collector that waits long after its stats have expired."""
    assert make_lease(database).take()
    lease = database.leases.find_one({}, {"expiresAt": 1, "now": "$$NOW"})
    assert lease is not None
    assert lease["expiresAt"] - lease["now"] <= timedelta(milliseconds=MAX_STATS_AGE_MS)
    eventually(make_lease(database).take)


def test_only_another_holder_ends_a_lease(
    database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a slow collector that stops although no other collector took its expired lease."""
    monkeypatch.setattr(leader_module, "RENEW_EVERY_S", -1)
    first, second = make_lease(database), make_lease(database)
    first.take()
    database.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    first.renew()
    assert not second.take()
    database.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    assert second.take()
    with pytest.raises(LeaseLostError):
        first.renew()


def test_a_group_renews_the_leases_whose_collectors_work(
    database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a command each second for each queue, and a lease that a hanging queue keeps."""
    holder = make_holder()
    group = LeaseGroup(holder)
    working, hanging = (
        LeaderLease(OwnDatabase(database, queue), holder, group) for queue in ("working", "hanging")
    )
    for lease in (working, hanging):
        assert lease.take()
    expired = {"expiresAt": {"$lte": LONG_AGO}}
    database.leases.update_many({}, {"$set": {"expiresAt": LONG_AGO}})
    group.renew(database.leases)
    assert not database.leases.count_documents(expired), "new leases must be renewed"
    database.leases.update_many({}, {"$set": {"expiresAt": LONG_AGO}})
    working.renew()
    group.renew(database.leases)
    assert [lease["queue"] for lease in database.leases.find(expired)] == ["hanging"]
    group.renew(database.leases)  # no lease requested a renewal
    monkeypatch.setattr(leader_module, "GROUP_IS_LATE_AFTER_S", 3_600)
    monkeypatch.setattr(LeaderLease, "take", None)
    working.renew()
    (now,) = database.aggregate(READ_TIME)
    assert abs(working.database_time() - now["now"]) < timedelta(seconds=1)


@pytest.mark.parametrize("has_group_renewed", [True, False])
def test_a_lease_of_a_group_is_lost_to_another_holder(
    database: MongoDb, monkeypatch: pytest.MonkeyPatch, has_group_renewed: bool
) -> None:
    monkeypatch.setattr(leader_module, "GROUP_IS_LATE_AFTER_S", -1)
    holder = make_holder()
    group = LeaseGroup(holder)
    first = LeaderLease(OwnDatabase(database, "shop.jobs#1"), holder, group)
    assert first.take()
    first.renew()
    database.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    second = make_lease(database)
    assert second.take()
    if has_group_renewed:
        group.renew(database.leases)
    assert database.leases.find_one({"holder": second.holder})
    with pytest.raises(LeaseLostError):
        first.renew()


def test_a_group_does_not_renew_a_lease_that_was_released(
    database: MongoDb,
) -> None:
    holder = make_holder()
    group = LeaseGroup(holder)
    lease = LeaderLease(OwnDatabase(database, "shop.jobs#1"), holder, group)
    assert lease.take()
    lease.renew()
    lease.release()
    group.renew(database.leases)
    assert make_lease(database).take()
