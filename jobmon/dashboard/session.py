"""Who is looking: a token that was checked, kept in a cookie that no script can read.

The cookie holds the token itself, so nothing is kept on the server and every worker can check it;
a token that is revoked ends the session.
It is SameSite=Strict: a page of another site can neither send it nor act with it.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from jobmon.api import auth
from jobmon.api.errors import ApiError, explain

Page = tuple[str, int, Mapping[str, str]]

# Browsers drop a larger cookie without a word, and keep none for longer than this.
MAX_COOKIE_BYTES = 4_000
MAX_COOKIE_AGE_S = 400 * 86_400
COOKIE_PATH = "/dashboard"
_OWN_PATH = re.compile(rf"{COOKIE_PATH}([/?#].*)?")

_SAID = {
    "authentication_required": "",
    "token_expired": "Your session has expired. Sign in again to go on where you were.",
    "token_invalid": "Your session is not valid any more. Sign in again.",
}
_REFUSED = {
    "token_expired": "This token has expired. Get a fresh one.",
    "token_invalid": "This is not a valid token for this jobmon.",
}


def sign_in_page(error: ApiError) -> BaseResponse | Page:
    """What somebody without a good session gets: the way to sign in, and back to where they were.

    For a part of a page that is asked for by script, the page itself has to go there.
    """
    if is_part():
        # The page then asks for itself, and comes here.
        headers = {**error.headers, "HX-Refresh": "true"}
        return Response(status=HTTPStatus.UNAUTHORIZED, headers=headers)
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method == "GET":
        # A link on another site: the browser withholds the cookie, but not when we ask again.
        return render_template("dashboard/arrive.html"), HTTPStatus.OK, {}
    said = _SAID.get(error.code, "")
    page = render_template("dashboard/sign_in.html", said=said, then=address())
    return page, error.status, error.headers


def sign_in_form() -> str:
    """The page where a token is pasted."""
    then = own_path(request.args.get("then", ""))
    return render_template("dashboard/sign_in.html", said="", then=then)


def sign_in() -> BaseResponse | Page:
    """Check the token that was pasted, and keep it until it expires."""
    _require_same_origin()
    token = "".join(request.form.get("token", "").split()).removeprefix("Bearer")
    then = own_path(request.form.get("then", ""))
    if not token:
        return _refusal("Paste a token first.", then)
    if len(token) > MAX_COOKIE_BYTES:
        return _refusal("This token is too long for a cookie: get one with fewer claims.", then)
    try:
        lasts_s = auth.seconds_left(token)
    except ApiError as error:
        explain(error)
        said = _REFUSED.get(error.code, error.message)
        return _refusal(said, then, error.status, error.headers)
    response = redirect(then or url_for("dashboard.home"), HTTPStatus.SEE_OTHER)
    max_age = None if lasts_s is None else max(1, round(min(lasts_s, MAX_COOKIE_AGE_S)))
    response.set_cookie(auth.session_cookie(), token, max_age=max_age, **_cookie())
    return response


def _refusal(
    said: str,
    then: str,
    status: int = HTTPStatus.UNAUTHORIZED,
    headers: Mapping[str, str] | None = None,
) -> Page:
    page = render_template("dashboard/sign_in.html", said=said, then=then, failed=True)
    return page, status, headers or {}


def sign_out() -> BaseResponse:
    """Forget the token."""
    _require_same_origin()
    response = redirect(url_for("dashboard.sign_in_form"), HTTPStatus.SEE_OTHER)
    response.delete_cookie(auth.session_cookie(), **_cookie())
    return response


def is_part() -> bool:
    """Whether a script asks for a part of a page that is open."""
    return "HX-Request" in request.headers or "X-Jobmon-Part" in request.headers


def address() -> str:
    """This request's address, as it can be asked again: its path is quoted as a link's is."""
    query = quote(request.query_string, safe="%/:?#[]@!$&'()*+,;=")
    return quote(request.path) + (f"?{query}" if query else "")


def own_path(target: str) -> str:
    """`target` if it is a page of the dashboard, else nothing: no way off this site."""
    plain = target.isprintable() and "\\" not in target
    return target if plain and _OWN_PATH.fullmatch(target) else ""


def _cookie() -> dict[str, Any]:
    return {
        "httponly": True,
        "samesite": "Strict",
        "secure": request.is_secure,
        # A cookie of the host alone has to be of all its paths; the JSON routes do not read it.
        "path": "/" if request.is_secure else COOKIE_PATH,
    }


def _require_same_origin() -> None:
    """Refuse a form that another site sends (CSRF).

    Browsers say how a form's page and its address are related, over TLS and to this machine. Else
    the page's origin is compared with the host that was asked.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and origin.partition("://")[2] != request.host
    if foreign:
        raise ApiError(
            HTTPStatus.FORBIDDEN, "permission_denied", "This form was sent from another site."
        )
