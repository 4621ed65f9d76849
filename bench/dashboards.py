"""Measure pages, and what 500 open dashboards cost the service and its database at a million jobs.

    .venv/bin/python bench/dashboards.py --jobs 1000000 --dashboards 500

First one client requests pages, each with a different address, so that no answer is shared. Then
each dashboard requests the overview every second and the charts every ten seconds, with the ETag of
its last answer, as the page does. Jobs change all the time.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from changes import BATCH, change_jobs
from filling import fill
from pymongo import MongoClient
from pymongo.database import Database
from scale import SECRET, Client, ask, collecting, find_family, read_cpu_s, serving

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.rollup.documents import PROGRESS
from jobmon.settings import Settings
from jobmon.web.auth import issue_token

OVERVIEW, CHARTS = "/dashboard/overview?range=1h&by=-queued", "/dashboard/charts?range=1h"
PAGE_REQUESTS = 200
EVERY_S = 1.0  # between two requests of a dashboard for the overview
RETRY_AFTER_S = 2  # the Retry-After of a 503
CHARTS_EVERY = 10  # one request for the charts in this many for the overview


class Dashboard(threading.Thread):
    """An open page: it sends requests from `start_at` to `end_at` (monotonic times)."""

    def __init__(self, port: int, token: str, start_at: float, end_at: float) -> None:
        super().__init__()
        self.statuses: Counter[int] = Counter()
        self.failures: Counter[str] = Counter()
        self.took_ms: list[float] = []
        self._is_refused = False
        self._overview, self._charts = (
            Client(port, path, token, has_cache=True) for path in (OVERVIEW, CHARTS)
        )
        self._next_at, self._end_at = start_at, end_at

    def run(self) -> None:
        index = random.randrange(CHARTS_EVERY)  # noqa: S311
        while self._next_at < self._end_at:
            time.sleep(max(0.0, self._next_at - time.monotonic()))
            self._ask(self._overview)
            if index % CHARTS_EVERY == 0:
                self._ask(self._charts)
            index += 1
            # As a page does: one request at a time, and a longer wait after a refusal.
            wait_s = random.uniform(1, 2) * RETRY_AFTER_S if self._is_refused else 0.0  # noqa: S311
            self._next_at = max(self._next_at + EVERY_S, time.monotonic() + wait_s)
        self._overview.close()
        self._charts.close()

    def _ask(self, client: Client) -> None:
        started = time.perf_counter()
        self._is_refused = False
        try:
            self.statuses[client.ask()] += 1
        except RuntimeError as error:
            self.failures[str(error)[:80]] += 1
            self._is_refused = True
            client.close()
        self.took_ms.append((time.perf_counter() - started) * 1_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--dashboards", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with Mongod(folder, cache_gb=4) as server:
            measure(server, arguments.jobs, arguments.dashboards, arguments.seconds)


def measure(server: Mongod, jobs: int, dashboards: int, seconds: float) -> None:
    uri = server.uri.replace("/?", "/jobmon?")
    fill(uri, jobs)
    with collecting(uri), serving(uri) as (port, web), MongoClient[dict[str, Any]](uri) as client:
        state = client.jobmon_rollups.state
        while not state.find_one({"name": "stats"}):
            time.sleep(0.1)
        while "completeUntil" not in (state.find_one({"name": PROGRESS}) or {}):
            time.sleep(0.1)
        with create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET)).app_context():
            token = issue_token("root", "admin", timedelta(hours=1))
        measure_pages(client.jobmon, port, token)
        for page_count in (0, dashboards):
            stop, writer = start_changing(client.jobmon)
            queries, cpu_s = count_queries(client), sum(map(read_cpu_s, find_family(web)))
            for path in (OVERVIEW, CHARTS):  # no dashboard gets the first answer: it takes longest
                ask(port, path, token)
            now = time.monotonic()
            pages = [
                Dashboard(port, token, now + EVERY_S * index / page_count, now + seconds)
                for index in range(page_count)
            ]
            for page in pages:
                page.start()
            time.sleep(max(0.0, now + seconds - time.monotonic()))
            for page in pages:
                page.join()
            stop.set()
            writer.join()
            report(
                page_count,
                seconds,
                count_queries(client) - queries,
                sum(map(read_cpu_s, find_family(web))) - cpu_s,
            )
            if pages:
                report_answers(pages)


def measure_pages(database: Database[dict[str, Any]], port: int, token: str) -> None:
    """Print the latencies of the overview, the list of jobs and a job, for one client."""
    stop, writer = start_changing(database)
    some_jobs = database.jobs.find({}, {"jobId": True}).limit(PAGE_REQUESTS)
    ids = [job["jobId"] for job in some_jobs]
    for name, paths in {
        "overview": [f"/dashboard?text={number}" for number in range(PAGE_REQUESTS)],
        "list of jobs": [f"/dashboard/jobs?page={number + 1}" for number in range(PAGE_REQUESTS)],
        "a job": [f"/dashboard/jobs/{job_id}" for job_id in ids],
    }.items():
        took_ms = []
        for path in paths:
            client = Client(port, path, token)
            started = time.perf_counter()
            client.ask()
            took_ms.append((time.perf_counter() - started) * 1_000)
            client.close()
        cuts = statistics.quantiles(took_ms, n=100)
        print(f"{name}: p50 {cuts[49]:.1f} ms, p95 {cuts[94]:.1f} ms", flush=True)
    stop.set()
    writer.join()


def start_changing(database: Database[dict[str, Any]]) -> tuple[threading.Event, threading.Thread]:
    """Start a thread that changes jobs; returns the event that stops it, and the thread."""
    stop = threading.Event()
    writer = threading.Thread(target=keep_changing, args=[database, stop])
    writer.start()
    return stop, writer


def keep_changing(database: Database[dict[str, Any]], stop: threading.Event) -> None:
    """Make about a hundred changes a second."""
    while not stop.wait(0.03 * BATCH):
        change_jobs(database)


def count_queries(client: MongoClient[dict[str, Any]]) -> int:
    """The number of queries (find, aggregate, count) that the server has answered."""
    metrics = client.admin.command("serverStatus")["metrics"]["commands"]
    return sum(int(metrics[name]["total"]) for name in ("find", "aggregate", "count"))


def report(page_count: int, seconds: float, queries: int, cpu_s: float) -> None:
    print(
        f"{page_count} dashboards: {queries / seconds:.1f} queries/s, including the collector's; "
        f"web {cpu_s / seconds:.0%} of a core",
        flush=True,
    )


def report_answers(pages: list[Dashboard]) -> None:
    statuses = sum((page.statuses for page in pages), Counter[int]())
    failures = sum((page.failures for page in pages), Counter[str]())
    took_ms = [ms for page in pages for ms in page.took_ms]
    p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
    times = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, slowest {max(took_ms):.0f} ms"
    print(f"  {dict(statuses)}, failed: {dict(failures)}; {times}")


if __name__ == "__main__":
    main()
