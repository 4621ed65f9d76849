"""Sessions of the pages: a verified token in a cookie that no script can read.

The cookie contains the token itself: the server stores nothing, every worker can verify it, and the
session ends when the token is revoked. SameSite=Strict keeps it out of requests from other sites.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from flask import Response, current_app, redirect, render_template, request, url_for
from pymongo.errors import PyMongoError
from werkzeug.wrappers import Response as BaseResponse

from jobmon.dashboard.parts import is_part_request
from jobmon.settings import Settings
from jobmon.web import auth, rate_limit
from jobmon.web.errors import ApiError, explain
from jobmon.web.proxies import cookie_name, cookie_path
from jobmon.web.queues import all_queues, root_path
from jobmon.web.sessions import is_session_token

Page = tuple[str, int, Mapping[str, str]]

# Browsers drop a larger cookie silently, and keep no cookie for longer than this.
MAX_COOKIE_BYTES = 4_000
MAX_COOKIE_AGE_S = 400 * 86_400
# The cookie outlives its token, so that the sign-in form can show that the session has expired.
KEEP_EXPIRED_S = 7 * 86_400
_OWN_PATH = re.compile(r"(/queues/[^/?#]+)?/dashboard([/?#].*)?")

# What can surround a pasted token: before it an option of curl, the name and scheme of the header;
# on both sides quotes.
_QUOTES = "\"'`\u201c\u201d\u2018\u2019,;"
_BEFORE_TOKEN = re.compile(
    rf"[{_QUOTES}]*(--?h(eader)?)?[{_QUOTES}=]*(authorization)?[{_QUOTES}:=]*(bearer)?[{_QUOTES}:=]*",
    re.IGNORECASE,
)

# The messages of the sign-in form, by the code of an error, or by the reason of a refusal.
_MESSAGES = {
    "authentication_required": "",
    "token_expired": "Your session has expired. Sign in again to return to this page.",
    "token_invalid": "Your session is no longer valid. Sign in again.",
}
NO_TOKEN, TOO_LONG, SIGNED_OUT_HERE = "no_token", "token_too_long", "signed_out_here"
_REFUSALS = {
    NO_TOKEN: "Paste a token first.",
    TOO_LONG: "This token is too long for a cookie. Request one with fewer claims.",
    "token_expired": "This token has expired. Request a new one.",
    "token_invalid": "Token not accepted. Request a new one.",
    "identity_provider_unavailable": "The token cannot be checked now. Try again.",
    SIGNED_OUT_HERE: "You are signed out of jobmon. The identity provider does not answer: you may "
    "still be signed in there.",
    "database_unavailable": "Database not responding: the token cannot be checked now. Try again.",
}
_PROXY_HINT = (
    " If it is jobmon's own form, the proxy in front changes the host: let it pass on the host with"
    " its port in Host, or in X-Forwarded-Host with JOBMON_TRUSTED_PROXIES set."
)
_OTHER_REFUSAL = "Sign-in failed. Try again."


def require_session() -> None:
    """Raise ApiError 401 without a valid token, 429 if the caller sends too many requests."""
    auth.require_token(cookie=True)
    rate_limit.check()


def recognize_caller() -> None:
    """Find the caller, if any, for the head of a page that needs no session."""
    with suppress(ApiError, PyMongoError):
        auth.require_token(cookie=True)


def require_admin() -> None:
    """Raise ApiError as `require_session` does, and 403 without the queue's permission."""
    require_session()
    auth.require_permission()


def describe_caller() -> dict[str, Any] | None:
    """The caller for the head of a page; None without a valid token.

    `sub`, `is_admin`, and `has_session`: whether there is a session that the caller can end.
    """
    caller = auth.caller()
    if caller is None:
        return None
    subject, is_admin = caller
    return {"sub": subject, "is_admin": is_admin, "has_session": not auth.is_named_by_proxy()}


def sign_in_page(error: ApiError) -> BaseResponse | Page:
    """The answer to a request without a valid session: the sign-in form, which leads back.

    For a part of a page it has no content, and a header that makes the script reload the page. If
    the session can be renewed, it is a redirect to the renewal, which leads back. For a link on
    another site, it is a page that opens the address again, with the cookie.
    """
    if renewal := _redirect_to_renewal(error):
        return renewal
    if is_part_request():
        headers = {**error.headers, "HX-Refresh": "true"}
        return Response(status=HTTPStatus.UNAUTHORIZED, headers=headers)
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method == "GET":
        # A link on another site: browsers send the cookie only with requests from jobmon's pages.
        return render_forwarding(request_address()), HTTPStatus.OK, {}
    message = _MESSAGES.get(error.code, "")
    # The address of a form may have no page: then it leads back to the page of the form.
    then = request_address() if request.method == "GET" else request.form.get("then", "")
    return render_sign_in(message, own_path(then)), error.status, error.headers


def render_forwarding(address: str, link: str = "Continue to jobmon") -> str:
    """A page that opens an address at once; its link is for browsers that do not do this."""
    return render_template("dashboard/forward.html", address=address, link=link)


def _redirect_to_renewal(error: ApiError) -> BaseResponse | None:
    """A redirect that renews the session of an expired token and leads back; None if impossible."""
    is_expired = error.code == "token_expired" and request.method == "GET"
    if not is_expired or find_provider() is None or not is_provider_session():
        return None
    renewal = f"{root_path()}/dashboard/oidc/renew?then={quote(request_address())}"
    return redirect(renewal, HTTPStatus.SEE_OTHER)


def is_provider_session() -> bool:
    """Whether the browser's session, valid or not, began at the identity provider."""
    return is_session_token(request.cookies.get(cookie_name(auth.SESSION_COOKIE), ""))


def find_provider() -> str | None:
    """The host of the identity provider where people sign in; None without one."""
    settings: Settings = current_app.extensions["jobmon_settings"]
    return urlsplit(settings.oidc_issuer).hostname if settings.oidc_issuer else None


def sign_in_form() -> str:
    """The page with all ways to sign in; the parameter `refused` chooses its message."""
    refused = request.args.get("refused")
    message = _REFUSALS.get(refused, _OTHER_REFUSAL) if refused else ""
    by_token = bool(refused) and refused != SIGNED_OUT_HERE
    then = own_path(request.args.get("then", ""))
    return render_sign_in(message, then, failed=bool(message), by_token=by_token)


def render_sign_in(message: str, then: str, *, failed: bool = False, by_token: bool = False) -> str:
    """The page with all ways to sign in, which leads to `then`.

    `failed`: whether the message is about a failure. `by_token`: whether a token was refused.
    """
    return render_template(
        "dashboard/sign_in.html",
        message=message,
        then=then,
        failed=failed,
        by_token=by_token,
        provider=find_provider(),
        start=f"{root_path()}/dashboard/oidc/start" + (f"?then={quote(then)}" if then else ""),
    )


def sign_in() -> BaseResponse:
    """Verify the token of the form, and store it in the cookie; ApiError 403 for a foreign form.

    Both success and refusal are redirects: reloading the page must not send the token again.
    """
    require_same_origin()
    token = bare_token(request.form.get("token", ""))
    then = own_path(request.form.get("then", ""))
    if not token:
        return _refuse(NO_TOKEN, then)
    if len(token) > MAX_COOKIE_BYTES:
        return _refuse(TOO_LONG, then)
    try:
        lifetime_s = auth.accept_token(token)
    except (ApiError, PyMongoError) as error:
        return _refuse(explain(error).code, then)
    response = redirect(then or home_address(), HTTPStatus.SEE_OTHER)
    set_session(response, token, lifetime_s)
    return response


def set_session(response: BaseResponse, token: str, lifetime_s: float | None) -> None:
    """Store a token, which expires in `lifetime_s` seconds (None: never), in the cookie."""
    max_age = None
    if lifetime_s is not None:
        max_age = max(1, round(min(lifetime_s + KEEP_EXPIRED_S, MAX_COOKIE_AGE_S)))
    response.set_cookie(
        cookie_name(auth.SESSION_COOKIE), token, max_age=max_age, **_cookie_options()
    )


def bare_token(pasted: str) -> str:
    """The token in a pasted text, without white space and without what can surround it."""
    text = "".join(pasted.split())
    before = _BEFORE_TOKEN.match(text)
    # No pattern for the end: its search takes quadratic time, and anybody can send a form.
    return text[before.end() if before else 0 :].rstrip(_QUOTES)


def _refuse(code: str, then: str) -> BaseResponse:
    form = url_for("dashboard.sign_in_form", refused=code, then=then or None)
    return redirect(form, HTTPStatus.SEE_OTHER)


def sign_out() -> BaseResponse:
    """End the browser's session; the token itself stays valid."""
    require_same_origin()
    response = redirect(url_for("dashboard.sign_in_form"), HTTPStatus.SEE_OTHER)
    delete_session(response)
    return response


def delete_session(response: BaseResponse) -> None:
    """Make the browser delete the cookie of its session."""
    response.delete_cookie(cookie_name(auth.SESSION_COOKIE), **_cookie_options())


def sign_out_address() -> str:
    """The address that a sign-out form is sent to; with a provider, its session ends, too."""
    return root_path() + ("/dashboard/oidc/sign-out" if find_provider() else "/dashboard/sign-out")


def request_address() -> str:
    """The path and the query of this request, quoted for a link."""
    query = quote(request.query_string, safe="%/:?#[]@!$&'()*+,;=")
    return quote(request.script_root + request.path) + (f"?{query}" if query else "")


def home_address() -> str:
    """The page that a caller sees first: all queues, or the overview of the only one."""
    return root_path() + ("/dashboard/queues" if len(all_queues()) > 1 else "/dashboard")


def own_path(target: str) -> str:
    """`target` if browsers resolve it to the address of a page of jobmon, else an empty text."""
    root = root_path()
    is_below_root = target.startswith(root) and _OWN_PATH.fullmatch(target, len(root))
    if not target.isprintable() or "\\" in target or not is_below_root:
        return ""
    segments = urlsplit(target).path.split("/")
    return "" if any(unquote(segment) in (".", "..") for segment in segments) else target


def _cookie_options() -> dict[str, Any]:
    return {
        "httponly": True,
        "samesite": "Strict",
        "secure": request.is_secure,
        "path": cookie_path(),  # the pages of all queues use it; the JSON routes do not read it
    }


def require_same_origin() -> None:
    """Raise ApiError 403 for a form that another site sends (CSRF).

    Over TLS and to localhost, browsers send `Sec-Fetch-Site`. Without it, the origin of the page is
    compared with the host of the request.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    message = "This form was sent from another site."
    if site is not None:
        is_foreign = site not in ("same-origin", "none")
    else:
        is_foreign = origin is not None and origin.partition("://")[2] != request.host
        message += _PROXY_HINT
    if is_foreign:
        raise ApiError(HTTPStatus.FORBIDDEN, "foreign_form", message)
