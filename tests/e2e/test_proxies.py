"""jobmon behind real proxies with the configurations of docs/proxies.md, in a browser.

Catches a page, a file or a cookie outside of the path, a form that is refused, and a header that a
caller can forge.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from playwright.sync_api import (
    Browser,
    Page,
    Playwright,
    Request,
    Response,
    expect,
    sync_playwright,
)
from pymongo import MongoClient

from jobmon.demo.mongod import Mongod, free_port
from jobmon.settings import Settings

from ..conftest import DATE
from ..support.browser import CHROMIUM, FLAGS, new_context, require_file
from ..support.commands import database_uri, index_queue
from ..support.proxies import (
    UPSTREAM,
    VERIFY,
    Site,
    find_program,
    read_blocks,
    run_caddy,
    run_nginx,
    run_traefik,
)
from ..support.services import serving
from ..support.waiting import PATIENCE_S

PATH = "/jobmon"
# The settings of each service. Without JOBMON_PATH_PREFIX, the header X-Forwarded-Prefix counts.
SERVICES = {
    "root": {"JOBMON_PATH_PREFIX": "/"},
    "path": {"JOBMON_PATH_PREFIX": PATH},
    "header": {},
    "person": {
        "JOBMON_PATH_PREFIX": PATH,
        "JOBMON_TRUSTED_USER_HEADER": "X-Auth-Request-User",
        "JOBMON_TRUSTED_GROUPS_HEADER": "X-Auth-Request-Groups",
        "JOBMON_TRUSTED_HEADER_FROM": "127.0.0.1",
    },
}
PERSON_HEADING = "A proxy that names the person"  # in docs/sign-in.md


@dataclass(frozen=True)
class Case:
    """A site of a proxy with jobmon below `path`."""

    site: Site
    path: str = PATH
    has_proxy_sign_in: bool = False  # the proxy signs people in, in place of jobmon


@contextmanager
def run_verifier(token: str) -> Iterator[int]:
    """Run the service that a proxy asks who the caller is; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            self.send_response(200 if path in ("/verify", "/oauth2/auth") else 404)
            if path == "/verify":
                self.send_header("Authorization", f"Bearer {token}")
            elif "X-Nobody" in self.headers:
                self.send_header("X-Auth-Request-User", "nobody")
            else:
                self.send_header("X-Auth-Request-User", "root")
                self.send_header("X-Auth-Request-Groups", "staff,admin")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def fill_in(
    mongod: Mongod, admin_token: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str], str]]:
    """`fill_in(service, text)` puts the addresses of this service and of the verifier into text."""
    name = f"proxies_{free_port()}"
    uri = database_uri(mongod, name)
    index_queue(Settings(mongo_uri=uri))
    with MongoClient[dict[str, Any]](uri) as client, ExitStack() as cleanup:
        job = {"jobId": "the-one-job", "type": "mail", "status": "dlq", "createdBy": "ada"}
        client[name].jobs.insert_one(job | {"createdAt": DATE, "updatedAt": DATE})
        addresses = {}
        for service, settings in SERVICES.items():
            folder = tmp_path_factory.mktemp(service)
            web = cleanup.enter_context(
                serving(uri, folder, JOBMON_TRUSTED_PROXIES="1", **settings)
            )
            addresses[service] = f"127.0.0.1:{web.port}"
        verifier = f"127.0.0.1:{cleanup.enter_context(run_verifier(admin_token))}"
        yield lambda service, text: text.replace(UPSTREAM, addresses[service]).replace(
            VERIFY, verifier
        )
        client.drop_database(name)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    require_file(CHROMIUM, "no browser (apt-get install chromium-headless-shell)")
    with sync_playwright() as playwright:
        yield playwright


@contextmanager
def run_proxy(
    playwright: Playwright,
    name: str,
    run: Callable[[str, Sequence[Site], Path], AbstractContextManager[None]],
    cases: dict[str, Case],
    folder: Path,
) -> Iterator[tuple[Browser, dict[str, Case]]]:
    """Run a proxy; yields a browser that knows the addresses of its sites, and the cases."""
    program = find_program(name)
    if program is None:
        assert name != "nginx" or not os.environ.get("CI"), "apt-get install nginx-light"
        pytest.skip(f"no {name}")
    sites = [case.site for case in cases.values()]
    rules = [f"MAP {site.host} 127.0.0.1:{site.port}" for site in sites]
    flags = [*FLAGS, f"--host-resolver-rules={','.join(rules)}"]
    with run(program, sites, folder):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser, cases
        browser.close()


def make_nginx_cases(fill_in: Callable[[str, str], str]) -> dict[str, Case]:
    root, path, limits = read_blocks("nginx", "nginx")
    (forward_auth,) = read_blocks("nginx", "A proxy that signs people in")
    headers, _, _ = root.partition("location")
    http_1_0 = headers.replace("proxy_http_version 1.1;", "")
    (person,) = read_blocks("nginx", PERSON_HEADING, "sign-in")
    verify = forward_auth[forward_auth.index("location") :].replace("/verify", "/oauth2/auth")
    removing_path = path.replace(UPSTREAM, f"{UPSTREAM}/")
    path_in_header = http_1_0.replace('Prefix ""', f"Prefix {PATH}")
    assert http_1_0 != headers
    assert path != removing_path
    assert http_1_0 != path_in_header
    return {
        "root": Case(Site("https://root.example", free_port(), fill_in("root", root + limits)), ""),
        "root on a port": Case(
            Site("http://root-port.example:8080", free_port(), fill_in("root", root)), ""
        ),
        "path": Case(Site("https://path.example", free_port(), fill_in("path", headers + path))),
        "path removed, HTTP/1.0": Case(
            Site(
                "http://removed.example:8080",
                free_port(),
                fill_in("path", http_1_0 + removing_path),
            )
        ),
        "path in a header, HTTP/1.0": Case(
            Site(
                "https://header.example:8443",
                free_port(),
                fill_in("header", path_in_header + removing_path),
            )
        ),
        "forward auth": Case(
            Site(
                "https://auth.example:8443",
                free_port(),
                fill_in("path", headers + forward_auth + path),
            ),
            has_proxy_sign_in=True,
        ),
        "names the person": Case(
            Site(
                "http://named.example:8080",
                free_port(),
                fill_in("person", headers + person + verify + path),
            ),
            has_proxy_sign_in=True,
        ),
    }


def make_caddy_cases(fill_in: Callable[[str, str], str]) -> dict[str, Case]:
    root, path = read_blocks("caddyfile", "Caddy")
    (forward_auth,) = read_blocks("caddyfile", "A proxy that signs people in")
    (person,) = read_blocks("caddyfile", PERSON_HEADING, "sign-in")
    strip_prefix = "uri @jobmon strip_prefix /jobmon\n    reverse_proxy"
    removing_path = path.replace("reverse_proxy", strip_prefix)
    return {
        "root": Case(Site("https://root.example", free_port(), fill_in("root", root)), ""),
        "root on a port": Case(
            Site("http://root-port.example:8080", free_port(), fill_in("root", root)), ""
        ),
        "path on a port": Case(
            Site("http://path.example:8080", free_port(), fill_in("path", path))
        ),
        "path removed": Case(
            Site("https://removed.example:8443", free_port(), fill_in("path", removing_path))
        ),
        "forward auth": Case(
            Site("http://auth.example:8080", free_port(), fill_in("path", forward_auth)),
            has_proxy_sign_in=True,
        ),
        "names the person": Case(
            Site("http://named.example:8080", free_port(), fill_in("person", person)),
            has_proxy_sign_in=True,
        ),
    }


def make_traefik_cases(fill_in: Callable[[str, str], str]) -> dict[str, Case]:
    root, path = read_blocks("yaml", "Traefik")
    (forward_auth,) = read_blocks("yaml", "A proxy that signs people in")

    def make_site(origin: str, service: str, text: str) -> Site:
        return Site(origin, free_port(), yaml.safe_load(fill_in(service, text)))

    def add_sign_in(service: str, text: str) -> dict[str, Any]:
        configuration: dict[str, Any] = yaml.safe_load(fill_in(service, path))
        configuration["http"] |= yaml.safe_load(fill_in(service, text))["http"]
        return configuration

    keeping_path = path.replace("      middlewares: [jobmon]\n", "")
    assert keeping_path != path
    (person,) = read_blocks("yaml", PERSON_HEADING, "sign-in")
    return {
        "root": Case(make_site("https://root.example", "root", root), ""),
        "root on a port": Case(make_site("http://root-port.example:8080", "root", root), ""),
        "path": Case(make_site("https://path.example:8443", "path", keeping_path)),
        "path in a header": Case(make_site("http://header.example:8080", "header", path)),
        "path removed": Case(make_site("https://removed.example", "path", path)),
        "forward auth": Case(
            Site("https://auth.example", free_port(), add_sign_in("path", forward_auth)),
            has_proxy_sign_in=True,
        ),
        "names the person": Case(
            Site("http://named.example:8080", free_port(), add_sign_in("person", person)),
            has_proxy_sign_in=True,
        ),
    }


@pytest.fixture(scope="module")
def nginx(
    playwright: Playwright,
    fill_in: Callable[[str, str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Browser, dict[str, Case]]]:
    folder = tmp_path_factory.mktemp("nginx")
    with run_proxy(
        playwright, "nginx", run_nginx, make_nginx_cases(fill_in), folder
    ) as browser_and_cases:
        yield browser_and_cases


class Walk:
    """A visit to the pages of one case, from the sign-in to the sign-out; it records faults."""

    def __init__(self, browser: Browser, case: Case, token: str) -> None:
        self.case = case
        self.base = case.site.origin + case.path
        self.faults: list[str] = []
        self._token = token
        self._context = new_context(browser, ignore_https_errors=True)
        self._page = self._listen(self._context.new_page())

    def _listen(self, page: Page) -> Page:
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("requestfailed", self._check_failure)
        page.on("request", lambda request: self._check_address(request.url))
        page.on("response", self._check_status)
        return page

    def _check_failure(self, request: Request) -> None:
        # The browser aborts an update when it leaves the page.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.faults.append(f"failed: {request.url}")

    def _check_status(self, answer: Response) -> None:
        # A slow machine may be too busy for an update (503).
        if 400 <= answer.status < 500:
            self.faults.append(f"{answer.status}: {answer.url}")

    def _check_address(self, url: str) -> None:
        if url != self.base and not url.startswith(f"{self.base}/"):
            self.faults.append(f"outside of the path: {url}")

    def run(self) -> None:
        """Open the pages as a viewer does; raises AssertionError if a page has a fault."""
        page = self._page
        if self.case.has_proxy_sign_in:
            page.goto(f"{self.base}/")
        else:
            page.goto(f"{self.base}/dashboard/sign-in#access_token={self._token}")
            page.get_by_role("button", name="Sign in as root").click()
        expect(page).to_have_url(re.compile(rf"^{re.escape(self.base)}/dashboard\b"))
        with page.expect_response(re.compile(r"/dashboard/overview")) as update:
            pass
        assert update.value.status in (200, 304)
        page.get_by_role("link", name="Jobs", exact=True).click()
        page.get_by_role("link", name="the-one-job").click()
        expect(page).to_have_url(re.compile(rf"^{re.escape(self.base)}/dashboard/jobs/the-one-job"))
        page.locator("#theme").click()
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
        self._check_cookies()
        page.goto(f"{self.base}/queues/default/dashboard/my")
        page.keyboard.press("/")
        page.keyboard.type("the-one")
        expect(page.get_by_role("option").first).to_contain_text("the-one-job")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"/queues/default/dashboard/jobs/the-one-job"))
        if not self.case.has_proxy_sign_in:
            self._sign_out()
        self._context.close()
        assert self.faults == []

    def _sign_out(self) -> None:
        page = self._page
        page.locator("summary", has_text="root").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        assert page.url.startswith(self.base)
        assert [cookie["name"] for cookie in self._context.cookies()] == [
            self._name_cookie("theme")
        ]

    def _name_cookie(self, name: str) -> str:
        if not self.case.site.is_secure:
            return f"jobmon_{name}"
        return f"__Secure-jobmon_{name}" if self.case.path else f"__Host-jobmon_{name}"

    def _check_cookies(self) -> None:
        names = ["theme"] if self.case.has_proxy_sign_in else ["session", "theme"]
        cookies = sorted(self._context.cookies(), key=lambda cookie: str(cookie["name"]))
        assert [(cookie["name"], cookie["path"], cookie["secure"]) for cookie in cookies] == [
            (self._name_cookie(name), self.case.path or "/", self.case.site.is_secure)
            for name in names
        ]


NGINX_CASES = ["root", "path", "names the person"]
# Variants of these cases, which only `make test-long` runs.
NGINX_VARIANTS = ["root on a port", "path removed, HTTP/1.0", "path in a header, HTTP/1.0"]
NGINX_VARIANTS += ["forward auth"]


@pytest.mark.parametrize(
    "name",
    [*NGINX_CASES, *(pytest.param(name, marks=pytest.mark.long) for name in NGINX_VARIANTS)],
)
def test_pages_work_behind_nginx(
    nginx: tuple[Browser, dict[str, Case]], admin_token: str, name: str
) -> None:
    browser, cases = nginx
    assert cases.keys() == {*NGINX_CASES, *NGINX_VARIANTS}
    Walk(browser, cases[name], admin_token).run()


@pytest.mark.long
@pytest.mark.parametrize(
    ("proxy", "run", "make_cases"),
    [("caddy", run_caddy, make_caddy_cases), ("traefik", run_traefik, make_traefik_cases)],
    ids=["Caddy", "Traefik"],
)
def test_pages_work_and_headers_cannot_be_forged_behind_other_proxies(
    playwright: Playwright,
    fill_in: Any,
    admin_token: str,
    tmp_path: Path,
    proxy: str,
    run: Any,
    make_cases: Any,
) -> None:
    with run_proxy(playwright, proxy, run, make_cases(fill_in), tmp_path) as (browser, cases):
        for case in cases.values():
            Walk(browser, case, admin_token).run()
        for case in cases.values():
            if not case.site.is_secure and not case.has_proxy_sign_in:
                check_forged_headers(case)
        check_other_program(cases.values())
        check_forged_names(cases["names the person"])


def send_request(
    case: Case, path: str, method: str = "GET", **headers: str
) -> tuple[int, Any, str]:
    """Send a request to a site without TLS; returns status, headers and body of the answer."""
    connection = HTTPConnection("127.0.0.1", case.site.port, timeout=PATIENCE_S)
    sent_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    sent_headers |= {"Host": case.site.origin.partition("//")[2]}
    connection.request(method, path, headers=sent_headers)
    answer = connection.getresponse()
    status, text = answer.status, answer.read().decode()
    connection.close()
    return status, answer.headers, text


def check_forged_headers(case: Case) -> None:
    """Check that a caller who sends a proxy's headers gets the same answers as without them."""
    forged = {"X_Forwarded_Prefix": "/evil", "X_Forwarded_Host": "evil.example"}
    forged |= {"X_Forwarded_Proto": "https"}
    for path in ("/", "/dashboard/", "/dashboard", "/docs", "/openapi.json"):
        status, headers, text = send_request(case, case.path + path)
        answer = send_request(case, case.path + path, **forged)
        assert (answer[0], answer[1]["Location"], answer[2]) == (status, headers["Location"], text)
        assert status in (200, 302, 401)
        assert (headers["Location"] or case.path).startswith(case.path)
    sign_out = f"{case.path}/dashboard/sign-out"
    status, headers, _ = send_request(case, sign_out, "POST", Origin=case.site.origin, **forged)
    assert (status, headers["Location"]) == (303, f"{case.path}/dashboard/sign-in")
    assert headers["Set-Cookie"].startswith("jobmon_session=;")
    assert send_request(case, sign_out, "POST", Origin="http://evil.example", **forged)[0] == 403


def check_other_program(cases: Iterable[Case]) -> None:
    """Check that jobmon does not get the requests for a path that begins like its own."""
    for case in cases:
        if case.path and not case.site.is_secure:
            assert "X-Request-ID" in send_request(case, f"{case.path}/healthz")[1]
            assert "X-Request-ID" not in send_request(case, f"{case.path}itor")[1]


def check_forged_names(case: Case) -> None:
    """Check that the proxy replaces a person and groups that a caller names in headers."""
    page = f"{case.path}/dashboard"
    status, _, text = send_request(
        case, page, X_Auth_Request_User="mallory", X_Auth_Request_Groups="none"
    )
    assert (status, "mallory" in text) == (200, False)
    status, headers, _ = send_request(case, page, X_Nobody="1", X_Auth_Request_Groups="admin")
    assert (status, headers["Location"]) == (302, f"{page}/my")


def test_nginx_replaces_forged_headers(nginx: tuple[Browser, dict[str, Case]]) -> None:
    for case in nginx[1].values():
        if not case.site.is_secure and not case.has_proxy_sign_in:
            check_forged_headers(case)
    check_other_program(nginx[1].values())
    check_forged_names(nginx[1]["names the person"])


def test_nginx_with_http_1_0_passes_on_lists_files_and_redirects(
    nginx: tuple[Browser, dict[str, Case]], admin_token: str
) -> None:
    case = nginx[1]["path removed, HTTP/1.0"]
    bearer = {"Authorization": f"Bearer {admin_token}"}
    status, _, text = send_request(case, f"{PATH}/admin/jobs/queue", **bearer)
    assert (status, [job["jobId"] for job in json.loads(text)["data"]]) == (200, ["the-one-job"])
    status, _, text = send_request(case, f"{PATH}/admin/jobs/queue?format=csv", **bearer)
    assert (status, text.count("the-one-job")) == (200, 1)
    status, headers, _ = send_request(case, PATH)
    assert (status, headers["Location"]) == (301, f"{PATH}/")
