"""The data of the overview's charts: a column for each line."""

from datetime import datetime, timedelta
from typing import Any

from jobmon.rollup.series import History


def chart_columns(
    past: History[datetime], step: timedelta, unknown: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """A column for each line of the charts, and `at` in Unix seconds; durations in ms.

    The first `complete` steps are over; drawn like these, one that is not would look like a fall.
    Values that depend on one of the `unknown` fields are None.
    """
    columns: dict[str, Any] = {
        "complete": sum(at + step <= past.as_of for at in past.activity),
        "at": [round(at.timestamp()) for at in past.activity],
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
