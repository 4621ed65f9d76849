"""Measure what an answer costs at N jobs, compared with the original design.

    .venv/bin/python bench/scale.py --jobs 10000 1000000

For each N it fills a real MongoDB (96% succeeded, 8 types, 30 days), and lets a collector count the
jobs. Then it requests each answer at every N, in one process, by one client of gunicorn, and by 32
clients. It prints the sizes of the indexes, and a table of p50 in ms in one process and by HTTP,
and of answers a second to 32 clients. The ratio is p50 by HTTP at the last N to p50 at the first N.
"""

import argparse
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import original
from filling import FILTERS, SEARCH_FIELDS, fill, make_error
from flask.testing import FlaskClient

from jobmon.collector.milestone_writer import MIN_JOBS
from jobmon.demo.mongod import Mongod, free_port
from jobmon.diagnosis.error_kinds import classify_error
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import PROGRESS, rollup_database
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.store.cursor import NEWEST_FIRST
from jobmon.store.filter import JobFilter
from jobmon.store.indexes import BY_STATUS
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists
from jobmon.web.auth import issue_token

SECRET = "benchmarks are not secret, but the key has to be long enough"  # noqa: S105
CLIENTS = 32
# All indexes of a collection are built at once and share this memory; with less, they go to disk.
BUILD_MEMORY = ("--setParameter", "maxIndexBuildMemoryUsageMegabytes=4000")
DEEP = 450_000  # jobs before the deep pages, at most half of all jobs
ORIGINAL_UP_TO = 10_000_000  # jobs; with more, an answer of the original takes many seconds
STOPS_WITHIN_S = 60
# gunicorn's arguments for a service with jobmon's routes and the routes of the original design.
JOBMON = ("--config", "python:jobmon.serving.gunicorn_config", "original:create()")


@contextmanager
def serving(uri: str, app: tuple[str, ...] = JOBMON) -> Iterator[tuple[int, int]]:
    """Run gunicorn with these arguments; yields its port and process id."""
    port = free_port()
    environment = dict(os.environ) | {
        "JOBMON_MONGO_URI": uri,
        "JOBMON_JWT_SECRET_KEY": SECRET,
        "JOBMON_BIND": f"127.0.0.1:{port}",
        "JOBMON_QUERY_TIMEOUT_MS": "120000",
        "JOBMON_SEARCH_FIELDS": ",".join(SEARCH_FIELDS),
        "JOBMON_FILTERS": ",".join(FILTERS),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, "-m", "gunicorn", "--log-level", "warning"]
    command += ["--bind", environment["JOBMON_BIND"], *app]
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        while True:
            try:
                ask(port, "/healthz", "")
                break
            except OSError:
                if process.poll() is not None:
                    log.seek(0)
                    sys.exit(f"gunicorn did not start: {log.read()}")
                time.sleep(0.02)
        yield port, process.pid
    finally:
        end_process(process)


def end_process(process: subprocess.Popen[Any]) -> None:
    """End a process. If it has not ended after a minute, kill it and raise TimeoutExpired."""
    process.terminate()
    try:
        process.wait(STOPS_WITHIN_S)
    finally:
        process.kill()
        process.wait()


@contextmanager
def collecting(uri: str, **settings: str) -> Iterator[int]:
    """Run a collector with these settings; yields its process id."""
    environment = dict(os.environ) | {"JOBMON_MONGO_URI": uri, "JOBMON_JWT_SECRET_KEY": SECRET}
    environment |= settings
    command = [sys.executable, "-m", "jobmon.cli", "collector"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        end_process(process)


def find_family(pid: int) -> list[int]:
    """The process ids of a process and of its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def read_cpu_s(pid: int) -> float:
    """The CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def read_peak_mib(pids: list[int]) -> int:
    """The sum of the peak memory of these processes."""
    peaks = [Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1] for pid in pids]
    return sum(int(peak.split()[0]) for peak in peaks) // 1_024


class Client:
    """A minimal HTTP client, which keeps its connection open.

    The standard library's client needs more time for a request than the service. With `has_cache`,
    this client accepts compressed answers and sends the ETag of the last answer, as a browser does
    for a part of a page that updates itself.
    """

    def __init__(self, port: int, path: str, token: str, *, has_cache: bool = False) -> None:
        self._path, self._port = path, port
        self._has_cache = has_cache
        self._socket: socket.socket | None = None
        headers = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        if has_cache:
            headers += "Accept-Encoding: gzip, deflate, br\r\n"
        self._head = f"GET {path} HTTP/1.1\r\n{headers}".encode()
        self._request = self._head + b"\r\n"

    def ask(self) -> int:
        """Send the request and read the whole answer; returns its status.

        Raises RuntimeError if the status is neither 200 nor, with `has_cache`, 304.
        """
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=600)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(self._request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive(self._socket)
        head = data[:end].lower()
        if self._has_cache and head.startswith(b"http/1.1 304 "):
            return 304
        if not head.startswith(b"http/1.1 200 "):
            raise RuntimeError(f"{self._path}: {data[:300]!r}")
        if self._has_cache:
            start = head.index(b"\r\netag: ") + 8
            tag = data[start : data.index(b"\r\n", start)]
            headers = b"X-Jobmon-Part: 1\r\nIf-None-Match: " + tag
            self._request = self._head + headers + b"\r\n\r\n"
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        missing_bytes = length - (len(data) - end - 4)
        while missing_bytes > 0:
            missing_bytes -= len(self._receive(self._socket))
        return 200

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _receive(self, connection: socket.socket) -> bytes:
        received = connection.recv(1 << 16)
        if not received:
            raise RuntimeError(f"{self._path}: the service closed the connection")
        return received


def ask(port: int, path: str, token: str) -> None:
    """Send one request, on a new connection. Raises the errors of `Client.ask`."""
    client = Client(port, path, token)
    try:
        client.ask()
    finally:
        client.close()


def time_inside(client: FlaskClient, path: str, token: str) -> float:
    """The median time of an answer in ms in this process, without HTTP."""
    headers = {"Authorization": f"Bearer {token}"}

    def answer() -> None:
        if client.get(path, headers=headers).status_code != 200:
            raise RuntimeError(path)

    return time_p50(answer, 2)


def time_p50(answer: Callable[[], object], seconds: float) -> float:
    """The median time in ms of the answers during these seconds, and of at least three answers."""
    took_ms: list[float] = []
    end_at = time.monotonic() + seconds
    while len(took_ms) < 3 or time.monotonic() < end_at:
        started = time.perf_counter()
        answer()
        took_ms.append((time.perf_counter() - started) * 1_000)
    return statistics.median(took_ms)


def time_alone(port: int, path: str, token: str, seconds: float = 3) -> float:
    """The median time of an answer in ms for one client, by HTTP."""
    client = Client(port, path, token)
    took_ms = time_p50(client.ask, seconds)
    client.close()
    return took_ms


def measure_rate(
    port: int,
    path: str,
    token: str,
    seconds: float = 5,
    *,
    has_cache: bool = False,
    each_differs: bool = False,
) -> float:
    """Answers a second to 32 clients.

    With `each_differs` the clients send different requests, whose answers jobmon cannot share.
    """
    answers = 0
    lock = threading.Lock()
    started = time.monotonic()

    def work(index: int) -> None:
        nonlocal answers
        client_path = path
        if each_differs:  # services ignore a parameter that they do not know
            client_path = f"{path}{'&' if '?' in path else '?'}client={index}"
        client, count = Client(port, client_path, token, has_cache=has_cache), 0
        while time.monotonic() < started + seconds:
            client.ask()
            count += 1
        client.close()
        with lock:
            answers += count

    threads = [threading.Thread(target=work, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers / (time.monotonic() - started)


@dataclass(frozen=True)
class Cost:
    """p50 of an answer in ms without HTTP and by HTTP, and answers a second to 32 clients."""

    inside_ms: float
    alone_ms: float
    rate: float


def list_paths(connection: Connection, count: int) -> dict[str, str]:
    """The paths to request, by the name that the table has for the answer."""
    depth = min(DEEP, count // 2)
    lists = JobLists(ListPlanner(connection), Redactor())
    deep = lists.page(JobFilter(), page=depth // 20, per_page=20)
    cursor = deep.next_cursor.encode() if deep.next_cursor else ""
    # Nearly all waiting jobs are ahead of the newest queued job.
    (due,) = connection.jobs.find(
        {"status": "queued"}, ("jobId",), index=BY_STATUS, order=NEWEST_FIRST, limit=1
    )

    def format_start(days: int) -> str:
        return f"?from={datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"

    return {
        "stats": "/admin/jobs/stats",
        "first page": "/admin/jobs/queue",
        "by status and type": "/admin/jobs/queue?status=succeeded&type=type-1",
        "by rare status": "/admin/jobs/queue?status=dlq",
        "by type": "/admin/jobs/queue?type=type-3",
        "450,000 deep by cursor": f"/admin/jobs/queue?cursor={cursor}",
        "half way by number": f"/admin/jobs/queue?page={count // 40}",
        "the last page": f"/admin/jobs/queue?page={-(-count // 20)}",
        "one owner's jobs": "/jobs",
        "time series, an hour": "/admin/jobs/timeseries",
        "time series, a day": f"/admin/jobs/timeseries{format_start(1)}",
        "time series, a month": f"/admin/jobs/timeseries{format_start(30)}",
        "types, a day": f"/admin/jobs/types{format_start(1)}",
        "errors, an hour": "/admin/jobs/errors",
        "errors, a day": f"/admin/jobs/errors{format_start(1)}",
        "workers": "/admin/jobs/workers",
        "slowest attempts": "/admin/jobs/slowest",
        "by due time": "/admin/jobs/queue?condition=due&sort=nextRunAt",
        "schedule": "/admin/jobs/schedule",
        "recurring": "/admin/jobs/recurring",
        "jobs of a worker": "/admin/jobs/queue?worker=worker-1",
        "search, one job": f"/admin/jobs/queue?payload.reference=order/{count // 2}",
        "search, one in 1,000": "/admin/jobs/queue?payload.amount=7",
        "search, by prefix and status": (
            f"/admin/jobs/queue?payload.reference=order/{count // 2}*&status=succeeded&status=dlq"
        ),
        **list_filters(),
        "a job": f"/jobs/{count // 2:032x}",
        "a due job": f"/jobs/{due['jobId']}",
        "original: stats": "/original/stats",
        "original: first page": "/original/queue",
        "original: by status and type": "/original/queue?status=succeeded&type=type-1",
        "original: 450,000 deep": f"/original/queue?page={depth // 20 + 1}",
    }


def list_filters() -> dict[str, str]:
    """The paths of lists with further filters and orders, by the names in the table."""
    now, queue = datetime.now(UTC), "/admin/jobs/queue"

    def format_time(name: str, hours: float) -> str:
        return f"{name}={now + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"

    error = make_error(random.Random(1))  # noqa: S311
    group = classify_error(error | {"code": "E_1"}).id
    day = f"{format_time('finished_from', -24)}&{format_time('finished_to', 0)}"
    return {
        "finished in a day": f"{queue}?{day}",
        "finished in a day, a type": f"{queue}?{day}&type=type-1",
        "finished in a day, a type, a code": f"{queue}?{day}&type=type-1&error_code=E_1",
        "an error code": f"{queue}?error_code=E_1",
        "a group of errors": f"{queue}?error_group={group}",
        "scheduled": f"{queue}?condition=scheduled&sort=nextRunAt",
        "due in a day": f"{queue}?{format_time('due_from', 0)}&{format_time('due_to', 24)}",
        "three attempts and more": f"{queue}?min_attempts=3",
        "a priority": f"{queue}?priority=9",
        "types by their beginning": f"{queue}?type=type-*&status=succeeded",
        "last finished": f"{queue}?status=succeeded&sort=-finishedAt",
        "longest runs": f"{queue}?sort=-duration",
    }


@dataclass(frozen=True)
class Target:
    """A service that watches `count` jobs; `paths` are its paths to request, by name."""

    count: int
    client: FlaskClient
    port: int
    paths: dict[str, str]
    token: str

    def measure(self, name: str) -> Cost | None:
        """The cost of an answer; None if it would take minutes."""
        if name.startswith("original: ") and self.count > ORIGINAL_UP_TO:
            return None
        path = self.paths[name]
        return Cost(
            time_inside(self.client, path, self.token),
            time_alone(self.port, path, self.token),
            measure_rate(self.port, path, self.token),
        )


@contextmanager
def watching(count: int, folder: Path) -> Iterator[Target]:
    """Fill a server with `count` jobs, and run a collector and the service."""
    with Mongod(folder / str(count), cache_gb=8, options=BUILD_MEMORY) as server:
        uri = server.uri.replace("/?", "/jobmon?")
        print(f"{count:,} jobs: filled in {fill(uri, count):.0f} s", flush=True)
        settings = Settings(
            mongo_uri=uri,
            jwt_secret_key=SECRET,
            query_timeout_ms=120_000,
            log_level="ERROR",
            search_fields=SEARCH_FIELDS,
            filters=FILTERS,
        )
        connection = Connection(settings)
        print_sizes(connection)
        with collecting(uri) as collector_pid, serving(uri) as (port, web):
            await_built(connection, collector_pid)
            app = original.create(settings)
            with app.app_context():
                token = issue_token("user-7", "admin", timedelta(hours=9))
            yield Target(count, app.test_client(), port, list_paths(connection, count), token)
            app.extensions["jobmon_connection"].client.close()
            print(
                f"{count:,} jobs, memory: collector {read_peak_mib([collector_pid])} MiB, "
                f"web with two workers {read_peak_mib(find_family(web))} MiB",
                flush=True,
            )
        connection.client.close()


def print_sizes(connection: Connection) -> None:
    """Print the sizes on disk of the watched collections, and of each of their indexes."""
    assert connection.attempts is not None  # noqa: S101
    for collection in (connection.jobs.collection, connection.attempts.collection):
        (stats,) = collection.aggregate([{"$collStats": {"storageStats": {}}}])
        storage = stats["storageStats"]
        print(
            f"{collection.name}: {storage['avgObjSize']} bytes a document, "
            f"{storage['storageSize'] >> 20:,} MiB on disk; indexes "
            f"{storage['totalIndexSize'] >> 20:,} MiB",
            flush=True,
        )
        for name, size in storage["indexSizes"].items():
            print(f"  {name}: {size >> 20:,} MiB", flush=True)


def await_built(connection: Connection, collector_pid: int) -> None:
    """Wait for the first count of jobs, history and milestones; print time and CPU of each."""
    reader, started = RollupReader(connection), time.monotonic()
    state = rollup_database(connection).state

    def wait(name: str, condition: Callable[[], object]) -> None:
        while not condition():
            time.sleep(0.1)
        took_s = time.monotonic() - started
        print(f"{name}: {took_s:.1f} s, {read_cpu_s(collector_pid):.1f} s CPU", flush=True)

    wait("first count", reader.stats)
    wait("history", lambda: "completeUntil" in (state.find_one({"name": PROGRESS}) or {}))
    if connection.jobs.estimated_count() >= MIN_JOBS:
        wait("milestones", lambda: (stats := reader.stats()) and stats.milestones)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    sizes = parser.parse_args().jobs
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the started processes
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with ExitStack() as stack:
            targets = [stack.enter_context(watching(count, folder)) for count in sizes]
            costs = {name: measure(name, targets) for name in targets[0].paths}
    print(f"load of the last 15 minutes: {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores")
    print("| | " + " | ".join(f"{count:,} jobs" for count in sizes) + " | ratio |")
    print("| --- |" + " --- |" * (len(sizes) + 1))
    for name, row in costs.items():
        first, last = row[0], row[-1]
        ratio = f"{last.alone_ms / first.alone_ms:.2f}" if first and last else ""
        print(f"| {name} | " + " | ".join(map(format_cell, row)) + f" | {ratio} |")
    pairs = zip(costs["stats"], costs["original: stats"], strict=True)
    for count, (jobmon_cost, original_cost) in zip(sizes, pairs, strict=True):
        if jobmon_cost and original_cost:
            ratio = f"{jobmon_cost.rate / original_cost.rate:.0f}"
            print(f"stats at {count:,} jobs, 32 clients: {ratio} times the original's rate")


def measure(name: str, targets: list[Target]) -> list[Cost | None]:
    """Measure an answer of all targets directly one after another, so that the load is similar."""
    costs = [target.measure(name) for target in targets]
    print(f"  {name}: {' | '.join(map(format_cell, costs))}", flush=True)
    return costs


def format_cell(cost: Cost | None) -> str:
    return f"{cost.inside_ms:.2f} / {cost.alone_ms:.2f} ms, {cost.rate:,.1f}/s" if cost else ""


if __name__ == "__main__":
    main()
