"""The segments of jobs: catches a first count with queries for jobs that cannot exist, and a
failure after which the segments cannot be counted again."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from bson import ObjectId, Timestamp
from pymongo.database import Database
from pymongo.errors import NotPrimaryError

from jobmon.collector import segments as segments_module
from jobmon.collector.segments import SegmentMap
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.read_collection import ReadCollection

from ..support.commands import database_uri


@pytest.mark.parametrize(
    ("ids", "max_queries"),
    [
        ([], 1),
        ([ObjectId(), ObjectId()], 4),
        (["a", "b"], 4),
        ([1, 2.5], 4),
        (["a", ObjectId()], 16),
        ([1, "a", True], 16),
        ([Timestamp(1, 1)], 16),
    ],
)
def test_a_first_count_queries_only_the_types_of_ids_that_jobs_may_have(
    mongod: Mongod,
    database: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    ids: list[Any],
    max_queries: int,
) -> None:
    """Catches the start of a hundred queues that takes sixteen queries for each."""
    queries = Counter[str]()
    for name in ("find", "aggregate"):
        query = getattr(ReadCollection, name)

        def count_query(
            *arguments: Any, name: str = name, query: Any = query, **options: Any
        ) -> Any:
            queries[name] += 1
            return query(*arguments, **options)

        monkeypatch.setattr(ReadCollection, name, count_query)
    connection = Connection(make_settings(mongo_uri=database_uri(mongod, database)))
    for job_id in ids:
        database.jobs.insert_one({"_id": job_id, "status": "queued", "type": "t"})
    segments = SegmentMap(connection.jobs)
    segments.build(lambda _: None)
    assert segments.totals.total() == len(ids)
    assert queries.total() <= max_queries
    connection.close()


def test_a_failure_after_a_merge_leaves_the_other_segments_marked(
    mongod: Mongod,
    database: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches the index of a segment that was merged: no segment has it any more."""
    monkeypatch.setattr(segments_module, "SEGMENT_JOBS", 4)
    monkeypatch.setattr(segments_module, "MERGE_BELOW", 2)
    connection = Connection(make_settings(mongo_uri=database_uri(mongod, database)))
    database.jobs.insert_many({"_id": letter, "status": "queued"} for letter in "abcdefghijkl")
    segments = SegmentMap(connection.jobs)
    segments.build(lambda _: None)
    database.jobs.delete_many({"_id": {"$gte": "e"}})
    segments.mark_next_segments(1.0)
    segments.recount()
    database.jobs.delete_many({})
    aggregate = ReadCollection.aggregate

    def fail_at_the_first_segment(*arguments: Any, **options: Any) -> Any:
        stages = str(arguments[1])
        if "$lt" in stages and "$gte" not in stages:
            raise NotPrimaryError
        return aggregate(*arguments, **options)

    segments.mark_next_segments(1.0)
    with monkeypatch.context() as failing:
        failing.setattr(ReadCollection, "aggregate", fail_at_the_first_segment)
        with pytest.raises(NotPrimaryError):
            segments.recount()
    segments.recount()
    assert segments.totals.total() == 0
    connection.close()
