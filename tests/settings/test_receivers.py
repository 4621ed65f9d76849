"""Receivers of notifications: catches a secret in a message, and an option that is lost."""

import base64

import pytest
from marshmallow import ValidationError

from jobmon.settings import Settings, SettingsError
from jobmon.settings.receivers import (
    MAX_RECEIVERS,
    ReceiverAddress,
    decode_signing_secret,
    find_address_secrets,
    parse_receivers,
)

TOKEN = "T1JJ3T3L2-A1BRTD4JD-TIiajkdnlazkcOXrIdevi7FQ"


def test_the_options_of_jobmon_are_removed_from_addresses() -> None:
    assert parse_receivers(
        "https://hooks.example/a?jobmon_level=bad&b=c&jobmon_types=mail.*,pdf\n"
        f"slack://{TOKEN}/#ops?jobmon_name=oncall&jobmon_queues=pay*  json://x/?-k=v&jobmon_level=watch"
    ) == (
        ReceiverAddress(
            name="webhook", url="https://hooks.example/a?b=c", level="bad", types=("mail.*", "pdf")
        ),
        ReceiverAddress(name="oncall", url=f"slack://{TOKEN}/#ops", queues=("pay*",)),
        ReceiverAddress(name="json", url="json://x/?-k=v"),
    )


def test_addresses_of_the_same_kind_get_different_names_without_a_token() -> None:
    text = f"slack://{TOKEN}/#a slack://{TOKEN}/#b https://h.example/{TOKEN} https://u:p@h.example/"
    assert [receiver.name for receiver in parse_receivers(text)] == [
        "slack",
        "slack-2",
        "webhook",
        "webhook-2",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hooks.example", "Address 1: not of the form https://… or SERVICE://…."),
        ("https://a.b/ https://", "Address 2: not of the form https://… or SERVICE://…."),
        ("https://[a/", "Address 1: not of the form https://… or SERVICE://…."),
        ("https://a.b/?jobmon_level=high", "Address 1: jobmon_level is bad or watch."),
        (
            "https://a.b/?jobmon_type=mail",
            "Address 1: unknown option jobmon_type. Known: jobmon_name, jobmon_level, "
            "jobmon_types, jobmon_queues.",
        ),
        (
            "https://a.b/?jobmon_name=a%20b",
            "Address 1: jobmon_name has up to 60 letters, digits, '_', '.' and '-', "
            "first a letter or a digit.",
        ),
        (
            "https://a.b/?jobmon_name=x https://c.d/?jobmon_name=x",
            "Two addresses have the jobmon_name x.",
        ),
        ("https://a.b/ " * (MAX_RECEIVERS + 1), "More than 20 addresses."),
    ],
    ids=["scheme", "host", "bracket", "level", "option", "name", "twice", "many"],
)
def test_a_bad_address_is_refused_without_showing_it(text: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_receivers(text)
    assert caught.value.messages == [message]


def test_a_receiver_of_some_queues_accepts_only_these() -> None:
    receiver = ReceiverAddress(name="a", url="https://a/", queues=("pay*", "mail"))
    assert [name for name in ("payouts", "mail", "mails") if receiver.accepts_queue(name)] == [
        "payouts",
        "mail",
    ]
    assert ReceiverAddress(name="a", url="https://a/").accepts_queue("any")


def test_a_signing_secret_may_be_plain_or_in_the_form_of_standard_webhooks() -> None:
    key = bytes(range(24))
    assert decode_signing_secret("whsec_" + base64.b64encode(key).decode()) == key
    assert decode_signing_secret("x" * 24) == b"x" * 24
    for invalid in ("x" * 23, "whsec_" + "?" * 40, "whsec_" + base64.b64encode(key[:23]).decode()):
        with pytest.raises(ValidationError) as caught:
            decode_signing_secret(invalid)
        assert invalid not in str(caught.value)


def test_the_secrets_of_an_address_are_its_tokens_but_not_the_host_of_a_webhook() -> None:
    url = f"https://user:s%40crets@hooks.example.com/services/{TOKEN}?key=0123456789abcdef"
    assert find_address_secrets(url) == {url, "s%40crets", "s@crets", TOKEN, "0123456789abcdef"}


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("opsgenie://a76b40d9-6b45-4d2c", {"a76b40d9-6b45-4d2c"}),  # the host is an API key
        ("mailtos://smtp.example?user=ada&pass=b%21rch&to=bo", {"b%21rch", "b!rch"}),
        ("https://mattermost.example.com/hooks?token=b1rch", {"b1rch"}),
        ("HTTPS://Mattermost.Example.com:8443/hooks", set()),
        ("https://abcd1234efgh5678/ABCD1234efgh5678", {"ABCD1234efgh5678"}),
        ("https://abcd1234efgh5678:x@host-with-a-long-name/", {"abcd1234efgh5678", "x"}),
    ],
)
def test_the_secrets_of_an_address_may_be_its_host_or_short_values(
    url: str, secrets: set[str]
) -> None:
    assert find_address_secrets(url) == {url, *secrets}


def test_receivers_are_hidden_in_a_repr_and_need_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "MONGO_URI": "mongodb://db/shop",
        "NOTIFY_URLS": f"https://h.example/{TOKEN}",
        "PUBLIC_URL": "https://jobs.example/mon/",
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"JOBMON_{name}", value)
    with pytest.raises(SettingsError, match="JOBMON_NOTIFY_SECRET: not set"):
        Settings.from_env(require_keys=False)
    monkeypatch.setenv("JOBMON_NOTIFY_SECRET", "short")
    with pytest.raises(SettingsError, match="JOBMON_NOTIFY_SECRET: Shorter than 24 bytes"):
        Settings.from_env(require_keys=False)
    monkeypatch.setenv("JOBMON_NOTIFY_SECRET", "s" * 24)
    settings = Settings.from_env(require_keys=False)
    assert settings.public_url == "https://jobs.example/mon"
    assert TOKEN not in repr(settings)
    assert "s" * 24 not in repr(settings)
    assert TOKEN not in repr(settings.notify_urls)
    monkeypatch.setenv("JOBMON_PUBLIC_URL", "https://user@jobs.example/")
    with pytest.raises(SettingsError, match="JOBMON_PUBLIC_URL: It must have no user"):
        Settings.from_env(require_keys=False)
