"""Stores the milestones of a queue's lists as a document, and loads them."""

import struct
import zlib
from types import NoneType
from typing import Any

from jobmon.rollup.documents import require_type
from jobmon.store.mapping import Document
from jobmon.store.milestones import IdRange, Milestone, MilestoneChanges, Milestones

# The name of the document in `state`.
MILESTONES = "milestones"


def dump_milestones(version: str, milestones: Milestones) -> Document:
    numbers = [number for milestone in milestones.entries for number in milestone.older]
    return {
        "version": version,
        "labels": [list(label) for label in milestones.labels],
        "times": [milestone.at_ms for milestone in milestones.entries],
        "older": zlib.compress(struct.pack(f"<{len(numbers)}Q", *numbers)),
        "uncounted": [milestone.uncounted for milestone in milestones.entries],
        "ranges": [list(map(list, milestone.ranges)) for milestone in milestones.entries],
    }


def load_milestones(document: Document) -> tuple[str, Milestones]:
    """The version and the milestones that `dump_milestones` stored.

    Raises KeyError, TypeError or ValueError for another document.
    """
    labels = tuple(map(_load_label, require_type(document["labels"], list)))
    columns = [require_type(document[name], list) for name in ("times", "uncounted", "ranges")]
    row_bytes = 8 * len(labels)
    packed = _decompress(require_type(document["older"], bytes), row_bytes * len(columns[0]))
    milestones = [
        Milestone(
            at_ms=require_type(at_ms, int),
            older=struct.unpack_from(f"<{len(labels)}Q", packed, index * row_bytes),
            uncounted=require_type(uncounted, int),
            ranges=tuple(IdRange(low, high) for low, high in require_type(ranges, list)),
        )
        for index, (at_ms, uncounted, ranges) in enumerate(zip(*columns, strict=True))
    ]
    return require_type(document["version"], str), Milestones(labels, tuple(milestones))


def load_changes(dumped: Any) -> MilestoneChanges | None:
    """The changes that the stats have; raises MalformedError or KeyError for another value."""
    if dumped is None:
        return None
    fields = require_type(dumped, dict)
    return MilestoneChanges(
        version=require_type(fields["version"], str),
        jobs=require_type(fields["jobs"], int),
        oldest_ms=require_type(fields["oldest_ms"], int, float),
    )


def _decompress(packed: bytes, size: int) -> bytes:
    """The decompressed bytes; raises ValueError unless they have this size."""
    try:
        decompressed = zlib.decompressobj().decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError("not compressed numbers") from error
    if len(decompressed) != size:
        raise ValueError("not one number for each milestone and label")
    return decompressed


def _load_label(dumped: Any) -> tuple[str, str | None]:
    status, job_type = require_type(dumped, list)
    return require_type(status, str), require_type(job_type, str, NoneType)
