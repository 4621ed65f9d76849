"""Who is looking: a token that was checked, kept in a cookie that no script can read.

The cookie holds the token itself, so nothing is kept on the server and every worker can check it.
It is SameSite=Strict: a page of another site can neither send it nor act with it.
"""

import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from flask import Response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from jobmon.api import auth
from jobmon.api.errors import ApiError

# Browsers drop a larger cookie without a word.
MAX_COOKIE_BYTES = 4_000
COOKIE_PATH = "/dashboard"

_SAID = {
    "authentication_required": "",
    "token_expired": "Your session has expired. Sign in again to go on where you were.",
    "token_invalid": "Your session is not valid any more. Sign in again.",
}
_REFUSED = {
    "token_expired": "This token has expired. Get a fresh one.",
    "token_invalid": "This is not a valid token for this jobmon.",
}


def sign_in_page(error: ApiError) -> BaseResponse | tuple[str, int]:
    """What somebody without a good session gets: the way to sign in, and back to where they were.

    For a part of a page that is asked for by script, the page itself has to go there.
    """
    if is_part():
        # The page then asks for itself, and comes here.
        return Response(status=HTTPStatus.UNAUTHORIZED, headers={"HX-Refresh": "true"})
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method == "GET":
        # A link on another site: the browser withholds the cookie, but not when we ask again.
        return render_template("dashboard/arrive.html"), HTTPStatus.OK
    page = render_template(
        "dashboard/sign_in.html", said=_SAID.get(error.code, ""), then=request.full_path
    )
    return page, error.status


def sign_in_form() -> str:
    """The page where a token is pasted."""
    then = own_path(request.args.get("then", ""))
    return render_template("dashboard/sign_in.html", said="", then=then)


def sign_in() -> BaseResponse | tuple[str, int]:
    """Check the token that was pasted, and keep it until it expires."""
    _require_same_origin()
    token = "".join(request.form.get("token", "").split()).removeprefix("Bearer")
    then = own_path(request.form.get("then", ""))
    try:
        expires_at = auth.expiry(token) if token else None
        refused = "" if token else "Paste a token first."
        if len(token) > MAX_COOKIE_BYTES:
            refused = "This token is too long for a cookie: ask for one with fewer claims."
    except ApiError as error:
        if error.status != HTTPStatus.UNAUTHORIZED:
            raise
        refused = _REFUSED.get(error.code, _REFUSED["token_invalid"])
    if refused:
        page = render_template("dashboard/sign_in.html", said=refused, then=then, failed=True)
        return page, HTTPStatus.UNAUTHORIZED
    response = redirect(then or url_for("dashboard.home"), HTTPStatus.SEE_OTHER)
    lasts_s = None if expires_at is None else max(1, round(expires_at.timestamp() - time.time()))
    response.set_cookie(auth.SESSION_COOKIE, token, max_age=lasts_s, **_cookie())
    return response


def sign_out() -> BaseResponse:
    """Forget the token."""
    _require_same_origin()
    response = redirect(url_for("dashboard.sign_in_form"), HTTPStatus.SEE_OTHER)
    response.delete_cookie(auth.SESSION_COOKIE, **_cookie())
    return response


def is_part() -> bool:
    """Whether a script asks for a part of a page that is open."""
    return "HX-Request" in request.headers or "X-Jobmon-Part" in request.headers


def own_path(target: str) -> str:
    """`target` if it is a page of the dashboard, else nothing: no way off this site."""
    parts = urlsplit(target)
    ours = parts.path == COOKIE_PATH or parts.path.startswith(f"{COOKIE_PATH}/")
    plain = target.isprintable() and "\\" not in target and not target.startswith("//")
    return target if ours and plain and not (parts.scheme or parts.netloc) else ""


def _cookie() -> dict[str, Any]:
    return {
        "httponly": True,
        "samesite": "Strict",
        "secure": request.is_secure,
        "path": COOKIE_PATH,
    }


def _require_same_origin() -> None:
    """Refuse a form that another site sends (CSRF); browsers say where a form comes from."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    foreign = site not in (None, "same-origin", "none")
    if foreign or (origin and urlsplit(origin).netloc != request.host):
        raise ApiError(
            HTTPStatus.FORBIDDEN, "permission_denied", "This form was sent from another site."
        )
