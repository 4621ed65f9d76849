"""Remedies of wrong settings: catches one that names the wrong file or page of the docs."""

from pathlib import Path

import pytest

from jobmon.settings import Settings, SettingsError, load_queues
from jobmon.setup.findings import refused_setting

SET_THE_VARIABLE = "Set it in the environment; docs/operations.md lists them all."
CORRECT_THE_QUEUES = "Correct the file; docs/operations.md describes the format."
CORRECT_THE_PROFILE = "Correct the file; docs/adapters.md describes the format."


@pytest.mark.parametrize(
    ("setting", "value", "content", "remedy"),
    [
        ("PROFILE", "a, line 3: .toml", 'fields = { type = "t" }', CORRECT_THE_PROFILE),
        ("PROFILE", "mine.toml", "fields = ", CORRECT_THE_PROFILE),
        ("PROFILE", "sidekiq, line 7: x", None, SET_THE_VARIABLE),
        ("PROFILE", "absent.toml", None, SET_THE_VARIABLE),
        ("JOBS_COLLECTION", "$, line 7: x", None, SET_THE_VARIABLE),
        ("QUEUES", "queues.toml", "[a]\nprofile = 7", CORRECT_THE_QUEUES),
        ("QUEUES", "queues.toml", "[a]\nprofile = ", CORRECT_THE_QUEUES),
        ("QUEUES", "queues.toml", '[a]\nprofile = "sidekiq, line 7: x"', CORRECT_THE_QUEUES),
        ("QUEUES", "queues.toml", '[a]\nprofile = "bad.toml"', CORRECT_THE_PROFILE),
        ("QUEUES", "absent.toml", None, SET_THE_VARIABLE),
    ],
)
def test_remedy_names_the_file_that_has_the_mistake(
    setting: str,
    value: str,
    content: str | None,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a remedy that depends on the text of a file's name or of a value."""
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(value).write_text(content)
    Path("bad.toml").write_text("[fields]\njobId = 7")
    monkeypatch.setenv("JOBMON_MONGO_URI", "mongodb://home/app")
    monkeypatch.setenv(f"JOBMON_{setting}", value)
    with pytest.raises(SettingsError) as caught:
        load_queues(Settings.from_env(require_keys=False))
    assert refused_setting(caught.value).remedy == remedy
