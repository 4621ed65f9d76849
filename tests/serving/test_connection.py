"""What a thread writes to a connection: catches a head that is sent alone, late or not at all."""

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
    """A connection that will hold the head of its answer, and its client, which never waits."""
    server, client = socket.socketpair()
    with server, client:
        server.setblocking(False)
        client.setblocking(False)
        connection = Connection(Config(), server, None, None, lambda _: None)
        connection.hold_head()
        yield connection, client


def read(client: socket.socket) -> bytes:
    try:
        return client.recv(10 * limits.MAX_JOINED_BYTES)
    except BlockingIOError:
        return b""


def test_a_head_is_sent_with_the_first_part_of_the_body(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, client = pair
    connection.sendall(HEAD)
    assert read(client) == b""
    connection.sendall(BODY)
    assert read(client) == HEAD + BODY
    connection.sendall(BODY)
    connection.send_head()
    assert read(client) == BODY


def test_a_head_without_a_body_is_sent_at_the_end(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    connection.sendall(HEAD)
    connection.send_head()
    assert read(client) == HEAD


def test_nothing_is_held_for_an_answer_that_begins_after_the_request(
    pair: tuple[Connection, socket.socket],
) -> None:
    connection, client = pair
    connection.send_head()
    connection.sendall(HEAD)
    assert read(client) == HEAD


def test_a_long_body_is_not_copied_to_be_joined(pair: tuple[Connection, socket.socket]) -> None:
    connection, client = pair
    body = bytes(limits.MAX_JOINED_BYTES + 1)
    connection.sendall(HEAD)
    connection.sendall(body)
    received = b""
    while part := read(client):
        received += part
        connection.flush()
    assert received == HEAD + body
