"""A queue whose jobs have no type: catches a filter by type that ends in an error or is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings
from jobmon.store import list_plan
from jobmon.store.connection import Connection
from jobmon.store.filter import JobFilter
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists

from ..conftest import NOW

UNTYPED_PROFILE = """\
status = { path = "status" }
[fields]
jobId = "jobId"
createdAt = "createdAt"
finishedAt = "finishedAt"
"""


@pytest.fixture
def planner(
    watched: Database[dict[str, Any]], make_settings: Callable[..., Settings], tmp_path: Path
) -> ListPlanner:
    path = tmp_path / "untyped.toml"
    path.write_text(UNTYPED_PROFILE)
    return ListPlanner(Connection(make_settings(profile=str(path)), watched.client))


@pytest.mark.parametrize(("job_type", "job_ids"), [("mail*", []), ("mail", []), ("null", ["a"])])
def test_jobs_without_a_type_match_only_the_filter_by_a_missing_type(
    watched: Database[dict[str, Any]], planner: ListPlanner, job_type: str, job_ids: list[str]
) -> None:
    watched.jobs.insert_one({"jobId": "a", "status": "queued", "createdAt": NOW})
    lists = JobLists(planner, Redactor())
    jobs = lists.page(JobFilter(types=(job_type,))).jobs
    assert [job["jobId"] for job in jobs] == job_ids


def test_filter_by_a_missing_type_can_be_combined_with_any_number_of_jobs(
    watched: Database[dict[str, Any]], planner: ListPlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a refusal: a missing type excludes no job, so it needs no index."""
    watched.jobs.insert_one({"jobId": "a", "status": "dlq", "createdAt": NOW, "finishedAt": NOW})
    monkeypatch.setattr(list_plan, "MAX_MATCHES", 0)
    for job_type, job_ids in (("null", ["a"]), ("mail", [])):
        jobs = JobLists(planner, Redactor()).page(JobFilter(types=(job_type,), finished_from=NOW))
        assert [job["jobId"] for job in jobs.jobs] == job_ids
