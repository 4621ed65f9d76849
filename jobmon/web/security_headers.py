"""Headers that protect every answer."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from flask import Flask, Response

from jobmon.web.queues import root_path

# For answers without their own policy: browsers run nothing in them, and show them in no frame.
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_DEFAULT_HEADERS = (
    # An answer about jobs is for one caller at one moment.
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
)
_FIXED_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_TLS_HEADER = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")

Headers = list[tuple[str, str]]


class ProtectedAnswers:
    """WSGI middleware that adds the headers; Flask would check each header of each answer."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        def start(status: str, headers: Headers, *exc_info: Any) -> Any:
            set_names = {name.lower() for name, _ in headers}
            headers += [header for header in _DEFAULT_HEADERS if header[0].lower() not in set_names]
            headers += _FIXED_HEADERS  # no view sets these headers
            # Not over plain HTTP (RFC 6797). Below a path, the host also serves other programs.
            if environ["wsgi.url_scheme"] == "https" and not root_path():
                headers.append(_TLS_HEADER)
            return start_response(status, headers, *exc_info)

        return self._app(environ, start)


def register(app: Flask) -> None:
    """Protect every answer of the app. Call it before any route is added."""
    app.url_map.merge_slashes = False  # else `//jobs` redirects to the Host that the caller sent
    app.wsgi_app = ProtectedAnswers(app.wsgi_app)  # type: ignore[method-assign]
    app.after_request(_redirect_to_same_host)


def _redirect_to_same_host(response: Response) -> Response:
    """Remove the Host that the caller sent from the redirect that Flask makes for an empty path."""
    if response.status_code == HTTPStatus.PERMANENT_REDIRECT:
        response.location, response.data = f"{root_path()}/", b""
    return response
