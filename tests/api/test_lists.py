"""The parameters of both list routes: catches a filter that matches too many jobs, a lower bound
that is shown as an exact total, and an id that is used as a pattern."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database

from jobmon.api.job_lists import SKIPPING
from jobmon.app import create_app
from jobmon.store import list_count, list_plan, lists

from ..conftest import DATE, NEXT_DATE, NOW, Api
from ..support.commands import index_queue

QUEUE, OWN_JOBS = "/admin/jobs/queue", "/jobs"
OWNER = ObjectId("65f0c0ffee0123456789abcd")


def read_ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [job["jobId"] for job in answer.json["data"]]


@pytest.fixture
def twelve_jobs(watched: Any) -> Any:
    """Jobs 0 to 11, created each hour; their owners are in turn OWNER, its text and ada."""
    codes = ["E", 11_000, "E2", "11000"]
    watched.jobs.insert_many(
        {
            "jobId": str(index),
            "status": ["queued", "dlq"][index % 2],
            "type": ["a", "b", "c"][index % 3],
            "createdBy": [OWNER, str(OWNER), "ada"][index % 3],
            "createdAt": NOW + timedelta(hours=index),
            "lastError": {"code": codes[index // 2 % 4]} if index % 2 else None,
        }
        for index in range(12)
    )
    return watched


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"owner": str(OWNER)}, "10 9 7 6 4 3 1 0"),
    ({"owner": "ada"}, "11 8 5 2"),
    ({"owner": "ad"}, ""),
    ({"owner": str(OWNER).upper()}, ""),
    ({"owner": "ada", "status": "dlq", "type": ["a", "c"]}, "11 5"),
    ({"owner": "ada", "created_from": f"{DATE}T10:00:00Z"}, "11 8"),
    ({"created_from": f"{DATE}T12:00:00Z"}, "11 10 9"),
    ({"created_to": f"{DATE}T05:00:00Z"}, "1 0"),
    ({"created_from": f"{DATE}T05:00", "created_to": f"{DATE}T07:00"}, "3 2"),
    ({"created_from": f"{DATE}T14:30:00+02:00"}, "11 10"),
    ({"created_from": NEXT_DATE}, ""),
    ({"created_to": NEXT_DATE, "type": "b", "status": "dlq"}, "7 1"),
    ({"error_code": "E"}, "9 1"),
    ({"error_code": "11000"}, "11 7 3"),
    ({"error_code": "e"}, ""),
    ({"error_code": ".*"}, ""),
    ({"error_code": "E", "type": "b"}, "1"),
    ({"error_code": "E", "status": "dlq", "created_from": f"{DATE}T05:00"}, "9"),
    ({"error_code": "9" * 30}, ""),
    ({"status": ["dlq", ""]}, "11 9 7 5 3 1"),
    ({"status": ["dlq", "queued"], "type": ["a", "b"]}, "10 9 7 6 4 3 1 0"),
    ({"status": "DLQ"}, ""),
    ({"status": "$ne"}, ""),
    (
        {"owner": "", "created_from": "", "created_to": "", "error_code": "", "job_id": ""}
        | {"sort": "", "format": "", "cursor": "", "type": "", "status": ""},
        "11 10 9 8 7 6 5 4 3 2 1 0",
    ),
]


def test_each_filter_finds_exactly_the_matching_jobs(api: Api, twelve_jobs: Any) -> None:
    for query, expected in FILTERS:
        answer = api.get_as_admin(QUEUE, **query)
        assert read_ids(answer) == expected.split(), query
        meta = answer.json["meta"]
        assert (meta["total"], meta["total_is_exact"]) == (len(expected.split()), True), query


def test_the_list_of_own_jobs_refuses_the_filters_of_admins(api: Api, twelve_jobs: Any) -> None:
    query = {"status": "dlq", "created_to": f"{DATE}T12:00:00Z"}
    assert read_ids(api.get_as_owner(OWN_JOBS, "ada", **query)) == ["5"]
    for name in ("owner", "error_code", "condition"):
        answer = api.get_as_owner(OWN_JOBS, "ada", **{name: "x"})
        assert answer.status_code == 422
        assert list(answer.json["error"]["details"]) == [name]
        assert read_ids(api.get_as_owner(OWN_JOBS, "ada", **{name: ""})) == ["11", "8", "5", "2"]


@pytest.mark.parametrize("path", [QUEUE, OWN_JOBS])
@pytest.mark.parametrize(
    ("parameter", "query"),
    [
        ("created_from", {"created_from": "yesterday"}),
        ("created_from", {"created_from": "0001-01-01T00:00:00+23:59"}),
        ("created_to", {"created_to": "9999-12-31T23:59:59-23:59"}),
        ("created_to", {"created_to": f"{NOW.timestamp():.0f}"}),
        ("created_to", {"created_from": DATE, "created_to": DATE}),
        ("created_to", {"created_from": f"{DATE}T00:00:00-01:00", "created_to": DATE}),
        ("owner", {"owner": "o" * 1_001}),
        ("error_code", {"error_code": "e" * 1_001}),
        ("min_attempts", {"min_attempts": 0}),
        ("min_attempts", {"min_attempts": "2.0"}),
        ("priority", {"priority": "high"}),
        ("type", {"type": "*"}),
        ("due_to", {"due_from": NEXT_DATE, "due_to": DATE}),
        ("finished_to", {"finished_from": DATE, "finished_to": DATE}),
        ("job_id", {"job_id": "abc"}),
        ("sort", {"sort": "type"}),
        ("sort", {"sort": "+createdAt"}),
        ("format", {"format": "xml"}),
        ("page", {"format": "csv", "page": 1}),
        ("per_page", {"format": "ndjson", "per_page": 100}),
        ("cursor", {"format": "csv", "cursor": "x"}),
    ],
    ids=str,
)
def test_a_bad_query_is_422_and_names_the_parameter(
    idle_api: Api, path: str, parameter: str, query: dict[str, Any]
) -> None:
    answer = idle_api.get_as_admin(path, **query)
    assert answer.status_code == 422
    error = answer.json["error"]
    assert error["code"] == "validation_error"
    assert parameter in error["details"]
    assert set(error["details"]) <= set(query)


@pytest.mark.parametrize(
    ("path", "query", "matching_count"),
    [
        (OWN_JOBS, {}, 30),
        (QUEUE, {"owner": "ada"}, 30),
        (QUEUE, {"created_from": f"{DATE}T03:00:01Z"}, 29),
        (QUEUE, {"error_code": "E"}, 30),
        (OWN_JOBS, {"created_to": f"{DATE}T03:00:10Z"}, 10),
        (OWN_JOBS, {"created_to": f"{DATE}T03:00:11Z"}, 11),
    ],
    ids=str,
)
def test_totals_beyond_the_count_limit_are_marked_as_lower_bounds(
    api: Api,
    watched: Any,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    query: dict[str, Any],
    matching_count: int,
) -> None:
    monkeypatch.setattr(list_count, "COUNT_EXACTLY_UP_TO", 10)
    watched.jobs.insert_many(
        {
            "jobId": str(index),
            "createdBy": "ada",
            "createdAt": NOW + timedelta(seconds=index),
            "lastError": {"code": "E"},
        }
        for index in range(30)
    )
    listed_ids, cursor = [], ""
    token = api.token("ada")
    while cursor is not None:
        page = api.get(path, token=token, per_page=4, cursor=cursor, **query)
        listed_ids += read_ids(page)
        meta = page.json["meta"]
        total = (meta["total"], meta["total_is_exact"], meta["total_pages"])
        assert total == (10, matching_count == 10, 3)
        cursor = meta["next_cursor"]
    assert len(listed_ids) == len(set(listed_ids)) == matching_count
    page_count = math.ceil(matching_count / 4)
    last_page = api.get(path, token=token, per_page=4, page=page_count, **query)
    assert read_ids(last_page) == listed_ids[4 * (page_count - 1) :]
    for page_beyond in (99, 10**30):
        assert read_ids(api.get(path, token=token, per_page=4, page=page_beyond, **query)) == []


# Functions that make a hostile id from the id of a job.
MAKE_HOSTILE_ID: dict[str, Callable[[str], str]] = {
    "a regular expression": lambda _: "^.*$",
    "any character": lambda job_id: f"{job_id}.",
    "an operator": lambda _: '{"$gt": ""}',
    "a field": lambda _: "$jobId",
    "quotes": lambda _: "'\" || 1 == 1 //",
    "a NUL": lambda job_id: f"{job_id}\0",
    "the greatest character": lambda job_id: f"{job_id}\U0010ffff",
    "a percent sign": lambda job_id: f"{job_id}%",
    "right to left": lambda job_id: f"\u202e{job_id}",
    "very long": lambda job_id: job_id * 500,
}


@pytest.mark.parametrize("make_hostile_id", MAKE_HOSTILE_ID.values(), ids=MAKE_HOSTILE_ID)
def test_a_prefix_of_an_id_is_text_and_never_a_pattern(
    real_api: Api, database: Database[dict[str, Any]], make_hostile_id: Callable[[str], str]
) -> None:
    plain_ids = ["plain-id-1", "plain-id-2", "PLAIN-ID-3"]
    prefix = make_hostile_id("plain-id-1")
    for path in (QUEUE, OWN_JOBS):
        database.jobs.delete_many({})
        database.jobs.insert_many({"jobId": name, "createdBy": "ada"} for name in plain_ids)
        token = real_api.token("ada")
        assert read_ids(real_api.get(path, token=token, job_id=prefix)) == []
        database.jobs.insert_many(
            {"jobId": name, "createdBy": "ada"} for name in (prefix, f"{prefix}é")
        )
        answer = real_api.get(path, token=token, job_id=prefix)
        assert sorted(read_ids(answer)) == [prefix, f"{prefix}é"]


def test_half_a_surrogate_pair_matches_no_job(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    database.jobs.insert_one({"jobId": "abcd"})
    headers = {"Authorization": f"Bearer {real_api.token()}"}
    for parameter in ("job_id", "owner", "error_code", "status"):
        answer = real_api.client.get(f"{QUEUE}?{parameter}=abcd%ED%A0%80", headers=headers)
        assert read_ids(answer) == []


def test_an_owner_finds_only_own_jobs_by_a_prefix_of_an_id(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    database.jobs.insert_many(
        {"jobId": f"same-{index}", "createdBy": ["ada", "bob"][index % 2]} for index in range(6)
    )
    answer = real_api.get_as_owner(OWN_JOBS, "ada", job_id="same", sort="createdAt")
    assert read_ids(answer) == ["same-0", "same-2", "same-4"]
    assert answer.json["meta"]["total"] == 3


def test_only_the_total_of_a_long_list_is_cached(
    api: Api, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_count, "SHARE_FROM", 5)
    monkeypatch.setattr(list_count, "SHARE_S", 10**9)  # longer than this test
    jobs = [{"jobId": str(index), "createdBy": "ada", "createdAt": NOW} for index in range(8)]
    watched.jobs.insert_many([*jobs, {"jobId": "other", "createdBy": "bob", "createdAt": NOW}])

    def read_total(owner: str) -> int:
        return api.get_as_owner(OWN_JOBS, owner, per_page=1).json["meta"]["total"]

    assert (read_total("ada"), read_total("bob")) == (8, 1)
    watched.jobs.insert_many({"createdBy": owner, "createdAt": NOW} for owner in ("ada", "bob"))
    assert (read_total("ada"), read_total("bob")) == (8, 2)
    monkeypatch.setattr(list_count, "SHARE_S", 1e-9)
    assert read_total("ada") == 9


def test_list_of_one_page_is_not_counted(
    api: Api, twelve_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a query for the total of a list whose first page has all jobs of the list."""
    monkeypatch.setattr(list_count.ListCounter, "count", None)
    for query, total in (({"owner": "ada"}, 4), ({"status": "dlq"}, 6), ({"owner": "none"}, 0)):
        meta = api.get_as_admin(QUEUE, **query).json["meta"]
        assert (meta["total"], meta["total_is_exact"]) == (total, True)


@pytest.fixture
def jobs_by_condition(watched: Any) -> Any:
    """Jobs that wait, run or have ended; the nextRunAt of `unreadable` is a text."""
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    watched.jobs.insert_many(
        {"type": "b" if job_id == "due-b" else "a", "createdAt": NOW, "jobId": job_id, **fields}
        for job_id, fields in {
            "due": {"status": "queued", "nextRunAt": now - hour},
            "due-b": {"status": "failed", "nextRunAt": now - 2 * hour},
            "due-at-once": {"status": "queued"},
            "later": {"status": "queued", "nextRunAt": now + hour},
            "unreadable": {"status": "queued", "nextRunAt": "soon"},
            "running": {"status": "leased", "leaseExpiresAt": now + hour},
            "expired": {"status": "leased", "leaseExpiresAt": now - hour},
            "was-running": {"status": "succeeded", "leaseExpiresAt": now - hour, "finishedAt": now},
            "died": {"status": "dlq", "finishedAt": now - hour / 2},
            "died-long-ago": {"status": "dlq", "finishedAt": now - 2 * hour},
        }.items()
    )
    return watched


@pytest.mark.parametrize(
    ("id_prefix", "max_matches", "sort", "may_skip"),
    [
        ("", 1, "leaseExpiresAt", True),
        ("", 1_000, "leaseExpiresAt", False),
        ("", 1, "createdAt", False),
        ("https://user:password@host/", 1, "createdAt", True),
    ],
    ids=["many", "few", "by creation", "secret ids"],
)
def test_a_list_whose_pages_may_skip_jobs_names_the_reason(
    real_api: Api,
    database: Database[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    id_prefix: str,
    max_matches: int,
    sort: str,
    may_skip: bool,
) -> None:
    """Catches a list that looks complete, although its pages are found by their numbers."""
    index_queue(real_api.app.extensions["jobmon_settings"])
    job = {"status": "leased", "leaseExpiresAt": NOW, "createdAt": NOW}
    database.jobs.insert_many({"_id": f"{id_prefix}{index}", **job} for index in range(2))
    monkeypatch.setattr(list_plan, "MAX_MATCHES", max_matches)
    monkeypatch.setattr(lists, "BATCH", 1)
    query = {"status": "leased", "sort": sort}
    first_page, last_page = (
        real_api.get_as_admin(QUEUE, **query, per_page=1, page=page).json["meta"]["reasons"]
        for page in (1, 2)
    )
    *_, end = real_api.get_as_admin(QUEUE, **query, format="ndjson").text.splitlines()
    assert first_page == ({"next_cursor": SKIPPING} if may_skip else {})
    assert last_page == ({"prev_cursor": SKIPPING} if may_skip else {})
    assert json.loads(end).get("reason") == (SKIPPING if may_skip else None)


@pytest.mark.usefixtures("jobs_by_condition")
def test_a_list_by_condition_has_the_jobs_with_that_condition_now(api: Api) -> None:
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()

    def list_ids(**query: Any) -> list[str]:
        return read_ids(api.get_as_admin(QUEUE, **query))

    assert list_ids(condition="due", sort="nextRunAt") == ["due-at-once", "due-b", "due"]
    assert list_ids(condition="due", sort="createdAt") == ["due", "due-b", "due-at-once"]
    assert list_ids(condition="due", owner="ada") == []
    assert list_ids(condition="expired", job_id="running") == []
    assert list_ids(condition="due") == ["due", "due-b", "due-at-once"]
    assert list_ids(condition="due", type="a", status=["failed", "queued"]) == [
        "due",
        "due-at-once",
    ]
    assert list_ids(condition="due", status=["failed", "dlq"]) == ["due-b"]
    assert list_ids(condition="due", status="succeeded") == []
    assert list_ids(condition="expired") == ["expired"]
    assert list_ids(finished_from=hour_ago) == ["was-running", "died"]
    assert list_ids(finished_from=hour_ago, status="dlq") == ["died"]
    assert list_ids(finished_to=hour_ago) == ["died-long-ago"]
    assert list_ids(finished_from=DATE, finished_to=hour_ago, sort="finishedAt") == [
        "died-long-ago"
    ]
    assert list_ids(finished_from=DATE, finished_to=NOW.isoformat()) == []
    assert len(list_ids(condition="", finished_from="")) == 10


@pytest.mark.usefixtures("jobs_by_condition")
def test_pages_and_exports_of_a_list_by_condition_are_complete(api: Api) -> None:
    query, listed_ids = {"condition": "due", "per_page": 1, "sort": "nextRunAt"}, []
    answer = api.get_as_admin(QUEUE, **query)
    while True:
        assert answer.json["meta"]["total"] == 3
        listed_ids += read_ids(answer)
        if (cursor := answer.json["meta"]["next_cursor"]) is None:
            break
        answer = api.get_as_admin(QUEUE, **query, cursor=cursor)
    assert listed_ids == ["due-at-once", "due-b", "due"]
    # If a cursor is from another list, only its page number is used.
    newest_first = {"per_page": 1}
    cursor = api.get_as_admin(QUEUE, **newest_first).json["meta"]["next_cursor"]
    answer = api.get_as_admin(QUEUE, **newest_first, condition="due", cursor=cursor)
    assert read_ids(answer) == ["due-b"]
    lines = api.get_as_admin(QUEUE, condition="due", format="ndjson").text.splitlines()
    assert len(lines) == 3 + 1  # and the end line


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"condition": "late"}, "condition"),
        ({"condition": "due", "finished_from": NEXT_DATE}, "condition"),
        ({"finished_from": "soon"}, "finished_from"),
        ({"condition": "expired", "due_to": NEXT_DATE}, "condition"),
        ({"due_from": DATE, "finished_to": NEXT_DATE}, "due_from"),
        ({"sort": "finishedAt", "condition": "due"}, "sort"),
        ({"sort": "-finishedAt"}, "sort"),
        ({"sort": "nextRunAt", "status": "dlq"}, "sort"),
        ({"condition": "due", "finished_to": NEXT_DATE}, "condition"),
        ({"finished_from": NEXT_DATE, "finished_to": NEXT_DATE}, "finished_to"),
        ({"sort": "nextRunAt", "finished_to": NEXT_DATE}, "sort"),
    ],
)
def test_error_names_one_parameter_that_is_bad_or_excludes_another(
    api: Api, query: dict[str, str], parameter: str
) -> None:
    answer = api.get_as_admin(QUEUE, **query)
    assert (answer.status_code, list(answer.json["error"]["details"])) == (422, [parameter])


def test_a_condition_on_a_date_that_documents_lack_is_422(
    watched: Any, make_settings: Callable[..., Any]
) -> None:
    api = Api(create_app(make_settings(profile="celery"), watched.client))
    answer = api.get_as_admin(QUEUE, condition="expired")
    assert (answer.status_code, list(answer.json["error"]["details"])) == (422, ["condition"])
