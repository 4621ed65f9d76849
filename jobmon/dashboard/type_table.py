"""The overview's table of types: its rows and their order."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobmon.dashboard.facts import Facts
from jobmon.diagnosis.forecast import Forecast, forecast_types
from jobmon.domain import JobStatus
from jobmon.page_addresses import query
from jobmon.rollup.series import Activity, History
from jobmon.store.labels import can_filter_by

TYPES_SHOWN = 50
MAX_SEARCH_LENGTH = 200  # characters of a type's name


@dataclass(frozen=True, kw_only=True)
class TypeRow:
    """A type: its jobs by status, and its attempts that `finished` in the window.

    `link` is the query string for the list of its jobs; empty if no filter finds exactly these.
    `is_failing`: the failure rate has reached the threshold. `wait_p95` and `run_p95` are in ms.
    `forecast` is a text, empty without waiting jobs. Unknown values are None, but `finished` is 0.
    """

    name: str
    link: str = ""
    is_failing: bool = False
    status_counts: Mapping[str, int] | None
    finished: int
    failure_rate: float | None
    wait_p95: int | None
    run_p95: int | None
    forecast: str


def make_type_rows(facts: Facts) -> list[TypeRow]:
    """A row for each type that has jobs now or was active in the window."""
    activities = (
        facts.history_by_type.activity if isinstance(facts.history_by_type, History) else {}
    )
    counts_by_type = facts.evidence.stats.type_counts_for(activities)
    if counts_by_type is None:
        counts_by_type = dict.fromkeys(activities)
    no_activity, forecasts = Activity.from_tallies([]), forecast_types(facts.evidence)
    return [
        _make_row(
            name,
            counts,
            activities.get(name, no_activity),
            forecasts.get(name),
            facts.evidence.rules.for_type(name).failure_rate,
        )
        for name, counts in counts_by_type.items()
    ]


def _make_row(
    name: str,
    counts: Mapping[str, int] | None,
    activity: Activity,
    forecast: Forecast | None,
    max_failure_rate: float,
) -> TypeRow:
    return TypeRow(
        name=name,
        link=query(type=name) if can_filter_by(name) else "",
        status_counts=counts,
        is_failing=(activity.failure_rate or 0) >= max_failure_rate,
        finished=activity.finished,
        failure_rate=activity.failure_rate,
        wait_p95=activity.wait.p95,
        run_p95=activity.run.p95,
        forecast=forecast.text if forecast is not None else "",
    )


SORTS = {
    "type": lambda row: row.name,
    "queued": lambda row: (row.status_counts or {}).get(JobStatus.QUEUED, 0),
    "running": lambda row: (row.status_counts or {}).get(JobStatus.LEASED, 0),
    "retrying": lambda row: (row.status_counts or {}).get(JobStatus.FAILED, 0),
    "dead": lambda row: (row.status_counts or {}).get(JobStatus.DLQ, 0),
    "done": lambda row: row.finished,
    "failing": lambda row: row.failure_rate or 0.0,
    "wait": lambda row: row.wait_p95 or 0,
    "run": lambda row: row.run_p95 or 0,
}


def select_types(
    rows: list[TypeRow], by: str, text: str, only: frozenset[str] | None = None
) -> list[TypeRow]:
    """The rows whose type contains `text` and is in `only` (None: any), sorted by a column.

    `by` is a key of `SORTS`; with a `-` before it, the order is descending.
    """
    descending, column = by.startswith("-"), by.removeprefix("-")
    matching = [
        row
        for row in rows
        if text.lower() in row.name.lower() and (only is None or row.name in only)
    ]
    matching.sort(key=lambda row: row.name)
    matching.sort(key=SORTS[column], reverse=descending)
    return matching
