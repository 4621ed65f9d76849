"""What is shipped beside our own code: would catch a lock that no longer fits requirements.txt or
names a registry, a known vulnerability that is passed over, and a bill that lacks a part."""

import json
import re
import shutil
import subprocess
import sys
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

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "deploy/requirements.lock").read_text()
# Name, release, marker and hashes of each entry.
ENTRIES = re.findall(
    r"^([\w.-]+)==(\S+)(?: ; (.+?))? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    LOCK,
    re.MULTILINE,
)
PAGES = json.loads((ROOT / "jobmon/dashboard/package-lock.json").read_text())["packages"]


def test_the_lock_pins_every_requirement_within_its_range() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [Requirement(line.partition("#")[0]) for line in lines if not line.startswith("#")]
    pinned: dict[str, list[str]] = {}
    for name, release, *_ in ENTRIES:
        pinned.setdefault(canonicalize_name(name), []).append(release)
    assert len(wanted) > 10
    for requirement in wanted:
        releases = pinned[canonicalize_name(requirement.name)]
        assert all(release in requirement.specifier for release in releases), requirement


def test_every_entry_of_the_lock_has_hashes_and_no_line_is_anything_else() -> None:
    rest = re.sub(r"^ +# .+\n|^#.*\n", "", LOCK, flags=re.MULTILINE)
    for name, release, marker, hashes in ENTRIES:
        rest = rest.replace(f"{name}=={release}{f' ; {marker}' if marker else ''} \\\n{hashes}", "")
    assert rest == ""


def test_the_lock_names_no_registry_and_no_place_on_somebodys_machine() -> None:
    assert re.findall(r"(?i)://|index-url|trusted-host|find-links|(?<!\w)/\w+/", LOCK) == []


@contextmanager
def advisories(vulnerable: bool) -> Iterator[tuple[str, ...]]:
    """A service that knows everything of us, good or bad; the audit's options to ask it."""
    app = Flask("advisories")

    @app.post("/osv")
    def osv() -> dict[str, Any]:
        asked_for = request.get_json(force=True)  # it says no type
        asked = asked_for["package"]
        if not vulnerable or asked["name"] != "flask":
            return {}
        affected = {"package": asked, "versions": [asked_for["version"]], "ranges": []}
        told = {"id": "PYSEC-1", "modified": f"{DATE}T00:00:00Z", "published": None}
        return {"vulns": [{**told, "aliases": [], "details": "bad", "affected": [affected]}]}

    @app.post("/-/npm/v1/security/advisories/bulk")
    def bulk() -> dict[str, Any]:
        advisory = {"id": 1, "url": "", "title": "bad", "severity": "high"}
        known = [advisory | {"vulnerable_versions": "*"}]
        return {"htmx.org": known} if vulnerable else {}

    with serve_over_http(app) as url:
        yield (f"--osv-url={url}/osv", f"--npm-registry={url}")


def audit(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci/audit.py"), *options]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment or None
    )


def test_a_known_vulnerability_fails_the_audit_and_is_named() -> None:
    with advisories(vulnerable=True) as service:
        done = audit(*service)
    assert done.returncode == 1, done.stdout + done.stderr
    python, npm = done.stdout.splitlines()
    assert python.startswith("audit: Python packages: VULNERABLE flask 3.")
    assert "PYSEC-1" in python
    assert npm.startswith("audit: npm packages: VULNERABLE htmx.org")


def test_no_known_vulnerability_passes() -> None:
    with advisories(vulnerable=False) as service:
        done = audit(*service)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "audit: Python packages: no known vulnerability",
        "audit: npm packages: no known vulnerability",
    ]


def test_advisories_that_cannot_be_had_are_said_and_do_not_stop_a_build() -> None:
    nobody = "http://127.0.0.1:1"
    done = audit(f"--osv-url={nobody}/osv", f"--npm-registry={nobody}")
    assert done.returncode == 0
    assert [line.partition(" (")[0] for line in done.stdout.splitlines()] == [
        "audit: Python packages: NOT CHECKED, no advisories to be had here",
        "audit: npm packages: NOT CHECKED, no advisories to be had here",
    ]


def test_without_npm_the_rest_is_audited() -> None:
    with advisories(vulnerable=True) as (osv, _):
        done = audit(osv, PATH="/nowhere")
    assert done.returncode == 1
    assert "VULNERABLE flask" in done.stdout
    assert "npm packages: NOT CHECKED" in done.stdout


@pytest.fixture(scope="module")
def bills() -> list[dict[str, Any]]:
    """What `make sbom` makes."""
    if not shutil.which("make"):
        pytest.skip("no make")
    # -o: the environment that the tests run in is the one to use.
    subprocess.run(
        ["make", "--silent", "-o", ".venv/dev", "sbom"], cwd=ROOT, check=True, capture_output=True
    )
    names = ("jobmon.cdx.json", "jobmon-dashboard.cdx.json")
    return [json.loads((ROOT / "dist" / name).read_text()) for name in names]


def test_the_bills_are_valid_and_name_every_locked_part(bills: list[dict[str, Any]]) -> None:
    for bill in bills:
        version = SchemaVersion.from_version(bill["specVersion"])
        assert JsonStrictValidator(version).validate_str(json.dumps(bill)) is None
    python, npm = (
        {(part["name"], part["version"]) for part in bill["components"]} for bill in bills
    )
    assert python == {(name, release) for name, release, *_ in ENTRIES}
    assert npm == {
        (path.removeprefix("node_modules/"), part["version"])
        for path, part in PAGES.items()
        if path and not part.get("dev")
    }
    assert not any("file:" in json.dumps(bill) for bill in bills)
