"""The dashboard's routes, which return pages, parts of pages, data of charts, and files."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Blueprint, Response, current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from jobmon import humanize, page_addresses
from jobmon.api.jobs import RestOfPath
from jobmon.dashboard import actions_page, find_page, formatting, mutes_page, session
from jobmon.dashboard.assets import CONTENT_SECURITY_POLICY, asset_address, serve_file
from jobmon.dashboard.errors_page import ErrorPages
from jobmon.dashboard.job_page import JobPage
from jobmon.dashboard.list_pages import JobListPages
from jobmon.dashboard.overview_page import OverviewPage
from jobmon.dashboard.page_window import PRESETS, describe_steps, find_kept_window
from jobmon.dashboard.parts import is_part_request
from jobmon.dashboard.queues_page import (
    QueuesPage,
    find_shown_queue,
    is_about_one_queue,
    make_menu,
)
from jobmon.dashboard.schedule_page import SchedulePage
from jobmon.dashboard.type_page import TypePage
from jobmon.dashboard.workers_page import WorkersPage
from jobmon.diagnosis.pauses import describe_pause
from jobmon.domain import JobStatus
from jobmon.store.failures import Failure
from jobmon.store.labels import MAX_LABEL_LENGTH, label
from jobmon.web.errors import ApiError, explain
from jobmon.web.proxies import cookie_name, cookie_path
from jobmon.web.queues import named_queue, root_path

if TYPE_CHECKING:
    from jobmon.dashboard.provider_sign_in import ProviderSignIn

THEMES = ("light", "dark")
THEME_COOKIE = "jobmon_theme"
# The style sheet of the documentation's viewer contains icons as `data:` addresses.
DOCS_POLICY = CONTENT_SECURITY_POLICY.replace("img-src 'self'", "img-src 'self' data:")
FILTERS = (
    humanize.grouped,
    humanize.duration,
    humanize.percent,
    formatting.status_word,
    page_addresses.instant,
    formatting.to_datetime_local,
    describe_pause,
    formatting.capitalize_first,
    formatting.environment_kind,
    formatting.mark_commands,
    formatting.sparkline,
    label,
)


def blueprint(
    *,
    overview: OverviewPage,
    jobs: JobListPages,
    job: JobPage,
    errors: ErrorPages,
    workers: WorkersPage,
    types: TypePage,
    schedule: SchedulePage,
    queues: QueuesPage,
    has_actions: bool,
    sign_in: "ProviderSignIn | None",
) -> Blueprint:
    """The pages at `/`, `/docs` and below `/dashboard`; some need actions or `sign_in`."""
    routes = Blueprint("dashboard", __name__, template_folder="templates")
    routes.record(lambda state: state.app.url_map.converters.update(anything=RestOfPath))
    routes.register_error_handler(Exception, _error_page)
    routes.after_request(_set_policy)
    routes.context_processor(_page_context)
    for template_filter in FILTERS:
        routes.add_app_template_filter(template_filter)
    routes.add_app_template_global(page_addresses.query)
    routes.add_app_template_global(page_addresses.job_address)
    routes.add_app_template_global(page_addresses.worker_address)
    routes.add_app_template_global(page_addresses.type_address)
    routes.add_app_template_global(page_addresses.error_address)
    routes.add_app_template_global(describe_steps)
    routes.add_app_template_global(asset_address, "asset")
    for path, name, view in (
        ("/", "root", _redirect_home),
        ("/dashboard/", "root", _redirect_home),
        ("/dashboard", "home", overview.page),
        ("/dashboard/overview", "overview", overview.part),
        ("/dashboard/charts", "charts", overview.charts),
        ("/dashboard/jobs", "jobs", jobs.all_jobs),
        ("/dashboard/jobs/<anything:job_id>", "job", job.page),
        ("/dashboard/job", "job_by_query", job.page_by_query),
        ("/dashboard/my", "own_jobs", jobs.own_jobs),
        ("/dashboard/errors", "errors", errors.all_groups),
        ("/dashboard/errors/<group_id>", "error_group", errors.group),
        ("/dashboard/errors/<group_id>/chart", "error_chart", errors.chart),
        ("/dashboard/workers", "workers", workers.page),
        ("/dashboard/types/<anything:name>", "type", types.page),
        ("/dashboard/type", "type_by_query", types.page_by_query),
        ("/dashboard/schedule", "schedule", schedule.page),
        ("/dashboard/recurring", "recurring", schedule.recurring),
        ("/dashboard/queues", "queues", queues.page),
        ("/dashboard/queues/find", "find_queue", find_page.find_queue),
        ("/dashboard/find", "find", find_page.find),
        ("/dashboard/sign-in", "sign_in_form", session.sign_in_form),
        ("/dashboard/static/<path:name>", "file", serve_file),
        ("/dashboard/static/v-<version>/<path:name>", "versioned_file", serve_file),
        ("/docs", "docs", _docs),
        ("/dashboard/<anything:_path>", "unknown", _raise_not_found),
    ):
        routes.add_url_rule(path, name, view)
    if has_actions:
        _add_action_pages(routes)
        routes.add_url_rule("/dashboard/type-actions", "type_actions", types.actions)
        group = "/dashboard/errors/<group_id>/actions"
        routes.add_url_rule(group, "error_actions", errors.actions)
    if sign_in is not None:
        sign_in.add_routes(routes)
    routes.add_url_rule("/dashboard/session", view_func=session.sign_in, methods=["POST"])
    routes.add_url_rule("/dashboard/sign-out", view_func=session.sign_out, methods=["POST"])
    return routes


def _add_action_pages(routes: Blueprint) -> None:
    routes.add_url_rule("/dashboard/mutes/confirm", "confirm_mute", mutes_page.confirm)
    routes.add_url_rule("/dashboard/mutes", "file_mute", mutes_page.file, methods=["POST"])
    routes.add_url_rule("/dashboard/mutes/end", "end_mute", mutes_page.end, methods=["POST"])
    page = "/dashboard/actions/<string(length=20):action_id>"
    routes.add_url_rule("/dashboard/actions", "actions", actions_page.show_requests)
    routes.add_url_rule(
        "/dashboard/actions", "file_action", actions_page.file_request, methods=["POST"]
    )
    confirm = "/dashboard/actions/confirm"
    routes.add_url_rule(confirm, "confirm_action", actions_page.confirm, methods=["GET", "POST"])
    routes.add_url_rule(page, "action", actions_page.show_request)
    routes.add_url_rule(f"{page}/toast", "action_toast", actions_page.show_toast)
    routes.add_url_rule(f"{page}/undo", "undo_action", actions_page.undo_request, methods=["POST"])
    routes.add_url_rule(page, "decide_action", actions_page.decide_request, methods=["POST"])


def _redirect_home() -> BaseResponse:
    has_name = named_queue() is not None
    return redirect(url_for("dashboard.home") if has_name else session.home_address())


def _raise_not_found(_path: str) -> BaseResponse:
    session.recognize_caller()
    raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no such page.")


def _docs() -> Response:
    """The viewer of `/openapi.json`. The viewer and the document need no token."""
    session.recognize_caller()
    response = Response(render_template("docs.html"), mimetype="text/html")
    response.headers["Content-Security-Policy"] = DOCS_POLICY
    return response


def _page_context() -> dict[str, Any]:
    """The values that every template may use."""
    theme = request.cookies.get(cookie_name(THEME_COOKIE))
    return {
        "theme": theme if theme in THEMES else "system",
        "theme_cookie": cookie_name(THEME_COOKIE),
        "cookie_path": cookie_path(),
        "known_statuses": [status.value for status in JobStatus],
        "preset_windows": PRESETS,
        "kept_window": find_kept_window(),
        "signed_in": session.describe_caller(),
        "max_filter_length": MAX_LABEL_LENGTH,
        "address": session.request_address(),
        "base": request.script_root,
        "home": session.home_address(),
        "menu": make_menu(),
        "shown_queue": find_shown_queue(),
        "now": datetime.now(UTC),
        "has_actions": current_app.extensions["jobmon_settings"].actions,
        "is_about_one_queue": is_about_one_queue(),
        "sign_out_address": session.sign_out_address(),
        "all_queues": root_path() + "/dashboard/queues",
    }


def _error_page(error: Exception) -> BaseResponse | tuple[str, int, dict[str, str]]:
    """Any failure as a page with the status of its JSON answer, and with what to do next.

    Without a valid session, the sign-in page; for a part of a page, a text for the script.
    """
    answer = explain(error)
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return current_app.make_response(session.sign_in_page(answer))
    if is_part_request():
        headers = {**answer.headers, "X-Error-Code": answer.code}
        return Response(_describe(answer), answer.status, headers, mimetype="text/plain")
    # No `now`: the pages for a missing job and for another owner's job must be identical.
    is_unreachable = answer.failure is Failure.UNREACHABLE
    mistakes = answer.details or {}
    accepted = {name: request.args.getlist(name) for name in request.args if name not in mistakes}
    page = render_template(
        "dashboard/error.html",
        error=answer,
        is_unreachable=is_unreachable,
        address_without_mistakes=request.script_root
        + quote(request.path)
        + page_addresses.query(**accepted),
        now=None,
    )
    return page, answer.status, answer.headers


def _describe(error: ApiError) -> str:
    """What is wrong with each parameter, or else the message, for the script of an open page."""
    if error.status != HTTPStatus.UNPROCESSABLE_ENTITY or not error.details:
        return error.message
    return " ".join(f"{name}: {' '.join(messages)}" for name, messages in error.details.items())


def _set_policy(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    return response
