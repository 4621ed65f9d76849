"""Finds the actions that a queue has: by the rules of jobmon's own library, or by its profile."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from jobmon.actions.catalog import ACTIONS, RequestError
from jobmon.domain import ACTION_STATUSES, JobAction, TypeAction
from jobmon.profiles.transitions import Transition
from jobmon.settings import Settings
from jobmon.store.profiles import Profile

NO_TRANSITIONS = "The profile of this queue declares no transitions, so its jobs cannot be changed."
CELERY = "Celery's results are only what its workers report: changing one does not run its task."
DELETION_OFF = "Deletion is switched off: set JOBMON_ACTIONS_ALLOW_DELETE=true."
ONLY_DELETIONS = f"All actions of this queue delete jobs. {DELETION_OFF}"


@dataclass(frozen=True, kw_only=True)
class ActionSupport:
    """The actions of a queue. `statuses`: by action, the statuses of the jobs that it changes.

    `disabled_deletions`: the actions that delete documents, if the settings do not allow this.
    `reason`: why the queue has no actions; else empty. `transitions`: the profile's transitions, by
    action; None for the documents of jobmon's own library. `has_type_actions`: whether types can be
    paused. `has_creation_time`: whether jobs record when they were created.
    """

    statuses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    disabled_deletions: Collection[str] = ()
    reason: str = ""
    transitions: Mapping[str, Transition] | None = None
    has_type_actions: bool = False
    has_creation_time: bool = True

    def has(self, action: str) -> bool:
        if action in list(TypeAction):
            return self.has_type_actions
        return action in self.statuses

    def list_actions(self, status: str | None = None) -> list[str]:
        """The names of the actions in the order of the catalog, without `undo`.

        With a `status`, only the actions that change jobs with this status.
        """
        return [
            name
            for name in ACTIONS
            if name != JobAction.UNDO
            and self.has(name)
            and (status is None or status in self.statuses.get(name, ()))
        ]

    def require(self, action: str) -> None:
        """Raise RequestError with the reason unless the queue has this action."""
        if action in self.disabled_deletions:
            raise RequestError("action", DELETION_OFF)
        if not self.has(action):
            available = ", ".join(self.list_actions())
            message = self.reason or f"This queue has no action {action}. It has: {available}."
            raise RequestError("action", message)


def find_support(settings: Settings) -> ActionSupport:
    """The actions of the queue that these settings watch."""
    profile = Profile.from_settings(settings)
    transitions: Mapping[str, Transition] | None = None
    mappings = (profile.jobs, profile.attempts)
    if not any(mapping is not None and mapping.translates for mapping in mappings):
        statuses = {action.value: allowed for action, allowed in ACTION_STATUSES.items()}
        deletions = {JobAction.DELETE.value}
    else:
        profile_file = settings.read_profile()
        transitions = profile_file.parse(settings.jobs_collection).transitions
        if not transitions:
            is_celery = "celery" in (profile_file.name, profile_file.base)
            return ActionSupport(reason=CELERY if is_celery else NO_TRANSITIONS, transitions={})
        statuses = {name: transition.statuses for name, transition in transitions.items()}
        deletions = {name for name, transition in transitions.items() if transition.deletes}
    disabled_deletions = set[str]() if settings.actions_allow_delete else deletions
    allowed_statuses = {
        name: value for name, value in statuses.items() if name not in disabled_deletions
    }
    return ActionSupport(
        statuses=allowed_statuses,
        disabled_deletions=disabled_deletions,
        reason="" if allowed_statuses else ONLY_DELETIONS,
        transitions=transitions,
        has_type_actions=transitions is None,
        has_creation_time=profile.jobs.has_creation_time,
    )
