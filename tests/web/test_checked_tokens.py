"""Tokens that were checked before: catches a token that is accepted though it is expired, not
valid yet, or signed by a key that the identity provider has withdrawn."""

import time
from typing import Any

import pytest

from jobmon.web.checked_tokens import MAX_TOKENS, CheckedTokens

LEEWAY_S = 10
KEY: Any = object()
OTHER_KEY: Any = object()


@pytest.mark.parametrize(
    ("claims", "is_valid"),
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
    claims: dict[str, int], is_valid: bool
) -> None:
    now = int(time.time())
    absolute = {name: now + offset for name, offset in claims.items()} | {"sub": "ada"}
    checked = CheckedTokens(LEEWAY_S)
    checked.add("token", absolute)
    assert checked.find_claims("token") == (absolute if is_valid else None)


def test_only_the_same_token_is_found() -> None:
    checked = CheckedTokens(LEEWAY_S)
    checked.add("token", {"sub": "ada"})
    assert checked.find_claims("token.") is None
    assert checked.find_claims("\ud800") is None


def test_a_token_is_checked_again_when_its_key_has_changed() -> None:
    keys = {"one": KEY}
    checked = CheckedTokens(LEEWAY_S, keys.get)
    checked.add("token", {"sub": "ada"}, "one", KEY)
    assert checked.find_claims("token") == {"sub": "ada"}
    keys["one"] = OTHER_KEY
    assert checked.find_claims("token") is None
    del keys["one"]
    assert checked.find_claims("token") is None


def test_the_tokens_that_were_used_last_are_kept() -> None:
    checked = CheckedTokens(LEEWAY_S)
    checked.add("used", {})
    for number in range(MAX_TOKENS):
        checked.add(f"token {number}", {})
        assert checked.find_claims("used") == {}
    assert checked.find_claims("token 0") is None
    assert checked.find_claims(f"token {MAX_TOKENS - 1}") == {}
