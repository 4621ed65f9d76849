"""`Connection` sends the head of an answer together with its body.

Catches a head that is sent alone although a body follows, late, or not at all.
"""

import socket
from collections.abc import Iterator

import pytest
from gunicorn.config import Config

from jobmon.serving import limits
from jobmon.serving.connection import Connection

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
BODY = b'{"status":"ok"}'


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection that holds back the next head, and the socket of its client (non-blocking)."""
    server, client = socket.socketpair()
    with server, client:
        server.setblocking(False)
        client.setblocking(False)
        connection = Connection(Config(), server, None, None, lambda _: None)
        connection.hold_head()
        yield connection, client


def read_available(client: socket.socket) -> bytes:
    """The bytes that have arrived, or b""."""
    try:
        return client.recv(10 * limits.MAX_JOINED_BYTES)
    except BlockingIOError:
        return b""


def test_a_head_is_sent_with_the_first_part_of_the_body(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, client = pair
    connection.sendall(HEAD)
    assert read_available(client) == b""
    connection.sendall(BODY)
    assert read_available(client) == HEAD + BODY
    connection.sendall(BODY)
    connection.send_head()
    assert read_available(client) == BODY


def test_a_head_without_a_body_is_sent_at_the_end(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    connection.sendall(HEAD)
    connection.send_head()
    assert read_available(client) == HEAD


def test_head_that_is_written_after_send_head_is_sent_at_once(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, client = pair
    connection.send_head()
    connection.sendall(HEAD)
    assert read_available(client) == HEAD


def test_head_is_sent_before_a_body_that_is_too_long_to_join(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, client = pair
    body = bytes(limits.MAX_JOINED_BYTES + 1)
    connection.sendall(HEAD)
    connection.sendall(body)
    received = b""
    while part := read_available(client):
        received += part
        connection.flush()
    assert received == HEAD + body
