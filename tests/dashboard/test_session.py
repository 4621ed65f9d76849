"""Sessions and access: catches a cookie that scripts, other sites or the JSON API can use, a
redirect to another site, a session with too many rights, and a session that ends without giving
the reason."""

import time
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from jobmon.dashboard.session import MAX_COOKIE_BYTES, own_path
from jobmon.web.auth import SESSION_COOKIE

from ..conftest import DATE, SECRET, Api
from ..support.pages import Page, Viewer
from .conftest import MakeApi, signed_in

SIGN_IN, SIGN_OUT = "/dashboard/session", "/dashboard/sign-out"
ADMIN = {"sub": "root", "role": "admin"}


def sign_token(**claims: Any) -> str:
    return jwt.encode(ADMIN | claims, SECRET, "HS256")


def read_cookie(answer: Any) -> Any:
    """The session's cookie that an answer sets, or None."""
    jar = SimpleCookie()
    for header in answer.headers.getlist("Set-Cookie"):
        jar.load(header)
    return next(iter(jar.values()), None)


def sign_in(viewer: Viewer, token: str, then: str = "", **headers: str) -> Any:
    return viewer.post(SIGN_IN, {"token": token, "then": then}, **headers)


def test_sign_in_keeps_a_valid_token_in_a_cookie_of_this_site_only(
    api: Api, visitor: Viewer
) -> None:
    token = api.token(seconds=900)
    answer = sign_in(visitor, token)
    assert (answer.status_code, answer.location) == (303, "/dashboard")
    cookie = read_cookie(answer)
    assert cookie.value == token
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (
        True,
        "Strict",
        "/",
        "",
    )
    assert not cookie["secure"]  # otherwise nobody could sign in on plain HTTP
    # Longer than the token: the sign-in form can then show that the session has expired.
    assert 7 * 86_400 + 890 <= int(cookie["max-age"]) <= 7 * 86_400 + 900
    assert visitor.get("/dashboard").status_code == 200


def test_sign_in_over_tls_sets_a_host_cookie(api: Api) -> None:
    client, tls = api.app.test_client(), {"base_url": "https://localhost"}
    answer = client.post(SIGN_IN, data={"token": api.token()}, **tls)
    cookie = read_cookie(answer)
    # Browsers accept a `__Host-` cookie only with these attributes: no other host can set it.
    assert (cookie.key, cookie["secure"], cookie["path"], cookie["domain"]) == (
        "__Host-jobmon_session",
        True,
        "/",
        "",
    )
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Strict")
    assert client.get("/dashboard", **tls).status_code == 200
    assert client.get("/jobs", **tls).status_code == 401
    deleted = read_cookie(client.post("/dashboard/sign-out", **tls))
    assert (deleted.key, deleted["path"], deleted["max-age"]) == (cookie.key, "/", "0")
    assert client.get("/dashboard", **tls).status_code == 401


def test_cookie_that_another_host_may_have_set_is_not_read_over_tls(api: Api) -> None:
    client = api.app.test_client()
    client.set_cookie(SESSION_COOKIE, api.token(), path="/dashboard")
    assert client.get("/dashboard", base_url="https://localhost").status_code == 401
    assert client.get("/dashboard").status_code == 200


def test_sign_in_keeps_a_token_without_expiry_until_the_browser_closes(visitor: Viewer) -> None:
    answer = sign_in(visitor, sign_token())
    assert read_cookie(answer)["max-age"] == ""
    assert visitor.get("/dashboard").status_code == 200


def test_cookie_of_a_token_without_an_early_expiry_lasts_400_days(visitor: Viewer) -> None:
    assert int(read_cookie(sign_in(visitor, sign_token(exp=10**15)))["max-age"]) == 400 * 86_400


def test_sign_in_accepts_a_pasted_token_with_header_or_quotes(api: Api, visitor: Viewer) -> None:
    token = api.token()
    for pasted in (
        f" {token}\n",
        f"Bearer {token}",
        f"{token[:20]}\r\n  {token[20:]}",
        f'"{token}"',
        f"'{token}',",
        f"\u201c{token}\u201d",
        f"Authorization: Bearer {token}",
        f"authorization:bearer {token}",
        f'"Authorization": "Bearer {token}"',
        f"-H 'Authorization: Bearer {token}'",
        f'Bearer "{token}"',
    ):
        answer = sign_in(visitor, pasted)
        assert (answer.location, read_cookie(answer).value) == ("/dashboard", token), pasted


# Tokens, each with the reason that the page shows.
REFUSED_TOKENS = [
    (sign_token(exp=datetime.now(UTC) - timedelta(seconds=5)), "expired"),
    (sign_token(nbf=datetime.now(UTC) + timedelta(hours=1)), "Token not accepted"),
    (sign_token(type="refresh"), "Token not accepted"),
    (sign_token(sub=""), "Token not accepted"),
    (jwt.encode(ADMIN, "another secret, as long as it has to be", "HS256"), "Token not accepted"),
    (jwt.encode(ADMIN, None, "none"), "Token not accepted"),
    (sign_token()[:-3], "Token not accepted"),
    ("some.odd.token<b>", "Token not accepted"),
    ("é", "Token not accepted"),
    ("", "Paste a token"),
    (" \n", "Paste a token"),
    (sign_token(fill="x" * MAX_COOKIE_BYTES), "too long"),
]


def test_sign_in_refuses_an_invalid_token_with_the_reason(visitor: Viewer) -> None:
    for token, reason in REFUSED_TOKENS:
        answer = sign_in(visitor, token, then="/dashboard/jobs?status=dlq")
        # A redirect, so that the browser does not send the token again on a reload.
        assert answer.status_code == 303
        page = visitor.page(answer.location)
        assert reason in page.text
        assert read_cookie(answer) is None
        assert token.strip() == "" or token not in answer.location
        assert page.all("input", name="then") == [
            {"type": "hidden", "name": "then", "value": "/dashboard/jobs?status=dlq"}
        ]


def test_signed_token_with_an_invalid_expiry_is_refused_everywhere(
    api: Api, visitor: Viewer
) -> None:
    invalid: list[Any] = [None, [], {}, "soon", float("inf"), True]
    for exp in invalid:
        token = sign_token(exp=exp)
        assert "refused=token_" in sign_in(visitor, token).location, exp
        assert api.get("/jobs", token=token).status_code == 401, exp


def test_sign_in_with_a_form_full_of_quotes_does_not_block_the_process(visitor: Viewer) -> None:
    """Catches a search in quadratic time: while it runs, no other thread of the process can."""
    started_at = time.process_time()
    answer = sign_in(visitor, f"x{60_000 * ','}x")
    assert time.process_time() - started_at < 5  # seconds
    assert answer.location == "/dashboard/sign-in?refused=token_too_long"


def test_sign_in_with_a_form_that_is_too_large_is_413(visitor: Viewer) -> None:
    answer = sign_in(visitor, "x" * 1_000_000)
    assert answer.status_code == 413
    assert read_cookie(answer) is None


OWN_PATHS = [
    "/dashboard",
    "/dashboard/",
    "/dashboard/jobs",
    f"/dashboard/jobs?status=dlq&type=a%20b&created_from={DATE}T03:00:00Z",
    "/dashboard/jobs/a%3Fb%2Fc%23d%25",
    "/dashboard?text=//evil.example",
    "/dashboard#types",
    "/dashboard/jobs/a%2F..%2Fb..c",
    "/dashboard/jobs?type=a/../b",
]
OTHER_ADDRESSES = [
    "",
    "//evil.example",
    "//evil.example/dashboard",
    "///dashboard",
    "https://evil.example/dashboard",
    "https:/dashboard",
    "https:dashboard",
    "//evil.example@localhost/dashboard",
    "javascript:alert(1)//dashboard",
    "data:text/html,/dashboard",
    "/dashboardevil",
    "/dashboard.evil.example",
    "/dashboard@evil.example",
    "/dashboard\\evil",
    "\\\\evil.example/dashboard",
    "/\\evil.example/dashboard",
    "/dashboard/..",
    "/dashboard/../healthz",
    "/dashboard/../../docs?a=b",
    "/dashboard/jobs/./../../jobs",
    "/dashboard/%2e%2e/jobs",
    "/dashboard/.%2E//evil.example",
    "/dashboard/..//evil.example#/dashboard",
    "/dashboard/\r\nSet-Cookie: a=b",
    "/dashboard/\tjobs",
    "\t//evil.example",
    " /dashboard",
    "/dashboard/\u0085",
    "/dashboard/\u202e",
    "/jobs",
    "/",
    "dashboard",
    "//[",
    "http://[::1",
]


@pytest.mark.parametrize("then", OWN_PATHS)
def test_own_path_accepts_an_address_of_the_dashboard(idle_api: Api, then: str) -> None:
    with idle_api.app.test_request_context():
        assert own_path(then) == then


@pytest.mark.parametrize("then", OTHER_ADDRESSES)
def test_own_path_refuses_any_other_address(idle_api: Api, then: str) -> None:
    with idle_api.app.test_request_context():
        assert own_path(then) == ""


def test_sign_in_redirects_to_the_requested_page_and_never_to_another_site(
    api: Api, visitor: Viewer
) -> None:
    token = api.token()
    assert [sign_in(visitor, token, then).location for then in OWN_PATHS] == OWN_PATHS
    assert {sign_in(visitor, token, then).location for then in OTHER_ADDRESSES} == {"/dashboard"}
    for then in OTHER_ADDRESSES:
        page = visitor.page(f"/dashboard/sign-in?then={quote(then)}")
        assert page.all("input", name="then")[0]["value"] == "", then


OWN_FORMS: list[dict[str, str]] = [
    {},
    {"Origin": "http://localhost"},
    {"Sec_Fetch_Site": "same-origin", "Origin": "http://localhost"},
    # A proxy may change the Host; then only the browser knows the origin.
    {"Sec_Fetch_Site": "same-origin", "Origin": "https://jobs.example"},
]


def test_forms_of_the_dashboard_sign_in_and_out(api: Api, visitor: Viewer) -> None:
    for headers in OWN_FORMS:
        assert sign_in(visitor, api.token(), **headers).status_code == 303, headers
        answer = visitor.post(SIGN_OUT, **headers)
        assert (answer.status_code, answer.location) == (303, "/dashboard/sign-in"), headers
        cookie = read_cookie(answer)
        assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", "/")
        assert visitor.get("/dashboard").status_code == 401


def test_page_without_a_session_shows_the_sign_in_form(visitor: Viewer) -> None:
    for path in ("/dashboard", "/dashboard/jobs", "/dashboard/my", "/dashboard/jobs/x"):
        answer = visitor.get(path)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        page = Page(answer.text)
        assert page.all("form", action=SIGN_IN)
        assert "expired" not in page.text
        assert not page.all("nav")  # no links to pages that the viewer may not see


def test_expired_session_gives_the_reason_and_keeps_the_address(api: Api) -> None:
    viewer = signed_in(api, seconds=-60)
    for address, then in (
        ("/dashboard/jobs?status=dlq&type=a%20b", "/dashboard/jobs?status=dlq&type=a%20b"),
        ("/dashboard/my", "/dashboard/my"),
        ("/dashboard/jobs/a%3Fb%2Fc%23%25%E2%80%AE", "/dashboard/jobs/a%3Fb/c%23%25%E2%80%AE"),
        ('/dashboard?text="<b>', "/dashboard?text=%22%3Cb%3E"),
    ):
        page = viewer.page(address, 401)
        assert "Your session has expired" in page.text
        assert page.all("input", name="then")[0]["value"] == then


def test_session_with_a_malformed_token_is_no_longer_valid(api: Api) -> None:
    viewer = Viewer(api.app)
    viewer.client.set_cookie(SESSION_COOKIE, "a.b.c", path="/dashboard")
    assert "no longer valid" in viewer.page("/dashboard", 401).text


def test_part_without_a_session_reloads_the_page(visitor: Viewer) -> None:
    for path in ("/dashboard/overview", "/dashboard/charts", "/dashboard/jobs/x"):
        answer = visitor.get(path, part=True)
        assert (answer.status_code, answer.data) == (401, b"")
        assert answer.headers["HX-Refresh"] == "true"
        script_answer = visitor.get(path, X_Jobmon_Part="1")
        assert (script_answer.status_code, script_answer.data) == (401, b"")


def test_link_from_another_site_gets_a_page_that_repeats_the_request(visitor: Viewer) -> None:
    answer = visitor.get("/dashboard/jobs?status=dlq", Sec_Fetch_Site="cross-site")
    assert answer.status_code == 200
    page = Page(answer.text)
    assert page.all("meta", **{"http-equiv": "refresh"})
    assert page.addresses() == ["/dashboard/jobs?status=dlq"]
    assert visitor.get("/dashboard", Sec_Fetch_Site="same-origin").status_code == 401


def test_page_accepts_a_token_in_the_header(api: Api, ada: Viewer, visitor: Viewer) -> None:
    bearer = f"Bearer {api.token()}"
    assert visitor.get("/dashboard/jobs", Authorization=bearer).status_code == 200
    # The token in the header counts, not the cookie.
    assert ada.get("/dashboard/jobs", Authorization=bearer).status_code == 200
    assert ada.get("/dashboard/my", Authorization="Bearer a.b.c").status_code == 401
    # A password in the header is for a proxy: then the cookie counts.
    assert ada.get("/dashboard/my", Authorization="Basic cm9vdDpyb290").status_code == 200


def test_json_api_refuses_the_cookie(api: Api) -> None:
    viewer = Viewer(api.app)
    viewer.client.set_cookie(SESSION_COOKIE, api.token(), path="/")
    admin_paths = [f"/admin/jobs/{name}" for name in ("stats", "queue", "timeseries", "types")]
    for path in ("/jobs", "/jobs/x", *admin_paths):
        answer = viewer.get(path)
        assert answer.status_code == 401, path
        assert answer.json["error"]["code"] == "authentication_required"


def test_caller_who_may_not_see_the_overview_is_led_to_own_jobs(ada: Viewer) -> None:
    answer = ada.get("/dashboard")
    assert (answer.status_code, answer.location) == (302, "/dashboard/my")
    page = ada.page("/dashboard/my")
    addresses = [link["href"] for link in page.all("a") if "data-go" in link]
    assert addresses == ["/dashboard/my", "/docs"]


def test_page_of_own_jobs_contains_nothing_of_other_owners(ada: Viewer, watched: Any) -> None:
    watched.jobs.insert_many(
        [
            {"jobId": "adas-job", "createdBy": "ada", "type": "adas.type"},
            {"jobId": "bobs-job", "createdBy": "bob", "type": "bobs.type"},
        ]
    )
    text = ada.get("/dashboard/my").text
    assert "adas-job" in text
    assert "bob" not in text
    assert "adas.type" in ada.page("/dashboard/jobs/adas-job").text
    for query in ("?owner=bob", "?error_code=E", "?owner=bob&format=csv"):
        refused = ada.get(f"/dashboard/my{query}")
        assert refused.status_code == 422
        assert "bobs" not in refused.text
    export = ada.get("/dashboard/my?format=ndjson").text
    assert "adas-job" in export
    assert "bob" not in export


def test_page_over_the_rate_limit_is_429_with_the_time_to_wait(make_api: MakeApi) -> None:
    viewer = signed_in(make_api(rate_limit="2/hour"))
    assert [viewer.get("/dashboard/jobs").status_code for _ in range(2)] == [200, 200]
    answer = viewer.get("/dashboard/jobs")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 3_600
    assert f"Try again in {answer.headers['Retry-After']} s" in Page(answer.text).text
    assert viewer.get("/dashboard/jobs", part=True).headers["Retry-After"]
    assert viewer.get("/dashboard/sign-in").status_code == 200


def test_page_without_the_identity_provider_is_503_and_keeps_the_session(make_api: MakeApi) -> None:
    api = make_api(
        jwt_secret_key=None, jwt_jwks_url="http://127.0.0.1:1/keys", jwt_algorithm="ES256"
    )
    token = jwt.encode(ADMIN, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "one"})
    viewer = Viewer(api.app)
    refused = sign_in(viewer, token, then="/dashboard/jobs")
    assert read_cookie(refused) is None
    assert "cannot be checked now" in viewer.page(refused.location).text
    assert token not in refused.location
    viewer.client.set_cookie(SESSION_COOKIE, token, path="/dashboard")
    answer = viewer.get("/dashboard/jobs")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "Set-Cookie" not in answer.headers
    assert "cannot be checked now" in viewer.get("/dashboard/jobs").text


def test_form_refused_because_of_a_proxy_names_the_headers_to_pass_on(make_api: MakeApi) -> None:
    """Catches a refusal without advice if nginx passes on `$host`, which has no port."""
    visitor = Viewer(make_api(trusted_proxies=1).app)
    headers = {"Origin": "http://tools.example:8080", "Host": "tools.example"}
    refused = visitor.post(SIGN_IN, {"token": "x"}, **headers)
    assert refused.status_code == 403
    text = Page(refused.text).text
    assert "from another site" in text
    for name in ("Host", "X-Forwarded-Host", "JOBMON_TRUSTED_PROXIES"):
        assert name in text
    assert "administrator" not in text
    for forwarded in (
        {"Host": "tools.example:8080"},
        {"Host": "127.0.0.1:8000", "X-Forwarded-Host": "tools.example:8080"},
    ):
        assert visitor.post(SIGN_IN, {"token": "x"}, **headers | forwarded).status_code == 303
