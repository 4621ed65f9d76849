"""Recognizes requests of scripts for a part of a page, and answers 304 for an unchanged part."""

from flask import Response, request

from jobmon.web.compression import SharedContent


def is_part_request() -> bool:
    """Whether a script requests a part of a page."""
    return "HX-Request" in request.headers or "X-Jobmon-Part" in request.headers


def conditional_response(body: str, mimetype: str = "text/html") -> Response:
    """The body with an ETag; 304 without a body if the caller already has this body."""
    return SharedContent(body.encode()).respond(mimetype)
