"""The collector's lease on the real server: would catch two that work at once, or none for long."""

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.rollup import leader as lease_module
from jobmon.rollup.documents import OwnDatabase
from jobmon.rollup.leader import LEASE, LeaderLease

from ..conftest import NOW

LONG_AGO = NOW - timedelta(days=2_000)


def test_one_collector_works_and_another_takes_over(database: Database[dict[str, Any]]) -> None:
    first, second = (
        LeaderLease(OwnDatabase(database, "shop.jobs#1")),
        LeaderLease(OwnDatabase(database, "shop.jobs#1")),
    )
    assert first.take()
    assert not second.take()
    assert first.take()
    database.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    assert second.take()
    assert not first.take()
    second.give_up()
    assert first.take()


@pytest.mark.parametrize(
    ("of", "is_taken"),
    [
        ("one that is dead", True),
        ("one that is alive", False),
        ("one elsewhere", False),
        ("one that does not say where", False),
        ("an older one, after one that is dead", False),
    ],
)
def test_who_died_on_this_machine_is_not_waited_for_and_nobody_else_is_robbed(
    database: Database[dict[str, Any]], of: str, *, is_taken: bool
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    pid = os.getpid() if of == "one that is alive" else ended.pid
    process = lease_module._process(pid)
    holder = f"{socket.gethostname()}:{pid}:1"
    match of:
        case "one elsewhere":
            process["kernel"] = "another's"
        case "one that does not say where":
            process = None
        case "an older one, after one that is dead":
            holder = "older"
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    own = OwnDatabase(database, "shop.jobs#1")
    left = {"_id": own.id(LEASE), "holder": holder, "process": process, "expiresAt": until}
    database.leases.insert_one(left)
    mine, other = (
        LeaderLease(OwnDatabase(database, "shop.jobs#1")),
        LeaderLease(OwnDatabase(database, "shop.jobs#1")),
    )
    assert (mine.take(), other.take()) == (is_taken, False)
    lease = database.leases.find_one({"_id": own.id(LEASE)})
    assert lease["holder"] == (mine.holder if is_taken else holder)
    assert (lease["expiresAt"].replace(tzinfo=UTC) < until) == is_taken
