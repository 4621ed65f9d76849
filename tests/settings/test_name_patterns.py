"""Patterns of names: catches one that means something else in another file or in Prometheus."""

import re

import pytest

from jobmon.settings.name_patterns import matches_any, pattern_regex


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("mail", ["mail"], ["mails", "xmail", "Mail", ""]),
        ("mail.*", ["mail.", "mail.a", "mail.a\nb"], ["mail", "mailXa"]),
        ("a?c", ["abc", "a?c"], ["ac", "abbc"]),
        ("job[ab]", ["job[ab]"], ["joba"]),
        ("*", ["", "a b"], []),
    ],
)
def test_a_pattern_is_a_whole_name_with_only_two_wildcards(
    pattern: str, matching: list[str], others: list[str]
) -> None:
    regex = re.compile(pattern_regex(pattern), re.DOTALL)
    for name in matching + others:
        assert matches_any(name, ["other", pattern]) is (name in matching)
        assert bool(regex.fullmatch(name)) is (name in matching)
    assert not matches_any("mail", [])
