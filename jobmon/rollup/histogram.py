"""Durations as mergeable histograms: percentiles within 4% without storing the durations.

Bucket `i` holds durations in (g^(i-1), g^i] ms, where g is `_GROWTH`. One value represents all
durations in a bucket: before it is rounded to whole ms, it differs from each of them by at most
`RELATIVE_ERROR`. Histograms are merged by adding counts. The idea is DDSketch's
(https://arxiv.org/abs/1908.10693); MongoDB can compute the number of a bucket.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

RELATIVE_ERROR = 0.04
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LOG_GROWTH = math.log(_GROWTH)
_PACKED_BYTES = 2 + 8
K = TypeVar("K")

Histogram = Counter[int]  # durations by bucket


def add_counts(total: Counter[K], more: Counter[K]) -> None:
    """Add the counts of `more`; with few keys this is much faster than `Counter.update`."""
    get = total.get
    for key, count in more.items():
        total[key] = get(key, 0) + count


def bucket(duration_ms: float) -> int:
    """The number of a duration's bucket; bucket 0 holds all durations up to a millisecond."""
    return 0 if duration_ms <= 1 else math.ceil(math.log(duration_ms) / LOG_GROWTH)


def bucket_expression(duration_ms: Any) -> dict[str, Any]:
    """`bucket` as an aggregation expression of MongoDB."""
    return {"$ceil": {"$divide": [{"$ln": {"$max": [duration_ms, 1]}}, LOG_GROWTH]}}


def percentiles(histogram: Histogram, fractions: Iterable[float]) -> list[int | None]:
    """For each fraction (0.95 for p95) the duration in ms; None if the histogram is empty."""
    total = histogram.total()
    buckets = sorted(histogram)
    values: list[int | None] = []
    for fraction in fractions:
        rank, counted = math.ceil(fraction * total), 0
        value = None
        for index in buckets:
            counted += histogram[index]
            if counted >= max(rank, 1):
                value = rounded_ms(index)
                break
        values.append(value)
    return values


def pack(histogram: Histogram) -> bytes:
    """The stored form: all bucket numbers (2 bytes each, ascending), then the counts (8 each)."""
    numbers = sorted(histogram)
    counts = [histogram[number] for number in numbers]
    return struct.pack(f"<{len(numbers)}H", *numbers) + struct.pack(f"<{len(counts)}Q", *counts)


def unpack(packed: bytes) -> Histogram:
    """The histogram that `pack` stored; raises ValueError for bytes of an impossible length."""
    if not isinstance(packed, bytes) or len(packed) % _PACKED_BYTES:
        raise ValueError("not a packed histogram")
    length = len(packed) // _PACKED_BYTES
    numbers = struct.unpack_from(f"<{length}H", packed)
    counts = struct.unpack_from(f"<{length}Q", packed, 2 * length)
    return Counter(dict(zip(numbers, counts, strict=True)))


def rounded_ms(index: int) -> int:
    """The duration that represents a bucket, in whole ms."""
    return 1 if index == 0 else round(2 * _GROWTH**index / (_GROWTH + 1))
