"""Catches a remedy that sends the reader to the wrong file or page."""

import pytest

from jobmon.settings import SettingsError
from jobmon.setup.findings import refused_setting


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("JOBMON_PROFILE: ./shop.toml, line 3: fields: needs jobId", "docs/adapters.md describes"),
        ("JOBMON_PROFILE: ./shop.toml, the last line: Expected", "docs/adapters.md describes"),
        (
            "JOBMON_QUEUES: q.toml, line 2: a.profile: shop.toml, line 3: fields: needs jobId",
            "docs/adapters.md describes",
        ),
        (
            "JOBMON_QUEUES: q.toml, line 2: a.profile: must be a text",
            "docs/operations.md describes",
        ),
        ("JOBMON_PROFILE: sidekiq is not one of agenda", "Set it in the environment"),
        ("JOBMON_MONGO_URI: Not a connection string.", "Set it in the environment"),
    ],
)
def test_a_mistake_in_a_file_is_not_remedied_in_the_environment(message: str, remedy: str) -> None:
    found = refused_setting(SettingsError(message)).remedy
    assert found is not None
    assert remedy in found
    assert ("Correct the file" in found) == (", line" in message or ", the last line" in message)
