"""Truncates values of documents: a field may hold 16 MB where a word is expected."""

import base64
from collections.abc import Mapping
from typing import Any

from bson.dbref import DBRef
from bson.regex import Regex

CUT = "…"
_SCALAR_LENGTH = 8


class CharacterBudget:
    """Truncates one value after the other, until `characters` in total are used up.

    >>> budget = CharacterBudget(5)
    >>> budget.truncate("abc"), budget.truncate("defg")
    ('abc', 'de…')
    """

    def __init__(self, characters: int) -> None:
        self._left = characters

    def truncate(self, value: Any, *, at_least: int = 0) -> Any:
        """`value` without the parts, at any depth, that exceed the budget; `…` marks each cut.

        `at_least` characters may be used even if the budget has fewer left.
        """
        self._left = max(self._left, at_least)
        return self._truncate(value)

    def _truncate(self, value: Any) -> Any:
        match value:
            case str() | bytes() if len(value) <= self._left:
                self._left -= len(value)
                return value
            case str():
                return self._take_all(value) + CUT
            case bytes():
                return base64.b64encode(self._take_all(value)).decode() + CUT
            case dict():
                return self._truncate_document(value)
            case list():
                return self._truncate_array(value)
            case DBRef():
                return self._truncate_document(value.as_doc())
            case Regex() if len(value.pattern) > self._left:
                return self._truncate(value.pattern)
            case _:
                self._left -= _SCALAR_LENGTH
                return value

    def _take_all(self, value: Any) -> Any:
        left, self._left = max(0, self._left), 0
        return value[:left]

    def _truncate_document(self, value: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            if self._left <= 0:
                kept[CUT] = CUT
                break
            name = self._truncate(key)
            kept[name] = self._truncate(inner)
        return kept

    def _truncate_array(self, value: list[Any]) -> list[Any]:
        kept: list[Any] = []
        for inner in value:
            if self._left <= 0:
                kept.append(CUT)
                break
            kept.append(self._truncate(inner))
            self._left -= 1
        return kept
