"""The README and docs/: every command is run, every link resolved, every name looked up. Would
catch a line that a reader pastes in vain, and a page that still tells of what is gone.

A command that cannot be run here (containers, half an hour of benchmarks) is checked as far as it
goes: the compose file has the service, the Makefile the target. One that nothing here knows fails.
"""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from bson import json_util
from pymongo.common import URI_OPTIONS_VALIDATOR_MAP as VALIDATORS
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.cli import main
from jobmon.demo.mongod import Mongod, free_port
from jobmon.queue import JobQueue
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.setup.users import COLLECTOR_ROLE, READER_ROLE
from jobmon.store.connection import Connection

from .conftest import SECRET, Api
from .support.processes import ended, run
from .support.waiting import eventually

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
LOCAL = re.compile(r"https?://(?:127\.0\.0\.1|localhost):(\d+)([^\s>)\"']*)")
COMPOSE_PORTS = {"9090", "3000"}  # Prometheus, Grafana
# What is set for gunicorn, for `jobmon init` and in .env; every other name is a field of Settings.
OTHER_SETTINGS = {"BIND", "PORT", "ADMIN_MONGO_URI", "READER_PASSWORD"}
OTHER_SETTINGS |= {"COLLECTOR_PASSWORD", "WORKLOAD_MONGO_URI", "METRICS_TOKEN"}

ASSIGNED = re.compile(r"^((?:[A-Z_]+=\S*\s*)*)")  # what stands before a command, for it alone

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Line(NamedTuple):
    """A command, and where it stands."""

    text: str
    where: str


def blocks(page: Path) -> Iterator[tuple[int, list[str]]]:
    """The code that is to be pasted: indented blocks, and fenced ones that say so."""
    block: list[str] = []
    fence, start, before = None, 0, ""
    for number, line in enumerate([*page.read_text().splitlines(), ""], start=1):
        if line.startswith("```"):
            if fence is not None and block and fence in ("sh", "bash", "console"):
                yield start, block
            fence, block, start = (line[3:].strip() if fence is None else None), [], number + 1
        elif fence is not None:
            block.append(line)
        elif line.startswith("    ") and (block or not before.strip()):
            start = start if block else number
            block.append(line[4:])
        elif block:
            yield start, block
            block = []
        before = line


def commands(page: Path) -> list[Line]:
    """Every command of a page; of a block with answers, what stands behind a `$`."""
    found = []
    for start, block in blocks(page):
        has_answers = block[0].startswith("$ ")
        joined, at = "", start
        for number, line in enumerate(block, start=start):
            at = at if joined else number
            joined += line
            if joined.endswith("\\"):
                joined = joined[:-1]
                continue
            text = joined.strip()
            if has_answers:
                text = text[2:] if joined.startswith("$ ") else ""
            text = re.sub(r"(^|\s)#.*", "", text).strip()
            if text:
                found.append(Line(text, f"{page.name}:{at}"))
            joined = ""
    return found


class Shell:
    """Where a reader would paste: the service runs, and what is exported stays."""

    def __init__(
        self, mongod: Mongod, database: str, port: int, folder: Path, environment: dict[str, str]
    ) -> None:
        self.folder = folder
        self.job_id = ""
        self.mongod = mongod
        self.database = database
        self.port = port
        self.environment = environment

    def run(self, line: Line) -> str:
        """What a command says; it must succeed."""
        text = re.sub(r"/jobs/[0-9a-f-]{36}", f"/jobs/{self.job_id}", line.text)
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        text = text.replace(
            "127.0.0.1:27017/yourdatabase", f"{self.mongod.address}/{self.database}"
        )
        text = re.sub(r"mongodb://db/\w+", f"mongodb://{self.mongod.address}/{self.database}", text)
        text = re.sub(r"\S+=\S*…\S*", "", text)  # a secret of the reader's own
        exports = text.startswith("export") or not ASSIGNED.sub("", text)
        if exports:
            text = f"set -a; {text}; env -0"
        done = run(
            ["bash", "-c", text],
            timeout=60,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0, f"{line.where}: {line.text}\n{done.stdout}{done.stderr}"
        if exports:
            self.environment.update(item.split("=", 1) for item in done.stdout.split("\0") if item)
        return done.stdout

    def serve(self, line: Line) -> None:
        """Start what does not end by itself, see it work, and end it."""
        log = self.folder / "log"
        # A collector waits while another one works: this one has a rollup of its own.
        own = {"JOBMON_BIND": f"127.0.0.1:{free_port()}", "JOBMON_ROLLUP_DB": "documentation_2"}
        with log.open("w") as stderr:
            process = subprocess.Popen(
                ["bash", "-c", ASSIGNED.sub(r"\1exec ", line.text, count=1)],
                cwd=ROOT,
                env=self.environment | own,
                stderr=stderr,
                start_new_session=True,
            )
        sign = "collecting " if "collector" in line.text else "Booting worker"
        try:
            eventually(lambda: sign in log.read_text())
        except BaseException:
            ended(process, None)
            raise
        assert ended(process) == 0, line


@pytest.fixture(scope="module")
def shell(mongod: Mongod, mongo: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    database: Database[dict[str, Any]] = mongo["documentation"]
    uri = mongod.uri.replace("/?", f"/{database.name}?")
    settings = Settings(mongo_uri=uri, jwt_secret_key=SECRET, rollup_db="documentation_rollups")
    connection = Connection(settings)
    create_indexes(connection)
    job_id = JobQueue(database).enqueue("payout.execute", created_by="alice")
    # What the adapters' page is about: `jobmon init` makes nothing where there is nothing.
    database.agendaJobs.insert_one({"name": "mail", "data": {}, "nextRunAt": None})
    database.celery_taskmeta.insert_one({"_id": "1", "status": "SUCCESS", "date_done": None})
    token = Api(create_app(settings)).token
    port, path = free_port(), os.environ["PATH"]
    home = tmp_path_factory.mktemp("home")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{path}",
        "HOME": str(home),
        "JOBMON_MONGO_URI": uri,
        "JOBMON_ROLLUP_DB": settings.rollup_db,
        "JOBMON_JWT_SECRET_KEY": SECRET,
        "JOBMON_COLLECTOR": "true",
        "JOBMON": f"http://127.0.0.1:{port}",
        "ADMIN": token(),
        "OWNER": token("alice", "user"),
        "STOLEN": token("mallory", "user"),
    }
    web = subprocess.Popen(
        [sys.executable, "-m", "jobmon.cli", "run"],
        cwd=ROOT,
        env=environment | {"JOBMON_BIND": f"127.0.0.1:{port}"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    shell = Shell(mongod, database.name, port, home, environment)
    shell.job_id = job_id
    try:
        eventually(lambda: answers(shell))
        yield shell
    finally:
        ended(web)
        connection.client.close()
        mongo.drop_database(database.name)


def answers(shell: Shell) -> bool:
    ready = subprocess.run(
        ["curl", "-s", f"http://127.0.0.1:{shell.port}/readyz"],
        check=False,
        capture_output=True,
        timeout=60,
    )
    return b'"fresh":true' in ready.stdout


def compose_names(arguments: list[str]) -> None:
    """`docker compose …`, as far as the compose file tells."""
    profiles = {name for it in COMPOSE["services"].values() for name in it.get("profiles", [])}
    words = iter(arguments[2:])
    for word in words:
        match word:
            case "--profile":
                assert next(words) in profiles, arguments
            case "up" | "down" | "ps" | "logs" | "build" | "pull" | "restart" | "stop" | "config":
                left = [rest for rest in words if not rest.startswith("-")]
                assert set(left) <= COMPOSE["services"].keys(), arguments
            case "exec" | "run":
                service = next(rest for rest in words if not rest.startswith("-"))
                assert service in COMPOSE["services"], arguments
                command = list(words)
                if command[:1] == ["jobmon"]:
                    assert command[1] in main.commands, arguments
            case _:
                raise AssertionError(f"docker compose {word}: {arguments}")


def has_extra(arguments: list[str]) -> None:
    for wanted in arguments[2:]:
        name, _, extras = wanted.partition("[")
        assert name in (".", PROJECT["name"], "pre-commit") or name.startswith("-"), arguments
        for extra in filter(None, extras.rstrip("]").split(",")):
            assert extra in PROJECT["optional-dependencies"], arguments


def is_for_mongosh(text: str) -> None:
    """An index of ours, or a user with one of our roles."""
    if ".createUser(" in text:
        roles = set(re.findall(r'role: "(\w+)\.\w+\.\w+"', text))
        assert roles
        assert roles <= {READER_ROLE, COLLECTOR_ROLE}, text
        return
    keys = re.fullmatch(r"db\.\w+\.createIndex\((\{.*?\})(, *\{.*\})?\);?", text)
    assert keys, text
    quoted = re.sub(r"([{,]\s*)([A-Za-z_][\w.]*)\s*:", r'\1"\2":', keys[1])
    assert set(json_util.loads(quoted).values()) <= {1, -1}, text


def has_known_options(address: str) -> None:
    options = address.partition("?")[2].split("&")
    for name in filter(None, (option.partition("=")[0] for option in options)):
        assert name.lower() in VALIDATORS, address


def check(line: Line, shell: Shell) -> None:
    """Run a command, or look as closely as can be at what it would run."""
    command = ASSIGNED.sub("", line.text)
    arguments = shlex.split(command.split("|")[0])
    match arguments:
        case []:
            shell.run(line)
        case ["curl", *_]:
            said = shell.run(line)
            assert said.strip(), line
            assert '"error"' not in said, (line, said)
        case ["export" | "openssl" | "echo", *_]:
            shell.run(line)
        case ["jobmon", "run" | "collector"] | ["gunicorn", "wsgi:app"]:
            shell.serve(line)
        case ["jobmon", command, *_] if command in main.commands or command.startswith("--"):
            shell.run(line)
        case ["flask", "--app", "wsgi", *_]:
            shell.run(line)
        case ["make", *targets]:
            named = [target for target in targets if "=" not in target]
            assert set(named) <= TARGETS, line
        case ["docker", "compose", *_]:
            compose_names(arguments)
        case ["pip", "install", *_]:
            has_extra(arguments)
        case ["cp", source, ".env"]:
            assert (ROOT / source).is_file(), line
        case ["python" | "python3" | ".venv/bin/python", script, *_]:
            shell.run(Line(f"python {script} --help", line.where))
        case ["promtool", *rest]:
            assert all((ROOT / name).exists() for name in rest if "/" in name), line
        case ["pre-commit", "install"]:
            assert (ROOT / ".pre-commit-config.yaml").is_file()
        case [address] if address.startswith("mongodb"):
            has_known_options(address)
        case _ if line.text.startswith("db."):
            is_for_mongosh(line.text)
        case _:
            raise AssertionError(f"nothing runs this: {line}")


@pages
def test_every_command_works(page: Path, shell: Shell) -> None:
    kept = dict(shell.environment)
    try:
        for line in commands(page):
            check(line, shell)
    finally:
        shell.environment = kept


def test_commands_are_found_at_all() -> None:
    found = [line.text for page in PAGES for line in commands(page)]
    assert "make run" in found
    assert any(text.startswith("curl") for text in found)
    assert len(found) > 40


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)}


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if target.startswith(("http://", "https://")):
            continue  # another's page: see below
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: {target}"


@pages
def test_every_address_of_our_own_is_a_route(page: Path, api: Api) -> None:
    routes = api.app.url_map.bind("127.0.0.1")
    for port, path in LOCAL.findall(page.read_text()):
        if port not in COMPOSE_PORTS | {"27017"}:
            assert routes.test(path.partition("?")[0] or "/"), f"{page.name}: {path}"


@pages
def test_every_address_of_others_is_https(page: Path) -> None:
    for address in re.findall(r"\bhttp://[^\s>)\"'`]+", page.read_text()):
        assert re.match(r"http://(127\.0\.0\.1|localhost)\b", address), f"{page.name}: {address}"


@pages
def test_every_name_in_passing_exists(page: Path) -> None:
    text = page.read_text()
    known = {field.name.upper() for field in dataclasses.fields(Settings)} | OTHER_SETTINGS
    for name in set(re.findall(r"\bJOBMON_([A-Z][A-Z_]*[A-Z])\b", text)):
        is_start = any(other.startswith(f"{name}_") for other in known)
        assert name in known or is_start, f"{page.name}: JOBMON_{name}"
    for command in set(re.findall(r"`jobmon ([a-z]+)", text)):
        assert command in main.commands, f"{page.name}: jobmon {command}"
    for target in set(re.findall(r"`make ([a-z]+)", text)):
        assert target in TARGETS, f"{page.name}: make {target}"
    for path in set(re.findall(r"`((?:jobmon|tests|bench|deploy|docs)/[\w./-]+)(?:::\w+)?`", text)):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_setting_is_documented_and_no_other() -> None:
    table = re.findall(
        r"^\| (`[A-Z_`, ]+`) \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE
    )
    documented = {name for row in table for name in re.findall(r"`([A-Z_]+)`", row)}
    fields = {field.name.upper() for field in dataclasses.fields(Settings)}
    assert documented - {"BIND"} == fields


def test_the_answers_in_the_readme_have_the_shape_of_real_ones(shell: Shell) -> None:
    page = ROOT / "README.md"
    for start, block in blocks(page):
        if not block[0].startswith("$ curl"):
            continue
        shown = "\n".join(block[1:]).replace(", …", "")
        answer = json.loads(shown)
        line = Line(block[0][2:], f"README.md:{start}")
        assert json.loads(shell.run(line)).keys() == answer.keys()
