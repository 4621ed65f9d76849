"""Decides by the name of a key whether its value is secret."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from jobmon.redaction.forms import split_words

_DEFAULT_KEYS = split_words(
    """password passwd passphrase passcode pass pwd pw secret token jwt otp authorization bearer
    cookie session_id session_key sessid sid credential creds api_key access_key private_key
    account_key master_key ssh_key enc_key encryption_key signing_key signature sig hmac seed
    mnemonic card_number card_num card_no credit_card pan cvv cvv_code cvc security_code pin
    pin_code otp_code recovery_code ssn social_security iban account_number account_no acct_no
    routing_number routing_no"""
)
DEFAULT_REDACT_KEYS = tuple(sorted(_DEFAULT_KEYS))

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ACRONYM = re.compile(r"[A-Z]{2,}(?=[a-z])")  # PIN of PINcode, which is PI and Ncode to _WORD
_SHORT = 4  # letters; a longer name is found anywhere in a key
# Numbers under such keys count or limit secrets: max_tokens, token_count, password_attempts.
_MEASURES = split_words(
    """count counts max min limit total used usage remaining budget length size age ttl days
    seconds ms expires expiry expiration attempts retries rate ratio score required enabled is
    has"""
)
# Everything below such a key is a credential.
_HOLDERS = split_words("auth auths oauth authentication authn sasl")
# A holder followed by one of these holds credentials, too: authHeader, but not authType.
_HOLDER_SUFFIXES = split_words(
    "header headers data info details value string code key config params"
)
# In a text, a name with such an ending is a part of a program or an error, not a key.
_PROGRAM_SUFFIXES = split_words(
    """error exception err service manager provider handler controller middleware factory validator
    expired invalid failed failure missing required type policy url uri endpoint method store js
    ts jsx tsx mjs cjs py rb go java kt php cs rs ex c h cpp html json yml yaml"""
)
_LONGEST_KEY = 200
_KEY = re.compile(r"[^\s=:]{1,200}")


class SecretKeys:
    """The names of keys whose values are secret.

    Case, underscores and hyphens do not matter. A long name is found anywhere in a key (`token` in
    `refreshTokenV2`), a short one only as a whole word (`pan` in `card-pan`, not in `company`).

    >>> SecretKeys(["token"]).includes("refreshTokenV2")
    True
    """

    def __init__(self, keys: Iterable[str] = DEFAULT_REDACT_KEYS) -> None:
        names = [name for name in keys if _squeeze(name)]
        # `account_no` must not hide accountNote, nor `session_id` sessionIdle.
        self._endings = tuple(
            _find_words(name)
            for name in names
            if len(_find_words(name)) > 1 and len(_find_words(name)[-1]) <= 2
        )
        whole = {_squeeze(name) for name in names if _find_words(name) not in self._endings}
        self._anywhere = tuple(name for name in whole if len(name) > _SHORT)
        self._short = frozenset(name for name in whole if len(name) <= _SHORT)
        self._measures = _MEASURES.difference(*map(_find_words, names))
        # A text without any of these has no such key; most texts are not searched further.
        self.hints = _HOLDERS | {(*_find_words(name), _squeeze(name))[0] for name in names}
        self._includes = lru_cache(4_096)(self._match)
        self.includes_name = lru_cache(4_096)(self._match_name)

    def includes(self, key: str) -> bool:
        """Whether the value under `key` is secret."""
        return self._includes(key) if len(key) <= _LONGEST_KEY else self._match(key)

    def includes_in_text(self, name: str) -> bool:
        """Whether `name`, before a value in a text, is a secret key."""
        words = _find_words(name)
        if words and words[-1] in _PROGRAM_SUFFIXES:
            return False
        return self.includes_name(name.strip(".$-"))

    def is_measure(self, key: str) -> bool:
        """Whether a number under a secret key only counts or limits secrets."""
        return not self._measures.isdisjoint(_find_words(key[:_LONGEST_KEY]))

    def _match_name(self, name: str) -> bool:
        """Whether a text, such as an option or the name in a pair, is a secret key as a whole."""
        name = name.strip(" \t:=")
        return _KEY.fullmatch(name) is not None and (self.includes(name) or is_holder(name))

    def _match(self, key: str) -> bool:
        squeezed = _squeeze(key)
        if squeezed in self._short or any(name in squeezed for name in self._anywhere):
            return True
        words = _find_words(key)
        if any(word in self._short for word in words):
            return True
        if any(word.lower() in self._short for word in _ACRONYM.findall(key)):
            return True
        return any(
            squeezed.endswith("".join(name)) or name in _iter_runs(words, len(name))
            for name in self._endings
        )


def is_holder(key: str) -> bool:
    """Whether a text under `key` is a credential, as under `oauth` or `authHeader`."""
    words = [word for word in _find_words(key[:_LONGEST_KEY]) if not word.isdigit()]
    if len(words) > 1 and words[-1] in _HOLDER_SUFFIXES:
        words.pop()
    return bool(words) and words[-1] in _HOLDERS


def has_holder(key: str) -> bool:
    """Whether a document or an array under `key` holds credentials."""
    return not _HOLDERS.isdisjoint(_find_words(key[:_LONGEST_KEY]))


def _squeeze(key: str) -> str:
    return "".join(filter(str.isalnum, key)).lower()


@lru_cache(4_096)
def _find_words(key: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(key))


def _iter_runs(words: tuple[str, ...], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[at : at + length]) for at in range(len(words) - length + 1))
