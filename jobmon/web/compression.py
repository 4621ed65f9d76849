"""Compresses responses.

Content that many callers get is compressed once for each encoding, in each process; every other
response is compressed for its own request.
"""

import gzip
import hashlib
import threading
from functools import lru_cache
from http import HTTPStatus

import brotli
from flask import Flask, Response
from flask_compress import Compress
from werkzeug.http import parse_accept_header

from jobmon.web.context import current_request

_ENCODINGS = ("br", "gzip")  # the better encoding first
_BROTLI_QUALITY = 6
_MIN_BYTES = 500  # shorter responses are not compressed
_MAX_CACHED_HEADERS = 100


def register(app: Flask) -> None:
    """Compress responses.

    Call it last: Flask runs the `after_request` function first that was registered last.
    """
    app.config.update(
        COMPRESS_ALGORITHM=list(_ENCODINGS),
        COMPRESS_MIMETYPES=["text/html", "text/css", "text/javascript", "application/json"],
        COMPRESS_MIN_SIZE=_MIN_BYTES,
        COMPRESS_STREAMS=False,
    )
    Compress(app)
    app.after_request(_require_accepted_encoding)  # runs before the compression


class SharedContent:
    """Content that many callers get: compressed once for each encoding.

    flask-compress compresses a response for each caller, even if the caller already has it. A
    middleware for files (WhiteNoise) would bypass Flask: its responses would have no rate limit, no
    security headers and no log line.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._hash = hashlib.blake2b(content, digest_size=16).hexdigest()
        self._compressed: dict[str, bytes] = {}  # by encoding
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        """The content as a string."""
        return self._content.decode()

    def respond(self, mimetype: str) -> Response:
        """The content in an encoding that the caller accepts; 304 if the caller already has it."""
        request, encoding = current_request(), None
        if len(self._content) >= _MIN_BYTES:
            encoding = _choose_encoding(request.headers.get("Accept-Encoding", ""))
        etag = self._hash if encoding is None else f"{self._hash}-{encoding}"
        # Some proxies make an ETag weak, so the comparison ignores whether it is weak.
        if request.if_none_match.contains_weak(etag):
            response = Response(status=HTTPStatus.NOT_MODIFIED, mimetype=mimetype)
        elif encoding is None:
            response = Response(self._content, mimetype=mimetype)
        else:
            response = Response(self._encode(encoding), mimetype=mimetype)
            response.headers["Content-Encoding"] = encoding
        response.headers["Vary"] = "Accept-Encoding"
        response.set_etag(etag)
        return response

    def _encode(self, encoding: str) -> bytes:
        with self._lock:
            if encoding not in self._compressed:
                self._compressed[encoding] = _compress(self._content, encoding)
            return self._compressed[encoding]


def _require_accepted_encoding(response: Response) -> Response:
    """Have flask-compress use the chosen encoding: it uses `gzip` even for `gzip;q=0`."""
    environ = current_request().environ
    chosen = _choose_encoding(environ.get("HTTP_ACCEPT_ENCODING", ""))
    environ["HTTP_ACCEPT_ENCODING"] = chosen or "identity"
    return response


@lru_cache(_MAX_CACHED_HEADERS)
def _choose_encoding(header: str) -> str | None:
    """The best encoding that an `Accept-Encoding` header allows.

    It is cached, because clients send few different headers.
    """
    accepted = parse_accept_header(header)
    return next((name for name in _ENCODINGS if accepted[name] > 0), None)


def _compress(content: bytes, encoding: str) -> bytes:
    if encoding == "br":
        compressed: bytes = brotli.compress(content, quality=_BROTLI_QUALITY)
        return compressed
    return gzip.compress(content, mtime=0)
