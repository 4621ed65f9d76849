"""gunicorn with two workers and a real MongoDB server.

Catches a MongoDB client that a fork shares, an answer that is lost under load, and a stop that
breaks connections.
"""

import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection, HTTPException, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.store.cursor import NEWEST_FIRST

from ..conftest import Api
from ..support.commands import database_uri
from ..support.services import Web, serving
from ..support.waiting import PATIENCE_S, eventually

CLIENTS = 50
REQUESTS = 4  # per client: one of each route
ROUTES = ("/admin/jobs/stats", "/admin/jobs/queue", "/jobs", "/readyz")


@pytest.fixture
def web(mongod: Mongod, database: Database[dict[str, Any]], tmp_path: Path) -> Iterator[Web]:
    """A web service with two workers; the queue has 200 jobs of three owners."""
    database.jobs.insert_many(
        {"jobId": str(number), "status": "queued", "createdBy": f"user-{number % 3}"}
        for number in range(200)
    )
    with serving(database_uri(mongod, database), tmp_path, JOBMON_WORKERS="2") as web:
        yield web


def test_fifty_parallel_clients_get_an_answer_to_each_request(web: Web, real_api: Api) -> None:
    token = real_api.token()
    outcomes: Counter[object] = Counter()

    def get_status(path: str) -> int | None:
        """The status, or None if the service had too many requests at once (503)."""
        return None if (status := web.get(path, token)) == 503 else status

    def send_requests(client: int) -> None:
        for number in range(REQUESTS):
            path = ROUTES[(client + number) % len(ROUTES)]
            try:
                outcomes[eventually(lambda path=path: get_status(path))] += 1  # type: ignore[misc]
            except OSError as error:
                outcomes[repr(error)] += 1

    threads = [threading.Thread(target=send_requests, args=[client]) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(outcomes) == {200: CLIENTS * REQUESTS}
    log = web.stop()
    assert "opened before fork" not in log
    assert "unreachable" not in log
    assert "Traceback" not in log


def test_sigterm_lets_a_running_request_finish(
    web: Web, real_api: Api, database: Database[dict[str, Any]]
) -> None:
    token, statuses = real_api.token(), []
    delay = {"failCommands": ["aggregate"], "namespace": f"{database.name}.jobs"}
    delay |= {"blockConnection": True, "blockTimeMS": 200}  # in each of a dozen queries
    admin = database.client.admin
    fail_point = admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=delay)
    try:
        request = threading.Thread(
            target=lambda: statuses.append(web.get("/admin/jobs/stats", token))
        )
        request.start()
        admin.command(
            "waitForFailPoint",
            "failCommand",
            timesEntered=fail_point["count"] + 1,
            maxTimeMS=1_000 * PATIENCE_S,
        )
        log = web.stop()
        request.join()
    finally:
        admin.command("configureFailPoint", "failCommand", mode="off")
    assert statuses == [200]
    assert web.process.returncode == 0
    assert "Shutting down: Master" in log


def get_by_http_1_0(web: Web, path: str, headers: dict[str, str]) -> list[bytes]:
    """The lines of the body of an HTTP/1.0 answer, which ends when the connection closes."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE_S) as connection:
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"GET {path} HTTP/1.0\r\n{fields}\r\n".encode())
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.split()[1] == b"200"
    return body.splitlines()


def test_aborted_export_never_looks_complete(
    web: Web, api: Api, database: Database[dict[str, Any]]
) -> None:
    database.jobs.create_index(NEWEST_FIRST)  # without this index, a query is sent twice
    database.jobs.insert_many({"jobId": f"more-{number}"} for number in range(1_500))
    bearer = {"Authorization": f"Bearer {api.token('root', 'admin')}"}
    path = "/admin/jobs/queue?format=ndjson"
    # Each batch of jobs is one query. The query of the second batch fails.
    fault = {"failCommands": ["find"], "errorCode": 50, "appName": "jobmon"}
    fault |= {"namespace": f"{database.name}.jobs"}
    connection = HTTPConnection("127.0.0.1", web.port, timeout=PATIENCE_S)
    set_fault = partial(database.client.admin.command, "configureFailPoint", "failCommand")
    set_fault(mode={"skip": 1}, data=fault)
    try:
        connection.request("GET", path, headers=bearer)
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises((IncompleteRead, ConnectionResetError)):
            answer.read()
        set_fault(mode={"skip": 1}, data=fault)
        lines = get_by_http_1_0(web, path, bearer)
        assert len(lines) == 500
        assert "end" not in json.loads(lines[-1])
    finally:
        set_fault(mode="off")
        connection.close()
    *jobs, end = map(json.loads, get_by_http_1_0(web, path, bearer))
    assert end == {"end": True, "rows": len(jobs)} == {"end": True, "rows": 1_700}
    log = web.stop()
    assert log.count("export aborted") == 2
    assert "Traceback" not in log


RELOADS = (signal.SIGHUP, signal.SIGUSR2)


@pytest.mark.parametrize(
    "signal_number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.long) for number in RELOADS)],
    ids=["stop", "reload", "upgrade"],
)
def test_stop_reload_and_upgrade_under_load_break_no_connection(
    web: Web, real_api: Api, signal_number: signal.Signals
) -> None:
    """Catches an open connection that is reset; idle connections may be closed in order."""
    headers = {"Authorization": f"Bearer {real_api.token()}"}
    outcomes: Counter[str] = Counter()
    is_over = threading.Event()

    def send_requests(number: int) -> None:
        is_kept_alive = number % 4 == 0
        connection = HTTPConnection("127.0.0.1", web.port, timeout=PATIENCE_S)
        while not is_over.wait(0.1):
            if connection.sock is None:
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return
            try:
                connection.request("GET", ROUTES[number % len(ROUTES)], headers=headers)
                answer = connection.getresponse()
                answer.read()
                outcomes[str(answer.status)] += 1
            except RemoteDisconnected as error:
                # The service closed the connection in order; a reset raises its base class.
                outcomes["closed while idle" if is_kept_alive else repr(error)] += 1
                connection.close()
            except (OSError, HTTPException) as error:
                outcomes[repr(error)] += 1
                connection.close()
            if not is_kept_alive:
                connection.close()
        connection.close()

    threads = [threading.Thread(target=send_requests, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: outcomes["200"] > 40)
    if signal_number is signal.SIGHUP:
        old_workers = web.workers()
        web.process.send_signal(signal_number)
        eventually(lambda: old_workers.isdisjoint(web.workers()))
        is_over.set()
    elif signal_number is signal.SIGUSR2:
        old_workers = web.workers()
        web.process.send_signal(signal_number)
        (new_master,) = eventually(lambda: web.workers() - old_workers)
        try:
            # Connections wait in the kernel until the first worker of the new master accepts them.
            eventually(lambda: web.workers(new_master))
            web.stop()
            answers_before = outcomes["200"]
            eventually(lambda: outcomes["200"] > answers_before + 20)
            is_over.set()
        finally:
            os.kill(new_master, signal.SIGTERM)
    else:
        web.stop()
    for thread in threads:
        thread.join()
    outcomes.pop("503", None)  # too many requests at once
    outcomes.pop("closed while idle", None)
    assert set(outcomes) == {"200"}, outcomes


def test_preload_is_refused_in_one_line(mongod: Mongod, tmp_path: Path) -> None:
    """Catches workers that do not share their counters, because the app exists before the fork."""
    web = Web(mongod.uri, tmp_path, GUNICORN_CMD_ARGS="--preload")
    assert web.process.wait(timeout=PATIENCE_S) != 0
    log = web.log.read_text()
    assert any("--preload" in line and line.startswith("jobmon:") for line in log.splitlines())
    assert "Booting worker" not in log
    assert "Traceback" not in log
