"""Limits concurrent requests: 503 `overloaded` if a process cannot start a request soon.

A process works on `JOBMON_THREADS` requests at a time. `MAX_WAITING` more wait for up to two
seconds, because a burst is no overload; any further request is refused. gunicorn has a thread for
each request that is worked on or waits, and some spare ones for probes and refusals, which take
little time.
"""

import threading
from collections import Counter, deque

from flask import Flask
from werkzeug.exceptions import RequestEntityTooLarge

from jobmon.settings import Settings
from jobmon.store.decoding import large_document_check
from jobmon.web.context import current_request, request_values
from jobmon.web.errors import unavailable
from jobmon.web.queues import WatchedQueues, current_settings

MAX_BODY_BYTES = 64 * 1_024  # no route accepts more
MAX_WAITING = 64
MAX_WAIT_S = 2.0
SPARE_THREADS = 8
# Large documents are decoded one at a time: they take much memory, and must not hold all slots.
LARGE_AT_ONCE = 1
MAX_LARGE_WAITING = 2
MAX_LARGE_WAIT_S = 5.0

# Monitoring must get an answer from a busy process.
ALWAYS_ANSWERED = frozenset({"/healthz", "/readyz", "/metrics"})


def pool_size(at_once: int) -> int:
    """How many threads a process needs to work on `at_once` requests at a time."""
    return at_once + MAX_WAITING + SPARE_THREADS


class ConcurrencyLimit:
    """A semaphore with `slots` and a queue of limited length, in which callers wait in order.

    With `per_key`, callers with the same key take at most that many slots, and at most half of the
    places in the queue. So if their work is slow, other callers still get slots.

    >>> limit = ConcurrencyLimit(8)
    >>> if limit.acquire():
    ...     try:
    ...         work()
    ...     finally:
    ...         limit.release()
    """

    def __init__(
        self,
        slots: int,
        max_waiting: int = MAX_WAITING,
        wait_s: float = MAX_WAIT_S,
        per_key: int | None = None,
    ) -> None:
        self._free = slots
        self._per_key = per_key or slots
        self._max_waiting = max_waiting
        self._max_waiting_per_key = max_waiting if per_key is None else max_waiting // 2
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()
        self._queue: deque[tuple[str, threading.Event]] = deque()

    def acquire(self, key: str = "") -> bool:
        """Take a slot, waiting `wait_s` seconds at most; False if no slot became free.

        Returns False without waiting if too many callers wait already.
        """
        with self._lock:
            if self._free and self._taken[key] < self._per_key:
                self._free -= 1
                self._taken[key] += 1
                return True
            with_same_key = sum(waiting_key == key for waiting_key, _ in self._queue)
            if len(self._queue) >= self._max_waiting or with_same_key >= self._max_waiting_per_key:
                return False
            granted = threading.Event()
            self._queue.append((key, granted))
        if granted.wait(self._wait_s):
            return True
        with self._lock:
            if not granted.is_set():
                self._queue.remove((key, granted))
            return granted.is_set()

    def release(self, key: str = "") -> None:
        """Free a slot, or give it to the caller that waits longest and is below `per_key`."""
        with self._lock:
            self._taken[key] -= 1
            for waiting_key, granted in self._queue:
                if self._taken[waiting_key] < self._per_key:
                    self._queue.remove((waiting_key, granted))
                    self._taken[waiting_key] += 1
                    granted.set()
                    return
            self._free += 1


def register(app: Flask, settings: Settings, queues: WatchedQueues) -> None:
    """Limit how many requests are worked on at a time, except for `ALWAYS_ANSWERED`.

    If the queues are in several deployments, requests for one of these take at most half of the
    slots: a deployment that does not answer must not delay the others. Call this function after the
    functions whose hooks must also run for refused requests.
    """
    per_key = max(1, settings.threads // 2) if queues.deployment_count > 1 else None
    limit = ConcurrencyLimit(settings.threads, per_key=per_key)
    large_limit = ConcurrencyLimit(LARGE_AT_ONCE, MAX_LARGE_WAITING, MAX_LARGE_WAIT_S)

    def begin() -> None:
        _receive_body()
        if current_request().path in ALWAYS_ANSWERED:
            return
        queue = current_settings()
        deployment = "" if queue is None else queue.mongo_uri
        if not limit.acquire(deployment):
            raise unavailable("overloaded", "Too many requests at once. Try again.")
        request_values().jobmon_slot = deployment
        large_document_check.set(begin_large)

    def begin_large() -> None:
        if has_large_document():
            return
        if not large_limit.acquire():
            raise unavailable("overloaded", "Too many large documents at once. Try again.")
        request_values().jobmon_has_large_slot = True

    def end(_: BaseException | None) -> None:
        large_document_check.set(None)
        values = request_values()
        if values.pop("jobmon_has_large_slot", False):
            large_limit.release()
        if "jobmon_slot" in values:
            limit.release(values.pop("jobmon_slot"))

    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.before_request(begin)
    app.teardown_request(end)


def has_large_document() -> bool:
    """Whether this request has the place of a large document, until it ends.

    Then it must not wait for a result of another request, which may need this place.
    """
    return "jobmon_has_large_slot" in request_values()


def _receive_body() -> None:
    """Read the body before a slot is taken: a slow client holds no slot. 413 if it is too large.

    Behind jobmon's own gunicorn worker the body is in memory already.
    """
    request = current_request()
    if request.content_length or "Transfer-Encoding" in request.headers:
        request.get_data()
        # Werkzeug truncates a chunked body that is too large instead of refusing it.
        is_unsized = request.content_length is None and request.environ.get("wsgi.input_terminated")
        if is_unsized and request.environ["wsgi.input"].read(1):
            raise RequestEntityTooLarge
