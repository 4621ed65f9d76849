"""503 `overloaded` for what a process cannot get to soon: better a plain no than a late answer.

A process works at `JOBMON_THREADS` requests at a time. A few more wait for their turn, for a burst
is no overload; one more than these, or one whose turn does not come within two seconds, is refused.
A refusal costs a fraction of an answer and needs no database, so there is always a thread for it
and for the probes: gunicorn gets one for each that works, each that waits, and some to spare.
"""

import threading
from collections import deque

from flask import Flask, g, request
from werkzeug.exceptions import RequestEntityTooLarge

from jobmon.settings import Settings
from jobmon.store.decoding import before_large
from jobmon.web.errors import unavailable

MAX_BODY_BYTES = 64 * 1_024  # a token, or nothing: no route takes more
MAX_WAITING = 64
MAX_WAIT_S = 2.0
SPARE_THREADS = 8
# Of requests that meet a large document: memory is what they share, and few may hold turns for it.
LARGE_AT_ONCE = 1
MAX_LARGE_WAITING = 2
MAX_LARGE_WAIT_S = 5.0

# Whoever watches over the service must be answered above all when it is busy.
ALWAYS_ANSWERED = frozenset({"/healthz", "/readyz", "/metrics"})


def pool_size(at_once: int) -> int:
    """How many threads a process needs, of which `at_once` work."""
    return at_once + MAX_WAITING + SPARE_THREADS


class ConcurrencyLimit:
    """Lets so many in at once; so many more wait a moment for that, first come, first served."""

    def __init__(
        self, at_once: int, waiting: int = MAX_WAITING, wait_s: float = MAX_WAIT_S
    ) -> None:
        self._free = at_once
        self._chairs = waiting
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._line: deque[threading.Event] = deque()

    def take(self) -> bool:
        """Whether it is one's turn, perhaps after a moment; who is let in must `give_back`."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            if len(self._line) >= self._chairs:
                return False
            called = threading.Event()
            self._line.append(called)
        if called.wait(self._wait_s):
            return True
        with self._lock:
            if not called.is_set():
                self._line.remove(called)
            return called.is_set()

    def give_back(self) -> None:
        """Done: the next one's turn."""
        with self._lock:
            if self._line:
                self._line.popleft().set()
            else:
                self._free += 1


def register(app: Flask, settings: Settings) -> None:
    """Have every request but the probes wait for its turn, before anything is done for it."""
    turns = ConcurrencyLimit(settings.threads)
    large = ConcurrencyLimit(LARGE_AT_ONCE, MAX_LARGE_WAITING, MAX_LARGE_WAIT_S)

    def begin() -> None:
        _receive_body()
        if request.path in ALWAYS_ANSWERED:
            return
        if not turns.take():
            raise unavailable("overloaded", "Too many requests at once. Try again.")
        g.jobmon_has_turn = True
        before_large.set(begin_large)

    def begin_large() -> None:
        if "jobmon_has_large_turn" in g:
            return
        if not large.take():
            raise unavailable("overloaded", "Too many large documents at once. Try again.")
        g.jobmon_has_large_turn = True

    def end(_: BaseException | None) -> None:
        before_large.set(None)
        if g.pop("jobmon_has_large_turn", False):
            large.give_back()
        if g.pop("jobmon_has_turn", False):
            turns.give_back()

    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.before_request(begin)
    app.teardown_request(end)


def _receive_body() -> None:
    """Read the body before a turn is taken, so that a slow client holds none; 413 if it is large.

    Behind `jobmon.worker` it is in memory already.
    """
    if request.content_length or "Transfer-Encoding" in request.headers:
        request.get_data()
        # Werkzeug cuts a body whose length was not announced where it should refuse it.
        is_unsized = request.content_length is None and request.environ.get("wsgi.input_terminated")
        if is_unsized and request.environ["wsgi.input"].read(1):
            raise RequestEntityTooLarge
