"""Search fields: catches a field that is accepted although redaction hides its values, or although
no index can have it."""

from pathlib import Path
from typing import Any

import pytest

from jobmon.app import create_app
from jobmon.settings import Settings, SettingsError, load_queues

URI = "mongodb://db/shop"


def make_settings(*fields: str, **settings: Any) -> Settings:
    return Settings(mongo_uri=URI, search_fields=fields, **settings)


def test_search_fields_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI", URI)
    monkeypatch.setenv("JOBMON_SEARCH_FIELDS", "payload.orderId, payload.customer.email,")
    fields = ("payload.orderId", "payload.customer.email")
    assert Settings.from_env(require_keys=False).search_fields == fields
    assert Settings.for_init(URI).search_fields == fields


@pytest.mark.parametrize(
    ("settings", "name", "path"),
    [
        ({}, "payload.orderId", "payload.orderId"),
        ({"job_fields": {"payload": "input.job"}}, "payload.a.b", "input.job.a.b"),
        ({"profile": "agenda"}, "payload.orderId", "data.orderId"),
        ({"profile": "celery"}, "payload.kwargs.user_id", "kwargs.user_id"),
        ({"profile": "celery"}, "payload.args", "args"),
        ({"redact_keys": ("pan",)}, "payload.token", "payload.token"),
    ],
)
def test_search_field_is_mapped_to_its_path_in_the_documents(
    settings: dict[str, Any], name: str, path: str
) -> None:
    assert make_settings(name, **settings).find_search_paths() == {name: path}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("payload.token", "token"),
        ("payload.token.id", "token"),
        ("payload.user.refreshTokenV2", "refreshTokenV2"),
        ("payload.card_number", "card_number"),
        ("payload.authConfig.user", "authConfig"),
        ("payload.oauth", "oauth"),
        ("payload.mine.id", "mine"),
    ],
)
def test_search_field_that_redaction_hides_is_refused(name: str, key: str) -> None:
    keys = (*Settings.redact_keys, "mine")
    message = f"JOBMON_SEARCH_FIELDS: {name} cannot be searched: redaction hides the values of "
    with pytest.raises(SettingsError, match=message + key):
        make_settings(name, redact_keys=keys)


@pytest.mark.parametrize(
    ("fields", "settings", "message"),
    [
        (("orderId",), {}, "orderId is not a field of the payload, such as payload.orderId"),
        (("payload",), {}, "payload is not a field"),
        (("payload.",), {}, "is not a field"),
        (("payload.$where",), {}, "is not a field"),
        (("payload.a..b",), {}, "is not a field"),
        (("payload.a[0]",), {}, "is not a field"),
        (("payload.items.0.sku",), {}, "has a position in an array: leave it out"),
        (("payload.a", "payload.a"), {}, "Given more than once: payload.a"),
        (tuple(f"payload.a{index}" for index in range(11)), {}, "More than 10 fields"),
        (("payload.x",), {"profile": "hangfire"}, "the profile computes it"),
        (("payload.x",), {"profile": "jobrunr"}, "the profile computes it"),
        (("payload.other",), {"profile": "celery"}, "the profile computes it"),
    ],
)
def test_invalid_search_fields_are_refused(
    fields: tuple[str, ...], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        make_settings(*fields, **settings)


def test_service_does_not_start_with_a_search_field_that_redaction_hides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBMON_MONGO_URI", URI)
    monkeypatch.setenv("JOBMON_JWT_SECRET_KEY", "0" * 32)
    monkeypatch.setenv("JOBMON_SEARCH_FIELDS", "payload.password")
    with pytest.raises(SystemExit):
        create_app()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jobmon: JOBMON_SEARCH_FIELDS: payload.password cannot be searched")


def test_each_queue_has_its_own_search_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "queues.toml"

    def load(text: str) -> tuple[Settings, ...]:
        path.write_text(text)
        return load_queues(Settings(mongo_uri=URI, queues=str(path)))

    orders, mails = load(
        '[orders]\nsearch_fields = ["payload.orderId"]\n[mails]\ncollection = "mails"'
    )
    assert (orders.search_fields, mails.search_fields) == (("payload.orderId",), ())
    with pytest.raises(SettingsError, match=r"line 2: orders.search_fields: payload.pin cannot be"):
        load('[orders]\nsearch_fields = ["payload.pin"]')
    monkeypatch.setenv("JOBMON_QUEUES", str(path))
    monkeypatch.setenv("JOBMON_MONGO_URI", URI)
    monkeypatch.setenv("JOBMON_SEARCH_FIELDS", "payload.orderId")
    with pytest.raises(SettingsError, match="JOBMON_SEARCH_FIELDS: Not used with JOBMON_QUEUES"):
        Settings.from_env(require_keys=False)
