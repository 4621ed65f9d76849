"""The folder of request counters: catches a folder that stays in memory after its service was
killed, and a start that removes the folder of a running service."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jobmon.serving import metrics_folder

# Like gunicorn's master: makes the folder, forks a worker, prints the folder and the worker's id.
SERVICE = """
import os, time
from jobmon.serving import metrics_folder
folder = metrics_folder.make_folder()
worker = os.fork()
if worker:
    print(folder, worker, flush=True)
time.sleep(60)
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, empty at first, in which each service makes its own folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@contextmanager
def running_service() -> Iterator[tuple[Path, subprocess.Popen[str], int]]:
    """The folder of a service, its master, and the process id of its worker."""
    command = [sys.executable, "-c", SERVICE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout is not None
        folder, worker = master.stdout.readline().split()
        try:
            yield Path(folder), master, int(worker)
        finally:
            master.kill()
            with suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)
            master.stdout.read()  # ends when the worker has ended


def test_folder_of_killed_service_is_removed_by_the_next_start(parent: Path) -> None:
    with running_service() as (folder, master, _):
        (folder / "counter_1.db").write_bytes(b"1")
        metrics_folder.make_folder()
        assert folder.is_dir(), "it is in use"
        master.kill()
        master.wait()
        metrics_folder.make_folder()
        assert folder.is_dir(), "its worker still runs"
    new_folder = Path(metrics_folder.make_folder())
    assert not folder.exists()
    assert new_folder.parent == parent


def test_start_keeps_other_folders(parent: Path) -> None:
    (parent / "elsewhere").mkdir()
    (parent / "elsewhere" / "lock").touch()
    (parent / "jobmon-metrics-link").symlink_to(parent / "elsewhere")
    (parent / "jobmon-metrics-unlocked").mkdir()  # from a version without locks
    assert Path(metrics_folder.make_folder()).is_dir()
    assert (parent / "elsewhere" / "lock").exists()
    assert (parent / "jobmon-metrics-unlocked").exists()
