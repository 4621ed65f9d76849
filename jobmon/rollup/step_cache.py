"""Caches final steps of the history; one limit for all queues of a process."""

import threading
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")
K = TypeVar("K", bound=Hashable)


class StepCache(Generic[V]):
    """Values by owner and key, at most `size` in total: the values added first are dropped.

    >>> cache = StepCache[int](size=20_000)
    >>> cache.add("payouts", {1: 10})
    >>> cache.find("payouts", [1, 2])
    {1: 10}
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._values: dict[tuple[Hashable, Hashable], V] = {}

    def find(self, owner: Hashable, keys: Iterable[K]) -> dict[K, V]:
        with self._lock:
            return {key: self._values[owner, key] for key in keys if (owner, key) in self._values}

    def add(self, owner: Hashable, values: Mapping[K, V]) -> None:
        with self._lock:
            self._values.update({(owner, key): value for key, value in values.items()})
            while len(self._values) > self._size:
                del self._values[next(iter(self._values))]

    def clear(self, owner: Hashable) -> None:
        with self._lock:
            for key in [key for key in self._values if key[0] == owner]:
                del self._values[key]
