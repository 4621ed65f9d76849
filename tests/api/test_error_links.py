"""The groups of a job's errors: catches a wrong or missing group, and a group shown to an owner."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from jobmon.diagnosis.error_kinds import classify_error, fold_kind
from jobmon.rollup.reader import RollupReader

from ..conftest import Api
from ..support.error_history import ErrorHistory

NOW = datetime.now(UTC) - timedelta(minutes=5)
REFUSAL = {
    "code": "E_BANK",
    "message": "account 4711 is refused, token=abcdefghijkl",
    "stack": "Error: refused\n    at pay (/app/pay.js:3:14)",
}
# An error of the same group, as the collector redacts it.
REDACTED_REFUSAL = {
    "code": "E_BANK",
    "message": "account 42 is refused, token=[redacted]",
    "stack": REFUSAL["stack"],
}


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> ErrorHistory:
    return ErrorHistory(NOW).serve(monkeypatch)


@pytest.fixture
def _job(watched: Any) -> None:
    """A job with four attempts; the `errorGroup` of these documents is not jobmon's."""
    watched.jobs.insert_one(
        {"jobId": "j", "createdBy": "ada", "status": "dlq", "lastError": REFUSAL, "errorGroup": "x"}
    )
    errors = ["connection reset", "other", REFUSAL, None]
    watched.job_attempts.insert_many(
        {"jobId": "j", "attemptNumber": index, "error": error, "errorGroup": "x"}
        for index, error in enumerate(errors)
    )


def list_groups(job: dict[str, Any]) -> list[str | None]:
    """The ids of the groups of the job's last error and of each attempt's error."""
    return [job["errorGroup"], *(attempt["errorGroup"] for attempt in job["attempts"])]


@pytest.mark.usefixtures("_job")
def test_errors_have_their_known_groups(api: Api, history: ErrorHistory) -> None:
    refusal = history.add(REDACTED_REFUSAL, at=NOW)
    reset = history.add("connection reset", at=NOW)
    assert list_groups(api.get_as_admin("/jobs/j").json) == [refusal, reset, None, refusal, None]


@pytest.mark.usefixtures("_job")
def test_error_without_its_own_group_has_the_group_of_its_code(
    api: Api, history: ErrorHistory
) -> None:
    group = fold_kind(classify_error(REFUSAL))
    folded = history.groups[history.add("x", at=NOW)]._replace(id=group.id)
    history.groups[group.id] = folded
    assert list_groups(api.get_as_admin("/jobs/j").json)[0] == group.id


@pytest.mark.usefixtures("_job")
def test_owner_sees_no_group(api: Api, history: ErrorHistory) -> None:
    """The group itself would show jobs and errors of other owners."""
    history.add(REDACTED_REFUSAL, at=NOW)
    assert list_groups(api.get_as_owner("/jobs/j", "ada").json) == [None] * 5


@pytest.mark.usefixtures("_job")
def test_job_is_shown_without_groups_if_they_cannot_be_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_disconnected(*_: object) -> None:
        raise AutoReconnect("gone")

    monkeypatch.setattr(RollupReader, "known_error_groups", raise_disconnected)
    answer = api.get_as_admin("/jobs/j")
    assert answer.status_code == 200
    assert list_groups(answer.json) == [None] * 5


def test_job_without_errors_reads_no_groups(api: Api, watched: Any, monkeypatch: Any) -> None:
    watched.jobs.insert_one({"jobId": "fine", "status": "succeeded"})
    monkeypatch.setattr(RollupReader, "known_error_groups", None)  # a call fails
    assert list_groups(api.get_as_admin("/jobs/fine").json) == [None, None]
