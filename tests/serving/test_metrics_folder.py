"""The folder of request counts: catches one of a killed service that stays in memory for ever, and
one of a running service that another start removes."""

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
    with subprocess.Popen([sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        folder, worker = it.stdout.readline().split()
        try:
            yield Path(folder), it, int(worker)
        finally:
            it.kill()
            with suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)
            it.stdout.read()  # ends when the worker has ended


def test_folder_of_killed_service_is_removed_by_the_next_start(folders: Path) -> None:
    with running_service() as (folder, master, _):
        (folder / "counter_1.db").write_bytes(b"1")
        metrics_folder.make_folder()
        assert folder.is_dir(), "it is in use"
        master.kill()
        master.wait()
        metrics_folder.make_folder()
        assert folder.is_dir(), "its worker still runs"
    own = Path(metrics_folder.make_folder())
    assert not folder.exists()
    assert own.parent == folders


def test_start_keeps_what_it_did_not_make(folders: Path) -> None:
    (folders / "elsewhere").mkdir()
    (folders / "elsewhere" / "lock").touch()
    (folders / "jobmon-metrics-link").symlink_to(folders / "elsewhere")
    (folders / "jobmon-metrics-unlocked").mkdir()  # by a version that has no locks
    assert Path(metrics_folder.make_folder()).is_dir()
    assert (folders / "elsewhere" / "lock").exists()
    assert (folders / "jobmon-metrics-unlocked").exists()
