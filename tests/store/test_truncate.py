"""Truncation: catches an answer of megabytes, and a value that is cut without a mark."""

from typing import Any

import pytest
from bson import DBRef, Regex

from jobmon.redaction.redactor import Redactor
from jobmon.store.truncate import CharacterBudget


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x" * 10, "x" * 10),
        ("x" * 11, "x" * 10 + "…"),
        (b"x" * 11, "eHh4eHh4eHh4eA==…"),
        ({"a": "x" * 20, "b": 1}, {"a": "x" * 9 + "…", "…": "…"}),
        ([1] * 10, [1, 1, "…"]),  # a number uses 8 characters of the budget, and a comma 1
        (Regex("x" * 11), "x" * 10 + "…"),
        ([[["x" * 11]]], [[["x" * 10 + "…"]]]),
        (7, 7),
        (DBRef("a", 1), {"$ref": "a", "$id": 1}),
    ],
)
def test_a_value_beyond_the_budget_is_truncated(value: Any, expected: Any) -> None:
    budget = CharacterBudget(10)
    assert (budget.truncate(value), budget.has_cut) == (expected, "…" in repr(expected))


def test_a_value_gets_the_characters_that_earlier_values_left_or_at_least_a_minimum() -> None:
    budget = CharacterBudget(10)
    assert [budget.truncate("x" * 6), budget.truncate("y" * 6)] == ["x" * 6, "y" * 4 + "…"]
    assert budget.truncate("z" * 6, at_least=3) == "zzz…"


@pytest.mark.parametrize(
    "document",
    [
        {"value": "x" * 20, "name": "password"},
        {"value": "x" * 4, "name": "password"},
        {"v": "hunter", "pad": "x" * 20, "Key": "apiKey"},
    ],
)
def test_a_truncated_document_keeps_the_name_that_shows_its_value_to_be_secret(
    document: dict[str, Any],
) -> None:
    truncated = CharacterBudget(10).truncate(document)
    value = next(iter(document))
    assert Redactor().redact(truncated)[value] == "[redacted]"
