"""Patterns of names: catches a pattern that matches other names in Prometheus than in jobmon."""

import re

import pytest

from jobmon.settings.name_patterns import matches_any, pattern_regex


@pytest.mark.parametrize(
    ("pattern", "matching", "different"),
    [
        ("mail", ["mail"], ["mails", "xmail", "Mail", ""]),
        ("mail.*", ["mail.", "mail.a", "mail.a\nb"], ["mail", "mailXa"]),
        ("a?c", ["abc", "a?c"], ["ac", "abbc"]),
        ("job[ab]", ["job[ab]"], ["joba"]),
        ("*", ["", "a b"], []),
    ],
)
def test_a_pattern_matches_whole_names_with_two_wildcards(
    pattern: str, matching: list[str], different: list[str]
) -> None:
    regex = re.compile(pattern_regex(pattern), re.DOTALL)  # Prometheus, too, matches whole names
    for name in matching + different:
        assert matches_any(name, ["other", pattern]) is (name in matching)
        assert bool(regex.fullmatch(name)) is (name in matching)
    assert not matches_any("mail", [])
