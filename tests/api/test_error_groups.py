"""Groups of errors over HTTP: catches a group that is missing or listed twice, a secret in a group,
and an unknown value that is shown as zero or empty."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.api.windows import NO_COLLECTOR
from jobmon.app import create_app
from jobmon.collector.collecting import collecting
from jobmon.demo.mongod import Mongod
from jobmon.diagnosis.error_kinds import classify_error
from jobmon.rollup.buckets import HOUR, MINUTE, floor
from jobmon.rollup.gaps import Gap, GapReason
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.known_fields import KnownFields
from jobmon.store.labels import OTHER

from ..conftest import Api
from ..support.commands import database_uri
from ..support.error_history import ErrorHistory
from ..support.waiting import eventually

PATH = "/admin/jobs/errors"
NOW = floor(datetime.now(UTC), MINUTE) + timedelta(seconds=30)
TIMEOUT, REFUSAL = "timeout of 3000 ms", {"code": "E_BANK", "message": "account 4711 is refused"}
STACK = "TypeError: x is null\n    at pay (/app/pay.js:3:14)"


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    """Four timeouts, three in the last hour; a refusal, a type error and two ungrouped errors."""
    errors = ErrorHistory(NOW)
    for minutes_ago, job_type, worker in (
        (0, "mail", "w1"),
        (5, "mail", "w2"),
        (40, "sms", "w1"),
        (90, "sms", "w1"),
    ):
        errors.add(TIMEOUT, job_type, worker, at=NOW - minutes_ago * MINUTE)
    errors.add(REFUSAL, at=NOW - 10 * MINUTE)
    errors.add({"message": "x is null", "stack": STACK}, worker=None, at=NOW - 20 * MINUTE)
    errors.add(OTHER, at=NOW - 30 * MINUTE)
    errors.add(OTHER, at=NOW - 31 * MINUTE)
    return errors.serve(monkeypatch)


def get_json(api: Api, path: str = PATH, **query: Any) -> dict[str, Any]:
    answer = api.get_as_admin(path, **query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json
    return body


def list_names(answer: dict[str, Any]) -> list[str]:
    return [error["code"] or error["pattern"] or error["id"] for error in answer["data"]]


@pytest.mark.usefixtures("history")
def test_list_has_each_group_with_its_counts(api: Api) -> None:
    answer = get_json(api)
    assert list_names(answer)[:2] == ["timeout of <duration>", OTHER]
    assert set(list_names(answer)[2:]) == {"E_BANK", "TypeError"}
    assert answer["meta"] | {"from": "", "to": "", "as_of": ""} == {
        "from": "",
        "to": "",
        "as_of": "",
        "no_data_before": None,
        "step": 60,
        "is_complete": True,
        "gaps": [],
        "total": 4,
        "total_errors": 7,
        "ungrouped_errors": 2,
        "next_cursor": None,
        "reasons": {},
    }
    timeout = answer["data"][0]
    assert timeout["typeCounts"] == {"mail": 2, "sms": 1}
    assert timeout["workerCounts"] == {"w1": 2, "w2": 1}
    assert (timeout["count"], timeout["previousCount"], timeout["growth"]) == (3, 1, 2)
    assert sum(timeout["trend"]) == 3
    assert timeout["status"] == "ongoing"
    assert [job["type"] for job in timeout["jobs"]] == ["mail", "mail", "sms", "sms"]
    ungrouped = answer["data"][1]
    assert (ungrouped["count"], ungrouped["status"], ungrouped["pattern"]) == (2, None, None)
    assert ungrouped["reasons"]["pattern"] == "these errors could not be grouped"
    type_error = next(error for error in answer["data"] if error["code"] == "TypeError")
    assert type_error["workerCounts"] is None
    assert type_error["reasons"]["workerCounts"] == "no failed run of this group has a known worker"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"type": "sms"}, {"timeout of <duration>"}),
        ({"type": ["sms", "mail"]}, {"timeout of <duration>", OTHER, "TypeError", "E_BANK"}),
        ({"type": "none"}, set()),
        ({"worker": "w2"}, {"timeout of <duration>"}),
        ({"status": "new"}, {"TypeError", "E_BANK"}),
        ({"status": ["ongoing", "quiet"]}, {"timeout of <duration>"}),
    ],
)
@pytest.mark.usefixtures("history")
def test_list_has_only_groups_that_match_the_filter(
    api: Api, query: Any, expected: set[str]
) -> None:
    answer = get_json(api, **query)
    assert set(list_names(answer)) == expected
    assert answer["meta"]["total"] == len(expected)


@pytest.mark.parametrize("sort", ["-count", "count", "-lastSeen", "-firstSeen", "growth"])
@pytest.mark.usefixtures("history")
def test_pages_have_each_group_once_in_the_order_of_the_list(api: Api, sort: str) -> None:
    window = {"from": (NOW - HOUR).isoformat(), "to": (NOW + MINUTE).isoformat(), "sort": sort}
    expected = [error["id"] for error in get_json(api, **window)["data"]]
    group_ids, cursor = [], ""
    while cursor is not None:
        page = get_json(api, per_page=1, cursor=cursor, **window)
        group_ids += [error["id"] for error in page["data"]]
        cursor = page["meta"]["next_cursor"]
    assert group_ids == expected
    assert len(set(group_ids)) == 4


@pytest.mark.usefixtures("history")
def test_detail_has_a_message_a_stack_and_the_fields_of_the_list(api: Api) -> None:
    group_id = classify_error({"message": "x is null", "stack": STACK}).id
    detail = get_json(api, f"{PATH}/{group_id}")
    error = detail["data"]
    assert error["message"] == "x is null"
    assert error["stack"] == STACK
    assert error["frame"] == "pay (/app/pay.js)"
    assert [job["workerId"] for job in error["jobs"]] == [None]
    group_in_list = next(group for group in get_json(api)["data"] if group["id"] == group_id)
    assert {key: error[key] for key in group_in_list} == group_in_list


@pytest.mark.usefixtures("history")
def test_detail_exists_for_each_known_group_even_without_errors_in_the_window(api: Api) -> None:
    group_id = classify_error(TIMEOUT).id
    window = {"from": (NOW - 9 * HOUR).isoformat(), "to": (NOW - 8 * HOUR).isoformat()}
    error = get_json(api, f"{PATH}/{group_id}", **window)["data"]
    assert (error["count"], error["message"], error["growth"]) == (0, TIMEOUT, None)
    assert (error["workerCounts"], "workerCounts" in error["reasons"]) == ({}, False)
    assert get_json(api, f"{PATH}/{OTHER}")["data"]["count"] == 2
    answer = api.get_as_admin(f"{PATH}/0000000000000000")
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({"sort": "size"}, "sort"),
        ({"status": "old"}, "status"),
        ({"per_page": "0"}, "per_page"),
        ({"worker": "w1", "type": "mail"}, "worker"),
        ({"cursor": "W10"}, "cursor"),  # Base64 of []
        ({"cursor": "WyJhIl0"}, "cursor"),  # Base64 of ["a"]
        ({"cursor": "é" * 500}, "cursor"),
        ({"cursor": "W" * 400}, "cursor"),
        ({"to": (NOW - timedelta(days=4_000)).isoformat()}, "to"),
        ({"range": "1y"}, "range"),
        ({"range": "1h", "from": NOW.isoformat()}, "range"),
        ({"sort": ["count", "-count"]}, "sort"),
    ],
)
@pytest.mark.usefixtures("history")
def test_error_details_name_the_bad_parameter(api: Api, query: Any, parameter: str) -> None:
    answer = api.get_as_admin(PATH, **query)
    assert answer.status_code == 422, answer.text
    assert list(answer.json["error"]["details"]) == [parameter]


def test_without_a_collector_the_answer_is_503_with_the_reason(api: Api) -> None:
    for path in (PATH, f"{PATH}/{OTHER}"):
        answer = api.get_as_admin(path)
        assert (answer.status_code, answer.json["error"]["code"]) == (503, "collector_unavailable")
        assert answer.json["error"]["message"] == NO_COLLECTOR
        assert answer.headers["Retry-After"]


def test_gaps_make_the_growth_unknown(api: Api, history: ErrorHistory) -> None:
    start = NOW - 2 * HOUR
    gap = Gap(start=start, end=start + MINUTE, reason=GapReason.STREAM_LOST)
    history.overrides = {"gaps": (gap,), "is_complete": False}
    answer = get_json(api)
    assert answer["meta"]["is_complete"] is False
    assert [gap["reason"] for gap in answer["meta"]["gaps"]] == ["stream_lost"]
    assert answer["data"][0]["growth"] is None
    history.overrides = {"gaps": (gap,)}
    reason = get_json(api)["data"][0]["reasons"]["growth"]
    assert reason == "in the time before the window: runs may be missing"


@pytest.mark.usefixtures("history")
def test_groups_of_a_queue_without_finish_times_are_null_with_the_reason(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KnownFields, "unknown", frozenset({"finishedAt"}))
    answer = get_json(api)
    assert answer["data"] is None
    assert answer["meta"]["total"] is None
    assert "do not record when they finished" in answer["meta"]["reasons"]["data"]


@pytest.mark.usefixtures("history")
def test_secrets_are_replaced_in_the_texts_and_the_worker_of_an_error(
    api: Api, history: ErrorHistory
) -> None:
    """Catches a stored secret that is shown: the collector may redact less than the service."""
    secret = "apiKey=abcdefghijkl"
    error = {"code": secret, "message": secret, "stack": f"Error: {secret}"}
    group_id = history.add(error, worker=secret, at=NOW)
    for path in (PATH, f"{PATH}/{group_id}"):
        answer = api.get_as_admin(path)
        assert "apiKey=[redacted]" in answer.text
        assert "abcdefghijkl" not in answer.text


def test_types_and_workers_beyond_ten_are_folded(api: Api, history: ErrorHistory) -> None:
    for index in range(40):
        history.add("boom", f"type-{index:02}", f"pod-{index:02}", at=NOW)
    boom = next(error for error in get_json(api)["data"] if error["pattern"] == "boom")
    for field in ("typeCounts", "workerCounts"):
        assert len(boom[field]) == 11
        assert boom[field][OTHER] == 30
        assert sum(boom[field].values()) == boom["count"] == 40


def test_counts_equal_a_recount_of_the_attempts(
    mongod: Mongod, database: Database[dict[str, Any]], make_settings: Callable[..., Settings]
) -> None:
    """Uses a real collector; the groups that the collector stores must contain no secret."""
    settings = make_settings(
        mongo_uri=database_uri(mongod, database), rollup_db=f"{database.name}_rollups"
    )
    finished_at = datetime.now(UTC) - 5 * MINUTE
    errors = [
        {"code": "E_BANK", "message": f"account {index} is refused", "token": "hidden"}
        if index % 3
        else {"code": None, "message": f"password=hidden{index} for 10.0.0.{index}"}
        for index in range(30)
    ]
    database.jobs.insert_many(
        {"jobId": f"j{index}", "type": f"t{index % 2}", "createdAt": finished_at}
        for index in range(40)
    )
    database.job_attempts.insert_many(
        {
            "jobId": f"j{index}",
            "attemptNumber": 1,
            "status": "failed" if index < 30 else "succeeded",
            "workerId": f"w{index % 4}",
            "startedAt": finished_at,
            "finishedAt": finished_at + timedelta(seconds=index),
            "error": errors[index] if index < 30 else None,
        }
        for index in range(40)
    )
    api = Api(create_app(settings))
    connection = api.app.extensions["jobmon_connection"]
    create_indexes(connection)
    try:
        with collecting(settings):
            answer = eventually(lambda: _read_complete_list(api))
        expected = Counter(
            classify_error({**error, "message": _redact_message(error)}).id for error in errors
        )
        assert {error["id"]: error["count"] for error in answer["data"]} == expected
        types = sum((Counter(error["typeCounts"]) for error in answer["data"]), Counter())
        assert types == {"t0": 15, "t1": 15}
        stored_groups = str(list(connection.client[f"{database.name}_rollups"].errors.find()))
        assert "password=[redacted]" in stored_groups
        assert "hidden" not in stored_groups
    finally:
        connection.client.close()


def _redact_message(error: dict[str, Any]) -> str:
    message: str = error["message"]
    if "password" not in message:
        return message
    return f"password=[redacted] for {message.rpartition(' ')[2]}"


def _read_complete_list(api: Api) -> dict[str, Any] | None:
    answer = api.get_as_admin(PATH)
    is_counted = answer.status_code == 200 and answer.json["meta"]["total_errors"] == 30
    return answer.json if is_counted and answer.json["meta"]["is_complete"] else None


def test_counts_of_a_type_are_lower_bounds_if_types_are_folded(
    api: Api, history: ErrorHistory
) -> None:
    history.add(TIMEOUT, OTHER, at=NOW)
    assert get_json(api)["meta"]["reasons"] == {}
    reasons = get_json(api, type="mail")["meta"]["reasons"]
    assert reasons == {"total_errors": "errors of rare types or workers are counted together"}
