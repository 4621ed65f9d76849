"""Tokens that were checked before: catches a token that is accepted although it has expired, is
not valid yet, or was signed with a key that the identity provider has removed."""

import time
from typing import Any

import pytest

from jobmon.web.checked_tokens import MAX_TOKENS, CheckedTokens

LEEWAY_S = 10
KEY: Any = object()
OTHER_KEY: Any = object()


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
def test_times_are_compared_with_the_clock_at_each_use(
    offsets_s: dict[str, int], is_valid: bool
) -> None:
    """`offsets_s` has the times in the token as seconds from now."""
    now = int(time.time())
    claims = {name: now + offset_s for name, offset_s in offsets_s.items()} | {"sub": "ada"}
    checked = CheckedTokens(LEEWAY_S)
    checked.add("token", claims)
    assert checked.find_claims("token") == (claims if is_valid else None)


def test_another_token_is_not_found() -> None:
    checked = CheckedTokens(LEEWAY_S)
    checked.add("token", {"sub": "ada"})
    assert checked.find_claims("token.") is None
    assert checked.find_claims("\ud800") is None


def test_token_must_be_checked_again_when_its_key_has_changed_or_is_gone() -> None:
    keys = {"one": KEY}
    checked = CheckedTokens(LEEWAY_S, keys.get)
    checked.add("token", {"sub": "ada"}, "one", KEY)
    assert checked.find_claims("token") == {"sub": "ada"}
    keys["one"] = OTHER_KEY
    assert checked.find_claims("token") is None
    del keys["one"]
    assert checked.find_claims("token") is None


def test_only_the_most_recently_used_tokens_are_kept() -> None:
    checked = CheckedTokens(LEEWAY_S)
    checked.add("used", {})
    for number in range(MAX_TOKENS):
        checked.add(f"token {number}", {})
        assert checked.find_claims("used") == {}
    assert checked.find_claims("token 0") is None
    assert checked.find_claims(f"token {MAX_TOKENS - 1}") == {}
