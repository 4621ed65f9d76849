"""SIGTERM and SIGINT end the commands and the web service.

Catches a signal that is lost during a start, and a stop that waits for a database that does not
answer.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest

from jobmon.demo.mongod import Mongod, free_port

from ..conftest import SECRET
from ..support.processes import end_process
from ..support.services import clean_environment
from ..support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.long

WITHIN_S = 60  # the limit for a stop: long, because the machine may be busy
HANGS_S = 120  # a stop that waits for the database or for a worker takes this time

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def silent_uri() -> Iterator[str]:
    """The connection string of a database that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        yield f"mongodb://127.0.0.1:{server.getsockname()[1]}/?"


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that runs a module for the database `signals`; its processes end with the test."""
    with ExitStack() as cleanup:

        def start(log: Path, uri: str, *command: str, **variables: str) -> subprocess.Popen[bytes]:
            uri = uri.replace("/?", "/signals?")
            environment = clean_environment() | {
                "JOBMON_MONGO_URI": uri,
                "JOBMON_WORKLOAD_MONGO_URI": uri,
                "JOBMON_SERVER_SELECTION_TIMEOUT_MS": str(HANGS_S * 1_000),
                "GUNICORN_CMD_ARGS": f"--graceful-timeout {HANGS_S}",
                "JOBMON_JWT_SECRET_KEY": SECRET,
                "JOBMON_ROLLUP_DB": f"signals_{free_port()}",
                "JOBMON_BIND": f"127.0.0.1:{free_port()}",
            }
            with log.open("w") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", *command],
                    stdout=output,
                    stderr=output,
                    env=environment | variables,
                    start_new_session=True,
                )
            cleanup.callback(end_process, process, None)
            return process

        yield start


def test_a_signal_around_the_end_of_a_start_ends_the_process(
    start: Start, mongod: Mongod, tmp_path: Path
) -> None:
    """Catches a signal that is ignored around the time when a command blocks signals."""
    started_at = time.monotonic()
    processes = [
        start(tmp_path / str(number), mongod.uri, "jobmon.cli", "collector") for number in range(4)
    ]
    log = tmp_path / "last"
    last_process = start(log, mongod.uri, "jobmon.cli", "collector")
    eventually(lambda: handles_signals(last_process, log))
    start_s = time.monotonic() - started_at
    for process in processes:
        process.send_signal(signal.SIGTERM)
        time.sleep(start_s / 200)
    last_process.send_signal(signal.SIGTERM)
    exit_codes = {process.wait(WITHIN_S) for process in [*processes, last_process]}
    # While a command still imports modules, the signal ends it like any Python program.
    assert exit_codes <= {0, 1, -signal.SIGTERM}
    assert last_process.returncode == 0


def handles_signals(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Whether the command blocks SIGTERM, and so handles the signal itself."""
    assert process.poll() is None, log.read_text()
    status = Path(f"/proc/{process.pid}/status").read_text()
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    return bool(blocked >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    ("command", "signal_number"), [("collector", signal.SIGTERM), ("workload", signal.SIGINT)]
)
def test_a_command_ends_without_an_answer_of_the_database(
    start: Start, silent_uri: str, tmp_path: Path, command: str, signal_number: signal.Signals
) -> None:
    log = tmp_path / "log"
    process = start(log, silent_uri, "jobmon.cli", command)
    eventually(lambda: handles_signals(process, log))
    assert end_process(process, signal_number, WITHIN_S) == 0


def test_a_command_ends_while_the_database_is_frozen(start: Start, tmp_path: Path) -> None:
    with Mongod(tmp_path / "db") as frozen:
        log = tmp_path / "log"
        process = start(log, frozen.uri, "jobmon.cli", "collector")
        eventually(lambda: handles_signals(process, log) and "first count: all" in log.read_text())
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            assert end_process(process, signal.SIGTERM, WITHIN_S) == 0
        finally:
            os.kill(frozen.pid, signal.SIGCONT)


def test_a_worker_ends_on_a_signal_from_its_first_moment(
    start: Start, tmp_path: Path, silent_uri: str
) -> None:
    """Catches a signal that is lost because a new worker still has the master's signal handler."""
    (tmp_path / "signal_at_fork.py").write_text(
        "import os, signal\n"
        "from jobmon.serving.gunicorn_config import *\n"
        "def post_fork(arbiter, worker):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    for _ in range(1000): pass\n"
        "    print('ignored', flush=True)\n"
    )
    log = tmp_path / "log"
    command = ("gunicorn", "--config", "python:signal_at_fork", "jobmon.app:create_app()")
    process = start(log, silent_uri, *command, PYTHONPATH=str(tmp_path))
    eventually(lambda: log.read_text().count("Booting worker") > 3)
    assert end_process(process, signal.SIGTERM, WITHIN_S) == 0
    assert "ignored" not in log.read_text()


def test_workers_that_still_load_the_app_end_on_a_signal(
    start: Start, tmp_path: Path, silent_uri: str
) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nprint('loading', flush=True)\nwhile True: time.sleep(0.01)\n"
    )
    log = tmp_path / "log"
    command = ("gunicorn", "--config", "python:jobmon.serving.gunicorn_config", "slow:app")
    process = start(log, silent_uri, *command, PYTHONPATH=str(tmp_path), JOBMON_WORKERS="2")
    eventually(lambda: log.read_text().count("loading") == 2)
    assert end_process(process, signal.SIGTERM, WITHIN_S) == 0


def test_a_service_with_a_collector_ends_without_an_answer_of_the_database(
    start: Start, tmp_path: Path, silent_uri: str
) -> None:
    log = tmp_path / "log"
    port = free_port()
    settings = {"JOBMON_COLLECTOR": "true", "JOBMON_BIND": f"127.0.0.1:{port}"}
    process = start(log, silent_uri, "jobmon.cli", "run", **settings)
    eventually(lambda: is_healthy(port))
    assert end_process(process, signal.SIGTERM, WITHIN_S) == 0


def is_healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S) as answer:
            return answer.status == 200
    except OSError:
        return False
