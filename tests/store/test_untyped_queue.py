"""A queue whose jobs have no type: catches a filter by type that ends in an error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings
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
"""


@pytest.mark.parametrize(("job_type", "job_ids"), [("mail*", []), ("mail", []), ("null", ["a"])])
def test_jobs_without_a_type_match_only_the_filter_by_a_missing_type(
    watched: Database[dict[str, Any]],
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    job_type: str,
    job_ids: list[str],
) -> None:
    path = tmp_path / "untyped.toml"
    path.write_text(UNTYPED_PROFILE)
    watched.jobs.insert_one({"jobId": "a", "status": "queued", "createdAt": NOW})
    connection = Connection(make_settings(profile=str(path)), watched.client)
    lists = JobLists(ListPlanner(connection), Redactor())
    jobs = lists.page(JobFilter(types=(job_type,))).jobs
    assert [job["jobId"] for job in jobs] == job_ids
