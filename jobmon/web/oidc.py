"""Sign-in at an identity provider by OpenID Connect: authorization code with PKCE, and refresh.

Authlib makes the requests' parameters and checks ID tokens. Every answer of the provider is read
until a deadline, so that a provider that is slow or away holds no thread for long.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError, OpenIDMixin
from authlib.oauth2 import ClientAuth, OAuth2Client
from joserfc import jwt as jose_jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import KeySet as JoseKeySet
from joserfc.jws import JWSRegistry

from jobmon.settings import Settings
from jobmon.settings.token_keys import PUBLIC_KEY_ALGORITHMS
from jobmon.web.claims import find_claim
from jobmon.web.download import FAILURES, StatusError, download
from jobmon.web.errors import ApiError, unavailable

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0  # for each answer of the provider
MAX_WAIT_S = 1.0  # while as many threads as may ask the provider do so
DISCOVERY_REFRESH_S = 600  # an older document is read again, and used while that fails
KEYS_REFRESH_S = 300
KEYS_COOLDOWN_S = 5
# Of an ID token that names another lifetime, or of a provider that names none.
MIN_LIFETIME_S, DEFAULT_LIFETIME_S, MAX_RENEWED_LIFETIME_S = 60, 300, 3_600
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_OPTIONAL_ENDPOINTS = ("userinfo_endpoint", "end_session_endpoint")
_DISCOVERY_PATH = "/.well-known/openid-configuration"

Claims = Mapping[str, Any]


class DiscoveryError(Exception):
    """The provider's discovery document cannot be used; the message has the reason."""


@dataclass(frozen=True, kw_only=True)
class SignInFlow:
    """What jobmon has to remember while a person is at the provider."""

    address: str  # where the person signs in
    state: str
    nonce: str
    code_verifier: str
    redirect_uri: str


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who signed in according to the provider, and for how many seconds that is valid.

    `roles` are only those that have a permission in the settings.
    """

    subject: str
    roles: tuple[str, ...]
    lifetime_s: float
    provider_subject: str
    refresh_token: str | None
    id_token: str | None


def read_discovery(issuer: str) -> dict[str, Any]:
    """The provider's discovery document; raises DiscoveryError, or one of `FAILURES`."""
    url = issuer.rstrip("/") + _DISCOVERY_PATH
    document = json.loads(download(url, time.monotonic() + TIMEOUT_S))
    if not isinstance(document, dict):
        raise DiscoveryError("its discovery document is no JSON object")
    if document.get("issuer") != issuer:
        named = str(document.get("issuer"))[:200]
        raise DiscoveryError(f"it names itself {named!r}: the setting must be exactly this")
    is_secure = urlsplit(issuer).scheme == "https"
    for name in (*_ENDPOINTS, *(name for name in _OPTIONAL_ENDPOINTS if document.get(name))):
        address = document.get(name)
        if not isinstance(address, str) or urlsplit(address).scheme not in ("http", "https"):
            raise DiscoveryError(f"its discovery document has no valid {name}")
        if is_secure and urlsplit(address).scheme != "https":
            raise DiscoveryError(f"its {name} is not https")
    return document


class IdentityProvider:
    """The provider of the settings. Nothing connects before the first sign-in.

    Every method raises ApiError 503 if the provider does not answer, and 502 if it answers what
    cannot be used; a person who is refused gets 403.

        flow = provider.begin("https://jobs.example/dashboard/oidc/callback")
        identity = provider.finish(request.args["code"], flow)
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._issuer = settings.oidc_issuer or ""
        self._protocol: _Protocol | None = None
        self._read_at = -float("inf")
        # A provider that hangs must leave threads for those who are signed in.
        self._at_once = threading.BoundedSemaphore(max(1, settings.threads // 2))

    def begin(self, redirect_uri: str) -> SignInFlow:
        """Where to send a person who wants to sign in."""
        with self._asking() as protocol:
            flow = {name: generate_token(48) for name in ("state", "nonce", "code_verifier")}
            address, _ = protocol.open_client().create_authorization_url(
                protocol.metadata["authorization_endpoint"], redirect_uri=redirect_uri, **flow
            )
            return SignInFlow(address=address, redirect_uri=redirect_uri, **flow)

    def check_sender(self, issuer: str | None) -> None:
        """Raise ApiError for a return from another provider, if it names itself (RFC 9207)."""
        if issuer not in (None, self._issuer):
            raise _failed("iss")

    def finish(self, code: str, flow: SignInFlow) -> Identity:
        """Who signed in, for a code that the provider gave."""
        with self._asking() as protocol:
            answer = protocol.open_client().fetch_token(
                protocol.metadata["token_endpoint"],
                grant_type="authorization_code",
                code=code,
                code_verifier=flow.code_verifier,
                redirect_uri=flow.redirect_uri,
            )
            if "id_token" not in answer:
                raise _failed("no_id_token")
            return self._identify(protocol, answer, nonce=flow.nonce)

    def renew(self, refresh_token: str, provider_subject: str) -> Identity:
        """The same person as now known to the provider, with new tokens."""
        with self._asking() as protocol:
            answer = protocol.open_client().refresh_token(
                protocol.metadata["token_endpoint"], refresh_token=refresh_token
            )
            return self._identify(protocol, answer, expected=provider_subject)

    def sign_out_address(self, id_token: str | None, return_to: str) -> str | None:
        """Where a person signs out at the provider; None if it offers nothing for that."""
        with self._asking() as protocol:
            if not protocol.metadata.get("end_session_endpoint"):
                return None
            made = protocol.create_logout_url(
                post_logout_redirect_uri=return_to,
                id_token_hint=id_token,
                client_id=self._settings.oidc_client_id,
            )
            return str(made["url"])

    @contextmanager
    def _asking(self) -> Iterator["_Protocol"]:
        """The protocol with the provider's addresses; every failure within becomes an ApiError."""
        if not self._at_once.acquire(timeout=MAX_WAIT_S):
            raise _away()
        try:
            yield self._load_protocol()
        except OAuthError as error:
            raise _explain_refusal(error) from None
        except (JoseError, AuthlibBaseError) as error:
            raise _failed(_name_reason(error)) from None
        except StatusError as error:
            raise _failed(f"status_{error.status}") from None
        except DiscoveryError as error:
            log.error("the identity provider %s cannot be used: %s", self._issuer, error)
            raise _failed("discovery", is_logged=True) from None
        except ValueError:
            raise _failed("no_json") from None
        except FAILURES as error:
            log.error("the identity provider does not answer: %s", error)
            raise _away() from None
        finally:
            self._at_once.release()

    def _load_protocol(self) -> "_Protocol":
        known = self._protocol
        if known is not None and time.monotonic() - self._read_at < DISCOVERY_REFRESH_S:
            return known
        try:
            document = read_discovery(self._issuer)
        except (DiscoveryError, *FAILURES) as error:
            if known is None:
                raise
            log.warning("cannot read the discovery document again: %s", error)
            document = None
        self._read_at = time.monotonic()
        if known is not None and document in (None, known.document):
            return known  # with the keys that it has fetched
        self._protocol = _Protocol(self._settings, document or {})
        return self._protocol

    def _identify(
        self,
        protocol: "_Protocol",
        answer: dict[str, Any],
        *,
        nonce: str | None = None,
        expected: str | None = None,
    ) -> Identity:
        """The person of a token answer; `expected` is the `sub` that it must have."""
        settings, issued = self._settings, answer.get("id_token")
        found: list[Claims] = []
        if issued:
            found.append(protocol.check_id_token(answer, nonce, settings.jwt_leeway_s))
            if expected not in (None, found[0]["sub"]):
                raise _failed("sub")
            expected = str(found[0]["sub"])
        if expected is None:
            raise _failed("sub")
        subject: Any = None
        roles: Any = None
        for claims in protocol.find_claims(found, answer, expected):
            subject = find_claim(claims, settings.subject_claim) if subject is None else subject
            roles = find_claim(claims, settings.role_claim) if roles is None else roles
            if subject is not None and roles is not None:
                break
        if not isinstance(subject, str) or not subject:
            raise _failed("no_subject", f"The provider does not name {settings.subject_claim!r}.")
        return Identity(
            subject=subject,
            roles=_select_roles(roles, settings),
            lifetime_s=_read_lifetime(answer, found),
            provider_subject=expected,
            refresh_token=answer.get("refresh_token"),
            id_token=issued,
        )


def _select_roles(roles: Any, settings: Settings) -> tuple[str, ...]:
    """The roles that have permissions: a person may be in hundreds of groups."""
    listed = roles if isinstance(roles, list) else [roles]
    return tuple(
        dict.fromkeys(
            role for role in listed if isinstance(role, str) and role in settings.role_permissions
        )
    )


def _read_lifetime(answer: Claims, found: list[Claims]) -> float:
    """For how many seconds an identity is valid: shorter if it can be renewed."""
    named: Any = answer.get("expires_in")
    if named is None and found:
        named = found[0]["exp"] - time.time()
    try:
        lifetime = max(float(MIN_LIFETIME_S), float(named))
    except (TypeError, ValueError):
        lifetime = float(DEFAULT_LIFETIME_S)
    return min(lifetime, MAX_RENEWED_LIFETIME_S) if answer.get("refresh_token") else lifetime


class _Protocol(OpenIDMixin):
    """Authlib's checks and parameters, for one discovery document."""

    def __init__(self, settings: Settings, document: dict[str, Any]) -> None:
        self.document = document
        self.client_id = settings.oidc_client_id
        self._client_secret = settings.oidc_client_secret
        self._scopes = settings.oidc_scopes
        offered = document.get("id_token_signing_alg_values_supported") or ["RS256"]
        self._algorithms = [name for name in offered if name in PUBLIC_KEY_ALGORITHMS]
        self.metadata = {
            name: document.get(name) for name in ("issuer", *_ENDPOINTS, *_OPTIONAL_ENDPOINTS)
        } | {"id_token_signing_alg_values_supported": self._algorithms}
        self._lock = threading.Lock()
        self._keys: Any = None
        self._keys_at = -float("inf")

    def load_server_metadata(self) -> dict[str, Any]:
        """Called by Authlib."""
        return self.metadata

    def fetch_jwk_set(self, force: bool = False) -> Any:
        """The provider's keys; with `force` new ones, because it may have changed them."""
        with self._lock:
            age = time.monotonic() - self._keys_at
            if self._keys is None or age > (KEYS_COOLDOWN_S if force else KEYS_REFRESH_S):
                url = str(self.metadata["jwks_uri"])
                self._keys = json.loads(download(url, time.monotonic() + TIMEOUT_S))
                self._keys_at = time.monotonic()
            return self._keys

    def open_client(self) -> "_Client":
        """A client for one request."""
        methods = self.document.get("token_endpoint_auth_methods_supported")
        is_posted = isinstance(methods, list) and "client_secret_basic" not in methods
        return _Client(
            _Sender(),
            client_id=self.client_id,
            client_secret=self._client_secret,
            scope=self._scopes,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_post" if is_posted else "client_secret_basic",
        )

    def check_id_token(self, answer: dict[str, Any], nonce: str | None, leeway_s: int) -> Claims:
        """The claims of a valid ID token; raises JoseError."""
        options = {
            "iss": {"essential": True, "value": self.metadata["issuer"]},
            "aud": {"essential": True, "value": self.client_id},
        }
        try:
            return self.parse_id_token(answer, nonce, options, leeway=leeway_s) or {}
        except BadSignatureError:  # a new key without another id
            self.fetch_jwk_set(force=True)
            return self.parse_id_token(answer, nonce, options, leeway=leeway_s) or {}

    def find_claims(
        self, found: list[Claims], answer: dict[str, Any], subject: str
    ) -> Iterator[Claims]:
        """The claims about a person, from the ID token, the access token and the provider.

        Keycloak, for instance, has roles only in the access token.
        """
        yield from found
        access_token = str(answer.get("access_token") or "")
        claims = self._read_access_token(access_token)
        if claims.get("sub") == subject:
            yield claims
        if self.metadata["userinfo_endpoint"] and access_token:
            bearer = {"Authorization": f"Bearer {access_token}"}
            url = str(self.metadata["userinfo_endpoint"])
            claims = json.loads(download(url, time.monotonic() + TIMEOUT_S, headers=bearer))
            if isinstance(claims, dict) and claims.get("sub") == subject:
                yield claims

    def _read_access_token(self, token: str) -> Claims:
        """The claims of an access token that is a JWT of this provider; none of any other."""
        if token.count(".") != 2:
            return {}
        try:
            keys = JoseKeySet.import_key_set(self.fetch_jwk_set())
            registry = JWSRegistry(algorithms=self._algorithms, strict_check_header=False)
            claims = jose_jwt.decode(token, key=keys, registry=registry).claims
        except (JoseError, ValueError):
            return {}
        return claims if claims.get("iss") == self.metadata["issuer"] else {}


class _Client(OAuth2Client):
    # Authlib's own class refuses the texts of providers that have line ends in them.
    oauth_error_class = OAuthError  # type: ignore[assignment]


class _Sender:
    """Sends the forms of Authlib's client."""

    def post(
        self, url: str, data: dict[str, str], headers: Mapping[str, str], auth: ClientAuth
    ) -> "_Answer":
        """The provider's answer, whatever its status is."""
        # A copy: Authlib would add the client's secret to the headers that all requests share.
        url, sent, body = auth.prepare(  # type: ignore[no-untyped-call]
            "POST", url, dict(headers), urlencode(data)
        )
        until = time.monotonic() + TIMEOUT_S
        try:
            return _Answer(200, download(url, until, form=body.encode(), headers=sent))
        except StatusError as error:
            return _Answer(error.status, error.body)


@dataclass(frozen=True)
class _Answer:
    """An answer in the form that Authlib reads."""

    status_code: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def raise_for_status(self) -> None:
        if self.status_code != HTTPStatus.OK:
            raise StatusError(self.status_code, self.body)


def _away() -> ApiError:
    message = "The identity provider does not answer. Try again."
    return unavailable("identity_provider_unavailable", message)


def _failed(reason: str, message: str = "", *, is_logged: bool = False) -> ApiError:
    """502, logged once with a reason that has nothing of the answer's values."""
    if not is_logged:
        log.error("the identity provider's answer cannot be used: %s", reason)
    text = message or "The identity provider's answer cannot be used; the log has the reason."
    return ApiError(HTTPStatus.BAD_GATEWAY, "sign_in_failed", text)


def _explain_refusal(error: OAuthError) -> ApiError:
    """403 for a code or refresh token that is no longer valid; 502 if jobmon itself is refused."""
    if error.error == "invalid_grant":
        message = "The identity provider no longer accepts this sign-in. Sign in again."
        return ApiError(HTTPStatus.FORBIDDEN, "sign_in_refused", message)
    return _failed(f"refused_{str(error.error)[:40]}")


def _name_reason(error: Exception) -> str:
    """The fault of an ID token in one word, such as `nonce` or `expired_token`."""
    claim = getattr(error, "claim", None)
    return str(claim or getattr(error, "error", None) or type(error).__name__)
