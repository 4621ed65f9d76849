"""Parts of pages, which a script requests to update an open page."""

from typing import NamedTuple, Self

from flask import Response, request

from jobmon.web.compression import SharedContent


class SharedPart(NamedTuple):
    """A part that several viewers share: its text for a page, and its content for a script."""

    body: str
    content: SharedContent

    @classmethod
    def from_body(cls, body: str) -> Self:
        """The part with this body."""
        return cls(body, SharedContent(body.encode()))


def is_part_request() -> bool:
    """Whether a script requests a part of a page."""
    return "HX-Request" in request.headers or "X-Jobmon-Part" in request.headers


def conditional_response(body: str, mimetype: str = "text/html") -> Response:
    """The body with an ETag; 304 without a body if the caller has the same one."""
    return SharedContent(body.encode()).respond(mimetype)
