"""Measure what jobmon adds to a request: compare its rate with the rates of other services.

    .venv/bin/python bench/overhead.py --jobs 1000000

Runs jobmon, the bare stack (`bare.py`) and Express (`express.mjs`) on the same database with a
collector. Each has two processes; a Python process works on sixteen requests at a time. In five
rounds, 32 clients send requests to jobmon and then to the service that it is compared with (for
cheap answers: jobmon's own `/healthz`). Prints the median rates, the median of the rounds' ratios,
and how long each program takes to start. Without Node.js or npm, Express is left out.
"""

import argparse
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from filling import fill
from scale import (
    JOBMON,
    SECRET,
    ask,
    await_built,
    collecting,
    end_process,
    list_paths,
    measure_rate,
    serving,
)

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod, free_port
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.web.auth import issue_token

BARE = ("--workers", "2", "--threads", "16", "--worker-class", "gthread", "bare:app")
EXPRESS = ("express", "mongodb", "jsonwebtoken")
OVERVIEW = "/dashboard/overview?range=1h&by=-queued"
ROUNDS, ROUND_S = 5, 3.0  # ROUND_S: for each of the two services
STARTS = 5  # of each program
MAX_START_S = 30


class Request(NamedTuple):
    """A GET request to a service. With `has_cache`, clients send the ETag of their last answer.

    With `each_differs`, each client sends a different request, so that no answer is shared.
    """

    port: int
    path: str
    has_cache: bool = False
    each_differs: bool = False

    def measure_rate(self, token: str) -> float:
        return measure_rate(
            self.port,
            self.path,
            token,
            ROUND_S,
            has_cache=self.has_cache,
            each_differs=self.each_differs,
        )


def measure(uri: str, count: int, folder: Path) -> None:
    """Print a row for each comparison."""
    settings = Settings(mongo_uri=uri, jwt_secret_key=SECRET, log_level="ERROR")
    connection = Connection(settings)
    with (
        collecting(uri) as collector,
        serving(uri) as (jobmon_port, _),
        serving(uri, BARE) as (bare_port, _),
        serving_express(uri, folder) as express_port,
    ):
        await_built(connection, collector)
        app = create_app(settings)
        with app.app_context():
            token = issue_token("user-7", "admin", timedelta(hours=9))
        paths = list_paths(connection, count)
        list_path, job_path = paths["first page"], paths["a job"]
        print("| 32 clients | jobmon | compared with | jobmon / other |\n| --- | --- | --- | --- |")
        for name, path in {
            "a job with its attempts": job_path,
            "first page, 20 jobs": list_path,
            "first page, 100 jobs": f"{list_path}?per_page=100",
            "by status and type": paths["by status and type"],
            "by cursor, far down": paths["450,000 deep by cursor"],
        }.items():
            # The bare stack has no cursors, so its first page is compared.
            bare_path = list_path if "cursor" in name else path
            for each_differs in (False, True) if path != job_path else (False,):
                row_name = f"{name}, different requests" if each_differs else name
                to_jobmon = Request(jobmon_port, path, each_differs=each_differs)
                to_bare = Request(bare_port, bare_path, each_differs=each_differs)
                compare(row_name, "bare stack", to_jobmon, to_bare, token)
        if express_port is not None:
            compare(
                "a job with its attempts",
                "Express",
                Request(jobmon_port, job_path),
                Request(express_port, job_path),
                token,
            )
        health = Request(jobmon_port, "/healthz")
        compare("stats", "/healthz", Request(jobmon_port, paths["stats"]), health, token)
        unchanged = Request(jobmon_port, OVERVIEW, has_cache=True)
        compare("an unchanged overview (304)", "/healthz", unchanged, health, token)
        file = Request(jobmon_port, "/openapi.json", has_cache=True)
        compare("an unchanged file (304)", "/healthz", file, health, token)
        compare("/healthz", "bare stack's", health, Request(bare_port, "/healthz"), token)
    connection.client.close()


def measure_starts(uri: str) -> None:
    """Print the median time and CPU time of imports, of `--help` and until a first answer."""

    def run(*arguments: str) -> float:
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.monotonic()

    def read_children_cpu_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def serve(app: tuple[str, ...]) -> float:
        with serving(uri, app):
            return time.monotonic()

    # Each function returns the time (monotonic) at which the start was complete.
    starts: dict[str, Callable[[], float]] = {
        "import flask": lambda: run("-c", "import flask"),
        "import pymongo": lambda: run("-c", "import pymongo"),
        "import jobmon.queue": lambda: run("-c", "import jobmon.queue"),
        "import jobmon.app": lambda: run("-c", "import jobmon.app"),
        "jobmon --help": lambda: run("-m", "jobmon.cli", "--help"),
        "bare stack, to the first answer": lambda: serve(BARE),
        "jobmon, to the first answer": lambda: serve(JOBMON),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in starts}
    for _ in range(STARTS):
        for name, start in starts.items():
            cpu_before_s, started = read_children_cpu_s(), time.monotonic()
            took_s = start() - started
            cpu_s = read_children_cpu_s() - cpu_before_s
            times[name].append((took_s, cpu_s))
    print("| start | time | CPU |\n| --- | --- | --- |")
    for name, pairs in times.items():
        took_s, cpu_s = map(statistics.median, zip(*pairs, strict=True))
        print(f"| {name} | {took_s:.2f} s | {cpu_s:.2f} s |", flush=True)


def compare(label: str, peer_name: str, jobmon: Request, peer: Request, token: str) -> None:
    """Print the rates of a request to jobmon and of the request that it is compared with."""
    rates = [(jobmon.measure_rate(token), peer.measure_rate(token)) for _ in range(ROUNDS)]
    ratio = statistics.median(jobmon_rate / peer_rate for jobmon_rate, peer_rate in rates)
    jobmon_rate, peer_rate = map(statistics.median, zip(*rates, strict=True))
    peer_cell = f"{peer_name}: {peer_rate:,.0f}/s"
    print(f"| {label} | {jobmon_rate:,.0f}/s | {peer_cell} | {ratio:.2f} |", flush=True)


@contextmanager
def serving_express(uri: str, folder: Path) -> Iterator[int | None]:
    """Run `express.mjs`; yields its port, or None without Node.js, npm or its packages."""
    npm, node = shutil.which("npm"), shutil.which("node")
    folder = folder / "express"
    folder.mkdir()
    if npm is None or node is None or not _install(npm, folder):
        print(
            "Express is not measured: npm is missing, or could not install it",
            flush=True,
        )
        yield None
        return
    script = shutil.copy(Path(__file__).parent / "express.mjs", folder)
    port = free_port()
    environment = dict(os.environ) | {
        "JOBMON_MONGO_URI": uri,
        "JOBMON_JWT_SECRET_KEY": SECRET,
        "NODE_ENV": "production",
        "PORT": str(port),
    }
    process = subprocess.Popen([node, script], env=environment, cwd=folder)
    try:
        until = time.monotonic() + MAX_START_S
        while True:
            try:
                ask(port, "/healthz", "")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield port
    finally:
        end_process(process)


def _install(npm: str, folder: Path) -> bool:
    command = [npm, "install", "--no-audit", "--no-fund", "--silent", *EXPRESS]
    return subprocess.run(command, cwd=folder, check=False).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    count = parser.parse_args().jobs
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the started processes
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        with Mongod(folder, cache_gb=2) as server:
            uri = server.uri.replace("/?", "/jobmon?")
            print(f"{count:,} jobs: filled in {fill(uri, count):.0f} s", flush=True)
            measure(uri, count, folder)
            measure_starts(uri)


if __name__ == "__main__":
    main()
