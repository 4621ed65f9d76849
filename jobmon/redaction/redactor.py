"""Replaces secrets in documents and texts, at any depth."""

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from jobmon.redaction.forms import REDACTED, hide_cards, may_have_card, split_words
from jobmon.redaction.keys import (
    DEFAULT_REDACT_KEYS,
    SecretKeys,
    has_credential_word,
    is_credential_key,
)
from jobmon.redaction.texts import KEY_BEFORE, TextRedactor

# Pairs such as {name: KEY, value: SECRET}: fields that have the key, and fields with its value.
_NAMES = split_words(
    """name key k n header field param parameter property attribute option label variable var id
    type headername fieldname"""
)
_VALUES = split_words("value v val values")
_TEXT_VALUES = frozenset(("content", "data"))  # only texts: a document in `data` is no secret
_SHORTEST_SECRET = 4
_CACHED_LENGTH = 1_000  # characters; shorter texts are cached, because errors repeat
_LONGEST_JSON = 1_000_000
_JSON_START = re.compile(r"[{\[]\s{0,20}[\"{\[]")
_MAX_FAILED_STARTS = 16  # a failed attempt may read to the end of the text


def _read_int(digits: str) -> int | str:
    return int(digits) if hide_cards(digits) == digits else REDACTED


_DECODER = json.JSONDecoder()
_CARD_DECODER = json.JSONDecoder(parse_int=_read_int)


class Redactor:
    """Replaces the values of secret keys, and texts with the form of a secret.

    In doubt it hides a value: hiding too much costs time, hiding too little is a leak.

    >>> Redactor().redact({"apiKey": "x", "note": "password=x", "size": 1})
    {'apiKey': '[redacted]', 'note': 'password=[redacted]', 'size': 1}
    """

    def __init__(self, keys: Iterable[str] = DEFAULT_REDACT_KEYS) -> None:
        self._keys = SecretKeys(keys)
        self._plain_texts = TextRedactor(self._keys)
        self._redact_short_text = lru_cache(2_048)(self._search_text)

    def redact(self, value: Any) -> Any:
        """`value`, which may be nested dicts and lists, with its secrets replaced."""
        match value:
            case str():
                return self._redact_text(value)
            case dict():
                return self._redact_document(value)
            case list():
                return self._redact_array(value)
            case _:
                return value

    def _redact_text(self, text: str) -> str:
        if len(text) < _SHORTEST_SECRET:
            return text
        is_short = len(text) <= _CACHED_LENGTH
        return self._redact_short_text(text) if is_short else self._search_text(text)

    def _redact_document(self, document: dict[str, Any]) -> dict[str, Any]:
        shown = {
            self._redact_text(str(key)): self._redact_member(str(key), value)
            for key, value in document.items()
        }
        if len(document) > 1 and any(
            isinstance(name, str) and str(key).lower() in _NAMES and self._keys.includes_name(name)
            for key, name in document.items()
        ):
            shown |= {
                key: REDACTED
                for key, value in document.items()
                if str(key).lower() in _VALUES
                or (str(key).lower() in _TEXT_VALUES and not isinstance(value, dict | list))
            }
        return shown

    def _redact_member(self, key: str, value: Any) -> Any:
        if self._keys.includes(key):
            is_measure = isinstance(value, int | float) and self._keys.is_measure(key)
            return value if is_measure else REDACTED
        is_credential = (
            has_credential_word(key) if isinstance(value, dict | list) else is_credential_key(key)
        )
        return _hide_all_values(value) if is_credential else self.redact(value)

    def _redact_array(self, array: list[Any]) -> list[Any]:
        shown = [self.redact(inner) for inner in array]
        for number, name in enumerate(array[:-1]):
            # The list alternates names and values, or has a command's option before its value.
            in_pairs = len(array) % 2 == 0 and number % 2 == 0
            is_name = isinstance(name, str) and (in_pairs or name.startswith("-"))
            if is_name and self._keys.includes_name(name):
                shown[number + 1] = REDACTED
        return shown

    def _search_text(self, text: str) -> str:
        """`text` with its secrets replaced; JSON in it is redacted as a document."""
        if '"' not in text or len(text) > _LONGEST_JSON:
            return self._plain_texts.redact(text)
        parts, done, position, failures = [], 0, 0, 0
        while failures < _MAX_FAILED_STARTS and (start := _JSON_START.search(text, position)):
            begin = start.start()
            try:
                shown, end = self._redact_json(text, begin)
            except (ValueError, RecursionError):
                failures += 1
                position = begin + 1
                continue
            key = KEY_BEFORE.search(text, max(0, begin - 100), begin)
            if key is not None and self._keys.includes_name(key["key"].strip(".$-")):
                shown = REDACTED
            parts += [self._plain_texts.redact(text[done:begin]), shown]
            done = position = end
        return "".join([*parts, self._plain_texts.redact(text[done:])])

    def _redact_json(self, text: str, begin: int) -> tuple[str, int]:
        """The JSON text at `begin` with its secrets replaced, and the index of its end.

        JSON without a secret is returned unchanged. Raises ValueError or RecursionError if there is
        no JSON at `begin`.
        """
        document, end = _DECODER.raw_decode(text, begin)
        whole, shown = text[begin:end], self.redact(document)
        if may_have_card(whole):
            shown = self.redact(_CARD_DECODER.raw_decode(text, begin)[0])
        # The decoder drops repeated keys. The text with them is not returned unchanged.
        is_same = shown == document and whole.count('":') <= _count_keys(document)
        return whole if is_same else json.dumps(shown, ensure_ascii=False), end


def _hide_all_values(value: Any) -> Any:
    """`value` with each value in it replaced; its keys remain."""
    match value:
        case dict():
            return {key: _hide_all_values(inner) for key, inner in value.items()}
        case list():
            return [_hide_all_values(inner) for inner in value]
        case _:
            return REDACTED


def _count_keys(value: Any) -> int:
    match value:
        case dict():
            return len(value) + sum(map(_count_keys, value.values()))
        case list():
            return sum(map(_count_keys, value))
        case _:
            return 0
