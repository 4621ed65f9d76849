"""The protection of browsers: catches an answer without its headers, a policy that allows foreign
scripts, a redirect to another site, trust in a Host header or an unknown proxy, and a cookie that
is sent without TLS."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mongomock
import pytest
from flask import Flask
from pymongo.errors import AutoReconnect

from jobmon import logs
from jobmon.app import create_app
from jobmon.dashboard.session import MAX_COOKIE_BYTES
from jobmon.settings import Settings
from jobmon.store.jobs import JobStore

from ..api import test_access as access
from ..conftest import SECRET, Api, unconfigured_log
from ..support.pages import PART
from ..support.request_log import capture_log
from .test_auth import CLAIMS, sign_token, time_from_now

Answers = list[tuple[str, Any]]  # each request, such as `GET /jobs`, with its answer
TLS = {"base_url": "https://jobs.example"}
JSON_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@pytest.fixture(scope="module")
def make_api() -> Iterator[Callable[..., Api]]:
    """A function that makes the service over one job; its arguments are settings."""
    uri = "mongodb://127.0.0.1/watched"
    client: Any = mongomock.MongoClient(uri, tz_aware=True)
    client.watched.jobs.insert_one({"jobId": "adas", "createdBy": "ada"})

    def make(**options: Any) -> Api:
        return Api(create_app(Settings(mongo_uri=uri, jwt_secret_key=SECRET, **options), client))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jobmon.rollup.series.count_activity", lambda *_: {})  # not in mongomock
        yield make


@pytest.fixture(scope="module")
def app(make_api: Callable[..., Api]) -> Flask:
    return make_api().app


@pytest.fixture
def api(app: Flask) -> Api:
    """The shared service with a new client, which has no cookies of other tests."""
    return Api(app)


ROUTES = [
    path.format("adas")
    for routes in (
        access.ANYONE_ROUTES,
        access.SIGNED_IN_ROUTES,
        access.ADMIN_ROUTES,
        access.OWNER_ROUTES,
        access.PAGES_OF_SIGNED_IN,
        access.PAGES_OF_ADMINS,
        access.PAGES_OF_OWNERS,
    )
    for path in routes.values()
]
# Requests besides the GET and HEAD of all routes: (method, path, options of the client).
OTHER_REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/nope", {}),
    ("GET", "/jobs/", {}),
    ("GET", "/", {"environ_overrides": {"PATH_INFO": "//jobs"}}),
    ("GET", "/", {"environ_overrides": {"PATH_INFO": ""}}),
    ("GET", "/jobs?page=nonsense", {}),
    ("GET", "/admin/jobs/queue?page=nonsense", {}),
    ("GET", "/admin/jobs/queue?format=csv", {}),
    ("GET", "/admin/jobs/queue?format=ndjson", {}),
    ("GET", "/dashboard/jobs?format=csv", {}),
    ("GET", "/dashboard/jobs?page=nonsense", {}),
    ("GET", "/dashboard/overview", {"headers": PART}),
    ("GET", "/dashboard/static/none.js", {}),
    ("GET", "/dashboard/static/../settings.py", {}),
    ("GET", "/dashboard/sign-in", {"headers": {"Sec-Fetch-Site": "cross-site"}}),
    ("GET", "/dashboard/jobs", {"headers": {"Sec-Fetch-Site": "cross-site"}}),
    ("POST", "/dashboard/session", {}),
    ("POST", "/dashboard/session", {"data": {"token": "x.y.z"}}),
    ("POST", "/dashboard/session", {"data": {"token": "x" * 1_000_000}}),
    ("POST", "/dashboard/session", {"headers": {"Origin": "https://evil.example"}}),
    ("POST", "/dashboard/sign-out", {}),
    *((method, "/jobs", {}) for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")),
    *((method, "/dashboard", {}) for method in ("POST", "OPTIONS", "PROPFIND", "X")),
]


def request_all(api: Api, **options: Any) -> Answers:
    """The answers to ROUTES and OTHER_REQUESTS, with and without a token; to HEAD with a token."""
    admin = {"Authorization": f"Bearer {api.token()}"}
    requests = [("GET", path, {"headers": headers}) for path in ROUTES for headers in ({}, admin)]
    requests += [("HEAD", path, {"headers": admin}) for path in ROUTES]
    requests += OTHER_REQUESTS + [
        (method, path, fields | {"headers": fields.get("headers", {}) | admin})
        for method, path, fields in OTHER_REQUESTS
    ]
    client = api.app.test_client(use_cookies=False)
    return [
        (f"{method} {path}", client.open(path, method=method, **fields, **options))
        for method, path, fields in requests
    ]


@pytest.fixture(scope="module")
def answers(app: Flask) -> Answers:
    """The answers to all requests, sent once for all tests."""
    return request_all(Api(app))


def test_every_answer_has_the_protecting_headers(answers: Answers) -> None:
    statuses = set()
    for request, answer in answers:
        statuses.add(answer.status_code)
        headers = answer.headers
        assert headers["X-Content-Type-Options"] == "nosniff", request
        assert headers["Referrer-Policy"] == "same-origin", request
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin", request
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin", request
        assert len(headers.getlist("Content-Security-Policy")) == 1, request
        assert "Strict-Transport-Security" not in headers, request
        assert not [name for name, _ in headers if name.startswith("Access-Control-")], request
        assert "Server" not in headers, request
        assert "X-Powered-By" not in headers, request
        if answer.data and answer.status_code != 304:
            assert headers["Content-Type"], request
    # 429: an export while another one is not closed. 503: a route that needs a collector.
    assert statuses == {200, 302, 303, 308, 401, 403, 404, 405, 413, 422, 429, 503}


def test_error_has_the_protecting_headers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for fault, status in ((RuntimeError("x"), 500), (AutoReconnect("x"), 503)):

        def fail(*_: Any, fault: Exception = fault, **__: Any) -> Any:
            raise fault

        monkeypatch.setattr(JobStore, "get_job", fail)
        for path in ("/jobs/adas", "/dashboard/jobs/adas"):
            answer = api.get(path, token=api.token())
            assert answer.status_code == status
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Cache-Control"] == "no-store"


def parse_policy(answer: Any) -> dict[str, list[str]]:
    parts = [part.split() for part in answer.headers["Content-Security-Policy"].split(";")]
    return {part[0]: part[1:] for part in parts}


def test_no_policy_allows_foreign_scripts_or_frames(answers: Answers) -> None:
    for request, answer in answers:
        policy = parse_policy(answer)
        assert policy["default-src"] == ["'none'"], request
        assert policy["base-uri"] == ["'none'"], request
        assert policy["frame-ancestors"] == ["'none'"], request
        assert policy["form-action"] in (["'none'"], ["'self'"]), request
        # Only jobmon's origin is allowed; the style sheet of /docs also contains icons.
        is_docs = request.split()[1] == "/docs"
        allowed = {"'none'", "'self'"} | ({"data:"} if is_docs else set())
        assert {source for sources in policy.values() for source in sources} <= allowed, request
        assert policy.get("script-src", ["'none'"]) in (["'none'"], ["'self'"]), request
        if request.split()[1].startswith(("/jobs", "/admin", "/metrics", "/healthz", "/nope")):
            assert answer.headers["Content-Security-Policy"] == JSON_POLICY, request


def test_pages_have_nothing_inline(answers: Answers) -> None:
    pages = [answer for _, answer in answers if answer.mimetype == "text/html"]
    assert len(pages) > 20
    for answer in pages:
        assert not re.search(r"<script(?![^>]*\bsrc=)", answer.text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", answer.text)


def test_strict_transport_security_is_sent_over_tls(api: Api) -> None:
    for request, answer in request_all(api, **TLS):
        values = answer.headers.getlist("Strict-Transport-Security")
        assert values == ["max-age=31536000; includeSubDomains"], request


def test_only_static_files_may_be_cached(answers: Answers) -> None:
    for request, answer in answers:
        cache_control = answer.headers["Cache-Control"]
        if "/dashboard/static/" in request and request.endswith("/jobmon.css"):
            assert cache_control in ("no-cache", "public, max-age=31536000, immutable"), request
        else:
            assert cache_control == "no-store", request


def test_texts_have_a_charset(answers: Answers) -> None:
    for request, answer in answers:
        if answer.data and answer.mimetype.startswith("text/"):
            assert "charset=utf-8" in answer.content_type.lower(), request


EVIL = "evil.example"


def test_no_answer_contains_the_host_header(api: Api) -> None:
    for host_headers in ({"Host": EVIL}, {"Host": "localhost", "X-Forwarded-Host": EVIL}):
        for path in [*ROUTES, "", "//jobs", "//dashboard", "/jobs//x", "///", "/dashboard/jobs//a"]:
            for bearer in ({}, {"Authorization": f"Bearer {api.token()}"}):
                raw_path = {"environ_overrides": {"PATH_INFO": path}}
                answer = api.client.get("/", headers=host_headers | bearer, **raw_path)
                assert EVIL not in answer.text + str(answer.headers), path


def test_redirect_never_leads_to_another_site(api: Api) -> None:
    targets = [f"//{EVIL}", f"/\\{EVIL}", f"https://{EVIL}", f"/dashboard\r\nLocation: //{EVIL}"]
    admin, locations = {"Authorization": f"Bearer {api.token()}"}, []
    for target in targets:
        for name in ("then", "next", "url", "redirect", "return_to"):
            for path in ("/", "/dashboard/", "/dashboard", "/dashboard/sign-in"):
                answer = api.client.get(path, query_string={name: target}, headers=admin)
                locations.append(answer.headers.get("Location", "/dashboard"))
            form = {"token": api.token(), name: target}
            locations.append(api.client.post("/dashboard/session", data=form).location)
            locations.append(api.client.post("/dashboard/sign-out", data=form).location)
    for path in (
        f"//{EVIL}/",
        f"/{EVIL}//",
        f"/%2f{EVIL}",
        f"/dashboard/%0d%0aLocation:%20//{EVIL}",
    ):
        raw_path = {"environ_overrides": {"PATH_INFO": path}}
        location = api.client.get("/", **raw_path).headers.get("Location", "")
        assert EVIL not in location, path
    assert set(locations) == {"/dashboard", "/dashboard/sign-in"}


# The headers that a proxy adds.
ONE_PROXY = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "jobs.example",
}


def capture_lines(request: Callable[[], Any]) -> list[Any]:
    """The lines that a request logs."""
    with capture_log() as lines:
        request()
    return lines


class SeenRequest(NamedTuple):
    """How a request looks to jobmon; `accepts_form`: a form of https://jobs.example is accepted."""

    address: str
    uses_tls: bool
    accepts_form: bool


DIRECT = SeenRequest("127.0.0.1", uses_tls=False, accepts_form=False)
BEHIND_PROXY = SeenRequest("203.0.113.9", uses_tls=True, accepts_form=True)


def send_headers(api: Api, headers: dict[str, str]) -> SeenRequest:
    """Send requests with these headers; returns how jobmon sees them."""
    answers: list[Any] = []
    (line,) = capture_lines(lambda: answers.append(api.client.get("/jobs", headers=headers)))
    uses_tls = "Strict-Transport-Security" in answers[0].headers
    origin = {"Origin": "https://jobs.example"}
    sign_out = api.client.post("/dashboard/sign-out", headers=headers | origin)
    return SeenRequest(line["address"], uses_tls, sign_out.status_code == 303)


def test_forwarded_headers_are_trusted_only_from_the_set_number_of_proxies(
    make_api: Callable[..., Api],
) -> None:
    no_proxy, one_proxy, two_proxies = (make_api(trusted_proxies=count) for count in (0, 1, 2))
    assert send_headers(no_proxy, ONE_PROXY) == DIRECT
    assert send_headers(one_proxy, ONE_PROXY) == BEHIND_PROXY
    assert send_headers(one_proxy, {}) == DIRECT
    # Values that the caller sent, which are before the proxy's values, are not trusted.
    forged = {name: f"10.6.6.6, {value}" for name, value in ONE_PROXY.items()}
    forged["X-Forwarded-Proto"] = "http, https"
    assert send_headers(one_proxy, forged) == BEHIND_PROXY
    chain = {name: f"{value}, 10.0.0.1" for name, value in ONE_PROXY.items()}
    chain["X-Forwarded-Proto"] = "https, http"
    assert send_headers(two_proxies, chain) == BEHIND_PROXY
    # Other headers with the same meaning are not trusted.
    headers = {"X-Forwarded-Ssl": "on", "X-Forwarded-Scheme": "https", "Front-End-Https": "on"}
    headers |= {"Forwarded": "for=10.6.6.6;proto=https;host=jobs.example", "X-Real-Ip": "10.6.6.6"}
    for api in (no_proxy, one_proxy):
        assert send_headers(api, headers) == DIRECT


def test_session_cookie_is_secure_behind_a_proxy_that_ends_tls(
    make_api: Callable[..., Api],
) -> None:
    for proxies, cookie in ((0, "jobmon_session"), (1, "__Host-jobmon_session")):
        api = make_api(trusted_proxies=proxies)
        form = {"token": api.token()}
        answer = api.client.post("/dashboard/session", data=form, headers=ONE_PROXY)
        (header,) = answer.headers.getlist("Set-Cookie")
        assert header.startswith(f"{cookie}=")
        assert ("; Secure" in header) is bool(proxies)


def test_session_cookie_of_the_longest_token_is_small_enough_for_browsers(api: Api) -> None:
    max_fill = MAX_COOKIE_BYTES * 3 // 4 - 100  # base64 makes it longer by a third
    longest = next(
        token
        for size in range(max_fill, 0, -1)
        if len(token := sign_token(CLAIMS | {"f": "x" * size})) <= MAX_COOKIE_BYTES
    )
    answer = api.client.post("/dashboard/session", data={"token": longest}, **TLS)
    name, _, value = answer.headers["Set-Cookie"].partition(";")[0].partition("=")
    assert len(longest) > MAX_COOKIE_BYTES - 10
    assert len(name) + len(value) <= 4_096


FOREIGN_FORMS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "CROSS-SITE"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://["},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost:8000"},
    {"Origin": "http://localhost@evil.example"},
    {"Origin": "localhost"},
]


@pytest.mark.parametrize("headers", FOREIGN_FORMS, ids=repr)
def test_another_site_cannot_sign_in_or_out(api: Api, headers: dict[str, str]) -> None:
    for path in sorted(access.FORM_ROUTES):
        answer = api.client.post(path, data={"token": api.token()}, headers=headers)
        assert answer.status_code == 403, path
        assert "Set-Cookie" not in answer.headers, path


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_only_a_post_sends_a_form(api: Api, method: str) -> None:
    for path in sorted(access.FORM_ROUTES):
        answer = api.client.open(path, method=method, query_string={"token": api.token()})
        assert answer.status_code in {401, 404, 405}, path
        assert "Set-Cookie" not in answer.headers, path


def test_too_large_form_is_no_server_error(api: Api) -> None:
    for path in sorted(access.FORM_ROUTES):
        length = {"Content-Length": str(10**12)}
        form = "application/x-www-form-urlencoded"
        answer = api.client.post(path, headers=length, data=b"token=x", content_type=form)
        assert answer.status_code in {303, 401, 413}, path  # sign-out ignores its body
    fields = "&".join(f"field{index}=x" for index in range(2_000))
    assert api.client.post("/dashboard/session", data=fields).status_code == 303


def test_sign_ins_and_refusals_are_logged_without_the_token(api: Api) -> None:
    ada = api.token("ada\nFAKE LINE", "user")
    expired = sign_token(CLAIMS | {"exp": time_from_now(hours=-1)})
    sign_in, form = "/dashboard/session", {"token": ada}
    subject = "ada\nFAKE LINE"
    # Each request, with the method, route, status, code and user of its line.
    requests: list[tuple[Callable[[], Any], tuple[str, str, int, str | None, str | None]]] = [
        (
            lambda: api.get("/jobs"),
            ("GET", "/jobs", 401, "authentication_required", None),
        ),
        (
            lambda: api.get("/jobs/x", token=expired),
            ("GET", "/jobs/<anything:job_id>", 401, "token_expired", None),
        ),
        (
            lambda: api.get("/dashboard/my", token="x.y.z"),
            ("GET", "/dashboard/my", 401, "token_invalid", None),
        ),
        (
            lambda: api.get("/admin/jobs/stats", token=ada),
            ("GET", "/admin/jobs/stats", 403, "permission_denied", subject),
        ),
        (
            lambda: api.get("/jobs/bobs", token=ada),
            ("GET", "/jobs/<anything:job_id>", 403, "access_denied", subject),
        ),
        (
            lambda: api.get("/jobs", token=ada, page="x"),
            ("GET", "/jobs", 422, "validation_error", subject),
        ),
        (
            lambda: api.client.post(sign_in, data={"token": "x.y.z"}),
            ("POST", sign_in, 303, "token_invalid", None),
        ),
        (
            lambda: api.client.post(sign_in, data=form, headers={"Origin": "https://evil.example"}),
            ("POST", sign_in, 403, "foreign_form", None),
        ),
        (lambda: api.client.post(sign_in, data=form), ("POST", sign_in, 303, None, subject)),
    ]
    for request, expected in requests:
        (line,) = capture_lines(request)
        values = tuple(line.get(name) for name in ("method", "route", "status", "code", "user"))
        assert values == expected
        assert line["address"] == "127.0.0.1"
        assert "eyJ" not in str(line)


def test_subject_cannot_forge_a_log_line(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    with unconfigured_log():
        logs.configure("INFO")
        api.get("/jobs", token=api.token('ada\n{"event": "forged"}\r\x1b[2K', "user"))
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["user"] == 'ada\n{"event": "forged"}\r\x1b[2K'
    assert json.loads(line)["timestamp"].endswith("Z")
    assert "\x1b" not in line
