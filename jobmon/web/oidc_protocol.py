"""Sends requests to an identity provider, and checks its answers (OpenID Connect).

Authlib makes the parameters of requests and checks ID tokens. Answers are read until a deadline.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

from authlib.integrations.base_client import OAuthError, OpenIDMixin
from authlib.oauth2 import ClientAuth, OAuth2Client
from joserfc import jwt as jose_jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import KeySet as JoseKeySet
from joserfc.jws import JWSRegistry

from jobmon.download import StatusError, download
from jobmon.settings import Settings
from jobmon.settings.token_keys import PUBLIC_KEY_ALGORITHMS

TIMEOUT_S = 5.0  # for each answer of the provider
KEYS_REFRESH_S = 300
KEYS_COOLDOWN_S = 5  # at least, between two fetches of the keys
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_OPTIONAL_ENDPOINTS = ("userinfo_endpoint", "end_session_endpoint")
_DISCOVERY_PATH = "/.well-known/openid-configuration"

Claims = Mapping[str, Any]


class DiscoveryError(Exception):
    """The provider's discovery document cannot be used; the message has the reason."""


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


class Protocol(OpenIDMixin):
    """Requests and checks for the provider that one discovery document describes."""

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
        self._keys_fetched_at = -float("inf")

    def load_server_metadata(self) -> dict[str, Any]:
        """The provider's metadata, for Authlib."""
        return self.metadata

    def fetch_jwk_set(self, force: bool = False) -> Any:
        """The provider's keys, at most five minutes old; with `force`, at most five seconds old."""
        with self._lock:
            age = time.monotonic() - self._keys_fetched_at
            if self._keys is None or age > (KEYS_COOLDOWN_S if force else KEYS_REFRESH_S):
                url = str(self.metadata["jwks_uri"])
                document = json.loads(download(url, time.monotonic() + TIMEOUT_S))
                self._keys = {"keys": _select_usable_keys(document)}
                self._keys_fetched_at = time.monotonic()
            return self._keys

    def open_client(self) -> "_Client":
        """A client for one request."""
        methods = self.document.get("token_endpoint_auth_methods_supported")
        has_basic = not isinstance(methods, list) or "client_secret_basic" in methods
        auth_method = "client_secret_basic" if has_basic else "client_secret_post"
        return _Client(
            _Sender(),
            client_id=self.client_id,
            client_secret=self._client_secret,
            scope=self._scopes,
            code_challenge_method="S256",
            token_endpoint_auth_method=auth_method,
        )

    def check_id_token(self, answer: dict[str, Any], nonce: str | None, leeway_s: int) -> Claims:
        """The claims of a valid ID token; raises JoseError."""
        options = {
            "iss": {"essential": True, "value": self.metadata["issuer"]},
            "aud": {"essential": True, "value": self.client_id},
        }
        try:
            return self.parse_id_token(answer, nonce, options, leeway=leeway_s) or {}
        except BadSignatureError:  # perhaps a new key has the id of an old key
            self.fetch_jwk_set(force=True)
            return self.parse_id_token(answer, nonce, options, leeway=leeway_s) or {}

    def find_claims(
        self, id_claims: Claims | None, answer: dict[str, Any], subject: str
    ) -> Iterator[Claims]:
        """The claims about a person: of the ID token, the access token, and the userinfo endpoint.

        Keycloak, for instance, has roles only in the access token.
        """
        if id_claims is not None:
            yield id_claims
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
        """The claims of an access token that is a JWT of this provider; empty for any other."""
        if token.count(".") != 2:
            return {}
        try:
            keys = JoseKeySet.import_key_set(self.fetch_jwk_set())
            registry = JWSRegistry(algorithms=self._algorithms, strict_check_header=False)
            claims = jose_jwt.decode(token, key=keys, registry=registry).claims
        except (JoseError, ValueError):
            return {}
        return claims if claims.get("iss") == self.metadata["issuer"] else {}


def _select_usable_keys(document: Any) -> list[dict[str, Any]]:
    """The keys of a JWKS document that joserfc can read; raises DiscoveryError without any.

    A key that it cannot read, such as a new kind, must not prevent the use of the other keys.
    """
    usable = []
    keys = document.get("keys") if isinstance(document, dict) else None
    for key in keys if isinstance(keys, list) else ():
        with suppress(JoseError, ValueError, TypeError, LookupError, AttributeError):
            without_nulls = {name: value for name, value in key.items() if value is not None}
            if JoseKeySet.import_key_set({"keys": [without_nulls]}).keys:
                usable.append(without_nulls)
    if not usable:
        raise DiscoveryError("its document of keys has no usable key")
    return usable


class _Client(OAuth2Client):
    # Authlib's own class refuses error texts with line ends.
    oauth_error_class = OAuthError  # type: ignore[assignment]


class _Sender:
    """Sends the forms of Authlib's client."""

    def post(
        self, url: str, data: dict[str, str], headers: Mapping[str, str], auth: ClientAuth
    ) -> "_Answer":
        """The provider's answer, with any status."""
        # A copy: Authlib would add the client's secret to the headers that all requests share.
        url, auth_headers, body = auth.prepare(  # type: ignore[no-untyped-call]
            "POST", url, dict(headers), urlencode(data)
        )
        deadline = time.monotonic() + TIMEOUT_S
        try:
            return _Answer(200, download(url, deadline, form=body.encode(), headers=auth_headers))
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
