"""An identity provider's keys (JWKS): fetched by a thread of their own, kept, and bounded in all.

A provider that is slow, drips bytes or is away never holds up a token whose key is known.
"""

import json
import logging
import threading
import time
import urllib.request
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from socket import socket
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

import jwt

from jobmon.web.errors import unavailable

log = logging.getLogger(__name__)

KEYS_REFRESH_S = 150  # older keys are good, and fetched again meanwhile
KEYS_LIFESPAN_S = 300  # still older ones only if the provider does not answer
KEYS_COOLDOWN_S = 5  # between the starts of two fetches, whatever is asked for
KEYS_TIMEOUT_S = 2.0  # for a fetch in all, its redirects included
MAX_KEYS_BYTES = 512 * 1_024
# Requests that wait for a key that no known set has; more would be a way to hold all threads.
MAX_WAITING = 4

_FAILURES = (OSError, HTTPException, ValueError, RecursionError, jwt.PyJWTError)


class KeySet:
    """The provider's keys that are good for one algorithm.

    A key is found by its `kid`; a token without one is taken where the set has exactly one key for
    the algorithm. An unknown `kid` fetches again, so a rotated key is picked up, but nobody can
    make us ask more often than every five seconds.
    """

    def __init__(self, url: str, algorithm: str) -> None:
        self._url = url
        self._algorithm = algorithm
        self._lock = threading.Lock()  # of what follows; nobody waits for the provider with it
        self._keys: tuple[jwt.PyJWK, ...] = ()
        self._fetched_at = -float("inf")
        self._tried_at = -float("inf")
        self._away = False
        self._fetching: threading.Event | None = None
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)

    def find_key(self, kid: str | None) -> jwt.PyJWK | None:
        """The key, or None if the provider has no such; 503 if it cannot be asked."""
        found = self._find(kid)
        age = time.monotonic() - self._fetched_at
        if found is not None and age <= KEYS_REFRESH_S:
            return found
        if found is None and kid is None and self._keys and age <= KEYS_REFRESH_S:
            return None  # there are several
        answered = True
        if (fetched := self._fetch_if_due()) is not None and (
            found is None or (age > KEYS_LIFESPAN_S and not self._away)
        ):
            answered = self._wait(fetched)
        found = self._find(kid) or found
        if found is None and (self._away or not answered):
            raise unavailable(
                "identity_provider_unavailable", "The token cannot be checked now. Try again."
            )
        return found

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        keys = self._keys
        if kid is None:
            return keys[0] if len(keys) == 1 else None
        return next((key for key in keys if key.key_id == kid), None)

    def _wait(self, fetched: threading.Event) -> bool:
        """Whether the fetch ended in time; without any keys nobody can do better than wait."""
        if not self._keys:
            return fetched.wait(KEYS_TIMEOUT_S)
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            return fetched.wait(KEYS_TIMEOUT_S)
        finally:
            self._waiting.release()

    def _fetch_if_due(self) -> threading.Event | None:
        """The fetch that runs, begun now if one is due; None while it is too early for another."""
        with self._lock:
            if self._fetching is None:
                now = time.monotonic()
                if now - self._tried_at < KEYS_COOLDOWN_S:
                    return None
                self._tried_at, self._fetching = now, threading.Event()
                arguments = (self._fetching,)
                threading.Thread(target=self._fetch, args=arguments, daemon=True).start()
            return self._fetching

    def _fetch(self, done: threading.Event) -> None:
        keys: tuple[jwt.PyJWK, ...] = ()
        try:
            document = json.loads(_download(self._url, time.monotonic() + KEYS_TIMEOUT_S))
            keys = _usable(document, self._algorithm)
            if not keys:
                raise ValueError(f"no key for {self._algorithm} is in the answer")
        except _FAILURES as error:
            if not self._away:
                log.error("cannot fetch the keys of the identity provider: %s", error)
        finally:
            with self._lock:
                self._away = not keys
                if keys:
                    self._keys, self._fetched_at = keys, self._tried_at
                self._fetching = None
            done.set()


def is_weak(key: jwt.PyJWK) -> bool:
    """Whether a key is shorter than its algorithm asks for (RFC 7518): it proves nothing."""
    return bool(key.Algorithm.check_key_length(key.key))


def _usable(document: Any, algorithm: str) -> tuple[jwt.PyJWK, ...]:
    """The keys of a JWKS document that may check signatures by `algorithm`; ValueError."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer is no JWKS document")
    keys = (_key(each, algorithm) for each in listed)
    return tuple(key for key in keys if key is not None and not is_weak(key))


def _key(data: Any, algorithm: str) -> jwt.PyJWK | None:
    if not isinstance(data, dict) or data.get("alg", algorithm) != algorithm:
        return None
    operations = data.get("key_ops", ["verify"])
    if data.get("use", "sig") != "sig" or "verify" not in operations:
        return None
    try:
        return jwt.PyJWK(data, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None  # of another kind, or not well-formed


def _download(url: str, deadline: float) -> bytes:
    """The body at `url`, with the environment's proxies; an OSError after `deadline`."""
    opener = urllib.request.build_opener(_Handler(deadline), _SafeRedirects())
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310
    with opener.open(request, timeout=KEYS_TIMEOUT_S) as answer:
        body: bytes = answer.read(MAX_KEYS_BYTES + 1)
    if len(body) > MAX_KEYS_BYTES:
        raise ValueError(f"the answer is longer than {MAX_KEYS_BYTES} bytes")
    return body


class _BeforeDeadline(RawIOBase):
    """What a socket receives until a moment: its own timeout begins anew at each byte."""

    def __init__(self, connection: socket, deadline: float) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._connection.settimeout(left)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens http and https by connections whose answers end at a deadline."""

    def __init__(self, deadline: float) -> None:
        urllib.request.HTTPSHandler.__init__(self)

        class Response(HTTPResponse):
            def __init__(self, sock: socket, *arguments: Any, **options: Any) -> None:
                super().__init__(sock, *arguments, **options)
                self.fp.close()
                self.fp = BufferedReader(_BeforeDeadline(sock, deadline))

        self._response_class = Response

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._connecting(HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._connecting(HTTPSConnection), req)

    def _connecting(self, kind: type[HTTPConnection]) -> Any:
        def connect(*arguments: Any, **options: Any) -> HTTPConnection:
            connection = kind(*arguments, **options)
            connection.response_class = self._response_class
            return connection

        return connect


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects by https, and by http from an address that is http itself."""

    def redirect_request(  # noqa: PLR0917 - as the library calls it
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in {"https", req.type}:
            raise URLError("the address redirects to one that is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
