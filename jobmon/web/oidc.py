"""Sign-in at an identity provider by OpenID Connect: authorization code with PKCE, and refresh.

A provider that is slow or does not answer holds at most half of the threads (or the only thread),
each for seconds only.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from joserfc.errors import JoseError

from jobmon.download import FAILURES, StatusError
from jobmon.settings import Settings
from jobmon.web.claims import find_claim
from jobmon.web.errors import ApiError, unavailable
from jobmon.web.oidc_protocol import Claims, DiscoveryError, Protocol, read_discovery

log = logging.getLogger(__name__)

MAX_WAIT_S = 1.0  # for a slot, if half of the threads use the provider already
DISCOVERY_REFRESH_S = 600  # an older document is read again; if that fails, it is still used
# How long an identity is valid.
MIN_LIFETIME_S = 60
DEFAULT_LIFETIME_S = 300  # if the provider names no time
MAX_RENEWED_LIFETIME_S = 3_600  # if the identity can be renewed


@dataclass(frozen=True, kw_only=True)
class SignInFlow:
    """The values that jobmon has to remember while a person is at the provider."""

    address: str  # where the person signs in
    state: str
    nonce: str
    code_verifier: str
    redirect_uri: str


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The person who signed in, as the provider describes them; valid for `lifetime_s` seconds.

    `roles` has only the roles that have a permission in the settings.
    """

    subject: str
    roles: tuple[str, ...]
    lifetime_s: float
    provider_subject: str
    refresh_token: str | None
    id_token: str | None


class IdentityProvider:
    """The provider of the settings; nothing connects before a method is called.

    Its methods raise ApiError: 503 if the provider does not answer, 502 if its answer cannot be
    used, and 403 if it no longer accepts the sign-in.

        flow = provider.begin("https://jobs.example/dashboard/oidc/callback")
        identity = provider.finish(request.args["code"], flow)
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._issuer = settings.oidc_issuer or ""
        self._protocol: Protocol | None = None
        self._read_at = -float("inf")
        # A provider that does not answer must leave threads for all other requests.
        self._slots = threading.BoundedSemaphore(max(1, settings.threads // 2))

    def begin(self, redirect_uri: str) -> SignInFlow:
        """The values for a sign-in: the person has to go to its `address`."""
        with self._open_protocol() as protocol:
            secrets = {name: generate_token(48) for name in ("state", "nonce", "code_verifier")}
            address, _ = protocol.open_client().create_authorization_url(
                protocol.metadata["authorization_endpoint"], redirect_uri=redirect_uri, **secrets
            )
            return SignInFlow(address=address, redirect_uri=redirect_uri, **secrets)

    def check_sender(self, issuer: str | None) -> None:
        """Raise ApiError 502 if a redirect back to jobmon names another provider (RFC 9207)."""
        if issuer not in (None, self._issuer):
            raise _unusable_answer("iss")

    def finish(self, code: str, flow: SignInFlow) -> Identity:
        """The person for whom the provider issued a code."""
        with self._open_protocol() as protocol:
            answer = protocol.open_client().fetch_token(
                protocol.metadata["token_endpoint"],
                grant_type="authorization_code",
                code=code,
                code_verifier=flow.code_verifier,
                redirect_uri=flow.redirect_uri,
            )
            if "id_token" not in answer:
                raise _unusable_answer("no_id_token")
            return self._identify(protocol, answer, nonce=flow.nonce)

    def renew(self, refresh_token: str, provider_subject: str) -> Identity:
        """The same person with the provider's present roles, and new tokens."""
        with self._open_protocol() as protocol:
            answer = protocol.open_client().refresh_token(
                protocol.metadata["token_endpoint"], refresh_token=refresh_token
            )
            return self._identify(protocol, answer, provider_subject=provider_subject)

    def sign_out_address(self, id_token: str | None, return_to: str) -> str | None:
        """Where a person signs out at the provider; None if it has no address for this."""
        with self._open_protocol() as protocol:
            if not protocol.metadata.get("end_session_endpoint"):
                return None
            logout = protocol.create_logout_url(
                post_logout_redirect_uri=return_to,
                id_token_hint=id_token,
                client_id=self._settings.oidc_client_id,
            )
            return str(logout["url"])

    @contextmanager
    def _open_protocol(self) -> Iterator[Protocol]:
        """The protocol with the provider's addresses; failures in the block become an ApiError."""
        if not self._slots.acquire(timeout=MAX_WAIT_S):
            raise _unreachable()
        try:
            yield self._load_protocol()
        except OAuthError as error:
            raise _explain_refusal(error) from None
        except (JoseError, AuthlibBaseError) as error:
            raise _unusable_answer(_name_reason(error)) from None
        except StatusError as error:
            raise _unusable_answer(f"status_{error.status}") from None
        except DiscoveryError as error:
            log.error("the identity provider %s cannot be used: %s", self._issuer, error)
            raise _unusable_answer("discovery", is_logged=True) from None
        except (ValueError, OverflowError):  # the latter: `"expires_in": Infinity`
            raise _unusable_answer("no_json") from None
        except (TypeError, LookupError, AttributeError):  # JSON of another form
            raise _unusable_answer("form") from None
        except FAILURES as error:
            log.error("the identity provider does not answer: %s", error)
            raise _unreachable() from None
        finally:
            self._slots.release()

    def _load_protocol(self) -> Protocol:
        protocol = self._protocol
        if protocol is not None and time.monotonic() - self._read_at < DISCOVERY_REFRESH_S:
            return protocol
        try:
            document = read_discovery(self._issuer)
        except (DiscoveryError, *FAILURES) as error:
            if protocol is None:
                raise
            log.warning("cannot read the discovery document again: %s", error)
            document = None
        self._read_at = time.monotonic()
        if protocol is not None and document in (None, protocol.document):
            return protocol  # with the keys that it has fetched
        self._protocol = protocol = Protocol(self._settings, document or {})
        return protocol

    def _identify(
        self,
        protocol: Protocol,
        answer: dict[str, Any],
        *,
        nonce: str | None = None,
        provider_subject: str | None = None,
    ) -> Identity:
        """The person of the provider's answer; `provider_subject`, if given, must be the `sub`."""
        settings, id_token = self._settings, answer.get("id_token")
        id_claims: Claims | None = None
        if not isinstance(answer.get("refresh_token"), str | None):
            raise _unusable_answer("form")
        if id_token:
            id_claims = protocol.check_id_token(answer, nonce, settings.jwt_leeway_s)
            if provider_subject not in (None, id_claims["sub"]):
                raise _unusable_answer("sub")
            provider_subject = str(id_claims["sub"])
        if provider_subject is None:
            raise _unusable_answer("sub")
        subject: Any = None
        roles: Any = None
        for claims in protocol.find_claims(id_claims, answer, provider_subject):
            subject = find_claim(claims, settings.subject_claim) if subject is None else subject
            roles = find_claim(claims, settings.role_claim) if roles is None else roles
            if subject is not None and roles is not None:
                break
        if not isinstance(subject, str) or not subject:
            raise _unusable_answer(
                "no_subject", f"The provider does not name {settings.subject_claim!r}."
            )
        return Identity(
            subject=subject,
            roles=_select_roles(roles, settings),
            lifetime_s=_read_lifetime(answer, id_claims),
            provider_subject=provider_subject,
            refresh_token=answer.get("refresh_token"),
            id_token=id_token,
        )


def _select_roles(roles: Any, settings: Settings) -> tuple[str, ...]:
    """The roles that have permissions: a person may be in hundreds of groups."""
    listed = roles if isinstance(roles, list) else [roles]
    return tuple(
        dict.fromkeys(
            role for role in listed if isinstance(role, str) and role in settings.role_permissions
        )
    )


def _read_lifetime(answer: Claims, id_claims: Claims | None) -> float:
    """For how many seconds an identity is valid: at least 60, and at most an hour if renewable."""
    expires_in: Any = answer.get("expires_in")
    if expires_in is None and id_claims is not None:
        expires_in = id_claims["exp"] - time.time()
    try:
        lifetime = max(float(MIN_LIFETIME_S), float(expires_in))
    except (TypeError, ValueError):
        lifetime = float(DEFAULT_LIFETIME_S)
    return min(lifetime, MAX_RENEWED_LIFETIME_S) if answer.get("refresh_token") else lifetime


def _unreachable() -> ApiError:
    message = "The identity provider does not answer. Try again."
    return unavailable("identity_provider_unavailable", message)


def _unusable_answer(reason: str, message: str = "", *, is_logged: bool = False) -> ApiError:
    """502, logged once with a reason that contains no token and no value of a claim."""
    if not is_logged:
        log.error("the identity provider's answer cannot be used: %s", reason)
    text = message or "The identity provider's answer cannot be used; the log has the reason."
    return ApiError(HTTPStatus.BAD_GATEWAY, "sign_in_failed", text)


def _explain_refusal(error: OAuthError) -> ApiError:
    """403 for a code or refresh token that is no longer valid; 502 if jobmon itself is refused."""
    if error.error == "invalid_grant":
        message = "The identity provider no longer accepts this sign-in. Sign in again."
        return ApiError(HTTPStatus.FORBIDDEN, "sign_in_refused", message)
    return _unusable_answer(f"refused_{str(error.error)[:40]}")


def _name_reason(error: Exception) -> str:
    """The fault of an ID token in one word, such as `nonce` or `expired_token`."""
    claim = getattr(error, "claim", None)
    return str(claim or getattr(error, "error", None) or type(error).__name__)
