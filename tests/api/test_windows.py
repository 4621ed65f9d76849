"""Windows in the future over HTTP: catches an unknown count that is shown as 0."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmon.diagnosis.evidence import NOT_COUNTED
from jobmon.rollup.buckets import DAY, HOUR, MINUTE

from ..conftest import Api
from ..support.error_history import ErrorHistory

NOW = datetime.now(UTC)
FUTURE = {"from": f"{NOW + DAY:%FT%TZ}", "to": f"{NOW + DAY + HOUR:%FT%TZ}"}
COUNTS = ("enqueued", "succeeded", "failed", "dlq", "failureRate")
UNKNOWN_DURATIONS = {"p50": None, "p95": None, "p99": None}


@pytest.fixture
def history(watched: Any, monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    """A failed run of a worker that now runs another job; a live count finds no activity."""
    monkeypatch.setattr("jobmon.rollup.series.count_activity", lambda *_: {})
    lease = {"leasedBy": "w1", "leaseExpiresAt": NOW + HOUR, "status": "leased"}
    watched.jobs.insert_one({"jobId": "1", "type": "mail", "createdAt": NOW, **lease})
    errors = ErrorHistory(NOW)
    errors.add("timeout of 3 s", "mail", "w1", at=NOW, took=timedelta(seconds=3))
    return errors.serve(monkeypatch)


def get_in_future(api: Api, path: str) -> Any:
    return api.get_as_admin(f"/admin/jobs/{path}", **FUTURE).json


def test_steps_of_the_future_are_null_with_a_reason(api: Api, history: ErrorHistory) -> None:
    answer = get_in_future(api, "timeseries")
    assert answer["meta"]["reasons"] == {"data": NOT_COUNTED.reason}
    assert len(answer["data"]) in (60, 61)  # whole minutes that contain the hour
    for step in answer["data"]:
        assert {step[name] for name in COUNTS} == {None}
        assert step["waitMs"] == step["runMs"] == UNKNOWN_DURATIONS


def test_activity_of_types_in_the_future_is_null_with_a_reason(
    api: Api, history: ErrorHistory
) -> None:
    answer = get_in_future(api, "types")
    (mail,) = answer["data"]
    assert answer["meta"]["reasons"] == {"data": NOT_COUNTED.reason}
    assert {mail[name] for name in (*COUNTS, "finishedPerMinute")} == {None}
    assert mail["statusCounts"]["leased"] == 1


def test_only_steps_after_the_last_count_are_null(api: Api, history: ErrorHistory) -> None:
    start, end = NOW - 30 * MINUTE, NOW + 30 * MINUTE
    window = {"from": f"{start:%FT%TZ}", "to": f"{end:%FT%TZ}"}
    answer = api.get_as_admin("/admin/jobs/timeseries", **window).json
    as_of = datetime.fromisoformat(answer["meta"]["as_of"])
    assert answer["meta"]["reasons"] == {}
    for step in answer["data"]:
        is_counted = datetime.fromisoformat(step["at"]) < as_of
        assert step["enqueued"] == (0 if is_counted else None)


@pytest.mark.parametrize(("path", "total_name"), [("errors", "total_errors"), ("slowest", None)])
def test_runs_in_the_future_are_null_with_a_reason(
    api: Api, history: ErrorHistory, path: str, total_name: str | None
) -> None:
    answer = get_in_future(api, path)
    assert answer["data"] is None
    assert answer["meta"]["reasons"]["data"] == NOT_COUNTED.reason
    assert total_name is None or answer["meta"][total_name] is None


def test_a_group_of_errors_in_the_future_has_no_counts(api: Api, history: ErrorHistory) -> None:
    (group_id,) = history.groups
    group = get_in_future(api, f"errors/{group_id}")["data"]
    for field in ("count", "previousCount", "growth", "typeCounts", "workerCounts", "trend"):
        assert group[field] is None
        assert group["reasons"][field] == NOT_COUNTED.reason
    assert group["message"] == "timeout of 3 s"


def test_attempts_of_workers_in_the_future_are_null_with_a_reason(
    api: Api, history: ErrorHistory
) -> None:
    answer = get_in_future(api, "workers")
    (worker,) = answer["data"]
    assert answer["meta"]["reasons"]["attempts"] == NOT_COUNTED.reason
    assert (worker["name"], worker["runningJobs"], worker["attempts"]) == ("w1", 1, None)


def test_a_list_of_longest_runs_in_the_future_is_empty_with_a_reason(
    api: Api, history: ErrorHistory
) -> None:
    window = {f"finished_{name}": date for name, date in FUTURE.items()}
    answer = api.get_as_admin("/admin/jobs/queue", sort="-duration", **window).json
    assert answer["data"] == []
    assert answer["meta"]["reasons"]["data"].startswith(NOT_COUNTED.reason)
