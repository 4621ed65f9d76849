"""Starts Python programs as forks of a process that has already imported most of their modules.

Tests start two hundred processes, and the imports take a second of CPU in each. Tests of a
program's start or imports do not use this module, but start a new interpreter.
"""

import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from jobmon.demo.mongod import die_with_parent

from .processes import adopt_orphans

ROOT = Path(__file__).parents[2]
# Modules to import before a fork. prometheus_client and gunicorn_config must not be among them or
# their imports, because they read the environment when they are imported.
MODULES = (
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
    "jobmon.api.admin",
    "jobmon.collector.collecting",
    "jobmon.dashboard.views",
    "jobmon.serving.worker",
)


def start_python(module: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start `python -m module arguments` in the checkout.

    `options` are `env`, `stdout`, `stderr` and `start_new_session`, as in `Popen`.
    """
    if sys.platform == "linux":
        return _PreloadedProcess(module, *arguments, **options)
    return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, **options)


class _PreloadedProcess(subprocess.Popen[bytes]):
    """A process that `_Server` forks; its standard input is empty."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        env: dict[str, str],
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        start_new_session: bool = False,
    ) -> None:
        # Set the attributes of `Popen` here: its constructor would start a program.
        self.args = [sys.executable, "-m", module, *arguments]
        self.stdin = self.stdout = self.stderr = None
        self.returncode = None  # type: ignore[assignment]
        self._waitpid_lock = threading.Lock()
        request = {"argv": [module, *arguments], "env": env, "session": start_new_session}
        self.pid = _server.fork(
            json.dumps(request).encode(),
            1 if stdout is None else stdout.fileno(),
            2 if stderr is None else stderr.fileno(),
        )
        self._child_created = True


class _Server:
    """The process that forks; it is started at the first request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def fork(self, request: bytes, *outputs: int) -> int:
        """Fork a process that becomes a child of this process; returns the new process's id.

        `outputs` are the file descriptors for the new process's stdout and stderr.
        """
        with self._lock:
            if self._socket is None:
                adopt_orphans()
                self._socket, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                command = [sys.executable, "-m", __name__, str(peer.fileno())]
                with peer:
                    self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[peer.fileno()])
            socket.send_fds(self._socket, [request], outputs)
            return int(self._socket.recv(100))

    def stop(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.wait()


_server = _Server()
stop_server = _server.stop


def _serve(server: socket.socket) -> dict[str, Any]:
    """Fork for each request: the new process returns the request, the forking one never returns."""
    while True:
        message, outputs, *_ = socket.recv_fds(server, 2**20, 2)
        if not message:
            os._exit(0)
        read_end, write_end = os.pipe()
        # The intermediate process ends at once, so that the tests' process becomes the parent.
        if not (intermediate := os.fork()):
            intermediate_pid = os.getpid()
            if child := os.fork():
                os.write(write_end, str(child).encode())
                os._exit(0)
            while os.getppid() == intermediate_pid:
                time.sleep(0.001)
            die_with_parent()
            for standard, output in enumerate(outputs, start=1):  # 1: stdout, 2: stderr
                os.dup2(output, standard)
            for descriptor in (*outputs, read_end, write_end):
                os.close(descriptor)
            server.close()
            return dict(json.loads(message))
        os.waitpid(intermediate, 0)
        server.send(os.read(read_end, 100))
        for descriptor in (*outputs, read_end, write_end):
            os.close(descriptor)


def _run() -> None:
    for name in MODULES:
        importlib.import_module(name)
    assert not {"prometheus_client", "jobmon.serving.gunicorn_config"} & sys.modules.keys()
    gc.collect()
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    os.environ.clear()
    os.environ.update(request["env"])
    if request["session"]:
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    module, *arguments = request["argv"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run()
