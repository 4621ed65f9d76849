"""The list of the jobs of an error group: catches a job of another group, a job that is missing
without a reason, and a database fault that looks like an empty list."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from jobmon.api import group_jobs
from jobmon.diagnosis.error_kinds import classify_error, fold_kind
from jobmon.rollup.reader import RollupReader
from jobmon.store.filter import JobFilter

from ..conftest import Api
from ..support.error_history import ErrorHistory

QUEUE = "/admin/jobs/queue"
NOW = datetime.now(UTC) - timedelta(minutes=5)
ERRORS: list[Any] = [
    {"code": "E_BANK", "message": "account 4711 is refused"},
    {"code": "E_BANK", "message": "no answer"},
    {"message": "TypeError: x is undefined", "stack": "Error: x\n    at pay (/app/pay.js:3:14)"},
    None,
]


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    return ErrorHistory(NOW).serve(monkeypatch)


@pytest.fixture(autouse=True)
def _jobs(watched: Any) -> None:
    """24 jobs with the four `ERRORS` by turns; the jobs without an error have succeeded."""
    watched.jobs.insert_many(
        {
            "jobId": f"job-{index:02}",
            "type": ["mail", "report"][index // 4 % 2],
            "status": "succeeded" if index % 4 == 3 else ["dlq", "failed"][index // 4 % 2],
            "createdBy": "ada",
            "createdAt": NOW + timedelta(seconds=index),
            "lastError": ERRORS[index % 4],
        }
        for index in range(24)
    )


def read_ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [job["jobId"] for job in answer.json["data"]]


def make_ids(*numbers: int) -> list[str]:
    return [f"job-{number:02}" for number in numbers]


def test_list_of_a_group_has_the_jobs_whose_newest_error_belongs_to_it(
    api: Api, history: ErrorHistory
) -> None:
    refusal = history.add({"code": "E_BANK", "message": "account 1 is refused"}, at=NOW)
    type_error = history.add(ERRORS[2], at=NOW)
    answer = api.get_as_admin(QUEUE, error_group=refusal, status=["failed", "dlq"])
    assert read_ids(answer) == make_ids(20, 16, 12, 8, 4, 0)
    assert answer.json["meta"]["total_is_exact"] is True
    assert answer.json["meta"]["reasons"] == {}
    # These errors have no code: the group's code is the name of the exception in their message.
    page = api.get_as_admin(QUEUE, error_group=type_error, sort="createdAt", per_page=2, page=2)
    assert read_ids(page) == make_ids(10, 14)
    assert read_ids(api.get_as_admin(QUEUE, error_group=refusal, type="report", owner="ada")) == (
        make_ids(20, 12, 4)
    )
    assert read_ids(api.get_as_admin(QUEUE, error_group=refusal, status="dlq")) == make_ids(
        16, 8, 0
    )


@pytest.mark.parametrize("query", [{}, {"status": ["dlq", "failed", "succeeded"]}], ids=str)
def test_list_has_the_reason_why_jobs_that_have_not_failed_may_be_missing(
    api: Api, history: ErrorHistory, watched: Any, query: dict[str, list[str]]
) -> None:
    """Catches a job that is missing without a reason after its retry has succeeded."""
    group = history.add(ERRORS[2], at=NOW)
    watched.jobs.update_one({"jobId": "job-22"}, {"$set": {"status": "succeeded"}})
    answer = api.get_as_admin(QUEUE, error_group=group, **query)
    assert read_ids(answer) == make_ids(18, 14, 10, 6, 2)
    assert answer.json["meta"]["total_is_exact"] is False
    assert answer.json["meta"]["reasons"] == {"data": group_jobs.FAILED_WITHOUT_CODE}
    succeeded = api.get_as_admin(QUEUE, error_group=group, status="succeeded")
    assert read_ids(succeeded) == []
    assert succeeded.json["meta"]["reasons"] == {"data": group_jobs.FAILED_WITHOUT_CODE}


def test_error_without_its_own_group_belongs_to_the_group_of_its_code(
    api: Api, history: ErrorHistory
) -> None:
    kind = fold_kind(classify_error(ERRORS[1]))
    history.add(ERRORS[0], at=NOW)
    history.groups[kind.id] = history.groups[history.add("x", at=NOW)]._replace(
        id=kind.id, code="E_BANK"
    )
    assert read_ids(api.get_as_admin(QUEUE, error_group=kind.id)) == make_ids(21, 17, 13, 9, 5, 1)


def test_jobs_with_equal_errors_with_and_without_a_code_are_in_one_group(
    api: Api, history: ErrorHistory, watched: Any
) -> None:
    error_with_code = {**ERRORS[2], "code": "TypeError", "message": "x is undefined"}
    group = history.add(ERRORS[2], at=NOW)
    assert history.add(error_with_code, at=NOW) == group
    change = {"$set": {"lastError": error_with_code}}
    watched.jobs.update_many({"jobId": {"$in": make_ids(2, 18)}}, change)
    answer = api.get_as_admin(QUEUE, error_group=group)
    assert read_ids(answer) == make_ids(22, 18, 14, 10, 6, 2)
    assert read_ids(api.get_as_admin(QUEUE, error_group=group, per_page=2)) == make_ids(22, 18)
    by_code = api.get_as_admin(QUEUE, error_group=group, error_code="TypeError")
    assert read_ids(by_code) == make_ids(18, 2)


def test_list_has_the_reason_why_errors_without_a_code_may_be_missing(
    api: Api, history: ErrorHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_jobs, "MAX_SEARCHED", 6)
    group = history.add(ERRORS[0], at=NOW)
    meta = api.get_as_admin(QUEUE, error_group=group, type="mail").json["meta"]
    assert meta["total_is_exact"] is False
    assert meta["reasons"] == {"data": group_jobs.NEWEST_WITHOUT_CODE}
    exact = api.get_as_admin(QUEUE, error_group=group, type="mail", error_code="E_BANK")
    assert read_ids(exact) == make_ids(16, 8, 0)
    assert exact.json["meta"]["total_is_exact"] is True


def test_list_of_a_group_of_many_jobs_has_the_reason_why_some_may_be_missing(
    api: Api, history: ErrorHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_jobs, "MAX_SEARCHED", 5)
    group = history.add(ERRORS[0], at=NOW)
    answer = api.get_as_admin(QUEUE, error_group=group)
    assert read_ids(answer) == make_ids(20, 16)
    meta = answer.json["meta"]
    assert (meta["total_is_exact"], meta["reasons"]) == (False, {"data": group_jobs.NEWEST_ONLY})
    *_, end = api.get_as_admin(QUEUE, error_group=group, format="ndjson").text.splitlines()
    assert json.loads(end) == {"end": True, "rows": 2, "reason": group_jobs.NEWEST_ONLY}


def test_a_page_of_few_jobs_reads_only_the_newest_of_a_group(
    api: Api, history: ErrorHistory, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = history.add(ERRORS[0], at=NOW)
    group_sizes: list[int] = []
    match = JobFilter.match

    def match_and_count_ids(job_filter: JobFilter) -> Any:
        if job_filter.group_jobs is not None:
            group_sizes.append(len(job_filter.group_jobs.ids))
        return match(job_filter)

    monkeypatch.setattr(JobFilter, "match", match_and_count_ids)

    def list_page_of_one(**query: Any) -> list[str]:
        group_sizes.clear()
        return read_ids(api.get_as_admin(QUEUE, error_group=group, per_page=1, **query))

    # The page needs the ids of two jobs, its own and the next one. It reads the newest four of six.
    assert (list_page_of_one(), min(group_sizes)) == (make_ids(20), 4)
    assert (list_page_of_one(sort="createdAt"), min(group_sizes)) == (make_ids(0), 6)
    assert list_page_of_one(page=6) == make_ids(0)
    # The ids of the group are cached, so they include these deleted jobs.
    watched.jobs.delete_many({"jobId": {"$in": make_ids(20, 16, 12)}})
    assert list_page_of_one() == make_ids(8)
    assert list_page_of_one(page=2) == make_ids(4)


@pytest.mark.parametrize("list_format", ["json", "csv"])
def test_unknown_group_is_422(api: Api, history: ErrorHistory, list_format: str) -> None:
    for group in ("(other)", "0123456789abcdef"):
        answer = api.get_as_admin(QUEUE, error_group=group, format=list_format)
        assert answer.status_code == 422
        assert list(answer.json["error"]["details"]) == ["error_group"]


def test_owner_cannot_list_a_group(api: Api, history: ErrorHistory) -> None:
    group = history.add(ERRORS[0], at=NOW)
    assert api.get_as_owner("/jobs", "ada", error_group=group).status_code == 422


def test_list_of_a_group_that_cannot_be_read_is_503(
    api: Api, history: ErrorHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = history.add(ERRORS[0], at=NOW)

    def raise_disconnected(*_: object) -> None:
        raise AutoReconnect("gone")

    monkeypatch.setattr(RollupReader, "known_error_groups", raise_disconnected)
    assert api.get_as_admin(QUEUE, error_group=group).status_code == 503
