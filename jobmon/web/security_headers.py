"""Headers that protect every answer."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from flask import Flask, Response

from jobmon.web.queues import root_path

# For answers without a policy of their own: browsers run nothing in them, nor show them in frames.
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_UNLESS_SET = (
    # An answer about jobs is for one caller at one moment.
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
)
_ALWAYS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_TLS_FOR_A_YEAR = ("Strict-Transport-Security", "max-age=31536000; includeSubDomains")

Headers = list[tuple[str, str]]


class ProtectedAnswers:
    """WSGI middleware that adds the headers: Flask would check each of them for each answer."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        def start(status: str, headers: Headers, *exc_info: Any) -> Any:
            set_names = {name.lower() for name, _ in headers}
            headers += [header for header in _UNLESS_SET if header[0].lower() not in set_names]
            headers += _ALWAYS  # no view sets them
            # Not over plain HTTP (RFC 6797), and not for a host that has other programs.
            if environ["wsgi.url_scheme"] == "https" and not root_path():
                headers.append(_TLS_FOR_A_YEAR)
            return start_response(status, headers, *exc_info)

        return self._app(environ, start)


def register(app: Flask) -> None:
    """Protect every answer of the app. Call it before any route is added."""
    app.url_map.merge_slashes = False  # else `//jobs` redirects to the Host that the caller sent
    app.wsgi_app = ProtectedAnswers(app.wsgi_app)  # type: ignore[method-assign]
    app.after_request(_redirect_to_same_host)


def _redirect_to_same_host(response: Response) -> Response:
    """Remove the Host that the caller sent from Flask's own redirect, that of an empty path."""
    if response.status_code == HTTPStatus.PERMANENT_REDIRECT:
        response.location, response.data = f"{root_path()}/", b""
    return response
