"""Catches a remedy that sends the reader to the wrong file or page."""

from pathlib import Path

import pytest

from jobmon.settings import Settings, SettingsError, load_queues
from jobmon.setup.findings import refused_setting

ENVIRONMENT = "Set it in the environment; docs/operations.md lists them all."
QUEUES_FILE = "Correct the file; docs/operations.md describes the format."
PROFILE_FILE = "Correct the file; docs/adapters.md describes the format."


@pytest.mark.parametrize(
    ("setting", "value", "text", "remedy"),
    [
        ("PROFILE", "a, line 3: .toml", 'fields = { type = "t" }', PROFILE_FILE),
        ("PROFILE", "mine.toml", "fields = ", PROFILE_FILE),
        ("PROFILE", "sidekiq, line 7: x", None, ENVIRONMENT),
        ("PROFILE", "absent.toml", None, ENVIRONMENT),
        ("JOBS_COLLECTION", "$, line 7: x", None, ENVIRONMENT),
        ("QUEUES", "queues.toml", "[a]\nprofile = 7", QUEUES_FILE),
        ("QUEUES", "queues.toml", "[a]\nprofile = ", QUEUES_FILE),
        ("QUEUES", "queues.toml", '[a]\nprofile = "sidekiq, line 7: x"', QUEUES_FILE),
        ("QUEUES", "queues.toml", '[a]\nprofile = "bad.toml"', PROFILE_FILE),
        ("QUEUES", "absent.toml", None, ENVIRONMENT),
    ],
)
def test_a_remedy_names_the_place_of_the_mistake(
    setting: str,
    value: str,
    text: str | None,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a remedy that depends on the text of a file's name or of a value."""
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(value).write_text(text)
    Path("bad.toml").write_text("[fields]\njobId = 7")
    monkeypatch.setenv("JOBMON_MONGO_URI", "mongodb://home/app")
    monkeypatch.setenv(f"JOBMON_{setting}", value)
    with pytest.raises(SettingsError) as caught:
        load_queues(Settings.from_env(require_keys=False))
    assert refused_setting(caught.value).remedy == remedy
