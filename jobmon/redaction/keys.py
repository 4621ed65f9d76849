"""Decides by the name of a key whether its value is secret."""

import re
from collections.abc import Iterable
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
_ACRONYM = re.compile(r"[A-Z]{2,}(?=[a-z])")  # PIN in PINcode, where _WORD finds PI
_SHORT_LENGTH = 4  # characters; a name of this length or less matches only a whole word of a key
# A number under a key with such a word is no secret: max_tokens, password_attempts.
_QUANTITY_WORDS = split_words(
    """count counts max min limit total used usage remaining budget length size age ttl days
    seconds ms expires expiry expiration attempts retries rate ratio score required enabled is
    has"""
)
# All values in a document or an array under a key with such a word are credentials.
_CREDENTIAL_WORDS = split_words("auth auths oauth authentication authn sasl")
# Words that may follow a credential word: a text under authHeader is a credential, a text under
# authType is not.
_CREDENTIAL_SUFFIXES = split_words(
    "header headers data info details value string code key config params"
)
# In a text, a key that ends with such a word names a part of a program or an error, no secret.
_PROGRAM_SUFFIXES = split_words(
    """error exception err service manager provider handler controller middleware factory validator
    expired invalid failed failure missing required type policy url uri endpoint method store js
    ts jsx tsx mjs cjs py rb go java kt php cs rs ex c h cpp html json yml yaml"""
)
_MAX_KEY_LENGTH = 200  # characters that are cached, or searched for words
_KEY = re.compile(r"[^\s=:]{1,200}")


class SecretKeys:
    """Decides whether the value of a key is secret, by the names of secret `keys`.

    A name of five characters or more is found anywhere in a key (`token` in `refreshTokenV2`). A
    shorter name is found only as a whole word of a key (`pan` in `card-pan` and `cardPan`, not in
    `company`). If the last of several words has one or two characters (`account_no`), the name is
    found only as whole words or at the end of a key (not in `accountNote`). The case, underscores
    and hyphens do not matter.

    >>> SecretKeys(["token"]).includes("refreshTokenV2")
    True
    """

    def __init__(self, keys: Iterable[str] = DEFAULT_REDACT_KEYS) -> None:
        names = [name for name in keys if _normalize(name)]
        self._names_with_short_end = tuple(
            _find_words(name)
            for name in names
            if len(_find_words(name)) > 1 and len(_find_words(name)[-1]) <= 2
        )
        normalized = {
            _normalize(name)
            for name in names
            if _find_words(name) not in self._names_with_short_end
        }
        self._long_names = tuple(name for name in normalized if len(name) > _SHORT_LENGTH)
        self._short_names = frozenset(name for name in normalized if len(name) <= _SHORT_LENGTH)
        self._quantity_words = _QUANTITY_WORDS.difference(*map(_find_words, names))
        # The first word of each name. A text that contains none of these is not searched for keys.
        self.hints = _CREDENTIAL_WORDS | {
            (*_find_words(name), _normalize(name))[0] for name in names
        }
        self._includes = lru_cache(4_096)(self._match)
        self.includes_name = lru_cache(4_096)(self._match_name)

    def includes(self, key: str) -> bool:
        """Whether the value under `key` is secret."""
        return self._includes(key) if len(key) <= _MAX_KEY_LENGTH else self._match(key)

    def find_secret_part(self, path: str) -> str | None:
        """The first key in a path whose values redaction may hide; None if there is no such key."""
        parts = path.split(".")
        return next((key for key in parts if self.includes(key) or holds_credentials(key)), None)

    def includes_in_text(self, name: str) -> bool:
        """Whether `name`, which precedes a value in a text, is a secret key."""
        words = _find_words(name)
        if words and words[-1] in _PROGRAM_SUFFIXES:
            return False
        return self.includes_name(name.strip(".$-"))

    def is_quantity(self, key: str) -> bool:
        """Whether the key is for a count or a limit (`max_tokens`): its number is no secret."""
        return not self._quantity_words.isdisjoint(_find_words(key[:_MAX_KEY_LENGTH]))

    def _match_name(self, name: str) -> bool:
        """Whether the text `name`, such as an option or the name in a pair, is a secret key."""
        name = name.strip(" \t:=")
        return _KEY.fullmatch(name) is not None and (self.includes(name) or is_credential_key(name))

    def _match(self, key: str) -> bool:
        normalized = _normalize(key)
        if normalized in self._short_names or any(name in normalized for name in self._long_names):
            return True
        words = _find_words(key)
        if any(word in self._short_names for word in words):
            return True
        if any(word.lower() in self._short_names for word in _ACRONYM.findall(key)):
            return True
        separated = f" {' '.join(words)} "
        return any(
            normalized.endswith("".join(name)) or f" {' '.join(name)} " in separated
            for name in self._names_with_short_end
        )


def is_credential_key(key: str) -> bool:
    """Whether a text under this key is a credential: `oauth`, `authHeader`."""
    words = [word for word in _find_words(key[:_MAX_KEY_LENGTH]) if not word.isdigit()]
    if len(words) > 1 and words[-1] in _CREDENTIAL_SUFFIXES:
        words.pop()
    return bool(words) and words[-1] in _CREDENTIAL_WORDS


def holds_credentials(key: str) -> bool:
    """Whether a document or an array under this key contains credentials: `authConfig`."""
    return not _CREDENTIAL_WORDS.isdisjoint(_find_words(key[:_MAX_KEY_LENGTH]))


def _normalize(key: str) -> str:
    """The letters and digits of a key, in lower case."""
    return "".join(filter(str.isalnum, key)).lower()


@lru_cache(4_096)
def _find_words(key: str) -> tuple[str, ...]:
    """The words of a key, in lower case: `refreshTokenV2` has `refresh`, `token`, `v` and `2`."""
    return tuple(word.lower() for word in _WORD.findall(key))
