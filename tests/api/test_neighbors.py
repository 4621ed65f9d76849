"""The neighbors of a job in a list, over HTTP: catches a neighbor that is not next to the job on
the page, an unknown neighbor that looks like the end of the list, and another owner's job."""

from datetime import timedelta
from typing import Any

import pytest

from jobmon.api.job_lists import NO_ORDER, NOT_IN_LIST
from jobmon.store.bson_json import to_iso

from ..conftest import NOW, Api
from ..support.error_history import ErrorHistory

ADMIN_PATH, OWNER_PATH = "/admin/jobs/neighbors", "/job/neighbors"


@pytest.fixture
def nine_jobs(database: Any) -> None:
    """Jobs of ada and bob by turns, the newest last; every third job is dead-lettered."""
    database.jobs.insert_many(
        {
            "jobId": f"job-{index}",
            "type": "mail",
            "status": "queued" if index % 3 else "dlq",
            "createdBy": "bob" if index % 2 else "ada",
            "createdAt": NOW + timedelta(seconds=index),
            "lastError": None if index % 3 else {"message": f"timeout of {index or 9} s"},
        }
        for index in range(9)
    )


def read_ids(answer: Any) -> tuple[str | None, str | None]:
    """The ids of the previous and the next job."""
    assert answer.status_code == 200, answer.text
    assert answer.json["reasons"] == {}
    return answer.json["previousJobId"], answer.json["nextJobId"]


@pytest.mark.usefixtures("nine_jobs")
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"sort": "createdAt"},
        {"status": "dlq"},
        {"type": "mail", "created_from": to_iso(NOW + timedelta(seconds=2))},
    ],
)
def test_neighbors_are_the_jobs_before_and_after_on_the_page(
    real_api: Api, filters: dict[str, Any]
) -> None:
    page = real_api.get_as_admin("/admin/jobs/queue", **filters).json["data"]
    ids = [job["jobId"] for job in page]
    assert len(ids) >= 3
    for previous_id, job_id, next_id in zip([None, *ids], ids, [*ids[1:], None], strict=False):
        answer = real_api.get_as_admin(ADMIN_PATH, id=job_id, **filters)
        assert read_ids(answer) == (previous_id, next_id)


@pytest.mark.usefixtures("nine_jobs")
def test_owner_has_only_own_jobs_as_neighbors(real_api: Api) -> None:
    neighbors = real_api.get_as_owner(OWNER_PATH, "ada", id="job-4")
    assert read_ids(neighbors) == ("job-6", "job-2")
    assert read_ids(real_api.get_as_owner(OWNER_PATH, "ada", id="job-6", status="dlq")) == (
        None,
        "job-0",
    )
    for job_id in ("job-3", "missing"):
        assert real_api.get_as_owner(OWNER_PATH, "ada", id=job_id).status_code == 403
    answer = real_api.get_as_owner(OWNER_PATH, "ada", id="job-4", owner="bob")
    assert list(answer.json["error"]["details"]) == ["owner"]
    assert real_api.get_as_owner(OWNER_PATH, "ada").status_code == 422


@pytest.mark.usefixtures("nine_jobs")
def test_neighbors_in_a_list_without_an_order_are_unknown(real_api: Api) -> None:
    answer = real_api.get_as_admin(ADMIN_PATH, id="job-4", job_id="job-").json
    reasons = dict.fromkeys(("previousJobId", "nextJobId"), NO_ORDER)
    assert answer == {"previousJobId": None, "nextJobId": None, "reasons": reasons}


@pytest.mark.usefixtures("nine_jobs")
def test_neighbors_are_unknown_in_an_error_group_and_by_duration_in_the_longest_runs(
    real_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches neighbors in the order of creation, although these lists have another order."""
    history = ErrorHistory(NOW + timedelta(minutes=1))
    for index in range(4):  # `ErrorHistory` names the jobs job-0 to job-3, as `nine_jobs` does
        took = timedelta(seconds=10 * index)
        group = history.add("timeout of 3 s", "mail", "w1", at=NOW, took=took)
    history.serve(monkeypatch)
    group_neighbors = real_api.get_as_admin(ADMIN_PATH, id="job-3", error_group=group).json
    assert set(group_neighbors["reasons"].values()) == {NO_ORDER}
    window = {"finished_from": to_iso(NOW - timedelta(hours=1)), "sort": "-duration"}
    assert read_ids(real_api.get_as_admin(ADMIN_PATH, id="job-2", **window)) == ("job-3", "job-1")
    no_neighbors = real_api.get_as_admin(ADMIN_PATH, id="job-8", **window).json
    assert set(no_neighbors["reasons"].values()) == {NOT_IN_LIST}
