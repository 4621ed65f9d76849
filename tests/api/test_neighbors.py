"""The jobs next to a job in a list, over HTTP: catches a job that is not next to it on the page, an
unknown neighbor that looks like the end of the list, and a job of somebody else."""

from datetime import timedelta
from typing import Any

import pytest

from jobmon.api.job_lists import NO_ORDER, NOT_IN_LIST
from jobmon.store.bson_json import to_iso

from ..conftest import NOW, Api
from ..support.error_history import ErrorHistory

OF_ALL, OF_OWNER = "/admin/jobs/neighbors", "/job/neighbors"


@pytest.fixture
def listed(database: Any) -> None:
    """Jobs of ada and bob in turn, the newest last; every third job is dead."""
    database.jobs.insert_many(
        {
            "jobId": f"job-{number}",
            "type": "mail",
            "status": "queued" if number % 3 else "dlq",
            "createdBy": "bob" if number % 2 else "ada",
            "createdAt": NOW + timedelta(seconds=number),
            "lastError": None if number % 3 else {"message": f"timeout of {number or 9} s"},
        }
        for number in range(9)
    )


def read_ids(answer: Any) -> tuple[str | None, str | None]:
    assert answer.status_code == 200, answer.text
    assert answer.json["reasons"] == {}
    return answer.json["previousJobId"], answer.json["nextJobId"]


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"sort": "createdAt"},
        {"status": "dlq"},
        {"type": "mail", "created_from": to_iso(NOW + timedelta(seconds=2))},
    ],
)
def test_neighbors_are_those_on_the_page_of_the_list(
    real_api: Api, filters: dict[str, Any]
) -> None:
    page = real_api.get_as_admin("/admin/jobs/queue", **filters).json["data"]
    ids = [job["jobId"] for job in page]
    for before, job, after in zip([None, *ids], ids, [*ids[1:], None], strict=False):
        found = real_api.get_as_admin(OF_ALL, id=job, **filters)
        assert read_ids(found) == (before, after)


@pytest.mark.usefixtures("listed")
def test_owner_has_only_own_jobs_as_neighbors(real_api: Api) -> None:
    found = real_api.get_as_owner(OF_OWNER, "ada", id="job-4")
    assert read_ids(found) == ("job-6", "job-2")
    assert read_ids(real_api.get_as_owner(OF_OWNER, "ada", id="job-6", status="dlq")) == (
        None,
        "job-0",
    )
    for job in ("job-3", "missing"):
        assert real_api.get_as_owner(OF_OWNER, "ada", id=job).status_code == 403
    refused = real_api.get_as_owner(OF_OWNER, "ada", id="job-4", owner="bob")
    assert list(refused.json["error"]["details"]) == ["owner"]
    assert real_api.get_as_owner(OF_OWNER, "ada").status_code == 422


@pytest.mark.usefixtures("listed")
def test_neighbors_in_a_list_without_an_order_are_unknown(real_api: Api) -> None:
    answer = real_api.get_as_admin(OF_ALL, id="job-4", job_id="job-").json
    reasons = dict.fromkeys(("previousJobId", "nextJobId"), NO_ORDER)
    assert answer == {"previousJobId": None, "nextJobId": None, "reasons": reasons}


@pytest.mark.usefixtures("listed")
def test_neighbors_in_the_list_of_a_group_of_errors_and_of_the_longest_runs(
    real_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches neighbors from another list than the one that the page shows."""
    history = ErrorHistory(NOW + timedelta(minutes=1))
    for number in range(4):  # the ids that `ErrorHistory` gives are those of the jobs
        took = timedelta(seconds=10 * number)
        group = history.add("timeout of 3 s", "mail", "w1", at=NOW, took=took)
    history.serve(monkeypatch)
    of_group = real_api.get_as_admin(OF_ALL, id="job-3", error_group=group).json
    assert set(of_group["reasons"].values()) == {NO_ORDER}
    window = {"finished_from": to_iso(NOW - timedelta(hours=1)), "sort": "-duration"}
    assert read_ids(real_api.get_as_admin(OF_ALL, id="job-2", **window)) == ("job-3", "job-1")
    unknown = real_api.get_as_admin(OF_ALL, id="job-8", **window).json
    assert set(unknown["reasons"].values()) == {NOT_IN_LIST}
