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
    holds_credentials,
    is_credential_key,
)
from jobmon.redaction.texts import TextRedactor, find_key_before

# Fields that hold a key or its value, in documents such as {name: KEY, value: SECRET}.
NAME_FIELDS = split_words(
    """name key k n header field param parameter property attribute option label variable var id
    type headername fieldname"""
)
_VALUE_FIELDS = split_words("value v val values")
_SCALAR_FIELDS = frozenset(("content", "data"))  # hold a value, unless that is a dict or list
_MIN_SECRET_LENGTH = 4  # characters
_MAX_CACHED_LENGTH = 1_000  # characters; texts up to this length are cached, because errors repeat
_MAX_JSON_LENGTH = 1_000_000  # characters; JSON in a longer text is not decoded
_JSON_START = re.compile(r"[{\[]\s{0,20}[\"{\[]")
_JSON_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*:)?')  # the group: it is a key
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_GROWTH = 16  # of JSON that is rewritten: escapes double at each level of JSON inside texts
_MAX_FAILED_STARTS = 16  # failed JSON decodings; each may read to the text's end
_MAX_JSON_TEXTS = 10_000  # in one text; what follows is hidden, because each takes 10 µs
_BEYOND_JSON = f"[redacted: only the first {_MAX_JSON_TEXTS:,} JSON texts are read]"


def _read_int(digits: str) -> int | str:
    """The number with these digits; REDACTED if it is a card number."""
    return int(digits) if hide_cards(digits) == digits else REDACTED


_DECODER = json.JSONDecoder()
_CARD_DECODER = json.JSONDecoder(parse_int=_read_int)


class Redactor:
    """Replaces the values of secret keys, and texts with the form of a secret.

    In doubt it hides a value: a hidden harmless value does less harm than a leaked secret.

    >>> Redactor().redact({"apiKey": "x", "note": "password=x", "size": 1})
    {'apiKey': '[redacted]', 'note': 'password=[redacted]', 'size': 1}
    """

    def __init__(self, keys: Iterable[str] = DEFAULT_REDACT_KEYS) -> None:
        self._keys = SecretKeys(keys)
        self._text_redactor = TextRedactor(self._keys)
        self._redact_short_text = lru_cache(2_048)(self._redact_uncached)

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
        if len(text) < _MIN_SECRET_LENGTH:
            return text
        is_short = len(text) <= _MAX_CACHED_LENGTH
        return self._redact_short_text(text) if is_short else self._redact_uncached(text)

    def _redact_document(self, document: dict[str, Any]) -> dict[str, Any]:
        redacted = {
            self._redact_text(str(key)): self._redact_member(str(key), value)
            for key, value in document.items()
        }
        if len(document) > 1 and any(
            str(field).lower() in NAME_FIELDS
            and isinstance(name, str)
            and self._keys.includes_name(name)
            for field, name in document.items()
        ):
            redacted |= {
                field: REDACTED
                for field, value in document.items()
                if str(field).lower() in _VALUE_FIELDS
                or (str(field).lower() in _SCALAR_FIELDS and not isinstance(value, dict | list))
            }
        return redacted

    def _redact_member(self, key: str, value: Any) -> Any:
        if self._keys.includes(key):
            is_quantity = isinstance(value, int | float) and self._keys.is_quantity(key)
            return value if is_quantity else REDACTED
        is_credential = (
            holds_credentials(key) if isinstance(value, dict | list) else is_credential_key(key)
        )
        return _hide_all_values(value) if is_credential else self.redact(value)

    def _redact_array(self, array: list[Any]) -> list[Any]:
        redacted = [self.redact(inner) for inner in array]
        for index, key in enumerate(array[:-1]):
            # Keys and values may alternate; in a command line, an option is before its value.
            may_be_key = len(array) % 2 == 0 and index % 2 == 0
            is_key = isinstance(key, str) and (may_be_key or key.startswith("-"))
            if is_key and self._keys.includes_name(key):
                redacted[index + 1] = REDACTED
        return redacted

    def _redact_uncached(self, text: str) -> str:
        """`text` with its secrets replaced; JSON in it is redacted as a document."""
        if '"' not in text or len(text) > _MAX_JSON_LENGTH:
            return self._text_redactor.redact(text)
        parts: list[str] = []
        done_until = position = failures = count = 0
        while failures < _MAX_FAILED_STARTS and (opening := _JSON_START.search(text, position)):
            start = opening.start()
            if count == _MAX_JSON_TEXTS:
                return "".join([*parts, _BEYOND_JSON])
            try:
                redacted, end = self._redact_json(text, start)
            except (ValueError, RecursionError):
                failures += 1
                position = start + 1
                continue
            key = find_key_before(text, start)
            if key is not None and self._keys.includes_name(key.strip(".$-")):
                redacted = REDACTED
            before = text[done_until:start]
            if len(before) >= _MIN_SECRET_LENGTH:
                before = self._text_redactor.redact(before)
            parts += [before, redacted]
            done_until = position = end
            count += 1
        return "".join([*parts, self._text_redactor.redact(text[done_until:])])

    def _redact_json(self, text: str, start: int) -> tuple[str, int]:
        """The JSON text at `start` with its secrets replaced, and the index of its end.

        JSON that has neither a secret nor a repeated key is returned unchanged. JSON that would
        become too long is replaced as a whole. Raises ValueError if there is no JSON at `start`,
        and RecursionError if it is nested too deeply.
        """
        document, end = _DECODER.raw_decode(text, start)
        json_text, content = text[start:end], document
        if may_have_card(json_text):
            content = _CARD_DECODER.raw_decode(text, start)[0]
        # Not `document` too: JSON nested in JSON would double the time at each level.
        redacted = self.redact(content)
        # `document` has only the last value of a repeated key: the earlier values may be secret.
        key_count = sum(map(bool, _JSON_STRING.findall(json_text)))
        if redacted == document and key_count == _count_keys(document):
            return json_text, end
        rewritten = json.dumps(redacted, ensure_ascii=False)
        if _SURROGATE.search(rewritten):  # half of a pair, which only an escape can represent
            rewritten = json.dumps(redacted)
        return rewritten if len(rewritten) <= _MAX_GROWTH * len(json_text) else REDACTED, end


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
