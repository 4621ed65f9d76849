"""Deprecated names of settings: catches a deprecated name that has no effect or no warning."""

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from jobmon.cli import main
from jobmon.serving import gunicorn_config
from jobmon.settings import Settings, SettingsError
from jobmon.settings.deprecated import RENAMED, list_warnings

ROOT = Path(__file__).parents[2]
OLD, NEW = "JOBMON_KEEP_DAYS_DAYS", "JOBMON_DAY_RETENTION_DAYS"


@pytest.fixture(autouse=True)
def required_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50")
    monkeypatch.setenv("JOBMON_JWT_SECRET_KEY", 32 * "x")


def test_deprecated_name_has_the_effect_of_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OLD, "77")
    assert Settings.from_env().day_retention_days == 77
    assert list_warnings() == [f"{OLD} is deprecated: rename it to {NEW}."]


def test_deprecated_name_works_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "days").write_text("78\n")
    monkeypatch.setenv(f"{OLD}_FILE", str(tmp_path / "days"))
    assert Settings.from_env().day_retention_days == 78
    assert list_warnings() == [f"{OLD} is deprecated: rename it to {NEW}."]


def test_new_name_overrides_the_deprecated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OLD, "77")
    monkeypatch.setenv(NEW, "79")
    assert Settings.from_env().day_retention_days == 79
    assert list_warnings() == [f"{OLD} is ignored, because {NEW} is set: remove {OLD}."]


def test_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a variable without a value, as compose sets it, that counts as set."""
    monkeypatch.setenv(OLD, "77")
    monkeypatch.setenv(NEW, "")
    assert Settings.from_env().day_retention_days == 77
    monkeypatch.setenv(OLD, "")
    assert list_warnings() == []


def test_bad_value_of_a_deprecated_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OLD, "many")
    with pytest.raises(SettingsError, match=NEW):
        Settings.from_env()


def test_check_warns_of_a_deprecated_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OLD, "77")
    findings = json.loads(CliRunner().invoke(main, ["check", "--json"]).stdout)["findings"]
    (finding,) = [finding for finding in findings if OLD in finding["message"]]
    assert (finding["check"], finding["level"]) == ("settings", "warning")


def start_web_service() -> None:
    config = SimpleNamespace(preload_app=False, http_protocols=["h1"], workers=1)
    gunicorn_config.on_starting(SimpleNamespace(cfg=config))


def start_collector() -> None:
    assert CliRunner().invoke(main, ["collector"]).output == "Error: stop\n"


def start_actor() -> None:
    assert CliRunner().invoke(main, ["actor"]).exit_code == 1


@pytest.mark.parametrize("start", [start_web_service, start_collector, start_actor])
def test_start_logs_a_warning_for_each_deprecated_name(
    start: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(*_: object) -> None:
        raise SettingsError("stop")

    monkeypatch.setattr("jobmon.collector.collecting.collecting", stop)
    monkeypatch.setattr("jobmon.actor.acting.acting", stop)
    monkeypatch.setattr("jobmon.cli.block_stop_signals", lambda: None)
    monkeypatch.setenv("JOBMON_METRICS", "off")
    # gunicorn's hook sets this variable; this makes monkeypatch restore it after the test.
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    start()
    assert "deprecated" not in caplog.text
    for name in RENAMED:
        monkeypatch.setenv(name, "5")
    start()
    records = [record for record in caplog.records if record.name == "jobmon.settings"]
    assert [record.getMessage() for record in records] == list_warnings()
    assert {record.levelno for record in records} == {logging.WARNING}
    assert len(records) == len(RENAMED)


def test_docs_list_the_renamed_settings() -> None:
    names = {f"JOBMON_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    assert set(RENAMED.values()) <= names
    assert not set(RENAMED) & names
    page = (ROOT / "docs/versions.md").read_text()
    rows = re.findall(r"^\| `(JOBMON_\w+)` \| `(JOBMON_\w+)` \|", page, re.MULTILINE)
    assert dict(rows) == RENAMED
