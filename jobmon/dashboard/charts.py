"""The data of the charts: a column for each line, the previous period, and marks."""

from datetime import datetime, timedelta
from typing import Any

from jobmon.rollup.marks import Marks
from jobmon.rollup.series import History

# The line of each chart that is also drawn for the previous period.
COMPARED = ("succeeded", "waitP95", "runP95")


def chart_columns(
    past: History[datetime], step: timedelta, unknown: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """A column for each line of the charts, and `at` in Unix seconds; durations in ms.

    `step` is in seconds. `complete` is the number of completed steps: the step in progress is drawn
    dashed, because its count is still low. Values that need one of the `unknown` fields are None.
    `gaps` are pairs of Unix seconds between which runs may be missing.
    """
    columns: dict[str, Any] = {
        "step": round(step.total_seconds()),
        "complete": sum(at + step <= past.as_of for at in past.activity),
        "at": [round(at.timestamp()) for at in past.activity],
        "gaps": [[at.timestamp() for at in (gap.start, gap.end) if at] for gap in past.gaps],
    }
    for at, activity in past.activity.items():
        row = activity.known_counts(unknown)
        for name, durations in (("wait", activity.wait), ("run", activity.run)):
            row |= {
                f"{name}P50": durations.p50,
                f"{name}P95": durations.p95,
                f"{name}P99": durations.p99,
            }
        is_known = at <= past.as_of and at not in past.uncounted
        for name, value in row.items():
            columns.setdefault(name, []).append(value if is_known else None)
    return columns


def previous_columns(
    previous: History[datetime], unknown: frozenset[str] = frozenset()
) -> dict[str, list[int | None]]:
    """The compared lines in the period before, step by step; None where runs may be missing."""
    columns = chart_columns(previous, timedelta(0), unknown)
    is_known = [
        not any(start <= at < end for start, end in columns["gaps"]) for at in columns["at"]
    ]
    return {
        name: [
            value if known else None for value, known in zip(columns[name], is_known, strict=True)
        ]
        for name in COMPARED
    }


def mark_columns(marks: Marks | None) -> list[dict[str, Any]]:
    """The marks in order, `at` in Unix seconds; empty without the right to read them."""
    return [
        {"at": mark.at.timestamp(), "text": mark.text}
        for mark in (marks.shown if marks is not None else ())
    ]
