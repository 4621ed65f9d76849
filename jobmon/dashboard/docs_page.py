"""`/docs`: the JSON routes, to read about and to try with a token."""

from flask import Response, render_template

from jobmon.dashboard.assets import CONTENT_SECURITY_POLICY

# The style sheet of the viewer contains its icons.
_POLICY = CONTENT_SECURITY_POLICY.replace("img-src 'self'", "img-src 'self' data:")


def docs() -> Response:
    """The viewer of `/openapi.json`, open to anyone as that document is."""
    response = Response(render_template("docs.html"), mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response
