"""The folder of request counters.

Catches a folder that stays after its service was killed, and a start that removes the folder of a
running service.
"""

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

# Like gunicorn's master, this makes the folder and forks a worker. It prints the folder and the
# worker's process id.
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
def parent_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which each service makes its own folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@contextmanager
def run_service() -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Run a service during the block; yields its folder and its master process."""
    command = [sys.executable, "-c", SERVICE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as master:
        assert master.stdout is not None
        folder, worker_pid = master.stdout.readline().split()
        try:
            yield Path(folder), master
        finally:
            master.kill()
            with suppress(ProcessLookupError):
                os.kill(int(worker_pid), signal.SIGKILL)
            master.stdout.read()  # returns when the worker, too, has ended


def test_folder_of_killed_service_is_removed_by_the_next_start(parent_folder: Path) -> None:
    with run_service() as (folder, master):
        (folder / "counter_1.db").write_bytes(b"1")
        metrics_folder.make_folder()
        assert folder.is_dir(), "the service still runs"
        master.kill()
        master.wait()
        metrics_folder.make_folder()
        assert folder.is_dir(), "the worker still runs"
    new_folder = Path(metrics_folder.make_folder())
    assert not folder.exists()
    assert new_folder.parent == parent_folder


def test_start_keeps_links_and_folders_without_a_lock(parent_folder: Path) -> None:
    (parent_folder / "elsewhere").mkdir()
    (parent_folder / "elsewhere" / "lock").touch()
    (parent_folder / "jobmon-metrics-link").symlink_to(parent_folder / "elsewhere")
    (parent_folder / "jobmon-metrics-unlocked").mkdir()
    assert Path(metrics_folder.make_folder()).is_dir()
    assert (parent_folder / "elsewhere" / "lock").exists()
    assert (parent_folder / "jobmon-metrics-unlocked").exists()
