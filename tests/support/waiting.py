"""Waits for a condition, without a fixed sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], within_s: float = 20) -> T:
    """Return the first true value of `condition`; fail if there is none in time."""
    begun = time.monotonic()
    while not (value := condition()):
        waited_s = time.monotonic() - begun
        assert waited_s < within_s, f"{condition} did not come true in {within_s} s"
        # Less often after a while: a condition costs up to several requests.
        time.sleep(min(0.02 + waited_s / 10, 0.2))
    return value
