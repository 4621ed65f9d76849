"""Receives a request into memory, for gunicorn's parser to read without waiting."""

import io
import re
import struct
from typing import Any

from gunicorn.config import Config
from gunicorn.http import RequestParser
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.http.message import PP_V2_SIGNATURE, Request
from gunicorn.http.unreader import Unreader

from jobmon.serving.limits import MAX_HEAD_BYTES
from jobmon.web.admission import MAX_BODY_BYTES

_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_HEAD_END = b"\r\n\r\n"
_PROXY_HEADER_BYTES = 16


class _ReceivedBytes(Unreader):
    """Gives gunicorn's parser only the bytes that were received: it never waits for more."""

    is_head_too_large = False

    def chunk(self, size_hint: int | None = None) -> bytes:  # noqa: ARG002 - gunicorn's interface
        if self.is_head_too_large:
            raise LimitRequestHeaders("limit request headers")
        return b""  # for the parser, this is the end

    def __len__(self) -> int:
        return self.buf.seek(0, io.SEEK_END)

    def add(self, data: bytes) -> None:
        self.buf.seek(0, io.SEEK_END)
        self.buf.write(data)


class _ChunkScanner:
    """Finds the end of a chunked body (RFC 9112, 7.1); gunicorn's parser validates it."""

    def __init__(self) -> None:
        self.is_too_large = False
        self._chunk_bytes = 0
        self._bytes_to_skip = 0
        self._line = b""
        self._is_in_trailer = False
        self._line_bytes = 0  # of the lines with sizes, and of the trailer

    def scan(self, data: bytes) -> bool:
        """Whether the body ends in `data`, or it is useless to wait for more of the body."""
        position = 0
        while position < len(data):
            if self._bytes_to_skip:
                skipped = min(self._bytes_to_skip, len(data) - position)
                self._bytes_to_skip -= skipped
                position += skipped
                continue
            end = data.find(b"\n", position) + 1 or len(data)
            self._line_bytes += end - position
            if self._line_bytes > MAX_BODY_BYTES + MAX_HEAD_BYTES:
                self.is_too_large = True
                return True
            self._line += data[position:end]
            position = end
            if self._line.endswith(b"\n"):
                line, self._line = self._line.strip(), b""
                if self._scan_line(line):
                    return True
        return False

    def _scan_line(self, line: bytes) -> bool:
        if self._is_in_trailer:
            return not line
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            return True
        self._chunk_bytes += size
        self._bytes_to_skip = size + 2 if size else 0
        self._is_in_trailer = size == 0
        self.is_too_large = self._chunk_bytes > MAX_BODY_BYTES
        return size < 0 or self.is_too_large


class RequestBuffer(RequestParser):
    """gunicorn's parser over a buffer: it never waits for a client.

    >>> buffer = RequestBuffer(cfg, client)
    >>> while not buffer.receive(connection.recv(65_536)):
    ...     pass
    >>> request = next(buffer)  # or raises gunicorn's error for a malformed request
    """

    def __init__(self, cfg: Config, client: Any) -> None:
        super().__init__(cfg, iter(()), client)
        self.unreader: _ReceivedBytes = _ReceivedBytes()
        self._has_proxy_header = cfg.proxy_protocol != "off"
        self._reset()

    def _reset(self) -> None:
        self._head = bytearray()
        self._searched_bytes = 0
        self._request: Request | None = None
        self._failure: Exception | None = None
        self._body_bytes = 0
        self.is_too_large = False
        self._chunk_scanner: _ChunkScanner | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a part of a request was received."""
        return bool(self._head) or self._request is not None

    def receive(self, data: bytes) -> bool:
        """Add bytes; returns whether the request is complete, or it is useless to wait for more."""
        if self._request is None:
            self._head += data
            if not self._head_ends():
                return False
            self._parse_head()
            if self._failure is not None:
                return True
            data = self.unreader.buf.getvalue()
        else:
            self.unreader.add(data)
        return self._body_ends(data)

    def take_next(self) -> bool:
        """Continue with the bytes after the previous request; returns whether they complete one."""
        self._reset()
        received = self.unreader.take_buffered()
        return bool(received) and self.receive(received)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return bool(getattr(self._request, "_expected_100_continue", False))

    def __next__(self) -> Request:
        if self._failure is not None:
            raise self._failure
        assert self._request is not None  # noqa: S101 - `receive` was true
        return self._request

    def _head_ends(self) -> bool:
        start = self._proxy_header_end()
        if start is None:
            return False
        search_from = max(start, self._searched_bytes - len(_HEAD_END) + 1)
        if self._head.find(_HEAD_END, search_from) >= 0:
            return True
        self._searched_bytes = len(self._head)
        # gunicorn's parser reports both of these faults before the head ends.
        if len(self._head) > start + MAX_HEAD_BYTES:
            self.unreader.is_head_too_large = True
            return True
        return _BARE_LINE_FEED.search(self._head, search_from) is not None

    def _proxy_header_end(self) -> int | None:
        """The end of a binary PROXY header, or 0 without one; None if the header is incomplete."""
        if not self._has_proxy_header or self.req_count:
            return 0
        if not self._head.startswith(PP_V2_SIGNATURE):
            return None if PP_V2_SIGNATURE.startswith(self._head) else 0
        if len(self._head) < _PROXY_HEADER_BYTES:
            return None
        (length,) = struct.unpack_from(">H", self._head, 14)
        end = _PROXY_HEADER_BYTES + int(length)
        return end if len(self._head) >= end else None

    def _parse_head(self) -> None:
        self.unreader.unread(bytes(self._head))
        self._head.clear()
        try:
            self._request = super().__next__()
        except Exception as error:  # noqa: BLE001 - raised again by `next`, in the thread
            self._failure = error
            return
        assert self._request.body is not None  # noqa: S101 - there always is one
        reader = self._request.body.reader
        if isinstance(reader, LengthReader):
            self._body_bytes = reader.length
        elif isinstance(reader, ChunkedReader):
            self._chunk_scanner = _ChunkScanner()

    def _body_ends(self, data: bytes) -> bool:
        """Whether the body ends in `data`, the last bytes received, or is too large."""
        assert self._request is not None  # noqa: S101
        if self._chunk_scanner is not None:
            ends = self._chunk_scanner.scan(data)
            self.is_too_large = self._chunk_scanner.is_too_large
        else:
            ends = len(self.unreader) >= self._body_bytes
            self.is_too_large = self._body_bytes > MAX_BODY_BYTES
        if self.is_too_large:
            self._request.force_close()  # it is unknown where the next request begins
        return ends or self.is_too_large
