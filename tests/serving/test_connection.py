"""`Connection` sends the head of an answer together with its body.

Catches a head that is sent without its body, a head that is sent late, and a head that is not sent.
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
def connection_and_client() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection that holds back the next head, and the non-blocking socket of its client."""
    server, client = socket.socketpair()
    with server, client:
        server.setblocking(False)
        client.setblocking(False)
        connection = Connection(Config(), server, None, None, lambda _: None)
        connection.hold_head()
        yield connection, client


def read_available(client: socket.socket) -> bytes:
    """The bytes that have arrived; empty if none have arrived."""
    try:
        return client.recv(10 * limits.MAX_JOINED_BYTES)
    except BlockingIOError:
        return b""


def test_a_head_is_sent_with_the_first_part_of_the_body(
    connection_and_client: tuple[Connection, socket.socket],
) -> None:
    connection, client = connection_and_client
    connection.sendall(HEAD)
    assert read_available(client) == b""
    connection.sendall(BODY)
    assert read_available(client) == HEAD + BODY
    connection.sendall(BODY)
    connection.send_head()
    assert read_available(client) == BODY


def test_a_head_without_a_body_is_sent_by_send_head(
    connection_and_client: tuple[Connection, socket.socket],
) -> None:
    connection, client = connection_and_client
    connection.sendall(HEAD)
    connection.send_head()
    assert read_available(client) == HEAD


def test_a_head_that_is_written_after_send_head_is_sent_at_once(
    connection_and_client: tuple[Connection, socket.socket],
) -> None:
    connection, client = connection_and_client
    connection.send_head()
    connection.sendall(HEAD)
    assert read_available(client) == HEAD


def test_a_body_that_is_too_long_to_join_arrives_complete_after_its_head(
    connection_and_client: tuple[Connection, socket.socket],
) -> None:
    connection, client = connection_and_client
    body = bytes(limits.MAX_JOINED_BYTES + 1)
    connection.sendall(HEAD)
    connection.sendall(body)
    received = b""
    while part := read_available(client):
        received += part
        connection.flush()
    assert received == HEAD + body
