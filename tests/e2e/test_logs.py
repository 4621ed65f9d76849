"""The log of a running service: catches a secret from settings, callers or documents in it, and
traces without the queries."""

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pymongo.database import Database

from jobmon.demo.mongod import Mongod, free_port

from ..conftest import SECRET, Api
from ..support.waiting import eventually
from .test_serving import Web

PLANTED = "planted-3f9c"


def ask(web: Web, path: str, **headers: str) -> int:
    connection = HTTPConnection("127.0.0.1", web.port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_secrets_of_settings_callers_and_documents_are_not_logged(
    mongod: Mongod, database: Database[dict[str, Any]], api: Api, tmp_path: Path
) -> None:
    database.jobs.insert_one(
        {
            "jobId": "one",
            "type": "payout",
            "status": "dlq",
            "payload": {"password": PLANTED},
            "lastError": {"code": "E", "message": "no", "token": PLANTED},
        }
    )
    admin = {"Authorization": f"Bearer {api.token()}"}
    uri = mongod.uri.replace("/?", f"/{database.name}?")
    web = Web(uri, tmp_path / "log", JOBMON_LOG_LEVEL="DEBUG", JOBMON_COLLECTOR="true")
    try:
        eventually(web.answers)
        assert ask(web, "/jobs/one", **admin) == 200
        assert ask(web, f"/admin/jobs/queue?page={PLANTED}", **admin) == 422
        assert ask(web, f"/admin/jobs/queue?cursor={PLANTED}&token={PLANTED}", **admin) == 422
        assert ask(web, f"/{PLANTED}") == 404
        assert ask(web, "/jobs/one", Authorization=f"Bearer {PLANTED}") == 401
        assert ask(web, "/jobs/one", Cookie=f"jobmon_session={PLANTED}") == 401
        assert ask(web, "/healthz", **{"User-Agent": PLANTED, "Referer": PLANTED}) == 200
        fault = {"failCommands": ["find"], "errorCode": 2, "appName": "jobmon"}
        fault["namespace"] = f"{database.name}.jobs"
        mode = {"times": 10}
        database.client.admin.command("configureFailPoint", "failCommand", mode=mode, data=fault)
        assert ask(web, f"/jobs/{PLANTED}", **admin) == 500
    finally:
        database.client.admin.command("configureFailPoint", "failCommand", mode="off")
        log = web.stop()
    lines = [json.loads(line) for line in log.splitlines()]
    (fault_line,) = [line for line in lines if "exception" in line]
    assert fault_line["exception"].endswith("OperationFailure BadValue")
    asked = [line for line in lines if line["event"] == "request" and line["status"] == 500]
    assert [line["request_id"] for line in asked] == [fault_line["request_id"]]
    for secret in (PLANTED, SECRET, api.token()[:40], "eyJ"):
        assert secret not in log


def test_the_password_of_a_database_that_is_away_is_not_logged(tmp_path: Path, api: Api) -> None:
    uri = f"mongodb://reader:{PLANTED}@127.0.0.1:{free_port()}/shop"
    web = Web(uri, tmp_path / "log", JOBMON_SERVER_SELECTION_TIMEOUT_MS="200")
    try:
        eventually(web.answers)
        assert ask(web, "/readyz") == 503
        assert ask(web, "/jobs", Authorization=f"Bearer {api.token()}") == 503
    finally:
        log = web.stop()
    lines = [json.loads(line) for line in log.splitlines()]
    for event in ("cannot be read: no server answers", "jobs.own_jobs: database unavailable"):
        assert [line["level"] for line in lines if event in line["event"]] == ["error"]
    assert PLANTED not in log


class Spans(BaseHTTPRequestHandler):
    """An OpenTelemetry collector for traces."""

    received: list[Any]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.received.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def spans() -> Iterator[tuple[str, list[Any]]]:
    """The endpoint for spans, and the spans that it received."""
    received: list[Any] = []
    handler = type("Handler", (Spans,), {"received": received})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_traces_have_a_span_for_a_request_and_for_each_query(
    mongod: Mongod,
    database: Database[dict[str, Any]],
    api: Api,
    tmp_path: Path,
    spans: tuple[str, list[Any]],
) -> None:
    endpoint, received = spans
    uri = mongod.uri.replace("/?", f"/{database.name}?")
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    web = Web(uri, tmp_path / "log", JOBMON_METRICS="off", **settings)
    try:
        eventually(web.answers)
        assert ask(web, "/jobs/some-id", Authorization=f"Bearer {api.token()}") == 403
        request = eventually(lambda: next((s for s in received if "/jobs/" in s.name), None))
        queries = eventually(
            lambda: [
                s for s in received if s.parent_span_id == request.span_id and "find" in s.name
            ]
        )
    finally:
        log = web.stop()
    assert request.name == "GET /jobs/<anything:job_id>"
    assert {span.trace_id for span in queries} == {request.trace_id}
    assert not any("healthz" in span.name for span in received)
    assert "some-id" not in "".join(str(span.attributes) for span in queries)
    lines = [json.loads(line) for line in log.splitlines()]
    (logged,) = [line for line in lines if line.get("route") == "/jobs/<anything:job_id>"]
    assert logged["trace_id"] == request.trace_id.hex()
