"""Details of runs in buckets: catches a bucket of an earlier version that looks like one without
errors, and a sum that is reported as known although a part is not."""

from collections import Counter

from jobmon.rollup.buckets import MINUTE, dump_bucket, load_bucket_details
from jobmon.rollup.run_details import ErrorGroupOf, RunDetails, merge_details

from ..conftest import NOW

KNOWN = RunDetails(by_type=Counter({ErrorGroupOf("g", "mail"): 2}))


def test_bucket_without_details_is_unknown() -> None:
    stored = dump_bucket(MINUTE, NOW, {}, KNOWN)
    assert load_bucket_details(stored) == KNOWN
    del stored["details"]
    assert not load_bucket_details(stored).is_known


def test_sum_with_an_unknown_part_is_stored_as_unknown() -> None:
    merged = merge_details([KNOWN, RunDetails(is_known=False)])
    assert not merged.is_known
    assert not load_bucket_details(dump_bucket(10 * MINUTE, NOW, {}, merged)).is_known
