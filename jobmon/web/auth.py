"""Finds out who calls and what they may do: bearer tokens, roles and permissions."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import jwt as pyjwt
from flask import Flask, g, request
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    decode_token,
    get_unverified_jwt_headers,
)
from flask_jwt_extended.exceptions import JWTExtendedException, NoAuthorizationError
from pymongo.errors import PyMongoError

from jobmon.settings import ADMIN_DASHBOARD, Settings
from jobmon.store.connection import Connection
from jobmon.web.checked_tokens import CheckedTokens
from jobmon.web.claims import AccessToken, Caller, is_refresh_token, put_claim, root_claim
from jobmon.web.context import current_request, extension, request_values
from jobmon.web.errors import ApiError
from jobmon.web.jwks import KeySet
from jobmon.web.proxies import cookie_name
from jobmon.web.queues import (
    all_queues,
    current_queue,
    current_settings,
    named_queue,
    no_such_queue,
)
from jobmon.web.revocation import RevokedTokens
from jobmon.web.sessions import SessionKeys, is_session_token
from jobmon.web.trusted_header import TrustedHeader

SESSION_COOKIE = "jobmon_session"
# gunicorn's limit for a header line; a longer token is refused before it is parsed.
MAX_TOKEN_LENGTH = 8_190
# The `typ` of access tokens (RFC 7519, RFC 9068); other tokens of the same keys are refused.
_ACCESS_TOKEN_TYPES = ("jwt", "at+jwt", "application/at+jwt")
# What PyJWT raises for a signed token whose exp is null, infinite or a list.
_ODD_CLAIM_ERRORS = (ValueError, TypeError, OverflowError)


class RefusedTokenError(Exception):
    """A token is refused; `reason` is one word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def register(app: Flask, settings: Settings, connection: Connection) -> None:
    """Configure the keys of tokens and the claims that a token must have."""
    app.extensions["jobmon_revoked"] = RevokedTokens(connection)
    has_header = settings.trusted_user_header is not None
    app.extensions["jobmon_trusted_header"] = TrustedHeader(settings) if has_header else None
    app.extensions["jobmon_session_keys"] = SessionKeys(settings) if settings.oidc_issuer else None
    app.config.update(
        JWT_ALGORITHM=settings.jwt_algorithm,
        JWT_DECODE_ALGORITHMS=[settings.jwt_algorithm],
        JWT_SECRET_KEY=settings.jwt_secret_key,
        JWT_PUBLIC_KEY=settings.jwt_public_key,
        JWT_ENCODE_ISSUER=settings.jwt_issuer,
        JWT_DECODE_ISSUER=settings.jwt_issuer,
        JWT_ENCODE_AUDIENCE=settings.jwt_audience,
        JWT_DECODE_AUDIENCE=settings.jwt_audience,
        JWT_DECODE_LEEWAY=settings.jwt_leeway_s,
        # A token must have the claim that the path begins with; `find_claim` follows the path.
        JWT_IDENTITY_CLAIM=root_claim(settings.subject_claim),
        JWT_VERIFY_SUB=settings.subject_claim == "sub",
    )
    manager = JWTManager(app)
    checked = CheckedTokens(settings.jwt_leeway_s)
    if settings.jwt_jwks_url:
        key_set = KeySet(settings.jwt_jwks_url, settings.jwt_algorithm)
        checked = CheckedTokens(settings.jwt_leeway_s, key_set.find_key)

        @manager.decode_key_loader
        def _find_key(header: dict[str, Any], _: dict[str, Any]) -> pyjwt.PyJWK:
            if header.get("alg") != settings.jwt_algorithm:
                raise RefusedTokenError("algorithm")  # before the provider is queried
            kid = header.get("kid")  # PyJWT has checked that it is a string
            key = key_set.find_key(kid)
            if key is None:
                raise RefusedTokenError("key")
            g.jobmon_token_key = kid, key
            return key

    app.extensions["jobmon_checked_tokens"] = checked


def require_token(*, cookie: bool = False, require_revocation_check: bool = True) -> None:
    """Let a request pass only with a valid token; otherwise raise ApiError 401.

    The token is in the `Authorization` header or, for pages (`cookie`), in the session's cookie.
    For pages a trusted proxy may name the person instead. If the list of revoked tokens cannot be
    read, PyMongoError is raised; without `require_revocation_check` the request passes.
    """
    with _refusing_with_401():
        if cookie and (person := _read_trusted_header()) is not None:
            g.jobmon_caller, g.jobmon_is_named_by_proxy = person, True
            return
        access = _decode(_find_token(cookie=cookie))
        try:
            _refuse_revoked(access)
        except PyMongoError:
            if require_revocation_check:
                g.jobmon_unconfirmed_caller = access.caller
                raise
    request_values().jobmon_caller = access.caller


def accept_token(token: str) -> float | None:
    """Make the bearer of a token this request's caller; raises ApiError 401 and PyMongoError.

    Returns the seconds until the token expires, None for never.
    """
    with _refusing_with_401():
        access = _decode(token)
        _refuse_revoked(access)
        g.jobmon_caller = access.caller
        return access.ends_at - time.time() if access.ends_at < math.inf else None


def read_claims(token: str) -> dict[str, Any]:
    """The claims of a valid token, revoked or not; raises ApiError 401 if it is not valid."""
    with _refusing_with_401():
        claims = _verify(token)
        _read_access(claims)
        return claims


def _read_trusted_header() -> Caller | None:
    """The person whom a trusted proxy names, unless the request has a token."""
    trusted: TrustedHeader | None = extension("jobmon_trusted_header")
    if trusted is None or not trusted.is_sent(request) or _find_bearers():
        return None
    return trusted.read_caller(request)


def _find_bearers() -> list[list[str]]:
    """The bearer tokens in the header, each as the words after `Bearer`."""
    header = current_request().headers.get("Authorization", "")
    fields = [field.split() for field in header.split(",")]
    return [field[1:] for field in fields if field and field[0].lower() == "bearer"]


def _find_token(*, cookie: bool) -> str:
    """The request's only token: the header's, or the cookie's if the header has none."""
    if bearers := _find_bearers():
        if len(bearers) > 1 or len(bearers[0]) != 1:
            raise RefusedTokenError("form")
        return bearers[0][0]
    token = request.cookies.get(cookie_name(SESSION_COOKIE)) if cookie else None
    if not token:
        raise NoAuthorizationError("No token")
    return token


def _decode(token: str) -> AccessToken:
    """A token with the right signature, times, issuer, audience, type and subject."""
    checked: CheckedTokens = extension("jobmon_checked_tokens")
    if (checked_token := checked.find(token)) is not None:
        return checked_token
    access = _read_access(_verify(token))
    checked.add(token, access, *g.pop("jobmon_token_key", ()))
    return access


def _verify(token: str) -> dict[str, Any]:
    """The claims of a token with the right signature, times, issuer, audience and type."""
    if len(token) > MAX_TOKEN_LENGTH:
        raise RefusedTokenError("size")
    sessions: SessionKeys | None = extension("jobmon_session_keys")
    if sessions is not None and is_session_token(token):
        return sessions.read_token(token)
    return _check_bearer(token)


def _read_access(claims: dict[str, Any]) -> AccessToken:
    """The token with these checked claims; raises RefusedTokenError without a subject."""
    access = AccessToken.from_claims(claims, extension("jobmon_settings"))
    if access is None:
        raise RefusedTokenError("claim")
    return access


def _check_bearer(token: str) -> dict[str, Any]:
    """The claims of a token that was signed with the configured key."""
    claims: dict[str, Any] = decode_token(token)
    token_type = get_unverified_jwt_headers(token).get("typ", "JWT")
    is_access_token = isinstance(token_type, str) and token_type.lower() in _ACCESS_TOKEN_TYPES
    if not is_access_token or is_refresh_token(claims):
        raise RefusedTokenError("type")
    return claims


def _refuse_revoked(access: AccessToken) -> None:
    revoked: RevokedTokens = extension("jobmon_revoked")
    if revoked.includes(access.id, access.caller.subject, access.issued_at):
        raise RefusedTokenError("revoked")


@contextmanager
def _refusing_with_401() -> Iterator[None]:
    """Replace every fault of a token by an ApiError 401: missing, expired, or not valid."""
    try:
        yield
    except NoAuthorizationError:
        trusted: TrustedHeader | None = extension("jobmon_trusted_header")
        if trusted is not None and trusted.is_sent(request):
            g.jobmon_refusal_reason = "proxy"  # sent, but not accepted: see `TrustedHeader`
        raise _unauthorized("authentication_required", "A bearer token is required.") from None
    except (RefusedTokenError, JWTExtendedException, pyjwt.PyJWTError, *_ODD_CLAIM_ERRORS) as error:
        g.jobmon_refusal_reason = _classify_refusal(error)
        if isinstance(error, pyjwt.ExpiredSignatureError):
            raise _unauthorized("token_expired", "The token has expired.") from None
        raise _unauthorized("token_invalid", "The token is not valid.") from None


def _classify_refusal(error: Exception) -> str:
    """The fault of a token in one word, without anything that the token holds."""
    match error:
        case RefusedTokenError():
            return error.reason
        case pyjwt.ExpiredSignatureError() | pyjwt.ImmatureSignatureError():
            return "clock"
        case pyjwt.InvalidSignatureError() | pyjwt.InvalidKeyError() | pyjwt.PyJWKError():
            return "key"
        case pyjwt.DecodeError():  # also for an exp or nbf that is no number
            return "form"
        case pyjwt.InvalidAlgorithmError():
            return "algorithm"
        case pyjwt.InvalidAudienceError():
            return "audience"
        case pyjwt.InvalidIssuerError():
            return "issuer"
        case pyjwt.MissingRequiredClaimError():
            return {"aud": "audience", "iss": "issuer"}.get(error.claim, "claim")
        case _:
            return "claim"


def require_admin(*, require_revocation_check: bool = True) -> None:
    """Let a request pass only with the queue's permission; otherwise raise ApiError 401 or 403."""
    require_token(require_revocation_check=require_revocation_check)
    require_permission()


def require_any_permission(*, require_revocation_check: bool = True) -> None:
    """Let a request pass only with the permission of a queue; else raise ApiError 401, 403 or 404.

    Below the path of a queue, only the permission of this queue counts.
    """
    if named_queue() is not None:
        require_admin(require_revocation_check=require_revocation_check)
        current_queue()
        return
    require_token(require_revocation_check=require_revocation_check)
    queues = all_queues()
    if not any(map(may_see, queues.all_settings())):
        needed = queues.default.permission if len(queues) == 1 else "the permission of a queue"
        raise permission_error(needed)


def require_permission() -> None:
    """Raise ApiError 403 unless the checked token has the queue's permission.

    If the path names a queue that is closed to owners, the error is the same as for a queue that
    does not exist.
    """
    if is_admin():
        return
    settings = current_settings()
    if settings is not None and (settings.owners or named_queue() is None):
        raise permission_error(settings.permission)
    if has_permission(ADMIN_DASHBOARD):
        raise no_such_queue()
    raise permission_error(ADMIN_DASHBOARD)


def permission_error(needed: str) -> ApiError:
    """The answer to a caller without a permission."""
    return ApiError(HTTPStatus.FORBIDDEN, "permission_denied", f"This needs {needed}.")


def require_known_queue() -> None:
    """Raise ApiError 404 unless the caller may know of the queue (`may_know`).

    The error is the same for a queue that does not exist.
    """
    settings = current_settings()
    if settings is None or not may_know(settings):
        raise no_such_queue()


def is_authenticated() -> bool:
    """Whether the caller is known: by a valid token, or by the header of a trusted proxy."""
    return "jobmon_caller" in request_values()


def caller() -> tuple[str, bool] | None:
    """The caller's subject, and whether it has the queue's permission; None if nobody is known.

    For display only: while the database does not answer, the caller's token may be revoked.
    """
    current: Caller | None = g.get("jobmon_caller") or g.get("jobmon_unconfirmed_caller")
    return (current.subject, _needed_permission() in current.permissions) if current else None


def is_named_by_proxy() -> bool:
    """Whether a trusted proxy named the caller: then jobmon has no session to end."""
    return "jobmon_is_named_by_proxy" in g


def subject() -> str:
    """The subject of the request's token: its `sub`, or the claim at JOBMON_SUBJECT_CLAIM."""
    return _checked_caller().subject


def is_admin() -> bool:
    """Whether a role of the request's token grants the permission of the request's queue."""
    return has_permission(_needed_permission())


def has_permission(permission: str) -> bool:
    """Whether a role of the request's token grants this permission."""
    return permission in _checked_caller().permissions


def describe_roles() -> str | None:
    """The roles of the request's token, separated by commas; None if it has none."""
    return ", ".join(_checked_caller().roles) or None


def may_see(queue: Settings) -> bool:
    """Whether a role of the request's token grants the permission of this queue."""
    return has_permission(queue.permission)


def may_know(queue: Settings) -> bool:
    """Whether the caller may know that this queue exists: it may see it, or own jobs in it."""
    return queue.owners or may_see(queue)


def _checked_caller() -> Caller:
    caller: Caller = request_values().jobmon_caller
    return caller


def _needed_permission() -> str:
    """The permission of the request's queue, ADMIN_DASHBOARD for a queue that does not exist."""
    settings = current_settings()
    return ADMIN_DASHBOARD if settings is None else settings.permission


def issue_token(subject: str, role: str, lifetime: timedelta) -> str:
    """A token signed with the configured secret; needs an application context.

    >>> with app.app_context():
    ...     token = issue_token("ada", "admin", timedelta(hours=1))
    """
    settings: Settings = extension("jobmon_settings")
    claims: dict[str, Any] = {}
    put_claim(claims, settings.role_claim, role)
    put_claim(claims, settings.subject_claim, subject)
    identity = claims.pop(root_claim(settings.subject_claim))
    token: str = create_access_token(identity, additional_claims=claims, expires_delta=lifetime)
    return token


def _unauthorized(code: str, message: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, code, message, headers={"WWW-Authenticate": "Bearer"})
