"""The gunicorn worker of jobmon: a thread works only for a request that has been received in full.

gunicorn's threaded worker lends a thread to each connection from its first byte to the last byte of
the answer, so that clients that send or read slowly hold all of them. Here the worker's event loop
receives requests under a deadline and sends what clients have not read yet; docs/architecture.md
says how. The requests themselves are parsed and answered by gunicorn's own code.
"""

import ctypes
import errno
import io
import logging
import re
import resource
import selectors
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Any

from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http import RequestParser
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.http.message import PP_V2_SIGNATURE, Request
from gunicorn.http.unreader import Unreader
from gunicorn.sock import ssl_context
from gunicorn.workers.gthread import ThreadWorker

from jobmon.web.admission import MAX_BODY_BYTES

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 5  # from the connection, or a kept-alive one's first byte, to the last byte
STALLED_TIMEOUT_S = 20  # for a client to take some more of an answer
LINGER_S = 2  # for a client to close after the end of the last answer
STOP_IDLE_S = 2  # for a kept-alive connection once the worker stops
STOP_ACCEPT_S = 0.3  # for connections that are established while the worker stops

MAX_HEAD_BYTES = 32 * 1_024
MAX_RECEIVED_BYTES = 16 * 1_024 * 1_024  # of all unfinished requests of a worker
MAX_UNSENT_BYTES = 64 * 1_024 * 1_024  # of all answers of a worker that nobody has read
MAX_LINGER_BYTES = 1_024 * 1_024
# A streaming thread waits while more than this is unsent.
MAX_STREAM_BYTES = 64 * 1_024
# Small enough that "some more" is noticed: the kernel reports space when a third of it is free.
SEND_BUFFER_BYTES = 256 * 1_024
RECEIVE_BYTES = 64 * 1_024
SPARE_DESCRIPTORS = 256  # for the database, files and threads
REPORT_EVERY_S = 10

_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_HEAD_END = b"\r\n\r\n"
_PROXY_HEADER_BYTES = 16
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TIMEOUT_BODY = (
    b'{"error":{"code":"request_timeout",'
    b'"message":"The request was not received within %d seconds."}}\n' % REQUEST_TIMEOUT_S
)
_TIMEOUT_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
    b"Cache-Control: no-store\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
    b"Connection: close\r\n\r\n%s" % (len(_TIMEOUT_BODY), _TIMEOUT_BODY)
)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


# A BPF program over a TCP segment: drop what only has SYN set (of SYN and ACK), let the rest pass.
_DROP_NEW = (
    (0x30, 0, 0, 13),  # the flags
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)
_SO_ATTACH_FILTER = 26


def refuse_connections(listeners: Iterable[socket.socket]) -> None:
    """Let nobody connect any more, for all processes that have the sockets; Linux only.

    A client that tries asks again after a second, and is refused when the socket is closed.
    """
    program = b"".join(struct.pack("HBBI", *step) for step in _DROP_NEW)
    memory = ctypes.create_string_buffer(program)
    option = struct.pack("HP", len(_DROP_NEW), ctypes.addressof(memory))
    for listener in listeners:
        if listener.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # where there are no such filters, a few may be reset
                listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


class _ReceivedBytes(Unreader):
    """Feeds gunicorn's parser with what was received, and with nothing else."""

    too_large = False

    def chunk(self, size_hint: int | None = None) -> bytes:  # noqa: ARG002 - gunicorn's interface
        if self.too_large:
            raise LimitRequestHeaders("limit request headers")
        return b""  # as if the client had closed

    def __len__(self) -> int:
        return self.buf.seek(0, io.SEEK_END)

    def add(self, data: bytes) -> None:
        self.buf.seek(0, io.SEEK_END)
        self.buf.write(data)


class _ChunkScanner:
    """Finds the end of a chunked body (RFC 9112, 7.1); gunicorn checks that it is well-formed."""

    def __init__(self) -> None:
        self.is_too_large = False
        self._size = 0
        self._skip = 0
        self._line = b""
        self._in_trailer = False
        self._overhead = 0

    def scan(self, data: bytes) -> bool:
        """Whether the body ends in `data`, or it is no use to wait for its end."""
        at = 0
        while at < len(data):
            if self._skip:
                skipped = min(self._skip, len(data) - at)
                self._skip -= skipped
                at += skipped
                continue
            end = data.find(b"\n", at) + 1 or len(data)
            self._overhead += end - at
            if self._overhead > MAX_BODY_BYTES + MAX_HEAD_BYTES:
                self.is_too_large = True
                return True
            self._line += data[at:end]
            at = end
            if self._line.endswith(b"\n"):
                line, self._line = self._line.strip(), b""
                if self._ends(line):
                    return True
        return False

    def _ends(self, line: bytes) -> bool:
        if self._in_trailer:
            return not line
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            return True
        self._size += size
        self._skip = size + 2 if size else 0
        self._in_trailer = size == 0
        self.is_too_large = self._size > MAX_BODY_BYTES
        return size < 0 or self.is_too_large


class RequestBuffer(RequestParser):
    """gunicorn's parser over a buffer: it never waits for a client.

    `receive` what has come until that is a request; `next` then gives the request, or raises what
    is wrong with it.
    """

    def __init__(self, cfg: Config, client: Any) -> None:
        super().__init__(cfg, iter(()), client)
        self.unreader: _ReceivedBytes = _ReceivedBytes()
        self._has_proxy_header = cfg.proxy_protocol != "off"
        self._reset()

    def _reset(self) -> None:
        self._head = bytearray()
        self._searched = 0
        self._request: Request | None = None
        self._failure: Exception | None = None
        self._body_bytes = 0
        self.is_too_large = False
        self._chunks: _ChunkScanner | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a part of a request was received."""
        return bool(self._head) or self._request is not None

    def receive(self, data: bytes) -> bool:
        """Whether there is a request now, or something that makes it useless to wait for one."""
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
        """Go on to the request that a client has sent behind the one before; as `receive`."""
        self._reset()
        rest = self.unreader.take_buffered()
        return bool(rest) and self.receive(rest)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body."""
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
        searched = max(start, self._searched - len(_HEAD_END) + 1)
        if self._head.find(_HEAD_END, searched) >= 0:
            return True
        self._searched = len(self._head)
        # What gunicorn's parser refuses before the end of the head it refuses now.
        if len(self._head) > start + MAX_HEAD_BYTES:
            self.unreader.too_large = True
            return True
        return _BARE_LINE_FEED.search(self._head, searched) is not None

    def _proxy_header_end(self) -> int | None:
        """Where the request begins after a binary PROXY header; None if that is not all there."""
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
        except Exception as error:  # noqa: BLE001 - raised again in the thread, by `next`
            self._failure = error
            return
        assert self._request.body is not None  # noqa: S101 - there always is one
        reader = self._request.body.reader
        if isinstance(reader, LengthReader):
            self._body_bytes = reader.length
        elif isinstance(reader, ChunkedReader):
            self._chunks = _ChunkScanner()

    def _body_ends(self, data: bytes) -> bool:
        """Whether the body ends in `data`, the last that came; one that is too large is cut."""
        assert self._request is not None  # noqa: S101
        if self._chunks is not None:
            ends = self._chunks.scan(data)
            self.is_too_large = self._chunks.is_too_large
        else:
            ends = len(self.unreader) >= self._body_bytes
            self.is_too_large = self._body_bytes > MAX_BODY_BYTES
        if self.is_too_large:
            self._request.force_close()  # its end is not looked for
        return ends or self.is_too_large


class _Stage(Enum):
    HANDSHAKE = auto()
    RECEIVING = auto()
    WORKING = auto()  # a thread has it
    FLUSHING = auto()  # the thread is done, the client has not read all
    IDLE = auto()  # kept alive
    LINGERING = auto()  # shut down on our side; the client may still be sending
    CLOSED = auto()


class Connection:
    """A client's connection; to gunicorn it is the socket that it writes the answer to.

    What the client does not take at once is kept for the event loop to send.
    """

    # What gunicorn's worker looks at; the connection is always initialized and HTTP/1.
    initialized = True
    data_ready = True
    is_http2 = False

    def __init__(
        self, worker: "BufferedWorker", raw: socket.socket, client: Any, server: Any
    ) -> None:
        self.raw = raw
        self.client = client
        self.server = server
        self.parser = RequestBuffer(worker.cfg, client)
        self.stage = _Stage.RECEIVING
        self.events = 0  # that the event loop waits for
        self.keeps_alive = False
        self.received_bytes = 0  # of a request that is not complete
        self.lingered_bytes = 0
        self.unsent_bytes = 0
        self._worker = worker
        self._has_room = threading.Condition(threading.Lock())
        self._unsent: deque[memoryview] = deque()
        self._is_lost = False
        self.send_event = selectors.EVENT_WRITE

    @property
    def sock(self) -> "Connection":
        """What gunicorn writes to."""
        return self

    def init(self) -> None:
        """There is nothing left to do in the thread."""

    def setblocking(self, _: bool) -> None:
        """The socket never blocks."""

    def gettimeout(self) -> float:
        """As of a socket that never blocks."""
        return 0.0

    def shutdown(self, _: int) -> None:
        """The event loop closes the connection once the answer is sent."""

    def close(self) -> None:
        """The same."""

    def send(self, data: bytes) -> int:
        """Only a `100 Continue` is sent so, and the event loop has sent that."""
        return len(data)

    def settimeout(self, _: float | None) -> None:
        """The socket never blocks."""

    def recv(self, _: int) -> bytes:
        """The event loop receives."""
        return b""

    def sendall(self, data: bytes) -> None:
        """Send or keep the data; waits only while a client has not read what came before it.

        BrokenPipeError when the client has gone or was given up.
        """
        with self._has_room:
            # The event loop gives up a client that stalls, and wakes whoever waits here.
            has_room = self._has_room.wait_for(self._takes_more, 2 * STALLED_TIMEOUT_S)
            if self._is_lost or not has_room:
                raise BrokenPipeError(errno.EPIPE, "the client does not read any more")
            is_sending = bool(self._unsent)
            self._unsent.append(memoryview(data))
            self.unsent_bytes += len(data)
            if not is_sending:
                self._send()
            has_more = bool(self._unsent)
        if has_more and not is_sending:
            self._worker.method_queue.defer(self._worker.start_sending, self)

    def flush(self) -> bool:
        """Send what the client takes now; whether it took some. OSError when it has gone."""
        with self._has_room:
            before = self.unsent_bytes
            self._send()
            self._has_room.notify_all()
            return self.unsent_bytes < before

    def give_up(self) -> None:
        """Close at once; a thread that still writes gets an error."""
        with self._has_room:
            self._drop_unsent()
            self.raw.close()

    def _takes_more(self) -> bool:
        return self._is_lost or self.unsent_bytes <= MAX_STREAM_BYTES

    def _send(self) -> None:
        try:
            while self._unsent:
                part = self._unsent[0]
                sent = self.raw.send(part)
                self.unsent_bytes -= sent
                if sent == len(part):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = part[sent:]
        except (BlockingIOError, ssl.SSLWantWriteError):
            self.send_event = selectors.EVENT_WRITE
        except ssl.SSLWantReadError:
            self.send_event = selectors.EVENT_READ
        except OSError:
            self._drop_unsent()
            raise

    def _drop_unsent(self) -> None:
        self._is_lost = True
        self._unsent.clear()
        self.unsent_bytes = 0
        self._has_room.notify_all()


class _Waiting:
    """Connections that wait for their client, the one that has waited longest first."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._since: dict[Connection, float] = {}

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Any:
        return iter(self._since)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._since

    def add(self, connection: Connection) -> None:
        """It waits from now on."""
        self._since.pop(connection, None)
        self._since[connection] = time.monotonic()

    def discard(self, connection: Connection) -> None:
        """It waits no longer."""
        self._since.pop(connection, None)

    def oldest(self) -> Connection | None:
        """Which one waits longest."""
        return next(iter(self._since), None)

    def expired(self) -> list[Connection]:
        """Those that have waited for longer than they may."""
        now, found = time.monotonic(), []
        for connection, since in self._since.items():
            if now - since < self.patience_s:
                break
            found.append(connection)
        return found


class BufferedWorker(ThreadWorker):
    """gunicorn's threaded worker with an event loop that receives requests and sends answers.

    All methods but `handle` and what it calls run in the event loop's thread.
    """

    cfg: Config
    log: Logger
    _accepting: bool

    def init_process(self) -> None:
        """Prepare the limits before the worker's loop begins."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self.worker_connections + SPARE_DESCRIPTORS
        if soft < wanted:
            soft = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.worker_connections = min(self.worker_connections, max(soft - SPARE_DESCRIPTORS, 64))
        self._context = ssl_context(self.cfg) if self.cfg.is_ssl else None
        self._connections: set[Connection] = set()
        self._receiving = _Waiting(REQUEST_TIMEOUT_S)
        self._sending = _Waiting(STALLED_TIMEOUT_S)
        self._lingering = _Waiting(LINGER_S)
        # gunicorn counts these when it decides whether one more is kept alive.
        self._idle = self.keepalived_conns = _Waiting(self.cfg.keepalive)  # type: ignore[assignment]
        self._received_bytes = 0  # by requests that are not complete
        self._timed_out = self._given_up = 0
        self._reported_at = -float("inf")
        for listener in self.sockets:  # accepted sockets inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        super().init_process()

    def run(self) -> None:
        """Serve until the worker is stopped, then finish what was begun."""
        self.poller.register(
            self.method_queue.fileno(),  # type: ignore[arg-type]
            selectors.EVENT_READ,
            self.method_queue.run_callbacks,
        )
        self.set_accept_enabled(True)
        while self.alive:
            self._run_once(1.0)
            self.alive = self.alive and self.is_parent_alive()
        self._finish()

    def _run_once(self, timeout_s: float) -> None:
        self.notify()
        self.wait_for_and_dispatch_events(timeout_s)
        self._expire()

    def _finish(self) -> None:
        """Answer who is connected, or was while the master closed the door; within the grace."""
        stopped_at = time.monotonic()
        self._idle.patience_s = min(self._idle.patience_s, STOP_IDLE_S)
        while time.monotonic() - stopped_at < self.cfg.graceful_timeout:
            if self._accepting and time.monotonic() - stopped_at >= STOP_ACCEPT_S:
                self.set_accept_enabled(False)
                for listener in self.sockets:
                    while self._accept_one(listener):
                        pass
                    listener.close()
            if not self._connections and not self._accepting:
                break
            self._run_once(0.1)
        for connection in list(self._connections):
            self._close(connection)
        self.tpool.shutdown(wait=False)
        self.poller.close()
        self.method_queue.close()

    # Accepting and receiving

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection, and receive what it has sent already."""
        self._accept_one(listener)

    def _accept_one(self, listener: socket.socket) -> bool:
        if len(self._connections) >= self.worker_connections:
            self._make_room()
        try:
            raw, client = listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                self._make_room()
            return False  # what else there is, is one connection's matter
        raw.setblocking(False)
        connection = Connection(self, raw, client, listener.getsockname())
        self._connections.add(connection)
        self._receiving.add(connection)
        try:
            if self._context is not None:
                connection.raw = self._context.wrap_socket(
                    raw,
                    server_side=True,
                    do_handshake_on_connect=False,
                    suppress_ragged_eofs=self.cfg.suppress_ragged_eofs,
                )
                connection.stage = _Stage.HANDSHAKE
            self._advance(connection)
        except OSError as error:
            self.log.debug("Connection closed: %s", error)
            self._close(connection)
        return True

    def _on_event(self, connection: Connection, _: object) -> None:
        """The client has sent something, or can take something."""
        if connection.stage is _Stage.CLOSED:
            return  # by what came before in the same round
        try:
            self._advance(connection)
        except OSError as error:  # ssl.SSLError is one
            self.log.debug("Connection closed: %s", error)
            self._close(connection)

    def _advance(self, connection: Connection) -> None:
        match connection.stage:
            case _Stage.HANDSHAKE:
                self._shake_hands(connection)
            case _Stage.IDLE:
                self._idle.discard(connection)
                connection.stage = _Stage.RECEIVING
                self._receiving.add(connection)
                self._receive(connection)
            case _Stage.RECEIVING:
                self._receive(connection)
            case _Stage.LINGERING:
                self._linger(connection)
            case _Stage.WORKING | _Stage.FLUSHING:
                self._flush(connection)

    def _shake_hands(self, connection: Connection) -> None:
        assert isinstance(connection.raw, ssl.SSLSocket)  # noqa: S101
        try:
            connection.raw.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(connection, selectors.EVENT_WRITE)
        else:
            connection.stage = _Stage.RECEIVING
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        while (data := self._receive_some(connection)) is not None:
            if not data:
                self._close(connection)
                return
            connection.received_bytes += len(data)
            self._received_bytes += len(data)
            was_waiting = connection.parser.expects_continue
            if connection.parser.receive(data):
                self._work(connection)
                return
            if connection.parser.expects_continue and not was_waiting:
                connection.raw.send(_CONTINUE)
            while self._received_bytes > MAX_RECEIVED_BYTES:
                self._give_up_oldest(self._receiving)
            if connection.stage is _Stage.CLOSED:
                return  # it was the oldest itself

    def _receive_some(self, connection: Connection) -> bytes | None:
        """What has come, nothing at the end, None if there is nothing yet."""
        try:
            return connection.raw.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._watch(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(connection, selectors.EVENT_WRITE)
        return None

    def _work(self, connection: Connection) -> None:
        """Let a thread answer the request that was received."""
        self._stop_receiving(connection)
        self._watch(connection, 0)
        connection.stage = _Stage.WORKING
        self.enqueue_req(connection)  # type: ignore[arg-type]

    def _stop_receiving(self, connection: Connection) -> None:
        self._receiving.discard(connection)
        self._received_bytes -= connection.received_bytes
        connection.received_bytes = 0

    # In a thread

    def handle_request(self, req: Request, conn: Connection) -> bool:  # type: ignore[override]
        """Answer a request whose body is in memory; whether the connection can be kept."""
        # A body that is not well-formed is refused here, by gunicorn, and not in the app.
        assert req.body is not None  # noqa: S101 - there always is one
        # The app refuses one that is too large by its size; the rest of it was not received.
        too_large = conn.parser.is_too_large
        body = bytes(MAX_BODY_BYTES + 1) if too_large else req.body.read(MAX_BODY_BYTES)
        req.body = io.BytesIO(body)  # type: ignore[assignment]
        return super().handle_request(req, conn)  # type: ignore[arg-type]

    # Sending

    def finish_request(self, conn: Connection, fs: Future[bool]) -> None:  # type: ignore[override]
        """The thread is done with the connection."""
        if conn.stage is _Stage.CLOSED:
            return
        conn.keeps_alive = not fs.cancelled() and fs.exception() is None and fs.result()
        conn.stage = _Stage.FLUSHING
        if not conn.unsent_bytes:
            self._on_sent(conn)  # else it is being sent

    def start_sending(self, connection: Connection) -> None:
        """A thread has left something for the client to read."""
        if connection.stage in (_Stage.WORKING, _Stage.FLUSHING) and connection.unsent_bytes:
            self._sending.add(connection)
            self._watch(connection, connection.send_event)
            unsent = sum(each.unsent_bytes for each in self._sending)
            while unsent > MAX_UNSENT_BYTES and len(self._sending) > 1:
                oldest = self._sending.oldest()
                assert oldest is not None  # noqa: S101
                unsent -= oldest.unsent_bytes
                self._give_up(oldest)

    def _flush(self, connection: Connection) -> None:
        if connection.flush():
            self._sending.add(connection)
        if connection.unsent_bytes:
            self._watch(connection, connection.send_event)
            return
        self._sending.discard(connection)
        self._watch(connection, 0)
        if connection.stage is _Stage.FLUSHING:
            self._on_sent(connection)

    def _on_sent(self, connection: Connection) -> None:
        """The answer has been sent: go on with the next request, wait for it, or part."""
        self._sending.discard(connection)
        if not connection.keeps_alive:
            self._end(connection)
        elif connection.parser.take_next():
            self._work(connection)
        elif connection.parser.has_begun:
            connection.stage = _Stage.RECEIVING
            self._receiving.add(connection)
            self._watch(connection, selectors.EVENT_READ)
        else:
            connection.stage = _Stage.IDLE
            self._idle.add(connection)
            self._watch(connection, selectors.EVENT_READ)

    # Closing

    def _end(self, connection: Connection) -> None:
        """Shut down our side, and close once the client has seen that (RFC 9112, 9.6)."""
        connection.stage = _Stage.LINGERING
        self._lingering.add(connection)
        try:
            connection.raw.shutdown(socket.SHUT_WR)
            self._linger(connection)
        except OSError:
            self._close(connection)

    def _linger(self, connection: Connection) -> None:
        """Take what the client still sends: unread, it would make the kernel reset the answer."""
        while data := self._receive_some(connection):
            connection.lingered_bytes += len(data)
            if connection.lingered_bytes > MAX_LINGER_BYTES:
                break
        if data is not None:
            self._close(connection)

    def _expire(self) -> None:
        for connection in self._receiving.expired():
            self._time_out(connection)
        for connection in self._idle.expired():
            self._idle.discard(connection)
            self._end(connection)
        for connection in self._lingering.expired():
            self._close(connection)
        for connection in self._sending.expired():
            self._give_up(connection)
        self._report()

    def _time_out(self, connection: Connection) -> None:
        self._timed_out += 1
        self._stop_receiving(connection)
        try:
            if connection.parser.has_begun:
                connection.raw.send(_TIMEOUT_ANSWER)
        except OSError:
            self._close(connection)
        else:
            self._end(connection)

    def _make_room(self) -> None:
        """Give up the connection that has waited longest for its client."""
        self._give_up_oldest(self._lingering, self._receiving, self._idle, self._sending)

    def _give_up_oldest(self, *kinds: _Waiting) -> None:
        for waiting in kinds:
            if (oldest := waiting.oldest()) is not None:
                self._give_up(oldest)
                return

    def _give_up(self, connection: Connection) -> None:
        self._given_up += 1
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._watch(connection, 0)
        self._stop_receiving(connection)
        for waiting in (self._idle, self._sending, self._lingering):
            waiting.discard(connection)
        self._connections.discard(connection)
        connection.stage = _Stage.CLOSED
        connection.give_up()

    def _watch(self, connection: Connection, events: int) -> None:
        """Wait for these events of a connection, 0 for none."""
        if events == connection.events:
            return
        if not events:
            self.poller.unregister(connection.raw)
        elif not connection.events:
            self.poller.register(connection.raw, events, partial(self._on_event, connection))
        else:
            self.poller.modify(connection.raw, events, partial(self._on_event, connection))
        connection.events = events

    def _report(self) -> None:
        """Log how many clients were too slow, every ten seconds at most."""
        if not (self._timed_out or self._given_up):
            return
        if time.monotonic() - self._reported_at < REPORT_EVERY_S:
            return
        log.warning(
            "slow clients: %d requests not received in time, %d connections given up",
            self._timed_out,
            self._given_up,
        )
        self._timed_out = self._given_up = 0
        self._reported_at = time.monotonic()
