"""Ends a command and its threads soon after SIGINT or SIGTERM, even if something blocks."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

log = logging.getLogger(__name__)

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
_POLL_EVERY_S = 0.1
_STOP_TIMEOUT_S = 1.5  # so that a command ends within two seconds


def block_stop_signals() -> None:
    """Block SIGINT and SIGTERM, for `await_stop_signal`; call this before threads are started.

    A handler is no alternative: `Event.wait()` misses a signal that arrives just before it sleeps,
    and `Event.set()` in a handler that interrupts `Event.wait()` waits for ever. Threads and child
    processes that start later inherit the block.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def await_stop_signal() -> None:
    """Wait until a stop signal is pending; it may have arrived before the call."""
    while not signal.sigpending() & STOP_SIGNALS:
        time.sleep(_POLL_EVERY_S)


@contextmanager
def running_threads(
    threads: Sequence[threading.Thread], stop: threading.Event, timeout_s: float
) -> Iterator[None]:
    """Run threads during the block; then set `stop`, and wait at most `timeout_s` for their end."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        deadline = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))


def end_soon() -> None:
    """End this process with code 0 in 1.5 s, unless it ends earlier.

    Call this function before a cleanup that may wait for the database.
    """

    def end() -> None:
        log.warning("ended without waiting for the database")
        sys.stdout.flush()
        os._exit(0)

    timer = threading.Timer(_STOP_TIMEOUT_S, end)
    timer.daemon = True
    timer.start()
