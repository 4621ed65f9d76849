"""Walking a list by cursor: would catch a job that is lost or shown twice because of what its
createdAt or _id holds, and a cursor that could carry an operator into a query."""

import base64
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.database import Database

from jobmon.store.ordering import Place

from ..conftest import NOW, Api

CREATED = [
    NOW,
    NOW,
    NOW + timedelta(seconds=1),
    NOW - timedelta(days=400),
    DatetimeMS(253_402_300_800_000),
    DatetimeMS(-62_135_596_800_001),
    None,
    None,
    "2026-11-23T03:00:00Z",
    "",
    "zz",
    0,
    -7,
    3.5,
    math.inf,
    -math.inf,
    math.nan,
    Decimal128("2.5"),
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
    MinKey(),
    MaxKey(),
    [],
    [NOW],
    [NOW - timedelta(days=1), NOW + timedelta(days=1)],
    ["x", NOW],
    [None, 3],
]
JOBS = [{"createdAt": value} for value in CREATED] + [{}, {}]
IDS = ["b", "a", 1, 2.5, -1, True, {"n": 1}, Binary(b"id", 5), NOW, Decimal128("1.25")]


def walk(api: Api, **query: Any) -> Iterator[str]:
    """The jobs of the list, a cursor's page after the other; fails on an endless list."""
    cursor = None
    for _ in range(200):
        page = api.as_admin("/admin/jobs/queue", **query, **({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        yield from (job["jobId"] for job in page.json["data"])
        cursor = page.json["meta"]["next_cursor"]
        if cursor is None:
            return
    raise AssertionError("the list does not end")


def by_page(api: Api, per_page: int) -> list[str]:
    first = api.as_admin("/admin/jobs/queue", per_page=per_page).json
    pages = [
        api.as_admin("/admin/jobs/queue", per_page=per_page, page=page).json["data"]
        for page in range(1, first["meta"]["total_pages"] + 1)
    ]
    return [job["jobId"] for page in pages for job in page]


def fill(database: Database[dict[str, Any]], jobs: list[dict[str, Any]]) -> list[str]:
    database.jobs.delete_many({})
    named = [{**job, "jobId": str(number)} for number, job in enumerate(jobs)]
    if named:
        database.jobs.insert_many(named)
    return [job["jobId"] for job in named]


@pytest.mark.parametrize("per_page", [1, 2, 3, 7, 100])
def test_jobs_with_anything_for_createdat_are_all_visited_once_in_list_order(
    real_api: Api, database: Database[dict[str, Any]], per_page: int
) -> None:
    all_jobs = fill(database, JOBS + [{"_id": value, "createdAt": NOW} for value in IDS])
    in_order = by_page(real_api, 100)
    assert sorted(in_order) == sorted(all_jobs)
    assert list(walk(real_api, per_page=per_page)) == in_order
    assert by_page(real_api, per_page) == in_order


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    jobs=st.lists(
        st.tuples(st.sampled_from(JOBS), st.sampled_from(["queued", "dlq"])), max_size=30
    ),
    ids=st.lists(st.sampled_from(IDS), unique_by=repr),
    per_page=st.integers(1, 9),
)
def test_any_mixture_with_any_filter_is_visited_once(
    real_api: Api,
    database: Database[dict[str, Any]],
    jobs: list[tuple[dict[str, Any], str]],
    ids: list[Any],
    per_page: int,
) -> None:
    documents = [{**job, "status": status, "type": "t", "createdBy": "ada"} for job, status in jobs]
    documents += [
        {"_id": job_id, "status": "dlq", "type": "t", "createdBy": "ada"} for job_id in ids
    ]
    all_jobs = fill(database, documents)
    dead = [str(n) for n, document in enumerate(documents) if document["status"] == "dlq"]
    assert sorted(walk(real_api, per_page=per_page)) == sorted(all_jobs)
    assert sorted(walk(real_api, per_page=per_page, status="dlq")) == sorted(dead)
    assert sorted(walk(real_api, per_page=per_page, status="dlq", type="t")) == sorted(dead)


def test_a_job_that_comes_or_goes_between_two_pages_moves_no_other(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    fill(database, [{"createdAt": NOW + timedelta(seconds=n)} for n in range(10)])
    first = real_api.as_admin("/admin/jobs/queue", per_page=4).json
    database.jobs.insert_one({"jobId": "new", "createdAt": NOW + timedelta(days=1)})
    database.jobs.delete_one({"jobId": "6"})  # the one that the cursor stands on
    cursor = first["meta"]["next_cursor"]
    second = real_api.as_admin("/admin/jobs/queue", per_page=4, cursor=cursor).json
    assert [job["jobId"] for job in first["data"]] == ["9", "8", "7", "6"]
    assert [job["jobId"] for job in second["data"]] == ["5", "4", "3", "2"]
    assert second["meta"]["page"] == 2


@pytest.mark.parametrize("created_at", [NOW, None, "text", 1.5, [], {"a": [1]}])
def test_a_place_survives_its_token(created_at: Any) -> None:
    place = Place(created_at=created_at, id=ObjectId("65f0c0ffee0123456789abcd"), page=3)
    assert Place.from_token(place.token()) == place


@pytest.mark.parametrize(
    "hostile",
    ["x", "!", "AAAA", "é", "=", "a" * 4_000]
    + [
        base64.urlsafe_b64encode(bson.encode(document)).decode()
        for document in (
            {},
            {"c": 1, "i": 1},
            {"c": 1, "i": 1, "p": 0},
            {"c": 1, "i": 1, "p": -1},
            {"c": 1, "i": 1, "p": "1"},
            {"c": 1, "i": 1, "p": True},
            {"c": 1, "i": 1, "p": 1, "x": 1},
        )
    ],
)
def test_what_is_no_cursor_is_refused_by_name(api: Api, hostile: str) -> None:
    answer = api.as_admin("/admin/jobs/queue", cursor=hostile)
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == ["cursor"]


def test_a_forged_cursor_cannot_carry_an_operator(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    fill(database, [{"createdAt": NOW}, {"createdAt": "text"}])
    place = Place(created_at={"$gt": ""}, id={"$ne": None}, page=1)
    found = real_api.as_admin("/admin/jobs/queue", cursor=place.token())
    # As a place it stands between the types: below dates, above strings.
    assert [job["jobId"] for job in found.json["data"]] == ["1"]
    where = Place(created_at=bson.Code("sleep(1000)"), id=1, page=1)
    assert real_api.as_admin("/admin/jobs/queue", cursor=where.token()).status_code == 200


def test_an_owners_list_is_walked_the_same_way(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    owner = ObjectId()
    mine = fill(database, [{**job, "createdBy": owner} for job in JOBS])
    database.jobs.insert_one({"jobId": "not mine", "createdAt": NOW, "createdBy": "other"})
    seen, cursor = [], ""
    while cursor is not None:
        page = real_api.as_owner("/jobs", str(owner), per_page=5, cursor=cursor).json
        seen += [job["jobId"] for job in page["data"]]
        cursor = page["meta"]["next_cursor"]
    assert sorted(seen) == sorted(mine)


@pytest.mark.parametrize("per_page", [1, 3])
@pytest.mark.parametrize(
    "wanted",
    [
        {"status": "dlq"},
        {"type": ["a", "b"]},
        {"status": ["dlq", "queued"], "type": ["a", "c"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/admin/jobs/queue", "/jobs"])
def test_a_filtered_list_has_one_order_by_cursor_and_by_page(
    real_api: Api,
    database: Database[dict[str, Any]],
    path: str,
    wanted: dict[str, Any],
    per_page: int,
) -> None:
    documents = JOBS + [{"_id": value, "createdAt": NOW} for value in IDS]
    for number, document in enumerate(documents):
        status, kind = ("dlq", "queued", "leased")[number % 3], "abc"[number % 5 % 3]
        documents[number] = {**document, "status": status, "type": kind, "createdBy": "ada"}
    fill(database, documents)
    expected = [
        str(number)
        for number, document in enumerate(documents)
        if all(document[field] in values for field, values in wanted.items())
    ]

    def ask(**query: Any) -> dict[str, Any]:
        token = real_api.token("ada")
        return real_api.get(path, token=token, per_page=per_page, **wanted, **query).json

    by_cursor, by_number, cursor = [], [], ""
    for page in range(1, len(expected) + 1):
        by_number += [job["jobId"] for job in ask(page=page)["data"]]
        if cursor is not None:
            shown = ask(cursor=cursor)
            by_cursor += [job["jobId"] for job in shown["data"]]
            cursor = shown["meta"]["next_cursor"]
    assert cursor is None
    assert sorted(by_number) == sorted(expected)
    assert by_cursor == by_number


@pytest.mark.parametrize("kept", [1, 5, 20, -4, -1])
def test_a_cursor_that_was_cut_short_is_refused(api: Api, kept: int) -> None:
    token = Place(created_at=NOW, id=ObjectId("65f0c0ffee0123456789abcd"), page=1).token()
    answer = api.as_admin("/admin/jobs/queue", cursor=token[:kept])
    assert answer.status_code == 422
    assert answer.json["error"]["code"] == "validation_error"


def test_dates_are_compared_in_utc() -> None:
    place = Place(created_at=datetime(2026, 1, 1, tzinfo=UTC), id=1, page=1)
    assert Place.from_token(place.token()).created_at.tzinfo is not None
