"""The log and the traces of a running web service.

Catches a secret of settings, callers or documents in the log, and traces without the queries.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod, free_port

from ..conftest import SECRET, Api
from ..support.commands import database_uri
from ..support.services import Web, serving
from ..support.waiting import eventually

PLANTED_SECRET = "planted-3f9c"
DATABASE = "test_logs"


class SpanHandler(BaseHTTPRequestHandler):
    """Receives spans over HTTP, as a collector of OpenTelemetry does."""

    received: list[Any]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.received.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def spans() -> Iterator[tuple[str, list[Any]]]:
    """The URL of an endpoint for spans, and the list of spans that it has received."""
    received: list[Any] = []
    handler = type("Handler", (SpanHandler,), {"received": received})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def web(
    mongod: Mongod,
    mongo: MongoClient[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
    spans: tuple[str, list[Any]],
) -> Iterator[Web]:
    """A service that logs at DEBUG and sends traces. `test_secrets_…` stops it to read its log."""
    mongo[DATABASE].jobs.insert_one(
        {
            "jobId": "one",
            "type": "payout",
            "status": "dlq",
            "payload": {"password": PLANTED_SECRET},
            "lastError": {"code": "E", "message": "no", "token": PLANTED_SECRET},
        }
    )
    settings = {"JOBMON_LOG_LEVEL": "DEBUG", "JOBMON_COLLECTOR": "true"}
    settings |= {"OTEL_EXPORTER_OTLP_ENDPOINT": spans[0], "OTEL_BSP_SCHEDULE_DELAY": "50"}
    settings |= {"JOBMON_ROLLUP_DB": f"{DATABASE}_rollups"}
    folder = tmp_path_factory.mktemp("web")
    with serving(database_uri(mongod, DATABASE), folder, **settings) as web:
        yield web
    for name in (DATABASE, f"{DATABASE}_rollups"):
        mongo.drop_database(name)


def parse_lines(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


def test_trace_has_spans_for_the_request_and_its_query(
    web: Web, api: Api, spans: tuple[str, list[Any]]
) -> None:
    _, received = spans
    job_id = "static-metrics"  # contains words of the paths that have no traces
    assert web.get(f"/jobs/{job_id}", api.token()) == 403
    request_span = eventually(
        lambda: next((span for span in received if "/jobs/" in span.name), None)
    )
    query_spans = eventually(
        lambda: [
            span
            for span in received
            if span.parent_span_id == request_span.span_id and "find" in span.name
        ]
    )
    assert request_span.name == "GET /jobs/<anything:job_id>"
    assert {span.trace_id for span in query_spans} == {request_span.trace_id}
    assert not any("healthz" in span.name for span in received)
    assert job_id not in "".join(str(span.attributes) for span in query_spans)
    (log_line,) = eventually(
        lambda: [
            line
            for line in parse_lines(web.log.read_text())
            if line.get("route") == "/jobs/<anything:job_id>"
        ]
    )
    assert log_line["trace_id"] == request_span.trace_id.hex()


def test_secrets_of_settings_callers_and_documents_are_not_logged(
    web: Web, mongo: MongoClient[dict[str, Any]], api: Api
) -> None:
    token = api.token()
    assert web.get("/jobs/one", token) == 200
    assert web.get(f"/admin/jobs/queue?page={PLANTED_SECRET}", token) == 422
    assert (
        web.get(f"/admin/jobs/queue?cursor={PLANTED_SECRET}&token={PLANTED_SECRET}", token) == 422
    )
    assert web.get(f"/{PLANTED_SECRET}") == 404
    assert web.get("/jobs/one", PLANTED_SECRET) == 401
    assert web.get("/jobs/one", Cookie=f"jobmon_session={PLANTED_SECRET}") == 401
    assert web.get("/healthz", **{"User-Agent": PLANTED_SECRET, "Referer": PLANTED_SECRET}) == 200
    fault = {"failCommands": ["find", "aggregate"], "errorCode": 2, "appName": "jobmon"}
    fault["namespace"] = f"{DATABASE}.jobs"
    mongo.admin.command("configureFailPoint", "failCommand", mode={"times": 10}, data=fault)
    try:
        assert web.get(f"/jobs/{PLANTED_SECRET}", token) == 500
    finally:
        mongo.admin.command("configureFailPoint", "failCommand", mode="off")
    log = web.stop()
    lines = parse_lines(log)
    (fault_line,) = [line for line in lines if "exception" in line]
    assert fault_line["exception"].endswith("OperationFailure BadValue")
    requests = [line for line in lines if line["event"] == "request" and line["status"] == 500]
    assert [line["request_id"] for line in requests] == [fault_line["request_id"]]
    for secret in (PLANTED_SECRET, SECRET, token[:40], "eyJ"):
        assert secret not in log


def test_password_of_an_unreachable_database_is_not_logged(tmp_path: Path, api: Api) -> None:
    uri = f"mongodb://reader:{PLANTED_SECRET}@127.0.0.1:{free_port()}/shop"
    settings = {"JOBMON_SERVER_SELECTION_TIMEOUT_MS": "200"}
    with serving(uri, tmp_path, **settings) as web:
        assert web.get("/readyz") == 503
        assert web.get("/jobs", api.token()) == 503
        log = web.stop()
    lines = parse_lines(log)
    for event in ("cannot be read: no server answers", "jobs.own_jobs: database unavailable"):
        assert [line["level"] for line in lines if event in line["event"]] == ["error"]
    assert PLANTED_SECRET not in log
