"""Redaction: would catch a secret that is shown, and a harmless value that is hidden."""

import pytest

from jobmon.domain import REDACTED, JobStatus, Redactor


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Password",
        "userPassword",
        "user_password",
        "PASSWORD_HASH",
        "passwd",
        "token",
        "accessToken",
        "refresh-token",
        "clientSecret",
        "Authorization",
        "api_key",
        "apiKey",
        "x-api-key",
        "APIKEY",
        "cardNumber",
        "card_number",
        "creditCard",
        "pan",
        "card-pan",
        "cvv",
        "cardCvv",
        "CVC",
        "PIN",
        "userPin",
        "privateKey",
        "Set-Cookie",
    ],
)
def test_a_key_that_looks_secret_is_redacted(key: str) -> None:
    assert Redactor().redact({key: "value"}) == {key: REDACTED}


@pytest.mark.parametrize(
    "key", ["company", "expand", "spinner", "shipping", "author", "status", "amount", "key", "id"]
)
def test_a_key_that_only_resembles_one_is_shown(key: str) -> None:
    assert Redactor().redact({key: "value"}) == {key: "value"}


def test_secrets_are_redacted_at_any_depth_and_whole() -> None:
    payload = {
        "a": [{"b": {"token": "x"}}, [{"secret": {"deep": 1}}], "token"],
        "passwords": ["one", "two"],
        "pin": None,
    }
    assert Redactor().redact(payload) == {
        "a": [{"b": {"token": REDACTED}}, [{"secret": REDACTED}], "token"],
        "passwords": REDACTED,
        "pin": REDACTED,
    }
    assert payload["pin"] is None  # the document itself is left alone


def test_keys_that_are_set_replace_the_default_ones() -> None:
    redactor = Redactor(["shoe_size", "", "--"])
    assert redactor.redact({"shoeSize": 43, "token": "x"}) == {"shoeSize": REDACTED, "token": "x"}


@pytest.mark.parametrize("value", ["text", 1, None, True, [], {}])
def test_what_has_no_keys_is_unchanged(value: object) -> None:
    assert Redactor().redact(value) == value


def test_the_statuses_are_the_contracts() -> None:
    assert [*JobStatus] == ["queued", "leased", "succeeded", "failed", "dlq", "cancelled"]
