"""Connect clients that hold resources: half-sent requests, unread answers, idle connections.

    .venv/bin/python -m bench.slow_clients
    .venv/bin/python -m bench.slow_clients --worker-class gthread    # gunicorn's own worker

Starts a database and the service (two workers, eight threads each). While slow clients of one kind
are connected, normal clients send requests. Prints the answers to normal clients by route, as
Markdown. Exits with 1 if an answer to a normal client was not a 200.
"""

import argparse
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from pymongo import MongoClient

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection, Document
from jobmon.web.auth import issue_token
from tests.conftest import SECRET
from tests.support.certificates import Authority
from tests.support.processes import child_processes, end_process
from tests.support.services import Web
from tests.support.waiting import eventually

JOBS = 30_000
LARGE_JOB = "large"
MAX_CLIENTS = 1_600
REQUEST_EVERY_S = 0.05
TIMEOUT_S = 10
PROBED = {
    "/healthz": "/healthz",
    "stats": "/admin/jobs/stats",
    "a list": "/admin/jobs/queue",
    "an export": "/admin/jobs/queue?format=csv&job_id=job-2999",
}

FORM = (
    b"POST /dashboard/session HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n"
)
SIZED = FORM + b"Content-Length: 1000\r\n\r\n"
CHUNKED = FORM + b"Transfer-Encoding: chunked\r\n\r\n"
HALF_HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Half: "


@dataclass
class SlowClients:
    """A number of slow clients of one kind. Each sends `opening`, and then `drip` every second."""

    name: str
    clients: int
    opening: bytes
    drip: bytes = b""
    by_tls: bool = False
    reads_nothing: bool = False


@dataclass
class Probe:
    """The answers to normal clients, by route: statuses, and times in seconds."""

    answers: dict[str, Counter[str]] = field(default_factory=dict)
    took_s: dict[str, list[float]] = field(default_factory=dict)

    def format_row(self, path: str) -> str:
        """Answers by status, their median time, and the longest time, as text."""
        took_s = sorted(self.took_s[path])
        answers = ", ".join(
            f"{count}× {status}" for status, count in sorted(self.answers[path].items())
        )
        return f"{answers}; {took_s[len(took_s) // 2] * 1_000:.0f} ms, {took_s[-1]:.1f} s"

    @property
    def is_fine(self) -> bool:
        """Whether every answer was a 200."""
        return all(set(answers) == {"200"} for answers in self.answers.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15, help="for each kind of client")
    parser.add_argument("--worker-class", help="instead of jobmon's own")
    parser.add_argument("--only", help="kinds whose name contains this")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the started processes
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with Mongod(folder, cache_gb=1) as server:
            uri = server.uri.replace("/?", "/jobmon?")
            fill(uri)
            return measure(uri, folder, arguments)


def fill(uri: str) -> None:
    """Insert jobs of alice; one of them has a payload of 7 MB."""
    now = datetime.now(UTC)
    with MongoClient[Document](uri) as client:
        jobs = client.get_default_database().jobs
        for start in range(0, JOBS, 1_000):
            jobs.insert_many(
                {
                    "jobId": f"job-{number}",
                    "type": "email.send",
                    "status": "succeeded",
                    "createdBy": "alice",
                    "createdAt": now - timedelta(seconds=number),
                }
                for number in range(start, start + 1_000)
            )
        payload = {"items": [{"n": index, "text": "x" * 40} for index in range(100_000)]}
        jobs.insert_one({"jobId": LARGE_JOB, "createdBy": "alice", "payload": payload})
    connection = Connection(Settings(mongo_uri=uri, jwt_secret_key=SECRET))
    create_indexes(connection)
    connection.client.close()


def list_slow_clients(token: str) -> tuple[SlowClients, ...]:
    """The kinds of slow clients; the clients of the last two kinds send the token."""

    def get(path: str) -> bytes:
        lines = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        return lines.encode()

    bundle = (
        b"GET /dashboard/static/vendor/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    return (
        SlowClients("none", 0, b""),
        SlowClients("16 half-sent forms", 16, SIZED + b"x"),
        SlowClients("170 half-sent headers", 170, HALF_HEAD),
        SlowClients("1,600 half-sent headers", 1_600, HALF_HEAD),
        SlowClients("400 forms, a byte a second each", 400, SIZED, b"x"),
        SlowClients("400 chunked forms, a byte a second each", 400, CHUNKED, b"1\r\nx\r\n"),
        SlowClients("1,000 idle connections", 1_000, b""),
        SlowClients("170 unread files of 1.7 MB", 170, bundle, reads_nothing=True),
        SlowClients("200 half TLS handshakes", 200, b"\x16\x03\x01\x02\x00\x01", by_tls=True),
        SlowClients(
            "20 unread exports of one owner", 20, get("/jobs?format=ndjson"), reads_nothing=True
        ),
        SlowClients("8 unread details of 7 MB", 8, get(f"/jobs/{LARGE_JOB}"), reads_nothing=True),
    )


def measure(uri: str, folder: Path, arguments: argparse.Namespace) -> int:
    """Print a row for each kind of client; returns 1 if an answer was not a 200."""
    app = create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET, log_level="ERROR"))
    with app.app_context():
        admin = issue_token("root", "admin", timedelta(hours=1))
        owner = issue_token("alice", "user", timedelta(hours=1))
    options = f"--worker-class {arguments.worker_class} " if arguments.worker_class else ""
    certificate = Authority("bench", folder).issue("server")[0]
    failed_kinds = 0
    print(
        f"| slow clients | {' | '.join(PROBED)} | memory |\n| --- {'| --- ' * (len(PROBED) + 1)}|"
    )
    for slow in list_slow_clients(owner):
        if arguments.only and arguments.only not in slow.name:
            continue
        tls = f"--certfile {certificate} --keyfile {certificate}" if slow.by_tls else ""
        with served(uri, folder, options + tls, by_tls=slow.by_tls) as web:
            probe = Probe()
            with holding(web.port, slow):
                until = time.monotonic() + arguments.seconds
                send_requests(web.port, admin, until, probe, by_tls=slow.by_tls)
            columns = [probe.format_row(path) for path in PROBED.values()]
            print(
                f"| {slow.name} | {' | '.join(columns)} | {read_peak_mib(web):,.0f} MiB |",
                flush=True,
            )
            failed_kinds += not probe.is_fine
    return 1 if failed_kinds else 0


@contextmanager
def served(uri: str, folder: Path, options: str, *, by_tls: bool) -> Iterator[Web]:
    """Run the service with these options of gunicorn; the block starts when it is ready."""
    web = Web(
        uri,
        folder,
        JOBMON_WORKERS="2",
        JOBMON_THREADS="8",
        GUNICORN_CMD_ARGS=options,
        MALLOC_ARENA_MAX="2",
    )
    try:
        eventually(lambda: fetch_status(web.port, "/readyz", "", by_tls=by_tls) == "200")
        yield web
    finally:
        end_process(web.process, within_s=40)


@contextmanager
def holding(port: int, slow: SlowClients) -> Iterator[None]:
    """Keep slow clients connected while the block runs; reconnect those that the service closes."""
    sockets: list[socket.socket] = []
    is_over = threading.Event()

    def connect() -> socket.socket:
        client = socket.socket()
        if slow.reads_nothing:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(TIMEOUT_S)
        client.connect(("127.0.0.1", port))
        client.sendall(slow.opening)
        client.setblocking(False)
        return client

    def is_closed(client: socket.socket) -> bool:
        try:
            if slow.drip:
                client.send(slow.drip)
            return not slow.reads_nothing and not client.recv(4_096)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def keep_connected() -> None:
        while not is_over.wait(1.0 if sockets else 0):
            for client in [client for client in sockets if is_closed(client)]:
                sockets.remove(client)
                client.close()
            while len(sockets) < min(slow.clients, MAX_CLIENTS) and not is_over.is_set():
                try:
                    sockets.append(connect())
                except OSError:
                    break

    thread = threading.Thread(target=keep_connected)
    thread.start()
    if slow.clients:
        eventually(lambda: len(sockets) >= slow.clients * 0.9 or is_over.wait(0.1))
    yield
    is_over.set()
    thread.join()
    for client in sockets:
        client.close()


def send_requests(port: int, token: str, until: float, probe: Probe, *, by_tls: bool) -> None:
    """Send requests to each route until the monotonic time `until`, each on a new connection."""

    def repeat(path: str) -> None:
        answers, took_s = probe.answers[path], probe.took_s[path]
        while time.monotonic() < until:
            began = time.monotonic()
            answers[fetch_status(port, path, token, by_tls=by_tls)] += 1
            took_s.append(time.monotonic() - began)
            time.sleep(REQUEST_EVERY_S)

    threads = []
    for path in PROBED.values():
        probe.answers[path], probe.took_s[path] = Counter(), []
        threads.append(threading.Thread(target=repeat, args=[path]))
        threads[-1].start()
    for thread in threads:
        thread.join()


def fetch_status(port: int, path: str, token: str, *, by_tls: bool) -> str:
    """The status of an answer, or the name of the exception if there is none."""
    context = ssl._create_unverified_context()  # noqa: S323 - our own server, on this machine
    connection = (
        HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)
        if by_tls
        else HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    )
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (OSError, HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def read_peak_mib(web: Web) -> float:
    """The sum of the workers' peak memory."""
    total = 0
    for pid in child_processes(web.process.pid):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                total += int(line.split()[1])
    return total / 1_024


if __name__ == "__main__":
    sys.exit(main())
