"""Labels of statuses and types: catches a label that shows a secret or is too long, and two labels
for values that are equal in MongoDB."""

from typing import Any

import pytest
from bson import DBRef, Decimal128

from jobmon.store.labels import OTHER, LabelBudget, can_filter_by, label


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("queued", "queued"),
        (None, "null"),
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (Decimal128("1.00"), "1"),
        (0.5, "0.5"),
        ("(other)", "(other)…"),
        (Decimal128("0.50"), "0.5"),
        (float("nan"), "nan"),
        (Decimal128("sNaN"), "nan"),
        (Decimal128("-Infinity"), "-inf"),
        (Decimal128("9E+6144"), "9e+6144"),
        ({"password": "p"}, "{…}"),
        (["a", {"password": "p"}, DBRef("a", 1, token="t")], '["a", "{…}", "{…}"]'),
        ("é" * 200, "é" * 200),
        ("é" * 201, "é" * 200 + "…"),
        (["x" * 300], '["' + "x" * 198 + "…"),
    ],
)
def test_a_label_is_short_and_the_same_for_equal_values_and_hides_documents(
    value: Any, expected: str
) -> None:
    assert label(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("mail", True),
        ("(other) mail", True),
        ("(other)", False),
        ("webhook.*", True),
        ("é" * 199 + "*", False),
        ("é" * 200, True),
        ("é" * 201, False),
    ],
)
def test_a_label_can_be_a_filter_if_it_matches_exactly_the_jobs_that_it_counts(
    value: str, *, expected: bool
) -> None:
    assert can_filter_by(label(value)) == expected
    assert not can_filter_by(OTHER)


def test_a_budget_gives_labels_only_to_the_first_values() -> None:
    """Catches a type that is counted by its name in one place and as `(other)` in another."""
    budget = LabelBudget(3, ["queued"])
    assert [budget.label(value) for value in ("a", 7, "b", "a", "queued")] == [
        "a",
        "7",
        OTHER,
        "a",
        "queued",
    ]
    budget.forget(all_but=["a", OTHER])  # frees no label while jobs are counted as (other)
    assert budget.label("c") == OTHER
    budget.forget(all_but=["a"])
    assert [budget.label(value) for value in ("c", "queued", "d")] == ["c", "queued", OTHER]
    # After a restart `(other)` is still in use: no new label, although there is room.
    restarted = LabelBudget(3)
    restarted.learn(["queued", OTHER])
    assert [restarted.label(value) for value in ("queued", "b", "c")] == ["queued", OTHER, OTHER]
