"""Runs the compose file in a copy of the checkout, as a new project with new secrets and ports."""

import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from jobmon.demo.mongod import free_port

from .waiting import eventually

ROOT = Path(__file__).parents[2]
SECRETS = (
    "MONGO_ROOT_PASSWORD",
    "MONGO_REPLICA_KEY",
    "JOBMON_READER_PASSWORD",
    "JOBMON_COLLECTOR_PASSWORD",
    "JOBMON_JWT_SECRET_KEY",
    "JOBMON_ACTOR_PASSWORD",
)
PROFILES = ("demo", "actions", "monitoring")
TIMEOUT_S = 900


def find_engine_version() -> str | None:
    """The version of the Docker engine; None without a docker command, or if no engine answers."""
    if shutil.which("docker") is None:
        return None
    version = _run(["docker", "version", "--format", "{{.Server.Version}}"], check=False)
    return version.stdout.strip() if version.returncode == 0 else None


def docker(*arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    return _run(["docker", *arguments], check=check, **options)


class Stack:
    """The services of the compose file."""

    def __init__(self, folder: Path) -> None:
        """Copy the tracked files of the checkout to `folder`."""
        self.folder = folder
        self.project = f"jobmon-tests-{os.getpid()}"
        self.image = f"{self.project}:latest"
        _copy_checkout(folder)
        self.port, self.prometheus_port, self.grafana_port = (free_port() for _ in range(3))
        self._settings = {
            "JOBMON_IMAGE": self.image,
            "JOBMON_PORT": str(self.port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
            "GRAFANA_PORT": str(self.grafana_port),
            "JOBMON_ACTIONS": "true",
            "JOBMON_ROLE_PERMISSIONS": "admin=ADMIN_DASHBOARD+JOBS_RETRY",
            "JOBMON_RULES": "/etc/jobmon/rules.toml",
        }
        rules = folder / "deploy/files/rules.toml"
        rules.write_text("failure_rate = 0.37\n")
        rules.chmod(0o644)
        self.rotate(*SECRETS)

    def rotate(self, *names: str) -> list[str]:
        """Set new values of these secrets in `.env`; returns the old values."""
        old_values = [self._settings.get(name, "") for name in names]
        self._settings |= {name: secrets.token_hex(32) for name in names}
        lines = [f"{name}={value}\n" for name, value in self._settings.items()]
        (self.folder / ".env").write_text("".join(lines))
        return old_values

    @property
    def secrets(self) -> list[str]:
        return [self._settings[name] for name in SECRETS]

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose`; returns what it printed."""
        command = ["docker", "compose", "--project-name", self.project, *arguments]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("JOBMON_")
        }
        result = _run(command, check=check, cwd=self.folder, env=environment)
        return result.stdout + result.stderr

    def up(self, *profiles: str) -> None:
        options = [f"--profile={profile}" for profile in profiles]
        self.compose(*options, "up", "--detach", "--quiet-pull")

    def down(self, *options: str) -> None:
        profiles = [f"--profile={profile}" for profile in PROFILES]
        self.compose(*profiles, "down", "--remove-orphans", *options)

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        return self.compose("exec", "--no-TTY", service, *command, check=check)

    def inspect(self, service: str, template: str) -> str:
        """The output of `docker inspect` with this template for the service's container."""
        name = f"{self.project}-{service}-1"
        return docker("inspect", name, "--format", template).stdout.strip()

    def kill(self, service: str) -> None:
        """End the service's first process with SIGKILL, as a crash does; the engine restarts it."""
        started_at = self.inspect(service, "{{.State.StartedAt}}")
        process = self.inspect(service, "{{.State.Pid}}")
        # `docker kill` counts as a stop by an operator, after which the engine restarts nothing.
        options = ["--rm", "--pid=host", "--privileged", "--user=0", "--entrypoint=python"]
        code = f"import os; os.kill({process}, 9)"
        docker("run", *options, self.image, "-c", code)
        eventually(lambda: self.inspect(service, "{{.State.StartedAt}}") != started_at)

    def token(self, subject: str = "you", role: str = "admin") -> str:
        return self.execute("web", "jobmon", "token", "--sub", subject, "--role", role).strip()

    def request(self, path: str, token: str, body: Any = None) -> tuple[int, Any]:
        """The status and JSON of an answer; 0 and None if the connection fails."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        try:
            with urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)
        except (URLError, OSError):
            return 0, None

    def await_stats(self, token: str, source: str = "rollup") -> dict[str, Any]:
        """Wait until the statistics come from `source`; returns them."""

        def read() -> dict[str, Any] | None:
            status, stats = self.request("/admin/jobs/stats", token)
            return stats if status == 200 and stats["source"] == source else None

        stats = eventually(read)
        assert stats is not None
        return stats


def _copy_checkout(folder: Path) -> None:
    tracked_files = _run(["git", "ls-files", "-z"], cwd=ROOT).stdout.split("\0")
    for name in filter(None, tracked_files):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _run(
    command: list[str], check: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S, **options
    )
    assert not check or result.returncode == 0, (
        f"{command}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    )
    return result
