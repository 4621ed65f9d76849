"""The charts' data: a column for each line."""

from datetime import datetime, timedelta
from typing import Any

from jobmon.rollup.series import History


def chart_columns(
    past: History[datetime], step: timedelta, unknown: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The charts' data, a column each, with `at` in Unix seconds; durations in ms.

    The first `complete` steps are over; a step that goes on would look like a fall. Of what depends
    on one of the `unknown` fields every value is None.
    """
    no_ends = "finishedAt" in unknown
    over = [at for at in past.happened if at + step <= past.as_of]
    columns: dict[str, Any] = {
        "complete": len(over),
        "at": [round(at.timestamp()) for at in past.happened],
    }
    for at, happened in past.happened.items():
        row: dict[str, int | None] = {
            "enqueued": None if "createdAt" in unknown else happened.enqueued,
            "succeeded": None if no_ends else happened.succeeded,
            "failed": None if no_ends else happened.failed,
            "dlq": None if no_ends else happened.dlq,
        }
        for name, durations in (("wait", happened.wait), ("run", happened.run)):
            row |= {
                f"{name}P50": durations.p50,
                f"{name}P95": durations.p95,
                f"{name}P99": durations.p99,
            }
        for name, value in row.items():
            is_known = at <= past.as_of and at not in past.uncounted
            columns.setdefault(name, []).append(value if is_known else None)
    return columns
