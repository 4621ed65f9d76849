"""The file of thresholds: catches a type or queue with the thresholds of another one, and a mistake
that is ignored."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from jobmon.profiles.schema import load_schema
from jobmon.settings import Settings, SettingsError
from jobmon.settings.rules import Rules, Thresholds, load_rules

ROOT = Path(__file__).parents[2]
RULES = """
failure_rate = 0.3
backlog_growth_jobs = 500

[types."report.*"]
stalled_after_minutes = 60
dead_per_hour = 10

[types."report.daily"]
failure_rate = 0.9

[types."a?c"]
oldest_due_minutes = 90
"""


def write_rules(tmp_path: Path, text: str) -> str:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    return str(file)


def test_types_have_the_thresholds_of_the_first_pattern_that_matches(tmp_path: Path) -> None:
    rules = load_rules(write_rules(tmp_path, RULES))
    assert (rules.backlog_growth, rules.backlog_growth_jobs) == (1.2, 500)
    assert rules.for_type("mail") == Thresholds(failure_rate=0.3)
    report = Thresholds(failure_rate=0.3, stalled_after=timedelta(hours=1), dead_per_hour=10)
    assert rules.for_type("report.weekly") == rules.for_type("report.daily") == report
    assert rules.for_type("abc").oldest_due == timedelta(minutes=90)
    for name in ("report", "reportXdaily", "ac", "abbc", "xabc"):  # a pattern matches whole names
        assert rules.for_type(name) == rules.thresholds
    assert rules.restrict("report.x") == Rules(thresholds=report, backlog_growth_jobs=500)


def test_a_queue_has_its_own_rules_and_shares_the_others(tmp_path: Path) -> None:
    """Catches a queue with the rules of another queue, or without the rules of all queues."""
    queues = """
[queues.payouts]
dead_per_hour = 5
backlog_growth = 3

[queues.payouts.types."report.*"]
dead_per_hour = 50

[queues."mail.*"]
oldest_due_minutes = 5
"""
    rules = load_rules(write_rules(tmp_path, RULES + queues))
    payouts, mails = rules.for_queue("payouts"), rules.for_queue("mail.jobs")
    assert (payouts.backlog_growth, payouts.backlog_growth_jobs) == (3, 500)
    assert payouts.thresholds == Thresholds(failure_rate=0.3, dead_per_hour=5)
    assert payouts.for_type("report.a") == Thresholds(failure_rate=0.3, dead_per_hour=50)
    assert payouts.for_type("abc").oldest_due == timedelta(minutes=90)
    assert mails.thresholds.oldest_due == timedelta(minutes=5)
    assert mails.for_type("report.a").stalled_after == timedelta(hours=1)
    assert payouts.by_queue == mails.by_queue == ()
    assert rules.for_queue("mail") == load_rules(write_rules(tmp_path, RULES))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("failure_rate = 30", "line 1: failure_rate: 30 is not from 0.001 to 1"),
        ("failure_rate = nan", "line 1: failure_rate: nan is not from 0.001 to 1"),
        ("dead_per_hour = 0", "line 1: dead_per_hour: 0 is not from 1 to 1000000"),
        ("dead_per_hour = true", "line 1: dead_per_hour: must be a whole number"),
        ('stalled_after_minutes = "10m"', "stalled_after_minutes: must be a whole number"),
        ("\nfailurerate = 0.1", "line 2: failurerate: unknown; allowed are failure_rate, "),
        (
            "[types.mail]\ndead_per_hour = 1.5",
            "line 2: types.mail.dead_per_hour: must be a whole number",
        ),
        ("[types.mail]\nbacklog_growth = 2", "line 2: types.mail.backlog_growth: unknown;"),
        ("[types]\nmail = 3", "line 2: types.mail: must be a table"),
        (
            "[queues.a]\n[queues.a.types.mail]\ndead_per_hour = 0",
            "line 3: queues.a.types.mail.dead_per_hour: 0 is not from 1 to 1000000",
        ),
        ("[queues.a]\ndead = 1", "line 2: queues.a.dead: unknown; allowed are failure_rate, "),
    ],
)
def test_mistakes_are_reported_with_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    file = write_rules(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        load_rules(file)
    assert str(raised.value).startswith(f"JOBMON_RULES: {file}, ")
    assert expected in str(raised.value)
    # Only the threshold that is known, but not allowed for a type, has a hint where to write it.
    has_hint = "before the first [table]" in str(raised.value)
    assert has_hint == (expected == "line 2: types.mail.backlog_growth: unknown;")


def test_settings_have_the_rules_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI", "mongodb://localhost/shop")
    assert Settings.from_env(require_keys=False).rules == Rules()
    file = write_rules(tmp_path, RULES)
    monkeypatch.setenv("JOBMON_RULES", file)
    assert Settings.from_env(require_keys=False).rules == load_rules(file)
    monkeypatch.setenv("JOBMON_RULES", str(tmp_path / "other.toml"))
    with pytest.raises(SettingsError, match=r"JOBMON_RULES: .*other.toml cannot be read: No such"):
        Settings.from_env(require_keys=False)


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("jobmon.settings", "rules.schema.json"),
        ("jobmon.settings", "queues.schema.json"),
        ("jobmon.profiles", "profile.schema.json"),
    ],
)
def test_published_schema_is_the_schema_of_the_file(package: str, file: str) -> None:
    schema = load_schema(package, file)
    assert json.loads((ROOT / "docs" / file).read_text()) == schema
    Draft202012Validator.check_schema(schema)


def test_schema_and_docs_name_the_defaults() -> None:
    schema = load_schema("jobmon.settings", "rules.schema.json")
    defaults = {
        "failure_rate": Thresholds.failure_rate,
        "failure_rate_attempts": Thresholds.failure_rate_attempts,
        "stalled_after_minutes": Thresholds.stalled_after // timedelta(minutes=1),
        "dead_per_hour": Thresholds.dead_per_hour,
        "backlog_growth": Rules.backlog_growth,
        "backlog_growth_jobs": Rules.backlog_growth_jobs,
    }
    for name, default in defaults.items():
        assert f"Default: {default}." in schema["$defs"][name]["description"]
        row = f"| `{name}` | `{default}` |"
        assert row in (ROOT / "docs/notifications.md").read_text()
