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
_STOP_TIMEOUT_S = 1.5  # two seconds in total are documented


def hold_stop_signals() -> None:
    """Keep SIGINT and SIGTERM pending until `await_stop_signal`; call it before starting threads.

    A handler cannot do this: `Event.wait()` misses a signal that arrives just before it sleeps, and
    `Event.set()` in a handler that interrupts `Event.wait()` waits for ever. Child processes
    inherit the mask.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def await_stop_signal() -> None:
    """Wait for a stop signal; one that is pending already counts."""
    while not signal.sigpending() & STOP_SIGNALS:
        time.sleep(_POLL_EVERY_S)


@contextmanager
def running_threads(
    threads: Sequence[threading.Thread], stop: threading.Event, within_s: float
) -> Iterator[None]:
    """Run threads until the end of the block; then set `stop`, and wait `within_s` at most."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        deadline = time.monotonic() + within_s
        for thread in threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))


def end_soon() -> None:
    """End this process with code 0 after 1.5 s, unless it has ended before.

    Call this function before a clean end that may have to wait for the database.
    """

    def end() -> None:
        log.warning("ended without waiting for the database")
        sys.stdout.flush()
        os._exit(0)

    timer = threading.Timer(_STOP_TIMEOUT_S, end)
    timer.daemon = True
    timer.start()
