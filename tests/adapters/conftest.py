"""Fixtures that run Agenda and Celery, which write their own documents.

If Agenda cannot be installed, its tests are skipped with the reason; if `CI` is set, they fail.
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
    """A function that runs a version of Agenda on the database of a URI; it returns the job ids.

    It runs `agenda.mjs`. With `logs`, version 6 logs its runs in agenda_logs.
    """
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("no npm: Agenda cannot run")
        pytest.skip("no npm: Agenda cannot run")
    _install_agenda()

    def run(version: str, uri: str, *, logs: bool = False) -> Ids:
        command = ["node", str(HERE / "agenda.mjs"), version, uri, *(["logs"] if logs else [])]
        result = _run_command(command)
        assert result.returncode == 0, result.stderr
        ids: Ids = json.loads(result.stdout)
        return ids

    return run


@pytest.fixture(scope="session")
def run_due_jobs(run_agenda: Callable[..., Ids]) -> Callable[..., dict[str, int]]:
    """A function that runs the due jobs with these names; it returns the number of runs by name."""

    def run(version: str, uri: str, *names: str) -> dict[str, int]:
        result = _run_command(["node", str(HERE / "agenda_runs.mjs"), version, uri, *names])
        assert result.returncode == 0, result.stderr
        runs: dict[str, int] = json.loads(result.stdout)
        return runs

    return run


def _install_agenda() -> None:
    """Install the packages of Agenda if they are missing or old; parallel processes wait."""
    required, installed = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    with required.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= required.stat().st_mtime:
            return
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=optional"]
        result = _run_command(command, cwd=HERE)
    if result.returncode and not os.environ.get("CI"):
        pytest.skip(f"Agenda cannot be installed: {result.stderr[-300:]}")
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="session")
def run_celery() -> Callable[[str, bool], Ids]:
    """A function that runs Celery on the database of a URI; it returns the task ids by case."""

    def run(uri: str, extended: bool) -> Ids:
        command = [sys.executable, str(HERE / "celery_app.py"), uri, str(int(extended))]
        # Celery warns, for example, that the tests run as root.
        result = _run_command(command, env=os.environ | {"PYTHONWARNINGS": "ignore"})
        assert result.returncode == 0, result.stderr
        ids: Ids = json.loads(result.stdout)
        return ids

    return run
