"""Fetches an identity provider's keys (JWKS) in a thread, and caches them.

A token whose key was fetched in the last five minutes never waits, even if the provider is slow,
sends byte by byte or does not answer.
"""

import json
import logging
import threading
import time
from typing import Any

import jwt

from jobmon.download import FAILURES, download
from jobmon.web.errors import unavailable

log = logging.getLogger(__name__)

KEYS_REFRESH_S = 150  # older keys are still used while they are fetched again
KEYS_LIFESPAN_S = 300  # a request with an older key waits for a fetch, if the last fetch worked
KEYS_COOLDOWN_S = 5  # between the starts of two fetches
KEYS_TIMEOUT_S = 2.0  # for a whole fetch, its redirects included
# How many requests may wait for a fetch: else tokens with forged ids could hold all threads.
MAX_WAITING = 4

_FAILURES = (*FAILURES, jwt.PyJWTError)


class KeySet:
    """The provider's keys for one algorithm.

    A key is found by its `kid`; a token without `kid` is accepted if the set has exactly one key
    for the algorithm. An unknown `kid` starts a fetch, so that a rotated key is found, but at most
    one fetch every five seconds.

    >>> KeySet("https://id.example/jwks", "RS256").find_key(header.get("kid"))
    """

    def __init__(self, url: str, algorithm: str) -> None:
        self._url = url
        self._algorithm = algorithm
        self._lock = threading.Lock()  # for the attributes below; not held during a fetch
        self._keys: tuple[jwt.PyJWK, ...] = ()
        self._fetched_at = -float("inf")
        self._started_at = -float("inf")
        self._is_failing = False
        self._fetching: threading.Event | None = None
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)

    def find_key(self, kid: str | None) -> jwt.PyJWK | None:
        """The key; None if the provider has no such key. Raises ApiError 503 if that is unknown."""
        key = self._find_cached(kid)
        age = time.monotonic() - self._fetched_at
        if key is not None and age <= KEYS_REFRESH_S:
            return key
        if key is None and kid is None and self._keys and age <= KEYS_REFRESH_S:
            return None  # the set has several keys
        has_ended = True
        if (fetch_end := self._fetch_if_due()) is not None and (
            key is None or (age > KEYS_LIFESPAN_S and not self._is_failing)
        ):
            has_ended = self._wait(fetch_end)
        key = self._find_cached(kid)
        if key is None and (self._is_failing or not has_ended):
            raise unavailable(
                "identity_provider_unavailable", "The token cannot be checked now. Try again."
            )
        return key

    def _find_cached(self, kid: str | None) -> jwt.PyJWK | None:
        keys = self._keys
        if kid is None:
            return keys[0] if len(keys) == 1 else None
        return next((key for key in keys if key.key_id == kid), None)

    def _wait(self, fetch_end: threading.Event) -> bool:
        """Whether the fetch ended in time; False at once if too many requests wait already.

        While there are no keys at all, any number of requests may wait.
        """
        if not self._keys:
            return fetch_end.wait(KEYS_TIMEOUT_S)
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            return fetch_end.wait(KEYS_TIMEOUT_S)
        finally:
            self._waiting.release()

    def _fetch_if_due(self) -> threading.Event | None:
        """An event for the end of the running or starting fetch; None if no fetch may start yet."""
        with self._lock:
            if self._fetching is None:
                now = time.monotonic()
                if now - self._started_at < KEYS_COOLDOWN_S:
                    return None
                self._started_at, self._fetching = now, threading.Event()
                arguments = (self._fetching,)
                threading.Thread(target=self._fetch, args=arguments, daemon=True).start()
            return self._fetching

    def _fetch(self, done: threading.Event) -> None:
        keys: tuple[jwt.PyJWK, ...] = ()
        try:
            document = json.loads(download(self._url, time.monotonic() + KEYS_TIMEOUT_S))
            keys = parse_keys(document, self._algorithm)
            if not keys:
                raise ValueError(f"the answer has no key for {self._algorithm}")
        except _FAILURES as error:
            if not self._is_failing:
                log.error("cannot fetch the keys of the identity provider: %s", error)
        finally:
            with self._lock:
                self._is_failing = not keys
                if keys:
                    self._keys, self._fetched_at = keys, self._started_at
                self._fetching = None
            done.set()


def parse_keys(document: Any, algorithm: str) -> tuple[jwt.PyJWK, ...]:
    """The keys in a JWKS document that can check signatures by `algorithm`.

    Raises ValueError if it is not a JWKS document.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer is not a JWKS document")
    keys = (_parse_key(data, algorithm) for data in listed)
    # RFC 7518 requires a minimum length for each algorithm.
    return tuple(key for key in keys if key and not key.Algorithm.check_key_length(key.key))


def _parse_key(data: Any, algorithm: str) -> jwt.PyJWK | None:
    if not isinstance(data, dict):
        return None
    data = {name: value for name, value in data.items() if value is not None}  # null: not given
    if data.get("alg", algorithm) != algorithm or data.get("use", "sig") != "sig":
        return None
    operations = data.get("key_ops", ["verify"])
    if not isinstance(operations, list | str) or "verify" not in operations:
        return None
    try:
        return jwt.PyJWK(data, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None  # a key of another kind, or malformed
