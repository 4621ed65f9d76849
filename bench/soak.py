"""Send half of full load for a long time, to find leaks; then twice full load, to count refusals.

    .venv/bin/python -m bench.soak --minutes 30

Prints memory, descriptors, connections and latencies every minute, then their slopes after the
warm-up, and the answers at twice full load. Exits with 1 if an answer at half of full load was
wrong, or if a worker was replaced.
"""

import argparse
import multiprocessing
import multiprocessing.queues
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from tests.support.faults import (
    TYPES,
    Answer,
    Viewers,
    Writers,
    admin_token,
    run_collector,
)
from tests.support.processes import child_processes
from tests.support.services import Web
from tests.support.waiting import eventually

GENERATORS = 2
PATHS = (
    "/admin/jobs/stats",
    "/admin/jobs/queue",
    "/admin/jobs/queue?status=dlq",
    "/admin/jobs/timeseries",
    "/admin/jobs/types",
    "/jobs",
    "/dashboard/overview",
)
WARM_UP = 1 / 3  # the share of the time that is not used for slopes
ANSWERS_WITHIN_S = 120


@dataclass
class Load:
    """Answers by code, and the latencies of answers with 200, in ms."""

    codes: Counter[str]
    took_ms: list[float]

    def percentile(self, percent: int) -> float:
        """A latency in ms; 0 without answers."""
        took_ms = sorted(self.took_ms)
        return took_ms[len(took_ms) * percent // 100] if took_ms else 0.0


def send_requests(
    port: int, token: str, rate: float, seconds: float, clients: int, *, results: Any
) -> None:
    """Send `rate` requests a second, or fewer if all clients wait; with 0 as many as possible.

    Puts the number of answers by code, and the latencies in ms of answers with 200, into `results`.
    """
    lock, codes, took_ms = threading.Lock(), Counter[str](), list[float]()
    began = time.monotonic()

    def ask(first_index: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Authorization": f"Bearer {token}"}
        index = first_index
        while True:
            due_at = began + index / rate if rate else time.monotonic()
            if due_at > began + seconds:
                break
            time.sleep(max(0.0, due_at - time.monotonic()))
            sent_at = time.perf_counter()
            try:
                path = PATHS[index % len(PATHS)]
                # Pages, too, accept the token in this header.
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                response.read()
                code = str(response.status)
            except (OSError, HTTPException) as error:
                connection.close()
                code = type(error).__name__
            latency_ms = (time.perf_counter() - sent_at) * 1_000
            with lock:
                codes[code] += 1
                if code == "200":
                    took_ms.append(latency_ms)
            index += clients
        connection.close()

    threads = [threading.Thread(target=ask, args=[index]) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((codes, took_ms))


def generate_load(port: int, token: str, rate: float, seconds: float, clients: int) -> Load:
    """Send `rate` requests a second from several processes; returns their answers."""
    results = multiprocessing.get_context("spawn").Queue()
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=send_requests,
            args=[port, token, rate / GENERATORS, seconds, clients // GENERATORS],
            kwargs={"results": results},
            daemon=True,
        )
        for _ in range(GENERATORS)
    ]
    for process in processes:
        process.start()
    parts = [results.get(timeout=seconds + ANSWERS_WITHIN_S) for _ in processes]
    for process in processes:
        process.join(ANSWERS_WITHIN_S)
    codes: Counter[str] = Counter()
    for part, _ in parts:
        codes.update(part)
    return Load(codes, [ms for _, took_ms in parts for ms in took_ms])


def read_memory_mib(pid: int) -> float:
    """The resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def count_threads(pid: int) -> int:
    """The number of threads of a process."""
    return len(os.listdir(f"/proc/{pid}/task"))


def count_descriptors(pid: int) -> int:
    """The number of open files and sockets of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def slope_an_hour(samples: list[tuple[float, float]]) -> float:
    """The growth in an hour by linear regression; `samples` are (seconds, value)."""
    if len(samples) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*samples, strict=True)).slope * 3_600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=50_000)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the started processes
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with ExitStack() as running:
            return soak(running, folder, arguments.minutes, arguments.jobs)


def soak(running: ExitStack, folder: Path, minutes: float, jobs: int) -> int:
    """Run everything and print the results; returns the exit code."""
    server = running.enter_context(Mongod(folder / "mongod"))
    uri, token = server.uri.replace("/?", "/jobmon?"), admin_token()
    connection = Connection(Settings(mongo_uri=uri))
    create_indexes(connection)
    fill(connection, jobs)
    connection.client.close()
    writers = Writers(uri, jobs_per_second=10)
    running.callback(writers.stop)
    restart = running.enter_context(run_collector(uri, folder / "collector.log"))
    collector_pid = restart().pid
    # MALLOC_ARENA_MAX as in `jobmon run` and in the image.
    environment = {"JOBMON_WORKERS": "2", "JOBMON_THREADS": "8", "MALLOC_ARENA_MAX": "2"}
    web = Web(uri, folder, **environment)
    running.callback(web.stop)
    writers.start()
    eventually(web.answers)
    eventually(lambda: Answer(web.port, "/admin/jobs/stats", token).json["source"] == "rollup")
    generate_load(web.port, token, 0, 5, 16)  # warms caches
    full = generate_load(web.port, token, 0, 20, 32)
    rate = full.codes.total() / 20
    print(f"full load: {rate:.0f} answers a second to 32 clients, {dict(full.codes)}", flush=True)
    mongo = running.enter_context(MongoClient[dict[str, Any]](server.uri))

    def count_connections() -> int:
        current: int = mongo.admin.command("serverStatus")["connections"]["current"]
        return current

    is_right = hold_half_load(
        web, collector_pid, count_connections, writers, rate=rate / 2, minutes=minutes
    )
    overload(web.port, token, rate * 2)
    workers = child_processes(web.process.pid)
    total_mib = sum(map(read_memory_mib, workers))
    thread_count = sum(map(count_threads, workers))
    print(f"after that: web {total_mib:.1f} MiB, {thread_count} threads", flush=True)
    return 0 if is_right else 1


def fill(connection: Connection, jobs: int) -> None:
    """Insert jobs and attempts of the last two hours: new jobs then hardly make answers larger."""
    now, run, wait = datetime.now(UTC), timedelta(seconds=2), timedelta(seconds=9)
    finished: list[dict[str, Any]] = []
    attempts: list[dict[str, Any]] = []
    for number in range(jobs):
        end = now - timedelta(seconds=7_200 * number / jobs)
        fields = {"jobId": f"old-{number}", "type": TYPES[number % len(TYPES)]}
        fields |= {"status": "succeeded", "finishedAt": end}
        created = {"createdBy": "root", "createdAt": end - run - wait, "attemptCount": 1}
        started = {"attemptNumber": 1, "eligibleAt": end - run - wait, "startedAt": end - run}
        finished.append(fields | created)
        attempts.append(fields | started)
    connection.database.jobs.insert_many(finished)
    connection.database.job_attempts.insert_many(attempts)


def hold_half_load(
    web: Web,
    collector_pid: int,
    count_connections: Callable[[], int],
    writers: Writers,
    *,
    rate: float,
    minutes: float,
) -> bool:
    """Send half of full load; returns False if an answer was wrong or a worker was replaced.

    A 503 is a refusal, not a wrong answer.
    """
    token = admin_token()
    workers = child_processes(web.process.pid)
    series: dict[str, list[tuple[float, float]]] = {}
    began, is_right, refused = time.monotonic(), True, 0
    with Viewers(web.port, token, writers, count=1) as viewers:
        while (elapsed_s := time.monotonic() - began) < minutes * 60:
            load = generate_load(web.port, token, rate, min(60, minutes * 60 - elapsed_s), 32)
            elapsed_s = time.monotonic() - began
            values = {
                "web MiB": sum(read_memory_mib(pid) for pid in workers),
                "collector MiB": read_memory_mib(collector_pid),
                "web threads": sum(count_threads(pid) for pid in workers),
                "web descriptors": sum(count_descriptors(pid) for pid in workers),
                "collector descriptors": count_descriptors(collector_pid),
                "connections": count_connections(),
                "p50 ms": load.percentile(50),
                "p99 ms": load.percentile(99),
            }
            for name, value in values.items():
                series.setdefault(name, []).append((elapsed_s, value))
            line = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
            print(f"{elapsed_s / 60:5.1f} min: {load.codes.total()} answers, {line}", flush=True)
            other_codes = {code: count for code, count in load.codes.items() if code != "200"}
            if other_codes:
                print(f"    {other_codes}", flush=True)
            refused += other_codes.pop("503", 0)
            is_right = is_right and not other_codes
        answers, _, wrong_answers = viewers.take_results()
    is_right = is_right and not wrong_answers and child_processes(web.process.pid) == workers
    wrong = wrong_answers[:3]
    print(f"checked meanwhile: {dict(answers)}, wrong: {wrong}; refused: {refused}", flush=True)
    for name, samples in series.items():
        warm_samples = [sample for sample in samples if sample[0] > samples[-1][0] * WARM_UP]
        series_values = [value for _, value in warm_samples]
        print(
            f"{name}: {series_values[0]:.1f} to {series_values[-1]:.1f}, "
            f"median {statistics.median(series_values):.1f}, "
            f"slope {slope_an_hour(warm_samples):+.2f} an hour, {len(warm_samples)} samples",
            flush=True,
        )
    return is_right


def overload(port: int, token: str, rate: float) -> None:
    """Send twice full load, and measure how soon `/healthz` answers."""
    stop, health = threading.Event(), list[Answer]()

    def probe() -> None:
        while not stop.wait(0.2):
            health.append(Answer(port, "/healthz"))

    thread = threading.Thread(target=probe)
    thread.start()
    load = generate_load(port, token, rate, 30, 400)
    stop.set()
    thread.join()
    longest_s = max(answer.took_s for answer in health)
    print(f"twice full load, {rate:.0f} a second for 30 s: {dict(load.codes)}")
    print(f"  answered: p50 {load.percentile(50):.0f} ms, p99 {load.percentile(99):.0f} ms")
    statuses = dict(Counter(answer.status for answer in health))
    print(f"  /healthz meanwhile: {statuses}, the longest {longest_s * 1_000:.0f} ms", flush=True)


if __name__ == "__main__":
    sys.exit(main())
