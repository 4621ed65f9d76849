"""The history on the real server: catches an attempt that is not counted or counted twice, a
history that is deleted with its jobs, and a window with wrong counts."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import ExecutionTimeout, OperationFailure

from jobmon.app import create_app
from jobmon.collector import history_writer as history_writer_module
from jobmon.collector.history_writer import HistoryWriter
from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.rollup import buckets as buckets_module
from jobmon.rollup.activity import count_activity
from jobmon.rollup.buckets import DAY, HOUR, MINUTE, Tally, floor
from jobmon.rollup.documents import PROGRESS, OwnDatabase, rollup_database
from jobmon.rollup.histogram import bucket
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from ..conftest import DATE, NOW, Api
from ..store.test_queries import profiled
from ..support.commands import database_uri
from ..support.history import make_history_writer, writing_history
from ..support.waiting import eventually

SERIES_PATH, TYPES_PATH = "/admin/jobs/timeseries", "/admin/jobs/types"
MongoDb = Database[dict[str, Any]]


@pytest.fixture
def service(
    mongod: Mongod, database: MongoDb, make_settings: Callable[..., Settings]
) -> Iterator[Api]:
    uri = database_uri(mongod, database)
    app = create_app(make_settings(mongo_uri=uri, rollup_db=f"{database.name}_rollups"))
    connection = app.extensions["jobmon_connection"]
    create_indexes(connection)
    yield Api(app)
    connection.client.close()


def get_connection(service: Api) -> Connection:
    return service.app.extensions["jobmon_connection"]


@contextmanager
def counting(service: Api) -> Iterator[None]:
    """Run a collector's history thread."""
    with writing_history(get_connection(service)):
        yield


def test_a_change_ends_the_pause_of_an_idle_queue(
    service: Api, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_writer_module, "REST_AFTER_S", -1)
    monkeypatch.setattr(history_writer_module, "REST_S", 3_600)
    connection, stop, changed = get_connection(service), threading.Event(), threading.Event()
    own_database = OwnDatabase(rollup_database(connection), connection.queue_key)
    writer = make_history_writer(connection, changed=changed)
    thread = threading.Thread(target=writer.run, args=[stop])
    thread.start()
    try:
        eventually(lambda: own_database["state"].count_documents({"completeUntil": {"$ne": None}}))
        now = datetime.now(UTC)
        add_attempt(database, now, createdAt=now)
        # The change is set at each check, in case the minute ends before the attempt is counted.
        eventually(lambda: changed.set() or own_database["buckets"].count_documents({"events": 2}))
    finally:
        stop.set()
        changed.set()
        thread.join()


def add_attempt(database: MongoDb, finished_at: datetime, **fields: Any) -> None:
    """Insert a job with one finished attempt."""
    job_id = str(ObjectId())
    started_at = fields.pop("startedAt", finished_at - timedelta(milliseconds=500))
    created_at = fields.pop("createdAt", finished_at - timedelta(seconds=2))
    database.jobs.insert_one(
        {"jobId": job_id, "type": fields.pop("type", "t"), "createdAt": created_at}
    )
    database.job_attempts.insert_one(
        {
            "jobId": job_id,
            "attemptNumber": 1,
            "status": "succeeded",
            "startedAt": started_at,
            "finishedAt": finished_at,
        }
        | fields
    )


def sum_counts(service: Api, path: str = SERIES_PATH, **query: Any) -> dict[str, int]:
    answer = service.get_as_admin(path, **query).json
    names = ("enqueued", "succeeded", "failed", "dlq")
    return {name: sum(row[name] or 0 for row in answer["data"]) for name in names}


def test_a_span_is_counted_by_type_and_outcome_with_its_durations(
    service: Api, database: MongoDb
) -> None:
    start = NOW
    inside = start + timedelta(seconds=30)
    add_attempt(database, inside)
    due = inside - timedelta(seconds=9)
    add_attempt(database, inside, status="failed", type="u", eligibleAt=due)
    add_attempt(database, inside, status="expired", type="u", startedAt="odd", attemptNumber=2)
    add_attempt(database, inside, status="running")
    add_attempt(database, start + MINUTE)
    add_attempt(database, start - timedelta(milliseconds=1), createdAt=start)
    database.job_attempts.insert_one({"jobId": "gone", "status": "failed", "finishedAt": inside})
    database.jobs.insert_many([{"jobId": "d", "status": "dlq", "type": "u", "finishedAt": inside}])
    counted = count_activity(get_connection(service), start, start + MINUTE, MINUTE)
    assert counted.keys() == {start}
    assert counted[start] == {
        "t": Tally(
            enqueued=4, outcomes={"succeeded": 1}, wait={bucket(1_500): 1}, run={bucket(500): 1}
        ),
        "u": Tally(
            enqueued=2,
            dlq=1,
            outcomes={"failed": 1, "expired": 1},
            wait={bucket(8_500): 1},
            run={bucket(500): 1},
        ),
        "null": Tally(outcomes={"failed": 1}),
    }


def test_activity_of_a_real_queue_is_counted_by_step_and_by_type(
    service: Api, database: MongoDb
) -> None:
    queue = JobQueue(database)
    with counting(service):
        for index in range(10):
            queue.enqueue("email.send", max_attempts=1)
            lease = queue.lease("w")
            if index < 7:
                queue.report_success(lease)
            else:
                queue.report_failure(lease, "E", "m")
        expected = {"enqueued": 10, "succeeded": 7, "failed": 3, "dlq": 3}
        eventually(lambda: sum_counts(service) == expected)
        answer = service.get_as_admin(TYPES_PATH).json
    assert sum_counts(service, type="email.send") == expected
    assert sum_counts(service, type="other") == dict.fromkeys(expected, 0)
    (row,) = answer["data"]
    assert row["type"] == "email.send"
    assert row["statusCounts"] == {"succeeded": 7, "dlq": 3}
    assert row["failureRate"] == 0.3
    assert row["finishedPerMinute"] == pytest.approx(10 / 60, rel=0.05)
    assert row["runMs"]["p50"] <= row["runMs"]["p95"] <= row["runMs"]["p99"]
    assert answer["meta"]["source"] == "rollup"


@pytest.mark.long
def test_history_outlives_the_jobs_and_attempts(service: Api, database: MongoDb) -> None:
    now = datetime.now(UTC)
    for _ in range(5):
        add_attempt(database, now)
    with counting(service):
        eventually(lambda: service.get_as_admin(SERIES_PATH).json["meta"]["source"] == "rollup")
        assert sum_counts(service)["succeeded"] == 5
        database.jobs.delete_many({})
        database.job_attempts.delete_many({})
        add_attempt(database, datetime.now(UTC) + MINUTE)  # shows that counting continues
        eventually(lambda: sum_counts(service, to=format_iso(now + 5 * MINUTE))["succeeded"] == 6)


def test_the_history_follows_the_clock_of_the_watched_server(
    service: Api, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a recent minute that is taken as final because the collector's clock is ahead.

    The age of the history is by another clock, that of jobmon's own database.
    """
    connection = get_connection(service)
    server_time = floor(datetime.now(UTC) - HOUR, MINUTE)
    monkeypatch.setattr(connection, "server_time", lambda: server_time)
    state = OwnDatabase(rollup_database(connection), connection.queue_key)["state"]
    with counting(service):
        eventually(lambda: state.count_documents({"name": PROGRESS, "countedAt": server_time}))
    assert not state.count_documents({"countedAt": {"$gt": server_time}})
    progress = RollupReader(connection).progress()
    assert progress is not None
    assert progress.counted_at == server_time


def test_a_recount_keeps_the_types_of_jobs_that_were_deleted(
    service: Api, database: MongoDb
) -> None:
    """Catches runs of a drained backlog that lose their type when a TTL index deletes its jobs."""
    end = floor(datetime.now(UTC), MINUTE) - MINUTE
    add_attempt(database, end, createdAt=end - HOUR, eligibleAt=end - MINUTE)
    writer = make_history_writer(get_connection(service))
    assert writer._count(end, end + MINUTE, MINUTE)
    database.jobs.delete_many({})
    assert not writer._count(end, end + MINUTE, MINUTE)
    assert writer._read_buckets(MINUTE, [end])[end].keys() == {"t"}


def test_activity_without_a_collector_is_counted_by_the_next_collector(
    service: Api, database: MongoDb
) -> None:
    now = datetime.now(UTC)
    ages = [timedelta(minutes=3), timedelta(hours=20), timedelta(days=5), timedelta(days=12)]
    for age in ages:
        add_attempt(database, now - age, createdAt=now - age)
    with counting(service):
        eventually(lambda: service.get_as_admin(SERIES_PATH).json["meta"]["source"] == "rollup")
        days = {"from": format_iso(now - 12 * DAY), "to": format_iso(now), "step": 86_400}
        eventually(lambda: sum_counts(service, **days)["succeeded"] == 4)
        day = {"from": format_iso(now - DAY), "to": format_iso(now), "step": 3_600}
        assert sum_counts(service, **day) == {"enqueued": 2, "succeeded": 2, "failed": 0, "dlq": 0}
        minutes = {"from": format_iso(now - timedelta(hours=21)), "to": format_iso(now), "step": 60}
        eventually(lambda: sum_counts(service, **minutes)["succeeded"] == 2)


def test_activity_during_a_suspension_is_counted_after_it(service: Api, database: MongoDb) -> None:
    """Catches minutes that stay empty for ever: they were final before the process continued."""
    connection, stop = get_connection(service), threading.Event()
    writer = make_history_writer(connection)
    start = datetime.now(UTC)

    def count_all(now: datetime) -> None:
        while writer._count_once(now, stop):
            pass

    add_attempt(database, start - HOUR)
    writer._restart_missed(start)
    count_all(start)
    ended = start - 5 * MINUTE
    add_attempt(database, ended, createdAt=ended)  # both in one minute
    count_all(start + 30 * MINUTE)
    events = OwnDatabase(rollup_database(connection), connection.queue_key)["buckets"].find(
        {"span": 60, "at": floor(ended, MINUTE)}
    )
    assert [bucket["events"] for bucket in events] == [2]


def test_buckets_of_each_span_are_deleted_after_their_retention(
    service: Api, database: MongoDb
) -> None:
    rollups = rollup_database(get_connection(service))
    scope, buckets = OwnDatabase(rollups, get_connection(service).queue_key).scope, rollups.buckets
    now = datetime.now(UTC)
    ages = ((60, 4), (60, 1), (3_600, 40), (3_600, 4), (86_400, 500), (86_400, 40))
    for span_s, age_days in ages:
        fields = {"span": span_s, "at": floor(now, DAY) - age_days * DAY, "types": []}
        buckets.insert_one({**scope, **fields})
    make_history_writer(get_connection(service))._delete_expired(now)
    kept = [(bucket["span"], (floor(now, DAY) - bucket["at"]).days) for bucket in buckets.find()]
    assert sorted(kept) == [(60, 1), (3_600, 4), (86_400, 40)]


def test_buckets_have_a_limited_number_of_types(
    service: Api, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets_module, "MAX_BUCKET_TYPES", 2)
    now = datetime.now(UTC)
    for job_type in ("a", "a", "a", "b", "b", "c", "d"):
        add_attempt(database, now, type=job_type)
    buckets = rollup_database(get_connection(service)).buckets
    with counting(service):
        eventually(lambda: any(bucket["events"] == 14 for bucket in buckets.find({"span": 86_400})))
    assert {len(bucket["types"]) for bucket in buckets.find()} == {3}
    rows = service.get_as_admin(TYPES_PATH).json["data"]
    counts = {row["type"]: (row["succeeded"], sum(row["statusCounts"].values())) for row in rows}
    assert counts == {"a": (3, 3), "b": (2, 2), "(other)": (2, 2)}
    answer = service.get_as_admin(SERIES_PATH, type="a")
    assert (answer.status_code, answer.json["error"]["code"]) == (422, "validation_error")
    assert "type" in str(answer.json)


def test_without_a_collector_short_windows_are_counted_live_and_long_ones_refused(
    service: Api, database: MongoDb
) -> None:
    add_attempt(database, datetime.now(UTC))
    answer = service.get_as_admin(SERIES_PATH).json
    assert answer["meta"]["source"] == "live"
    assert sum(step["succeeded"] or 0 for step in answer["data"]) == 1
    for length in ("6h", "359m"):  # they are widened to whole steps
        assert service.get_as_admin(SERIES_PATH, range=length).status_code == 200
    assert service.get_as_admin(SERIES_PATH, range="8h", step=86_400).status_code == 503
    now = datetime.now(UTC)
    refused = service.get_as_admin(SERIES_PATH, **{"from": format_iso(now - DAY)})
    assert refused.status_code == 503
    assert refused.json["error"]["code"] == "collector_unavailable"
    assert refused.headers["Retry-After"]


def test_buckets_of_larger_spans_have_the_same_sums(service: Api, database: MongoDb) -> None:
    now = datetime.now(UTC)
    for minutes in (0, 1, 9, 14, 59, 300, 3_000):
        add_attempt(database, now - minutes * MINUTE, createdAt=now - minutes * MINUTE)
    with counting(service):
        eventually(
            lambda: count_attempts_by_span(service) == dict.fromkeys((3_600, 21_600, 86_400), 7)
        )
        buckets = rollup_database(get_connection(service)).buckets
        # As if a collector had been killed before it added up the larger spans.
        for span in (HOUR, 6 * HOUR, DAY):
            buckets.delete_one({"name": buckets_module.bucket_name(span, floor(now, span))})
    with counting(service):
        eventually(
            lambda: count_attempts_by_span(service) == dict.fromkeys((3_600, 21_600, 86_400), 7)
        )


def count_attempts_by_span(service: Api) -> dict[int, int]:
    """Finished attempts in the buckets of each span of an hour or more."""
    attempts: Counter[int] = Counter()
    rollups = rollup_database(get_connection(service))
    for stored in rollups.buckets.find({"span": {"$gt": 600}}):
        counts = (count for row in stored["types"] for _, count in row["outcomes"])
        attempts[stored["span"]] += sum(counts)
    return dict(attempts)


@pytest.mark.parametrize("clock_error_s", [-30, 30])
def test_activity_of_a_writer_with_a_wrong_clock_is_counted(
    service: Api, database: MongoDb, clock_error_s: int
) -> None:
    with counting(service):
        eventually(lambda: service.get_as_admin(SERIES_PATH).json["meta"]["source"] == "rollup")
        moment = datetime.now(UTC) + timedelta(seconds=clock_error_s)
        add_attempt(database, moment, createdAt=moment)
        until = format_iso(moment + 2 * MINUTE)
        expected = {"enqueued": 1, "succeeded": 1, "failed": 0, "dlq": 0}
        eventually(lambda: sum_counts(service, to=until) == expected)


def test_values_that_are_not_dates_do_not_stop_the_count(service: Api, database: MongoDb) -> None:
    start = NOW
    values: list[Any] = [[start], [], "soon", None, {"a": start}, 7]
    database.jobs.insert_many([{"jobId": str(value), "createdAt": value} for value in values])
    database.job_attempts.insert_many(
        {"jobId": "x", "attemptNumber": number, "finishedAt": value}
        for number, value in enumerate(values)
    )
    add_attempt(database, start, createdAt=start)
    counted = count_activity(get_connection(service), start - MINUTE, start + MINUTE, MINUTE)
    tally = Tally(enqueued=1, outcomes={"succeeded": 1}, wait={0: 1}, run={bucket(500): 1})
    assert counted == {start: {"t": tally}}


def test_a_long_window_is_counted_in_pieces_if_the_database_is_slow(
    service: Api, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = NOW
    for minutes in (0, 20, 59):
        add_attempt(database, start + minutes * MINUTE, createdAt=start + minutes * MINUTE)

    def count_if_short(
        connection: Connection, start: datetime, end: datetime, span: timedelta
    ) -> Any:
        if end - start > 20 * MINUTE:
            raise ExecutionTimeout("operation exceeded time limit", 50)
        return count_activity(connection, start, end, span)

    monkeypatch.setattr(history_writer_module, "count_activity", count_if_short)
    writer = make_history_writer(get_connection(service))
    (tallies,) = writer._count_in_pieces(start, start + HOUR, HOUR).values()
    assert (tallies["t"].enqueued, tallies["t"].outcomes) == (3, {"succeeded": 3})


def format_iso(moment: datetime) -> str:
    return moment.isoformat()


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "1999-13-01"}, "to"),
        ({"from": f"{DATE}T04:00:00Z", "to": f"{DATE}T03:00:00Z"}, "from"),
        ({"step": "59"}, "step"),
        ({"step": "90"}, "step"),
        ({"step": "x"}, "step"),
        ({"from": (NOW - 22 * DAY).isoformat(), "step": "60"}, "step"),
        ({"type": ["t"] * 21}, "type"),
    ],
)
def test_an_invalid_window_returns_422(api: Api, query: dict[str, Any], parameter: str) -> None:
    answer = api.get_as_admin(SERIES_PATH, **query)
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == [parameter]


def test_a_window_is_widened_to_whole_steps(service: Api) -> None:
    query = {"from": f"{DATE}T03:07:00Z", "to": f"{DATE}T04:01:00Z", "step": 900}
    answer = service.get_as_admin(SERIES_PATH, **query).json
    assert answer["meta"] | {"as_of": None} == {
        "from": f"{DATE}T03:00:00.000Z",
        "to": f"{DATE}T04:15:00.000Z",
        "step": 900,
        "as_of": None,
        "source": "live",
        "is_complete": True,
        "gaps": [],
        "marks": [],
        "omitted_marks": 0,
        "no_data_before": None,
        "reasons": {},
    }
    assert [step["at"][11:16] for step in answer["data"]] == [
        "03:00",
        "03:15",
        "03:30",
        "03:45",
        "04:00",
    ]
    assert answer["data"][0] == {
        "at": f"{DATE}T03:00:00.000Z",
        **dict.fromkeys(("enqueued", "succeeded", "failed", "dlq"), 0),
        "failureRate": None,
        "statusCounts": None,
        "oldestQueuedJobAgeMs": None,
        "waitMs": {"p50": None, "p95": None, "p99": None},
        "runMs": {"p50": None, "p95": None, "p99": None},
    }


def test_jobs_are_counted_without_an_index_on_a_field_that_no_document_has(
    service: Api, database: MongoDb
) -> None:
    """Catches a missing index on finishedAt that ends all counting."""
    connection = get_connection(service)
    now = datetime.now(UTC)
    database.jobs.drop_index("status_1_finishedAt_1__id_1")
    database.job_attempts.drop_index("finishedAt_1")
    for job_id in ("a", "b", "c"):
        job = {"jobId": job_id, "status": "dlq", "type": "t", "createdAt": now}
        database.jobs.insert_one(job)
    counted = count_activity(connection, now - HOUR, now + MINUTE, HOUR)
    assert sum(types["t"].enqueued for types in counted.values()) == 3
    # With a finishedAt in any document, the index is needed.
    database.jobs.update_one({}, {"$set": {"finishedAt": now}})
    with pytest.raises(OperationFailure, match="hint"):
        count_activity(connection, now - HOUR, now + MINUTE, HOUR)


def test_progress_is_written_before_missed_spans_are_counted(
    service: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a history that seems old during a first count, because its time is stored last."""
    connection = get_connection(service)
    own_database = OwnDatabase(rollup_database(connection), connection.queue_key)
    stored: list[dict[str, Any]] = []

    def count_missed(*_: Any) -> bool:
        progress = own_database["state"].find_one({"_id": own_database.id(PROGRESS)})
        stored.append(progress or {})
        return len(stored) < 3

    with monkeypatch.context() as patch, counting(service):
        patch.setattr(HistoryWriter, "_count_missed", count_missed)
        eventually(lambda: own_database["state"].find_one({"completeUntil": {"$ne": None}}))
    moments = [progress.get("countedAt") for progress in stored]
    assert moments == sorted(set(moments))
    assert all(progress["countedFrom"] for progress in stored)


def test_an_hour_is_written_by_few_commands(service: Api, database: MongoDb) -> None:
    """Catches a first count that sends a command for each minute."""
    start = floor(datetime.now(UTC), HOUR) - HOUR
    for minute in range(30):
        add_attempt(database, start + (2 * minute + 0.5) * MINUTE)
    writer = make_history_writer(get_connection(service))
    rollups = database.client[rollup_database(get_connection(service)).name]
    with profiled(rollups) as entries:
        writer._count(start, start + HOUR, MINUTE)
        writer._sum_larger_spans(start, start + HOUR, MINUTE)
    commands = [entry for entry in entries if entry["ns"].endswith(".buckets")]
    written = Counter(bucket["span"] for bucket in rollups.buckets.find())
    assert written == {60: 30, 600: 6, 3_600: 1, 21_600: 1, 86_400: 1}
    # An entry for each written document; each span may be read twice, alone and for the next span.
    assert len(commands) <= sum(written.values()) + 2 * len(written)


def test_uncounted_steps_are_null_not_zero(
    service: Api, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a chart that shows zeros while a first count is in progress."""
    now = datetime.now(UTC)
    window = {"from": f"{now - HOUR:%FT%TZ}", "to": f"{now:%FT%TZ}", "step": 60}
    add_attempt(database, now - 40 * MINUTE)
    add_attempt(database, now - 2 * MINUTE)
    with monkeypatch.context() as patch, counting(service):
        patch.setattr(HistoryWriter, "_count_missed", lambda *_: True)
        eventually(
            lambda: service.get_as_admin(SERIES_PATH, **window).json["meta"]["source"] == "rollup"
        )
        answer = service.get_as_admin(SERIES_PATH, **window).json
        types = service.get_as_admin(TYPES_PATH, **window).json
    oldest, newest = answer["data"][0], answer["data"][-5:]
    assert answer["meta"]["is_complete"] is False
    assert [oldest[name] for name in ("enqueued", "succeeded", "failed", "dlq", "failureRate")] == (
        [None] * 5
    )
    assert oldest["runMs"] == {"p50": None, "p95": None, "p99": None}
    assert sum(step["succeeded"] or 0 for step in newest) == 1
    assert types["meta"]["is_complete"] is False
    with counting(service):
        eventually(lambda: service.get_as_admin(SERIES_PATH, **window).json["meta"]["is_complete"])
        assert sum_counts(service, **window)["succeeded"] == 2
    assert service.get_as_admin(TYPES_PATH, **window).json["meta"]["is_complete"] is True
