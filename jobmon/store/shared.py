"""One answer for all who ask at the same time, kept for a short while."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Shared(Generic[T]):
    """Runs `compute` at most once at a time; everybody who comes meanwhile gets its outcome.

    A value is kept for `ttl_ms`. A failure is shared with those who waited for it and then
    forgotten, so that a slow database is asked once, not once for each viewer.
    """

    def __init__(self, compute: Callable[[], T], ttl_ms: int) -> None:
        self._compute = compute
        self._ttl_s = ttl_ms / 1_000
        self._lock = threading.Lock()
        self._running: Future[T] | None = None
        self._kept: tuple[T, float] | None = None

    def kept(self) -> T | None:
        """The value if there is one at hand that is still good."""
        kept = self._kept
        return kept[0] if kept is not None and time.monotonic() < kept[1] else None

    def get(self) -> T:
        """The kept value, or a new one; raises what `compute` raised."""
        with self._lock:
            if (kept := self.kept()) is not None:
                return kept
            running, mine = self._running, False
            if running is None:
                running, mine = Future(), True
                self._running = running
        if mine:
            self._run(running)
        return running.result()

    def _run(self, outcome: Future[T]) -> None:
        try:
            value = self._compute()
        except BaseException as error:  # noqa: BLE001 - it is raised again by result()
            with self._lock:
                self._running = None
            outcome.set_exception(error)
        else:
            with self._lock:
                self._running = None
                self._kept = (value, time.monotonic() + self._ttl_s)
            outcome.set_result(value)


class SharedByKey(Generic[K, T]):
    """A `Shared` for each key that is asked for; the ones asked for last are remembered."""

    def __init__(self, compute: Callable[[K], T], ttl_ms: int, most: int = 100) -> None:
        self._compute = compute
        self._ttl_ms = ttl_ms
        self._most = most
        self._lock = threading.Lock()
        self._shared: OrderedDict[K, Shared[T]] = OrderedDict()

    def get(self, key: K) -> T:
        """The kept value of `key`, or a new one; raises what `compute` raised."""
        with self._lock:
            shared = self._shared.get(key)
            if shared is None:
                shared = self._shared[key] = Shared(lambda: self._compute(key), self._ttl_ms)
            self._shared.move_to_end(key)
            while len(self._shared) > self._most:
                self._shared.popitem(last=False)
        return shared.get()
