"""Statuses and types of every BSON type, on the real server: catches a value that is counted under
a label whose filter finds no jobs, or other jobs."""

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
from ..support.watched_queue import WatchedQueue, temporary_database

MISSING = object()
VALUES = [
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
EXPECTED = Counter(
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
def counted(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[WatchedQueue]:
    with temporary_database(mongo) as database:
        database.jobs.insert_many(
            {"jobId": f"{field}-{number}", "createdAt": NOW, "createdBy": "ada"}
            | ({} if value is MISSING else {field: value})
            | {"type" if field == "status" else "status": "other"}
            for field in ("status", "type")
            for number, value in enumerate(VALUES)
        )
        watching = WatchedQueue(mongod, database)
        create_indexes(watching.connection)
        yield watching
        watching.close()


@pytest.mark.parametrize("field", ["status", "type"])
def test_every_counted_label_is_a_filter_with_as_many_jobs(
    counted: WatchedQueue, field: str
) -> None:
    stats = counted.get("/admin/jobs/stats")
    counts = Counter({label: count for label, count in stats["statusCounts"].items() if count})
    if field == "type":
        counts = Counter(
            {label: sum(by_status.values()) for label, by_status in stats["typeCounts"].items()}
        )
    assert counts - Counter(other=len(VALUES)) == EXPECTED
    for label, count in EXPECTED.items():
        assert len(counted.ids(**{field: label})) == count, label
        other = {"type" if field == "status" else "status": "other"}
        assert len(counted.ids(**{field: label}, **other, owner="ada")) == count, label
    labels = ["null", "1", "true"]
    assert len(counted.ids(**{field: labels})) == sum(EXPECTED[label] for label in labels)


def test_the_overview_links_every_status_and_type_to_its_jobs(counted: WatchedQueue) -> None:
    viewer = signed_in(counted.api)
    page = viewer.page("/dashboard?by=type")
    addresses = {link.get("href", "") for link in page.all("a")}
    links = {address for address in addresses if "type=" in address}
    pages = {address for address in addresses if "/dashboard/type" in address}
    assert "/dashboard/types/null?range=1h" in pages
    for link in links | pages:
        answer = viewer.client.get(link)
        assert answer.status_code == 200, link
        assert "No jobs match" not in answer.text, link


def test_a_filter_for_null_reads_only_the_jobs_that_it_shows(counted: WatchedQueue) -> None:
    with profiled(counted.database) as entries:
        for query in ({"status": "true"}, {"type": ["1", "true"]}, {"status": "null"}):
            counted.get("/admin/jobs/queue", per_page=2, **query)
    finds = [entry for entry in entries if "find" in entry["command"]]
    assert len(finds) == 3
    assert_cheap(counted.database, finds)


STATES = {"true": "succeeded", "false": "queued", "null": "cancelled"}


def test_status_names_are_used_by_counts_lists_and_details(
    mongod: Mongod, database: Database[dict[str, Any]]
) -> None:
    names = {"job_fields": {"status": "done"}, "status_names": STATES}
    watching = WatchedQueue(mongod, database, **names)
    values: list[dict[str, Any]] = [{"done": True}, {"done": False}, {"done": False}, {}]
    database.jobs.insert_many(
        {"jobId": f"job-{number}", "type": "mail", "createdAt": NOW, **value}
        for number, value in enumerate(values)
    )
    counts = watching.get("/admin/jobs/stats")["statusCounts"]
    found = {status: count for status, count in counts.items() if count}
    assert found == {"succeeded": 1, "queued": 2, "cancelled": 1}
    for status, count in found.items():
        for job_id in watching.ids(status=status):
            assert watching.get(f"/jobs/{job_id}")["status"] == status
        assert len(watching.ids(status=status, type="mail")) == count
    assert watching.ids(status="true") == watching.ids(status="null") == []
    watching.close()


def test_status_names_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = ",".join(f"{stored}={status}" for stored, status in STATES.items())
    monkeypatch.setenv("JOBMON_STATUS_NAMES", setting)
    assert Settings.for_init("mongodb://db").status_names == STATES
