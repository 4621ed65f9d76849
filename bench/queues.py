"""Measure what many queues cost: start, memory, work at rest, and sharing among collectors.

    .venv/bin/python bench/queues.py

Watches one queue and then 100 queues (`--queues`), which three collectors then share, and 10 queues
in five deployments, one of them frozen. Prints a line for each measurement; a core is 100% of CPU.
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filling import make_job
from pymongo import MongoClient
from scale import SECRET, Client, ask, end_process, find_family, read_cpu_s

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod, free_port
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection
from jobmon.web.auth import issue_token

JOBS = 200  # in each queue
IDLE_S = 20.0  # how long the work at rest is measured
LONGEST_WAIT_S = 120.0
FRESH_S = 5.0  # the web service uses no older statistics
COMMANDS = ("query", "insert", "update", "delete", "getmore", "command")  # MongoDB's `opcounters`
PATHS = ("/metrics", "/queues", "/admin/jobs/stats")

Document = dict[str, Any]


def fill_queue(uri: str, name: str, jobs: int = JOBS) -> None:
    """Insert finished and waiting jobs into one queue, and create its indexes."""
    settings = Settings(mongo_uri=uri, jobs_collection=name, attempts_collection=f"{name}_attempts")
    rng, now = random.Random(name), datetime.now(UTC)  # noqa: S311
    with MongoClient[Document](uri) as client:
        database = client.get_default_database()
        database.create_collection(f"{name}_attempts")
        database[name].insert_many(
            make_job(number, now - timedelta(seconds=number), rng) for number in range(jobs)
        )
        create_indexes(Connection(settings, client))


def write_queues_file(path: Path, queues: dict[str, str]) -> None:
    """Write a file of queues; `queues` maps each name to a connection string."""
    tables = (
        f'[{name}]\nuri = "{uri}"\ncollection = "{name}"\nattempts_collection = "{name}_attempts"\n'
        for name, uri in queues.items()
    )
    path.write_text("".join(tables))


def make_environment(home_uri: str, path: Path, port: int) -> dict[str, str]:
    return dict(os.environ) | {
        "JOBMON_MONGO_URI": home_uri,
        "JOBMON_QUEUES": str(path),
        "JOBMON_JWT_SECRET_KEY": SECRET,
        "JOBMON_BIND": f"127.0.0.1:{port}",
        "JOBMON_LOG_LEVEL": "ERROR",
    }


@contextmanager
def running(command: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of `jobmon`; yields its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobmon.cli", command], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        end_process(process)


def await_true(condition: Callable[[], object]) -> float:
    """Wait for a condition; returns the seconds. Raises TimeoutError after `LONGEST_WAIT_S`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() > started + LONGEST_WAIT_S:
            raise TimeoutError
        time.sleep(0.05)
    return time.monotonic() - started


def is_answered(port: int, path: str, token: str = "") -> bool:
    try:
        ask(port, path, token)
    except (OSError, RuntimeError):
        return False
    return True


def read_memory_mib(pids: Sequence[int]) -> float:
    """The memory of these processes; memory that they share is counted once."""
    parts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(part.split("\nPss:")[1].split()[0]) for part in parts) / 1_024


class Observer:
    """Reads the documents that collectors have written to jobmon's own database."""

    def __init__(self, home_uri: str) -> None:
        self.client = MongoClient[Document](home_uri, tz_aware=True)
        self._rollups = self.client.jobmon_rollups

    def count_queues_by_holder(self) -> Counter[str]:
        """The number of queues whose lease each collector process holds now."""
        alive = {"name": "collector", "$expr": {"$gt": ["$expiresAt", "$$NOW"]}}
        return Counter(lease["holder"] for lease in self._rollups.leases.find(alive))

    def read_ages_s(self) -> list[float]:
        """The ages of all statistics in seconds."""
        pipeline = [
            {"$match": {"name": "stats"}},
            {"$project": {"age": {"$subtract": ["$$NOW", "$at"]}}},
        ]
        return [row["age"] / 1_000 for row in self._rollups.state.aggregate(pipeline)]

    def count_fresh_stats(self) -> int:
        return sum(age_s <= FRESH_S for age_s in self.read_ages_s())

    def count_commands(self) -> int:
        """The number of commands since the server started."""
        counters = self.client.admin.command("serverStatus")["opcounters"]
        return sum(counters[name] for name in COMMANDS)


def time_answers(port: int, path: str, token: str, count: int = 7) -> str:
    """The time of the first answer and the median of the others, as text."""
    took_ms = []
    client = Client(port, path, token)
    for _ in range(count):
        started = time.perf_counter()
        try:
            client.ask()
        except RuntimeError:
            return "not answered"
        took_ms.append((time.perf_counter() - started) * 1_000)
        time.sleep(0.5)  # so that two requests do not share an answer
    client.close()
    return f"first {took_ms[0]:.0f} ms, then {statistics.median(took_ms[1:]):.0f} ms"


def measure(
    server: Mongod, path: Path, home_uri: str, queues: dict[str, str], reachable_count: int
) -> None:
    """Print start, memory, work at rest and answers, for one collector and one web service.

    `home_uri` is the database with jobmon's own data.
    """
    write_queues_file(path, queues)
    port = free_port()
    environment = make_environment(home_uri, path, port)
    settings = Settings(mongo_uri=home_uri, jwt_secret_key=SECRET, log_level="ERROR")
    with create_app(settings).app_context():
        token = issue_token("bench", "admin", timedelta(hours=1))
    observer = Observer(home_uri)
    observer.client.drop_database("jobmon_rollups")
    load = os.getloadavg()[0]
    print(f"\n{len(queues)} queues, {reachable_count} can be reached; load {load:.0f}", flush=True)
    with running("collector", environment) as collector:
        leases_s = await_true(lambda: observer.count_queues_by_holder().total() == reachable_count)
        stats_s = leases_s + await_true(lambda: len(observer.read_ages_s()) == reachable_count)
        print(f"collector: all leases after {leases_s:.1f} s, all statistics after {stats_s:.1f} s")
        with running("run", environment) as web:
            first_s = await_true(lambda: is_answered(port, "/healthz"))
            ready_s = first_s + await_true(lambda: is_answered(port, "/readyz"))
            print(f"web: first answer after {first_s:.1f} s, ready after {ready_s:.1f} s")
            time.sleep(20)  # the collector counts the history of the first minutes
            family = find_family(web.pid)
            groups = {"collector": [collector.pid], "web": family, "database": [server.pid]}
            idle = observe_idle(observer, groups)
            print("at rest: " + ", ".join(f"{name} {share:.1%}" for name, share in idle.items()))
            for route in PATHS:
                print(f"GET {route}: {time_answers(port, route, token)}", flush=True)
            for name in ("collector", "web"):
                print(f"memory: {name} {read_memory_mib(groups[name]):.0f} MiB", flush=True)
    observer.client.close()


def observe_idle(observer: Observer, groups: dict[str, list[int]]) -> dict[str, float]:
    """The CPU of each group of processes as a share of a core; prints the commands a second."""

    def read_cpu() -> dict[str, float]:
        return {name: sum(map(read_cpu_s, pids)) for name, pids in groups.items()}

    cpu_before, commands_before = read_cpu(), observer.count_commands()
    started = time.monotonic()
    time.sleep(IDLE_S)
    took_s, cpu_after = time.monotonic() - started, read_cpu()
    commands = observer.count_commands() - commands_before
    print(f"at rest: {commands / took_s:.0f} commands a second")
    return {name: (cpu_after[name] - cpu_before[name]) / took_s for name in groups}


def measure_sharing(path: Path, home_uri: str, queues: dict[str, str]) -> None:
    """Print how one to three collectors share queues, and how old statistics get after a kill."""
    write_queues_file(path, queues)
    environment = make_environment(home_uri, path, free_port())
    observer = Observer(home_uri)
    observer.client.drop_database("jobmon_rollups")
    print(f"\nsharing {len(queues)} queues", flush=True)
    with ExitStack() as stack:
        collectors = []
        for count in (1, 2, 3):
            collectors.append(stack.enter_context(running("collector", environment)))
            fair_share = len(queues) // count
            took_s = await_true(
                lambda fair_share=fair_share, count=count: (
                    len(shares := observer.count_queues_by_holder()) == count
                    and shares.total() == len(queues)
                    and max(shares.values()) <= fair_share + 1
                )
            )
            shares = sorted(observer.count_queues_by_holder().values())
            print(f"{count} collectors: {shares} after {took_s:.1f} s", flush=True)
            await_true(lambda: len(observer.read_ages_s()) == len(queues))
        collectors[0].kill()
        killed_at, oldest_s = time.monotonic(), 0.0
        while observer.count_fresh_stats() < len(queues) or time.monotonic() < killed_at + FRESH_S:
            oldest_s = max(oldest_s, *observer.read_ages_s())
            time.sleep(0.05)
        took_s = time.monotonic() - killed_at
        print(f"kill -9 of one: all statistics are fresh again after {took_s:.1f} s, ", end="")
        shares = sorted(observer.count_queues_by_holder().values())
        print(f"oldest statistics {oldest_s:.1f} s, shares {shares}")
    observer.client.close()


def database_uri(server: Mongod, name: str) -> str:
    return server.uri.replace("/?", f"/{name}?")


def measure_frozen(folder: Path, server: Mongod, path: Path, home_uri: str) -> None:
    """Measure ten queues in five deployments, of which one is frozen: it never answers."""
    with ExitStack() as stack:
        deployments = [
            stack.enter_context(Mongod(folder / f"other-{number}", cache_gb=0.25))
            for number in range(4)
        ]
        uris = [home_uri, *(database_uri(deployment, "bench") for deployment in deployments)]
        queues = {f"d{number}": uris[number % 5] for number in range(10)}
        for name, uri in queues.items():
            fill_queue(uri, name)
        os.kill(deployments[-1].pid, signal.SIGSTOP)
        try:
            measure(server, path, home_uri, queues, 8)
        finally:
            os.kill(deployments[-1].pid, signal.SIGCONT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queues", type=int, default=100)
    parser.add_argument("--only", choices=["many", "sharing", "frozen"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobmon-bench-") as name:
        folder = Path(name)
        path = folder / "queues.toml"
        with Mongod(folder / "home", cache_gb=1) as server:
            home_uri = database_uri(server, "bench")
            names = [f"q{number:03}" for number in range(arguments.queues)]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda name: fill_queue(home_uri, name), names))
            queues = dict.fromkeys(names, home_uri)
            if arguments.only in (None, "many"):
                measure(server, path, home_uri, {names[0]: home_uri}, 1)
                measure(server, path, home_uri, queues, len(queues))
            if arguments.only in (None, "sharing"):
                measure_sharing(path, home_uri, queues)
            if arguments.only in (None, "frozen"):
                measure_frozen(folder, server, path, home_uri)


if __name__ == "__main__":
    main()
