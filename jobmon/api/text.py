"""Answers as text, written once for all who are told the same."""

import threading
from collections.abc import Callable
from typing import Any

from flask import Response, current_app
from marshmallow import Schema


class SharedText:
    """The JSON text of the newest `keep` subjects.

    A subject is the very object that an answer is about: what is told the same object gets the
    same bytes. It is held on to, so that no other object can pass for it.
    """

    def __init__(self, schema: Schema, keep: int) -> None:
        self._schema = schema
        self._keep = keep
        self._lock = threading.Lock()
        self._texts: dict[int, tuple[object, bytes]] = {}

    def of(self, subject: object, answer: Callable[[], dict[str, Any]]) -> Response:
        """The answer about `subject`, made by `answer` if it was not made before."""
        kept = self._texts.get(id(subject))
        if kept is None:
            text = current_app.json.dumps(self._schema.dump(answer())).encode()
            kept = (subject, text)
            with self._lock:
                self._texts[id(subject)] = kept
                if len(self._texts) > self._keep:
                    del self._texts[next(iter(self._texts))]
        return Response(kept[1], mimetype="application/json")
