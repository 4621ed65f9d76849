"""Requests and documents with arbitrary and malformed values.

Catches a 500, a list that lacks a job or does not end, wrong statistics, a malformed page, and a
secret in an answer. `bench/fuzz.py` runs the same checks with many more seeds. Hypothesis draws the
seeds; outside CI it also searches for the smallest batch of seeds that fails.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod

from ..support.processes import run
from ..support.waiting import PATIENCE_S
from .checks import FuzzedService, captured_logs
from .requests import make_request

pytestmark = pytest.mark.long

few_examples = settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SEEDS = st.integers(0, 2**40)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[True, False], ids=["with indexes", "without indexes"])
def service(
    request: pytest.FixtureRequest, mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[FuzzedService]:
    name = f"test_fuzz_{int(request.param)}"
    service = FuzzedService(mongod, mongo, name, indexed=request.param)
    yield service
    service.close()


@few_examples
@given(st.lists(SEEDS, min_size=15, max_size=25, unique=True), st.integers(2, 9))
def test_answers_about_malformed_documents_are_correct_and_show_no_secret(
    service: FuzzedService, seeds: list[int], per_page: int
) -> None:
    with captured_logs() as log:
        service.fill_from(seeds)
        service.check(per_page=per_page)
        log.check()


@few_examples
@given(st.lists(SEEDS, min_size=80, max_size=120, unique=True))
def test_answers_to_malformed_requests_are_correct_and_show_no_secret(
    service: FuzzedService, seeds: list[int]
) -> None:
    service.fill_from(range(20))
    with captured_logs() as log:
        for seed in seeds:
            service.send(make_request(seed))
        log.check()


def test_hypothesis_in_ci_does_not_shrink_examples() -> None:
    """Catches a suite that prints nothing for minutes, because Hypothesis shrinks an example."""
    program = (
        "import tests.conftest\n"
        "from tests.fuzz.test_fuzz import few_examples\n"
        "from hypothesis import settings\n"
        "for profile in (few_examples, settings()):\n"
        "    print(sorted(phase.name for phase in profile.phases))\n"
    )
    completed = run(
        [sys.executable, "-c", program],
        timeout=PATIENCE_S,
        cwd=ROOT,
        env=os.environ | {"CI": "true"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert completed.stdout == "['explicit', 'generate']\n" * 2
