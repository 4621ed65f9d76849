"""Statuses and types of many BSON types, on a real server: catches a label in the statistics whose
filter does not find the jobs that were counted under it."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from bson import Binary, Decimal128, ObjectId
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes

from ..conftest import NOW
from ..dashboard.conftest import signed_in
from ..store.test_queries import assert_cheap, profiled
from ..support.queue_service import QueueService, temporary_database

MISSING = object()
BSON_VALUES = [
    MISSING,
    None,
    "null",
    '"null"',
    "",
    True,
    "true",
    False,
    1,
    "1",
    1.0,
    Decimal128("1.00"),
    2.5,
    ObjectId("65f0c0ffee0123456789abcd"),
    "65f0c0ffee0123456789abcd",
    Binary(UUID("0f8fad5b-d9cb-469f-a165-70867728950e").bytes, 4),
    datetime(1999, 1, 2, 3, 4, 5, tzinfo=UTC),
    ["a", "b"],
    "queued",
    "a b/c?d&e",
    "webhook.*",
    "webhook.a",
]
COUNT_BY_LABEL = Counter(
    {
        "null": 2,
        '"null"': 2,
        '""': 1,
        "true": 2,
        "false": 1,
        "1": 4,
        "2.5": 1,
        "65f0c0ffee0123456789abcd": 2,
        "0f8fad5b-d9cb-469f-a165-70867728950e": 1,
        "1999-01-02T03:04:05.000Z": 1,
        '["a", "b"]': 1,
        "queued": 1,
        '"webhook.*"': 1,
        "webhook.a": 1,
        "a b/c?d&e": 1,
    }
)


@pytest.fixture(scope="module")
def queue(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[QueueService]:
    """A queue with two jobs for each of `BSON_VALUES`, as the status of one and the type of one."""
    with temporary_database(mongo) as database:
        database.jobs.insert_many(
            {"jobId": f"{field}-{index}", "createdAt": NOW, "createdBy": "ada"}
            | ({} if value is MISSING else {field: value})
            | {"type" if field == "status" else "status": "other"}
            for field in ("status", "type")
            for index, value in enumerate(BSON_VALUES)
        )
        queue = QueueService(mongod, database)
        create_indexes(queue.connection)
        yield queue
        queue.close()


@pytest.mark.parametrize("field", ["status", "type"])
def test_a_filter_by_a_label_finds_the_number_of_jobs_that_statistics_have(
    queue: QueueService, field: str
) -> None:
    stats = queue.get("/admin/jobs/stats")
    counts = Counter({label: count for label, count in stats["statusCounts"].items() if count})
    if field == "type":
        counts = Counter(
            {label: sum(by_status.values()) for label, by_status in stats["typeCounts"].items()}
        )
    assert counts - Counter(other=len(BSON_VALUES)) == COUNT_BY_LABEL
    for label, count in COUNT_BY_LABEL.items():
        assert len(queue.list_ids(**{field: label})) == count, label
        second_filter = {"type" if field == "status" else "status": "other"}
        assert len(queue.list_ids(**{field: label}, **second_filter, owner="ada")) == count, label
    labels = ["null", "1", "true"]
    assert len(queue.list_ids(**{field: labels})) == sum(COUNT_BY_LABEL[label] for label in labels)


def test_each_link_of_the_overview_to_a_type_finds_its_jobs(queue: QueueService) -> None:
    viewer = signed_in(queue.api)
    page = viewer.page("/dashboard?by=type")
    addresses = {link.get("href", "") for link in page.all("a")}
    links = {address for address in addresses if "type=" in address}
    type_pages = {address for address in addresses if "/dashboard/type" in address}
    assert links
    assert "/dashboard/types/null?range=1h" in type_pages
    for link in links | type_pages:
        answer = viewer.client.get(link)
        assert answer.status_code == 200, link
        assert "No jobs match" not in answer.text, link


def test_a_filter_by_a_label_reads_only_the_jobs_that_it_shows(queue: QueueService) -> None:
    with profiled(queue.database) as entries:
        for query in ({"status": "true"}, {"type": ["1", "true"]}, {"status": "null"}):
            queue.get("/admin/jobs/queue", per_page=2, **query)
    finds = [entry for entry in entries if "find" in entry["command"]]
    assert len(finds) == 3
    assert_cheap(queue.database, finds)


STATUS_NAMES = {"true": "succeeded", "false": "queued", "null": "cancelled"}


def test_status_names_are_used_by_counts_lists_and_details(
    mongod: Mongod, database: Database[dict[str, Any]]
) -> None:
    settings = {"job_fields": {"status": "done"}, "status_names": STATUS_NAMES}
    queue = QueueService(mongod, database, **settings)
    values: list[dict[str, Any]] = [{"done": True}, {"done": False}, {"done": False}, {}]
    database.jobs.insert_many(
        {"jobId": f"job-{index}", "type": "mail", "createdAt": NOW, **value}
        for index, value in enumerate(values)
    )
    status_counts = queue.get("/admin/jobs/stats")["statusCounts"]
    counts = {status: count for status, count in status_counts.items() if count}
    assert counts == {"succeeded": 1, "queued": 2, "cancelled": 1}
    for status, count in counts.items():
        for job_id in queue.list_ids(status=status):
            assert queue.get(f"/jobs/{job_id}")["status"] == status
        assert len(queue.list_ids(status=status, type="mail")) == count
    assert queue.list_ids(status="true") == queue.list_ids(status="null") == []
    queue.close()


def test_status_names_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ",".join(f"{label}={status}" for label, status in STATUS_NAMES.items())
    monkeypatch.setenv("JOBMON_STATUS_NAMES", text)
    assert Settings.for_init("mongodb://db").status_names == STATUS_NAMES
