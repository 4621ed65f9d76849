"""Patterns such as `mail.*` for names of types and queues: `*` is any text, `?` one character."""

import re
from collections.abc import Iterable
from functools import lru_cache


@lru_cache(1_000)
def pattern_regex(pattern: str) -> str:
    """The regular expression that matches a whole name; Prometheus understands it, too."""
    parts = re.split(r"([*?])", pattern)
    return "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether the whole name matches one of the patterns."""
    return any(re.fullmatch(pattern_regex(pattern), name, re.DOTALL) for pattern in patterns)
