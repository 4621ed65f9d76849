"""The OpenAPI document with other tools: catches an answer that schemathesis finds wrong, and a
document from which no working client can be generated."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pymongo import MongoClient
from schemathesis.core.parameters import ParameterLocation

from jobmon.demo.mongod import Mongod
from jobmon.rollup.documents import PROGRESS, STATE
from jobmon.settings import Settings
from jobmon.settings.actions import ACTION_PERMISSIONS
from jobmon.web.admission import MAX_BODY_BYTES

from ..conftest import NOW, Api
from ..support.commands import database_uri, index_queue
from ..support.services import serving
from ..support.waiting import eventually

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def url(
    mongod: Mongod, mongo: MongoClient[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a service with its indexes, over thirty jobs on the real server.

    The service has a process of its own: hypothesis controls the random numbers of this process.
    """
    database = mongo["test_openapi_tools"]
    database.jobs.insert_many(
        {
            "jobId": f"job-{index}",
            "createdBy": ["root", "bob"][index % 2],
            "status": ["dlq", "queued", "odd"][index % 3],
            "type": ["email.send", None][index % 2],
            "createdAt": ["long ago", NOW + timedelta(seconds=index)][index % 5 > 0],
            "lastError": {"code": "E", "message": "broken"},
            "payload": {"password": "p", "n": index},
        }
        for index in range(30)
    )
    rollups = f"{database.name}_rollups"
    uri = database_uri(mongod, database)
    index_queue(Settings(mongo_uri=uri))
    # The service runs a collector: without one, long windows get 503.
    permissions = "+".join(("ADMIN_DASHBOARD", *ACTION_PERMISSIONS))
    environment = {
        "JOBMON_ROLLUP_DB": rollups,
        "JOBMON_STATE_DB": rollups,
        "JOBMON_COLLECTOR": "true",
        "JOBMON_LOG_LEVEL": "ERROR",
        "JOBMON_ACTIONS": "true",
        "JOBMON_ROLE_PERMISSIONS": f"admin={permissions}",
    }
    with serving(uri, tmp_path_factory.mktemp("served"), **environment) as web:
        progress = {"name": PROGRESS, "completeUntil": {"$gt": NOW}}
        eventually(lambda: mongo[rollups][STATE].find_one(progress))
        yield web.url
    mongo.drop_database(database.name)
    mongo.drop_database(rollups)


# 422 is accepted: a schema of one parameter cannot describe which parameters can be combined.
# 403 and 404 answer the id of a missing job or request, 409 a request that is already decided.
CONFIG = {
    "checks": {
        "positive_data_acceptance": {"expected-statuses": ["2xx", "403", "404", "409", "422"]},
    },
}
DOCUMENT = ROOT / "docs/openapi.json"
schema = schemathesis.openapi.from_path(DOCUMENT, config=schemathesis.Config.from_dict(CONFIG))


@schema.parametrize()
@settings(
    max_examples=int(os.environ.get("JOBMON_TEST_EXAMPLES", "15")),  # bench/fuzz.py runs more
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),  # `api` is created once and does not change
)
def test_schemathesis_finds_no_wrong_answer(case: Any, api: Api, url: str) -> None:
    # If the case is about a wrong or missing header, do not replace that header.
    has_bad_header = case.meta is not None and case.meta.is_negative_at(ParameterLocation.HEADER)
    headers = {} if has_bad_header else {"Authorization": f"Bearer {api.token()}"}
    response = case.call(base_url=url, headers=headers)
    if response.status_code == HTTPStatus.REQUEST_URI_TOO_LONG:  # from gunicorn, before any route
        assert len(response.request.path_url) > 8_000
        return
    if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # also before any route
        assert len(response.request.body or b"") > MAX_BODY_BYTES
        return
    case.validate_response(response, headers=headers)


LIST_JOBS = """
import sys
from jobmon_client import AuthenticatedClient
from jobmon_client.api.admin import get_stats, list_jobs
from jobmon_client.api.health import get_readiness
from jobmon_client.api.jobs import get_job
from jobmon_client.models import Error, JobDetail, JobList, JobStats

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
jobs = list_jobs.sync(client=client, status=["dlq", "odd"], per_page=7)
assert isinstance(jobs, JobList), jobs
stats = get_stats.sync(client=client)
assert isinstance(stats, JobStats), stats
job = get_job.sync("job-4", client=client)
assert isinstance(job, JobDetail), job
answer = list_jobs.sync(client=AuthenticatedClient(base_url=sys.argv[1], token="x"))
assert isinstance(answer, Error), answer
assert get_readiness.sync(client=client).checks.database.ping_ms > 0
print(len(jobs.data), jobs.meta.total, stats.total_jobs, stats.as_of.year > 2000)
print(job.last_error.message, job.payload["password"], answer.error.code)
"""


def test_a_generated_client_compiles_and_lists_jobs(api: Api, url: str, tmp_path: Path) -> None:
    def run(*command: str) -> str:
        result = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    package = tmp_path / "jobmon_client"
    (tmp_path / "generator.yaml").write_text("post_hooks: []\n")
    output = run(
        "-m", "openapi_python_client", "generate", "--fail-on-warning", "--meta", "none",
        "--path", str(DOCUMENT), "--output-path", str(package),
        "--config", "generator.yaml",
    )  # fmt: skip
    assert "warning" not in output.lower()
    run("-m", "compileall", "-q", str(package))
    (tmp_path / "list_jobs.py").write_text(LIST_JOBS)
    counts, texts = run("list_jobs.py", url, api.token()).splitlines()
    assert counts == "7 20 30 True"
    assert texts == "broken [redacted] token_invalid"
