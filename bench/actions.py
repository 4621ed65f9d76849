"""Retry all dead jobs with one action, while workers run and the actor is killed at random times.

    .venv/bin/python -m bench.actions --jobs 100000

Checks with the server's oplog and the actor's records that each job was retried once, or skipped
with a reason. Prints the latencies of read-only routes before and during the action. Exits with 1
if a check fails.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from jobmon.actions.records import OUTCOMES, create_record_indexes
from jobmon.actions.requests import ActionRequests
from jobmon.actions.state import ActionState
from jobmon.demo.mongod import Mongod
from jobmon.queue import JobQueue
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import state_database
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from tests.conftest import SECRET
from tests.support.action_requests import retry_all_dead
from tests.support.faults import admin_token
from tests.support.services import clean_environment, serving

PATHS = (
    "/admin/jobs/stats",
    "/admin/jobs/queue?status=dlq",
    "/admin/jobs/queue?status=queued",
    "/admin/jobs/types",
    "/admin/jobs/timeseries",
    "/dashboard/overview",
)
READ_PAUSE_S = 0.1
BEFORE_S = 20  # how long latencies are measured before the action, for comparison
KILL_AFTER_S = (0.0, 8.0)  # the shortest and longest time from an actor's first outcome to its kill
BATCH = 5_000  # jobs in one insert


def fill(uri: str, count: int) -> None:
    """Add dead jobs of ten types, created about a day ago."""
    with MongoClient[dict[str, Any]](uri) as client:
        jobs = client.get_default_database().jobs
        now = datetime.now(UTC)
        for start in range(0, count, BATCH):
            jobs.insert_many(
                {
                    "jobId": f"dead-{number:07}",
                    "type": f"type-{number % 10}",
                    "status": "dlq",
                    "payload": {"to": "ada@example.com", "number": number},
                    "priority": 0,
                    "createdBy": f"user-{number % 100}",
                    "createdAt": now - timedelta(days=1) + timedelta(milliseconds=number),
                    "updatedAt": now - timedelta(minutes=5),
                    "nextRunAt": now - timedelta(days=1),
                    "maxAttempts": 3,
                    "attemptCount": 3,
                    "leasedBy": None,
                    "leaseExpiresAt": None,
                    "finishedAt": now - timedelta(minutes=5),
                    "lastError": {"code": "EHOST", "message": "no answer", "stack": None},
                }
                for number in range(start, min(start + BATCH, count))
            )


def run_worker(uri: str, name: str, pause_s: float) -> None:
    """Lease and report jobs until this process is killed; about one attempt in twenty fails."""
    with MongoClient[dict[str, Any]](uri) as client:
        queue = JobQueue(client.get_default_database())
        while True:
            if lease := queue.lease(name):
                if random.random() < 0.05:  # noqa: S311
                    queue.report_failure(lease, "EHOST", "no answer")
                else:
                    queue.report_success(lease)
            time.sleep(pause_s)


class Readers:
    """Two threads that request `PATHS` in turn.

    `statuses` counts all requests by the status of their answer; 0 means no answer.
    """

    def __init__(self, web: Any, token: str) -> None:
        self._web, self._token = web, token
        self._lock = threading.Lock()
        self._latencies_ms: list[float] = []
        self.statuses: Counter[int] = Counter()
        for offset in range(2):
            threading.Thread(target=self._read, args=(offset,), daemon=True).start()

    def take_latencies(self) -> list[float]:
        """The sorted latencies in ms since the last call."""
        with self._lock:
            latencies_ms, self._latencies_ms = self._latencies_ms, []
        return sorted(latencies_ms)

    def _read(self, offset: int) -> None:
        for index in range(offset, sys.maxsize):
            started = time.perf_counter()
            try:
                status = self._web.get(PATHS[index % len(PATHS)], self._token)
            except OSError:
                if self._web.process.poll() is not None:
                    return
                status = 0
            took_ms = (time.perf_counter() - started) * 1_000
            with self._lock:
                self._latencies_ms.append(took_ms)
                self.statuses[status] += 1
            time.sleep(READ_PAUSE_S)


def describe_latencies(latencies_ms: list[float]) -> str:
    """The number of latencies, their median, and their 99th percentile, as text."""
    percentiles = statistics.quantiles(latencies_ms, n=100)
    median, p99 = percentiles[49], percentiles[98]
    return f"{len(latencies_ms):,} reads, median {median:.0f} ms, p99 {p99:.0f} ms"


def run_and_kill_actors(
    environment: dict[str, str], requests: ActionRequests, request_id: str, log: Path
) -> tuple[int, ActionState]:
    """Run one actor after another and kill each, until the request is over.

    Returns the number of actors that were killed before the request was over, and its last state.
    """
    kills, known_outcomes = 0, 0
    with log.open("w") as stderr:
        while True:
            command = [sys.executable, "-m", "jobmon.cli", "actor"]
            actor = subprocess.Popen(command, env=environment, stderr=stderr)
            try:
                state = _await_kill_time(requests, request_id, known_outcomes)
            finally:
                actor.kill()
                actor.wait()
            if state.is_over:
                return kills, state
            kills, known_outcomes = kills + 1, state.counts.total
            print(f"  kill {kills}: {state.counts.total:,} jobs, {state.phase}", flush=True)


def _await_kill_time(requests: ActionRequests, request_id: str, known_outcomes: int) -> ActionState:
    """The request's state when it is over, or some seconds after the actor's first outcome.

    `known_outcomes`: the number of jobs with an outcome when this actor was started.
    """
    # Not before the first outcome: on a busy machine it takes long until an actor has started.
    kill_at = sys.float_info.max
    while True:
        state = requests.get(request_id)
        assert state is not None  # noqa: S101
        if state.is_over or time.monotonic() > kill_at:
            return state
        if state.counts.total > known_outcomes and kill_at == sys.float_info.max:
            kill_at = time.monotonic() + random.uniform(*KILL_AFTER_S)  # noqa: S311
        time.sleep(0.2)


def find_mistakes(
    client: MongoClient[dict[str, Any]], settings: Settings, request_id: str
) -> list[str]:
    """Compare the oplog, the jobs and the recorded outcomes; returns a line for each mistake."""
    database = client.get_default_database()
    namespace = database.jobs.full_name
    change_counts: Counter[Any] = Counter()  # by the job's `_id`
    # The oplog has these fields if `lastAction` was inserted, replaced, or changed in part.
    for field in ("i.lastAction", "u.lastAction", "slastAction"):
        query = {"ns": namespace, "op": "u", f"o.diff.{field}": {"$exists": True}}
        for entry in client["local"]["oplog.rs"].find(query, {"o2": True}):
            change_counts[entry["o2"]["_id"]] += 1
    documents = client[settings.state_db][OUTCOMES].find({"request": request_id})
    outcomes = {document["key"]: document for document in documents}
    keys = {job["_id"] for job in database.jobs.find({}, {"_id": True})}
    mistakes = []
    if missing := keys - outcomes.keys():
        mistakes.append(f"{len(missing):,} jobs without an outcome")
    if repeated := [key for key, count in change_counts.items() if count > 1]:
        mistakes.append(f"{len(repeated):,} jobs were changed more than once")
    done_keys = {key for key, outcome in outcomes.items() if outcome["result"] == "done"}
    if mismatched := done_keys ^ change_counts.keys():
        mistakes.append(f"{len(mismatched):,} outcomes do not match the oplog")
    skipped = [outcome for outcome in outcomes.values() if outcome["result"] == "skipped"]
    reasons = Counter(outcome["reason"] for outcome in skipped)
    if reasons[""]:
        mistakes.append("jobs were skipped without a reason")
    print(f"outcomes: {len(done_keys):,} done; skipped: {dict(reasons) or 'none'}")
    groups = database.job_attempts.aggregate(
        [
            {"$group": {"_id": {"job": "$jobId"}, "runs": {"$sum": 1}}},
            {"$group": {"_id": "$runs", "jobs": {"$sum": 1}}},
        ]
    )
    job_counts = {group["_id"]: group["jobs"] for group in groups}
    print(f"jobs by the number of runs: {job_counts}")
    return mistakes


def measure(count: int, workers: int) -> list[str]:
    """Fill a queue and retry all its jobs while workers run; returns the mistakes."""
    folder = Path(tempfile.mkdtemp(prefix="jobmon-bench-"))
    processes: list[Any] = []
    try:
        with Mongod(folder / "data") as server:
            uri = server.uri.replace("/?", "/shop?")
            settings = Settings(mongo_uri=uri, jwt_secret_key=SECRET, actions=True)
            connection = Connection(replace(settings, query_timeout_ms=60_000))
            create_indexes(connection)
            client = MongoClient[dict[str, Any]](uri)
            JobQueue(client.get_default_database()).create_indexes()
            fill(uri, count)
            environment = clean_environment(JOBMON_MONGO_URI=uri, JOBMON_LOG_LEVEL="WARNING")
            collector = [sys.executable, "-m", "jobmon.cli", "collector"]
            processes.append(subprocess.Popen(collector, env=environment))
            for number in range(workers):
                process = multiprocessing.Process(target=run_worker, args=(uri, f"w{number}", 0.05))
                process.start()
                processes.append(process)
            with serving(uri, folder, JOBMON_WORKERS="2", JOBMON_THREADS="8") as web:
                return _retry_all(web, connection, client, environment, count=count, folder=folder)
    finally:
        for process in processes:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _retry_all(
    web: Any,
    connection: Connection,
    client: MongoClient[dict[str, Any]],
    environment: dict[str, str],
    *,
    count: int,
    folder: Path,
) -> list[str]:
    """Print the latencies before and during the action; returns the mistakes."""
    readers = Readers(web, admin_token())
    time.sleep(10)  # the collector starts
    readers.take_latencies()
    time.sleep(BEFORE_S)
    print(f"before the action: {describe_latencies(readers.take_latencies())}", flush=True)
    requests = ActionRequests(connection, connection, Redactor(()))
    create_record_indexes(state_database(connection))
    filed = requests.file(retry_all_dead(count))
    started = time.monotonic()
    log = folder / "actor.log"
    kills, state = run_and_kill_actors(environment, requests, filed.request.id, log)
    took_s = time.monotonic() - started
    print(
        f"{count:,} jobs in {took_s:.0f} s with {kills} kills: {state.phase}, "
        f"{state.counts.done:,} done, {state.counts.skipped:,} skipped"
    )
    latencies = describe_latencies(readers.take_latencies())
    print(f"during the action: {latencies}; statuses {dict(readers.statuses)}")
    mistakes = find_mistakes(client, connection.settings, filed.request.id)
    if state.counts.total != count:
        mistakes.append(f"{state.counts.total:,} outcomes of {count:,} jobs")
    return mistakes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    mistakes = measure(arguments.jobs, arguments.workers)
    print("\n".join(mistakes) or "no mistakes")
    sys.exit(1 if mistakes else 0)


if __name__ == "__main__":
    main()
