"""Limits the rate of requests: 429 with Retry-After for too many; off by default.

`JOBMON_RATE_LIMIT` limits the requests of each token's owner, after the token was checked.
`JOBMON_RATE_LIMIT_PER_ADDRESS` limits the requests of each address before the check, so it also
slows down the guessing of tokens. A single worker can count in memory; several workers need a
storage that they share, `JOBMON_RATE_LIMIT_STORAGE_URI`.
"""

import hashlib
import ipaddress
import logging
import time
from importlib.util import find_spec
from urllib.parse import urlsplit

from flask import Flask, request
from limits import parse_many
from limits.errors import ConfigurationError, StorageError
from limits.storage import Storage, storage_from_string
from limits.strategies import FixedWindowRateLimiter

from jobmon.settings import Settings, SettingsError
from jobmon.web.auth import subject
from jobmon.web.context import extension
from jobmon.web.errors import too_many_requests
from jobmon.web.queues import named_queue

log = logging.getLogger(__name__)

# The program that restarts the service probes these paths.
NOT_COUNTED = frozenset({"/healthz", "/readyz"})
IPV6_PREFIX = 64  # a provider's customer can use every address of such a network
MONGODB_TIMEOUT_MS = 500  # for a count in MongoDB; the driver's default is 30 s

# The packages of storages, by scheme; a scheme for TLS also ends in "s".
_PACKAGES = {"redis": "redis", "valkey": "valkey", "memcached": "pymemcache"}


def require_shared_storage(settings: Settings, workers: int) -> None:
    """Raise SettingsError if each of several workers would count only its own requests."""
    has_limit = settings.rate_limit or settings.rate_limit_per_address
    is_in_memory = urlsplit(settings.rate_limit_storage_uri).scheme == "memory"
    if has_limit and is_in_memory and workers > 1:
        raise SettingsError(
            f"JOBMON_RATE_LIMIT_STORAGE_URI: {workers} workers count a rate limit together only "
            "in a storage: set mongodb://…, redis://… or memcached://…, or JOBMON_WORKERS=1"
        )


class RateLimit:
    """How many requests one caller may send in a period; several limits apply together."""

    def __init__(self, limits: str, storage: Storage) -> None:
        self._limits = parse_many(limits)
        self._limiter = FixedWindowRateLimiter(storage)
        self._is_counting = True

    def hit(self, namespace: str, caller: str) -> None:
        """Count a request of `caller` in `namespace`; raises ApiError 429 if it exceeds a limit."""
        try:
            for limit in self._limits:
                if not self._limiter.hit(limit, namespace, caller):
                    reset_at = self._limiter.get_window_stats(limit, namespace, caller).reset_time
                    raise too_many_requests(f"More than {limit}.", reset_at - time.time())
            self._is_counting = True
        except StorageError as error:
            # If the storage fails, the service continues without limits.
            if self._is_counting:
                log.error("rate limit not counted: %s", error)
            self._is_counting = False


def register(app: Flask, settings: Settings, storage: Storage | None) -> None:
    """Apply the limits that are set; `storage`: from `open_storage`."""
    per_owner = per_address = None
    if storage is not None:
        if settings.rate_limit:
            per_owner = RateLimit(settings.rate_limit, storage)
        if settings.rate_limit_per_address:
            per_address = RateLimit(settings.rate_limit_per_address, storage)
    app.extensions["jobmon_rate_limit"] = per_owner
    if per_address is not None:
        app.before_request(lambda: _check_address(per_address))


def open_storage(settings: Settings) -> Storage | None:
    """The storage that counts requests; None without a limit. SettingsError if it is unusable."""
    if not (settings.rate_limit or settings.rate_limit_per_address):
        return None
    uri = settings.rate_limit_storage_uri
    options = {"timeoutMS": MONGODB_TIMEOUT_MS} if uri.startswith("mongodb") else {}
    try:
        storage = storage_from_string(uri, wrap_exceptions=True, **options)
    except ConfigurationError:  # its text can have the password
        raise SettingsError(f"JOBMON_RATE_LIMIT_STORAGE_URI: {_explain_refusal(uri)}") from None
    assert isinstance(storage, Storage)  # noqa: S101 - the schemes `async+…` have another class
    return storage


def _explain_refusal(uri: str) -> str:
    package = _PACKAGES.get(urlsplit(uri).scheme.partition("+")[0].removesuffix("s"))
    if package is not None and find_spec(package) is None:
        return f"the package {package} is missing: pip install {package}"
    return "not complete: https://limits.readthedocs.io/en/stable/storage.html has each form"


def check() -> None:
    """Count a request with a checked token; raises ApiError 429 if its owner sends too many."""
    per_owner: RateLimit | None = extension("jobmon_rate_limit")
    if per_owner is not None:
        per_owner.hit("owner", hashlib.sha256(subject().encode()).hexdigest())


def _check_address(limit: RateLimit) -> None:
    # Below the path of a queue `/readyz` checks a token: its guessing must be slowed down, too.
    is_probe = request.path in NOT_COUNTED and named_queue() is None
    if not is_probe and request.remote_addr:
        limit.hit("address", _find_network(request.remote_addr))


def _find_network(address: str) -> str:
    """The key of an address: the address for IPv4, its network for IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:  # an IPv4 client on a socket for both versions
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), IPV6_PREFIX), strict=False))
