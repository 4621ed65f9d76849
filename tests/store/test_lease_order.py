"""The place of a job among the due jobs, on the real server: catches a number of jobs ahead that
differs from the order in which workers take jobs, and a count that reads more than its bound."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.monitoring import CommandListener

from jobmon.demo.mongod import Mongod
from jobmon.domain import CappedCount
from jobmon.queue import JobQueue
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store import lease_order
from jobmon.store.connection import Connection
from jobmon.store.lease_order import Place, PlaceFinder, UnknownPlaceError

from ..support.commands import database_uri

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
# The keys of the index that Agenda creates when it starts.
AGENDA_KEYS = [("name", 1), ("nextRunAt", 1), ("priority", -1), ("lockedAt", 1), ("disabled", 1)]
MongoDb = Database[dict[str, Any]]


@pytest.fixture
def connect(mongod: Mongod, database: MongoDb) -> Iterator[Callable[..., Connection]]:
    """A function that opens a connection to `database` with these settings."""
    opened: list[Connection] = []

    def connect(**settings: Any) -> Connection:
        uri = database_uri(mongod, database)
        opened.append(Connection(Settings(mongo_uri=uri, **settings)))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.client.close()


def make_job(number: int, **changes: Any) -> dict[str, Any]:
    fields = {"type": "mail", "status": "queued", "priority": 0, "nextRunAt": NOW}
    return {"jobId": f"j{number}"} | fields | changes


def find_place(connection: Connection, due_job: dict[str, Any], now: datetime = NOW) -> Place:
    return PlaceFinder(connection).find_place(due_job, now)


@pytest.mark.parametrize("share_from", [lease_order.SHARE_FROM, 0])
def test_ahead_is_the_number_of_jobs_that_workers_take_first(
    connect: Callable[..., Connection],
    database: MongoDb,
    monkeypatch: pytest.MonkeyPatch,
    share_from: int,
) -> None:
    """With `share_from` 0, callers share the due jobs that were read, even if few are ahead."""
    monkeypatch.setattr(lease_order, "SHARE_FROM", share_from)
    connection = connect()
    create_indexes(connection)
    generator = random.Random(7)
    database.jobs.insert_many(
        make_job(
            number,
            type=generator.choice(["mail", "pay", None]),
            status=generator.choice(["queued", "queued", "failed", "leased", "succeeded"]),
            priority=generator.choice([-5, 0, 0, 0.5, 10, None]),
            # The last two jobs are not due.
            nextRunAt=NOW + timedelta(seconds=number - 57),
        )
        for number in range(60)
    )
    database.jobs.insert_many(
        [make_job(60, nextRunAt=None), {"jobId": "j61", "status": "queued", "type": "pay"}]
    )
    due_jobs = {
        due_job["jobId"]: due_job
        for due_job in database.jobs.find({"status": {"$in": ["queued", "failed"]}})
        if (due_job.get("nextRunAt") or NOW) <= NOW
    }
    assert len(due_jobs) > 20
    finder = PlaceFinder(connection)
    places = {job_id: finder.find_place(due_job, NOW) for job_id, due_job in due_jobs.items()}
    queue = JobQueue(database, clock=lambda: NOW)
    leased_types: list[Any] = []
    for leased_before in range(len(due_jobs)):
        lease = queue.lease("w")
        assert lease
        place, job_type = places[lease.job_id], lease.job.get("type")
        assert place.ahead == CappedCount(leased_before, True), due_jobs[lease.job_id]
        assert place.is_exact
        assert place.same_type == leased_types.count(job_type)
        leased_types.append(job_type)
    assert queue.lease("w") is None


def test_jobs_with_the_same_place_are_counted_as_tied_not_as_ahead(
    connect: Callable[..., Connection], database: MongoDb
) -> None:
    connection = connect()
    create_indexes(connection)
    database.jobs.insert_many(
        [make_job(1, priority=1), make_job(2), make_job(3), make_job(4, type="pay")]
    )
    place = find_place(connection, make_job(2))
    assert (place.ahead, place.tied) == (CappedCount(1, True), CappedCount(2, True))
    assert (place.same_type, place.outranking, place.is_exact) == (2, 1, False)


def test_many_jobs_with_the_same_place_do_not_count_as_ahead(
    connect: Callable[..., Connection], database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches "more than 10,000 are ahead" after an insert of many jobs that are due together."""
    monkeypatch.setattr(lease_order, "MAX_AHEAD", 20)
    monkeypatch.setattr(lease_order, "SHARE_FROM", 5)
    connection = connect()
    create_indexes(connection)
    database.jobs.insert_many(make_job(number) for number in range(30))
    assert find_place(connection, make_job(0)).ahead == CappedCount(0, True)
    database.jobs.insert_many(
        make_job(number, nextRunAt=NOW - HOUR, status="failed") for number in range(30, 33)
    )
    place = find_place(connection, make_job(0))
    assert place.ahead == CappedCount(3, True)
    assert not place.tied.is_exact
    assert 10 < place.tied.value < 29
    assert not place.is_exact
    later_job = make_job(40, nextRunAt=NOW + timedelta(seconds=1))
    assert find_place(connection, later_job, NOW + HOUR).ahead == CappedCount(20, False)


class SentAggregations(CommandListener):
    """Keeps the aggregations that a client sends, with the fields that `explain` accepts."""

    def __init__(self) -> None:
        self.commands: list[dict[str, Any]] = []

    def started(self, event: Any) -> None:
        if event.command_name == "aggregate":
            fields = ("aggregate", "pipeline", "hint", "cursor", "collation", "maxTimeMS")
            self.commands.append({name: event.command[name] for name in fields})

    def succeeded(self, event: Any) -> None:
        pass

    def failed(self, event: Any) -> None:
        pass


def test_a_count_reads_index_keys_up_to_its_bound_and_no_document(
    mongod: Mongod, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_order, "MAX_AHEAD", 200)
    monkeypatch.setattr(lease_order, "SHARE_FROM", 50)
    uri, sent = database_uri(mongod, database), SentAggregations()
    with MongoClient[dict[str, Any]](uri, event_listeners=[sent], tz_aware=True) as client:
        connection = Connection(Settings(mongo_uri=uri), client)
        create_indexes(connection)
        statuses = ["queued", "failed", "succeeded"]
        database.jobs.insert_many(
            make_job(
                number,
                status=statuses[number % 3],
                priority=number % 4,
                nextRunAt=NOW + (HOUR if number % 5 == 0 else timedelta(seconds=-number)),
            )
            for number in range(3_000)
        )
        finder = PlaceFinder(connection)
        place = finder.find_place(make_job(0), NOW)
        assert place.ahead == CappedCount(200, False)
        assert not place.is_exact
        assert finder.find_place(make_job(0), NOW) == place
        early_job = make_job(0, priority=3, nextRunAt=NOW - timedelta(seconds=2_900))
        assert find_place(connection, early_job).is_exact
        for command in sent.commands:
            plan = database.command({"explain": command, "verbosity": "executionStats"})
            plan = plan if "executionStats" in plan else plan["stages"][0]["$cursor"]
            stats = plan["executionStats"]
            assert plan["queryPlanner"]["rejectedPlans"] == []  # no other plan is tried
            assert command["maxTimeMS"] > 0
            assert stats["totalDocsExamined"] == 0, command
            # The other 60: a few keys for each range of the index.
            assert stats["totalKeysExamined"] <= 200 + 60, command
    # Each finder first counts up to 50 jobs. The first finder then reads, for all callers, the jobs
    # with higher priorities, and for each of two statuses the jobs with the same priority.
    assert len(sent.commands) == 5


@pytest.mark.parametrize(
    ("due_job", "reason"),
    [
        (make_job(1, priority="high"), "priority of the job is not a number"),
        (make_job(1, priority=True), "priority of the job is not a number"),
        (make_job(1, nextRunAt="soon"), "nextRunAt of the job is not a date"),
        (make_job(1, type=["mail"]), "the type of the job is not a string or a number"),
        (make_job(1), "indexes are missing"),
    ],
)
def test_an_unknown_place_has_a_reason(
    connect: Callable[..., Connection],
    database: MongoDb,
    due_job: dict[str, Any],
    reason: str,
) -> None:
    database.jobs.insert_one(make_job(2))
    with pytest.raises(UnknownPlaceError, match=reason):
        find_place(connect(), due_job)


@pytest.mark.parametrize(
    "settings",
    [
        {"profile": "celery"},
        {"profile": "mongodb-queue"},
        {"job_fields": {"priority": "urgency"}},
        {"status_names": {"done": "succeeded"}},
    ],
)
def test_the_place_is_unknown_if_the_order_of_the_workers_is_unknown(
    connect: Callable[..., Connection], settings: dict[str, Any]
) -> None:
    with pytest.raises(UnknownPlaceError, match="in which order the workers take jobs"):
        find_place(connect(**settings), make_job(1))


def make_agenda_job(number: int, **changes: Any) -> dict[str, Any]:
    fields = {"name": "mail", "priority": 0, "nextRunAt": NOW, "lockedAt": None}
    return {"_id": number} | fields | changes


def test_agenda_takes_the_jobs_of_each_name_by_date_and_then_by_priority(
    connect: Callable[..., Connection], database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_order, "MAX_READ", 8)
    monkeypatch.setattr(lease_order, "SHARE_FROM", 5)
    connection = connect(profile="agenda", jobs_collection="agendaJobs")
    create_indexes(connection)
    # `create_indexes` must not have created this index: Agenda fails if it has another name.
    database.agendaJobs.create_index(AGENDA_KEYS, name="findAndLockNextJobIndex")
    early = NOW - HOUR
    database.agendaJobs.insert_many(
        [
            make_agenda_job(1, nextRunAt=early),
            make_agenda_job(2, nextRunAt=early, lockedAt=NOW),
            make_agenda_job(3, nextRunAt=early, disabled=True),
            make_agenda_job(4, nextRunAt=early, failedAt=early, lastFinishedAt=early),
            make_agenda_job(5, nextRunAt=None, lastFinishedAt=early),
            make_agenda_job(6, nextRunAt=early, name="pay"),
            make_agenda_job(7, priority=10),
            make_agenda_job(8),
            make_agenda_job(9),
            make_agenda_job(10, nextRunAt=NOW + HOUR, priority=10),
        ]
    )
    jobs = {due_job["jobId"]: due_job for due_job in connection.jobs.find({})}
    # Jobs 1, 4 and 7 are ahead of job 8, and job 9 has the same place.
    place = find_place(connection, jobs[8])
    assert (place.ahead, place.tied) == (CappedCount(3, True), CappedCount(1, True))
    assert (place.same_type, place.outranking, place.each_type) == (4, 0, True)
    database.agendaJobs.insert_many(
        make_agenda_job(number, nextRunAt=early, disabled=True) for number in range(20, 40)
    )
    # Disabled jobs are not counted, but they are read: so fewer of the jobs ahead are read.
    assert find_place(connection, jobs[8]).ahead == CappedCount(1, False)


def test_the_place_of_an_agenda_job_needs_the_index_of_agenda(
    connect: Callable[..., Connection], database: MongoDb
) -> None:
    connection = connect(profile="agenda", jobs_collection="agendaJobs")
    database.agendaJobs.insert_one(make_agenda_job(1))
    (due_job,) = connection.jobs.find({})
    with pytest.raises(UnknownPlaceError, match="indexes are missing"):
        find_place(connection, due_job)
    database.agendaJobs.create_index(AGENDA_KEYS, name="findAndLockNextJobIndex")
    assert find_place(connection, due_job).ahead == CappedCount(0, True)


def test_jobs_without_a_priority_are_ahead_if_the_lowest_comes_first(
    connect: Callable[..., Connection], database: MongoDb, tmp_path: Path
) -> None:
    """Catches their loss in a queue whose waiting jobs are those with a nextRunAt."""
    path = tmp_path / "shop.toml"
    path.write_text(
        'extends = "agenda"\n[lease]\norder = ["priority", "nextRunAt"]\n'
        'index = ["priority", "nextRunAt"]\n'
    )
    connection = connect(profile=str(path), jobs_collection="agendaJobs")
    database.agendaJobs.create_index([("priority", 1), ("nextRunAt", 1)])
    database.agendaJobs.insert_many(
        [make_agenda_job(1, priority=None), make_agenda_job(2, priority=-1), make_agenda_job(3)]
    )
    jobs = {due_job["jobId"]: due_job for due_job in connection.jobs.find({})}
    assert find_place(connection, jobs[3]).ahead == CappedCount(2, True)


@pytest.mark.parametrize("share_from", [lease_order.SHARE_FROM, 0])
def test_a_profile_can_set_the_lease_order(
    connect: Callable[..., Connection],
    database: MongoDb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share_from: int,
) -> None:
    """Also catches jobs with an earlier date that are reported as jobs with a higher priority."""
    monkeypatch.setattr(lease_order, "SHARE_FROM", share_from)

    def find_place_in_order(order: str, due_job: dict[str, Any]) -> Place:
        path = tmp_path / "shop.toml"
        path.write_text(f'extends = "jobmon"\n[lease]\norder = [{order}]\n')
        connection = connect(profile=str(path))
        create_indexes(connection)
        return find_place(connection, due_job)

    database.jobs.insert_many(
        make_job(number, priority=number, createdAt=NOW - timedelta(seconds=number))
        for number in (1, 2, 3)
    )
    lowest_first = find_place_in_order(
        '"priority", "createdAt"', make_job(3, priority=3, createdAt=NOW - timedelta(seconds=3))
    )
    assert (lowest_first.ahead.value, lowest_first.outranking) == (2, 2)
    for order in ('"createdAt"', '"createdAt", "nextRunAt"'):
        newest_job = make_job(1, createdAt=NOW - timedelta(seconds=1))
        oldest_first = find_place_in_order(order, newest_job)
        assert (oldest_first.ahead.value, oldest_first.outranking) == (2, 0)
    # A missing date is the first in the order.
    assert find_place_in_order('"nextRunAt"', make_job(9, nextRunAt=None)).ahead == CappedCount(
        0, True
    )
