"""The list of the jobs with the longest runs: catches a wrong order, a job that the filters do not
match, and an incomplete list without the reason."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmon.api import longest_runs
from jobmon.api.longest_runs import LONGEST_ONLY
from jobmon.store.bson_json import to_iso

from ..conftest import Api
from ..support.error_history import ErrorHistory

QUEUE = "/admin/jobs/queue"
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
TYPES = ("webhook.a", "webhook.b", "mail")
LONG_AGO = NOW - timedelta(hours=30)


@pytest.fixture(autouse=True)
def _history(watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of each of the jobs 0 to 11; job n ran n seconds. 10 is deleted, 11 ended long ago."""
    history = ErrorHistory(NOW)
    for index in range(12):
        ended_at = LONG_AGO if index == 11 else NOW - index * timedelta(minutes=1)
        history.succeed(TYPES[index % 3], "w", at=ended_at, took=timedelta(seconds=index))
    history.serve(monkeypatch)
    watched.jobs.insert_many(
        {
            "jobId": f"job-{index}",
            "type": TYPES[index % 3],
            "status": "dlq" if index == 6 else "succeeded",
            "finishedAt": NOW,
        }
        for index in range(12)
        if index != 10
    )


def list_jobs(api: Api, **query: Any) -> tuple[list[int], dict[str, Any]]:
    """The numbers of the listed jobs, and `meta`."""
    answer = api.get_as_admin(QUEUE, sort="-duration", **query)
    assert answer.status_code == 200, answer.text
    jobs = answer.json["data"]
    assert all(job["durationMs"] == 1_000 * int(job["jobId"][4:]) for job in jobs)
    return [int(job["jobId"][4:]) for job in jobs], answer.json["meta"]


def test_list_has_the_longest_runs_of_a_day_and_why_jobs_may_be_missing(api: Api) -> None:
    numbers, meta = list_jobs(api)
    assert numbers == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert (meta["total"], meta["total_is_exact"]) == (10, False)
    assert meta["reasons"] == {"data": LONGEST_ONLY}
    assert list_jobs(api, per_page=4, page=3)[0] == [1, 0]
    assert list_jobs(api, per_page=4, page=4)[0] == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"type": "mail"}, [8, 5, 2]),
        ({"type": "webhook.*"}, [9, 7, 6, 4, 3, 1, 0]),
        ({"type": ["mail", "webhook.b"], "status": "succeeded"}, [8, 7, 5, 4, 2, 1]),
        ({"status": "dlq"}, [6]),
        ({"finished_from": to_iso(NOW - timedelta(minutes=5, seconds=30))}, [5, 4, 3, 2, 1, 0]),
        (
            {
                "finished_from": to_iso(LONG_AGO - timedelta(hours=1)),
                "finished_to": to_iso(LONG_AGO + timedelta(hours=1)),
            },
            [11],
        ),
    ],
    ids=["type", "types", "types and status", "status", "finished from", "finished between"],
)
def test_list_has_only_jobs_that_match_the_filters(
    api: Api, query: dict[str, Any], expected: list[int]
) -> None:
    assert list_jobs(api, **query)[0] == expected


def test_status_filter_finds_a_job_whose_run_is_shorter_than_the_longest_100(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(longest_runs, "MAX_JOBS", 2)  # of which job 10 is deleted
    assert list_jobs(api)[0] == [9]
    assert list_jobs(api, status="dlq")[0] == [6]
    assert list_jobs(api, status="succeeded")[0] == [9, 8]


def test_export_has_the_jobs_of_the_list_and_why_jobs_may_be_missing(api: Api) -> None:
    answer = api.get_as_admin(QUEUE, sort="-duration", type="mail", format="ndjson")
    *jobs, end = map(json.loads, answer.text.splitlines())
    assert [job["jobId"] for job in jobs] == ["job-8", "job-5", "job-2"]
    assert end == {"end": True, "rows": 3, "reason": LONGEST_ONLY}


@pytest.mark.parametrize(
    "query", [{"owner": "ada"}, {"priority": 1}, {"payload.a": "1"}, {"range": "1h"}], ids=str
)
def test_other_filters_are_refused(api: Api, query: dict[str, Any]) -> None:
    answer = api.get_as_admin(QUEUE, sort="-duration", **query)
    assert (answer.status_code, list(answer.json["error"]["details"])) == (422, ["sort"])
    assert next(iter(query)) in answer.json["error"]["details"]["sort"][0]


@pytest.mark.parametrize(
    ("query", "details"),
    [
        ({"finished_from": "9000-01-01"}, {"finished_from": ["Must be before `finished_to`."]}),
        ({"finished_to": "0001-01-01"}, {"finished_to": ["Out of range."]}),
        (
            {"finished_to": to_iso(NOW - timedelta(days=500))},
            {"finished_to": ["`finished_to` is before the retained history (400 days)."]},
        ),
    ],
    ids=["empty window", "out of range", "too old"],
)
def test_error_names_the_parameter_of_a_window_without_a_history(
    api: Api, query: dict[str, str], details: dict[str, list[str]]
) -> None:
    answer = api.get_as_admin(QUEUE, sort="-duration", **query)
    assert (answer.status_code, answer.json["error"]["details"]) == (422, details)


def test_owner_cannot_sort_by_duration(api: Api) -> None:
    assert api.get_as_owner("/jobs", "ada", sort="-duration").status_code == 422
