"""One answer for all who ask at the same time, kept for a short while."""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")

FORGET_AFTER_S = 30.0


class SingleFlight(Generic[T]):
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


class SingleFlightCache(Generic[T]):
    """`SingleFlight` for many questions: each is computed once, the answers of the newest are kept.

    An answer never grows old: what it depends on has to be part of its question, the second that
    it was asked in for instance. So most are soon of no use: what nobody asked for in half a minute
    is let go at the next question. A failure is shared with those who waited for it and then
    forgotten.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        # With when it was asked for; the one asked for last is the last.
        self._answers: dict[Hashable, tuple[Future[T], float]] = {}

    def get(self, question: Hashable, compute: Callable[[], T]) -> T:
        """The kept answer, or a new one; raises what `compute` raised."""
        now = time.monotonic()
        with self._lock:
            kept = self._answers.pop(question, None)
            answer, mine = (Future[T](), True) if kept is None else (kept[0], False)
            self._answers[question] = answer, now
            self._let_go(now - FORGET_AFTER_S)
        if mine:
            try:
                answer.set_result(compute())
            except BaseException as error:  # noqa: BLE001 - it is raised again by result()
                with self._lock:
                    kept = self._answers.get(question)
                    if kept is not None and kept[0] is answer:
                        del self._answers[question]
                answer.set_exception(error)
        return answer.result()

    def _let_go(self, asked_before: float) -> None:
        while True:
            oldest = next(iter(self._answers))
            if len(self._answers) <= self._keep and self._answers[oldest][1] >= asked_before:
                return
            del self._answers[oldest]
