"""The dashboard's routes: each asks what a JSON route asks, and renders a page or a part of it."""

import hashlib
import logging
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import (
    Blueprint,
    Response,
    current_app,
    json,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from jobmon.api import auth, ratelimit
from jobmon.api.errors import ApiError, explain, invalid, unavailable
from jobmon.api.jobs import list_of_jobs
from jobmon.api.schemas import JobDetail, JobList, ListQuery, OwnListQuery
from jobmon.dashboard import session, words
from jobmon.dashboard.overview import (
    RANGES,
    SORTS,
    TYPES_SHOWN,
    chart_columns,
    gather,
    overview,
    sorted_types,
)
from jobmon.dashboard.timeline import is_finished, timeline
from jobmon.domain import JobStatus
from jobmon.rollup.reader import RollupReader
from jobmon.rollup.series import NoCollectorError, SeriesReader
from jobmon.store.jobs import JobStore
from jobmon.store.lists import JobLists
from jobmon.store.shared import SharedByKey

log = logging.getLogger(__name__)

# All who look at the same thing at the same time are shown one answer, for so long.
SHARED_MS = 1_000
PER_PAGE = 25
SUGGESTED_TYPES = 200
THEMES = ("light", "dark")
STATIC = Path(__file__).parent / "static"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def blueprint(
    store: JobStore, lists: JobLists, series: SeriesReader, rollup: RollupReader
) -> Blueprint:
    """The pages at `/` and below `/dashboard`."""
    pages = Blueprint("dashboard", __name__, template_folder="templates")
    pages.register_error_handler(Exception, _error_page)
    pages.after_request(_protect)
    for name in ("grouped", "duration", "percent", "status_word", "instant", "spark"):
        pages.add_app_template_filter(getattr(words, name))
    pages.add_app_template_global(words.query, "query")

    pages.add_url_rule("/dashboard/session", view_func=session.sign_in, methods=["POST"])
    pages.add_url_rule("/dashboard/sign-out", view_func=session.sign_out, methods=["POST"])

    @pages.context_processor
    def about_the_page() -> dict[str, Any]:
        theme = request.cookies.get("jobmon_theme")
        return {
            "theme": theme if theme in THEMES else "system",
            "known_statuses": [status.value for status in JobStatus],
            "signed_in": _caller(),
        }

    @pages.get("/")
    def root() -> BaseResponse:
        return redirect(url_for("dashboard.home"))

    @pages.get("/dashboard/static/<path:name>")
    def static(name: str) -> Response:
        response = send_from_directory(STATIC, name)
        # The address has the content's hash, so what it names never changes.
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response

    @cache
    def asset(name: str) -> str:
        """The address of a file of ours; empty if it was not built (see `make assets`)."""
        file = STATIC / name
        if not file.is_file():
            log.warning("%s is not built: pages work without it, but do not update", name)
            return ""
        version = hashlib.blake2b(file.read_bytes(), digest_size=6).hexdigest()
        return url_for("dashboard.static", name=name, v=version)

    pages.add_app_template_global(asset)

    @pages.get("/dashboard/sign-in")
    def sign_in() -> str:
        then = session.own_path(request.args.get("then", ""))
        return render_template("dashboard/sign_in.html", said="", then=then)

    @pages.get("/dashboard")
    def home() -> BaseResponse | str:
        _require_session()
        if not auth.is_admin():
            return redirect(url_for("dashboard.own_jobs"))
        wanted = _overview_query()
        return render_template("dashboard/overview.html", part=overview_part(wanted)[1], **wanted)

    def show_overview(key: tuple[str, str, str]) -> tuple[str, str]:
        wanted, by, text = key
        shown = overview(gather(store, series, rollup, wanted, datetime.now(UTC)))
        rows = sorted_types(shown.types, by, text)
        part = render_template(
            "dashboard/_overview.html",
            shown=shown,
            rows=rows[:TYPES_SHOWN],
            more=max(0, len(rows) - TYPES_SHOWN),
            range=wanted,
            by=by,
            text=text,
        )
        return shown.as_of.isoformat(), part

    shared_overview = SharedByKey(show_overview, SHARED_MS)

    def overview_part(wanted: dict[str, str]) -> tuple[str, str]:
        return shared_overview.get((wanted["range"], wanted["by"], wanted["text"]))

    @pages.get("/dashboard/overview")
    def overview_now() -> Response:
        _require_admin()
        as_of, part = overview_part(_overview_query())
        response = _conditional(part)
        response.headers["X-As-Of"] = as_of
        return response

    def show_charts(wanted: str) -> str:
        length, step = RANGES[wanted]
        now = datetime.now(UTC)
        try:
            past = series.past(series.window(now - length, now, step))
        except NoCollectorError:
            raise unavailable("collector_unavailable", "There is no collector.") from None
        return json.dumps(chart_columns(past))

    shared_charts = SharedByKey(show_charts, SHARED_MS)

    @pages.get("/dashboard/charts")
    def charts() -> Response:
        _require_admin()
        return _conditional(shared_charts.get(_overview_query()["range"]), "application/json")

    @pages.get("/dashboard/jobs")
    def jobs() -> BaseResponse | str | tuple[str, int]:
        _require_admin()
        return list_page(None)

    @pages.get("/dashboard/my")
    def own_jobs() -> BaseResponse | str | tuple[str, int]:
        _require_session()
        return list_page(auth.subject())

    def list_page(owner: str | None) -> BaseResponse | str | tuple[str, int]:
        schema = ListQuery() if owner is None else OwnListQuery()
        asked, errors, shown = _list_query(), {}, None
        try:
            query = schema.load({"per_page": PER_PAGE, **asked})
            found = list_of_jobs(lists, query, owner=owner)
            if isinstance(found, Response):
                return found
            shown = JobList().dump(found)
        except ValidationError as error:
            errors = error.normalized_messages()
        except ApiError as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            errors = error.details or {}
        given = {
            "asked": asked,
            "errors": {name: _said(said) for name, said in errors.items()},
            "shown": shown,
            "own": owner is not None,
            "path": request.path,
        }
        if session.is_part() and shown is not None:
            return _conditional(render_template("dashboard/_jobs.html", **given))
        suggested = _suggested_types(store) if owner is None else []
        page = render_template("dashboard/jobs.html", types=suggested, **given)
        return page, HTTPStatus.UNPROCESSABLE_ENTITY if errors else HTTPStatus.OK

    @pages.get("/dashboard/jobs/<path:job_id>")
    def job(job_id: str) -> Response | str:
        _require_session()
        found = store.get_job(job_id, owner=None if auth.is_admin() else auth.subject())
        if found is None:
            raise ApiError(HTTPStatus.FORBIDDEN, "access_denied", "Job not found or access denied.")
        detail = JobDetail().dump(found)
        given = {"job": detail, "steps": timeline(detail), "finished": is_finished(detail)}
        if session.is_part():
            return _conditional(render_template("dashboard/_job.html", **given))
        return render_template("dashboard/job.html", **given)

    @pages.get("/dashboard/<path:_rest>")
    def nothing(_rest: str) -> None:
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no such page.")

    return pages


def _require_session() -> None:
    auth.require_token(cookie=True)
    ratelimit.check()


def _require_admin() -> None:
    _require_session()
    auth.require_permission()


def _caller() -> dict[str, Any] | None:
    """Who is signed in, for the page's head; None where nobody is, or not for sure."""
    return {"sub": auth.subject(), "is_admin": auth.is_admin()} if auth.is_known() else None


def _overview_query() -> dict[str, str]:
    wanted = request.args.get("range", "1h")
    by = request.args.get("by", "-queued")
    if wanted not in RANGES:
        raise invalid("range", f"One of {', '.join(RANGES)}.")
    if by.removeprefix("-") not in SORTS:
        raise invalid("by", f"One of {', '.join(SORTS)}, with - in front for the largest first.")
    return {"range": wanted, "by": by, "text": request.args.get("text", "")[:200]}


def _list_query() -> dict[str, Any]:
    """The list's parameters as they stand in the address."""
    many = ("status", "type")
    one = ListQuery().fields.keys() - set(many)
    asked: dict[str, Any] = {name: request.args.getlist(name) for name in many}
    return asked | {name: request.args[name] for name in one if request.args.get(name)}


def _said(messages: Any) -> str:
    """The messages about a parameter in a line; those of a list come by their positions."""
    if isinstance(messages, dict):
        messages = [text for texts in messages.values() for text in texts]
    return " ".join(dict.fromkeys(messages))


def _suggested_types(store: JobStore) -> list[str]:
    return sorted(store.figures().type_counts() or {})[:SUGGESTED_TYPES]


def _conditional(body: str, mimetype: str = "text/html") -> Response:
    """An answer that costs nothing when the caller has it already."""
    response = Response(body, mimetype=mimetype)
    response.set_etag(hashlib.blake2b(body.encode(), digest_size=16).hexdigest())
    return response.make_conditional(request)


def _error_page(error: Exception) -> BaseResponse | tuple[str, int, dict[str, str]]:
    """Every failure as a page that says what to do, with the status that it has as JSON."""
    known = explain(error)
    if known.status == HTTPStatus.UNAUTHORIZED:
        return current_app.make_response(session.sign_in_page(known))
    if session.is_part():
        return Response(status=known.status, headers={**known.headers, "X-Error-Code": known.code})
    page = render_template("dashboard/error.html", error=known)
    return page, known.status, known.headers


def _protect(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response
