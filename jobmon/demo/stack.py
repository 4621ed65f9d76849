"""Starts a database, a sample workload and the web service on one machine: `jobmon demo`."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod, MongodUnavailableError, die_with_parent
from jobmon.demo.workload import OWNER
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from jobmon.web.auth import issue_token

HOST = "127.0.0.1"
TOKEN_LIFETIME = timedelta(days=1)
_START_TIMEOUT_S = 30
_FIRST_JOB_TIMEOUT_S = 20  # usually one second is enough
_POLL_EVERY_S = 0.1
# A setting whose name begins with one of these sets the key for tokens.
_KEY_SETTINGS = ("JOBMON_JWT_SECRET_KEY", "JOBMON_JWT_PUBLIC_KEY", "JOBMON_JWT_JWKS_URL")
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# For the processes, and then for the database: at most two seconds together.
_STOP_TIMEOUT_S = 0.9


class StackError(Exception):
    """The stack cannot start, or ended. The message is one line: the reason, and what to do."""


def run_stack(port: int, state_folder: Path) -> None:
    """Start everything, print how to use it, and serve until SIGINT, SIGTERM or SIGHUP.

    If the environment has `JOBMON_MONGO_URI` or `JOBMON_MONGO_URI_FILE`, only the web service runs,
    and nothing is written to the watched collections. `state_folder` keeps the sample database and
    the secret between runs. Raises StackError, and SettingsError for a bad setting.
    """
    is_stopped = False

    def stop(*_: object) -> None:
        nonlocal is_stopped
        is_stopped = True
        for stop_signal in _STOP_SIGNALS:  # a second signal must not interrupt the cleanup
            signal.signal(stop_signal, signal.SIG_IGN)
        raise KeyboardInterrupt  # interrupts any wait

    for stop_signal in _STOP_SIGNALS:
        signal.signal(stop_signal, stop)
    with suppress(KeyboardInterrupt), ExitStack() as cleanup:
        web = _start(port, state_folder, cleanup)
        while not is_stopped:  # Python ignores an exception that `stop` raises in a `__del__`
            time.sleep(_POLL_EVERY_S)
            if web.poll() is not None:
                raise StackError("The web service ended: see its last lines above.")


def _start(port: int, state_folder: Path, cleanup: ExitStack) -> subprocess.Popen[bytes]:
    """Start everything and return the web service's process; `cleanup` ends all processes."""
    _require_free_port(port)
    state_folder.mkdir(parents=True, exist_ok=True)
    os.environ["JOBMON_BIND"] = f"{HOST}:{port}"
    # An open page sends a request every second: log lines would hide the links printed here.
    os.environ.setdefault("JOBMON_LOG_LEVEL", "WARNING")
    if not any(name.startswith(_KEY_SETTINGS) for name in os.environ):
        os.environ["JOBMON_JWT_SECRET_KEY"] = _load_secret(state_folder / "jwt-secret")
    has_sample = not {"JOBMON_MONGO_URI", "JOBMON_MONGO_URI_FILE"} & set(os.environ)
    if has_sample:
        os.environ.setdefault("JOBMON_COLLECTOR", "true")
        os.environ["JOBMON_MONGO_URI"] = cleanup.enter_context(_sample_database(state_folder))
    settings = Settings.from_env()
    start = cleanup.enter_context(_child_processes())
    web = start(
        ["gunicorn", "--config", "python:jobmon.serving.gunicorn_config", "jobmon.app:create_app()"]
    )
    _await_healthy(port, web)
    if has_sample:
        os.environ["JOBMON_WORKLOAD_MONGO_URI"] = settings.mongo_uri
        start(["jobmon.cli", "workload"])
    _print_how_to_use(port, settings, has_sample=has_sample)
    return web


def _require_free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise StackError(
                f"Port {port} is in use: try `jobmon demo --port {port + 1}`, "
                f"or in a checkout `make run PORT={port + 1}`."
            ) from None


def _load_secret(path: Path) -> str:
    """A random secret; the file `path` keeps it, so that tokens stay valid after a restart."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(48))
    return path.read_text()


@contextmanager
def _sample_database(state_folder: Path) -> Iterator[str]:
    """Run the sample database, with its indexes; yields its connection string."""
    try:
        mongod = Mongod(state_folder / "mongodb").start()
    except MongodUnavailableError as error:
        raise StackError(
            f"{error}. To see your own queue instead, which jobmon only reads: "
            "`JOBMON_MONGO_URI=mongodb://… jobmon demo`."
        ) from None
    try:
        uri = mongod.uri.replace("/?", "/jobmon?")
        connection = Connection(Settings(mongo_uri=uri))
        create_indexes(connection, unique=True)
        connection.client.close()
        yield uri
    finally:
        mongod.stop(_STOP_TIMEOUT_S)


@contextmanager
def _child_processes() -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    """Yield a function that starts `python -m` with arguments; on exit, end all its processes."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(arguments: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - safe: it only calls prctl
        )
        processes.append(process)
        return process

    try:
        yield start
    finally:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for process in processes:
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await_healthy(port: int, web: subprocess.Popen[bytes]) -> None:
    """Wait until the web service answers; raises StackError after 30 seconds, or if it ended."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while _get_json(port, "/healthz") is None:
        if web.poll() is not None or time.monotonic() > deadline:
            raise StackError("The web service did not start: see its last lines above.")
        time.sleep(_POLL_EVERY_S)


def _await_first_job(port: int, token: str) -> str | None:
    """The jobId of the newest job of the token's owner; None if no job comes within 20 seconds."""
    deadline = time.monotonic() + _FIRST_JOB_TIMEOUT_S
    while time.monotonic() < deadline:
        jobs = _get_json(port, "/jobs?per_page=1", token)
        if jobs and jobs["data"]:
            return str(jobs["data"][0]["jobId"])
        time.sleep(_POLL_EVERY_S)
    return None


def _get_json(port: int, path: str, token: str = "") -> Any:
    """The JSON of an answer with status 200; None for any other answer and without an answer."""
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        return json.load(response) if response.status == HTTPStatus.OK else None
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def _print_how_to_use(port: int, settings: Settings, *, has_sample: bool) -> None:
    url = f"http://{HOST}:{port}{settings.path_prefix or ''}"
    database = "the sample workload" if has_sample else "your database"
    lines = [f"\njobmon serves {database} at {url}\n"]
    if settings.jwt_secret_key is None:
        lines.append("Tokens come from your identity provider.")
    else:
        with create_app(settings).app_context():
            admin = issue_token("root", "admin", TOKEN_LIFETIME)
            owner = issue_token(OWNER, "user", TOKEN_LIFETIME)
        job_id = _await_first_job(port, owner) if has_sample else None
        link = f"{url}/dashboard/sign-in#access_token="
        lines += [f"The pages, as an admin:\n{link}{admin}\n"]
        lines += [f"The pages, as an owner, {OWNER}:\n{link}{owner}\n"]
        lines += [f"An admin's token:\n{admin}\n", f"The token of an owner, {OWNER}:\n{owner}\n"]
        for title, token, path in (
            ("Queue statistics", admin, "/admin/jobs/stats"),
            ("The newest dead letters", admin, "/admin/jobs/queue?status=dlq&per_page=3"),
            (f"{OWNER}'s own jobs", owner, "/jobs?per_page=3"),
            (f"One job of {OWNER}, with its attempts", owner, f"/jobs/{job_id or 'JOB-ID'}"),
            (f"{OWNER} is not allowed to see this", owner, "/admin/jobs/stats"),
        ):
            command = f"curl -s -H 'Authorization: Bearer {token}' '{url}{path}'"
            lines.append(f"# {title}\n{command} | python3 -m json.tool")
    lines.append("\nPress Ctrl-C to stop.")
    print("\n".join(lines), flush=True)  # noqa: T201
