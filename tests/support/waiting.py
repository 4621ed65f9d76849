"""Waits for a condition, without a fixed sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# How long tests wait for something that must come. It is far above what it takes: a machine may be
# ten times as slow, and a test that passes does not wait so long.
PATIENCE_S = 120


def eventually(condition: Callable[[], T]) -> T:
    """Return the first true value of `condition`; fail if there is none in `PATIENCE_S`."""
    begun = time.monotonic()
    while not (value := condition()):
        waited_s = time.monotonic() - begun
        assert waited_s < PATIENCE_S, f"{condition} did not come true in {PATIENCE_S} s"
        # Less often after a while: a condition costs up to several requests.
        time.sleep(min(0.02 + waited_s / 10, 0.2))
    return value
