"""The list of the jobs of a group of errors: catches a job of another group, a job that is missing
without a reason, and an outage that looks like an empty list."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from jobmon.api import group_jobs
from jobmon.diagnosis.error_kinds import classify_error, fold_kind
from jobmon.rollup.run_history import RunHistoryReader
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
    watched.jobs.insert_many(
        {
            "jobId": f"job-{number:02}",
            "type": ["mail", "report"][number // 4 % 2],
            "status": "succeeded" if number % 4 == 3 else ["dlq", "failed"][number // 4 % 2],
            "createdBy": "ada",
            "createdAt": NOW + timedelta(seconds=number),
            "lastError": ERRORS[number % 4],
        }
        for number in range(24)
    )


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [job["jobId"] for job in answer.json["data"]]


def expected(*numbers: int) -> list[str]:
    return [f"job-{number:02}" for number in numbers]


def test_list_of_a_group_has_the_jobs_whose_newest_error_belongs_to_it(
    api: Api, history: ErrorHistory
) -> None:
    refused = history.add({"code": "E_BANK", "message": "account 1 is refused"}, at=NOW)
    undefined = history.add(ERRORS[2], at=NOW)
    answer = api.get_as_admin(QUEUE, error_group=refused)
    assert ids(answer) == expected(20, 16, 12, 8, 4, 0)
    assert answer.json["meta"]["total_is_exact"] is True
    assert answer.json["meta"]["reasons"] == {}
    # The error has no code, so the group takes it from the message.
    oldest = api.get_as_admin(QUEUE, error_group=undefined, sort="createdAt", per_page=2, page=2)
    assert ids(oldest) == expected(10, 14)
    assert ids(api.get_as_admin(QUEUE, error_group=refused, type="report", owner="ada")) == (
        expected(20, 12, 4)
    )
    assert ids(api.get_as_admin(QUEUE, error_group=refused, status="dlq")) == expected(16, 8, 0)
    assert ids(api.get_as_admin(QUEUE, error_group=undefined, status="succeeded")) == []


def test_error_without_its_own_group_belongs_to_the_group_of_its_code(
    api: Api, history: ErrorHistory
) -> None:
    kind = fold_kind(classify_error(ERRORS[1]))
    history.add(ERRORS[0], at=NOW)
    history.groups[kind.id] = history.groups[history.add("x", at=NOW)]._replace(
        id=kind.id, code="E_BANK"
    )
    assert ids(api.get_as_admin(QUEUE, error_group=kind.id)) == expected(21, 17, 13, 9, 5, 1)


def test_list_of_a_group_of_many_jobs_has_the_reason_why_some_may_be_missing(
    api: Api, history: ErrorHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_jobs, "MAX_SEARCHED", 5)
    group = history.add(ERRORS[0], at=NOW)
    answer = api.get_as_admin(QUEUE, error_group=group)
    assert ids(answer) == expected(20, 16)
    meta = answer.json["meta"]
    assert (meta["total_is_exact"], meta["reasons"]) == (False, {"data": group_jobs.NEWEST_ONLY})
    *_, end = api.get_as_admin(QUEUE, error_group=group, format="ndjson").text.splitlines()
    assert json.loads(end) == {"end": True, "rows": 2, "reason": group_jobs.NEWEST_ONLY}


def test_a_page_of_few_jobs_reads_only_the_latest_of_a_group(
    api: Api, history: ErrorHistory, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = history.add(ERRORS[0], at=NOW)
    read: list[int] = []
    match = JobFilter.match

    def spy(job_filter: JobFilter) -> Any:
        if job_filter.group_jobs is not None:
            read.append(len(job_filter.group_jobs.ids))
        return match(job_filter)

    monkeypatch.setattr(JobFilter, "match", spy)

    def list_one(**query: Any) -> list[str]:
        read.clear()
        return ids(api.get_as_admin(QUEUE, error_group=group, per_page=1, **query))

    assert (list_one(), min(read)) == (expected(20), 4)
    assert (list_one(sort="createdAt"), min(read)) == (expected(0), 6)
    assert list_one(page=6) == expected(0)
    # Three of the jobs are deleted while the group's ids are cached.
    watched.jobs.delete_many({"jobId": {"$in": expected(20, 16, 12)}})
    assert list_one() == expected(8)
    assert list_one(page=2) == expected(4)


@pytest.mark.parametrize("form", ["json", "csv"])
def test_unknown_group_is_422(api: Api, history: ErrorHistory, form: str) -> None:
    for group in ("(other)", "0123456789abcdef"):
        answer = api.get_as_admin(QUEUE, error_group=group, format=form)
        assert answer.status_code == 422
        assert list(answer.json["error"]["details"]) == ["error_group"]


def test_owner_cannot_list_a_group(api: Api, history: ErrorHistory) -> None:
    group = history.add(ERRORS[0], at=NOW)
    assert api.get_as_owner("/jobs", "ada", error_group=group).status_code == 422


def test_list_of_a_group_that_cannot_be_read_is_503(
    api: Api, history: ErrorHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = history.add(ERRORS[0], at=NOW)

    def fail(*_: object) -> None:
        raise AutoReconnect("gone")

    monkeypatch.setattr(RunHistoryReader, "known_error_groups", fail)
    assert api.get_as_admin(QUEUE, error_group=group).status_code == 503
