"""Details of runs: catches a failed run that is lost or counted twice when details are folded,
added or compared, and details of an earlier version that look as if they were known."""

from collections import Counter
from datetime import timedelta

from bson import encode
from hypothesis import given
from hypothesis import strategies as st

from jobmon.rollup import run_details as run_details_module
from jobmon.rollup.buckets import HOUR, MINUTE, Tally, dump_bucket, load_bucket_details
from jobmon.rollup.run_details import (
    MAX_PAIRS,
    MAX_SLOW_TYPES,
    MAX_WORKERS,
    ErrorGroupOf,
    RunDetails,
    SlowRun,
    WorkerTally,
    fold_details,
    merge_details,
)
from jobmon.store.labels import OTHER

from ..conftest import NOW

KNOWN = RunDetails(by_type=Counter({ErrorGroupOf("g", "mail"): 2}))
GROUPS, NAMES = st.sampled_from(["a", "b", "c", OTHER]), st.sampled_from(["m", "n", "o", OTHER])
COUNTS = st.dictionaries(st.tuples(GROUPS, NAMES), st.integers(1, 50), max_size=16).map(
    lambda counts: Counter({ErrorGroupOf(*pair): n for pair, n in counts.items()})
)
DETAILS = st.builds(RunDetails, by_type=COUNTS, by_worker=COUNTS)


def count_by_name(counts: Counter[ErrorGroupOf]) -> Counter[str]:
    found: Counter[str] = Counter()
    for pair, count in counts.items():
        found[pair.of] += count
    return found


@given(first=DETAILS, second=DETAILS)
def test_of_two_counts_each_type_has_the_larger_one(first: RunDetails, second: RunDetails) -> None:
    largest = first.maximum(second)
    for ours, a, b in (
        (largest.by_type, first.by_type, second.by_type),
        (largest.by_worker, first.by_worker, second.by_worker),
    ):
        assert count_by_name(ours) == count_by_name(a) | count_by_name(b)
    assert largest.maximum(first) == largest.maximum(second) == largest


@given(details=DETAILS, failed=st.dictionaries(NAMES, st.integers(0, 90)))
def test_unknown_errors_make_up_the_sum_of_failed_runs(
    details: RunDetails, failed: dict[str, int]
) -> None:
    known = details.failed
    details.add_unknown_errors(failed)
    assert details.failed == max(known, sum(failed.values()))


@given(parts=st.lists(DETAILS, max_size=5))
def test_folded_minutes_add_up_to_the_same_counts(parts: list[RunDetails]) -> None:
    before = run_details_module.MAX_PAIRS
    run_details_module.MAX_PAIRS = 4
    try:
        minutes = [load_bucket_details(dump_bucket(MINUTE, NOW, {}, part)) for part in parts]
        hour = load_bucket_details(dump_bucket(HOUR, NOW, {}, merge_details(minutes)))
    finally:
        run_details_module.MAX_PAIRS = before
    assert hour.failed == sum(part.failed for part in parts)
    assert hour.by_worker.total() == sum(part.by_worker.total() for part in parts)


def test_the_largest_details_fit_into_a_document_with_many_types() -> None:
    """Catches a bucket that is lost because it is larger than a document may be."""

    def name(number: int) -> str:
        return f"{number:06d}" + "\U0001f600" * 195

    count = 2 * max(MAX_PAIRS, MAX_WORKERS, MAX_SLOW_TYPES)
    durations = Counter(dict.fromkeys(range(300), 1))
    tally = WorkerTally(outcomes=Counter(failed=1, expired=1, succeeded=1), run=durations)
    pairs = Counter({ErrorGroupOf(f"{number:016x}", name(number)): 1 for number in range(count)})
    details = RunDetails(by_type=pairs, by_worker=Counter(pairs))
    details.workers = {name(number): tally for number in range(count)}
    slow = SlowRun(10**9, name(0), 1, name(1), "succeeded", NOW)
    details.slowest = {
        name(number): [slow._replace(finished_at=NOW + timedelta(seconds=n)) for n in range(5)]
        for number in range(count)
    }
    folded = fold_details(details)
    assert folded.failed == folded.by_worker.total() == count
    assert sum(one.outcomes.total() for one in folded.workers.values()) == 3 * count
    types = {name(number): Tally(enqueued=1) for number in range(2_000)}
    assert len(encode(dump_bucket(MINUTE, NOW, types, details))) < 9_000_000


def test_bucket_without_details_is_unknown() -> None:
    stored = dump_bucket(MINUTE, NOW, {}, KNOWN)
    assert load_bucket_details(stored) == KNOWN
    del stored["details"]
    assert not load_bucket_details(stored).is_known


def test_sum_with_an_unknown_part_is_stored_as_unknown() -> None:
    merged = merge_details([KNOWN, RunDetails(is_known=False)])
    assert not merged.is_known
    assert not load_bucket_details(dump_bucket(10 * MINUTE, NOW, {}, merged)).is_known


def test_unknown_details_stay_unknown_in_comparison_with_others() -> None:
    unknown = RunDetails(is_known=False)
    assert not KNOWN.maximum(unknown).is_known
    assert not unknown.maximum(KNOWN).is_known
