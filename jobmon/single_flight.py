"""Single flight: concurrent callers share one computation.

`SingleFlight` and `SingleFlightCache` keep the result for a while; `FreshFlight` keeps no result.
"""

import math
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

UNUSED_AFTER_S = 30.0
# With this factor, a computation that takes up to 3.3 s runs for about a tenth of the time at most.
TTL_FACTOR = 9.0
MAX_FACTOR_TTL_S = 30.0


class SingleFlight(Generic[T]):
    """Runs `compute` at most once at a time; callers during a run get its result.

    So a slow database gets one query for all viewers. A value is kept for `ttl_ms` or, if that is
    longer, for `ttl_factor` times as long as its computation took (30 seconds at most). With a
    `ttl_ms` of 0 it is not kept. A failure is raised for every caller that waited, and is not kept.

        stats = SingleFlight(count_jobs, ttl_ms=1_000)
        stats.get()
    """

    def __init__(self, compute: Callable[[], T], ttl_ms: int, ttl_factor: float = 0.0) -> None:
        self._compute = compute
        self._ttl_s = ttl_ms / 1_000
        self._ttl_factor = ttl_factor
        self._lock = threading.Lock()
        self._running: Future[T] | None = None
        # The value, and the monotonic time when it expires.
        self._kept: tuple[T, float] | None = None

    def kept(self) -> T | None:
        """The kept value; None if there is none, or it has expired."""
        kept = self._find_kept()
        return None if kept is None else kept[0]

    def get(self) -> T:
        """The kept value or a new one; raises what `compute` raised."""
        with self._lock:
            if (kept := self._find_kept()) is not None:
                return kept[0]
            running, must_run = self._running, False
            if running is None:
                running, must_run = Future(), True
                self._running = running
        if must_run:
            self._run(running)
        return running.result()

    def _find_kept(self) -> tuple[T, float] | None:
        kept = self._kept
        return kept if kept is not None and time.monotonic() < kept[1] else None

    def _run(self, outcome: Future[T]) -> None:
        started = time.monotonic()
        try:
            value = self._compute()
        except BaseException as error:  # noqa: BLE001 - result() raises it again
            with self._lock:
                self._running = None
            outcome.set_exception(error)
        else:
            with self._lock:
                self._running = None
                now = time.monotonic()
                kept_s = _find_ttl_s(self._ttl_s, self._ttl_factor, now - started)
                self._kept = (value, now + kept_s)
            outcome.set_result(value)


def _find_ttl_s(ttl_s: float, ttl_factor: float, took_s: float) -> float:
    """How long to keep a value, in seconds."""
    return max(ttl_s, min(ttl_factor * took_s, MAX_FACTOR_TTL_S)) if ttl_s else 0.0


@dataclass
class _Kept(Generic[T]):
    """A value; when its computation began, how long it took, and when the value was last used."""

    value: Future[T]
    begun_at: float
    used_at: float
    took_s: float = 0.0


class SingleFlightCache(Generic[T]):
    """`SingleFlight` for many keys: it keeps the `size` values that were used last.

    The age of a value is the time since its computation began. So if a computation takes longer
    than `max_age_s`, a later caller starts another. At each call, for any key, values that were not
    used for 30 seconds are evicted.

        pages = SingleFlightCache[str](size=50)
        pages.get("overview", render_overview, max_age_s=1)
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._values: dict[Hashable, _Kept[T]] = {}  # in the order of last use

    def get(
        self,
        key: Hashable,
        compute: Callable[[], T],
        max_age_s: float = math.inf,
        *,
        ttl_factor: float = 0.0,
        keep: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """The kept value, or a new one if there is none or its age is `max_age_s` or more.

        With `ttl_factor`, a value may be kept for longer, as in `SingleFlight`. A value for which
        `keep` returns False goes only to the callers who wait for it. Raises what `compute` raised.
        """
        now = time.monotonic()
        with self._lock:
            kept = self._values.pop(key, None)
            must_run = kept is None or now - kept.begun_at >= _find_ttl_s(
                max_age_s, ttl_factor, kept.took_s
            )
            if kept is None or must_run:
                kept = _Kept(Future(), now, now)
            kept.used_at = now
            self._values[key] = kept
            self._evict(now - UNUSED_AFTER_S)
        if must_run:
            try:
                computed = compute()
            except BaseException as error:  # noqa: BLE001 - result() raises it again
                self._drop(key, kept)
                kept.value.set_exception(error)
            else:
                kept.took_s = time.monotonic() - now
                if not keep(computed):
                    self._drop(key, kept)
                kept.value.set_result(computed)
        return kept.value.result()

    def _drop(self, key: Hashable, kept: _Kept[T]) -> None:
        with self._lock:
            if self._values.get(key) is kept:
                del self._values[key]

    def _evict(self, used_before: float) -> None:
        while True:
            oldest = next(iter(self._values))
            is_recent = self._values[oldest].used_at >= used_before
            if len(self._values) <= self._size and is_recent:
                return
            del self._values[oldest]


class FreshFlight(Generic[T]):
    """Callers with the same key share one computation that begins after all of their calls.

    So no caller gets a value from before its call. All callers during a computation share the next
    computation, which begins when the present one ends. A failure is raised for every caller who
    waited for it.

        pages = FreshFlight[bytes]()
        pages.get("newest", read_newest_jobs)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The computation in progress, and the next computation if a caller waits for it.
        self._flights: dict[Hashable, list[Future[T]]] = {}

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """A new value; raises what `compute` raised."""
        with self._lock:
            flights = self._flights.setdefault(key, [])
            must_run = len(flights) < 2
            if must_run:
                flights.append(Future())
            current, newest = flights[0], flights[-1]
        if must_run:
            if current is not newest:
                current.exception()  # waits for its end, without raising its failure
            self._run(key, newest, compute)
        return newest.result()

    def _run(self, key: Hashable, outcome: Future[T], compute: Callable[[], T]) -> None:
        try:
            value = compute()
        except BaseException as error:  # noqa: BLE001 - result() raises it again
            self._end(key)
            outcome.set_exception(error)
        else:
            self._end(key)
            outcome.set_result(value)

    def _end(self, key: Hashable) -> None:
        with self._lock:
            flights = self._flights[key]
            del flights[0]
            if not flights:
                del self._flights[key]
