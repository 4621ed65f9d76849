"""429 with Retry-After for a caller who asks too often: `JOBMON_RATE_LIMIT`, off by default.

Counted per token owner, after the token was checked. The default storage is each process's own
memory; `JOBMON_RATE_LIMIT_STORAGE_URI` (redis://…, memcached://…) shares the count.
"""

import hashlib
import logging
import math
import time
from http import HTTPStatus

from flask import Flask, current_app
from limits import parse_many
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

from jobmon.api.auth import subject
from jobmon.api.errors import ApiError
from jobmon.settings import Settings

log = logging.getLogger(__name__)


class RateLimit:
    """What one caller may ask in a time; the tightest of several limits counts."""

    def __init__(self, limits: str, storage_uri: str) -> None:
        self._limits = parse_many(limits)
        self._limiter = FixedWindowRateLimiter(
            storage_from_string(storage_uri, wrap_exceptions=True)
        )

    def hit(self, caller: str) -> None:
        """Count a request of `caller`; ApiError 429 when it is one too many."""
        for limit in self._limits:
            if not self._limiter.hit(limit, caller):
                reset_at = self._limiter.get_window_stats(limit, caller).reset_time
                raise ApiError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    "rate_limited",
                    f"More than {limit}.",
                    headers={"Retry-After": str(max(1, math.ceil(reset_at - time.time())))},
                )


def register(app: Flask, settings: Settings) -> None:
    """Set up the limit, if there is one."""
    limit = settings.rate_limit
    app.extensions["jobmon_rate_limit"] = (
        RateLimit(limit, settings.rate_limit_storage_uri) if limit else None
    )


def check() -> None:
    """Let a request with a valid token pass, or raise ApiError 429."""
    rate_limit: RateLimit | None = current_app.extensions["jobmon_rate_limit"]
    if rate_limit is None:
        return
    try:
        rate_limit.hit(hashlib.sha256(subject().encode()).hexdigest())
    except StorageError as error:
        # Losing the count must not lose the monitor.
        log.error("rate limit not counted: %s", error)
