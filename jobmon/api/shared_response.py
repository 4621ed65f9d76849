"""Answers as text, written once for all who are told the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Response, current_app
from marshmallow import Schema

from jobmon.single_flight import SingleFlightCache


@dataclass(frozen=True, eq=False)
class _IdentityKey:
    """An object as a question: it is held on to, so that no other one can pass for it."""

    subject: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _IdentityKey) and self.subject is other.subject

    def __hash__(self) -> int:
        return id(self.subject)


class SharedResponse:
    """The JSON text of the newest `keep` subjects.

    A subject is the very object that an answer is about: what is told the same object gets the
    same bytes.
    """

    def __init__(self, schema: Schema, keep: int) -> None:
        self._schema = schema
        self._texts: SingleFlightCache[bytes] = SingleFlightCache(keep)

    def of(self, subject: object, answer: Callable[[], dict[str, Any]]) -> Response:
        """The answer about `subject`, made by `answer` if it was not made before."""

        def write() -> bytes:
            return current_app.json.dumps(self._schema.dump(answer())).encode()

        return Response(self._texts.get(_IdentityKey(subject), write), mimetype="application/json")
