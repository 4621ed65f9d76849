"""The actions: the name and the permission of each, and its words in messages and on pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from jobmon.domain import JobAction, TypeAction
from jobmon.settings.actions import JOBS_CANCEL, JOBS_DELETE, JOBS_EDIT, JOBS_RETRY


class RequestError(ValueError):
    """A request or a mute is not valid; `field` is the parameter that has to be changed."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ValueKind(StrEnum):
    """What kind of value a request for an action must have."""

    TIME = "time"
    PRIORITY = "priority"


@dataclass(frozen=True)
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
    ActionKind(JobAction.RETRY.value, "Retry", "retried", JOBS_RETRY),
    ActionKind(JobAction.RUN_NOW.value, "Run now", "made due", JOBS_EDIT),
    ActionKind(
        JobAction.RESCHEDULE.value, "Reschedule", "rescheduled", JOBS_EDIT, value=ValueKind.TIME
    ),
    ActionKind(
        JobAction.PRIORITIZE.value,
        "Set priority",
        "given another priority",
        JOBS_EDIT,
        value=ValueKind.PRIORITY,
    ),
    ActionKind(JobAction.CANCEL.value, "Cancel", "cancelled", JOBS_CANCEL),
    ActionKind(JobAction.RELEASE.value, "Release", "released", JOBS_RETRY),
    ActionKind(JobAction.DISABLE.value, "Disable", "disabled", JOBS_EDIT),
    ActionKind(JobAction.ENABLE.value, "Enable", "enabled", JOBS_EDIT),
    ActionKind(JobAction.DELETE.value, "Delete", "deleted", JOBS_DELETE),
    # A role also needs the permission for the action that is undone.
    ActionKind(JobAction.UNDO.value, "Undo", "undone", JOBS_EDIT),
    ActionKind(TypeAction.PAUSE.value, "Pause", "paused", JOBS_EDIT),
    ActionKind(TypeAction.RESUME.value, "Resume", "resumed", JOBS_EDIT),
)
ACTIONS: Mapping[str, ActionKind] = MappingProxyType({kind.name: kind for kind in _KINDS})
