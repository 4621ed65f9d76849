"""A client's connection: a thread writes to it, and the event loop sends what stays unsent."""

import errno
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Any

from gunicorn.config import Config

from jobmon.serving import limits
from jobmon.serving.request_buffer import RequestBuffer


class Stage(Enum):
    """What a connection is waiting for."""

    HANDSHAKE = auto()  # of TLS
    RECEIVING = auto()  # a request is not complete
    WORKING = auto()  # a thread answers
    FLUSHING = auto()  # the answer is written, the client has not read all of it
    IDLE = auto()  # kept alive, without a request
    LINGERING = auto()  # shut down on our side, the client has not closed it
    CLOSED = auto()


class Connection:
    """A client's connection; gunicorn writes answers to it as to a socket.

    Bytes that the client does not accept at once are kept. Then the thread that writes calls
    `report_unsent`: the event loop must send these bytes.
    """

    # Read by gunicorn's worker; the connection is always initialized and HTTP/1.
    initialized = True
    data_ready = True
    is_http2 = False

    def __init__(
        self,
        cfg: Config,
        raw: socket.socket,
        client: Any,
        server: Any,
        report_unsent: Callable[["Connection"], None],
    ) -> None:
        self.raw = raw
        self.client = client
        self.server = server
        self.parser = RequestBuffer(cfg, client)
        self.stage = Stage.RECEIVING
        self.events = 0  # selector events for which the event loop waits
        self.keeps_alive = False
        self.received_bytes = 0  # of a request that is not complete
        self.lingered_bytes = 0
        self.unsent_bytes = 0
        self._report_unsent = report_unsent
        self._has_space = threading.Condition(threading.Lock())
        self._unsent: deque[memoryview] = deque()
        self._is_lost = False
        self._holds_next, self._head = False, b""
        self.send_event = selectors.EVENT_WRITE

    @property
    def sock(self) -> "Connection":
        """The object to which gunicorn writes."""
        return self

    def _do_nothing(self, *_: Any) -> None:
        """Do nothing: the socket never blocks; the event loop closes it once the answer is sent."""

    init = setblocking = settimeout = shutdown = close = _do_nothing

    def gettimeout(self) -> float:
        """0: the socket never blocks."""
        return 0.0

    def send(self, data: bytes) -> int:
        """Do nothing: gunicorn sends only `100 Continue` here, which the event loop has sent."""
        return len(data)

    def recv(self, _: int) -> bytes:
        """No bytes; the event loop receives."""
        return b""

    def hold_head(self) -> None:
        """Keep the next data, the head of an answer, and send it with the data after it.

        One packet instead of two saves a fifth of the time of a short answer.
        """
        self._holds_next = True

    def send_head(self) -> None:
        """Send the head if it was not sent with other data; raises the errors of `sendall`."""
        self._holds_next = False
        if self._head:
            self.sendall(b"")

    def sendall(self, data: bytes) -> None:
        """Send or keep the data; waits while more than MAX_STREAM_BYTES are unsent.

        Raises BrokenPipeError or another OSError if the client has gone or has stalled.
        """
        if self._holds_next:
            self._holds_next, self._head = False, data
            return
        head, self._head = self._head, b""
        if head and len(data) > limits.MAX_JOINED_BYTES:
            self.sendall(head)
        elif head:
            data = head + data
        with self._has_space:
            # The event loop aborts a connection that stalls, which wakes this thread.
            has_space = self._has_space.wait_for(self._can_continue, 2 * limits.STALLED_TIMEOUT_S)
            if self._is_lost or not has_space:
                raise BrokenPipeError(errno.EPIPE, "the client no longer reads")
            is_sending = bool(self._unsent)
            self._unsent.append(memoryview(data))
            self.unsent_bytes += len(data)
            if not is_sending:
                self._send()
            has_unsent = bool(self._unsent)
        if has_unsent and not is_sending:
            self._report_unsent(self)

    def flush(self) -> bool:
        """Send what the client accepts now; returns whether it accepted any bytes.

        Raises OSError if the client has gone.
        """
        with self._has_space:
            unsent_before = self.unsent_bytes
            self._send()
            self._has_space.notify_all()
            return self.unsent_bytes < unsent_before

    def abort(self) -> None:
        """Close at once; a thread that still writes gets a BrokenPipeError."""
        with self._has_space:
            self._drop_unsent()
            self.raw.close()

    def _can_continue(self) -> bool:
        return self._is_lost or self.unsent_bytes <= limits.MAX_STREAM_BYTES

    def _send(self) -> None:
        try:
            while self._unsent:
                data = self._unsent[0]
                sent = self.raw.send(data)
                self.unsent_bytes -= sent
                if sent == len(data):
                    self._unsent.popleft()
                else:
                    self._unsent[0] = data[sent:]
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
        self._has_space.notify_all()


class WaitingList:
    """Connections that wait for their client, in the order in which their waits began."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._since: dict[Connection, float] = {}

    def __len__(self) -> int:
        return len(self._since)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._since)

    def add(self, connection: Connection) -> None:
        """Add a connection; if it is in the list already, its wait begins again."""
        self._since.pop(connection, None)
        self._since[connection] = time.monotonic()

    def discard(self, connection: Connection) -> None:
        """Remove a connection; does nothing if it is not in the list."""
        self._since.pop(connection, None)

    def oldest(self) -> Connection | None:
        """The connection that has waited longest; None if the list is empty."""
        return next(iter(self._since), None)

    def expired(self) -> list[Connection]:
        """The connections that have waited for `timeout_s` or longer."""
        now, expired = time.monotonic(), []
        for connection, since in self._since.items():
            if now - since < self.timeout_s:
                break
            expired.append(connection)
        return expired
