"""The gunicorn worker: a thread works only on a request that has been received completely.

gunicorn's threaded worker gives a thread to each connection, from its first byte to the last byte
of the answer. So clients that send or read slowly can hold all threads. Here the worker's event
loop receives requests within a time limit, and sends what clients have not read yet. gunicorn's own
code parses and answers the requests. docs/architecture.md has the details.
"""

import errno
import io
import resource
import selectors
import socket
import ssl
import time
from concurrent.futures import Future
from functools import partial

from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.message import Request
from gunicorn.sock import ssl_context
from gunicorn.workers.gthread import ThreadWorker

from jobmon.serving import limits
from jobmon.serving.connection import Connection, Stage, WaitingList
from jobmon.serving.slow_clients import TIMEOUT_ANSWER, SlowClientLog
from jobmon.web.admission import MAX_BODY_BYTES

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class BufferedWorker(ThreadWorker):
    """gunicorn's threaded worker with an event loop that receives requests and sends answers.

    All methods run in the event loop's thread, except `handle_request` and `_defer_sending`.
    """

    cfg: Config
    log: Logger
    _accepting: bool

    def init_process(self) -> None:
        """Set the worker's bounds before its loop begins."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = self.worker_connections + limits.SPARE_DESCRIPTORS
        if soft < needed:
            soft = min(needed, hard) if hard != resource.RLIM_INFINITY else needed
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.worker_connections = min(
            self.worker_connections, max(soft - limits.SPARE_DESCRIPTORS, 64)
        )
        self._context = ssl_context(self.cfg) if self.cfg.is_ssl else None
        self._connections: set[Connection] = set()
        self._receiving = WaitingList(limits.REQUEST_TIMEOUT_S)
        self._sending = WaitingList(limits.STALLED_TIMEOUT_S)
        self._lingering = WaitingList(limits.LINGER_S)
        # gunicorn reads the length of this list to decide whether to keep a connection alive.
        self._idle = self.keepalived_conns = WaitingList(self.cfg.keepalive)  # type: ignore[assignment]
        self._received_bytes = 0  # of requests that are not complete
        self._slow_clients = SlowClientLog()
        self._notified_at = self._expired_at = -float("inf")
        for listener in self.sockets:  # accepted sockets inherit this size
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.SEND_BUFFER_BYTES)
        super().init_process()

    def run(self) -> None:
        """Serve until the worker is stopped, then finish the requests under way."""
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
        now = time.monotonic()
        if now - self._notified_at > limits.NOTIFY_EVERY_S:
            self.notify()
            self._notified_at = now
        self.wait_for_and_dispatch_events(timeout_s)
        if now - self._expired_at > limits.EXPIRE_EVERY_S:
            self._expire()
            self._expired_at = now

    def _finish(self) -> None:
        """Answer all clients that connected before the sockets close, within graceful_timeout."""
        stopped_at = time.monotonic()
        self._idle.timeout_s = min(self._idle.timeout_s, limits.STOP_IDLE_S)
        while time.monotonic() - stopped_at < self.cfg.graceful_timeout:
            if self._accepting and time.monotonic() - stopped_at >= limits.STOP_ACCEPT_S:
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
            self._free_connection()
        try:
            raw, client = listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self._free_connection()
            return False  # no connection waits, or its client has gone
        raw.setblocking(False)
        connection = Connection(self.cfg, raw, client, listener.getsockname(), self._defer_sending)
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
                connection.stage = Stage.HANDSHAKE
            self._proceed(connection)
        except OSError as error:
            self.log.debug("Connection closed: %s", error)
            self._close(connection)
        return True

    def _handle_event(self, connection: Connection, _: object) -> None:
        """Continue with a connection: the client has sent data, or can accept more of an answer."""
        if connection.stage is Stage.CLOSED:
            return  # an earlier event of this round closed it
        try:
            self._proceed(connection)
        except OSError as error:  # ssl.SSLError is one
            self.log.debug("Connection closed: %s", error)
            self._close(connection)

    def _proceed(self, connection: Connection) -> None:
        match connection.stage:
            case Stage.HANDSHAKE:
                self._shake_hands(connection)
            case Stage.IDLE:
                self._idle.discard(connection)
                connection.stage = Stage.RECEIVING
                self._receiving.add(connection)
                self._receive(connection)
            case Stage.RECEIVING:
                self._receive(connection)
            case Stage.LINGERING:
                self._linger(connection)
            case Stage.WORKING if not connection.unsent_bytes:
                self._watch(connection, 0)  # the client has sent more bytes, which are read later
            case Stage.WORKING | Stage.FLUSHING:
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
            connection.stage = Stage.RECEIVING
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        while (data := self._read_socket(connection)) is not None:
            if not data:
                self._close(connection)
                return
            connection.received_bytes += len(data)
            self._received_bytes += len(data)
            had_expected = connection.parser.expects_continue
            if connection.parser.receive(data):
                self._start_work(connection)
                return
            if connection.parser.expects_continue and not had_expected:
                connection.raw.send(_CONTINUE)
            while self._received_bytes > limits.MAX_RECEIVED_BYTES:
                self._abort_oldest(self._receiving)
            if connection.stage is Stage.CLOSED:
                return  # it was the oldest connection that receives

    def _read_socket(self, connection: Connection) -> bytes | None:
        """The bytes that have arrived: empty at the end, None if there are none yet."""
        try:
            return connection.raw.recv(limits.RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._watch(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(connection, selectors.EVENT_WRITE)
        return None

    def _start_work(self, connection: Connection) -> None:
        """Let a thread answer the request that was received.

        The socket stays in the poller: usually no bytes arrive before the answer.
        """
        self._stop_receiving(connection)
        connection.stage = Stage.WORKING
        self.enqueue_req(connection)  # type: ignore[arg-type]

    def _stop_receiving(self, connection: Connection) -> None:
        self._receiving.discard(connection)
        self._received_bytes -= connection.received_bytes
        connection.received_bytes = 0

    # In a thread

    def handle_request(self, req: Request, conn: Connection) -> bool:  # type: ignore[override]
        """Answer a request whose body is in memory; returns whether to keep the connection."""
        # Reading the body here lets gunicorn refuse a malformed body, outside of the app. It checks
        # the end only of a body that has fewer bytes than are read.
        assert req.body is not None  # noqa: S101 - there always is one
        # A body that is too large was not received completely: zeros replace it.
        size = MAX_BODY_BYTES + 1
        body = bytes(size) if conn.parser.is_too_large else req.body.read(size)
        req.body = io.BytesIO(body)  # type: ignore[assignment]
        conn.hold_head()
        try:
            return super().handle_request(req, conn)  # type: ignore[arg-type]
        finally:
            conn.send_head()

    # Sending

    def finish_request(self, conn: Connection, fs: Future[bool]) -> None:  # type: ignore[override]
        """Continue after the thread has written the answer; a part of it may still be unsent."""
        if conn.stage is Stage.CLOSED:
            return
        conn.keeps_alive = not fs.cancelled() and fs.exception() is None and fs.result()
        conn.stage = Stage.FLUSHING
        if not conn.unsent_bytes:
            self._finish_answer(conn)  # else the event loop is still sending it

    def _defer_sending(self, connection: Connection) -> None:
        """Let the event loop send what the client did not accept while the thread wrote."""
        self.method_queue.defer(self._start_sending, connection)

    def _start_sending(self, connection: Connection) -> None:
        """Send unsent bytes; above a limit, close the connections that have waited longest."""
        if connection.stage in (Stage.WORKING, Stage.FLUSHING) and connection.unsent_bytes:
            self._sending.add(connection)
            self._watch(connection, connection.send_event)
            unsent = sum(sending.unsent_bytes for sending in self._sending)
            while unsent > limits.MAX_UNSENT_BYTES and len(self._sending) > 1:
                oldest = self._sending.oldest()
                assert oldest is not None  # noqa: S101
                unsent -= oldest.unsent_bytes
                self._abort(oldest)

    def _flush(self, connection: Connection) -> None:
        if connection.flush():
            self._sending.add(connection)
        if connection.unsent_bytes:
            self._watch(connection, connection.send_event)
            return
        self._sending.discard(connection)
        self._watch(connection, 0)
        if connection.stage is Stage.FLUSHING:
            self._finish_answer(connection)

    def _finish_answer(self, connection: Connection) -> None:
        """After an answer was sent: take the next request, wait for it, or close."""
        self._sending.discard(connection)
        if not connection.keeps_alive:
            self._shut_down(connection)
        elif connection.parser.take_next():
            self._start_work(connection)
        elif connection.parser.has_begun:
            connection.stage = Stage.RECEIVING
            self._receiving.add(connection)
            self._watch(connection, selectors.EVENT_READ)
        else:
            connection.stage = Stage.IDLE
            self._idle.add(connection)
            self._watch(connection, selectors.EVENT_READ)

    # Closing

    def _shut_down(self, connection: Connection) -> None:
        """Shut down our side, and close once the client does (RFC 9112, 9.6)."""
        connection.stage = Stage.LINGERING
        self._lingering.add(connection)
        try:
            connection.raw.shutdown(socket.SHUT_WR)
            self._linger(connection)
        except OSError:
            self._close(connection)

    def _linger(self, connection: Connection) -> None:
        """Read what the client still sends: to close with unread bytes resets the connection."""
        while data := self._read_socket(connection):
            connection.lingered_bytes += len(data)
            if connection.lingered_bytes > limits.MAX_LINGER_BYTES:
                break
        if data is not None:
            self._close(connection)

    def _expire(self) -> None:
        for connection in self._receiving.expired():
            self._time_out(connection)
        for connection in self._idle.expired():
            self._idle.discard(connection)
            self._shut_down(connection)
        for connection in self._lingering.expired():
            self._close(connection)
        for connection in self._sending.expired():
            self._abort(connection)
        self._slow_clients.report()

    def _time_out(self, connection: Connection) -> None:
        self._slow_clients.timed_out += 1
        self._stop_receiving(connection)
        try:
            if connection.parser.has_begun:
                connection.raw.send(TIMEOUT_ANSWER)
        except OSError:
            self._close(connection)
        else:
            self._shut_down(connection)

    def _free_connection(self) -> None:
        """Close the oldest connection of the first of these lists that is not empty."""
        self._abort_oldest(self._lingering, self._receiving, self._idle, self._sending)

    def _abort_oldest(self, *lists: WaitingList) -> None:
        for waiting_list in lists:
            if (oldest := waiting_list.oldest()) is not None:
                self._abort(oldest)
                return

    def _abort(self, connection: Connection) -> None:
        self._slow_clients.closed += 1
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._watch(connection, 0)
        self._stop_receiving(connection)
        for waiting_list in (self._idle, self._sending, self._lingering):
            waiting_list.discard(connection)
        self._connections.discard(connection)
        connection.stage = Stage.CLOSED
        connection.abort()

    def _watch(self, connection: Connection, events: int) -> None:
        """Wait for these events of a connection, 0 for none."""
        if events == connection.events:
            return
        if not events:
            self.poller.unregister(connection.raw)
        elif not connection.events:
            self.poller.register(connection.raw, events, partial(self._handle_event, connection))
        else:
            self.poller.modify(connection.raw, events, partial(self._handle_event, connection))
        connection.events = events
