"""The connection on the real server: catches a client that is shared across a fork, a document that
cannot be read, and a service that does not recover when its database is back."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import encode
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo.database import Database
from pymongo.errors import OperationFailure

from jobmon.app import create_app
from jobmon.collector.collecting import collecting
from jobmon.demo.mongod import Mongod, free_port
from jobmon.settings import Settings, SettingsError
from jobmon.store.client import DatabaseUnreachableError
from jobmon.store.connection import Connection
from jobmon.store.failures import AUTHENTICATION_FAILED

from ..conftest import NOW, SECRET, Api
from ..support.nameserver import MEMBER_HOST, SRV_NAME, NameServer, name_server
from ..support.waiting import PATIENCE_S, eventually


@pytest.mark.parametrize(
    ("path", "name"), [("", "jobmon"), ("/", "jobmon"), ("/shop", "shop"), ("/shop?w=1", "shop")]
)
def test_the_database_is_named_by_the_uri_or_jobmon(
    make_settings: Callable[..., Settings], path: str, name: str
) -> None:
    connection = Connection(make_settings(mongo_uri=f"mongodb://127.0.0.1:1{path}"))
    assert connection.database.name == name
    connection.client.close()


def test_a_refused_sign_in_is_not_an_outage(
    mongod: Mongod, make_settings: Callable[..., Settings]
) -> None:
    """Catches a connection that reports an outage if the password is wrong."""
    uri = mongod.uri.replace("mongodb://", "mongodb://nobody:wrong@")
    connection = Connection(make_settings(mongo_uri=uri, server_selection_timeout_ms=100))

    def read_refusal() -> str:
        with pytest.raises(OperationFailure) as refusal:
            connection.ping()
        assert refusal.value.code == AUTHENTICATION_FAILED
        return str(refusal.value)

    # This is jobmon's text, not the driver's. jobmon raises the error only while the driver does
    # not know the server's state: from a refused sign-in until the driver's next check.
    eventually(lambda: "the sign-in was refused" in read_refusal())
    connection.close()


def test_a_process_with_a_new_id_gets_its_own_client(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Connection(make_settings(mongo_uri="mongodb://127.0.0.1:1"))
    first_client = connection.client
    assert connection.client is first_client
    monkeypatch.setattr("os.getpid", lambda: -1)
    second_client = connection.client
    assert second_client is not first_client
    first_client.close()
    second_client.close()


FORKING_PROGRAM = """
import os, sys, warnings
from jobmon.settings import Settings
from jobmon.store.connection import Connection

warnings.simplefilter("error")
connection = Connection(Settings(mongo_uri=sys.argv[1]))
parents_client = connection.client
connection.ping()
if child := os.fork():
    _, status = os.waitpid(child, 0)
    parents_client.close()
    sys.exit(os.waitstatus_to_exitcode(status))
connection.ping()
is_shared = connection.client is parents_client
connection.client.close()
os._exit(7 if is_shared else 0)
"""


def test_a_forked_child_connects_with_its_own_client(mongod: Mongod) -> None:
    process = subprocess.run(
        [sys.executable, "-c", FORKING_PROGRAM, mongod.uri],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")


def test_a_document_with_invalid_utf8_is_still_shown(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    encoded = encode({"jobId": "raw", "type": "@@", "payload": {"text": "@@"}, "createdAt": NOW})
    database.jobs.insert_one(RawBSONDocument(encoded.replace(b"@@", b"\xff\xfe")))
    assert real_api.get_as_admin("/jobs/raw").json["type"] == "��"
    assert real_api.get_as_admin("/admin/jobs/queue").json["data"][0]["jobId"] == "raw"
    assert real_api.get_as_admin("/admin/jobs/stats").json["totalJobs"] == 1


def test_the_service_recovers_when_its_database_is_back(
    make_settings: Callable[..., Settings], tmp_path: Path, mongod: Mongod
) -> None:
    server = Mongod(tmp_path / "data", port=free_port())
    uri = server.uri.replace("/?", "/jobmon?")
    api = Api(create_app(make_settings(mongo_uri=uri, server_selection_timeout_ms=300)))

    def read_status(path: str) -> int:
        return api.get_as_admin(path).status_code

    assert read_status("/admin/jobs/stats") == read_status("/readyz") == 503
    assert read_status("/healthz") == 200
    for _ in range(2):
        with server:
            eventually(lambda: read_status("/readyz") == 200)
            eventually(lambda: read_status("/admin/jobs/stats") == 200)
        answer = api.get_as_admin("/admin/jobs/queue")
        assert answer.status_code == 503
        assert answer.json["error"]["code"] == "database_unavailable"
        assert answer.headers["Retry-After"] == "2"
        assert read_status("/healthz") == 200
    api.app.extensions["jobmon_connection"].client.close()


def test_a_date_that_the_server_computed_beyond_pythons_range_is_shown(
    real_api: Api, database: Database[dict[str, Any]]
) -> None:
    database.command(
        "insert", "jobs", documents=[{"jobId": "far", "finishedAt": NOW + timedelta(days=1)}]
    )
    database.jobs.update_one({}, [{"$set": {"finishedAt": {"$add": ["$finishedAt", 10**15]}}}])
    assert real_api.get_as_admin("/jobs/far").json["finishedAt"].startswith("+0")


@pytest.mark.parametrize(
    "field", ["createdAt", "updatedAt", "nextRunAt", "leaseExpiresAt", "finishedAt"]
)
@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (253_402_300_800_000, "+010000-01-01T00:00:00.000Z"),
        (-62_167_219_200_001, "-000001-12-31T23:59:59.999Z"),
    ],
)
def test_a_job_with_a_date_that_python_cannot_hold_is_listed_shown_and_counted(
    real_api: Api, database: Database[dict[str, Any]], field: str, ms: int, shown: str
) -> None:
    database.jobs.insert_one({"jobId": "odd", "status": "queued", field: DatetimeMS(ms)})
    assert real_api.get_as_admin("/admin/jobs/queue").json["data"][0][field] == shown
    assert real_api.get_as_admin("/jobs/odd").json[field] == shown
    assert real_api.get_as_admin("/admin/jobs/stats").json["statusCounts"]["queued"] == 1


@pytest.fixture
def dns_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    with name_server(monkeypatch) as server:
        yield server


def make_srv_uri(mongod: Mongod, database: str) -> tuple[str, str]:
    """A mongodb+srv address, and the SRV record that resolves it to `mongod`."""
    return (
        f"mongodb+srv://{SRV_NAME}/{database}?tls=false&replicaSet=rs0",
        f"0 0 {mongod.port} {MEMBER_HOST}.",
    )


# Values of `NameServer.answer` and `NameServer.options` that lead to no usable server.
WRONG_ANSWERS = {
    "silence": ("silence", ""),
    "no such name": ("no such name", ""),
    "a host of another domain": ("0 0 27017 db.example.org.", ""),
    "no host": ("0 0 0 .", ""),
    "bad options": ("0 0 1 " + MEMBER_HOST + ".", "retryWrites=true"),
}


@pytest.mark.parametrize(
    "case",
    [
        case if case in ("silence", "no such name") else pytest.param(case, marks=pytest.mark.long)
        for case in WRONG_ANSWERS
    ],
)
def test_the_service_recovers_when_the_host_name_is_resolved(
    make_settings: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
    dns_server: NameServer,
    mongod: Mongod,
    database: Database[dict[str, Any]],
    case: str,
) -> None:
    database.jobs.insert_one({"jobId": "job-1", "status": "queued"})
    uri, srv_record = make_srv_uri(mongod, database.name)
    dns_server.answer, dns_server.options = WRONG_ANSWERS[case]
    app = create_app(make_settings(mongo_uri=uri, server_selection_timeout_ms=300))
    api = Api(app)
    try:
        assert api.get("/healthz").status_code == 200
        for path in ("/admin/jobs/stats", "/jobs/job-1", "/admin/jobs/timeseries", "/dashboard"):
            answer = api.get_as_admin(path)
            assert answer.status_code == 503, path
            assert int(answer.headers["Retry-After"]) > 0
        ready = api.get("/readyz")
        assert ready.status_code == 503
        assert ready.json["error"]["details"] == {"database": ["the host name is not resolved"]}
        metrics = api.get_as_admin("/metrics")
        assert metrics.status_code == 200
        assert 'jobmon_database_up{queue="default"} 0.0' in metrics.text
        queries_before = dns_server.query_count
        # The client retries, but logs the failure once.
        eventually(lambda: dns_server.query_count > queries_before + 1)
        messages = [record.getMessage() for record in caplog.records]
        assert len([text for text in messages if "unreachable" in text]) == 1
        dns_server.answer, dns_server.options = srv_record, ""
        eventually(lambda: api.get("/readyz").status_code == 200)
        assert api.get_as_admin("/admin/jobs/stats").json["totalJobs"] == 1
        assert api.get_as_admin("/jobs/job-1").status_code == 200
    finally:
        app.extensions["jobmon_connection"].close()


def test_concurrent_callers_share_a_few_dns_queries(
    make_settings: Callable[..., Settings], dns_server: NameServer
) -> None:
    """Catches a DNS query for each caller, and a `close` that waits for an answer."""
    settings = make_settings(
        mongo_uri=f"mongodb+srv://{SRV_NAME}/shop", server_selection_timeout_ms=500
    )
    connection = Connection(settings)

    def read_name_or_error(_: int) -> str:
        try:
            return connection.database.name
        except DatabaseUnreachableError as error:
            return type(error).__name__

    try:
        with ThreadPoolExecutor(40) as pool:
            assert set(pool.map(read_name_or_error, range(200))) == {"UnresolvedHostError"}
        assert dns_server.query_count <= 10
        close_thread = threading.Thread(target=connection.close)
        close_thread.start()
        close_thread.join(PATIENCE_S)
        assert not close_thread.is_alive()
    finally:
        connection.close()


def test_a_collector_starts_while_the_name_server_is_unreachable(
    make_settings: Callable[..., Settings],
    dns_server: NameServer,
    mongod: Mongod,
    database: Database[dict[str, Any]],
) -> None:
    database.jobs.insert_one({"jobId": "job-1", "status": "queued"})
    uri, srv_record = make_srv_uri(mongod, database.name)
    settings = make_settings(
        mongo_uri=uri, rollup_db=f"{database.name}_own", server_selection_timeout_ms=300
    )
    app = create_app(settings)
    try:
        with collecting(settings):
            assert Api(app).get_as_admin("/admin/jobs/stats").status_code == 503
            dns_server.answer = srv_record
            eventually(
                lambda: Api(app).get_as_admin("/admin/jobs/stats").json.get("source") == "rollup"
            )
    finally:
        app.extensions["jobmon_connection"].close()
        database.client.drop_database(f"{database.name}_own")


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb+srv://",
        "mongodb+srv://one.cluster.test,two.cluster.test/shop",
        "mongodb+srv://queue.cluster.test:27017/shop",
        "mongodb+srv://user:pass@word@queue.cluster.test/shop",
        "mongodb+srv:///shop",
    ],
)
def test_a_malformed_srv_address_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI", uri)
    monkeypatch.setenv("JOBMON_JWT_SECRET_KEY", SECRET)
    with pytest.raises(SettingsError, match="JOBMON_MONGO_URI") as refusal:
        Settings.from_env()
    assert "word" not in str(refusal.value)  # the end of the password
    monkeypatch.setenv("JOBMON_MONGO_URI", "mongodb+srv://user:p%40ss@queue.cluster.test/shop?w=1")
    assert Settings.from_env().mongo_uri.endswith("?w=1")
