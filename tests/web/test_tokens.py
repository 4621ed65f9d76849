"""Forged tokens: catches a forged token that opens a route or causes a request, and a refusal
whose status, code or challenge differs from the documentation."""

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
from ..support.request_lines import capture_requests
from .test_auth import (
    CLAIMS,
    EC_KEY,
    KEY,
    OTHER_KEY,
    STATS,
    Provider,
    outcome,
    pem,
    signed,
    time_from_now,
)

Make = Callable[..., Api]
INVALID = (401, "token_invalid", "Bearer")
REQUIRED = (401, "authentication_required", "Bearer")
EXPIRED = (401, "token_expired", "Bearer")
ED_KEY = ed25519.Ed25519PrivateKey.generate()
P384_KEY = ec.generate_private_key(ec.SECP384R1())
HMACS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


@pytest.fixture(scope="module")
def service() -> Make:
    """The service with settings of the test, created once for equal settings."""
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


def service_with_key(service: Make, key: Any, algorithm: str) -> Api:
    return service(jwt_secret_key=None, jwt_public_key=pem(key), jwt_algorithm=algorithm)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def raw(header: Any, claims: Any = CLAIMS, secret: Any = SECRET, digest: Any = None) -> str:
    """A token of any header and body with a valid HMAC."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)
    ]
    text = ".".join(map(b64, parts))
    key = secret.encode() if isinstance(secret, str) else secret
    return f"{text}.{b64(hmac.new(key, text.encode(), digest or hashlib.sha256).digest())}"


def answered(api: Api, header: str | None, path: str = "/jobs") -> Any:
    """Status, code and challenge of the answer to an `Authorization` header."""
    headers = {} if header is None else {"Authorization": header}
    answer = api.client.get(path, headers=headers)
    if answer.status_code == HTTPStatus.OK:
        return 200
    return answer.status_code, answer.json["error"]["code"], answer.headers.get("WWW-Authenticate")


def opened(api: Api, token: str) -> Any:
    return answered(api, f"Bearer {token}")


NONE = ["none", "None", "NONE", "nOnE", "", None, " none", "none\0"]


@pytest.mark.parametrize("name", NONE, ids=repr)
def test_a_token_with_algorithm_none_is_refused(service: Make, name: Any) -> None:
    text = raw({"typ": "JWT", "alg": name})
    stripped = text.rsplit(".", 1)[0]
    for api in (
        service(),
        service_with_key(service, KEY, "RS256"),
        service_with_key(service, EC_KEY, "ES256"),
    ):
        for token in (text, f"{stripped}.", stripped):
            assert opened(api, token) == INVALID


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
        # Deeper than any version of Python reads.
        b'{"alg":"HS256","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"alg":"HS256","n":' + b"9" * 4_500 + b"}",
    ],
    ids=lambda header: repr(header)[:40],
)
def test_a_header_of_another_algorithm_is_refused(service: Make, header: Any) -> None:
    # The HMAC is valid: only the header can be the reason.
    assert opened(service(), raw(header)) == INVALID


def test_a_valid_token_made_in_the_same_way_is_accepted(service: Make) -> None:
    assert opened(service(), raw({"alg": "HS256"})) == 200


@pytest.mark.parametrize("name", HMACS)
def test_a_public_key_is_never_a_shared_secret(service: Make, name: str) -> None:
    for key, algorithm in ((KEY, "RS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")):
        api = service_with_key(service, key, algorithm)
        public = key.public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for secret in (pem(key), pem(key).strip(), pem(key).replace("\n", "\r\n"), der, b""):
            token = raw({"alg": name}, secret=secret, digest=HMACS[name])
            assert opened(api, token) == INVALID
            assert opened(api, raw({"alg": algorithm}, secret=secret)) == INVALID


def test_only_the_configured_algorithm_is_accepted(service: Make) -> None:
    algorithms = [
        ("HS256", SECRET),
        ("RS256", KEY),
        ("RS512", KEY),
        ("PS256", KEY),
        ("ES256", EC_KEY),
        ("ES384", P384_KEY),
        ("EdDSA", ED_KEY),
    ]
    tokens = {name: signed(CLAIMS, key, name) for name, key in algorithms}
    for name, key in algorithms:
        api = service() if name == "HS256" else service_with_key(service, key, name)
        outcomes = {other: opened(api, token) for other, token in tokens.items()}
        assert outcomes == {other: 200 if other == name else INVALID for other in tokens}, name


def test_an_elliptic_signature_of_zeros_or_in_another_form_is_refused(service: Make) -> None:
    api = service_with_key(service, EC_KEY, "ES256")
    text = signed(CLAIMS, EC_KEY, "ES256").rsplit(".", 1)[0]
    in_der = EC_KEY.sign(text.encode(), ec.ECDSA(jwt.algorithms.hashes.SHA256()))
    for signature in (b"", bytes(64), bytes(63), b"\xff" * 64, in_der):
        assert opened(api, f"{text}.{b64(signature)}") == INVALID


FOREIGN_KEY_IDS = [
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


def signed_with_any(header: dict[str, Any], key: Any) -> str:
    """An RS256 token with a header that PyJWT refuses to write."""
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(CLAIMS).encode())}"
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    return f"{text}.{b64(algorithm.sign(text.encode(), key))}"


def test_a_key_id_is_only_looked_up(service: Make, provider: Provider) -> None:
    keys = service(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")
    with_secret = service()
    with Provider.listening() as evil:
        evil.keys = {"one": OTHER_KEY}
        for kid in (evil.url, *FOREIGN_KEY_IDS, *NON_STRING_KEY_IDS):
            for key in (KEY, OTHER_KEY):
                token = signed_with_any({"alg": "RS256", "kid": kid}, key)
                assert opened(keys, token) == INVALID, kid
            # A service with one key ignores the id, but it must be a string.
            header = {"alg": "HS256", "kid": kid}
            assert opened(with_secret, raw(header, secret=b"")) == INVALID, kid
            expected = 200 if isinstance(kid, str) else INVALID
            assert opened(with_secret, raw(header)) == expected, kid
        assert evil.requests == 0
    assert opened(keys, signed_with_any({"alg": "RS256", "kid": "one"}, KEY)) == 200


def headers_with_keys(url: str) -> list[dict[str, Any]]:
    """Headers of tokens that name a key, or an address for keys."""
    own_key = json.loads(RSAAlgorithm.to_jwk(OTHER_KEY.public_key())) | {"kid": "one"}
    return [
        {"jku": url},
        {"x5u": url},
        {"jwk": own_key},
        {"jwk": own_key, "kid": "one"},
        {"x5c": [base64.b64encode(b"a certificate").decode()]},
        {"jku": url, "x5u": url, "jwk": own_key, "kid": "one"},
    ]


def test_a_key_in_a_token_is_ignored(service: Make, provider: Provider) -> None:
    with Provider.listening() as evil:
        evil.keys = {"one": OTHER_KEY}
        keys = service(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")
        one_key, secret = service_with_key(service, KEY, "RS256"), service()
        for header in headers_with_keys(evil.url):
            forged = signed(CLAIMS, OTHER_KEY, "RS256", **header)
            assert {opened(api, forged) for api in (keys, one_key, secret)} == {INVALID}, header
            valid = signed(CLAIMS, KEY, "RS256", **(header | {"kid": "one"}))
            assert (opened(keys, valid), opened(one_key, valid)) == (200, 200), header
            assert opened(secret, signed(CLAIMS, **header)) == 200, header
        assert evil.requests == 0
    assert provider.requests == 1


def test_a_providers_key_that_is_too_short_is_ignored(service: Make, provider: Provider) -> None:
    short = rsa.generate_private_key(65_537, 1_024)
    provider.keys |= {"short": short}
    api = service(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")
    assert opened(api, signed(CLAIMS, KEY, "RS256", kid="one")) == 200
    with pytest.warns(InsecureKeyLengthWarning):
        token = signed(CLAIMS, short, "RS256", kid="short")
    assert opened(api, token) == INVALID


def test_a_providers_shared_secret_is_ignored(service: Make, provider: Provider) -> None:
    secret = {"kty": "oct", "kid": "shared", "k": b64(SECRET.encode())}
    for algorithm in ({}, {"alg": "HS256"}, {"alg": "RS256"}):
        provider.more = [secret | algorithm]
        api = service(jwt_secret_key=None, jwt_jwks_url=provider.url, jwt_algorithm="RS256")
        assert opened(api, signed(CLAIMS, KEY, "RS256", kid="one")) == 200
        for claimed in ("HS256", "RS256"):
            assert opened(api, raw({"alg": claimed, "kid": "shared"})) == INVALID


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
def test_an_unknown_critical_header_is_refused(service: Make, header: dict[str, Any]) -> None:
    assert opened(service(), raw({"alg": "HS256"} | header)) == INVALID


@pytest.mark.parametrize("token_type", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_types_of_access_tokens_are_accepted(service: Make, token_type: str) -> None:
    assert opened(service(), raw({"alg": "HS256", "typ": token_type})) == 200


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
def test_another_type_of_token_of_the_same_key_is_refused(service: Make, token_type: Any) -> None:
    assert opened(service(), raw({"alg": "HS256", "typ": token_type})) == INVALID


FAR_FUTURE = 10**10
OURS = {"iss": "https://id", "aud": "jobmon"}


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": time_from_now(minutes=-1)}, EXPIRED),
        ({"exp": 0}, EXPIRED),
        ({"exp": -(10**18)}, EXPIRED),
        (
            {"exp": time_from_now(hours=-1), "nbf": time_from_now(hours=1)},
            INVALID,
        ),  # nbf is checked first
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
        (
            {"grant_type": "refresh_token", "scope": "offline_access"},
            200,
        ),  # how the client obtained it
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
def test_claims_of_a_wrong_form_are_refused(
    service: Make, claims: dict[str, Any], expected: Any
) -> None:
    assert opened(service(rate_limit="100/minute"), signed(CLAIMS | claims)) == expected


def test_a_token_without_a_subject_is_refused(service: Make) -> None:
    assert opened(service(), signed({"role": "admin"})) == INVALID


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
def test_a_role_is_compared_exactly(service: Make, role: Any) -> None:
    api = service()
    token = signed({"sub": "ada", "role": role})
    assert opened(api, token) == 200
    assert answered(api, f"Bearer {token}", STATS) == (403, "permission_denied", None)


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
def test_a_token_of_another_issuer_or_audience_is_refused(
    service: Make, claims: dict[str, Any], expected: Any
) -> None:
    api = service(jwt_issuer="https://id", jwt_audience="jobmon")
    assert opened(api, raw({"alg": "HS256"}, CLAIMS | claims)) == expected


GOOD = signed(CLAIMS)
HEAD, BODY, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"5", b"null", b'"root"', b"{", b'{"sub":"root"', b"\xff", b"[" * 3_000],
    ids=lambda body: repr(body)[:20],
)
def test_a_body_without_claims_is_refused(service: Make, body: bytes) -> None:
    assert opened(service(), raw({"alg": "HS256"}, body)) == INVALID


@pytest.mark.parametrize(
    "token",
    [
        ".",
        "..",
        "...",
        f"{HEAD}.{BODY}",
        f"{HEAD}.{BODY}.",
        f".{BODY}.{SIGNATURE}",
        f"{HEAD}..{SIGNATURE}",
        f"{GOOD}.",
        f".{GOOD}",
        f"{GOOD}.{SIGNATURE}",
        f"{HEAD}.{BODY}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",  # encrypted tokens have five parts
        f"{HEAD}={'='}.{BODY}.{SIGNATURE}",
        f"{GOOD}====",
        f"{GOOD}!",
        f"{GOOD}\u00e9",
        f"{HEAD}.{BODY}.{SIGNATURE[:-1]}",
        f"{HEAD}.{BODY}.{SIGNATURE[:-2]}",
        f"{HEAD}.{BODY}.+/{SIGNATURE[2:]}",
        f"{HEAD}.{BODY[:10]}%0a{BODY[10:]}.{SIGNATURE}",
        f"{HEAD}.{BODY}.{SIGNATURE[:-1]}{'B' if SIGNATURE[-1] != 'B' else 'C'}",  # unused bits set
    ],
)
def test_odd_base64_is_refused(service: Make, token: str) -> None:
    assert opened(service(), token) == INVALID


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, REQUIRED),
        ("", REQUIRED),
        (" ", REQUIRED),
        (",", REQUIRED),
        (" ,  , x", REQUIRED),
        (GOOD, REQUIRED),
        (f"JWT {GOOD}", REQUIRED),
        (f"Basic {GOOD}", REQUIRED),
        (f"Bearer:{GOOD}", REQUIRED),
        (f"Bearer={GOOD}", REQUIRED),
        (f"Bearer{GOOD}", REQUIRED),
        ("Bearer", INVALID),
        ("Bearer ", INVALID),
        (f"Bearer Bearer {GOOD}", INVALID),
        (f"Bearer {GOOD} {GOOD}", INVALID),
        (f"Bearer {GOOD},Bearer {GOOD}", INVALID),  # WSGI joins two headers like this
        (f"Bearer {GOOD}, bearer x", INVALID),
        (f"Bearer, Bearer {GOOD}", INVALID),
        (f'Bearer "{GOOD}"', INVALID),
        (f"Bearer token={GOOD}", INVALID),
        (f"Bearer {GOOD}", 200),
        (f"bearer {GOOD}", 200),  # a scheme has no case (RFC 9110)
        (f"BEARER   {GOOD}  ", 200),
        (f"Basic cm9vdA==, Bearer {GOOD}", 200),
    ],
    ids=lambda value: repr(value).replace(GOOD, "…")[:40],
)
def test_the_header_has_one_form(service: Make, header: str | None, expected: Any) -> None:
    assert answered(service(), header) == expected


def test_a_token_outside_of_the_header_is_ignored(service: Make) -> None:
    api = service()
    for name in ("jwt", "access_token", "token"):
        assert api.client.get(STATS, query_string={name: GOOD}).status_code == 401
    for name in ("X-Authorization", "X-Access-Token", "Proxy-Authorization", "X-Forwarded-User"):
        assert api.client.get(STATS, headers={name: f"Bearer {GOOD}"}).status_code == 401
    assert api.client.get(STATS, json={"access_token": GOOD}).status_code == 401
    assert api.client.get(STATS, data={"access_token": GOOD}).status_code == 401


def test_a_token_of_a_megabyte_is_refused_before_it_is_decoded(
    service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = service()
    browser = api.app.test_client(use_cookies=False)
    longest = signed(CLAIMS | {"fill": "x" * 5_900})
    assert len(longest) < auth.MAX_TOKEN_LENGTH
    assert opened(api, longest) == 200

    def fail(*_: Any) -> Any:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(auth, "decode_token", fail)
    for huge in (signed(CLAIMS | {"fill": "x" * 750_000}), "x" * 1_000_000, "." * 1_000_000):
        assert opened(api, huge) == INVALID
        in_cookie = browser.get("/dashboard", headers={"Cookie": f"jobmon_session={huge}"})
        assert in_cookie.status_code == 401
        assert "no longer valid" in in_cookie.text


def test_clocks_may_differ_by_a_few_seconds(service: Make) -> None:
    for name, ahead in (("iat", 3), ("nbf", 3), ("exp", -3)):
        claims = CLAIMS | {name: time_from_now(seconds=ahead)}
        assert opened(service(), signed(claims)) == 200, name
        without_leeway = opened(service(jwt_leeway_s=0), signed(claims))
        assert without_leeway == (EXPIRED if name == "exp" else INVALID), name
    for name, ahead in (("iat", 60), ("nbf", 60), ("exp", -60)):
        claims = CLAIMS | {name: time_from_now(seconds=ahead)}
        assert opened(service(), signed(claims)) in (INVALID, EXPIRED), name
        assert opened(service(jwt_leeway_s=90), signed(claims)) == 200, name


WRONG: list[tuple[str, str, str]] = [
    ("clock", "token_expired", signed(CLAIMS | OURS | {"exp": time_from_now(minutes=-1)})),
    ("clock", "token_invalid", signed(CLAIMS | {"nbf": time_from_now(hours=1)})),
    ("clock", "token_invalid", signed(CLAIMS | {"iat": time_from_now(hours=1)})),
    ("key", "token_invalid", signed(CLAIMS, "another secret of thirty-two bytes or more")),
    ("algorithm", "token_invalid", signed(CLAIMS, algorithm="HS384")),
    ("algorithm", "token_invalid", raw({"alg": "none"})),
    ("audience", "token_invalid", signed(CLAIMS | {"aud": "other", "iss": "https://id"})),
    ("audience", "token_invalid", signed(CLAIMS | {"iss": "https://id"})),
    ("issuer", "token_invalid", signed(CLAIMS | {"aud": "jobmon", "iss": "https://evil"})),
    ("issuer", "token_invalid", signed(CLAIMS | {"aud": "jobmon"})),
    ("claim", "token_invalid", signed({"role": "admin"} | OURS)),
    ("claim", "token_invalid", signed(CLAIMS | OURS | {"sub": ""})),
    ("claim", "token_invalid", raw({"alg": "HS256"}, CLAIMS | OURS | {"sub": 5})),
    ("claim", "token_invalid", raw({"alg": "HS256"}, CLAIMS | OURS | {"exp": []})),
    ("claim", "token_invalid", raw({"alg": "HS256"}, CLAIMS | OURS | {"nbf": "soon"})),
    ("claim", "token_invalid", raw({"alg": "HS256"}, CLAIMS | OURS | {"sub": "\ud800"})),
    ("type", "token_invalid", signed(CLAIMS | OURS | {"typ": "Refresh"})),
    ("type", "token_invalid", raw({"alg": "HS256", "typ": "JOSE"}, CLAIMS | OURS)),
    ("size", "token_invalid", signed(CLAIMS | {"fill": "x" * 9_000})),
    ("form", "token_invalid", "x"),
    ("form", "token_invalid", "x y"),
    ("form", "token_invalid", "a.b.c"),
]


@pytest.mark.parametrize(("reason", "code", "token"), WRONG, ids=[row[0] for row in WRONG])
def test_only_the_log_names_the_reason_of_a_refusal(
    service: Make, reason: str, code: str, token: str
) -> None:
    api = service(jwt_issuer="https://id", jwt_audience="jobmon")
    with capture_requests() as lines:
        assert opened(api, token) == (401, code, "Bearer")
    (line,) = lines
    assert (line["code"], line["reason"], line["user"]) == (code, reason, None)
    assert len(token) < 5 or token not in str(lines)


@pytest.mark.parametrize(
    ("path", "claims", "granted"),
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
def test_the_role_is_read_from_the_configured_claim(
    service: Make, path: str, claims: dict[str, Any], granted: bool
) -> None:
    api = service(role_claim=path)
    expected = 200 if granted else (403, "permission_denied", None)
    assert answered(api, f"Bearer {signed({'sub': 'ada'} | claims)}", STATS) == expected
    assert answered(api, f"Bearer {api.token()}", STATS) == 200  # as `jobmon token` issues them


@pytest.mark.parametrize(
    ("path", "claims"),
    [
        ("preferred_username", {"preferred_username": "ada"}),
        ("preferred_username", {"preferred_username": "ada", "sub": 7}),
        ("user.id", {"user": {"id": "ada"}}),
        ("https://id.example/user", {"https://id.example/user": "ada"}),
    ],
)
def test_the_subject_is_read_from_the_configured_claim(
    service: Make, path: str, claims: dict[str, Any]
) -> None:
    api = service(subject_claim=path)
    with capture_requests() as lines:
        assert opened(api, raw({"alg": "HS256"}, claims)) == 200
        assert opened(api, api.token("ada", "user")) == 200
        assert opened(api, signed({"sub": "ada"})) == INVALID
        for odd in (7, "", None, ["ada"], {"id": 7}):
            assert opened(api, signed({path: odd, "user": {"id": odd}})) == INVALID
    assert [line["user"] for line in lines][:3] == ["ada", "ada", None]
    api.client.set_cookie("jobmon_session", api.token("ada", "user"), path="/dashboard")
    assert "ada" in api.client.get("/dashboard/my").text


def test_an_answer_does_not_reveal_the_reason_of_a_refusal(service: Make) -> None:
    api = service(jwt_issuer="https://id", jwt_audience="jobmon")
    tokens = [GOOD, "x", raw({"alg": "none"}), signed(CLAIMS, "another secret of thirty-two bytes")]
    request_id = {"X-Request-ID": "one"}
    answers = [
        api.client.get(STATS, headers=request_id | {"Authorization": f"Bearer {token}"})
        for token in tokens
    ]
    assert len({(answer.data, tuple(answer.headers)) for answer in answers}) == 1


def test_a_valid_token_is_accepted_after_refused_ones(service: Make) -> None:
    api = service()
    assert [outcome(api, token) for token in ("x", GOOD, "x")] == [
        "token_invalid",
        200,
        "token_invalid",
    ]
