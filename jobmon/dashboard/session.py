"""Who is looking: a token that was checked, kept in a cookie that no script can read.

The cookie holds the token itself, so nothing is kept on the server and every worker can check it;
a token that is revoked ends the session.
It is SameSite=Strict: a page of another site can neither send it nor act with it.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from flask import Response, redirect, render_template, request, url_for
from pymongo.errors import PyMongoError
from werkzeug.wrappers import Response as BaseResponse

from jobmon.dashboard.parts import is_part_request
from jobmon.web import auth, rate_limit
from jobmon.web.errors import ApiError, explain

Page = tuple[str, int, Mapping[str, str]]

# Browsers drop a larger cookie without a word, and keep none for longer than this.
MAX_COOKIE_BYTES = 4_000
MAX_COOKIE_AGE_S = 400 * 86_400
# The cookie outlives its token, so that the next visit learns why it has to sign in again.
KEEP_EXPIRED_S = 7 * 86_400
COOKIE_PATH = "/dashboard"
_OWN_PATH = re.compile(rf"{COOKIE_PATH}([/?#].*)?")

# What a pasted token may come with, less white space: a header of curl's, its scheme, quotes.
_QUOTES = "\"'`\u201c\u201d\u2018\u2019,;"
_AROUND_A_TOKEN = re.compile(
    rf"^[{_QUOTES}]*(--?h(eader)?)?[{_QUOTES}=]*(authorization)?[{_QUOTES}:=]*(bearer)?[{_QUOTES}:=]*"
    rf"|[{_QUOTES}]+$",
    re.IGNORECASE,
)

_MESSAGES = {
    "authentication_required": "",
    "token_expired": "Your session has expired. Sign in again to return to this page.",
    "token_invalid": "Your session is no longer valid. Sign in again.",
}
NO_TOKEN, TOO_LONG = "no_token", "token_too_long"
_REFUSALS = {
    NO_TOKEN: "Paste a token first.",
    TOO_LONG: "This token is too long for a cookie. Ask for one with fewer claims.",
    "token_expired": "This token has expired. Ask for a new one.",
    "token_invalid": "Token not accepted. Ask for a new one.",
    "identity_provider_unavailable": "The token cannot be checked now. Try again.",
    "database_unavailable": "Database not responding: the token cannot be checked now. Try again.",
}
_REFUSED_OTHERWISE = "Sign-in failed. Try again."


def require_session() -> None:
    """Let a request pass only with a valid token, and not too often: ApiError 401, 429."""
    auth.require_token(cookie=True)
    rate_limit.check()


def require_admin() -> None:
    """The same, and only with ADMIN_DASHBOARD: ApiError 403."""
    require_session()
    auth.require_permission()


def signed_in() -> dict[str, Any] | None:
    """The caller for the head of a page: `sub` and `is_admin`; None without a valid token."""
    caller = auth.caller()
    return {"sub": caller[0], "is_admin": caller[1]} if caller else None


def sign_in_page(error: ApiError) -> BaseResponse | Page:
    """The answer to a request without a good session: the sign-in form, and the way back.

    A script that asks for a part of a page has to reload that page.
    """
    if is_part_request():
        headers = {**error.headers, "HX-Refresh": "true"}
        return Response(status=HTTPStatus.UNAUTHORIZED, headers=headers)
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method == "GET":
        # A link on another site: the browser withholds the cookie, but not when we ask again.
        return render_template("dashboard/arrive.html"), HTTPStatus.OK, {}
    said = _MESSAGES.get(error.code, "")
    page = render_template("dashboard/sign_in.html", said=said, then=own_path(address()))
    return page, error.status, error.headers


def sign_in_form() -> str:
    """The page where a token is pasted, with the reason if one was refused."""
    then, refused = own_path(request.args.get("then", "")), request.args.get("refused")
    said = _REFUSALS.get(refused, _REFUSED_OTHERWISE) if refused else ""
    return render_template("dashboard/sign_in.html", said=said, then=then, failed=bool(said))


def sign_in() -> BaseResponse:
    """Check the token that was pasted, and keep it until it expires.

    Every outcome is a redirect, so that a reload never sends the token again.
    """
    _require_same_origin()
    token = bare_token(request.form.get("token", ""))
    then = own_path(request.form.get("then", ""))
    if not token:
        return _refuse(NO_TOKEN, then)
    if len(token) > MAX_COOKIE_BYTES:
        return _refuse(TOO_LONG, then)
    try:
        lasts_s = auth.accept_token(token)
    except (ApiError, PyMongoError) as error:
        return _refuse(explain(error).code, then)
    response = redirect(then or url_for("dashboard.home"), HTTPStatus.SEE_OTHER)
    max_age = None
    if lasts_s is not None:
        max_age = max(1, round(min(lasts_s + KEEP_EXPIRED_S, MAX_COOKIE_AGE_S)))
    response.set_cookie(auth.session_cookie_name(), token, max_age=max_age, **_cookie())
    return response


def bare_token(pasted: str) -> str:
    """The token in what somebody pasted, without white space, quotes and header names."""
    return _AROUND_A_TOKEN.sub("", "".join(pasted.split()))


def _refuse(code: str, then: str) -> BaseResponse:
    form = url_for("dashboard.sign_in_form", refused=code, then=then or None)
    return redirect(form, HTTPStatus.SEE_OTHER)


def sign_out() -> BaseResponse:
    """Forget the token."""
    _require_same_origin()
    response = redirect(url_for("dashboard.sign_in_form"), HTTPStatus.SEE_OTHER)
    response.delete_cookie(auth.session_cookie_name(), **_cookie())
    return response


def address() -> str:
    """This request's address, as it can be asked again: its path is quoted as a link's is."""
    query = quote(request.query_string, safe="%/:?#[]@!$&'()*+,;=")
    return quote(request.path) + (f"?{query}" if query else "")


def own_path(target: str) -> str:
    """`target` if it is an address below `/dashboard`, also once a browser resolves it; else ""."""
    if not target.isprintable() or "\\" in target or not _OWN_PATH.fullmatch(target):
        return ""
    segments = urlsplit(target).path.split("/")
    return "" if any(unquote(segment) in (".", "..") for segment in segments) else target


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
