"""Measure what a collector costs at 1,000 changes a second.

    .venv/bin/python bench/changes.py --jobs 1000000

Prints the CPU of the database with and without a collector, and the CPU of the collector, as shares
of a core, and the latency of answers. A change is a write to a job, which is enqueued, leased and
finished. The two writes to its attempt are not counted.
"""

import argparse
import itertools
import multiprocessing
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from bson import ObjectId
from filling import fill
from pymongo import MongoClient, UpdateOne
from pymongo.database import Database
from scale import SECRET, Client, await_built, collecting, read_cpu_s, read_peak_mib, serving

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.web.auth import issue_token

CHANGES_A_SECOND = 1_000
WRITERS = 4
BATCH = 10  # jobs that a writer changes at once
WORKERS = 20_000
STACK = "Error: refused\n" + "\n".join(
    f"    at step{number} (/app/src/bank.js:{number}:7)" for number in range(30)
)
ROUTES = (
    "/admin/jobs/stats",
    "/admin/jobs/queue",
    "/admin/jobs/queue?status=dlq",
    "/admin/jobs/timeseries",
    "/admin/jobs/types",
    "/admin/jobs/workers",
    "/admin/jobs/slowest",
    "/jobs",
)


def run_writers(uri: str, stop: Event, change_count: Any) -> None:
    """Enqueue, lease and finish jobs at a steady rate until `stop`; `change_count` is shared."""
    client = MongoClient[dict[str, Any]](uri)
    database, pace = client.get_default_database(), CHANGES_A_SECOND / WRITERS

    def work() -> None:
        started, changes = time.monotonic(), 0
        while not stop.is_set():
            change_jobs(database)
            changes += 3 * BATCH
            with change_count.get_lock():
                change_count.value += 3 * BATCH
            time.sleep(max(0.0, started + changes / pace - time.monotonic()))

    threads = [threading.Thread(target=work) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()


def change_jobs(database: Database[dict[str, Any]]) -> None:
    """Write a batch of jobs that are queued, leased and finished; one in ten fails.

    Each failed job has a different message. Each job has one of 20,000 workers. One command writes
    the whole batch, so that the writers do not take all the CPU; each write is still an event.
    """
    jobs, attempts = database.jobs, database.job_attempts
    numbers = [random.randrange(10**9) for _ in range(BATCH)]  # noqa: S311
    ids, now = [ObjectId() for _ in numbers], datetime.now(UTC)
    shared = {"createdBy": "user-1", "createdAt": now, "updatedAt": now}
    jobs.insert_many(
        {"_id": job_id, "jobId": str(job_id), "type": f"type-{number % 8}", "status": "queued"}
        | shared
        for job_id, number in zip(ids, numbers, strict=True)
    )
    running = {"attemptNumber": 1, "status": "running", "startedAt": datetime.now(UTC)}
    attempts.insert_many(
        {"_id": job_id, "jobId": str(job_id), "workerId": f"worker-{number % WORKERS}"} | running
        for job_id, number in zip(ids, numbers, strict=True)
    )
    leased = {"$set": {"status": "leased", "updatedAt": now}}
    jobs.bulk_write([UpdateOne({"_id": job_id}, leased) for job_id in ids])
    attempt_ends = [make_finish_fields(number) for number in numbers]
    attempts.bulk_write(
        [
            UpdateOne({"_id": job_id}, {"$set": end})
            for job_id, end in zip(ids, attempt_ends, strict=True)
        ]
    )
    job_ends = [
        {"status": end["status"], "finishedAt": end["finishedAt"], "updatedAt": end["finishedAt"]}
        for end in attempt_ends
    ]
    jobs.bulk_write(
        [
            UpdateOne({"_id": job_id}, {"$set": end})
            for job_id, end in zip(ids, job_ends, strict=True)
        ]
    )


def make_finish_fields(number: int) -> dict[str, Any]:
    """The fields of a finished attempt: one in ten fails."""
    now = datetime.now(UTC)
    if number % 10:
        return {"status": "succeeded", "finishedAt": now}
    words = " ".join(random.choices(ascii_lowercase, k=12))  # noqa: S311
    error = {"code": "E_BANK", "message": f"refused {words}", "stack": STACK}
    return {"status": "failed", "finishedAt": now, "error": error}


@dataclass(frozen=True)
class Observation:
    """The share of a core that each process used, in the order of the pids; latencies in ms."""

    shares: list[float]
    changes_a_second: float
    took_ms: list[float]


def observe(
    uri: str, seconds: float, pids: list[int], clients: Sequence[Client] = ()
) -> Observation:
    """Measure while the queue changes and the clients, if any, send requests in turn."""
    stop, change_count = multiprocessing.Event(), multiprocessing.Value("q", 0)
    writer = multiprocessing.Process(target=run_writers, args=[uri, stop, change_count])
    writer.start()
    try:
        time.sleep(5)
        cpu_s, changes_before = [read_cpu_s(pid) for pid in pids], change_count.value
        started = time.monotonic()
        took_ms: list[float] = []
        cycle = itertools.cycle(clients)
        while time.monotonic() < started + seconds:
            if not clients:
                time.sleep(0.1)
                continue
            sent_at = time.perf_counter()
            next(cycle).ask()
            took_ms.append((time.perf_counter() - sent_at) * 1_000)
            time.sleep(0.01)
        elapsed_s = time.monotonic() - started
        used_s = [read_cpu_s(pid) - start_s for pid, start_s in zip(pids, cpu_s, strict=True)]
        shares = [process_s / elapsed_s for process_s in used_s]
        changes_a_second = (change_count.value - changes_before) / elapsed_s
    finally:
        stop.set()
        writer.join()
    return Observation(shares, changes_a_second, took_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with Mongod(folder, cache_gb=4) as server:
            measure(server, arguments.jobs, arguments.seconds)


def measure(server: Mongod, jobs: int, seconds: float) -> None:
    """Print what `observe` returns without a collector, with one, and with one and viewers."""
    uri = server.uri.replace("/?", "/jobmon?")
    fill(uri, jobs)
    connection = Connection(Settings(mongo_uri=uri))
    alone = observe(uri, seconds, [server.pid])
    report("without a collector", alone)
    with collecting(uri) as collector:
        await_built(connection, collector)
        time.sleep(20)
        pids = [server.pid, collector]
        cpu_s, started = [read_cpu_s(pid) for pid in pids], time.monotonic()
        time.sleep(10)
        idle = [
            (read_cpu_s(pid) - start_s) / (time.monotonic() - started)
            for pid, start_s in zip(pids, cpu_s, strict=True)
        ]
        print(f"at rest: database {idle[0]:.1%}, collector {idle[1]:.1%} of a core", flush=True)
        collected = observe(uri, seconds, pids)
        report("with a collector", collected)
        print(f"the collector had at most {read_peak_mib([collector])} MiB", flush=True)
        database_s = collected.shares[0] / collected.changes_a_second  # CPU seconds for one change
        ratio = database_s / (alone.shares[0] / alone.changes_a_second)
        thousand_ms = collected.shares[1] / collected.changes_a_second * 1_000_000
        print(f"database: {ratio:.2f} times the CPU for a change that it takes without a collector")
        print(f"collector: {thousand_ms:.0f} ms of CPU for a thousand changes", flush=True)
        with serving(uri) as (port, _):
            with create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET)).app_context():
                token = issue_token("user-1", "admin", timedelta(hours=1))
            viewed = observe(uri, seconds, pids, [Client(port, path, token) for path in ROUTES])
            p50, p99 = (
                statistics.median(viewed.took_ms),
                statistics.quantiles(viewed.took_ms, n=100)[-1],
            )
            report("with a collector and viewers", viewed)
            print(f"{len(viewed.took_ms)} answers meanwhile: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    connection.client.close()


def report(label: str, observed: Observation) -> None:
    shares = zip(("database", "collector"), observed.shares, strict=False)
    used = ", ".join(f"{name} {share:.1%}" for name, share in shares)
    print(f"{label}: {used} of a core at {observed.changes_a_second:.0f} changes/s", flush=True)


if __name__ == "__main__":
    main()
