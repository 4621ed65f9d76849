"""The buttons for actions on a page: only actions that are possible and that the caller may use.

There are no buttons if no actor worked in the last minute: a click would have no effect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import structlog
from pymongo.errors import PyMongoError

from jobmon.actions.catalog import ACTIONS, ActionKind
from jobmon.api.job_actions import list_possible, may_request
from jobmon.api.queries import NON_FILTERS
from jobmon.domain import JobAction, JobCondition, JobStatus, TypeAction
from jobmon.store.failures import describe_error
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.queues import current_queue

log = structlog.get_logger("jobmon.actions")

NO_ACTOR = "No actions are possible now: no actor is running."
NOT_READ = "No actions are possible now: their records cannot be read."
# By condition, the suitable actions. All are suitable without a condition, or with another one.
_SUITABLE_ACTIONS = {
    JobCondition.EXPIRED.value: (JobAction.RELEASE.value, JobAction.CANCEL.value),
    JobCondition.DUE.value: (
        JobAction.RESCHEDULE.value,
        JobAction.PRIORITIZE.value,
        JobAction.CANCEL.value,
    ),
}


@dataclass(frozen=True, kw_only=True)
class ActionButtons:
    """The buttons of a page; `reason`: why there are none although the caller may use actions."""

    kinds: tuple[ActionKind, ...] = ()
    reason: str = ""


def list_job_buttons(job: Document, now: datetime) -> ActionButtons:
    """The buttons for a job from the store."""
    return _make_buttons([ACTIONS[name] for name in list_possible(job, now)])


def list_selection_buttons(parameters: Mapping[str, Any], *, is_own: bool = False) -> ActionButtons:
    """The buttons for a list with these filters; `is_own`: it has only jobs of the caller."""
    actions = current_queue().actions
    if actions is None or not (is_own or auth.is_admin()):
        return ActionButtons()
    statuses = parameters.get("status") or [None]
    possible = {name for status in statuses for name in actions.support.list_actions(status)}
    suitable = _SUITABLE_ACTIONS.get(parameters.get("condition") or "", tuple(ACTIONS))
    return _make_buttons(
        [
            kind
            for name, kind in ACTIONS.items()
            if name in possible and name in suitable and not kind.is_for_types and may_request(name)
        ]
    )


def list_type_buttons(*, is_paused: bool | None) -> ActionButtons:
    """The button that pauses or resumes a type; both buttons if `is_paused` is None (unknown)."""
    actions = current_queue().actions
    if actions is None or not actions.support.has_type_actions:
        return ActionButtons()
    suitable = {
        None: (TypeAction.PAUSE, TypeAction.RESUME),
        True: (TypeAction.RESUME,),
        False: (TypeAction.PAUSE,),
    }
    return _make_buttons(
        [ACTIONS[name] for name in suitable[is_paused] if may_request(ACTIONS[name].name)]
    )


def list_group_buttons() -> ActionButtons:
    """The buttons for the dead jobs of any group of errors."""
    return list_selection_buttons({"status": [JobStatus.DLQ.value]})


def _make_buttons(kinds: list[ActionKind]) -> ActionButtons:
    """Buttons for these actions, if an actor worked within the last minute."""
    actions = current_queue().actions
    if actions is None or not kinds:
        return ActionButtons()
    try:
        has_actor = actions.requests.had_actor()
    except PyMongoError as error:
        log.error("time of the last actor not read", error=describe_error(error))
        return ActionButtons(reason=NOT_READ)
    return ActionButtons(kinds=tuple(kinds)) if has_actor else ActionButtons(reason=NO_ACTOR)


def write_filter(parameters: Mapping[str, Any]) -> str:
    """The filters among the parameters of a list, as a query string that begins with `?`."""
    filters = {
        name: value for name, value in parameters.items() if name not in NON_FILTERS and value
    }
    return "?" + urlencode(filters, doseq=True)
