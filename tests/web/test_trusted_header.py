"""A person whom a proxy names in a header: catches a name that is accepted from another sender."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from jobmon.app import create_app
from jobmon.settings import Settings, SettingsError

from ..conftest import Api
from ..support.request_log import capture_log

PROXY = "10.1.2.3"
SETTINGS = {
    "trusted_user_header": "X-Auth-User",
    "trusted_groups_header": "X-Auth-Groups",
    "trusted_header_from": ("10.1.2.0/24", "2001:db8::7"),
    "trusted_proxies": 1,
}
AS_ROOT = {"X-Auth-User": "root", "X-Auth-Groups": "staff, admin"}
PAGE, ROUTE = "/dashboard/jobs", "/admin/jobs/queue"


@pytest.fixture
def make_api(watched: Any, make_settings: Callable[..., Settings]) -> Callable[..., Api]:
    """A function that makes the service with trusted headers; its arguments replace settings."""

    def make(**settings: Any) -> Api:
        return Api(create_app(make_settings(**SETTINGS | settings), watched.client))

    return make


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api()


def send(
    api: Api, headers: dict[str, str] = AS_ROOT, peer: str = PROXY, path: str = PAGE, **options: Any
) -> Any:
    """Send a request on a connection from the address `peer`; returns the answer."""
    environment = {"REMOTE_ADDR": peer}
    return api.client.get(path, headers=headers, environ_overrides=environment, **options)


def test_person_named_by_the_proxy_has_the_roles_of_their_groups(api: Api) -> None:
    page = send(api)
    assert page.status_code == 200
    assert '<bdi class="who">root</bdi>' in page.text
    assert "Sign out" not in page.text  # the session is the proxy's
    assert "Set-Cookie" not in page.headers
    assert send(api, {"X-Auth-User": "ada", "X-Auth-Groups": "staff"}).status_code == 403
    assert send(api, {"X-Auth-User": "ada"}).status_code == 403
    assert send(api, {"X-Auth-User": "ada"}, path="/dashboard/my").status_code == 200


@pytest.mark.parametrize(
    "peer",
    [
        "203.0.113.9",
        "10.1.3.3",
        "127.0.0.1",
        "2001:db8::8",
        "",
        "unix",
        "10.1.2.3, 10.1.2.3",
    ],
)
def test_name_from_an_untrusted_address_is_ignored(api: Api, peer: str) -> None:
    assert send(api, peer=peer).status_code == 401
    # Headers in which the caller claims the proxy's address change nothing.
    forged = AS_ROOT | {"X-Forwarded-For": PROXY, "Forwarded": f"for={PROXY}", "X-Real-Ip": PROXY}
    assert send(api, forged, peer=peer).status_code == 401


@pytest.mark.parametrize("peer", [PROXY, "::ffff:10.1.2.3", "2001:db8::7"])
def test_name_from_the_proxy_is_accepted_for_any_caller_address(api: Api, peer: str) -> None:
    assert send(api, AS_ROOT | {"X-Forwarded-For": "203.0.113.9"}, peer=peer).status_code == 200


@pytest.mark.parametrize(
    "user",
    [
        "",
        " ",
        "eve,root",  # a header that was sent twice
        "root, ",
        "ro\u00adot".encode().decode("latin-1"),
        "ro\tot",
        "\u00e9",  # Latin-1, not UTF-8
        "x" * 1_001,
    ],
    ids=["empty", "space", "twice", "comma", "invisible", "tab", "latin1", "long"],
)
def test_malformed_name_is_refused(api: Api, user: str) -> None:
    assert send(api, AS_ROOT | {"X-Auth-User": user}).status_code == 401


def test_name_in_utf8_is_read(api: Api) -> None:
    header = "Zoë".encode().decode("latin-1")
    assert '<bdi class="who">Zoë</bdi>' in send(api, AS_ROOT | {"X-Auth-User": header}).text


def test_person_in_many_groups_keeps_the_roles_of_all(api: Api) -> None:
    """Catches a person without a role because the header with the groups is long."""
    groups = ",".join([*(str(UUID(int=number)) for number in range(200)), "admin"])
    assert send(api, {"X-Auth-User": "root", "X-Auth-Groups": groups}).status_code == 200


def test_groups_that_cannot_be_read_are_ignored_and_logged_once(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    for groups in ("admin, \u00e9", "admin, ro\u00adot".encode().decode("latin-1")):
        headers = {"X-Auth-User": "root", "X-Auth-Groups": groups}
        assert send(api, headers).status_code == 403
        assert send(api, headers, path="/dashboard/my").status_code == 200
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert messages == ["groups are ignored: X-Auth-Groups is not plain text in UTF-8"]


def test_header_is_used_only_for_pages(api: Api) -> None:
    """Catches a way for another site to use the JSON API with the proxy's session."""
    for path in (ROUTE, "/jobs", "/metrics", "/queues"):
        assert send(api, path=path).status_code == 401, path


def test_forms_of_other_sites_are_refused(make_api: Callable[..., Api]) -> None:
    permissions = {"admin": frozenset({"ADMIN_DASHBOARD", "JOBS_RETRY"})}
    api = make_api(actions=True, role_permissions=permissions)
    for origin, status in (
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
    ):
        answer = api.client.post(
            "/dashboard/actions",
            headers=AS_ROOT | origin,
            environ_overrides={"REMOTE_ADDR": PROXY},
            data={"action": "retry", "id": "x"},
        )
        assert answer.status_code == status, origin


def test_token_overrides_the_header_and_the_header_overrides_the_cookie(api: Api) -> None:
    bearer = {"Authorization": f"Bearer {api.token('ada', 'user')}"}
    assert send(api, AS_ROOT | bearer).status_code == 403
    assert send(api, AS_ROOT | {"Authorization": "Bearer a.b.c"}).status_code == 401
    assert send(api, AS_ROOT | {"Authorization": "Basic cm9vdDpyb290"}).status_code == 200
    api.client.set_cookie("jobmon_session", api.token("ada", "user"))
    assert send(api).status_code == 200
    # Without a trusted header, the cookie counts: ada may not see this page.
    assert send(api, {}).status_code == 403
    assert send(api, peer="203.0.113.9").status_code == 403


def test_headers_not_in_the_settings_are_ignored(make_api: Callable[..., Api]) -> None:
    no_headers = {"trusted_user_header": None, "trusted_groups_header": None}
    assert send(make_api(**no_headers, trusted_header_from=())).status_code == 401
    api_without_groups = make_api(trusted_groups_header=None)
    assert send(api_without_groups).status_code == 403
    assert send(api_without_groups, path="/dashboard/my").status_code == 200


def test_header_ignores_the_settings_about_claims(make_api: Callable[..., Api]) -> None:
    claim_paths = {"role_claim": "realm_access.roles", "subject_claim": "email"}
    page = send(make_api(**claim_paths))
    assert page.status_code == 200
    assert '<bdi class="who">root</bdi>' in page.text


def test_log_names_the_reason_of_a_refusal(api: Api) -> None:
    with capture_log() as lines:
        send(api, peer="203.0.113.9")
        send(api)
        send(api, {})
    assert [(line["status"], line.get("reason"), line["user"]) for line in lines] == [
        (401, "proxy", None),
        (200, None, "root"),
        (401, None, None),
    ]


ENVIRONMENT = {
    "MONGO_URI": "mongodb://db/shop",
    "JWT_SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "TRUSTED_USER_HEADER": "X-Forwarded-User",
    "TRUSTED_GROUPS_HEADER": "X-Forwarded-Groups",
    "TRUSTED_HEADER_FROM": "10.0.0.0/24, 2001:db8::1",
    "TRUSTED_PROXIES": "1",
}


@pytest.fixture
def read_settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    def read(**environment: str) -> Settings:
        for name, value in (ENVIRONMENT | environment).items():
            monkeypatch.setenv(f"JOBMON_{name}", value)
        return Settings.from_env()

    return read


def test_environment_sets_headers_and_addresses(read_settings: Any) -> None:
    settings = read_settings()
    assert settings.trusted_user_header == "X-Forwarded-User"
    assert settings.trusted_groups_header == "X-Forwarded-Groups"
    assert settings.trusted_header_from == ("10.0.0.0/24", "2001:db8::1")
    empty = dict.fromkeys(("TRUSTED_USER_HEADER", "TRUSTED_GROUPS_HEADER"), "")
    assert read_settings(**empty, TRUSTED_HEADER_FROM="").trusted_user_header is None


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TRUSTED_HEADER_FROM": ""}, "JOBMON_TRUSTED_USER_HEADER: also set JOBMON_TRUSTED_HEADER"),
        ({"TRUSTED_PROXIES": "0"}, "JOBMON_TRUSTED_USER_HEADER: also set JOBMON_TRUSTED_PROXIES"),
        ({"TRUSTED_USER_HEADER": ""}, "JOBMON_TRUSTED_GROUPS_HEADER: also set"),
        ({"TRUSTED_USER_HEADER": "X_User"}, "JOBMON_TRUSTED_USER_HEADER: Not the name of a header"),
        ({"TRUSTED_USER_HEADER": "X-User: x"}, "JOBMON_TRUSTED_USER_HEADER: Not the name"),
        ({"TRUSTED_HEADER_FROM": "proxy"}, "JOBMON_TRUSTED_HEADER_FROM: 'proxy' is neither"),
        ({"TRUSTED_HEADER_FROM": "10.0.0.1/24"}, "JOBMON_TRUSTED_HEADER_FROM: '10.0.0.1/24'"),
    ],
)
def test_incomplete_or_invalid_settings_are_refused_at_the_start(
    read_settings: Any, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}"):
        read_settings(**environment)
