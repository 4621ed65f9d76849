"""Send random requests to jobmon in this process, with random documents in a real MongoDB.

    .venv/bin/python bench/fuzz.py    # 100,000 cases; exits with 1 if it finds a defect
    .venv/bin/python bench/fuzz.py --requests 1 --documents 0 --seed 4711    # repeat request 4711

A case is one request with its answer, or one accepted document with all answers about it.
`tests/fuzz` has the cases and the checks. A request depends only on its seed, a batch of documents
on its first seed: `--requests 0 --documents 1 --seed FIRST` repeats the batch.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pymongo import MongoClient

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from jobmon.demo.mongod import Mongod  # noqa: E402
from tests.fuzz.checks import FuzzedService, Log, captured_logs  # noqa: E402
from tests.fuzz.requests import make_request  # noqa: E402
from tests.support.processes import run  # noqa: E402

BATCH = 30
PRINT_EVERY = 1_000
SCHEMATHESIS_TIMEOUT_S = 12 * 3_600


class Findings:
    """Counts failed checks by kind, and prints the first of each kind."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.kinds: Counter[str] = Counter()

    @contextmanager
    def watch(self, case: str) -> Iterator[None]:
        """Count an error of the block, or in its log lines, instead of raising it."""
        try:
            yield
            self._log.check()
        except Exception as error:  # noqa: BLE001 - any error is a finding
            stacks = [line for line in self._log.lines if "Traceback" in line]
            message = f"{type(error).__name__}: {error}"
            kind = (stacks[-1].splitlines()[-1] if stacks else message)[:100]
            if kind not in self.kinds:
                print(
                    f"FOUND by {case}: {message[:1_000]}\n{stacks[-1][-2_000:] if stacks else ''}"
                )
            self.kinds[kind] += 1
        finally:
            self._log.lines.clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=80_000)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=59)
    parser.add_argument("--schemathesis", type=int, default=0, help="examples for each operation")
    arguments = parser.parse_args()
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        tempfile.TemporaryDirectory() as data,
        Mongod(Path(data)) as mongod,
        MongoClient(mongod.uri, tz_aware=True, datetime_conversion="DATETIME_AUTO") as mongo,
        captured_logs() as log,
    ):
        findings = Findings(log)
        services = [
            FuzzedService(mongod, mongo, f"fuzz_{index}", indexed=index == 0) for index in range(2)
        ]
        answers: Counter[int] = Counter()
        documents: Counter[str] = Counter()
        with suppress(KeyboardInterrupt):  # then print the results so far
            fuzz_requests(services[0], findings, arguments.requests, arguments.seed, answers)
            fuzz_documents(services, findings, arguments.documents, arguments.seed, documents)
    minutes = (time.monotonic() - started) / 60
    print(f"{answers.total():,} requests, {documents.total():,} documents; seed {arguments.seed}")
    print(f"answers: {dict(sorted(answers.items()))}; {minutes:.1f} min")
    for kind, times in findings.kinds.most_common():
        print(f"{times} times: {kind}")
    failed = bool(findings.kinds)
    if arguments.schemathesis:
        failed |= run_schemathesis(arguments.schemathesis) != 0
    return int(failed)


def fuzz_requests(
    service: FuzzedService, findings: Findings, count: int, seed: int, answers: Counter[int]
) -> None:
    """Send `count` requests; `answers` counts the answers by status."""
    service.fill_from(range(40))
    for number in range(count):
        with findings.watch(f"request {seed + number}"):
            answers[service.send(make_request(seed + number))] += 1
        if number % PRINT_EVERY == PRINT_EVERY - 1:
            print(f"{number + 1:,} requests", flush=True)


def fuzz_documents(
    services: list[FuzzedService], findings: Findings, count: int, seed: int, checked: Counter[str]
) -> None:
    """Check batches until the batches without a finding have `count` or more accepted documents."""
    printed, first_seed = 0, seed
    while checked.total() < count:
        service, per_page = services[first_seed // BATCH % len(services)], 2 + first_seed % 8
        seeds = range(first_seed, first_seed + BATCH)
        with findings.watch(f"documents {seeds[0]} to {seeds[-1]}, per_page {per_page}"):
            accepted = service.fill_from(seeds)
            service.check(per_page=per_page)
            checked["accepted"] += accepted
        first_seed += BATCH
        if checked.total() // PRINT_EVERY > printed:
            printed = checked.total() // PRINT_EVERY
            print(f"{checked.total():,} documents", flush=True)


def run_schemathesis(examples: int) -> int:
    """Run the suite's schemathesis tests over HTTP with more examples."""
    file = "tests/api/test_openapi_tools.py"
    selection = ["-n0", "-q", "-m", "long", "-p", "schemathesis.pytest.plugin"]
    selection += ["-k", "schemathesis", file]
    environment = os.environ | {"JOBMON_TEST_EXAMPLES": str(examples)}
    command = [sys.executable, "-m", "pytest", *selection]
    return run(command, timeout=SCHEMATHESIS_TIMEOUT_S, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
