"""Runs, ends and lists the processes that tests start, with their children."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .waiting import PATIENCE_S


def end_process(
    process: subprocess.Popen[Any],
    signal_number: signal.Signals | None = signal.SIGTERM,
    within_s: float = PATIENCE_S,
) -> int:
    """Send a signal (None: SIGKILL as in `kill`), wait for the end, and return the exit code.

    If the process does not end in time, it is killed as in `kill`, and AssertionError is raised.
    """
    if signal_number is None:
        kill(process)
        return process.returncode
    process.send_signal(signal_number)
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        kill(process)
        raise AssertionError(f"{process.args} did not end in {within_s} s") from None


def kill(process: subprocess.Popen[Any]) -> None:
    """Send SIGKILL to a process, and to its group if it leads one; wait for the process's end."""
    with suppress(ProcessLookupError):
        # A group outlives its leader: its id is not reused while it has members.
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait(PATIENCE_S)


def run(command: list[str], timeout: float, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Like `subprocess.run`; at the end, even after a timeout, kill the command's process group."""
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            kill(process)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose parent ends (only on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def child_processes(pid: int) -> list[int]:
    """The ids of the direct children of a process."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def descendants(ancestor: int | None = None) -> dict[int, str]:
    """The command lines, by process id, of the running descendants of a process.

    The default `ancestor` is this process.
    """
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has just ended
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if state not in "ZX":
                parents[int(stat.parent.name)] = int(parent)
    command_lines: dict[int, str] = {}
    generation = {os.getpid() if ancestor is None else ancestor}
    while generation := {pid for pid, parent in parents.items() if parent in generation}:
        for pid in generation:
            with suppress(OSError):
                command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
                command_lines[pid] = command_line.replace(b"\0", b" ").decode(errors="replace")
    return command_lines


def await_no_descendants(within_s: float) -> dict[int, str]:
    """Wait until no descendant runs; after `within_s` kill the running ones and return them."""
    deadline = time.monotonic() + within_s
    while (running := descendants()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return running
