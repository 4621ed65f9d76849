"""429 with Retry-After for who asks too often; off by default.

`JOBMON_RATE_LIMIT` counts the requests of each token's owner, after the token was checked;
`JOBMON_RATE_LIMIT_PER_ADDRESS` those from each address, before that: it bounds guessing, too.
The workers of one gunicorn count together, in a file that its master makes;
`JOBMON_RATE_LIMIT_STORAGE_URI` (redis://…, memcached://…) counts for several machines.
"""

import hashlib
import ipaddress
import logging
import math
import os
import sqlite3
import threading
import time
from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Flask, current_app, request
from limits import parse_many
from limits.errors import StorageError
from limits.storage import Storage, storage_from_string
from limits.strategies import FixedWindowRateLimiter

from jobmon.settings import Settings
from jobmon.web.auth import subject
from jobmon.web.errors import ApiError

log = logging.getLogger(__name__)

# Whatever keeps the service running asks as often as it has to.
NOT_COUNTED = frozenset({"/healthz", "/readyz"})
IPV6_PREFIX = 64  # what one customer of a provider has; anybody can use all of it

_BUSY_S = 0.25
_FORGET_EVERY = 1_000  # hits
_SET_UP = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS hits (key TEXT PRIMARY KEY, count INTEGER, until REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_until ON hits (until);
"""
_HIT = """
INSERT INTO hits VALUES (:key, :amount, :until)
ON CONFLICT (key) DO UPDATE SET
    count = iif(hits.until <= :now, :amount, hits.count + :amount),
    until = iif(hits.until <= :now, :until, hits.until)
RETURNING count
"""


class FileStorage(Storage):
    """Hits in a small SQLite file, `sqlite:///path`, for all processes of a machine that name it.

    Whoever is killed in the midst of a hit leaves no lock behind: the kernel gives it back.
    """

    STORAGE_SCHEME = ["sqlite"]  # noqa: RUF012 - limits' own way of registering

    def __init__(self, uri: str, wrap_exceptions: bool = False) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._path = urlsplit(uri).path
        self._lock = threading.Lock()
        self._open: tuple[int, sqlite3.Connection] | None = None
        self._hits = 0

    @property
    def base_exceptions(self) -> type[Exception]:
        """What may go wrong: a full disk, a file that has gone."""
        return sqlite3.Error

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count `amount` more, for `expiry` seconds from the first on; returns the count."""
        now = time.time()
        values = {"key": key, "amount": amount, "now": now, "until": now + expiry}
        with self._lock:
            file = self._file()
            ((count,),) = file.execute(_HIT, values).fetchall()
            self._hits += 1
            if self._hits % _FORGET_EVERY == 0:
                file.execute("DELETE FROM hits WHERE until <= ?", [now])
        return int(count)

    def get(self, key: str) -> int:
        """The count, 0 if its time is over."""
        return self._find("count", key) or 0

    def get_expiry(self, key: str) -> float:
        """When its time is over, in seconds since 1970; now if it is."""
        return self._find("until", key) or time.time()

    def check(self) -> bool:
        """Whether the file can be read."""
        self.get("")
        return True

    def reset(self) -> int:
        """Forget all hits; returns how many keys had some."""
        with self._lock:
            return self._file().execute("DELETE FROM hits").rowcount

    def clear(self, key: str) -> None:
        """Forget the hits of this key."""
        with self._lock:
            self._file().execute("DELETE FROM hits WHERE key = ?", [key])

    def _find(self, column: str, key: str) -> int | None:
        query = f"SELECT {column} FROM hits WHERE key = ? AND until > ?"  # noqa: S608 - our own
        with self._lock:
            found = self._file().execute(query, [key, time.time()]).fetchone()
        return found[0] if found else None

    def _file(self) -> sqlite3.Connection:
        """The file, opened by this process: SQLite must not be carried across a fork."""
        if self._open is None or self._open[0] != os.getpid():
            file = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            file.executescript(_SET_UP)
            self._open = os.getpid(), file
        return self._open[1]


class RateLimit:
    """What one caller may ask in a time; the tightest of several limits counts."""

    def __init__(self, limits: str, storage: Storage) -> None:
        self._limits = parse_many(limits)
        self._limiter = FixedWindowRateLimiter(storage)
        self._counts = True

    def hit(self, kind: str, caller: str) -> None:
        """Count a request of `caller`; ApiError 429 when it is one too many."""
        try:
            for limit in self._limits:
                if not self._limiter.hit(limit, kind, caller):
                    reset_at = self._limiter.get_window_stats(limit, kind, caller).reset_time
                    raise _too_many(f"More than {limit}.", reset_at - time.time())
            self._counts = True
        except StorageError as error:
            # Losing the count must not lose the monitor.
            if self._counts:
                log.error("rate limit not counted: %s", error)
            self._counts = False


def _too_many(message: str, retry_after_s: float) -> ApiError:
    headers = {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
    return ApiError(HTTPStatus.TOO_MANY_REQUESTS, "rate_limited", message, headers=headers)


def register(app: Flask, settings: Settings) -> None:
    """Set up the limits, if there are any."""
    per_owner = per_address = None
    if settings.rate_limit or settings.rate_limit_per_address:
        storage = storage_from_string(settings.rate_limit_storage_uri, wrap_exceptions=True)
        assert isinstance(storage, Storage)  # noqa: S101 - none of its asynchronous ones
        if settings.rate_limit:
            per_owner = RateLimit(settings.rate_limit, storage)
        if settings.rate_limit_per_address:
            per_address = RateLimit(settings.rate_limit_per_address, storage)
    app.extensions["jobmon_rate_limit"] = per_owner
    if per_address is not None:
        app.before_request(lambda: _check_address(per_address))


def check() -> None:
    """Let a request with a valid token pass, or raise ApiError 429."""
    per_owner: RateLimit | None = current_app.extensions["jobmon_rate_limit"]
    if per_owner is not None:
        per_owner.hit("owner", hashlib.sha256(subject().encode()).hexdigest())


def _check_address(limit: RateLimit) -> None:
    if request.path not in NOT_COUNTED and request.remote_addr:
        limit.hit("address", _network(request.remote_addr))


def _network(address: str) -> str:
    """What is counted together: an IPv4 address, the network that an IPv6 address is in."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:  # a socket for both kinds says it so
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), IPV6_PREFIX), strict=False))
