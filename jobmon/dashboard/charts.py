"""The data of the charts: a column for each line, some lines of the period before, and marks."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from jobmon.rollup.marks import Marks
from jobmon.rollup.run_history import RunHistory
from jobmon.rollup.series import History

# The lines that are also drawn for the period before: one in each chart.
COMPARED_LINES = ("succeeded", "waitP95", "runP95")


def make_chart_columns(
    history: History[datetime], step: timedelta, unknown: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """A column for each line of the charts: counts, and durations in ms.

    The column `at` has the start of each step in Unix seconds. The key `step` is the length of a
    step in seconds, `completedSteps` the number of completed steps: the step in progress is drawn
    dashed or pale, because its count is still low. `gaps` are pairs of Unix seconds between which
    runs may be missing. Counts that need one of the `unknown` fields are None, and so are all
    values of steps that are not counted yet.
    """
    columns = make_time_columns(history.activity, step, history)
    for start, activity in history.activity.items():
        row = activity.known_counts(unknown)
        for name, durations in (("wait", activity.wait), ("run", activity.run)):
            row |= {
                f"{name}P50": durations.p50,
                f"{name}P95": durations.p95,
                f"{name}P99": durations.p99,
            }
        is_known = start <= history.as_of and start not in history.uncounted
        for name, value in row.items():
            columns.setdefault(name, []).append(value if is_known else None)
    return columns


def make_time_columns(
    starts: Collection[datetime], step: timedelta, history: History[Any] | RunHistory
) -> dict[str, Any]:
    """The columns of `make_chart_columns` that describe the steps, which begin at `starts`."""
    gaps = history.gaps
    return {
        "step": round(step.total_seconds()),
        "completedSteps": sum(start + step <= history.as_of for start in starts),
        "at": [round(start.timestamp()) for start in starts],
        "gaps": [[time.timestamp() for time in (gap.start, gap.end) if time] for gap in gaps],
    }


def make_past_columns(
    previous: History[datetime], step: timedelta, unknown: frozenset[str] = frozenset()
) -> dict[str, list[int | None]]:
    """The `COMPARED_LINES` of the period before; also None in steps where runs may be missing."""
    columns = make_chart_columns(previous, step, unknown)
    has_gap = [
        any(start < moment + columns["step"] and moment < end for start, end in columns["gaps"])
        for moment in columns["at"]
    ]
    return {
        name: [
            None if is_gap else value for value, is_gap in zip(columns[name], has_gap, strict=True)
        ]
        for name in COMPARED_LINES
    }


def list_marks(marks: Marks | None) -> list[dict[str, Any]]:
    """The marks in order of time, `at` in Unix seconds; none without the right to read them."""
    return [
        {"at": mark.at.timestamp(), "text": mark.text}
        for mark in (marks.shown if marks is not None else ())
    ]
