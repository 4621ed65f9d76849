"""Hides secrets in texts: the values of secret keys, and parts with the form of a secret.

Each pattern takes time in proportion to the length of the text. The patterns of detect-secrets are
not used: they are for source code, give no position to replace, and mistake ids for secrets.
"""

import re

from jobmon.redaction.forms import (
    HARMLESS_WORDS,
    REDACTED,
    hide_cards,
    hide_keys_and_urls,
    hide_tokens,
)
from jobmon.redaction.keys import SecretKeys

_AUTHORIZATION_SCHEMES = frozenset(("token", "jwt"))  # these are also HARMLESS_WORDS
_XML = re.compile(
    r"(<(?P<key>[\w:.-]{1,64})(?:\s[^<>]{0,200})?>)"
    r"(?:[^<]{1,1000}|<!\[CDATA\[.{0,1000}?\]\]>)(?=</|<? …\Z)",  # … ends a truncated text
    re.DOTALL,
)
_OPTION = re.compile(r"(?<!\S)(--?(?P<key>[\w-]{2,64})[ \t]{1,3})(?P<value>[^\s-]\S*)")
_CURL_USER = re.compile(
    r"(?<!\S)((?:-u|--user|--proxy-user)[ \t=]{1,3}[\"']?[^\s:\"']{0,200}:)[^\s\"']+"
)
_PHRASE = re.compile(
    r"(?i)\b((?:mnemonic|(?:seed|recovery|secret|backup)[ _-]?(?:phrase|words?))[\"']?\s{0,3}[:=]"
    r"\s{0,3}[\"']?)[a-z]{3,8}(?:[ ,]{1,2}[a-z]{3,8}){5,30}"
)
_QUOTED_OR_BARE = r"(?:\"[^\"\n]*\"|[^\s,\"']*)"
_AUTHORIZATION = re.compile(
    r"(?i)(?<![a-z])((?:proxy-)?authorization[\"'\\]{0,3}[ \t]{0,3}(?:=>|[=:])[ \t]{0,3}"
    r"[\"'\\]{0,3})([a-z][\w-]{0,30}[ \t]{1,3})?"
    rf"((?:\w{{1,40}}={_QUOTED_OR_BARE}|[^\s,;\"'\\]+)"
    rf"(?:,[ \t]{{0,3}}\w{{1,40}}={_QUOTED_OR_BARE})*)"
)
_COOKIES = re.compile(r"(?i)\b((?:set-)?cookie[\"']?\s{0,3}:\s{0,3})[^\r\n\"']+")
_SEPARATORS = (":", "=", "->", "\uff1d", "\uff1a", "%3D", "%3d", "%3A", "%3a", ",")
_KEY_AND_SEPARATOR = (
    r"(?<![\w.$-])(?P<key>[\w.$-]{1,64})"
    r"(?P<between>(?:[\\\"'\]`\u201d\u2019]|%5[Dd]|%22){0,9}[ \t\u00a0]{0,3}"
    r"(?:=>|->|:=|={1,3}|[:\uff1d\uff1a]|%3(?i:[ad]))[ \t\u00a0]{0,3})"
)
_KEY_BEFORE = re.compile(rf"{_KEY_AND_SEPARATOR}\Z")
_SEPARATOR_ENDS = (*"=>:\uff1d\uff1aadAD",)  # the last characters of a separator
_KEY = re.compile(_KEY_AND_SEPARATOR)
_PAIR = re.compile(
    rf"{_KEY_AND_SEPARATOR}"
    r"(?P<value>\\+[\"'][^\"'\\\n]*|[burBUR]{0,2}\"(?:[^\"\\\n]|\\.)*(?:\"|\Z|(?=\n))"
    r"|[burBUR]{0,2}'(?:[^'\\\n]|\\.)*(?:'|\Z|(?=\n))"
    r"|(?i:bearer|basic|digest|token)[ \t]{1,3}[^\s,;\"']+"
    r"|\[[^\[\]\n]{1,500}\]|\{[^{}\n]{1,500}\}|\([^()\n]{1,500}\)|<[^<>\n]{1,500}>"
    r"|(?:[^\s,;&\"'(){}\[\]<>\\]|'(?=\w))+)"
)
_QUOTED_PAIR = re.compile(
    r"([\[(]\s{0,3}([\"'])(?P<key>[\w.$-]{1,64})\2\s{0,3},\s{0,3}([\"']))[^\"'\n]{1,1000}"
)


class TextRedactor:
    """Replaces secrets in a text. JSON in it is not decoded."""

    def __init__(self, keys: SecretKeys) -> None:
        self._keys = keys

    def redact(self, text: str) -> str:
        """`text` with its secrets replaced."""
        lowered = text.lower()
        text = hide_keys_and_urls(text, lowered)
        if any(separator in text for separator in _SEPARATORS):
            text = self._hide_values(text, lowered)
        if "-u" in text or "--" in text:
            text = _CURL_USER.sub(rf"\1{REDACTED}", text)
            text = _OPTION.sub(self._hide_option, text)
        if "</" in text or text.endswith("…"):
            text = _XML.sub(self._hide_element, text)
        return hide_cards(hide_tokens(text, lowered))

    def _hide_values(self, text: str, lowered: str) -> str:
        if "cookie" in lowered:
            text = _COOKIES.sub(rf"\1{REDACTED}", text)
        if "authorization" in lowered and self._keys.includes("authorization"):
            text = _AUTHORIZATION.sub(_hide_authorization, text)
        if "mnemonic" in lowered or "phrase" in lowered or "word" in lowered:
            text = _PHRASE.sub(rf"\1{REDACTED}", text)
        return self._hide_pairs(text) if any(hint in lowered for hint in self._keys.hints) else text

    def _hide_option(self, match: re.Match[str]) -> str:
        is_secret = self._keys.includes_name(match["key"])
        is_hidden = is_secret and match["value"].lower() not in HARMLESS_WORDS
        return match[1] + REDACTED if is_hidden else match[0]

    def _hide_element(self, match: re.Match[str]) -> str:
        is_secret = self._keys.includes_name(match["key"].rpartition(":")[2])
        return match[1] + REDACTED if is_secret else match[0]

    def _hide_pairs(self, text: str) -> str:
        """`text` with the values of secret keys replaced, even if a key is inside another value.

        Only values of secret keys are read: in `a=a=a=…` each value reaches to the end.
        """
        parts, done_until, position = [], 0, 0
        while key := _KEY.search(text, position):
            position = key.end()
            if not self._keys.includes_in_text(key["key"]):
                continue
            pair = _PAIR.match(text, key.start())
            if pair is not None and (redacted := self._hide_pair(pair)) != pair[0]:
                parts += [text[done_until : pair.start()], redacted]
                done_until = position = pair.end()
        return _QUOTED_PAIR.sub(self._hide_quoted_pair, "".join([*parts, text[done_until:]]))

    def _hide_quoted_pair(self, match: re.Match[str]) -> str:
        return match[1] + REDACTED if self._keys.includes_name(match["key"]) else match[0]

    def _hide_pair(self, pair: re.Match[str]) -> str:
        """A pair of a secret key with its value replaced, unless the value is harmless."""
        key, between, value = pair["key"], pair["between"], pair["value"]
        unquoted = value.strip("\\\"'").rstrip(".")
        is_quantity = unquoted.isdigit() and self._keys.is_quantity(key)
        if not unquoted or is_quantity or unquoted.lower() in HARMLESS_WORDS:
            return pair[0]
        prefix = re.match(r"[burBUR]{0,2}(?=[\"'])[\"']|[\\\"']*", value)
        opening = prefix[0] if prefix else ""
        quote = opening.lstrip("burBUR")
        closing = quote if quote and value.endswith(quote) and len(value) > len(opening) else ""
        return f"{key}{between}{opening}{REDACTED}{closing}"


def find_key_before(text: str, end: int) -> str | None:
    """The key of a pair whose value begins at `end`; None if there is no key before it."""
    # The search takes most of the time of a short JSON text, and few of these have a key.
    if not text[max(0, end - 4) : end].rstrip(" \t\u00a0").endswith(_SEPARATOR_ENDS):
        return None
    key = _KEY_BEFORE.search(text, max(0, end - 100), end)
    return None if key is None else key["key"]


def _hide_authorization(match: re.Match[str]) -> str:
    scheme, value = (match[2] or "").strip().lower(), match[3].rstrip("=.").lower()
    is_harmless = value in HARMLESS_WORDS or scheme in HARMLESS_WORDS - _AUTHORIZATION_SCHEMES
    return match[0] if is_harmless else match[1] + REDACTED
