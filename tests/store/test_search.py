"""Searches of the payload on the real server with 12,000 jobs: catches a value that is not found,
a text that works as an operator, a collection scan, and a read that grows with the collection."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from bson import Binary, Decimal128, Int64, ObjectId
from bson.regex import Regex
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.bson_json import to_iso
from jobmon.store.labels import label
from jobmon.store.search import SearchTerm, matches_filter

from ..conftest import DATE, NOW, SECRET, Api
from ..support.commands import database_uri, index_queue
from ..support.queue_service import QueueService
from .test_queries import list_stages, profiled

MongoDb = Database[dict[str, Any]]
JOB_COUNT = 12_000
SEARCH_FIELDS = ("payload.order", "payload.country", "payload.items.sku", "payload.note")
QUEUE_PATH = "/admin/jobs/queue"
UUID_TEXT = "0b0e7f6e-9a57-4d2b-9d0e-0c6f8f0e6a11"
# The values of payload.note, by the id of a job. These jobs are newer than the 12,000 jobs.
NOTES: dict[str, Any] = {
    "string": "8425",
    "int": 8425,
    "long": Int64(8425),
    "double": 8425.0,
    "decimal": Decimal128("8425.00"),
    "in array": ["x", 8425],
    "bool": True,
    "word": "true",
    "object id": ObjectId("65f0c0ffee0123456789abcd"),
    "uuid": Binary(UUID(UUID_TEXT).bytes, 4),
    "old uuid": Binary(UUID(UUID_TEXT).bytes, 3),
    "uuid text": UUID_TEXT,
    "date": datetime.fromisoformat(f"{DATE}T04:05:06.789Z"),
    "fraction": 19.9,
    "price": Decimal128("19.90"),
    "star": "84*",
    "dots": "a.b|c(d",
    "like dots": "axb|c(d",
    "null": None,
    "card": "4111111111111111",
    "numeric card": 4111111111111111,
    "operator": {"$gt": ""},
    "document": {"a": 8425},
}


def make_job(number: int) -> dict[str, Any]:
    return {
        "jobId": f"job-{number}",
        "type": f"type-{number % 8}",
        "status": "dlq" if number % 1_000 == 0 else "succeeded",
        "createdBy": "rare" if number % 3_000 == 0 else f"owner-{number % 2}",
        "createdAt": NOW + timedelta(seconds=number // 3),
        "finishedAt": NOW - timedelta(seconds=number),
        "payload": {
            "order": f"order/{number // 4}",
            "country": "de",
            "items": [{"sku": f"s{number % 7}"}, {"sku": f"t-{number}"}],
        },
    }


@pytest.fixture(scope="module")
def large_db(mongod: Mongod, mongo: MongoClient[dict[str, Any]]) -> Iterator[MongoDb]:
    database = mongo["test_search"]
    database.jobs.insert_many(map(make_job, range(JOB_COUNT)))
    for index, (job_id, note) in enumerate(NOTES.items()):
        created = NOW + timedelta(days=1, seconds=index)
        database.jobs.insert_one({"jobId": job_id, "createdAt": created, "payload": {"note": note}})
    index_queue(Settings(mongo_uri=database_uri(mongod, database), search_fields=SEARCH_FIELDS))
    yield database
    mongo.drop_database(database.name)


@pytest.fixture(scope="module")
def service(mongod: Mongod, large_db: MongoDb) -> Iterator[Api]:
    uri = database_uri(mongod, large_db)
    app = create_app(
        Settings(mongo_uri=uri, jwt_secret_key=SECRET, stats_ttl_ms=0, search_fields=SEARCH_FIELDS)
    )
    yield Api(app)
    app.extensions["jobmon_connection"].client.close()


@pytest.fixture
def get_json(service: Api) -> Callable[..., dict[str, Any]]:
    def get(path: str = QUEUE_PATH, subject: str = "root", **query: Any) -> dict[str, Any]:
        answer = service.get(path, token=service.token(subject, "admin"), **query)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json
        return content

    return get


def list_ids(answer: dict[str, Any]) -> list[str]:
    return [job["jobId"] for job in answer["data"]]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["8425"], ["string", "int", "long", "double", "decimal", "in array"]),
        (["8425.0"], ["int", "long", "double", "decimal", "in array"]),
        (["8.425e3"], ["int", "long", "double", "decimal", "in array"]),
        (['"8425"'], ["string"]),
        (["8*"], ["string", "star"]),
        (['"84*"'], ["star"]),
        (["true"], ["bool", "word"]),
        (["1"], []),
        (["65f0c0ffee0123456789abcd"], ["object id"]),
        (["65F0C0FFEE0123456789ABCD"], ["object id"]),
        ([UUID_TEXT], ["uuid", "old uuid", "uuid text"]),
        ([UUID_TEXT.upper()], ["uuid", "old uuid"]),
        ([f"{DATE}T04:05:06.789Z"], ["date"]),
        ([f"{DATE}T05:05:06.789+01:00"], ["date"]),
        (["19.9"], ["fraction", "price"]),
        (["19.90"], ["fraction", "price"]),
        (["a.b|c*"], ["dots"]),
        (["a*"], ["dots", "like dots"]),
        (["true", "19.9", "x"], ["in array", "bool", "word", "fraction", "price"]),
        (["true", "a.b*"], ["bool", "word", "dots"]),
        (["null"], []),
        (['{"$gt": ""}'], []),
        (["4111111111111111"], ["numeric card"]),  # redaction hides the text, so it is not found
        (["^a"], []),
        ([".*"], []),
    ],
    ids=str,
)
def test_a_text_finds_each_value_that_it_can_mean(
    get_json: Callable[..., dict[str, Any]], texts: list[str], expected: list[str]
) -> None:
    answer = get_json(**{"payload.note": texts})
    assert list_ids(answer) == expected[::-1]  # newest first
    assert (answer["meta"]["total"], answer["meta"]["total_is_exact"]) == (len(expected), True)


# Searches whose jobs an index has in list order: the query parameters, and a function that returns
# whether the job with a number matches.
SERVED: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
    ({"payload.country": "de"}, lambda number: True),
    ({"payload.items.sku": "s3"}, lambda number: number % 7 == 3),
    (
        {"payload.items.sku": ["s3", "s5", "t-1"]},
        lambda number: number % 7 in (3, 5) or number == 1,
    ),
    (
        {"payload.country": "de", "created_from": to_iso(NOW + timedelta(seconds=2_000))},
        lambda number: number >= 6_000,
    ),
    ({"payload.order": "order/77"}, lambda number: number // 4 == 77),
]
# Searches for which at most 1,000 jobs are compared one by one, or sorted in memory.
SMALL: list[tuple[dict[str, Any], Callable[[int], bool]]] = [
    ({"payload.order": "order/77*"}, lambda number: str(number // 4).startswith("77")),
    ({"payload.order": "order/250", "status": "dlq"}, lambda number: number == 1_000),
    ({"payload.country": "de", "status": "dlq"}, lambda number: number % 1_000 == 0),
    ({"payload.country": "de", "owner": "rare"}, lambda number: number % 3_000 == 0),
    (
        {"payload.country": "de", "payload.order": "order/77*"},
        lambda number: str(number // 4).startswith("77"),
    ),
    (
        {"payload.items.sku": "t-77", "payload.order": "order/19", "type": "type-5"},
        lambda number: number == 77,
    ),
    (
        {
            "payload.country": "de",
            "type": "type-3",
            "created_from": to_iso(NOW + timedelta(seconds=2_000)),
            "created_to": to_iso(NOW + timedelta(seconds=2_900)),
        },
        lambda number: number % 8 == 3 and 6_000 <= number < 8_700,
    ),
    ({"payload.country": "de", "job_id": "job-77"}, lambda number: str(number).startswith("77")),
]


@pytest.mark.parametrize("sort", ["-createdAt", "createdAt"])
@pytest.mark.parametrize(
    ("query", "matches"), SERVED + SMALL, ids=[str(query) for query, _ in SERVED + SMALL]
)
def test_a_search_reads_a_bounded_number_of_keys_at_any_depth(
    get_json: Callable[..., dict[str, Any]],
    large_db: MongoDb,
    query: dict[str, Any],
    matches: Callable[[int], bool],
    sort: str,
) -> None:
    is_served = (query, matches) in SERVED
    # Jobs that were created in the same second are in the order of their _id.
    numbers = sorted(filter(matches, range(JOB_COUNT)), reverse=sort == "-createdAt")
    expected = [f"job-{number}" for number in numbers]
    query = {**query, "sort": sort, "per_page": 4}
    with profiled(large_db) as entries:
        first = get_json(**query)
        ids = list_ids(first)
        cursor = first["meta"]["next_cursor"]
        if cursor is not None:
            second = get_json(**query, cursor=cursor)
            ids += list_ids(second)
            assert list_ids(get_json(**query, cursor=second["meta"]["prev_cursor"])) == expected[:4]
        deep_meta = get_json(**query, page=max(1, len(expected) // 4))["meta"]
        if deep_meta["next_cursor"] is not None:
            get_json(**query, cursor=deep_meta["next_cursor"])
    assert ids == expected[:8]
    total, is_exact = min(len(expected), 10_000), len(expected) <= 10_000
    assert (first["meta"]["total"], first["meta"]["total_is_exact"]) == (total, is_exact)
    assert entries
    for entry in entries:
        command = entry["command"]
        if "explain" in command:
            continue
        summary = f"{entry['planSummary']} {command}"
        assert "COLLSCAN" not in entry["planSummary"], summary
        assert command["maxTimeMS"] == 5_000
        is_page = "find" in command
        if is_served:
            assert not entry.get("hasSortStage"), summary
            # A page by its number skips keys. A count reads up to 10,001 keys, and no job. Each of
            # up to three values reads one key after its range.
            max_keys = 5 + command.get("skip", 0) if is_page else 10_001
            assert entry["keysExamined"] <= max_keys + 3, summary
            # A page by its cursor also reads the job before it and the job after it.
            assert entry["docsExamined"] <= (6 if is_page else 0), summary
            # explain accepts neither lsid nor keys like $db.
            find = {key: command[key] for key in command if key != "lsid" and key[0] != "$"}
            codec = large_db.codec_options
            plan = large_db.command("explain", find, verbosity="queryPlanner", codec_options=codec)
            assert not {"COLLSCAN", "SORT"} & set(list_stages(plan)), summary
        else:
            assert entry["keysExamined"] <= 1_001 + 20, summary  # 20: one after each range
            assert entry["docsExamined"] <= 1_001, summary
            is_by_prefix = any("*" in str(value) for value in query.values()) or "job_id" in query
            assert is_by_prefix or not entry.get("hasSortStage"), summary


def test_a_search_that_would_read_too_many_jobs_is_422_and_names_filters_to_add(
    service: Api,
) -> None:
    for query in (
        {"payload.country": "de", "status": "succeeded"},
        {"payload.country": "de", "payload.items.sku": "s3"},
        {"payload.country": "d*"},
        {"payload.country": "de", "owner": "owner-1", "format": "csv"},
        {"payload.country": "de", "finished_to": to_iso(NOW)},
    ):
        answer = service.get_as_admin(QUEUE_PATH, **query)
        assert answer.status_code == 422
        (message,) = answer.json["error"]["details"]["payload.country"]
        assert message.startswith("More than 1,000 jobs match")
        remedy = "add created_from and created_to, another search field, or a filter"
        assert remedy in message.lower()


def test_a_search_with_few_matches_can_be_sorted_by_dates_without_an_index(
    get_json: Callable[..., dict[str, Any]],
) -> None:
    query = {"payload.order": "order/250", "finished_from": to_iso(NOW - timedelta(days=1))}
    assert list_ids(get_json(**query)) == ["job-1000", "job-1001", "job-1002", "job-1003"]
    pages = [
        list_ids(get_json(**query, sort="finishedAt", per_page=2, page=page)) for page in (1, 2)
    ]
    assert pages == [["job-1003", "job-1002"], ["job-1001", "job-1000"]]
    waiting = get_json(**{"payload.order": "order/250"}, status="queued", sort="nextRunAt")
    assert waiting["data"] == []


def test_a_search_of_an_owner_reads_only_jobs_of_this_owner(
    get_json: Callable[..., dict[str, Any]], large_db: MongoDb
) -> None:
    """Catches an owner who sees jobs of others, or learns how many of these have a value."""
    answer = get_json("/jobs", "owner-1", **{"payload.order": "order/77"})
    assert list_ids(answer) == ["job-311", "job-309"]
    with profiled(large_db) as entries:
        rare = get_json("/jobs", "rare", **{"payload.country": "de"})
    assert rare["meta"]["total"] == 4
    commands = [entry["command"] for entry in entries if "explain" not in entry["command"]]
    assert {str(command["hint"]) for command in commands} == {
        "{'createdBy': 1, 'createdAt': -1, '_id': -1, 'type': 1}"
    }
    assert get_json("/jobs", "nobody", **{"payload.country": "de"})["data"] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job-311", [("job", "job-311", None), ("job", "job-3110", None)]),
        ("type-3", [("jobs", "type-3", 100)]),
        ("rare", [("jobs", "rare", 4)]),
        ("owner-1", [("jobs", "owner-1", 100)]),
        ("order/77", [("jobs", "order/77", 4)]),
        ("note:8425", [("jobs", "note:8425", None)]),
        ("8425", [("jobs", "8425", 6)]),
        ("operator", [("job", "operator", None)]),
        # Only the number is counted: redaction hides the text.
        ("4111111111111111", [("jobs", "4111111111111111", 1)]),
        ("never-seen", []),
    ],
)
def test_suggestions_read_a_bounded_number_of_keys(
    get_json: Callable[..., dict[str, Any]],
    large_db: MongoDb,
    text: str,
    expected: list[tuple[str, str, int | None]],
) -> None:
    """Catches a scan for each key that a person presses, and a count of hidden values.

    The expected suggestions have a kind, a value, and a number of jobs: at most 100, or None.
    """
    with profiled(large_db) as entries:
        answer = get_json("/admin/jobs/suggestions", q=text)
    suggestions = [(row["kind"], row["value"], row["jobs"]) for row in answer["data"]]
    assert set(expected) <= set(suggestions)
    assert bool(suggestions) == bool(expected)
    assert answer["meta"]["reasons"].keys() == {"types", "errors", "workers"} or ":" in text
    for entry in entries:
        if "explain" in entry["command"]:
            continue
        summary = f"{entry['planSummary']} {entry['command']}"
        assert entry["planSummary"].startswith("IXSCAN"), summary
        assert entry["keysExamined"] <= 110, summary
        assert entry["docsExamined"] <= 101, summary


def test_an_export_of_a_search_has_each_job_once(service: Api) -> None:
    answer = service.get_as_admin(QUEUE_PATH, format="ndjson", **{"payload.items.sku": "s3"})
    *jobs, end = map(json.loads, answer.text.splitlines())
    expected = [f"job-{number}" for number in range(JOB_COUNT) if number % 7 == 3]
    assert [job["jobId"] for job in jobs] == expected[::-1]
    assert end == {"end": True, "rows": len(expected)}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("payload.x", "1", "JOBMON_SEARCH_FIELDS has payload.order, payload.country,"),
        ("payload.order[$ne]", "1", "JOBMON_SEARCH_FIELDS"),
        ("payload[order]", "1", "JOBMON_SEARCH_FIELDS"),
        ("payload.order.$where", "1", "JOBMON_SEARCH_FIELDS"),
        ("payload", "1", "JOBMON_SEARCH_FIELDS"),
        ("payload.note", "x" * 1_001, "Longer than 1,000 characters."),
        ("payload.note", "*", "Needs a character before `*`."),
        ("payload.note", "a\\|*", "neither"),
        ("payload.note", "a\0*", "neither"),
        ("payload.note", "sk_live_0123456789abcdef", "Redaction hides such a value"),
        ("payload.note", [str(number) for number in range(11)], "More than 10 values."),
    ],
)
@pytest.mark.parametrize("path", [QUEUE_PATH, "/jobs"])
def test_an_impossible_search_is_422_and_names_the_parameter(
    service: Api, path: str, name: str, value: Any, message: str
) -> None:
    for answer_format in ("json", "csv"):
        answer = service.get_as_admin(path, **{name: value, "format": answer_format})
        assert answer.status_code == 422
        (reason,) = answer.json["error"]["details"][name]
        assert message in reason


def test_a_search_without_its_index_is_refused_in_a_large_queue(
    mongod: Mongod, database: MongoDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a search that reads every job of a queue where `jobmon init` has not run."""
    database.jobs.insert_many(map(make_job, range(5)))
    settings = Settings(
        mongo_uri=database_uri(mongod, database), search_fields=("payload.country",)
    )
    queue = QueueService.from_settings(settings)
    try:
        assert len(queue.list_ids(**{"payload.country": "de"})) == 5
        monkeypatch.setattr("jobmon.store.list_plan.MAX_SCANNED", 4)
        for answer_format in ("json", "csv"):
            query = {"payload.country": "de", "format": answer_format}
            answer = queue.api.get_as_admin(QUEUE_PATH, **query)
            assert answer.status_code == 422
            (message,) = answer.json["error"]["details"]["payload.country"]
            assert message.startswith("Its index is missing")
    finally:
        queue.close()


def test_empty_search_texts_do_not_filter(get_json: Callable[..., dict[str, Any]]) -> None:
    assert get_json(**{"payload.note": ["", ""]})["meta"]["total"] == get_json()["meta"]["total"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e400", ["1e400", Decimal128("1E+400")]),
        (
            "9223372036854775808",
            ["9223372036854775808", 2.0**63, Decimal128("9223372036854775808")],
        ),
        (str(2**64 + 1), [str(2**64 + 1), Decimal128(str(2**64 + 1))]),
        (str(-(2**63)), [str(-(2**63)), -(2**63)]),
        ("007", ["007"]),
        ("1_0", ["1_0"]),
        ("9999-12-31T23:59:59-23:00", ["9999-12-31T23:59:59-23:00"]),
        ("20260101", ["20260101", 20_260_101]),
        ("x y.*", [Regex("^x\\ y\\.")]),
        ('"', ['"']),
    ],
)
def test_a_condition_has_only_the_values_that_a_text_can_mean(text: str, values: list[Any]) -> None:
    assert SearchTerm(field="payload.a", texts=(text,)).condition() == {"$in": values}


# Settings, the name of a search field, and its path in the documents.
MAPPINGS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "payload.user", "payload.user"),
    (
        {"job_fields": {"jobId": "_id", "createdAt": "_id", "payload": "input.job"}},
        "payload.user",
        "input.job.user",
    ),
    ({"profile": "agenda", "jobs_collection": "agendaJobs"}, "payload.user", "data.user"),
    (
        {"profile": "celery", "jobs_collection": "celery_taskmeta"},
        "payload.kwargs.user",
        "kwargs.user",
    ),
]


@pytest.mark.parametrize("collation", [None, {"locale": "en", "strength": 1}], ids=str)
@pytest.mark.parametrize(("mapping_settings", "name", "path"), MAPPINGS, ids=str)
def test_a_search_of_mapped_documents_finds_jobs_in_list_order(
    mongod: Mongod,
    database: MongoDb,
    mapping_settings: dict[str, Any],
    name: str,
    path: str,
    collation: dict[str, Any] | None,
) -> None:
    uri = database_uri(mongod, database)
    settings = Settings(mongo_uri=uri, search_fields=(name,), **mapping_settings)
    jobs = database.create_collection(
        settings.jobs_collection, **({"collation": collation} if collation else {})
    )
    for number in range(7):
        document: dict[str, Any] = {"jobId": f"j{number}", "status": "SUCCESS", "name": "t"}
        document |= {"createdAt": NOW, "date_done": NOW}
        parent = document
        *parent_names, name_in_parent = path.split(".")
        for parent_name in parent_names:
            parent = parent.setdefault(parent_name, {})
        parent[name_in_parent] = ("ada", "Ada")[number % 2]
        jobs.insert_one(document)
    matches = list(jobs.find({path: "ada"}, collation={"locale": "simple"}))
    queue = QueueService.from_settings(settings)
    try:
        create_indexes(queue.connection)
        with profiled(database) as entries:
            listed_ids = queue.list_ids(**{name: "ada"})
    finally:
        queue.close()
    id_field = "_id" if mapping_settings else "jobId"
    matches.sort(key=lambda document: document["_id"], reverse=True)
    assert listed_ids == [str(document[id_field]) for document in matches]
    assert len(listed_ids) == 4
    reads = [entry for entry in entries if "explain" not in entry["command"]]
    assert reads
    assert all(entry["command"]["hint"].get(path) == 1 for entry in reads)
    assert not any(entry.get("hasSortStage") for entry in reads)


def test_only_a_filter_with_a_star_matches_labels_by_their_beginning() -> None:
    labels = [label(value) for value in ("odd", "odd.one", "odd*", "od", "null", None)]
    assert [text for text in labels if matches_filter(text, "odd*")] == ["odd", "odd.one", '"odd*"']
    assert [text for text in labels if matches_filter(text, "nu*")] == ['"null"', "null"]
    assert [text for text in labels if matches_filter(text, "odd")] == ["odd"]
    assert [text for text in labels if matches_filter(text, '"odd*"')] == ['"odd*"']
