"""Details of runs: catches a failed run that is lost or counted twice when details are folded,
added or compared, and details of a part of the window that look complete."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from bson import encode
from hypothesis import given
from hypothesis import strategies as st

from jobmon.rollup import run_details as run_details_module
from jobmon.rollup.buckets import HOUR, MINUTE, Tally, dump_bucket, load_bucket_details
from jobmon.rollup.run_details import (
    MAX_PAIRS,
    MAX_SLOW_TYPES,
    MAX_WORKER_TYPES,
    ErrorPair,
    RunDetails,
    SlowRun,
    WorkerTally,
    WorkerType,
    fold_details,
    merge_details,
)
from jobmon.rollup.run_history import RunHistory
from jobmon.store.labels import OTHER

from ..conftest import NOW

GROUPS, NAMES = st.sampled_from(["a", "b", "c", OTHER]), st.sampled_from(["m", "n", "o", OTHER])
COUNTS = st.dictionaries(st.tuples(GROUPS, NAMES), st.integers(1, 50), max_size=16).map(
    lambda counts: Counter({ErrorPair(*pair): count for pair, count in counts.items()})
)
TALLIES = st.builds(
    WorkerTally,
    outcomes=st.fixed_dictionaries(
        {"succeeded": st.integers(1, 50), "failed": st.integers(0, 5)}
    ).map(Counter),
    run=st.dictionaries(st.integers(0, 9), st.integers(1, 50), max_size=3).map(Counter),
)
WORKER_TYPES = st.dictionaries(st.builds(WorkerType, GROUPS, NAMES), TALLIES, max_size=16)
DETAILS = st.builds(RunDetails, by_type=COUNTS, by_worker=COUNTS, worker_types=WORKER_TYPES)


def count_by_subject(counts: Counter[ErrorPair]) -> Counter[str]:
    """The failed runs by type, or by worker."""
    by_subject: Counter[str] = Counter()
    for pair, count in counts.items():
        by_subject[pair.subject] += count
    return by_subject


def count_runs(details: RunDetails) -> Counter[str]:
    """The runs by worker."""
    return Counter({name: tally.runs for name, tally in details.tally_workers().items()})


@given(first=DETAILS, second=DETAILS)
def test_maximum_has_the_larger_counts_of_each_type_and_worker(
    first: RunDetails, second: RunDetails
) -> None:
    maximum = first.maximum(second)
    for field in ("by_type", "by_worker"):
        maximum_counts, first_counts, second_counts = (
            count_by_subject(getattr(details, field)) for details in (maximum, first, second)
        )
        assert maximum_counts == first_counts | second_counts
    assert count_runs(maximum) == count_runs(first) | count_runs(second)
    assert maximum.maximum(first) == maximum.maximum(second) == maximum


@given(details=DETAILS, failed_by_type=st.dictionaries(NAMES, st.integers(0, 90)))
def test_failed_runs_without_a_known_error_are_added_as_unknown_errors(
    details: RunDetails, failed_by_type: dict[str, int]
) -> None:
    failed_with_known_error = details.failed
    details.add_unknown_errors(failed_by_type)
    assert details.failed == max(failed_with_known_error, sum(failed_by_type.values()))


@given(parts=st.lists(DETAILS, max_size=5))
def test_folded_minutes_add_up_to_an_hour_with_the_same_counts(parts: list[RunDetails]) -> None:
    limits = run_details_module.MAX_PAIRS, run_details_module.MAX_WORKER_TYPES
    run_details_module.MAX_PAIRS = run_details_module.MAX_WORKER_TYPES = 4
    try:
        minutes = [load_bucket_details(dump_bucket(MINUTE, NOW, {}, part)) for part in parts]
        hour = load_bucket_details(dump_bucket(HOUR, NOW, {}, merge_details(minutes)))
    finally:
        run_details_module.MAX_PAIRS, run_details_module.MAX_WORKER_TYPES = limits
    assert hour.failed == sum(part.failed for part in parts)
    assert hour.by_worker.total() == sum(part.by_worker.total() for part in parts)
    assert max(map(len, (hour.by_type, hour.by_worker, hour.worker_types))) <= 4
    stored_sum, sum_of_parts = sum_tallies([hour]), sum_tallies(parts)
    assert (stored_sum.outcomes, stored_sum.run) == (sum_of_parts.outcomes, sum_of_parts.run)


def sum_tallies(parts: Iterable[RunDetails]) -> WorkerTally:
    total = WorkerTally()
    for part in parts:
        for tally in part.worker_types.values():
            total.add(tally)
    return total


@given(parts=st.lists(DETAILS, max_size=3))
def test_tallies_of_a_type_have_the_runs_of_each_worker(parts: list[RunDetails]) -> None:
    minutes = [load_bucket_details(dump_bucket(MINUTE, NOW, {}, part)) for part in parts]
    hour = load_bucket_details(dump_bucket(HOUR, NOW, {}, merge_details(minutes)))
    runs: Counter[WorkerType] = Counter()
    for part in parts:
        runs.update({pair: tally.runs for pair, tally in part.worker_types.items()})
    for job_type in ("m", "n", "o", OTHER):
        expected = Counter({pair.worker: runs[pair] for pair in runs if pair.type == job_type})
        tallies = hour.tally_workers([job_type])
        assert {name: tally.runs for name, tally in tallies.items()} == expected
    assert sum(count_runs(hour).values()) == runs.total()
    assert hour.lacks_types == any(pair.type == OTHER for pair in runs)


def test_rare_types_of_a_worker_are_folded_first() -> None:
    """Catches a busy worker, or the only type of a worker, that is counted as `(other)`."""
    details = RunDetails()
    for number in range(2 * MAX_WORKER_TYPES):
        pair = WorkerType(f"pod-{number}", "mail")
        details.worker_types[pair] = WorkerTally(outcomes=Counter(succeeded=2))
    for number in range(50):
        pair = WorkerType("busy", f"type-{number:02}")
        runs = 100 if number < 9 else 1
        details.worker_types[pair] = WorkerTally(outcomes=Counter(succeeded=runs))
    folded = fold_details(details)
    assert len(folded.worker_types) == MAX_WORKER_TYPES
    assert folded.tally_workers()["busy"].runs == 9 * 100 + 41
    busy_types = {pair.type for pair in folded.worker_types if pair.worker == "busy"}
    assert busy_types == {*(f"type-{number:02}" for number in range(9)), OTHER}
    pod_types = {pair.type for pair in folded.worker_types if pair.worker.startswith("pod")}
    assert pod_types == {"mail"}


def test_the_largest_details_fit_into_a_document_with_many_types() -> None:
    """Catches a bucket that cannot be stored because it is larger than 16 MB."""

    def make_name(number: int) -> str:
        return f"{number:06d}" + "\U0001f600" * 195

    count = 2 * max(MAX_PAIRS, MAX_WORKER_TYPES, MAX_SLOW_TYPES)
    durations = Counter(dict.fromkeys(range(300), 1))
    tally = WorkerTally(outcomes=Counter(failed=1, expired=1, succeeded=1), run=durations)
    pairs = Counter({ErrorPair(f"{number:016x}", make_name(number)): 1 for number in range(count)})
    details = RunDetails(by_type=pairs, by_worker=Counter(pairs))
    details.worker_types = {
        WorkerType(make_name(number), make_name(-number)): tally for number in range(count)
    }
    slow_run = SlowRun(10**9, make_name(0), 1, make_name(1), "succeeded", NOW)
    finish_times = [NOW + timedelta(seconds=seconds) for seconds in range(5)]
    details.slowest = {
        make_name(number): [slow_run._replace(finished_at=time) for time in finish_times]
        for number in range(count)
    }
    folded = fold_details(details)
    assert folded.failed == folded.by_worker.total() == count
    assert sum(tally.runs for tally in folded.worker_types.values()) == 3 * count
    types = {make_name(number): Tally(enqueued=1) for number in range(2_000)}
    assert len(encode(dump_bucket(MINUTE, NOW, types, details))) < 9_000_000


def test_details_of_a_window_that_begins_before_the_history_are_incomplete() -> None:
    """Catches a count of only a part of the requested time that looks complete."""
    complete = RunHistory(as_of=NOW, is_complete=True, details=RunDetails(), groups={})
    assert complete.incomplete_reason == ""
    clipped = replace(complete, no_data_before=NOW)
    assert clipped.incomplete_reason == f"no data is kept from before {NOW:%Y-%m-%d} UTC"
