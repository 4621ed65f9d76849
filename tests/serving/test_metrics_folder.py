"""The folder of request counts: catches the folder of a killed service that stays in memory for
ever, and the folder of a running service that another start removes."""

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

# Prints the folder and the process id of a child, as a master forks a worker.
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
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that contains the folders of all services."""
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


def test_folder_of_killed_service_is_removed_by_the_next_start(folders: Path) -> None:
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
    assert new_folder.parent == folders


def test_start_keeps_other_folders(folders: Path) -> None:
    (folders / "elsewhere").mkdir()
    (folders / "elsewhere" / "lock").touch()
    (folders / "jobmon-metrics-link").symlink_to(folders / "elsewhere")
    (folders / "jobmon-metrics-unlocked").mkdir()  # from a version without locks
    assert Path(metrics_folder.make_folder()).is_dir()
    assert (folders / "elsewhere" / "lock").exists()
    assert (folders / "jobmon-metrics-unlocked").exists()
