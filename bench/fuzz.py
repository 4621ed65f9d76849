"""Requests and documents that nobody should send or store, 100,000 in all, against a real server.

    .venv/bin/python bench/fuzz.py    # prints progress; ends with 1 if it found anything
    .venv/bin/python bench/fuzz.py --requests 1 --documents 0 --seed 4711    # that request again

A case is one request whose answer was checked, or one document that the server took and whose every
answer was checked. What they are and what must hold is in `tests/fuzz`; a case is made from its
seed alone, so a finding can be had again.
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
from tests.fuzz.requests import request  # noqa: E402
from tests.support.processes import run  # noqa: E402

BATCH = 30
SAY_EVERY = 1_000
LONGEST_S = 12 * 3_600


class Findings:
    """What did not hold, each kind once."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.kinds: Counter[str] = Counter()

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        try:
            yield
            self._log.check()
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            stacks = [said for said in self._log.said if "Traceback" in said]
            said = f"{type(error).__name__}: {error}"
            kind = (stacks[-1].splitlines()[-1] if stacks else said)[:100]
            if kind not in self.kinds:
                print(f"FOUND by {what}: {said[:1_000]}\n{stacks[-1][-2_000:] if stacks else ''}")
            self.kinds[kind] += 1
        finally:
            self._log.said.clear()


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
        worlds = [FuzzedService(mongod, mongo, f"fuzz_{n}", indexed=n == 0) for n in range(2)]
        answers: Counter[int] = Counter()
        documents: Counter[str] = Counter()
        with suppress(KeyboardInterrupt):  # then what was done so far is told
            fuzz_requests(worlds[0], findings, arguments.requests, arguments.seed, answers)
            fuzz_documents(worlds, findings, arguments.documents, arguments.seed, documents)
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
    world: FuzzedService, findings: Findings, count: int, seed: int, answers: Counter[int]
) -> None:
    """Counts the answers by their status."""
    world.fill_from(range(40))
    for number in range(count):
        with findings.of(f"request {seed + number}"):
            answers[world.answer(request(seed + number))] += 1
        if number % SAY_EVERY == SAY_EVERY - 1:
            print(f"{number + 1:,} requests", flush=True)


def fuzz_documents(
    worlds: list[FuzzedService], findings: Findings, count: int, seed: int, checked: Counter[str]
) -> None:
    """Counts the documents that the server took and that were checked."""
    said, first = 0, seed
    while checked.total() < count:
        world = worlds[first // BATCH % len(worlds)]
        with findings.of(f"documents {first} to {first + BATCH - 1}, per_page {2 + first % 8}"):
            taken = world.fill_from(range(first, first + BATCH))
            world.check(per_page=2 + first % 8)
            checked["taken"] += taken
        first += BATCH
        if checked.total() // SAY_EVERY > said:
            said = checked.total() // SAY_EVERY
            print(f"{checked.total():,} documents", flush=True)


def run_schemathesis(examples: int) -> int:
    """The suite's own schemathesis over HTTP, with more examples."""
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "tests/api/test_openapi_tools.py"]
    more = os.environ | {"JOBMON_TEST_EXAMPLES": str(examples)}
    chosen = [*command, "-k", "schemathesis"]
    return run(chosen, timeout=LONGEST_S, cwd=ROOT, env=more).returncode


if __name__ == "__main__":
    sys.exit(main())
