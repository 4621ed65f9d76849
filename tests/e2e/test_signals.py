"""SIGTERM and SIGINT: catches a signal that is lost during a start, and a stop that waits for a
database that does not answer."""

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
from ..support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.long

# The docs promise a stop within two seconds, which was measured by hand. A busy machine may need
# ten times as long. A stop that waits for the database, or for a worker, would take `HANGS_S`.
WITHIN_S = 60
HANGS_S = 120
STARTS = 4

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a database that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        yield f"mongodb://127.0.0.1:{server.getsockname()[1]}/?"


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts `jobmon` commands on the database `signals`, killed after the test."""
    with ExitStack() as running:

        def start(log: Path, uri: str, *command: str, **more: str) -> subprocess.Popen[bytes]:
            uri = uri.replace("/?", "/signals?")
            inherited = os.environ.items()
            kept = {name: value for name, value in inherited if not name.startswith("JOBMON_")}
            environment = kept | {
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
                    env=environment | more,
                    start_new_session=True,
                )
            running.callback(end_process, process, None)
            return process

        yield start


def test_a_signal_at_any_moment_of_a_start_ends_it(
    start: Start, mongod: Mongod, tmp_path: Path
) -> None:
    """All commands start at the same time, because a start is slow."""
    started_at = time.monotonic()
    started = [
        start(tmp_path / str(moment), mongod.uri, "jobmon.cli", "collector")
        for moment in range(STARTS)
    ]
    log = tmp_path / "first"
    first = start(log, mongod.uri, "jobmon.cli", "collector")
    eventually(lambda: is_at_work(first, log))
    span_s = time.monotonic() - started_at
    for process in started:
        # Around the moment in which the commands install their signal handlers.
        process.send_signal(signal.SIGTERM)
        time.sleep(span_s / 200)
    first.send_signal(signal.SIGTERM)
    codes = {process.wait(WITHIN_S) for process in [*started, first]}
    # A command that was still importing ends by the signal, like any Python program.
    assert codes <= {0, 1, -signal.SIGTERM}
    assert first.returncode == 0


def is_at_work(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Whether the command blocks SIGTERM, and so handles the signal itself."""
    assert process.poll() is None, log.read_text()
    status = Path(f"/proc/{process.pid}/status").read_text()
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    return bool(blocked >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize(
    ("command", "number"), [("collector", signal.SIGTERM), ("workload", signal.SIGINT)]
)
def test_a_command_ends_without_an_answer_of_the_database(
    start: Start, silent: str, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    process = start(log, silent, "jobmon.cli", command)
    eventually(lambda: is_at_work(process, log))
    assert end_process(process, number, WITHIN_S) == 0


def test_a_command_ends_while_the_database_is_frozen(start: Start, tmp_path: Path) -> None:
    with Mongod(tmp_path / "db") as frozen:
        log = tmp_path / "log"
        process = start(log, frozen.uri, "jobmon.cli", "collector")
        eventually(lambda: is_at_work(process, log) and "first count: all" in log.read_text())
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            assert end_process(process, signal.SIGTERM, WITHIN_S) == 0
        finally:
            os.kill(frozen.pid, signal.SIGCONT)


def test_a_worker_ends_on_a_signal_from_its_first_moment(
    start: Start, tmp_path: Path, silent: str
) -> None:
    """Catches a signal that is lost because a new worker still has the handler of the master."""
    (tmp_path / "at_once.py").write_text(
        "import os, signal\n"
        "from jobmon.serving.gunicorn_config import *\n"
        "def post_fork(arbiter, worker):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    for _ in range(1000): pass\n"
        "    print('ignored', flush=True)\n"
    )
    log = tmp_path / "log"
    command = ("gunicorn", "--config", "python:at_once", "jobmon.app:create_app()")
    process = start(log, silent, *command, PYTHONPATH=str(tmp_path))
    eventually(lambda: log.read_text().count("Booting worker") > 3)
    assert end_process(process, signal.SIGTERM, WITHIN_S) == 0
    assert "ignored" not in log.read_text()


def test_workers_that_load_the_app_end_at_once(start: Start, tmp_path: Path, silent: str) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nprint('loading', flush=True)\nwhile True: time.sleep(0.01)\n"
    )
    log = tmp_path / "log"
    command = ("gunicorn", "--config", "python:jobmon.serving.gunicorn_config", "slow:app")
    process = start(log, silent, *command, PYTHONPATH=str(tmp_path), JOBMON_WORKERS="2")
    eventually(lambda: log.read_text().count("loading") == 2)
    assert end_process(process, signal.SIGTERM, WITHIN_S) == 0


def test_a_service_with_a_collector_ends_without_an_answer_of_the_database(
    start: Start, tmp_path: Path, silent: str
) -> None:
    log = tmp_path / "log"
    port = free_port()
    more = {"JOBMON_COLLECTOR": "true", "JOBMON_BIND": f"127.0.0.1:{port}"}
    process = start(log, silent, "jobmon.cli", "run", **more)
    eventually(lambda: answers(port))
    assert end_process(process, signal.SIGTERM, WITHIN_S) == 0


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S) as answer:
            return answer.status == 200
    except OSError:
        return False
