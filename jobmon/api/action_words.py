"""Describes in sentences for people what an action will do."""

from jobmon import humanize
from jobmon.actions.support import ActionSupport
from jobmon.api.action_queries import ActionOrder
from jobmon.domain import JobAction, TypeAction
from jobmon.store.bson_json import to_iso

# The end of a sentence that begins with "1 job" or "812 jobs".
_EFFECTS = {
    JobAction.RETRY: "will be queued again and may run immediately",
    JobAction.RUN_NOW: "will be due now instead of at the planned time",
    JobAction.RESCHEDULE: "will be due at {value}",
    JobAction.PRIORITIZE: "will have {value}",
    JobAction.CANCEL: "will be cancelled and not run any more",
    JobAction.RELEASE: "will be released from a lease that has expired",
    JobAction.DISABLE: "will be disabled: the next runs are skipped",
    JobAction.ENABLE: "will be enabled",
    JobAction.DELETE: "will be deleted",
}
_TYPE_EFFECTS = {
    TypeAction.PAUSE: "Workers will take no more jobs of {types}; running jobs continue.",
    TypeAction.RESUME: "Workers will take jobs of {types} again.",
}
_NOTES = {
    JobAction.CANCEL: "A running job loses its lease: its worker may still finish the work, but "
    "the result is not recorded.",
    JobAction.RELEASE: "Each is retried after a delay, or is dead-lettered if no attempt is left.",
    JobAction.DELETE: "This cannot be undone.",
}
_ATTEMPTS_KEPT = "Each keeps its remaining attempts; a job without any gets one."
_ATTEMPTS_RESET = "Each gets its original number of attempts."
_MAX_SHOWN_TYPES = 3


def describe_action(order: ActionOrder, count: int, support: ActionSupport) -> str:
    """One or two sentences: what will happen to `count` jobs, or to the types of the order."""
    if order.target.types:
        return _TYPE_EFFECTS[TypeAction(order.action)].format(types=_name_types(order))
    effect = _EFFECTS[JobAction(order.action)].format(value=_describe_value(order))
    sentences = [f"{humanize.count(count, 'job')} {effect}."]
    if support.transitions is None:  # the queue has jobmon's own library, with these rules
        if order.action == JobAction.RETRY:
            sentences.append(_ATTEMPTS_RESET if order.reset_attempts else _ATTEMPTS_KEPT)
        elif order.action in _NOTES:
            sentences.append(_NOTES[JobAction(order.action)])
    elif order.action == JobAction.DELETE:
        sentences.append(_NOTES[JobAction.DELETE])
    return " ".join(sentences)


def _name_types(order: ActionOrder) -> str:
    types = order.target.types
    names = ", ".join(types[:_MAX_SHOWN_TYPES])
    if hidden_count := len(types[_MAX_SHOWN_TYPES:]):
        return f"the types {names} and {humanize.count(hidden_count, 'more type')}"
    return f"the {'type' if len(types) == 1 else 'types'} {names}"


def _describe_value(order: ActionOrder) -> str:
    if order.run_at is not None:
        return to_iso(order.run_at)
    if order.action == JobAction.RESCHEDULE:
        return "the time that you choose"
    return "another priority" if order.priority is None else f"the priority {order.priority}"


def list_warnings(unsuitable: int | None, *, has_actor: bool, expires_minutes: int) -> list[str]:
    """Warnings to show before the request is filed, each as a sentence."""
    warnings = []
    if unsuitable:
        warnings.append(
            f"{humanize.grouped(unsuitable)} of the selected jobs cannot be changed in this way "
            "and will be skipped."
        )
    if not has_actor:
        warnings.append(
            f"No actor is running: the request waits, and expires after {expires_minutes} minutes."
        )
    return warnings
