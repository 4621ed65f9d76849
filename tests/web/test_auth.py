"""Tokens and roles: catches a forged token that is accepted, a valid token that is refused, and
keys of an identity provider that are fetched too often or too rarely."""

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

from jobmon import download
from jobmon.app import create_app
from jobmon.settings import ADMIN_DASHBOARD, Settings
from jobmon.web import jwks as jwks_module

from ..conftest import SECRET, Api
from ..support.waiting import PATIENCE_S, eventually

STATS = "/admin/jobs/stats"
MakeApi = Callable[..., Api]


def make_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2_048)


def to_pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


KEY, OTHER_KEY = make_rsa_key(), make_rsa_key()
EC_KEY = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {"sub": "root", "role": "admin"}


def sign_token(
    claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **header: Any
) -> str:
    return jwt.encode(claims, key, algorithm, headers=header)


def read_outcome(api: Api, token: str, path: str = STATS) -> int | str:
    """Send a request with this token; returns 200, or the code of the error."""
    answer = api.get(path, token=token)
    return 200 if answer.status_code == 200 else answer.json["error"]["code"]


@pytest.fixture
def make_api(watched: Any, make_settings: Callable[..., Settings]) -> MakeApi:
    def make(**settings: Any) -> Api:
        return Api(create_app(make_settings(**settings), watched.client))

    return make


def time_from_now(**distance: float) -> datetime:
    """The time in so many `hours` or `seconds`; in the past if they are negative."""
    return datetime.now(UTC) + timedelta(**distance)


def test_settings_can_give_the_permission_to_another_role(make_api: MakeApi) -> None:
    api = make_api(role_permissions={"ops": frozenset({ADMIN_DASHBOARD})})
    assert read_outcome(api, sign_token({"sub": "x", "role": "ops"})) == 200
    assert read_outcome(api, sign_token({"sub": "x", "role": "dev"})) == "permission_denied"


class Provider:
    """An identity provider's key endpoint that counts its `requests`.

    While `is_dripping`, an answer never ends: the provider sends one byte after another, in the
    headers if `drips_headers`, otherwise in the body. `disconnected` is set after jobmon has closed
    the connection.
    """

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {"one": KEY}
        self.more_keys: list[dict[str, Any]] = []  # as JWKs
        self.requests = 0
        self.is_broken = False
        self.body: bytes | None = None  # replaces the document with the keys
        self.redirect = ""  # the target of the next answer, which is a redirect
        self.is_dripping = self.drips_headers = False
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
                self.send_response(500 if provider.is_broken else 200)
                self.end_headers()
                self.drip(b" ", when=not provider.drips_headers)
                keys = json.dumps(provider.document()).encode()
                self.wfile.write(keys if provider.body is None else provider.body)

            def drip(self, data: bytes, *, when: bool) -> None:
                while when and provider.is_dripping:
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
            + self.more_keys
        }

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator["Provider"]:
        """A provider that listens while the block runs."""
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
def jwks_api(make_api: MakeApi, provider: Provider) -> Api:
    return make_api(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")


def make_provider_token(kid: str | None, key: Any = KEY, **claims: Any) -> str:
    """A token with this key id in its header, signed with the provider's key or with `key`."""
    return sign_token(CLAIMS | claims, key, "RS256", **({"kid": kid} if kid else {}))


@pytest.mark.parametrize(
    "more",
    [
        {"key_ops": None, "use": None, "alg": None},
        {"key_ops": ["verify"], "use": "sig", "x5c": None},
    ],
)
def test_key_with_members_that_are_null_is_used(
    jwks_api: Api, provider: Provider, more: dict[str, Any]
) -> None:
    (key,) = provider.document()["keys"]
    provider.body = json.dumps({"keys": [{"kty": "RSA", "key_ops": 7}, key | more]}).encode()
    assert read_outcome(jwks_api, make_provider_token("one")) == 200


def test_keys_are_fetched_once_and_cached(jwks_api: Api, provider: Provider) -> None:
    assert [read_outcome(jwks_api, make_provider_token("one")) for _ in range(5)] == [200] * 5
    assert provider.requests == 1


def test_new_key_is_accepted_and_the_removed_key_is_refused(
    jwks_api: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_outcome(jwks_api, make_provider_token("one")) == 200
    provider.keys = {"two": OTHER_KEY}
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    assert read_outcome(jwks_api, make_provider_token("two", OTHER_KEY)) == 200
    assert read_outcome(jwks_api, make_provider_token("one")) == "token_invalid"


def test_tokens_with_unknown_key_ids_start_only_one_fetch(
    jwks_api: Api, provider: Provider
) -> None:
    for index in range(20):
        assert read_outcome(jwks_api, make_provider_token(f"kid-{index}")) == "token_invalid"
    assert provider.requests == 1


def test_failing_provider_is_503_and_is_not_requested_again_before_the_cooldown(
    jwks_api: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.is_broken = True
    answer = jwks_api.get(STATS, token=make_provider_token("one"))
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "identity_provider_unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert read_outcome(jwks_api, make_provider_token(None)) == "identity_provider_unavailable"
    assert provider.requests == 1
    provider.is_broken = False
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    assert read_outcome(jwks_api, make_provider_token("one")) == 200


def test_cached_keys_stay_valid_while_the_provider_fails(
    jwks_api: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_outcome(jwks_api, make_provider_token("one")) == 200
    provider.is_broken = True
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_REFRESH_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_LIFESPAN_S", 0)
    assert read_outcome(jwks_api, make_provider_token("one")) == 200
    assert provider.requests == 2


def test_removed_key_is_refused_by_the_same_request_that_fetches_the_keys(
    jwks_api: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a request that fetches the keys and still accepts a token of a removed key."""
    assert read_outcome(jwks_api, make_provider_token("one")) == 200
    provider.keys = {"two": OTHER_KEY}
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_REFRESH_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_LIFESPAN_S", 0)
    assert read_outcome(jwks_api, make_provider_token("one")) == "token_invalid"


def test_slow_provider_does_not_delay_tokens_of_cached_keys_and_is_disconnected(
    jwks_api: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_outcome(jwks_api, make_provider_token("one")) == 200
    monkeypatch.setattr(jwks_module, "KEYS_TIMEOUT_S", 2)
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_REFRESH_S", 0)
    for drips_headers in (False, True):
        provider.disconnected.clear()
        provider.drips_headers, provider.is_dripping = drips_headers, True
        assert read_outcome(jwks_api, make_provider_token("one")) == 200
        assert not provider.disconnected.is_set()  # the request did not wait for the provider
        token = make_provider_token("two", OTHER_KEY)
        assert read_outcome(jwks_api, token) == "identity_provider_unavailable"
        assert provider.disconnected.wait(PATIENCE_S)
        provider.is_dripping = False
        eventually(lambda: read_outcome(jwks_api, make_provider_token("two")) == "token_invalid")
    provider.keys["two"] = OTHER_KEY
    eventually(lambda: read_outcome(jwks_api, make_provider_token("two", OTHER_KEY)) == 200)


def test_answer_of_the_provider_that_is_too_long_is_refused(
    jwks_api: Api, provider: Provider
) -> None:
    provider.more_keys = [{"kid": "x" * 10_000}] * 100
    assert read_outcome(jwks_api, make_provider_token("one")) == "identity_provider_unavailable"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"keys": {}}', b'{"keys": []}', b"[" * 100_000])
def test_provider_that_sends_no_keys_is_503(jwks_api: Api, provider: Provider, body: bytes) -> None:
    provider.body = body
    assert read_outcome(jwks_api, make_provider_token("one")) == "identity_provider_unavailable"
    assert read_outcome(jwks_api, make_provider_token(None)) == "identity_provider_unavailable"


def test_only_a_few_requests_wait_for_an_unknown_key(
    jwks_api: Api, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_outcome(jwks_api, make_provider_token("one")) == 200
    monkeypatch.setattr(jwks_module, "KEYS_COOLDOWN_S", 0)
    monkeypatch.setattr(jwks_module, "KEYS_TIMEOUT_S", PATIENCE_S)
    provider.is_dripping, token = True, make_provider_token("two")
    with ThreadPoolExecutor(jwks_module.MAX_WAITING + 1) as pool:
        waiting = [
            pool.submit(read_outcome, jwks_api, token) for _ in range(jwks_module.MAX_WAITING)
        ]
        # While MAX_WAITING requests wait, a further request is refused without a wait.
        further = pool.submit(read_outcome, jwks_api, token)
        ended = eventually(lambda: [call for call in (*waiting, further) if call.done()])
        assert [call.result() for call in ended] == ["identity_provider_unavailable"]
        provider.is_dripping = False


def test_token_without_a_key_id_is_accepted_if_only_one_key_is_for_the_algorithm(
    make_api: MakeApi, provider: Provider
) -> None:
    def try_token(*keys: dict[str, Any], algorithm: str = "RS256", key: Any = KEY) -> int | str:
        """The outcome of a token that is signed with `key`, if the provider also has `keys`."""
        provider.more_keys = list(keys)
        api = make_api(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm=algorithm)
        return read_outcome(api, sign_token(CLAIMS, key, algorithm))

    another_key = json.loads(RSAAlgorithm.to_jwk(OTHER_KEY.public_key())) | {"kid": "two"}
    another_key.pop("key_ops", None)
    elliptic = json.loads(ECAlgorithm.to_jwk(EC_KEY.public_key()))
    assert try_token() == 200
    assert try_token(another_key) == "token_invalid"
    assert try_token(another_key | {"alg": "PS256"}) == 200
    assert try_token(another_key | {"use": "enc"}) == 200
    assert try_token(another_key | {"key_ops": ["encrypt"]}) == 200
    assert try_token(elliptic) == 200
    assert try_token(elliptic, algorithm="ES256", key=EC_KEY) == 200
    assert try_token(elliptic, elliptic, algorithm="ES256", key=EC_KEY) == "token_invalid"
    # `another_key` names no algorithm, so it can be for PS256; KEY is only for RS256.
    assert try_token(another_key, algorithm="PS256", key=OTHER_KEY) == 200
    assert try_token(another_key, algorithm="PS256") == "token_invalid"


def test_redirect_is_not_followed_with_credentials(provider: Provider) -> None:
    """Catches a person's access token that is sent to another host."""
    provider.redirect = provider.url
    deadline = time.monotonic() + PATIENCE_S
    with pytest.raises(download.StatusError, match="302"):
        download.download(provider.url, deadline, headers={"Authorization": "Bearer x"})
    assert provider.requests == 1


def test_redirect_of_the_provider_is_followed_but_not_away_from_https(provider: Provider) -> None:
    provider.redirect = provider.url
    assert download.download(provider.url, time.monotonic() + PATIENCE_S)
    request = urllib.request.Request("https://id.example/keys")
    redirects = download._SafeRedirects()
    for target in (provider.url, "ftp://id.example/keys", "file:///etc/passwd"):
        with pytest.raises(urllib.error.URLError):
            redirects.redirect_request(request, None, 302, "", Message(), target)


def test_token_command_prints_a_valid_token_for_an_hour(make_api: MakeApi) -> None:
    api = make_api()
    runner = api.app.test_cli_runner()
    result = runner.invoke(args=["token", "--sub", "ada", "--role", "admin"])
    assert read_outcome(api, result.output.strip()) == 200
    claims = jwt.decode(result.output.strip(), SECRET, ["HS256"])
    assert (claims["sub"], claims["role"]) == ("ada", "admin")
    assert claims["exp"] - claims["iat"] == 3_600


@pytest.mark.parametrize("hours", ["0", "-1", "1e-12", "nan", "inf", "1e12"])
def test_token_command_refuses_a_lifetime_that_is_not_possible(
    make_api: MakeApi, hours: str
) -> None:
    """Catches a token that never expires, because a lifetime of 0 counts as no lifetime."""
    arguments = ["token", "--sub", "ada", "--role", "admin", "--hours", hours]
    result = make_api().app.test_cli_runner().invoke(args=arguments)
    assert result.exit_code == 2
    assert "Error: --hours is a number from 0.001 to 876000.\n" in result.output


def test_token_command_without_a_secret_is_an_error(make_api: MakeApi) -> None:
    api = make_api(jwt_secret_key=None, jwt_public_key=to_pem(KEY), jwt_algorithm="RS256")
    result = api.app.test_cli_runner().invoke(args=["token", "--sub", "ada", "--role", "admin"])
    assert result.exit_code == 1
    assert "JOBMON_JWT_SECRET_KEY is not set" in result.output
