"""Forged tokens: catches a forged token that is accepted or that makes jobmon send a request, and a
refusal with a wrong status, error code or `WWW-Authenticate`."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from functools import cache
from http import HTTPStatus
from typing import Any

import jwt
import mongomock
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm
from jwt.warnings import InsecureKeyLengthWarning

from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.web import auth

from ..conftest import SECRET, Api
from ..support.request_log import capture_log
from .test_auth import (
    CLAIMS,
    EC_KEY,
    KEY,
    OTHER_KEY,
    STATS,
    Provider,
    read_outcome,
    sign_token,
    time_from_now,
    to_pem,
)

MakeApi = Callable[..., Api]
# Refusals, as `try_header` returns them.
INVALID = (401, "token_invalid", "Bearer")
REQUIRED = (401, "authentication_required", "Bearer")
EXPIRED = (401, "token_expired", "Bearer")
ED_KEY = ed25519.Ed25519PrivateKey.generate()
P384_KEY = ec.generate_private_key(ec.SECP384R1())
HMACS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


@pytest.fixture(scope="module")
def make_api() -> MakeApi:
    """A function that creates the service; equal settings return the same service."""
    client: Any = mongomock.MongoClient("mongodb://127.0.0.1/watched", tz_aware=True)

    @cache
    def make(**settings: Any) -> Api:
        defaults = {"mongo_uri": "mongodb://127.0.0.1/watched", "jwt_secret_key": SECRET}
        return Api(create_app(Settings(**defaults | settings), client))

    return make


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider.listening() as provider:
        yield provider


def make_api_with_key(make_api: MakeApi, key: Any, algorithm: str) -> Api:
    return make_api(jwt_secret_key=None, jwt_public_key=to_pem(key), jwt_algorithm=algorithm)


def to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def sign_hmac(header: Any, claims: Any = CLAIMS, secret: Any = SECRET, digest: Any = None) -> str:
    """A token with any header and body, as JSON or bytes, and a valid HMAC."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)
    ]
    text = ".".join(map(to_base64, parts))
    key = secret.encode() if isinstance(secret, str) else secret
    return f"{text}.{to_base64(hmac.new(key, text.encode(), digest or hashlib.sha256).digest())}"


def try_header(api: Api, header: str | None, path: str = "/jobs") -> Any:
    """Send this `Authorization` header; returns 200, or status, code and `WWW-Authenticate`."""
    headers = {} if header is None else {"Authorization": header}
    answer = api.client.get(path, headers=headers)
    if answer.status_code == HTTPStatus.OK:
        return 200
    return answer.status_code, answer.json["error"]["code"], answer.headers.get("WWW-Authenticate")


def try_token(api: Api, token: str) -> Any:
    return try_header(api, f"Bearer {token}")


NONE_ALGORITHMS = ["none", "None", "NONE", "nOnE", "", None, " none", "none\0"]


@pytest.mark.parametrize("algorithm", NONE_ALGORITHMS, ids=repr)
def test_token_with_algorithm_none_is_refused(make_api: MakeApi, algorithm: Any) -> None:
    signed = sign_hmac({"typ": "JWT", "alg": algorithm})
    unsigned = signed.rsplit(".", 1)[0]
    for api in (
        make_api(),
        make_api_with_key(make_api, KEY, "RS256"),
        make_api_with_key(make_api, EC_KEY, "ES256"),
    ):
        for token in (signed, f"{unsigned}.", unsigned):
            assert try_token(api, token) == INVALID


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"alg": ["HS256"]},
        {"alg": {"HS256": 1}},
        {"alg": 256},
        {"alg": "hs256"},
        {"alg": "HS256 "},
        {"alg": "HS384"},
        {"alg": "RS256"},
        {"alg": "ES256"},
        {"alg": "EdDSA"},
        {"alg": "dir"},
        ["HS256"],
        "HS256",
        None,
        b"",
        b"{",
        b"\xff\xfe",
        # Nested more deeply than the JSON parser of any Python version accepts.
        b'{"alg":"HS256","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"alg":"HS256","n":' + b"9" * 4_500 + b"}",
    ],
    ids=lambda header: repr(header)[:40],
)
def test_header_with_another_or_no_algorithm_is_refused(make_api: MakeApi, header: Any) -> None:
    # The HMAC is valid for HS256, so the header is the reason for the refusal.
    assert try_token(make_api(), sign_hmac(header)) == INVALID


def test_hmac_token_with_a_valid_header_is_accepted(make_api: MakeApi) -> None:
    assert try_token(make_api(), sign_hmac({"alg": "HS256"})) == 200


@pytest.mark.parametrize("name", HMACS)
def test_public_key_is_never_used_as_a_shared_secret(make_api: MakeApi, name: str) -> None:
    for key, algorithm in ((KEY, "RS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")):
        api = make_api_with_key(make_api, key, algorithm)
        public = key.public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for secret in (
            to_pem(key),
            to_pem(key).strip(),
            to_pem(key).replace("\n", "\r\n"),
            der,
            b"",
        ):
            token = sign_hmac({"alg": name}, secret=secret, digest=HMACS[name])
            assert try_token(api, token) == INVALID
            assert try_token(api, sign_hmac({"alg": algorithm}, secret=secret)) == INVALID


def test_only_the_configured_algorithm_is_accepted(make_api: MakeApi) -> None:
    algorithms = [
        ("HS256", SECRET),
        ("RS256", KEY),
        ("RS512", KEY),
        ("PS256", KEY),
        ("ES256", EC_KEY),
        ("ES384", P384_KEY),
        ("EdDSA", ED_KEY),
    ]
    tokens = {name: sign_token(CLAIMS, key, name) for name, key in algorithms}
    for name, key in algorithms:
        api = make_api() if name == "HS256" else make_api_with_key(make_api, key, name)
        outcomes = {token_name: try_token(api, token) for token_name, token in tokens.items()}
        expected = {token_name: 200 if token_name == name else INVALID for token_name in tokens}
        assert outcomes == expected, name


def test_ecdsa_signature_of_zeros_or_in_another_form_is_refused(make_api: MakeApi) -> None:
    api = make_api_with_key(make_api, EC_KEY, "ES256")
    text = sign_token(CLAIMS, EC_KEY, "ES256").rsplit(".", 1)[0]
    der_signature = EC_KEY.sign(text.encode(), ec.ECDSA(jwt.algorithms.hashes.SHA256()))
    for signature in (b"", bytes(64), bytes(63), b"\xff" * 64, der_signature):
        assert try_token(api, f"{text}.{to_base64(signature)}") == INVALID


UNKNOWN_KEY_IDS = [
    "../../../../dev/null",
    "/dev/null",
    "/etc/hostname",
    "file:///etc/hostname",
    "' OR '1'='1",
    "one' UNION SELECT 'key' --",
    "one\0",
    "ONE",
    " one",
    "",
    "__class__",
    "k" * 4_000,
]
NON_STRING_KEY_IDS: list[Any] = [7, None, True, ["one"], {"$ne": None}, {"one": 1}]


def sign_any_header(header: dict[str, Any], key: Any) -> str:
    """An RS256 token with any header, even one that PyJWT refuses to write."""
    text = f"{to_base64(json.dumps(header).encode())}.{to_base64(json.dumps(CLAIMS).encode())}"
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    return f"{text}.{to_base64(algorithm.sign(text.encode(), key))}"


def test_key_id_is_only_compared_with_known_ids(make_api: MakeApi, provider: Provider) -> None:
    provider_api = make_api(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")
    secret_api = make_api()
    with Provider.listening() as attacker:
        attacker.keys = {"one": OTHER_KEY}
        for kid in (attacker.url, *UNKNOWN_KEY_IDS, *NON_STRING_KEY_IDS):
            for key in (KEY, OTHER_KEY):
                token = sign_any_header({"alg": "RS256", "kid": kid}, key)
                assert try_token(provider_api, token) == INVALID, kid
            # A service with a secret ignores the id, which must be a string.
            header = {"alg": "HS256", "kid": kid}
            assert try_token(secret_api, sign_hmac(header, secret=b"")) == INVALID, kid
            expected = 200 if isinstance(kid, str) else INVALID
            assert try_token(secret_api, sign_hmac(header)) == expected, kid
        assert attacker.requests == 0
    assert try_token(provider_api, sign_any_header({"alg": "RS256", "kid": "one"}, KEY)) == 200


def make_headers_with_keys(url: str) -> list[dict[str, Any]]:
    """Headers of tokens that contain a key, or the address of one."""
    forged_key = json.loads(RSAAlgorithm.to_jwk(OTHER_KEY.public_key())) | {"kid": "one"}
    return [
        {"jku": url},
        {"x5u": url},
        {"jwk": forged_key},
        {"jwk": forged_key, "kid": "one"},
        {"x5c": [base64.b64encode(b"a certificate").decode()]},
        {"jku": url, "x5u": url, "jwk": forged_key, "kid": "one"},
    ]


def test_key_or_address_in_a_token_is_ignored(make_api: MakeApi, provider: Provider) -> None:
    provider_api = make_api(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")
    key_api, secret_api = make_api_with_key(make_api, KEY, "RS256"), make_api()
    with Provider.listening() as attacker:
        attacker.keys = {"one": OTHER_KEY}
        for header in make_headers_with_keys(attacker.url):
            forged = sign_token(CLAIMS, OTHER_KEY, "RS256", **header)
            for api in (provider_api, key_api, secret_api):
                assert try_token(api, forged) == INVALID, header
            valid = sign_token(CLAIMS, KEY, "RS256", **(header | {"kid": "one"}))
            assert (try_token(provider_api, valid), try_token(key_api, valid)) == (200, 200), header
            assert try_token(secret_api, sign_token(CLAIMS, **header)) == 200, header
        assert attacker.requests == 0
    assert provider.requests == 1


def test_too_short_key_of_the_provider_is_ignored(make_api: MakeApi, provider: Provider) -> None:
    short_key = rsa.generate_private_key(65_537, 1_024)
    provider.keys |= {"short": short_key}
    api = make_api(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")
    assert try_token(api, sign_token(CLAIMS, KEY, "RS256", kid="one")) == 200
    with pytest.warns(InsecureKeyLengthWarning):
        token = sign_token(CLAIMS, short_key, "RS256", kid="short")
    assert try_token(api, token) == INVALID


@pytest.mark.parametrize("algorithm_field", [{}, {"alg": "HS256"}, {"alg": "RS256"}], ids=str)
def test_shared_secret_of_the_provider_is_ignored(
    make_api: MakeApi, provider: Provider, algorithm_field: dict[str, str]
) -> None:
    secret = {"kty": "oct", "kid": "shared", "k": to_base64(SECRET.encode())}
    provider.more_keys = [secret | algorithm_field]
    api = make_api(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")
    assert try_token(api, sign_token(CLAIMS, KEY, "RS256", kid="one")) == 200
    for algorithm in ("HS256", "RS256"):
        assert try_token(api, sign_hmac({"alg": algorithm, "kid": "shared"})) == INVALID


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": ["jku"], "jku": "x"},
        {"crit": []},
        {"crit": None},
        {"crit": "b64"},
        {"crit": [1]},
        {"crit": {"b64": 1}},
        {"b64": False},
    ],
    ids=repr,
)
def test_critical_header_or_unencoded_payload_is_refused(
    make_api: MakeApi, header: dict[str, Any]
) -> None:
    assert try_token(make_api(), sign_hmac({"alg": "HS256"} | header)) == INVALID


@pytest.mark.parametrize("token_type", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_type_of_an_access_token_is_accepted(make_api: MakeApi, token_type: str) -> None:
    assert try_token(make_api(), sign_hmac({"alg": "HS256", "typ": token_type})) == 200


@pytest.mark.parametrize(
    "token_type",
    [
        "dpop+jwt",
        "Refresh",
        "rt+jwt",
        "refresh+jwt",
        "logout+jwt",
        "secevent+jwt",
        "JOSE",
        "",
        5,
        None,
        ["JWT"],
    ],
)
def test_another_type_of_token_is_refused(make_api: MakeApi, token_type: Any) -> None:
    assert try_token(make_api(), sign_hmac({"alg": "HS256", "typ": token_type})) == INVALID


FAR_FUTURE = 10**10
ISSUER = {"iss": "https://id", "aud": "jobmon"}


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": time_from_now(minutes=-1)}, EXPIRED),
        ({"exp": 0}, EXPIRED),
        ({"exp": -(10**18)}, EXPIRED),
        # `nbf` is checked before `exp`.
        ({"exp": time_from_now(hours=-1), "nbf": time_from_now(hours=1)}, INVALID),
        ({"nbf": time_from_now(hours=1)}, INVALID),
        ({"iat": time_from_now(hours=1)}, INVALID),
        ({"iat": time_from_now(hours=1), "exp": FAR_FUTURE}, INVALID),
        ({"nbf": "soon"}, INVALID),
        ({"iat": None}, INVALID),
        ({"iat": []}, INVALID),
        ({"exp": []}, INVALID),
        ({"exp": None}, INVALID),
        ({"exp": float("inf")}, INVALID),
        ({"exp": float("nan")}, INVALID),
        ({"nbf": float("inf")}, INVALID),
        ({"exp": FAR_FUTURE, "nbf": 0, "iat": 0}, 200),
        ({"exp": FAR_FUTURE + 0.5}, 200),
        ({"aud": "another service"}, 200),
        ({"type": "refresh"}, INVALID),
        ({"type": "refresh", "exp": FAR_FUTURE}, INVALID),
        ({"type": "REFRESH"}, INVALID),
        ({"type": "access"}, 200),
        ({"typ": "Refresh"}, INVALID),
        ({"typ": "Offline"}, INVALID),
        ({"typ": "Bearer"}, 200),
        ({"token_type": "refresh_token"}, INVALID),
        ({"token_type": ["Refresh"]}, INVALID),
        ({"tokenType": "refreshToken"}, INVALID),
        ({"Token-Type": "urn:ietf:params:oauth:token-type:refresh_token"}, INVALID),
        ({"token_type": "Bearer"}, 200),
        ({"token_use": "Refresh"}, INVALID),
        ({"TOKEN_USE": "refresh"}, INVALID),
        ({"token_use": "access"}, 200),
        ({"type": "access", "typ": "Refresh"}, INVALID),
        # An access token that the client got by a refresh.
        ({"grant_type": "refresh_token", "scope": "offline_access"}, 200),
        ({"sub": None}, INVALID),
        ({"sub": ""}, INVALID),
        ({"sub": 5}, INVALID),
        ({"sub": True}, INVALID),
        ({"sub": ["root"]}, INVALID),
        ({"sub": {"$ne": None}}, INVALID),
        ({"sub": "\ud800"}, INVALID),
        ({"sub": "a\0b"}, 200),
        ({"sub": "$where"}, 200),
        ({"sub": "名"}, 200),
        ({"jti": 5}, INVALID),
        ({"jti": {"$ne": 1}}, INVALID),
        ({"jti": None}, INVALID),
        ({"jti": ""}, 200),
        ({"role": "\ud800"}, 200),
    ],
)
def test_times_type_subject_and_id_decide_whether_a_token_is_accepted(
    make_api: MakeApi, claims: dict[str, Any], expected: Any
) -> None:
    assert try_token(make_api(rate_limit="100/minute"), sign_token(CLAIMS | claims)) == expected


@pytest.mark.parametrize(
    "role",
    [
        None,
        0,
        True,
        [],
        ["ADMIN"],
        [["admin"]],
        {"admin": True},
        "ADMIN",
        "admin ",
        "",
        "adm\u0131n",
    ],
)
def test_role_is_compared_exactly(make_api: MakeApi, role: Any) -> None:
    api = make_api()
    token = sign_token({"sub": "ada", "role": role})
    assert try_token(api, token) == 200
    assert try_header(api, f"Bearer {token}", STATS) == (403, "permission_denied", None)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": "https://id", "aud": "jobmon"}, 200),
        ({"iss": "https://id", "aud": ["other", "jobmon"]}, 200),
        ({"iss": "https://id/", "aud": "jobmon"}, INVALID),
        ({"iss": "https://ID", "aud": "jobmon"}, INVALID),
        ({"iss": ["https://id"], "aud": "jobmon"}, INVALID),
        ({"iss": None, "aud": "jobmon"}, INVALID),
        ({"aud": "jobmon"}, INVALID),
        ({"iss": "https://id"}, INVALID),
        ({"iss": "https://id", "aud": []}, INVALID),
        ({"iss": "https://id", "aud": "jobmonitor"}, INVALID),
        ({"iss": "https://id", "aud": {"jobmon": 1}}, INVALID),
        ({"iss": "https://id", "aud": ["jobmon", 5]}, INVALID),
        ({"iss": "https://id", "aud": True}, INVALID),
    ],
    ids=repr,
)
def test_only_the_configured_issuer_and_audience_are_accepted(
    make_api: MakeApi, claims: dict[str, Any], expected: Any
) -> None:
    api = make_api(jwt_issuer="https://id", jwt_audience="jobmon")
    assert try_token(api, sign_hmac({"alg": "HS256"}, CLAIMS | claims)) == expected
    assert try_token(api, api.token()) == 200  # an issued token has both


VALID_TOKEN = sign_token(CLAIMS)
HEADER, BODY, SIGNATURE = VALID_TOKEN.split(".")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"5", b"null", b'"root"', b"{", b'{"sub":"root"', b"\xff", b"[" * 3_000],
    ids=lambda body: repr(body)[:20],
)
def test_body_without_claims_is_refused(make_api: MakeApi, body: bytes) -> None:
    assert try_token(make_api(), sign_hmac({"alg": "HS256"}, body)) == INVALID


@pytest.mark.parametrize(
    "token",
    [
        ".",
        "..",
        "...",
        f"{HEADER}.{BODY}",
        f"{HEADER}.{BODY}.",
        f".{BODY}.{SIGNATURE}",
        f"{HEADER}..{SIGNATURE}",
        f"{VALID_TOKEN}.",
        f".{VALID_TOKEN}",
        f"{VALID_TOKEN}.{SIGNATURE}",
        f"{HEADER}.{BODY}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",  # encrypted tokens have five parts
        f"{HEADER}==.{BODY}.{SIGNATURE}",
        f"{VALID_TOKEN}====",
        f"{VALID_TOKEN}!",
        f"{VALID_TOKEN}\u00e9",
        f"{HEADER}.{BODY}.{SIGNATURE[:-1]}",
        f"{HEADER}.{BODY}.{SIGNATURE[:-2]}",
        f"{HEADER}.{BODY}.+/{SIGNATURE[2:]}",
        f"{HEADER}.{BODY[:10]}%0a{BODY[10:]}.{SIGNATURE}",
        # Only the two unused bits of the last character differ.
        f"{HEADER}.{BODY}.{SIGNATURE[:-1]}{chr(ord(SIGNATURE[-1]) + 1)}",
    ],
)
def test_token_with_wrong_parts_or_base64_is_refused(make_api: MakeApi, token: str) -> None:
    assert try_token(make_api(), token) == INVALID


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, REQUIRED),
        ("", REQUIRED),
        (" ", REQUIRED),
        (",", REQUIRED),
        (" ,  , x", REQUIRED),
        (VALID_TOKEN, REQUIRED),
        (f"JWT {VALID_TOKEN}", REQUIRED),
        (f"Basic {VALID_TOKEN}", REQUIRED),
        (f"Bearer:{VALID_TOKEN}", REQUIRED),
        (f"Bearer={VALID_TOKEN}", REQUIRED),
        (f"Bearer{VALID_TOKEN}", REQUIRED),
        ("Bearer", INVALID),
        ("Bearer ", INVALID),
        (f"Bearer Bearer {VALID_TOKEN}", INVALID),
        (f"Bearer {VALID_TOKEN} {VALID_TOKEN}", INVALID),
        (f"Bearer {VALID_TOKEN},Bearer {VALID_TOKEN}", INVALID),  # as WSGI joins headers
        (f"Bearer {VALID_TOKEN}, bearer x", INVALID),
        (f"Bearer, Bearer {VALID_TOKEN}", INVALID),
        (f'Bearer "{VALID_TOKEN}"', INVALID),
        (f"Bearer token={VALID_TOKEN}", INVALID),
        (f"Bearer {VALID_TOKEN}", 200),
        (f"bearer {VALID_TOKEN}", 200),  # upper and lower case are equal (RFC 9110)
        (f"BEARER   {VALID_TOKEN}  ", 200),
        (f"Basic cm9vdA==, Bearer {VALID_TOKEN}", 200),
    ],
    ids=lambda value: repr(value).replace(VALID_TOKEN, "…")[:40],
)
def test_authorization_header_must_have_one_bearer_token(
    make_api: MakeApi, header: str | None, expected: Any
) -> None:
    assert try_header(make_api(), header) == expected


def test_token_outside_the_authorization_header_is_ignored(make_api: MakeApi) -> None:
    api = make_api()
    for name in ("jwt", "access_token", "token"):
        assert api.client.get(STATS, query_string={name: VALID_TOKEN}).status_code == 401
    for name in ("X-Authorization", "X-Access-Token", "Proxy-Authorization", "X-Forwarded-User"):
        assert api.client.get(STATS, headers={name: f"Bearer {VALID_TOKEN}"}).status_code == 401
    browser = api.app.test_client()
    browser.set_cookie("access_token_cookie", VALID_TOKEN)  # the default of flask-jwt-extended
    assert browser.get(STATS).status_code == 401
    assert api.client.get(STATS, json={"access_token": VALID_TOKEN}).status_code == 401
    assert api.client.get(STATS, data={"access_token": VALID_TOKEN}).status_code == 401


def test_token_of_a_megabyte_is_refused_before_it_is_decoded(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api()
    browser = api.app.test_client(use_cookies=False)
    long_token = sign_token(CLAIMS | {"fill": "x" * 5_900})
    assert len(long_token) < auth.MAX_TOKEN_LENGTH
    assert try_token(api, long_token) == 200

    def fail(*_: Any) -> Any:
        raise AssertionError("the token was decoded")

    monkeypatch.setattr(auth, "decode_token", fail)
    for huge_token in (
        sign_token(CLAIMS | {"fill": "x" * 750_000}),
        "x" * 1_000_000,
        "." * 1_000_000,
    ):
        assert try_token(api, huge_token) == INVALID
        page = browser.get("/dashboard", headers={"Cookie": f"jobmon_session={huge_token}"})
        assert page.status_code == 401
        assert "no longer valid" in page.text


def test_times_can_be_wrong_by_the_leeway(make_api: MakeApi) -> None:
    for name, ahead_s in (("iat", 3), ("nbf", 3), ("exp", -3)):
        claims = CLAIMS | {name: time_from_now(seconds=ahead_s)}
        assert try_token(make_api(), sign_token(claims)) == 200, name
        without_leeway = try_token(make_api(jwt_leeway_s=0), sign_token(claims))
        assert without_leeway == (EXPIRED if name == "exp" else INVALID), name
    for name, ahead_s in (("iat", 60), ("nbf", 60), ("exp", -60)):
        claims = CLAIMS | {name: time_from_now(seconds=ahead_s)}
        assert try_token(make_api(), sign_token(claims)) in (INVALID, EXPIRED), name
        assert try_token(make_api(jwt_leeway_s=90), sign_token(claims)) == 200, name


# The reason in the log, the code in the answer, and the token.
REFUSED_TOKENS: list[tuple[str, str, str]] = [
    ("clock", "token_expired", sign_token(CLAIMS | ISSUER | {"exp": time_from_now(minutes=-1)})),
    ("clock", "token_invalid", sign_token(CLAIMS | {"nbf": time_from_now(hours=1)})),
    ("clock", "token_invalid", sign_token(CLAIMS | {"iat": time_from_now(hours=1)})),
    ("key", "token_invalid", sign_token(CLAIMS, "another secret of thirty-two bytes or more")),
    ("algorithm", "token_invalid", sign_token(CLAIMS, algorithm="HS384")),
    ("algorithm", "token_invalid", sign_hmac({"alg": "none"})),
    ("audience", "token_invalid", sign_token(CLAIMS | {"aud": "other", "iss": "https://id"})),
    ("audience", "token_invalid", sign_token(CLAIMS | {"iss": "https://id"})),
    ("issuer", "token_invalid", sign_token(CLAIMS | {"aud": "jobmon", "iss": "https://evil"})),
    ("issuer", "token_invalid", sign_token(CLAIMS | {"aud": "jobmon"})),
    ("claim", "token_invalid", sign_token({"role": "admin"} | ISSUER)),
    ("claim", "token_invalid", sign_token(CLAIMS | ISSUER | {"sub": ""})),
    ("claim", "token_invalid", sign_hmac({"alg": "HS256"}, CLAIMS | ISSUER | {"sub": 5})),
    ("form", "token_invalid", sign_hmac({"alg": "HS256"}, CLAIMS | ISSUER | {"nbf": "soon"})),
    ("claim", "token_invalid", sign_hmac({"alg": "HS256"}, CLAIMS | ISSUER | {"sub": "\ud800"})),
    ("type", "token_invalid", sign_token(CLAIMS | ISSUER | {"typ": "Refresh"})),
    ("type", "token_invalid", sign_hmac({"alg": "HS256", "typ": "JOSE"}, CLAIMS | ISSUER)),
    ("size", "token_invalid", sign_token(CLAIMS | {"fill": "x" * 9_000})),
    ("form", "token_invalid", "x"),
    ("form", "token_invalid", "x y"),
    ("form", "token_invalid", "a.b.c"),
]


@pytest.mark.parametrize(
    ("reason", "code", "token"), REFUSED_TOKENS, ids=[row[0] for row in REFUSED_TOKENS]
)
def test_only_the_log_names_the_reason_of_a_refusal(
    make_api: MakeApi, reason: str, code: str, token: str
) -> None:
    api = make_api(jwt_issuer="https://id", jwt_audience="jobmon")
    with capture_log() as lines:
        assert try_token(api, token) == (401, code, "Bearer")
    (line,) = lines
    assert (line["code"], line["reason"], line["user"]) == (code, reason, None)
    assert len(token) < 5 or token not in str(lines)  # a short token can be a part of other words


@pytest.mark.parametrize(
    ("path", "claims", "is_admin"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["user", "admin"]}}, True),
        ("realm_access.roles", {"realm_access": {"roles": ["user"]}}, False),
        ("realm_access.roles", {"realm_access": ["admin"]}, False),
        ("realm_access.roles", {"realm_access.roles": "admin"}, True),
        ("realm_access.roles", {"role": "admin"}, False),
        ("a.app.example.roles", {"a": {"app.example": {"roles": ["admin"]}}}, True),
        ("https://id.example/roles", {"https://id.example/roles": ["admin"]}, True),
        ("cognito:groups", {"cognito:groups": ["admin"]}, True),
    ],
)
def test_role_is_read_from_the_configured_claim(
    make_api: MakeApi, path: str, claims: dict[str, Any], is_admin: bool
) -> None:
    api = make_api(role_claim=path)
    expected = 200 if is_admin else (403, "permission_denied", None)
    assert try_header(api, f"Bearer {sign_token({'sub': 'ada'} | claims)}", STATS) == expected
    assert try_header(api, f"Bearer {api.token()}", STATS) == 200  # issued as by `jobmon token`


@pytest.mark.parametrize(
    ("path", "claims"),
    [
        ("preferred_username", {"preferred_username": "ada"}),
        ("preferred_username", {"preferred_username": "ada", "sub": 7}),
        ("user.id", {"user": {"id": "ada"}}),
        ("https://id.example/user", {"https://id.example/user": "ada"}),
    ],
)
def test_subject_is_read_from_the_configured_claim(
    make_api: MakeApi, path: str, claims: dict[str, Any]
) -> None:
    api = make_api(subject_claim=path)
    with capture_log() as lines:
        assert try_token(api, sign_hmac({"alg": "HS256"}, claims)) == 200
        assert try_token(api, api.token("ada", "user")) == 200
        assert try_token(api, sign_token({"sub": "ada"})) == INVALID
        for subject in (7, "", None, ["ada"], {"id": 7}):
            assert try_token(api, sign_token({path: subject, "user": {"id": subject}})) == INVALID
    assert [line["user"] for line in lines][:3] == ["ada", "ada", None]
    api.client.set_cookie("jobmon_session", api.token("ada", "user"), path="/dashboard")
    assert "ada" in api.client.get("/dashboard/my").text


def test_answer_does_not_reveal_the_reason_of_a_refusal(make_api: MakeApi) -> None:
    api = make_api(jwt_issuer="https://id", jwt_audience="jobmon")
    forged = sign_token(CLAIMS, "another secret of thirty-two bytes")
    # VALID_TOKEN has neither the issuer nor the audience of these settings.
    tokens = [VALID_TOKEN, "x", sign_hmac({"alg": "none"}), forged]
    request_id = {"X-Request-ID": "one"}
    answers = [
        api.client.get(STATS, headers=request_id | {"Authorization": f"Bearer {token}"})
        for token in tokens
    ]
    assert len({(answer.data, tuple(answer.headers)) for answer in answers}) == 1


def test_valid_token_is_accepted_between_refused_ones(make_api: MakeApi) -> None:
    api = make_api()
    assert [read_outcome(api, token) for token in ("x", VALID_TOKEN, "x")] == [
        "token_invalid",
        200,
        "token_invalid",
    ]
