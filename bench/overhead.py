"""What jobmon adds to a request: its rates in proportion to those of the bare stack.

    .venv/bin/python bench/overhead.py --jobs 1000000

Runs jobmon and the bare stack (`bare.py`) under gunicorn, two workers of eight threads each, on the
same database with a collector. 32 clients request one of them and then the other, five times.
Prints the median rates, and the median of the rounds' ratios.
"""

import argparse
import shutil
import signal
import statistics
import tempfile
from datetime import timedelta
from pathlib import Path

from filling import fill
from scale import SECRET, await_built, collecting, list_paths, measure_rate, serving

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod
from jobmon.settings import Settings
from jobmon.store.connection import Connection
from jobmon.web.auth import issue_token

BARE = ("--workers", "2", "--threads", "8", "--worker-class", "gthread", "bare:app")
ROUNDS, ROUND_S = 5, 3.0


def measure(uri: str, count: int) -> None:
    """Print a row for each answer."""
    settings = Settings(mongo_uri=uri, jwt_secret_key=SECRET, log_level="ERROR")
    connection = Connection(settings)
    with collecting(uri) as collector, serving(uri) as (port, _), serving(uri, BARE) as (bare, _):
        await_built(connection, collector)
        app = create_app(settings)
        with app.app_context():
            token = issue_token("user-7", "admin", timedelta(hours=9))
        paths = list_paths(connection, count)
        queue = paths["first page"]
        print("| 32 clients | jobmon | bare stack | jobmon / bare |\n| --- | --- | --- | --- |")
        for name, path in {
            "a job with its attempts": paths["a job"],
            "first page, 20 jobs": queue,
            "first page, 100 jobs": f"{queue}?per_page=100",
            "by status and type": paths["by status and type"],
        }.items():
            rates = [
                [measure_rate(each, path, token, ROUND_S) for each in (port, bare)]
                for _ in range(ROUNDS)
            ]
            ratio = statistics.median(own / other for own, other in rates)
            own, other = map(statistics.median, zip(*rates, strict=True))
            print(f"| {name} | {own:,.0f}/s | {other:,.0f}/s | {ratio:.2f} |", flush=True)
    connection.client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    count = parser.parse_args().jobs
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the started processes
    folder = Path(tempfile.mkdtemp(prefix="jobmon-bench-"))
    try:
        with Mongod(folder, cache_gb=2) as server:
            uri = server.uri.replace("/?", "/jobmon?")
            print(f"{count:,} jobs: filled in {fill(uri, count):.0f} s", flush=True)
            measure(uri, count)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
