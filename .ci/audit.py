"""Report known vulnerabilities in the locked Python packages and the pages' npm packages.

Exit with 1 if there is one. If no advisories are available, print NOT CHECKED: that is no failure,
because a build must not depend on another server.
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


class NoAdvisoriesError(Exception):
    """No advisories are available; the message has the reason."""


def audit_python_packages(osv_url: str | None, timeout_s: int) -> list[str]:
    """One line for each vulnerability of the locked packages that this version of Python needs.

    Raises NoAdvisoriesError. `osv_url`: the OSV service to query, instead of PyPI.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes"]
    command += ["--disable-pip", "--format=json", "--progress-spinner=off"]
    command += [f"--timeout={timeout_s // 3}"]
    if osv_url:
        command += ["--vulnerability-service=osv", f"--osv-url={osv_url}"]
    audited = _run_json(command, timeout_s)["dependencies"]
    unknown = [package["name"] for package in audited if "skip_reason" in package]
    vulnerable = [
        f"{package['name']} {package['version']}: {_describe(vulnerability)}"
        for package in audited
        for vulnerability in package.get("vulns", ())
    ]
    if unknown and not vulnerable:
        raise NoAdvisoriesError(
            f"{len(unknown)} of {len(audited)} packages are unknown to the service"
        )
    return vulnerable


def audit_npm_packages(registry: str | None, timeout_s: int) -> list[str]:
    """One line for each vulnerable npm package that the pages load. Raises NoAdvisoriesError."""
    command = ["npm", "audit", "--json", "--omit=dev", "--package-lock-only", "--fetch-retries=0"]
    if registry:
        command += [f"--registry={registry}"]
    answer = _run_json(command, timeout_s, DASHBOARD)
    if "vulnerabilities" not in answer:
        raise NoAdvisoriesError(str(answer.get("message", "no answer")).partition(" - ")[0])
    return [
        f"{name} {package['range']}: {package['severity']}"
        for name, package in answer["vulnerabilities"].items()
    ]


def _describe(vulnerability: dict[str, Any]) -> str:
    fix_versions = ", ".join(vulnerability["fix_versions"]) or "no release"
    return f"{vulnerability['id']}, fixed in {fix_versions}"


def _run_json(command: list[str], timeout_s: int, folder: Path = ROOT) -> dict[str, Any]:
    """The JSON output of a command, whatever its exit code. Raises NoAdvisoriesError."""
    try:
        completed = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | {"PATH": f"{os.environ['PATH']}:{Path(sys.executable).parent}"},
            timeout=timeout_s,
        )
        answer: dict[str, Any] = json.loads(completed.stdout)
    except subprocess.TimeoutExpired:
        raise NoAdvisoriesError(f"no answer in {timeout_s} s") from None
    except OSError as error:
        raise NoAdvisoriesError(str(error)) from None
    except ValueError:
        errors = completed.stderr.strip().splitlines()
        raise NoAdvisoriesError(errors[-1][:100] if errors else "no answer") from None
    return answer


def main() -> int:
    """Query both services in parallel and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--osv-url", help="query this OSV service about Python packages, instead of PyPI"
    )
    parser.add_argument("--npm-registry", help="query this registry about npm packages")
    parser.add_argument("--timeout-s", type=int, default=15, help="the longest wait for a service")
    arguments = parser.parse_args()
    audits: dict[str, tuple[Callable[[str | None, int], list[str]], str | None]] = {
        "Python packages": (audit_python_packages, arguments.osv_url),
        "npm packages": (audit_npm_packages, arguments.npm_registry),
    }
    failed = False
    with ThreadPoolExecutor() as pool:
        results = {
            name: pool.submit(audit, url, arguments.timeout_s)
            for name, (audit, url) in audits.items()
        }
    for name, result in results.items():
        try:
            vulnerable = result.result()
        except NoAdvisoriesError as error:
            print(f"audit: {name}: NOT CHECKED, no advisories available ({error})")
            continue
        for line in vulnerable:
            print(f"audit: {name}: VULNERABLE {line}")
        if not vulnerable:
            print(f"audit: {name}: no known vulnerability")
        failed = failed or bool(vulnerable)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
