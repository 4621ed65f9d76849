"""Waits until a condition is true, instead of sleeping for a fixed time."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# The longest time that tests wait for an expected event. A passing test waits much less, even on a
# machine that is ten times slower.
PATIENCE_S = 120


def eventually(condition: Callable[[], T]) -> T:
    """Call `condition` until its value is true; returns that value, or fails after `PATIENCE_S`."""
    started_at = time.monotonic()
    while not (value := condition()):
        waited_s = time.monotonic() - started_at
        assert waited_s < PATIENCE_S, f"{condition} did not come true in {PATIENCE_S} s"
        # Check less often after a while: a condition may send several requests.
        time.sleep(min(0.02 + waited_s / 10, 0.2))
    return value


def is_waiting(thread: threading.Thread) -> bool:
    """Whether a thread waits for an event, or for the result of another thread."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "wait"
