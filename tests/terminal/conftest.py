"""A queue with a few jobs, and a client of its API."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pymongo.database import Database

from jobmon.terminal.client import ApiClient

from ..conftest import Api
from ..support.commands import index_queue

HOSTILE = "x\x1b[2J\x1b]0;owned\x07\u202ey[red]z"


@pytest.fixture
def api(real_api: Api) -> Api:
    """The service over the real server, because mongomock cannot group jobs by type."""
    return real_api


@pytest.fixture
def queue(api: Api, database: Database[dict[str, Any]]) -> Database[dict[str, Any]]:
    """Three queued jobs, and a dead one whose texts try to control the terminal."""
    index_queue(api.app.extensions["jobmon_settings"])
    now = datetime.now(UTC).replace(microsecond=0)
    for index in range(3):
        database.jobs.insert_one(
            {"jobId": f"queued-{index}", "type": "mail", "status": "queued", "priority": 0,
             "createdBy": "ada", "createdAt": now - timedelta(minutes=index + 1),
             "nextRunAt": now - timedelta(minutes=index + 1), "maxAttempts": 3,
             "attemptCount": 0}
        )  # fmt: skip
    database.jobs.insert_one(
        {"jobId": "dead", "type": HOSTILE, "status": "dlq", "priority": 0, "createdBy": "bob",
         "createdAt": now - timedelta(hours=1), "nextRunAt": now, "maxAttempts": 1,
         "attemptCount": 1, "finishedAt": now, "payload": {"apiKey": "s3cret"},
         "lastError": {"code": "E1", "message": HOSTILE}}
    )  # fmt: skip
    database.job_attempts.insert_one(
        {"jobId": "dead", "attemptNumber": 1, "status": "failed", "workerId": "w-1",
         "startedAt": now - timedelta(seconds=2), "finishedAt": now, "durationMs": 2_000,
         "error": {"code": "E1", "message": HOSTILE}}
    )  # fmt: skip
    return database


def make_client(api: Api, queue: str | None = None, **caller: Any) -> ApiClient:
    headers = {"Authorization": f"Bearer {api.token(**caller)}"}
    transport = httpx.WSGITransport(app=api.app)
    http = httpx.Client(transport=transport, base_url="http://jobmon.test", headers=headers)
    return ApiClient(http, queue)


@pytest.fixture
def client(api: Api, queue: Database[dict[str, Any]]) -> ApiClient:
    return make_client(api)
