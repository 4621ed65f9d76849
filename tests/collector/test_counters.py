"""Running totals: catches a recount that is added twice, a total that loses an
hour to retention, and a counter that falls."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.collector import counters as counters_module
from jobmon.collector.counters import Counters
from jobmon.rollup.buckets import HOUR, Tallies, Tally, bucket_name, dump_tallies, load_tallies
from jobmon.rollup.documents import BUCKETS, COUNTERS, STATE, OwnDatabase
from jobmon.store.labels import OTHER

from ..conftest import NOW

Db = Database[dict[str, Any]]
START = NOW.replace(minute=20)
FIRST = START.replace(minute=0)


def write_hour(rollups: Db, at: datetime, **enqueued: int) -> None:
    """Write the bucket of an hour, with jobs by type."""
    tallies = {kind: Tally(enqueued=count, dlq=1) for kind, count in enqueued.items()}
    for tally in tallies.values():
        tally.outcomes["succeeded"] = tally.enqueued
        tally.run[100] = tally.enqueued
    fields = {"span": 3_600, "at": at, "types": dump_tallies(tallies)}
    bucket = own(rollups).new(bucket_name(HOUR, at), fields)
    rollups[BUCKETS].replace_one({"_id": bucket["_id"]}, bucket, upsert=True)


def totals(rollups: Db) -> Tallies:
    found = rollups[STATE].find_one({"_id": own(rollups).id(COUNTERS)}) or {}
    return load_tallies(found["totals"])


def own(rollups: Db) -> OwnDatabase:
    return OwnDatabase(rollups, "shop.jobs#1")


def enqueued(rollups: Db) -> dict[str, int]:
    return {kind: tally.enqueued for kind, tally in totals(rollups).items()}


def test_totals_begin_with_the_hour_of_the_first_update(watched: Db) -> None:
    write_hour(watched, FIRST - HOUR, mail=1_000)
    write_hour(watched, FIRST, mail=7)
    Counters(own(watched)).update(START, is_complete=False)
    shown = totals(watched)["mail"]
    assert (shown.enqueued, shown.dlq, shown.outcomes, shown.run) == (
        7,
        1,
        {"succeeded": 7},
        {100: 7},
    )


def test_repeated_updates_and_recounts_add_nothing_twice(watched: Db) -> None:
    for count in (1, 5, 5, 9):
        write_hour(watched, FIRST, mail=count)
        Counters(own(watched)).update(START, is_complete=True)
        Counters(own(watched)).update(START, is_complete=True)
        assert enqueued(watched) == {"mail": count}


def test_closed_hours_outlive_their_buckets(watched: Db) -> None:
    expected = 0
    for number in range(50):
        at = FIRST + number * HOUR
        write_hour(watched, at, mail=number, more=1)
        expected += number
        Counters(own(watched)).update(at + timedelta(minutes=20), is_complete=True)  # a new one
        watched[BUCKETS].delete_many({"at": {"$lt": at}})
        assert enqueued(watched) == {"mail": expected, "more": number + 1}
    assert totals(watched)["mail"].run[100] == expected
    assert watched[BUCKETS].count_documents({}) == 1


def test_an_hour_stays_open_while_it_may_be_recounted(watched: Db) -> None:
    counters = Counters(own(watched))
    counters.update(START, is_complete=True)
    write_hour(watched, FIRST, mail=1)
    counters.update(FIRST + HOUR + timedelta(minutes=14), is_complete=True)
    write_hour(watched, FIRST, mail=2)  # written late
    counters.update(FIRST + HOUR + timedelta(minutes=15), is_complete=True)
    assert enqueued(watched) == {"mail": 2}


def test_no_hour_is_closed_before_missed_hours_are_counted(watched: Db) -> None:
    counters = Counters(own(watched))
    counters.update(START, is_complete=True)
    counters.update(START + 5 * HOUR, is_complete=False)
    write_hour(watched, FIRST + HOUR, mail=3)  # while no collector ran
    counters.update(START + 5 * HOUR, is_complete=True)
    assert enqueued(watched) == {"mail": 3}


def test_a_counter_pauses_when_a_recount_finds_less(watched: Db) -> None:
    counters = Counters(own(watched))
    for count, shown in ((8, 8), (5, 8), (8, 8), (10, 10)):
        write_hour(watched, FIRST, mail=count)
        counters.update(START, is_complete=True)
        assert enqueued(watched) == {"mail": shown}
        assert totals(watched)["mail"].run[100] == shown


def test_a_collector_that_lost_its_lease_cannot_write_an_old_total(
    watched: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, good = Counters(own(watched)), Counters(own(watched))
    late.update(START, is_complete=True)
    read_by_late = watched[STATE].find_one({"_id": own(watched).id(COUNTERS)})
    write_hour(watched, FIRST, mail=4)
    good.update(START, is_complete=True)
    with monkeypatch.context() as patch:
        patch.setattr(late._state, "find_one", lambda *_: read_by_late)
        watched[BUCKETS].delete_many({})
        write_hour(watched, FIRST, mail=2)
        late.update(START, is_complete=True)
    assert enqueued(watched) == {"mail": 4}


def test_types_keep_their_order_and_are_limited(
    watched: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters_module, "MAX_COUNTER_TYPES", 3)
    write_hour(watched, FIRST, small=1, large=9)
    Counters(own(watched)).update(START, is_complete=True)
    later = {"later": 50, "never": 7, "either": 6, OTHER: 99}
    write_hour(watched, FIRST, small=1, large=9, **later)
    Counters(own(watched)).update(START + HOUR, is_complete=True)
    shown = enqueued(watched)
    assert shown == {"large": 9, "small": 1, "later": 50, OTHER: 112}
    assert list(shown) == ["large", "small", "later", OTHER]
