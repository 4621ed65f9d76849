"""Limits of callers and addresses: would catch a count that differs between processes, never ends
or grows for ever, an address that can be split, and a lost file that loses the monitor."""

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from limits.errors import StorageError

from jobmon import serving
from jobmon.app import create_app
from jobmon.settings import Settings
from jobmon.web import rate_limit
from jobmon.web.rate_limit import FileStorage

from ..conftest import Api
from ..support.processes import kill

STATS = "/admin/jobs/stats"


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    return FileStorage(f"sqlite://{tmp_path}/hits", wrap_exceptions=True)


def test_hits_are_counted_until_their_time_is_over(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("time.time", lambda: now)
    assert [storage.incr("a", 10), storage.incr("a", 10, 3), storage.incr("b", 10)] == [1, 4, 1]
    assert (storage.get("a"), storage.get_expiry("a"), storage.get("none")) == (4, 1_010.0, 0)
    now = 1_009.9
    assert (storage.incr("a", 10), storage.get_expiry("a")) == (5, 1_010.0)
    now = 1_010.0
    assert (storage.get("a"), storage.get_expiry("a")) == (0, 1_010.0)
    assert (storage.incr("a", 10), storage.get_expiry("a")) == (1, 1_020.0)
    storage.clear("a")
    assert (storage.get("a"), storage.check(), storage.reset()) == (0, True, 1)


def test_what_is_over_is_forgotten(
    storage: FileStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "_FORGET_EVERY", 10)
    now = 1_000.0
    monkeypatch.setattr("time.time", lambda: now)
    for number in range(9):
        storage.incr(f"caller-{number}", 1)
    now = 1_002.0
    storage.incr("last", 1)
    with sqlite3.connect(tmp_path / "hits") as file:
        assert file.execute("SELECT key FROM hits").fetchall() == [("last",)]
    file.close()


HIT = """
import sys
from jobmon.web.rate_limit import FileStorage
storage = FileStorage(sys.argv[1])
print(max(storage.incr("a", 60) for _ in range(500)))
"""


def test_processes_and_threads_lose_and_double_no_hit(storage: FileStorage, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HIT, f"sqlite://{tmp_path}/hits"]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        with ThreadPoolExecutor(4) as threads:
            counts = list(threads.map(lambda _: storage.incr("a", 60), range(500)))
        for other in others:
            assert int(other.communicate(timeout=60)[0]) <= 2_000
    finally:
        for other in others:
            kill(other)
    assert len(set(counts)) == 500
    assert storage.get("a") == 2_000


def test_a_fork_opens_the_file_anew(storage: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.incr("a", 60)
    before = storage._file()
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert storage._file() is not before
    assert storage.incr("a", 60) == 2
    before.close()


def test_a_file_that_cannot_be_written_loses_the_count_and_not_the_monitor(
    watched: Any, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    uri = f"sqlite://{tmp_path}/none/hits"
    with pytest.raises(StorageError):
        FileStorage(uri, wrap_exceptions=True).incr("a", 1)
    limits = {"rate_limit": "1/hour", "rate_limit_per_address": "1/hour"}
    api = Api(create_app(make_settings(rate_limit_storage_uri=uri, **limits), watched.client))
    assert [api.as_admin(STATS).status_code for _ in range(3)] == [200, 200, 200]


@pytest.fixture
def per_address(watched: Any, make_settings: Callable[..., Settings]) -> Api:
    return Api(create_app(make_settings(rate_limit_per_address="3/hour"), watched.client))


def from_address(api: Api, address: str, path: str = STATS, token: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    environment = {"REMOTE_ADDR": address}
    return api.client.get(path, headers=headers, environ_base=environment).status_code


def test_an_address_is_counted_with_and_without_a_token_and_whatever_it_asks(
    per_address: Api,
) -> None:
    token = per_address.token()
    asked = [(STATS, "guess"), ("/none", None), ("/dashboard/sign-in", None)]
    codes = [from_address(per_address, "192.0.2.1", path, given) for path, given in asked]
    assert codes == [401, 404, 200]
    refused = [(STATS, token), ("/none", None), ("/dashboard", None)]
    codes = [from_address(per_address, "192.0.2.1", path, given) for path, given in refused]
    assert codes == [429, 429, 429]
    assert from_address(per_address, "192.0.2.2", STATS, token) == 200
    assert from_address(per_address, "192.0.2.1", "/healthz") == 200
    assert from_address(per_address, "192.0.2.1", "/readyz") != 429


@pytest.mark.parametrize(
    ("addresses", "together"),
    [
        (["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2::"], True),
        (["2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:1:4::1"], False),
        (["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"], True),
        (["::ffff:192.0.2.1", "::ffff:192.0.2.2", "192.0.2.3"], False),
        (["::1", "::1", "::1"], True),
        (["odd", "odd", "odd"], True),
        (["", "", ""], False),
    ],
)
def test_one_customer_is_one_address(
    per_address: Api, addresses: list[str], together: bool
) -> None:
    assert [from_address(per_address, address) for address in addresses] == [401] * 3
    codes = Counter(from_address(per_address, address) for address in addresses)
    assert codes == {429 if together else 401: 3}


def test_a_refusal_says_when_to_come_again(per_address: Api) -> None:
    for _ in range(3):
        per_address.get(STATS)
    refused = per_address.get(STATS)
    assert refused.json["error"] == {"code": "rate_limited", "message": "More than 3 per 1 hour."}
    assert 0 < int(refused.headers["Retry-After"]) <= 3_600


# What the hook looks at of gunicorn.
SERVER = SimpleNamespace(cfg=SimpleNamespace(preload_app=False, http_protocols=["h1"]))


def test_the_workers_file_goes_with_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI", "mongodb://127.0.0.1")
    monkeypatch.setenv("JOBMON_JWT_SECRET_KEY", "s" * 32)
    monkeypatch.setenv("JOBMON_METRICS", "off")
    # Set first: what the hook sets is then undone with it, and no later test inherits it.
    monkeypatch.setenv("JOBMON_RATE_LIMIT_STORAGE_URI", "")
    monkeypatch.delenv("JOBMON_RATE_LIMIT_STORAGE_URI")
    serving.on_starting(SERVER)
    assert "JOBMON_RATE_LIMIT_STORAGE_URI" not in os.environ
    monkeypatch.setenv("JOBMON_RATE_LIMIT_PER_ADDRESS", "1/hour")
    serving.on_starting(SERVER)
    path = Path(os.environ["JOBMON_RATE_LIMIT_STORAGE_URI"].removeprefix("sqlite://"))
    assert path.parent.is_dir()
    serving.on_exit(None)
    assert not path.parent.exists()
    monkeypatch.setenv("JOBMON_RATE_LIMIT_STORAGE_URI", "redis://127.0.0.1")
    serving.on_starting(SERVER)
    assert os.environ["JOBMON_RATE_LIMIT_STORAGE_URI"] == "redis://127.0.0.1"
