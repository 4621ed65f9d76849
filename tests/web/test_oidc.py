"""Sign-in at a provider: catches a role or subject that is not found where the provider puts it, or
that is read from another person's token.

The claims are those that Keycloak, Entra ID, Auth0 and Cognito document."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobmon.settings import Settings
from jobmon.web.errors import ApiError
from jobmon.web.oidc import Identity, IdentityProvider
from jobmon.web.oidc_protocol import read_discovery

from ..support import identity_provider
from ..support.identity_provider import CLIENT_ID, CLIENT_SECRET

CALLBACK = "https://jobs.example/dashboard/oidc/callback"
CAN_READ = frozenset({"ADMIN_DASHBOARD"})
ROLES = {"admin": CAN_READ, "Jobs.Admin": CAN_READ, "/platform/on call": CAN_READ}
Provider = identity_provider.IdentityProvider
SignIn = Callable[..., Identity]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider.listening() as provider:
        yield provider


@pytest.fixture
def make_client(make_settings: Callable[..., Settings], provider: Provider) -> Any:
    def make_client(**settings: Any) -> IdentityProvider:
        defaults = {
            "oidc_issuer": provider.issuer,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": CLIENT_SECRET,
            "role_permissions": ROLES,
        }
        return IdentityProvider(make_settings(**defaults | settings))

    return make_client


@pytest.fixture
def sign_in(make_client: Any, provider: Provider) -> SignIn:
    def sign_in(**settings: Any) -> Identity:
        client = make_client(**settings)
        flow = client.begin(CALLBACK)
        code = provider.authorize(flow.address).partition("code=")[2].partition("&")[0]
        identity: Identity = client.finish(code, flow)
        return identity

    return sign_in


def test_keycloak_has_realm_roles_in_the_access_token(provider: Provider, sign_in: SignIn) -> None:
    provider.claims = {"preferred_username": "ada", "azp": CLIENT_ID}
    provider.access_claims = {
        "azp": CLIENT_ID,
        "typ": "Bearer",
        "realm_access": {"roles": ["offline_access", "admin", "uma_authorization"]},
        "resource_access": {"jobmon": {"roles": ["Jobs.Admin"]}, "account": {"roles": ["x"]}},
    }
    identity = sign_in(role_claim="realm_access.roles", subject_claim="preferred_username")
    assert (identity.subject, identity.roles) == ("ada", ("admin",))
    identity = sign_in(role_claim="resource_access.jobmon.roles")
    assert (identity.subject, identity.roles) == (provider.subject, ("Jobs.Admin",))


def test_entra_has_app_roles_and_groups_in_the_id_token(
    provider: Provider, sign_in: SignIn
) -> None:
    provider.claims = {
        "oid": "00000000-0000-0000-66f3-3332eca7ea81",
        "preferred_username": "ada@shop.example",
        "roles": ["Jobs.Admin", "Other"],
        "groups": ["admin"],
    }
    provider.access_claims = {"iss": "https://sts.example/another", "roles": ["admin"]}
    identity = sign_in(role_claim="roles", subject_claim="oid")
    assert identity.subject == "00000000-0000-0000-66f3-3332eca7ea81"
    assert identity.roles == ("Jobs.Admin",)
    assert sign_in(role_claim="groups").roles == ("admin",)


def test_auth0_has_roles_in_a_claim_named_as_a_url(provider: Provider, sign_in: SignIn) -> None:
    provider.subject = "auth0|5f7c8ec7c33c6c004bbafe82"
    provider.claims = {"https://company.example/roles": ["admin", "Jobs.Admin"]}
    identity = sign_in(role_claim="https://company.example/roles")
    assert identity.subject == "auth0|5f7c8ec7c33c6c004bbafe82"
    assert identity.roles == ("admin", "Jobs.Admin")


def test_cognito_has_groups_in_a_claim_with_a_colon(provider: Provider, sign_in: SignIn) -> None:
    provider.claims = {"cognito:groups": ["admin", "eu-west-1_Google"], "cognito:username": "ada"}
    identity = sign_in(role_claim="cognito:groups", subject_claim="cognito:username")
    assert (identity.subject, identity.roles) == ("ada", ("admin",))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("admin", ("admin",)),
        (["admin", "admin", "/platform/on call"], ("admin", "/platform/on call")),
        (["visitor"], ()),
        (["Admin", 7, None, ["admin"], {"admin": 1}], ()),
        ({"admin": True}, ()),
        (None, ()),
        ("admin Jobs.Admin", ()),
    ],
)
def test_only_roles_with_permissions_are_read(
    provider: Provider, sign_in: SignIn, value: Any, expected: tuple[str, ...]
) -> None:
    provider.claims = {"role": value}
    assert sign_in().roles == expected


def test_claims_in_no_token_are_read_from_userinfo(provider: Provider, sign_in: SignIn) -> None:
    provider.claims = {}
    provider.userinfo = {"groups": ["admin"], "email": "ada@shop.example"}
    identity = sign_in(role_claim="groups", subject_claim="email")
    assert (identity.subject, identity.roles) == ("ada@shop.example", ("admin",))
    provider.claims = {"groups": [], "email": "ada@shop.example"}
    provider.requests.clear()
    assert sign_in(role_claim="groups", subject_claim="email").roles == ()
    assert "/userinfo" not in provider.requests  # the ID token has both claims


def test_claims_about_another_person_are_ignored(provider: Provider, sign_in: SignIn) -> None:
    provider.claims = {}
    provider.userinfo = {"sub": "eve", "role": ["admin"]}
    provider.access_claims = {"sub": "eve", "role": ["admin"]}
    assert sign_in().roles == ()


def test_access_token_of_another_issuer_is_ignored(provider: Provider, sign_in: SignIn) -> None:
    provider.claims = {}
    provider.access_claims = {"role": ["admin"]}
    assert sign_in().roles == ("admin",)
    provider.access_claims = {"role": ["admin"], "iss": "https://evil.example"}
    assert sign_in().roles == ()


def test_person_without_the_subject_claim_is_refused(provider: Provider, sign_in: SignIn) -> None:
    provider.claims = {"email": 7}
    for claim in ("email", "employee.id"):
        with pytest.raises(ApiError) as caught:
            sign_in(subject_claim=claim)
        assert caught.value.status == 502
        assert claim in caught.value.message


@pytest.mark.parametrize(
    ("expires_in", "gives_refresh_token", "expected_s"),
    [(300, True, 300), (1, True, 60), (86_400, True, 3_600), (86_400, False, 86_400)],
)
def test_lifetime_of_an_identity_follows_expires_in_within_limits(
    provider: Provider, sign_in: SignIn, expires_in: int, gives_refresh_token: bool, expected_s: int
) -> None:
    provider.expires_in, provider.gives_refresh_token = expires_in, gives_refresh_token
    assert sign_in().lifetime_s == expected_s


def test_infinite_lifetime_is_an_answer_that_is_no_json(
    provider: Provider, sign_in: SignIn, caplog: pytest.LogCaptureFixture
) -> None:
    provider.expires_in = float("inf")
    with pytest.raises(ApiError) as caught:
        sign_in()
    assert (caught.value.status, "no_json" in caplog.text) == (502, True)


@pytest.mark.parametrize(
    "fields",
    [{"id_token": ["a"]}, {"refresh_token": 5}, {"expires_at": {}}, {"expires_in": ["a"]}],
)
def test_answer_with_a_field_of_another_type_is_502(
    provider: Provider, make_client: Any, fields: dict[str, Any]
) -> None:
    client = make_client()
    flow = client.begin(CALLBACK)
    answer = json.loads(provider._make_answer(nonce=flow.nonce)) | fields
    provider.token_answer = lambda: (200, json.dumps(answer).encode())
    with pytest.raises(ApiError) as caught:
        client.finish("a code", flow)
    assert (caught.value.status, caught.value.code) == (502, "sign_in_failed")


@pytest.mark.parametrize("document", [{}, [], None, {"keys": 5}, {"keys": [5, {}]}])
def test_document_without_a_key_is_502_and_is_not_cached(
    provider: Provider, make_client: Any, monkeypatch: pytest.MonkeyPatch, document: Any
) -> None:
    client = make_client()

    def finish() -> Identity:
        flow = client.begin(CALLBACK)
        code = provider.authorize(flow.address).partition("code=")[2].partition("&")[0]
        identity: Identity = client.finish(code, flow)
        return identity

    monkeypatch.setattr(provider, "list_keys", lambda: document)
    with pytest.raises(ApiError) as caught:
        finish()
    assert caught.value.status == 502
    monkeypatch.undo()
    assert finish().subject == "ada"


def test_key_that_cannot_be_read_does_not_prevent_a_sign_in(
    provider: Provider, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = provider.list_keys()["keys"]
    unknown_curve = {"kty": "EC", "crv": "brainpoolP256r1", "x": "aa", "y": "aa"}
    keys = [unknown_curve, {"kty": "RSA", "n": None}, key | {"key_ops": None, "alg": None}]
    monkeypatch.setattr(provider, "list_keys", lambda: {"keys": keys})
    assert sign_in().subject == "ada"


def test_identity_without_expires_in_is_valid_as_long_as_its_id_token(
    provider: Provider, sign_in: SignIn
) -> None:
    provider.expires_in = None
    provider.claims = {"exp": int(time.time()) + 900}
    assert 840 <= sign_in().lifetime_s <= 900


def test_renewal_without_an_id_token_reads_the_access_token_and_userinfo(
    make_client: Any, provider: Provider, sign_in: SignIn
) -> None:
    provider.renews_id_token = False
    provider.access_claims = {"role": ["admin"]}
    identity = sign_in()
    renewed = make_client().renew(identity.refresh_token, identity.provider_subject)
    assert (renewed.subject, renewed.roles, renewed.id_token) == ("ada", ("admin",), None)
    provider.access_claims, provider.userinfo = None, {"role": ["Jobs.Admin"]}
    renewed = make_client().renew(identity.refresh_token, identity.provider_subject)
    assert renewed.roles == ("Jobs.Admin",)
    provider.userinfo = None
    with pytest.raises(ApiError):  # no answer names the person
        make_client().renew(identity.refresh_token, identity.provider_subject)


def test_client_secret_is_in_the_form_if_the_provider_does_not_accept_the_header(
    provider: Provider, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.document = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    forms = []
    exchange = provider.exchange

    def record(form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        forms.append(form)
        assert authorization == ""  # no header
        # The fake provider checks only the header: id and secret in base64.
        return exchange(form, "Basic am9ibW9uOmEgY2xpZW50IHNlY3JldCBvZiB0aGlydHktdHdvIGJ5dGVz")

    monkeypatch.setattr(provider, "exchange", record)
    assert sign_in().subject == "ada"
    assert forms[0]["client_secret"] == CLIENT_SECRET


def test_discovery_document_is_cached_and_refreshed(
    make_client: Any, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, path = make_client(), "/.well-known/openid-configuration"
    for _ in range(3):
        client.begin(CALLBACK)
    assert provider.requests.count(path) == 1
    monkeypatch.setattr("jobmon.web.oidc.DISCOVERY_REFRESH_S", 0)
    client.begin(CALLBACK)
    assert provider.requests.count(path) == 2
    provider.status = 500  # jobmon still uses the cached document
    assert client.begin(CALLBACK).address.startswith(f"{provider.issuer}/authorize?")
    provider.status = 0
    provider.document = {"authorization_endpoint": f"{provider.issuer}/new"}
    assert client.begin(CALLBACK).address.startswith(f"{provider.issuer}/new?")


def test_each_sign_in_has_new_random_values(make_client: Any) -> None:
    client = make_client()
    flows = [client.begin(CALLBACK) for _ in range(20)]
    for name in ("state", "nonce", "code_verifier"):
        values = {getattr(flow, name) for flow in flows}
        assert len(values) == 20
        assert min(map(len, values)) >= 43  # RFC 7636, 4.1


def test_sign_in_is_refused_while_half_of_the_threads_use_the_provider(
    make_client: Any, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(threads=2)
    monkeypatch.setattr("jobmon.web.oidc.MAX_WAIT_S", 0.01)
    with client._slots, pytest.raises(ApiError) as caught:  # two threads: one slot
        client.begin(CALLBACK)
    assert caught.value.status == 503
    assert client.begin(CALLBACK)


def test_client_secret_is_not_in_the_default_headers_of_authlib(sign_in: SignIn) -> None:
    """Catches a secret that Authlib adds to all its requests."""
    from authlib.oauth2.client import DEFAULT_HEADERS  # noqa: PLC0415

    sign_in()
    assert "Authorization" not in DEFAULT_HEADERS


def test_discovery_document_is_found_with_and_without_a_final_slash(provider: Provider) -> None:
    issuer = provider.issuer
    assert read_discovery(issuer)["issuer"] == issuer
    provider.document = {"issuer": f"{issuer}/"}
    assert read_discovery(f"{issuer}/")["issuer"] == f"{issuer}/"
