"""Who is asking, and what they may: bearer tokens, roles and permissions (contract, section 4)."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import click
import jwt as pyjwt
from flask import Flask, current_app, g
from flask.cli import with_appcontext
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    decode_token,
    get_jwt,
    get_jwt_identity,
    verify_jwt_in_request,
)
from flask_jwt_extended.exceptions import JWTDecodeError, JWTExtendedException, NoAuthorizationError

from jobmon.api.errors import ApiError, unavailable
from jobmon.settings import ADMIN_DASHBOARD, Settings

SESSION_COOKIE = "jobmon_session"
KEYS_LIFESPAN_S = 300
KEYS_COOLDOWN_S = 5
KEYS_TIMEOUT_S = 2
# What PyJWT raises for a signed token whose exp is null, infinite or a list.
_BY_ODD_CLAIMS = (ValueError, TypeError, OverflowError)


class KeySet:
    """An identity provider's keys by `kid`, fetched when needed and kept for five minutes.

    An unknown `kid` fetches again, so a rotated key is picked up, but not more often than every
    five seconds: nobody can make us hammer the provider. While it is away, keys that are known
    stay good.
    """

    def __init__(self, url: str) -> None:
        self._client = pyjwt.PyJWKClient(url, cache_jwk_set=False, timeout=KEYS_TIMEOUT_S)
        self._lock = threading.Lock()
        self._keys: dict[str, pyjwt.PyJWK] = {}
        self._fetched_at = -float("inf")
        self._tried_at = -float("inf")
        self._away = False

    def key(self, kid: str) -> pyjwt.PyJWK | None:
        """The key, or None if the provider has no such; 503 if it cannot be asked."""
        if kid in self._keys and not self._is_stale():
            return self._keys[kid]
        with self._lock:
            cooling = time.monotonic() - self._tried_at < KEYS_COOLDOWN_S
            if not cooling and (kid not in self._keys or self._is_stale()):
                self._fetch()
        key = self._keys.get(kid)
        if key is None and self._away:
            raise unavailable(
                "identity_provider_unavailable", "The token cannot be checked now. Try again."
            )
        return key

    def _is_stale(self) -> bool:
        return time.monotonic() - self._fetched_at > KEYS_LIFESPAN_S

    def _fetch(self) -> None:
        self._tried_at = time.monotonic()
        try:
            keys = self._client.get_signing_keys()
        except (pyjwt.PyJWTError, ValueError) as error:
            self._away = True
            current_app.logger.error("cannot fetch the keys of the identity provider: %s", error)
        else:
            self._away = False
            self._fetched_at = self._tried_at
            self._keys = {key.key_id: key for key in keys if key.key_id}


def register(app: Flask, settings: Settings) -> None:
    """Configure the tokens' keys and what a token must look like."""
    app.config.update(
        # The session's cookie is SameSite=Strict and what it opens only reads: no double submit.
        JWT_COOKIE_CSRF_PROTECT=False,
        JWT_ACCESS_COOKIE_NAME=SESSION_COOKIE,
        JWT_ALGORITHM=settings.jwt_algorithm,
        JWT_DECODE_ALGORITHMS=[settings.jwt_algorithm],
        JWT_SECRET_KEY=settings.jwt_secret_key,
        JWT_PUBLIC_KEY=settings.jwt_public_key,
        JWT_ENCODE_ISSUER=settings.jwt_issuer,
        JWT_DECODE_ISSUER=settings.jwt_issuer,
        JWT_ENCODE_AUDIENCE=settings.jwt_audience,
        JWT_DECODE_AUDIENCE=settings.jwt_audience,
    )
    app.cli.add_command(token_command)
    manager = JWTManager(app)
    if settings.jwt_jwks_url:
        key_set = KeySet(settings.jwt_jwks_url)

        @manager.decode_key_loader
        def _key(header: dict[str, Any], _: dict[str, Any]) -> pyjwt.PyJWK:
            kid = header.get("kid")
            key = key_set.key(kid) if isinstance(kid, str) else None
            if key is None:
                raise JWTDecodeError("No key has this token's kid")
            return key


def require_token(*, cookie: bool = False) -> None:
    """Let a request pass only with a valid token: 401 otherwise.

    It is in the `Authorization` header or, for the pages with `cookie`, in the session's cookie.
    """
    with _answering_401():
        verify_jwt_in_request(locations=["headers", "cookies"] if cookie else ["headers"])
        if not get_jwt_identity():
            raise JWTDecodeError("The token has no subject")
    g.jobmon_knows_caller = True


def seconds_left(token: str) -> float | None:
    """How long a token is good from now on, None for ever; 401 if it is not good now."""
    with _answering_401():
        claims = decode_token(token)
        if not claims.get("sub") or claims.get("type") == "refresh":
            raise JWTDecodeError("Not an access token of somebody")
        return int(claims["exp"]) - time.time() if "exp" in claims else None


@contextmanager
def _answering_401() -> Iterator[None]:
    """Whatever is wrong with a token, as the 401 that says so."""
    try:
        yield
    except NoAuthorizationError:
        raise _unauthorized("authentication_required", "A bearer token is required.") from None
    except pyjwt.ExpiredSignatureError:
        raise _unauthorized("token_expired", "The token has expired.") from None
    except (JWTExtendedException, pyjwt.PyJWTError, *_BY_ODD_CLAIMS):
        raise _unauthorized("token_invalid", "The token is not valid.") from None


def require_admin() -> None:
    """Let a request pass only with ADMIN_DASHBOARD: 401 or 403 otherwise."""
    require_token()
    require_permission()


def require_permission() -> None:
    """Let a request whose token was checked pass only with ADMIN_DASHBOARD: 403 otherwise."""
    if not is_admin():
        raise ApiError(HTTPStatus.FORBIDDEN, "permission_denied", f"This needs {ADMIN_DASHBOARD}.")


def is_known() -> bool:
    """Whether this request's token was checked and is good."""
    return bool(g.get("jobmon_knows_caller"))


def subject() -> str:
    """The `sub` of the request's token."""
    return str(get_jwt_identity())


def is_admin() -> bool:
    """Whether the role of the request's token grants ADMIN_DASHBOARD."""
    role = get_jwt().get("role")
    settings: Settings = current_app.extensions["jobmon_settings"]
    granted = settings.role_permissions.get(role) if isinstance(role, str) else None
    return ADMIN_DASHBOARD in (granted or ())


def issue_token(subject: str, role: str, lifetime: timedelta) -> str:
    """A token signed with the configured secret; needs an application context."""
    token: str = create_access_token(
        subject, additional_claims={"role": role}, expires_delta=lifetime
    )
    return token


@click.command("token")
@click.option("--sub", required=True, help="Whose token it is; an owner's createdBy.")
@click.option("--role", required=True, help="What its bearer may do, for instance admin.")
@click.option("--hours", default=1.0, show_default=True, help="How long it is good for.")
@with_appcontext
def token_command(sub: str, role: str, hours: float) -> None:
    """Print a token signed with JOBMON_JWT_SECRET_KEY."""
    settings: Settings = current_app.extensions["jobmon_settings"]
    if settings.jwt_secret_key is None:
        raise click.ClickException(
            "JOBMON_JWT_SECRET_KEY is not set: tokens come from your identity provider."
        )
    click.echo(issue_token(sub, role, timedelta(hours=hours)))


def _unauthorized(code: str, message: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, code, message, headers={"WWW-Authenticate": "Bearer"})
