"""Runs web services and demos in their own processes, as an operator runs them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from jobmon.demo.mongod import free_port

from ..conftest import SECRET
from .preloaded import start_python
from .processes import child_processes, end_process
from .waiting import PATIENCE_S, eventually


def start_collector(**variables: str) -> subprocess.Popen[bytes]:
    """Start `jobmon collector` with these environment variables; its log is discarded."""
    environment = dict(os.environ) | {"JOBMON_JWT_SECRET_KEY": SECRET} | variables
    with open(os.devnull, "w") as devnull:
        return start_python("jobmon.cli", "collector", env=environment, stderr=devnull)


class Web:
    """A gunicorn with one worker and four threads; `settings` are environment variables.

    It logs to the file `log` in `folder`.
    """

    def __init__(self, mongo_uri: str, folder: Path, **settings: str) -> None:
        self.log = folder / "log"
        self.port = free_port()
        environment = dict(os.environ) | {
            "JOBMON_MONGO_URI": mongo_uri,
            "JOBMON_JWT_SECRET_KEY": SECRET,
            "JOBMON_BIND": f"127.0.0.1:{self.port}",
            "JOBMON_WORKERS": "1",
            "JOBMON_THREADS": "4",
            **settings,
        }
        with self.log.open("w") as stderr:
            self.process = start_python("gunicorn", "wsgi:app", env=environment, stderr=stderr)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, token: str = "", **headers: str) -> int:
        """The status of the answer to a GET; OSError if the connection breaks."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.get("/healthz") == 200
        except OSError:
            return False

    def workers(self, master: int | None = None) -> set[int]:
        """The process ids of the workers of `master`, by default of gunicorn's first master."""
        return set(child_processes(master or self.process.pid))

    def stop(self) -> str:
        """Send SIGTERM; returns the log."""
        if self.process.poll() is None:
            end_process(self.process)
        return self.log.read_text()


@contextmanager
def serving(mongo_uri: str, folder: Path, **settings: str) -> Iterator[Web]:
    """Run a `Web` during the block, which starts when the service answers."""
    web = Web(mongo_uri, folder, **settings)
    try:
        eventually(web.answers)
        yield web
    finally:
        web.stop()


class Demo:
    """A running `jobmon demo` with one web worker; its state is in `folder`.

    `program` is the command line that runs `jobmon`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: tuple[str, ...] = (sys.executable, "-m", "jobmon.cli"),
        cwd: Path | None = None,
        **environment: str,
    ) -> None:
        self.log = folder / "log"
        self.port = free_port()
        command = ["demo", "--port", str(self.port), "--state", str(folder / "state")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*program, *command],
                cwd=cwd,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=clean_environment(**{"JOBMON_WORKERS": "1"} | environment),
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text()

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.output()
        return "Press Ctrl-C to stop." in self.output()

    def curl_lines(self) -> list[str]:
        return [line for line in self.output().splitlines() if line.startswith("curl")]

    def interrupt(self) -> int:
        return end_process(self.process, signal.SIGINT)


def clean_environment(**variables: str) -> dict[str, Any]:
    """The environment without jobmon's settings, and with these variables."""
    cleaned = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON_")}
    return cleaned | variables
