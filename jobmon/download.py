"""Downloads a small document of another service within a deadline.

A service that sends byte by byte, or without end, does not hold a thread beyond the deadline.
"""

import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from io import BufferedReader, RawIOBase
from socket import socket
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

MAX_BYTES = 512 * 1_024


class StatusError(OSError):
    """An answer with a status outside 200 to 299; its `body` may have the reason."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the status of the answer is {status}")
        self.status = status
        self.body = body


# The exceptions that a download and the parsing of its JSON may raise.
FAILURES = (OSError, HTTPException, ValueError, RecursionError)


def download(
    url: str,
    deadline: float,
    *,
    form: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The body at `url`, through the proxies of the environment; raises one of `FAILURES`.

    `deadline`: a value of `time.monotonic()` for the whole answer with its redirects; only the last
    connection may take longer. A `form` is sent by POST. With a form or credentials in `headers` no
    redirect is followed, because it would carry them elsewhere.
    """
    opener = urllib.request.build_opener(DeadlineHandler(deadline), _SafeRedirects())
    request = urllib.request.Request(  # noqa: S310 - the schemes of settings are checked
        url, form, {"Accept": "application/json", **(headers or {})}
    )
    try:
        with opener.open(request, timeout=max(0.001, deadline - time.monotonic())) as answer:
            body: bytes = answer.read(MAX_BYTES + 1)
    except HTTPError as error:
        with error:
            raise StatusError(error.code, error.read(MAX_BYTES)) from None
    if len(body) > MAX_BYTES:
        raise ValueError(f"the answer is longer than {MAX_BYTES} bytes")
    return body


class _DeadlineReader(RawIOBase):
    """Reads a socket until a deadline; a socket's own timeout restarts at each byte."""

    def __init__(self, connection: socket, deadline: float) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("the answer took too long")
        self._connection.settimeout(remaining_s)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class DeadlineHandler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens http and https URLs whose answers are read until a deadline."""

    def __init__(self, deadline: float) -> None:
        urllib.request.HTTPSHandler.__init__(self)

        class Response(HTTPResponse):
            def __init__(self, sock: socket, *arguments: Any, **options: Any) -> None:
                super().__init__(sock, *arguments, **options)
                self.fp.close()
                self.fp = BufferedReader(_DeadlineReader(sock, deadline))

        self._response_class = Response

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._make_connector(HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._make_connector(HTTPSConnection), req)

    def _make_connector(self, connection_type: type[HTTPConnection]) -> Any:
        def connect(*arguments: Any, **options: Any) -> HTTPConnection:
            connection = connection_type(*arguments, **options)
            connection.response_class = self._response_class
            return connection

        return connect


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects of a GET to https, and to http only from http."""

    def redirect_request(  # noqa: PLR0917 - the library's signature
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.data is not None or req.has_header("Authorization"):
            return None
        if urlsplit(newurl).scheme not in {"https", req.type}:
            raise URLError("the address redirects away from https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
