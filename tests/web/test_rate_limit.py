"""Rate limits: catches a limit that several workers multiply, a network whose addresses are counted
separately, and an unreachable storage that makes requests fail."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from limits.errors import ConfigurationError
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.demo.mongod import Mongod, free_port
from jobmon.serving import gunicorn_config
from jobmon.settings import Settings
from jobmon.web import rate_limit

from ..conftest import Api
from ..support.commands import database_uri

STATS = "/admin/jobs/stats"


def test_two_apps_with_the_same_storage_count_together(
    watched: Any,
    make_settings: Callable[..., Settings],
    mongod: Mongod,
    database: Database[dict[str, Any]],
) -> None:
    uri = database_uri(mongod, database)
    settings = make_settings(rate_limit="5/hour", rate_limit_storage_uri=uri)
    apis = [Api(create_app(settings, watched.client)) for _ in range(2)]
    try:
        statuses = Counter(api.get_as_admin(STATS).status_code for api in apis * 4)
        assert statuses == {200: 5, 429: 3}
    finally:
        database.client.drop_database("limits")  # where the library `limits` counts


def test_unreachable_storage_ends_the_limit_but_not_the_service(
    watched: Any, make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"mongodb://127.0.0.1:{free_port()}"
    limits = {"rate_limit": "1/hour", "rate_limit_per_address": "1/hour"}
    api = Api(create_app(make_settings(rate_limit_storage_uri=uri, **limits), watched.client))
    assert [api.get_as_admin(STATS).status_code for _ in range(3)] == [200, 200, 200]
    assert caplog.text.count("rate limit not counted") == 2, "once for each limit"


@pytest.fixture
def address_limited_api(watched: Any, make_settings: Callable[..., Settings]) -> Api:
    """A service that accepts three requests an hour from each address."""
    return Api(create_app(make_settings(rate_limit_per_address="3/hour"), watched.client))


def get_from_address(api: Api, address: str, path: str = STATS, token: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    environment = {"REMOTE_ADDR": address}
    return api.client.get(path, headers=headers, environ_base=environment).status_code


def test_every_request_of_an_address_is_counted_except_probes(address_limited_api: Api) -> None:
    token = address_limited_api.token()
    get = partial(get_from_address, address_limited_api, "192.0.2.1")
    assert [get(STATS, "guess"), get("/none"), get("/dashboard/sign-in")] == [401, 404, 200]
    assert [get(STATS, token), get("/none"), get("/dashboard")] == [429, 429, 429]
    assert get_from_address(address_limited_api, "192.0.2.2", STATS, token) == 200
    assert get("/healthz") == 200
    assert get("/readyz") != 429
    # Below a queue, `/readyz` checks the token: so it is counted, even if there is no such queue.
    assert get("/queues/any/readyz", "guess") == 429


@pytest.mark.parametrize(
    ("addresses", "are_counted_together"),
    [
        (["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2::"], True),
        (["2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:1:4::1"], False),
        (["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"], True),
        (["::ffff:192.0.2.1", "::ffff:192.0.2.2", "192.0.2.3"], False),
        (["::1", "::1", "::1"], True),
        (["odd", "odd", "odd"], True),
        (["", "", ""], False),  # a Unix socket: the address is unknown
    ],
)
def test_only_addresses_of_one_network_are_counted_together(
    address_limited_api: Api, addresses: list[str], are_counted_together: bool
) -> None:
    assert [get_from_address(address_limited_api, address) for address in addresses] == [401] * 3
    statuses = Counter(get_from_address(address_limited_api, address) for address in addresses)
    assert statuses == {429 if are_counted_together else 401: 3}


def test_refusal_has_the_limit_and_retry_after(address_limited_api: Api) -> None:
    for _ in range(3):
        address_limited_api.get(STATS)
    refused = address_limited_api.get(STATS)
    assert refused.json["error"] == {"code": "rate_limited", "message": "More than 3 per 1 hour."}
    assert 0 < int(refused.headers["Retry-After"]) <= 3_600


def test_several_workers_need_a_shared_storage_for_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a limit for which each worker counts only its own requests."""
    monkeypatch.setenv("JOBMON_MONGO_URI", "mongodb://127.0.0.1")
    monkeypatch.setenv("JOBMON_JWT_SECRET_KEY", "s" * 32)
    monkeypatch.setenv("JOBMON_METRICS", "off")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # `on_starting` changes it; this restores it

    def start(workers: int) -> None:
        config = SimpleNamespace(preload_app=False, http_protocols=["h1"], workers=workers)
        gunicorn_config.on_starting(SimpleNamespace(cfg=config))

    start(2)
    monkeypatch.setenv("JOBMON_RATE_LIMIT_PER_ADDRESS", "1/hour")
    start(1)
    with pytest.raises(SystemExit, match=r"^jobmon: JOBMON_RATE_LIMIT_STORAGE_URI: 2 workers"):
        start(2)
    monkeypatch.setenv("JOBMON_RATE_LIMIT_STORAGE_URI", "redis://127.0.0.1")
    start(2)


@pytest.mark.parametrize(
    ("uri", "is_installed", "reason"),
    [
        ("memcached://u:hidden@cache:11211", False, "the package pymemcache is missing: pip"),
        ("rediss://u:hidden@cache:6379", False, "the package redis is missing: pip install redis"),
        ("redis+sentinel://u:hidden@cache", True, "not complete: https://limits.readthedocs.io/"),
        ("mongodb://u:hidden@a,b", True, "not complete: https://limits.readthedocs.io/"),
    ],
)
def test_storage_that_cannot_be_opened_is_refused_at_the_start_in_one_line(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    uri: str,
    is_installed: bool,
    reason: str,
) -> None:
    """Catches a stack trace without the name of the setting, or with the password."""

    def refuse(refused_uri: str, **_: Any) -> None:
        raise ConfigurationError(f"Unable to parse storage uri {refused_uri}")

    monkeypatch.setattr(rate_limit, "storage_from_string", refuse)
    monkeypatch.setattr(rate_limit, "find_spec", lambda _: "a spec" if is_installed else None)
    with pytest.raises(SystemExit):
        create_app(make_settings(rate_limit="5/hour", rate_limit_storage_uri=uri))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jobmon: JOBMON_RATE_LIMIT_STORAGE_URI: {reason}")
    assert "hidden" not in line
