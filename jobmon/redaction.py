"""Hides secrets in what jobs hold: by the names of keys, and by their form in any text.

Own patterns, not those of detect-secrets: they look at lines of source code, give no position to
replace, and guess by entropy, which hides ids. Every pattern takes time that grows with the text.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"

DEFAULT_REDACT_KEYS = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pass",
    "pwd",
    "pw",
    "secret",
    "token",
    "jwt",
    "otp",
    "authorization",
    "bearer",
    "cookie",
    "session_id",
    "sid",
    "credential",
    "creds",
    "api_key",
    "access_key",
    "private_key",
    "ssh_key",
    "encryption_key",
    "signing_key",
    "signature",
    "hmac",
    "seed",
    "mnemonic",
    "card_number",
    "card_no",
    "credit_card",
    "pan",
    "cvv",
    "cvc",
    "pin",
    "ssn",
    "iban",
    "account_number",
    "account_no",
    "routing_number",
)


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ACRONYM = re.compile(r"[A-Z]{2,}(?=[a-z])")  # PIN of PINcode, which is PI and Ncode to _WORD
_SHORT = 4
# What is told in numbers of secrets, not secrets: max_tokens, token_count, password_attempts.
_MEASURES = _set_of(
    """count counts max min limit total used usage remaining budget length size age ttl days seconds
    ms expires expiry expiration attempts retries rate ratio score required enabled is has"""
)
# Documents under such a key hold what somebody signs in with.
_HOLDERS = frozenset(("auth", "oauth", "authentication", "authn"))
_NAMES = ("name", "key", "k", "header", "field", "param")
_VALUES = ("value", "v", "val", "values")
_LONGEST_KEY = 200
_KEY = re.compile(r"[^\s=:]{1,200}")

# In a text, a name that ends so is of a program's part or of an error, not of a secret.
_NOT_A_KEY = _set_of(
    """error exception err service manager provider handler controller middleware factory validator
    expired invalid failed failure missing required type policy url uri endpoint method store
    js ts jsx tsx mjs cjs py rb go java kt php cs rs ex c h cpp html json yml yaml"""
)
_NOT_A_VALUE = _set_of(
    """null none nil undefined true false is was has are must should cannot can not no the a an
    of in expired invalid missing required unknown malformed unexpected wrong incorrect empty
    too bad authentication authorization auth token tokens scheme realm error failed signature
    jwt"""
)

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
# The end may have been cut off with an ellipsis.
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s\"',;<>]+(@|…\Z)")
_COOKIES = re.compile(r"(?i)\b((?:set-)?cookie[\"']?\s{0,3}:\s{0,3})[^\r\n\"']+")
_PAIR = re.compile(
    r"(?<![\w.$-])(?P<key>[\w.$-]{1,64})"
    r"(?P<between>[\\\"'\]]{0,3}[ \t]{0,3}(?:=>|[=:])[ \t]{0,3})"
    r"(?P<value>\\+[\"'][^\"'\\\n]*|\"[^\"\n]*\"|'[^'\n]*'"
    r"|(?i:bearer|basic|digest|token)[ \t]{1,3}[^\s,;\"']+|[^\s,;&\"'(){}\[\]<>\\]+)"
)
_BEARER = re.compile(r"(?i)\b(bearer[ \t]{1,3})([\w.~+/=-]{5,})")
_BASIC = re.compile(r"(?i)\b(basic[ \t]{1,3})([a-z0-9+/]{4,}={0,2})")
TOKENS = re.compile(
    r"(?<![\w-])(?:eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)*"  # a JSON web token
    r"|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|npm_\w{30,}|xox[abeprs]-[\w-]{10,}"
    r"|[rs]k_(?:live|test)_\w{10,}|whsec_\w{16,}|sk-[\w-]{20,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35})"
)
# Long enough to be rare in what is encoded: most texts are not searched for tokens.
_TOKEN_STARTS = _set_of(
    """ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- npm_ xoxa- xoxb- xoxe- xoxp- xoxr- xoxs- sk_live_
    sk_test_ rk_live_ rk_test_ whsec_ sk- SG. AKIA ASIA AIza"""
)
_EIGHT_DIGITS = re.compile(r"\d{4}[ -]?\d{4}")
_CARD = re.compile(
    r"(?<![\w.])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})"
    r"(?!\w|\.\d)"
)
# Issuer's first digits, and how many there are of them all; no time in ms or µs begins so.
_ISSUERS = (
    (re.compile("4"), (13, 16, 19)),
    (re.compile("5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),
    (re.compile("3[47]"), (15,)),
    (re.compile("30[0-5]|3[689]"), (14, 16)),
    (re.compile("6011|64[4-9]|65|62|35(?:2[89]|[3-8])"), (16, 17, 18, 19)),
)
_CACHED_LENGTH = 1_000  # errors are the same again and again
_LONGEST_JSON = 1_000_000


class Redactor:
    """Replaces secrets in documents and texts, at any depth.

    Keys: case, underscores and hyphens do not matter. A long name is found anywhere in a key
    (`token` in `refreshTokenV2`), a short one only as whole words (`pan` in `card-pan`, not in
    `company`), because hiding too much is a nuisance and hiding too little is a leak.

    >>> Redactor().redact({"apiKey": "x", "note": "password=x", "size": 1})
    {'apiKey': '[redacted]', 'note': 'password=[redacted]', 'size': 1}
    """

    def __init__(self, keys: Iterable[str] = DEFAULT_REDACT_KEYS) -> None:
        names = [name for name in keys if _squeeze(name)]
        # `account_no` must not hide accountNote, nor `session_id` sessionIdle.
        self._endings = tuple(
            _words(name) for name in names if len(_words(name)) > 1 and _ends_short(name)
        )
        whole = {_squeeze(name) for name in names if _words(name) not in self._endings}
        self._anywhere = tuple(name for name in whole if len(name) > _SHORT)
        self._short = frozenset(name for name in whole if len(name) <= _SHORT)
        self._measures = _MEASURES.difference(*map(_words, names))
        # A text without any of these has no such key: most texts are looked through no further.
        self._hints = _HOLDERS | {(*_words(name), _squeeze(name))[0] for name in names}
        self._is_secret = lru_cache(4_096)(self._look_at_key)
        self._hides = lru_cache(4_096)(self._look_at_name)
        self._short_text = lru_cache(2_048)(self._search)

    def redact(self, value: Any) -> Any:
        """Return `value`, any nesting of dicts and lists, with the secrets replaced."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return self._document(value)
            case list():
                return self._array(value)
            case _:
                return value

    def text(self, value: str) -> str:
        """Return `value` with what looks like a secret in it replaced; JSON in it as JSON."""
        if len(value) < 4:
            return value
        return self._short_text(value) if len(value) <= _CACHED_LENGTH else self._search(value)

    def is_secret(self, key: str) -> bool:
        """Whether the value under `key` is to be hidden."""
        return self._is_secret(key) if len(key) <= _LONGEST_KEY else self._look_at_key(key)

    def _document(self, document: dict[str, Any]) -> dict[str, Any]:
        shown = {key: self._under(str(key), value) for key, value in document.items()}
        name = next((document[key] for key in _NAMES if isinstance(document.get(key), str)), None)
        if name is not None and self._hides(name):
            shown |= {key: REDACTED for key in _VALUES if key in document}
        return shown

    def _under(self, key: str, value: Any) -> Any:
        if self.is_secret(key):
            words = _words(key[:_LONGEST_KEY])
            is_measure = isinstance(value, int | float) and not self._measures.isdisjoint(words)
            return value if is_measure else REDACTED
        return _without_leaves(value) if _is_holder(key) else self.redact(value)

    def _array(self, array: list[Any]) -> list[Any]:
        shown = [self.redact(inner) for inner in array]
        for number, name in enumerate(array[:-1]):
            # A pair, or an option of a command and what is given for it.
            is_name = isinstance(name, str) and (len(array) == 2 or name.startswith("-"))
            if is_name and self._hides(name):
                shown[number + 1] = REDACTED
        return shown

    def _look_at_name(self, name: str) -> bool:
        """Whether a text is such a key, and no sentence with one in it."""
        is_key = _KEY.fullmatch(name) is not None
        return is_key and (self.is_secret(name) or _is_holder(name))

    def _look_at_key(self, key: str) -> bool:
        squeezed = _squeeze(key)
        if squeezed in self._short or any(name in squeezed for name in self._anywhere):
            return True
        words = _words(key)
        if any(word in self._short for word in words):
            return True
        if any(word.lower() in self._short for word in _ACRONYM.findall(key)):
            return True
        return any(
            squeezed.endswith("".join(name)) or name in _runs(words, len(name))
            for name in self._endings
        )

    def _search(self, value: str) -> str:
        start = value.lstrip()[:1]
        if start in ("{", "[") and len(value) <= _LONGEST_JSON:
            value = self._json(value)
        lowered = value.lower()
        if "-----BEGIN" in value:
            value = _PRIVATE_KEY.sub(REDACTED, value)
        if "://" in value:
            value = _URL_PASSWORD.sub(rf"\1{REDACTED}\2", value)
        if ":" in value or "=" in value:
            if "cookie" in lowered:
                value = _COOKIES.sub(rf"\1{REDACTED}", value)
            if any(hint in lowered for hint in self._hints):
                value = _PAIR.sub(self._pair, value)
        if ("eyJ" in value and "." in value) or any(start in value for start in _TOKEN_STARTS):
            value = TOKENS.sub(REDACTED, value)
        if "bearer" in lowered:
            value = _BEARER.sub(_bearer, value)
        if "basic" in lowered:
            value = _BASIC.sub(_basic, value)
        return _CARD.sub(_card, value) if _EIGHT_DIGITS.search(value) else value

    def _json(self, text: str) -> str:
        """A JSON text, written anew if a secret was in it; other texts as they are."""
        try:
            document = json.loads(text)
            shown = self.redact(document)
        except (ValueError, RecursionError):
            return text
        return text if shown == document else json.dumps(shown, ensure_ascii=False)

    def _pair(self, pair: re.Match[str]) -> str:
        key, between, value = pair["key"], pair["between"], pair["value"]
        words = _words(key)
        if not self._hides(key.strip(".$-")) or (words and words[-1] in _NOT_A_KEY):
            return pair[0]
        bare = value.strip("\\\"'").rstrip(".")
        if not bare or bare.lower() in _NOT_A_VALUE:
            return pair[0]
        opening = re.match(r"[\\\"']*", value)
        quote = opening[0] if opening else ""
        closing = quote if quote and value.endswith(quote) and len(value) > len(quote) else ""
        return f"{key}{between}{quote}{REDACTED}{closing}"


def _squeeze(key: str) -> str:
    return "".join(filter(str.isalnum, key)).lower()


@lru_cache(4_096)
def _words(key: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(key))


def _ends_short(name: str) -> bool:
    return len(_words(name)[-1]) <= 2


def _runs(words: tuple[str, ...], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[at : at + length]) for at in range(len(words) - length + 1))


def _is_holder(key: str) -> bool:
    words = [word for word in _words(key[:_LONGEST_KEY]) if not word.isdigit()]
    return bool(words) and words[-1] in _HOLDERS


def _without_leaves(value: Any) -> Any:
    """`value` with everything in it hidden but its keys."""
    match value:
        case dict():
            return {key: _without_leaves(inner) for key, inner in value.items()}
        case list():
            return [_without_leaves(inner) for inner in value]
        case _:
            return REDACTED


def _bearer(found: re.Match[str]) -> str:
    harmless = found[2].rstrip("=.").lower() in _NOT_A_VALUE
    return found[0] if harmless else found[1] + REDACTED


def _basic(found: re.Match[str]) -> str:
    """Basic authentication is base64 of user:password; other words may follow `basic`."""
    try:
        decoded = base64.b64decode(found[2] + "=" * (-len(found[2]) % 4))
    except (binascii.Error, ValueError):
        return found[0]
    return found[1] + REDACTED if b":" in decoded else found[0]


def _card(found: re.Match[str]) -> str:
    digits = [int(character) for character in found[0] if character.isdecimal()]
    number = "".join(map(str, digits))
    known = any(len(digits) in sizes and begins.match(number) for begins, sizes in _ISSUERS)
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    passes = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return REDACTED if known and passes else found[0]
