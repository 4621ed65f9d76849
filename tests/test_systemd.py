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

import pytest
import yaml

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "deploy/systemd"
NAMES = sorted(file.stem.removeprefix("jobmon-") for file in UNITS.glob("jobmon-*.service"))
PAGE = (ROOT / "docs/systemd.md").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
CREDENTIALS = "/etc/jobmon/credentials/"


def systemd_analyze(*arguments: str) -> str:
    """The output of `systemd-analyze`, which must succeed."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        assert not os.environ.get("CI"), "systemd-analyze is missing: apt-get install systemd"
        pytest.skip("no systemd-analyze")
    done = subprocess.run([tool, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def read_unit(name: str) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """A unit's command, its environment variables, and the file of each credential."""
    lines = (UNITS / f"jobmon-{name}.service").read_text().splitlines()
    values: dict[str, list[str]] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values.setdefault(key, []).append(value)
    (command,) = values["ExecStart"]
    assignments = " ".join(values["Environment"]).split()
    loaded = dict(value.split(":") for value in values["LoadCredential"])
    return command.split(), dict(item.split("=", 1) for item in assignments), loaded


def test_units_exist_for_each_process_of_compose() -> None:
    assert set(NAMES) == {"web", "collector", "actor", "init", "init-actor"}


@pytest.mark.parametrize("name", NAMES)
def test_systemd_accepts_the_unit_without_a_warning(host: Path, name: str) -> None:
    found = systemd_analyze(f"--root={host}", "verify", f"jobmon-{name}.service")
    assert found.strip() == ""


@pytest.mark.parametrize("name", NAMES)
def test_units_expose_little(host: Path, name: str) -> None:
    """Catches a hardening directive that was lost. Without any, a unit is rated 9.6 of 10."""
    options = (f"--root={host}", "security", "--offline=true", "--no-pager")
    found = systemd_analyze(*options, f"jobmon-{name}.service")
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", found)
    assert float(exposure) <= 1.2
    (documented,) = re.findall(r"exposure of each unit as ([\d.]+) of 10", PAGE)
    assert float(documented) >= float(exposure) - 0.1


@pytest.mark.parametrize("name", NAMES)
def test_units_run_the_commands_of_compose(name: str) -> None:
    command, _, _ = read_unit(name)
    assert command[0] == "/opt/jobmon/bin/jobmon"
    service = COMPOSE[name].get("command", ["jobmon", "run"])[1:]
    # MongoDB is there already: no replica set, no empty collections.
    service = [word for word in service if word not in ("--create", "--unique")]
    if "--replica-set" in service:
        index = service.index("--replica-set")
        del service[index : index + 2]
    assert command[1:] == service


@pytest.mark.parametrize("name", NAMES)
def test_units_read_their_own_secrets_from_files(name: str) -> None:
    """Catches a secret in the environment, and a process with the secret of another process."""
    _, variables, credentials = read_unit(name)
    secrets = {
        variable
        for variable, value in COMPOSE[name]["environment"].items()
        if "PASSWORD" in value or variable.endswith("_SECRET_KEY")
    }
    if name == "init":
        secrets.discard("JOBMON_JWT_SECRET_KEY")  # compose only checks it there
    assert set(variables) == {f"{variable}_FILE" for variable in secrets}
    assert {value.removeprefix("%d/") for value in variables.values()} == set(credentials)
    assert all(file.startswith(CREDENTIALS) for file in credentials.values())
    for file in credentials.values():
        assert file.removeprefix(CREDENTIALS) in PAGE


def test_connection_strings_of_processes_are_different_files() -> None:
    files = [read_unit(name)[2]["mongo-uri"] for name in ("web", "collector", "actor")]
    assert len(set(files)) == 3


def test_web_service_ends_within_its_time_to_stop() -> None:
    """Catches requests that are cut off: gunicorn alone ends its workers, within 20 s."""
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / "jobmon-web.service")
    assert unit["Service"]["KillMode"] == "mixed"
    assert int(unit["Service"]["TimeoutStopSec"]) > 20
    assert unit["Service"]["Type"] == "notify"
