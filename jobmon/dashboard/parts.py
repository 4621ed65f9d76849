"""Parts of pages, which a script requests to update an open page."""

import hashlib
from functools import lru_cache

from flask import Response, request

_ETAG_CACHE_SIZE = 64


def is_part_request() -> bool:
    """Whether a script requests a part of a page."""
    return "HX-Request" in request.headers or "X-Jobmon-Part" in request.headers


def conditional_response(body: str | bytes, mimetype: str = "text/html") -> Response:
    """The body with an ETag; 304 without a body if the caller has the same one."""
    response = Response(body, mimetype=mimetype)
    response.set_etag(_make_etag(body))
    response.make_conditional(request)
    return response


@lru_cache(_ETAG_CACHE_SIZE)
def _make_etag(body: str | bytes) -> str:
    """Cached, because viewers of the same part share its body, which rarely changes."""
    content = body.encode() if isinstance(body, str) else body
    return hashlib.blake2b(content, digest_size=16).hexdigest()
