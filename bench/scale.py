"""What an answer costs at N jobs, and what it would cost the original way, as ratios in one run.

    .venv/bin/python bench/scale.py --jobs 10000 1000000

For each N: a real MongoDB is filled (96 % succeeded, 8 types, 30 days), a collector counts it, and
gunicorn answers, to one client and to 32. Prints a Markdown table.
"""

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bson import ObjectId
from pymongo import IndexModel, MongoClient

from jobmon import create_app
from jobmon.api.auth import issue_token
from jobmon.embedded import Mongod, free_port
from jobmon.rollup.collector import collecting
from jobmon.rollup.reader import RollupReader
from jobmon.settings import Settings
from jobmon.store import indexes
from jobmon.store.connection import Connection
from jobmon.store.jobs import JobFilter, JobStore
from jobmon.store.ordering import Place

SECRET = "benchmarks are not secret, but the key has to be long enough"  # noqa: S105
STATUSES = ["succeeded"] * 960 + ["queued"] * 15 + ["dlq"] * 10 + ["failed"] * 10 + ["leased"] * 5
BATCH = 20_000
CLIENTS = 32


def fill(uri: str, count: int) -> float:
    """Insert `count` jobs and build the indexes; seconds taken."""
    started = time.monotonic()
    pick = random.Random(59)  # noqa: S311
    first = datetime.now(UTC) - timedelta(days=30)
    step = timedelta(days=30) / count
    with MongoClient[dict[str, Any]](uri) as client:
        jobs = client.get_default_database().jobs
        for start in range(0, count, BATCH):
            jobs.insert_many(
                [
                    job(number, first + step * number, pick)
                    for number in range(start, min(start + BATCH, count))
                ],
                ordered=False,
            )
        wanted = [value for name, value in vars(indexes).items() if name in INDEXES]
        jobs.create_indexes([IndexModel(keys, unique=keys == indexes.JOB_ID) for keys in wanted])
    return time.monotonic() - started


INDEXES = [
    "JOB_ID",
    "NEWEST_FIRST",
    "BY_STATUS",
    "BY_TYPE",
    "BY_STATUS_AND_TYPE",
    "BY_OWNER",
    "BY_OWNER_AND_STATUS",
    "BY_LEASE",
    "BY_NEXT_RUN",
]


def job(number: int, created_at: datetime, pick: random.Random) -> dict[str, Any]:
    second = int(created_at.timestamp()).to_bytes(4, "big")
    return {
        "_id": ObjectId(second + number.to_bytes(8, "big")),
        "jobId": f"{number:032x}",
        "type": f"type-{min(int(pick.expovariate(0.5)), 7)}",
        "status": pick.choice(STATUSES),
        "payload": {"reference": f"order/{number}", "amount": number % 1_000},
        "priority": 0,
        "createdBy": f"user-{number % 1_000}",
        "createdAt": created_at,
        "updatedAt": created_at,
        "nextRunAt": created_at,
        "maxAttempts": 5,
        "attemptCount": 1,
    }


@contextmanager
def serving(uri: str) -> Iterator[int]:
    """gunicorn with jobmon's routes and the original ones; its port."""
    port = free_port()
    environment = dict(os.environ) | {
        "JOBMON_MONGO_URI": uri,
        "JOBMON_JWT_SECRET_KEY": SECRET,
        "JOBMON_BIND": f"127.0.0.1:{port}",
        "JOBMON_QUERY_TIMEOUT_MS": "120000",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = ["-m", "gunicorn", "--config", "python:jobmon.serving", "original:app"]
    process = subprocess.Popen([sys.executable, *command], env=environment)  # noqa: S603
    try:
        while True:
            try:
                ask(port, "/healthz", "")
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def ask(port: int, path: str, token: str) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status} {body[:200]!r}")


def alone(port: int, path: str, token: str, seconds: float = 3) -> float:
    """p50 in ms for one client."""
    took: list[float] = []
    until = time.monotonic() + seconds
    while len(took) < 5 or time.monotonic() < until:
        started = time.perf_counter()
        ask(port, path, token)
        took.append((time.perf_counter() - started) * 1_000)
    return statistics.median(took)


def together(port: int, path: str, token: str, seconds: float = 5) -> float:
    """Answers a second for 32 clients."""
    answers = 0
    lock = threading.Lock()
    until = time.monotonic() + seconds

    def client() -> None:
        nonlocal answers
        while time.monotonic() < until:
            ask(port, path, token)
            with lock:
                answers += 1

    started = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers / (time.monotonic() - started)


def measure(count: int, folder: Path) -> dict[str, tuple[float, float]]:
    """(p50 alone in ms, answers a second with 32 clients) by what is asked."""
    with Mongod(folder / str(count), cache_gb=6) as server:
        uri = server.uri.replace("/?", "/jobmon?")
        print(f"{count:,} jobs: filled in {fill(uri, count):.0f} s", flush=True)
        settings = Settings(mongo_uri=uri, jwt_secret_key=SECRET)
        connection = Connection(settings)
        reader = RollupReader(connection)
        started = time.monotonic()
        cpu = time.process_time()
        with collecting(settings), serving(uri) as port:
            while reader.figures() is None:
                time.sleep(0.1)
            took_s, cpu_s = time.monotonic() - started, time.process_time() - cpu
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024
            print(
                f"first build: {took_s:.1f} s, {cpu_s:.1f} s CPU, process at {memory} MiB",
                flush=True,
            )
            with create_app(settings).app_context():
                token = issue_token("root", "admin", timedelta(hours=9))
            deep = JobStore(connection, 0).list_jobs(JobFilter(), page=count // 40 + 1, per_page=20)
            last = deep.jobs[0]
            cursor = Place(created_at=last["createdAt"], id=last["_id"], page=1).token()
            paths = {
                "stats": "/admin/jobs/stats",
                "first page": "/admin/jobs/queue",
                "filtered": "/admin/jobs/queue?status=succeeded&type=type-1",
                "rare filter": "/admin/jobs/queue?status=dlq",
                "half-way by cursor": f"/admin/jobs/queue?cursor={cursor}",
                "own jobs": "/jobs",
                "original stats": "/original/stats",
                "original first page": "/original/queue",
                "original half-way": f"/original/queue?page={count // 40}",
            }
            result = {}
            for name, path in paths.items():
                result[name] = alone(port, path, token), together(port, path, token)
                print(f"  {name}: {result[name][0]:.1f} ms, {result[name][1]:.1f}/s", flush=True)
        connection.client.close()
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 1_000_000])
    sizes = parser.parse_args().jobs
    folder = Path(tempfile.mkdtemp(prefix="jobmon-bench-"))
    try:
        results = {count: measure(count, folder) for count in sizes}
    finally:
        shutil.rmtree(folder)
    print("| | " + " | ".join(f"{count:,} jobs" for count in sizes) + " | ratio |")
    print("| --- |" + " --- |" * (len(sizes) + 1))
    for name in results[sizes[0]]:
        p50 = [results[count][name][0] for count in sizes]
        rates = [results[count][name][1] for count in sizes]
        cells = [f"{ms:.1f} ms, {rate:.0f}/s" for ms, rate in zip(p50, rates, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + f" | {p50[-1] / p50[0]:.2f} |")


if __name__ == "__main__":
    main()
