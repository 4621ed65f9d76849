"""Histograms: catches a percentile that is wrong by more than 5% and 1 ms, and a lost count."""

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.database import Database

from jobmon.rollup.histogram import (
    add_counts,
    bucket,
    bucket_expression,
    pack,
    percentiles,
    unpack,
)

DURATIONS = st.lists(st.integers(0, 10**10), min_size=1, max_size=200)


@given(durations=DURATIONS, fraction=st.sampled_from([0.5, 0.95, 0.99]))
def test_percentile_is_wrong_by_at_most_5_percent_or_1_ms(
    durations: list[int], fraction: float
) -> None:
    exact = sorted(durations)[math.ceil(fraction * len(durations)) - 1]
    (percentile,) = percentiles(Counter(map(bucket, durations)), [fraction])
    assert percentile == pytest.approx(exact, rel=0.05, abs=1)


@given(first=DURATIONS, second=DURATIONS)
def test_sum_of_histograms_has_all_durations(first: list[int], second: list[int]) -> None:
    total = Counter(map(bucket, first))
    add_counts(total, Counter(map(bucket, second)))
    assert total == Counter(map(bucket, first + second))


@given(histogram=st.dictionaries(st.integers(0, 2**16 - 1), st.integers(1, 2**63), max_size=99))
def test_unpacking_returns_the_packed_histogram(histogram: dict[int, int]) -> None:
    assert unpack(pack(Counter(histogram))) == Counter(histogram)


def test_empty_histogram_has_no_percentiles() -> None:
    assert percentiles(Counter(), [0.5, 0.99]) == [None, None]


def test_server_and_python_compute_the_same_buckets(database: Database[dict[str, Any]]) -> None:
    durations = [-5, 0, 1, 2, 3, 10, 999, 1_000, 60_000, 86_400_000, 10**10]
    database.values.insert_many([{"ms": duration} for duration in durations])
    rows = database.values.aggregate([{"$project": {"ms": 1, "bucket": bucket_expression("$ms")}}])
    assert {row["ms"]: int(row["bucket"]) for row in rows} == {ms: bucket(ms) for ms in durations}
