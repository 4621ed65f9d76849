"""Files the caller's requests for actions, and lists the possible actions and decisions."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import structlog
from flask import request
from pymongo.errors import PyMongoError

from jobmon.actions.catalog import ACTIONS
from jobmon.actions.preview import require_suitable
from jobmon.actions.request import ActionRequest, Person, check_target, make_id
from jobmon.actions.requests import ActionRequests
from jobmon.actions.state import ActionState
from jobmon.actions.target import Target
from jobmon.api.action_answers import DECISIONS, format_done
from jobmon.api.action_queries import ActionOrder, explain_request_errors
from jobmon.domain import JobAction, explain_refusal
from jobmon.settings.actions import JOBS_APPROVE
from jobmon.store.bson_json import encode_key, to_text
from jobmon.store.failures import describe_error
from jobmon.store.mapping import Document
from jobmon.web import auth
from jobmon.web.errors import ApiError, invalid, too_many_requests
from jobmon.web.queues import QueueActions, WatchedQueue, current_queue

log = structlog.get_logger("jobmon.actions")

MAX_DONE = 50  # outcomes shown for a job
# Of an owner in an hour: the actor lists the requests of ten days in each round.
MAX_OWNER_REQUESTS = 200
NOT_READ = "the records of actions cannot be read"
_APPROVER_DECISIONS = ("approve", "reject")
# The actions that can be undone: then the jobs get their earlier values back.
_UNDOABLE = (
    JobAction.RETRY,
    JobAction.RUN_NOW,
    JobAction.RESCHEDULE,
    JobAction.PRIORITIZE,
    JobAction.CANCEL,
)


def queue_actions() -> QueueActions:
    """The actions of the request's queue; raises ApiError 404 if they are switched off."""
    actions = current_queue().actions
    if actions is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is nothing at this address.")
    return actions


def may_request(action: str) -> bool:
    """Whether the caller may request an action: operators by permission, owners by the settings.

    Owners may request it only for their own jobs; this function does not check the job.
    """
    if auth.is_admin():
        return auth.has_permission(ACTIONS[action].permission)
    return action in current_queue().settings.owner_actions


def require_right(action: str) -> None:
    """Raise ApiError 403 unless the caller may request an action."""
    if not may_request(action):
        raise auth.permission_error(ACTIONS[action].permission)


def list_possible(job: Document, now: datetime) -> list[str]:
    """The actions that the caller may request for a job in its present state."""
    actions = current_queue().actions
    if actions is None or job.get("jobId") is None:
        return []
    names = actions.support.list_actions(str(job.get("status")))
    return [name for name in names if may_request(name) and not explain_refusal(name, job, now)]


def read_done_actions(
    queue: WatchedQueue, job: Document, max_age_s: float = 0.0
) -> tuple[list[dict[str, Any]] | None, str]:
    """The fields of each `DoneAction` of a job, or None and why they are unknown.

    Operators see the author and the reason of every request, owners only of their own requests.
    An owner sees no action on another job with the same id. The result may be up to `max_age_s`
    seconds old.
    """
    job_id = job.get("jobId")
    if queue.actions is None or job_id is None:
        return [], ""
    try:
        outcomes = queue.actions.requests.list_job_outcomes(to_text(job_id), MAX_DONE, max_age_s)
    except PyMongoError as error:
        log.error("actions of a job not read", error=describe_error(error))
        return None, NOT_READ
    is_admin, subject = auth.is_admin(), auth.subject()
    return [
        format_done(
            outcome, action_request, shows_person=is_admin or action_request.by.subject == subject
        )
        for outcome, action_request in outcomes
        if is_admin or encode_key(outcome.key) == encode_key(job["_id"])
    ], ""


def describe_actions(queue: WatchedQueue, job: Document, now: datetime) -> dict[str, Any]:
    """The fields of a `JobActions`."""
    done, reason = read_done_actions(queue, job)
    reasons = {"done": reason} if reason else {}
    return {"possible": list_possible(job, now), "done": done, "reasons": reasons}


def make_person() -> Person:
    """The caller, for the records."""
    return Person(subject=auth.subject(), role=auth.describe_roles(), address=request.remote_addr)


def file_order(order: ActionOrder, key: str | None, owner: str | None = None) -> ActionState:
    """File an order as a request of the caller; it does not check the caller's right.

    `key`: the idempotency key. With `owner`, only jobs of this owner are changed. Raises ApiError
    404 if actions are switched off, 422 if the action cannot be requested, 429 if the owner has
    filed too many requests.
    """
    queue, actions = current_queue(), queue_actions()
    with explain_request_errors():
        actions.support.require(order.action)
        check_target(order.action, order.target)
        action_request = ActionRequest(
            action=order.action,
            target=order.target,
            by=make_person(),
            expected=_find_expected(queue, actions, order),
            reason=order.reason,
            run_at=order.run_at,
            priority=order.priority,
            reset_attempts=order.reset_attempts,
            dry_run=order.dry_run,
            owner=owner,
        )
        if owner is not None:
            _limit_requests(actions, owner, key)
        state = actions.requests.file(action_request, key)
    log.info(
        "action requested",
        request=state.request.id,
        action=order.action,
        target=order.target.kind.value,
        expected=state.expected,
        dry_run=order.dry_run,
        user=state.request.by.subject,
        address=state.request.by.address,
    )
    return find_request(state.request.id)  # with its history


def _limit_requests(actions: QueueActions, owner: str, key: str | None) -> None:
    """Raise ApiError 429 if an owner has filed `MAX_OWNER_REQUESTS` in the last hour.

    A request that is filed again with its `key` is not limited.
    """
    if key is not None and actions.requests.get(make_id(owner, key)) is not None:
        return
    hour, now = timedelta(hours=1), datetime.now(UTC)
    records = actions.requests.records
    filed_at = records.find_owners_request(owner, now - hour, MAX_OWNER_REQUESTS)
    if filed_at is not None:
        wait_s = (filed_at + hour - now).total_seconds()
        message = f"An owner can request {MAX_OWNER_REQUESTS} actions in an hour."
        raise too_many_requests(message, wait_s)


def _find_expected(queue: WatchedQueue, actions: QueueActions, order: ActionOrder) -> int:
    """The number of ids or types of an order; for a filter or `undo`, the number in the order.

    Raises ApiError 422 for a filter without this number, RefusedFilterError for a refused filter.
    """
    target = order.target
    if target.request_id is not None:
        return order.expected or 0
    if target.job_filter is None:
        return target.listed_count
    if order.expected is None:
        raise invalid("expected", "Required with a filter: the count of the preview.")
    selected = require_suitable(order.action, target.job_filter, actions.support)
    queue.lists.prepare(selected)
    return order.expected


def decide(request_id: str, decision: str, reason: str) -> ActionState:
    """Record a decision of the caller: `approve`, `reject`, `pause`, `resume` or `stop`.

    Raises ApiError 404 if there is no such request, 403 without the right, 409 if the decision is
    impossible now.
    """
    requests = queue_actions().requests
    state = find_request(request_id)
    if not may_decide(state, decision):
        is_for_approver = decision in _APPROVER_DECISIONS
        permission = ACTIONS[state.request.action].permission
        raise auth.permission_error(JOBS_APPROVE if is_for_approver else permission)
    with explain_request_errors():
        decided: ActionState = getattr(requests, decision)(request_id, make_person(), reason)
    log.info(
        "action decided",
        request=request_id,
        decision=decision,
        user=auth.subject(),
        address=request.remote_addr,
    )
    return decided


def may_decide(state: ActionState, decision: str) -> bool:
    """Whether the caller has the right for a decision; the phase is not checked."""
    if decision in _APPROVER_DECISIONS:
        return auth.has_permission(JOBS_APPROVE)
    return auth.has_permission(ACTIONS[state.request.action].permission)


def list_decisions(state: ActionState) -> list[str]:
    """The decisions that the caller may take now; only `undo` if the request can be undone."""
    has_filed = state.request.by.subject == auth.subject()
    if may_undo(state):
        return ["undo"]
    return [
        decision
        for decision in DECISIONS.get(state.phase, ())
        if auth.is_admin()
        and may_decide(state, decision)
        and not (has_filed and decision == "approve")
    ]


def undo(request_id: str, reason: str, key: str | None, *, dry_run: bool = False) -> ActionState:
    """File a request that undoes an earlier one.

    Raises ApiError 404 if there is no such request, 403 without the right, 409 if the request
    cannot be undone, 422 for a bad reason or key.
    """
    state = find_request(request_id)
    for permission in _list_undo_permissions(state):
        if not auth.has_permission(permission):
            raise auth.permission_error(permission)
    if not _is_undoable(state):
        message = "This request cannot be undone."
        raise ApiError(HTTPStatus.CONFLICT, "conflict", message)
    target = Target(request_id=request_id)
    order = ActionOrder(
        action=JobAction.UNDO.value,
        target=target,
        expected=state.counts.done,
        reason=reason,
        dry_run=dry_run,
    )
    return file_order(order, key)


def may_undo(state: ActionState) -> bool:
    """Whether the caller may undo a request, and the request can be undone now."""
    return (
        auth.is_admin()
        and _is_undoable(state)
        and all(map(auth.has_permission, _list_undo_permissions(state)))
    )


def _list_undo_permissions(state: ActionState) -> tuple[str, str]:
    return ACTIONS[JobAction.UNDO].permission, ACTIONS[state.request.action].permission


def _is_undoable(state: ActionState) -> bool:
    return (
        state.request.action in _UNDOABLE
        and state.is_over
        and state.counts.done > 0
        and queue_actions().support.has(JobAction.UNDO)
    )


def find_request(request_id: str) -> ActionState:
    """A request of the queue; raises ApiError 404 if there is none with this id."""
    requests: ActionRequests = queue_actions().requests
    state = requests.get(request_id)
    if state is None:
        message = "There is no such request, or its records have expired."
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", message)
    return state
