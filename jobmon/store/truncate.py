"""Truncates values of documents: a field may hold 16 MB where a word is expected."""

import base64
from collections.abc import Mapping
from typing import Any

from bson.dbref import DBRef
from bson.regex import Regex

from jobmon.redaction.redactor import NAME_FIELDS

CUT = "…"
_MAX_NAME_LENGTH = 100  # characters
_SCALAR_LENGTH = 8  # characters that a number, a date or another short value uses up


class CharacterBudget:
    """Truncates values: together, they keep about `characters` characters.

    >>> budget = CharacterBudget(5)
    >>> budget.truncate("abc"), budget.truncate("defg")
    ('abc', 'de…')
    """

    def __init__(self, characters: int) -> None:
        self._remaining = characters
        self.has_cut = False  # whether a part of a value was left out

    def truncate(self, value: Any, *, at_least: int = 0) -> Any:
        """`value` without the parts, at any depth, that exceed the budget; `…` marks each cut.

        `at_least` characters may be used even if fewer remain in the budget.
        """
        self._remaining = max(self._remaining, at_least)
        return self._truncate(value)

    def _truncate(self, value: Any) -> Any:
        match value:
            case str() | bytes() if len(value) <= self._remaining:
                self._remaining -= len(value)
                return value
            case str():
                return self._take_remaining(value) + CUT
            case bytes():
                return base64.b64encode(self._take_remaining(value)).decode() + CUT
            case dict():
                return self._truncate_document(value)
            case list():
                return self._truncate_array(value)
            case DBRef():
                return self._truncate_document(value.as_doc())
            case Regex() if len(value.pattern) > self._remaining:
                return self._truncate(value.pattern)
            case _:
                self._remaining -= _SCALAR_LENGTH
                return value

    def _take_remaining(self, value: Any) -> Any:
        self.has_cut = True
        length, self._remaining = max(0, self._remaining), 0
        return value[:length]

    def _truncate_document(self, value: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            if self._remaining <= 0:
                kept[CUT], self.has_cut = CUT, True
                break
            name = self._truncate(key)
            kept[name] = self._truncate(inner)
        if self._remaining <= 0:  # of {value: …, name: …}, the name shows that the value is secret
            kept |= {name: inner for name, inner in value.items() if _is_name(name, inner)}
        return kept

    def _truncate_array(self, value: list[Any]) -> list[Any]:
        kept: list[Any] = []
        for inner in value:
            if self._remaining <= 0:
                kept.append(CUT)
                self.has_cut = True
                break
            kept.append(self._truncate(inner))
            self._remaining -= 1
        return kept


def _is_name(field: str, value: Any) -> bool:
    is_short = isinstance(value, str) and len(value) <= _MAX_NAME_LENGTH
    return is_short and field.lower() in NAME_FIELDS
