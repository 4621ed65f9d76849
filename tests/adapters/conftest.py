"""Fixtures that run Agenda and Celery, which write their own documents.

Tests of a program that cannot run are skipped with the reason. In CI (`CI=true`) they fail.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..support.waiting import PATIENCE_S

HERE = Path(__file__).parent
Ids = dict[str, Any]  # ids of jobs by case


def _run_command(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    options |= {"capture_output": True, "text": True, "timeout": PATIENCE_S}
    return subprocess.run(command, check=False, **options)


@pytest.fixture(scope="session")
def run_agenda() -> Callable[..., Ids]:
    """Run `agenda.mjs` with a version of Agenda on the database of a URI. Return its jobs' ids.

    With `logs`, version 6 logs its runs in agenda_logs.
    """
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("no npm: Agenda cannot run")
        pytest.skip("no npm: Agenda cannot run")
    _install_agenda()

    def run(version: str, uri: str, *, logs: bool = False) -> Ids:
        command = ["node", str(HERE / "agenda.mjs"), version, uri, *(["logs"] if logs else [])]
        done = _run_command(command)
        assert done.returncode == 0, done.stderr
        ids: Ids = json.loads(done.stdout)
        return ids

    return run


@pytest.fixture(scope="session")
def run_due_jobs(run_agenda: Callable[..., Ids]) -> Callable[..., dict[str, int]]:
    """Run the due jobs with these names. Return the number of runs of each name."""

    def run(version: str, uri: str, *names: str) -> dict[str, int]:
        done = _run_command(["node", str(HERE / "agenda_runs.mjs"), version, uri, *names])
        assert done.returncode == 0, done.stderr
        runs: dict[str, int] = json.loads(done.stdout)
        return runs

    return run


def _install_agenda() -> None:
    """Install the packages of Agenda if they are missing; parallel processes wait for the lock."""
    required, installed = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    with required.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= required.stat().st_mtime:
            return
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional"]
        done = _run_command(command, cwd=HERE)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"Agenda cannot be installed: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def run_celery() -> Callable[[str, bool], Ids]:
    """Run `celery_app.py` on the database of a URI, extended or not. Return the ids."""

    def run(uri: str, extended: bool) -> Ids:
        command = [sys.executable, str(HERE / "celery_app.py"), uri, str(int(extended))]
        # Celery warns, for example, that the tests run as root.
        done = _run_command(command, env=os.environ | {"PYTHONWARNINGS": "ignore"})
        assert done.returncode == 0, done.stderr
        ids: Ids = json.loads(done.stdout)
        return ids

    return run
