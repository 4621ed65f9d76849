"""Checkpoints: the counted segments and the change stream's position, for the next collector."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from jobmon.rollup.documents import CHECKPOINT, CHECKPOINTS, OwnDatabase, require_type
from jobmon.store.mapping import Document

_SEGMENTS_A_DOCUMENT = 100
_COUNTS_A_DOCUMENT = 10_000  # of a status and a type, with names of 200 characters


class IncompleteCheckpointError(Exception):
    """Parts of the checkpoint are missing, or another version wrote them."""


@dataclass(frozen=True)
class Checkpoint:
    """The dumped segments, and the change stream's resume token, None without a stream."""

    segments: list[Document]
    token: Document | None


class Checkpoints:
    """Writes and reads the checkpoint of a queue in jobmon's own database."""

    def __init__(self, own: OwnDatabase) -> None:
        self._own = own
        self._parts = own[CHECKPOINTS]

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint. The new one counts only once all of its parts are written."""
        version = uuid.uuid4().hex
        self._parts.create_index(self._own.index("version"))
        parts = list(_split(checkpoint.segments))
        for number, part in enumerate(parts):
            fields = {"version": version, "number": number, "segments": part}
            document = self._own.new(f"{version}:{number}", fields)
            if not self._own.write(CHECKPOINTS, partial(self._parts.insert_one, document)):
                return
        head = {"version": version, "parts": len(parts), "token": checkpoint.token}
        self._own.write_state(CHECKPOINT, head)
        self._parts.delete_many({**self._own.scope, "version": {"$ne": version}})

    def load(self) -> Checkpoint | None:
        """The newest checkpoint, None if there is none; IncompleteCheckpointError."""
        head = self._own.find_state(CHECKPOINT, _load_head)
        if head is None:
            return None
        version, count, token = head
        found = self._parts.find({**self._own.scope, "version": version}).sort("number")
        parts = list(self._own.read(CHECKPOINTS, found, _load_part))
        if len(parts) != count:
            raise IncompleteCheckpointError
        return Checkpoint([segment for part in parts for segment in part], token)


def _split(segments: list[Document]) -> Iterator[list[Document]]:
    """The segments in parts that fit into a document each."""
    part: list[Document] = []
    left = _COUNTS_A_DOCUMENT
    for segment in segments:
        left -= len(segment["counts"])
        if part and (left < 0 or len(part) == _SEGMENTS_A_DOCUMENT):
            yield part
            part, left = [], _COUNTS_A_DOCUMENT - len(segment["counts"])
        part.append(segment)
    yield part


def _load_head(document: Document) -> tuple[str, int, Document | None]:
    token = document["token"]
    return (
        require_type(document["version"], str),
        require_type(document["parts"], int),
        None if token is None else require_type(token, dict),
    )


def _load_part(document: Document) -> list[Document]:
    return require_type(document["segments"], list)
