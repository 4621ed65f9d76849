"""Requests and documents that nobody should send or store: would catch a 500, a list that loses a
job or does not end, figures that do not add up, a page that is not well-formed, and a secret that
is shown.

A small and always equal part of what `bench/fuzz.py` tries. What hypothesis draws are seeds: the
smallest batch that fails is what it reports."""

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
from .checks import FuzzedService, captured_logs
from .requests import request

small = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 2**40)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[True, False], ids=["with indexes", "without"])
def world(
    request: pytest.FixtureRequest, mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[FuzzedService]:
    name = f"test_fuzz_{int(request.param)}"
    world = FuzzedService(mongod, mongo, name, indexed=request.param)
    yield world
    world.close()


@small
@given(st.lists(seeds, min_size=15, max_size=25), st.integers(2, 9))
def test_no_document_breaks_a_list_a_figure_or_a_page_or_shows_a_secret(
    world: FuzzedService, drawn: list[int], per_page: int
) -> None:
    with captured_logs() as log:
        world.fill_from(drawn)
        world.check(per_page=per_page)
        log.check()


@small
@given(st.lists(seeds, min_size=60, max_size=90))
def test_no_request_is_a_500_or_told_what_is_not_its_own(
    world: FuzzedService, drawn: list[int]
) -> None:
    world.fill_from(range(20))
    with captured_logs() as log:
        for seed in drawn:
            world.answer(request(seed))
        log.check()


def test_in_ci_a_failing_example_is_not_shrunk() -> None:
    """Would catch a suite that is silent for minutes because one example fails."""
    program = (
        "import tests.conftest\n"
        "from tests.fuzz.test_fuzz import small\n"
        "from hypothesis import settings\n"
        "for used in (small, settings()):\n"
        "    print(sorted(phase.name for phase in used.phases))\n"
    )
    done = run(
        [sys.executable, "-c", program],
        timeout=60,
        cwd=ROOT,
        env=os.environ | {"CI": "true"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout == "['explicit', 'generate']\n" * 2
