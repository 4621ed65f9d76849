"""Proxies in front of jobmon: which of their headers are trusted, and the prefix of its paths.

All addresses that jobmon writes begin with the prefix: `JOBMON_PATH_PREFIX`, or if that is not set
the `X-Forwarded-Prefix` of a trusted proxy.
"""

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from jobmon.settings import Settings
from jobmon.settings.path_prefix import is_path_prefix
from jobmon.web.queues import root_path

_PREFIX_HEADER = "HTTP_X_FORWARDED_PREFIX"  # its name in the WSGI environment


class PathPrefix:
    """WSGI middleware that appends to SCRIPT_NAME the path below which a proxy serves jobmon.

    `prefix` is the setting; the proxy may remove it from the path or not. If it is None and
    `trusts_header` is true, the prefix is the last value of X-Forwarded-Prefix: the proxy must have
    removed it from the path.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], prefix: str | None, *, trusts_header: bool
    ) -> None:
        self._app = app
        self._prefix = prefix
        self._trusts_header = trusts_header

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if prefix := self._read_header(environ) if self._prefix is None else self._prefix:
            path = environ.get("PATH_INFO", "")
            if self._prefix and f"{path}/".startswith(f"{prefix}/"):
                environ["PATH_INFO"] = path.removeprefix(prefix) or "/"
            environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "").rstrip("/") + prefix
        return self._app(environ, start_response)

    def _read_header(self, environ: dict[str, Any]) -> str:
        """The last value of the header; empty if it is not trusted, or not a plain path."""
        value = environ.get(_PREFIX_HEADER, "").rpartition(",")[2].strip()
        return value.rstrip("/") if self._trusts_header and is_path_prefix(value) else ""


def register(app: Flask, settings: Settings) -> None:
    """Serve below the prefix, and trust `JOBMON_TRUSTED_PROXIES` proxies.

    Call it after the queues are registered: their middleware must run after this one.
    """
    proxies = settings.trusted_proxies
    app.wsgi_app = PathPrefix(  # type: ignore[method-assign]
        app.wsgi_app, settings.path_prefix, trusts_header=proxies > 0
    )
    if proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )


def external_address(path: str) -> str:
    """The full URL of one of jobmon's paths, as the caller reaches it.

        external_address("/dashboard")  # https://tools.example:8443/jobmon/dashboard

    The caller or a trusted proxy has sent the host: use the URL only where another program checks
    it, such as an identity provider.
    """
    return request.host_url.rstrip("/") + root_path() + path


def cookie_name(name: str) -> str:
    """The name of a cookie: over TLS with a prefix, so that browsers accept it only over TLS.

    Below a path it is `__Secure-`, because `__Host-` would send the cookie to the whole host.
    """
    if not request.is_secure:
        return name
    return f"__Secure-{name}" if root_path() else f"__Host-{name}"


def cookie_path() -> str:
    """The path of jobmon's cookies: programs at other paths of the host do not receive them."""
    return root_path() or "/"
