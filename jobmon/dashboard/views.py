"""The dashboard's routes: each asks what a JSON route asks, and renders a page or a part of it."""

import hashlib
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from flask import (
    Blueprint,
    Response,
    current_app,
    json,
    redirect,
    render_template,
    request,
    url_for,
)
from marshmallow import ValidationError
from werkzeug.security import safe_join
from werkzeug.wrappers import Response as BaseResponse

from jobmon import humanize
from jobmon.api.jobs import RestOfPath, filter_of, list_of_jobs
from jobmon.api.schemas import JobDetail, JobList, ListQuery, OwnListQuery
from jobmon.dashboard import formatting, session
from jobmon.dashboard.overview import (
    LONGEST_SEARCH,
    RANGE_WORDS,
    RANGES,
    SORTS,
    TYPES_SHOWN,
    NotKeptError,
    chart_columns,
    gather,
    overview,
    sorted_types,
    window_of,
)
from jobmon.dashboard.timeline import has_expired_lease, is_finished, timeline
from jobmon.diagnosis.attention import TypeCondition
from jobmon.diagnosis.evidence import Evidence, Missing
from jobmon.domain import JobStatus
from jobmon.rollup.series import NoCollectorError, SeriesReader
from jobmon.single_flight import SingleFlightCache
from jobmon.store.bson_json import MAX_NAME_LENGTH, is_filter, label
from jobmon.store.jobs import JobStore
from jobmon.store.lists import JobLists
from jobmon.web import auth, rate_limit
from jobmon.web.compression import fixed_response
from jobmon.web.errors import AWAY, ApiError, explain, invalid, unavailable

log = logging.getLogger(__name__)

# All who look at the same thing in the same second are shown one answer.
SHARED_S = 1
KEEP_ANSWERS = 100
PER_PAGE = 25
HELD = "X-Jobmon-Held"  # ids of rows that stay where they are under the pointer, quoted
SUGGESTED_TYPES = 200
SUGGESTED_STATUSES = 20
BY_DEFAULT = "-queued"
THEMES = ("light", "dark")
EXPORTS = ("csv", "ndjson")
STATIC = Path(__file__).parent / "static"
# As browsers want them, whatever the machine's own tables say.
MIMETYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def blueprint(store: JobStore, lists: JobLists, series: SeriesReader) -> Blueprint:
    """The pages at `/` and below `/dashboard`."""
    routes = Blueprint("dashboard", __name__, template_folder="templates")
    routes.record(lambda state: state.app.url_map.converters.update(anything=RestOfPath))
    routes.register_error_handler(Exception, _error_page)
    routes.after_request(_protect)
    routes.context_processor(_about_the_page)
    for name in ("grouped", "duration", "percent"):
        routes.add_app_template_filter(getattr(humanize, name))
    for name in (
        "status_word",
        "instant",
        "local_minute",
        "spark",
    ):
        routes.add_app_template_filter(getattr(formatting, name))
    routes.add_app_template_filter(label)
    routes.add_app_template_global(formatting.query)
    routes.add_app_template_global(formatting.job_address)
    routes.add_app_template_global(_asset, "asset")
    pages = _Pages(store, lists, series)
    for path, view in (
        ("/", pages.root),
        ("/dashboard/", pages.root),
        ("/dashboard", pages.home),
        ("/dashboard/overview", pages.overview_now),
        ("/dashboard/charts", pages.charts),
        ("/dashboard/jobs", pages.jobs),
        ("/dashboard/jobs/<anything:job_id>", pages.job),
        ("/dashboard/job", pages.job_by_query),
        ("/dashboard/my", pages.own_jobs),
        ("/dashboard/sign-in", session.sign_in_form),
        ("/dashboard/static/<path:name>", _static),
        ("/docs", _docs),
        ("/dashboard/<anything:_rest>", pages.nothing),
    ):
        routes.add_url_rule(path, view_func=view)
    for path, act in (
        ("/dashboard/session", session.sign_in),
        ("/dashboard/sign-out", session.sign_out),
    ):
        routes.add_url_rule(path, view_func=act, methods=["POST"])
    return routes


class _Pages:
    """The pages over what the JSON routes are over, too."""

    def __init__(self, store: JobStore, lists: JobLists, series: SeriesReader) -> None:
        self._store = store
        self._lists = lists
        self._series = series
        self._shared: SingleFlightCache[str] = SingleFlightCache(KEEP_ANSWERS)

    def root(self) -> BaseResponse:
        """The dashboard is all that there is to see."""
        return redirect(url_for("dashboard.home"))

    def home(self) -> BaseResponse | str:
        """The overview; whoever may not see it goes to their own jobs."""
        _require_session()
        if not auth.is_admin():
            return redirect(url_for("dashboard.own_jobs"))
        asked = _OverviewQuery.of_request()
        part = self._overview(asked)
        return render_template("dashboard/overview.html", part=part, asked=asked)

    def overview_now(self) -> Response:
        """The overview's figures, for the page that is open."""
        _require_admin()
        return _conditional(self._overview(_OverviewQuery.of_request()))

    def _overview(self, asked: "_OverviewQuery") -> str:
        return self._shared.get((asked, _second()), lambda: self._show_overview(asked))

    def _show_overview(self, asked: "_OverviewQuery") -> str:
        """Shown to all who ask the same: nothing of a caller may be in it."""
        try:
            now = datetime.now(UTC)
            facts = gather(self._store, self._series, self._lists, asked.range, now)
        except NotKeptError as error:
            raise invalid("range", str(error)) from None
        shown = overview(facts)
        only = shown.matching[asked.only] if asked.only else None
        rows = sorted_types(shown.types, asked.by, asked.text, only)
        return render_template(
            "dashboard/_overview.html",
            shown=shown,
            rows=rows[:TYPES_SHOWN],
            count=len(rows),
            asked=asked,
        )

    def charts(self) -> Response:
        """The charts' data: what `GET /admin/jobs/timeseries` tells, in columns."""
        _require_admin()
        asked = _OverviewQuery.of_request()
        question = (asked.range, _second())
        shown = self._shared.get(question, lambda: self._show_charts(asked.range))
        return _conditional(shown, "application/json")

    def _show_charts(self, wanted: str) -> str:
        try:
            window = window_of(self._series, wanted, datetime.now(UTC))
            past = self._series.by_step(window, ())
        except NotKeptError as error:
            raise invalid("range", str(error)) from None
        except NoCollectorError:
            evidence = Evidence.gather(self._store, self._series, self._lists, datetime.now(UTC))
            code = "collector_unavailable"
            if isinstance(evidence.minutes, Missing) and evidence.minutes.lacks_indexes:
                code = "indexes_missing"
            elif evidence.has_collector:
                code = "history_unavailable"
            raise unavailable(code, "There is no history of this range.") from None
        return json.dumps(chart_columns(past, window.step, self._store.unknown))

    def jobs(self) -> BaseResponse | str | tuple[str, int]:
        """All jobs."""
        _require_admin()
        return self._list(None)

    def own_jobs(self) -> BaseResponse | str | tuple[str, int]:
        """The jobs of whoever looks."""
        _require_session()
        return self._list(auth.subject())

    def _list(self, owner: str | None) -> BaseResponse | str | tuple[str, int]:
        schema = ListQuery() if owner is None else OwnListQuery()
        asked, errors, shown = _list_query(), {}, None
        paged = {} if asked.get("format") in EXPORTS else {"per_page": PER_PAGE}
        try:
            query = schema.load(paged | asked)
            found = list_of_jobs(self._lists, query, owner=owner)
            if isinstance(found, Response):
                return found  # an export
            shown = JobList().dump(found)
        except ValidationError as error:
            errors = error.messages_dict
        except ApiError as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            errors = error.details or {}
        given = {
            "asked": asked,
            "errors": {name: _said(said) for name, said in errors.items()},
            "shown": shown,
            "own": owner is not None,
            "finds_owners": self._store.finds("createdBy"),
            "finds_codes": self._store.finds("lastError.code"),
            "path": request.path,
        }
        if session.is_part() and shown is not None:
            given |= self._held(query, shown["data"], owner)
            return _conditional(render_template("dashboard/_jobs.html", **given))
        types, statuses = self._suggested() if owner is None else ([], [])
        page = render_template("dashboard/jobs.html", types=types, odd_statuses=statuses, **given)
        return page, HTTPStatus.UNPROCESSABLE_ENTITY if errors else HTTPStatus.OK

    def _held(
        self, query: dict[str, Any], shown: list[dict[str, Any]], owner: str | None
    ) -> dict[str, Any]:
        """The rows that a browser keeps in place but that are not on the page any more.

        `held` are those jobs as they are now, `gone` the ids of those that are not there.
        """
        ids = [unquote(held) for held in request.headers.get(HELD, "").split(",") if held]
        missing = list(dict.fromkeys(ids[:PER_PAGE]))
        for job in shown:
            if job["jobId"] in missing:
                missing.remove(job["jobId"])
        found = self._lists.look_up(missing, filter_of(query, owner), owner)
        jobs = JobList().dump({"data": [job for job, _ in found]})["data"]
        held = [job | {"matches": matches} for job, (_, matches) in zip(jobs, found, strict=True)]
        there = {job["jobId"] for job in held}
        return {"held": held, "gone": [job_id for job_id in missing if job_id not in there]}

    def _suggested(self) -> tuple[list[str], list[str]]:
        """The types that there are, and the statuses beside the known ones."""
        figures = self._store.figures()
        types = sorted(filter(is_filter, figures.type_counts() or {}))
        odd = set(figures.status_counts() or {}) - set(JobStatus)
        return types[:SUGGESTED_TYPES], sorted(filter(is_filter, odd))[:SUGGESTED_STATUSES]

    def job(self, job_id: str) -> Response | str:
        """One job, for its owner or an admin."""
        _require_session()
        found = self._store.get_job(job_id, owner=None if auth.is_admin() else auth.subject())
        if found is None:
            raise ApiError(HTTPStatus.FORBIDDEN, "access_denied", "Job not found or access denied.")
        detail, now = JobDetail().dump(found), datetime.now(UTC)
        given = {
            "job": detail,
            "steps": timeline(detail, now),
            "lease_expired": has_expired_lease(detail, now),
            "finished": is_finished(detail),
            "finds_codes": self._store.finds("lastError.code"),
        }
        if session.is_part():
            return _conditional(render_template("dashboard/_job.html", **given))
        return render_template("dashboard/job.html", **given)

    def job_by_query(self) -> Response | str:
        """The same for an id that a path cannot hold, as `formatting.job_address` makes of it."""
        return self.job(request.args.get("id", ""))

    def nothing(self, _rest: str) -> BaseResponse:
        """Whatever else is asked for below `/dashboard`."""
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no such page.")


@dataclass(frozen=True, kw_only=True)
class _OverviewQuery:
    """Which overview: its range, and which types of jobs in which order."""

    range: str
    by: str
    text: str
    only: str

    @classmethod
    def of_request(cls) -> Self:
        """As the address says; ApiError 422 names what is wrong with it."""
        wanted, by = request.args.get("range", "1h"), request.args.get("by", BY_DEFAULT)
        if wanted not in RANGES:
            raise invalid("range", f"One of {', '.join(RANGES)}.")
        if by.removeprefix("-") not in SORTS:
            raise invalid("by", f"One of {', '.join(SORTS)}, after - the largest first.")
        only = request.args.get("only", "")
        if only not in ("", *TypeCondition):
            raise invalid("only", f"One of {', '.join(TypeCondition)}.")
        return cls(
            range=wanted, by=by, text=request.args.get("text", "")[:LONGEST_SEARCH], only=only
        )


def _second() -> int:
    return int(time.monotonic() // SHARED_S)


def _about_the_page() -> dict[str, Any]:
    theme = request.cookies.get("__Host-jobmon_theme" if request.is_secure else "jobmon_theme")
    return {
        "theme": theme if theme in THEMES else "system",
        "known_statuses": [status.value for status in JobStatus],
        "range_words": RANGE_WORDS,
        "signed_in": _caller(),
        "longest_filter": MAX_NAME_LENGTH,
        "address": session.address(),
    }


def _static(name: str) -> Response:
    path = safe_join(str(STATIC), name)
    try:
        if path is None or not Path(path).is_file():
            raise FileNotFoundError(name)
        content, version = _file(path, Path(path).stat().st_mtime_ns)
    except OSError:  # also a name that is too long for any file
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", "There is no such file.") from None
    mimetype = MIMETYPES.get(Path(path).suffix, "application/octet-stream")
    response = fixed_response(content, mimetype)
    # What an address with its content's hash names never changes. Another hash is another
    # version's, which may be answering beside this one.
    is_this = request.args.get("v") == version
    response.headers["Cache-Control"] = (
        "public, max-age=31536000, immutable" if is_this else "no-cache"
    )
    return response


@lru_cache(maxsize=64)
def _file(path: str, _modified_ns: int) -> tuple[bytes, str]:
    """What a file of ours holds, and its hash; read again when it has changed."""
    content = Path(path).read_bytes()
    return content, _hash(content)


def _docs() -> Response:
    """The JSON routes, to read about and to try with a token; open to anyone, as their document."""
    response = Response(render_template("docs.html"), mimetype="text/html")
    # The viewer's style sheet has its icons inside.
    policy = CONTENT_SECURITY_POLICY.replace("img-src 'self'", "img-src 'self' data:")
    response.headers["Content-Security-Policy"] = policy
    return response


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=6).hexdigest()


@cache
def _asset(name: str) -> str:
    """The address of a file of ours; empty if it was not built (`make assets`)."""
    file = STATIC / name
    if not file.is_file():
        log.warning("%s is not built: pages work without it, but do not update", name)
        return ""
    return url_for("dashboard._static", name=name, v=_hash(file.read_bytes()))


def _require_session() -> None:
    auth.require_token(cookie=True)
    rate_limit.check()


def _require_admin() -> None:
    _require_session()
    auth.require_permission()


def _caller() -> dict[str, Any] | None:
    """Who is signed in, for the page's head; None where nobody is."""
    caller = auth.caller()
    return {"sub": caller[0], "is_admin": caller[1]} if caller else None


def _list_query() -> dict[str, Any]:
    """The list's parameters as they stand in the address."""
    many = ("status", "type")
    one = ListQuery().fields.keys() - set(many)
    asked: dict[str, Any] = {
        name: [value for value in request.args.getlist(name) if value] for name in many
    }
    return asked | {name: request.args[name] for name in one if request.args.get(name)}


def _said(messages: Any) -> str:
    """The messages about a parameter in a line; those of a list come by their positions."""
    if isinstance(messages, dict):
        messages = [text for texts in messages.values() for text in texts]
    return " ".join(dict.fromkeys(messages))


def _conditional(body: str | bytes, mimetype: str = "text/html") -> Response:
    """An answer that costs nothing when the caller has it already."""
    response = Response(body, mimetype=mimetype)
    response.set_etag(hashlib.blake2b(response.get_data(), digest_size=16).hexdigest())
    response.make_conditional(request)
    return response


def _error_page(error: Exception) -> BaseResponse | tuple[str, int, dict[str, str]]:
    """Every failure as a page that says what to do, with the status that it has as JSON."""
    known = explain(error)
    if known.status == HTTPStatus.UNAUTHORIZED:
        return current_app.make_response(session.sign_in_page(known))
    if session.is_part():
        return Response(status=known.status, headers={**known.headers, "X-Error-Code": known.code})
    page = render_template("dashboard/error.html", error=known, is_away=known.message == AWAY)
    return page, known.status, known.headers


def _protect(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    return response
