"""A queue whose jobs have no type: catches a filter by type that ends in an error, and advice to
create an index that cannot exist."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings
from jobmon.store import list_plan
from jobmon.store.connection import Connection
from jobmon.store.filter import JobFilter, RefusedFilterError
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


def test_a_refusal_does_not_advise_an_index_whose_field_is_missing(
    watched: Database[dict[str, Any]], planner: ListPlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.jobs.insert_one({"jobId": "a", "status": "dlq", "createdAt": NOW, "finishedAt": NOW})
    monkeypatch.setattr(list_plan, "MAX_MATCHES", 0)
    with pytest.raises(RefusedFilterError, match="No index serves these filters together"):
        planner.prepare(JobFilter(types=("null",), finished_from=NOW))
