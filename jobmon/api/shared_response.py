"""JSON responses that are serialized once and shared by all callers who get the same answer."""

from collections.abc import Callable, Hashable
from typing import Any

from flask import Response
from marshmallow import Schema

from jobmon.single_flight import SingleFlightCache
from jobmon.web.json_text import encode_line


class SharedResponse:
    """Caches the JSON text for the latest `size` pairs of a subject and a version.

    A subject is the object that an answer describes; the version is everything else that the answer
    depends on. The same subject with an equal version gets the same bytes.
    """

    def __init__(self, schema: Schema, size: int) -> None:
        self._schema = schema
        # With the subject, so that no other object can get its id while the text is cached.
        self._texts: SingleFlightCache[tuple[bytes, object]] = SingleFlightCache(size)

    def respond(
        self,
        subject: object,
        make_answer: Callable[[], dict[str, Any]],
        version: Hashable = None,
    ) -> Response:
        """The response about `subject`; `make_answer` is called only if it is not cached."""

        def serialize() -> tuple[bytes, object]:
            return encode_line(self._schema.dump(make_answer())), subject

        text, _ = self._texts.get((id(subject), version), serialize)
        return Response(text, mimetype="application/json")
