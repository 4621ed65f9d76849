"""`GET /job/counts`: catches a count of other owners' jobs, and a lower bound without a reason."""

from typing import Any

import pytest

from jobmon.api import owner_counts

from ..conftest import Api

ROUTE = "/job/counts"


@pytest.fixture
def jobs(watched: Any) -> None:
    labels = [("queued", "mail"), ("queued", "pay"), ("dlq", "mail"), ("odd", "mail")]
    watched.jobs.insert_many(
        {"jobId": f"{owner}-{index}", "status": status, "type": job_type, "createdBy": owner}
        for owner, copies in (("ada", 1), ("bob", 3))
        for index, (status, job_type) in enumerate(labels * copies)
    )


@pytest.mark.usefixtures("jobs")
def test_own_jobs_are_counted_by_status(api: Api) -> None:
    answer = api.get_as_owner(ROUTE, "ada").json
    zeros = dict.fromkeys(("leased", "failed", "succeeded", "cancelled"), 0)
    assert answer["statusCounts"] == zeros | {"queued": 2, "dlq": 1}
    assert (answer["totalJobs"], answer["reasons"]) == (4, {})
    mail = api.get_as_owner(ROUTE, "ada", type=["mail", "x"]).json
    assert mail["statusCounts"] == zeros | {"queued": 1, "dlq": 1}
    assert api.get_as_owner(ROUTE, "ada", type="p*").json["totalJobs"] == 1
    assert api.get(ROUTE, token=api.token("root")).json["totalJobs"] == 0


@pytest.mark.parametrize("job_type", ["*", "a\0*"], ids=["no prefix", "NUL"])
def test_type_that_no_index_can_search_is_422(api: Api, job_type: str) -> None:
    """Catches a 500: a pattern of MongoDB cannot contain NUL."""
    answer = api.get_as_owner(ROUTE, "ada", type=job_type)
    assert (answer.status_code, [*answer.json["error"]["details"]]) == (422, ["type"])


@pytest.mark.usefixtures("jobs")
def test_counts_beyond_the_limit_are_lower_bounds_with_the_reason(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_counts, "STATUS_COUNT_LIMIT", 2)
    answer = api.get_as_owner(ROUTE, "bob").json
    assert answer["statusCounts"]["queued"] == answer["statusCounts"]["dlq"] == 2
    assert answer["reasons"] == dict.fromkeys(("queued", "dlq"), "there are more than 2")
    assert answer["totalJobs"] == 12
