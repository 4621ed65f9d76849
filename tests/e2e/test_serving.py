"""gunicorn with several workers and threads over the real server: catches a client shared
across a fork, an answer lost under load, and a stop that cuts requests off."""

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
REQUESTS = 4  # of each client, one of each route
ROUTES = ("/admin/jobs/stats", "/admin/jobs/queue", "/jobs", "/readyz")


@pytest.fixture
def web(mongod: Mongod, database: Database[dict[str, Any]], tmp_path: Path) -> Iterator[Web]:
    """Two workers over 200 jobs of three owners."""
    database.jobs.insert_many(
        {"jobId": str(number), "status": "queued", "createdBy": f"user-{number % 3}"}
        for number in range(200)
    )
    with serving(database_uri(mongod, database), tmp_path, JOBMON_WORKERS="2") as web:
        yield web


def test_fifty_clients_get_right_answers_only(web: Web, real_api: Api) -> None:
    token = real_api.token()
    answers: Counter[object] = Counter()

    def status(path: str) -> int | None:
        """The status, or None if the service had too many requests at once (503)."""
        return None if (code := web.get(path, token)) == 503 else code

    def ask(client: int) -> None:
        for number in range(REQUESTS):
            path = ROUTES[(client + number) % len(ROUTES)]
            try:
                answers[eventually(lambda path=path: status(path))] += 1  # type: ignore[misc]
            except OSError as error:
                answers[repr(error)] += 1

    clients = [threading.Thread(target=ask, args=[number]) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert dict(answers) == {200: CLIENTS * REQUESTS}
    log = web.stop()
    assert "opened before fork" not in log
    assert "unreachable" not in log
    assert "Traceback" not in log


def test_sigterm_lets_a_running_request_finish(
    web: Web, real_api: Api, database: Database[dict[str, Any]]
) -> None:
    token, answers = real_api.token(), []
    slow = {"failCommands": ["aggregate"], "namespace": f"{database.name}.jobs"}
    slow |= {"blockConnection": True, "blockTimeMS": 200}  # each of a dozen queries
    admin = database.client.admin
    entered = admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=slow)
    try:
        request = threading.Thread(
            target=lambda: answers.append(web.get("/admin/jobs/stats", token))
        )
        request.start()
        admin.command(
            "waitForFailPoint",
            "failCommand",
            timesEntered=entered["count"] + 1,
            maxTimeMS=1_000 * PATIENCE_S,
        )
        log = web.stop()
        request.join()
    finally:
        admin.command("configureFailPoint", "failCommand", mode="off")
    assert answers == [200]
    assert web.process.returncode == 0
    assert "Shutting down: Master" in log


def get_by_http_1_0(web: Web, path: str, headers: dict[str, str]) -> list[bytes]:
    """The lines of a body for an HTTP/1.0 proxy: the body ends when the connection is closed."""
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
    database.jobs.create_index(NEWEST_FIRST)  # without it, each query is tried twice
    database.jobs.insert_many({"jobId": f"more-{number}"} for number in range(1_500))
    admin = {"Authorization": f"Bearer {api.token('root', 'admin')}"}
    path = "/admin/jobs/queue?format=ndjson"
    # The first batch is one query; the first query of the second one fails.
    fault = {"failCommands": ["find"], "errorCode": 50, "appName": "jobmon"}
    fault |= {"namespace": f"{database.name}.jobs"}
    connection = HTTPConnection("127.0.0.1", web.port, timeout=PATIENCE_S)
    fail = partial(database.client.admin.command, "configureFailPoint", "failCommand")
    fail(mode={"skip": 1}, data=fault)
    try:
        connection.request("GET", path, headers=admin)
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises((IncompleteRead, ConnectionResetError)):
            answer.read()
        fail(mode={"skip": 1}, data=fault)
        lines = get_by_http_1_0(web, path, admin)
        assert len(lines) == 500
        assert "end" not in json.loads(lines[-1])
    finally:
        fail(mode="off")
        connection.close()
    *jobs, end = map(json.loads, get_by_http_1_0(web, path, admin))
    assert end == {"end": True, "rows": len(jobs)} == {"end": True, "rows": 1_700}
    log = web.stop()
    assert log.count("export aborted") == 2
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "stop",
    [signal.SIGTERM, signal.SIGHUP, pytest.param(signal.SIGUSR2, marks=pytest.mark.long)],
)
def test_stopping_under_load_breaks_no_connection(
    web: Web, real_api: Api, stop: signal.Signals
) -> None:
    """Catches a stop or reload that resets a connected client."""
    headers = {"Authorization": f"Bearer {real_api.token()}"}
    outcomes: Counter[str] = Counter()
    is_over = threading.Event()

    def ask(number: int) -> None:
        keeps_alive = number % 4 == 0
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
                # The connection was closed regularly; a reset raises ConnectionResetError.
                outcomes["closed while idle" if keeps_alive else repr(error)] += 1
                connection.close()
            except (OSError, HTTPException) as error:
                outcomes[repr(error)] += 1
                connection.close()
            if not keeps_alive:
                connection.close()
        connection.close()

    clients = [threading.Thread(target=ask, args=[number]) for number in range(8)]
    for client in clients:
        client.start()
    eventually(lambda: outcomes["200"] > 40)
    if stop is signal.SIGHUP:
        before = web.workers()
        web.process.send_signal(stop)
        eventually(lambda: before.isdisjoint(web.workers()))
        is_over.set()
    elif stop is signal.SIGUSR2:
        before = web.workers()
        web.process.send_signal(stop)
        (master,) = eventually(lambda: web.workers() - before)
        try:
            # Its first worker runs. Connections wait in the kernel until the worker accepts them.
            eventually(lambda: web.workers(master))
            web.stop()
            answered = outcomes["200"]
            eventually(lambda: outcomes["200"] > answered + 20)
            is_over.set()
        finally:
            os.kill(master, signal.SIGTERM)
    else:
        web.stop()
    for client in clients:
        client.join()
    outcomes.pop("503", None)  # too many requests at once
    outcomes.pop("closed while idle", None)
    assert set(outcomes) == {"200"}, outcomes


def test_preload_is_refused_in_one_line(mongod: Mongod, tmp_path: Path) -> None:
    """Catches workers that count for themselves because the app was created before the fork."""
    web = Web(mongod.uri, tmp_path, GUNICORN_CMD_ARGS="--preload")
    assert web.process.wait(timeout=PATIENCE_S) != 0
    log = web.log.read_text()
    assert any("--preload" in line and line.startswith("jobmon:") for line in log.splitlines())
    assert "Booting worker" not in log
    assert "Traceback" not in log
