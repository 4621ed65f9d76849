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
    "session_key",
    "sessid",
    "sid",
    "credential",
    "creds",
    "api_key",
    "access_key",
    "private_key",
    "account_key",
    "master_key",
    "ssh_key",
    "enc_key",
    "encryption_key",
    "signing_key",
    "signature",
    "sig",
    "hmac",
    "seed",
    "mnemonic",
    "card_number",
    "card_num",
    "card_no",
    "credit_card",
    "pan",
    "cvv",
    "cvv_code",
    "cvc",
    "security_code",
    "pin",
    "pin_code",
    "otp_code",
    "recovery_code",
    "ssn",
    "social_security",
    "iban",
    "account_number",
    "account_no",
    "acct_no",
    "routing_number",
    "routing_no",
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
_HOLDERS = _set_of("auth auths oauth authentication authn sasl")
# With one of these behind it, its text is such a thing, too: not in authType, but in authHeader.
_HELD = _set_of("header headers data info details value string code key config params")
_NAMES = _set_of(
    """name key k n header field param parameter property attribute option label variable var id
    type headername fieldname"""
)
_VALUES = _set_of("value v val values")
_TEXTS = _set_of(
    "content data"
)  # of an event they are documents: {"type": "token.made", "data": …}
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

_SCHEMES = _set_of("token jwt")

_PRIVATE_KEY = re.compile(
    r"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}.*?"
    r"(?:-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}|\Z)"
    r"|(?<=Private-Lines: )\d{1,3}\s[\w+/=\s]+",  # PuTTY's
    re.DOTALL | re.IGNORECASE,
)
# The end may have been cut off with an ellipsis. What has a slash in it is no port.
_URL_PASSWORD = re.compile(
    r"(//[^/\s:]{0,200}:)"
    r"(?:[^/\s\"',;<>]{1,500}|(?!\d{1,5}[/?#])[^\s\"',;<>]{1,200}?)(@|…\Z)"
    r"|(%3A%2F%2F[^/\s%]{0,200}%3A)[^/\s\"'<>&]{1,200}?(%40)"
    r"|(\w:)[^/\s\"'@]{1,200}(@(?:tcp|unix)\()",
    re.IGNORECASE,
)
_URL_TOKEN = re.compile(r"(://)[\w.~%-]{20,500}(@)")
_XML = re.compile(
    r"(<(?P<key>[\w:.-]{1,64})(?:\s[^<>]{0,200})?>)"
    r"(?:[^<]{1,1000}|<!\[CDATA\[.{0,1000}?\]\]>)(?=</)",
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
_BEARER = re.compile(r"(?i)(?<![a-z])(bearer(?:[\s:=+]{1,3}|%20))([\w.~+/=-]{5,})")
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
_BETWEEN_DIGITS = r"[ .\u00a0_\u2010-\u2015-]"
_EIGHT_DIGITS = re.compile(rf"\d{{4}}{_BETWEEN_DIGITS}{{0,2}}\d{{4}}")
_CARD = re.compile(
    rf"(?<!\d)(?<!\d\.)(?:\d{{13,19}}"
    rf"|\d{{4}}({_BETWEEN_DIGITS}{{1,2}})\d{{4}}\1\d{{4}}\1\d{{1,7}}"
    rf"|\d{{4}}({_BETWEEN_DIGITS}{{1,2}})\d{{6}}\2\d{{4,5}}|\d{{8}}{_BETWEEN_DIGITS}\d{{8}})"
    r"(?![^\W_]|\.\d{3})",
    re.ASCII,
)
_HEX_BEFORE = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]*[a-f]\Z")
# Issuer's first digits, and how many there are of them all; no time in ms or µs begins so.
_ISSUERS = (
    (re.compile("4"), (13, 16, 19)),
    (re.compile("5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),
    (re.compile("3[47]"), (15,)),
    (re.compile("30[0-5]|3[689]"), (14, 16)),
    (re.compile("6|50|5[6-9]|35(?:2[89]|[3-8])|220[0-4]|8[12]"), (16, 17, 18, 19)),
)
_CACHED_LENGTH = 1_000  # errors are the same again and again
_LONGEST_JSON = 1_000_000
_JSON_START = re.compile(r"[{\[]\s{0,20}[\"{\[]")
_MAX_JSON_STARTS = 16  # that turn out to be none: each may be read to the end of the text


def _card(found: re.Match[str]) -> str:
    if _HEX_BEFORE.search(found.string, max(0, found.start() - 64), found.start()):
        return found[0]  # the end of an id
    digits = [int(character) for character in found[0] if character.isdecimal()]
    number = "".join(map(str, digits))
    known = any(len(digits) in sizes and begins.match(number) for begins, sizes in _ISSUERS)
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    passes = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return REDACTED if known and passes else found[0]


def _read_int(digits: str) -> int | str:
    return int(digits) if _CARD.sub(_card, digits) == digits else REDACTED


_DECODER = json.JSONDecoder()
_CARD_DECODER = json.JSONDecoder(parse_int=_read_int)


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
        shown = {
            self.text(str(key)): self._under(str(key), value) for key, value in document.items()
        }
        if len(document) > 1 and any(
            isinstance(name, str) and str(key).lower() in _NAMES and self._hides(name)
            for key, name in document.items()
        ):
            shown |= {
                key: REDACTED
                for key, value in document.items()
                if str(key).lower() in _VALUES
                or (str(key).lower() in _TEXTS and not isinstance(value, dict | list))
            }
        return shown

    def _under(self, key: str, value: Any) -> Any:
        if self.is_secret(key):
            words = _words(key[:_LONGEST_KEY])
            is_measure = isinstance(value, int | float) and not self._measures.isdisjoint(words)
            return value if is_measure else REDACTED
        holds = _has_holder(key) if isinstance(value, dict | list) else _is_holder(key)
        return _without_leaves(value) if holds else self.redact(value)

    def _array(self, array: list[Any]) -> list[Any]:
        shown = [self.redact(inner) for inner in array]
        for number, name in enumerate(array[:-1]):
            # Of pairs one behind another, or an option of a command and what is given for it.
            in_pairs = len(array) % 2 == 0 and number % 2 == 0
            is_name = isinstance(name, str) and (in_pairs or name.startswith("-"))
            if is_name and self._hides(name):
                shown[number + 1] = REDACTED
        return shown

    def _look_at_name(self, name: str) -> bool:
        """Whether a text is such a key, and no sentence with one in it."""
        name = name.strip(" \t:=")
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
        if '"' not in value or len(value) > _LONGEST_JSON:
            return self._search_plain(value)
        parts, done, at, failures = [], 0, 0, 0
        while failures < _MAX_JSON_STARTS and (start := _JSON_START.search(value, at)):
            begin = start.start()
            try:
                shown, end = self._json(value, begin)
            except (ValueError, RecursionError):
                failures += 1
                at = begin + 1
                continue
            key = _KEY_BEFORE.search(value, max(0, begin - 100), begin)
            if key is not None and self._hides(key["key"].strip(".$-")):
                shown = REDACTED
            parts += [self._search_plain(value[done:begin]), shown]
            done = at = end
        return "".join([*parts, self._search_plain(value[done:])])

    def _json(self, text: str, begin: int) -> tuple[str, int]:
        """The JSON that begins there, written anew if a secret was in it, and where it ends.

        Raises ValueError or RecursionError where there is none.
        """
        document, end = _DECODER.raw_decode(text, begin)
        whole, shown = text[begin:end], self.redact(document)
        if _EIGHT_DIGITS.search(whole):
            shown = self.redact(_CARD_DECODER.raw_decode(text, begin)[0])
        # Of two equal keys only the last one was looked at.
        is_same = shown == document and whole.count('":') <= _count_keys(document)
        return whole if is_same else json.dumps(shown, ensure_ascii=False), end

    def _search_plain(self, value: str) -> str:
        lowered = value.lower()
        if "private" in lowered and ("begin " in lowered or "private-lines" in lowered):
            value = _PRIVATE_KEY.sub(REDACTED, value)
        if "//" in value or "@" in value or "%40" in value:
            value = _URL_PASSWORD.sub(_hide_between, value)
            value = _URL_TOKEN.sub(rf"\1{REDACTED}\2", value)
        if any(separator in value for separator in _SEPARATORS):
            value = self._search_pairs(value, lowered)
        if "-u" in value or "--" in value:
            value = _CURL_USER.sub(rf"\1{REDACTED}", value)
            value = _OPTION.sub(self._option, value)
        if "</" in value:
            value = _XML.sub(self._element, value)
        if ("eyJ" in value and "." in value) or any(start in value for start in _TOKEN_STARTS):
            value = TOKENS.sub(REDACTED, value)
        if "bearer" in lowered:
            value = _BEARER.sub(_bearer, value)
        if "basic" in lowered:
            value = _BASIC.sub(_basic, value)
        return _CARD.sub(_card, value) if _EIGHT_DIGITS.search(value) else value

    def _search_pairs(self, value: str, lowered: str) -> str:
        if "cookie" in lowered:
            value = _COOKIES.sub(rf"\1{REDACTED}", value)
        if "authorization" in lowered and self.is_secret("authorization"):
            value = _AUTHORIZATION.sub(_authorization, value)
        if "mnemonic" in lowered or "phrase" in lowered or "word" in lowered:
            value = _PHRASE.sub(rf"\1{REDACTED}", value)
        return self._pairs(value) if any(hint in lowered for hint in self._hints) else value

    def _option(self, found: re.Match[str]) -> str:
        hidden = self._hides(found["key"]) and found["value"].lower() not in _NOT_A_VALUE
        return found[1] + REDACTED if hidden else found[0]

    def _element(self, found: re.Match[str]) -> str:
        hidden = self._hides(found["key"].rpartition(":")[2])
        return found[1] + REDACTED if hidden else found[0]

    def _pairs(self, text: str) -> str:
        """`text` without the values of secret keys; the values of other keys are searched."""
        parts, done, at = [], 0, 0
        while pair := _PAIR.search(text, at):
            at = pair.end("between")
            if (shown := self._pair(pair)) != pair[0]:
                parts += [text[done : pair.start()], shown]
                done = at = pair.end()
        return _QUOTED_PAIR.sub(self._quoted_pair, "".join([*parts, text[done:]]))

    def _quoted_pair(self, found: re.Match[str]) -> str:
        return found[1] + REDACTED if self._hides(found["key"]) else found[0]

    def _pair(self, pair: re.Match[str]) -> str:
        key, between, value = pair["key"], pair["between"], pair["value"]
        words = _words(key)
        if not self._hides(key.strip(".$-")) or (words and words[-1] in _NOT_A_KEY):
            return pair[0]
        bare = value.strip("\\\"'").rstrip(".")
        is_measure = bare.isdigit() and not self._measures.isdisjoint(words)
        if not bare or is_measure or bare.lower() in _NOT_A_VALUE:
            return pair[0]
        opening = re.match(r"[burBUR]{0,2}(?=[\"'])[\"']|[\\\"']*", value)
        quote = opening[0] if opening else ""
        end = quote.lstrip("burBUR")
        closing = end if end and value.endswith(end) and len(value) > len(quote) else ""
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
    if len(words) > 1 and words[-1] in _HELD:
        words.pop()
    return bool(words) and words[-1] in _HOLDERS


def _has_holder(key: str) -> bool:
    return not _HOLDERS.isdisjoint(_words(key[:_LONGEST_KEY]))


def _without_leaves(value: Any) -> Any:
    """`value` with everything in it hidden but its keys."""
    match value:
        case dict():
            return {key: _without_leaves(inner) for key, inner in value.items()}
        case list():
            return [_without_leaves(inner) for inner in value]
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


def _hide_between(found: re.Match[str]) -> str:
    before, after = (part for part in found.groups() if part is not None)
    return f"{before}{REDACTED}{after}"


def _authorization(found: re.Match[str]) -> str:
    scheme, value = (found[2] or "").strip().lower(), found[3].rstrip("=.").lower()
    harmless = value in _NOT_A_VALUE or scheme in _NOT_A_VALUE - _SCHEMES
    return found[0] if harmless else found[1] + REDACTED


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
