"""The buffer in which a worker receives a request.

Catches an end of a head or body that is missed or found too early, a wait for the end of a request
that gunicorn refuses, and lost bytes of the next request.
"""

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine

from jobmon.serving.limits import MAX_HEAD_BYTES
from jobmon.serving.request_buffer import RequestBuffer
from jobmon.web.admission import MAX_BODY_BYTES

HEAD = b"POST /a HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
NEXT = b"GET /next HTTP/1.1\r\n\r\n"
PROXY_V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
PROXY_V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x02"


def make_buffer(proxy_protocol: str = "off") -> RequestBuffer:
    config = Config()
    config.set("proxy_protocol", proxy_protocol)
    return RequestBuffer(config, ("127.0.0.1", 1))


@pytest.mark.parametrize("step", [1, 3, 1_000])
@pytest.mark.parametrize(
    ("framing", "encoded_body", "body"),
    [
        (b"", b"", b""),
        (b"Content-Length: 0\r\n", b"", b""),
        (b"Content-Length: 8\r\n", b"\r\n\r\n0\r\n\r", b"\r\n\r\n0\r\n\r"),
        (
            b"Transfer-Encoding: chunked\r\n",
            b"3\r\n0\r\n\r\n2;a\r\n\r\n\r\n0\r\n\r\n",
            b"0\r\n\r\n",
        ),
        (b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n000\r\nA: b\r\nC: d\r\n\r\n", b"x"),
    ],
    ids=["none", "empty", "sized", "chunked", "trailer"],
)
def test_receive_finds_the_end_of_a_request_in_pieces_of_any_size(
    framing: bytes, encoded_body: bytes, body: bytes, step: int
) -> None:
    buffer, data = make_buffer(), HEAD + framing + b"\r\n" + encoded_body
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert [buffer.receive(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    request = next(buffer)
    assert request.path == "/a"
    assert request.body is not None
    assert request.body.read() == body
    assert buffer.take_next() is False
    assert not buffer.has_begun


def test_bytes_after_a_request_belong_to_the_next_one() -> None:
    buffer = make_buffer()
    assert buffer.receive(NEXT + NEXT + NEXT[:9])
    assert next(buffer).path == "/next"
    assert buffer.take_next()
    assert next(buffer).path == "/next"
    assert not buffer.take_next()
    assert buffer.has_begun
    assert buffer.receive(NEXT[9:])


@pytest.mark.parametrize(
    ("data", "error_type"),
    [
        (b"GET /" + b"x" * MAX_HEAD_BYTES, LimitRequestLine),
        (HEAD + b"A: b\r\n" * (MAX_HEAD_BYTES // 6), LimitRequestHeaders),
        (b"GET / HTTP/1.1\nHost", Exception),
        (HEAD + b"A: b\nC", Exception),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Exception),
        (HEAD + b"Content-Length: -1\r\n\r\n", Exception),
    ],
    ids=["long line", "long head", "no CR", "no CR in a header", "two lengths", "negative length"],
)
def test_receive_does_not_wait_for_the_end_of_a_refused_request(
    data: bytes, error_type: type[Exception]
) -> None:
    buffer = make_buffer()
    assert buffer.receive(data)
    with pytest.raises(error_type):
        next(buffer)


@pytest.mark.parametrize(
    ("data", "is_too_large"),
    [
        (b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), True),
        (CHUNKED + b"\r\n%x\r\n" % (MAX_BODY_BYTES + 1), True),
        (CHUNKED + b"\r\n" + b"1\r\nx\r\n" * 40_000, True),
        (CHUNKED + b"\r\n-5\r\n", False),
        (CHUNKED + b"\r\n" + b"0" * 200_000, True),
    ],
    ids=["sized", "chunked", "tiny chunks", "negative", "endless size"],
)
def test_receive_does_not_wait_for_the_end_of_a_body_that_is_too_large_or_malformed(
    data: bytes, is_too_large: bool
) -> None:
    buffer = make_buffer()
    assert buffer.receive(HEAD + data)
    request = next(buffer)
    assert buffer.is_too_large is is_too_large
    assert request.should_close() is is_too_large


@pytest.mark.parametrize("step", [1, 5, 1_000])
def test_a_request_after_a_proxy_header_is_found(step: int) -> None:
    for header in (PROXY_V2, PROXY_V1, b""):
        buffer, data = make_buffer("auto"), header + NEXT
        pieces = [data[start : start + step] for start in range(0, len(data), step)]
        assert [buffer.receive(piece) for piece in pieces][-1]
        assert next(buffer).path == "/next"
