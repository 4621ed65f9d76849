"""The actions: the name and the permission of each, and its words in messages and on pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from jobmon.domain import JobAction, TypeAction
from jobmon.settings.actions import (
    JOBS_CANCEL,
    JOBS_DELETE,
    JOBS_EDIT,
    JOBS_RETRY,
)


class RequestError(ValueError):
    """A request or a mute is not valid; `field` is the parameter that has to be changed."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ValueKind(StrEnum):
    """What kind of value a request for an action must have."""

    TIME = "time"
    PRIORITY = "priority"


@dataclass(frozen=True, kw_only=True)
class ActionKind:
    """An action. `label`: the text of its button. `done`: its words in "retried by ada".

    `permission`: the permission that a role needs. `value`: the kind of value that a request must
    have in addition to its jobs; None if it has no value.
    """

    name: str
    label: str
    done: str
    permission: str
    value: ValueKind | None = None

    @property
    def is_for_types(self) -> bool:
        """Whether it is an action on types of jobs, not on jobs."""
        return self.name in list(TypeAction)


_KINDS = (
    ActionKind(name=JobAction.RETRY.value, label="Retry", done="retried", permission=JOBS_RETRY),
    ActionKind(
        name=JobAction.RUN_NOW.value, label="Run now", done="made due", permission=JOBS_EDIT
    ),
    ActionKind(
        name=JobAction.RESCHEDULE.value,
        label="Reschedule",
        done="rescheduled",
        permission=JOBS_EDIT,
        value=ValueKind.TIME,
    ),
    ActionKind(
        name=JobAction.PRIORITIZE.value,
        label="Set priority",
        done="given another priority",
        permission=JOBS_EDIT,
        value=ValueKind.PRIORITY,
    ),
    ActionKind(
        name=JobAction.CANCEL.value, label="Cancel", done="cancelled", permission=JOBS_CANCEL
    ),
    ActionKind(
        name=JobAction.RELEASE.value, label="Release", done="released", permission=JOBS_RETRY
    ),
    ActionKind(
        name=JobAction.DISABLE.value, label="Disable", done="disabled", permission=JOBS_EDIT
    ),
    ActionKind(name=JobAction.ENABLE.value, label="Enable", done="enabled", permission=JOBS_EDIT),
    ActionKind(name=JobAction.DELETE.value, label="Delete", done="deleted", permission=JOBS_DELETE),
    # A role also needs the permission for the action that is undone.
    ActionKind(name=JobAction.UNDO.value, label="Undo", done="undone", permission=JOBS_EDIT),
    ActionKind(name=TypeAction.PAUSE.value, label="Pause", done="paused", permission=JOBS_EDIT),
    ActionKind(name=TypeAction.RESUME.value, label="Resume", done="resumed", permission=JOBS_EDIT),
)
ACTIONS: Mapping[str, ActionKind] = MappingProxyType({kind.name: kind for kind in _KINDS})
