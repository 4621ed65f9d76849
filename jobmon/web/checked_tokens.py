"""Remembers tokens whose signature and claims were checked.

Checking a token takes longer than most queries. At each use, its times are compared with the clock,
and its key with the identity provider's present keys. A token is remembered by a hash, and only if
it was accepted, so that callers without a valid token cannot fill the memory.
"""

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt

MAX_TOKENS = 500  # of up to 8 KiB each

FindKey = Callable[[str | None], jwt.PyJWK | None]


@dataclass(frozen=True, kw_only=True)
class _CheckedToken:
    claims: dict[str, Any]
    begins_at: float  # in seconds since 1970, UTC
    ends_at: float
    kid: str | None
    key: jwt.PyJWK | None


class CheckedTokens:
    """The claims of the last `MAX_TOKENS` tokens that were accepted and used.

    `find_key` returns the identity provider's key with an id; None without a provider. `leeway_s`:
    by how many seconds the issuer's clock may be wrong.
    """

    def __init__(self, leeway_s: float, find_key: FindKey | None = None) -> None:
        self._leeway_s = leeway_s
        self._find_key = find_key
        self._lock = threading.Lock()
        self._tokens: OrderedDict[bytes, _CheckedToken] = OrderedDict()

    def find_claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that would be accepted again; None if it must be checked.

        They are shared: do not change them. Raises what `find_key` raises.
        """
        token_hash, now = _hash(token), time.time()
        with self._lock:
            known = self._tokens.get(token_hash)
            if known is None:
                return None
            self._tokens.move_to_end(token_hash)
        is_valid = known.begins_at <= now + self._leeway_s and known.ends_at > now - self._leeway_s
        if not is_valid:
            return None
        # jobmon's own tokens, of sessions, have no key of the provider.
        if self._find_key and known.key and self._find_key(known.kid) is not known.key:
            return None
        return known.claims

    def add(
        self,
        token: str,
        claims: dict[str, Any],
        kid: str | None = None,
        key: jwt.PyJWK | None = None,
    ) -> None:
        """Remember a token that was accepted, and the provider's key with which it was checked."""
        checked = _CheckedToken(
            claims=claims,
            # Whole seconds, as PyJWT reads them.
            begins_at=max(int(claims.get(name, 0)) for name in ("nbf", "iat")),
            ends_at=int(claims["exp"]) if "exp" in claims else math.inf,
            kid=kid,
            key=key,
        )
        with self._lock:
            self._tokens[_hash(token)] = checked
            if len(self._tokens) > MAX_TOKENS:
                self._tokens.popitem(last=False)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
