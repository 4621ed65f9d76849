"""The overview's table: a row for each type of job."""

from collections.abc import Mapping
from dataclasses import dataclass

from jobmon.dashboard.facts import Facts
from jobmon.dashboard.formatting import query
from jobmon.diagnosis.attention import failure_rate
from jobmon.domain import JobStatus
from jobmon.rollup.series import Activity, History
from jobmon.store.labels import is_filter

TYPES_SHOWN = 50
LONGEST_SEARCH = 200  # characters of a type's name


@dataclass(frozen=True, kw_only=True)
class TypeRow:
    """A type of job: its jobs now, and what happened to it in the range.

    `link` is the list's query for its jobs, empty where the name is too long for a filter.
    """

    name: str
    link: str = ""
    now: Mapping[str, int] | None
    done: int
    failure_rate: float | None
    wait_p95: int | None
    run_p95: int | None


def type_rows(facts: Facts) -> list[TypeRow]:
    """A row for each type that has jobs now or had attempts in the range."""
    by_type = facts.types.happened if isinstance(facts.types, History) else {}
    now = facts.evidence.figures.type_counts_for(by_type)
    if now is None:
        now = dict.fromkeys(by_type)
    nothing = Activity.of([])
    rows = []
    for kind in now:
        happened = by_type.get(kind, nothing)
        rows.append(
            TypeRow(
                name=kind,
                link=query(type=kind) if is_filter(kind) else "",
                now=now[kind],
                done=happened.finished,
                failure_rate=failure_rate(happened),
                wait_p95=happened.wait.p95,
                run_p95=happened.run.p95,
            )
        )
    return rows


SORTS = {
    "type": lambda row: row.name,
    "queued": lambda row: (row.now or {}).get(JobStatus.QUEUED, 0),
    "running": lambda row: (row.now or {}).get(JobStatus.LEASED, 0),
    "retrying": lambda row: (row.now or {}).get(JobStatus.FAILED, 0),
    "dead": lambda row: (row.now or {}).get(JobStatus.DLQ, 0),
    "done": lambda row: row.done,
    "failing": lambda row: row.failure_rate or 0.0,
    "wait": lambda row: row.wait_p95 or 0,
    "run": lambda row: row.run_p95 or 0,
}


def sorted_types(
    rows: list[TypeRow], by: str, text: str, only: frozenset[str] | None = None
) -> list[TypeRow]:
    """The rows whose type contains `text`, and is among `only` if given, by a column.

    With `-` in front of the column the largest come first.
    """
    descending, column = by.startswith("-"), by.removeprefix("-")
    found = [
        row
        for row in rows
        if text.lower() in row.name.lower() and (only is None or row.name in only)
    ]
    found.sort(key=lambda row: row.name)
    found.sort(key=SORTS[column], reverse=descending)
    return found
