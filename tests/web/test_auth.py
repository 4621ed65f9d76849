"""Tokens and roles: catches a forged token that is accepted, a valid token that is refused, and
an identity provider that is requested too often or too rarely."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from jobmon.app import create_app
from jobmon.settings import ADMIN_DASHBOARD, Settings
from jobmon.web import download
from jobmon.web import jwks as jwks_module

from ..conftest import SECRET, Api
from ..support.waiting import PATIENCE_S, eventually

STATS = "/admin/jobs/stats"
Make = Callable[..., Api]


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2_048)


def pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


KEY, OTHER_KEY = rsa_key(), rsa_key()
EC_KEY = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {"sub": "root", "role": "admin"}


def signed(
    claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any
) -> str:
    return jwt.encode(claims, key, algorithm, headers=header)


def outcome(api: Api, token: str, path: str = STATS) -> int | str:
    answer = api.get(path, token=token)
    return 200 if answer.status_code == 200 else answer.json["error"]["code"]


@pytest.fixture
def service(watched: Any, make_settings: Callable[..., Settings]) -> Make:
    def make(**settings: Any) -> Api:
        return Api(create_app(make_settings(**settings), watched.client))

    return make


def time_from_now(**ahead: float) -> datetime:
    return datetime.now(UTC) + timedelta(**ahead)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (CLAIMS, 200),
        (CLAIMS | {"exp": time_from_now(hours=1)}, 200),
        (CLAIMS | {"exp": time_from_now(hours=-1)}, "token_expired"),
        (CLAIMS | {"nbf": time_from_now(hours=1)}, "token_invalid"),
        (CLAIMS | {"aud": "somebody else's business"}, 200),
        (CLAIMS | {"type": "refresh"}, "token_invalid"),
        ({"role": "admin"}, "token_invalid"),
        ({"role": "admin", "sub": ""}, "token_invalid"),
        ({"role": "admin", "sub": 5}, "token_invalid"),
        ({"sub": "root"}, "permission_denied"),
        ({"sub": "root", "role": "user"}, "permission_denied"),
        ({"sub": "root", "role": "Admin"}, "permission_denied"),
        ({"sub": "root", "role": ["admin"]}, 200),
        ({"sub": "root", "role": ["user", "admin"]}, 200),
        ({"sub": "root", "role": [["admin"], 7, None, {"admin": 1}]}, "permission_denied"),
        ({"sub": "root", "role": []}, "permission_denied"),
        ({"sub": "root", "role": {"admin": 1}}, "permission_denied"),
        ({"sub": "root", "role": None}, "permission_denied"),
    ],
)
def test_a_tokens_claims_decide_the_outcome(
    service: Make, claims: dict[str, Any], expected: int | str
) -> None:
    assert outcome(service(), signed(claims)) == expected


@pytest.mark.parametrize("role", [None, "user", ["admin"], 7])
def test_any_valid_token_opens_the_list_of_own_jobs(service: Make, role: Any) -> None:
    assert outcome(service(), signed({"sub": "ada", "role": role}), "/jobs") == 200


@pytest.mark.parametrize(
    "token",
    [
        signed(CLAIMS, "another secret of thirty-two bytes or more"),
        signed(CLAIMS, algorithm="HS384"),
        signed(CLAIMS, None, "none"),
        signed(CLAIMS)[:-2],
        signed(CLAIMS).rsplit(".", 1)[0] + ".",
        "a.b.c",
        "garbage",
        "é",
    ],
)
def test_a_token_of_another_key_or_algorithm_is_refused(service: Make, token: str) -> None:
    assert outcome(service(), token) == "token_invalid"


@pytest.mark.parametrize("header", ["", "Basic cm9vdDpyb290", "Bearer", "bearer-ish x", "Token x"])
def test_a_header_without_a_bearer_token_is_no_authentication(service: Make, header: str) -> None:
    answer = service().client.get(STATS, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.json["error"]["code"] in {"authentication_required", "token_invalid"}


def test_a_token_in_a_query_or_another_cookie_is_ignored(service: Make) -> None:
    api = service()
    api.client.set_cookie("access_token_cookie", signed(CLAIMS))
    assert api.get(STATS, jwt=signed(CLAIMS)).status_code == 401


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": "https://id", "aud": "jobmon"}, 200),
        ({"iss": "https://id", "aud": ["x", "jobmon"]}, 200),
        ({"iss": "https://evil", "aud": "jobmon"}, "token_invalid"),
        ({"iss": "https://id", "aud": "other"}, "token_invalid"),
        ({"iss": "https://id"}, "token_invalid"),
        ({"aud": "jobmon"}, "token_invalid"),
    ],
)
def test_issuer_and_audience_are_checked_where_they_are_set(
    service: Make, claims: dict[str, Any], expected: int | str
) -> None:
    api = service(jwt_issuer="https://id", jwt_audience="jobmon")
    assert outcome(api, signed(CLAIMS | claims)) == expected
    assert outcome(api, api.token()) == 200  # an issued token has both


@pytest.mark.parametrize(("key", "algorithm"), [(KEY, "RS256"), (KEY, "PS512"), (EC_KEY, "ES256")])
def test_an_identity_providers_public_key(service: Make, key: Any, algorithm: str) -> None:
    api = service(jwt_secret_key=None, jwt_public_key=pem(key), jwt_algorithm=algorithm)
    assert outcome(api, signed(CLAIMS, key, algorithm)) == 200
    assert outcome(api, signed(CLAIMS)) == "token_invalid"
    assert outcome(api, signed(CLAIMS, OTHER_KEY, "RS256")) == "token_invalid"
    assert outcome(api, signed(CLAIMS, None, "none")) == "token_invalid"


def test_a_public_key_cannot_be_used_as_a_shared_secret(service: Make) -> None:
    api = service(jwt_secret_key=None, jwt_public_key=pem(KEY), jwt_algorithm="RS256")
    header, payload, _ = signed(CLAIMS).split(".")
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        f"{header}.{payload}".encode(), pem(KEY).encode()
    )
    forged = f"{header}.{payload}.{jwt.utils.base64url_encode(signature).decode()}"
    assert outcome(api, forged) == "token_invalid"


def test_another_role_can_be_given_the_permission(service: Make) -> None:
    api = service(role_permissions={"ops": frozenset({ADMIN_DASHBOARD})})
    assert outcome(api, signed({"sub": "x", "role": "ops"})) == 200
    assert outcome(api, signed({"sub": "x", "role": "dev"})) == "permission_denied"


class Provider:
    """An identity provider's key endpoint that counts its requests."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {"one": KEY}
        self.more: list[dict[str, Any]] = []
        self.requests = 0
        self.broken = False
        self.body: bytes | None = None
        self.redirect = ""
        self.dripping = self.drips_headers = False
        self.disconnected = threading.Event()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests += 1
                if provider.redirect:
                    self.send_response(302)
                    self.send_header("Location", provider.redirect)
                    provider.redirect = ""
                    self.end_headers()
                    return
                try:
                    self.answer()
                except OSError:
                    provider.disconnected.set()

            def answer(self) -> None:
                self.drip(b"H", when=provider.drips_headers)
                self.send_response(500 if provider.broken else 200)
                self.end_headers()
                self.drip(b" ", when=not provider.drips_headers)
                keys = json.dumps(provider.document()).encode()
                self.wfile.write(keys if provider.body is None else provider.body)

            def drip(self, data: bytes, *, when: bool) -> None:
                while when and provider.dripping:
                    self.wfile.write(data)
                    time.sleep(0.01)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    def document(self) -> dict[str, Any]:
        return {
            "keys": [
                json.loads(RSAAlgorithm.to_jwk(key.public_key())) | {"kid": kid, "alg": "RS256"}
                for kid, key in self.keys.items()
            ]
            + self.more
        }

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator["Provider"]:
        """A provider that answers while the block runs."""
        provider = cls()
        serve = provider.server.serve_forever
        thread = threading.Thread(target=serve, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield provider
        finally:
            provider.server.shutdown()
            provider.server.server_close()
            thread.join()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider.listening() as provider:
        yield provider


@pytest.fixture
def jwks(service: Make, provider: Provider) -> Api:
    return service(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")


def sign_token(kid: str | None, key: Any = KEY, **claims: Any) -> str:
    return signed(CLAIMS | claims, key, "RS256", **({"kid": kid} if kid else {}))


def test_keys_are_fetched_once_and_cached(jwks: Api, provider: Provider) -> None:
    assert [outcome(jwks, sign_token("one")) for _ in range(5)] == [200] * 5
    assert provider.requests == 1


@pytest.mark.parametrize(
    "token",
    [
        sign_token("unknown"),
        sign_token(None, OTHER_KEY),
        sign_token("one", OTHER_KEY),
        signed(CLAIMS, kid="one"),
        signed(CLAIMS),
        "garbage",
    ],
    ids=["unknown kid", "no kid", "wrong key", "wrong algorithm", "neither", "garbage"],
)
def test_a_token_without_a_key_that_verifies_it_is_refused(jwks: Api, token: str) -> None:
    assert outcome(jwks, token) == "token_invalid"


def test_a_rotated_key_is_picked_up(
    jwks: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(jwks, sign_token("one")) == 200
    provider.keys = {"two": OTHER_KEY}
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    assert outcome(jwks, sign_token("two", OTHER_KEY)) == 200
    assert outcome(jwks, sign_token("one")) == "token_invalid"


def test_unknown_kids_do_not_fetch_the_keys_again_and_again(jwks: Api, provider: Provider) -> None:
    for number in range(20):
        assert outcome(jwks, sign_token(f"kid-{number}")) == "token_invalid"
    assert provider.requests == 1


def test_a_provider_that_is_unreachable_is_503(
    jwks: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.broken = True
    answer = jwks.get(STATS, token=sign_token("one"))
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "identity_provider_unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert outcome(jwks, sign_token(None)) == "identity_provider_unavailable"
    assert provider.requests == 1
    provider.broken = False
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    assert outcome(jwks, sign_token("one")) == 200


def test_cached_keys_stay_valid_while_the_provider_is_unreachable(
    jwks: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(jwks, sign_token("one")) == 200
    provider.broken = True
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_REFRESH_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_LIFESPAN_S", 0)
    assert outcome(jwks, sign_token("one")) == 200
    assert provider.requests == 2


def test_a_key_that_the_provider_has_removed_is_refused_by_the_request_that_fetches(
    jwks: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request whose fetch finds the key removed still accepts a token of this key."""
    assert outcome(jwks, sign_token("one")) == 200
    provider.keys = {"two": OTHER_KEY}
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_REFRESH_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_LIFESPAN_S", 0)
    assert outcome(jwks, sign_token("one")) == "token_invalid"


def test_a_slow_provider_delays_no_cached_key_and_is_disconnected(
    jwks: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(jwks, sign_token("one")) == 200
    monkeypatch.setattr(jwks_module, "KEYS_TIMEOUT_S", 2)
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_REFRESH_S", 0)
    for drips_headers in (False, True):
        provider.disconnected.clear()
        provider.drips_headers, provider.dripping = drips_headers, True
        assert outcome(jwks, sign_token("one")) == 200
        assert not provider.disconnected.is_set()  # the answer above came before the provider's
        assert outcome(jwks, sign_token("two", OTHER_KEY)) == "identity_provider_unavailable"
        assert provider.disconnected.wait(PATIENCE_S)
        provider.dripping = False
        eventually(lambda: outcome(jwks, sign_token("two")) == "token_invalid")
    provider.keys["two"] = OTHER_KEY
    eventually(lambda: outcome(jwks, sign_token("two", OTHER_KEY)) == 200)


def test_an_answer_that_is_too_long_is_refused(jwks: Api, provider: Provider) -> None:
    provider.more = [{"kid": "x" * 10_000}] * 100
    assert outcome(jwks, sign_token("one")) == "identity_provider_unavailable"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"keys": {}}', b'{"keys": []}', b"[" * 100_000])
def test_an_answer_without_keys_is_503(jwks: Api, provider: Provider, body: bytes) -> None:
    provider.body = body
    assert outcome(jwks, sign_token("one")) == "identity_provider_unavailable"
    assert outcome(jwks, sign_token(None)) == "identity_provider_unavailable"


def test_few_requests_wait_for_an_unknown_key(
    jwks: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(jwks, sign_token("one")) == 200
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_TIMEOUT_S", PATIENCE_S)
    provider.dripping = True
    with ThreadPoolExecutor(jwks_module.MAX_WAITING + 1) as pool:
        waiting = [
            pool.submit(outcome, jwks, sign_token("two")) for _ in range(jwks_module.MAX_WAITING)
        ]
        # Once MAX_WAITING requests wait, one more is answered at once.
        one_more = pool.submit(outcome, jwks, sign_token("two"))
        ended = eventually(lambda: [call for call in (*waiting, one_more) if call.done()])
        assert [call.result() for call in ended] == ["identity_provider_unavailable"]
        provider.dripping = False


def test_a_token_without_a_kid_is_accepted_if_one_key_is_for_the_algorithm(
    service: Make, provider: Provider
) -> None:
    def opens(*more: dict[str, Any], algorithm: str = "RS256", key: Any = KEY) -> int | str:
        provider.more = list(more)
        api = service(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm=algorithm)
        return outcome(api, signed(CLAIMS, key, algorithm))

    another = json.loads(RSAAlgorithm.to_jwk(OTHER_KEY.public_key())) | {"kid": "two"}
    another.pop("key_ops", None)
    elliptic = json.loads(ECAlgorithm.to_jwk(EC_KEY.public_key()))
    assert opens() == 200
    assert opens(another) == "token_invalid"
    assert opens(another | {"alg": "PS256"}) == 200
    assert opens(another | {"use": "enc"}) == 200
    assert opens(another | {"key_ops": ["encrypt"]}) == 200
    assert opens(elliptic) == 200
    assert opens(elliptic, algorithm="ES256", key=EC_KEY) == 200
    assert opens(elliptic, elliptic, algorithm="ES256", key=EC_KEY) == "token_invalid"
    assert opens(another, algorithm="PS256", key=OTHER_KEY) == 200  # the key names no algorithm
    assert opens(another, algorithm="PS256") == "token_invalid"


def test_a_redirect_to_keys_is_followed_but_not_away_from_https(provider: Provider) -> None:
    provider.redirect = provider.url
    assert download.download(provider.url, time.monotonic() + PATIENCE_S)
    request = urllib.request.Request("https://id.example/keys")
    redirects = download._SafeRedirects()
    for target in (provider.url, "ftp://id.example/keys", "file:///etc/passwd"):
        with pytest.raises(urllib.error.URLError):
            redirects.redirect_request(request, None, 302, "", Message(), target)


def test_the_token_command_prints_a_token_that_works(service: Make) -> None:
    api = service()
    runner = api.app.test_cli_runner()
    result = runner.invoke(args=["token", "--sub", "ada", "--role", "admin"])
    assert outcome(api, result.output.strip()) == 200
    claims = jwt.decode(result.output.strip(), SECRET, ["HS256"])
    assert (claims["sub"], claims["role"]) == ("ada", "admin")
    assert claims["exp"] - claims["iat"] == 3_600


def test_the_token_command_needs_a_secret(service: Make) -> None:
    api = service(jwt_secret_key=None, jwt_public_key=pem(KEY), jwt_algorithm="RS256")
    result = api.app.test_cli_runner().invoke(args=["token", "--sub", "ada", "--role", "admin"])
    assert result.exit_code == 1
    assert "JOBMON_JWT_SECRET_KEY is not set" in result.output
