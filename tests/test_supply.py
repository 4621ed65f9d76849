"""The packages that jobmon ships: lock file, audit and bills of materials.

Catches a lock that does not match requirements.txt or names a registry, a known vulnerability that
is not reported, and a bill of materials without a package.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from flask import Flask, request
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .conftest import DATE, serve_over_http
from .support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "deploy/requirements.lock").read_text()
# (name, release, environment marker or "", lines with hashes) of each entry.
ENTRIES = re.findall(
    r"^([\w.-]+)==(\S+)(?: ; (.+?))? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    LOCK,
    re.MULTILINE,
)
NPM_LOCK = json.loads((ROOT / "jobmon/dashboard/package-lock.json").read_text())["packages"]


def test_lock_pins_every_requirement_within_its_range() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    extras = PROJECT["optional-dependencies"]
    lines += [line for name in Requirement(extras["all"][0]).extras for line in extras[name]]
    requirements = [
        Requirement(line.partition("#")[0]) for line in lines if not line.startswith("#")
    ]
    pinned: dict[str, list[str]] = {}
    for name, release, *_ in ENTRIES:
        pinned.setdefault(canonicalize_name(name), []).append(release)
    assert len(requirements) > 10
    for requirement in requirements:
        releases = pinned[canonicalize_name(requirement.name)]
        assert all(release in requirement.specifier for release in releases), requirement


def test_lock_has_only_entries_with_hashes() -> None:
    remainder = re.sub(r"^ +# .+\n|^#.*\n", "", LOCK, flags=re.MULTILINE)
    for name, release, marker, hashes in ENTRIES:
        remainder = remainder.replace(
            f"{name}=={release}{f' ; {marker}' if marker else ''} \\\n{hashes}", ""
        )
    assert remainder == ""


def test_lock_has_no_registry_and_no_local_path() -> None:
    assert re.findall(r"(?i)://|index-url|trusted-host|find-links|(?<!\w)/\w+/", LOCK) == []


@contextmanager
def serve_advisories(*, are_packages_vulnerable: bool) -> Iterator[tuple[str, ...]]:
    """Serve advisories over HTTP; yields the options with which the audit reads them.

    With `are_packages_vulnerable` there is an advisory for Flask and one for htmx.
    """
    app = Flask("advisories")

    @app.post("/osv")
    def answer_pip_audit() -> dict[str, Any]:
        query = request.get_json(force=True)  # pip-audit sends no content type
        package = query["package"]
        if not are_packages_vulnerable or package["name"] != "flask":
            return {}
        affected = {"package": package, "versions": [query["version"]], "ranges": []}
        advisory = {"id": "PYSEC-1", "modified": f"{DATE}T00:00:00Z", "published": None}
        return {"vulns": [{**advisory, "aliases": [], "details": "bad", "affected": [affected]}]}

    @app.post("/-/npm/v1/security/advisories/bulk")
    def answer_npm_audit() -> dict[str, Any]:
        advisory = {"id": 1, "url": "", "title": "bad", "severity": "high"}
        advisory["vulnerable_versions"] = "*"
        return {"htmx.org": [advisory]} if are_packages_vulnerable else {}

    with serve_over_http(app) as url:
        yield (f"--osv-url={url}/osv", f"--npm-registry={url}")


def run_audit(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci/audit.py"), f"--timeout-s={PATIENCE_S}", *options]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment or None
    )


def test_audit_with_a_known_vulnerability_fails_and_names_it() -> None:
    with serve_advisories(are_packages_vulnerable=True) as options:
        audit = run_audit(*options)
    assert audit.returncode == 1, audit.stdout + audit.stderr
    python_line, npm_line = audit.stdout.splitlines()
    assert python_line.startswith("audit: Python packages: VULNERABLE flask 3.")
    assert "PYSEC-1" in python_line
    assert npm_line.startswith("audit: npm packages: VULNERABLE htmx.org")


@pytest.mark.long
def test_audit_without_vulnerabilities_passes() -> None:
    with serve_advisories(are_packages_vulnerable=False) as options:
        audit = run_audit(*options)
    assert audit.returncode == 0
    assert audit.stdout.splitlines() == [
        "audit: Python packages: no known vulnerability",
        "audit: npm packages: no known vulnerability",
    ]


@pytest.mark.long
def test_audit_without_advisories_prints_not_checked_and_passes() -> None:
    unreachable = "http://127.0.0.1:1"
    audit = run_audit(f"--osv-url={unreachable}/osv", f"--npm-registry={unreachable}")
    assert audit.returncode == 0
    assert [line.partition(" (")[0] for line in audit.stdout.splitlines()] == [
        "audit: Python packages: NOT CHECKED, no advisories available",
        "audit: npm packages: NOT CHECKED, no advisories available",
    ]


@pytest.mark.long
def test_audit_without_npm_checks_the_python_packages() -> None:
    with serve_advisories(are_packages_vulnerable=True) as (osv_option, _):
        audit = run_audit(osv_option, PATH="/nowhere")
    assert audit.returncode == 1
    assert "VULNERABLE flask" in audit.stdout
    assert "npm packages: NOT CHECKED" in audit.stdout


@pytest.fixture(scope="module")
def bills_of_materials() -> list[dict[str, Any]]:
    """The two documents that `make sbom` creates: for the Python and for the npm packages."""
    if not shutil.which("make"):
        pytest.skip("no make")
    # -o: `make` does not update the virtual environment, which runs the tests.
    subprocess.run(
        ["make", "--silent", "-o", ".venv/dev", "sbom"], cwd=ROOT, check=True, capture_output=True
    )
    names = ("jobmon.cdx.json", "jobmon-dashboard.cdx.json")
    return [json.loads((ROOT / "dist" / name).read_text()) for name in names]


@pytest.mark.long
def test_bills_of_materials_are_valid_and_name_every_locked_package(
    bills_of_materials: list[dict[str, Any]],
) -> None:
    for bill in bills_of_materials:
        version = SchemaVersion.from_version(bill["specVersion"])
        assert JsonStrictValidator(version).validate_str(json.dumps(bill)) is None
    python, npm = (
        {(component["name"], component["version"]) for component in bill["components"]}
        for bill in bills_of_materials
    )
    assert python == {(name, release) for name, release, *_ in ENTRIES}
    assert npm == {
        (path.removeprefix("node_modules/"), package["version"])
        for path, package in NPM_LOCK.items()
        if path and not package.get("dev")
    }
    assert "file:" not in json.dumps(bills_of_materials)
