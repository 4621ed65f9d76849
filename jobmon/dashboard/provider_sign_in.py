"""Sign-in at an identity provider, from the pages: start, return, renewal and sign-out.

While a person is at the provider, the state of the sign-in is encrypted in a cookie. Another cookie
has the provider's tokens, also encrypted, to renew the session. Browsers send both only to these
routes.
"""

import hashlib
import time
from dataclasses import asdict, replace
from http import HTTPStatus
from typing import Any

from flask import Blueprint, current_app, redirect, request, url_for
from pymongo.errors import PyMongoError
from werkzeug.wrappers import Response

from jobmon.dashboard import session
from jobmon.dashboard.parts import is_part_request
from jobmon.web import auth
from jobmon.web.errors import ApiError, explain
from jobmon.web.oidc import Identity, IdentityProvider, SignInFlow
from jobmon.web.proxies import external_address
from jobmon.web.queues import root_path
from jobmon.web.renewals import Renewals
from jobmon.web.sessions import Session, SessionKeys

FLOW_AGE_S = 600  # how long a person may take to sign in at the provider
MAX_FLOWS = 5  # sign-ins in several tabs, each with a cookie; one more deletes these cookies
# A session that expires sooner than this after a renewal is not renewed again: that would loop.
MIN_RENEWAL_S = 10

_BASE = "/dashboard/oidc"
_FLOW_PREFIX, _PROVIDER_COOKIE = "jobmon_flow_", "jobmon_provider"


class ProviderSignIn:
    """The routes below `/dashboard/oidc`, for one provider."""

    def __init__(self, provider: IdentityProvider, renewals: Renewals, session_hours: int) -> None:
        self._provider = provider
        self._renewals = renewals
        self._session_hours = session_hours

    def add_routes(self, routes: Blueprint) -> None:
        """Add the routes to the blueprint of the pages."""
        routes.add_url_rule(f"{_BASE}/start", "start_sign_in", self.start)
        routes.add_url_rule(f"{_BASE}/callback", "finish_sign_in", self.finish)
        routes.add_url_rule(f"{_BASE}/renew", "renew_session", self.renew)
        routes.add_url_rule(f"{_BASE}/sign-out", "end_session", self.sign_out, methods=["POST"])

    def start(self) -> Response:
        """Send the person to the provider; if that fails, show the sign-in form."""
        then = session.own_path(request.args.get("then", ""))
        try:
            flow = self._provider.begin(external_address(f"{_BASE}/callback"))
        except ApiError as error:
            return _refuse(error, then)
        response = redirect(flow.address, HTTPStatus.SEE_OTHER)
        flows = [name for name in request.cookies if name.startswith(_cookie_name(_FLOW_PREFIX))]
        for name in flows if len(flows) >= MAX_FLOWS else ():
            response.delete_cookie(name, **_cookie_options("Lax"))
        sealed = _keys().seal("flow", asdict(replace(flow, address="")) | {"then": then})
        # Lax: the browser comes back from another site.
        response.set_cookie(
            _flow_cookie(flow.state), sealed, max_age=FLOW_AGE_S, **_cookie_options("Lax")
        )
        return response

    def finish(self) -> Response:
        """Begin a session for a person whom the provider sends back with a code.

        After a failure, show the sign-in form with the reason.
        """
        cookie = _flow_cookie(request.args.get("state", ""))
        remembered = _keys().unseal("flow", request.cookies.get(cookie, ""), FLOW_AGE_S)
        try:
            then = remembered.pop("then")
            flow = SignInFlow(**remembered)
        except (AttributeError, KeyError, TypeError):  # no valid cookie, or of another version
            message = "This sign-in did not start in this browser, or too long ago."
            return _refuse(_flow_error(message))
        try:
            identity = self._receive(flow)
            started = Session.begin(self._session_hours, **_provider_fields(identity))
            page = session.render_forwarding(then or session.home_address())
            response: Response = current_app.make_response(page)
            _set_cookies(response, started, identity)
        except (ApiError, PyMongoError) as error:
            response = _refuse(explain(error), then)
        response.delete_cookie(cookie, **_cookie_options("Lax"))
        return response

    def _receive(self, flow: SignInFlow) -> Identity:
        """The person who signed in; raises ApiError if the provider refused, or fails."""
        self._provider.check_sender(request.args.get("iss"))
        code, error = request.args.get("code"), request.args.get("error")
        if error is not None or not code:
            reason = error if error and error.isascii() and error.isidentifier() else "no code"
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "sign_in_refused",
                f"The identity provider did not sign you in ({reason[:40]}).",
            )
        return self._provider.finish(code, flow)

    def renew(self) -> Response:
        """Renew a session whose token has expired, and redirect back to the page or its part."""
        then = session.own_path(request.args.get("then", "")) or session.home_address()
        try:
            auth.require_token(cookie=True)
            return redirect(then, HTTPStatus.SEE_OTHER)  # another request has renewed it
        except ApiError as error:
            if error.code != "token_expired":
                return _refuse(error, then)
        expired = _read_provider_cookie()
        if expired is None or expired.refresh_token is None:
            return _refuse(_expired_error(), then)
        if time.time() - expired.renewed_at < MIN_RENEWAL_S:
            return _refuse(_flow_error("The clocks of jobmon's machines differ too much."), then)
        try:
            token, person = expired.refresh_token, expired.provider_subject
            identity = self._renewals.get(token, lambda: self._provider.renew(token, person))
            if self._renewals.has_ended(expired.id):  # the person has signed out meanwhile
                return _refuse(_expired_error(), then)
            renewed = replace(
                expired,
                renewed_at=time.time(),
                refresh_token=identity.refresh_token or expired.refresh_token,
                id_token=identity.id_token or expired.id_token,
            )
            response = redirect(then, HTTPStatus.SEE_OTHER)
            _set_cookies(response, renewed, identity)
        except (ApiError, PyMongoError) as error:
            return _refuse(explain(error), then)
        return response

    def sign_out(self) -> Response:
        """End jobmon's session and, if it began at the provider, also the provider's session."""
        session.require_same_origin()
        ended = _read_provider_cookie() if session.is_provider_session() else None
        sign_in_page = url_for("dashboard.sign_in_form")
        address: str | None = sign_in_page
        if ended is not None:
            self._renewals.end(ended.id)
            try:
                address = self._provider.sign_out_address(
                    ended.id_token, external_address("/dashboard/sign-in")
                )
            except ApiError:  # already logged; jobmon's session ends in any case
                address = url_for("dashboard.sign_in_form", refused=session.SIGNED_OUT_HERE)
        # Not a redirect: the pages' policy lets a form lead only to addresses of jobmon.
        page = session.render_forwarding(
            address or sign_in_page, "Sign out at the identity provider"
        )
        response = current_app.make_response(page)
        session.delete_session(response)
        response.delete_cookie(_cookie_name(_PROVIDER_COOKIE), **_cookie_options("Strict"))
        return response


def _read_provider_cookie() -> Session | None:
    return _keys().unseal_session(request.cookies.get(_cookie_name(_PROVIDER_COOKIE), ""))


def _provider_fields(identity: Identity) -> dict[str, Any]:
    return {
        "provider_subject": identity.provider_subject,
        "refresh_token": identity.refresh_token,
        "id_token": identity.id_token,
    }


def _set_cookies(response: Response, current: Session, identity: Identity) -> None:
    """Set the cookies of a session; raises ApiError 401 if it was revoked."""
    keys = _keys()
    token = keys.issue_token(current, identity.subject, identity.roles, identity.lifetime_s)
    session.set_session(response, token, auth.accept_token(token))
    sealed = keys.seal_session(current, session.MAX_COOKIE_BYTES)
    response.set_cookie(
        _cookie_name(_PROVIDER_COOKIE),
        sealed,
        max_age=max(1, int(current.ends_at - time.time())),
        **_cookie_options("Strict"),
    )


def _refuse(error: ApiError, then: str = "") -> Response:
    """The sign-in form with the reason. It is no redirect: that could repeat forever.

    For a part of a page, a 401 that makes the script reload the page.
    """
    explain(error)  # adds the error to the log line of the request
    if is_part_request() and error.status == HTTPStatus.UNAUTHORIZED:
        return current_app.make_response(session.sign_in_page(error))
    page = session.render_sign_in(error.message, then, failed=True)
    headers = {name: text for name, text in error.headers.items() if name != "WWW-Authenticate"}
    return current_app.make_response((page, error.status, headers))


def _flow_error(message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, "sign_in_failed", f"{message} Sign in again.")


def _expired_error() -> ApiError:
    message = "Your session has expired. Sign in again to return to this page."
    return ApiError(HTTPStatus.UNAUTHORIZED, "session_expired", message)


def _keys() -> SessionKeys:
    keys: SessionKeys = current_app.extensions["jobmon_session_keys"]
    return keys


def _flow_cookie(state: str) -> str:
    return _cookie_name(_FLOW_PREFIX) + hashlib.sha256(state.encode()).hexdigest()[:16]


def _cookie_name(name: str) -> str:
    """The cookie's name, over HTTPS with a prefix: not `__Host-`, which requires the path `/`."""
    return f"__Secure-{name}" if request.is_secure else name


def _cookie_options(samesite: str) -> dict[str, Any]:
    """Options of cookies that browsers send only to the routes of `ProviderSignIn`."""
    return {
        "httponly": True,
        "samesite": samesite,
        "secure": request.is_secure,
        "path": root_path() + _BASE,
    }
