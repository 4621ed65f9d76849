"""Samples of the queue: catches a sample in the wrong span, an old sample that is not replaced or
never deleted, and a collector that takes no samples."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.collector.collecting import collecting
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

MongoDb = Database[dict[str, Any]]
NOW = conftest.NOW.replace(minute=17, second=42)
ALL_TIME = (NOW - 10_000 * DAY, NOW + 10_000 * DAY)


@pytest.fixture
def connection(
    mongod: Mongod, database: MongoDb, make_settings: Callable[..., Settings]
) -> Iterator[Connection]:
    uri = database_uri(mongod, database)
    connection = Connection(make_settings(mongo_uri=uri, rollup_db=f"{database.name}_rollups"))
    yield connection
    connection.client.close()


@pytest.fixture
def samples(connection: Connection) -> QueueSamples:
    return QueueSamples(
        OwnDatabase(rollup_database(connection), connection.queue_key),
        retention(connection.settings),
    )


def make_sample(queued: int, oldest_ms: int = 0) -> QueueSample:
    return QueueSample(status_counts={"queued": queued, "odd.one$": 1}, oldest_queued_ms=oldest_ms)


def test_larger_spans_are_written_once_a_minute(
    connection: Connection, samples: QueueSamples
) -> None:
    """Catches five writes for each sample, although larger spans need only one a minute."""
    for seconds in (0, 10):
        samples.write(NOW + timedelta(seconds=seconds), make_sample(seconds))
    reader = RollupReader(connection)
    assert reader.samples(MINUTE, *ALL_TIME) == {floor(NOW, MINUTE): make_sample(10)}
    assert reader.samples(HOUR, *ALL_TIME) == {floor(NOW, HOUR): make_sample(0)}


def test_each_span_keeps_a_sample_of_its_last_minute(
    connection: Connection, samples: QueueSamples
) -> None:
    for seconds, queued in ((0, 1), (10, 2), (30, 3), (600, 4)):
        samples.write(NOW + timedelta(seconds=seconds), make_sample(queued, queued * 1_000))
    reader = RollupReader(connection)
    first = floor(NOW, MINUTE)
    assert reader.samples(MINUTE, *ALL_TIME) == {
        first: make_sample(2, 2_000),
        first + MINUTE: make_sample(3, 3_000),
        first + 10 * MINUTE: make_sample(4, 4_000),
    }
    assert reader.samples(10 * MINUTE, *ALL_TIME) == {
        floor(NOW, 10 * MINUTE): make_sample(3, 3_000),
        floor(NOW, 10 * MINUTE) + 10 * MINUTE: make_sample(4, 4_000),
    }
    for span in (HOUR, 6 * HOUR, DAY):
        assert reader.samples(span, *ALL_TIME) == {floor(NOW, span): make_sample(4, 4_000)}


def test_samples_are_read_from_the_start_to_before_the_end(
    connection: Connection, samples: QueueSamples
) -> None:
    first = floor(NOW, MINUTE)
    for minute in range(4):
        samples.write(first + minute * MINUTE, make_sample(minute))
    read = RollupReader(connection).samples(MINUTE, first + MINUTE, first + 3 * MINUTE)
    assert list(read.values()) == [make_sample(1), make_sample(2)]


def test_samples_are_deleted_by_span_and_age(connection: Connection, samples: QueueSamples) -> None:
    kept_for = retention(connection.settings)
    for span in (MINUTE, HOUR, DAY):
        samples.write(NOW - kept_for[span] - DAY, make_sample(1))
    samples.write(NOW, make_sample(2))
    reader = RollupReader(connection)
    counts = {span: len(reader.samples(span, *ALL_TIME)) for span in SPANS}
    # Spans of ten minutes are kept like minutes, of six hours like hours.
    assert counts == {MINUTE: 1, 10 * MINUTE: 1, HOUR: 2, 6 * HOUR: 2, DAY: 3}


def test_the_collector_samples_the_queue(connection: Connection, database: MongoDb) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    database.jobs.insert_many(
        [{"status": status, "type": "t", "createdAt": long_ago} for status in ("queued", "odd")]
    )
    with collecting(connection.settings):
        samples = eventually(lambda: RollupReader(connection).samples(DAY, *ALL_TIME))
    (sample,) = samples.values()
    assert {status: count for status, count in sample.status_counts.items() if count} == {
        "queued": 1,
        "odd": 1,
    }
    assert 3_600_000 <= sample.oldest_queued_ms < 3_700_000
