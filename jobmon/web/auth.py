"""Who is asking, and what they may: bearer tokens, roles and permissions (contract, section 4)."""

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import click
import jwt as pyjwt
from flask import Flask, current_app, g, request
from flask.cli import with_appcontext
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    decode_token,
    get_unverified_jwt_headers,
)
from flask_jwt_extended.exceptions import JWTExtendedException, NoAuthorizationError
from pymongo.errors import OperationFailure, PyMongoError

from jobmon.logs import cause
from jobmon.rollup.documents import connect_as_writer
from jobmon.settings import ADMIN_DASHBOARD, Settings
from jobmon.store.connection import Connection
from jobmon.web.errors import ApiError
from jobmon.web.jwks import KeySet
from jobmon.web.revocation import RevokedTokens

SESSION_COOKIE = "jobmon_session"
# Over TLS. A browser takes a cookie of such a name from this very host only, and by TLS only.
SECURE_SESSION_COOKIE = "__Host-jobmon_session"
# As long as a header may be; a larger token is refused before anything in it is looked at.
MAX_TOKEN_LENGTH = 8_190
# What a token of this kind says it is (RFC 7519, RFC 9068): other tokens of the same keys are not.
_TYPES = ("jwt", "at+jwt", "application/at+jwt")
_GRACE_S = 3_600  # a revoked token is listed longer than it is good, for clocks that differ
# Where issuers say what a token is for, without `_` and `-`.
_TYPE_CLAIMS = ("type", "typ", "tokentype", "tokenuse", "use")
# What PyJWT raises for a signed token whose exp is null, infinite or a list.
_UNAUTHORIZED = 13
_BY_ODD_CLAIMS = (ValueError, TypeError, OverflowError)


class RefusedTokenError(Exception):
    """A token that PyJWT takes and jobmon does not, with the reason for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def register(app: Flask, settings: Settings, connection: Connection) -> None:
    """Configure the tokens' keys and what a token must look like."""
    app.extensions["jobmon_revoked"] = RevokedTokens(connection)
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
        # What a token must have; the rest of the path is looked for once it is decoded.
        JWT_IDENTITY_CLAIM=claim_name(settings.subject_claim),
        JWT_VERIFY_SUB=settings.subject_claim == "sub",
    )
    app.cli.add_command(token_command)
    app.cli.add_command(revoke_command)
    manager = JWTManager(app)
    if settings.jwt_jwks_url:
        key_set = KeySet(settings.jwt_jwks_url, settings.jwt_algorithm)

        @manager.decode_key_loader
        def _key(header: dict[str, Any], _: dict[str, Any]) -> pyjwt.PyJWK:
            if header.get("alg") != settings.jwt_algorithm:
                raise RefusedTokenError("algorithm")  # no reason to ask the provider
            key = key_set.key(header.get("kid"))  # a string, if it is there at all
            if key is None:
                raise RefusedTokenError("key")
            return key


def require_token(*, cookie: bool = False, unasked: bool = False) -> None:
    """Let a request pass only with a valid token: 401 otherwise, 503 if nobody can tell.

    It is in the `Authorization` header or, for the pages with `cookie`, in the session's cookie.
    `unasked`: a database that is away is not a reason to refuse, though it knows who was revoked.
    """
    with _answering_401():
        claims = _claims_of(_token(cookie=cookie))
        try:
            _refuse_revoked(claims)
        except PyMongoError:
            if not unasked:
                g.jobmon_unconfirmed_claims = claims
                raise
    g.jobmon_claims = claims


def seconds_left(token: str) -> float | None:
    """How long a token is good from now on, None for ever; 401 if it is not good now.

    Its bearer is this request's caller from then on.
    """
    with _answering_401():
        claims = _claims_of(token)
        _refuse_revoked(claims)
        g.jobmon_claims = claims
        return int(claims["exp"]) - time.time() if "exp" in claims else None


def session_cookie() -> str:
    """The name of the session's cookie: over TLS one that no other host can set."""
    return SECURE_SESSION_COOKIE if request.is_secure else SESSION_COOKIE


def _token(*, cookie: bool) -> str:
    """The request's one token: the header's, or the cookie's where the header has none."""
    fields = [field.split() for field in request.headers.get("Authorization", "").split(",")]
    bearers = [field[1:] for field in fields if field and field[0].lower() == "bearer"]
    if bearers:
        if len(bearers) > 1 or len(bearers[0]) != 1:
            raise RefusedTokenError("form")
        return bearers[0][0]
    token = request.cookies.get(session_cookie()) if cookie else None
    if not token:
        raise NoAuthorizationError("No token")
    return token


def _claims_of(token: str) -> dict[str, Any]:
    """What a token says, once its signature, times, issuer, audience and kind are checked."""
    if len(token) > MAX_TOKEN_LENGTH:
        raise RefusedTokenError("size")
    claims: dict[str, Any] = decode_token(token)
    kind = get_unverified_jwt_headers(token).get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES or _is_refresh_token(claims):
        raise RefusedTokenError("type")
    subject = _subject_of(claims)
    if not isinstance(subject, str) or not subject:
        raise RefusedTokenError("claim")
    subject.encode()  # a half of a surrogate pair is nobody's name
    return claims


def _is_refresh_token(claims: dict[str, Any]) -> bool:
    """Whether a token is for getting others, whatever its issuer calls that (`typ: Offline`)."""
    kinds = [
        str(value).lower()
        for name, value in claims.items()
        if name.lower().replace("_", "").replace("-", "") in _TYPE_CLAIMS
    ]
    return any(word in kind for kind in kinds for word in ("refresh", "offline"))


def claim_name(path: str) -> str:
    """The claim that a path begins with; a claim that is an address has dots of its own."""
    return path if "://" in path else path.partition(".")[0]


def _claim(claims: Any, path: str) -> Any:
    """What is at a path as in `realm_access.roles`, None for nothing; names may have dots, too."""
    if not isinstance(claims, dict):
        return None
    if path in claims:
        return claims[path]
    dots = (number for number, character in enumerate(path) if character == ".")
    found = (_claim(claims.get(path[:dot]), path[dot + 1 :]) for dot in dots)
    return next((value for value in found if value is not None), None)


def _subject_of(claims: dict[str, Any]) -> Any:
    settings: Settings = current_app.extensions["jobmon_settings"]
    return _claim(claims, settings.subject_claim)


def token_id(claims: dict[str, Any]) -> str:
    """What a token is revoked by: its `jti`, or all that it says where it has none."""
    if claims["jti"]:
        return str(claims["jti"])
    return "sha256:" + hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()


def _refuse_revoked(claims: dict[str, Any]) -> None:
    revoked: RevokedTokens = current_app.extensions["jobmon_revoked"]
    if revoked.includes(token_id(claims), _subject_of(claims), float(claims.get("iat", 0))):
        raise RefusedTokenError("revoked")


@contextmanager
def _answering_401() -> Iterator[None]:
    """Whatever is wrong with a token, as the 401 that says so; the log alone names the reason."""
    try:
        yield
    except NoAuthorizationError:
        raise _unauthorized("authentication_required", "A bearer token is required.") from None
    except (RefusedTokenError, JWTExtendedException, pyjwt.PyJWTError, *_BY_ODD_CLAIMS) as error:
        g.jobmon_refusal = _reason(error)
        if isinstance(error, pyjwt.ExpiredSignatureError):
            raise _unauthorized("token_expired", "The token has expired.") from None
        raise _unauthorized("token_invalid", "The token is not valid.") from None


def _reason(error: Exception) -> str:
    """What is wrong with a token, in a word: nothing that the token holds."""
    match error:
        case RefusedTokenError():
            return error.reason
        case pyjwt.ExpiredSignatureError() | pyjwt.ImmatureSignatureError():
            return "clock"
        case pyjwt.InvalidSignatureError() | pyjwt.InvalidKeyError() | pyjwt.PyJWKError():
            return "key"
        case pyjwt.InvalidAlgorithmError():
            return "algorithm"
        case pyjwt.InvalidAudienceError():
            return "audience"
        case pyjwt.InvalidIssuerError():
            return "issuer"
        case pyjwt.MissingRequiredClaimError():
            return {"aud": "audience", "iss": "issuer"}.get(error.claim, "claim")
        case pyjwt.DecodeError() if " claim " not in str(error):
            return "form"
        case _:
            return "claim"


def refusal() -> str | None:
    """Why this request's token was refused, in a word for the log; None if it was not."""
    reason: str | None = g.get("jobmon_refusal")
    return reason


def require_admin(*, unasked: bool = False) -> None:
    """Let a request pass only with ADMIN_DASHBOARD: 401 or 403 otherwise."""
    require_token(unasked=unasked)
    require_permission()


def require_permission() -> None:
    """Let a request whose token was checked pass only with ADMIN_DASHBOARD: 403 otherwise."""
    if not is_admin():
        raise ApiError(HTTPStatus.FORBIDDEN, "permission_denied", f"This needs {ADMIN_DASHBOARD}.")


def is_known() -> bool:
    """Whether this request's token was checked and is good."""
    return "jobmon_claims" in g


def caller() -> tuple[str, bool] | None:
    """Whose the request's token is and whether an admin's; None without a valid one.

    For display only: it may have been revoked, where the database that knows is away.
    """
    claims = g.get("jobmon_claims") or g.get("jobmon_unconfirmed_claims")
    return (str(_subject_of(claims)), _is_admin(claims)) if claims else None


def subject() -> str:
    """Whose the request's token is: its `sub`, or what is at JOBMON_SUBJECT_CLAIM."""
    return str(_subject_of(g.jobmon_claims))


def is_admin() -> bool:
    """Whether a role of the request's token grants ADMIN_DASHBOARD."""
    return _is_admin(g.jobmon_claims)


def _is_admin(claims: dict[str, Any]) -> bool:
    settings: Settings = current_app.extensions["jobmon_settings"]
    held = _claim(claims, settings.role_claim)
    roles = held if isinstance(held, list) else [held]
    granted = settings.role_permissions
    return any(ADMIN_DASHBOARD in granted.get(role, ()) for role in roles if isinstance(role, str))


def issue_token(subject: str, role: str, lifetime: timedelta) -> str:
    """A token signed with the configured secret; needs an application context."""
    settings: Settings = current_app.extensions["jobmon_settings"]
    claims: dict[str, Any] = {}
    _put(claims, settings.role_claim, role)
    _put(claims, settings.subject_claim, subject)
    identity = claims.pop(claim_name(settings.subject_claim))
    token: str = create_access_token(identity, additional_claims=claims, expires_delta=lifetime)
    return token


def _put(claims: dict[str, Any], path: str, value: str) -> None:
    """Set what `_claim` finds at a path."""
    name = claim_name(path)
    if name == path:
        claims[name] = value
    else:
        _put(claims.setdefault(name, {}), path[len(name) + 1 :], value)


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


@click.command("revoke")
@click.argument("token_id", metavar="JTI", required=False)
@click.option("--token-stdin", is_flag=True, help="Read the token itself, from standard input.")
@click.option("--sub", help="All tokens of a subject that were issued until now.")
@click.option("--list", "listing", is_flag=True, help="Print what is revoked, and until when.")
@with_appcontext
def revoke_command(token_id: str | None, token_stdin: bool, sub: str | None, listing: bool) -> None:
    """Refuse a token before it expires, by the `jti` in it; sessions made with it end, too.

    It holds within two seconds, for all who serve. JOBMON_ROLLUP_URI (or else JOBMON_MONGO_URI)
    must be of a user who may write JOBMON_STATE_DB: the collector's. Only --token-stdin needs the
    key for tokens.
    """
    if [bool(token_id), token_stdin, bool(sub), listing].count(True) != 1:
        raise click.UsageError("Give one of: a JTI, --token-stdin, --sub, --list.")
    settings: Settings = current_app.extensions["jobmon_settings"]
    until = None
    if token_stdin:
        if not settings.has_key:
            raise click.ClickException(
                "no key to check the token with: set JOBMON_JWT_SECRET_KEY, JOBMON_JWT_PUBLIC_KEY "
                "or JOBMON_JWT_JWKS_URL as for the web service, or give the token's `jti`."
            )
        token_id, until = _id_and_end(sys.stdin.read().strip().removeprefix("Bearer").strip())
    own = connect_as_writer(settings)
    revoked = RevokedTokens(own)
    try:
        if token_id is not None:
            revoked.add(token_id, until)
            click.echo(f"revoked: {token_id}")
        elif sub:
            revoked.add_subject(sub)
            click.echo(f"revoked: all tokens of {sub} issued until now")
        else:
            for known, how_long in revoked.all():
                click.echo(f"{known}\t{how_long}")
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code == _UNAUTHORIZED:
            raise click.ClickException(_refused(settings, writes=not listing)) from None
        raise click.ClickException(f"not revoked: {cause(error)}") from None
    finally:
        own.close()


def _refused(settings: Settings, *, writes: bool) -> str:
    """Which user may not do it, and which one may."""
    setting = "JOBMON_ROLLUP_URI" if settings.rollup_uri else "JOBMON_MONGO_URI"
    verb = "write" if writes else "read"
    return (
        f"{'not revoked: ' if writes else ''}the user of {setting} may not {verb} "
        f"{settings.state_db}. Use the collector's user: set JOBMON_ROLLUP_URI to its connection "
        "string (with Docker: docker compose exec collector jobmon revoke …). "
        "`jobmon init --collector USER` makes one."
    )


def _id_and_end(token: str) -> tuple[str, datetime | None]:
    """What to revoke a token by, and for how long; ClickException if it is not good."""
    try:
        with _answering_401():
            claims = _claims_of(token)
    except ApiError as error:
        raise click.ClickException(f"nothing to revoke: {error.message}") from None
    try:
        ends = (
            datetime.fromtimestamp(int(claims["exp"]) + _GRACE_S, UTC) if "exp" in claims else None
        )
    except (OverflowError, ValueError):  # after all dates
        ends = None
    return token_id(claims), ends


def _unauthorized(code: str, message: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, code, message, headers={"WWW-Authenticate": "Bearer"})
