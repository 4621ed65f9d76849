"""Stops gunicorn without resetting a connection and without losing a signal."""

import ctypes
import os
import signal
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

_STOP_SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

# A BPF program for a TCP segment: drop it if SYN is set and ACK is not, else accept it.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # if only SYN is left,
    (0x06, 0, 0, 0),  # drop the segment,
    (0x06, 0, 0, 0xFFFFFFFF),  # else accept it
)
_SO_ATTACH_FILTER = 26


def refuse_before_stopping(server: Any) -> None:
    """Let the master, at SIGTERM, refuse new connections before it stops the workers.

    Then no accepted connection waits in a socket's queue when the socket is closed.
    """
    stop = signal.getsignal(signal.SIGTERM)

    def refuse_and_stop(signal_number: int, frame: Any) -> None:
        # Sockets that systemd or another master shares must still accept.
        is_only_user = not (server.reexec_pid or server.master_pid or server.systemd)
        if os.getpid() == server.pid and is_only_user and not server.cfg.reuse_port:
            refuse_connections(server.LISTENERS)
        if callable(stop):
            stop(signal_number, frame)

    signal.signal(signal.SIGTERM, refuse_and_stop)


def refuse_connections(listeners: Iterable[socket.socket]) -> None:
    """Ignore new connections, for all processes with these sockets; Linux only.

    A client repeats its SYN after a second, and is refused once the socket is closed.
    """
    program = b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN)
    memory = ctypes.create_string_buffer(program)
    option = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(memory))
    for listener in listeners:
        if listener.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):  # without such filters, a few connections may be reset
                listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def keep_signals_while_forking() -> None:
    """Let a stop signal end a worker that was just forked.

    Such a worker still has the master's handler, which only notes the signal. So without this it
    would run until it is killed after `graceful_timeout`.
    """
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, _STOP_SIGNALS),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOP_SIGNALS),
        after_in_child=_exit_on_signals,
    )


def _exit_on_signals() -> None:
    for stop_signal in _STOP_SIGNALS:
        signal.signal(stop_signal, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def exit_while_booting(worker: Any) -> None:
    """Let SIGTERM end a worker that still loads the app: it has no request to finish."""
    finish_requests = worker.handle_exit

    def handle_exit(signal_number: int, frame: Any) -> None:
        if worker.booted:
            finish_requests(signal_number, frame)
        else:
            os._exit(0)

    worker.handle_exit = handle_exit
