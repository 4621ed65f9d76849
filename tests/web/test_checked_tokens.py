"""Tokens that were checked before: catches a token that is accepted although it has expired, is
not valid yet, or was signed with a key that the identity provider has removed."""

import time
from typing import Any

import pytest

from jobmon.settings import Settings
from jobmon.web.checked_tokens import MAX_TOKENS, CheckedTokens
from jobmon.web.claims import AccessToken

LEEWAY_S = 10
KEY: Any = object()
OTHER_KEY: Any = object()


def make_access_token(**times: int) -> AccessToken:
    claims = {"sub": "ada", "jti": "1", **times}
    settings = Settings(mongo_uri="mongodb://localhost/jobs", jwt_secret_key="s" * 32)
    access = AccessToken.from_claims(claims, settings)
    assert access is not None
    return access


@pytest.mark.parametrize(
    ("offsets_s", "is_valid"),
    [
        ({}, True),
        ({"exp": 60}, True),
        ({"exp": -60}, False),
        ({"exp": -LEEWAY_S + 5}, True),
        ({"exp": -LEEWAY_S}, False),
        ({"nbf": -60, "iat": -60, "exp": 60}, True),
        ({"nbf": 60}, False),
        ({"iat": 60, "nbf": -60}, False),
        ({"nbf": LEEWAY_S - 5}, True),
    ],
)
def test_token_is_found_only_while_its_times_are_valid(
    offsets_s: dict[str, int], is_valid: bool
) -> None:
    """`offsets_s`: the times in the token, in seconds from now."""
    now = int(time.time())
    access = make_access_token(**{name: now + offset_s for name, offset_s in offsets_s.items()})
    checked = CheckedTokens(LEEWAY_S)
    checked.add("token", access)
    assert checked.find("token") is (access if is_valid else None)


def test_another_token_is_not_found() -> None:
    checked = CheckedTokens(LEEWAY_S)
    checked.add("token", make_access_token())
    assert checked.find("token.") is None
    assert checked.find("\ud800") is None


def test_token_is_not_found_after_its_key_has_changed_or_is_gone() -> None:
    keys = {"one": KEY}
    checked = CheckedTokens(LEEWAY_S, keys.get)
    access = make_access_token()
    checked.add("token", access, "one", KEY)
    assert checked.find("token") is access
    keys["one"] = OTHER_KEY
    assert checked.find("token") is None
    del keys["one"]
    assert checked.find("token") is None


def test_only_the_most_recently_used_tokens_are_kept() -> None:
    checked = CheckedTokens(LEEWAY_S)
    access = make_access_token()
    checked.add("used", access)
    for index in range(MAX_TOKENS):
        checked.add(f"token {index}", access)
        assert checked.find("used") is access
    assert checked.find("token 0") is None
    assert checked.find(f"token {MAX_TOKENS - 1}") is access
