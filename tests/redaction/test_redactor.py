"""Redaction: catches a secret that is shown, a harmless value that is hidden, and a text
whose search takes more than linear time."""

import base64
import json
import time
from typing import Any

import pytest

from jobmon.redaction.forms import REDACTED
from jobmon.redaction.redactor import Redactor

SECRET_KEYS = """
    password Password userPassword user_password PASSWORD_HASH passwd token accessToken
    refresh-token clientSecret Authorization api_key apiKey x-api-key APIKEY cardNumber
    card_number creditCard pan card-pan cvv cardCvv CVC PIN userPin privateKey Set-Cookie
    PINcode CVVcode userPINcode PINnumber cardPANdata OTPValue pass db_pass DB_PASS pw userPw
    creds awsCreds bearer bearerValue session_id sessionId SESSIONID phpsessionid sid
    connect.sid signature X-Hub-Signature-256 hmac payload_hmac ssh_key sshKey encryptionKey
    signing-key account_no accountNo accountno ACCOUNT_NO routingNumber seed wallet_seed
    mnemonic cardNo jwt userJWT pincode userPincode cvvcode otpcode sig session_key PHPSESSID
    AccountKey masterKey enc_key acctNo routing_no card_num securityCode recoveryCodes
    socialSecurityNumber
"""


@pytest.mark.parametrize(
    "key",
    [
        *SECRET_KEYS.split(),
        "Bearer a.secret.in-a-key",
        "password" + "x" * 500,
        "x" * 500 + "_password",
    ],
)
def test_a_key_that_looks_secret_is_redacted(key: str) -> None:
    assert list(Redactor().redact({key: "value"}).values()) == [REDACTED]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("4111111111111111", REDACTED),
        ("https://ada:hunter2-Zx9@db/shop", f"https://ada:{REDACTED}@db/shop"),
        ("user.name", "user.name"),
    ],
)
def test_a_secret_in_a_key_is_redacted(key: str, expected: str) -> None:
    assert Redactor().redact({key: {"n": 1}}) == {expected: {"n": 1}}


@pytest.mark.parametrize(
    "key",
    [
        *("company", "expand", "spinner", "shipping", "author", "status", "amount", "key", "id"),
        *("name", "passenger", "compass", "bypass", "side", "inside", "residual", "seedling"),
        *("pinned", "Spin", "accountNote", "accountNotFound", "cardNotPresent", "sessionIdle"),
        *("session", "opinion", "authority", "authored_by", "authType", "auth_method", "assigned"),
        *("signal", "design_no", "authored", "masterpiece"),
        *("span", "keyboard", "primaryKey", "sort_key", "routing_key", "pwa", "design"),
    ],
)
def test_the_value_of_a_key_that_only_resembles_a_secret_key_is_shown(key: str) -> None:
    assert Redactor().redact({key: "value"}) == {key: "value"}


def test_secrets_are_redacted_at_any_depth() -> None:
    payload = {
        "a": [{"b": {"token": "x"}}, [{"secret": {"deep": 1}}], "token"],
        "passwords": ["one", "two"],
        "pin": None,
    }
    assert Redactor().redact(payload) == {
        "a": [{"b": {"token": REDACTED}}, [{"secret": REDACTED}], "token"],
        "passwords": REDACTED,
        "pin": REDACTED,
    }
    assert payload["pin"] is None  # `redact` returns a copy


def test_configured_keys_replace_the_default_keys() -> None:
    redactor = Redactor(["shoe_size", "", "--"])
    assert redactor.redact({"shoeSize": 43, "token": "x"}) == {"shoeSize": REDACTED, "token": "x"}


@pytest.mark.parametrize("value", ["text", 1, None, True, [], {}])
def test_a_value_without_keys_is_unchanged(value: object) -> None:
    assert Redactor().redact(value) == value


@pytest.mark.parametrize(
    "document",
    [
        {"max_tokens": 1000, "tokenCount": 3, "prompt_tokens_used": 7, "password_attempts": 2},
        {"tokenExpiresAt": 1, "password_required": True, "hasPassword": False, "pass_rate": 0.97},
        {"name": "Ada Lovelace", "value": 5},
        {"name": "reset password", "value": "yes"},
        {"key": "color", "value": "red", "k": "v"},
        {"tags": ["one", "two"], "range": ["1999-01-01", "1999-02-01"], "args": ["-v", "x"]},
        {"type": "mail", "value": 5, "id": "t1", "kind": "password"},
        {"type": "token.created", "data": {"id": "t1"}},
        {"fields": ["id", "email", "token"], "authType": "basic", "authMethod": "sms"},
        {"body": '{"max_tokens": 1000, "n": [1, 2], "note": "x"}', "log": "max_tokens=1000"},
        {"auth": {}, "author": {"name": "Ada"}, "authority": {"id": 7}},
        {"id": "507f1f77bcf86cd799439011", "at": "1999-11-23T03:00:00.000Z", "n": 4111111111111111},
    ],
    ids=", ".join,
)
def test_an_ordinary_document_stays_readable(document: dict[str, Any]) -> None:
    assert Redactor().redact(document) == document


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"auth": {"user": "u", "more": ["x", {"y": 1}]}},
         {"auth": {"user": REDACTED, "more": [REDACTED, {"y": REDACTED}]}}),
        ({"proxyAuth": {"u": "x"}, "authentication": "x", "oauth2": ["x"]},
         {"proxyAuth": {"u": REDACTED}, "authentication": REDACTED, "oauth2": [REDACTED]}),
        ({"authData": {"id": "x"}, "smtp_auth_config": ["x"], "authHeader": "x", "sasl": {"a": 1}},
         {"authData": {"id": REDACTED}, "smtp_auth_config": [REDACTED], "authHeader": REDACTED,
          "sasl": {"a": REDACTED}}),
        ({"Name": "Authorization", "Value": "x"}, {"Name": "Authorization", "Value": REDACTED}),
        ({"n": "api-key", "v": "x"}, {"n": "api-key", "v": REDACTED}),
        ({"type": "password", "value": "x"}, {"type": "password", "value": REDACTED}),
        ({"id": "pin", "value": 7}, {"id": "pin", "value": REDACTED}),
        ({"name": "env", "key": "DB_PASSWORD", "value": "x"},
         {"name": "env", "key": "DB_PASSWORD", "value": REDACTED}),
        ({"name": "Cookie:", "content": "x"}, {"name": "Cookie:", "content": REDACTED}),
        (["Host", "h", "Cookie", "x", "Accept", "y"],
         ["Host", "h", "Cookie", REDACTED, "Accept", "y"]),
        ({"name": "Authorization", "value": "x"}, {"name": "Authorization", "value": REDACTED}),
        ({"key": "X-Api-Key", "value": ["x"]}, {"key": "X-Api-Key", "value": REDACTED}),
        ({"k": "password", "v": 7}, {"k": "password", "v": REDACTED}),
        ({"header": "Cookie", "value": "x"}, {"header": "Cookie", "value": REDACTED}),
        ([["password", "x"], ["user", "u"]], [["password", REDACTED], ["user", "u"]]),
        (["Authorization", "x"], ["Authorization", REDACTED]),
        (["run", "--password", "x", "--to", "y"], ["run", "--password", REDACTED, "--to", "y"]),
        (["--api-key=x1", "y"], [f"--api-key={REDACTED}", "y"]),
        ([{"name": "Accept", "value": "a"}, {"name": "authorization", "value": "b"}],
         [{"name": "Accept", "value": "a"}, {"name": "authorization", "value": REDACTED}]),
    ],
    ids=repr,
)  # fmt: skip
def test_pairs_and_documents_with_secrets_are_redacted(value: Any, expected: Any) -> None:
    assert Redactor().redact(value) == expected


SECRET = "hunter2-Zx9"
JWT = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in ({"alg": "HS256"}, {"sub": SECRET}, "signature")
)
BASIC = base64.b64encode(f"ada:{SECRET}".encode()).decode()
KEY_BLOCK = f"-----BEGIN RSA PRIVATE KEY-----\nMII{SECRET}\n-----END RSA PRIVATE KEY-----"
TEXTS = [
    (f"got {JWT}!", f"got {REDACTED}!"),
    (f"401 for Bearer {SECRET} at GET /", f"401 for Bearer {REDACTED} at GET /"),
    (f"Authorization: Bearer {SECRET}", f"Authorization: {REDACTED}"),
    (f"authorization: Basic {BASIC}", f"authorization: {REDACTED}"),
    (f"curl with basic {BASIC}", f"curl with basic {REDACTED}"),
    (f"connect postgres://ada:{SECRET}@db/shop", f"connect postgres://ada:{REDACTED}@db/shop"),
    (f"redis://:{SECRET}@db:1/0 is away", f"redis://:{REDACTED}@db:1/0 is away"),
    (f"amqp://u:p@{SECRET}@h/v", f"amqp://u:{REDACTED}@h/v"),
    (f"mongodb://u:{SECRET}…", f"mongodb://u:{REDACTED}…"),
    (f"GET /a?x=1&token={SECRET}&y=2", f"GET /a?x=1&token={REDACTED}&y=2"),
    (f"password={SECRET}", f"password={REDACTED}"),
    (f"DB_PASSWORD={SECRET} DB_HOST=db", f"DB_PASSWORD={REDACTED} DB_HOST=db"),
    (f"password: {SECRET}, retrying", f"password: {REDACTED}, retrying"),
    (f"password: '{SECRET} with blanks'", f"password: '{REDACTED}'"),
    (f'login failed for {{"user": "ada", "password": "{SECRET}"}}',
     f'login failed for {{"user": "ada", "password": "{REDACTED}"}}'),
    (f'body {{\\"apiKey\\":\\"{SECRET}\\"}}', f'body {{\\"apiKey\\":\\"{REDACTED}\\"}}'),
    (f"{{'secret': '{SECRET}'}}", f"{{'secret': '{REDACTED}'}}"),
    (f":password=>\"{SECRET}\"", f":password=>\"{REDACTED}\""),
    (f"--client-secret={SECRET}", f"--client-secret={REDACTED}"),
    (f"Cookie: a=1; sid={SECRET}\nnext", f"Cookie: {REDACTED}\nnext"),
    (f"before {KEY_BLOCK} after", f"before {REDACTED} after"),
    (KEY_BLOCK[:60], REDACTED),
    ("card 4111111111111111 refused", f"card {REDACTED} refused"),
    ("card 4111 1111 1111 1111, 05/27", f"card {REDACTED}, 05/27"),
    ("5500-0000-0000-0004", REDACTED),
    ("amex 3782 822463 10005", f"amex {REDACTED}"),
    (f"pushed by ghp_{'a1B2' * 9}", f"pushed by {REDACTED}"),
    ("key AKIAIOSFODNN7EXAMPLE", f"key {REDACTED}"),
    (f"Bearer\n{SECRET}", f"Bearer\n{REDACTED}"),
    (f"Authorization%3A%20Bearer%20{SECRET}", f"Authorization%3A{REDACTED}"),
    (f"Authorization: ApiKey {SECRET}, retrying", f"Authorization: {REDACTED}, retrying"),
    (f'Authorization: Digest username="ada", response="{SECRET}"', f"Authorization: {REDACTED}"),
    (f"-H 'Authorization: Custom {SECRET}' x", f"-H 'Authorization: {REDACTED}' x"),
    (f"https://ada:a/{SECRET}@db/shop", f"https://ada:{REDACTED}@db/shop"),
    (f"https://ada@shop.example:{SECRET}@db/", f"https://ada@shop.example:{REDACTED}@db/"),
    (f"//ada:{SECRET}@db/shop", f"//ada:{REDACTED}@db/shop"),
    (f"u=https%3A%2F%2Fada%3A{SECRET}%40db", f"u=https%3A%2F%2Fada%3A{REDACTED}%40db"),
    (f"root:{SECRET}@tcp(db:3306)/shop", f"root:{REDACTED}@tcp(db:3306)/shop"),
    ("https://0123456789abcdef0123456789abcdef@db/1", f"https://{REDACTED}@db/1"),
    (f'msg="password={SECRET}"', f'msg="password={REDACTED}"'),
    (f"user%5Bpassword%5D={SECRET}", f"user%5Bpassword%5D={REDACTED}"),
    (f"password%3D{SECRET}", f"password%3D{REDACTED}"),
    (f"password -> {SECRET}", f"password -> {REDACTED}"),
    (f"password := {SECRET}", f"password := {REDACTED}"),
    (f"password\uff1d{SECRET}", f"password\uff1d{REDACTED}"),
    (f"'password': b'{SECRET}'", f"'password': b'{REDACTED}'"),
    (f'password="a\\"{SECRET}" x', f'password="{REDACTED}" x'),
    (f'"password": "{SECRET} is cut', f'"password": "{REDACTED}'),
    (f"password=it's{SECRET}", f"password={REDACTED}"),
    (f"passwords: ['a', '{SECRET}'] x", f"passwords: {REDACTED} x"),
    (f"auth={{'user': 'ada', 'x': '{SECRET}'}}", f"auth={REDACTED}"),
    (f"('password', '{SECRET}')", f"('password', '{REDACTED}')"),
    (f"<a:Pin b='c'>{SECRET}</a:Pin>", f"<a:Pin b='c'>{REDACTED}</a:Pin>"),
    (f"mysql --password {SECRET} shop", f"mysql --password {REDACTED} shop"),
    (f"curl -u ada:{SECRET} https://h", f"curl -u ada:{REDACTED} https://h"),
    (f"mnemonic: {' '.join(['abandon'] * 12)}!", f"mnemonic: {REDACTED}!"),
    (f"seed phrase = {' '.join(['abandon'] * 12)}!", f"seed phrase = {REDACTED}!"),
    (f"---- BEGIN SSH2 PRIVATE KEY ----\n{SECRET}\n---- END SSH2 PRIVATE KEY ----",
     REDACTED),
    (KEY_BLOCK.lower(), REDACTED),
    ("Private-Lines: 8\nAAAA+/==\nBBBB\nPrivate-MAC: x", f"Private-Lines: {REDACTED}-MAC: x"),
    ("PAN4111111111111111 and card_4111111111111111", f"PAN{REDACTED} and card_{REDACTED}"),
    ("no.4111111111111111 of 4111111111111111.00", f"no.{REDACTED} of {REDACTED}.00"),
    ("4111.1111.1111.1111", REDACTED),
    ("4111\u00a01111\u00a01111\u00a01111", REDACTED),
    ("4111\u20131111\u20131111\u20131111", REDACTED),
    ("41111111 11111111", REDACTED),
    ("maestro 6759649826438453", f"maestro {REDACTED}"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TEXTS, ids=[text[:30] for text, _ in TEXTS])
def test_a_secret_in_a_text_is_redacted(text: str, expected: str) -> None:
    redactor = Redactor()
    assert redactor.redact(text) == expected
    assert redactor.redact({"deep": [{"message": text}]}) == {"deep": [{"message": expected}]}
    assert redactor.redact(expected) == expected
    long_text = "at work (/srv/app/main.js:12:5)\n" * 100
    assert redactor.redact(f"{long_text}{text}") == f"{long_text}{expected}"


def test_json_in_a_text_is_redacted_as_json() -> None:
    text = json.dumps({"pin": 4711, "more": json.dumps([{"k": "password", "v": SECRET}])})
    redacted = json.loads(Redactor().redact(f"  {text}"))
    assert redacted["pin"] == REDACTED
    assert json.loads(redacted["more"]) == [{"k": "password", "v": REDACTED}]
    assert json.loads(
        Redactor().redact(f'{{"auth": {{"x": "{SECRET}"}}, "n": 4111111111111111}}')
    ) == {
        "auth": {"x": REDACTED},
        "n": REDACTED,
    }
    for unchanged in (
        '{ "a":1,\n"b": [2, "é"] }',
        r'{"a": "{\"b\" : 1}", "n": 1.10}',
        r'{"a": "\ud800"}',
    ):
        assert Redactor().redact(unchanged) == unchanged
    half = r'{"pin": 4711, "a": "\ud800"}'
    assert Redactor().redact(half) == rf'{{"pin": "{REDACTED}", "a": "\ud800"}}'
    assert SECRET not in Redactor().redact(f'{{"a": "Bearer {SECRET}", "a": 1}}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'got {{"name": "Cookie", "value": "{SECRET}"}}!',
         f'got {{"name": "Cookie", "value": "{REDACTED}"}}!'),
        (f'a ["password", "{SECRET}"] b {{"n": 1}}', f'a ["password", "{REDACTED}"] b {{"n": 1}}'),
        (f'{{"auth": {{"x": "{SECRET}"}}, "b": "cut', f'{{"auth": {REDACTED}, "b": "cut'),
        (f'tokens=["a", "{SECRET}"] x', f"tokens={REDACTED} x"),
        (f'{{"pin": "{SECRET}", "pin": "b"}} x', f'{{"pin": "{REDACTED}"}} x'),
        (f'{{"a" : {{"pin" : "{SECRET}"}}, "a" : 1}} x', '{"a": 1} x'),
        ('"' + r'{\\\"password\\\": \\\"' + SECRET + r'\\\"}' + '"',
         '"' + r'{\\\"password\\\": \\\"' + REDACTED + r'\\\"}' + '"'),
    ],
)  # fmt: skip
def test_json_anywhere_in_a_text_is_redacted(text: str, expected: str) -> None:
    assert Redactor().redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "TokenExpiredError: jwt expired",
        "com.shop.TokenService: refused",
        "invalid token: signature is wrong",
        "password: must not be empty",
        "Bearer token is missing",
        "the bearer of bad news, a basic understanding",
        'WWW-Authenticate: Bearer realm="shop"',
        "at Object.token (/app/src/token.js:12:5)",
        "/app/auth/password.py:10: in check",
        "https://shop.example:8443/passengers?page=2&side=left#a:b@c",
        "connect ECONNREFUSED 127.0.0.1:5432",
        "mail to ada@shop.example: 550 no such user",
        "1795689794000 took 1795689794123 ms",
        "order 4111111111111112 and 1234567890123456 and 20261123030000123",
        "4111-1111-1111 and 12345678-1234-1234-1234-123456789012",
        "0.4111111111111111 and id_4111111111111111x and 65a4111111111111111",
        "Authorization: missing",
        "http://shop:8080/a@b and https://ada@shop.example/",
        "docker run --env-file x --rm",
        "<name>Ada</name> (a: b) [c=d]",
        "507f1f77bcf86cd799439011 and eyJ is no token, nor is eyJhbGciOi",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "ratio=0.5 key=value id: 7 name='Ada' author: Ada",
        "{not json: 1}",
        "",
        "é=ü",
    ],
)
def test_an_ordinary_text_stays_readable(text: str) -> None:
    assert Redactor().redact(text) == text


# Beginnings of forms that the patterns search for; `_` is a space.
HOSTILE_PIECES = r"""
    a eyJ eyJ- eyJa. :// ://a: ://a:b a= a=' a=" a=\ = 1 1_ 1111_ 4111- bearer_ basic_a cookie:_ { [
    //a: //a:b//: a:b@tcp %3A%2F%2Fa%3A a%3A a=1,_b=1, authorization:_a=_, mnemonic:_aaa_
    1111.1111. <a <password>a </a> --pin_ -u_a: pin={ pin=( pin=[ pin=" pin="\"
    auth:< ["a", [{" {"a":1, {"a":1}
    {"a": a- a. $ \ ' " _ SG.a sk- é password:_x_ pin=' pin=" pin=\ -----BEGIN_PRIVATE_KEY-----
"""


@pytest.mark.parametrize("piece", HOSTILE_PIECES.split())
def test_a_hostile_text_is_searched_in_linear_time(piece: str) -> None:
    """The text repeats the piece up to 100,000 characters, after a secret: pairs are searched."""
    started_at = time.process_time()
    Redactor().redact("pin=1 " + piece.replace("_", " ") * (100_000 // len(piece)))
    assert time.process_time() - started_at < 20  # seconds; a quadratic search takes minutes


def nest_json(text: str, levels: int) -> str:
    """Texts of JSON in JSON around `text`, with escapes that hardly lengthen it at each level."""
    for _ in range(levels):
        escaped = text.replace("\\", r"\u005c").replace('"', r"\u0022")
        text = f'{{"a":"{escaped}"}}'
    return text


def test_json_in_texts_of_json_is_redacted_once_at_each_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a time that doubles at each level: 40 levels fit into 16 kB."""
    redact, calls = Redactor.redact, 0

    def count_call(redactor: Redactor, value: Any) -> Any:
        nonlocal calls
        calls += 1
        return redact(redactor, value)

    monkeypatch.setattr(Redactor, "redact", count_call)
    redacted = Redactor().redact(nest_json("4111 1111 1111 1111", 10))
    for _ in range(10):
        redacted = json.loads(redacted)["a"]
    assert (redacted, calls) == (REDACTED, 21)


def test_secret_in_many_levels_of_json_does_not_multiply_the_text() -> None:
    """Catches a text that doubles at each level: 30 levels would take gigabytes."""
    text = nest_json("4111 1111 1111 1111", 20)
    redacted = Redactor().redact(text)
    assert REDACTED in redacted
    assert "1111" not in redacted
    assert len(redacted) <= 16 * len(text)


@pytest.mark.parametrize("separator", ["=", ": ", " => ", "%3D", "%3a\u00a0 \t", "\uff1a"])
def test_a_key_before_json_in_a_text_hides_it(separator: str) -> None:
    assert Redactor().redact(f'a password{separator}{{"a": "x"}} b') == (
        f"a password{separator}{REDACTED} b"
    )


def test_json_beyond_the_limit_of_a_text_is_hidden() -> None:
    """Catches seconds of CPU for each view of a text with many lines of JSON."""
    line = '{"a": 1}\n'
    lines = line * 10_000
    assert Redactor().redact(lines) == lines
    redacted = Redactor().redact(f'{lines}{{"note": "{SECRET}"}} and {SECRET}')
    assert redacted == f"{lines.strip()}[redacted: only the first 10,000 JSON texts are read]"


def test_json_that_is_nested_too_deeply_is_searched_as_text() -> None:
    text = "[" * 50_000 + f'"Bearer {SECRET}"' + "]" * 50_000
    assert SECRET not in Redactor().redact(text)
