"""The buttons for actions on a page: only those that are possible and that the caller may use."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from jobmon.actions.vocabulary import ACTIONS, ActionKind
from jobmon.api.action_queries import NO_FILTERS
from jobmon.api.job_actions import list_possible, may_request
from jobmon.domain import JobAction, JobCondition, JobStatus
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.queues import current_queue

# The actions on jobs with a condition of a list.
_BY_CONDITION = {
    JobCondition.EXPIRED.value: (JobAction.RELEASE.value, JobAction.CANCEL.value),
    JobCondition.DUE.value: (
        JobAction.RESCHEDULE.value,
        JobAction.PRIORITIZE.value,
        JobAction.CANCEL.value,
    ),
}


def list_job_buttons(job: Document, now: datetime) -> list[ActionKind]:
    """The actions for a job as the store reads it."""
    return [ACTIONS[name] for name in list_possible(job, now)]


def list_selection_buttons(parameters: Mapping[str, Any]) -> list[ActionKind]:
    """The actions for the jobs of a list with these parameters; none for those who are no admin."""
    actions = current_queue().actions
    if actions is None or not auth.is_admin():
        return []
    given = parameters.get("status") or [None]
    possible = {name for status in given for name in actions.support.list_actions(status)}
    chosen = _BY_CONDITION.get(parameters.get("condition") or "", tuple(ACTIONS))
    return [
        kind
        for name, kind in ACTIONS.items()
        if name in possible and name in chosen and not kind.is_for_types and may_request(name)
    ]


def list_type_buttons() -> list[ActionKind]:
    """The actions for a type of jobs."""
    actions = current_queue().actions
    if actions is None or not actions.support.has_type_actions:
        return []
    return [kind for kind in ACTIONS.values() if kind.is_for_types and may_request(kind.name)]


def list_group_buttons() -> list[ActionKind]:
    """The actions for the dead jobs of a group of errors."""
    return list_selection_buttons({"status": [JobStatus.DLQ.value]})


def write_filter(parameters: Mapping[str, Any]) -> str:
    """The filters among the parameters of a list, as a query string with its `?`."""
    kept = {name: value for name, value in parameters.items() if name not in NO_FILTERS and value}
    return "?" + urlencode(kept, doseq=True)
