"""What keeping up costs: a queue with 1,000 changes a second, with and without a collector.

    .venv/bin/python bench/changes.py --jobs 1000000

Prints the CPU that the database and the collector use, as shares of one core, and how long answers
take meanwhile.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bson import ObjectId
from pymongo import MongoClient
from scale import SECRET, ask, collecting, cpu_s, fill, serving

from jobmon import create_app
from jobmon.api.auth import issue_token
from jobmon.embedded import Mongod
from jobmon.settings import Settings

CHANGES_A_SECOND = 1_000
ROUTES = ("/admin/jobs/stats", "/admin/jobs/queue?status=dlq", "/jobs", "/admin/jobs/timeseries")


def write(
    uri: str, stop: threading.Event, done: list[int], a_second: int = CHANGES_A_SECOND
) -> None:
    """Enqueue, lease and finish jobs: three changes each, at a steady pace."""
    with MongoClient[dict[str, Any]](uri) as client:
        jobs = client.get_default_database().jobs
        started, changes = time.monotonic(), 0
        while not stop.is_set():
            now = datetime.now(UTC)
            job_id = ObjectId()
            jobs.insert_one(
                {"_id": job_id, "jobId": str(job_id), "type": f"type-{changes % 8}"}
                | {"status": "queued", "createdBy": "user-1", "createdAt": now, "updatedAt": now}
            )
            for status in ("leased", "succeeded"):
                change = {"status": status, "updatedAt": now, "finishedAt": now}
                jobs.update_one({"_id": job_id}, {"$set": change})
            changes += 3
            time.sleep(max(0.0, started + changes / a_second - time.monotonic()))
        done.append(changes)


def observe(
    uri: str, seconds: float, pids: list[int], port: int | None = None, token: str = ""
) -> tuple[list[float], float, list[float]]:
    """Shares of a core that processes use while the queue changes; changes a second; latencies."""
    stop, done, took_ms = threading.Event(), list[int](), list[float]()
    writer = threading.Thread(target=write, args=[uri, stop, done])
    writer.start()
    time.sleep(3)
    before, started = [cpu_s(pid) for pid in pids], time.monotonic()
    number = 0
    while time.monotonic() < started + seconds:
        if port is None:
            time.sleep(0.1)
            continue
        asked_at = time.perf_counter()
        ask(port, ROUTES[number % len(ROUTES)], token)
        took_ms.append((time.perf_counter() - asked_at) * 1_000)
        number += 1
        time.sleep(0.01)
    elapsed = time.monotonic() - started
    shares = [(cpu_s(pid) - was) / elapsed for pid, was in zip(pids, before, strict=True)]
    stop.set()
    writer.join()
    return shares, done[0] / (elapsed + 3), took_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="jobmon-bench-"))
    try:
        with Mongod(folder, cache_gb=4) as server:
            measure(server, arguments.jobs, arguments.seconds)
    finally:
        shutil.rmtree(folder)


def measure(server: Mongod, jobs: int, seconds: float) -> None:
    uri = server.uri.replace("/?", "/jobmon?")
    fill(uri, jobs)
    without, rate, _ = observe(uri, seconds, [server.pid])
    print(f"without a collector: database {without[0]:.1%} of a core at {rate:.0f} changes/s")
    with collecting(uri) as collector:
        time.sleep(30)
        used, at = [cpu_s(server.pid), cpu_s(collector)], time.monotonic()
        time.sleep(10)
        idle = [
            (cpu_s(pid) - was) / (time.monotonic() - at)
            for pid, was in zip([server.pid, collector], used, strict=True)
        ]
        print(f"at rest: database {idle[0]:.1%}, collector {idle[1]:.1%} of a core")
        shares, rate, _ = observe(uri, seconds, [server.pid, collector])
        print(
            f"with a collector: database {shares[0]:.1%}, collector {shares[1]:.1%} of a core "
            f"at {rate:.0f} changes/s; the database's ratio is {shares[0] / without[0]:.2f}"
        )
        with serving(uri) as (port, _):
            with create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET)).app_context():
                token = issue_token("root", "admin", timedelta(hours=1))
            _, rate, took_ms = observe(uri, seconds, [server.pid], port, token)
            p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
            print(f"answers at {rate:.0f} changes/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
