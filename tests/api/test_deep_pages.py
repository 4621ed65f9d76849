"""Pages by number, which milestones make fast: catches a wrong page that is called exact."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.collector import milestone_writer, segments
from jobmon.collector.milestone_writer import MilestoneWriter
from jobmon.collector.segments import SegmentMap
from jobmon.demo.mongod import Mongod
from jobmon.rollup import reader
from jobmon.rollup.documents import STATS, OwnDatabase, rollup_database
from jobmon.rollup.stats_document import dump_stats
from jobmon.settings import Settings
from jobmon.store import deep_pages, list_count
from jobmon.store.connection import Connection
from jobmon.store.live_stats import LiveStats

from ..conftest import NOW, Api
from ..dashboard.conftest import signed_in
from ..store.test_queries import profiled
from ..support.commands import database_uri, index_queue
from ..support.waiting import PATIENCE_S

JOB_COUNT, SEGMENT_JOBS, MILESTONE_STEP, CHEAP_SKIP = 300, 20, 25, 10
PATH, PER_PAGE = "/admin/jobs/queue", 17
# Values of createdAt that are not a date; `...`: the job has no createdAt.
ODD_DATES = [None, 5, "a text", {"a": 1}, ObjectId("65f0c0ffee0123456789abcd"), True, ...]


class Collector:
    """Publishes stats and milestones as a collector does, but only when a test calls it."""

    def __init__(self, connection: Connection) -> None:
        self._database = OwnDatabase(rollup_database(connection), connection.queue_key)
        self._live_stats = LiveStats(connection)
        self._writer = MilestoneWriter(self._database, connection.jobs.mapping)
        self.segments = SegmentMap(connection.jobs)
        self.segments.build(lambda _: None)
        self.publish()

    def recount(self, *job_ids: Any) -> None:
        """Count these jobs again, and publish."""
        for job_id in job_ids:
            self.segments.mark_job(job_id)
        self.segments.recount()
        self.publish()

    def publish(self) -> None:
        counts = self.segments.totals
        self._writer.write(self.segments)
        milestones = self._writer.find_changes(self.segments)
        health = self._live_stats.health(counts, NOW)
        self._database.write_state(STATS, dump_stats(counts, health, NOW, milestones))


@pytest.fixture
def jobs(
    database: Database[dict[str, Any]], mongod: Mongod, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The collection of jobs, with lower limits: 300 jobs have many segments and milestones."""
    for module, name, value in (
        (segments, "SEGMENT_JOBS", SEGMENT_JOBS),
        (segments, "SPLIT_ABOVE", 2 * SEGMENT_JOBS),
        (segments, "MERGE_BELOW", SEGMENT_JOBS // 2),
        (milestone_writer, "MIN_JOBS", 50),
        (milestone_writer, "MAX_MILESTONES", JOB_COUNT // MILESTONE_STEP),
        (milestone_writer, "READ_TIMES_SHARE", PATIENCE_S),
        (milestone_writer, "MAX_READ_TIMES_S", PATIENCE_S),
        (deep_pages, "MAX_CHEAP_SKIP", CHEAP_SKIP),
        (list_count, "COUNT_EXACTLY_UP_TO", CHEAP_SKIP),
        (reader, "MAX_STATS_AGE_MS", 10**9),
        (reader, "CACHE_MS", 0),
    ):
        monkeypatch.setattr(module, name, value)
    return database.jobs


@pytest.fixture
def start_collector(
    jobs: Any, mongod: Mongod, make_settings: Callable[..., Settings]
) -> Iterator[Callable[..., tuple[Collector, Api]]]:
    """A function that starts a collector and the service, after the jobs were inserted."""
    connections = []

    def start(**changes: Any) -> tuple[Collector, Api]:
        settings = make_settings(
            mongo_uri=database_uri(mongod, jobs.database),
            rollup_db=f"{jobs.database.name}_rollups",
            **changes,
        )
        index_queue(settings)
        app = create_app(settings)
        connections.append(app.extensions["jobmon_connection"])
        return Collector(connections[-1]), Api(app)

    yield start
    for connection in connections:
        connection.client.close()


def make_jobs(order: str) -> list[dict[str, Any]]:
    """Jobs whose createdAt is in this order; `ascending` is the order of their _ids."""
    rng = random.Random(7)
    jobs = []
    for index in range(JOB_COUNT):
        delay_s = 0
        if order == "producers":  # two producers: every second block of 15 jobs is 30 s later
            delay_s = 30 * (index // 15 % 2)
        seconds = index // 7 + delay_s if order != "random" else rng.randrange(JOB_COUNT)
        job = {
            "_id": ObjectId(index.to_bytes(12, "big")),
            "jobId": str(index),
            "type": f"type-{index % 3}",
            "status": rng.choice(["succeeded", "succeeded", "dlq", "queued"]),
            "createdAt": NOW + timedelta(seconds=seconds),
        }
        if order == "odd" and index % 40 == 0:
            job["createdAt"] = ODD_DATES[index // 40 % len(ODD_DATES)]
            if job["createdAt"] is ...:
                del job["createdAt"]
        if order == "imported" and 100 <= index < 130:
            job["createdAt"] = NOW - timedelta(days=index % 5)
        jobs.append(job)
    return jobs


def list_ids(jobs: Any, query: dict[str, Any], direction: int) -> list[str]:
    """The ids of all jobs that match, sorted by MongoDB."""
    order = [("createdAt", direction), ("_id", direction)]
    return [job["jobId"] for job in jobs.find(query).sort(order)]


def read_page(api: Api, page: int, **query: Any) -> tuple[list[str], dict[str, Any]]:
    answer = api.get_as_admin(PATH, page=page, **query)
    assert answer.status_code == 200, answer.text
    return [job["jobId"] for job in answer.json["data"]], answer.json["meta"]


@pytest.mark.parametrize("order", ["ascending", "producers", "imported", "odd", "random"])
def test_every_page_by_number_has_the_jobs_at_its_position(
    jobs: Any, start_collector: Any, order: str
) -> None:
    """Catches a page that begins at a wrong position, in both orders and with equal dates."""
    jobs.insert_many(make_jobs(order))
    _, api = start_collector()
    for filters, sort in (
        ({}, "-createdAt"),
        ({}, "createdAt"),
        ({"status": ["dlq", "queued"]}, "-createdAt"),
        ({"type": ["type-1"]}, "createdAt"),
        ({"status": ["succeeded"], "type": ["type-0", "type-2"]}, "-createdAt"),
    ):
        query = {name: {"$in": labels} for name, labels in filters.items()}
        all_ids = list_ids(jobs, query, 1 if sort == "createdAt" else -1)
        page_count = -(-len(all_ids) // PER_PAGE)
        for page in range(1, page_count + 1):
            ids, meta = read_page(api, page, per_page=PER_PAGE, sort=sort, **filters)
            assert ids == all_ids[PER_PAGE * (page - 1) : PER_PAGE * page], (filters, sort, page)
            assert meta["page_is_exact"], (filters, sort, page)
            assert (meta["next_cursor"] is None) == (page == page_count)
            assert (meta["prev_cursor"] is None) == (page == 1)
        assert read_page(api, page_count + 1, per_page=PER_PAGE, sort=sort, **filters)[0] == []


def test_pages_of_jobs_with_their_creation_times_in_the_ids_are_exact(
    jobs: Any, start_collector: Any, mongod: Mongod
) -> None:
    """Catches _ids of the same second that are on the wrong side of a milestone."""
    agenda_jobs = jobs.database.agendaJobs
    start = int(NOW.timestamp())
    agenda_jobs.insert_many(
        {
            "_id": ObjectId((start + index // 7).to_bytes(4, "big") + index.to_bytes(8, "big")),
            "name": f"type-{index % 3}",
            "nextRunAt": NOW if index % 4 else None,
            "lastFinishedAt": None if index % 4 else NOW,
        }
        for index in range(JOB_COUNT)
    )
    _, api = start_collector(profile="agenda", jobs_collection="agendaJobs")
    for filters, query in (({}, {}), ({"type": "type-1"}, {"name": "type-1"})):
        all_ids = [str(job["_id"]) for job in agenda_jobs.find(query).sort("_id", -1)]
        for page in range(1, -(-len(all_ids) // 7) + 1):
            with profiled(jobs.database) as entries:
                ids, meta = read_page(api, page, per_page=7, **filters)
            assert (ids, meta["page_is_exact"]) == (all_ids[7 * (page - 1) : 7 * page], True), page
            keys = [entry.get("keysExamined", 0) for entry in entries]
            assert sum(keys) < 8 * MILESTONE_STEP, page


def test_deep_pages_read_few_keys_and_have_cursors(jobs: Any, start_collector: Any) -> None:
    """Catches a page that skips all index keys before it, or reads the skipped jobs."""
    jobs.insert_many(make_jobs("ascending"))
    _, api = start_collector()
    all_ids = list_ids(jobs, {}, -1)
    for page in (25, 30, 42, 43):
        with profiled(jobs.database) as entries:
            ids, meta = read_page(api, page, per_page=7)
        reads = [entry for entry in entries if entry.get("ns", "").endswith(".jobs")]
        assert sum(entry.get("keysExamined", 0) for entry in reads) < 4 * MILESTONE_STEP, page
        finds = [entry for entry in reads if entry["op"] == "query"]
        assert sum(entry["docsExamined"] for entry in finds) <= 8
        assert ids == all_ids[7 * (page - 1) : 7 * page]
        if meta["next_cursor"] is not None:
            next_page = api.get_as_admin(PATH, cursor=meta["next_cursor"], per_page=7).json
            assert [job["jobId"] for job in next_page["data"]] == all_ids[7 * page : 7 * (page + 1)]


def test_pages_after_a_change_are_exact_unless_older_jobs_have_changed(
    jobs: Any, start_collector: Any
) -> None:
    """Catches a page that is called exact although changes of older jobs may have shifted it."""
    jobs.insert_many(make_jobs("ascending"))
    collector, api = start_collector()
    new_id = ObjectId((2**40).to_bytes(12, "big"))
    new_job = {"jobId": "new", "type": "t", "createdAt": NOW.replace(year=2100)}
    jobs.insert_one({"_id": new_id, **new_job})
    collector.recount(new_id)
    all_ids = list_ids(jobs, {}, -1)
    ids, meta = read_page(api, 20, per_page=7)
    assert (ids, meta["page_is_exact"], meta["reasons"]) == (all_ids[133:140], True, {})
    old_ids = [ObjectId(index.to_bytes(12, "big")) for index in (3, 4)]
    jobs.delete_many({"_id": {"$in": old_ids}})
    collector.recount(*old_ids)
    for page in (20, 38):
        _, meta = read_page(api, page, per_page=7)
        assert not meta["page_is_exact"]
        assert "3 jobs may have changed" in meta["reasons"]["page"]
    all_ids = list_ids(jobs, {}, -1)
    ids, meta = read_page(api, 43, per_page=7)  # the last page needs no milestone
    assert (ids, meta["page_is_exact"]) == (all_ids[294:], True)


def change_random_job(jobs: Any, rng: random.Random, index: int) -> ObjectId:
    """Insert, delete or change a job; returns its _id."""
    job_id = ObjectId(rng.randrange(JOB_COUNT).to_bytes(12, "big"))
    match rng.choice(["insert", "delete", "status", "date"]):
        case "insert":
            job_id = ObjectId((JOB_COUNT + index).to_bytes(12, "big"))
            seconds = rng.choice([JOB_COUNT // 7 + index, rng.randrange(JOB_COUNT // 7)])
            fields = {"type": "type-1", "createdAt": NOW + timedelta(seconds=seconds)}
            jobs.insert_one({"_id": job_id, "jobId": f"new-{index}", "status": "dlq"} | fields)
        case "delete":
            jobs.delete_one({"_id": job_id})
        case "status":
            jobs.update_one({"_id": job_id}, {"$set": {"status": "dlq"}})
        case "date":
            other_date = NOW + timedelta(seconds=rng.randrange(JOB_COUNT // 7))
            jobs.update_one({"_id": job_id}, {"$set": {"createdAt": other_date}})
    return job_id


def test_a_page_after_changes_is_shifted_by_no_more_than_it_reports(
    jobs: Any, start_collector: Any
) -> None:
    """Catches a page that moved further than its `reasons` report."""
    rng = random.Random(11)
    jobs.insert_many(make_jobs("producers"))
    collector, api = start_collector()
    exact_pages = shifted_pages = 0
    for step in range(12):
        collector.recount(*(change_random_job(jobs, rng, 2 * step + index) for index in (0, 1)))
        for sort, status in (("-createdAt", None), ("createdAt", None), ("-createdAt", "dlq")):
            query = {} if status is None else {"status": status}
            all_ids = list_ids(jobs, query, 1 if sort == "createdAt" else -1)
            for page in range(2, len(all_ids) // PER_PAGE, 4):
                ids, meta = read_page(api, page, per_page=PER_PAGE, sort=sort, **query)
                position = all_ids.index(ids[0])
                assert ids == all_ids[position : position + PER_PAGE]
                shift = abs(position - PER_PAGE * (page - 1))
                reported_shift = 0
                if not meta["page_is_exact"]:
                    reported_shift = int(meta["reasons"]["page"].split("; ")[1].split()[0])
                assert shift <= reported_shift, (step, sort, status, page)
                exact_pages += meta["page_is_exact"]
                shifted_pages += shift > 0
    assert exact_pages
    assert shifted_pages


def test_the_job_list_links_its_last_page_and_marks_a_page_that_is_not_exact(
    jobs: Any, start_collector: Any
) -> None:
    jobs.insert_many(make_jobs("ascending"))
    collector, api = start_collector()
    viewer = signed_in(api)
    first_page = viewer.page("/dashboard/jobs?per_page=7&status=succeeded&status=dlq")
    page_count = int(first_page.text.split("page 1 of ")[1].split()[0])
    (address,) = {link for link in first_page.addresses() if f"page={page_count}" in link}
    last_page = viewer.page(address)
    assert f"page {page_count} of {page_count}" in last_page.text
    links = [link for link in last_page.addresses() if "per_page=7" in link]
    # One of them leads to the first page.
    assert any("&page=" not in link and "cursor=" not in link for link in links)
    assert "about" not in first_page.text + last_page.text
    old_id = ObjectId((3).to_bytes(12, "big"))
    jobs.delete_one({"_id": old_id})
    collector.recount(old_id)
    inexact_page = viewer.page("/dashboard/jobs?per_page=7&page=20")
    assert "about page 20 of" in " ".join(inexact_page.text.split())


def test_milestones_that_another_collector_counted_are_not_used(
    jobs: Any, start_collector: Any
) -> None:
    """Catches a page from another collector's milestones: the changes since then are unknown."""
    jobs.insert_many(make_jobs("ascending"))
    _, api = start_collector()
    client = api.app.extensions["jobmon_connection"].client
    rollups = client[f"{jobs.database.name}_rollups"]
    rollups.state.update_one({"name": "milestones"}, {"$set": {"version": "another"}})
    jobs.insert_one({"jobId": "new", "createdAt": NOW.replace(year=2100)})  # not counted
    all_ids = list_ids(jobs, {}, -1)
    ids, meta = read_page(api, 20, per_page=7)
    assert (ids, meta["page_is_exact"]) == (all_ids[133:140], True)


def test_without_a_collector_and_stats_a_page_by_number_is_exact(jobs: Any, real_api: Api) -> None:
    jobs.insert_many(make_jobs("ascending"))
    all_ids = list_ids(jobs, {}, -1)
    ids, meta = read_page(real_api, 20, per_page=7)
    assert (ids, meta["page_is_exact"]) == (all_ids[133:140], True)
