"""Errors, workers and slowest runs on the real server: catches a failed run that is counted in no
group or in two, and a worker or a long run that is missing."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from bson import Binary, Decimal128, MinKey, ObjectId, Regex, encode
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database

from jobmon.collector import error_groups as error_groups_module
from jobmon.collector import run_details_counter as counter_module
from jobmon.collector.error_groups import ErrorGroups
from jobmon.collector.run_details_counter import RunDetailsCounter
from jobmon.demo.mongod import Mongod
from jobmon.diagnosis.error_kinds import classify_error
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.activity import count_activity
from jobmon.rollup.buckets import HOUR, MINUTE, dump_bucket, floor
from jobmon.rollup.documents import OwnDatabase, rollup_database
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.run_details import ErrorPair, RunDetails, WorkerType
from jobmon.rollup.run_history import RunHistoryReader
from jobmon.rollup.series import NoCollectorError, SeriesReader
from jobmon.rollup.windows import Window
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from jobmon.store.labels import OTHER

from ..conftest import NOW
from ..support.commands import database_uri
from ..support.error_counts import count_by_group
from ..support.history import writing_history
from ..support.processes import end_process
from ..support.services import start_collector
from ..support.waiting import eventually

MongoDb = Database[dict[str, Any]]
ERRORS = (
    {
        "code": "ETIMEDOUT",
        "message": "timeout of 3000 ms",
        "stack": "Error: timeout\n  at a (b.js:1)",
    },
    {"code": "ETIMEDOUT", "message": "timeout of 500 ms"},
    {"code": "E_BANK", "message": "The bank refused account 4711"},
    {"code": "E_BANK", "message": "The bank refused account 4712"},
    "connection reset by 10.0.0.1",
    None,
)
TIMEOUT_ERROR, BANK_ERROR, SECOND_BANK_ERROR = ERRORS[0], ERRORS[2], ERRORS[3]


@pytest.fixture
def connection(
    mongod: Mongod, database: MongoDb, make_settings: Callable[..., Settings]
) -> Iterator[Connection]:
    uri = database_uri(mongod, database)
    connection = Connection(make_settings(mongo_uri=uri, rollup_db=f"{database.name}_rollups"))
    create_indexes(connection)
    yield connection
    connection.client.close()


def add_attempts(database: MongoDb, *attempts: dict[str, Any]) -> None:
    """Insert attempts, each with a job of its own."""
    numbered = [{"jobId": str(ObjectId()), "attemptNumber": 1} | attempt for attempt in attempts]
    database.jobs.insert_many(
        {
            "jobId": attempt["jobId"],
            "type": attempt.pop("type", "mail"),
            "createdAt": attempt["finishedAt"],
        }
        for attempt in numbered
    )
    database.job_attempts.insert_many(numbered)


def make_attempt(finished_at: datetime, error: Any, **fields: Any) -> dict[str, Any]:
    return {
        "status": "failed",
        "startedAt": finished_at - timedelta(milliseconds=40),
        "finishedAt": finished_at,
        "workerId": "worker-1",
        "error": error,
    } | fields


def make_counter(connection: Connection) -> tuple[RunDetailsCounter, ErrorGroups]:
    groups = ErrorGroups(OwnDatabase(rollup_database(connection), connection.queue_key), Redactor())
    return RunDetailsCounter(connection, groups), groups


def count_details(connection: Connection) -> RunDetails:
    """The details of the hour that contains `NOW`."""
    start = floor(NOW, HOUR)
    counted = count_activity(connection, start, start + HOUR, HOUR)
    counter, groups = make_counter(connection)
    details = counter.count(counted, HOUR)
    groups.write()
    return details[start]


def test_failed_runs_are_counted_by_group_type_and_worker(
    connection: Connection, database: MongoDb
) -> None:
    ended = floor(NOW, HOUR) + MINUTE
    add_attempts(
        database,
        make_attempt(ended, TIMEOUT_ERROR),
        make_attempt(ended, BANK_ERROR),
        make_attempt(ended, SECOND_BANK_ERROR, type="pay", workerId="worker-2"),
        make_attempt(ended, None, status="expired", workerId=None),
        make_attempt(ended, None, status="succeeded"),
        make_attempt(ended, None, status="running"),
    )
    details = count_details(connection)
    timeout, bank = (classify_error(error).id for error in (TIMEOUT_ERROR, BANK_ERROR))
    (expired,) = {group for group, _ in details.by_type} - {timeout, bank}
    assert details.by_type == {
        ErrorPair(timeout, "mail"): 1,
        ErrorPair(bank, "mail"): 1,
        ErrorPair(bank, "pay"): 1,
        ErrorPair(expired, "mail"): 1,
    }
    assert details.by_worker == {
        ErrorPair(timeout, "worker-1"): 1,
        ErrorPair(bank, "worker-1"): 1,
        ErrorPair(bank, "worker-2"): 1,
    }
    outcomes = {pair: dict(tally.outcomes) for pair, tally in details.worker_types.items()}
    assert outcomes == {
        ("worker-1", "mail"): {"failed": 2, "succeeded": 1},
        ("worker-2", "pay"): {"failed": 1},
    }
    assert details.worker_types[WorkerType("worker-1", "mail")].last_at == ended


PROFILE_WITH_OUTCOMES = """\
collection = "tasks"
status = { path = "status" }
[fields]
jobId = "_id"
createdAt = "at"
finishedAt = "at"
leasedBy = "host"
[attempts]
in = "job"
outcome = [
  { is = "expired", when = { result = "lost" } },
  { is = "running", when = { result = "open" } },
  { is = "succeeded" },
]
"""


def test_outcome_rules_of_a_profile_decide_which_runs_ended_and_failed(
    mongod: Mongod, database: MongoDb, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Catches an expired run that is in no group of errors, and a running run that is counted."""
    path = tmp_path / "tasks.toml"
    path.write_text(PROFILE_WITH_OUTCOMES)
    uri = database_uri(mongod, database)
    settings = make_settings(
        mongo_uri=uri,
        rollup_db=f"{database.name}_rollups",
        profile=str(path),
        jobs_collection="tasks",
    )
    database.tasks.insert_many(
        {"_id": result, "status": "queued", "at": NOW, "result": result, "host": "w"}
        for result in ("lost", "open", "done")
    )
    with closing(Connection(settings)) as connection:
        create_indexes(connection)
        details = count_details(connection)
    ((group, _),) = details.by_type.elements()
    assert group != OTHER
    (tally,) = details.worker_types.values()
    assert tally.outcomes == {"expired": 1, "succeeded": 1}


def test_slowest_runs_of_each_type_are_kept(connection: Connection, database: MongoDb) -> None:
    ended = floor(NOW, HOUR) + MINUTE
    durations = [timedelta(milliseconds=index * 7 % 50 + 1) for index in range(50)]
    add_attempts(
        database,
        *(
            make_attempt(ended, None, status="succeeded", startedAt=ended - duration)
            for duration in durations
        ),
        make_attempt(ended, None, status="succeeded", type="fast", attemptNumber=3),
        make_attempt(ended, None, status="succeeded", type="odd", startedAt="long ago"),
    )
    details = count_details(connection)
    assert [run.duration_ms for run in details.slowest["mail"]] == [50, 49, 48, 47, 46]
    (fast,) = details.slowest["fast"]
    assert (fast.duration_ms, fast.attempt, fast.worker) == (40, 3, "worker-1")
    assert (fast.outcome, fast.finished_at) == ("succeeded", ended)
    assert "odd" not in details.slowest


def test_more_errors_than_are_read_are_counted_as_other(
    connection: Connection, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter_module, "MAX_ERRORS_READ", 10)
    start = floor(NOW, HOUR)
    # Errors are read in windows of at most 10 failed runs; only one minute has more.
    add_attempts(
        database,
        *(make_attempt(start + MINUTE, BANK_ERROR) for _ in range(25)),
        *(make_attempt(start + index * MINUTE, BANK_ERROR) for index in range(2, 7)),
    )
    counted = count_activity(connection, start, start + HOUR, MINUTE)
    details = make_counter(connection)[0].count(counted, MINUTE)
    bank = classify_error(BANK_ERROR).id
    assert details[start + MINUTE].by_type == {
        ErrorPair(bank, "mail"): 10,
        ErrorPair(OTHER, "mail"): 15,
    }
    assert details[start + MINUTE].by_worker == {
        ErrorPair(bank, "worker-1"): 10,
        ErrorPair(OTHER, "worker-1"): 15,
    }
    assert details[start + 2 * MINUTE].by_type == {ErrorPair(bank, "mail"): 1}


def test_errors_of_minutes_that_are_not_counted_again_are_not_read(
    connection: Connection, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counter_module, "MAX_ERRORS_READ", 10)
    start = floor(NOW, HOUR)
    minutes = [start, *[start + MINUTE] * 25, start + 2 * MINUTE]
    add_attempts(database, *(make_attempt(minute, BANK_ERROR) for minute in minutes))
    counted = count_activity(connection, start, start + HOUR, MINUTE)
    changed = [start, start + 2 * MINUTE]
    details = make_counter(connection)[0].count(counted, MINUTE, only=changed)
    bank = {ErrorPair(classify_error(BANK_ERROR).id, "mail"): 1}
    assert {minute: counts.by_type for minute, counts in details.items()} == dict.fromkeys(
        changed, bank
    )


def test_an_error_that_the_server_cannot_read_hides_no_other_minute(
    connection: Connection, database: MongoDb
) -> None:
    start = floor(NOW, HOUR)
    add_attempts(
        database,
        make_attempt(start, BANK_ERROR),
        make_attempt(start + 2 * MINUTE, {"odd": {}}, attemptNumber="odd"),
    )
    add_attempts(database, make_attempt(start + 3 * MINUTE, "x" * 5))
    # Invalid UTF-8, as only a broken driver writes it.
    attempt = database.job_attempts.find_one_and_delete({"error": "x" * 5})
    assert attempt is not None
    data = encode(attempt).replace(b"xxxxx", b"\xff\xfe\xff\xfe\xff")
    database.job_attempts.insert_one(RawBSONDocument(data))
    counted = count_activity(connection, start, start + HOUR, MINUTE)
    details = make_counter(connection)[0].count(counted, MINUTE)
    assert details[start].by_type == {ErrorPair(classify_error(BANK_ERROR).id, "mail"): 1}
    assert details[start + 2 * MINUTE].failed == 1
    assert details[start + 3 * MINUTE].by_type == {ErrorPair(OTHER, "mail"): 1}


def test_odd_values_lose_no_failed_run_and_store_no_secret(
    connection: Connection, database: MongoDb
) -> None:
    """Catches a document that stops the history, is not counted, or is stored whole."""
    ended = floor(NOW, HOUR) + MINUTE
    huge, secret = "é" * 500_000, "hunter2secret"
    hidden = {"password": secret}
    odd_values: list[dict[str, Any]] = [
        {"jobId": huge, "workerId": huge, "error": huge},
        {"jobId": hidden, "workerId": hidden, "type": hidden, "error": hidden},
        {"jobId": [hidden], "workerId": [hidden], "type": [hidden], "error": [hidden]},
        {"workerId": f"amqp://w:{secret}@host", "error": {"code": [hidden], "message": hidden}},
        {"error": {"stack": f"Error: no login, password={secret}\n    at a (/app/b.js:1:1)"}},
        {"error": {"code": f"token={secret}", "message": "a\0b"}, "workerId": "a\0b"},
        {"error": {"code": Decimal128("1.5"), "message": 7, "stack": NOW}, "workerId": 7},
        {"error": Binary(b"\xff"), "workerId": True, "jobId": MinKey(), "type": Regex("a")},
        {"startedAt": ended + HOUR},
        {"startedAt": DatetimeMS(400_000_000_000_000)},
        {"startedAt": [ended], "error": f"{'x ' * 490} amqp://worker:{secret}{secret}@host"},
    ]
    add_attempts(database, *(make_attempt(ended, None) | fields for fields in odd_values))
    details = count_details(connection)
    assert details.failed == len(odd_values)
    assert details.by_worker.total() == len(odd_values)
    assert sum(tally.runs for tally in details.worker_types.values()) == len(odd_values)
    errors = list(rollup_database(connection).errors.find())
    bucket = dump_bucket(MINUTE, ended, {}, details)
    assert secret not in str((errors, bucket))
    assert len(encode(bucket)) < 20_000
    assert max(len(encode(group)) for group in errors) < 20_000


def test_runs_without_a_job_that_end_at_the_same_time_keep_their_errors(
    connection: Connection, database: MongoDb
) -> None:
    ended = floor(NOW, HOUR) + MINUTE
    unknown = {"jobId": None, "workerId": None}
    add_attempts(database, *(make_attempt(ended, error, **unknown) for error in ERRORS))
    expected = Counter(classify_error(error).id for error in ERRORS)
    assert count_by_group(count_details(connection)) == expected


def test_failed_runs_that_are_not_found_again_are_counted_as_other(
    connection: Connection, database: MongoDb
) -> None:
    """Catches a failed run that is lost if its attempt is deleted before its error is read."""
    start = floor(NOW, MINUTE)
    errors = (BANK_ERROR, BANK_ERROR, TIMEOUT_ERROR)
    add_attempts(database, *(make_attempt(start, error) for error in errors))
    counted = count_activity(connection, start, start + MINUTE, MINUTE)
    database.job_attempts.delete_many({"error.code": "E_BANK"})
    counter = make_counter(connection)[0]
    timeout = classify_error(TIMEOUT_ERROR).id
    groups = count_by_group(counter.count(counted, MINUTE)[start])
    assert groups == {OTHER: 2, timeout: 1}
    database.job_attempts.delete_many({})
    assert count_by_group(counter.count(counted, MINUTE)[start]) == {OTHER: 3}


def test_groups_are_bounded_for_each_code_and_in_total(
    connection: Connection, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS_OF_CODE", 3)
    monkeypatch.setattr(error_groups_module, "MAX_GROUPS", 6)
    start = floor(NOW, HOUR)
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot"]
    texts = [f"{first} {second}" for first in words for second in words]
    noise = [{"code": "E_NOISE", "message": text} for text in texts]
    add_attempts(database, *(make_attempt(start, error) for error in noise))
    others = [{"code": word, "message": "m"} for word in words]
    add_attempts(database, *(make_attempt(start + MINUTE, error) for error in others))
    details = count_details(connection)
    groups = RollupReader(connection).error_groups()
    counts = count_by_group(details)
    noisy = [group for group in groups.values() if group.code == "E_NOISE"]
    assert len(groups) == 6
    assert sorted(counts[group.id] for group in noisy) == [1, 1, 1, 33]
    assert counts[OTHER] == 4
    assert counts.total() == len(noise) + len(words)


def test_a_group_keeps_its_first_and_last_time_and_newest_jobs_but_no_secret(
    connection: Connection, database: MongoDb
) -> None:
    start = floor(NOW, HOUR)
    error = {
        "code": "E_AUTH",
        "message": "login failed: password=hunter2secret",
        "stack": "Error: login\n    at login (/app/src/auth.js:10:5)\n token=abcdef0123456789",
    }
    add_attempts(
        database,
        *(make_attempt(start + index * MINUTE, error, jobId=f"j-{index}") for index in range(15)),
    )
    count_details(connection)
    (group,) = RollupReader(connection).error_groups().values()
    assert (group.first_seen, group.last_seen) == (start, start + 14 * MINUTE)
    assert [job.job_id for job in group.jobs] == [f"j-{index}" for index in range(14, 4, -1)]
    sampled = RollupReader(connection).error_group(group.id)
    assert sampled is not None
    assert "at login" in str(sampled.stack)
    stored = str(list(rollup_database(connection)["errors"].find()))
    assert "hunter2secret" not in stored
    assert "abcdef0123456789" not in stored


def test_long_traceback_is_grouped_by_its_end(connection: Connection, database: MongoDb) -> None:
    """Catches a group that has neither the error nor the function that raised it."""
    start = floor(NOW, HOUR)
    library = '  File "/usr/lib/python3/site-packages/a.py", line 7, in call\n    return f()\n'
    stack = (
        f"Traceback (most recent call last):\n{library * 900}"
        '  File "/app/pay.py", line 3, in charge\n    raise error\nCardDeclined: card 7'
    )
    errors = [{"message": None, "stack": stack}, stack, f"{stack}8"]
    add_attempts(database, *(make_attempt(start, error) for error in errors))
    count_details(connection)
    (group,) = RollupReader(connection).error_groups().values()
    assert (group.code, group.pattern) == ("CardDeclined", "card <value>")
    assert group.frame == "charge (/app/pay.py)"
    sampled = RollupReader(connection).error_group(group.id)
    assert sampled is not None
    assert sampled.message == "CardDeclined: card 7"
    assert str(sampled.stack).endswith(stack[-5_000:])


class Counts(NamedTuple):
    """Failed runs by group of errors, and runs by worker and type."""

    failed_runs: Counter[str]
    runs: Counter[WorkerType]


def read_counts(connection: Connection, step: timedelta) -> Counts | None:
    """Counts of the last three hours; None without a history or if its steps have other sums."""
    rollup = RollupReader(connection)
    reader = RunHistoryReader(rollup, SeriesReader(connection, rollup))
    now = datetime.now(UTC)
    window = Window.from_steps(now - 3 * HOUR, now + MINUTE, step)
    try:
        details, steps = reader.read(window).details, reader.errors_by_step(window)
    except NoCollectorError:
        return None
    sums: Counter[ErrorPair] = Counter()
    for groups in steps.values():
        for group, counts in groups.items():
            sums.update({ErrorPair(group, job_type): count for job_type, count in counts.items()})
    runs = Counter({pair: tally.runs for pair, tally in details.worker_types.items()})
    return Counts(count_by_group(details), runs) if sums == details.by_type else None


def has_counts(connection: Connection, step: timedelta, expected: Counts) -> bool:
    return read_counts(connection, step) == expected


def make_failures(rng: random.Random, within_s: int, count: int) -> list[dict[str, Any]]:
    """Failed attempts at random times in the last `within_s` seconds, with random errors."""
    now = datetime.now(UTC)
    return [
        make_attempt(
            now - timedelta(seconds=rng.randrange(within_s)),
            rng.choice(ERRORS),
            workerId=f"w-{rng.randrange(5)}",
            type=f"type-{index % 3}",
        )
        for index in range(count)
    ]


def count_attempts(attempts: list[dict[str, Any]]) -> Counts:
    groups = Counter(classify_error(attempt["error"]).id for attempt in attempts)
    workers = (WorkerType(attempt["workerId"], attempt["type"]) for attempt in attempts)
    return Counts(groups, Counter(workers))


def test_counts_equal_a_recount_of_the_attempts_through_restarts(
    connection: Connection, database: MongoDb
) -> None:
    """Catches a failed run that is lost or counted twice at a restart, or in a larger span."""
    rng, added = random.Random(7), list[dict[str, Any]]()
    for _ in range(3):
        new = make_failures(rng, 9_000, 60)
        add_attempts(database, *new)
        added += new
        rollup_database(connection).state.update_one(
            {"name": "progress"}, {"$set": {"completeUntil": datetime.now(UTC) - 4 * HOUR}}
        )
        with writing_history(connection):
            for step in (MINUTE, HOUR):
                eventually(partial(has_counts, connection, step, count_attempts(added)))


def test_counts_equal_a_recount_although_collectors_are_killed_and_jobs_deleted(
    connection: Connection, database: MongoDb
) -> None:
    """Catches a failed run that is lost or counted twice at a fail-over or a deletion."""
    rng = random.Random(8)
    rollups, added = rollup_database(connection), list[dict[str, Any]]()

    def add_failures(within_s: int, count: int) -> None:
        new = make_failures(rng, within_s, count)
        add_attempts(database, *new)
        added.extend(new)

    def is_counted() -> bool:
        return all(has_counts(connection, step, count_attempts(added)) for step in (MINUTE, HOUR))

    @contextmanager
    def running_collector() -> Iterator[None]:
        """A collector that is killed after the block, and whose lease then counts as expired."""
        settings = connection.settings
        process = start_collector(
            JOBMON_MONGO_URI=settings.mongo_uri, JOBMON_ROLLUP_DB=str(settings.rollup_db)
        )
        try:
            yield
        finally:
            end_process(process, None)
        rollups.leases.delete_many({})

    add_failures(9_000, 80)
    with running_collector():  # killed during the first count, maybe during a write
        eventually(lambda: rollups.buckets.count_documents({}) > 5)
        add_failures(600, 40)
    with running_collector():
        eventually(is_counted)
        deleted = list(database.job_attempts.find().limit(50))
        query = {"jobId": {"$in": [attempt["jobId"] for attempt in deleted]}}
        database.job_attempts.delete_many(query)
        database.jobs.delete_many(query)
        add_failures(30, 20)
    with writing_history(connection):
        eventually(is_counted)
