"""Parts of pages, which a script requests to update an open page."""

import hashlib
from typing import NamedTuple, Self

from flask import Response, request


class TaggedPart(NamedTuple):
    """The body of a part, and its ETag: kept together if viewers share the part."""

    body: str
    etag: str

    @classmethod
    def from_body(cls, body: str) -> Self:
        """The part with this body."""
        return cls(body, hashlib.blake2b(body.encode(), digest_size=16).hexdigest())


def is_part_request() -> bool:
    """Whether a script requests a part of a page."""
    return "HX-Request" in request.headers or "X-Jobmon-Part" in request.headers


def conditional_response(body: str, mimetype: str = "text/html") -> Response:
    """The body with an ETag; 304 without a body if the caller has the same one."""
    return tagged_response(TaggedPart.from_body(body), mimetype)


def tagged_response(part: TaggedPart, mimetype: str = "text/html") -> Response:
    """As `conditional_response`, for a part whose ETag is known."""
    response = Response(part.body, mimetype=mimetype)
    response.set_etag(part.etag)
    response.make_conditional(request)
    return response
