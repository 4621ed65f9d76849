"""The file of queues: catches a mistake that is reported without its line, and a queue with the
settings of another queue."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobmon.settings import ADMIN_DASHBOARD, Settings, SettingsError, load_queues
from jobmon.settings.rules import Rules

DEFAULT_URI = "mongodb://home/app"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """A function that loads the queues of a file with this text."""

    def load(text: str, **values: Any) -> tuple[Settings, ...]:
        path = tmp_path / "queues.toml"
        path.write_text(text)
        return load_queues(Settings(mongo_uri=DEFAULT_URI, queues=str(path), **values))

    return load


def test_without_a_file_the_settings_describe_the_only_queue() -> None:
    settings = Settings(mongo_uri=DEFAULT_URI)
    assert load_queues(settings) == (settings,)
    assert settings.queue == "default"


def test_queues_have_their_own_mapping_and_share_other_settings(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYOUTS_URI", "mongodb://u:hidden@db2/shop")
    queues = load(
        """
        [mails]
        [payouts]
        uri_variable = "PAYOUTS_URI"
        profile = "agenda"
        collection = "payoutJobs"
        environment = "production"
        permission = "PAYOUTS"
        owners = false
        """,
        query_timeout_ms=700,
    )
    mails, payouts = queues
    assert (mails.queue, mails.mongo_uri, mails.jobs_collection) == ("mails", DEFAULT_URI, "jobs")
    assert (mails.profile, mails.permission, mails.owners) == ("jobmon", ADMIN_DASHBOARD, True)
    assert (payouts.queue, payouts.mongo_uri) == ("payouts", "mongodb://u:hidden@db2/shop")
    assert (payouts.profile, payouts.jobs_collection) == ("agenda", "payoutJobs")
    assert (payouts.environment, payouts.permission) == ("production", "PAYOUTS")
    assert not payouts.owners
    assert {queue.query_timeout_ms for queue in queues} == {700}


def test_each_queue_has_its_own_thresholds(load: Any) -> None:
    strict = Rules(backlog_growth=3)
    rules = Rules(backlog_growth=2, by_queue=(("pay*", strict),))
    queues = load("[mails]\n[payouts]\nprofile = 'agenda'", rules=rules)
    assert [queue.rules for queue in queues] == [Rules(backlog_growth=2), strict]
    rules = replace(rules, by_queue=(("*", strict),))
    (queue,) = load_queues(Settings(mongo_uri=DEFAULT_URI, rules=rules))
    assert queue.rules == strict


def test_each_of_several_collections_is_a_queue(load: Any) -> None:
    queues = load('[mails]\nprofile = "mongodb-queue"\ncollections = ["welcome", "reports"]')
    assert [(queue.queue, queue.jobs_collection) for queue in queues] == [
        ("mails.welcome", "welcome"),
        ("mails.reports", "reports"),
    ]


def test_the_path_of_a_profile_is_relative_to_the_file(load: Any, tmp_path: Path) -> None:
    (tmp_path / "custom.toml").write_text('extends = "jobmon"\ncollection = "work"')
    (queue,) = load('[mails]\nprofile = "custom.toml"')
    assert queue.jobs_collection == "work"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: needs a table for each queue, such as [payouts]"),
        ("[a]\nuri = 'mongodb://x'\nuri = 'y'", "the last line: Cannot overwrite a value"),
        ("[a]\n\nqueue = 1", "line 3: a.queue: unknown; allowed are uri, uri_variable, "),
        ("[a]\ncollection = 7", "line 2: a.collection: must be a text"),
        ("[a]\ncollection = '$x'", "line 2: a.collection: '$x' is not the name of a collection"),
        ("[a]\ncollection = 'x'\ncollections = ['y']", "line 3: a.collections: not together with"),
        ("[a]\npermission = 'x'", "line 2: a.permission: 'x' is not a name in capitals"),
        ("[a]\nprofile = 'agend'", "line 2: a.profile: "),
        ("[a]\nuri = 'postgres://u:hidden@db'", "line 2: a.uri: Not a MongoDB connection string"),
        ("[a]\nuri_variable = 'NOT_SET'", "line 2: a.uri_variable: the environment has no NOT_SET"),
        ("['a/b']", "line 1: a/b: 'a/b' cannot be the name of a queue"),
        ("[a]\ncollections = ['x', 'y z']", "line 2: a.collections.1: 'a.y z' cannot be the name"),
        ("['a.x']\n[a]\ncollections = ['x']", "line 2: a: a second queue named a.x"),
        (
            "[a]\nprofile = 'payload'\nattempts_collection = 'x'",
            "line 3: a.attempts_collection: the profile payload has no collection of attempts",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_line(load: Any, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("JOBMON_QUEUES: ")
    assert "hidden" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(SettingsError, match=r"JOBMON_QUEUES: /gone\.toml cannot be read: No such"):
        load_queues(Settings(mongo_uri=DEFAULT_URI, queues="/gone.toml"))


def test_roles_may_have_several_permissions_of_queues(load: Any) -> None:
    roles = {"payroll": frozenset({"PAYOUTS"}), "all": frozenset({"PAYOUTS", ADMIN_DASHBOARD})}
    assert load("[a]\npermission = 'PAYOUTS'", role_permissions=roles)
    with pytest.raises(SettingsError, match="JOBMON_ROLE_PERMISSIONS: PAYOUTS is no permission"):
        load("[a]", role_permissions=roles)


def test_settings_of_one_queue_are_refused_with_a_file_of_queues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {
        "MONGO_URI": DEFAULT_URI,
        "JWT_SECRET_KEY": "0123456789abcdef0123456789abcdef",
        "QUEUES": "queues.toml",
        "ROLE_PERMISSIONS": "payroll=PAYOUTS,chief=PAYOUTS+ADMIN_DASHBOARD",
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"JOBMON_{name}", value)
    settings = Settings.from_env()
    assert settings.queues == "queues.toml"
    assert settings.role_permissions["chief"] == {"PAYOUTS", ADMIN_DASHBOARD}
    monkeypatch.setenv("JOBMON_PROFILE", "agenda")
    with pytest.raises(SettingsError, match="JOBMON_PROFILE: Not used with JOBMON_QUEUES"):
        Settings.from_env()
