"""Parts of pages, which a script requests to update an open page."""

import hashlib

from flask import Response, request


def is_part_request() -> bool:
    """Whether a script requests a part of a page."""
    return "HX-Request" in request.headers or "X-Jobmon-Part" in request.headers


def conditional_response(body: str | bytes, mimetype: str = "text/html") -> Response:
    """The body with an ETag; 304 without a body if the caller has the same one."""
    response = Response(body, mimetype=mimetype)
    response.set_etag(hashlib.blake2b(response.get_data(), digest_size=16).hexdigest())
    response.make_conditional(request)
    return response
