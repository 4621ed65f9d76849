"""Durations as mergeable histograms: percentiles within 4 % without the durations themselves.

A bucket `i` holds what lies in (g^(i-1), g^i] milliseconds, and is told as the value that is at
most `RELATIVE_ERROR` from everything in it. Merging is adding. The idea is DDSketch's
(https://arxiv.org/abs/1908.10693); the buckets are plain numbers, so that MongoDB can fill them.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any

RELATIVE_ERROR = 0.04
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LOG_GROWTH = math.log(_GROWTH)
_PACKED_BYTES = 2 + 8

Histogram = Counter[int]


def bucket(duration_ms: float) -> int:
    """The bucket of a duration; everything up to a millisecond is in bucket 0."""
    return 0 if duration_ms <= 1 else math.ceil(math.log(duration_ms) / LOG_GROWTH)


def bucket_expression(duration_ms: Any) -> dict[str, Any]:
    """`bucket` as an aggregation expression of MongoDB."""
    return {"$ceil": {"$divide": [{"$ln": {"$max": [duration_ms, 1]}}, LOG_GROWTH]}}


def percentiles(histogram: Histogram, of: Iterable[float]) -> list[int | None]:
    """The durations in ms below which these fractions lie (0.95: p95); None of an empty one."""
    total = histogram.total()
    buckets = sorted(histogram)
    told: list[int | None] = []
    for fraction in of:
        rank, seen = math.ceil(fraction * total), 0
        value = None
        for index in buckets:
            seen += histogram[index]
            if seen >= max(rank, 1):
                value = rounded_ms(index)
                break
        told.append(value)
    return told


def pack(histogram: Histogram) -> bytes:
    """As it is stored: every bucket's number in 2 bytes, then every count in 8; lowest first."""
    numbers = sorted(histogram)
    counts = [histogram[number] for number in numbers]
    return struct.pack(f"<{len(numbers)}H", *numbers) + struct.pack(f"<{len(counts)}Q", *counts)


def unpack(packed: bytes) -> Histogram:
    """What `pack` gave; ValueError of anything else."""
    if not isinstance(packed, bytes) or len(packed) % _PACKED_BYTES:
        raise ValueError("not a packed histogram")
    length = len(packed) // _PACKED_BYTES
    numbers = struct.unpack_from(f"<{length}H", packed)
    counts = struct.unpack_from(f"<{length}Q", packed, 2 * length)
    return Counter(dict(zip(numbers, counts, strict=True)))


def rounded_ms(index: int) -> int:
    """The duration that a bucket is told as."""
    return 1 if index == 0 else round(2 * _GROWTH**index / (_GROWTH + 1))
