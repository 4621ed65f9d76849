"""Settings in files: catches a value that keeps the line end of its file, an ignored file, and a
message that shows a secret."""

import dataclasses
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobmon.cli import main
from jobmon.serving import gunicorn_config
from jobmon.settings import Settings, SettingsError, load_queues, read_variable
from jobmon.web.admission import pool_size

SECRET = "0123456789abcdef0123456789abcdef"
URI = "mongodb://u:hidden@db/shop"


@pytest.fixture
def set_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_files(**contents: str | bytes) -> None:
        """Set each `NAME_FILE` to a new file with this content."""
        for name, content in contents.items():
            path = tmp_path / name.lower()
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            monkeypatch.setenv(f"{name}_FILE", str(path))

    return set_files


def test_settings_are_read_from_files_without_their_line_ends(set_files: Any) -> None:
    set_files(JOBMON_MONGO_URI=f"{URI}\n", JOBMON_JWT_SECRET_KEY=f" {SECRET}\r\n")
    set_files(JOBMON_ROLLUP_URI=URI, JOBMON_RATE_LIMIT_STORAGE_URI="redis://:hidden@cache")
    settings = Settings.from_env()
    assert (settings.mongo_uri, settings.jwt_secret_key) == (URI, SECRET)
    assert (settings.rollup_uri, settings.rate_limit_storage_uri) == (URI, "redis://:hidden@cache")


def test_every_secret_setting_can_be_in_a_file(set_files: Any) -> None:
    """Catches a secret that jobmon reads only from a variable."""
    set_files(JOBMON_MONGO_URI=URI, JOBMON_JWT_SECRET_KEY=SECRET, JOBMON_OIDC_CLIENT_SECRET=SECRET)
    set_files(JOBMON_OIDC_ISSUER="https://id.example", JOBMON_OIDC_CLIENT_ID="jobmon")
    secret_names = [field.name for field in dataclasses.fields(Settings) if not field.repr]
    assert {"mongo_uri", "jwt_secret_key", "actor_mongo_uri"} <= set(secret_names)
    for name in secret_names:
        value = URI if name.endswith(("uri", "urls")) else SECRET
        set_files(**{f"JOBMON_{name.upper()}": value})
        setting = getattr(Settings.from_env(), name)
        assert (setting[0].url if name == "notify_urls" else setting) == value


def test_a_bad_value_in_a_file_is_refused_like_one_in_a_variable(set_files: Any) -> None:
    set_files(JOBMON_MONGO_URI=URI, JOBMON_JWT_SECRET_KEY="hidden, and too short")
    with pytest.raises(SettingsError, match=r"^JOBMON_JWT_SECRET_KEY: Shorter than 32 bytes\.$"):
        Settings.from_env()


def test_files_that_cannot_be_read_are_all_named(
    set_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI_FILE", str(tmp_path / "missing"))
    monkeypatch.setenv("JOBMON_ROLLUP_URI_FILE", str(tmp_path))
    set_files(JOBMON_JWT_SECRET_KEY=b"\xff\xfe")
    with pytest.raises(SettingsError) as caught:
        Settings.from_env()
    assert str(caught.value).split("; ") == [
        f"JOBMON_JWT_SECRET_KEY_FILE: {tmp_path}/jobmon_jwt_secret_key cannot be read: it is not "
        "UTF-8",
        f"JOBMON_MONGO_URI_FILE: {tmp_path}/missing cannot be read: No such file or directory",
        f"JOBMON_ROLLUP_URI_FILE: {tmp_path} cannot be read: Is a directory",
    ]


def test_both_a_value_and_a_file_are_refused(
    set_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_files(JOBMON_MONGO_URI=URI, JOBMON_JWT_SECRET_KEY=SECRET)
    monkeypatch.setenv("JOBMON_MONGO_URI", "")  # as compose sets a variable without a value
    assert Settings.from_env().mongo_uri == URI
    monkeypatch.setenv("JOBMON_MONGO_URI", URI)
    message = "JOBMON_MONGO_URI: set either JOBMON_MONGO_URI or JOBMON_MONGO_URI_FILE, not both"
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        Settings.from_env()


def test_connection_string_of_a_queue_is_read_from_a_file(
    set_files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = tmp_path / "queues.toml"
    queues.write_text('[payouts]\nuri_variable = "PAYOUTS_URI"\n')
    set_files(JOBMON_MONGO_URI="mongodb://a", JOBMON_JWT_SECRET_KEY=SECRET, PAYOUTS_URI=f"{URI}\n")
    monkeypatch.setenv("JOBMON_QUEUES", str(queues))
    (queue,) = load_queues(Settings.from_env())
    assert queue.mongo_uri == URI


def test_variable_without_a_file_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_variable("JOBMON_MONGO_URI") is None
    monkeypatch.setenv("JOBMON_MONGO_URI", URI)
    monkeypatch.setenv("JOBMON_MONGO_URI_FILE", "")
    assert read_variable("JOBMON_MONGO_URI") == URI


def test_init_reads_passwords_and_the_connection_string_from_files(
    set_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a password that `jobmon init` reads only from a variable."""
    set_files(JOBMON_ADMIN_MONGO_URI="mongodb://127.0.0.1:1/shop?serverSelectionTimeoutMS=50\n")
    for role in ("reader", "collector", "actor"):
        result = CliRunner().invoke(main, ["init", f"--{role}", "someone"])
        assert (result.exit_code, f"--{role} needs a password" in result.output) == (2, True)
        set_files(**{f"JOBMON_{role.upper()}_PASSWORD": "a password\n"})
        result = CliRunner().invoke(main, ["init", f"--{role}", "someone"])
        assert (result.exit_code, "127.0.0.1:1 does not answer" in result.output) == (1, True)


def test_init_names_a_password_file_that_cannot_be_read(
    set_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_files(JOBMON_ADMIN_MONGO_URI="mongodb://127.0.0.1/shop")
    monkeypatch.setenv("JOBMON_READER_PASSWORD_FILE", "/nowhere/password")
    result = CliRunner().invoke(main, ["init", "--reader", "jobmon"])
    assert result.exit_code == 2
    assert "JOBMON_READER_PASSWORD_FILE: /nowhere/password cannot be read" in result.output


def test_settings_of_gunicorn_are_read_from_files(
    set_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a service that ignores the files of its address and of its numbers."""
    monkeypatch.setenv("JOBMON_WORKERS", "")
    set_files(JOBMON_BIND="0.0.0.0:80\n", JOBMON_WORKERS="5\n", JOBMON_THREADS="3\n")
    path = gunicorn_config.__file__
    config = runpy.run_path(path)
    assert (config["bind"], config["workers"]) == ("0.0.0.0:80", 5)
    assert config["threads"] == pool_size(3)
    monkeypatch.setenv("JOBMON_WORKERS_FILE", "/missing")  # `on_starting` refuses it
    assert runpy.run_path(path)["workers"] == Settings.workers
