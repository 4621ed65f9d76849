"""An identity provider for one test; the test can make its answers wrong.

It follows OpenID Connect as far as jobmon needs it: it checks the client, the code, and PKCE.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

CLIENT_ID, CLIENT_SECRET = "jobmon", "a client secret of thirty-two bytes"


@cache
def make_key(name: str = "one") -> rsa.RSAPrivateKey:
    """The key with this name. Keys are cached, because it takes long to generate a key."""
    return rsa.generate_private_key(65_537, 2_048)


class IdentityProvider:
    """The provider's state; a test changes it between requests.

    `claims` are in ID tokens, `access_claims` in access tokens (None: opaque tokens). `userinfo` is
    the answer of the userinfo endpoint (None: the metadata has no such endpoint). `change_id_token`
    can change an ID token's claims. `renews_id_token`: a refresh token also gives a new ID token.
    `rotates`: a refresh token can be used once. `document` replaces or adds fields of the metadata.
    `token_answer` returns the status and the body of the token endpoint's answer (None: the right
    ones). `status`, if not 0, replaces the status of all answers. `requests` are the paths of the
    requests, `renewals` counts uses of refresh tokens.
    """

    def __init__(self) -> None:
        self.keys = {"one": make_key()}
        self.signing_key = "one"
        self.subject = "ada"
        self.claims: dict[str, Any] = {"role": ["admin"]}
        self.access_claims: dict[str, Any] | None = None
        self.userinfo: dict[str, Any] | None = None
        self.change_id_token: Callable[[dict[str, Any]], None] = lambda _: None
        self.renews_id_token = True
        self.gives_refresh_token = True
        self.rotates = False
        self.expires_in: float | None = 300
        self.document: dict[str, Any] = {}
        self.token_answer: Callable[[], tuple[int, bytes]] | None = None
        self.status = 0
        self.requests: list[str] = []
        self.renewals = 0
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh_tokens: set[str] = set()
        self.issuer = ""

    def authorize(self, address: str) -> str:
        """The address to which the provider redirects a signed-in browser that opens `address`."""
        parts = urlsplit(address)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert f"{parts.scheme}://{parts.netloc}" == self.issuer
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def describe(self) -> dict[str, Any]:
        """The provider's metadata."""
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "end_session_endpoint": f"{self.issuer}/sign-out",
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256"],
            "code_challenge_methods_supported": ["plain", "S256"],
        }
        if self.userinfo is not None:
            document["userinfo_endpoint"] = f"{self.issuer}/userinfo"
        return document | self.document

    def list_keys(self) -> dict[str, Any]:
        return {
            "keys": [
                json.loads(RSAAlgorithm.to_jwk(key.public_key())) | {"kid": kid, "use": "sig"}
                for kid, key in self.keys.items()
            ]
        }

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        """The status and the body of an answer of the token endpoint."""
        if self.token_answer is not None:
            return self.token_answer()
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {expected}":
            return 401, b'{"error": "invalid_client"}'
        if form["grant_type"] == "refresh_token":
            return self._renew(form["refresh_token"])
        query = self._codes.pop(form["code"], None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            query is None
            or query["code_challenge"] != challenge
            or query["redirect_uri"] != form["redirect_uri"]
        ):
            # With line breaks, as in Entra's answers.
            text = '{"error": "invalid_grant", "error_description": "X1: no.\\r\\nTrace: 1"}'
            return 400, text.encode()
        return 200, self._make_answer(nonce=query["nonce"])

    def _renew(self, refresh_token: str) -> tuple[int, bytes]:
        self.renewals += 1
        if refresh_token not in self._refresh_tokens:
            return 400, b'{"error": "invalid_grant"}'
        if self.rotates:
            self._refresh_tokens.remove(refresh_token)
        return 200, self._make_answer(reused_token=None if self.rotates else refresh_token)

    def _make_answer(self, nonce: str | None = None, reused_token: str | None = None) -> bytes:
        access_token = secrets.token_urlsafe(16)
        if self.access_claims is not None:
            access_token = self.sign({"aud": "another api"} | self.access_claims)
        answer: dict[str, Any] = {"access_token": access_token, "token_type": "Bearer"}
        if nonce is not None or self.renews_id_token:
            claims = self.claims | ({} if nonce is None else {"nonce": nonce})
            answer["id_token"] = self.sign({"aud": CLIENT_ID} | claims, self.change_id_token)
        if self.expires_in is not None:
            answer["expires_in"] = self.expires_in
        if self.gives_refresh_token and reused_token is None:
            answer["refresh_token"] = secrets.token_urlsafe(16)
            self._refresh_tokens.add(answer["refresh_token"])
        return json.dumps(answer).encode()

    def sign(
        self, claims: dict[str, Any], change: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> str:
        """A signed token with the usual claims and `claims`; `change` can edit all of them."""
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": self.subject, "iat": now, "exp": now + 300} | claims
        change(claims)
        header = {"kid": self.signing_key}
        return jwt.encode(claims, self.keys[self.signing_key], "RS256", header)

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        """The status and the body of the answer, before `self.status` replaces the status."""
        if path == "/token":
            return self.exchange(form, authorization)
        documents = {
            "/.well-known/openid-configuration": self.describe,
            "/keys": self.list_keys,
            "/userinfo": lambda: {"sub": self.subject} | (self.userinfo or {}),
        }
        if path not in documents:
            return 404, b"{}"
        return 200, json.dumps(documents[path]()).encode()

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator["IdentityProvider"]:
        """Run a provider during the block; yields it."""
        provider = cls()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(provider))
        provider.issuer = f"http://127.0.0.1:{server.server_port}"
        options = {"poll_interval": 0.01}
        thread = threading.Thread(target=server.serve_forever, kwargs=options)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _make_handler(provider: IdentityProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer({name: values[0] for name, values in parse_qs(body).items()})

        def _answer(self, form: dict[str, str]) -> None:
            provider.requests.append(self.path)
            status, body = provider.answer(self.path, form, self.headers.get("Authorization", ""))
            self.send_response(provider.status or status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
