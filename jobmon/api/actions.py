"""`/admin/actions…` and `POST /job/actions`: actions on jobs, only with JOBMON_ACTIONS."""

from http import HTTPStatus
from typing import Any

from flask import Response, request

from jobmon.actions.request import explain_required_reason
from jobmon.actions.requests import needs_approval
from jobmon.actions.state import ActionState
from jobmon.actions.target import Target
from jobmon.api import action_examples
from jobmon.api.action_answers import (
    ActionDetail,
    ActionList,
    ActionPreviewAnswer,
    OutcomeList,
    format_state,
)
from jobmon.api.action_files import export_outcomes, export_requests
from jobmon.api.action_queries import (
    ActionBody,
    ActionOrder,
    DecisionBody,
    OutcomeParameters,
    OutcomeQuery,
    OwnActionBody,
    RequestListParameters,
    RequestListQuery,
    UndoBody,
    describe_record_id,
    encode_cursor,
    explain_request_errors,
)
from jobmon.api.action_words import describe_action, list_warnings
from jobmon.api.job_actions import (
    decide,
    file_order,
    find_request,
    list_decisions,
    queue_actions,
    require_right,
    undo,
)
from jobmon.api.jobs import document_access_denied, get_callers_job
from jobmon.api.openapi import Access, Decorator, Routes
from jobmon.api.queries import JobParameters, ListFormat
from jobmon.web import auth
from jobmon.web.queues import current_queue

IDEMPOTENCY_KEY = "Idempotency-Key"
_KEY_PARAMETER = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "description": "A text of your choice. If the same caller sends the same text again, no second "
    "request is filed. If the second request differs from the first, the answer is 422.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
}
_ACTION_ID = describe_record_id("action_id", "Id of the request.", action_examples.ACTION["id"])
# The decisions about a request, each with the summary of its route.
_DECISIONS = {
    "approve": "Approve a request that needs an approval and that another person filed.",
    "reject": "Reject a request that needs an approval.",
    "pause": "Pause a request; the running batch is completed.",
    "resume": "Resume a request that was paused.",
    "stop": "Stop a request permanently; the running batch is completed. Changed jobs stay "
    "changed.",
}


def blueprint() -> Routes:
    """The routes below `/admin/actions`; all need the permission of the queue."""
    routes = Routes("actions", __name__, access=Access.ADMIN, url_prefix="/admin/actions")

    @routes.post("/preview")
    @routes.doc(operationId="previewAction")
    @routes.arguments(ActionBody, location="json", example=action_examples.ACTION_BODY)
    @routes.response(HTTPStatus.OK, ActionPreviewAnswer, example=action_examples.ACTION_PREVIEW)
    def preview(order: ActionOrder) -> dict[str, Any]:
        """Count the jobs or types that a request would change now, without filing it."""
        return make_preview(order)

    @routes.post("")
    @routes.doc(operationId="requestAction", parameters=[_KEY_PARAMETER])
    @routes.arguments(ActionBody, location="json", example=action_examples.ACTION_BODY)
    @routes.response(HTTPStatus.CREATED, ActionDetail, example=action_examples.ACTION)
    def file_request(order: ActionOrder) -> dict[str, Any]:
        """Request an action; an actor carries it out.

        The caller also needs the permission of the action: JOBS_RETRY (`retry`, `release`),
        JOBS_CANCEL, JOBS_DELETE, or JOBS_EDIT for all others. The request needs a `reason`, unless
        it is a dry run or for a single id or type.
        """
        require_right(order.action)
        return format_detail(file_order(order, request.headers.get(IDEMPOTENCY_KEY)))

    @routes.get("")
    @routes.doc(operationId="listActions")
    @routes.arguments(RequestListParameters, location="query")
    @routes.response(HTTPStatus.OK, ActionList, example=action_examples.ACTION_LIST)
    @routes.document_files("request", "Action with its `history`")
    def actions(query: RequestListQuery) -> dict[str, Any] | Response:
        """List the requests, the newest first, with the person, reason and progress of each."""
        if query.format is not ListFormat.JSON:
            return export_requests(query.format)
        states, next_cursor = list_requests(query)
        return {
            "meta": {
                "next_cursor": next_cursor,
                "is_actor_running": queue_actions().requests.has_actor(),
            },
            "data": [format_state(state) for state in states],
        }

    @routes.get("/<string(length=20):action_id>", parameters=[_ACTION_ID])
    @routes.doc(operationId="getAction")
    @_document_not_found(routes)
    @routes.response(HTTPStatus.OK, ActionDetail, example=action_examples.ACTION)
    def action(action_id: str) -> dict[str, Any]:
        """Get a request with its progress and its history."""
        return format_detail(find_request(action_id))

    @routes.get("/<string(length=20):action_id>/outcomes", parameters=[_ACTION_ID])
    @routes.doc(operationId="listOutcomes")
    @routes.arguments(OutcomeParameters, location="query")
    @_document_not_found(routes)
    @routes.response(HTTPStatus.OK, OutcomeList, example=action_examples.OUTCOME_LIST)
    @routes.document_files("outcome", "JobOutcome")
    def outcomes(query: OutcomeQuery, action_id: str) -> dict[str, Any] | Response:
        """List the outcomes of a request: the changed fields of each job, or why it was skipped.

        The last line of a file has a `reason` if the request is not over yet.
        """
        state = find_request(action_id)
        if query.format is not ListFormat.JSON:
            return export_outcomes(state, query.format, query.result)
        with explain_request_errors():
            page = queue_actions().requests.list_outcomes(
                action_id, after=query.after, limit=query.per_page, result=query.result
            )
        return {
            "meta": {"next_cursor": page.next_after},
            "data": page.outcomes,
        }

    @routes.post("/<string(length=20):action_id>/undo", parameters=[_ACTION_ID])
    @routes.doc(operationId="undoAction", parameters=[_KEY_PARAMETER])
    @routes.arguments(UndoBody, location="json", example={"reason": "too early"})
    @_document_conflict(routes)
    @_document_not_found(routes)
    @routes.response(HTTPStatus.CREATED, ActionDetail, example=action_examples.ACTION)
    def undo_action(body: dict[str, Any], action_id: str) -> dict[str, Any]:
        """Undo a request that is over, by a new request.

        Each job gets its earlier values back; a job that has changed since is skipped. The caller
        needs JOBS_EDIT and the permission of the earlier action. A `reason` is required, except in
        a dry run. Some queues and some actions have no undo.
        """
        key = request.headers.get(IDEMPOTENCY_KEY)
        return format_detail(undo(action_id, body["reason"], key, dry_run=body["dry_run"]))

    for name, summary in _DECISIONS.items():
        _add_decision(routes, name, summary)
    return routes


def _add_decision(routes: Routes, name: str, summary: str) -> None:
    """Add the route `POST /admin/actions/{action_id}/{name}`."""

    def view(body: dict[str, Any], action_id: str) -> dict[str, Any]:
        return format_detail(decide(action_id, name, body["reason"]))

    view.__name__, view.__doc__ = name, summary
    documented = routes.response(HTTPStatus.OK, ActionDetail, example=action_examples.ACTION)(view)
    documented = _document_not_found(routes)(_document_conflict(routes)(documented))
    documented = routes.arguments(
        DecisionBody, location="json", required=False, example={"reason": "wrong filter"}
    )(documented)
    documented = routes.doc(operationId=f"{name}Action")(documented)
    routes.route(
        f"/<string(length=20):action_id>/{name}", methods=["POST"], parameters=[_ACTION_ID]
    )(documented)


def add_owner_route(routes: Routes) -> None:
    """Add `POST /job/actions`, by which owners request actions, to the routes of jobs."""

    @routes.post("/job/actions")
    @routes.doc(operationId="requestJobAction", parameters=[_KEY_PARAMETER])
    @routes.arguments(JobParameters, location="query")
    @routes.arguments(OwnActionBody, location="json", example={"action": "retry"})
    @document_access_denied(routes)
    @routes.response(HTTPStatus.CREATED, ActionDetail, example=action_examples.ACTION)
    def job_action(job_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Request an action on one job, as its owner or an operator.

        Only with JOBMON_ACTIONS. Owners get 403 for an action that is not in JOBMON_OWNER_ACTIONS.
        """
        order = ActionOrder(target=Target(job_ids=(job_id,)), **body)
        require_right(order.action)
        get_callers_job(job_id)
        owner = None if auth.is_admin() else auth.subject()
        return format_detail(file_order(order, request.headers.get(IDEMPOTENCY_KEY), owner))


def make_preview(order: ActionOrder) -> dict[str, Any]:
    """The fields of an `ActionPreviewAnswer`; raises ApiError 403, 404 or 422."""
    require_right(order.action)
    actions, settings = queue_actions(), current_queue().settings
    owner = None if auth.is_admin() else auth.subject()
    with explain_request_errors():
        preview = actions.previewer.preview(order.action, order.target, owner)
    has_actor, expires_minutes = actions.requests.has_actor(), settings.actions_expire_minutes
    warnings = list_warnings(
        preview.unsuitable, has_actor=has_actor, expires_minutes=expires_minutes
    )
    return {
        "action": order.action,
        "text": describe_action(order, preview.count, actions.support),
        "warnings": warnings,
        "count": preview.count,
        "unsuitable": preview.unsuitable,
        "isReasonNeeded": bool(explain_required_reason(order.target, dry_run=order.dry_run)),
        "isApprovalNeeded": needs_approval(
            order.target, preview.count, settings, dry_run=order.dry_run
        ),
        "isActorRunning": has_actor,
        "expiresAfterMinutes": expires_minutes,
        "sample": preview.sample,
    }


def list_requests(query: RequestListQuery) -> tuple[list[ActionState], str | None]:
    """A page of the requests, and the cursor of the next one."""
    page = queue_actions().requests.list_recent(limit=query.per_page, before=query.before)
    return page.states, None if page.next_cursor is None else encode_cursor(page.next_cursor)


def format_detail(state: ActionState) -> dict[str, Any]:
    """The fields of an `ActionDetail`."""
    return {
        **format_state(state),
        "isActorRunning": queue_actions().requests.has_actor(),
        "decisions": list_decisions(state),
        "history": state.history,
    }


def _document_not_found(routes: Routes) -> Decorator:
    """A decorator for views of one request: documents the answer 404."""
    description = "There is no such request, or its records have expired."
    return routes.document_error(HTTPStatus.NOT_FOUND, "not_found", description)


def _document_conflict(routes: Routes) -> Decorator:
    """A decorator for the views of decisions and of `undo`: documents the answer 409."""
    description = "The phase, the action or the author of the request does not allow this."
    return routes.document_error(HTTPStatus.CONFLICT, "conflict", description)
