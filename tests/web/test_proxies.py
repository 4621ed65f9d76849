"""jobmon below a path of a proxy: catches an address outside the path, a forwarded prefix that
changes links although its sender is not trusted or its form is bad, and a path that is served only
with the prefix or only without it."""

import re
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.settings.path_prefix import OWN_PATHS
from jobmon.web.proxies import external_address

from ..conftest import Api
from ..dashboard.conftest import signed_in
from ..support.pages import Page, Viewer
from ..support.queues import serve_queues

PREFIX = "/tools/jobmon"
TLS = {"base_url": "https://tools.example"}
# An attribute of a page whose value is a path on this host.
OWN_ADDRESS = re.compile(r"""=["'](/[^"' ]*)""")


@pytest.fixture
def make_api(watched: Any, make_settings: Callable[..., Settings], monkeypatch: Any) -> Any:
    monkeypatch.setattr("jobmon.rollup.series.count_activity", lambda *_: {})
    watched.jobs.insert_one({"jobId": "a/b", "type": "mail", "status": "dlq", "createdBy": "ada"})

    def make(**settings: Any) -> Api:
        return Api(create_app(make_settings(**settings), watched.client))

    return make


ACTION_SETTINGS = {
    "actions": True,
    "role_permissions": {"admin": frozenset({"ADMIN_DASHBOARD", "JOBS_RETRY", "NOTICES_MUTE"})},
}
PAGE_PATHS = [
    "/dashboard",
    "/dashboard/overview",
    "/dashboard/jobs",
    "/dashboard/jobs/a%2Fb",
    "/dashboard/my",
    "/dashboard/errors",
    "/dashboard/workers",
    "/dashboard/types/mail",
    "/dashboard/schedule",
    "/dashboard/recurring",
    "/dashboard/find?q=status:dlq",
    "/dashboard/find?q=mail",
    "/dashboard/queues",
    "/dashboard/actions",
    "/dashboard/actions/confirm?action=retry&id=a%2Fb",
    "/dashboard/sign-in",
    "/dashboard/missing",
    "/docs",
]


def read_addresses(html: str) -> set[str]:
    return set(OWN_ADDRESS.findall(html)) | {
        address for address in Page(html).addresses() if address.startswith("/")
    }


@pytest.mark.parametrize("is_prefix_removed", [True, False], ids=["prefix removed", "prefix kept"])
@pytest.mark.parametrize("queue", ["", "/queues/default"])
def test_every_address_of_a_page_begins_with_the_prefix(
    make_api: Any, queue: str, is_prefix_removed: bool
) -> None:
    viewer = signed_in(make_api(path_prefix=PREFIX, **ACTION_SETTINGS))
    start = queue if is_prefix_removed else PREFIX + queue
    for path in PAGE_PATHS:
        answer = viewer.get(start + path)
        assert answer.status_code in (200, 302, 404, 422), path
        addresses = read_addresses(answer.text) | {answer.headers.get("Location", PREFIX)}
        outside = {address for address in addresses if not f"{address}/".startswith(f"{PREFIX}/")}
        assert not outside, path
        assert answer.status_code == 302 or len(addresses) > 5, path


def test_every_linked_page_and_file_is_served_below_the_prefix(make_api: Any) -> None:
    viewer = signed_in(make_api(path_prefix=PREFIX, **ACTION_SETTINGS))
    pages = [viewer.get(path).text for path in PAGE_PATHS]
    form_addresses = {
        form["action"] for page in pages for form in Page(page).all("form", method="post")
    }
    linked = {address.partition("#")[0] for page in pages for address in Page(page).addresses()}
    for address in sorted(linked - form_addresses):
        if address.startswith("/"):
            assert viewer.get(address).status_code in (200, 302), address
    assert len(linked) > 60


def test_redirects_of_the_root_keep_the_prefix(make_api: Any) -> None:
    viewer = signed_in(make_api(path_prefix=PREFIX))
    for path in ("", "/", PREFIX, f"{PREFIX}/", f"{PREFIX}/dashboard/"):
        environ = {"PATH_INFO": path}  # unlike a URL, it may be empty
        location = viewer.client.get("/", environ_overrides=environ).headers["Location"]
        assert location in (f"{PREFIX}/dashboard", f"{PREFIX}/"), path
    for path in (f"{PREFIX}s/dashboard", "/tools/dashboard", f"{PREFIX}{PREFIX}/dashboard"):
        assert viewer.get(path).status_code == 404


def test_own_paths_are_the_first_parts_of_all_routes(make_api: Any) -> None:
    """Catches a new route that a prefix can hide: the setting only refuses OWN_PATHS."""
    routes = make_api(actions=True).app.url_map.iter_rules()
    assert {route.rule.split("/")[1] for route in routes} | {"queues"} == OWN_PATHS | {""}


def test_probes_and_the_api_answer_with_and_without_the_prefix(make_api: Any) -> None:
    api = make_api(path_prefix=PREFIX, metrics="open")
    for path in ("/healthz", "/readyz", "/metrics", "/admin/jobs/stats", "/jobs", "/queues"):
        for prefix in ("", PREFIX):
            assert api.get(prefix + path, token=api.token()).status_code == 200, prefix + path


def test_links_between_several_queues_keep_the_prefix(watched: Any, tmp_path: Path) -> None:
    api = serve_queues(watched, tmp_path, path_prefix=PREFIX)
    viewer = signed_in(api, role="chief")
    assert viewer.get(f"{PREFIX}/").location == f"{PREFIX}/dashboard/queues"
    all_queues = viewer.page(f"{PREFIX}/dashboard/queues")
    assert f"{PREFIX}/queues/payouts/dashboard" in all_queues.addresses()
    jobs = viewer.page(f"{PREFIX}/queues/payouts/dashboard/jobs")
    assert f"{PREFIX}/queues/payouts/dashboard/jobs/payouts?list=all" in jobs.addresses()
    assert f"{PREFIX}/queues/mails/dashboard/jobs" in jobs.addresses()
    for sheet in jobs.all("link", rel="stylesheet"):
        assert str(sheet["href"]).startswith(f"{PREFIX}/dashboard/static/v-")
    answer = viewer.get(f"{PREFIX}/dashboard/queues/find?q=payouts")
    assert answer.location == f"{PREFIX}/queues/payouts/dashboard"


def test_openapi_document_names_the_servers_below_the_prefix(make_api: Any) -> None:
    api = make_api(path_prefix=PREFIX)
    for path in ("/openapi.json", f"{PREFIX}/queues/default/openapi.json"):
        servers = [server["url"] for server in api.get(path).json["servers"]]
        assert servers == [PREFIX, f"{PREFIX}/queues/{{queue}}"]
    assert [server["url"] for server in make_api().get("/openapi.json").json["servers"]] == [
        "/",
        "/queues/{queue}",
    ]


def read_cookie(answer: Any) -> Any:
    (header,) = answer.headers.getlist("Set-Cookie")
    (cookie,) = SimpleCookie(header).values()
    return cookie


def test_session_cookie_is_sent_only_below_the_prefix(make_api: Any) -> None:
    api = make_api(path_prefix=PREFIX)
    for options, name, secure in (
        ({}, "jobmon_session", ""),
        (TLS, "__Secure-jobmon_session", True),
    ):
        client = api.app.test_client()
        form = {"token": api.token(), "then": f"{PREFIX}/queues/default/dashboard/jobs?page=1"}
        answer = client.post(f"{PREFIX}/dashboard/session", data=form, **options)
        assert answer.location == form["then"]
        cookie = read_cookie(answer)
        assert (cookie.key, cookie["path"], cookie["secure"]) == (name, PREFIX, secure)
        for path in ("/dashboard", "/queues/default/dashboard"):
            assert client.get(PREFIX + path, **options).status_code == 200
        assert client.get("/dashboard", **options).status_code == 401  # the browser sends no cookie
        deleted = read_cookie(client.post(f"{PREFIX}/dashboard/sign-out", **options))
        assert (deleted.key, deleted["path"], deleted["max-age"]) == (name, PREFIX, "0")
        assert client.get(f"{PREFIX}/dashboard", **options).status_code == 401


def test_cookie_of_the_theme_has_the_prefix_as_its_path(make_api: Any) -> None:
    client = make_api(path_prefix=PREFIX).app.test_client()
    (html,) = Page(client.get("/dashboard/sign-in", **TLS).text).all("html")
    name, path = html["data-theme-cookie"], html["data-cookie-path"]
    assert (name, path) == ("__Secure-jobmon_theme", PREFIX)
    client.set_cookie(str(name), "dark", path=PREFIX, domain="tools.example")
    (html,) = Page(client.get(f"{PREFIX}/dashboard/sign-in", **TLS).text).all("html")
    assert html["data-theme"] == "dark"


def test_sign_in_leads_back_to_a_page_below_the_prefix(make_api: Any) -> None:
    visitor = Viewer(make_api(path_prefix=PREFIX).app)
    page = visitor.page(f"{PREFIX}/dashboard/jobs?status=dlq", 401)
    (target_field,) = page.all("input", name="then")
    assert target_field["value"] == f"{PREFIX}/dashboard/jobs?status=dlq"


@pytest.mark.parametrize(
    "target",
    [
        "/dashboard",
        "//evil.example/dashboard",
        f"{PREFIX}//evil.example",
        f"{PREFIX}/../dashboard",
        f"{PREFIX}s/dashboard",
        f"{PREFIX}/other",
        f"https://evil.example{PREFIX}/dashboard",
    ],
)
def test_sign_in_never_leads_outside_the_prefix(make_api: Any, target: str) -> None:
    app: Flask = make_api(path_prefix=PREFIX).app
    client = app.test_client()
    token = Api(app).token()
    answer = client.post("/dashboard/session", data={"token": token, "then": target})
    assert answer.location == f"{PREFIX}/dashboard"


def find_prefix(api: Api, *values: str, path: str = "/dashboard/sign-in") -> str:
    """The prefix of a page's addresses, for a request with these X-Forwarded-Prefix headers."""
    headers = [("X-Forwarded-Prefix", value) for value in values]
    answer = api.client.get(path, headers=headers)
    assert answer.status_code == 200
    (form,) = Page(answer.text).all("form", id="sign-in")
    return str(form["action"]).removesuffix("/dashboard/session")


def test_forwarded_prefix_is_read_only_from_a_trusted_proxy(make_api: Any) -> None:
    no_proxy, one_proxy, two_proxies = (make_api(trusted_proxies=count) for count in (0, 1, 2))
    assert find_prefix(no_proxy, PREFIX) == ""
    assert find_prefix(one_proxy) == ""
    assert find_prefix(one_proxy, PREFIX) == PREFIX
    assert find_prefix(one_proxy, f"{PREFIX}/") == PREFIX
    assert find_prefix(two_proxies, PREFIX) == PREFIX  # only one of the two sets the header
    # The nearest proxy adds its value after the values that it received.
    assert find_prefix(one_proxy, f"/forged, {PREFIX}") == PREFIX
    assert find_prefix(one_proxy, "/forged", PREFIX) == PREFIX


def test_path_prefix_setting_overrides_the_header_of_a_proxy(make_api: Any) -> None:
    api = make_api(trusted_proxies=1, path_prefix=PREFIX)
    assert find_prefix(api, "/other") == PREFIX
    assert find_prefix(make_api(trusted_proxies=1, path_prefix=""), "/other") == ""


def test_path_that_a_proxy_has_removed_is_not_removed_again(make_api: Any) -> None:
    """Catches `/jobmon/jobmon/metrics`, which passes a proxy that forbids `/jobmon/metrics`."""
    api = make_api(trusted_proxies=1, metrics="open")
    headers = {"X-Forwarded-Prefix": PREFIX}
    assert api.client.get("/metrics", headers=headers).status_code == 200
    assert api.client.get(f"{PREFIX}/metrics", headers=headers).status_code == 404


BAD_PREFIXES = [
    "//evil.example",
    "/\\evil.example",
    "https://evil.example",
    "evil.example",
    "/a//b",
    "/a/../b",
    "/..",
    "/.",
    "/a/./b",
    '/"><script>alert(1)</script>',
    "/javascript:alert(1)",
    "/a b",
    "/a?b",
    "/a#b",
    "/%2f%2fevil.example",
    "/a;b",
    "/@evil.example",
    "/ä",
    "/" + "x" * 200,
]


@pytest.mark.parametrize("value", BAD_PREFIXES)
def test_forwarded_prefix_of_a_bad_form_is_ignored(make_api: Any, value: str) -> None:
    api = make_api(trusted_proxies=1)
    header = {"X-Forwarded-Prefix": value.encode().decode("latin-1")}
    for path in ("/", "/dashboard/", "/dashboard/sign-in", "/docs", "/openapi.json"):
        expected, answer = api.client.get(path), api.client.get(path, headers=header)
        assert answer.data == expected.data, path
        assert answer.headers.get("Location") == expected.headers.get("Location"), path


def test_external_address_has_scheme_host_port_and_prefix(make_api: Any) -> None:
    api, addresses = make_api(trusted_proxies=1, path_prefix=PREFIX), []
    api.app.add_url_rule("/here", view_func=lambda: addresses.append(external_address("/x")) or "")
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "tools.example:8443"}
    for path in ("/here", f"{PREFIX}/queues/default/here"):
        api.client.get(path, headers=headers)
        api.client.get(path)
    assert addresses == 2 * [f"https://tools.example:8443{PREFIX}/x", f"http://localhost{PREFIX}/x"]


def test_strict_transport_security_is_not_sent_below_a_prefix(make_api: Any) -> None:
    for prefix, expected in ((PREFIX, False), ("", True)):
        answer = make_api(path_prefix=prefix).client.get("/healthz", **TLS)
        assert ("Strict-Transport-Security" in answer.headers) is expected
