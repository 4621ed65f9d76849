"""How a command ends on SIGINT or SIGTERM: soon, whenever it arrives and whatever blocks."""

import logging
import os
import signal
import sys
import threading
import time

log = logging.getLogger(__name__)

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
_LOOK_EVERY_S = 0.1
_STOP_TIMEOUT_S = 1.5  # of the two seconds that are promised


def hold_stop_signals() -> None:
    """Keep SIGINT and SIGTERM pending until `await_stop_signal`; call it before starting threads.

    A handler cannot do this: `Event.wait()` sleeps on if the signal arrives just before it sleeps,
    and `Event.set()` in the handler waits for ever if it interrupts `Event.wait()` elsewhere.
    Child processes inherit it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def await_stop_signal() -> None:
    """Wait for one of the signals that are held; one that is pending already counts."""
    while not signal.sigpending() & STOP_SIGNALS:
        time.sleep(_LOOK_EVERY_S)


def end_soon() -> None:
    """End this process with code 0 in 1.5 s, unless it has ended before.

    For a clean end that may have to wait for a database which does not answer.
    """

    def end() -> None:
        log.warning("ended without waiting for what does not answer")
        sys.stdout.flush()
        os._exit(0)

    timer = threading.Timer(_STOP_TIMEOUT_S, end)
    timer.daemon = True
    timer.start()
