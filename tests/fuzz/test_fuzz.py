"""Requests and documents that nobody should send or store: would catch a 500, a list that loses a
job or does not end, figures that do not add up, a page that is not well-formed, and a secret that
is shown.

A small and always equal part of what `bench/fuzz.py` tries. What hypothesis draws are seeds: the
smallest batch that fails is what it reports."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from jobmon.embedded import Mongod

from .checks import World, listening_to_logs
from .requests import request

small = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 2**40)


@pytest.fixture(scope="module", params=[True, False], ids=["with indexes", "without"])
def world(
    request: pytest.FixtureRequest, mongod: Mongod, mongo: MongoClient[dict[str, Any]]
) -> Iterator[World]:
    name = f"test_fuzz_{int(request.param)}"
    world = World(mongod, mongo, name, indexed=request.param)
    yield world
    world.close()


@small
@given(st.lists(seeds, min_size=15, max_size=25), st.integers(2, 9))
def test_no_document_breaks_a_list_a_figure_or_a_page_or_shows_a_secret(
    world: World, drawn: list[int], per_page: int
) -> None:
    with listening_to_logs() as log:
        world.fill_from(drawn)
        world.check(per_page=per_page)
        log.check()


@small
@given(st.lists(seeds, min_size=60, max_size=90))
def test_no_request_is_a_500_or_told_what_is_not_its_own(world: World, drawn: list[int]) -> None:
    world.fill_from(range(20))
    with listening_to_logs() as log:
        for seed in drawn:
            world.answer(request(seed))
        log.check()
