"""Remembers tokens whose signature and claims were checked.

Checking a token takes longer than most queries. At each use of a remembered token, its times are
compared with the clock, and its key with the identity provider's present keys. A token is
remembered by a hash, and only if it was accepted, so that invalid tokens cannot fill the memory.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import jwt

from jobmon.web.claims import AccessToken

MAX_TOKENS = 500  # of up to 8 KiB each

FindKey = Callable[[str | None], jwt.PyJWK | None]


class _CheckedToken(NamedTuple):
    """An accepted token; `kid` and `key` are None if no key of the provider checked it."""

    access: AccessToken
    kid: str | None
    key: jwt.PyJWK | None


class CheckedTokens:
    """The last `MAX_TOKENS` tokens that were accepted and used.

    `find_key` returns the identity provider's key with an id; None without a provider. `leeway_s`:
    by how many seconds the issuer's clock may be wrong.
    """

    def __init__(self, leeway_s: float, find_key: FindKey | None = None) -> None:
        self._leeway_s = leeway_s
        self._find_key = find_key
        self._lock = threading.Lock()
        self._tokens: OrderedDict[bytes, _CheckedToken] = OrderedDict()

    def find(self, token: str) -> AccessToken | None:
        """A remembered token that would be accepted again; None if the token must be checked.

        Raises what `find_key` raises.
        """
        token_hash, now = _hash(token), time.time()
        with self._lock:
            checked = self._tokens.get(token_hash)
            if checked is None:
                return None
            self._tokens.move_to_end(token_hash)
        access, kid, key = checked
        if access.begins_at > now + self._leeway_s or access.ends_at <= now - self._leeway_s:
            return None
        # The tokens of jobmon's own sessions have no key of the provider.
        if self._find_key and key and self._find_key(kid) is not key:
            return None
        return access

    def add(
        self,
        token: str,
        access: AccessToken,
        kid: str | None = None,
        key: jwt.PyJWK | None = None,
    ) -> None:
        """Remember a token that was accepted, and the provider's key with which it was checked."""
        with self._lock:
            self._tokens[_hash(token)] = _CheckedToken(access, kid, key)
            if len(self._tokens) > MAX_TOKENS:
                self._tokens.popitem(last=False)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
