"""Renewals at an identity provider: catches a refresh token that is sent several times, and files
in a folder that another user controls."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobmon.settings import Settings
from jobmon.web import renewals as renewals_module
from jobmon.web.oidc import Identity
from jobmon.web.renewals import Renewals
from jobmon.web.sessions import SessionKeys

from ..conftest import SECRET
from ..support.preloaded import ROOT

IDENTITY = Identity(
    subject="ada",
    roles=("admin",),
    lifetime_s=300.0,
    provider_subject="7",
    refresh_token="refresh-0",
    id_token=None,
)


class Provider:
    """An identity provider that counts the renewals, and names each refresh token by the count."""

    def __init__(self) -> None:
        self.renewal_count = 0

    def renew(self) -> Identity:
        self.renewal_count += 1
        return replace(IDENTITY, refresh_token=f"refresh-{self.renewal_count}")


@pytest.fixture
def keys(make_settings: Callable[..., Settings]) -> SessionKeys:
    return SessionKeys(make_settings())


@pytest.fixture
def provider() -> Provider:
    return Provider()


def test_renewals_with_a_shared_folder_send_a_refresh_token_once(
    keys: SessionKeys, provider: Provider, tmp_path: Path
) -> None:
    all_renewals = [Renewals(keys, tmp_path / "shared") for _ in range(3)]  # one for each process
    identities = [
        renewals.get("token", provider.renew) for renewals in all_renewals for _ in range(2)
    ]
    assert identities == [replace(IDENTITY, refresh_token="refresh-1")] * 6
    assert provider.renewal_count == 1
    assert all_renewals[0].get("another token", provider.renew).refresh_token == "refresh-2"


def test_simultaneous_processes_renew_only_once(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from jobmon.settings import Settings
from jobmon.web.oidc import Identity
from jobmon.web.renewals import Renewals
from jobmon.web.sessions import SessionKeys
keys = SessionKeys(Settings(mongo_uri="mongodb://x/y", jwt_secret_key={SECRET!r}))
def renew():
    with Path({str(tmp_path / "log")!r}).open("a") as log:
        log.write("renewed\\n")
    time.sleep(0.5)
    return Identity(**{vars(IDENTITY)!r})
print("ready", flush=True)
sys.stdin.readline()
print(Renewals(keys, Path({str(tmp_path / "shared")!r})).get("token", renew).subject)
"""
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in processes] == ["ada\n"] * 3
    assert (tmp_path / "log").read_text() == "renewed\n"


def test_failure_is_not_cached(keys: SessionKeys, provider: Provider, tmp_path: Path) -> None:
    def fail() -> Identity:
        raise LookupError

    renewals = Renewals(keys, tmp_path / "shared")
    with pytest.raises(LookupError):
        renewals.get("token", fail)
    assert renewals.get("token", provider.renew).refresh_token == "refresh-1"


def test_identity_is_cached_only_for_a_limited_time(
    keys: SessionKeys, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches roles that stay for ever, if a provider accepts a refresh token repeatedly."""
    folder = tmp_path / "shared"
    Renewals(keys, folder).get("token", provider.renew)
    monkeypatch.setattr(renewals_module, "CACHE_TTL_S", -1)
    Renewals(keys, folder).get("token", provider.renew)
    assert provider.renewal_count == 2


def test_files_are_private_and_encrypted_and_old_files_are_deleted(
    keys: SessionKeys, provider: Provider, tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    renewals = Renewals(keys, folder)
    renewals.get("token", provider.renew)
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "token" not in file.name
    for secret in (b"refresh-1", b'"ada"', b"token"):
        assert secret not in file.read_bytes()
    long_ago = time.time() - 1_000
    os.utime(file, (long_ago, long_ago))
    renewals.get("another", provider.renew)
    assert file not in list(folder.iterdir())


def test_a_sign_out_deletes_the_marks_of_old_ones(keys: SessionKeys, tmp_path: Path) -> None:
    """Catches a file for each sign-out, for ever, at a provider without refresh tokens."""
    folder = tmp_path / "shared"
    renewals = Renewals(keys, folder)
    renewals.end("old")
    (file,) = folder.iterdir()
    long_ago = time.time() - 1_000
    os.utime(file, (long_ago, long_ago))
    renewals.end("new")
    assert (renewals.has_ended("old"), renewals.has_ended("new")) == (False, True)


def test_folder_that_is_open_to_all_or_a_link_or_without_a_parent_is_not_used(
    keys: SessionKeys, provider: Provider, tmp_path: Path
) -> None:
    open_to_all, link = tmp_path / "open", tmp_path / "link"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    (tmp_path / "private").mkdir(mode=0o700)
    link.symlink_to(tmp_path / "private")
    for folder in (open_to_all, link, tmp_path / "missing" / "folder"):
        count_before = provider.renewal_count
        for _ in range(2):
            Renewals(keys, folder).get("token", provider.renew)
        assert provider.renewal_count == count_before + 2, folder
        assert not folder.exists() or not list(folder.iterdir())


def test_file_sealed_with_another_key_or_with_broken_content_is_replaced(
    keys: SessionKeys, provider: Provider, tmp_path: Path, make_settings: Callable[..., Settings]
) -> None:
    folder = tmp_path / "shared"
    Renewals(SessionKeys(make_settings(jwt_secret_key=SECRET[::-1])), folder).get(
        "token", provider.renew
    )
    assert Renewals(keys, folder).get("token", provider.renew).refresh_token == "refresh-2"
    (file,) = folder.iterdir()
    file.write_bytes(b"\xff" * 10)
    assert Renewals(keys, folder).get("token", provider.renew).refresh_token == "refresh-3"
