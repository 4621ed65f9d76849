"""Headers that protect every answer."""

from http import HTTPStatus

from flask import Flask, Response, request

from jobmon.web.queues import root_path

# For all answers except pages: a browser runs nothing in them, and shows them in no frame.
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_ALWAYS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_TLS_FOR_A_YEAR = "max-age=31536000; includeSubDomains"


def register(app: Flask) -> None:
    """Protect every answer of the app. Call it before any route is added."""
    app.url_map.merge_slashes = False  # else `//jobs` redirects to the Host that the caller sent
    app.after_request(_protect)


def _protect(response: Response) -> Response:
    # An answer about jobs is for one caller at one moment.
    headers = response.headers
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", _POLICY)
    headers.extend(_ALWAYS)  # no view sets them, so nothing has to be replaced
    # Flask's routing redirects an empty path.
    if response.status_code == HTTPStatus.PERMANENT_REDIRECT:
        response.location, response.data = f"{root_path()}/", b""
    # Not over plain HTTP (RFC 6797), and not for a host that has other programs.
    if request.is_secure and not root_path():
        headers["Strict-Transport-Security"] = _TLS_FOR_A_YEAR
    return response
