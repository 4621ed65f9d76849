"""The systemd units in `deploy/systemd`.

Catches a directive that systemd does not know, a process with more rights than it needs or with the
secret of another process, and a unit whose command differs from the compose file's.
"""

import os
import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "deploy/systemd"
NAMES = sorted(file.stem.removeprefix("jobmon-") for file in UNITS.glob("jobmon-*.service"))
PAGE = (ROOT / "docs/systemd.md").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
CREDENTIALS = "/etc/jobmon/credentials/"


def analyze(*arguments: str) -> str:
    """The output of `systemd-analyze`, which must succeed."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing: apt-get install systemd"
        pytest.skip("no systemd-analyze")
    process = subprocess.run([tool, *arguments], check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


@pytest.fixture(scope="module")
def host_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root folder of a host that has the units, and the programs and targets that they name."""
    root = tmp_path_factory.mktemp("host")
    shutil.copytree(UNITS, root / "etc/systemd/system")
    for program in ("opt/jobmon/bin/jobmon", "bin/sh"):
        (root / program).parent.mkdir(parents=True)
        (root / program).touch(mode=0o755)
    targets = root / "usr/lib/systemd/system"
    targets.mkdir(parents=True)
    for name in ("basic", "multi-user", "network-online", "shutdown", "sysinit"):
        (targets / f"{name}.target").write_text("[Unit]\n")  # an empty file masks a unit
    return root


class Unit(NamedTuple):
    """The directives of a unit that the tests read."""

    command: list[str]
    variables: dict[str, str]
    credentials: dict[str, str]  # the file of each credential, by its name


def read_unit(name: str) -> Unit:
    lines = (UNITS / f"jobmon-{name}.service").read_text().splitlines()
    values: dict[str, list[str]] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values.setdefault(key, []).append(value)
    (command,) = values["ExecStart"]
    assignments = " ".join(values["Environment"]).split()
    credentials = dict(value.split(":") for value in values["LoadCredential"])
    variables = dict(assignment.split("=", 1) for assignment in assignments)
    return Unit(command.split(), variables, credentials)


def test_each_process_of_jobmon_has_a_unit() -> None:
    assert set(NAMES) == {"web", "collector", "actor", "init", "init-actor"}


@pytest.mark.parametrize("name", NAMES)
def test_systemd_accepts_the_unit_without_a_warning(host_root: Path, name: str) -> None:
    warnings = analyze(f"--root={host_root}", "verify", f"jobmon-{name}.service")
    assert warnings.strip() == ""


@pytest.mark.parametrize("name", NAMES)
def test_systemd_rates_the_exposure_of_the_unit_as_low(host_root: Path, name: str) -> None:
    """Catches a lost hardening directive. A unit without hardening has an exposure of 9.6."""
    options = (f"--root={host_root}", "security", "--offline=true", "--no-pager")
    report = analyze(*options, f"jobmon-{name}.service")
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert float(exposure) <= 1.2
    (documented,) = re.findall(r"exposure of each unit as ([\d.]+) of 10", PAGE)
    # Another version of systemd checks other directives, so its rating may be 0.1 higher.
    assert float(documented) >= float(exposure) - 0.1


@pytest.mark.parametrize("name", NAMES)
def test_unit_runs_the_command_of_the_compose_service(name: str) -> None:
    command = read_unit(name).command
    assert command[0] == "/opt/jobmon/bin/jobmon"
    expected = COMPOSE[name].get("command", ["jobmon", "run"])[1:]
    # The unit expects an existing queue: it creates no replica set and no collection.
    expected = [word for word in expected if word not in ("--create", "--unique")]
    if "--replica-set" in expected:
        index = expected.index("--replica-set")
        del expected[index : index + 2]
    assert command[1:] == expected


@pytest.mark.parametrize("name", NAMES)
def test_unit_reads_only_its_own_secrets_from_files(name: str) -> None:
    """Catches a secret in the environment, and a process with the secret of another process."""
    _, variables, credentials = read_unit(name)
    secrets = {
        variable
        for variable, value in COMPOSE[name]["environment"].items()
        if "PASSWORD" in value or variable.endswith("_SECRET_KEY")
    }
    if name == "init":
        secrets.discard("JOBMON_JWT_SECRET_KEY")  # in compose, `init` only checks it
    assert set(variables) == {f"{variable}_FILE" for variable in secrets}
    assert {value.removeprefix("%d/") for value in variables.values()} == set(credentials)
    assert all(file.startswith(CREDENTIALS) for file in credentials.values())
    for file in credentials.values():
        assert file.removeprefix(CREDENTIALS) in PAGE


def test_each_process_has_its_own_connection_string() -> None:
    files = [read_unit(name).credentials["mongo-uri"] for name in ("web", "collector", "actor")]
    assert len(set(files)) == 3


def test_systemd_leaves_the_stop_of_the_web_service_to_gunicorn() -> None:
    """Catches requests that a stop cuts off: gunicorn gives its workers 20 s to answer them."""
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / "jobmon-web.service")
    assert unit["Service"]["KillMode"] == "mixed"
    assert int(unit["Service"]["TimeoutStopSec"]) > 20
    assert unit["Service"]["Type"] == "notify"
