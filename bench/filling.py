"""Fill a database with jobs of 8 types from the last 30 days; about 96% have succeeded."""

import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import MongoClient

from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

STATUSES = ["succeeded"] * 960 + ["queued"] * 15 + ["dlq"] * 10 + ["failed"] * 10 + ["leased"] * 5
BATCH = 20_000  # jobs in one insert
SEARCH_FIELDS = ("payload.reference", "payload.amount")
FILTERS = ("attempts", "finished", "priority")


def fill(uri: str, count: int) -> float:
    """Insert `count` jobs and an attempt of each finished one, and create the indexes.

    Returns the seconds that it took.
    """
    started = time.monotonic()
    starts = range(0, count, BATCH)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill_part, [uri] * len(starts), starts, [count] * len(starts)))
    # Without a time limit, because an index may take minutes.
    with MongoClient[dict[str, Any]](uri) as client:
        settings = Settings(mongo_uri=uri, search_fields=SEARCH_FIELDS, filters=FILTERS)
        create_indexes(Connection(settings, client))
    return time.monotonic() - started


def fill_part(uri: str, start: int, count: int) -> None:
    """Insert one batch of jobs, whose numbers begin at `start`."""
    rng = random.Random(start)  # noqa: S311
    first, step = datetime.now(UTC) - timedelta(days=30), timedelta(days=30) / count
    numbers = range(start, min(start + BATCH, count))
    jobs = [make_job(number, first + step * number, rng) for number in numbers]
    with MongoClient[dict[str, Any]](uri) as client:
        database = client.get_default_database()
        database.jobs.insert_many(jobs, ordered=False)
        attempts = [make_attempt(job, rng) for job in jobs if job["finishedAt"]]
        database.job_attempts.insert_many(attempts, ordered=False)


def make_job(number: int, created_at: datetime, rng: random.Random) -> dict[str, Any]:
    second = int(created_at.timestamp()).to_bytes(4, "big")
    status = rng.choice(STATUSES)
    finished_at = created_at + timedelta(seconds=rng.expovariate(0.1))
    return {
        "_id": ObjectId(second + number.to_bytes(8, "big")),
        "jobId": f"{number:032x}",
        "type": f"type-{min(int(rng.expovariate(0.5)), 7)}",
        "status": status,
        "payload": {"reference": f"order/{number}", "amount": number % 1_000},
        "priority": rng.choice([0] * 8 + [5, 9]),
        "createdBy": f"user-{number % 1_000}",
        "createdAt": created_at,
        "updatedAt": created_at,
        # In the future for every tenth job: if this job waits, it is scheduled.
        "nextRunAt": created_at + timedelta(days=31) if number % 10 == 0 else created_at,
        "maxAttempts": 5,
        "attemptCount": rng.choice([1] * 95 + [2, 2, 3, 3, 5]),
        "lastError": make_error(rng) if status in ("dlq", "failed") else None,
        "finishedAt": finished_at if status in ("succeeded", "dlq") else None,
    }


def make_error(rng: random.Random) -> dict[str, str]:
    message = f"The bank refused account {rng.randrange(10**9)}."
    return {"code": f"E_{rng.randrange(20)}", "message": message}


def make_attempt(job: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    run_time = timedelta(milliseconds=rng.expovariate(0.005))
    return {
        "jobId": job["jobId"],
        "attemptNumber": 1,
        "status": "succeeded" if job["status"] == "succeeded" else "failed",
        "workerId": f"worker-{rng.randrange(8)}",
        "startedAt": max(job["createdAt"], job["finishedAt"] - run_time),
        "finishedAt": job["finishedAt"],
        "error": job["lastError"],
    }
