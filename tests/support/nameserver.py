"""A DNS server for one test; the test sets its answer, or makes it silent."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

SRV_NAME = "queue.cluster.test"  # the name in a mongodb+srv connection string
MEMBER_HOST = "member.cluster.test"  # `name_server` resolves it to this machine


class NameServer:
    """A DNS server on a UDP port of 127.0.0.1.

    `answer` is "silence" (no answer), "no such name", or the data of the SRV record of every name.
    `options` is the text of every name's TXT record; empty for none. `query_count` counts queries.
    """

    def __init__(self) -> None:
        self.answer = "silence"
        self.options = ""
        self.query_count = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.1)
        self._closed = threading.Event()
        self.port: int = self.socket.getsockname()[1]

    def serve(self) -> None:
        """Answer until `close` is called."""
        while not self._closed.is_set():
            try:
                query, sender = self.socket.recvfrom(4_096)
            except TimeoutError:
                continue
            self.query_count += 1
            if self.answer != "silence":
                self.socket.sendto(self._make_response(query), sender)

    def close(self) -> None:
        """Make `serve` return."""
        self._closed.set()

    def _make_response(self, query_bytes: bytes) -> bytes:
        query = dns.message.from_wire(query_bytes)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        (question,) = query.question
        if self.answer == "no such name":
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.SRV:
            response.answer.append(dns.rrset.from_text(question.name, 1, "IN", "SRV", self.answer))
        elif question.rdtype == dns.rdatatype.TXT and self.options:
            text = f'"{self.options}"'
            response.answer.append(dns.rrset.from_text(question.name, 1, "IN", "TXT", text))
        return response.to_wire()


@contextmanager
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """Make this process use a `NameServer`, and resolve `MEMBER_HOST` to this machine."""
    server = NameServer()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.port
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    resolve = socket.getaddrinfo

    def resolve_member(host: str, *arguments: object, **options: object) -> object:
        return resolve("127.0.0.1" if host == MEMBER_HOST else host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_member)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()
        server.socket.close()
