"""Measure what a row of an export costs, compared with a bare loop over pymongo with orjson.

    .venv/bin/python bench/exports.py --jobs 50000 200000

Exports all jobs as NDJSON and as CSV in one process, in jobmon's own job format and with the
profile of Agenda. The bare loop reads the same jobs, without the payload, and serializes them. In
each round every variant runs once. Prints the medians of the rows per second of CPU time and of the
ratio to the bare loop, and the peak memory of a process that only exports.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from adapters import fill_profile
from flask.testing import FlaskClient
from pymongo import DESCENDING, MongoClient
from scale import SECRET, read_peak_mib

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.web.auth import issue_token

Document = dict[str, Any]
PROFILES = ("jobmon", "agenda")
FORMATS = ("ndjson", "csv")
ROUNDS = 5


class Exporter:
    """Exports all jobs of a queue in this process, or reads them without jobmon.

    `export` and `read_bare` return the number of rows.
    """

    def __init__(self, settings: Settings) -> None:
        app = create_app(settings)
        with app.app_context():
            token = issue_token("root", "admin", timedelta(hours=9))
        self._client: FlaskClient = app.test_client()
        self._headers = {"Authorization": f"Bearer {token}"}
        self._mongo = MongoClient[Document](settings.mongo_uri)
        self._jobs = self._mongo.get_default_database()[settings.jobs_collection]
        self._payload = "data" if settings.profile == "agenda" else "payload"
        self._order = "_id" if settings.profile == "agenda" else "createdAt"

    def export(self, file_format: str) -> int:
        """Request the whole file."""
        path = f"/admin/jobs/queue?format={file_format}"
        answer = self._client.get(path, headers=self._headers)
        lines = sum(chunk.count(b"\n") for chunk in answer.iter_encoded())
        answer.close()
        # The header of a CSV file, and the last line, which shows that the file is complete.
        return lines - (2 if file_format == "csv" else 1)

    def read_bare(self) -> int:
        """Read and serialize all jobs without jobmon."""
        jobs = self._jobs.find({}, {self._payload: 0}).sort(self._order, DESCENDING)
        option = orjson.OPT_APPEND_NEWLINE
        return sum(1 for job in jobs if orjson.dumps(job, str, option))

    def choose_reader(self, variant: str) -> Callable[[], int]:
        """The export in the format `variant`, or the bare loop."""
        return (lambda: self.export(variant)) if variant in FORMATS else self.read_bare


def measure_rate(work: Callable[[], int], count: int) -> float:
    """Rows a second of this thread's CPU time."""
    started = time.thread_time()
    if (rows := work()) != count:
        raise RuntimeError(f"{rows:,} rows instead of {count:,}")
    return count / (time.thread_time() - started)


def measure_peak_mib(settings: Settings, name: str) -> int:
    """The peak memory of a new process that runs one export, or the bare loop."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_read_peak_mib, (settings, name))


def _read_peak_mib(settings: Settings, name: str) -> int:
    Exporter(settings).choose_reader(name)()
    return read_peak_mib([os.getpid()])


def measure(server: Mongod, profile: str, count: int) -> None:
    """Print a row for each format and for the bare loop; then drop the database."""
    uri = server.uri.replace("/?", f"/{profile}_{count}?")
    options = {"jwt_secret_key": SECRET, "log_level": "ERROR", "stats_ttl_ms": 0}
    settings = fill_profile(Settings(mongo_uri=uri, profile=profile, **options), count)
    names = ("bare loop", *FORMATS)
    exporter = Exporter(settings)
    rounds = [
        {name: measure_rate(exporter.choose_reader(name), count) for name in names}
        for _ in range(ROUNDS)
    ]
    for name in names:
        rate = statistics.median(rates[name] for rates in rounds)
        ratio = statistics.median(rates[name] / rates["bare loop"] for rates in rounds)
        peak = measure_peak_mib(settings, name)
        cells = (profile, f"{count:,}", name, f"{rate:,.0f}/s", f"{ratio:.2f}", f"{peak} MiB")
        print(f"| {' | '.join(cells)} |", flush=True)
    with MongoClient[Document](uri) as client:
        client.drop_database(client.get_default_database().name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--profiles", nargs="+", default=list(PROFILES), choices=PROFILES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with Mongod(folder, cache_gb=2) as server:
            print(
                "| profile | jobs | | rows a second of CPU | ratio to the bare loop | peak memory |"
            )
            print("| --- | --- | --- | --- | --- | --- |")
            for profile in arguments.profiles:
                for count in arguments.jobs:
                    measure(server, profile, count)
    print(f"load of the last 15 minutes: {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
