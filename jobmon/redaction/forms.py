"""Finds and hides secrets by their form: private keys, passwords in URLs, tokens, card numbers."""

import base64
import binascii
import re

REDACTED = "[redacted]"


def split_words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


# Words that may follow `bearer` or `token=` in a message, and are no secrets.
HARMLESS_WORDS = split_words(
    """null none nil undefined true false is was has are must should cannot can not no the a an of
    in expired invalid missing required unknown malformed unexpected wrong incorrect empty too
    bad authentication authorization auth token tokens scheme realm error failed signature jwt"""
)

_PRIVATE_KEY = re.compile(
    r"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}.*?"
    r"(?:-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}|\Z)"
    r"|(?<=Private-Lines: )\d{1,3}\s[\w+/=\s]+",  # PuTTY's
    re.DOTALL | re.IGNORECASE,
)
# A truncated text ends with an ellipsis. One to five digits before a slash are a port.
_URL_PASSWORD = re.compile(
    r"(//[^/\s:]{0,200}:)"
    r"(?:[^/\s\"',;<>]{1,500}|(?!\d{1,5}[/?#])[^\s\"',;<>]{1,200}?)(@|…\Z)"
    r"|(%3A%2F%2F[^/\s%]{0,200}%3A)[^/\s\"'<>&]{1,200}?(%40)"
    r"|(\w:)[^/\s\"'@]{1,200}(@(?:tcp|unix)\()",
    re.IGNORECASE,
)
_URL_TOKEN = re.compile(r"(://)[\w.~%-]{20,500}(@)")
_BEARER = re.compile(r"(?i)(?<![a-z])(bearer(?:[\s:=+]{1,3}|%20))([\w.~+/=-]{5,})")
_BASIC = re.compile(r"(?i)\b(basic[ \t]{1,3})([a-z0-9+/]{4,}={0,2})")
TOKENS = re.compile(
    r"(?<![\w-])(?:eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)*"  # a JSON web token
    r"|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|npm_\w{30,}|xox[abeprs]-[\w-]{10,}"
    r"|[rs]k_(?:live|test)_\w{10,}|whsec_\w{16,}|sk-[\w-]{20,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35})"
)
# A text is searched for tokens only if it contains one of these, or `eyJ` and a dot. Encoded data
# rarely does.
_TOKEN_STARTS = split_words(
    """ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- npm_ xoxa- xoxb- xoxe- xoxp- xoxr- xoxs-
    sk_live_ sk_test_ rk_live_ rk_test_ whsec_ sk- SG. AKIA ASIA AIza"""
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
# The first digits and the lengths of each issuer's numbers. Unix times in ms or µs match none of
# them: they begin with 1.
_ISSUERS = (
    (re.compile("4"), (13, 16, 19)),
    (re.compile("5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)"), (16,)),
    (re.compile("3[47]"), (15,)),
    (re.compile("30[0-5]|3[689]"), (14, 16)),
    (re.compile("6|50|5[6-9]|35(?:2[89]|[3-8])|220[0-4]|8[12]"), (16, 17, 18, 19)),
)


def hide_keys_and_urls(text: str, lowered: str) -> str:
    """`text` with private keys, and passwords and tokens in URLs, replaced.

    `lowered` is the text in lower case.
    """
    if "private" in lowered and ("begin " in lowered or "private-lines" in lowered):
        text = _PRIVATE_KEY.sub(REDACTED, text)
    if "//" in text or "@" in text or "%40" in text:
        text = _URL_PASSWORD.sub(_hide_middle, text)
        text = _URL_TOKEN.sub(rf"\1{REDACTED}\2", text)
    return text


def hide_tokens(text: str, lowered: str) -> str:
    """`text` with tokens, bearer credentials and basic credentials replaced."""
    if ("eyJ" in text and "." in text) or any(start in text for start in _TOKEN_STARTS):
        text = TOKENS.sub(REDACTED, text)
    if "bearer" in lowered:
        text = _BEARER.sub(_hide_bearer, text)
    if "basic" in lowered:
        text = _BASIC.sub(_hide_basic, text)
    return text


def hide_cards(text: str) -> str:
    """`text` with card numbers replaced."""
    return _CARD.sub(_hide_card, text) if may_have_card(text) else text


def may_have_card(text: str) -> bool:
    """Whether a text has four digits, up to two separators, and four digits, as each card has."""
    return _EIGHT_DIGITS.search(text) is not None


def _hide_middle(match: re.Match[str]) -> str:
    before, after = (part for part in match.groups() if part is not None)
    return f"{before}{REDACTED}{after}"


def _hide_bearer(match: re.Match[str]) -> str:
    is_harmless = match[2].rstrip("=.").lower() in HARMLESS_WORDS
    return match[0] if is_harmless else match[1] + REDACTED


def _hide_basic(match: re.Match[str]) -> str:
    """Hide the word after `basic` if it is user:password in base64."""
    try:
        decoded = base64.b64decode(match[2] + "=" * (-len(match[2]) % 4))
    except (binascii.Error, ValueError):
        return match[0]
    return match[1] + REDACTED if b":" in decoded else match[0]


def _hide_card(match: re.Match[str]) -> str:
    """Hide a card number: the issuer is known, and the check digit is right (Luhn algorithm)."""
    if _HEX_BEFORE.search(match.string, max(0, match.start() - 64), match.start()):
        return match[0]  # these digits end a hexadecimal id
    digits = [int(character) for character in match[0] if character.isdecimal()]
    card = "".join(map(str, digits))
    has_issuer = any(len(digits) in lengths and start.match(card) for start, lengths in _ISSUERS)
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    has_check_digit = (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
    return REDACTED if has_issuer and has_check_digit else match[0]
