"""Waits for a condition, without a fixed sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], within_s: float = 20) -> T:
    """Return the first true value of `condition`; fail if there is none in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{condition} did not come true in {within_s} s"
        time.sleep(0.02)
    return value
