"""Single flight: concurrent callers share one computation, whose result is kept for a while."""

import math
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")

UNUSED_AFTER_S = 30.0


class SingleFlight(Generic[T]):
    """Runs `compute` at most once at a time; callers during a run get its result.

    A value is kept for `ttl_ms`. A failure is raised for every caller that waited for it and is
    not kept, so that a slow database gets one query and not one for each viewer.

        stats = SingleFlight(count_jobs, ttl_ms=1_000)
        stats.get()
    """

    def __init__(self, compute: Callable[[], T], ttl_ms: int) -> None:
        self._compute = compute
        self._ttl_s = ttl_ms / 1_000
        self._lock = threading.Lock()
        self._running: Future[T] | None = None
        self._kept: tuple[T, float] | None = None

    def kept(self) -> T | None:
        """The kept value; None if there is none, or it has expired."""
        kept = self._kept
        return kept[0] if kept is not None and time.monotonic() < kept[1] else None

    def get(self) -> T:
        """The kept value or a new one; raises what `compute` raised."""
        with self._lock:
            if (kept := self.kept()) is not None:
                return kept
            running, is_first = self._running, False
            if running is None:
                running, is_first = Future(), True
                self._running = running
        if is_first:
            self._run(running)
        return running.result()

    def _run(self, outcome: Future[T]) -> None:
        try:
            value = self._compute()
        except BaseException as error:  # noqa: BLE001 - result() raises it again
            with self._lock:
                self._running = None
            outcome.set_exception(error)
        else:
            with self._lock:
                self._running = None
                self._kept = (value, time.monotonic() + self._ttl_s)
            outcome.set_result(value)


class SingleFlightCache(Generic[T]):
    """`SingleFlight` for many keys: each value is computed once, the newest `size` are kept.

    A value that was not used for 30 seconds is evicted at the next call.

        pages = SingleFlightCache[str](size=50)
        pages.get("overview", render_overview, max_age_s=1)
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        # By key: the value, when it was computed, when it was last used; in the order of last use.
        self._values: dict[Hashable, tuple[Future[T], float, float]] = {}

    def get(
        self,
        key: Hashable,
        compute: Callable[[], T],
        max_age_s: float = math.inf,
        *,
        keep: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """The kept value, unless it is older than `max_age_s`, or a new one.

        A value for which `keep` is false is shared only by the callers who wait for it. Raises
        what `compute` raised.
        """
        now = time.monotonic()
        with self._lock:
            kept = self._values.pop(key, None)
            is_first = kept is None or now - kept[1] >= max_age_s
            if kept is None or is_first:
                kept = Future(), now, now
            value = kept[0]
            self._values[key] = value, kept[1], now
            self._evict(now - UNUSED_AFTER_S)
        if is_first:
            try:
                computed = compute()
            except BaseException as error:  # noqa: BLE001 - result() raises it again
                self._drop(key, value)
                value.set_exception(error)
            else:
                if not keep(computed):
                    self._drop(key, value)
                value.set_result(computed)
        return value.result()

    def _drop(self, key: Hashable, value: Future[T]) -> None:
        with self._lock:
            kept = self._values.get(key)
            if kept is not None and kept[0] is value:
                del self._values[key]

    def _evict(self, used_before: float) -> None:
        while True:
            oldest = next(iter(self._values))
            if len(self._values) <= self._size and self._values[oldest][2] >= used_before:
                return
            del self._values[oldest]
