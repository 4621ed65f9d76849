"""Histograms: catches a percentile that is further off than promised."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from jobmon.rollup.histogram import bucket, bucket_expression, pack, percentiles, unpack

DURATIONS = st.lists(st.integers(0, 10**10), min_size=1, max_size=200)


@given(durations=DURATIONS, fraction=st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_at_most_five_percent_off(durations: list[int], fraction: float) -> None:
    exact = sorted(durations)[math.ceil(fraction * len(durations)) - 1]
    (found,) = percentiles(Counter(map(bucket, durations)), [fraction])
    assert found == pytest.approx(exact, rel=0.05, abs=1)


@given(one=DURATIONS, other=DURATIONS)
def test_merging_is_adding(one: list[int], other: list[int]) -> None:
    merged = Counter(map(bucket, one)) + Counter(map(bucket, other))
    assert merged == Counter(map(bucket, one + other))


@given(histogram=st.dictionaries(st.integers(0, 2**16 - 1), st.integers(1, 2**63), max_size=99))
def test_unpacking_returns_the_packed_histogram(histogram: dict[int, int]) -> None:
    assert unpack(pack(Counter(histogram))) == Counter(histogram)


def test_an_empty_histogram_has_no_percentiles() -> None:
    assert percentiles(Counter(), [0.5, 0.99]) == [None, None]


def test_the_server_fills_the_same_buckets(database: Database[dict[str, Any]]) -> None:
    durations = [-5, 0, 1, 2, 3, 10, 999, 1_000, 60_000, 86_400_000, 10**10]
    database.values.insert_many([{"ms": duration} for duration in durations])
    found = database.values.aggregate([{"$project": {"ms": 1, "bucket": bucket_expression("$ms")}}])
    assert {row["ms"]: int(row["bucket"]) for row in found} == {ms: bucket(ms) for ms in durations}
