"""Pages by number, found from milestones: catches a page at a wrong place that is called exact."""

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

JOBS, SEGMENT, STEP, CHEAP = 300, 20, 25, 10
PATH, PER_PAGE = "/admin/jobs/queue", 11
ODD = [None, 5, "a text", {"a": 1}, ObjectId("65f0c0ffee0123456789abcd"), True, ...]


class Collector:
    """Publishes stats and milestones as a collector does, when the test calls it."""

    def __init__(self, connection: Connection) -> None:
        own = OwnDatabase(rollup_database(connection), connection.queue_key)
        self._own, self._live = own, LiveStats(connection)
        self._writer = MilestoneWriter(own, connection.jobs.mapping)
        self.segments = SegmentMap(connection.jobs)
        self.segments.build(lambda _: None)
        self.publish()

    def change(self, *job_ids: Any) -> None:
        """Count these jobs again, and publish."""
        for job_id in job_ids:
            self.segments.mark(job_id)
        self.segments.recount()
        self.publish()

    def publish(self) -> None:
        counts = self.segments.totals
        self._writer.write(self.segments)
        milestones = self._writer.find_changes(self.segments)
        health = self._live.health(counts, NOW)
        self._own.write_state(STATS, dump_stats(counts, health, NOW, milestones))


@pytest.fixture
def queue(
    database: Database[dict[str, Any]], mongod: Mongod, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The collection of jobs. Limits are changed so that segments are small and milestones few."""
    for module, name, value in (
        (segments, "SEGMENT_JOBS", SEGMENT),
        (segments, "SPLIT_ABOVE", 2 * SEGMENT),
        (segments, "MERGE_BELOW", SEGMENT // 2),
        (milestone_writer, "MIN_JOBS", 50),
        (milestone_writer, "MAX_MILESTONES", JOBS // STEP),
        (milestone_writer, "READ_TIMES_SHARE", PATIENCE_S),
        (milestone_writer, "MAX_READ_TIMES_S", PATIENCE_S),
        (deep_pages, "MAX_CHEAP_SKIP", CHEAP),
        (list_count, "COUNT_EXACTLY_UP_TO", CHEAP),
        (reader, "MAX_STATS_AGE_MS", 10**9),
        (reader, "CACHE_MS", 0),
    ):
        monkeypatch.setattr(module, name, value)
    return database.jobs


@pytest.fixture
def collect(
    queue: Any, mongod: Mongod, make_settings: Callable[..., Settings]
) -> Iterator[Callable[..., tuple[Collector, Api]]]:
    """A function that starts a collector and the service, once the test has inserted the jobs."""
    opened = []

    def start(**changes: Any) -> tuple[Collector, Api]:
        settings = make_settings(
            mongo_uri=database_uri(mongod, queue.database),
            rollup_db=f"{queue.database.name}_rollups",
            **changes,
        )
        index_queue(settings)
        app = create_app(settings)
        opened.append(app.extensions["jobmon_connection"])
        return Collector(opened[-1]), Api(app)

    yield start
    for connection in opened:
        connection.client.drop_database(f"{queue.database.name}_rollups")
        connection.client.close()


def make_jobs(order: str) -> list[dict[str, Any]]:
    """Jobs whose dates are in the order of their _ids, or differ from it as `order` names."""
    pick = random.Random(7)
    jobs = []
    for number in range(JOBS):
        shift = 0
        if order == "producers":  # two of them: every second block of 15 jobs is 30 s later
            shift = 30 * (number // 15 % 2)
        second = number // 7 + shift if order != "random" else pick.randrange(JOBS)
        job = {
            "_id": ObjectId(number.to_bytes(12, "big")),
            "jobId": str(number),
            "type": f"type-{number % 3}",
            "status": pick.choice(["succeeded", "succeeded", "dlq", "queued"]),
            "createdAt": NOW + timedelta(seconds=second),
        }
        if order == "odd" and number % 40 == 0:
            job["createdAt"] = ODD[number // 40 % len(ODD)]
            if job["createdAt"] is ...:
                del job["createdAt"]
        if order == "imported" and 100 <= number < 130:
            job["createdAt"] = NOW - timedelta(days=number % 5)
        jobs.append(job)
    return jobs


def list_ids(jobs: Any, query: dict[str, Any], direction: int) -> list[str]:
    """The whole list, as the server sorts it."""
    order = [("createdAt", direction), ("_id", direction)]
    return [job["jobId"] for job in jobs.find(query).sort(order)]


def read_page(api: Api, page: int, **query: Any) -> tuple[list[str], dict[str, Any]]:
    answer = api.get_as_admin(PATH, page=page, **query)
    assert answer.status_code == 200, answer.text
    return [job["jobId"] for job in answer.json["data"]], answer.json["meta"]


@pytest.mark.parametrize("order", ["ascending", "producers", "imported", "odd", "random"])
def test_every_page_by_number_has_the_jobs_at_its_place(
    queue: Any, collect: Any, order: str
) -> None:
    """Catches a page that begins at another place, in either direction, with ties of createdAt."""
    queue.insert_many(make_jobs(order))
    _, api = collect()
    for filters, sort in (
        ({}, "-createdAt"),
        ({}, "createdAt"),
        ({"status": ["dlq", "queued"]}, "-createdAt"),
        ({"type": ["type-1"]}, "createdAt"),
        ({"status": ["succeeded"], "type": ["type-0", "type-2"]}, "-createdAt"),
    ):
        query = {name: {"$in": labels} for name, labels in filters.items()}
        truth = list_ids(queue, query, 1 if sort == "createdAt" else -1)
        pages = -(-len(truth) // PER_PAGE)
        for page in range(1, pages + 1):
            shown, meta = read_page(api, page, per_page=PER_PAGE, sort=sort, **filters)
            assert shown == truth[PER_PAGE * (page - 1) : PER_PAGE * page], (filters, sort, page)
            assert meta["page_is_exact"], (filters, sort, page)
            assert (meta["next_cursor"] is None) == (page == pages)
            assert (meta["prev_cursor"] is None) == (page == 1)
        assert read_page(api, pages + 1, per_page=PER_PAGE, sort=sort, **filters)[0] == []


def test_pages_of_a_program_whose_times_are_in_its_ids_are_found_too(
    queue: Any, collect: Any, mongod: Mongod
) -> None:
    """Catches _ids of the same second that are on the wrong side of a milestone."""
    jobs = queue.database.agendaJobs
    start = int(NOW.timestamp())
    jobs.insert_many(
        {
            "_id": ObjectId((start + number // 7).to_bytes(4, "big") + number.to_bytes(8, "big")),
            "name": f"type-{number % 3}",
            "nextRunAt": NOW if number % 4 else None,
            "lastFinishedAt": None if number % 4 else NOW,
        }
        for number in range(JOBS)
    )
    _, api = collect(profile="agenda", jobs_collection="agendaJobs")
    for filters, query in (({}, {}), ({"type": "type-1"}, {"name": "type-1"})):
        truth = [str(job["_id"]) for job in jobs.find(query).sort("_id", -1)]
        for page in range(1, -(-len(truth) // 7) + 1):
            with profiled(queue.database) as entries:
                shown, meta = read_page(api, page, per_page=7, **filters)
            assert (shown, meta["page_is_exact"]) == (truth[7 * (page - 1) : 7 * page], True), page
            keys = [entry.get("keysExamined", 0) for entry in entries]
            assert sum(keys) < 8 * STEP, page


def test_a_deep_page_and_the_last_one_read_few_keys_and_the_cursors_lead_on(
    queue: Any, collect: Any
) -> None:
    """Catches a page that skips all index keys before it, or reads the skipped jobs."""
    queue.insert_many(make_jobs("ascending"))
    _, api = collect()
    truth = list_ids(queue, {}, -1)
    for page in (25, 30, 42, 43):
        with profiled(queue.database) as entries:
            shown, meta = read_page(api, page, per_page=7)
        lists = [entry for entry in entries if entry.get("ns", "").endswith(".jobs")]
        assert sum(entry.get("keysExamined", 0) for entry in lists) < 4 * STEP, page
        finds = [entry for entry in lists if entry["op"] == "query"]
        assert sum(entry["docsExamined"] for entry in finds) <= 8
        assert shown == truth[7 * (page - 1) : 7 * page]
        if meta["next_cursor"] is not None:
            following = api.get_as_admin(PATH, cursor=meta["next_cursor"], per_page=7).json
            assert [job["jobId"] for job in following["data"]] == truth[7 * page : 7 * (page + 1)]


def test_pages_after_a_change_are_exact_only_where_no_older_job_has_changed(
    queue: Any, collect: Any
) -> None:
    """Catches a page that is called exact although jobs before its place were changed."""
    queue.insert_many(make_jobs("ascending"))
    collector, api = collect()
    new = ObjectId((2**40).to_bytes(12, "big"))
    queue.insert_one({"_id": new, "jobId": "new", "type": "t", "createdAt": NOW.replace(year=2100)})
    collector.change(new)
    truth = list_ids(queue, {}, -1)
    shown, meta = read_page(api, 20, per_page=7)
    assert (shown, meta["page_is_exact"], meta["reasons"]) == (truth[133:140], True, {})
    old = [ObjectId(number.to_bytes(12, "big")) for number in (3, 4)]
    queue.delete_many({"_id": {"$in": old}})
    collector.change(*old)
    for page in (20, 38):
        _, meta = read_page(api, page, per_page=7)
        assert not meta["page_is_exact"]
        assert "3 jobs may have changed" in meta["reasons"]["page"]
    truth = list_ids(queue, {}, -1)
    shown, meta = read_page(api, 43, per_page=7)  # the last page needs no milestone
    assert (shown, meta["page_is_exact"]) == (truth[294:], True)


def change_any(queue: Any, pick: random.Random, number: int) -> ObjectId:
    """Insert, delete or change a job; returns its _id."""
    job_id = ObjectId(pick.randrange(JOBS).to_bytes(12, "big"))
    match pick.choice(["insert", "delete", "status", "date"]):
        case "insert":
            job_id = ObjectId((JOBS + number).to_bytes(12, "big"))
            seconds = pick.choice([JOBS // 7 + number, pick.randrange(JOBS // 7)])
            new = {"type": "type-1", "createdAt": NOW + timedelta(seconds=seconds)}
            queue.insert_one({"_id": job_id, "jobId": f"new-{number}", "status": "dlq"} | new)
        case "delete":
            queue.delete_one({"_id": job_id})
        case "status":
            queue.update_one({"_id": job_id}, {"$set": {"status": "dlq"}})
        case "date":
            moved = NOW + timedelta(seconds=pick.randrange(JOBS // 7))
            queue.update_one({"_id": job_id}, {"$set": {"createdAt": moved}})
    return job_id


def test_a_page_after_any_changes_is_exact_or_off_by_no_more_than_it_reports(
    queue: Any, collect: Any
) -> None:
    """Catches a change that moves a page further than the reason of the page reports."""
    pick = random.Random(11)
    queue.insert_many(make_jobs("producers"))
    collector, api = collect()
    exact = shifted = 0
    for number in range(12):
        collector.change(*(change_any(queue, pick, 10 * number + digit) for digit in range(2)))
        for sort, status in (("-createdAt", None), ("createdAt", None), ("-createdAt", "dlq")):
            query = {} if status is None else {"status": status}
            truth = list_ids(queue, query, 1 if sort == "createdAt" else -1)
            for page in range(2, len(truth) // PER_PAGE, 4):
                shown, meta = read_page(api, page, per_page=PER_PAGE, sort=sort, **query)
                place = truth.index(shown[0])
                assert shown == truth[place : place + PER_PAGE]
                shift = abs(place - PER_PAGE * (page - 1))
                reported = 0
                if not meta["page_is_exact"]:
                    reported = int(meta["reasons"]["page"].split("; ")[1].split()[0])
                assert shift <= reported, (number, sort, status, page)
                exact, shifted = exact + meta["page_is_exact"], shifted + (shift > 0)
    assert exact
    assert shifted


def test_the_page_of_jobs_links_the_last_page_and_marks_a_page_that_is_not_exact(
    queue: Any, collect: Any
) -> None:
    queue.insert_many(make_jobs("ascending"))
    collector, api = collect()
    viewer = signed_in(api)
    first = viewer.page("/dashboard/jobs?per_page=7&status=succeeded&status=dlq")
    pages = int(first.text.split("page 1 of ")[1].split()[0])
    (address,) = {link for link in first.addresses() if f"page={pages}" in link}
    last = viewer.page(address)
    assert f"page {pages} of {pages}" in last.text
    links = [link for link in last.addresses() if "per_page=7" in link]
    assert any("&page=" not in link and "cursor=" not in link for link in links)  # the first page
    assert "about" not in first.text + last.text
    old = ObjectId((3).to_bytes(12, "big"))
    queue.delete_one({"_id": old})
    collector.change(old)
    shifted = viewer.page("/dashboard/jobs?per_page=7&page=20")
    assert "about page 20 of" in " ".join(shifted.text.split())


def test_milestones_that_another_collector_counted_are_not_used(queue: Any, collect: Any) -> None:
    """Catches a page from another collector's milestones: the changes since then are unknown."""
    queue.insert_many(make_jobs("ascending"))
    _, api = collect()
    state = api.app.extensions["jobmon_connection"].client
    rollups = state[f"{queue.database.name}_rollups"]
    rollups.state.update_one({"name": "milestones"}, {"$set": {"version": "another"}})
    truth = list_ids(queue, {}, -1)
    shown, meta = read_page(api, 20, per_page=7)
    assert (shown, meta["page_is_exact"]) == (truth[133:140], True)


def test_without_a_collector_a_page_is_exact_except_near_the_end(queue: Any, real_api: Api) -> None:
    queue.insert_many(make_jobs("ascending"))
    truth = list_ids(queue, {}, -1)
    shown, meta = read_page(real_api, 20, per_page=7)
    assert (shown, meta["page_is_exact"]) == (truth[133:140], True)
