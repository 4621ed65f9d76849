"""Make a release: `make release VERSION=1.2.3`. Nothing is pushed.

    python .ci/release.py make 1.2.3     check, write, test, commit, tag and build a version
    python .ci/release.py notes 1.2.3    print the changelog of a version
    python .ci/release.py check v1.2.3   fail unless this checkout is that version and has its notes
    python .ci/release.py links URL      for PyPI: make the links of the README absolute

If a check or a test of `make` fails, it restores the tracked files and commits nothing.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHANGELOG = ROOT / "CHANGELOG.md"
PACKAGE = ROOT / "jobmon/__init__.py"
OPENAPI = ROOT / "docs/openapi.json"
CHART = ROOT / "deploy/helm/jobmon/Chart.yaml"
README = ROOT / "README.md"
PYPROJECT = ROOT / "pyproject.toml"

VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
VERSION_LINE = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
CHART_VERSION = re.compile(r"^((?:version|appVersion): ).+$", re.MULTILINE)
UNRELEASED = "## [Unreleased]\n"
RELATIVE_IMAGE = re.compile(r"!\[([^]]*)\]\((?!\w+:|#)([^)\s]+)\)")
RELATIVE_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")


class ReleaseError(Exception):
    """The release cannot be made; the message has the reason, in one or more lines."""


def current_version() -> str:
    """The version of this checkout."""
    match = VERSION_LINE.search(PACKAGE.read_text())
    if match is None:
        raise ReleaseError(f"{PACKAGE.relative_to(ROOT)} has no __version__.")
    return match[1]


def read_notes(version: str) -> str:
    """The section of a version in the changelog, without its heading."""
    heading = r"\[Unreleased\]" if version == "Unreleased" else rf"\[{re.escape(version)}\] - \S+"
    match = re.search(rf"^## {heading}\n(.*?)(?=^## \[|\Z)", CHANGELOG.read_text(), re.M | re.S)
    if match is None:
        raise ReleaseError(f"CHANGELOG.md has no section [{version}].")
    return match[1].strip()


def check_release(version: str) -> None:
    """Raise ReleaseError if this checkout cannot become the release of this version."""
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is not a version such as 1.2.3.")
    if changed := _run("git", "status", "--porcelain"):
        raise ReleaseError(f"Commit or remove these changes first:\n{changed}")
    branch = _run("git", "branch", "--show-current")
    if branch != "main":
        raise ReleaseError(f"Releases are made on main. The current branch is {branch or 'none'}.")
    tags = _run("git", "tag", "--list", "v*").split()
    released = [tag[1:] for tag in tags if VERSION.fullmatch(tag[1:])]
    newest_released = max(map(_parse_version, released), default=(-1,))
    parsed = _parse_version(version)
    if parsed <= newest_released or parsed < _parse_version(current_version()):
        newest = max([*released, current_version()], key=_parse_version)
        raise ReleaseError(f"{version} is not newer than {newest}.")
    if not read_notes("Unreleased"):
        raise ReleaseError("CHANGELOG.md has nothing under [Unreleased].")


def write_version(version: str) -> None:
    """Write the version into the package, the changelog, the chart, manifests and OpenAPI."""
    PACKAGE.write_text(VERSION_LINE.sub(f'__version__ = "{version}"', PACKAGE.read_text()))
    heading = f"{UNRELEASED}\n## [{version}] - {datetime.now(UTC):%Y-%m-%d}\n"
    CHANGELOG.write_text(CHANGELOG.read_text().replace(UNRELEASED, heading, 1))
    CHART.write_text(CHART_VERSION.sub(rf"\g<1>{version}", CHART.read_text()))
    OPENAPI.write_text(_run(sys.executable, "-m", "jobmon.cli", "openapi") + "\n")
    _run_visibly("make", "manifests")


@contextmanager
def restored_on_failure() -> Iterator[None]:
    """Undo changes of tracked files if the block fails or is interrupted."""
    try:
        yield
    except BaseException:
        _run("git", "checkout", "--quiet", "--", ".")
        raise


def make_release(version: str) -> None:
    """Check, test, commit, tag and build a version."""
    check_release(version)
    with restored_on_failure():
        write_version(version)
        for command in (("bash", ".ci/run"), ("make", "test-long")):
            _run_visibly(*command)
        _run("git", "commit", "--quiet", "--all", "--message", f"release: {version}")
    notes = f"jobmon {version}\n\n{read_notes(version)}\n"
    _run("git", "tag", "--annotate", "--cleanup=verbatim", "--file=-", f"v{version}", text=notes)
    _run_visibly("make", "dist")
    print(f"Made v{version}. To publish it: git push --atomic origin main v{version}")


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _run(*command: str, text: str = "") -> str:
    """The output of a command. Raises ReleaseError if it fails."""
    result = subprocess.run(
        command, cwd=ROOT, input=text, check=False, capture_output=True, text=True
    )
    if result.returncode:
        raise ReleaseError(f"{' '.join(command[:3])} failed: {result.stderr.strip()}")
    return result.stdout.strip()


def _run_visibly(*command: str) -> None:
    """Run a command and show its output. Raises ReleaseError if it fails."""
    print(f"$ {' '.join(command)}", flush=True)
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise ReleaseError(f"{' '.join(command)} failed with {code}: see above.")


def check_tag(tag: str) -> None:
    """Raise ReleaseError unless the tag is this checkout's version and the changelog has notes."""
    if tag != f"v{current_version()}":
        raise ReleaseError(f"The tag is {tag}, and this checkout is {current_version()}.")
    read_notes(current_version())


def write_links(source: str) -> None:
    """Make the README's relative links absolute, and add the project's links, for PyPI's page.

    `source` is the repository's URL. `release.yml` runs this before the build.
    """
    tag = f"v{current_version()}"
    text = README.read_text()
    text = RELATIVE_IMAGE.sub(rf"![\1]({source}/raw/{tag}/\2)", text)
    README.write_text(RELATIVE_LINK.sub(rf"]({source}/blob/{tag}/\1)", text))
    urls = f'Source = "{source}"\nChangelog = "{source}/blob/{tag}/CHANGELOG.md"\n'
    project = PYPROJECT.read_text()
    PYPROJECT.write_text(
        project.replace("[project.scripts]", f"[project.urls]\n{urls}\n[project.scripts]", 1)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=["make", "notes", "check", "links"])
    parser.add_argument("value", help="a version, a tag for `check`, a URL for `links`")
    options = parser.parse_args()
    try:
        match options.action:
            case "make":
                make_release(options.value)
            case "notes":
                print(read_notes(options.value))
            case "check":
                check_tag(options.value)
            case _:
                write_links(options.value)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
