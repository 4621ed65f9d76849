"""The README and docs/: their commands work, and the things that they name and link exist.

Catches a command that fails when a reader pastes it, and a page about something that was removed.
A command that cannot run here (containers, half an hour of benchmarks) is only checked: its service
must be in the compose file, its target in the Makefile. A command without a check fails the test.
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

import click
import pytest
import yaml
from bson import json_util
from click.testing import CliRunner
from pymongo.common import URI_OPTIONS_VALIDATOR_MAP as VALIDATORS
from pymongo.database import Database

from jobmon.app import create_app
from jobmon.cli import main
from jobmon.demo.mongod import Mongod, free_port
from jobmon.queue import JobQueue
from jobmon.rollup.documents import FORMAT
from jobmon.serving import gunicorn_config
from jobmon.settings import Settings
from jobmon.settings.deprecated import RENAMED
from jobmon.setup.indexes import create_indexes
from jobmon.store.connection import Connection

from .conftest import SECRET, Api
from .support.commands import database_uri
from .support.processes import end_process, run
from .support.receiver import SIGNING_SECRET, WebhookReceiver
from .support.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
COMMANDS = main.list_commands(click.Context(main))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
LOCAL_URL = re.compile(r"https?://(?:127\.0\.0\.1|localhost):(\d+)([^\s>)\"';]*)")
PORTS_OF_OTHER_PROGRAMS = {"9090", "3000", "27017", "9000"}  # Prometheus, Grafana, MongoDB, sign-in
# Variables of gunicorn, `jobmon init` and .env, and old names; all others are fields of Settings.
OTHER_SETTINGS = {"BIND", "PORT", "MONGOD", "ADMIN_MONGO_URI", "READER_PASSWORD"}
OTHER_SETTINGS |= {"COLLECTOR_PASSWORD", "ACTOR_PASSWORD", "WORKLOAD_MONGO_URI", "METRICS_TOKEN"}
OTHER_SETTINGS |= {"IMAGE", "TOKEN", "URL"}
OTHER_SETTINGS |= {name.removeprefix("JOBMON_") for name in RENAMED}

ASSIGNMENTS = re.compile(r"^((?:[A-Z_]+=\S*\s*)*)")  # `NAME=value` before a command

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class PageCommand(NamedTuple):
    """A command of a page."""

    text: str
    location: str  # `page:line`


def find_code_blocks(page: Path) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line, and the lines, of each indented block and each shell fence."""
    block: list[str] = []
    fence, start, previous_line = None, 0, ""
    for line_number, line in enumerate([*page.read_text().splitlines(), ""], start=1):
        if line.startswith("```"):
            if fence is not None and block and fence in ("sh", "bash", "console"):
                yield start, block
            fence, block, start = (line[3:].strip() if fence is None else None), [], line_number + 1
        elif fence is not None:
            block.append(line)
        elif line.startswith("    ") and (block or not previous_line.strip()):
            start = start if block else line_number
            block.append(line[4:])
        elif block:
            yield start, block
            block = []
        previous_line = line


def find_commands(page: Path) -> list[PageCommand]:
    """The commands of a page; in a block with answers, the text after each `$`."""
    commands = []
    for start, block in find_code_blocks(page):
        has_answers = block[0].startswith("$ ")
        joined, first_line = "", start
        for line_number, line in enumerate(block, start=start):
            first_line = first_line if joined else line_number
            joined += line
            if joined.endswith("\\"):
                joined = joined[:-1]
                continue
            text = joined.strip()
            if has_answers:
                text = text[2:] if joined.startswith("$ ") else ""
            text = re.sub(r"(^|\s)#.*", "", text).strip()
            if text:
                commands.append(PageCommand(text, f"{page.name}:{first_line}"))
            joined = ""
    return commands


class Shell:
    """Runs commands as the shell of a reader does; `environment` keeps exported variables."""

    def __init__(
        self, mongod: Mongod, database: str, port: int, folder: Path, environment: dict[str, str]
    ) -> None:
        self.folder = folder
        self.job_id = ""
        self.webhook_url = ""  # of a receiver of notifications
        self.mongod = mongod
        self.database = database
        self.port = port
        self.environment = environment

    def run(self, command: PageCommand) -> str:
        """The output of a command, which must succeed."""
        text = self._fill_in(command.text)
        has_exports = text.startswith("export") or not ASSIGNMENTS.sub("", text)
        if has_exports:
            text = f"set -a; {text}; env -0"
        output = self._run_in_bash(text, command)
        if has_exports:
            self.environment.update(item.split("=", 1) for item in output.split("\0") if item)
        return output

    def run_jobmon(self, command: PageCommand) -> None:
        """Run a command of jobmon in this process: a start of Python takes a second of CPU.

        bash parses the command: a function named `jobmon` prints the variables and the arguments.
        """
        function = "jobmon() { env -0; printf '\\0'; printf '%s\\0' \"$@\"; }"
        output = self._run_in_bash(f"{function}; {self._fill_in(command.text)}", command)
        variables, _, arguments = output.partition("\0\0")
        environment = dict(item.split("=", 1) for item in variables.split("\0"))
        result = CliRunner().invoke(main, arguments.split("\0")[:-1], env=environment)
        assert result.exit_code == 0, f"{command.location}: {command.text}\n{result.output}"

    def _fill_in(self, text: str) -> str:
        """The text with the addresses and the job id of this shell, without the page's secrets."""
        text = re.sub(r"/jobs/[0-9a-f-]{36}", f"/jobs/{self.job_id}", text)
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        text = text.replace("https://hooks.example.com/jobmon", self.webhook_url)
        text = text.replace(
            "127.0.0.1:27017/yourdatabase", f"{self.mongod.address}/{self.database}"
        )
        text = re.sub(r"mongodb://db/\w+", f"mongodb://{self.mongod.address}/{self.database}", text)
        # On pages `NAME=…` stands for a secret: the shell's environment has another value.
        return re.sub(r"\S+=\S*…\S*", "", text)

    def _run_in_bash(self, text: str, command: PageCommand) -> str:
        process = run(
            ["bash", "-c", text],
            timeout=PATIENCE_S,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        output = process.stdout + process.stderr
        assert process.returncode == 0, f"{command.location}: {command.text}\n{output}"
        return process.stdout

    def serve(self, command: PageCommand) -> None:
        """Start a command that runs until it is stopped, wait until it works, and stop it."""
        log = self.folder / "log"
        # With the database of the running collector, a second collector would only be on standby.
        environment = {
            "JOBMON_BIND": f"127.0.0.1:{free_port()}",
            "JOBMON_ROLLUP_DB": "documentation_2",
        }
        with log.open("w") as stderr:
            process = subprocess.Popen(
                ["bash", "-c", ASSIGNMENTS.sub(r"\1exec ", command.text, count=1)],
                cwd=ROOT,
                env=self.environment | environment,
                stderr=stderr,
                start_new_session=True,
            )
        ready_message = "collecting " if "collector" in command.text else "Booting worker"
        try:
            eventually(lambda: ready_message in log.read_text())
        except BaseException:
            end_process(process, None)
            raise
        assert end_process(process) == 0, command


@pytest.fixture(scope="module")
def shell(mongod: Mongod, mongo: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A reader's shell. A web service with a collector runs, and its queue has one job."""
    database: Database[dict[str, Any]] = mongo["documentation"]
    uri = database_uri(mongod, database)
    settings = Settings(mongo_uri=uri, jwt_secret_key=SECRET, rollup_db="documentation_rollups")
    connection = Connection(settings)
    create_indexes(connection)
    job_id = JobQueue(database).enqueue("payout.execute", created_by="alice")
    # For docs/adapters.md: `jobmon init` creates no indexes for an empty collection.
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
        "JOBMON_WORKERS": "1",
        "JOBMON": f"http://127.0.0.1:{port}",
        "ADMIN": token(),
        "OWNER": token("alice", "user"),
        "STOLEN": token("mallory", "user"),
    }
    web = subprocess.Popen(
        [sys.executable, "-m", "jobmon.cli", "run"],
        cwd=ROOT,
        env=environment
        | {
            "JOBMON_BIND": f"127.0.0.1:{port}",
            "JOBMON_SEARCH_FIELDS": "payload.orderId,payload.customer.email",
            "JOBMON_ACTIONS": "true",
            "JOBMON_ROLE_PERMISSIONS": "admin=ADMIN_DASHBOARD+JOBS_RETRY",
        },
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    shell = Shell(mongod, database.name, port, home, environment)
    shell.job_id = job_id
    receiver = WebhookReceiver()
    shell.webhook_url = shell.environment["JOBMON_NOTIFY_URLS"] = receiver.url
    shell.environment["JOBMON_NOTIFY_SECRET"] = SIGNING_SECRET
    try:
        eventually(lambda: has_fresh_statistics(shell))
        with receiver.running():
            yield shell
    finally:
        end_process(web)
        connection.client.close()
        mongo.drop_database(database.name)


def has_fresh_statistics(shell: Shell) -> bool:
    answer = subprocess.run(
        ["curl", "-s", f"http://127.0.0.1:{shell.port}/readyz"],
        check=False,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    return b'"isFresh":true' in answer.stdout


def check_compose(arguments: list[str]) -> None:
    """Check that the compose file has the profiles and services of a `docker compose` command."""
    services = COMPOSE["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", [])}
    words = iter(arguments[2:])
    for word in words:
        match word:
            case "--profile":
                assert next(words) in profiles, arguments
            case "up" | "down" | "ps" | "logs" | "build" | "pull" | "restart" | "stop" | "config":
                named_services = {word for word in words if not word.startswith("-")}
                assert named_services <= services.keys(), arguments
            case "exec" | "run":
                name = next(word for word in words if not word.startswith("-"))
                assert name in services, arguments
                command = list(words)
                if command[:1] == ["jobmon"]:
                    assert command[1] in COMMANDS, arguments
            case _:
                raise AssertionError(f"docker compose {word}: {arguments}")


def check_pip(arguments: list[str]) -> None:
    """Check that `pip install` names this project or pre-commit, and only extras that exist."""
    for requirement in arguments[2:]:
        name, _, extras = requirement.partition("[")
        assert name in (".", PROJECT["name"], "pre-commit") or name.startswith("-"), arguments
        for extra in filter(None, extras.rstrip("]").split(",")):
            assert extra in PROJECT["optional-dependencies"], arguments


def check_helm(arguments: list[str]) -> None:
    """Check that a chart exists and has the values that `helm` sets."""
    charts = [ROOT / word for word in arguments[2:] if word.startswith("deploy/")]
    assert charts, arguments
    values = yaml.safe_load((charts[0] / "values.yaml").read_text())
    for option in (word for i, word in enumerate(arguments) if arguments[i - 1] == "--set"):
        table = values
        for name in option.partition("=")[0].split("."):
            assert name in table, arguments
            table = table[name]


def check_kubectl(text: str, arguments: list[str]) -> None:
    """Check that the secrets, objects, folders and jobmon command of a `kubectl` command exist."""
    values = yaml.safe_load((ROOT / "deploy/helm/jobmon/values.yaml").read_text())
    secrets = {table["existingSecret"] for table in values.values() if "existingSecret" in table}
    assert set(re.findall(r"secret generic (\S+)", text)) <= secrets, text
    manifests = [
        manifest
        for file in (ROOT / "deploy/kubernetes").glob("*.yaml")
        for manifest in yaml.safe_load_all(file.read_text())
        if manifest and manifest["kind"] != "Kustomization"
    ]
    objects = {f"{item['kind'].lower()}/{item['metadata']['name']}" for item in manifests}
    named_objects = re.findall(r"\b(?:namespace|job|service|deployment)/\S+", text)
    named_objects += re.findall(r"(?<=delete )job \S+", text)
    assert {name.replace(" ", "/") for name in named_objects} <= objects, text
    for folder in (word for word in arguments if word.startswith("deploy/")):
        assert (ROOT / folder / "kustomization.yaml").is_file(), text
    if "--" in arguments:
        command, name = arguments[arguments.index("--") + 1 :][:2]
        assert command == "jobmon", text
        assert name in COMMANDS, text


def check_mongosh(text: str) -> None:
    """Check that a line for mongosh creates an index, or a user with roles of `jobmon init`."""
    if ".createUser(" in text:
        roles = set(re.findall(r'role: "(\w+)\.\w+\.\w+"', text))
        assert roles
        assert roles <= {"jobmonReader", "jobmonCollector"}, text
        return
    keys = re.fullmatch(r"db\.\w+\.createIndex\((\{.*?\})(, *\{.*\})?\);?", text)
    assert keys, text
    quoted = re.sub(r"([{,]\s*)([A-Za-z_][\w.]*)\s*:", r'\1"\2":', keys[1])
    assert set(json_util.loads(quoted).values()) <= {1, -1}, text


def check_connection_string(address: str) -> None:
    """Check that the driver knows every option of a connection string."""
    options = address.partition("?")[2].split("&")
    for name in filter(None, (option.partition("=")[0] for option in options)):
        assert name.lower() in VALIDATORS, address


def check_command(command: PageCommand, shell: Shell) -> None:
    """Run a command, or check that what it names exists."""
    arguments = shlex.split(ASSIGNMENTS.sub("", command.text).split("|")[0])
    match arguments:
        case []:
            shell.run(command)
        case ["curl", *_]:
            output = shell.run(command)
            assert output.strip(), command
            assert '"error"' not in output, (command, output)
        case ["export" | "openssl" | "echo", *_]:
            shell.run(command)
        case ["jobmon", "run" | "collector"] | ["gunicorn", "wsgi:app"]:
            shell.serve(command)
        case ["jobmon", name, *_] if name in COMMANDS or name.startswith("--"):
            shell.run_jobmon(command)
        case ["flask", "--app", "wsgi", *_]:
            shell.run(command)
        case ["make", *targets]:
            assert {target for target in targets if "=" not in target} <= TARGETS, command
        case ["docker", "compose", *_]:
            check_compose(arguments)
        case ["pip", "install", *_]:
            check_pip(arguments)
        case ["cp", source, ".env"]:
            assert (ROOT / source).is_file(), command
        case ["python" | "python3" | ".venv/bin/python", script, *_]:
            shell.run(PageCommand(f"python {script} --help", command.location))
        case ["promtool", *words]:
            assert all((ROOT / word).exists() for word in words if "/" in word), command
        case ["helm", "install" | "upgrade", *_]:
            check_helm(arguments)
        case ["kubectl", *_]:
            check_kubectl(command.text, arguments)
        case ["pre-commit", "install"]:
            assert (ROOT / ".pre-commit-config.yaml").is_file()
        case [address] if address.startswith("mongodb"):
            check_connection_string(address)
        case _ if command.text.startswith("db."):
            check_mongosh(command.text)
        case _:
            raise AssertionError(f"no check for this command: {command}")


@each_page
def test_page_commands_succeed(page: Path, shell: Shell) -> None:
    environment = dict(shell.environment)
    try:
        for command in find_commands(page):
            check_command(command, shell)
    finally:
        shell.environment = environment


def test_commands_of_pages_are_found() -> None:
    """Catches a search that finds no commands: then the tests of pages would run none."""
    texts = [command.text for page in PAGES for command in find_commands(page)]
    assert "make run" in texts
    assert any(text.startswith("curl") for text in texts)
    assert len(texts) > 40


def make_anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def list_anchors(page: Path) -> set[str]:
    return {make_anchor(text) for text in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)}


@each_page
def test_page_links_have_targets(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if target.startswith(("http://", "https://")):
            continue  # the tests request no other site
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in list_anchors(linked), f"{page.name}: {target}"


@each_page
def test_page_urls_of_jobmon_are_routes(page: Path, api: Api) -> None:
    routes = api.app.url_map.bind("127.0.0.1")
    for port, path in LOCAL_URL.findall(page.read_text()):
        if port not in PORTS_OF_OTHER_PROGRAMS:
            assert routes.test(path.partition("?")[0] or "/"), f"{page.name}: {path}"


@each_page
def test_page_urls_of_other_sites_are_https(page: Path) -> None:
    for url in re.findall(r"\bhttp://[^\s>)\"'`]+", page.read_text()):
        assert re.match(r"http://(127\.0\.0\.1|localhost)\b", url), f"{page.name}: {url}"


@each_page
def test_settings_commands_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    settings = {field.name.upper() for field in dataclasses.fields(Settings)} | OTHER_SETTINGS
    for name in set(re.findall(r"\bJOBMON_([A-Z][A-Z_]*[A-Z])\b", text)):
        is_prefix = any(setting.startswith(f"{name}_") for setting in settings)
        is_known = name.removesuffix("_FILE") in settings or is_prefix
        assert is_known, f"{page.name}: JOBMON_{name}"
    for command in set(re.findall(r"`jobmon ([a-z]+)", text)):
        assert command in COMMANDS, f"{page.name}: jobmon {command}"
    for target in set(re.findall(r"`make ([a-z-]+)", text)):
        assert target in TARGETS, f"{page.name}: make {target}"
    for path in set(re.findall(r"`((?:jobmon|tests|bench|deploy|docs)/[\w./-]+)(?:::\w+)?`", text)):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def read_settings_table() -> Iterator[tuple[str, str]]:
    """The name, without `JOBMON_`, and the default of each setting in docs/operations.md."""
    page = (ROOT / "docs/operations.md").read_text()
    for names, default in re.findall(r"^\| (`JOBMON_.+?) \| (.+?) \| ", page, re.MULTILINE):
        for name in re.findall(r"`JOBMON_(\w+)`", names):
            yield name, default


def format_default(field: dataclasses.Field[Any]) -> str | None:
    """The text with which the cell of a default must begin; None if words describe the default."""
    match field.default:
        case bool(value):
            return f"`{str(value).lower()}`"
        case int(value) | str(value):
            return f"`{value}`"
        case dataclasses.MISSING if field.default_factory is not dataclasses.MISSING:
            pairs = [f"{name}={','.join(value)}" for name, value in field.default_factory().items()]
            return f"`{','.join(pairs)}`" if pairs else "none"
    return None


def test_settings_table_has_every_setting_and_its_default() -> None:
    """Catches a setting without a row, a row of a removed setting, and an outdated default."""
    rows = list(read_settings_table())
    table = dict(rows)
    assert len(rows) == len(table)
    assert table.pop("BIND") == f"`{gunicorn_config.bind}`"
    # Only the file of queues (JOBMON_QUEUES) sets these.
    only_in_file = {"QUEUE", "PERMISSION", "OWNERS", "URI_SETTING"}
    fields = {field.name.upper(): field for field in dataclasses.fields(Settings)}
    fields = {name: field for name, field in fields.items() if name not in only_in_file}
    assert table.keys() == fields.keys()
    for name, field in fields.items():
        if (default := format_default(field)) is not None:
            assert table[name].startswith(default), name
    assert table["MONGO_URI"] == "required"


def test_clean_up_script_keeps_the_documents_of_this_version() -> None:
    """Catches a script in docs/operations.md that has an outdated format number."""
    page = (ROOT / "docs/operations.md").read_text()
    assert re.findall(r"format: \{\$ne: (\d+)\}", page) == [str(FORMAT)]


def test_readme_answers_have_the_keys_of_real_answers(shell: Shell) -> None:
    blocks = [
        (start, block)
        for start, block in find_code_blocks(ROOT / "README.md")
        if block[0].startswith("$ curl")
    ]
    assert len(blocks) > 1
    for start, block in blocks:
        answer = json.loads("\n".join(block[1:]).replace(", …", ""))
        command = PageCommand(block[0][2:], f"README.md:{start}")
        keys = json.loads(shell.run(command)).keys()
        assert keys - {"actions"} == answer.keys()  # only with JOBMON_ACTIONS


def test_architecture_names_every_module() -> None:
    """Catches a module that is missing in the chapter about packages."""
    page = (ROOT / "docs/architecture.md").read_text()
    table = page[page.index("## Packages") : page.index("Imports go one way")]
    blocks = re.split(r"^  (?=[\w.]+)", table, flags=re.MULTILINE)
    packages = {block.partition("/")[0]: set(re.findall(r"\w+", block)) for block in blocks}
    for module in (ROOT / "jobmon").glob("*/*.py"):
        if module.stem != "__init__":
            assert module.stem in packages[module.parent.name], module
    assert {file.stem for file in (ROOT / "jobmon").glob("*.py")} <= set(re.findall(r"\w+", table))
