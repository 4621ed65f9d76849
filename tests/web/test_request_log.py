"""The log line of each request: catches a request without a line, a request id that forges a line,
and a query without the id of its request."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.database import Database

from ..conftest import Api
from ..support.request_log import capture_log

STATS = "/admin/jobs/stats"


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """The log lines of the test's requests, as dictionaries."""
    with capture_log() as captured:
        yield captured


def test_request_logs_one_line_with_user_route_and_duration(api: Api, lines: list[Any]) -> None:
    answer = api.get_as_owner("/jobs/some-id", "alice")
    (line,) = lines
    duration_ms = line.pop("duration_ms")
    assert 0 < duration_ms < 60_000
    assert datetime.fromisoformat(line.pop("timestamp")) <= datetime.now(UTC)
    assert line == {
        "level": "info",
        "logger": "jobmon.request",
        "event": "request",
        "method": "GET",
        "route": "/jobs/<anything:job_id>",
        "status": 403,
        "code": "access_denied",
        "user": "alice",
        "address": "127.0.0.1",
        "request_id": answer.headers["X-Request-ID"],
    }


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [(STATS, 401, STATS), ("/nope", 404, None), ("/healthz", 200, "/healthz")],
)
def test_request_without_token_or_route_logs_one_line_without_user(
    api: Api, lines: list[Any], path: str, status: int, route: str | None
) -> None:
    assert api.get(path).status_code == status
    (line,) = lines
    assert (line["status"], line["route"], line["user"]) == (status, route, None)


def test_export_is_logged_once_after_it_was_sent(api: Api, lines: list[Any]) -> None:
    api.app.extensions["jobmon_connection"].jobs.collection.insert_one({"jobId": "a"})
    answer = api.get_as_admin("/admin/jobs/queue", format="ndjson")
    assert lines == []
    content = answer.get_data()
    answer.close()
    assert json.loads(content.splitlines()[0])["jobId"] == "a"
    assert len(lines) == 1


def test_request_id_is_the_callers_or_a_new_one(api: Api) -> None:
    def read_id(**headers: str) -> str:
        return api.client.get("/healthz", headers=headers).headers["X-Request-ID"]

    assert read_id(**{"X-Request-ID": "edge-1.2:a/b=c_d+e"}) == "edge-1.2:a/b=c_d+e"
    new_ids = {read_id(), read_id()}
    assert len(new_ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", new_id) for new_id in new_ids)


@pytest.mark.parametrize("bad_id", ["", "two words", 'quo"te', "ümlaut", "{json}", "x" * 129])
def test_malformed_request_id_is_replaced(api: Api, bad_id: str) -> None:
    answer = api.client.get("/healthz", headers={"X-Request-ID": bad_id})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize(
    "path",
    [
        STATS,
        "/admin/jobs/queue?status=dlq&page=2",
        "/admin/jobs/queue?sort=createdAt",
        "/admin/jobs/queue?job_id=abcd",
        "/admin/jobs/queue?format=csv",
        "/admin/jobs/timeseries",
        "/admin/jobs/types",
        "/jobs",
        "/jobs/some-id",
        "/dashboard",
        "/dashboard/jobs",
        "/metrics",
    ],
)
def test_every_query_of_a_request_has_its_id_as_comment(
    real_api: Api, database: Database[dict[str, Any]], path: str
) -> None:
    headers = {"X-Request-ID": "from-the-edge", "Authorization": f"Bearer {real_api.token()}"}
    database.command("profile", 2)
    try:
        real_api.client.get(path, headers=headers).get_data()
    finally:
        database.command("profile", 0)
    entries = list(database["system.profile"].find({"appName": "jobmon"}))
    comments = {entry["command"].get("comment") for entry in entries}
    # /metrics may send no query: its figures can be cached, and the profiler records no ping.
    assert comments <= {"jobmon from-the-edge"}
    assert comments or path == "/metrics"
