"""The Dockerfile and the compose file.

Catches a container with more rights than it needs, and a service that starts before the services
that it needs.
"""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
# The services that run jobmon's image, by name.
JOBMON_SERVICES = {
    name: service
    for name, service in COMPOSE["services"].items()
    if "JOBMON_IMAGE" in service.get("image", "")
}


def find_instructions(instruction: str) -> list[str]:
    """The arguments of each instruction with this name in the Dockerfile's last stage."""
    stage = DOCKERFILE.rpartition("\nFROM ")[2]
    return re.findall(rf"^{instruction} +(.+)$", stage, re.MULTILINE)


def test_image_runs_as_a_numeric_user_without_a_shell() -> None:
    (user,) = find_instructions("USER")
    assert user.isdecimal()  # Kubernetes' runAsNonRoot refuses a user name
    assert int(user) > 0
    (command,), (health_check,) = find_instructions("CMD"), find_instructions("HEALTHCHECK")
    assert json.loads(command) == ["gunicorn", "wsgi:app"]
    assert json.loads(health_check.partition(" CMD ")[2])[0] == "python"


def test_image_installs_only_locked_releases() -> None:
    install_dependencies, install_jobmon = re.findall(r"pip install ([^&]+)", DOCKERFILE)
    assert "--require-hashes -r /tmp/requirements.lock" in install_dependencies
    assert "--only-binary :all:" in install_dependencies
    assert "--no-index --no-deps" in install_jobmon
    (build_jobmon,) = re.findall(r"pip wheel (.+)", DOCKERFILE)
    assert "--no-deps" in build_jobmon


def test_dockerignore_allows_every_copied_file() -> None:
    allowed_patterns = (ROOT / ".dockerignore").read_text().splitlines()
    copied_files = [
        name
        for names in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for name in names.split()
    ]
    copied_files += re.findall(r"type=bind,source=([^,]+)", DOCKERFILE)
    assert len(copied_files) > 6
    for name in copied_files:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in allowed_patterns or name.startswith("jobmon/"), name


@pytest.mark.parametrize("name", JOBMON_SERVICES)
def test_jobmon_container_has_a_read_only_root_and_no_capabilities(name: str) -> None:
    service = JOBMON_SERVICES[name]
    assert service["init"] is True  # without it, a SIGTERM during Python's imports has no effect
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp:size=64m"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service
    assert "privileged" not in service


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_container_commands_are_lists_and_health_checks_need_no_shell(name: str) -> None:
    service = COMPOSE["services"][name]
    for key in ("command", "entrypoint"):
        assert isinstance(service.get(key, []), list), key
    assert service.get("healthcheck", {}).get("test", ["CMD"])[0] == "CMD"


def test_mongo_container_has_only_the_capabilities_that_its_entrypoint_needs() -> None:
    mongo = COMPOSE["services"]["mongo"]
    assert mongo["read_only"] is True
    assert mongo["cap_drop"] == ["ALL"]
    assert mongo["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
    assert mongo["security_opt"] == ["no-new-privileges:true"]
    assert all(":size=" in folder for folder in mongo["tmpfs"])
    # The image declares a volume at /data/configdb: without the tmpfs, each `docker compose down`
    # would leave an unused volume.
    assert {folder.partition(":")[0] for folder in mongo["tmpfs"]} == {"/tmp", "/data/configdb"}


def test_mongo_health_check_uses_the_network_name() -> None:
    """Catches a health check that the image's temporary server on 127.0.0.1 answers."""
    check = COMPOSE["services"]["mongo"]["healthcheck"]
    command = check["test"]
    assert command[command.index("--host") + 1] == "mongo"
    assert int(check["interval"].removesuffix("s")) >= 15  # each check takes a second of CPU


def test_init_failure_ends_compose_up() -> None:
    """Catches an `init` that restarts after each failure: `docker compose up` would never end."""
    assert COMPOSE["services"]["init"]["restart"] == "no"
    for name in ("web", "collector", "workload"):
        dependency = COMPOSE["services"][name]["depends_on"]["init"]
        assert dependency == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", sorted(JOBMON_SERVICES.keys() - {"workload"}))
def test_service_reads_the_settings_files(name: str) -> None:
    """Catches a service whose queues, profile or thresholds differ from the other services'."""
    service = JOBMON_SERVICES[name]
    for setting in ("JOBMON_QUEUES", "JOBMON_PROFILE", "JOBMON_RULES"):
        assert service["environment"][setting] == f"${{{setting}:-}}"
    assert "./deploy/files:/etc/jobmon:ro" in service["volumes"]


@pytest.mark.parametrize("secret", COMPOSE["secrets"])
def test_secret_is_a_documented_file_that_git_ignores(secret: str) -> None:
    """Catches a secret from a variable: compose cannot write it into a read-only root."""
    file = COMPOSE["secrets"][secret]["file"]
    assert file in (ROOT / ".gitignore").read_text().splitlines()
    assert file in (ROOT / "docs/metrics.md").read_text()
