"""Measure what 200 open dashboards cost the service and its database at a million jobs.

    .venv/bin/python bench/dashboards.py --jobs 1000000 --dashboards 200

Each dashboard requests the overview every second and the charts every ten seconds, with the ETag of
its last answer, as the page does. Jobs change meanwhile.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from changes import BATCH, change_jobs
from filling import fill
from pymongo import MongoClient
from pymongo.database import Database
from scale import SECRET, collecting, find_family, read_cpu_s, serving

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.rollup.documents import PROGRESS
from jobmon.settings import Settings
from jobmon.web.auth import issue_token

OVERVIEW, CHARTS = "/dashboard/overview?range=1h&by=-queued", "/dashboard/charts?range=1h"
EVERY_S = 1.0
CHARTS_EVERY = 10


class Dashboard(threading.Thread):
    """An open page; it sends its first request at `first_s` and ends at `until` (monotonic)."""

    def __init__(self, port: int, token: str, first_s: float, until: float) -> None:
        super().__init__()
        self.statuses: Counter[int] = Counter()
        self.took_ms: list[float] = []
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}", "X-Jobmon-Part": "1"}
        self._tags: dict[str, str] = {}
        self._next, self._until = first_s, until

    def run(self) -> None:
        number = 0
        while self._next < self._until:
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._ask(OVERVIEW)
            if number % CHARTS_EVERY == 0:
                self._ask(CHARTS)
            number += 1
            self._next += EVERY_S

    def _ask(self, path: str) -> None:
        started = time.perf_counter()
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        headers = {"If-None-Match": self._tags[path]} if path in self._tags else {}
        connection.request("GET", path, headers=self._headers | headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        self.statuses[response.status] += 1
        self._tags[path] = response.headers.get("ETag") or ""
        self.took_ms.append((time.perf_counter() - started) * 1_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--dashboards", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="jobmon-bench-"))
    try:
        with Mongod(folder, cache_gb=4) as server:
            measure(server, arguments.jobs, arguments.dashboards, arguments.seconds)
    finally:
        shutil.rmtree(folder)


def measure(server: Mongod, jobs: int, dashboards: int, seconds: float) -> None:
    uri = server.uri.replace("/?", "/jobmon?")
    fill(uri, jobs)
    with collecting(uri), serving(uri) as (port, web), MongoClient[dict[str, Any]](uri) as client:
        rollups = client.jobmon_rollups.state
        while not rollups.find_one({"name": "stats"}):
            time.sleep(0.1)
        while "completeUntil" not in (rollups.find_one({"name": PROGRESS}) or {}):
            time.sleep(0.1)
        with create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET)).app_context():
            token = issue_token("root", "admin", timedelta(hours=1))
        for number in (0, dashboards):
            stop = threading.Event()
            writer = threading.Thread(target=keep_changing, args=[client.jobmon, stop])
            writer.start()
            before, cpu = count_queries(client), sum(map(read_cpu_s, find_family(web)))
            now = time.monotonic()
            pages = [
                Dashboard(port, token, now + EVERY_S * index / number, now + seconds)
                for index in range(number)
            ]
            for page in pages:
                page.start()
            time.sleep(max(0.0, now + seconds - time.monotonic()))
            for page in pages:
                page.join()
            stop.set()
            writer.join()
            report(
                number,
                seconds,
                count_queries(client) - before,
                sum(map(read_cpu_s, find_family(web))) - cpu,
            )
            if pages:
                report_answers(pages)


def keep_changing(database: Database[dict[str, Any]], stop: threading.Event) -> None:
    """Make some hundred changes a second."""
    while not stop.wait(0.03 * BATCH):
        change_jobs(database)


def count_queries(client: MongoClient[dict[str, Any]]) -> int:
    """The number of queries (find, aggregate, count) that the server has answered."""
    metrics = client.admin.command("serverStatus")["metrics"]["commands"]
    return sum(int(metrics[name]["total"]) for name in ("find", "aggregate", "count"))


def report(number: int, seconds: float, queries: int, cpu: float) -> None:
    print(
        f"{number} dashboards: {queries / seconds:.1f} queries/s, including the collector's; "
        f"web {cpu / seconds:.0%} of a core",
        flush=True,
    )


def report_answers(pages: list[Dashboard]) -> None:
    statuses = sum((page.statuses for page in pages), Counter[int]())
    took_ms = [ms for page in pages for ms in page.took_ms]
    p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
    print(f"  {dict(statuses)}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, slowest {max(took_ms):.0f} ms")


if __name__ == "__main__":
    main()
