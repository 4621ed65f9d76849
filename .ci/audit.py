"""Known vulnerabilities in what is shipped: the locked Python packages, and what the pages load.

Exits with 1 if there is one. Where the advisories cannot be had it says so and goes on: a build
must not depend on whether somebody else's server answers.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "deploy/requirements.lock"
DASHBOARD = ROOT / "jobmon/dashboard"
PATIENCE_S = 15


class NoAdvisoriesError(Exception):
    """Nothing was learnt; the message says why."""


def python_packages(osv_url: str | None) -> list[str]:
    """The vulnerable ones of the lock file, for the Python that runs this."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes"]
    command += ["--disable-pip", "--format=json", "--progress-spinner=off", "--timeout=5"]
    if osv_url:
        command += ["--vulnerability-service=osv", f"--osv-url={osv_url}"]
    audited = _answer(command)["dependencies"]
    unknown = [package["name"] for package in audited if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {_names(vulnerability)}"
        for package in audited
        for vulnerability in package.get("vulns", ())
    ]
    if unknown and not found:
        raise NoAdvisoriesError(f"{len(unknown)} of {len(audited)} packages are not known there")
    return found


def npm_packages(registry: str | None) -> list[str]:
    """The vulnerable ones of what the pages load."""
    command = ["npm", "audit", "--json", "--omit=dev", "--package-lock-only", "--fetch-retries=0"]
    if registry:
        command += [f"--registry={registry}"]
    answer = _answer(command, DASHBOARD)
    if "vulnerabilities" not in answer:
        raise NoAdvisoriesError(str(answer.get("message", "no answer")).partition(" - ")[0])
    return [
        f"{name} {found['range']}: {found['severity']}"
        for name, found in answer["vulnerabilities"].items()
    ]


def _names(vulnerability: dict[str, Any]) -> str:
    fixed = ", ".join(vulnerability["fix_versions"]) or "no release"
    return f"{vulnerability['id']}, fixed in {fixed}"


def _answer(command: list[str], folder: Path = ROOT) -> dict[str, Any]:
    """What a command prints as JSON; both of ours fail with a vulnerability, too."""
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | {"PATH": f"{os.environ['PATH']}:{Path(sys.executable).parent}"},
            timeout=PATIENCE_S,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise NoAdvisoriesError(f"no answer in {PATIENCE_S} s") from None
    except OSError as error:
        raise NoAdvisoriesError(str(error)) from None
    except ValueError:
        said = done.stderr.strip().splitlines()
        raise NoAdvisoriesError(said[-1][:100] if said else "no answer") from None
    return answer


def main() -> int:
    """Ask for both at once and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--osv-url", help="ask this OSV service about Python, not the registry")
    parser.add_argument("--npm-registry", help="ask this registry about npm")
    given = parser.parse_args()
    asked: dict[str, tuple[Callable[[str | None], list[str]], str | None]] = {
        "Python packages": (python_packages, given.osv_url),
        "npm packages": (npm_packages, given.npm_registry),
    }
    failed = False
    with ThreadPoolExecutor() as pool:
        answers = {what: pool.submit(ask, where) for what, (ask, where) in asked.items()}
    for what, answer in answers.items():
        try:
            found = answer.result()
        except NoAdvisoriesError as error:
            print(f"audit: {what}: NOT CHECKED, no advisories to be had here ({error})")
            continue
        for line in found:
            print(f"audit: {what}: VULNERABLE {line}")
        if not found:
            print(f"audit: {what}: no known vulnerability")
        failed = failed or bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
