"""The pages about actions: the question before a request, a request's progress, all requests."""

import secrets
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from flask import Response, redirect, render_template, request, url_for
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from jobmon.actions.catalog import ACTIONS, ActionKind
from jobmon.actions.records import Result
from jobmon.actions.state import ActionState, Phase
from jobmon.actions.target import MAX_IDS
from jobmon.api.action_answers import list_filters
from jobmon.api.action_files import export_outcomes, export_requests
from jobmon.api.action_queries import RequestListParameters, RequestListQuery
from jobmon.api.actions import list_requests, make_preview
from jobmon.api.fields import redact
from jobmon.api.job_actions import (
    decide,
    file_order,
    find_request,
    list_decisions,
    may_undo,
    queue_actions,
    require_right,
    undo,
)
from jobmon.api.jobs import require_own_job
from jobmon.api.parameters import read_parameter
from jobmon.api.queries import ListFormat
from jobmon.dashboard import session
from jobmon.dashboard.action_forms import ActionForm
from jobmon.dashboard.job_view import JobView
from jobmon.dashboard.parts import is_part_request, render_page
from jobmon.humanize import count
from jobmon.page_addresses import query as write_query
from jobmon.web import auth
from jobmon.web.errors import ApiError, invalid
from jobmon.web.queues import current_queue

PER_PAGE, OUTCOMES_SHOWN = 50, 50
LOCATION_HEADER = "X-Jobmon-Location"  # the page that a script opens after it filed a request
PHASE_WORDS = {
    Phase.AWAITING_APPROVAL: "needs an approval",
    Phase.WAITING: "waiting for an actor",
    Phase.STOPPING: "stopping",
}
# By phase, the job status that has the same colour; other phases look like `cancelled`.
PHASE_COLOURS = {
    Phase.RUNNING: "leased",
    Phase.STOPPING: "leased",
    Phase.WAITING: "queued",
    Phase.AWAITING_APPROVAL: "failed",
    Phase.PAUSED: "failed",
    Phase.FINISHED: "succeeded",
    Phase.EXPIRED: "dlq",
    Phase.REFUSED: "dlq",
}
DECISION_WORDS = {
    "approve": "Approve",
    "reject": "Reject",
    "pause": "Pause",
    "resume": "Resume",
    "stop": "Stop permanently",
}
_SCHEMA = RequestListParameters()


@dataclass(frozen=True, kw_only=True)
class ActionView:
    """A request for an action, as the pages show it."""

    state: ActionState

    @property
    def kind(self) -> ActionKind:
        """The requested action."""
        return ACTIONS[self.state.request.action]

    @property
    def quantity(self) -> str:
        """The expected number of jobs or types: `812 jobs`, `2 types`."""
        return count(self.state.expected, "type" if self.kind.is_for_types else "job")

    @property
    def phase(self) -> str:
        """The phase in words."""
        return PHASE_WORDS.get(self.state.phase, self.state.phase.value)

    @property
    def colour(self) -> str:
        """The job status that has the same colour as the phase."""
        return PHASE_COLOURS.get(self.state.phase, "cancelled")

    @property
    def filters(self) -> dict[str, Any] | None:
        """The filters as parameters of a list; None if the request has no filter."""
        job_filter = self.state.request.target.job_filter
        return None if job_filter is None else list_filters(job_filter)

    @property
    def list_address(self) -> str:
        """The address of the list with the request's filters: the jobs that match them now."""
        return "/dashboard/jobs" + write_query(**self.filters or {})


def show_requests() -> Response | str:
    """A page of the requests, the newest first; with a `format`, a file of requests."""
    session.require_admin()
    if (file_format := _read_format()) is not ListFormat.JSON:
        return export_requests(file_format)
    actions, query = queue_actions(), _read_list_query()
    states, next_cursor = list_requests(query)
    context = {
        "requests": [ActionView(state=state) for state in states],
        "next_cursor": next_cursor,
        "is_first": query.before is None,
        "has_actor": actions.requests.has_actor(),
        "expires_minutes": current_queue().settings.actions_expire_minutes,
    }
    return render_page("actions", **context)


def show_request(action_id: str) -> Response | str:
    """One request with its progress, for an admin or the person who filed it.

    With a `format`, a file of its outcomes; with a `result`, only outcomes of this kind.
    """
    view = _find_visible(action_id)
    requests = queue_actions().requests
    result = read_parameter("result")
    chosen_result = Result(result) if result in list(Result) else None
    if (file_format := _read_format()) is not ListFormat.JSON:
        return export_outcomes(view.state, file_format, chosen_result)
    page = requests.list_outcomes(action_id, limit=OUTCOMES_SHOWN, result=chosen_result)
    context = {
        "view": view,
        "decisions": [
            (name, DECISION_WORDS[name])
            for name in list_decisions(view.state)
            if name in DECISION_WORDS
        ],
        "may_undo": may_undo(view.state),
        "outcomes": [
            replace(outcome, before=redact(outcome.before), after=redact(outcome.after))
            for outcome in page.outcomes
        ],
        "has_more": page.next_after is not None,
        "chosen_result": chosen_result,
        "has_actor": requests.has_actor(),
        "expires_minutes": current_queue().settings.actions_expire_minutes,
    }
    return render_page("action", **context)


def show_toast(action_id: str) -> str:
    """The progress of a request in one line, for a script."""
    return render_template("dashboard/_toast.html", view=_find_visible(action_id))


def confirm() -> BaseResponse | str | tuple[str, int]:
    """Show the effect of a form, with a button that confirms it; this files nothing."""
    session.require_session()
    if request.method == "POST":
        session.require_same_origin()
    form = ActionForm.read(request.values)
    _require_own(form)
    return _render_confirmation(replace(form, key=secrets.token_hex(10), expected=""))


def file_request() -> BaseResponse | str | tuple[str, int]:
    """File the confirmed request and show it; if values are bad, ask again."""
    session.require_session()
    session.require_same_origin()
    form = ActionForm.read(request.form)
    try:
        order = form.make_order()
        require_right(order.action)
        _require_own(form)
        owner = None if auth.is_admin() else auth.subject()
        state = file_order(order, form.key or None, owner)
    except ApiError as error:
        if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        return _render_confirmation(form, error)
    return _answer_filed(state)


def undo_request(action_id: str) -> BaseResponse | str | tuple[str, int]:
    """Ask whether to undo a request. A form with the `key` of this question files the undo."""
    session.require_admin()
    session.require_same_origin()
    view, error = ActionView(state=find_request(action_id)), None
    key, reason = request.form.get("key"), request.form.get("reason", "")
    if key:
        try:
            state = undo(action_id, reason, key, dry_run=bool(request.form.get("dry_run")))
            return _answer_filed(state)
        except ApiError as refusal:
            if refusal.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            error = refusal
    if not may_undo(view.state):
        message = "This request cannot be undone, or you have no right to undo it."
        raise ApiError(HTTPStatus.CONFLICT, "conflict", message)
    context = {
        "view": view,
        "key": key or secrets.token_hex(10),
        "reason": reason,
        "messages": (error.details or {}) if error else {},
        "has_actor": queue_actions().requests.has_actor(),
        "expires_minutes": current_queue().settings.actions_expire_minutes,
    }
    page = _render_question("undo", context)
    return (page, HTTPStatus.UNPROCESSABLE_ENTITY) if error else page


def decide_request(action_id: str) -> BaseResponse:
    """Approve, reject, pause, resume or stop a request; then redirect to its page."""
    session.require_admin()
    session.require_same_origin()
    decision = request.form.get("decision", "")
    if decision not in DECISION_WORDS:
        raise invalid("decision", "Unknown.")
    decide(action_id, decision, "")
    return redirect(url_for("dashboard.action", action_id=action_id), HTTPStatus.SEE_OTHER)


def _answer_filed(state: ActionState) -> BaseResponse:
    """Redirect to the page of a filed request; a script gets the progress in one line instead.

    If the request is for more than one job or type, the script also gets the address of the page.
    """
    address = url_for("dashboard.action", action_id=state.request.id)
    if not is_part_request():
        return redirect(address, HTTPStatus.SEE_OTHER)
    headers = {} if state.request.target.is_single else {LOCATION_HEADER: address}
    toast = render_template("dashboard/_toast.html", view=ActionView(state=state))
    return Response(toast, HTTPStatus.CREATED, headers)


def _render_question(name: str, context: dict[str, Any]) -> str:
    """A question before a request: a page, or for a script the content of its dialog."""
    if is_part_request():
        return render_template(f"dashboard/_{name}.html", **context)
    return render_template("dashboard/confirm.html", question=name, **context)


def _read_list_query() -> RequestListQuery:
    try:
        query: RequestListQuery = _SCHEMA.load(
            {"per_page": PER_PAGE, "cursor": read_parameter("cursor")}
        )
    except ValidationError:
        raise invalid("cursor", "This page link is no longer valid.") from None
    return query


def _read_format() -> ListFormat:
    """The format of the file that is requested instead of the page; JSON stands for the page."""
    chosen = read_parameter("format")
    return ListFormat(chosen) if chosen in list(ListFormat) else ListFormat.JSON


def _find_visible(action_id: str) -> ActionView:
    """A request that the caller may see.

    A person without the role of an admin sees the requests that were filed for only their own jobs.
    Raises ApiError: for an admin 404 if it is missing, for others 403 if they may not see it.
    """
    session.require_session()
    if auth.is_admin():
        return ActionView(state=find_request(action_id))
    state = queue_actions().requests.get(action_id)
    if state is None or state.request.owner != auth.subject():
        message = "Request not found or access denied."
        raise ApiError(HTTPStatus.FORBIDDEN, "access_denied", message)
    return ActionView(state=state)


def _require_own(form: ActionForm) -> None:
    """Raise ApiError 403 if an owner may not file the form, 422 if it has too many ids.

    At least one of the ids must be a job of the owner. The actor skips the jobs of other owners as
    if they did not exist.
    """
    if auth.is_admin():
        return
    if form.action in ACTIONS:
        require_right(form.action)
    if form.filter or form.types:
        auth.require_permission()
    if len(form.ids) > MAX_IDS:
        raise invalid("ids", f"At most {MAX_IDS:,}.")
    if form.ids:
        require_own_job(form.ids)


def _render_confirmation(form: ActionForm, error: ApiError | None = None) -> tuple[str, int] | str:
    """The form with a preview of its effect, and messages about bad fields.

    If the preview fails, only its messages are shown, else the messages in `error`.
    """
    preview, messages = None, (error.details or {}) if error else {}
    try:
        # Without the fields that the preview does not need: it is shown even if they are bad.
        preview_form = replace(form, expected="", reason="", run_at="", priority="", dry_run=False)
        preview = make_preview(preview_form.make_order())
    except ApiError as refusal:
        if refusal.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        messages = refusal.details or {}
    context = {
        "form": form,
        "kind": ACTIONS.get(form.action),
        "preview": preview,
        "sample": list(map(JobView.from_document, preview["sample"])) if preview else [],
        "messages": messages,
        "then": session.own_path(form.then) or url_for("dashboard.home"),
    }
    page = _render_question("confirm", context)
    return (page, HTTPStatus.UNPROCESSABLE_ENTITY) if messages else page
