"""Reading a list by cursors, forward and back, newest first and oldest first: catches a job that is
missing or listed twice because of the value of its createdAt or _id, pages that differ when they
are read backwards, and a cursor that puts an operator into a query."""

import base64
import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import bson
import pytest
from bson import (
    Binary,
    Code,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.bson_json import make_aware
from jobmon.store.cursor import NEWEST_FIRST, OLDEST_FIRST, Cursor

from ..conftest import DATE, NOW, SECRET, Api
from ..fuzz.documents import Value, binary, date, encode_pairs, int32, text
from ..support.commands import database_uri

MongoDb = Database[dict[str, Any]]
CREATED_AT_VALUES = [
    NOW,
    NOW,
    NOW + timedelta(seconds=1),
    NOW - timedelta(days=400),
    DatetimeMS(253_402_300_800_000),
    DatetimeMS(-62_135_596_800_001),
    None,
    None,
    f"{DATE}T03:00:00Z",
    "",
    "zz",
    0,
    -7,
    3.5,
    math.inf,
    -math.inf,
    math.nan,
    Decimal128("2.5"),
    Decimal128("sNaN"),
    Int64(2**40),
    True,
    False,
    ObjectId("65f0c0ffee0123456789abcd"),
    b"\x00\x01",
    Binary(b"abc", 5),
    {"at": 1},
    {"$gt": ""},
    {},
    Timestamp(1, 1),
    Regex("^a"),
    Code("f()"),
    DBRef("a", 1),
    MinKey(),
    MaxKey(),
    [],
    [NOW],
    [NOW - timedelta(days=1), NOW + timedelta(days=1)],
    ["x", NOW],
    [None, 3],
    [-math.inf, Decimal128("NaN")],
    [-8, math.nan],
    [Timestamp(1, 1), NOW],
    ["x", Code("f()"), 7],
    "x" * 5_000,
    {"password": "p"},
]
JOBS = [{"createdAt": value} for value in CREATED_AT_VALUES] + [{}, {}]
# If a createdAt is an array, cursors have only the number of a page.
JOBS_BY_CASE = {
    "with arrays": JOBS,
    "without arrays": [job for job in JOBS if not isinstance(job.get("createdAt"), list)],
}
SORTS = ("-createdAt", "createdAt")
PER_PAGE = 4
ID_VALUES = ["b", "a", 1, 2.5, -1, True, {"n": 1}, Binary(b"id", 5), NOW, Decimal128("1.25")]
ID_VALUES += [math.nan, MinKey(), MaxKey(), Timestamp(1, 1), Code("f()"), None, "y" * 5_000]
# Values that PyMongo does not write, and that it decodes to different values.
RAW_VALUES = [
    Value(0x0C, text("users").data + ObjectId().binary),  # a DBPointer
    text("symbol", 0x0E),
    text(b"\xff", 0x0E),
    text(b"\xff\xfe"),
    text(b"\xed\xa0\x80"),
    binary(b"abc", 2),
]


def list_by_cursor(
    api: Api, path: str = "/admin/jobs/queue", subject: str = "root", **query: Any
) -> list[str]:
    """The ids of a list, read page by page with the cursors.

    Fails if the list has more than 200 pages, or if the pages differ when they are read backwards.
    """
    token = api.token(subject)

    def get_page(cursor: str | None) -> dict[str, Any]:
        page = api.get(path, token=token, **query, **({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        return page.json

    pages = [get_page(None)]
    while cursor := pages[-1]["meta"]["next_cursor"]:
        assert len(pages) < 200, "the list does not end"
        pages.append(get_page(cursor))
    pages_back = [pages[-1]]
    while cursor := pages_back[-1]["meta"]["prev_cursor"]:
        assert len(pages_back) < 200, "the list does not end backwards"
        pages_back.append(get_page(cursor))
    assert [page["data"] for page in pages_back] == [page["data"] for page in reversed(pages)]
    assert [page["meta"]["page"] for page in pages_back] == list(range(len(pages), 0, -1))
    if len(pages) > 2:  # forward again from the second page, which was read backwards
        third = get_page(pages_back[-2]["meta"]["next_cursor"])
        assert third["data"] == pages[2]["data"]
    return [job["jobId"] for page in pages for job in page["data"]]


def list_by_page(api: Api, per_page: int, **query: Any) -> list[str]:
    """The ids of a list, read page by page with the page numbers."""
    first = api.get_as_admin("/admin/jobs/queue", per_page=per_page, **query).json
    pages = [
        api.get_as_admin("/admin/jobs/queue", per_page=per_page, page=page, **query).json["data"]
        for page in range(1, first["meta"]["total_pages"] + 1)
    ]
    return [job["jobId"] for page in pages for job in page]


def replace_jobs(database: MongoDb, jobs: list[dict[str, Any]]) -> None:
    """Replace all jobs by `jobs`; the id of a job is its index in this list."""
    database.jobs.delete_many({})
    if jobs:
        database.jobs.insert_many({**job, "jobId": str(index)} for index, job in enumerate(jobs))


def sort_ids(database: MongoDb, sort: str) -> list[str]:
    """The ids of all jobs, as MongoDB sorts the jobs."""
    return [job["jobId"] for job in database.jobs.find().sort(parse_order(sort))]


def parse_order(sort: str) -> list[tuple[str, int]]:
    return OLDEST_FIRST if sort == "createdAt" else NEWEST_FIRST


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("jobs", JOBS_BY_CASE.values(), ids=JOBS_BY_CASE)
def test_jobs_with_any_created_at_or_id_are_listed_once_in_order(
    real_api: Api, database: MongoDb, jobs: list[dict[str, Any]], sort: str
) -> None:
    database.jobs.create_index(NEWEST_FIRST)
    replace_jobs(database, jobs + [{"_id": value, "createdAt": NOW} for value in ID_VALUES])
    expected = sort_ids(database, sort)
    # With one job per page, each job has a cursor. Once is enough: both sorts read the same index.
    per_page = 1 if sort == "-createdAt" else 5
    assert list_by_cursor(real_api, per_page=per_page, sort=sort) == expected
    assert list_by_page(real_api, 7, sort=sort) == expected


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("field", ["createdAt", "_id"])
def test_jobs_with_values_that_decoding_changes_are_listed_once(
    real_api: Api, database: MongoDb, field: str, sort: str
) -> None:
    database.jobs.create_index(NEWEST_FIRST)
    usual_values = [NOW, None, "symbols", "z", "\ufffd", 1, ObjectId(), b"abc"]
    usual_jobs = [
        {"_id": index, "createdAt": NOW, field: value} for index, value in enumerate(usual_values)
    ]
    replace_jobs(database, usual_jobs)
    for number, value in enumerate(RAW_VALUES, start=len(usual_values)):
        fields = {"_id": int32(number), "createdAt": date(0), "jobId": text(str(number))}
        pairs = [(name.encode(), value) for name, value in (fields | {field: value}).items()]
        database.jobs.insert_one(RawBSONDocument(encode_pairs(pairs)))
    jobs = database.jobs.find({}, {"_id": 0, "jobId": 1}).sort(parse_order(sort))
    expected = [job["jobId"] for job in jobs]
    assert list_by_cursor(real_api, per_page=1, sort=sort) == expected


@pytest.mark.parametrize(
    ("key", "redaction"), [("password", {}), ("taxNumber", {"redact_keys": ("tax_number",)})]
)
def test_a_cursor_at_a_long_or_secret_value_has_only_its_page_number(
    mongod: Mongod,
    database: MongoDb,
    make_settings: Callable[..., Settings],
    key: str,
    redaction: dict[str, Any],
) -> None:
    replace_jobs(
        database,
        [
            {"createdAt": {key: "hidden"}},
            {"createdAt": "x" * 9_000},
            {"createdAt": f"{key}=hidden", "_id": "a"},
            {"createdAt": NOW, "_id": f"GET /?{key}=hidden"},
            {},
        ],
    )
    uri = database_uri(mongod, database)
    app = create_app(make_settings(mongo_uri=uri, **redaction))
    for page in (1, 2, 3, 4):
        meta = Api(app).get_as_admin("/admin/jobs/queue", per_page=1, page=page).json["meta"]
        assert len(meta["next_cursor"]) < 100
        assert b"hidden" not in base64.urlsafe_b64decode(meta["next_cursor"] + "==")
        assert Cursor.decode(meta["next_cursor"]).by_page
    app.extensions["jobmon_connection"].client.close()


@pytest.mark.parametrize("sort", SORTS)
def test_the_order_is_the_same_without_an_index(
    real_api: Api, database: MongoDb, sort: str
) -> None:
    replace_jobs(database, JOBS)
    assert list_by_cursor(real_api, per_page=7, sort=sort) == sort_ids(database, sort)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    jobs=st.one_of(
        st.lists(st.tuples(st.sampled_from(jobs), st.sampled_from(["queued", "dlq"])), max_size=30)
        for jobs in JOBS_BY_CASE.values()
    ),
    ids=st.lists(st.sampled_from(ID_VALUES), unique_by=repr),
    per_page=st.integers(1, 9),
    sort=st.sampled_from(SORTS),
)
def test_any_mixture_of_jobs_is_listed_once_with_and_without_filters(
    real_api: Api,
    database: MongoDb,
    jobs: list[tuple[dict[str, Any], str]],
    ids: list[Any],
    per_page: int,
    sort: str,
) -> None:
    documents = [{**job, "status": status, "type": "t", "createdBy": "ada"} for job, status in jobs]
    documents += [
        {"_id": job_id, "status": "dlq", "type": "t", "createdBy": "ada"} for job_id in ids
    ]
    # An index stays multikey after its arrays are deleted, and the service caches this result.
    database.jobs.drop()
    real_api.app.extensions["jobmon_connection"].jobs._without_arrays.clear()
    database.jobs.create_index(NEWEST_FIRST)
    database.jobs.create_index([("status", 1), *NEWEST_FIRST])
    replace_jobs(database, documents)
    expected = sort_ids(database, sort)
    dead_lettered = [job_id for job_id in expected if documents[int(job_id)]["status"] == "dlq"]
    query = {"per_page": per_page, "sort": sort}
    assert list_by_cursor(real_api, **query) == expected
    assert list_by_cursor(real_api, **query, status="dlq") == dead_lettered
    assert list_by_cursor(real_api, **query, status="dlq", type="t") == dead_lettered


def test_a_new_or_deleted_job_between_two_pages_moves_no_other_job(
    real_api: Api, database: MongoDb
) -> None:
    replace_jobs(database, [{"createdAt": NOW + timedelta(seconds=number)} for number in range(10)])
    first = real_api.get_as_admin("/admin/jobs/queue", per_page=4).json
    database.jobs.insert_one({"jobId": "new", "createdAt": NOW + timedelta(days=1)})
    database.jobs.delete_one({"jobId": "6"})  # the last job of the first page
    cursor = first["meta"]["next_cursor"]
    second = real_api.get_as_admin("/admin/jobs/queue", per_page=4, cursor=cursor).json
    assert [job["jobId"] for job in first["data"]] == ["9", "8", "7", "6"]
    assert [job["jobId"] for job in second["data"]] == ["5", "4", "3", "2"]
    assert second["meta"]["page"] == 2


@pytest.mark.parametrize(
    ("field", "filters"),
    [
        ("createdAt", {"status": "queued", "priority": 5}),
        ("nextRunAt", {"status": "queued", "priority": 5}),
        ("finishedAt", {"status": "dlq", "priority": 5}),
        ("leaseExpiresAt", {"status": "leased", "priority": 5}),
        ("leaseExpiresAt", {"status": "leased"}),
    ],
)
@pytest.mark.parametrize("direction", [1, -1])
def test_a_deleted_job_moves_no_other_job_of_a_list_that_is_sorted_in_memory(
    real_api: Api, database: MongoDb, field: str, filters: dict[str, Any], direction: int
) -> None:
    """Catches pages of a filter without a list index that are found by skipping jobs."""
    create_indexes(real_api.app.extensions["jobmon_connection"])
    moments: list[Any] = [NOW + timedelta(seconds=number // 2) for number in range(8)]
    dated = [{field: moment} for moment in [*moments, "text", None]] + [{}, {}]
    replace_jobs(database, [job | filters for job in dated])
    in_order = database.jobs.find().sort([(field, direction), ("_id", direction)])
    expected = [job["jobId"] for job in in_order]
    sort = field if direction > 0 else f"-{field}"
    query = {"per_page": 3, "sort": sort, **filters}
    cursor, listed = "", []
    while cursor is not None:
        page = real_api.get_as_admin("/admin/jobs/queue", **query, cursor=cursor).json
        listed += [job["jobId"] for job in page["data"]]
        database.jobs.delete_one({"jobId": listed[-1]})
        cursor = page["meta"]["next_cursor"]
    assert listed == expected


@pytest.mark.parametrize("created_at", [NOW, None, "text", 1.5, True, DatetimeMS(2**60)])
def test_decode_returns_the_cursor_that_was_encoded(created_at: Any) -> None:
    for oldest_first, backwards in product((False, True), repeat=2):
        cursor = Cursor(
            date=created_at,
            id=Binary(b"x" * 16, 4),
            page=3,
            oldest_first=oldest_first,
            backwards=backwards,
        )
        assert Cursor.decode(cursor.encode()) == cursor


def nest(depth: int, value: Any = 1) -> Any:
    for _ in range(depth):
        value = {"a": value}
    return value


def encode_document(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(bson.encode(document)).decode().rstrip("=")


VALID_CURSOR = {"p": 1, "o": False, "b": False, "c": NOW, "i": 1}
INVALID_CURSORS = {
    "empty": encode_document({}),
    "without a page": encode_document({"o": False, "b": False, "c": NOW, "i": 1}),
    "without a direction": encode_document({"p": 1, "c": NOW, "i": 1}),
    "page 0": encode_document(VALID_CURSOR | {"p": 0}),
    "negative page": encode_document(VALID_CURSOR | {"p": -1}),
    "page as text": encode_document(VALID_CURSOR | {"p": "1"}),
    "page as bool": encode_document(VALID_CURSOR | {"p": True}),
    "too large page": encode_document(VALID_CURSOR | {"p": 2**63 - 1}),
    "oldest first as number": encode_document(VALID_CURSOR | {"o": 1}),
    "backwards as null": encode_document(VALID_CURSOR | {"b": None}),
    "deep id": encode_document(VALID_CURSOR | {"i": nest(195)}),
    "deep createdAt": encode_document(VALID_CURSOR | {"c": nest(195)}),
    "deep array": encode_document(VALID_CURSOR | {"c": {"a": json.loads("[" * 99 + "]" * 99)}}),
    "deep scope": encode_document(VALID_CURSOR | {"c": Code("f()", nest(150))}),
    "long": encode_document(VALID_CURSOR | {"i": "x" * 2_900}),
    "array as id": encode_document(VALID_CURSOR | {"i": [1]}),
    "keys in another order": encode_document(dict(sorted(VALID_CURSOR.items()))),
    "page as double": encode_document(VALID_CURSOR | {"p": 1.0}),
    "page as 64-bit integer": encode_document(VALID_CURSOR | {"p": Int64(1)}),
    "padded": encode_document(VALID_CURSOR) + "=",
    "unused bits set": encode_document({"p": 1, "o": False, "b": False})[:-1] + "B",
    "unknown key": encode_document(VALID_CURSOR | {"x": 1}),
    "truncated": encode_document(VALID_CURSOR)[:-4],
    "no document": "AAAA",
    "no base64": "!",
    "no ASCII": "é",
}


@pytest.mark.parametrize("cursor", INVALID_CURSORS.values(), ids=INVALID_CURSORS)
def test_a_cursor_that_no_list_encodes_is_422(idle_api: Api, cursor: str) -> None:
    assert idle_api.get_as_admin("/admin/jobs/queue", cursor=cursor).status_code == 422
    assert list(idle_api.get_as_admin("/jobs", cursor=cursor).json["error"]["details"]) == [
        "cursor"
    ]


def test_a_cursor_of_a_list_is_accepted_and_another_one_refused_by_all_lists(
    idle_api: Api,
) -> None:
    """Catches invalid cursors above that are refused for another reason than their content."""
    for path in ("/admin/jobs/queue", "/jobs", "/dashboard/jobs"):
        for cursor, status in ((VALID_CURSOR, 200), (VALID_CURSOR | {"x": 1}, 422)):
            answer = idle_api.get_as_admin(path, cursor=encode_document(cursor))
            assert answer.status_code == status, path


def test_jobs_with_deeply_nested_ids_and_dates_are_listed_once(
    real_api: Api, database: MongoDb
) -> None:
    deep_jobs = [{"createdAt": nest(depth)} for depth in (1, 30, 31, 32, 33, 150)]
    deep_jobs += [{"_id": nest(depth, 2), "createdAt": NOW} for depth in (1, 30, 31, 32, 33, 150)]
    replace_jobs(database, deep_jobs)
    for sort in SORTS:
        assert list_by_cursor(real_api, per_page=1, sort=sort) == sort_ids(database, sort)


CURSOR_VALUES = st.recursive(
    st.sampled_from(CREATED_AT_VALUES + ID_VALUES)
    | st.text(max_size=9)
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(1, 199).map(nest),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "$gt", "$ref", "$id", "", "a.b"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.fixed_dictionaries(
        {"p": st.integers(1, 2**53 - 1), "o": st.booleans(), "b": st.booleans()},
        optional={"c": CURSOR_VALUES, "i": CURSOR_VALUES},
    ),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=2),
    cut_length=st.integers(0, 3),
    status=st.sampled_from(["", "dlq"]),
)
def test_any_cursor_is_422_or_a_page(
    real_api: Api,
    database: MongoDb,
    content: dict[str, Any],
    changes: list[tuple[int, int]],
    cut_length: int,
    status: str,
) -> None:
    """Catches a forged cursor that is a server error; `changes` are positions and new bytes."""
    if database.jobs.find_one() is None:
        replace_jobs(database, JOBS)
    raw_cursor = bytearray(bson.encode(content))
    for index, byte in changes:
        raw_cursor[index % len(raw_cursor)] = byte
    cursor = base64.urlsafe_b64encode(raw_cursor).decode().rstrip("=")
    cursor = cursor[: len(cursor) - cut_length]
    sort = SORTS[bool(content["o"])]
    answer = real_api.get_as_admin("/admin/jobs/queue", cursor=cursor, sort=sort, status=status)
    assert answer.status_code in (200, 422), (answer.status_code, content)


def test_a_forged_cursor_cannot_carry_an_operator(real_api: Api, database: MongoDb) -> None:
    created = [NOW, "text"]
    database.jobs.insert_many(
        {"jobId": f"job-{number}", "createdAt": value, "createdBy": "ada"}
        for number, value in enumerate(created)
    )
    database.jobs.create_index(NEWEST_FIRST)
    for hostile in ({"$gt": ""}, {"$literal": 1}, Code("sleep(1000)")):
        cursor = Cursor(date=hostile, id=hostile, page=1).encode()
        assert real_api.get_as_admin("/admin/jobs/queue", cursor=cursor).status_code == 422
    # `$createdAt` is compared as a text; as the path of a field, it would match other jobs.
    for oldest_first, expected in ((True, ["job-1", "job-0"]), (False, [])):
        cursor = Cursor(date="$createdAt", id="$_id", page=1, oldest_first=oldest_first).encode()
        for path in ("/admin/jobs/queue", "/jobs"):
            query = {"cursor": cursor, "sort": SORTS[oldest_first]}
            page = real_api.get(path, token=real_api.token("ada"), **query).json
            assert [job["jobId"] for job in page["data"]] == expected


@pytest.mark.parametrize("sort", SORTS)
def test_an_owners_list_has_all_jobs_of_this_owner_in_order(
    real_api: Api, database: MongoDb, sort: str
) -> None:
    owner = ObjectId()
    replace_jobs(database, [{**job, "createdBy": owner} for job in JOBS])
    expected = sort_ids(database, sort)
    database.jobs.insert_one(
        {"jobId": "job of another owner", "createdAt": NOW, "createdBy": "other"}
    )
    assert list_by_cursor(real_api, "/jobs", str(owner), per_page=5, sort=sort) == expected
    assert list_by_cursor(real_api, owner=str(owner), per_page=5, sort=sort) == expected


@pytest.fixture(scope="module", params=JOBS_BY_CASE)
def mixed_jobs(
    request: pytest.FixtureRequest, mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[tuple[Api, MongoDb]]:
    """The service over jobs whose createdAt has any type, and their database with its indexes."""
    database = mongo[f"test_mixed_jobs_{request.param.replace(' ', '_')}"]
    jobs = JOBS_BY_CASE[request.param] + [{"_id": value, "createdAt": NOW} for value in ID_VALUES]
    database.jobs.insert_many(
        {
            **job,
            "jobId": f"id-{number:02d}",
            "status": ("dlq", "queued")[number % 2],
            "createdBy": "ada",
            "lastError": {"code": "E"},
        }
        for number, job in enumerate(jobs)
    )
    uri = database_uri(mongod, database)
    app = create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET))
    connection = app.extensions["jobmon_connection"]
    create_indexes(connection)
    yield Api(app), database
    connection.client.close()
    mongo.drop_database(database.name)


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize(
    "filters",
    [
        {"job_id": "id-1"},
        {"job_id": "id-2", "status": "dlq"},
        {"error_code": "E"},
        {"error_code": "E", "status": "dlq", "created_from": f"{DATE}T03:00:00Z"},
        {"created_from": f"{DATE}T03:00:00Z"},
        {"created_to": f"{DATE}T03:00:00.001Z"},
        {"created_from": (NOW - timedelta(days=400)).isoformat(), "created_to": f"{DATE}T03:00:00"},
        {"owner": "ada", "created_from": f"{DATE}T04:00:00+01:00"},
    ],
    ids=str,
)
def test_filtered_lists_are_in_order_forward_and_back(
    mixed_jobs: tuple[Api, MongoDb], filters: dict[str, str], sort: str
) -> None:
    api, database = mixed_jobs
    query: dict[str, Any] = {"jobId": re.compile(f"^{filters.get('job_id', '')}")}
    if "status" in filters:
        query["status"] = filters["status"]
    for name, operator in (("created_from", "$gte"), ("created_to", "$lt")):
        if name in filters:
            moment = make_aware(datetime.fromisoformat(filters[name]))
            query.setdefault("createdAt", {})[operator] = moment
    expected = [job["jobId"] for job in database.jobs.find(query).sort(parse_order(sort))]
    assert expected
    assert list_by_cursor(api, per_page=6, sort=sort, **filters) == expected
    assert list_by_page(api, 20, sort=sort, **filters) == expected


def test_previous_pages_show_new_jobs_and_omit_deleted_jobs(
    real_api: Api, database: MongoDb
) -> None:
    replace_jobs(database, [{"createdAt": NOW + timedelta(seconds=number)} for number in range(9)])

    def get_page(**query: Any) -> tuple[list[str], dict[str, Any]]:
        """The ids of a page, and its `meta`."""
        page = real_api.get_as_admin("/admin/jobs/queue", per_page=3, **query).json
        return [job["jobId"] for job in page["data"]], page["meta"]

    _, first_meta = get_page()
    ids, second_meta = get_page(cursor=first_meta["next_cursor"])
    assert ids == ["5", "4", "3"]
    database.jobs.insert_many(
        {"jobId": name, "createdAt": NOW + timedelta(days=1, seconds=n)}
        for n, name in enumerate(("new", "newer"))
    )
    ids, meta = get_page(cursor=second_meta["prev_cursor"])
    assert (ids, meta["page"]) == (["8", "7", "6"], 1)
    # Only two jobs are newer than this page, so the first three jobs are shown.
    ids, meta = get_page(cursor=meta["prev_cursor"])
    assert (ids, meta["page"], meta["prev_cursor"]) == (["newer", "new", "8"], 1, None)
    database.jobs.delete_many({"jobId": {"$in": ["newer", "new", "8", "7", "6", "5", "4"]}})
    ids, meta = get_page(cursor=second_meta["prev_cursor"])
    assert (ids, meta["page"], meta["prev_cursor"]) == (["3", "2", "1"], 1, None)


@pytest.mark.parametrize(("sort", "other_sort"), [SORTS, SORTS[::-1]])
def test_a_cursor_with_another_sort_is_422(
    real_api: Api, database: MongoDb, sort: str, other_sort: str
) -> None:
    replace_jobs(database, JOBS)
    query = {"per_page": 5, "sort": sort}
    next_cursor = real_api.get_as_admin("/admin/jobs/queue", **query).json["meta"]["next_cursor"]
    second_page = real_api.get_as_admin("/admin/jobs/queue", **query, cursor=next_cursor).json
    for cursor in (next_cursor, second_page["meta"]["prev_cursor"]):
        answer = real_api.get_as_admin("/admin/jobs/queue", sort=other_sort, cursor=cursor)
        assert answer.status_code == 422
        assert list(answer.json["error"]["details"]) == ["cursor"]


@pytest.mark.parametrize(
    "filters",
    [
        {"status": "dlq"},
        {"type": ["a", "b"]},
        {"status": ["dlq", "queued"], "type": ["a", "c"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/admin/jobs/queue", "/jobs"])
def test_a_filtered_list_has_the_same_order_by_cursor_and_by_page(
    real_api: Api, database: MongoDb, path: str, filters: dict[str, Any]
) -> None:
    documents = JOBS + [{"_id": value, "createdAt": NOW} for value in ID_VALUES]
    for number, document in enumerate(documents):
        status, job_type = ("dlq", "queued", "leased")[number % 3], "abc"[number % 5 % 3]
        documents[number] = {**document, "status": status, "type": job_type, "createdBy": "ada"}
    replace_jobs(database, documents)
    expected = [
        str(number)
        for number, document in enumerate(documents)
        if all(document[field] in values for field, values in filters.items())
    ]

    def get_page(**query: Any) -> dict[str, Any]:
        token = real_api.token("ada")
        return real_api.get(path, token=token, per_page=PER_PAGE, **filters, **query).json

    ids_by_cursor, ids_by_page, cursor = [], [], ""
    for page_number in range(1, -(-len(expected) // PER_PAGE) + 1):
        ids_by_page += [job["jobId"] for job in get_page(page=page_number)["data"]]
        if cursor is not None:
            page = get_page(cursor=cursor)
            ids_by_cursor += [job["jobId"] for job in page["data"]]
            cursor = page["meta"]["next_cursor"]
    assert cursor is None
    assert sorted(ids_by_page) == sorted(expected)
    assert ids_by_cursor == ids_by_page


def test_job_with_the_id_1_is_not_taken_for_the_job_with_the_id_true() -> None:
    """Catches a job that is listed twice, because True is equal to 1 in Python."""
    cursor = Cursor(date=NOW, id=True, page=1, oldest_first=True, neighbor_differs=True)
    number, boolean, last = ({"_id": key, "createdAt": NOW} for key in (1, True, Timestamp(1, 1)))
    assert cursor.select_beyond([number, boolean, last]) == [last]
    assert cursor.select_beyond([number]) is None
