"""Sign-in at an identity provider: catches a forged return, a session that is longer than its
tokens allow, an endless redirect, and a fault of the provider that ends a session."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from jobmon.app import create_app
from jobmon.dashboard import provider_sign_in
from jobmon.settings import Settings
from jobmon.web import oidc_protocol
from jobmon.web.auth import SESSION_COOKIE
from jobmon.web.sessions import Session, SessionKeys

from ..conftest import Api
from ..support.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider, make_key
from ..support.pages import Page, Viewer
from .conftest import MakeApi

START, CALLBACK = "/dashboard/oidc/start", "/dashboard/oidc/callback"
RENEW, SIGN_OUT = "/dashboard/oidc/renew", "/dashboard/oidc/sign-out"


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider.listening() as provider:
        yield provider


@pytest.fixture
def api(make_api: MakeApi, provider: IdentityProvider) -> Api:
    return make_provider_api(make_api, provider)


def make_provider_api(make_api: MakeApi, provider: IdentityProvider, **settings: Any) -> Api:
    return make_api(
        **{
            "oidc_issuer": provider.issuer,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": CLIENT_SECRET,
        }
        | settings
    )


@pytest.fixture
def viewer(api: Api) -> Viewer:
    return Viewer(api.app)


def start_sign_in(viewer: Viewer, then: str = "") -> str:
    """Start a sign-in; returns the provider's address to which it redirects."""
    answer = viewer.get(f"{START}?then={then}")
    assert answer.status_code == 303, answer.text
    return str(answer.location)


def read_path(address: str) -> str:
    """The path and the query of an address of jobmon."""
    parts = urlsplit(address)
    assert parts.netloc == "localhost"
    return f"{parts.path}?{parts.query}"


def sign_in(viewer: Viewer, provider: IdentityProvider, then: str = "") -> Any:
    """Sign in at the provider; returns the answer to the browser that comes back."""
    return viewer.get(read_path(provider.authorize(start_sign_in(viewer, then))))


def read_claims(viewer: Viewer) -> dict[str, Any]:
    """The claims of the token in the session's cookie."""
    cookie = viewer.client.get_cookie(SESSION_COOKIE)
    assert cookie is not None
    claims: dict[str, Any] = jwt.decode(cookie.value, options={"verify_signature": False})
    return claims


def expire_token(api: Api, viewer: Viewer, **changes: Any) -> Session:
    """Replace the viewer's session by one whose token has expired, renewed a minute ago."""
    keys: SessionKeys = api.app.extensions["jobmon_session_keys"]
    sealed = viewer.client.get_cookie("jobmon_provider", path="/dashboard/oidc")
    assert sealed is not None
    session = keys.unseal_session(sealed.value)
    assert session is not None
    changed = replace(session, **{"renewed_at": session.renewed_at - 60} | changes)
    subject = read_claims(viewer)["sub"]
    token = keys.issue_token(replace(changed, ends_at=2**40), subject, ["admin"], -60)
    viewer.client.set_cookie(SESSION_COOKIE, token, path="/")
    sealed_again = keys.seal_session(changed, 4_000)
    viewer.client.set_cookie("jobmon_provider", sealed_again, path="/dashboard/oidc")
    return changed


def read_message(answer: Any) -> str:
    """The message of the sign-in page."""
    page = Page(answer.text)
    assert page.all("p", role="alert"), answer.text
    return answer.text.partition('role="alert">')[2].partition("</p>")[0]


def test_sign_in_leads_to_the_provider_and_back_to_the_page(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    page = viewer.page("/dashboard/jobs?status=dlq", 401)
    (link,) = [link["href"] for link in page.all("a") if "/oidc/" in str(link.get("href"))]
    assert link == f"{START}?then=/dashboard/jobs%3Fstatus%3Ddlq"
    started = viewer.get(str(link))
    query = {name: values[0] for name, values in parse_qs(urlsplit(started.location).query).items()}
    assert query["redirect_uri"] == f"http://localhost{CALLBACK}"
    assert query["scope"] == "openid profile email"
    answer = viewer.get(read_path(provider.authorize(started.location)))
    # A page, not a redirect: after a redirect, the browser would not send the session's cookie.
    assert answer.status_code == 200
    assert Page(answer.text).addresses() == ["/dashboard/jobs?status=dlq"]
    assert viewer.get("/dashboard/jobs").status_code == 200
    claims = read_claims(viewer)
    assert (claims["sub"], claims["role"]) == ("ada", ["admin"])
    assert 290 <= claims["exp"] - time.time() <= 300


def test_cookies_of_a_session_are_only_for_this_site(provider: IdentityProvider, api: Api) -> None:
    client, tls = api.app.test_client(), {"base_url": "https://localhost"}
    started = client.get(START, **tls)
    (flow,) = parse_cookies(started)
    assert flow.key.startswith("__Secure-jobmon_flow_")
    # Lax, because the browser comes back from the provider's site.
    assert (flow["samesite"], flow["max-age"]) == ("Lax", "600")
    answer = client.get(read_path(provider.authorize(started.location)), **tls)
    cookies = {cookie.key: cookie for cookie in parse_cookies(answer)}
    assert cookies.keys() == {"__Host-jobmon_session", "__Secure-jobmon_provider", flow.key}
    assert cookies[flow.key]["max-age"] == "0"
    assert cookies["__Host-jobmon_session"]["path"] == "/"
    assert cookies["__Secure-jobmon_provider"]["path"] == "/dashboard/oidc"
    for cookie in (flow, *cookies.values()):
        assert (cookie["httponly"], cookie["secure"], cookie["domain"]) == (True, True, "")
        if cookie.key != flow.key:
            assert cookie["samesite"] == "Strict"
    # The provider's tokens are encrypted.
    refresh_token = next(iter(provider._refresh_tokens))
    assert refresh_token not in "".join(cookie.value for cookie in cookies.values())


def parse_cookies(answer: Any) -> list[Any]:
    jar = SimpleCookie()
    for header in answer.headers.getlist("Set-Cookie"):
        jar.load(header)
    return list(jar.values())


def test_local_token_still_signs_in(api: Api, viewer: Viewer) -> None:
    page = viewer.page("/dashboard/sign-in")
    assert page.all("form", action="/dashboard/session")
    assert "open" not in page.all("details", **{"class": "other-way"})[0]
    answer = viewer.post("/dashboard/session", {"token": api.token()})
    assert answer.status_code == 303
    assert viewer.get("/dashboard").status_code == 200
    refused = viewer.page(viewer.post("/dashboard/session", {"token": "a.b.c"}).location)
    assert "open" in refused.all("details", **{"class": "other-way"})[0]


def test_sign_in_leads_to_no_other_site(viewer: Viewer, provider: IdentityProvider) -> None:
    for then in ("//evil.example", "https://evil.example/dashboard", "/jobs", "/dashboard/../x"):
        assert Page(sign_in(viewer, provider, then).text).addresses() == ["/dashboard"], then
        answer = viewer.get(f"{RENEW}?then={then}")
        assert (answer.status_code, answer.location) == (303, "/dashboard"), then


@pytest.mark.parametrize(
    "query", ["", "?code=x", "?state=forged&code=x", "?state=forged&error=access_denied"]
)
def test_return_without_a_sign_in_of_this_browser_is_refused(
    viewer: Viewer, provider: IdentityProvider, query: str
) -> None:
    start_sign_in(viewer)
    requests_before = len(provider.requests)
    answer = viewer.get(CALLBACK + query)
    assert answer.status_code == 400
    assert "did not start in this browser" in read_message(answer)
    assert "Set-Cookie" not in answer.headers
    assert len(provider.requests) == requests_before


def test_return_to_another_browser_is_refused(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    """Catches a victim's browser that finishes a sign-in which an attacker began."""
    address = read_path(provider.authorize(start_sign_in(viewer)))
    victim = Viewer(api.app)
    start_sign_in(victim)
    assert victim.get(address).status_code == 400
    assert victim.client.get_cookie(SESSION_COOKIE) is None


def test_return_is_accepted_only_once(viewer: Viewer, provider: IdentityProvider) -> None:
    address = read_path(provider.authorize(start_sign_in(viewer)))
    cookies = viewer.client._cookies.copy()
    assert viewer.get(address).status_code == 200
    assert "did not start in this browser" in read_message(viewer.get(address))
    # With a copy of the cookie, jobmon accepts the return, but the provider refuses the code.
    viewer.client._cookies.update(cookies)
    answer = viewer.get(address)
    assert answer.status_code == 403
    assert "no longer accepts" in read_message(answer)


@pytest.mark.parametrize("change", [{"then": None}, {"nonce": None}, {"kind": "x"}])
def test_return_with_a_cookie_of_another_version_is_refused(
    api: Api, viewer: Viewer, provider: IdentityProvider, change: dict[str, Any]
) -> None:
    """Catches a 500 after an update: a cookie of another version has more or fewer fields."""
    keys: SessionKeys = api.app.extensions["jobmon_session_keys"]
    address = read_path(provider.authorize(start_sign_in(viewer)))
    cookie = next(
        cookie
        for cookie in viewer.client._cookies.values()
        if cookie.key.startswith("jobmon_flow_")
    )
    content = keys.unseal("flow", cookie.value) | change
    sealed = keys.seal("flow", {name: text for name, text in content.items() if text is not None})
    viewer.client.set_cookie(cookie.key, sealed, path=cookie.path)
    assert viewer.get(address).status_code == 400


def test_return_of_another_provider_is_refused(viewer: Viewer, provider: IdentityProvider) -> None:
    address = read_path(provider.authorize(start_sign_in(viewer)))
    assert viewer.get(f"{address}&iss=https://evil.example").status_code == 502
    address = read_path(provider.authorize(start_sign_in(viewer)))
    assert viewer.get(f"{address}&iss={provider.issuer}").status_code == 200


def test_return_that_comes_too_late_is_refused(
    viewer: Viewer, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_sign_in, "FLOW_AGE_S", -1)
    address = provider.authorize(start_sign_in(viewer))
    assert viewer.get(read_path(address)).status_code == 400


def test_refusal_by_the_provider_shows_its_code_but_not_its_text(
    viewer: Viewer, provider: IdentityProvider
) -> None:
    for error, shown_code in (("access_denied", "access_denied"), ("<b>no</b>", "no code")):
        state = parse_qs(urlsplit(start_sign_in(viewer)).query)["state"][0]
        answer = viewer.get(f"{CALLBACK}?state={state}&error={error}&error_description=evil+text")
        assert answer.status_code == 403
        assert f"({shown_code})" in read_message(answer)
        assert "evil" not in answer.text
        assert viewer.client.get_cookie(SESSION_COOKIE) is None


def change_claims(**claims: Any) -> Callable[[dict[str, Any]], None]:
    """A function that changes the claims of an ID token; a claim that is None is removed."""

    def update(issued: dict[str, Any]) -> None:
        issued.update(claims)
        for name in [name for name, value in claims.items() if value is None]:
            del issued[name]

    return update


LONG_AGO = int(time.time()) - 86_400
# By name: how a good ID token is changed, and the claim that the log then names.
BAD_ID_TOKENS = {
    "another nonce": (change_claims(nonce="another"), "nonce"),
    "no nonce": (change_claims(nonce=None), "nonce"),
    "another issuer": (change_claims(iss="https://evil.example"), "iss"),
    "another audience": (change_claims(aud="another client"), "aud"),
    "another audience, for this party": (change_claims(aud="another client", azp=CLIENT_ID), "aud"),
    "another party": (change_claims(aud=[CLIENT_ID, "b"], azp="another client"), "azp"),
    "expired": (change_claims(exp=LONG_AGO), "exp"),
    "no expiry": (change_claims(exp=None), "exp"),
    "issued later": (change_claims(iat=2**40), "iat"),
    "no subject": (change_claims(sub=None), "sub"),
    "a subject that is not text": (change_claims(sub=7), "sub"),
    "another access token": (change_claims(at_hash="AAAA"), "at_hash"),
}


@pytest.mark.parametrize("name", BAD_ID_TOKENS)
def test_id_token_with_a_wrong_claim_is_refused(
    viewer: Viewer, provider: IdentityProvider, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider.change_id_token, reason = BAD_ID_TOKENS[name]
    answer = sign_in(viewer, provider)
    assert answer.status_code == 502
    assert "cannot be used" in read_message(answer)
    assert viewer.client.get_cookie(SESSION_COOKIE) is None
    (logged,) = [line for line in caplog.messages if "identity provider" in line]
    assert logged == f"the identity provider's answer cannot be used: {reason}"


def test_id_token_without_a_signature_of_the_provider_is_refused(
    viewer: Viewer, provider: IdentityProvider
) -> None:
    address = provider.authorize(start_sign_in(viewer))
    nonce = provider._codes[parse_qs(urlsplit(address).query)["code"][0]]["nonce"]
    claims = {"iss": provider.issuer, "sub": "ada", "aud": CLIENT_ID, "nonce": nonce}
    claims |= {"iat": int(time.time()), "exp": int(time.time()) + 300}
    forged = [
        jwt.encode(claims, None, "none"),
        jwt.encode(claims, CLIENT_SECRET, "HS256"),
        jwt.encode(claims, make_key("forged"), "RS256", {"kid": "one"}),
        jwt.encode(claims, make_key("forged"), "RS256", {"kid": "unknown"}),
        jwt.encode(claims, make_key("forged"), "RS256"),
        "a.b.c",
        "",
    ]
    for token in forged:
        body = f'{{"access_token": "x", "token_type": "Bearer", "id_token": "{token}"}}'
        provider.token_answer = lambda body=body: (200, body.encode())  # type: ignore[misc]
        answer = sign_in(viewer, provider)
        assert answer.status_code == 502, token
        assert viewer.client.get_cookie(SESSION_COOKIE) is None


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>", 502),
        (200, b"[]", 502),
        (200, b"{}", 502),
        (200, b'{"access_token": "x"}', 502),
        (500, b"", 502),
        (503, b"", 502),
        (429, b"too many", 502),
        (302, b"", 502),
        (400, b'{"error": "invalid_grant"}', 403),
        (401, b'{"error": "invalid_client"}', 502),
    ],
)
def test_bad_answer_of_the_token_endpoint_is_an_error_page_and_no_session(
    viewer: Viewer, provider: IdentityProvider, status: int, body: bytes, expected: int
) -> None:
    provider.token_answer = lambda: (status, body)
    answer = sign_in(viewer, provider)
    assert answer.status_code == expected
    assert read_message(answer)
    assert viewer.client.get_cookie(SESSION_COOKIE) is None
    assert not Page(answer.text).all("meta", **{"http-equiv": "refresh"})
    assert "data-reload-after" not in answer.text


def test_rotated_signing_key_is_fetched(
    viewer: Viewer, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sign_in(viewer, provider).status_code == 200
    provider.keys, provider.signing_key = {"two": make_key("two")}, "two"
    monkeypatch.setattr(oidc_protocol, "KEYS_COOLDOWN_S", 0)
    assert sign_in(viewer, provider).status_code == 200
    provider.keys["two"] = make_key("three")  # under the same id
    assert sign_in(viewer, provider).status_code == 200
    assert provider.requests.count("/keys") == 3


@pytest.mark.parametrize("ahead_s", [-4, 4])
def test_clocks_can_differ_by_the_leeway(
    make_api: MakeApi, provider: IdentityProvider, ahead_s: int
) -> None:
    provider.change_id_token = lambda issued: issued.update(
        iat=int(time.time()) + ahead_s, exp=int(time.time()) + ahead_s
    )
    for leeway_s, expected in ((10, 200), (0, 502)):
        viewer = Viewer(make_provider_api(make_api, provider, jwt_leeway_s=leeway_s).app)
        assert sign_in(viewer, provider).status_code == expected, leeway_s


def test_unreachable_provider_is_an_error_page_that_does_not_reload(
    api: Api, viewer: Viewer, provider: IdentityProvider, make_api: MakeApi
) -> None:
    unreachable = Viewer(
        make_provider_api(make_api, provider, oidc_issuer="http://127.0.0.1:1").app
    )
    answer = unreachable.get(START)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "does not answer" in read_message(answer)
    assert "data-reload-after" not in answer.text
    # The provider fails between the start and the return.
    address = read_path(provider.authorize(start_sign_in(viewer)))
    provider.status = 503
    assert viewer.get(address).status_code == 502


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": None},
        {"token_endpoint": "ftp://127.0.0.1/token"},
        {"jwks_uri": 7},
    ],
)
def test_provider_with_a_wrong_discovery_document_is_502(
    viewer: Viewer, provider: IdentityProvider, document: dict[str, Any]
) -> None:
    provider.document = document
    answer = viewer.get(START)
    assert answer.status_code == 502
    assert "Location" not in answer.headers


def test_person_without_a_role_sees_only_own_jobs(
    viewer: Viewer, provider: IdentityProvider
) -> None:
    provider.claims = {"role": ["visitor"]}
    assert Page(sign_in(viewer, provider).text).addresses() == ["/dashboard"]
    assert viewer.get("/dashboard/my").status_code == 200
    answer = viewer.get("/dashboard/jobs")
    assert answer.status_code == 403
    assert "Not allowed" in answer.text


def test_session_is_renewed_for_pages_and_their_parts(
    api: Api, viewer: Viewer, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmon.web.renewals.CACHE_TTL_S", -1)
    sign_in(viewer, provider)
    first_claims = read_claims(viewer)
    for path, headers in (
        ("/dashboard/jobs?status=dlq&type=a%20b", {}),
        ("/dashboard/overview", {"HX-Request": "true"}),
    ):
        expire_token(api, viewer)
        provider.claims = {"role": ["admin"], "email": path}
        answer = viewer.client.get(path, headers=headers, follow_redirects=True)
        assert answer.status_code == 200, answer.text
        assert [len(answer.history), answer.request.path] == [2, path.partition("?")[0]]
        assert "Sign in" not in answer.text
    assert provider.renewals == 2
    renewed_claims = read_claims(viewer)
    # The id and the issue time stay the same, so `jobmon revoke` ends all tokens of the session.
    assert [renewed_claims[name] for name in ("jti", "iat")] == [
        first_claims[name] for name in ("jti", "iat")
    ]
    assert renewed_claims["exp"] > time.time() + 280


def test_renewal_reads_the_roles_again(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    sign_in(viewer, provider)
    assert viewer.get("/dashboard/jobs").status_code == 200
    expire_token(api, viewer)
    provider.claims = {"role": []}
    answer = viewer.client.get("/dashboard/jobs", follow_redirects=True)
    assert answer.status_code == 403


def test_renewal_for_another_person_is_refused(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    sign_in(viewer, provider)
    expire_token(api, viewer)
    provider.subject = "eve"
    answer = viewer.client.get("/dashboard/jobs", follow_redirects=True)
    assert answer.status_code == 502
    assert viewer.get("/dashboard/jobs").status_code == 303


def test_renewal_that_the_provider_refuses_shows_the_sign_in_page(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    sign_in(viewer, provider)
    expire_token(api, viewer)
    provider._refresh_tokens.clear()
    answer = viewer.client.get("/dashboard/jobs?status=dlq", follow_redirects=True)
    assert answer.status_code == 403
    assert "Sign in again" in read_message(answer)
    (link,) = [link["href"] for link in Page(answer.text).all("a") if "start" in str(link)]
    assert link == f"{START}?then=/dashboard/jobs%3Fstatus%3Ddlq"
    assert provider.renewals == 1


def test_failing_provider_ends_no_session(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    sign_in(viewer, provider)
    assert viewer.get("/dashboard/jobs").status_code == 200  # a valid token needs no provider
    expire_token(api, viewer)
    provider.status = 503
    for headers in ({}, {"HX-Request": "true"}):
        answer = viewer.client.get("/dashboard/jobs", headers=headers, follow_redirects=True)
        assert answer.status_code == 502
        assert "Set-Cookie" not in answer.headers
        assert "HX-Refresh" not in answer.headers
    provider.status = 0
    answer = viewer.client.get("/dashboard/jobs", follow_redirects=True)
    assert answer.status_code == 200


def test_session_without_a_refresh_token_ends_with_its_token(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    provider.gives_refresh_token = False
    sign_in(viewer, provider)
    expire_token(api, viewer)
    answer = viewer.client.get("/dashboard/jobs", follow_redirects=True)
    assert answer.status_code == 401
    assert "session has expired" in read_message(answer)
    part = viewer.client.get(
        "/dashboard/overview", headers={"HX-Request": "true"}, follow_redirects=True
    )
    assert (part.status_code, part.data, part.headers["HX-Refresh"]) == (401, b"", "true")
    assert provider.renewals == 0


def test_session_ends_after_twelve_hours_even_if_it_can_be_renewed(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    provider.expires_in = 10**9
    provider.gives_refresh_token = False
    sign_in(viewer, provider)
    assert read_claims(viewer)["exp"] == read_claims(viewer)["iat"] + 12 * 3_600
    provider.gives_refresh_token = True
    sign_in(viewer, provider)
    assert read_claims(viewer)["exp"] - time.time() <= 3_600  # it can be renewed
    expire_token(api, viewer, ends_at=int(time.time()) - 1)
    answer = viewer.client.get("/dashboard/jobs", follow_redirects=True)
    assert (answer.status_code, provider.renewals) == (401, 0)


def test_tabs_that_renew_within_seconds_use_the_refresh_token_once(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    """Catches a second use of one refresh token: many providers then end the session."""
    provider.rotates = True
    sign_in(viewer, provider)
    expire_token(api, viewer)
    other_tab = Viewer(api.app)
    other_tab.client._cookies = viewer.client._cookies.copy()
    for tab in (viewer, other_tab):
        answer = tab.client.get("/dashboard/jobs", follow_redirects=True)
        assert answer.status_code == 200
    assert provider.renewals == 1
    expire_token(api, other_tab)
    assert other_tab.client.get("/dashboard/jobs", follow_redirects=True).status_code == 200
    assert provider.renewals == 2


def test_token_that_expires_right_after_its_renewal_is_an_error(
    api: Api, viewer: Viewer, provider: IdentityProvider
) -> None:
    """Catches an endless redirect where the clocks of two machines differ."""
    sign_in(viewer, provider)
    expire_token(api, viewer, renewed_at=time.time())
    answer = viewer.client.get("/dashboard/jobs", follow_redirects=True)
    assert answer.status_code == 400
    assert "clocks" in read_message(answer)


def test_form_with_an_expired_session_shows_the_sign_in_page(
    make_api: MakeApi, provider: IdentityProvider
) -> None:
    api = make_provider_api(make_api, provider, actions=True)
    viewer = Viewer(api.app)
    sign_in(viewer, provider)
    expire_token(api, viewer)
    answer = viewer.post("/dashboard/actions", {"action": "retry"})
    assert answer.status_code == 401
    assert "session has expired" in read_message(answer)


def test_revoked_session_is_not_renewed(
    api: Api, viewer: Viewer, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(viewer, provider)
    session = expire_token(api, viewer)
    revoked = api.app.extensions["jobmon_revoked"]
    monkeypatch.setattr(revoked, "includes", lambda token_id, *_: token_id == session.id)
    answer = viewer.client.get("/dashboard/jobs", follow_redirects=True)
    assert answer.status_code == 401
    assert viewer.get("/dashboard/jobs").status_code == 303


def test_renewal_during_a_sign_out_does_not_bring_the_session_back(
    api: Api, viewer: Viewer, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(viewer, provider)
    expire_token(api, viewer)
    sign_ins = api.app.view_functions["dashboard.end_session"].__self__  # type: ignore[attr-defined]
    renew = sign_ins._provider.renew

    def sign_out_and_renew(*arguments: str) -> Any:
        viewer.post(SIGN_OUT)
        return renew(*arguments)

    monkeypatch.setattr(sign_ins._provider, "renew", sign_out_and_renew)
    answer = viewer.client.get("/dashboard/jobs", follow_redirects=True)
    assert answer.status_code == 401
    assert viewer.client.get_cookie(SESSION_COOKIE) is None
    assert viewer.client.get_cookie("jobmon_provider", path="/dashboard/oidc") is None


def test_sign_out_ends_the_session_at_the_provider_too(
    viewer: Viewer, provider: IdentityProvider
) -> None:
    sign_in(viewer, provider)
    (form,) = viewer.page("/dashboard").all("form", action=SIGN_OUT)
    assert form["method"] == "post"
    answer = viewer.post(SIGN_OUT)
    assert answer.status_code == 200
    (address,) = Page(answer.text).addresses()
    parts = urlsplit(address)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{provider.issuer}/sign-out"
    assert query["post_logout_redirect_uri"] == "http://localhost/dashboard/sign-in"
    assert query["client_id"] == CLIENT_ID
    hint = jwt.decode(query["id_token_hint"], options={"verify_signature": False})
    assert hint["sub"] == "ada"
    assert viewer.client.get_cookie(SESSION_COOKIE) is None
    assert viewer.client.get_cookie("jobmon_provider", path="/dashboard/oidc") is None
    assert viewer.get("/dashboard").status_code == 401


def test_sign_out_without_an_answer_of_the_provider_ends_the_session_of_jobmon(
    make_api: MakeApi, provider: IdentityProvider
) -> None:
    provider.document = {"end_session_endpoint": None}
    api = make_provider_api(make_api, provider)
    viewer = Viewer(api.app)
    sign_in(viewer, provider)
    answer = viewer.post(SIGN_OUT)
    assert Page(answer.text).addresses() == ["/dashboard/sign-in"]
    sign_in(viewer, provider)
    sign_ins = api.app.view_functions["dashboard.end_session"].__self__  # type: ignore[attr-defined]
    sign_ins._provider._protocol = None  # as after a restart
    provider.status = 500
    answer = viewer.post(SIGN_OUT)
    (address,) = Page(answer.text).addresses()
    assert "still be signed in there" in viewer.get(address).text
    assert viewer.get("/dashboard").status_code == 401


def test_sign_out_with_a_local_token_does_not_lead_to_the_provider(
    api: Api, viewer: Viewer
) -> None:
    viewer.post("/dashboard/session", {"token": api.token()})
    assert Page(viewer.post(SIGN_OUT).text).addresses() == ["/dashboard/sign-in"]
    assert viewer.get("/dashboard").status_code == 401


def test_form_of_another_site_cannot_sign_out(viewer: Viewer, provider: IdentityProvider) -> None:
    sign_in(viewer, provider)
    for headers in ({"Sec_Fetch_Site": "cross-site"}, {"Origin": "https://evil.example"}):
        assert viewer.post(SIGN_OUT, **headers).status_code == 403
    assert viewer.get("/dashboard").status_code == 200


def test_unfinished_sign_ins_do_not_fill_the_cookies(viewer: Viewer) -> None:
    for _ in range(20):
        start_sign_in(viewer)
    flows = [name for name in viewer.client._cookies if "jobmon_flow_" in str(name)]
    assert 0 < len(flows) <= provider_sign_in.MAX_FLOWS + 1


def test_tabs_sign_in_independently(viewer: Viewer, provider: IdentityProvider) -> None:
    jobs_address, errors_address = (
        start_sign_in(viewer, "/dashboard/jobs"),
        start_sign_in(viewer, "/dashboard/errors"),
    )
    for address, then in ((errors_address, "/dashboard/errors"), (jobs_address, "/dashboard/jobs")):
        answer = viewer.get(read_path(provider.authorize(address)))
        assert Page(answer.text).addresses() == [then]


def test_routes_exist_only_with_a_provider(make_api: MakeApi, api: Api) -> None:
    api_without_provider = make_api()
    added = {rule.rule for rule in api.app.url_map.iter_rules()}
    added -= {rule.rule for rule in api_without_provider.app.url_map.iter_rules()}
    assert added == {START, CALLBACK, RENEW, SIGN_OUT}
    viewer = Viewer(api_without_provider.app)
    assert not viewer.page("/dashboard/sign-in").all("details", **{"class": "other-way"})


def test_app_without_authlib_exits_with_an_error_that_names_the_package(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "authlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("oidc", "oidc_protocol"):
        monkeypatch.delitem(sys.modules, f"jobmon.web.{name}")
    settings = make_settings(
        oidc_issuer="https://id.example", oidc_client_id="x", oidc_client_secret="y" * 32
    )
    with pytest.raises(SystemExit):
        create_app(settings)
    line = capsys.readouterr().err
    assert "JOBMON_OIDC_ISSUER: the package authlib" in line
    assert "pip install 'mongo-jobmon[oidc]'" in line


def test_sign_in_works_below_a_path_and_in_a_queue(
    make_api: MakeApi, provider: IdentityProvider, tmp_path: Path
) -> None:
    """Catches a redirect URI or a cookie without the path, or with the path of the queue."""
    queues = tmp_path / "queues.toml"
    queues.write_text('[first]\ncollection = "a"\n[second]\ncollection = "b"\n')
    api = make_provider_api(make_api, provider, path_prefix="/jobmon", queues=str(queues))
    viewer = Viewer(api.app)
    page = "/jobmon/queues/second/dashboard/jobs"
    (link,) = [
        str(link["href"])
        for link in viewer.page(page, 401).all("a")
        if "/oidc/" in str(link.get("href"))
    ]
    assert link == f"/jobmon{START}?then={page}"
    started = viewer.get(link)
    query = parse_qs(urlsplit(started.location).query)
    assert query["redirect_uri"] == [f"http://localhost/jobmon{CALLBACK}"]
    answer = viewer.get(read_path(provider.authorize(started.location)))
    assert Page(answer.text).addresses() == [page]
    paths = {cookie.key: cookie["path"] for cookie in parse_cookies(answer)}
    flow = paths.keys() - {SESSION_COOKIE, "jobmon_provider"}
    assert paths == dict.fromkeys(flow, "/jobmon/dashboard/oidc") | {
        SESSION_COOKIE: "/jobmon",
        "jobmon_provider": "/jobmon/dashboard/oidc",
    }
    assert viewer.get(page).status_code == 200
