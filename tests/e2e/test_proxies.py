"""The configurations of docs/proxies.md behind real proxies, in a browser: catches a page, a file
or a cookie that leaves the path, a form that is refused, and a header that a caller can forge."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
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
# One service for each value of JOBMON_PATH_PREFIX; without a value a proxy's header counts.
SERVICES = {
    "root": {"JOBMON_PATH_PREFIX": "/"},
    "path": {"JOBMON_PATH_PREFIX": PATH},
    "header": {},
    "named": {
        "JOBMON_PATH_PREFIX": PATH,
        "JOBMON_TRUSTED_USER_HEADER": "X-Auth-Request-User",
        "JOBMON_TRUSTED_GROUPS_HEADER": "X-Auth-Request-Groups",
        "JOBMON_TRUSTED_HEADER_FROM": "127.0.0.1",
    },
}
NAMES = "A proxy that names the person"  # in docs/sign-in.md


@dataclass(frozen=True)
class Case:
    """A site, the path of jobmon on it, and whether the proxy signs people in."""

    site: Site
    path: str = PATH
    signs_in: bool = False


@contextmanager
def run_verifier(token: str) -> Iterator[int]:
    """Run the service that a proxy asks who the caller is. Yield its port."""

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
def add_service(
    mongod: Mongod, admin_token: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str], str]]:
    """A function that puts the address of a service into a configuration."""
    name = f"proxies_{free_port()}"
    uri = database_uri(mongod, name)
    index_queue(Settings(mongo_uri=uri))
    with MongoClient[dict[str, Any]](uri) as client, ExitStack() as running:
        job = {"jobId": "the-one-job", "type": "mail", "status": "dlq", "createdBy": "ada"}
        client[name].jobs.insert_one(job | {"createdAt": DATE, "updatedAt": DATE})
        addresses = {}
        for service, settings in SERVICES.items():
            folder = tmp_path_factory.mktemp(service)
            web = running.enter_context(
                serving(uri, folder, JOBMON_TRUSTED_PROXIES="1", **settings)
            )
            addresses[service] = f"127.0.0.1:{web.port}"
        verifier = f"127.0.0.1:{running.enter_context(run_verifier(admin_token))}"
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
    """Run a proxy. Yield a browser that resolves the hosts of its sites, and the cases."""
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


def make_nginx_cases(add_service: Callable[[str, str], str]) -> dict[str, Case]:
    root, path, limits = read_blocks("nginx", "nginx")
    (forward_auth,) = read_blocks("nginx", "A proxy that signs people in")
    headers, _, _ = root.partition("location")
    old = headers.replace("proxy_http_version 1.1;", "")
    (names,) = read_blocks("nginx", NAMES, "sign-in")
    verify = forward_auth[forward_auth.index("location") :].replace("/verify", "/oauth2/auth")
    removing = path.replace(UPSTREAM, f"{UPSTREAM}/")
    sends_path = old.replace('Prefix ""', f"Prefix {PATH}")
    assert old != headers
    assert path not in (removing, sends_path)
    return {
        "root": Case(
            Site("https://root.example", free_port(), add_service("root", root + limits)), ""
        ),
        "root on a port": Case(
            Site("http://root-port.example:8080", free_port(), add_service("root", root)), ""
        ),
        "path": Case(
            Site("https://path.example", free_port(), add_service("path", headers + path))
        ),
        "path removed, HTTP/1.0": Case(
            Site("http://removed.example:8080", free_port(), add_service("path", old + removing))
        ),
        "path in a header, HTTP/1.0": Case(
            Site(
                "https://header.example:8443",
                free_port(),
                add_service("header", sends_path + removing),
            )
        ),
        "forward auth": Case(
            Site(
                "https://auth.example:8443",
                free_port(),
                add_service("path", headers + forward_auth + path),
            ),
            signs_in=True,
        ),
        "named": Case(
            Site(
                "http://named.example:8080",
                free_port(),
                add_service("named", headers + names + verify + path),
            ),
            signs_in=True,
        ),
    }


def make_caddy_cases(add_service: Callable[[str, str], str]) -> dict[str, Case]:
    root, path = read_blocks("caddyfile", "Caddy")
    (forward_auth,) = read_blocks("caddyfile", "A proxy that signs people in")
    (names,) = read_blocks("caddyfile", NAMES, "sign-in")
    removing = path.replace("reverse_proxy", "uri @jobmon strip_prefix /jobmon\n    reverse_proxy")
    return {
        "root": Case(Site("https://root.example", free_port(), add_service("root", root)), ""),
        "root on a port": Case(
            Site("http://root-port.example:8080", free_port(), add_service("root", root)), ""
        ),
        "path on a port": Case(
            Site("http://path.example:8080", free_port(), add_service("path", path))
        ),
        "path removed": Case(
            Site("https://removed.example:8443", free_port(), add_service("path", removing))
        ),
        "forward auth": Case(
            Site("https://auth.example", free_port(), add_service("path", forward_auth)),
            signs_in=True,
        ),
        "named": Case(
            Site("http://named.example:8080", free_port(), add_service("named", names)),
            signs_in=True,
        ),
    }


def make_traefik_cases(add_service: Callable[[str, str], str]) -> dict[str, Case]:
    root, path = read_blocks("yaml", "Traefik")
    (forward_auth,) = read_blocks("yaml", "A proxy that signs people in")

    def site(origin: str, service: str, text: str) -> Site:
        return Site(origin, free_port(), yaml.safe_load(add_service(service, text)))

    def authenticating(service: str, text: str) -> dict[str, Any]:
        configuration: dict[str, Any] = yaml.safe_load(add_service(service, path))
        configuration["http"] |= yaml.safe_load(add_service(service, text))["http"]
        return configuration

    keeping = path.replace("middlewares: [jobmon], ", "")
    (names,) = read_blocks("yaml", NAMES, "sign-in")
    return {
        "root": Case(site("https://root.example", "root", root), ""),
        "root on a port": Case(site("http://root-port.example:8080", "root", root), ""),
        "path": Case(site("https://path.example:8443", "path", keeping)),
        "path in a header": Case(site("http://header.example:8080", "header", path)),
        "path removed": Case(site("https://removed.example", "path", path)),
        "forward auth": Case(
            Site("https://auth.example", free_port(), authenticating("path", forward_auth)),
            signs_in=True,
        ),
        "named": Case(
            Site("http://named.example:8080", free_port(), authenticating("named", names)),
            signs_in=True,
        ),
    }


@pytest.fixture(scope="module")
def nginx(
    playwright: Playwright,
    add_service: Callable[[str, str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Browser, dict[str, Case]]]:
    folder = tmp_path_factory.mktemp("nginx")
    with run_proxy(
        playwright, "nginx", run_nginx, make_nginx_cases(add_service), folder
    ) as browser_and_cases:
        yield browser_and_cases


class Walk:
    """A visit to the pages of one case, from the first page to the sign-out."""

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
        """Open the pages one after the other by clicks."""
        page = self._page
        if self.case.signs_in:
            page.goto(f"{self.base}/")
        else:
            page.goto(f"{self.base}/dashboard/sign-in#access_token={self._token}")
            page.get_by_role("button", name="Sign in as root").click()
        expect(page).to_have_url(re.compile(rf"^{re.escape(self.base)}/dashboard\b"))
        with page.expect_response(re.compile(r"/dashboard/overview")) as updated:
            pass
        assert updated.value.status in (200, 304)
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
        if not self.case.signs_in:
            self._sign_out()
        self._context.close()
        assert self.faults == []

    def _sign_out(self) -> None:
        page = self._page
        page.locator("summary", has_text="root").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        assert page.url.startswith(self.base)
        assert [cookie["name"] for cookie in self._context.cookies()] == [self._cookie("theme")]

    def _cookie(self, name: str) -> str:
        if not self.case.site.is_secure:
            return f"jobmon_{name}"
        return f"__Secure-jobmon_{name}" if self.case.path else f"__Host-jobmon_{name}"

    def _check_cookies(self) -> None:
        names = ["session", "theme"][self.case.signs_in :]
        cookies = sorted(self._context.cookies(), key=lambda cookie: str(cookie["name"]))
        assert [(each["name"], each["path"], each["secure"]) for each in cookies] == [
            (self._cookie(name), self.case.path or "/", self.case.site.is_secure) for name in names
        ]


NGINX_CASES = ["root", "root on a port", "path", "path removed, HTTP/1.0"]
NGINX_CASES += ["path in a header, HTTP/1.0", "forward auth", "named"]


@pytest.mark.parametrize("name", NGINX_CASES)
def test_pages_behind_nginx(
    nginx: tuple[Browser, dict[str, Case]], admin_token: str, name: str
) -> None:
    browser, cases = nginx
    assert list(cases) == NGINX_CASES
    Walk(browser, cases[name], admin_token).run()


@pytest.mark.long
@pytest.mark.parametrize(
    ("proxy", "run", "make_cases"),
    [("caddy", run_caddy, make_caddy_cases), ("traefik", run_traefik, make_traefik_cases)],
    ids=["Caddy", "Traefik"],
)
def test_pages_behind_other_proxies(
    playwright: Playwright,
    add_service: Any,
    admin_token: str,
    tmp_path: Path,
    proxy: str,
    run: Any,
    make_cases: Any,
) -> None:
    with run_proxy(playwright, proxy, run, make_cases(add_service), tmp_path) as (browser, cases):
        for case in cases.values():
            Walk(browser, case, admin_token).run()
        for case in cases.values():
            if not case.site.is_secure and not case.signs_in:
                check_forged_headers(case)
        check_forged_names(cases["named"])


def send_request(
    case: Case, path: str, method: str = "GET", **headers: str
) -> tuple[int, Any, str]:
    """Send a request to a site without TLS. Return status, headers and body of the answer."""
    connection = HTTPConnection("127.0.0.1", case.site.port, timeout=PATIENCE_S)
    sent_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    sent_headers |= {"Host": case.site.origin.partition("//")[2]}
    connection.request(method, path, headers=sent_headers)
    answer = connection.getresponse()
    status, text = answer.status, answer.read().decode()
    connection.close()
    return status, answer.headers, text


def check_forged_headers(case: Case) -> None:
    """Check that proxy headers which a caller sends change no answer."""
    forged = {"X_Forwarded_Prefix": "/evil", "X_Forwarded_Host": "evil.example"}
    forged |= {"X_Forwarded_Proto": "https"}
    for path in ("/", "/dashboard/", "/dashboard", "/docs", "/openapi.json"):
        status, headers, text = send_request(case, case.path + path)
        other_status, other_headers, other_text = send_request(case, case.path + path, **forged)
        assert (status, headers["Location"], text) == (
            other_status,
            other_headers["Location"],
            other_text,
        )
        assert status in (200, 302, 401)
        assert (headers["Location"] or case.path).startswith(case.path)
    sign_out = f"{case.path}/dashboard/sign-out"
    accepted = send_request(case, sign_out, "POST", Origin=case.site.origin, **forged)
    assert (accepted[0], accepted[1]["Location"]) == (303, f"{case.path}/dashboard/sign-in")
    assert accepted[1]["Set-Cookie"].startswith("jobmon_session=;")
    assert send_request(case, sign_out, "POST", Origin="http://evil.example", **forged)[0] == 403


def check_forged_names(case: Case) -> None:
    """Check that only the sign-in service names the person and the groups, never the caller."""
    page = f"{case.path}/dashboard"
    status, _, text = send_request(
        case, page, X_Auth_Request_User="mallory", X_Auth_Request_Groups="none"
    )
    assert (status, "mallory" in text) == (200, False)
    status, headers, _ = send_request(case, page, X_Nobody="1", X_Auth_Request_Groups="admin")
    assert (status, headers["Location"]) == (302, f"{page}/my")


def test_nginx_replaces_forged_headers(nginx: tuple[Browser, dict[str, Case]]) -> None:
    for case in nginx[1].values():
        if not case.site.is_secure and not case.signs_in:
            check_forged_headers(case)
    check_forged_names(nginx[1]["named"])


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
