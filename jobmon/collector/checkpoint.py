"""Stores what a collector needs to continue: counts, remembered jobs, the stream's position."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain
from types import NoneType

from jobmon.rollup.documents import CHECKPOINT, CHECKPOINTS, STATE, OwnDatabase, require_type
from jobmon.store.mapping import Document

_SEGMENTS_PER_DOCUMENT = 100
_COUNTS_PER_DOCUMENT = 10_000  # about 8 MB with type names of 200 characters of 4 bytes
_JOBS_PER_DOCUMENT = 200


@dataclass(frozen=True)
class Checkpoint:
    """The dumped segments, and the change stream's resume token (None without a stream).

    `jobs`: the jobs that the `EventCounter` remembers. `counted_until`: the time (UTC) before
    which it has counted all changes; None without an `EventCounter`.
    """

    segments: list[Document]
    token: Document | None
    jobs: list[Document] = field(default_factory=list)
    counted_until: datetime | None = None


class Checkpoints:
    """Writes and reads the checkpoint of a queue in jobmon's own database.

    A checkpoint of 100 million jobs has 100 MB: `save` and `load` call `keep_alive` for each part.
    """

    def __init__(self, own: OwnDatabase, keep_alive: Callable[[], object] = lambda: None) -> None:
        self._own = own
        self._parts = own[CHECKPOINTS]
        self._keep_alive = keep_alive
        self._saving: Future[None] | None = None
        # Of the stored checkpoint; None if the latest is not stored: no position is saved then.
        self._version: str | None = None
        self.took_s = 0.0  # how long the last write took

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; the old checkpoint stays valid until all parts are written."""
        if self._saving is not None:
            wait([self._saving])
        self._saving = None
        self._write_parts(checkpoint, self._keep_alive)

    def start_saving(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint in another thread; returns at once. See `is_saving`."""
        executor = ThreadPoolExecutor(1, "checkpoint")
        self._saving = executor.submit(self._write_parts, checkpoint, lambda: None)
        executor.shutdown(wait=False)

    def is_saving(self) -> bool:
        """Whether `start_saving` still writes; raises the exception if the write failed."""
        if self._saving is None or not self._saving.done():
            return self._saving is not None
        saving, self._saving = self._saving, None
        saving.result()
        return False

    def _write_parts(self, checkpoint: Checkpoint, keep_alive: Callable[[], object]) -> None:
        started, version = time.monotonic(), uuid.uuid4().hex
        self._version = None
        self._parts.create_index(self._own.index("version", "number"))
        count = 0
        parts = chain(
            ({"segments": part, "jobs": []} for part in _split_segments(checkpoint.segments)),
            ({"segments": [], "jobs": part} for part in _split_jobs(checkpoint.jobs)),
        )
        for number, part in enumerate(parts):
            fields = {"version": version, "number": number, **part}
            document = self._own.new(f"{version}:{number}", fields)
            if not self._own.write(CHECKPOINTS, partial(self._parts.insert_one, document)):
                self._parts.delete_many({**self._own.scope, "version": version})
                return
            count += 1
            keep_alive()
        head = {"version": version, "parts": count, "token": checkpoint.token}
        self._own.write_state(CHECKPOINT, head | {"seenUntil": checkpoint.counted_until})
        self._version = version
        self._parts.delete_many({**self._own.scope, "version": {"$ne": version}})
        self.took_s = time.monotonic() - started

    def save_position(self, token: Document | None, counted_until: datetime | None) -> None:
        """Replace only the position: while no job changes, the stored token would become too old.

        This has no effect if the latest checkpoint could not be stored.
        """
        stored = {"_id": self._own.id(CHECKPOINT), "version": self._version}
        position = {"token": token, "seenUntil": counted_until}
        self._own[STATE].update_one(stored, {"$set": position})

    def load(self) -> Checkpoint | None:
        """The stored checkpoint; None if none is stored. Raises ValueError without all parts."""
        head = self._own.find_state(CHECKPOINT, _load_head)
        if head is None:
            return None
        version, count, token, counted_until = head
        documents = self._parts.find({**self._own.scope, "version": version}).sort("number")
        parts = []
        for part in self._own.read(CHECKPOINTS, documents, _load_part):
            parts.append(part)
            self._keep_alive()
        if len(parts) != count:
            raise ValueError("parts of the checkpoint are missing, or of another version")
        self._version = version
        segments, jobs = zip(*parts, strict=True)
        return Checkpoint(list(chain(*segments)), token, list(chain(*jobs)), counted_until)


def _split_segments(segments: list[Document]) -> Iterator[list[Document]]:
    """The segments in parts, each of which fits into a document; at least one part."""
    part: list[Document] = []
    counts_left = _COUNTS_PER_DOCUMENT
    for segment in segments:
        counts_left -= len(segment["counts"])
        if part and (counts_left < 0 or len(part) == _SEGMENTS_PER_DOCUMENT):
            yield part
            part, counts_left = [], _COUNTS_PER_DOCUMENT - len(segment["counts"])
        part.append(segment)
    yield part


def _split_jobs(jobs: list[Document]) -> Iterator[list[Document]]:
    for start in range(0, len(jobs), _JOBS_PER_DOCUMENT):
        yield jobs[start : start + _JOBS_PER_DOCUMENT]


def _load_head(document: Document) -> tuple[str, int, Document | None, datetime | None]:
    """The version, the number of parts, the resume token and `counted_until`."""
    return (
        require_type(document["version"], str),
        require_type(document["parts"], int),
        require_type(document["token"], dict, NoneType),
        require_type(document["seenUntil"], datetime, NoneType),
    )


def _load_part(document: Document) -> tuple[list[Document], list[Document]]:
    """The segments and the remembered jobs of a part."""
    return require_type(document["segments"], list), require_type(document["jobs"], list)
