"""Compresses answers: pages and data each time, files once."""

import gzip
import hashlib
from functools import lru_cache

import brotli
from flask import Flask, Response, request
from flask_compress import Compress

_ENCODINGS = ("br", "gzip")  # the better one first
_MAX_CACHED = 128  # some dozen files, each in two encodings and uncompressed
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


def fixed_response(content: bytes, mimetype: str) -> Response:
    """An answer with content that never changes: compressed once, 304 if the caller has it.

    A middleware for files (WhiteNoise) would answer outside of Flask: without the limits, headers
    and log line of a request.
    """
    encoding = None
    if len(content) >= _MIN_BYTES:
        accepted = request.accept_encodings
        encoding = next((name for name in _ENCODINGS if accepted[name] > 0), None)
    body, etag = _encode(content, encoding)
    response = Response(body, mimetype=mimetype)
    response.headers["Vary"] = "Accept-Encoding"
    if encoding is not None:
        response.headers["Content-Encoding"] = encoding
    response.set_etag(etag)
    response.make_conditional(request)
    return response


@lru_cache(_MAX_CACHED)
def _encode(content: bytes, encoding: str | None) -> tuple[bytes, str]:
    """The content in an encoding, and its ETag."""
    etag = hashlib.blake2b(content, digest_size=16).hexdigest()
    match encoding:
        case "br":
            return brotli.compress(content, quality=_BROTLI_QUALITY), f"{etag}-br"
        case "gzip":
            return gzip.compress(content, mtime=0), f"{etag}-gzip"
    return content, etag
