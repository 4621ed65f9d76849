"""Selects the slowest runs of a window among the runs that the collector keeps for each type.

Pure functions of the details of runs.
"""

from collections.abc import Collection
from typing import NamedTuple

from jobmon.rollup.run_details import MAX_SLOW_TYPES, SLOWEST, RunDetails, SlowRun

MAX_LISTED = 20
LEFT_OUT = (
    f"of each minute or longer span, only runs of the {MAX_SLOW_TYPES} types with the slowest "
    "runs are kept"
)


class SlowRunOfType(NamedTuple):
    """A finished run and the type of its job."""

    type: str
    run: SlowRun


def select_slowest_runs(details: RunDetails, types: Collection[str] = ()) -> list[SlowRunOfType]:
    """The longest runs of these types (all, if empty), longest first: at most 20, 5 of a type."""
    slowest = [
        SlowRunOfType(job_type, run)
        for job_type, runs in details.slowest.items()
        if not types or job_type in types
        for run in runs[:SLOWEST]
    ]
    slowest.sort(key=lambda slow: (-slow.run.duration_ms, slow.run.finished_at, slow.run.job_id))
    return slowest[:MAX_LISTED]


def may_lack_types(details: RunDetails) -> bool:
    """Whether types may be missing: a bucket of the window may have had more than are kept."""
    return len(details.slowest) >= MAX_SLOW_TYPES
