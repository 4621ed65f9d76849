"""JSON responses that are serialized once and shared by all callers who get the same answer."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from flask import Response
from marshmallow import Schema

from jobmon.single_flight import SingleFlightCache
from jobmon.web.json_text import encode_line


@dataclass(frozen=True, eq=False)
class _IdentityKey:
    """A cache key that is equal only to keys of the same object.

    It keeps the object alive, so that no later object can have the same id.
    """

    subject: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _IdentityKey) and self.subject is other.subject

    def __hash__(self) -> int:
        return id(self.subject)


class SharedResponse:
    """Caches the JSON text for the latest `size` pairs of a subject and a version.

    A subject is the object that an answer describes; the version is everything else that the answer
    depends on. The same subject with an equal version gets the same bytes.
    """

    def __init__(self, schema: Schema, size: int) -> None:
        self._schema = schema
        self._texts: SingleFlightCache[bytes] = SingleFlightCache(size)

    def respond(
        self,
        subject: object,
        make_answer: Callable[[], dict[str, Any]],
        version: Hashable = None,
    ) -> Response:
        """The response about `subject`; `make_answer` is called only if it is not cached."""

        def serialize() -> bytes:
            return encode_line(self._schema.dump(make_answer()))

        text = self._texts.get((_IdentityKey(subject), version), serialize)
        return Response(text, mimetype="application/json")
