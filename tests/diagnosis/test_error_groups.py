"""Groups of errors: catches a count that is not the sum of its types, and a wrong order."""

from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from jobmon.diagnosis.error_groups import ErrorFilter, ErrorSummary, sort_errors, summarize_errors
from jobmon.diagnosis.error_kinds import GroupStatus
from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.rollup.error_group_document import ErrorGroup
from jobmon.rollup.run_details import ErrorPair, RunDetails
from jobmon.rollup.run_history import RunHistory
from jobmon.store.labels import OTHER

from ..conftest import NOW


def make_group(name: str, first: datetime, last: datetime) -> ErrorGroup:
    no_texts = dict.fromkeys(("frame", "message", "stack"))
    return ErrorGroup(
        id=name, code="E", pattern=name, first_seen=first, last_seen=last, jobs=(), **no_texts
    )


GROUPS = {
    "old": make_group("old", NOW - 9 * HOUR, NOW - HOUR),
    "new": make_group("new", NOW - 20 * MINUTE, NOW),
    "ongoing": make_group("ongoing", NOW - 9 * HOUR, NOW),
}


def make_history(
    by_type: dict[tuple[str, str], int],
    by_worker: dict[tuple[str, str], int] | None = None,
    **options: Any,
) -> RunHistory:
    details = RunDetails(
        by_type=Counter({ErrorPair(*pair): count for pair, count in by_type.items()}),
        by_worker=Counter({ErrorPair(*pair): count for pair, count in (by_worker or {}).items()}),
    )
    return RunHistory(as_of=NOW, is_complete=True, details=details, groups=GROUPS, **options)


HISTORY = make_history(
    {("old", "a"): 1, ("new", "a"): 2, ("new", "b"): 4, ("ongoing", "b"): 3, (OTHER, OTHER): 5},
    {("old", "w1"): 1, ("new", "w1"): 3, ("new", "w2"): 2},
)


def index_by_id(summaries: list[ErrorSummary]) -> dict[str, ErrorSummary]:
    return {error.id: error for error in summaries}


def test_groups_have_their_counts_types_workers_and_status() -> None:
    summaries = index_by_id(summarize_errors(HISTORY, None, ErrorFilter()))
    assert {name: error.count for name, error in summaries.items()} == {
        "new": 6,
        OTHER: 5,
        "ongoing": 3,
        "old": 1,
    }
    assert list(summaries) == ["new", OTHER, "ongoing", "old"]
    assert summaries["new"].types == {"a": 2, "b": 4}
    assert summaries["new"].workers == {"w1": 3, "w2": 2}
    assert summaries["ongoing"].workers == {}
    assert {name: error.status for name, error in summaries.items()} == {
        "new": GroupStatus.NEW,
        OTHER: None,
        "ongoing": GroupStatus.ONGOING,
        "old": GroupStatus.QUIET,
    }


def test_group_first_seen_soon_after_counting_began_is_not_new() -> None:
    recent_history = make_history({("new", "a"): 1}, counting_since=NOW - 30 * MINUTE)
    summaries = summarize_errors(recent_history, None, ErrorFilter())
    assert summaries[0].status is GroupStatus.ONGOING


def test_filter_by_type_counts_only_these_types() -> None:
    previous = make_history({("new", "a"): 1, ("new", "b"): 100})
    summaries = index_by_id(summarize_errors(HISTORY, previous, ErrorFilter(types=("a",))))
    assert {name: error.count for name, error in summaries.items()} == {"new": 2, "old": 1}
    assert (summaries["new"].previous_count, summaries["new"].growth) == (1, 1)
    assert summaries["old"].growth == 1
    assert summaries["new"].workers is None


def test_filter_by_worker_counts_only_the_errors_of_this_worker() -> None:
    summaries = index_by_id(summarize_errors(HISTORY, None, ErrorFilter(worker="w1")))
    assert {name: error.count for name, error in summaries.items()} == {"new": 3, "old": 1}
    assert summaries["new"].types is None
    assert summaries["new"].growth is None


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("-count", ["new", OTHER, "ongoing", "old"]),
        ("count", ["old", "ongoing", OTHER, "new"]),
        ("-lastSeen", ["new", "ongoing", "old", OTHER]),
        ("lastSeen", ["old", "new", "ongoing", OTHER]),
        ("-firstSeen", ["new", "old", "ongoing", OTHER]),
        ("firstSeen", ["old", "ongoing", "new", OTHER]),
        ("-growth", ["new", "old", "ongoing", OTHER]),
        ("growth", [OTHER, "old", "ongoing", "new"]),
    ],
)
def test_sort_errors_puts_unknown_values_last(sort: str, order: list[str]) -> None:
    previous = make_history({("ongoing", "b"): 2, (OTHER, OTHER): 9})
    summaries = summarize_errors(HISTORY, previous, ErrorFilter())
    assert [error.id for error in sort_errors(summaries, sort)] == order


def test_growth_is_unknown_without_the_previous_window() -> None:
    summaries = summarize_errors(HISTORY, None, ErrorFilter())
    assert {error.growth for error in summaries} == {None}


@pytest.mark.parametrize(
    ("error_filter", "trend"),
    [
        (ErrorFilter(), [5, 0, 4]),
        (ErrorFilter(types=("a",)), [2, 0, 0]),
        (ErrorFilter(types=("a", "b")), [5, 0, 4]),
        (ErrorFilter(worker="w1"), None),
    ],
)
def test_trend_counts_every_step(error_filter: ErrorFilter, trend: list[int] | None) -> None:
    steps = {
        NOW - 2 * MINUTE: {"new": Counter(a=2, b=3)},
        NOW - MINUTE: {"ongoing": Counter(b=1)},
        NOW: {"new": Counter(b=4), "ongoing": Counter(a=9)},
    }
    assert error_filter.trend("new", steps) == trend
