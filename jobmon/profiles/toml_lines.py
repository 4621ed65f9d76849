"""Finds the line of a key in a TOML text, so that a mistake is reported with its line."""

import tomllib
from bisect import bisect_left
from contextlib import suppress
from itertools import product
from typing import Any

KeyPath = tuple[str | int, ...]

# What may complete a text that ends inside a string, or inside arrays and inline tables.
_ENDS = ('"""', "'''", *("".join(ends) for n in range(5) for ends in product("]}", repeat=n)))


def find_line(text: str, path: KeyPath) -> int:
    """The number of the line where the value at a path begins, in a valid TOML text.

    The path of an array's element has its index: 'a = 1\\nb = [\\n{c = 2}]' has ("b", 0, "c") on
    line 3. If the text lacks the path, it is the line of the nearest value that contains it.
    """
    content = tomllib.loads(text)
    while not _has(content, path):
        path = path[:-1]
    lines = text.split("\n")
    return 1 + bisect_left(
        range(len(lines)), True, key=lambda index: _has(_load_start(lines[: index + 1]), path)
    )


def _load_start(lines: list[str]) -> dict[str, Any]:
    """The content of a text's first lines, without last lines that nothing in `_ENDS` completes."""
    while True:
        text = "\n".join(lines)
        for end in _ENDS:
            with suppress(tomllib.TOMLDecodeError):
                return tomllib.loads(f"{text}\n{end}")
        lines = lines[:-1]


def _has(content: Any, path: KeyPath) -> bool:
    for part in path:
        try:
            content = content[part]
        except (LookupError, TypeError):
            return False
    return True
