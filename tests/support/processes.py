"""Processes that tests start: each one ends within a time limit, with its children."""

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
    """Send a signal (None: SIGKILL) and return the exit code.

    If the process does not end in time, kill it and fail. A process that leads a group is killed
    with its group.
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
    """Send SIGKILL to a process, or to its group if it leads one."""
    with suppress(ProcessLookupError):
        # A group outlives its leader: its id is not reused while it has members.
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait(PATIENCE_S)


def run(command: list[str], timeout: float, **options: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run`, but a timeout also kills the processes that the command started."""
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:
            kill(process)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def child_processes(pid: int) -> list[int]:
    """The ids of the direct children of a process."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def descendants(ancestor: int | None = None) -> dict[int, str]:
    """The running descendants of a process, by default this one: command lines by id."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if state not in "ZX":
                parents[int(stat.parent.name)] = int(parent)
    commands: dict[int, str] = {}
    generation = {os.getpid() if ancestor is None else ancestor}
    while generation := {pid for pid, parent in parents.items() if parent in generation}:
        for pid in generation:
            with suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                commands[pid] = line.replace(b"\0", b" ").decode(errors="replace")
    return commands


def await_no_descendants(within_s: float) -> dict[int, str]:
    """Wait until no descendant runs; after `within_s` kill the running ones and return them."""
    deadline = time.monotonic() + within_s
    while (running := descendants()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return running
