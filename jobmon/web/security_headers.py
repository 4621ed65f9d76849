"""What every answer tells browsers and caches, and what is believed of what proxies say."""

from http import HTTPStatus

from flask import Flask, Response, request
from werkzeug.middleware.proxy_fix import ProxyFix

from jobmon.settings import Settings

# For what is no page: a browser that opens it runs nothing, and shows it nowhere else.
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TLS_FOR_A_YEAR = "max-age=31536000; includeSubDomains"


def register(app: Flask, settings: Settings) -> None:
    """Protect every answer of the app, and believe as many proxies as there are.

    To be called before any route is added.
    """
    app.url_map.merge_slashes = False  # or `//jobs` is led to whatever Host its caller named
    app.after_request(_protect)
    if proxies := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )


def _protect(response: Response) -> Response:
    """Data about jobs is for one caller and this moment only."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("Content-Security-Policy", _POLICY)
    response.headers.update(_ALWAYS)
    if response.status_code == HTTPStatus.PERMANENT_REDIRECT:  # the routing's, of no path at all
        response.location, response.data = "/", b""
    if request.is_secure:  # a browser must not take it from plain HTTP (RFC 6797)
        response.headers["Strict-Transport-Security"] = _TLS_FOR_A_YEAR
    return response
