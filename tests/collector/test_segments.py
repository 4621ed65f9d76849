"""The segments of jobs: catches a first count with queries for jobs that cannot exist."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from bson import ObjectId, Timestamp
from pymongo.database import Database

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
