"""Groups of errors: catches a count that is not the sum of its parts, and a wrong order."""

from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from jobmon.diagnosis.error_groups import ErrorFilter, ErrorSummary, sort_errors, summarize_errors
from jobmon.diagnosis.error_kinds import GroupStatus
from jobmon.rollup.buckets import HOUR, MINUTE
from jobmon.rollup.error_registry import ErrorGroup
from jobmon.rollup.run_details import ErrorPair, RunDetails
from jobmon.rollup.run_history import RunHistory
from jobmon.store.labels import OTHER

from ..conftest import NOW


def group(name: str, first: datetime, last: datetime) -> ErrorGroup:
    return ErrorGroup(name, "E", name, None, None, None, first, last, ())


GROUPS = {
    "old": group("old", NOW - 9 * HOUR, NOW - HOUR),
    "new": group("new", NOW - 20 * MINUTE, NOW),
    "on": group("on", NOW - 9 * HOUR, NOW),
}


def history(
    by_type: dict[tuple[str, str], int],
    by_worker: dict[tuple[str, str], int] | None = None,
    **more: Any,
) -> RunHistory:
    details = RunDetails(
        by_type=Counter({ErrorPair(*pair): count for pair, count in by_type.items()}),
        by_worker=Counter({ErrorPair(*pair): count for pair, count in (by_worker or {}).items()}),
    )
    return RunHistory(as_of=NOW, is_complete=True, details=details, groups=GROUPS, **more)


COUNTED = history(
    {("old", "a"): 1, ("new", "a"): 2, ("new", "b"): 4, ("on", "b"): 3, (OTHER, OTHER): 5},
    {("old", "w1"): 1, ("new", "w1"): 3, ("new", "w2"): 2},
)


def index(found: list[ErrorSummary]) -> dict[str, ErrorSummary]:
    return {error.id: error for error in found}


def test_groups_have_their_counts_types_workers_and_status() -> None:
    found = index(summarize_errors(COUNTED, None, ErrorFilter()))
    assert {name: error.count for name, error in found.items()} == {
        "new": 6,
        OTHER: 5,
        "on": 3,
        "old": 1,
    }
    assert list(found) == ["new", OTHER, "on", "old"]
    assert found["new"].types == {"a": 2, "b": 4}
    assert found["new"].workers == {"w1": 3, "w2": 2}
    assert found["on"].workers == {}
    assert {name: error.status for name, error in found.items()} == {
        "new": GroupStatus.NEW,
        OTHER: None,
        "on": GroupStatus.ONGOING,
        "old": GroupStatus.QUIET,
    }


def test_group_first_seen_soon_after_counting_began_is_not_new() -> None:
    begun = history({("new", "a"): 1}, counting_since=NOW - 30 * MINUTE)
    found = summarize_errors(begun, None, ErrorFilter())
    assert found[0].status is GroupStatus.ONGOING


def test_filter_by_type_counts_only_these_types() -> None:
    before = history({("new", "a"): 1, ("new", "b"): 100})
    found = index(summarize_errors(COUNTED, before, ErrorFilter(types=("a",))))
    assert {name: error.count for name, error in found.items()} == {"new": 2, "old": 1}
    assert (found["new"].previous, found["new"].growth) == (1, 1)
    assert found["old"].growth == 1
    assert found["new"].workers is None


def test_filter_by_worker_counts_only_its_errors() -> None:
    found = index(summarize_errors(COUNTED, None, ErrorFilter(worker="w1")))
    assert {name: error.count for name, error in found.items()} == {"new": 3, "old": 1}
    assert found["new"].types is None
    assert found["new"].growth is None


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("-count", ["new", OTHER, "on", "old"]),
        ("count", ["old", "on", OTHER, "new"]),
        ("-lastSeen", ["new", "on", "old", OTHER]),
        ("lastSeen", ["old", "new", "on", OTHER]),
        ("-firstSeen", ["new", "old", "on", OTHER]),
        ("firstSeen", ["old", "on", "new", OTHER]),
        ("-growth", ["new", "old", "on", OTHER]),
        ("growth", [OTHER, "old", "on", "new"]),
    ],
)
def test_sort_errors_puts_unknown_values_last(sort: str, order: list[str]) -> None:
    before = history({("on", "b"): 2, (OTHER, OTHER): 9})
    found = summarize_errors(COUNTED, before, ErrorFilter())
    assert [error.id for error in sort_errors(found, sort)] == order


def test_growth_is_unknown_without_the_window_before() -> None:
    found = summarize_errors(COUNTED, None, ErrorFilter())
    assert {error.growth for error in found} == {None}


@pytest.mark.parametrize(
    ("errors", "trend"),
    [
        (ErrorFilter(), [5, 0, 4]),
        (ErrorFilter(types=("a",)), [2, 0, 0]),
        (ErrorFilter(types=("a", "b")), [5, 0, 4]),
        (ErrorFilter(worker="w1"), None),
    ],
)
def test_trend_has_every_step(errors: ErrorFilter, trend: list[int] | None) -> None:
    steps = {
        NOW - 2 * MINUTE: {"new": Counter(a=2, b=3)},
        NOW - MINUTE: {"on": Counter(b=1)},
        NOW: {"new": Counter(b=4), "on": Counter(a=9)},
    }
    assert errors.trend("new", steps) == trend
