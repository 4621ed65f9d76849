"""Recognizes requests of scripts for a part of a page, and answers 304 for an unchanged part."""

from typing import Any

from flask import Response, render_template, request

from jobmon.web.compression import SharedContent


def is_part_request() -> bool:
    """Whether a script requests a part of a page."""
    return "HX-Request" in request.headers or "X-Jobmon-Part" in request.headers


def conditional_response(body: str, mimetype: str = "text/html") -> Response:
    """The body with an ETag; 304 without a body if the caller already has this body."""
    return SharedContent(body.encode()).respond(mimetype)


def render_page(name: str, **context: Any) -> Response | str:
    """The page `name`; for a script only the part of it that updates itself."""
    if is_part_request():
        return conditional_response(render_template(f"dashboard/_{name}.html", **context))
    return render_template(f"dashboard/{name}.html", **context)
