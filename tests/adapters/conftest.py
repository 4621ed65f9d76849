"""What other programs keep in MongoDB, written by these programs at work: Agenda, Celery.

Where one cannot run, its tests are skipped by name; in CI (`CI=true`) they fail.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ..waiting import eventually

HERE = Path(__file__).parent
LONGEST_S = 40
Ids = dict[str, Any]


def _finish(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    texts = {"capture_output": True, "text": True, "timeout": LONGEST_S}
    return subprocess.run(command, check=False, **texts, **options)


@pytest.fixture(scope="session")
def run_agenda() -> Callable[[str, str], Ids]:
    """Let Agenda of a version work in the database of a URI; the ids of its jobs by case."""
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("no npm: Agenda cannot run")
        pytest.skip("no npm: Agenda cannot run")
    lock, installed = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional"]
        done = _finish(command, cwd=HERE)
        if done.returncode and not os.environ.get("CI"):
            pytest.skip(f"Agenda cannot be installed: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr

    def run(version: str, uri: str) -> Ids:
        command = ["node", str(HERE / "agenda.mjs"), version, uri]
        done = _finish(command)
        assert done.returncode == 0, done.stderr
        ids: Ids = json.loads(done.stdout)
        return ids

    return run


@pytest.fixture(scope="session")
def run_celery(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str, bool], Ids]]:
    """Let Celery work, its results in the database of a URI, extended or not; ids by case."""
    workers = ExitStack()

    def run(uri: str, extended: bool) -> Ids:
        folder = tmp_path_factory.mktemp("celery")
        for name in ("messages", "control"):
            (folder / name).mkdir()
        environment = os.environ | {
            "CELERY_FOLDER": str(folder),
            "CELERY_RESULTS": uri,
            "CELERY_EXTENDED": str(int(extended)),
            "PYTHONWARNINGS": "ignore",  # that the tests' user may do too much, for instance
        }
        log = (folder / "log").open("w")
        script = [sys.executable, str(HERE / "celery_app.py")]
        worker = subprocess.Popen([*script, "work"], env=environment, stdout=log, stderr=log)
        workers.callback(log.close)
        workers.callback(worker.wait)
        workers.callback(worker.kill)
        done = _finish([*script, "send"], env=environment)
        assert done.returncode == 0, done.stderr + (folder / "log").read_text()
        worker.kill()  # in the midst of its work, as far as `run` and `progress` go
        eventually(lambda: worker.poll() is not None)
        ids: Ids = json.loads(done.stdout)
        return ids

    with workers:
        yield run
