"""Compare the times of a 403 for another owner's job and for a missing job.

    .venv/bin/python bench/timing.py --jobs 100000 --rounds 5000

Requests small and large jobs of another owner and missing jobs, in random order, in one process and
without HTTP, because a network would hide small differences. Two equal groups of missing jobs show
the effect of chance.
"""

import argparse
import random
import statistics
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path

from pymongo import MongoClient

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.connection import Document
from jobmon.store.indexes import JOB_ID
from jobmon.web.auth import issue_token

SECRET = "a secret of the benchmark alone, long enough"  # noqa: S105
LARGE_EVERY, LARGE_BYTES, SMALL_BYTES = 200, 1_000_000, 1_000
BATCH = 1_000  # jobs in one insert
WARM_UP_ROUNDS = 200  # rounds that fill caches; they are not measured
KINDS = ("missing", "missing, too", "another owner's, 1 kB", "another owner's, 1 MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with Mongod(folder, cache_gb=2) as server:
            measure(server.uri.replace("/?", "/jobmon?"), arguments.jobs, arguments.rounds)


def fill(uri: str, count: int) -> dict[str, list[str]]:
    """Insert jobs of bob, every 200th of them large; returns the ids to request, by kind."""
    ids: dict[str, list[str]] = {kind: [] for kind in KINDS}
    with MongoClient[Document](uri) as client:
        jobs = client.get_default_database().jobs
        jobs.create_index(JOB_ID, unique=True)
        for start in range(0, count, BATCH):
            batch = []
            for number in range(start, min(start + BATCH, count)):
                is_large = number % LARGE_EVERY == 0
                payload = {"fill": "x" * (LARGE_BYTES if is_large else SMALL_BYTES)}
                batch.append({"jobId": str(uuid.uuid4()), "createdBy": "bob", "payload": payload})
                ids[KINDS[3 if is_large else 2]].append(batch[-1]["jobId"])
            jobs.insert_many(batch, ordered=False)
    for kind in KINDS[:2]:
        ids[kind] = [str(uuid.uuid4()) for _ in range(count)]
    return ids


def measure(uri: str, count: int, rounds: int) -> None:
    """Print the median time of each kind, and its ratio to the median of missing jobs."""
    ids = fill(uri, count)
    app = create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET, log_level="ERROR"))
    with app.app_context():
        token = issue_token("ada", "user", timedelta(hours=1))
    client, headers = app.test_client(), {"Authorization": f"Bearer {token}"}
    took_us: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(WARM_UP_ROUNDS + rounds):
        for kind in random.sample(KINDS, len(KINDS)):
            path = f"/jobs/{random.choice(ids[kind])}"  # noqa: S311
            started = time.perf_counter()
            answer = client.get(path, headers=headers)
            elapsed_us = (time.perf_counter() - started) * 1_000_000
            assert answer.status_code == 403, answer.text  # noqa: S101
            if number >= WARM_UP_ROUNDS:
                took_us[kind].append(elapsed_us)
    app.extensions["jobmon_connection"].client.close()
    missing_median = statistics.median(took_us[KINDS[0]])
    print(f"{count:,} jobs, {rounds:,} rounds, µs\n")
    print("| | median | 10th and 90th percentile | ratio of medians |")
    print("| --- | --- | --- | --- |")
    for kind, values in took_us.items():
        deciles, median = statistics.quantiles(values, n=10), statistics.median(values)
        row = f"| {kind} | {median:.0f} | {deciles[0]:.0f}, {deciles[8]:.0f}"
        print(f"{row} | {median / missing_median:.3f} |")


if __name__ == "__main__":
    main()
