"""The collector's lease on the real server: would catch two that work at once, or none for long."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.rollup import lease as lease_module
from jobmon.rollup.lease import Lease

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def test_one_collector_works_and_another_takes_over(database: Database[dict[str, Any]]) -> None:
    first, second = Lease(database), Lease(database)
    assert first.take()
    assert not second.take()
    assert first.take()
    database.leases.update_one({}, {"$set": {"expiresAt": LONG_AGO}})
    assert second.take()
    assert not first.take()
    second.give_up()
    assert first.take()


@pytest.mark.parametrize(
    ("more", "is_taken"),
    [({}, True), ({"pid": os.getpid()}, False), ({"kernel": "another's"}, False), (None, False)],
)
def test_who_died_on_this_machine_is_not_waited_for_and_nobody_else_is_robbed(
    database: Database[dict[str, Any]], more: dict[str, Any] | None, *, is_taken: bool
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    process = None if more is None else {**lease_module._process(ended.pid), **more}
    until = datetime.now(UTC) + timedelta(hours=1)
    left = {"_id": "collector", "holder": "it", "process": process, "expiresAt": until}
    database.leases.insert_one(left)
    mine, other = Lease(database), Lease(database)
    assert (mine.take(), other.take()) == (is_taken, False)
    holder = database.leases.find_one({"_id": "collector"})["holder"]
    assert holder == (mine.holder if is_taken else "it")
