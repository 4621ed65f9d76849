"""`make release`, and the workflows that publish a release.

Catches a release of untested or uncommitted files, a file with another version, a tag without its
changelog, and a released image whose base images are not pinned.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import jobmon

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github/workflows"
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- A thing that users notice.

## [0.1.0] - YYYY-MM-DD

- The first version.
"""
# Stands for another program: writes its name and its arguments to the file $LOG.
LOGGING_PROGRAM = '#!/bin/sh\necho "$(basename "$0") $*" >>"$LOG"\n'

Process = subprocess.CompletedProcess[str]
Runner = Callable[..., Process]


def write_program(path: Path, text: str = LOGGING_PROGRAM) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with the files that a release changes; its version 0.1.0 has a tag."""
    folder = tmp_path / "checkout"
    (folder / "docs").mkdir(parents=True)
    (folder / "jobmon").mkdir()
    (folder / "docs/openapi.json").write_text("old\n")
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    (folder / "jobmon/__init__.py").write_text('__version__ = "0.1.0"  # read by others\n')
    (folder / "jobmon/cli.py").write_text("import jobmon\nprint('version', jobmon.__version__)\n")
    (folder / ".gitignore").write_text("__pycache__\n")
    (folder / "deploy/helm/jobmon").mkdir(parents=True)
    (folder / "deploy/helm/jobmon/Chart.yaml").write_text("version: 0.1.0\nappVersion: 0.1.0\n")
    write_program(folder / ".ci/run")
    shutil.copy(ROOT / ".ci/release.py", folder / ".ci/release.py")
    write_program(tmp_path / "programs/make")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    git(folder, "tag", "v0.1.0")
    return folder


def build_environment(folder: Path) -> dict[str, str]:
    """The environment of programs in the small repository, with an author for commits."""
    names = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
    return {
        **os.environ,
        **dict.fromkeys(names, "ada@example.com"),
        "PATH": f"{folder.parent}/programs:{os.environ['PATH']}",
        "LOG": f"{folder.parent}/log",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def git(folder: Path, *arguments: str) -> str:
    process = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=build_environment(folder),
        check=True,
        capture_output=True,
        text=True,
    )
    return process.stdout.strip()


@pytest.fixture
def run_release(checkout: Path) -> Runner:
    """A function that runs .ci/release.py in the small repository."""

    def run(*arguments: str) -> Process:
        return subprocess.run(
            [sys.executable, str(checkout / ".ci/release.py"), *arguments],
            env=build_environment(checkout),
            check=False,
            capture_output=True,
            text=True,
        )

    return run


def test_release_tests_commits_tags_and_builds(run_release: Runner, checkout: Path) -> None:
    process = run_release("make", "0.2.0")
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == (
        "Made v0.2.0. To publish it: git push --atomic origin main v0.2.0"
    )
    log = (checkout.parent / "log").read_text().splitlines()
    assert [line.strip() for line in log] == [
        "make manifests",
        "run",
        "make test-long",
        "make dist",
    ]
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "log", "-1", "--format=%s") == "release: 0.2.0"
    assert git(checkout, "rev-list", "-n1", "v0.2.0") == git(checkout, "rev-parse", "HEAD")
    message = git(checkout, "tag", "--list", "--format=%(contents)", "v0.2.0")
    assert message == "jobmon 0.2.0\n\n### Added\n\n- A thing that users notice."
    assert (checkout / "docs/openapi.json").read_text() == "version 0.2.0\n"
    assert (checkout / "jobmon/__init__.py").read_text() == (
        '__version__ = "0.2.0"  # read by others\n'
    )
    chart = (checkout / "deploy/helm/jobmon/Chart.yaml").read_text()
    assert chart == "version: 0.2.0\nappVersion: 0.2.0\n"
    changelog = (checkout / "CHANGELOG.md").read_text()
    assert re.search(r"## \[Unreleased\]\n\n## \[0\.2\.0\] - [\d-]{10}\n\n### Added", changelog)
    assert run_release("notes", "0.2.0").stdout == "### Added\n\n- A thing that users notice.\n"
    assert run_release("check", "v0.2.0").returncode == 0
    assert run_release("check", "v0.3.0").returncode == 1


def test_release_whose_tests_fail_changes_nothing(run_release: Runner, checkout: Path) -> None:
    write_program(checkout.parent / "programs/bash", "#!/bin/sh\nexit 3\n")
    process = run_release("make", "0.2.0")
    assert process.returncode == 1
    assert process.stderr == "release: bash .ci/run failed with 3: see above.\n"
    assert (checkout.parent / "log").read_text() == "make manifests\n"
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "log", "-1", "--format=%s") == "first"
    assert git(checkout, "tag") == "v0.1.0"


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("", "'' is not a version such as 1.2.3."),
        ("v0.2.0", "'v0.2.0' is not a version such as 1.2.3."),
        ("0.2", "'0.2' is not a version such as 1.2.3."),
        ("0.1.0", "0.1.0 is not newer than 0.1.0."),
        ("0.0.9", "0.0.9 is not newer than 0.1.0."),
    ],
)
def test_release_of_a_wrong_version_is_refused(
    run_release: Runner, version: str, reason: str
) -> None:
    process = run_release("make", version)
    assert (process.returncode, process.stderr) == (1, f"release: {reason}\n")


def test_release_with_uncommitted_files_is_refused(run_release: Runner, checkout: Path) -> None:
    (checkout / "new.py").touch()
    process = run_release("make", "0.2.0")
    assert process.returncode == 1
    assert process.stderr == "release: Commit or remove these changes first:\n?? new.py\n"


def test_release_from_another_branch_is_refused(run_release: Runner, checkout: Path) -> None:
    git(checkout, "switch", "--quiet", "--create", "fix")
    assert run_release("make", "0.2.0").stderr == (
        "release: Releases are made on main. The current branch is fix.\n"
    )


def test_release_without_an_entry_in_the_changelog_is_refused(run_release: Runner) -> None:
    assert run_release("make", "0.2.0").returncode == 0
    assert run_release("make", "0.3.0").stderr == (
        "release: CHANGELOG.md has nothing under [Unreleased].\n"
    )


def test_links_of_the_readme_are_absolute_on_pypi(run_release: Runner, checkout: Path) -> None:
    source = "https://example.com/ada/jobmon"
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout / name)
    assert run_release("links", source).returncode == 0
    text = (checkout / "README.md").read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert f"({source}/raw/v0.1.0/docs/overview.png)" in text
    assert f"({source}/blob/v0.1.0/docs/adapters.md)" in text
    assert f'Source = "{source}"\n' in (checkout / "pyproject.toml").read_text()


def test_chart_and_openapi_have_the_version_of_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert changelog.count("\n## [Unreleased]\n") == 1
    chart = yaml.safe_load((ROOT / "deploy/helm/jobmon/Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == jobmon.__version__
    openapi = json.loads((ROOT / "docs/openapi.json").read_text())
    assert openapi["info"]["version"] == jobmon.__version__


# Stands for `docker … IMAGE`: prints a digest that ends with 1 for node, and with 2 for python.
DOCKER = """#!/bin/sh
for image; do :; done
case $image in
    node:*) printf 'sha256:%064d' 1 ;;
    python:*) printf 'sha256:%064d' 2 ;;
    *) exit 1 ;;
esac
"""


def pin_bases(folder: Path, docker: str) -> Process:
    """Run .ci/pin_bases.py with a program `docker` that has this text."""
    write_program(folder / "programs/docker", docker)
    return subprocess.run(
        [sys.executable, str(ROOT / ".ci/pin_bases.py")],
        env=os.environ | {"PATH": f"{folder}/programs:{os.environ['PATH']}"},
        check=False,
        capture_output=True,
        text=True,
    )


def test_released_image_pins_every_base_image(tmp_path: Path) -> None:
    process = pin_bases(tmp_path, DOCKER)
    assert process.returncode == 0, process.stderr
    base_images = re.findall(r"^FROM .*?([\w./]+:\S+)", process.stdout, re.MULTILINE)
    assert len(base_images) > 2
    for base_image in base_images:
        digit = 1 if base_image.startswith("node") else 2
        assert base_image.endswith(f"@sha256:{digit:064}")
    unpinned = re.sub(r"@sha256:\d{64}", "", process.stdout)
    assert unpinned == (ROOT / "deploy/Dockerfile").read_text()


def test_base_image_without_a_digest_is_an_error(tmp_path: Path) -> None:
    process = pin_bases(tmp_path, "#!/bin/sh\necho no such manifest >&2\nexit 1\n")
    assert process.returncode == 1
    assert process.stdout == ""
    assert re.fullmatch(r"pin_bases: \S+: no digest: no such manifest\n", process.stderr)


def test_supported_versions_are_those_that_the_workflow_tests() -> None:
    jobs = yaml.safe_load((WORKFLOWS / "ci.yml").read_text())["jobs"]
    tested_versions = {
        "Python": jobs["python"]["strategy"]["matrix"]["python"],
        "MongoDB": jobs["mongodb"]["strategy"]["matrix"]["mongodb"],
    }
    page = (ROOT / "docs/versions.md").read_text()
    for name, versions in tested_versions.items():
        assert f"| {name} | {', '.join(versions)} |" in page
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: "
    supported = [text.removeprefix(prefix) for text in project["classifiers"] if prefix in text]
    assert supported == tested_versions["Python"]
    assert project["requires-python"] == f">={supported[0]}"


def test_install_commands_name_only_the_distribution_of_this_project() -> None:
    """Catches `pip install jobmon[…]` in a text: on PyPI anybody could register that name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("jobmon/**/*.py")]
    installed = {
        (name, path.name)
        for path in files
        for name in re.findall(r"pip(?:x)? install ['\"]?([\w.-]+)", path.read_text())
        if name not in (".", "pre-commit") and not name.startswith("-")
    }
    assert len(installed) > 1
    assert {name for name, _ in installed} == {project["name"]}
    with_extras = re.findall(r"[\w-]*jobmon\[", (ROOT / "pyproject.toml").read_text())
    assert set(with_extras) == {f"{project['name']}["}


def test_only_the_publishing_jobs_of_a_release_may_publish() -> None:
    """Catches a job that could publish before the tests pass. zizmor checks the other rights."""
    release, image = (
        yaml.safe_load((WORKFLOWS / name).read_text()) for name in ("release.yml", "image.yml")
    )
    assert release["permissions"] == image["permissions"] == {}
    jobs = release["jobs"]
    assert jobs["pypi"]["permissions"] == {"id-token": "write"}
    assert jobs["pypi"]["environment"] == "pypi"
    assert set(jobs["pypi"]["needs"]) == set(jobs["image"]["needs"]) == {"tests", "build"}
    assert image["jobs"]["image"]["permissions"] == jobs["image"]["permissions"]
    for right, name in (("packages", "image"), ("contents", "github")):
        writers = [key for key, job in jobs.items() if job["permissions"].get(right) == "write"]
        assert writers == [name]
