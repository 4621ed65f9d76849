"""Samples of the queue: catches a sample in the wrong span, an old sample that is not replaced or
never deleted, and a collector that takes no samples."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.collector.samples import QueueSamples
from jobmon.demo.mongod import Mongod
from jobmon.rollup.buckets import DAY, HOUR, MINUTE, SPANS, QueueSample, floor, retention
from jobmon.rollup.documents import OwnDatabase, rollup_database
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings
from jobmon.store.connection import Connection

from .. import conftest
from ..support.commands import database_uri
from ..support.waiting import eventually
from .test_collector import collecting

NOW = conftest.NOW.replace(minute=17, second=42)
ALWAYS = (NOW - 10_000 * DAY, NOW + 10_000 * DAY)


@pytest.fixture
def connection(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> Iterator[Connection]:
    uri = database_uri(mongod, database)
    connection = Connection(make_settings(mongo_uri=uri, rollup_db=f"{database.name}_rollups"))
    yield connection
    database.client.drop_database(rollup_database(connection).name)
    connection.client.close()


@pytest.fixture
def samples(connection: Connection) -> QueueSamples:
    return QueueSamples(
        OwnDatabase(rollup_database(connection), connection.queue_key),
        retention(connection.settings),
    )


def sample(queued: int, oldest_ms: int = 0) -> QueueSample:
    return QueueSample(status_counts={"queued": queued, "odd.one$": 1}, oldest_queued_ms=oldest_ms)


def test_larger_spans_are_written_once_a_minute(
    connection: Connection, samples: QueueSamples
) -> None:
    """Catches five writes for each sample, although larger spans need only one a minute."""
    for seconds in (0, 10):
        samples.write(NOW + timedelta(seconds=seconds), sample(seconds))
    reader = RollupReader(connection)
    assert reader.samples(MINUTE, *ALWAYS) == {floor(NOW, MINUTE): sample(10)}
    assert reader.samples(HOUR, *ALWAYS) == {floor(NOW, HOUR): sample(0)}


def test_the_newest_sample_of_each_span_is_kept(
    connection: Connection, samples: QueueSamples
) -> None:
    for seconds, queued in ((0, 1), (10, 2), (30, 3), (600, 4)):
        samples.write(NOW + timedelta(seconds=seconds), sample(queued, queued * 1_000))
    reader = RollupReader(connection)
    first = floor(NOW, MINUTE)
    assert reader.samples(MINUTE, *ALWAYS) == {
        first: sample(2, 2_000),
        first + MINUTE: sample(3, 3_000),
        first + 10 * MINUTE: sample(4, 4_000),
    }
    assert reader.samples(10 * MINUTE, *ALWAYS) == {
        floor(NOW, 10 * MINUTE): sample(3, 3_000),
        floor(NOW, 10 * MINUTE) + 10 * MINUTE: sample(4, 4_000),
    }
    for span in (HOUR, 6 * HOUR, DAY):
        assert reader.samples(span, *ALWAYS) == {floor(NOW, span): sample(4, 4_000)}


def test_samples_are_read_from_the_start_to_before_the_end(
    connection: Connection, samples: QueueSamples
) -> None:
    first = floor(NOW, MINUTE)
    for number in range(4):
        samples.write(first + number * MINUTE, sample(number))
    found = RollupReader(connection).samples(MINUTE, first + MINUTE, first + 3 * MINUTE)
    assert list(found.values()) == [sample(1), sample(2)]


def test_samples_are_deleted_by_span_and_age(connection: Connection, samples: QueueSamples) -> None:
    kept = retention(connection.settings)
    ages = {"minutes": kept[MINUTE] + DAY, "hours": kept[HOUR] + DAY, "days": kept[DAY] + DAY}
    for age in ages.values():
        samples.write(NOW - age, sample(1))
    samples.write(NOW, sample(2))
    reader = RollupReader(connection)
    left = {span: len(reader.samples(span, *ALWAYS)) for span in SPANS}
    # Buckets of minutes, hours and days have the same retention.
    assert left == {MINUTE: 1, 10 * MINUTE: 1, HOUR: 2, 6 * HOUR: 2, DAY: 3}


def test_the_collector_samples_the_queue(
    connection: Connection, database: Database[dict[str, Any]]
) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    database.jobs.insert_many(
        [{"status": status, "type": "t", "createdAt": long_ago} for status in ("queued", "odd")]
    )
    settings = replace(connection.settings)
    with collecting(settings):
        found = eventually(lambda: RollupReader(connection).samples(DAY, *ALWAYS))
    (sample,) = found.values()
    assert {status: count for status, count in sample.status_counts.items() if count} == {
        "queued": 1,
        "odd": 1,
    }
    assert 3_600_000 <= sample.oldest_queued_ms < 3_700_000
