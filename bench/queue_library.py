"""Measure what `jobmon.queue` costs workers, compared with the same writes by bare pymongo.

    .venv/bin/python bench/queue_library.py --jobs 10000 100000

First 32 workers lease 200 jobs at the same time. Then, for each number of waiting jobs, one process
and eight processes lease jobs and report success: by the library, by bare pymongo with the same
four writes, and by bare pymongo with only the two updates of the job. Prints jobs a second, the CPU
of the workers for a job, and the median of the rounds' ratios. At the end it prints the index keys
and documents that the server examines for one lease.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pymongo import ASCENDING, DESCENDING, MongoClient, ReturnDocument
from pymongo.database import Database

from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue

Document = dict[str, Any]
BATCH = 10_000
TYPES = 8
JOBS_PER_ROUND, ROUNDS = 400, 3
CONTENDED_JOBS, WORKERS = 200, 32
WAYS = ("library", "bare, four writes", "bare, two writes")


class Round(NamedTuple):
    """Jobs a second of all workers, and the milliseconds of a worker's CPU for one job."""

    rate: float
    cpu_ms: float


def fill(database: Database[Document], count: int) -> None:
    """Insert due jobs; the last two have the type `rare` and are the least urgent."""
    JobQueue(database).create_indexes()
    now, rng = datetime.now(UTC), random.Random(1)  # noqa: S311

    def make_job(number: int) -> Document:
        enqueued_at = now - timedelta(seconds=(count - number) / 10)
        return {
            "jobId": f"{number:032x}",
            "type": "rare" if number >= count - 2 else f"type-{number % TYPES}",
            "status": "queued",
            "payload": {"reference": f"order/{number}", "text": "x" * 60},
            "priority": 0 if number >= count - 2 else rng.choice([0] * 8 + [5, 9]),
            "createdBy": f"user-{number % 1_000}",
            "createdAt": enqueued_at,
            "updatedAt": enqueued_at,
            "nextRunAt": enqueued_at,
            "maxAttempts": 5,
            "attemptCount": 0,
            "leasedBy": None,
            "leaseExpiresAt": None,
            "finishedAt": None,
            "lastError": None,
        }

    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        database.jobs.insert_many(map(make_job, numbers), ordered=False)


def run_by_library(database: Database[Document], worker: str) -> Iterator[None]:
    """Lease and report jobs with the library; yields after each job."""
    queue = JobQueue(database)
    while lease := queue.lease(worker):
        queue.report_success(lease)
        yield


def run_bare(database: Database[Document], worker: str, *, attempts: bool) -> Iterator[None]:
    """Like `run_by_library`, by bare pymongo without checks; it writes attempts if `attempts`."""
    while True:
        now = datetime.now(UTC)
        expires_at = now + timedelta(seconds=30)
        job = database.jobs.find_one_and_update(
            {
                "status": {"$in": ["queued", "failed"]},
                "nextRunAt": {"$not": {"$gt": now}},
            },
            {
                "$set": {
                    "status": "leased",
                    "leasedBy": worker,
                    "leaseExpiresAt": expires_at,
                    "updatedAt": now,
                },
                "$inc": {"attemptCount": 1},
            },
            sort=[("priority", DESCENDING), ("nextRunAt", ASCENDING)],
            return_document=ReturnDocument.AFTER,
        )
        attempt = {"jobId": job["jobId"], "attemptNumber": job["attemptCount"]}
        if attempts:
            database.job_attempts.replace_one(
                attempt | {"finishedAt": {"$not": {"$gte": now}}},
                attempt
                | {
                    "status": "running",
                    "workerId": worker,
                    "eligibleAt": job["nextRunAt"],
                    "startedAt": now,
                    "finishedAt": None,
                    "error": None,
                },
                upsert=True,
            )
        now = datetime.now(UTC)
        database.jobs.update_one(
            {
                "jobId": job["jobId"],
                "status": "leased",
                "leasedBy": worker,
                "attemptCount": job["attemptCount"],
                "leaseExpiresAt": {"$gt": now},
            },
            {
                "$set": {
                    "status": "succeeded",
                    "finishedAt": now,
                    "leasedBy": None,
                    "leaseExpiresAt": None,
                    "updatedAt": now,
                }
            },
        )
        if attempts:
            database.job_attempts.update_one(
                attempt,
                {
                    "$set": {"status": "succeeded", "finishedAt": now, "error": None},
                    "$setOnInsert": {"workerId": worker, "startedAt": now},
                },
                upsert=True,
            )
        yield


def work(uri: str, way: str, count: int) -> float:
    """Lease and report this many jobs; returns the CPU seconds of this process for them."""
    with MongoClient[Document](uri, tz_aware=True) as client:
        database, worker = client.get_default_database(), f"worker-{os.getpid()}"
        if way == "library":
            jobs = run_by_library(database, worker)
        else:
            jobs = run_bare(database, worker, attempts=way == "bare, four writes")
        database.command("ping")
        started = time.process_time()
        for _ in range(count):
            next(jobs)
        return time.process_time() - started


def measure_round(pool: ProcessPoolExecutor, uri: str, way: str, workers: int) -> Round:
    """Measure one round with this number of workers; then queue the jobs again."""
    started = time.monotonic()
    parts = [pool.submit(work, uri, way, JOBS_PER_ROUND // workers) for _ in range(workers)]
    cpu_s = sum(part.result() for part in parts)
    took_s = time.monotonic() - started
    with MongoClient[Document](uri) as client:
        database = client.get_default_database()
        queued_again = {"status": "queued", "attemptCount": 0, "finishedAt": None}
        database.jobs.update_many({"status": "succeeded"}, {"$set": queued_again})
        database.job_attempts.delete_many({})
    return Round(JOBS_PER_ROUND / took_s, cpu_s / JOBS_PER_ROUND * 1_000)


def measure_rates(uri: str, count: int, workers: int) -> None:
    """Print a row for the library and for each way with bare pymongo."""
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(abs, range(workers * 4)))  # starts the processes before the measurement
        rounds = [
            {way: measure_round(pool, uri, way, workers) for way in WAYS} for _ in range(ROUNDS)
        ]
    for way in WAYS:
        rate = statistics.median(results[way].rate for results in rounds)
        cpu_ms = statistics.median(results[way].cpu_ms for results in rounds)
        ratio = statistics.median(results["library"].rate / results[way].rate for results in rounds)
        cells = (f"{count:,}", f"{workers}", way, f"{rate:,.0f}/s", f"{cpu_ms:.2f} ms")
        print(f"| {' | '.join(cells)} | {ratio:.2f} |", flush=True)


def examine(database: Database[Document], run: Callable[[], object]) -> str:
    """The index keys and documents that the server examines for the first lease of `run`."""
    database.command("profile", 2)
    run()
    database.command("profile", 0)
    (entry, *_) = database.system.profile.find({"command.findAndModify": "jobs"})
    database.system.profile.drop()
    return f"{entry['keysExamined']:,} keys, {entry['docsExamined']:,} documents"


def print_plans(database: Database[Document], count: int) -> None:
    """Print what one lease examines: of any type, of one of 8 types, and of the type `rare`."""
    queue = JobQueue(database)
    queue.list_paused_types()
    for name, types in {
        "any type": None,
        "one of 8 types": ["type-3"],
        "the type of the last jobs": ["rare"],
    }.items():
        examined = examine(database, lambda types=types: queue.lease("planner", types=types))
        print(f"{count:,} waiting jobs, lease {name}: {examined}", flush=True)


def contend(uri: str, workers: int) -> list[str]:
    """Lease jobs in this many threads until no job can be leased; returns the leased ids."""
    with MongoClient[Document](uri) as client, ThreadPoolExecutor(workers) as pool:
        queue = JobQueue(client.get_default_database())

        def drain(index: int) -> list[str]:
            worker, ids = f"worker-{os.getpid()}-{index}", []
            while lease := queue.lease(worker):
                ids.append(lease.job_id)
            return ids

        return [job_id for ids in pool.map(drain, range(workers)) for job_id in ids]


def measure_contention(server: Mongod) -> None:
    """Let 32 workers in four processes lease 200 jobs at the same time; print the results."""
    uri = server.uri.replace("/?", "/contended?")
    with MongoClient[Document](uri) as client:
        fill(client.get_default_database(), CONTENDED_JOBS)

        def read_conflicts() -> int:
            metrics = client.admin.command("serverStatus")["metrics"]
            return int(metrics["operation"]["writeConflicts"])

        conflicts_before = read_conflicts()
        with ProcessPoolExecutor(4) as pool:
            results = [pool.submit(contend, uri, WORKERS // 4) for _ in range(4)]
            lease_counts = Counter(job_id for result in results for job_id in result.result())
        conflicts = read_conflicts() - conflicts_before
    twice = sum(1 for count in lease_counts.values() if count > 1)
    print(
        f"{WORKERS} workers, {CONTENDED_JOBS} jobs: {len(lease_counts)} leased, {twice} twice, "
        f"{conflicts / CONTENDED_JOBS:.2f} write conflicts a job in the server",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with Mongod(folder, cache_gb=1) as server:
            measure_contention(server)
            print("| waiting jobs | workers | | jobs | CPU of a worker, a job | library / this |")
            print("| --- | --- | --- | --- | --- | --- |")
            for count in arguments.jobs:
                uri = server.uri.replace("/?", f"/queue_{count}?")
                with MongoClient[Document](uri) as client:
                    database = client.get_default_database()
                    fill(database, count)
                    for workers in arguments.workers:
                        measure_rates(uri, count, workers)
                    print_plans(database, count)
                    JobQueue(database).create_indexes(by_type=True)
                    print("with the index by type:")
                    print_plans(database, count)
                    client.drop_database(database.name)
    print(f"load of the machine at the end: {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
