"""Compresses answers: files and parts of pages once, all others each time."""

import gzip
import hashlib
import threading
from http import HTTPStatus

import brotli
from flask import Flask, Response, request
from flask_compress import Compress

_ENCODINGS = ("br", "gzip")  # the better one first
_BROTLI_QUALITY = 6
_MIN_BYTES = 500


def register(app: Flask) -> None:
    """Compress answers. Call it last."""
    app.config.update(
        COMPRESS_ALGORITHM=list(_ENCODINGS),
        COMPRESS_MIMETYPES=["text/html", "text/css", "text/javascript", "application/json"],
        COMPRESS_MIN_SIZE=_MIN_BYTES,
        COMPRESS_STREAMS=False,
    )
    Compress(app)


class SharedContent:
    """Content that many callers get: compressed once for each encoding.

    flask-compress compresses an answer for each caller, and even if that caller already has it.
    """

    def __init__(self, content: bytes) -> None:
        self._hash = hashlib.blake2b(content, digest_size=16).hexdigest()
        self._versions: dict[str | None, bytes] = {None: content}
        self._is_long = len(content) >= _MIN_BYTES
        self._lock = threading.Lock()

    def respond(self, mimetype: str) -> Response:
        """The content in the caller's encoding, with an ETag; 304 if the caller already has it."""
        encoding = None
        if self._is_long:
            accepted = request.accept_encodings
            encoding = next((name for name in _ENCODINGS if accepted[name] > 0), None)
        etag = self._hash if encoding is None else f"{self._hash}-{encoding}"
        # The weak comparison, because some proxies make tags weak.
        if request.if_none_match.contains_weak(etag):
            response = Response(status=HTTPStatus.NOT_MODIFIED, mimetype=mimetype)
        else:
            response = Response(self._encode(encoding), mimetype=mimetype)
            if encoding is not None:
                response.headers["Content-Encoding"] = encoding
        response.headers["Vary"] = "Accept-Encoding"
        response.set_etag(etag)
        return response

    def _encode(self, encoding: str | None) -> bytes:
        with self._lock:
            if encoding not in self._versions:
                self._versions[encoding] = _compress(self._versions[None], encoding)
            return self._versions[encoding]


def _compress(content: bytes, encoding: str | None) -> bytes:
    if encoding == "br":
        compressed: bytes = brotli.compress(content, quality=_BROTLI_QUALITY)
        return compressed
    return gzip.compress(content, mtime=0)
