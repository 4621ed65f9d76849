"""Running totals: catches a recount that is added twice, a total that loses an hour when its bucket
is deleted, and a counter that falls."""

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

MongoDb = Database[dict[str, Any]]
START = NOW.replace(minute=20)
FIRST_HOUR = START.replace(minute=0)
MUCH_LATER = START + timedelta(days=100)


def write_hour(rollups: MongoDb, hour: datetime, **enqueued: int) -> None:
    """Write an hour's bucket: by type, so many jobs were enqueued and succeeded, one died."""
    tallies = {job_type: Tally(enqueued=count, dlq=1) for job_type, count in enqueued.items()}
    for tally in tallies.values():
        tally.outcomes["succeeded"] = tally.enqueued
        tally.run[100] = tally.enqueued
    fields = {"span": 3_600, "at": hour, "types": dump_tallies(tallies)}
    bucket = open_own_database(rollups).new(bucket_name(HOUR, hour), fields)
    rollups[BUCKETS].replace_one({"_id": bucket["_id"]}, bucket, upsert=True)


def read_totals(rollups: MongoDb) -> Tallies:
    document = rollups[STATE].find_one({"_id": open_own_database(rollups).id(COUNTERS)}) or {}
    return load_tallies(document["totals"])


def open_own_database(rollups: MongoDb) -> OwnDatabase:
    return OwnDatabase(rollups, "shop.jobs#1")


def open_counters(rollups: MongoDb, database_time: datetime = MUCH_LATER) -> Counters:
    return Counters(open_own_database(rollups), lambda: database_time)


def read_enqueued(rollups: MongoDb) -> dict[str, int]:
    return {job_type: tally.enqueued for job_type, tally in read_totals(rollups).items()}


def test_totals_begin_with_the_hour_of_the_first_update(watched: MongoDb) -> None:
    write_hour(watched, FIRST_HOUR - HOUR, mail=1_000)
    write_hour(watched, FIRST_HOUR, mail=7)
    open_counters(watched).update(START, is_complete=False)
    mail = read_totals(watched)["mail"]
    assert (mail.enqueued, mail.dlq, mail.outcomes) == (7, 1, {"succeeded": 7})
    assert mail.run == {100: 7}


def test_repeated_updates_and_recounts_add_nothing_twice(watched: MongoDb) -> None:
    for count in (1, 5, 5, 9):
        write_hour(watched, FIRST_HOUR, mail=count)
        open_counters(watched).update(START, is_complete=True)
        open_counters(watched).update(START, is_complete=True)
        assert read_enqueued(watched) == {"mail": count}


def test_totals_keep_hours_whose_buckets_are_deleted(watched: MongoDb) -> None:
    expected = 0
    for index in range(50):
        hour = FIRST_HOUR + index * HOUR
        write_hour(watched, hour, mail=index, sms=1)
        expected += index
        open_counters(watched).update(hour + timedelta(minutes=20), is_complete=True)
        watched[BUCKETS].delete_many({"at": {"$lt": hour}})
        assert read_enqueued(watched) == {"mail": expected, "sms": index + 1}
    assert read_totals(watched)["mail"].run[100] == expected
    assert watched[BUCKETS].count_documents({}) == 1


def test_an_hour_may_be_recounted_until_15_minutes_after_its_end(watched: MongoDb) -> None:
    counters = open_counters(watched)
    counters.update(START, is_complete=True)
    write_hour(watched, FIRST_HOUR, mail=1)
    counters.update(FIRST_HOUR + HOUR + timedelta(minutes=14), is_complete=True)
    write_hour(watched, FIRST_HOUR, mail=2)  # counted again
    counters.update(FIRST_HOUR + HOUR + timedelta(minutes=15), is_complete=True)
    assert read_enqueued(watched) == {"mail": 2}


def test_collector_whose_clock_is_ahead_closes_no_hour_too_early(watched: MongoDb) -> None:
    counters = open_counters(watched, database_time=START)
    counters.update(START + 2 * HOUR, is_complete=True)
    write_hour(watched, FIRST_HOUR, mail=2)
    counters.update(START + 2 * HOUR, is_complete=True)
    assert read_enqueued(watched) == {"mail": 2}


def test_hours_that_no_collector_counted_are_added_later(watched: MongoDb) -> None:
    counters = open_counters(watched)
    counters.update(START, is_complete=True)
    counters.update(START + 5 * HOUR, is_complete=False)
    write_hour(watched, FIRST_HOUR + HOUR, mail=3)  # no collector ran in this hour
    counters.update(START + 5 * HOUR, is_complete=True)
    assert read_enqueued(watched) == {"mail": 3}


def test_a_counter_pauses_when_a_recount_finds_less(watched: MongoDb) -> None:
    counters = open_counters(watched)
    for count, total in ((8, 8), (5, 8), (8, 8), (10, 10)):
        write_hour(watched, FIRST_HOUR, mail=count)
        counters.update(START, is_complete=True)
        assert read_enqueued(watched) == {"mail": total}
        assert read_totals(watched)["mail"].run[100] == total


def test_a_collector_that_lost_its_lease_cannot_write_an_old_total(
    watched: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, leader = open_counters(watched), open_counters(watched)
    former.update(START, is_complete=True)
    read_by_former = watched[STATE].find_one({"_id": open_own_database(watched).id(COUNTERS)})
    write_hour(watched, FIRST_HOUR, mail=4)
    leader.update(START, is_complete=True)
    with monkeypatch.context() as patch:
        patch.setattr(former._state, "find_one", lambda *_: read_by_former)
        watched[BUCKETS].delete_many({})
        write_hour(watched, FIRST_HOUR, mail=2)
        former.update(START, is_complete=True)
    assert read_enqueued(watched) == {"mail": 4}


def test_known_types_stay_and_new_types_are_folded_beyond_the_limit(
    watched: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters_module, "MAX_COUNTER_TYPES", 3)
    write_hour(watched, FIRST_HOUR, small=1, large=9)
    open_counters(watched).update(START, is_complete=True)
    new = {"named": 50, "folded": 7, "folded too": 6, OTHER: 99}
    write_hour(watched, FIRST_HOUR, small=1, large=9, **new)
    open_counters(watched).update(START + HOUR, is_complete=True)
    totals = read_enqueued(watched)
    assert totals == {"large": 9, "small": 1, "named": 50, OTHER: 112}
    assert list(totals) == ["large", "small", "named", OTHER]
