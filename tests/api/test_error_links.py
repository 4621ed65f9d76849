"""The groups of a job's errors: catches a wrong or missing group, and a group shown to an owner."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from jobmon.diagnosis.error_kinds import classify_error, fold_kind
from jobmon.rollup.run_history import RunHistoryReader

from ..conftest import Api
from ..support.error_history import ErrorHistory

NOW = datetime.now(UTC) - timedelta(minutes=5)
REFUSED = {
    "code": "E_BANK",
    "message": "account 4711 is refused, token=abcdefghijkl",
    "stack": "Error: refused\n    at pay (/app/pay.js:3:14)",
}
REDACTED = {
    "code": "E_BANK",
    "message": "account 42 is refused, token=[redacted]",
    "stack": REFUSED["stack"],
}


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    return ErrorHistory(NOW).serve(monkeypatch)


@pytest.fixture
def _job(watched: Any) -> None:
    watched.jobs.insert_one(
        {"jobId": "j", "createdBy": "ada", "status": "dlq", "lastError": REFUSED, "errorGroup": "x"}
    )
    errors = ["connection reset", "other", REFUSED, None]
    watched.job_attempts.insert_many(
        {"jobId": "j", "attemptNumber": index, "error": error, "errorGroup": "x"}
        for index, error in enumerate(errors)
    )


def read_groups(job: dict[str, Any]) -> list[str | None]:
    return [job["errorGroup"], *(attempt["errorGroup"] for attempt in job["attempts"])]


@pytest.mark.usefixtures("_job")
def test_errors_have_their_known_groups(api: Api, history: ErrorHistory) -> None:
    refused = history.add(REDACTED, at=NOW)
    reset = history.add("connection reset", at=NOW)
    assert read_groups(api.get_as_admin("/jobs/j").json) == [refused, reset, None, refused, None]


@pytest.mark.usefixtures("_job")
def test_error_without_its_own_group_has_the_group_of_its_code(
    api: Api, history: ErrorHistory
) -> None:
    group = fold_kind(classify_error(REFUSED))
    folded = history.groups[history.add("x", at=NOW)]._replace(id=group.id)
    history.groups[group.id] = folded
    assert read_groups(api.get_as_admin("/jobs/j").json)[0] == group.id


@pytest.mark.usefixtures("_job")
def test_owner_sees_no_group(api: Api, history: ErrorHistory) -> None:
    """A group shows jobs and errors of other owners."""
    history.add(REDACTED, at=NOW)
    assert read_groups(api.get_as_owner("/jobs/j", "ada").json) == [None] * 5


@pytest.mark.usefixtures("_job")
def test_job_is_shown_without_groups_if_they_cannot_be_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AutoReconnect("gone")

    monkeypatch.setattr(RunHistoryReader, "known_error_groups", fail)
    answer = api.get_as_admin("/jobs/j")
    assert answer.status_code == 200
    assert read_groups(answer.json) == [None] * 5


def test_job_without_errors_reads_no_groups(api: Api, watched: Any, monkeypatch: Any) -> None:
    watched.jobs.insert_one({"jobId": "fine", "status": "succeeded"})
    monkeypatch.setattr(RunHistoryReader, "known_error_groups", None)
    assert read_groups(api.get_as_admin("/jobs/fine").json) == [None, None]
