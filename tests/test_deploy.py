"""The Dockerfile and the compose file.

Catches a container with more rights than it needs, and a service that starts before another one
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
JOBMON_SERVICES = {
    name: it for name, it in COMPOSE["services"].items() if "JOBMON_IMAGE" in it.get("image", "")
}


def final_stage(instruction: str) -> list[str]:
    """The arguments of each instruction of this name in the Dockerfile's last stage."""
    stage = DOCKERFILE.rpartition("\nFROM ")[2]
    return re.findall(rf"^{instruction} +(.+)$", stage, re.MULTILINE)


def test_image_runs_as_a_numeric_user_without_a_shell() -> None:
    (user,) = final_stage("USER")
    assert user.isdecimal()  # Kubernetes can verify that a number is not root
    assert int(user) > 0
    (command,), (health,) = final_stage("CMD"), final_stage("HEALTHCHECK")
    assert json.loads(command) == ["gunicorn", "wsgi:app"]
    assert json.loads(health.partition(" CMD ")[2])[0] == "python"


def test_image_installs_only_locked_releases() -> None:
    locked, jobmon = re.findall(r"pip install ([^&]+)", DOCKERFILE)
    assert "--require-hashes -r /tmp/requirements.lock" in locked
    assert "--only-binary :all:" in locked
    assert "--no-index --no-deps" in jobmon
    assert re.findall(r"pip wheel (.+)", DOCKERFILE)[0].count("--no-deps") == 1


def test_dockerignore_allows_every_copied_file() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [
        name
        for names in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for name in names.split()
    ]
    copied += re.findall(r"type=bind,source=([^,]+)", DOCKERFILE)
    assert len(copied) > 6
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in allowed or name.startswith("jobmon/"), name


@pytest.mark.parametrize("name", JOBMON_SERVICES)
def test_jobmon_containers_have_read_only_roots_and_no_capabilities(name: str) -> None:
    service = JOBMON_SERVICES[name]
    assert service["init"] is True  # otherwise a SIGTERM during the imports is lost
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp:size=64m"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service
    assert "privileged" not in service


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_container_commands_start_without_a_shell(name: str) -> None:
    service = COMPOSE["services"][name]
    for key in ("command", "entrypoint"):
        assert isinstance(service.get(key, []), list), key
    assert service.get("healthcheck", {}).get("test", ["CMD"])[0] == "CMD"


def test_mongo_container_has_only_the_capabilities_of_its_entrypoint() -> None:
    mongo = COMPOSE["services"]["mongo"]
    assert mongo["read_only"] is True
    assert mongo["cap_drop"] == ["ALL"]
    assert mongo["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
    assert mongo["security_opt"] == ["no-new-privileges:true"]
    # /data/configdb is a volume of the image: without the tmpfs each `down` leaves a volume.
    assert all(":size=" in folder for folder in mongo["tmpfs"])
    assert {folder.partition(":")[0] for folder in mongo["tmpfs"]} == {"/tmp", "/data/configdb"}


def test_mongo_health_check_uses_the_network_name() -> None:
    """Catches a check of the temporary server that the image first runs on 127.0.0.1."""
    check = COMPOSE["services"]["mongo"]["healthcheck"]
    command = check["test"]
    assert command[command.index("--host") + 1] == "mongo"
    assert int(check["interval"].removesuffix("s")) >= 15  # mongosh takes a second of a core


def test_init_failure_ends_compose_up() -> None:
    """Catches an init that restarts forever, so that `docker compose up` waits forever."""
    assert COMPOSE["services"]["init"]["restart"] == "no"
    for name in ("web", "collector", "workload"):
        waits = COMPOSE["services"][name]["depends_on"]["init"]
        assert waits == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", sorted(JOBMON_SERVICES.keys() - {"workload"}))
def test_files_of_settings_reach_each_service_of_compose(name: str) -> None:
    """Catches a service that watches another queue, or has other thresholds, than the others."""
    service = JOBMON_SERVICES[name]
    for setting in ("JOBMON_QUEUES", "JOBMON_PROFILE", "JOBMON_RULES"):
        assert service["environment"][setting] == f"${{{setting}:-}}"
    assert "./deploy/files:/etc/jobmon:ro" in service["volumes"]


@pytest.mark.parametrize("secret", COMPOSE["secrets"])
def test_secret_is_an_ignored_file(secret: str) -> None:
    """Catches a secret from the environment: compose writes it into the read-only container."""
    file = COMPOSE["secrets"][secret]["file"]
    assert file in (ROOT / ".gitignore").read_text().splitlines()
    assert file in (ROOT / "docs/metrics.md").read_text()
