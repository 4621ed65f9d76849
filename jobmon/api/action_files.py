"""The records of actions as files: all requests, and the outcomes of one request."""

from typing import Any

from flask import Response

from jobmon.actions.records import Result
from jobmon.actions.state import ActionState
from jobmon.api.action_answers import (
    ActionWithHistory,
    JobOutcomeAnswer,
    PersonAnswer,
    format_state,
)
from jobmon.api.answers import Answer
from jobmon.api.export import FileRows, export
from jobmon.api.job_actions import queue_actions
from jobmon.api.queries import ListFormat
from jobmon.web.json_text import dump_json

UNFINISHED = "the request is not over: more jobs may follow"


def _make_rows(name: str, answer: Answer) -> FileRows:
    """Rows of a file. In CSV the fields of `by` have columns of their own, such as `bySubject`;
    other objects, lists and booleans are JSON text."""
    return FileRows(name=name, answer=answer, columns=_name_columns(answer), pick_cells=_pick_cells)


def _name_columns(answer: Answer) -> tuple[str, ...]:
    person_cells = [f"by{name.capitalize()}" for name in PersonAnswer().fields]
    return tuple(
        cell for name in answer.fields for cell in (person_cells if name == "by" else (name,))
    )


def _pick_cells(serialized: dict[str, Any]) -> list[Any]:
    cells: list[Any] = []
    for name, value in serialized.items():
        if name == "by":
            cells += value.values()
        else:
            cells.append(dump_json(value) if isinstance(value, dict | list | bool) else value)
    return cells


REQUEST_ROWS = _make_rows("actions", ActionWithHistory())
OUTCOME_ROWS = _make_rows("outcomes", JobOutcomeAnswer())


def export_requests(file_format: ListFormat) -> Response:
    """A file of all requests with their histories, the newest first."""
    batches = (
        [format_state(state) | {"history": state.history} for state in states]
        for states in queue_actions().requests.list_all()
    )
    return export(REQUEST_ROWS, batches, file_format)


def export_outcomes(state: ActionState, file_format: ListFormat, result: Result | None) -> Response:
    """A file of the outcomes of a request; with `result`, only of those with this result."""
    outcomes = queue_actions().requests.list_all_outcomes(state.request.id, result)
    return export(OUTCOME_ROWS, outcomes, file_format, () if state.is_over else (UNFINISHED,))
