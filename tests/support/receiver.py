"""A real HTTP server that accepts webhooks, refuses them, or does not answer."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

SIGNING_SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"  # 24 bytes in base64


class ReceivedRequest(NamedTuple):
    """A request that the receiver got; the names of `headers` are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def notices(self) -> list[dict[str, Any]]:
        notices: list[dict[str, Any]] = json.loads(self.body)["data"]["notices"]
        return notices

    @property
    def changes(self) -> list[tuple[str, str]]:
        """The change and the kind of each notice."""
        return [(notice["change"], notice["kind"]) for notice in self.notices]


class WebhookReceiver:
    """Adds requests to `received`, and answers with `status` and `headers`.

    While `is_dripping`, an answer never ends: it is sent byte by byte.
    """

    def __init__(self) -> None:
        self.received: list[ReceivedRequest] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        self.is_dripping = False
        self.may_answer = threading.Event()  # while it is not set, requests wait for their answers
        self.may_answer.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(length)
                receiver.received.append(ReceivedRequest(self.path, headers, body))
                receiver.may_answer.wait()
                while receiver.is_dripping:
                    try:
                        self.wfile.write(b"H")
                    except OSError:  # jobmon has closed the connection
                        return
                    time.sleep(0.01)
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.may_answer.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()
